//! Whose sender should hear that mail still waits?
//!
//! A message falls due by its age alone, whether it was tried or stands in a parked queue. Ids sort by arrival, so one mark
//! for each kind of way moves through the queue, and what it has passed is not looked at again: nothing is kept for a
//! message that only waits. That the sender was told is a result like any other, and on disk within a second; the mark
//! begins anew with each start.

use super::Spool;
use super::due::{Body, Due, Holding};
use super::memory::Memory;
use super::message::Destination;
use super::queue::{Entry, Lease, LegState, Queue, Tried};
use crate::mail::QueueId;
use crate::route::Via;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

/// Messages that are looked at under one lock.
const LOOKED_AT: usize = 10_000;

/// How long mail waits before its sender hears of it, by the kind of its way; milliseconds from arrival, nothing for never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Patience {
    /// By the tenant's connector.
    pub exchange: Option<u64>,
    /// By mail exchangers and relays.
    pub outside: Option<u64>,
    /// From when on the next attempt by the connector may be the last, milliseconds from arrival; nothing for never.
    pub exchange_end: Option<u64>,
    /// The same by mail exchangers and relays.
    pub outside_end: Option<u64>,
}

impl Patience {
    fn of(self, internal: bool) -> Option<u64> {
        if internal {
            self.exchange
        } else {
            self.outside
        }
    }

    fn is_over(self, internal: bool, arrived: u64, now: u64) -> bool {
        self.of(internal)
            .is_some_and(|wait| arrived.saturating_add(wait) <= now)
    }

    fn has_ended(self, internal: bool, arrived: u64, now: u64) -> bool {
        let end = if internal {
            self.exchange_end
        } else {
            self.outside_end
        };
        end.is_some_and(|end| arrived.saturating_add(end) <= now)
    }
}

/// A message that has waited long, for reading: it is not leased, and may be on its way meanwhile ([`Spool::still_waits`]).
#[derive(Debug)]
pub struct Late<W> {
    work: W,
    waiting: Vec<Waiting>,
}

impl<W> Late<W> {
    /// One of a store's messages.
    pub fn new(work: W, waiting: Vec<Waiting>) -> Self {
        Self { work, waiting }
    }

    /// The message, in the form of the first of its ways.
    #[must_use]
    pub fn work(&self) -> &W {
        &self.work
    }

    /// Those of its recipients that wait and whose sender was not told.
    #[must_use]
    pub fn waiting(&self) -> &[Waiting] {
        &self.waiting
    }
}

/// A recipient that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Position in the envelope.
    pub at: usize,
    /// The way it waits for.
    pub via: Via,
    /// The reply that was last recorded.
    pub reply: Option<Arc<str>>,
    /// An operator holds it.
    pub operator_hold: bool,
}

/// The marks.
#[derive(Debug, Default)]
pub(super) struct Sweeps {
    exchange: Sweep,
    outside: Sweep,
}

#[derive(Debug, Default)]
struct Sweep {
    /// The first id that was not looked at.
    next: u64,
    /// Before it, and to be looked at again.
    again: BTreeSet<u64>,
}

impl Sweeps {
    /// A message was queued: perhaps behind a mark, since an id is given when a transaction begins.
    pub(super) fn note(&mut self, id: u64) {
        for sweep in [&mut self.exchange, &mut self.outside] {
            if id < sweep.next {
                sweep.again.insert(id);
            }
        }
    }

    /// The clock was set back: those who come now have smaller ids than those who are there, and the marks would wait for
    /// them. So these are looked at on their own.
    pub(super) fn clock_was_set_back(&mut self, entries: &BTreeMap<u64, Entry>) {
        for sweep in [&mut self.exchange, &mut self.outside] {
            let there = entries.range(sweep.next..).take(LOOKED_AT);
            sweep.again.extend(there.map(|(id, _)| *id));
            if let Some(last) = sweep.again.last() {
                sweep.next = sweep.next.max(last.saturating_add(1));
            }
        }
    }

    fn of(&self, internal: bool) -> &Sweep {
        if internal {
            &self.exchange
        } else {
            &self.outside
        }
    }

    fn of_mut(&mut self, internal: bool) -> &mut Sweep {
        if internal {
            &mut self.exchange
        } else {
            &mut self.outside
        }
    }
}

/// What was found of one message.
#[derive(Debug)]
pub(super) struct Found {
    id: u64,
    arrived: u64,
    destination: Arc<Destination>,
    row: usize,
    waiting: Vec<Waiting>,
}

enum Look {
    /// Nobody is to be told anything.
    Nothing,
    /// It is on its way, or about to be for the last time: better known a little later.
    OnItsWay,
    Found(Found),
}

impl Queue {
    /// Whether what becomes of a leg is better known a little later: it is on its way, or its time is over, it is due, and
    /// its queue is not parked.
    fn is_in_doubt(&self, leg: &LegState, arrived: u64, patience: Patience, now: u64) -> bool {
        let is_due = || leg.next_try().is_some_and(|next| next <= now);
        let ends = patience.has_ended(leg.destination.via.is_internal(), arrived, now);
        leg.active || ends && is_due() && self.tallies.parked(leg.way).is_none()
    }

    /// When a message may fall due that was not looked at.
    pub(super) fn next_late(&self, patience: Patience, now: u64) -> Option<u64> {
        let due = [true, false].into_iter().filter_map(|internal| {
            let wait = patience.of(internal)?;
            let sweep = self.sweeps.of(internal);
            let of_kind = |leg: &&LegState| leg.destination.via.is_internal() == internal;
            let again = sweep.again.iter().take(LOOKED_AT);
            let again = again.filter_map(|id| self.entries.get(id));
            let in_doubt = |entry: &&Entry| {
                let mut legs = entry.legs.iter().filter(of_kind);
                legs.any(|leg| self.is_in_doubt(leg, entry.arrived, patience, now))
            };
            let again = again
                .filter(|entry| !in_doubt(entry))
                .map(|entry| entry.arrived);
            let next = self.entries.range(sweep.next..).next();
            let first = again.chain(next.map(|(_, entry)| entry.arrived)).min()?;
            Some(first.saturating_add(wait))
        });
        due.min()
    }

    /// At most so many messages that have waited long; the marks move on.
    pub(super) fn take_late(&mut self, patience: Patience, now: u64, most: usize) -> Vec<Found> {
        let mut found: Vec<Found> = Vec::new();
        for internal in [true, false] {
            let Some(wait) = patience.of(internal) else {
                continue;
            };
            let Sweep {
                mut next,
                mut again,
            } = std::mem::take(self.sweeps.of_mut(internal));
            let is_over = |entry: &Entry| entry.arrived.saturating_add(wait) <= now;
            let new = self.entries.range(next..);
            let new = new.take_while(|(_, entry)| is_over(entry));
            let ids: Vec<u64> = again.iter().take(LOOKED_AT).copied().collect();
            let ids = ids
                .into_iter()
                .chain(new.take(LOOKED_AT).map(|(id, _)| *id));
            for id in ids {
                if found.len() >= most {
                    break;
                }
                next = next.max(id.saturating_add(1));
                again.remove(&id);
                let Some(entry) = self.entries.get(&id) else {
                    continue;
                };
                if !is_over(entry) {
                    again.insert(id);
                    continue;
                }
                match self.look(id, entry, internal, patience, now) {
                    Look::Nothing => {}
                    Look::OnItsWay => {
                        again.insert(id);
                    }
                    Look::Found(_) if found.iter().any(|other| other.id == id) => {}
                    Look::Found(one) => found.push(one),
                }
            }
            *self.sweeps.of_mut(internal) = Sweep { next, again };
        }
        found
    }

    /// Those who fall due together are found together, also where they leave by different kinds of ways.
    fn look(&self, id: u64, entry: &Entry, internal: bool, patience: Patience, now: u64) -> Look {
        let of_kind = |leg: &&LegState| leg.destination.via.is_internal() == internal;
        let untold = || entry.legs.iter().filter(|leg| leg.has_untold());
        // Reports are from nobody.
        if entry.own || untold().filter(of_kind).count() == 0 {
            return Look::Nothing;
        }
        let in_doubt = |leg: &LegState| self.is_in_doubt(leg, entry.arrived, patience, now);
        if untold().filter(of_kind).any(in_doubt) {
            return Look::OnItsWay;
        }
        let mut first = None;
        let mut waiting = Vec::new();
        for leg in untold().filter(|leg| !in_doubt(leg)) {
            let via = &leg.destination.via;
            if !patience.is_over(via.is_internal(), entry.arrived, now) {
                continue;
            }
            first = first.or(Some(leg));
            let open = leg.open().into_iter().filter(|tried| !tried.told);
            waiting.extend(open.map(|tried| Waiting {
                at: tried.position as usize,
                via: via.clone(),
                reply: tried.reply,
                operator_hold: tried.operator_hold,
            }));
        }
        first.map_or(Look::Nothing, |leg| {
            Look::Found(Found {
                id,
                arrived: entry.arrived,
                destination: Arc::clone(&leg.destination),
                row: usize::from(leg.row),
                waiting,
            })
        })
    }
}

impl Spool {
    /// When the next message may have waited so long that its sender should hear of it (milliseconds since 1970).
    #[must_use]
    pub fn next_late(&self, patience: Patience, now_millis: u64) -> Option<u64> {
        self.0.shared.memory().queue.next_late(patience, now_millis)
    }

    /// At most so many messages that have waited so long, each handed out once, until [`Self::put_back`]. Whether anyone is
    /// to be told is for the caller to see. Reads from the disk.
    #[must_use]
    pub fn late(&self, patience: Patience, now_millis: u64, most: usize) -> Vec<Late<Due>> {
        let mut memory = self.0.shared.memory();
        let found = memory.queue.take_late(patience, now_millis, most);
        drop(memory);
        let late = found.into_iter().filter_map(|found| self.view(found));
        late.collect()
    }

    fn view(&self, found: Found) -> Option<Late<Due>> {
        let at_hand = {
            let memory = self.0.shared.memory();
            let fresh = memory.fresh.get(&found.id);
            fresh.map(|fresh| (Arc::clone(&fresh.message), Body::Memory(fresh.body.clone())))
        };
        let (message, body) = match at_hand {
            Some(at_hand) => at_hand,
            None => match self.read_back(found.id) {
                Ok((message, Some(file))) => {
                    let path = self.0.bodies.path(found.id);
                    (Arc::new(message), Body::File(path, file))
                }
                Ok((message, None)) => (Arc::new(message), Body::Journal),
                Err(error) => {
                    // Delivered meanwhile, or damaged: then whoever tries it says so.
                    let id = QueueId::from_u64(found.id);
                    tracing::debug!(%id, %error, "not read back for a notice");
                    return None;
                }
            },
        };
        let lease = Lease {
            id: found.id,
            leg: 0,
            row: found.row,
            recipients: found.waiting.iter().map(|waiting| waiting.at).collect(),
            attempts: 0,
            held_since: None,
            arrived: found.arrived,
            last_replies: Vec::new(),
            more: true,
        };
        // Nothing was leased, and nothing is given back.
        let holding = Holding {
            spool: self.clone(),
            id: found.id,
            leg: 0,
            settled: true,
        };
        let destination = Destination::clone(&found.destination);
        let due = Due::new(message, destination, lease, body, holding);
        Some(Late::new(due, found.waiting))
    }

    /// Whether all of them still wait, and none is on its way: asked before a notice is stored, so that none follows the
    /// report of a failure. Where that is not so, those who still wait are handed out again.
    #[must_use]
    pub fn still_waits(&self, late: &Late<Due>) -> bool {
        let id = late.work.message().id.as_u64();
        let mut memory = self.0.shared.memory();
        let entry = memory.queue.entries.get(&id);
        let legs = entry.map_or(&[][..], |entry| &*entry.legs);
        let open = legs
            .iter()
            .filter(|leg| !leg.active)
            .flat_map(LegState::open);
        let untold = open.filter(|tried| !tried.told);
        let untold: HashSet<usize> = untold.map(|tried| tried.position as usize).collect();
        let all = late
            .waiting
            .iter()
            .all(|waiting| untold.contains(&waiting.at));
        if !all {
            memory.queue.sweeps.note(id);
        }
        all
    }

    /// Records that the sender was told of these recipients. Written within a second, as other results.
    pub fn told(&self, late: &Late<Due>) {
        let id = late.work.message().id.as_u64();
        let named: HashSet<usize> = late.waiting.iter().map(|waiting| waiting.at).collect();
        let mut memory = self.0.shared.memory();
        let Memory { queue, .. } = &mut *memory;
        let Some(entry) = queue.entries.get_mut(&id) else {
            return;
        };
        let is_named = |tried: &Tried| named.contains(&(tried.position as usize));
        for leg in &mut entry.legs {
            // What nobody was told of stays as small as it is.
            if leg.open().iter().any(is_named) {
                leg.change(|open| {
                    open.iter_mut()
                        .for_each(|tried| tried.told |= is_named(tried));
                });
            }
        }
        self.write_state(&memory, id);
    }

    /// The sender could not be told: to be handed out again.
    pub fn put_back(&self, late: &Late<Due>) {
        let id = late.work.message().id.as_u64();
        self.0.shared.memory().queue.sweeps.note(id);
    }
}
