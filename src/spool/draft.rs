//! Content on its way in: memory while small, a file of its own once large; gone when dropped.
//!
//! A thousand sessions may each have almost [`LARGE`] in hand, and may take their time. All drafts together have
//! [`ALL_DRAFTS`] of memory; beyond that one gets its file as soon as it is more than [`SMALL`].

use super::{SpoolError, spool_error};
use crate::journal::large::{Bodies, Incoming, LARGE};
use bytes::Bytes;
use prometheus::IntCounterVec;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Memory for all drafts together, beside that for small ones.
const ALL_DRAFTS: usize = 64 * 1024 * 1024;
/// A draft that may be in memory whatever the others have.
const SMALL: usize = 16 * 1024;
/// Octets of a large body that are gathered before a blocking thread is asked to write them.
const PIECE: usize = 64 * 1024;
/// How many times what has come is made room for, where more was announced: whoever announces much and sends little has
/// no more than this of the memory for all.
const AHEAD: usize = 8;

/// Bytes of a message that nothing has promised to keep yet.
#[derive(Debug)]
pub struct Draft {
    bodies: Bodies,
    pub(super) content: Content,
    /// What is still to be written behind a large body.
    pub(super) gathered: Vec<u8>,
    /// Octets that were announced, [`LARGE`] at most; 0 where nothing was.
    announced: usize,
    share: Share,
    failures: IntCounterVec,
}

/// A large body that could not be written, which no other part of the store knows of.
pub(super) fn failed(failures: &IntCounterVec, error: &SpoolError) {
    let is_full = matches!(error, SpoolError::Full);
    let operation = if is_full { "full" } else { "write" };
    tracing::error!(%error, "a large message cannot be written");
    failures.with_label_values(&[operation]).inc();
}

/// What a draft has of the memory for all.
#[derive(Debug)]
struct Share {
    all: Arc<AtomicUsize>,
    own: usize,
}

impl Share {
    /// Takes what is missing to `octets`; whether there was as much.
    fn grow_to(&mut self, octets: usize) -> bool {
        let more = octets.saturating_sub(self.own);
        let before = self.all.fetch_add(more, Ordering::Relaxed);
        self.own += more;
        before + more <= ALL_DRAFTS
    }

    /// Whether half of it is free: room for what was only announced.
    fn has_plenty(&self) -> bool {
        self.all.load(Ordering::Relaxed) <= ALL_DRAFTS / 2
    }

    fn give_back(&mut self) {
        self.all.fetch_sub(self.own, Ordering::Relaxed);
        self.own = 0;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.give_back();
    }
}

#[derive(Debug)]
pub(super) enum Content {
    Memory(Vec<u8>),
    File(Box<Incoming>),
    /// A write is under way, or was given up.
    Moving,
}

impl Draft {
    /// `all` counts the octets of all drafts in memory, `failures` what could not be written.
    pub(super) fn new(bodies: Bodies, all: Arc<AtomicUsize>, failures: IntCounterVec) -> Self {
        Self {
            bodies,
            content: Content::Memory(Vec::new()),
            gathered: Vec::new(),
            announced: 0,
            share: Share { all, own: 0 },
            failures,
        }
    }

    /// So many octets were announced (SIZE=, RFC 1870 §6.1): a hint, and never taken for more. Room is made in few steps, so that
    /// what has come is not copied again and again as it grows.
    #[must_use]
    pub fn announced(mut self, octets: u64) -> Self {
        self.announced = usize::try_from(octets).unwrap_or(LARGE).min(LARGE);
        self
    }

    /// Makes room for `more`, and for what else was announced.
    fn make_room(kept: &mut Vec<u8>, more: usize, announced: usize, share: &mut Share) {
        let needed = kept.len() + more;
        let ahead = needed.saturating_mul(AHEAD).min(announced);
        if needed > kept.capacity() && ahead > needed && share.has_plenty() {
            share.grow_to(ahead);
            kept.reserve_exact(ahead - kept.len());
        }
    }

    /// Appends arrival bytes. Small ones stay in memory; a large body goes to its file on a blocking thread.
    ///
    /// # Errors
    /// The disk is full or failing.
    pub async fn append(&mut self, bytes: Bytes) -> Result<(), SpoolError> {
        let in_memory = match &self.content {
            Content::Memory(kept) => kept.len(),
            Content::File(_) | Content::Moving => self.gathered.len(),
        };
        let granted = self.share.grow_to(in_memory + bytes.len());
        match &mut self.content {
            Content::Memory(kept)
                if kept.len() + bytes.len() <= LARGE
                    && (granted || kept.len() + bytes.len() <= SMALL) =>
            {
                Self::make_room(kept, bytes.len(), self.announced, &mut self.share);
                // Copied: `bytes` may be a corner of a large read buffer, which a queued message would keep alive.
                kept.extend_from_slice(&bytes);
                return Ok(());
            }
            Content::File(_) if granted && self.gathered.len() + bytes.len() <= PIECE => {
                if self.gathered.is_empty() {
                    self.gathered.reserve_exact(PIECE);
                }
                self.gathered.extend_from_slice(&bytes);
                return Ok(());
            }
            Content::Memory(_) | Content::File(_) | Content::Moving => {}
        }
        let content = std::mem::replace(&mut self.content, Content::Moving);
        let gathered = std::mem::take(&mut self.gathered);
        let bodies = self.bodies.clone();
        let written = tokio::task::spawn_blocking(move || {
            let incoming = match content {
                Content::Memory(kept) => {
                    let mut incoming = Box::new(bodies.create()?);
                    incoming.write(&kept)?;
                    incoming.write(&bytes)?;
                    incoming
                }
                Content::File(mut incoming) => {
                    incoming.write(&gathered)?;
                    incoming.write(&bytes)?;
                    incoming
                }
                Content::Moving => return Err(crate::journal::JournalError::Closed),
            };
            Ok(incoming)
        });
        let incoming = written
            .await
            .map_err(|error| SpoolError::Failing(error.to_string()))?;
        let incoming = incoming.map_err(spool_error);
        let incoming = incoming.inspect_err(|error| failed(&self.failures, error))?;
        self.content = Content::File(incoming);
        self.share.give_back();
        Ok(())
    }

    /// The bytes so far, once more in memory: the caller sees to it that there is room.
    ///
    /// # Errors
    /// The disk is failing, or a write has failed before.
    pub async fn read_back(&self) -> Result<Vec<u8>, SpoolError> {
        let incoming = match &self.content {
            Content::Memory(kept) => return Ok(kept.clone()),
            Content::File(incoming) => incoming,
            Content::Moving => return Err(spool_error(crate::journal::JournalError::Closed)),
        };
        let mut octets = tokio::task::spawn_blocking(incoming.read_back())
            .await
            .map_err(|error| SpoolError::Failing(error.to_string()))?
            .map_err(spool_error)?;
        octets.extend_from_slice(&self.gathered);
        Ok(octets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::disk::RealDisk;
    use crate::metrics::Metrics;
    use crate::spool::tests::stepped::{Kept, Sick};
    use std::sync::Arc;

    fn failures() -> IntCounterVec {
        Metrics::new().unwrap().store_failures
    }

    #[tokio::test]
    async fn a_large_body_that_finds_no_space_is_counted_though_nothing_else_notices() {
        for (sick, operation) in [(Sick::Full, "full"), (Sick::Writes, "write")] {
            let folder = tempfile::tempdir().unwrap();
            let disk = Kept::default();
            let bodies = Bodies::new(folder.path().to_owned(), Arc::new(disk.clone()));
            let failures = failures();
            let mut draft = Draft::new(bodies, Arc::default(), failures.clone());
            disk.is(Some(sick));
            let piece = Bytes::from(vec![b'x'; LARGE]);
            draft.append(piece.clone()).await.unwrap();
            assert!(draft.append(piece).await.is_err());
            let count = failures.with_label_values(&[operation]).get();
            assert_eq!(count, 1, "{operation}");
        }
    }

    #[tokio::test]
    async fn a_draft_reads_back_from_memory_and_from_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let bodies = Bodies::new(folder.path().to_owned(), Arc::new(RealDisk));
        let all: Arc<AtomicUsize> = Arc::default();
        let mut draft = Draft::new(bodies, Arc::clone(&all), failures());
        let small: Vec<u8> = (0..LARGE).map(|number| (number % 251) as u8).collect();
        draft.append(Bytes::from(small.clone())).await.unwrap();
        assert!(matches!(draft.content, Content::Memory(_)));
        assert_eq!(draft.read_back().await.unwrap(), small);
        draft.append(Bytes::from_static(b"more")).await.unwrap();
        assert!(matches!(draft.content, Content::File(_)));
        assert_eq!(
            draft.read_back().await.unwrap(),
            [&small[..], b"more"].concat()
        );
        assert_eq!(all.load(Ordering::Relaxed), 0, "a file takes no memory");
        let mut expected = [&small[..], b"more"].concat();
        for size in [1, 1000, PIECE - 1000, 2 * PIECE, 7] {
            draft.append(vec![size as u8; size].into()).await.unwrap();
            expected.resize(expected.len() + size, size as u8);
            assert_eq!(draft.read_back().await.unwrap(), expected);
            assert!(all.load(Ordering::Relaxed) <= PIECE, "a piece at most");
        }
    }

    #[tokio::test]
    async fn a_first_piece_that_memory_does_not_take_goes_to_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let bodies = Bodies::new(folder.path().to_owned(), Arc::new(RealDisk));
        let all = Arc::new(AtomicUsize::new(ALL_DRAFTS));
        let piece = Bytes::from(vec![b'x'; SMALL + 1]);
        let mut draft = Draft::new(bodies, all, failures());
        draft.append(piece.clone()).await.unwrap();
        assert!(matches!(draft.content, Content::File(_)));
        assert_eq!(draft.read_back().await.unwrap(), piece);
    }

    #[tokio::test]
    async fn room_is_made_for_what_was_announced_and_never_for_more_than_eight_times_what_came() {
        let folder = tempfile::tempdir().unwrap();
        let bodies = Bodies::new(folder.path().to_owned(), Arc::new(RealDisk));
        let all: Arc<AtomicUsize> = Arc::default();
        let room = |draft: &Draft| match &draft.content {
            Content::Memory(kept) => kept.capacity(),
            Content::File(_) | Content::Moving => 0,
        };
        let piece = Bytes::from(vec![b'x'; 1000]);
        for (announced, first, then) in [
            (0, 1000, 2000),
            (500, 1000, 2000),
            (5000, 5000, 5000),
            (LARGE as u64, 8000, 8000),
            (u64::MAX, 8000, 8000),
        ] {
            let mut draft =
                Draft::new(bodies.clone(), Arc::clone(&all), failures()).announced(announced);
            assert_eq!(room(&draft), 0, "nothing for nothing");
            draft.append(piece.clone()).await.unwrap();
            assert_eq!(room(&draft), first, "{announced}");
            assert_eq!(all.load(Ordering::Relaxed), first, "{announced}: counted");
            draft.append(piece.clone()).await.unwrap();
            assert_eq!(room(&draft), then, "{announced}");
            // What was announced wrong is taken all the same.
            for _ in 0..8 {
                draft.append(piece.clone()).await.unwrap();
            }
            assert_eq!(draft.read_back().await.unwrap(), vec![b'x'; 10_000]);
            assert!(all.load(Ordering::Relaxed) >= 10_000);
            drop(draft);
            assert_eq!(all.load(Ordering::Relaxed), 0, "given back");
        }
        // Where others have most of the memory, nothing is taken ahead.
        all.store(ALL_DRAFTS / 2 + 1, Ordering::Relaxed);
        let mut draft = Draft::new(bodies, Arc::clone(&all), failures()).announced(LARGE as u64);
        draft.append(piece).await.unwrap();
        assert_eq!(room(&draft), 1000);
    }

    #[tokio::test]
    async fn many_slow_drafts_have_a_bound_together() {
        let folder = tempfile::tempdir().unwrap();
        let bodies = Bodies::new(folder.path().to_owned(), Arc::new(RealDisk));
        let all: Arc<AtomicUsize> = Arc::default();
        let piece = Bytes::from(vec![b'x'; SMALL]);
        let mut drafts = Vec::new();
        for _ in 0..100 {
            let mut draft = Draft::new(bodies.clone(), Arc::clone(&all), failures());
            for _ in 0..LARGE / SMALL - 1 {
                draft.append(piece.clone()).await.unwrap();
            }
            drafts.push(draft);
        }
        let of = |drafts: &[Draft]| {
            let kept = drafts.iter().map(|draft| match &draft.content {
                Content::Memory(kept) => kept.len(),
                Content::File(_) | Content::Moving => 0,
            });
            kept.sum::<usize>()
        };
        let whole = (LARGE / SMALL - 1) * SMALL;
        assert!((ALL_DRAFTS - whole..=ALL_DRAFTS).contains(&of(&drafts)));
        // Small mail is in memory all the same, and the file of a large one holds what it should.
        let mut small = Draft::new(bodies, Arc::clone(&all), failures());
        small.append(piece.clone()).await.unwrap();
        assert!(matches!(small.content, Content::Memory(_)));
        let last = drafts.last().unwrap();
        assert!(matches!(last.content, Content::File(_)));
        assert_eq!(last.read_back().await.unwrap(), vec![b'x'; whole]);
        drop(drafts);
        drop(small);
        assert_eq!(all.load(Ordering::Relaxed), 0, "given back");
    }
}
