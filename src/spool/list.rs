//! What an operator and the metrics see of the queue.

use super::Spool;
use super::message::{Listed, Message};
use super::queue::{Entry, LegState, State};
use crate::mail::{QueueId, TenantName, shown};
use std::collections::HashMap;
use std::ops::Bound;
use std::sync::Arc;

/// A queue's counts by state, and when its oldest message arrived.
#[derive(Clone, Copy, Debug)]
struct Tally {
    states: [i64; 4],
    oldest: u64,
}

const EMPTY: Tally = Tally {
    states: [0; 4],
    oldest: u64::MAX,
};

impl Spool {
    /// What is queued, oldest first, at most `limit`. Reads from the disk: not for a runtime thread where there is much.
    #[must_use]
    pub fn scan(&self, limit: usize, now_millis: u64) -> Vec<Listed> {
        let mut listed = Vec::new();
        let mut after = Bound::Unbounded;
        while listed.len() < limit {
            let found = {
                let memory = self.0.shared.memory();
                let mut rest = memory.queue.entries.range((after, Bound::Unbounded));
                rest.next().map(|(id, entry)| {
                    let legs = entry.legs.iter().filter(|leg| !leg.is_settled());
                    let legs = legs.map(|leg| Listing::of(leg, now_millis));
                    (*id, entry.arrived, legs.collect::<Vec<_>>())
                })
            };
            let Some((id, arrived, listings)) = found else {
                break;
            };
            after = Bound::Excluded(id);
            let message = self.read_back(id).ok().map(|(message, _)| message);
            let rows = listings
                .into_iter()
                .map(|listing| listing.row(id, arrived, message.as_ref()));
            listed.extend(rows.take(limit - listed.len()));
        }
        listed
    }

    /// Brings the queue's gauges up to date.
    pub fn refresh_metrics(&self, now_millis: u64) {
        let tallies = self.tally(now_millis);
        let metrics = &self.0.metrics;
        for ((via, tenant), tally) in tallies {
            for (state, count) in State::ALL.iter().zip(tally.states) {
                metrics
                    .queue_messages
                    .with_label_values(&[via.as_str(), &tenant, state.word()])
                    .set(count);
            }
            let age = match tally.oldest {
                u64::MAX => 0,
                oldest => now_millis.saturating_sub(oldest),
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
        let octets = self.0.journal.disk_bytes() + self.0.bodies.octets();
        metrics
            .store_bytes
            .set(i64::try_from(octets).unwrap_or(i64::MAX));
    }

    /// Counts by via and tenant, one for each message and via (contract, "Metrics"), with every label that was ever set, so
    /// that an empty queue reads 0.
    fn tally(&self, now: u64) -> Vec<((String, TenantName), Tally)> {
        let mut memory = self.0.shared.memory();
        // By the address of the shared name: names are not compared, let alone made, for each of a million messages.
        let mut counts: HashMap<usize, Tally> = HashMap::new();
        for entry in memory.queue.entries.values() {
            for (at, leg) in entry.legs.iter().enumerate() {
                if let Some(state) = speaks_for(entry, at, leg, now) {
                    let tally = counts
                        .entry(Arc::as_ptr(&leg.destination) as usize)
                        .or_insert(EMPTY);
                    if let Some(count) = tally.states.get_mut(state as usize) {
                        *count += 1;
                    }
                    tally.oldest = entry.arrived.min(tally.oldest);
                }
            }
        }
        let named: Vec<_> = memory
            .queue
            .destinations()
            .filter_map(|destination| {
                let tally = counts.get(&(Arc::as_ptr(destination) as usize))?;
                let key = (destination.via.to_string(), Arc::clone(&destination.tenant));
                Some((key, *tally))
            })
            .collect();
        memory
            .labels
            .extend(named.iter().map(|(key, _)| key.clone()));
        let named: HashMap<_, _> = named.into_iter().collect();
        let labels = memory.labels.iter();
        labels
            .map(|key| (key.clone(), named.get(key).copied().unwrap_or(EMPTY)))
            .collect()
    }
}

/// The state of the message in the queue of this leg, told by the first of its open legs there.
fn speaks_for(entry: &Entry, at: usize, leg: &LegState, now: u64) -> Option<State> {
    if leg.is_settled() {
        return None;
    }
    let same = |other: &&LegState| {
        Arc::ptr_eq(&other.destination, &leg.destination) && !other.is_settled()
    };
    if entry.legs.iter().take(at).any(|other| same(&other)) {
        return None;
    }
    entry
        .legs
        .iter()
        .filter(same)
        .map(|other| other.state(now))
        .min()
}

/// What a list shows of a leg, before the message is read back.
struct Listing {
    state: State,
    tenant: TenantName,
    via: String,
    positions: Vec<u32>,
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
