//! What is due is leased, read back and settled.

use super::due::{Body, Due, Holding};
use super::memory::Memory;
use super::message::{Destination, Disposition, Message, SpoolError};
use super::queue::{Lease, LegState, Queue};
use super::record::{Row, StateRow, decode};
use super::{Inner, Spool};
use crate::journal::large::BodyFile;
use crate::journal::{Job, JournalError, Kind, Location};
use crate::mail::QueueId;
use bytes::Bytes;
use std::sync::Arc;

/// Octets of a body that are read along with what is known of its message; a larger one waits for a thread that may block.
const READ_ALONG: usize = 64 * 1024;

/// Milliseconds after which a message that could not be read back is tried again: as many as it has waited, within these. After
/// the shorter, descriptors that had run out are mostly there again.
const READ_AGAIN_SOONEST: u64 = 10_000;
const READ_AGAIN_LATEST: u64 = 3_600_000;

impl Spool {
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
    pub(super) fn read_back(&self, id: u64) -> Result<(Message, Option<BodyFile>), JournalError> {
        let inner = &self.0;
        let meta = inner.read_where_it_lies(id, |location| inner.journal.read_meta(location))?;
        let row: Row = decode(&meta)?;
        let file = row.file;
        let message = row.into_message().ok_or(JournalError::Corrupt)?;
        Ok((message, file))
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

    pub(super) fn finish(
        &self,
        id: u64,
        leg: u16,
        results: Vec<(usize, Disposition)>,
        counts: bool,
    ) {
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
    pub(super) fn forget(&self, memory: &mut Memory, id: u64) {
        memory.drop_fresh(id);
        if let Some(entry) = memory.queue.remove(id) {
            self.0.journal.done(id, entry.large);
            if self.0.journal.release(entry.location) {
                self.0.keeper.wake();
            }
        }
    }

    pub(super) fn write_state(&self, memory: &Memory, id: u64) {
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
}

impl Inner {
    /// Reads from where the record of `id` lies, also where it is copied forward meanwhile and its segment deleted.
    pub(super) fn read_where_it_lies<T>(
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
