//! Due work in memory: which recipients of which message are open, and when each queue has something to do.
//!
//! Small for what only waits: a message costs a map entry, its legs and a place in a list or heap; everything else is read
//! back from the journal when it is leased.

use super::message::{Destination, Disposition};
use crate::journal::Location;
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};
use std::sync::Arc;

/// Recipients of one transaction at most (product.md 6).
pub(super) const TRANSACTION: usize = 100;

/// An open recipient after it was tried, or held by an operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Tried {
    pub(super) position: usize,
    pub(super) next_try: u64,
    #[serde(default)]
    pub(super) attempts: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) held_since: Option<u64>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) operator_hold: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) reply: Option<Arc<str>>,
}

/// The open recipients of a leg.
#[derive(Debug)]
pub(super) enum Open {
    /// All, none tried yet.
    Fresh(Box<[usize]>),
    Tried(Vec<Tried>),
}

#[derive(Debug)]
pub(super) struct LegState {
    pub(super) destination: Arc<Destination>,
    pub(super) open: Open,
    pub(super) active: bool,
    arrived: u64,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) location: Location,
    pub(super) arrived: u64,
    pub(super) large: bool,
    pub(super) legs: Box<[LegState]>,
}

/// What a leg is doing, for metrics and lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum State {
    Ready,
    Active,
    Deferred,
    Held,
}

impl State {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Active => "active",
            Self::Deferred => "deferred",
            Self::Held => "held",
        }
    }
}

impl LegState {
    pub(super) fn new(destination: Arc<Destination>, recipients: Vec<usize>, arrived: u64) -> Self {
        Self {
            destination,
            open: Open::Fresh(recipients.into()),
            active: false,
            arrived,
        }
    }

    pub(super) fn is_settled(&self) -> bool {
        match &self.open {
            Open::Fresh(positions) => positions.is_empty(),
            Open::Tried(tried) => tried.is_empty(),
        }
    }

    /// The open recipients, written out.
    pub(super) fn open(&self) -> Vec<Tried> {
        match &self.open {
            Open::Fresh(positions) => positions
                .iter()
                .map(|position| Tried {
                    position: *position,
                    next_try: self.arrived,
                    attempts: 0,
                    held_since: None,
                    operator_hold: false,
                    reply: None,
                })
                .collect(),
            Open::Tried(tried) => tried.clone(),
        }
    }

    pub(super) fn open_mut(&mut self) -> &mut Vec<Tried> {
        if let Open::Fresh(_) = self.open {
            self.open = Open::Tried(self.open());
        }
        match &mut self.open {
            Open::Tried(tried) => tried,
            // Just made otherwise.
            Open::Fresh(_) => unreachable!("a fresh leg was written out"),
        }
    }

    /// When the first open recipient is due; none where an operator holds all.
    pub(super) fn next_try(&self) -> Option<u64> {
        match &self.open {
            Open::Fresh(positions) => (!positions.is_empty()).then_some(self.arrived),
            Open::Tried(tried) => tried
                .iter()
                .filter(|tried| !tried.operator_hold)
                .map(|tried| tried.next_try)
                .min(),
        }
    }

    pub(super) fn state(&self, now: u64) -> State {
        if self.active {
            return State::Active;
        }
        match &self.open {
            Open::Fresh(_) => State::Ready,
            Open::Tried(tried)
                if tried
                    .iter()
                    .any(|tried| tried.operator_hold || tried.held_since.is_some()) =>
            {
                State::Held
            }
            Open::Tried(_) if self.next_try().is_some_and(|next| next > now) => State::Deferred,
            Open::Tried(_) => State::Ready,
        }
    }
}

/// All queues.
#[derive(Debug, Default)]
pub(super) struct Queue {
    pub(super) entries: HashMap<u64, Entry>,
    /// Due legs by queue; ids sort by arrival, so that the oldest goes first: also as the probe of a parked queue.
    destinations: BTreeMap<Arc<Destination>, BTreeSet<(u64, u8)>>,
    waiting: BinaryHeap<Reverse<(u64, u64, u8)>>,
}

/// What is leased.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) id: u64,
    pub(super) leg: u8,
    pub(super) recipients: Vec<usize>,
    pub(super) attempts: u32,
    pub(super) held_since: Option<u64>,
    pub(super) last_reply: Option<Arc<str>>,
    pub(super) location: Location,
    pub(super) large: bool,
}

impl Queue {
    /// The shared name of a queue.
    pub(super) fn destination(&mut self, destination: Destination) -> Arc<Destination> {
        if let Some((own, _)) = self.destinations.get_key_value(&destination) {
            return Arc::clone(own);
        }
        let shared = Arc::new(destination);
        self.destinations
            .insert(Arc::clone(&shared), BTreeSet::new());
        shared
    }

    pub(super) fn insert(&mut self, id: u64, entry: Entry, now: u64) {
        let legs = entry.legs.len();
        self.entries.insert(id, entry);
        for leg in 0..legs {
            self.schedule(id, u8::try_from(leg).unwrap_or(u8::MAX), now);
        }
    }

    /// Puts a leg where it is found when it is due.
    fn schedule(&mut self, id: u64, leg: u8, now: u64) {
        let Some(state) = self
            .entries
            .get(&id)
            .and_then(|entry| entry.legs.get(usize::from(leg)))
        else {
            return;
        };
        if state.active {
            return;
        }
        match state.next_try() {
            Some(next) if next <= now => {
                if let Some(ready) = self.destinations.get_mut(&state.destination) {
                    ready.insert((id, leg));
                }
            }
            Some(next) => self.waiting.push(Reverse((next, id, leg))),
            None => {}
        }
    }

    /// Moves what has become due to the ready lists.
    pub(super) fn promote(&mut self, now: u64) {
        while let Some(Reverse((next, id, leg))) = self.waiting.peek().copied()
            && next <= now
        {
            self.waiting.pop();
            let state = self
                .entries
                .get(&id)
                .and_then(|entry| entry.legs.get(usize::from(leg)));
            // Stale where the leg was settled or put off since.
            if state.is_some_and(|state| state.next_try() == Some(next)) {
                self.schedule(id, leg, now);
            }
        }
    }

    pub(super) fn due(&mut self, now: u64) -> Vec<(Destination, usize)> {
        self.promote(now);
        let waiting = self
            .destinations
            .iter()
            .filter(|(_, ready)| !ready.is_empty());
        waiting
            .map(|(destination, ready)| (Destination::clone(destination), ready.len()))
            .collect()
    }

    pub(super) fn next_wake(&self) -> Option<u64> {
        self.waiting.peek().map(|Reverse((next, ..))| *next)
    }

    pub(super) fn lease(&mut self, destination: &Destination, now: u64) -> Option<Lease> {
        self.promote(now);
        loop {
            let (id, leg) = self.destinations.get_mut(destination)?.pop_first()?;
            let Some(entry) = self.entries.get_mut(&id) else {
                continue;
            };
            let (location, large) = (entry.location, entry.large);
            let Some(state) = entry.legs.get_mut(usize::from(leg)) else {
                continue;
            };
            if state.active {
                continue;
            }
            if state.next_try().is_none_or(|next| next > now) {
                // Listed too early; put where it is found in time.
                self.schedule(id, leg, now);
                continue;
            }
            let open = state.open();
            let due = open
                .iter()
                .filter(|tried| !tried.operator_hold && tried.next_try <= now)
                .take(TRANSACTION);
            let due: Vec<&Tried> = due.collect();
            state.active = true;
            return Some(Lease {
                id,
                leg,
                recipients: due.iter().map(|tried| tried.position).collect(),
                attempts: due.iter().map(|tried| tried.attempts).max().unwrap_or(0),
                held_since: due.iter().filter_map(|tried| tried.held_since).min(),
                last_reply: due.iter().find_map(|tried| tried.reply.clone()),
                location,
                large,
            });
        }
    }

    /// Ends a lease with what became of the recipients; true where the whole message is settled.
    pub(super) fn settle(
        &mut self,
        id: u64,
        leg: u8,
        results: Vec<(usize, Disposition)>,
        counts: bool,
    ) -> bool {
        let Some(entry) = self.entries.get_mut(&id) else {
            return false;
        };
        let Some(state) = entry.legs.get_mut(usize::from(leg)) else {
            return false;
        };
        state.active = false;
        if !results.is_empty() {
            let open = state.open_mut();
            for (position, disposition) in results {
                let Some(at) = open.iter().position(|tried| tried.position == position) else {
                    continue;
                };
                let (next_try, reply, held_since) = match disposition {
                    Disposition::Delivered | Disposition::Failed { .. } => {
                        open.remove(at);
                        continue;
                    }
                    Disposition::Deferred { next_try, reply } => (next_try, reply, None),
                    Disposition::Held {
                        next_try,
                        since,
                        reply,
                    } => (next_try, reply, Some(since)),
                };
                if let Some(tried) = open.get_mut(at) {
                    tried.next_try = next_try;
                    tried.reply = Some(reply.into());
                    tried.held_since = held_since;
                    tried.attempts += u32::from(counts);
                }
            }
        }
        let settled = entry.legs.iter().all(LegState::is_settled);
        // What is due already is found by the next look at the clock.
        self.schedule(id, leg, 0);
        settled
    }

    /// Changes open recipients of a message's legs and schedules them anew.
    pub(super) fn change(&mut self, id: u64, now: u64, change: impl Fn(&mut Tried)) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        let mut legs = Vec::new();
        for (leg, state) in entry.legs.iter_mut().enumerate() {
            state.open_mut().iter_mut().for_each(&change);
            legs.push(u8::try_from(leg).unwrap_or(u8::MAX));
        }
        for leg in legs {
            self.schedule(id, leg, now);
        }
    }
}
