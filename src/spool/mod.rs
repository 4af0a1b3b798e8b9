//! What a 250 promised, and what became of it: accept, due, settle, hold, scan.
//!
//! The journal is the truth; due work is in memory. [`Spool::accept`] is the only maker of [`Stored`], and the session
//! says 250 to the end of data only when it is handed one.

mod draft;
mod due;
mod keeper;
mod late;
mod list;
mod message;
mod queue;
mod record;
pub mod records;
mod replay;
mod tally;

pub use draft::Draft;
pub use due::Due;
pub use late::{Late, Patience, Waiting};
pub use message::{
    Acted, Destination, Disposition, HeldBefore, Leg, Listed, Message, QueueAction, SpoolError,
    Told,
};

use crate::journal::disk::{Disk, RealDisk};
use crate::journal::large::{Bodies, BodyFile};
use crate::journal::{self, Committer, Job, Journal, JournalError, Kind, Location, Ticketed};
use crate::mail::QueueId;
use crate::metrics::Metrics;
use bytes::Bytes;
use draft::Content;
use due::{Body, Holding};
use keeper::Keeper;
use queue::{Entry, Lease, LegState, Queue};
use record::{Row, StateRow, decode};
use replay::Replay;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::Path;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::{Notify, OwnedSemaphorePermit, oneshot};

/// Octets of messages just accepted that delivery may take from memory, in all: half a second of mail at full speed.
const FRESH: usize = 8 * 1024 * 1024;

/// Milliseconds after which a message makes room for newer ones: what has not left by then waits for a next hop.
const STALE: u64 = 10_000;

/// How long a session waits for the disk. What it stands for may still be written: then the client, told 451, brings the
/// message once more (at least once, product.md 9), and nobody hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// Octets of a body that are read along with what is known of its message; a larger one waits for a thread that may block.
const READ_ALONG: usize = 64 * 1024;

/// Milliseconds after which a message that could not be read back is tried again: as many as it has waited, within these. By
/// the first, descriptors that had run out are mostly there again.
const READ_AGAIN_SOONEST: u64 = 10_000;
const READ_AGAIN_LATEST: u64 = 3_600_000;

/// Messages that an operator's order is carried out on before mail has its turn again.
const PORTION: usize = 1024;

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

#[derive(Debug, Default)]
struct Memory {
    queue: Queue,
    /// By id, and so by arrival.
    fresh: BTreeMap<u64, Fresh>,
    fresh_octets: usize,
}

/// A message that was just accepted, still at hand.
#[derive(Debug)]
struct Fresh {
    message: Arc<Message>,
    body: Bytes,
    cost: usize,
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

#[derive(Debug)]
struct Accepting {
    message: Arc<Message>,
    body: Bytes,
    large: bool,
    /// Octets of memory, roughly: bytes and description.
    cost: usize,
    answer: oneshot::Sender<Result<(), SpoolError>>,
    _room: OwnedSemaphorePermit,
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

impl Memory {
    fn insert(&mut self, accepting: &Accepting, location: Location) {
        let message = &accepting.message;
        let id = message.id.as_u64();
        let mut legs = Vec::with_capacity(message.legs.len());
        let recipients = &message.envelope.recipients;
        let domain_of = |position: u32| {
            let recipient = recipients.get(position as usize)?;
            Some(recipient.mailbox.domain().clone())
        };
        for (row, leg) in message.legs.iter().enumerate() {
            let positions = leg.recipients.iter();
            let positions = positions.map(|position| u32::try_from(*position).unwrap_or(u32::MAX));
            legs.extend(self.queue.parts(
                row,
                (&leg.via, &message.tenant),
                positions.collect(),
                message.arrived,
                domain_of,
            ));
        }
        let entry = Entry {
            location,
            arrived: message.arrived,
            large: accepting.large,
            own: message.is_own(),
            legs: legs.into(),
        };
        self.queue.insert(id, entry, message.arrived);
        if accepting.large {
            return;
        }
        while self.fresh_octets + accepting.cost > FRESH
            && let Some((oldest, fresh)) = self.fresh.first_key_value()
            && fresh.message.arrived + STALE <= message.arrived
        {
            self.drop_fresh(*oldest);
        }
        if self.fresh_octets + accepting.cost <= FRESH {
            self.fresh_octets += accepting.cost;
            let fresh = Fresh {
                message: Arc::clone(message),
                body: accepting.body.clone(),
                cost: accepting.cost,
            };
            self.fresh.insert(id, fresh);
        }
    }

    /// The message where it is still at hand; it stays so only where `more` of it is to be sent.
    fn fresh(&mut self, id: u64, more: bool) -> Option<(Arc<Message>, Bytes)> {
        let fresh = self.fresh.get(&id)?;
        let found = (Arc::clone(&fresh.message), fresh.body.clone());
        if !more {
            self.drop_fresh(id);
        }
        Some(found)
    }

    fn drop_fresh(&mut self, id: u64) {
        if let Some(fresh) = self.fresh.remove(&id) {
            self.fresh_octets = self.fresh_octets.saturating_sub(fresh.cost);
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

    /// Takes the next due work of a queue, oldest due first; the lease ends when the [`Due`] is settled or dropped.
    #[must_use]
    pub fn next_due(&self, destination: &Destination, now_millis: u64) -> Option<Due> {
        self.lease(destination, now_millis, |queue| {
            queue.lease(destination, now_millis)
        })
    }

    /// Takes the oldest work of a queue, due or not: the probe of a parked queue. What an operator holds stays.
    #[must_use]
    pub fn oldest(&self, destination: &Destination, now_millis: u64) -> Option<Due> {
        self.lease(destination, now_millis, |queue| {
            queue.lease_oldest(destination)
        })
    }

    /// Whether a queue holds anything that is neither on its way nor held by an operator.
    #[must_use]
    pub fn has_open(&self, destination: &Destination) -> bool {
        self.0.shared.memory().queue.oldest(destination).is_some()
    }

    /// What is held for replies of which `meant` says that they count, by queue; up to `most` ids of each.
    #[must_use]
    pub fn held(&self, meant: impl Fn(&str) -> bool, most: usize) -> Vec<HeldBefore> {
        self.0.shared.memory().queue.held(meant, most)
    }

    /// The clock was set by so many milliseconds, and no time has passed: what waits goes on waiting for as long as it would
    /// have. With 0, at the start: it may have been set before, so that no wait is longer than `longest` (milliseconds) of
    /// its way, and no message younger than now.
    pub fn clock_was_set(
        &self,
        by: i64,
        now_millis: u64,
        longest: impl Fn(&crate::route::Via) -> u64,
    ) {
        let mut memory = self.0.shared.memory();
        memory.queue.clock_was_set(by, now_millis, longest);
    }

    /// The queue is parked and asks again at `next_probe` (milliseconds since 1970), or, with `None`, is parked no more. Its mail
    /// is leased as before: [`Self::page`] and the metrics call it held.
    pub fn parked(&self, destination: &Destination, next_probe: Option<u64>) {
        let mut memory = self.0.shared.memory();
        let (via, tenant) = (&destination.via, &destination.tenant);
        memory.queue.tallies.park(via, tenant, next_probe);
    }

    /// The queue pauses until then (milliseconds since 1970), or, with `None`, no more. Its mail is leased as before:
    /// [`Self::page`] calls it deferred until then.
    pub fn paused(&self, destination: &Destination, until: Option<u64>) {
        self.0.shared.memory().queue.pause(destination, until);
    }

    /// Queues of which an operator wants mail tried now, since the last call: it is due, and what else keeps its queue back is
    /// to be forgotten.
    #[must_use]
    pub fn hurried(&self) -> Vec<Destination> {
        let hurried = std::mem::take(&mut self.0.shared.memory().queue.hurried);
        hurried
            .iter()
            .map(|name| Destination::clone(name))
            .collect()
    }

    /// Makes a message due now but for what an operator holds, as [`QueueAction::Retry`] does, and hurries no queue: it was
    /// kept with one that is released. Whether it is there.
    #[must_use]
    pub fn release(&self, id: QueueId, now_millis: u64) -> bool {
        let id = id.as_u64();
        let mut memory = self.0.shared.memory();
        let found = memory.queue.entries.contains_key(&id)
            && self.act_on(&mut memory, id, QueueAction::Retry, now_millis);
        drop(memory);
        self.0.shared.changed.notify_one();
        found
    }

    /// Takes the oldest mail of our own of a queue that has not been tried without certificate, in the form for that.
    #[must_use]
    pub fn next_uncertified(&self, destination: &Destination, now_millis: u64) -> Option<Due> {
        let due = self.lease(destination, now_millis, |queue| {
            queue.lease_uncertified(destination)
        });
        due.map(Due::without_stamp)
    }

    /// Whether there may be one.
    #[must_use]
    pub fn has_uncertified(&self, destination: &Destination) -> bool {
        let mut memory = self.0.shared.memory();
        memory.queue.has_uncertified(destination)
    }

    /// Records that mail of our own was not taken without certificate: never again so. Else nothing has happened to it.
    pub fn keep_uncertified(&self, mut due: Due) {
        let (id, leg) = due.release();
        let mut memory = self.0.shared.memory();
        memory.queue.keep_uncertified(id, leg);
        memory.drop_fresh(id);
        self.write_state(&memory, id);
        drop(memory);
        self.0.shared.changed.notify_one();
    }

    fn lease(
        &self,
        destination: &Destination,
        now_millis: u64,
        take: impl Fn(&mut Queue) -> Option<Lease>,
    ) -> Option<Due> {
        loop {
            let (lease, fresh) = {
                let mut memory = self.0.shared.memory();
                let lease = take(&mut memory.queue)?;
                let fresh = memory.fresh(lease.id, lease.more);
                (lease, fresh)
            };
            let id = QueueId::from_u64(lease.id);
            let (message, body) = match fresh {
                Some((message, body)) => (message, Body::Memory(body)),
                None => match self.read_back_with_body(lease.id) {
                    Ok((message, body)) => (Arc::new(message), body),
                    Err(error) => {
                        // Kept, and tried again: soon, if descriptors ran out for a moment, and less and less often where a
                        // person has to look at it.
                        tracing::error!(%id, %error, "a queued message cannot be read back");
                        self.0
                            .metrics
                            .store_failures
                            .with_label_values(&["read"])
                            .inc();
                        let reply = format!("cannot be read back: {error}");
                        let waited = now_millis.saturating_sub(lease.arrived);
                        let next_try =
                            now_millis + waited.clamp(READ_AGAIN_SOONEST, READ_AGAIN_LATEST);
                        let results = lease.recipients.iter().map(|position| {
                            (
                                *position,
                                Disposition::Deferred {
                                    next_try,
                                    reply: reply.clone(),
                                },
                            )
                        });
                        self.finish(lease.id, lease.leg, results.collect(), false);
                        continue;
                    }
                },
            };
            let holding = Holding {
                spool: self.clone(),
                id: lease.id,
                leg: lease.leg,
                settled: false,
            };
            return Some(Due::new(message, destination.clone(), lease, body, holding));
        }
    }

    /// The message, and its body where that lies behind it and is small: then one read fetches both.
    fn read_back_with_body(&self, id: u64) -> Result<(Message, Body), JournalError> {
        let inner = &self.0;
        let both = inner.read_where_it_lies(id, |location| match location.body_octets() {
            // A body that does not hold, or is not all there, is found so when it is read.
            1..=READ_ALONG => inner
                .journal
                .read_both(location)
                .or_else(|_| inner.journal.read_meta(location).map(|meta| (meta, None))),
            _ => inner.journal.read_meta(location).map(|meta| (meta, None)),
        });
        let (meta, body) = both?;
        let row: Row = decode(&meta)?;
        let body = match (row.file, body) {
            (Some(file), _) => Body::File(inner.bodies.path(id), file),
            (None, Some(body)) => Body::Memory(body.into()),
            (None, None) => Body::Journal,
        };
        let message = row.into_message().ok_or(JournalError::Corrupt)?;
        Ok((message, body))
    }

    /// The message, and its body's file where it has one.
    fn read_back(&self, id: u64) -> Result<(Message, Option<BodyFile>), JournalError> {
        let inner = &self.0;
        let meta = inner.read_where_it_lies(id, |location| inner.journal.read_meta(location))?;
        let row: Row = decode(&meta)?;
        let file = row.file;
        let message = row.into_message().ok_or(JournalError::Corrupt)?;
        Ok((message, file))
    }

    /// Queues with work that is due at `now_millis`, and how many messages wait in each.
    #[must_use]
    pub fn due(&self, now_millis: u64) -> Vec<(Destination, usize)> {
        self.0.shared.memory().queue.due(now_millis)
    }

    /// When the next work that is not due yet becomes due (milliseconds since 1970).
    #[must_use]
    pub fn next_wake(&self) -> Option<u64> {
        self.0.shared.memory().queue.next_wake()
    }

    /// Completes when work has become due since the last call: accepted, settled for now, retried or released.
    pub async fn changed(&self) {
        self.0.shared.changed.notified().await;
    }

    /// The next bytes of a rendition of `due`, from `offset` in the rendition; empty at its end.
    ///
    /// # Errors
    /// The body cannot be read back.
    pub async fn read(&self, due: &Due, offset: u64) -> Result<Bytes, SpoolError> {
        due.read(&self.0, offset).await
    }

    /// Records what became of recipients of `due`; those not named stay as they were. Written within a second;
    /// `counts` says whether it was an attempt.
    pub fn settle(&self, mut due: Due, results: Vec<(usize, Disposition)>, counts: bool) {
        let (id, leg) = due.release();
        self.finish(id, leg, results, counts);
    }

    fn finish(&self, id: u64, leg: u16, results: Vec<(usize, Disposition)>, counts: bool) {
        let nothing = results.is_empty();
        let mut memory = self.0.shared.memory();
        let settled = memory.queue.settle(id, leg, results, counts);
        if settled {
            self.forget(&mut memory, id);
        } else if !nothing {
            // Put off: memory is for what goes at once. A leg that nobody tried yet still goes at once.
            let entry = memory.queue.entries.get(&id);
            if !entry.is_some_and(|entry| entry.legs.iter().any(LegState::is_fresh)) {
                memory.drop_fresh(id);
            }
            self.write_state(&memory, id);
        }
        drop(memory);
        self.0.shared.changed.notify_one();
    }

    /// A settled message: done in the journal, gone from memory. The order of journal jobs is that of the lock.
    fn forget(&self, memory: &mut Memory, id: u64) {
        memory.drop_fresh(id);
        if let Some(entry) = memory.queue.remove(id) {
            self.0.journal.done(id, entry.large);
            if self.0.journal.release(entry.location) {
                self.0.keeper.wake();
            }
        }
    }

    fn write_state(&self, memory: &Memory, id: u64) {
        let Some(entry) = memory.queue.entries.get(&id) else {
            return;
        };
        match serde_json::to_vec(&StateRow::of(id, &entry.legs)) {
            Ok(meta) => self.0.journal.push(Job {
                kind: Kind::State,
                meta,
                body: Bytes::new(),
                ticket: None,
                may_use_reserve: true,
            }),
            Err(error) => tracing::error!(%error, "an outcome could not be written down"),
        }
    }

    /// Makes every message of a tenant (or only `id`) do what an operator wants; how many did.
    #[must_use]
    pub fn act(
        &self,
        id: Option<QueueId>,
        tenant: Option<&str>,
        action: QueueAction,
        now_millis: u64,
    ) -> usize {
        let acted = self.act_on_each(id, tenant, action, now_millis, |_| {});
        acted.messages + acted.held
    }

    /// [`Self::act`], and tells of each message that did. A long queue is taken in portions, so that mail goes on meanwhile;
    /// what arrives meanwhile is not meant. `done` is called with no lock held, and may wait.
    pub fn act_on_each(
        &self,
        id: Option<QueueId>,
        tenant: Option<&str>,
        action: QueueAction,
        now_millis: u64,
        mut done: impl FnMut(QueueId),
    ) -> Acted {
        let (mut from, last) = match id.map(QueueId::as_u64) {
            Some(id) => (Bound::Included(id), id),
            None => {
                let memory = self.0.shared.memory();
                let newest = memory.queue.entries.last_key_value();
                (Bound::Unbounded, newest.map_or(0, |(id, _)| *id))
            }
        };
        let mut acted = Acted::default();
        loop {
            let mut memory = self.0.shared.memory();
            let rest = memory.queue.entries.range((from, Bound::Included(last)));
            let portion: Vec<(u64, bool)> = rest
                .take(PORTION)
                .map(|(id, entry)| (*id, tenant.is_none_or(|name| entry.is_of(name))))
                .collect();
            let Some((end, _)) = portion.last().copied() else {
                break;
            };
            from = Bound::Excluded(end);
            let mut ids = Vec::new();
            for (id, _) in portion.into_iter().filter(|(_, meant)| *meant) {
                if self.act_on(&mut memory, id, action, now_millis) {
                    if matches!(action, QueueAction::Retry | QueueAction::Release) {
                        memory.queue.hurry(id);
                    }
                    ids.push(id);
                } else {
                    acted.held += 1;
                }
            }
            drop(memory);
            self.0.shared.changed.notify_one();
            acted.messages += ids.len();
            ids.into_iter().map(QueueId::from_u64).for_each(&mut done);
            if end == last {
                break;
            }
        }
        acted
    }

    /// Whether there was something to do.
    fn act_on(&self, memory: &mut Memory, id: u64, action: QueueAction, now: u64) -> bool {
        let queue = &mut memory.queue;
        match action {
            QueueAction::Retry if queue.is_kept_by_operator(id) => {
                self.write_state(memory, id);
                return false;
            }
            QueueAction::Retry => queue.change(id, now, |tried| {
                if !tried.operator_hold {
                    tried.next_try = now;
                }
            }),
            QueueAction::Hold => queue.change(id, now, |tried| tried.operator_hold = true),
            QueueAction::Release => queue.change(id, now, |tried| {
                tried.operator_hold = false;
                tried.held_since = 0;
                tried.next_try = now;
            }),
            QueueAction::Delete => {
                self.forget(memory, id);
                return true;
            }
        }
        self.write_state(memory, id);
        true
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

impl Inner {
    /// Reads from where the record of `id` lies, also where it is copied forward meanwhile and its segment deleted.
    fn read_where_it_lies<T>(
        &self,
        id: u64,
        read: impl Fn(Location) -> Result<T, JournalError>,
    ) -> Result<T, JournalError> {
        let lies = || {
            let memory = self.shared.memory();
            memory.queue.entries.get(&id).map(|entry| entry.location)
        };
        let mut location = lies().ok_or(JournalError::Corrupt)?;
        loop {
            let result = read(location);
            match lies() {
                Some(now) if result.is_err() && now != location => location = now,
                _ => return result,
            }
        }
    }
}

async fn keep_file(
    mut incoming: crate::journal::large::Incoming,
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

#[cfg(test)]
pub(crate) mod tests;
