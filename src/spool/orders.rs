//! What an operator and the schedule order of the queue: hold, release, retry, delete; park, pause, another clock.

use super::Spool;
use super::memory::Memory;
use super::message::{Acted, Destination, HeldBefore, QueueAction};
use crate::mail::QueueId;
use std::ops::Bound;

/// Messages that an operator's order is carried out on before mail has its turn again.
pub(super) const PORTION: usize = 1024;

impl Spool {
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
}
