//! Leased work: a leg of a message and up to 100 of its recipients.

use super::message::{Destination, Leg, Message, SpoolError};
use super::queue::Lease;
use super::{Inner, Spool, spool_error};
use crate::header::{Source, without_stamp};
use crate::journal::JournalError;
use crate::journal::large::BodyFile;
use bytes::Bytes;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// Octets of a large body that are read at once.
const PIECE: u64 = 256 * 1024;

/// Octets of a body in memory that are handed out at once: who sends them sees progress after each.
const SLICE: usize = 64 * 1024;

/// Octets left out that are read all the same, for the checksum: header fields, never more than a header section.
const SKIPPED: u64 = 512 * 1024;

/// Work that is due, leased to the holder until settled or dropped.
#[derive(Debug)]
pub struct Due {
    message: Arc<Message>,
    destination: Destination,
    lease: Lease,
    body: Body,
    /// The arrival bytes of a body that lies in the journal, read once.
    fetched: OnceLock<Bytes>,
    checked: Mutex<Checked>,
    holding: Holding,
}

/// How far a large body was read in order, and the checksum so far.
#[derive(Clone, Debug, Default)]
struct Checked {
    next: u64,
    crc: crc32fast::Hasher,
}

/// Where the arrival bytes are.
#[derive(Clone, Debug)]
pub(super) enum Body {
    Memory(Bytes),
    Journal,
    File(PathBuf, BodyFile),
}

/// The lease: given back when dropped.
#[derive(Debug)]
pub(super) struct Holding {
    pub(super) spool: Spool,
    pub(super) id: u64,
    pub(super) leg: u16,
    pub(super) settled: bool,
}

impl Drop for Holding {
    fn drop(&mut self) {
        if !self.settled {
            self.spool.finish(self.id, self.leg, Vec::new(), false);
        }
    }
}

impl Due {
    pub(super) fn new(
        message: Arc<Message>,
        destination: Destination,
        lease: Lease,
        body: Body,
        holding: Holding,
    ) -> Self {
        Self {
            message,
            destination,
            lease,
            body,
            fetched: OnceLock::new(),
            checked: Mutex::default(),
            holding,
        }
    }

    /// The message.
    #[must_use]
    pub fn message(&self) -> &Message {
        &self.message
    }

    /// The leg.
    #[must_use]
    pub fn leg(&self) -> &Leg {
        static NONE: Leg = Leg {
            via: crate::route::Via::Exchange,
            rendition: crate::header::Rendition {
                prepend: Vec::new(),
                omit: Vec::new(),
            },
            xoorg: None,
            recipients: Vec::new(),
        };
        self.message.legs.get(self.lease.row).unwrap_or(&NONE)
    }

    /// Recipients to try now (positions in the envelope), at most 100, in order.
    #[must_use]
    pub fn recipients(&self) -> &[usize] {
        &self.lease.recipients
    }

    /// Attempts so far that count.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.lease.attempts
    }

    /// The queue it was taken from.
    #[must_use]
    pub fn destination(&self) -> &Destination {
        &self.destination
    }

    /// When it arrived (milliseconds since 1970, by the clock as it is now: what [`Self::message`] says is by the clock as it
    /// was then).
    #[must_use]
    pub fn arrived(&self) -> u64 {
        self.lease.arrived
    }

    /// When the first hold of these recipients began (milliseconds since 1970), if they are held.
    #[must_use]
    pub fn held_since(&self) -> Option<u64> {
        self.lease.held_since
    }

    /// The reply of the last attempt for the recipient at `position` in the envelope.
    #[must_use]
    pub fn last_reply(&self, position: usize) -> Option<&str> {
        let mut recipients = self.lease.recipients.iter();
        let at = recipients.position(|other| *other == position)?;
        self.lease.last_replies.get(at)?.as_deref()
    }

    /// The form that goes to the tenant's host without certificate: no internal stamp, which Exchange takes from nobody who
    /// has not shown one.
    pub(super) fn without_stamp(mut self) -> Self {
        for leg in &mut Arc::make_mut(&mut self.message).legs {
            leg.rendition.prepend = without_stamp(&leg.rendition.prepend);
            leg.xoorg = None;
        }
        self
    }

    /// Ends the lease without giving it back.
    pub(super) fn release(&mut self) -> (u64, u16) {
        self.holding.settled = true;
        (self.lease.id, self.lease.leg)
    }

    pub(super) async fn read(&self, inner: &Arc<Inner>, offset: u64) -> Result<Bytes, SpoolError> {
        let body = match (self.fetched.get(), &self.body) {
            (Some(body), _) | (None, Body::Memory(body)) => body,
            (None, Body::Journal) => {
                let (inner, id) = (Arc::clone(inner), self.lease.id);
                let read = tokio::task::spawn_blocking(move || {
                    inner.read_where_it_lies(id, |location| inner.journal.read_body(location))
                });
                let body = read
                    .await
                    .map_err(|error| SpoolError::Failing(error.to_string()))?;
                let body = body.map_err(|error| self.fault(error))?;
                self.fetched.get_or_init(|| Bytes::from(body))
            }
            (None, Body::File(path, file)) => return self.piece(path.clone(), *file, offset).await,
        };
        Ok(
            match self.leg().rendition.source(offset, body.len() as u64) {
                Source::Top(from) => self.top(from),
                Source::Arrival(range) => {
                    let at = |position| usize::try_from(position).unwrap_or(usize::MAX);
                    let start = at(range.start).min(body.len());
                    let end = at(range.end).min(body.len()).min(start + SLICE);
                    body.slice(start..end.max(start))
                }
            },
        )
    }

    fn top(&self, from: usize) -> Bytes {
        let top = &self.leg().rendition.prepend;
        Bytes::copy_from_slice(top.get(from..).unwrap_or_default())
    }

    fn fault(&self, error: JournalError) -> SpoolError {
        match error {
            JournalError::Corrupt => SpoolError::Corrupt {
                id: self.message.id,
            },
            other @ (JournalError::Full
            | JournalError::Failing(_)
            | JournalError::Locked
            | JournalError::Closed) => spool_error(other),
        }
    }

    /// The next piece of a large body's rendition. Who reads it in order, from the top, is not given the last piece where
    /// the body on disk is not the one that arrived.
    async fn piece(&self, path: PathBuf, file: BodyFile, offset: u64) -> Result<Bytes, SpoolError> {
        let rendition = &self.leg().rendition;
        let (at, end) = match rendition.source(offset, file.length) {
            Source::Top(from) => return Ok(self.top(from)),
            Source::Arrival(range) if range.is_empty() => return Ok(Bytes::new()),
            Source::Arrival(range) => (range.start, range.end),
        };
        let until = end.min(at + PIECE);
        let is_last = until + omitted_from(&rendition.omit, until) >= file.length;
        let first = offset == rendition.prepend.len() as u64;
        let mut checked = {
            let mut kept = self.checked.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *kept)
        };
        if first {
            checked = Checked::default();
        }
        let in_order = checked.next <= at && at - checked.next <= SKIPPED;
        let from = if in_order { checked.next } else { at };
        let to = if is_last { file.length } else { until };
        let read = tokio::task::spawn_blocking(move || {
            let mut octets = vec![0; usize::try_from(to - from).unwrap_or_default()];
            std::fs::File::open(path)?.read_exact_at(&mut octets, from)?;
            Ok::<_, std::io::Error>(octets)
        });
        let read = read
            .await
            .map_err(|error| SpoolError::Failing(error.to_string()))?;
        let id = self.message.id;
        let octets = read.map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::NotFound => {
                SpoolError::Corrupt { id }
            }
            _ => SpoolError::Failing(error.to_string()),
        })?;
        if in_order {
            checked.crc.update(&octets);
            checked.next = to;
            if is_last && checked.crc.clone().finalize() != file.crc {
                return Err(SpoolError::Corrupt { id });
            }
            *self.checked.lock().unwrap_or_else(PoisonError::into_inner) = checked;
        }
        let inside = |position: u64| usize::try_from(position - from).unwrap_or(usize::MAX);
        Ok(Bytes::from(octets).slice(inside(at)..inside(until)))
    }
}

/// Octets left out in one run from `position` on.
fn omitted_from(omit: &[std::ops::Range<u64>], position: u64) -> u64 {
    let mut end = position;
    for range in omit.iter().filter(|range| range.end > position) {
        if range.start > end {
            break;
        }
        end = range.end;
    }
    end - position
}
