//! Due work in memory: which recipients of which message are open, and when each queue has something to do.
//!
//! Small for what only waits (under 300 octets a message, measured by `benches/queue.rs`): a map entry, its legs and a place in a
//! list or heap. Everything else is read back from the journal when it is leased.

use super::late::Sweeps;
use super::message::{Destination, Disposition, HeldBefore};
use super::tally::{self, Tallies};
use crate::journal::Location;
use crate::mail::{Domain, QueueId, TenantName};
use crate::route::Via;
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, HashSet};
use std::sync::Arc;

/// Recipients of one transaction at most (product.md 6).
pub(super) const TRANSACTION: usize = 100;

/// Names of queues that are kept before those that nobody uses any more are forgotten.
const NAMES: usize = 1024;

/// Queues that pause, before those that are gone are looked for among them.
const PAUSES: usize = 1024;

/// Replies that are kept once for all who were given them: an outage gives many messages the same one.
const SHARED_REPLIES: usize = 1024;

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// An open recipient after it was tried, or held by an operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Tried {
    pub(super) position: u32,
    #[serde(default)]
    pub(super) attempts: u32,
    pub(super) next_try: u64,
    /// 0: not held.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) held_since: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) reply: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) operator_hold: bool,
    /// The sender was told that it waits: once for ever.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) told: bool,
    /// Mail of our own that has been to the tenant's host without certificate: once for ever.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) uncertified: bool,
}

impl Tried {
    fn new(position: u32, next_try: u64) -> Self {
        Self {
            position,
            attempts: 0,
            next_try,
            held_since: 0,
            reply: None,
            operator_hold: false,
            told: false,
            uncertified: false,
        }
    }

    /// Whether nobody has tried it, though another recipient of the message was.
    fn is_new(&self) -> bool {
        self.attempts == 0 && self.reply.is_none()
    }

    fn may_go_uncertified(&self) -> bool {
        !self.operator_hold && !self.uncertified
    }

    fn is_due(&self, now: u64) -> bool {
        !self.operator_hold && self.next_try <= now
    }
}

/// The open recipients of a leg in one queue.
#[derive(Debug)]
pub(super) enum Open {
    /// All, none tried yet.
    Fresh(Box<[u32]>),
    Tried(Vec<Tried>),
}

#[derive(Debug)]
pub(super) struct LegState {
    pub(super) destination: Arc<Destination>,
    pub(super) open: Open,
    pub(super) active: bool,
    /// Which leg of the message: by `mx` one for each domain stands here, and one with all of them in the journal.
    pub(super) row: u8,
    /// Which of the ways that are counted.
    pub(super) way: u16,
    /// As what it is counted.
    pub(super) counted: Option<State>,
    arrived: u64,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) location: Location,
    pub(super) arrived: u64,
    pub(super) large: bool,
    /// Mail of our own.
    pub(super) own: bool,
    pub(super) legs: Box<[LegState]>,
}

impl Entry {
    /// Whether it is a message of this tenant.
    pub(super) fn is_of(&self, tenant: &str) -> bool {
        self.legs
            .iter()
            .any(|leg| *leg.destination.tenant == *tenant)
    }

    fn may_go_uncertified(&self, leg: u16) -> bool {
        let leg = self.legs.get(usize::from(leg)).filter(|_| self.own);
        leg.is_some_and(|leg| {
            let open = || leg.open().iter().any(Tried::may_go_uncertified);
            leg.destination.via.is_internal() && !leg.active && open()
        })
    }
}

/// What a leg is doing, for metrics and lists. Of several, the smaller one speaks for the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum State {
    Active,
    Ready,
    Deferred,
    Held,
}

impl State {
    pub(super) const ALL: [Self; 4] = [Self::Active, Self::Ready, Self::Deferred, Self::Held];

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
    pub(super) fn new(
        row: usize,
        (destination, way): (Arc<Destination>, u16),
        recipients: Box<[u32]>,
        arrived: u64,
    ) -> Self {
        Self {
            destination,
            open: Open::Fresh(recipients),
            active: false,
            row: u8::try_from(row).unwrap_or(u8::MAX),
            way,
            counted: None,
            arrived,
        }
    }

    pub(super) fn is_settled(&self) -> bool {
        match &self.open {
            Open::Fresh(positions) => positions.is_empty(),
            Open::Tried(tried) => tried.is_empty(),
        }
    }

    /// Whether nobody was tried yet.
    pub(super) fn is_fresh(&self) -> bool {
        matches!(self.open, Open::Fresh(_))
    }

    /// The open recipients, written out.
    pub(super) fn open(&self) -> Vec<Tried> {
        match &self.open {
            Open::Fresh(positions) => {
                let positions = positions.iter();
                positions
                    .map(|position| Tried::new(*position, self.arrived))
                    .collect()
            }
            Open::Tried(tried) => tried.clone(),
        }
    }

    /// Whether there is an open recipient whose sender was not told that it waits.
    pub(super) fn has_untold(&self) -> bool {
        match &self.open {
            Open::Fresh(positions) => !positions.is_empty(),
            Open::Tried(tried) => tried.iter().any(|tried| !tried.told),
        }
    }

    /// Changes the open recipients.
    pub(super) fn change<R>(&mut self, change: impl FnOnce(&mut Vec<Tried>) -> R) -> R {
        let mut open = match &mut self.open {
            Open::Tried(tried) => std::mem::take(tried),
            Open::Fresh(_) => self.open(),
        };
        let result = change(&mut open);
        open.shrink_to_fit();
        self.open = Open::Tried(open);
        result
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
        let held = |tried: &Tried| tried.operator_hold || tried.held_since > 0;
        match &self.open {
            Open::Fresh(_) => State::Ready,
            Open::Tried(tried) if tried.iter().any(held) => State::Held,
            Open::Tried(_) if self.next_try().is_some_and(|next| next > now) => State::Deferred,
            Open::Tried(_) => State::Ready,
        }
    }
}

/// All queues.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// By id, and so by arrival.
    pub(super) entries: BTreeMap<u64, Entry>,
    /// Due legs by queue, the oldest first.
    destinations: BTreeMap<Arc<Destination>, BTreeSet<(u64, u16)>>,
    /// How many names there may be before the next look whether all are used.
    names: usize,
    /// What is due later. An entry whose leg was put off or settled since is stale and dropped when its time comes.
    waiting: BinaryHeap<Reverse<(u64, u64, u16)>>,
    replies: HashSet<Arc<str>>,
    /// Legs of our own mail by queue that may go without certificate, should their queue be parked. One that is gone, or on
    /// its way, is stale and dropped when it is met.
    own: BTreeMap<Arc<Destination>, BTreeSet<(u64, u16)>>,
    /// Queues that pause, and until when: for lists.
    pauses: HashMap<Destination, u64>,
    /// How many there may be before the next look whether all of them have mail.
    most_pauses: usize,
    /// Queues of which an operator wants mail tried now.
    pub(super) hurried: BTreeSet<Arc<Destination>>,
    /// How far the queue was searched for mail that has waited long.
    pub(super) sweeps: Sweeps,
    pub(super) tallies: Tallies,
}

/// What is leased: recipients with as many attempts and a hold of the same moment. What that hold was for, each one's own
/// last reply says.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) id: u64,
    pub(super) leg: u16,
    /// Which leg of the message.
    pub(super) row: usize,
    pub(super) recipients: Vec<usize>,
    pub(super) attempts: u32,
    pub(super) held_since: Option<u64>,
    /// By the clock as it is now.
    pub(super) arrived: u64,
    /// Of each recipient, in their order.
    pub(super) last_replies: Vec<Option<Arc<str>>>,
    /// Another leg has not been tried: the bytes at hand will be asked for again.
    pub(super) more: bool,
}

impl Queue {
    /// The shared name of a queue.
    pub(super) fn destination(&mut self, destination: Destination) -> Arc<Destination> {
        if let Some((own, _)) = self.destinations.get_key_value(&destination) {
            return Arc::clone(own);
        }
        if self.destinations.len() >= self.names.max(NAMES) {
            self.destinations
                .retain(|name, ready| Arc::strong_count(name) > 1 || !ready.is_empty());
            self.names = 2 * self.destinations.len();
        }
        let shared = Arc::new(destination);
        self.destinations
            .insert(Arc::clone(&shared), BTreeSet::new());
        shared
    }

    /// What a leg of a message comes to here: by `mx` a part for each domain, else one for all its recipients.
    pub(super) fn parts(
        &mut self,
        row: usize,
        way: (&Via, &TenantName),
        recipients: Box<[u32]>,
        arrived: u64,
        domain_of: impl Fn(u32) -> Option<Domain>,
    ) -> Vec<LegState> {
        let (via, tenant) = way;
        let number = self.tallies.number(via, tenant);
        let mut named = |domain| {
            let destination = self.destination(Destination {
                via: via.clone(),
                tenant: Arc::clone(tenant),
                domain,
            });
            (destination, number)
        };
        if *via != Via::Mx {
            return vec![LegState::new(row, named(None), recipients, arrived)];
        }
        let mut by_domain: Vec<(Option<Domain>, Vec<u32>)> = Vec::new();
        let mut places: HashMap<Option<Domain>, usize> = HashMap::new();
        for position in recipients {
            let domain = domain_of(position);
            let place = *places.entry(domain.clone()).or_insert(by_domain.len());
            match by_domain.get_mut(place) {
                Some((_, positions)) => positions.push(position),
                None => by_domain.push((domain, vec![position])),
            }
        }
        let parts = by_domain.into_iter();
        parts
            .map(|(domain, positions)| LegState::new(row, named(domain), positions.into(), arrived))
            .collect()
    }

    /// The names of all queues.
    #[cfg(test)]
    pub(super) fn destinations(&self) -> impl Iterator<Item = &Arc<Destination>> {
        self.destinations.keys()
    }

    pub(super) fn insert(&mut self, id: u64, entry: Entry, now: u64) {
        let legs = entry.legs.len();
        self.sweeps.note(id);
        self.entries.insert(id, entry);
        for leg in 0..legs {
            self.schedule(id, number(leg), now);
        }
    }

    /// Takes over what a record says is left to do for a message; false where that is nothing.
    pub(super) fn restore(&mut self, id: u64, legs: Vec<Vec<Tried>>) -> bool {
        let Some(entry) = self.entries.get_mut(&id) else {
            return true;
        };
        for (row, mut open) in legs.into_iter().enumerate() {
            for tried in &mut open {
                tried.reply = tried
                    .reply
                    .take()
                    .map(|reply| shared(&mut self.replies, &reply));
            }
            let mut parts = entry
                .legs
                .iter_mut()
                .filter(|leg| usize::from(leg.row) == row);
            let Some(first) = parts.next() else { continue };
            let others: Vec<_> = parts.collect();
            if others.is_empty() {
                first.change(|tried| *tried = open);
                continue;
            }
            // Each part takes back what is its own: recipients are settled, but never move.
            let mut left: HashMap<u32, Tried> = open
                .into_iter()
                .map(|tried| (tried.position, tried))
                .collect();
            for part in std::iter::once(first).chain(others) {
                part.change(|tried| {
                    *tried = tried
                        .iter()
                        .filter_map(|own| left.remove(&own.position))
                        .collect();
                });
            }
        }
        !entry.legs.iter().all(LegState::is_settled)
    }

    /// Puts a leg where it is found when it is due.
    pub(super) fn schedule(&mut self, id: u64, leg: u16, now: u64) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        tally::count(&mut self.tallies, entry, id, usize::from(leg), now);
        let Some(state) = entry.legs.get(usize::from(leg)) else {
            return;
        };
        if state.active {
            return;
        }
        let (destination, next) = (&state.destination, state.next_try());
        let fresh = state.is_fresh();
        if entry.may_go_uncertified(leg) {
            let own = self.own.entry(Arc::clone(destination)).or_default();
            own.insert((id, leg));
        }
        match next {
            // New mail is due whatever its moment says: the clock may have been set since.
            Some(next) if next <= now || fresh => {
                if let Some(ready) = self.destinations.get_mut(destination) {
                    ready.insert((id, leg));
                }
            }
            Some(next) => self.waiting.push(Reverse((next, id, leg))),
            None => {}
        }
    }

    /// The queue pauses until then, or no more.
    pub(super) fn pause(&mut self, destination: &Destination, until: Option<u64>) {
        let Some(until) = until else {
            self.pauses.remove(destination);
            return;
        };
        if self.pauses.len() >= self.most_pauses.max(PAUSES) {
            let names = &self.destinations;
            self.pauses.retain(|name, _| names.contains_key(name));
            self.most_pauses = 2 * self.pauses.len();
        }
        self.pauses.insert(destination.clone(), until);
    }

    /// Until when a queue pauses after `now`.
    pub(super) fn paused(&self, destination: &Destination, now: u64) -> Option<u64> {
        let until = self.pauses.get(destination).copied();
        until.filter(|until| *until > now)
    }

    /// An operator wants this message tried now: its queues are not to keep it back.
    pub(super) fn hurry(&mut self, id: u64) {
        let Some(entry) = self.entries.get(&id) else {
            return;
        };
        let waiting = entry.legs.iter().filter(|leg| leg.next_try().is_some());
        let queues = waiting.map(|leg| Arc::clone(&leg.destination));
        self.hurried.extend(queues);
    }

    /// The clock was set by so many milliseconds (0: nobody knows whether, and by how much, for it was before the start) and
    /// no time has passed: every wait stays as long as it was. None is longer than `longest` of its way, and nobody arrived
    /// in the future.
    pub(super) fn clock_was_set(&mut self, by: i64, now: u64, longest: impl Fn(&Via) -> u64) {
        self.tallies.clock_was_set(by);
        for until in self.pauses.values_mut() {
            *until = until.saturating_add_signed(by);
        }
        let (mut moved, mut set_back) = (Vec::new(), by < 0);
        for (id, entry) in &mut self.entries {
            let shift = |moment: u64| moment.saturating_add_signed(by);
            set_back |= shift(entry.arrived) > now;
            entry.arrived = shift(entry.arrived).min(now);
            for (leg, state) in entry.legs.iter_mut().enumerate() {
                let before = state.next_try();
                state.arrived = shift(state.arrived).min(now);
                if let Open::Tried(tried) = &mut state.open {
                    let latest = now.saturating_add(longest(&state.destination.via));
                    for tried in tried {
                        // Who was never tried waits for nothing.
                        let latest = if tried.is_new() { now } else { latest };
                        tried.next_try = shift(tried.next_try).min(latest);
                        if tried.held_since > 0 {
                            tried.held_since = shift(tried.held_since).clamp(1, now.max(1));
                        }
                    }
                }
                if state.next_try() != before {
                    moved.push((*id, number(leg)));
                }
            }
        }
        if set_back {
            self.sweeps.clock_was_set_back(&self.entries);
        }
        if by != 0 {
            // All that is there has moved.
            self.waiting.clear();
        }
        for (id, leg) in moved {
            self.schedule(id, leg, now);
        }
    }

    /// Moves what has become due to the ready lists.
    pub(super) fn promote(&mut self, now: u64) {
        while let Some(Reverse((next, id, leg))) = self.waiting.peek().copied()
            && next <= now
        {
            self.waiting.pop();
            let state = self.leg(id, leg);
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

    /// Takes the oldest due leg of a queue.
    pub(super) fn lease(&mut self, destination: &Destination, now: u64) -> Option<Lease> {
        self.promote(now);
        loop {
            let (id, leg) = self.destinations.get_mut(destination)?.pop_first()?;
            let Some(state) = self.leg(id, leg) else {
                continue;
            };
            if state.active {
                continue;
            }
            let is_fresh = state.is_fresh();
            if !is_fresh && state.next_try().is_none_or(|next| next > now) {
                // Listed too early; put where it is found in time.
                self.schedule(id, leg, now);
                continue;
            }
            if let Some(lease) = self.take(id, leg, |tried| is_fresh || tried.is_due(now)) {
                return Some(lease);
            }
        }
    }

    /// Takes the oldest leg of a queue, due or not: the probe of a parked queue (product.md 6).
    pub(super) fn lease_oldest(&mut self, destination: &Destination) -> Option<Lease> {
        let (id, leg) = self.oldest(destination)?;
        if let Some(ready) = self.destinations.get_mut(destination) {
            ready.remove(&(id, leg));
        }
        self.take(id, leg, |tried| !tried.operator_hold)
    }

    /// Takes the oldest mail of our own of a queue that has not been on its way without certificate.
    pub(super) fn lease_uncertified(&mut self, destination: &Destination) -> Option<Lease> {
        loop {
            let (id, leg) = self.own.get_mut(destination)?.pop_first()?;
            let entry = self.entries.get(&id);
            if !entry.is_some_and(|entry| entry.may_go_uncertified(leg)) {
                continue;
            }
            if let Some(ready) = self.destinations.get_mut(destination) {
                ready.remove(&(id, leg));
            }
            if let Some(lease) = self.take(id, leg, Tried::may_go_uncertified) {
                return Some(lease);
            }
        }
    }

    /// Whether there would be one.
    pub(super) fn has_uncertified(&mut self, destination: &Destination) -> bool {
        let Some(own) = self.own.get(destination) else {
            return false;
        };
        if own.is_empty() {
            self.own.remove(destination);
            return false;
        }
        true
    }

    /// Ends the lease of mail of our own that was not taken without certificate: it waits with its queue, as if nothing had
    /// been tried.
    pub(super) fn keep_uncertified(&mut self, id: u64, leg: u16) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        let Some(state) = entry.legs.get_mut(usize::from(leg)) else {
            return;
        };
        state.active = false;
        state.change(|open| open.iter_mut().for_each(|tried| tried.uncertified = true));
        self.schedule(id, leg, 0);
    }

    /// The oldest leg of a queue that is neither on its way nor held by an operator.
    pub(super) fn oldest(&self, destination: &Destination) -> Option<(u64, u16)> {
        let (destination, _) = self.destinations.get_key_value(destination)?;
        self.entries.iter().find_map(|(id, entry)| {
            let leg = entry.legs.iter().position(|leg| {
                Arc::ptr_eq(&leg.destination, destination)
                    && !leg.active
                    && leg.next_try().is_some()
            })?;
            Some((*id, u16::try_from(leg).ok()?))
        })
    }

    /// See [`super::Spool::held`].
    pub(super) fn held(&self, meant: impl Fn(&str) -> bool, most: usize) -> Vec<HeldBefore> {
        let mut found: BTreeMap<&Destination, HeldBefore> = BTreeMap::new();
        // An outage gives many messages the same reply, and the same one in memory.
        let mut judged: HashMap<*const str, bool> = HashMap::new();
        for (id, entry) in &self.entries {
            for leg in &entry.legs {
                let Open::Tried(tried) = &leg.open else {
                    continue;
                };
                let held = tried.iter().find_map(|tried| {
                    let reply = tried.reply.as_ref().filter(|_| tried.held_since > 0)?;
                    let meant = judged
                        .entry(Arc::as_ptr(reply))
                        .or_insert_with(|| meant(reply));
                    meant.then_some((tried.held_since, reply))
                });
                let Some((since, reply)) = held else {
                    continue;
                };
                let queue = found
                    .entry(&*leg.destination)
                    .or_insert_with(|| HeldBefore {
                        destination: Destination::clone(&leg.destination),
                        since,
                        reply: reply.to_string(),
                        ids: Vec::new(),
                    });
                queue.since = queue.since.min(since);
                let id = QueueId::from_u64(*id);
                if queue.ids.len() < most && queue.ids.last() != Some(&id) {
                    queue.ids.push(id);
                }
            }
        }
        found.into_values().collect()
    }

    fn leg(&self, id: u64, leg: u16) -> Option<&LegState> {
        self.entries.get(&id)?.legs.get(usize::from(leg))
    }

    /// Leases the recipients of a leg that may go and are alike; none where no one may.
    fn take(&mut self, id: u64, leg: u16, may_go: impl Fn(&Tried) -> bool) -> Option<Lease> {
        let entry = self.entries.get_mut(&id)?;
        let others = entry.legs.iter().enumerate();
        let more = others
            .filter(|(at, _)| *at != usize::from(leg))
            .any(|(_, other)| other.is_fresh() && !other.active);
        let state = entry.legs.get_mut(usize::from(leg))?;
        let open = state.open();
        let first = open.iter().find(|tried| may_go(tried))?;
        let alike = |tried: &&Tried| {
            may_go(tried)
                && (tried.attempts, tried.held_since) == (first.attempts, first.held_since)
        };
        let (recipients, last_replies) = open
            .iter()
            .filter(alike)
            .take(TRANSACTION)
            .map(|tried| (tried.position as usize, tried.reply.clone()))
            .unzip();
        state.active = true;
        if entry.own
            && let Some(own) = self.own.get_mut(&*state.destination)
        {
            own.remove(&(id, leg));
        }
        let lease = Lease {
            id,
            leg,
            row: usize::from(state.row),
            recipients,
            attempts: first.attempts,
            held_since: (first.held_since > 0).then_some(first.held_since),
            arrived: entry.arrived,
            last_replies,
            more,
        };
        self.count(id, leg, 0);
        Some(lease)
    }

    /// Ends a lease with what became of the recipients; true where the whole message is settled.
    pub(super) fn settle(
        &mut self,
        id: u64,
        leg: u16,
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
            let replies = &mut self.replies;
            state.change(|open| {
                for (position, disposition) in results {
                    let found = |tried: &Tried| tried.position as usize == position;
                    if let Some(at) = open.iter().position(found) {
                        record(open, at, disposition, counts, replies);
                    }
                }
            });
        }
        let settled = entry.legs.iter().all(LegState::is_settled);
        // What is due already is found by the next look at the clock.
        self.schedule(id, leg, 0);
        settled
    }

    /// Whether an operator holds all that is open of a message.
    pub(super) fn is_kept_by_operator(&self, id: u64) -> bool {
        let entry = self.entries.get(&id);
        entry.is_some_and(|entry| entry.legs.iter().all(|leg| leg.next_try().is_none()))
    }

    /// Changes open recipients of a message's legs and schedules them anew.
    pub(super) fn change(&mut self, id: u64, now: u64, change: impl Fn(&mut Tried)) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        let mut legs = Vec::new();
        for (leg, state) in entry.legs.iter_mut().enumerate() {
            state.change(|open| open.iter_mut().for_each(&change));
            legs.push(number(leg));
        }
        for leg in legs {
            self.schedule(id, leg, now);
        }
    }
}

/// The number of a leg in memory. More than a message can have recipients are not counted.
pub(super) fn number(leg: usize) -> u16 {
    u16::try_from(leg).unwrap_or(u16::MAX)
}

fn record(
    open: &mut Vec<Tried>,
    at: usize,
    disposition: Disposition,
    counts: bool,
    replies: &mut HashSet<Arc<str>>,
) {
    let (next_try, reply, held_since) = match disposition {
        Disposition::Delivered | Disposition::Failed { .. } => {
            open.remove(at);
            return;
        }
        Disposition::Deferred { next_try, reply } => (next_try, reply, 0),
        Disposition::Held {
            next_try,
            since,
            reply,
        } => (next_try, reply, since.max(1)),
    };
    if let Some(tried) = open.get_mut(at) {
        tried.next_try = next_try;
        tried.reply = Some(shared(replies, &reply));
        tried.held_since = held_since;
        tried.attempts += u32::from(counts);
    }
}

/// The one copy of a reply. Bounded: replies that nobody has any more make room, and where that is not enough the reply is
/// simply not shared.
fn shared(replies: &mut HashSet<Arc<str>>, reply: &str) -> Arc<str> {
    if let Some(known) = replies.get(reply) {
        return Arc::clone(known);
    }
    let new: Arc<str> = reply.into();
    if replies.len() >= SHARED_REPLIES {
        replies.retain(|known| Arc::strong_count(known) > 1);
    }
    if replies.len() < SHARED_REPLIES {
        replies.insert(Arc::clone(&new));
    }
    new
}
