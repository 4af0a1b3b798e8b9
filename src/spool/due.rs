//! Leased work: a leg of a message and up to 100 of its recipients.

use super::message::{Destination, Leg, Message, SpoolError};
use super::queue::Lease;
use super::{Inner, Spool, spool_error};
use crate::journal::{JournalError, Location};
use bytes::Bytes;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

/// Octets of a large body that are read at once.
const PIECE: usize = 256 * 1024;

/// Work that is due, leased to the holder until settled or dropped.
#[derive(Debug)]
pub struct Due {
    message: Arc<Message>,
    destination: Destination,
    lease: Lease,
    body: Body,
    /// The whole rendition of a body in memory, made once.
    rendered: OnceLock<Bytes>,
    holding: Holding,
}

/// Where the arrival bytes are.
#[derive(Clone, Debug)]
pub(super) enum Body {
    Memory(Bytes),
    Journal(Location),
    File(PathBuf),
}

/// The lease: given back when dropped.
#[derive(Debug)]
pub(super) struct Holding {
    pub(super) spool: Spool,
    pub(super) id: u64,
    pub(super) leg: u8,
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
            rendered: OnceLock::new(),
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
        self.message
            .legs
            .get(usize::from(self.lease.leg))
            .unwrap_or(&NONE)
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

    /// When the first hold of these recipients began (milliseconds since 1970), if they are held.
    #[must_use]
    pub fn held_since(&self) -> Option<u64> {
        self.lease.held_since
    }

    /// The reply of the last attempt.
    #[must_use]
    pub fn last_reply(&self) -> Option<&str> {
        self.lease.last_reply.as_deref()
    }

    /// Ends the lease without giving it back.
    pub(super) fn release(&mut self) -> (u64, u8) {
        self.holding.settled = true;
        (self.lease.id, self.lease.leg)
    }

    pub(super) async fn read(&self, inner: &Arc<Inner>, offset: u64) -> Result<Bytes, SpoolError> {
        let rendered = match (self.rendered.get(), &self.body) {
            (Some(rendered), _) => rendered.clone(),
            (None, Body::Memory(body)) => self.render(body),
            (None, Body::Journal(location)) => {
                let (inner, location) = (Arc::clone(inner), *location);
                let read = tokio::task::spawn_blocking(move || inner.journal.read_body(location));
                let body = read
                    .await
                    .map_err(|error| SpoolError::Failing(error.to_string()))?;
                self.render(&body.map_err(|error| self.fault(error))?)
            }
            (None, Body::File(path)) => return self.piece(path.clone(), offset).await,
        };
        let at = usize::try_from(offset)
            .unwrap_or(usize::MAX)
            .min(rendered.len());
        Ok(rendered.slice(at..))
    }

    fn render(&self, body: &[u8]) -> Bytes {
        self.rendered
            .get_or_init(|| Bytes::from(self.leg().rendition.apply(body)))
            .clone()
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

    /// The next piece of a large body's rendition.
    async fn piece(&self, path: PathBuf, offset: u64) -> Result<Bytes, SpoolError> {
        let rendition = &self.leg().rendition;
        let top = rendition.prepend.len() as u64;
        if offset < top {
            let at = usize::try_from(offset).unwrap_or(usize::MAX);
            return Ok(Bytes::copy_from_slice(
                rendition.prepend.get(at..).unwrap_or_default(),
            ));
        }
        // From the rendition's offset to the arrival's, and up to the next range that is left out.
        let mut at = offset - top;
        let mut end = self.message.facts.size;
        for range in &rendition.omit {
            if range.start <= at {
                at += range.end - range.start;
            } else {
                end = range.start;
                break;
            }
        }
        let wanted = usize::try_from(end.saturating_sub(at))
            .unwrap_or(PIECE)
            .min(PIECE);
        if wanted == 0 {
            return Ok(Bytes::new());
        }
        let id = self.message.id;
        let read = tokio::task::spawn_blocking(move || {
            let mut piece = vec![0; wanted];
            std::fs::File::open(path)?.read_exact_at(&mut piece, at)?;
            Ok::<_, std::io::Error>(piece)
        });
        let piece = read
            .await
            .map_err(|error| SpoolError::Failing(error.to_string()))?;
        match piece {
            Ok(piece) => Ok(Bytes::from(piece)),
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                Err(SpoolError::Corrupt { id })
            }
            Err(error) => Err(SpoolError::Failing(error.to_string())),
        }
    }
}
