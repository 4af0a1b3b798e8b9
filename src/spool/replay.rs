//! What is queued after a start? Each record in turn, in the order in which they were written.

use super::queue::{Entry, Queue, number};
use super::record::{Brief, StateRow, decode};
use crate::journal::{Found, JournalError, Kind};
use crate::mail::{Mailbox, TenantName};
use std::collections::HashSet;

/// What a start-up scan has found so far.
#[derive(Default)]
pub(super) struct Replay {
    queue: Queue,
    /// Messages whose bodies lie in files of their own.
    large: HashSet<u64>,
}

impl Replay {
    /// Takes one record. A message appears with its record, later records of it (a copy, what is left to do) take the place
    /// of earlier ones, and it goes with the record that says it is done.
    ///
    /// # Errors
    /// A record does not read though its checksum holds: nothing may be started over it, for its space would be reused.
    pub(super) fn take(&mut self, found: &Found) -> Result<(), JournalError> {
        match found.kind {
            Kind::Message => self.message(found)?,
            Kind::State => {
                let state: StateRow = decode(&found.meta)?;
                self.state(state);
            }
            Kind::Done => {
                let ids = found.meta.chunks_exact(8);
                for id in ids.filter_map(|id| id.try_into().ok()) {
                    self.done(u64::from_le_bytes(id));
                }
            }
            Kind::Start => {}
        }
        Ok(())
    }

    fn message(&mut self, found: &Found) -> Result<(), JournalError> {
        let mut brief: Brief = decode(&found.meta)?;
        let (id, arrived) = (brief.id, brief.arrived);
        let tenant: TenantName = brief.tenant.as_ref().into();
        let mut legs = Vec::new();
        for (row, (via, recipients)) in brief.legs()?.into_iter().enumerate() {
            let domain_of = |position| {
                let mailbox: Option<Mailbox> = brief.address(position)?.parse().ok();
                mailbox.map(|mailbox| mailbox.domain().clone())
            };
            let parts = self
                .queue
                .parts(row, (&via, &tenant), recipients, arrived, domain_of);
            legs.extend(parts);
        }
        let large = brief.is_large();
        if large {
            self.large.insert(id);
        }
        let entry = Entry {
            location: found.location,
            arrived,
            large,
            own: brief.is_own(),
            legs: legs.into(),
        };
        self.queue.entries.insert(id, entry);
        // A copy carries what was left to do when it was made.
        if let Some(state) = brief.state {
            self.state(state);
        }
        Ok(())
    }

    fn state(&mut self, state: StateRow) {
        if !self.queue.restore(state.id, state.legs) {
            self.done(state.id);
        }
    }

    fn done(&mut self, id: u64) {
        self.queue.remove(id);
        self.large.remove(&id);
    }

    /// The queue, and the ids whose bodies lie in files of their own.
    pub(super) fn finish(mut self) -> (Queue, HashSet<u64>) {
        let legs = |(id, entry): (&u64, &Entry)| (*id, entry.legs.len(), entry.arrived);
        let all: Vec<_> = self.queue.entries.iter().map(legs).collect();
        for (id, legs, arrived) in all {
            for leg in 0..legs {
                self.queue.schedule(id, number(leg), arrived);
            }
        }
        (self.queue, self.large)
    }
}
