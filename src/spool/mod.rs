//! What a 250 promised, and what became of it: accept, due, settle, hold, scan.
//!
//! The journal is the truth; due work is in memory. [`Spool::accept`] is the only maker of [`Stored`], and the session
//! says 250 to the end of data only when it is handed one.

mod accept;
mod draft;
mod due;
mod keeper;
mod late;
mod lease;
mod list;
mod memory;
mod message;
mod orders;
mod queue;
mod record;
pub mod records;
mod replay;
mod tally;

pub use accept::Stored;
pub use draft::Draft;
pub use due::Due;
pub use late::{Late, Patience, Waiting};
pub use message::{
    Acted, Destination, Disposition, HeldBefore, Leg, Listed, Message, QueueAction, SpoolError,
    Told,
};

use crate::journal::disk::{Disk, RealDisk};
use crate::journal::large::Bodies;
use crate::journal::{self, Committer, Journal, JournalError, Location, Ticketed};
use crate::metrics::Metrics;
use accept::Accepting;
use keeper::Keeper;
use memory::Memory;
use replay::Replay;
use std::path::Path;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use tokio::sync::Notify;

/// The store: cheap to clone.
#[derive(Clone, Debug)]
pub struct Spool(Arc<Inner>);

/// What goes on behind a store, each on a thread of its own: the journal's writing, and the giving back of space.
struct Hands {
    committer: Committer<Ticket>,
    keeper: Keeper,
}

#[derive(Debug)]
struct Inner {
    journal: Journal<Ticket>,
    shared: Arc<Shared>,
    bodies: Bodies,
    /// Octets of all drafts in memory.
    drafts: Arc<AtomicUsize>,
    metrics: Metrics,
    keeper: keeper::Wake,
    keeping: Mutex<Option<JoinHandle<()>>>,
}

/// What the committer's thread sees, too.
#[derive(Debug, Default)]
struct Shared {
    memory: Mutex<Memory>,
    changed: Notify,
}

/// What comes back from the committer.
#[derive(Debug)]
enum Ticket {
    Accept(Box<Accepting>),
    /// A record was copied forward from a segment that is to be deleted.
    Copy {
        id: u64,
        from: Location,
    },
}

impl Shared {
    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Called on the committer's thread once a batch is on disk, or has failed. A message is queued here, and not where
    /// its session waits: a session that is gone by then changes nothing.
    fn answered(&self, tickets: Vec<Ticketed<Ticket>>, keeper: &keeper::Wake, failures: &Metrics) {
        let mut answers = Vec::with_capacity(tickets.len());
        let mut queued = false;
        {
            let mut memory = self.memory();
            for (ticket, result) in tickets {
                match (ticket, result) {
                    (Ticket::Accept(accepting), Ok(location)) => {
                        memory.insert(&accepting, location);
                        queued = true;
                        answers.push((accepting, Ok(())));
                    }
                    (Ticket::Accept(accepting), Err(error)) => {
                        failures.store_failures.with_label_values(&["accept"]).inc();
                        keeper.refused(accepting.message.id.as_u64(), accepting.large);
                        answers.push((accepting, Err(spool_error(error))));
                    }
                    (Ticket::Copy { id, from }, Ok(location)) => {
                        match memory.queue.entries.get_mut(&id) {
                            Some(entry) if entry.location == from => {
                                entry.location = location;
                                keeper.copied(Some(from));
                            }
                            _ => keeper.copied(Some(location)),
                        }
                    }
                    (Ticket::Copy { .. }, Err(_)) => keeper.copied(None),
                }
            }
        }
        if queued {
            self.changed.notify_one();
        }
        for (accepting, result) in answers {
            if accepting.answer.send(result).is_err() {
                tracing::debug!(id = %accepting.message.id, "the session is gone, its message is kept");
            }
        }
    }
}

fn spool_error(error: JournalError) -> SpoolError {
    match error {
        JournalError::Full => SpoolError::Full,
        JournalError::Failing(why) => SpoolError::Failing(why),
        JournalError::Locked => SpoolError::Locked,
        JournalError::Closed => SpoolError::Closed,
        JournalError::Corrupt => SpoolError::Failing("a record is damaged".to_owned()),
    }
}

impl Spool {
    /// Opens (and replays) the journal in `directory`, made 0700 where it is missing.
    ///
    /// # Errors
    /// Locked by another process, or the disk fails.
    pub fn open(directory: &Path, metrics: &Metrics) -> Result<Self, SpoolError> {
        Self::open_on(directory, Arc::new(RealDisk), journal::SEGMENT, metrics)
    }

    /// [`Self::open`] on another disk, with segments of another size (octets).
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_on(
        directory: &Path,
        disk: Arc<dyn Disk>,
        segment: u64,
        metrics: &Metrics,
    ) -> Result<Self, SpoolError> {
        let (spool, Hands { committer, keeper }) =
            Self::with_hands(directory, disk, segment, metrics)?;
        spool.0.journal.run(committer).map_err(spool_error)?;
        let keeping =
            keeper::start(keeper).map_err(|error| SpoolError::Failing(error.to_string()))?;
        journal::locked(&spool.0.keeping).replace(keeping);
        Ok(spool)
    }

    /// The store, and what its threads do; [`Self::open_on`] gives it threads, a test does it in an order of its own.
    fn with_hands(
        directory: &Path,
        disk: Arc<dyn Disk>,
        segment: u64,
        metrics: &Metrics,
    ) -> Result<(Self, Hands), SpoolError> {
        let mut replay = Replay::default();
        let opened = journal::open(
            directory,
            Arc::clone(&disk),
            segment,
            metrics,
            &mut |found| replay.take(&found),
        )
        .map_err(spool_error)?;
        let bodies = Bodies::new(opened.bodies(), disk);
        let whole = opened.is_whole();
        let shared = Arc::new(Shared::default());
        let (queue, large) = replay.finish();
        shared.memory().queue = queue;
        bodies.sweep(&large, whole).map_err(spool_error)?;
        let (answering, failures) = (Arc::clone(&shared), metrics.clone());
        let wake = keeper::Wake::default();
        let copied = wake.clone();
        let (journal, committer) = opened
            .start(metrics, move |tickets| {
                answering.answered(tickets, &copied, &failures);
            })
            .map_err(spool_error)?;
        for entry in shared.memory().queue.entries.values() {
            journal.keep(entry.location);
        }
        let inner = Arc::new(Inner {
            journal,
            shared,
            bodies,
            drafts: Arc::default(),
            metrics: metrics.clone(),
            keeper: wake,
            keeping: Mutex::default(),
        });
        let keeper = Keeper::new(&inner);
        Ok((Self(inner), Hands { committer, keeper }))
    }

    /// A new draft.
    #[must_use]
    pub fn draft(&self) -> Draft {
        let failures = self.0.metrics.store_failures.clone();
        Draft::new(self.0.bodies.clone(), Arc::clone(&self.0.drafts), failures)
    }

    /// Whether mail can be taken now: asked at MAIL.
    ///
    /// # Errors
    /// Full or failing.
    pub fn ready(&self) -> Result<(), SpoolError> {
        self.0.journal.ready().map_err(spool_error)
    }

    /// The last write went well.
    #[must_use]
    pub fn healthy(&self) -> bool {
        self.0.journal.healthy()
    }

    /// Completes when work has become due since the last call: accepted, settled for now, retried or released.
    pub async fn changed(&self) {
        self.0.shared.changed.notified().await;
    }

    /// Writes and syncs what is pending; nothing is accepted afterwards.
    pub async fn close(&self) {
        let inner = Arc::clone(&self.0);
        let stopped = tokio::task::spawn_blocking(move || {
            inner.keeper.stop();
            let keeping = journal::locked(&inner.keeping).take();
            // Before the lock goes: the next process must find nobody renaming segments.
            if keeping.is_some_and(|keeping| keeping.join().is_err()) {
                tracing::error!("the keeper panicked");
            }
            inner.journal.stop();
        });
        if stopped.await.is_err() {
            tracing::error!("the store could not be closed in order");
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
