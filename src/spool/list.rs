//! What an operator and the metrics see of the queue.

use super::Spool;
use super::message::{Listed, Message, SpoolError, Told};
use super::queue::{Entry, LegState, Queue, State};
use super::tally::Oldest;
use crate::header::{self, MAX_HEADER};
use crate::mail::{QueueId, TenantName, shown};
use std::io::Read as _;
use std::ops::Bound;
use std::sync::Arc;

/// Messages that are looked at under one lock for the oldest of a way.
const LOOKED_AT: usize = 10_000;

impl Spool {
    /// What is queued, oldest first, at most `limit` rows. Reads from the disk: not for a runtime thread.
    #[must_use]
    pub fn scan(&self, limit: usize, now_millis: u64) -> Vec<Listed> {
        let mut listed = self.page(None, limit, now_millis);
        listed.truncate(limit);
        listed
    }

    /// What is queued behind the message `after`, oldest first: every row of at most `messages` messages. So a queue of
    /// any length is walked through in pieces that are bounded; what arrives meanwhile stands at the end. Reads from the
    /// disk: not for a runtime thread.
    #[must_use]
    pub fn page(&self, after: Option<QueueId>, messages: usize, now_millis: u64) -> Vec<Listed> {
        let mut listed = Vec::new();
        let mut after = after.map_or(Bound::Unbounded, |id| Bound::Excluded(id.as_u64()));
        for _ in 0..messages {
            let found = {
                let memory = self.0.shared.memory();
                let mut rest = memory.queue.entries.range((after, Bound::Unbounded));
                rest.next()
                    .map(|(id, entry)| (*id, Listings::of(entry, &memory.queue, now_millis)))
            };
            let Some((id, listings)) = found else {
                break;
            };
            after = Bound::Excluded(id);
            listed.extend(self.rows(id, listings));
        }
        listed
    }

    /// One message, if it is queued. Reads from the disk: not for a runtime thread.
    #[must_use]
    pub fn find(&self, id: QueueId, now_millis: u64) -> Vec<Listed> {
        let id = id.as_u64();
        let listings = {
            let memory = self.0.shared.memory();
            let entry = memory.queue.entries.get(&id);
            entry.map(|entry| Listings::of(entry, &memory.queue, now_millis))
        };
        listings.map_or_else(Vec::new, |listings| self.rows(id, listings))
    }

    /// The header section of a queued message on each of its ways, as it leaves, with the values of what counts for
    /// Exchange's judgement alone ([`header::told`]). Reads from the disk: not for a runtime thread.
    ///
    /// # Errors
    /// It cannot be read back. `None`: no such message is queued.
    pub fn header_told(&self, id: QueueId) -> Result<Option<Vec<Told>>, SpoolError> {
        let inner = &self.0;
        let number = id.as_u64();
        if !inner.shared.memory().queue.entries.contains_key(&number) {
            return Ok(None);
        }
        let corrupt = |_| SpoolError::Corrupt { id };
        let (message, file) = self.read_back(number).map_err(corrupt)?;
        let head = match file {
            None => inner
                .read_where_it_lies(number, |location| inner.journal.read_body(location))
                .map_err(corrupt)?,
            Some(_) => {
                let mut head = Vec::new();
                std::fs::File::open(inner.bodies.path(number))
                    .and_then(|file| file.take(MAX_HEADER as u64 + 1).read_to_end(&mut head))
                    .map_err(|error| SpoolError::Failing(error.to_string()))?;
                head
            }
        };
        let told = message.legs.iter().map(|leg| {
            let section =
                header::told(&leg.rendition, &head).map_err(|_| SpoolError::Corrupt { id })?;
            Ok(Told {
                tenant: message.tenant.to_string(),
                via: leg.via.to_string(),
                header: String::from_utf8_lossy(&section).into_owned(),
            })
        });
        told.collect::<Result<_, _>>().map(Some)
    }

    fn rows(&self, id: u64, listings: Listings) -> Vec<Listed> {
        let message = self.read_back(id).ok().map(|(message, _)| message);
        if message.is_none() && !self.0.shared.memory().queue.entries.contains_key(&id) {
            // Settled between the two looks.
            return Vec::new();
        }
        let arrived = listings.arrived;
        let rows = listings.legs.into_iter();
        rows.map(|listing| listing.row(id, arrived, message.as_ref()))
            .collect()
    }

    /// Brings the queue's gauges up to date.
    pub fn refresh_metrics(&self, now_millis: u64) {
        let ways = {
            let mut memory = self.0.shared.memory();
            memory.queue.promote(now_millis);
            memory.queue.tallies.ways()
        };
        let metrics = &self.0.metrics;
        for (number, way) in ways {
            let (via, tenant) = (way.via.to_string(), &*way.tenant);
            for (state, count) in way.told() {
                metrics
                    .queue_messages
                    .with_label_values(&[via.as_str(), tenant, state.word()])
                    .set(count);
            }
            let oldest = self.oldest_of(number);
            let age = oldest.map_or(0, |arrived| now_millis.saturating_sub(arrived));
            #[expect(
                clippy::cast_precision_loss,
                reason = "an age in milliseconds fits a double"
            )]
            metrics
                .queue_oldest
                .with_label_values(&[via.as_str(), tenant])
                .set(age as f64 / 1000.0);
        }
        let octets = self.0.journal.disk_bytes() + self.0.bodies.octets();
        metrics
            .store_bytes
            .set(i64::try_from(octets).unwrap_or(i64::MAX));
    }

    /// When the oldest message of a way arrived (milliseconds since 1970). Others have their turn between the looks.
    fn oldest_of(&self, way: u16) -> Option<u64> {
        loop {
            let look = (self.0.shared.memory().queue).look_for_oldest(way, LOOKED_AT);
            match look {
                Oldest::Arrived(at) => return Some(at),
                Oldest::None => return None,
                Oldest::Further => {}
            }
        }
    }
}

/// What a list shows of a message, before it is read back.
struct Listings {
    arrived: u64,
    legs: Vec<Listing>,
}

impl Listings {
    fn of(entry: &Entry, queue: &Queue, now: u64) -> Self {
        let legs = entry.legs.iter().filter(|leg| !leg.is_settled());
        let listed = |leg: &LegState| Listing::of(leg, queue, now);
        Self {
            arrived: entry.arrived,
            legs: legs.map(listed).collect(),
        }
    }
}

/// What a list shows of a leg, before the message is read back.
struct Listing {
    state: State,
    tenant: TenantName,
    via: String,
    positions: Vec<u32>,
    next_try: Option<u64>,
    attempts: u32,
    last_reply: Option<String>,
}

impl Listing {
    /// Where the queue is parked, its mail is held, and goes no sooner than the queue asks again; where it pauses, its mail is
    /// put off until that is over.
    fn of(leg: &LegState, queue: &Queue, now: u64) -> Self {
        let open = leg.open();
        let (mut state, mut next_try) = (leg.state(now), leg.next_try());
        let parked = queue.tallies.parked(leg.way);
        let not_before = parked.or_else(|| queue.paused(&leg.destination, now));
        if let Some(not_before) = not_before
            && state != State::Active
        {
            state = match state {
                State::Ready if parked.is_none() => State::Deferred,
                state if parked.is_none() => state,
                _ => State::Held,
            };
            next_try = next_try.map(|own| own.max(not_before));
        }
        Self {
            state,
            tenant: Arc::clone(&leg.destination.tenant),
            via: leg.destination.via.to_string(),
            next_try,
            attempts: open.iter().map(|tried| tried.attempts).max().unwrap_or(0),
            last_reply: open
                .iter()
                .find_map(|tried| tried.reply.as_deref().map(str::to_owned)),
            positions: open.iter().map(|tried| tried.position).collect(),
        }
    }

    fn row(self, id: u64, arrived: u64, message: Option<&Message>) -> Listed {
        let envelope = message.map(|message| &message.envelope);
        let address = |position: &u32| {
            let recipient =
                envelope.and_then(|envelope| envelope.recipients.get(*position as usize));
            recipient.map_or_else(
                || "?".to_owned(),
                |recipient| shown(recipient.mailbox.as_str().as_bytes()),
            )
        };
        Listed {
            id: QueueId::from_u64(id).to_string(),
            tenant: self.tenant.to_string(),
            via: self.via,
            state: self.state.word().to_owned(),
            sender: envelope.map_or_else(String::new, |envelope| {
                shown(envelope.reverse_path.to_string().as_bytes())
            }),
            recipients: self.positions.iter().map(address).collect(),
            next_try: self.next_try,
            arrived,
            attempts: self.attempts,
            last_reply: self.last_reply,
        }
    }
}
