//! What survives kill -9 and power loss, and how is it read back?
//!
//! An append-only log in segments of 64 MiB. A record is a head, a description ("meta", opaque here) and optionally the
//! bytes of a message. [`committer`] is a thread of its own: it gathers what waits, writes it once, calls `fdatasync` once
//! and then answers all (product.md 9). [`large`] keeps bodies over 1 MiB in files of their own. [`replay`] reads record
//! heads at start-up and skips bodies; [`confirm`] sees to it that what was read is on disk; [`reclaim`] gives space back.
//!
//! Only the spool sees this room. It says what a record means; the journal says whether it is on disk.
//!
//! ```text
//!  directory/  lock                      held while open: a second process gets `Locked`
//!              00000007-<salt>.v1.log    a segment; the salt is in every head, so that bytes of a message that look
//!                                        like a record, or an older use of the same blocks, are never taken for one
//!              reserve                   the next segment, already allocated: outcomes can be written on a full disk
//!              bodies/                   large bodies
//!              damaged/                  bytes that could not be read back, kept for a person to look at
//! ```

mod committer;
mod confirm;
pub mod disk;
pub mod large;
mod reclaim;
mod replay;
mod segment;

pub use committer::{Committer, Job, Ticketed};
pub use replay::Found;
pub use segment::{Kind, Location};

use crate::metrics::Metrics;
use committer::Shared;
use disk::Disk;
use reclaim::Accounts;
use segment::Readers;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Octets of a segment.
pub const SEGMENT: u64 = 64 * 1024 * 1024;

/// KiB of records that may wait for the committer before [`Journal::room`] makes the next one wait.
const WAITING_KIB: u32 = 64 * 1024;

/// What the journal could not do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JournalError {
    /// No space, or only the reserve for outcomes.
    Full,
    /// The disk fails, or a file says what cannot be.
    Failing(String),
    /// Another process holds the directory.
    Locked,
    /// Stopped.
    Closed,
    /// The bytes at a location are not the record that was written there.
    Corrupt,
}

impl fmt::Display for JournalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("no space left"),
            Self::Failing(why) => f.write_str(why),
            Self::Locked => f.write_str("locked by another process"),
            Self::Closed => f.write_str("closed"),
            Self::Corrupt => f.write_str("record damaged"),
        }
    }
}

impl JournalError {
    /// The error of a disk call; a full disk (also a quota) is told apart because it has another remedy.
    #[must_use]
    pub fn of(doing: &str, error: &std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Self::Full,
            _ => Self::Failing(format!("{doing}: {error}")),
        }
    }
}

/// Locks a mutex also after a holder has panicked: the data of this room stays consistent between statements.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A journal that was read and can be started.
#[derive(Debug)]
pub struct Opened {
    directory: PathBuf,
    disk: Arc<dyn Disk>,
    segment_bytes: u64,
    lock: std::fs::File,
    replayed: replay::Replayed,
}

/// Opens `directory` (made 0700 where it is missing), takes its lock and hands every record to `each`, in the order in
/// which they were written. What was handed out is on disk once this returns.
///
/// # Errors
/// Locked, the disk fails, or the journal was written by a newer version.
pub fn open(
    directory: &Path,
    disk: Arc<dyn Disk>,
    segment_bytes: u64,
    metrics: &Metrics,
    each: &mut dyn FnMut(Found) -> Result<(), JournalError>,
) -> Result<Opened, JournalError> {
    disk::make_directory(disk.as_ref(), directory)?;
    let lock = disk::lock(&directory.join("lock"))?;
    disk::make_directory(disk.as_ref(), &directory.join("bodies"))?;
    let replayed = replay::replay(directory, metrics, each)?;
    confirm::confirm(directory, disk.as_ref(), &replayed.segments)?;
    Ok(Opened {
        directory: directory.to_owned(),
        disk,
        segment_bytes,
        lock,
        replayed,
    })
}

impl Opened {
    /// Whether every record of every segment could be read: only then may files that nothing names be removed.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.replayed.damaged == 0
    }

    /// Where large bodies are.
    #[must_use]
    pub fn bodies(&self) -> PathBuf {
        self.directory.join("bodies")
    }

    /// The journal and its committer, which is still to be run ([`Journal::run`]). It calls `answer` with the tickets of
    /// each batch once the batch is on disk, or has failed.
    ///
    /// # Errors
    /// The disk fails. A full one does not: what is queued must still be delivered.
    pub fn start<T>(
        self,
        metrics: &Metrics,
        answer: impl FnMut(Vec<Ticketed<T>>) + Send + 'static,
    ) -> Result<(Journal<T>, Committer<T>), JournalError> {
        let accounts = Arc::new(Accounts::new(
            self.directory.clone(),
            Arc::clone(&self.disk),
            self.segment_bytes,
        ));
        let readers = Arc::new(Readers::new());
        for segment in &self.replayed.segments {
            accounts.opened(segment.name);
            readers.add(segment.name, &self.directory);
        }
        let shared = Arc::new(Shared::new());
        let committer = Committer::new(
            Arc::clone(&shared),
            Arc::clone(&accounts),
            Arc::clone(&readers),
            self.replayed,
            metrics.clone(),
            Box::new(answer),
        )?;
        let journal = Journal {
            shared,
            accounts,
            readers,
            room: Arc::new(Semaphore::new(WAITING_KIB as usize)),
            thread: Mutex::default(),
            lock: Mutex::new(Some(self.lock)),
        };
        Ok((journal, committer))
    }
}

/// A running journal; `T` is what the owner gets back with the answer to a job.
pub struct Journal<T> {
    shared: Arc<Shared<T>>,
    accounts: Arc<Accounts>,
    readers: Arc<Readers>,
    room: Arc<Semaphore>,
    thread: Mutex<Option<JoinHandle<()>>>,
    lock: Mutex<Option<std::fs::File>>,
}

impl<T> fmt::Debug for Journal<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal")
            .field("accounts", &self.accounts)
            .finish_non_exhaustive()
    }
}

impl<T: Send + 'static> Journal<T> {
    /// Runs the committer on a thread of its own, which [`Journal::stop`] ends.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn run(&self, committer: Committer<T>) -> Result<(), JournalError> {
        let thread = std::thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || committer.run())
            .map_err(|error| JournalError::of("starting the committer", &error))?;
        locked(&self.thread).replace(thread);
        Ok(())
    }
}

impl<T> Journal<T> {
    /// Waits until `octets` more may queue for the committer: back-pressure, so that a slow disk slows its clients and
    /// does not fill the memory. Goes into the ticket, and so lasts until the answer.
    ///
    /// # Errors
    /// Stopped.
    pub async fn room(&self, octets: usize) -> Result<OwnedSemaphorePermit, JournalError> {
        let kib = u32::try_from(octets / 1024 + 1)
            .unwrap_or(WAITING_KIB)
            .min(WAITING_KIB);
        Arc::clone(&self.room)
            .acquire_many_owned(kib)
            .await
            .map_err(|_| JournalError::Closed)
    }

    /// Queues a job. One that carries a ticket is committed at once and answered, also when it fails; one without (an
    /// outcome) goes with the next batch, at the latest after [`committer::LAZY`], and is tried until it is on disk.
    pub fn push(&self, job: Job<T>) {
        self.shared.push(job);
    }

    /// Notes that message `id` is done, like an outcome; `body` names its large body, removed once that is on disk.
    pub fn done(&self, id: u64, body: bool) {
        self.shared.done(id, body);
    }

    /// The last sync went well (or none was needed yet).
    #[must_use]
    pub fn healthy(&self) -> bool {
        self.shared.fault().is_none()
    }

    /// Whether records of new messages can be taken.
    ///
    /// # Errors
    /// Why not.
    pub fn ready(&self) -> Result<(), JournalError> {
        match self.shared.fault() {
            Some(fault) => Err(fault),
            None if self.accounts.is_full() => Err(JournalError::Full),
            None => Ok(()),
        }
    }

    /// The meta of the record at `location`.
    ///
    /// # Errors
    /// The disk fails, or the record is damaged.
    pub fn read_meta(&self, location: Location) -> Result<Vec<u8>, JournalError> {
        self.readers.read_meta(location)
    }

    /// The meta of the record at `location`, and its body where that holds: one read for both.
    ///
    /// # Errors
    /// The disk fails, or the record is damaged.
    pub fn read_both(
        &self,
        location: Location,
    ) -> Result<(Vec<u8>, Option<Vec<u8>>), JournalError> {
        self.readers.read_both(location)
    }

    /// The body of the record at `location`.
    ///
    /// # Errors
    /// The disk fails, or the record is damaged.
    pub fn read_body(&self, location: Location) -> Result<Vec<u8>, JournalError> {
        self.readers.read_body(location)
    }

    /// The message at `location` is done, or has been copied elsewhere; whether there may now be something to reclaim.
    pub fn release(&self, location: Location) -> bool {
        self.accounts.release(location)
    }

    /// As [`Journal::release`] undone: a message found at start-up lives at `location`.
    pub fn keep(&self, location: Location) {
        self.accounts.keep(location);
    }

    /// After a full disk: tries again to reserve the next segment, so that mail is taken once there is space.
    ///
    /// # Errors
    /// There is still none, or the disk fails.
    pub fn refill(&self) -> Result<(), JournalError> {
        if self.accounts.is_full() {
            self.accounts.make_reserve()?;
        }
        Ok(())
    }

    /// Deletes segments in which nothing lives, oldest first.
    ///
    /// # Errors
    /// The disk fails.
    pub fn delete_dead(&self) -> Result<(), JournalError> {
        self.accounts.delete_dead(&self.readers)
    }

    /// Hands `each` the message records of the oldest segment, where so much of the journal is dead that what lives there
    /// should be copied forward.
    ///
    /// # Errors
    /// The disk fails.
    pub fn to_copy_forward(&self, each: &mut dyn FnMut(Found)) -> Result<(), JournalError> {
        match self.accounts.wants_copying() {
            Some(name) => self.readers.message_records(name, each),
            None => Ok(()),
        }
    }

    /// Octets of a record at most: one that fits into no segment could never be written.
    #[must_use]
    pub fn largest_record(&self) -> usize {
        usize::try_from(self.accounts.segment_bytes() / 2).unwrap_or(usize::MAX)
    }

    /// Large bodies whose messages are done on disk, to be removed by the caller.
    #[must_use]
    pub fn take_removals(&self) -> Vec<u64> {
        self.shared.take_removals()
    }

    /// Octets of all segments and the reserve.
    #[must_use]
    pub fn disk_bytes(&self) -> u64 {
        self.accounts.disk_bytes()
    }

    /// Commits what is pending, ends the thread and gives the lock back. Blocks.
    pub fn stop(&self) {
        self.shared.close();
        self.room.close();
        let thread = locked(&self.thread).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the committer panicked");
        }
        // Said, not only closed: a child of this process has the file, too, until it has become its program.
        if let Some(lock) = locked(&self.lock).take()
            && let Err(error) = lock.unlock()
        {
            tracing::debug!(%error, "unlock");
        }
    }
}

impl<T> Drop for Journal<T> {
    fn drop(&mut self) {
        self.stop();
    }
}

#[cfg(test)]
mod tests;
