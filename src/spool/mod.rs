//! What a 250 promised, and what became of it: accept, due, settle, hold, scan.
//!
//! The journal is the truth; due work is in memory. [`Spool::accept`] is the only maker of [`Stored`], and the session
//! says 250 to the end of data only when it is handed one.

mod draft;
mod due;
mod keeper;
mod message;
mod queue;
mod record;

pub use draft::Draft;
pub use due::Due;
pub use message::{Destination, Disposition, Leg, Listed, Message, QueueAction, SpoolError};

use crate::journal::disk::{Disk, RealDisk};
use crate::journal::large::{Bodies, BodyFile};
use crate::journal::{self, Found, Job, Journal, JournalError, Kind, Location, Ticketed};
use crate::mail::{QueueId, TenantName};
use crate::metrics::Metrics;
use bytes::Bytes;
use draft::Content;
use due::{Body, Holding};
use queue::{Entry, LegState, Queue, State};
use record::{Row, StateRow};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, OwnedSemaphorePermit, oneshot};

/// Bytes of messages just accepted that delivery may take from memory, in all.
const FRESH: usize = 32 * 1024 * 1024;

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

#[derive(Debug)]
struct Inner {
    journal: Journal<Ticket>,
    shared: Arc<Shared>,
    bodies: Bodies,
    metrics: Metrics,
    keeper: keeper::Wake,
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
    fresh: HashMap<u64, Fresh>,
    fresh_octets: usize,
    /// Labels of `queue_messages` that were set before, so that an empty queue reads 0.
    labels: HashSet<(String, TenantName)>,
}

/// A message that was just accepted, still at hand.
#[derive(Debug)]
struct Fresh {
    message: Arc<Message>,
    body: Bytes,
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
    answer: oneshot::Sender<Result<(), SpoolError>>,
    _room: OwnedSemaphorePermit,
}

impl Shared {
    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Called on the committer's thread once a batch is on disk, or has failed. A message is queued here, and not where
    /// its session waits: a session that is gone by then changes nothing.
    fn answered(
        &self,
        tickets: Vec<Ticketed<Ticket>>,
        journal_release: &mut dyn FnMut(Location),
        failures: &Metrics,
    ) {
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
                        answers.push((accepting, Err(spool_error(error))));
                    }
                    (Ticket::Copy { id, from }, Ok(location)) => {
                        match memory.queue.entries.get_mut(&id) {
                            Some(entry) if entry.location == from => {
                                entry.location = location;
                                journal_release(from);
                            }
                            _ => journal_release(location),
                        }
                    }
                    (Ticket::Copy { .. }, Err(_)) => {}
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
        let legs = message
            .legs
            .iter()
            .map(|leg| (leg.via.clone(), leg.recipients.clone()));
        let legs = self.legs(&message.tenant, legs.collect(), message.arrived);
        let entry = Entry {
            location,
            arrived: message.arrived,
            large: accepting.large,
            legs,
        };
        self.queue.insert(id, entry, message.arrived);
        if !accepting.large && self.fresh_octets + accepting.body.len() <= FRESH {
            self.fresh_octets += accepting.body.len();
            self.fresh.insert(
                id,
                Fresh {
                    message: Arc::clone(message),
                    body: accepting.body.clone(),
                },
            );
        }
    }

    fn legs(
        &mut self,
        tenant: &TenantName,
        legs: Vec<(crate::route::Via, Vec<usize>)>,
        arrived: u64,
    ) -> Box<[LegState]> {
        let make = |(via, recipients)| {
            let destination = self.queue.destination(Destination {
                via,
                tenant: Arc::clone(tenant),
            });
            LegState::new(destination, recipients, arrived)
        };
        legs.into_iter().map(make).collect()
    }

    fn take_fresh(&mut self, id: u64) -> Option<Fresh> {
        let fresh = self.fresh.remove(&id)?;
        self.fresh_octets = self.fresh_octets.saturating_sub(fresh.body.len());
        Some(fresh)
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

    fn open_on(
        directory: &Path,
        disk: Arc<dyn Disk>,
        segment: u64,
        metrics: &Metrics,
    ) -> Result<Self, SpoolError> {
        let mut replay = Replay::default();
        let opened = journal::open(
            directory,
            Arc::clone(&disk),
            segment,
            metrics,
            &mut |found| replay.take(found),
        )
        .map_err(spool_error)?;
        let bodies = Bodies::new(opened.bodies(), disk);
        let whole = opened.is_whole();
        let shared = Arc::new(Shared::default());
        let large = replay.fill(&mut shared.memory().queue);
        bodies.sweep(&large, whole).map_err(spool_error)?;
        let (answering, failures) = (Arc::clone(&shared), metrics.clone());
        let wake = keeper::Wake::default();
        let released = wake.clone();
        let journal = opened
            .start(metrics, move |tickets| {
                answering.answered(
                    tickets,
                    &mut |location| released.release(location),
                    &failures,
                );
            })
            .map_err(spool_error)?;
        for entry in shared.memory().queue.entries.values() {
            journal.keep(entry.location);
        }
        let inner = Arc::new(Inner {
            journal,
            shared,
            bodies,
            metrics: metrics.clone(),
            keeper: wake,
        });
        keeper::start(&inner).map_err(|error| SpoolError::Failing(error.to_string()))?;
        Ok(Self(inner))
    }

    /// A new draft.
    #[must_use]
    pub fn draft(&self) -> Draft {
        Draft::new(self.0.bodies.clone())
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
            Content::Memory(bytes) => (Bytes::from(bytes), None),
            Content::File(incoming) => (Bytes::new(), Some(keep_file(*incoming, id).await?)),
            Content::Moving => {
                return Err(SpoolError::Failing(
                    "a write of the body was cut short".to_owned(),
                ));
            }
        };
        let result = self.commit(message, body, file).await;
        if result.is_err() && file.is_some() {
            let bodies = self.0.bodies.clone();
            let removed = tokio::task::spawn_blocking(move || bodies.remove(id.as_u64())).await;
            if removed.is_err() {
                tracing::warn!(%id, "a refused body stays until the next start");
            }
        }
        result
    }

    async fn commit(
        &self,
        message: Message,
        body: Bytes,
        file: Option<BodyFile>,
    ) -> Result<Stored, SpoolError> {
        let id = message.id;
        let meta = serde_json::to_vec(&Row::of(&message, file))
            .map_err(|error| SpoolError::Failing(error.to_string()))?;
        let room = self
            .0
            .journal
            .room(meta.len() + body.len())
            .await
            .map_err(spool_error)?;
        let (answer, answered) = oneshot::channel();
        let accepting = Accepting {
            message: Arc::new(message),
            body: body.clone(),
            large: file.is_some(),
            answer,
            _room: room,
        };
        let ticket = Some(Ticket::Accept(Box::new(accepting)));
        self.0.journal.push(Job {
            kind: Kind::Message,
            meta,
            body,
            ticket,
            may_use_reserve: false,
        });
        answered.await.map_err(|_| SpoolError::Closed)??;
        Ok(Stored { id })
    }

    /// Takes the next due work of a queue, oldest due first; the lease ends when the [`Due`] is settled or dropped.
    #[must_use]
    pub fn next_due(&self, destination: &Destination, now_millis: u64) -> Option<Due> {
        loop {
            let (lease, fresh) = {
                let mut memory = self.0.shared.memory();
                let lease = memory.queue.lease(destination, now_millis)?;
                let fresh = memory.take_fresh(lease.id);
                (lease, fresh)
            };
            let id = QueueId::from_u64(lease.id);
            let (message, body) = match fresh {
                Some(fresh) => (fresh.message, Body::Memory(fresh.body)),
                None => match self.read_back(lease.location) {
                    Ok(message) if lease.large => {
                        (Arc::new(message), Body::File(self.0.bodies.path(lease.id)))
                    }
                    Ok(message) => (Arc::new(message), Body::Journal(lease.location)),
                    Err(error) => {
                        // Kept, and tried again later: a person has to look at it.
                        tracing::error!(%id, %error, "a queued message cannot be read back");
                        self.0
                            .metrics
                            .store_failures
                            .with_label_values(&["read"])
                            .inc();
                        let reply = format!("cannot be read back: {error}");
                        let next_try = now_millis + 3_600_000;
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

    fn read_back(&self, location: Location) -> Result<Message, JournalError> {
        let meta = self.0.journal.read_meta(location)?;
        let row: Row = serde_json::from_slice(&meta).map_err(|_| JournalError::Corrupt)?;
        row.into_message().ok_or(JournalError::Corrupt)
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

    fn finish(&self, id: u64, leg: u8, results: Vec<(usize, Disposition)>, counts: bool) {
        let nothing = results.is_empty();
        let mut memory = self.0.shared.memory();
        let settled = memory.queue.settle(id, leg, results, counts);
        if settled {
            self.forget(&mut memory, id);
        } else if !nothing {
            self.write_state(&memory, id);
        }
        drop(memory);
        self.0.shared.changed.notify_one();
    }

    /// A settled message: done in the journal, gone from memory. The order of journal jobs is that of the lock.
    fn forget(&self, memory: &mut Memory, id: u64) {
        memory.take_fresh(id);
        if let Some(entry) = memory.queue.entries.remove(&id) {
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
        let mut memory = self.0.shared.memory();
        let meant = |entry: &Entry| {
            tenant.is_none_or(|name| {
                entry
                    .legs
                    .iter()
                    .any(|leg| *leg.destination.tenant == *name)
            })
        };
        let entries = &memory.queue.entries;
        let ids: Vec<u64> = match id.map(QueueId::as_u64) {
            Some(id) => entries
                .get(&id)
                .filter(|entry| meant(entry))
                .map(|_| id)
                .into_iter()
                .collect(),
            None => entries
                .iter()
                .filter(|(_, entry)| meant(entry))
                .map(|(id, _)| *id)
                .collect(),
        };
        for id in &ids {
            match action {
                QueueAction::Retry => memory.queue.change(*id, now_millis, |tried| {
                    if !tried.operator_hold {
                        tried.next_try = now_millis;
                    }
                }),
                QueueAction::Hold => memory
                    .queue
                    .change(*id, now_millis, |tried| tried.operator_hold = true),
                QueueAction::Release => memory.queue.change(*id, now_millis, |tried| {
                    tried.operator_hold = false;
                    tried.held_since = None;
                    tried.next_try = now_millis;
                }),
                QueueAction::Delete => {
                    self.forget(&mut memory, *id);
                    continue;
                }
            }
            self.write_state(&memory, *id);
        }
        drop(memory);
        self.0.shared.changed.notify_one();
        ids.len()
    }

    /// What is queued, oldest first, at most `limit`.
    #[must_use]
    pub fn scan(&self, limit: usize, now_millis: u64) -> Vec<Listed> {
        let mut rows = {
            let memory = self.0.shared.memory();
            let mut ids: Vec<u64> = memory.queue.entries.keys().copied().collect();
            ids.sort_unstable();
            let mut rows = Vec::new();
            for id in ids.into_iter().take(limit) {
                let Some(entry) = memory.queue.entries.get(&id) else {
                    continue;
                };
                for leg in entry.legs.iter().filter(|leg| !leg.is_settled()) {
                    rows.push((
                        id,
                        entry.location,
                        entry.arrived,
                        Listing::of(leg, now_millis),
                    ));
                }
            }
            rows
        };
        rows.truncate(limit);
        rows.into_iter()
            .map(|(id, location, arrived, listing)| {
                listing.row(id, arrived, self.read_back(location).ok())
            })
            .collect()
    }

    /// Brings the queue's gauges up to date.
    pub fn refresh_metrics(&self, now_millis: u64) {
        let mut counts: BTreeMap<(String, TenantName), ([i64; 4], u64)> = BTreeMap::new();
        let mut memory = self.0.shared.memory();
        for entry in memory.queue.entries.values() {
            for leg in entry.legs.iter().filter(|leg| !leg.is_settled()) {
                let key = (
                    leg.destination.via.to_string(),
                    Arc::clone(&leg.destination.tenant),
                );
                let (states, oldest) = counts.entry(key).or_insert(([0; 4], u64::MAX));
                if let Some(count) = states.get_mut(leg.state(now_millis) as usize) {
                    *count += 1;
                }
                *oldest = entry.arrived.min(*oldest);
            }
        }
        memory.labels.extend(counts.keys().cloned());
        let labels: Vec<_> = memory.labels.iter().cloned().collect();
        drop(memory);
        let metrics = &self.0.metrics;
        for (via, tenant) in labels {
            let (states, oldest) = counts
                .get(&(via.clone(), Arc::clone(&tenant)))
                .copied()
                .unwrap_or(([0; 4], u64::MAX));
            for (state, count) in [State::Ready, State::Active, State::Deferred, State::Held]
                .iter()
                .zip(states)
            {
                metrics
                    .queue_messages
                    .with_label_values(&[via.as_str(), &tenant, state.word()])
                    .set(count);
            }
            let age = if oldest == u64::MAX {
                0
            } else {
                now_millis.saturating_sub(oldest)
            };
            #[expect(
                clippy::cast_precision_loss,
                reason = "an age in milliseconds fits a double"
            )]
            metrics
                .queue_oldest
                .with_label_values(&[via.as_str(), &tenant])
                .set(age as f64 / 1000.0);
        }
        metrics
            .store_bytes
            .set(i64::try_from(self.0.journal.disk_bytes()).unwrap_or(i64::MAX));
    }

    /// Writes and syncs what is pending; nothing is accepted afterwards.
    pub async fn close(&self) {
        let inner = Arc::clone(&self.0);
        let stopped = tokio::task::spawn_blocking(move || {
            inner.keeper.stop();
            inner.journal.stop();
        });
        if stopped.await.is_err() {
            tracing::error!("the store could not be closed in order");
        }
    }
}

async fn keep_file(
    incoming: crate::journal::large::Incoming,
    id: QueueId,
) -> Result<BodyFile, SpoolError> {
    tokio::task::spawn_blocking(move || incoming.keep(id.as_u64()))
        .await
        .map_err(|error| SpoolError::Failing(error.to_string()))?
        .map_err(spool_error)
}

/// What a list shows of a leg, before the message is read back.
struct Listing {
    state: State,
    tenant: TenantName,
    via: String,
    positions: Vec<usize>,
    next_try: u64,
    attempts: u32,
    last_reply: Option<String>,
}

impl Listing {
    fn of(leg: &LegState, now: u64) -> Self {
        let open = leg.open();
        Self {
            state: leg.state(now),
            tenant: Arc::clone(&leg.destination.tenant),
            via: leg.destination.via.to_string(),
            next_try: leg.next_try().unwrap_or(u64::MAX),
            attempts: open.iter().map(|tried| tried.attempts).max().unwrap_or(0),
            last_reply: open
                .iter()
                .find_map(|tried| tried.reply.as_deref().map(str::to_owned)),
            positions: open.iter().map(|tried| tried.position).collect(),
        }
    }

    fn row(self, id: u64, arrived: u64, message: Option<Message>) -> Listed {
        let envelope = message.as_ref().map(|message| &message.envelope);
        let address = |position: &usize| {
            let recipient = envelope.and_then(|envelope| envelope.recipients.get(*position));
            recipient.map_or_else(
                || "?".to_owned(),
                |recipient| crate::mail::shown(recipient.mailbox.as_str().as_bytes()),
            )
        };
        Listed {
            id: QueueId::from_u64(id).to_string(),
            tenant: self.tenant.to_string(),
            via: self.via,
            state: self.state.word().to_owned(),
            sender: envelope.map_or_else(String::new, |envelope| {
                crate::mail::shown(envelope.reverse_path.to_string().as_bytes())
            }),
            recipients: self.positions.iter().map(address).collect(),
            next_try: self.next_try,
            arrived,
            attempts: self.attempts,
            last_reply: self.last_reply,
        }
    }
}

/// What a start-up scan has found so far.
#[derive(Default)]
struct Replay {
    messages: HashMap<u64, (Location, Row)>,
    states: HashMap<u64, StateRow>,
    done: HashSet<u64>,
}

impl Replay {
    fn take(&mut self, found: Found) -> Result<(), JournalError> {
        match found.kind {
            Kind::Message => match serde_json::from_slice::<Row>(&found.meta) {
                Ok(mut row) => {
                    let id = row.id;
                    // A copy carries what was left to do when it was made; later states follow it.
                    if let Some(state) = row.state.take() {
                        self.states.insert(id, state);
                    }
                    if !self.done.contains(&id) {
                        self.messages.insert(id, (found.location, row));
                    }
                }
                Err(error) => {
                    tracing::error!(%error, "a message record does not read: kept in the journal, not queued")
                }
            },
            Kind::State => {
                if let Ok(state) = serde_json::from_slice::<StateRow>(&found.meta) {
                    self.states.insert(state.id, state);
                }
            }
            Kind::Done => {
                for id in found
                    .meta
                    .chunks_exact(8)
                    .filter_map(|id| id.try_into().ok())
                    .map(u64::from_le_bytes)
                {
                    self.messages.remove(&id);
                    self.states.remove(&id);
                    self.done.insert(id);
                }
            }
            Kind::Start => {}
        }
        Ok(())
    }

    /// Queues what is open; the ids whose bodies lie in files of their own.
    fn fill(self, queue: &mut Queue) -> HashSet<u64> {
        let mut large = HashSet::new();
        for (id, (location, row)) in self.messages {
            if row.file.is_some() {
                large.insert(id);
            }
            let tenant: TenantName = row.tenant().into();
            let state = self.states.get(&id);
            let mut legs = Vec::new();
            for (at, leg) in row.legs().enumerate() {
                let Some((via, recipients)) = leg else {
                    continue;
                };
                let destination = queue.destination(Destination {
                    via,
                    tenant: Arc::clone(&tenant),
                });
                let mut leg = LegState::new(destination, recipients, row.arrived);
                if let Some(open) = state.and_then(|state| state.legs.get(at)) {
                    *leg.open_mut() = open.clone();
                }
                legs.push(leg);
            }
            let entry = Entry {
                location,
                arrived: row.arrived,
                large: row.file.is_some(),
                legs: legs.into(),
            };
            queue.insert(id, entry, row.arrived);
        }
        large
    }
}

#[cfg(test)]
mod tests;
