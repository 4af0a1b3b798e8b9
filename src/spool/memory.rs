//! What of the store is in memory: the queue, and messages just accepted that delivery may take without a read.

use super::accept::Accepting;
use super::message::Message;
use super::queue::{Entry, Queue};
use crate::journal::Location;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Octets of messages just accepted that delivery may take from memory, in all: half a second of mail at full speed.
pub(super) const FRESH: usize = 8 * 1024 * 1024;

/// Milliseconds after which a message makes room for newer ones: what has not left by then waits for a next hop.
pub(super) const STALE: u64 = 10_000;

/// The queue, and what is still at hand, under one lock: [`super::Shared`].
#[derive(Debug, Default)]
pub(super) struct Memory {
    pub(super) queue: Queue,
    /// By id, and so by arrival.
    pub(super) fresh: BTreeMap<u64, Fresh>,
    pub(super) fresh_octets: usize,
}

/// A message that was just accepted, still at hand.
#[derive(Debug)]
pub(super) struct Fresh {
    pub(super) message: Arc<Message>,
    pub(super) body: Bytes,
    cost: usize,
}

impl Memory {
    /// Queues what is on disk at `location`, and keeps it at hand where it is small and there is room.
    pub(super) fn insert(&mut self, accepting: &Accepting, location: Location) {
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
    pub(super) fn fresh(&mut self, id: u64, more: bool) -> Option<(Arc<Message>, Bytes)> {
        let fresh = self.fresh.get(&id)?;
        let found = (Arc::clone(&fresh.message), fresh.body.clone());
        if !more {
            self.drop_fresh(id);
        }
        Some(found)
    }

    pub(super) fn drop_fresh(&mut self, id: u64) {
        if let Some(fresh) = self.fresh.remove(&id) {
            self.fresh_octets = self.fresh_octets.saturating_sub(fresh.cost);
        }
    }
}
