//! The way of a message onto the disk: what a 250 stands on.

use super::draft::{self, Content, Draft};
use super::message::{Message, SpoolError};
use super::record::Row;
use super::{Spool, Ticket, spool_error};
use crate::journal::large::{BodyFile, Incoming};
use crate::journal::{Job, JournalError, Kind};
use crate::mail::QueueId;
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

/// How long a session waits for the disk. What it stands for may still be written: then the client, told 451, brings the
/// message once more (at least once, product.md 9), and nobody hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// Proof that a message is on disk.
#[derive(Debug)]
pub struct Stored {
    id: QueueId,
}

impl Stored {
    /// Its queue id.
    #[must_use]
    pub fn id(&self) -> QueueId {
        self.id
    }
}

/// A message on its way to the disk, and whom to tell.
#[derive(Debug)]
pub(super) struct Accepting {
    pub(super) message: Arc<Message>,
    pub(super) body: Bytes,
    pub(super) large: bool,
    /// Octets of memory, roughly: bytes and description.
    pub(super) cost: usize,
    pub(super) answer: oneshot::Sender<Result<(), SpoolError>>,
    _room: OwnedSemaphorePermit,
}

impl Spool {
    /// Keeps message and bytes durably; returns after the fdatasync that covered them.
    ///
    /// # Errors
    /// Nothing was kept.
    pub async fn accept(&self, draft: Draft, message: Message) -> Result<Stored, SpoolError> {
        self.ready()?;
        let id = message.id;
        let (body, file) = match draft.content {
            Content::Memory(mut bytes) => {
                bytes.shrink_to_fit();
                (Bytes::from(bytes), None)
            }
            Content::File(incoming) => {
                let file = keep_file(*incoming, draft.gathered, id).await;
                let file =
                    file.inspect_err(|error| draft::failed(&self.0.metrics.store_failures, error))?;
                (Bytes::new(), Some(file))
            }
            Content::Moving => {
                return Err(SpoolError::Failing(
                    "a write of the body was cut short".to_owned(),
                ));
            }
        };
        match self.commit(message, body, file).await {
            Ok(()) => Ok(Stored { id }),
            Err(Refused::ByJournal(error)) => Err(error),
            Err(Refused::Before(error)) => {
                if file.is_some() {
                    let bodies = self.0.bodies.clone();
                    let removed =
                        tokio::task::spawn_blocking(move || bodies.remove(id.as_u64())).await;
                    if removed.is_err() {
                        tracing::warn!(%id, "a refused body stays until the next start");
                    }
                }
                Err(error)
            }
        }
    }

    async fn commit(
        &self,
        message: Message,
        body: Bytes,
        file: Option<BodyFile>,
    ) -> Result<(), Refused> {
        let before = |error| Refused::Before(spool_error(error));
        let meta = serde_json::to_vec(&Row::of(&message, file))
            .map_err(|error| Refused::Before(SpoolError::Failing(error.to_string())))?;
        let octets = meta.len() + body.len();
        if octets > self.0.journal.largest_record() {
            return Err(before(JournalError::Failing(format!(
                "an envelope of {octets} octets is more than the journal takes"
            ))));
        }
        let room = tokio::time::timeout(PATIENCE, self.0.journal.room(octets));
        let room = room.await.map_err(|_| before(stuck()))?.map_err(before)?;
        let (answer, answered) = oneshot::channel();
        let accepting = Accepting {
            message: Arc::new(message),
            body: body.clone(),
            large: file.is_some(),
            cost: body.len() + 2 * meta.len() + 256,
            answer,
            _room: room,
        };
        self.0.journal.push(Job {
            kind: Kind::Message,
            meta,
            body,
            ticket: Some(Ticket::Accept(Box::new(accepting))),
            may_use_reserve: false,
        });
        // From here on the record may be on disk whatever becomes of this wait.
        let by_journal = |error| Refused::ByJournal(spool_error(error));
        tokio::time::timeout(PATIENCE, answered)
            .await
            .map_err(|_| by_journal(stuck()))?
            .map_err(|_| by_journal(JournalError::Closed))?
            .map_err(Refused::ByJournal)
    }
}

/// A message that was not kept.
enum Refused {
    /// Nothing of it was handed to the journal.
    Before(SpoolError),
    /// Its record may be, or become, readable; the keeper sees to its body.
    ByJournal(SpoolError),
}

fn stuck() -> JournalError {
    JournalError::Failing("the disk does not answer".to_owned())
}

async fn keep_file(
    mut incoming: Incoming,
    rest: Vec<u8>,
    id: QueueId,
) -> Result<BodyFile, SpoolError> {
    let kept = tokio::task::spawn_blocking(move || {
        incoming.write(&rest)?;
        incoming.keep(id.as_u64())
    });
    kept.await
        .map_err(|error| SpoolError::Failing(error.to_string()))?
        .map_err(spool_error)
}
