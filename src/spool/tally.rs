//! How many messages wait by each way, and since when? Kept with every change of the queue: nobody counts a million
//! messages under its lock.
//!
//! A message counts once for each way (via and tenant; contract, "Metrics"), in the state of the most advanced of its open
//! legs there. What becomes due does so when the queue is told the time ([`Queue::promote`]).

use super::queue::{Entry, LegState, Queue, State};
use crate::mail::TenantName;
use crate::route::Via;
use std::collections::HashMap;

/// The counts of all ways that ever had mail: so that an empty queue reads 0.
#[derive(Debug, Default)]
pub(super) struct Tallies {
    numbers: HashMap<(Via, TenantName), u16>,
    ways: Vec<Tally>,
}

/// The counts of a way.
#[derive(Clone, Debug)]
pub(super) struct Tally {
    pub(super) via: Via,
    pub(super) tenant: TenantName,
    /// In the order of [`State::ALL`].
    pub(super) states: [i64; 4],
    /// When the queue asks again, where it is parked.
    pub(super) parked: Option<u64>,
    /// No message of this way has a smaller id.
    first: u64,
}

impl Tally {
    /// How many messages are in which state, as people are told: what waits in a parked queue is held.
    pub(super) fn told(&self) -> [(State, i64); 4] {
        let own =
            State::ALL.map(|state| (state, self.states.get(state as usize).copied().unwrap_or(0)));
        if self.parked.is_none() {
            return own;
        }
        let waits = |state| matches!(state, State::Ready | State::Deferred);
        let waiting: i64 = own
            .iter()
            .filter(|(state, _)| waits(*state))
            .map(|(_, count)| count)
            .sum();
        own.map(|(state, count)| match state {
            State::Held => (state, count + waiting),
            State::Ready | State::Deferred => (state, 0),
            State::Active => (state, count),
        })
    }
}

/// What a search for the oldest message of a way has come to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Oldest {
    /// It arrived then, milliseconds since 1970.
    Arrived(u64),
    /// There is none.
    None,
    /// So many were looked at, and more are left.
    Further,
}

impl Tallies {
    /// The number of a way.
    pub(super) fn number(&mut self, via: &Via, tenant: &TenantName) -> u16 {
        let key = (via.clone(), TenantName::clone(tenant));
        if let Some(number) = self.numbers.get(&key) {
            return *number;
        }
        // More ways than there are numbers for are not counted.
        let number = u16::try_from(self.ways.len()).unwrap_or(u16::MAX);
        let (via, tenant) = key.clone();
        self.ways.push(Tally {
            via,
            tenant,
            states: [0; 4],
            parked: None,
            first: u64::MAX,
        });
        self.numbers.insert(key, number);
        number
    }

    /// The way is parked and asks again then, or is parked no more.
    pub(super) fn park(&mut self, via: &Via, tenant: &TenantName, next_probe: Option<u64>) {
        let number = self.number(via, tenant);
        if let Some(tally) = self.ways.get_mut(usize::from(number)) {
            tally.parked = next_probe;
        }
    }

    /// The clock was set by so many milliseconds.
    pub(super) fn clock_was_set(&mut self, by: i64) {
        for tally in &mut self.ways {
            tally.parked = tally.parked.map(|at| at.saturating_add_signed(by));
        }
    }

    /// When a parked way asks again.
    pub(super) fn parked(&self, way: u16) -> Option<u64> {
        self.ways.get(usize::from(way))?.parked
    }

    /// Every way that ever had mail.
    pub(super) fn ways(&self) -> Vec<(u16, Tally)> {
        (0..).zip(self.ways.iter().cloned()).collect()
    }

    fn moved(&mut self, way: u16, id: u64, before: Option<State>, after: Option<State>) {
        let Some(tally) = self.ways.get_mut(usize::from(way)) else {
            return;
        };
        for (state, change) in [(before, -1), (after, 1)] {
            let count = state.and_then(|state| tally.states.get_mut(state as usize));
            if let Some(count) = count {
                *count += change;
            }
        }
        if before.is_none() {
            tally.first = tally.first.min(id);
        }
    }
}

/// The state that speaks for a message on a way.
fn speaks(legs: &[LegState], way: u16) -> Option<State> {
    let own = legs.iter().filter(|leg| leg.way == way);
    own.filter_map(|leg| leg.counted).min()
}

impl Queue {
    /// Counts a leg as what it is now.
    pub(super) fn count(&mut self, id: u64, leg: u16, now: u64) {
        if let Some(entry) = self.entries.get_mut(&id) {
            count(&mut self.tallies, entry, id, usize::from(leg), now);
        }
    }

    /// Takes a message out of the queue.
    pub(super) fn remove(&mut self, id: u64) -> Option<Entry> {
        let mut entry = self.entries.remove(&id)?;
        for leg in 0..entry.legs.len() {
            set(&mut self.tallies, &mut entry, id, leg, None);
        }
        Some(entry)
    }

    /// Looks for the oldest message of a way, at no more than `most`; it is found where the last search ended, or behind.
    pub(super) fn look_for_oldest(&mut self, way: u16, most: usize) -> Oldest {
        let Some(tally) = self.tallies.ways.get_mut(usize::from(way)) else {
            return Oldest::None;
        };
        if tally.states.iter().all(|count| *count == 0) {
            tally.first = u64::MAX;
            return Oldest::None;
        }
        let mut looked = 0;
        for (id, entry) in self.entries.range(tally.first..).take(most) {
            tally.first = *id;
            if speaks(&entry.legs, way).is_some() {
                return Oldest::Arrived(entry.arrived);
            }
            looked += 1;
        }
        if looked < most {
            return Oldest::None;
        }
        Oldest::Further
    }
}

/// [`Queue::count`], where the message is at hand.
pub(super) fn count(tallies: &mut Tallies, entry: &mut Entry, id: u64, leg: usize, now: u64) {
    if let Some(own) = entry.legs.get(leg) {
        let state = (!own.is_settled()).then(|| own.state(now));
        set(tallies, entry, id, leg, state);
    }
}

fn set(tallies: &mut Tallies, entry: &mut Entry, id: u64, leg: usize, state: Option<State>) {
    let legs = &mut entry.legs;
    let Some(own) = legs.get(leg).filter(|own| own.counted != state) else {
        return;
    };
    let way = own.way;
    let before = speaks(legs, way);
    if let Some(own) = legs.get_mut(leg) {
        own.counted = state;
    }
    let after = speaks(legs, way);
    if before != after {
        tallies.moved(way, id, before, after);
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::{Destination, Disposition};
    use super::super::queue::{Open, Tried};
    use super::*;
    use crate::journal::Location;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const TENANTS: [&str; 2] = ["contoso", "fabrikam"];

    /// What somebody does to the queue; numbers choose among what there is.
    #[derive(Clone, Debug)]
    enum Step {
        Accept { ways: u8, tenant: usize },
        Lease { queue: usize },
        Settle { lease: usize, outcome: u8 },
        Operator { message: usize, action: u8 },
        Wait { millis: u64 },
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (1..8u8, 0..2usize).prop_map(|(ways, tenant)| Step::Accept { ways, tenant }),
            4 => (0..9usize).prop_map(|queue| Step::Lease { queue }),
            4 => (0..9usize, 0..5u8).prop_map(|(lease, outcome)| Step::Settle { lease, outcome }),
            2 => (0..9usize, 0..4u8).prop_map(|(message, action)| Step::Operator { message, action }),
            1 => (0..30u64).prop_map(|millis| Step::Wait { millis }),
        ]
    }

    fn accept(queue: &mut Queue, id: u64, now: u64, ways: u8, tenant: &str) {
        let tenant: TenantName = tenant.into();
        let domain = |position: u32| format!("d{position}.example").parse().ok();
        let mut legs = Vec::new();
        let all = [Via::Exchange, Via::Mx, Via::Relay("up".into())];
        for (row, via) in all
            .iter()
            .enumerate()
            .filter(|(row, _)| ways >> row & 1 == 1)
        {
            legs.extend(queue.parts(row, (via, &tenant), Box::new([0, 1]), now, domain));
        }
        let entry = Entry {
            location: Location::default(),
            arrived: now,
            large: false,
            own: false,
            legs: legs.into(),
        };
        queue.insert(id, entry, now);
    }

    /// By via and tenant: counts by state, and when the oldest arrived.
    type Counts = BTreeMap<(String, String), ([i64; 4], Option<u64>)>;

    /// Counted one by one.
    fn counted(queue: &Queue, now: u64) -> Counts {
        let mut counts = Counts::new();
        for entry in queue.entries.values() {
            let mut states: BTreeMap<(String, String), State> = BTreeMap::new();
            for leg in entry.legs.iter().filter(|leg| !leg.is_settled()) {
                let Destination { via, tenant, .. } = &*leg.destination;
                let own = leg.state(now);
                let state = states.entry((via.to_string(), tenant.to_string()));
                let state = state.or_insert(own);
                *state = own.min(*state);
            }
            for (way, state) in states {
                let (counts, oldest) = counts.entry(way).or_default();
                counts[state as usize] += 1;
                *oldest = Some(oldest.unwrap_or(u64::MAX).min(entry.arrived));
            }
        }
        counts
    }

    /// What was kept.
    fn kept(queue: &mut Queue) -> Counts {
        let mut counts = Counts::new();
        for (number, way) in queue.tallies.ways() {
            let oldest = loop {
                match queue.look_for_oldest(number, 2) {
                    Oldest::Arrived(at) => break Some(at),
                    Oldest::None => break None,
                    Oldest::Further => {}
                }
            };
            if way.states != [0; 4] {
                let name = (way.via.to_string(), way.tenant.to_string());
                counts.insert(name, (way.states, oldest));
            }
        }
        counts
    }

    proptest! {
        #[test]
        fn what_is_kept_is_what_counting_would_find(steps in proptest::collection::vec(step(), 1..120)) {
            let (mut queue, mut now, mut next) = (Queue::default(), 1_000, 0);
            let mut leased: Vec<(u64, u16, Vec<usize>)> = Vec::new();
            for step in steps {
                match step {
                    Step::Accept { ways, tenant } => {
                        next += 1;
                        accept(&mut queue, next, now, ways, TENANTS[tenant]);
                    }
                    Step::Lease { queue: at } => {
                        let due = queue.due(now);
                        if let Some((destination, _)) = due.get(at % due.len().max(1))
                            && let Some(lease) = queue.lease(destination, now)
                        {
                            leased.push((lease.id, lease.leg, lease.recipients));
                        }
                    }
                    Step::Settle { lease, outcome } if !leased.is_empty() => {
                        let (id, leg, recipients) = leased.swap_remove(lease % leased.len());
                        let (next_try, reply) = (now + 10, "451 later".to_owned());
                        let disposition = match outcome {
                            0 => None,
                            1 => Some(Disposition::Deferred { next_try, reply }),
                            2 => Some(Disposition::Held { next_try, since: now, reply }),
                            _ => Some(Disposition::Delivered),
                        };
                        let results = recipients.into_iter();
                        let results = results.filter_map(|at| Some((at, disposition.clone()?)));
                        if queue.settle(id, leg, results.collect(), true) {
                            queue.remove(id);
                        }
                    }
                    Step::Operator { message, action } if !queue.entries.is_empty() => {
                        let ids: Vec<u64> = queue.entries.keys().copied().collect();
                        let id = ids[message % ids.len()];
                        let hold = |tried: &mut Tried| tried.operator_hold = true;
                        let release = |tried: &mut Tried| {
                            tried.operator_hold = false;
                            tried.held_since = 0;
                            tried.next_try = now;
                        };
                        match action {
                            0 => queue.change(id, now, hold),
                            1 => queue.change(id, now, release),
                            2 => drop(queue.remove(id)),
                            _ => queue.change(id, now, |tried| tried.next_try = now),
                        }
                    }
                    Step::Wait { millis } => now += millis,
                    Step::Settle { .. } | Step::Operator { .. } => {}
                }
                queue.promote(now);
                prop_assert_eq!(kept(&mut queue), counted(&queue, now));
            }
        }
    }

    #[test]
    fn a_queue_is_searched_once_for_its_oldest_and_not_with_every_look() {
        let mut queue = Queue::default();
        for id in 1..=100 {
            accept(&mut queue, id, id, 1, TENANTS[0]);
        }
        accept(&mut queue, 101, 101, 2, TENANTS[0]);
        accept(&mut queue, 102, 102, 2, TENANTS[0]);
        let mx = queue.tallies.number(&Via::Mx, &TENANTS[0].into());
        assert_eq!(queue.look_for_oldest(mx, 1), Oldest::Arrived(101));
        queue.remove(101);
        assert_eq!(queue.look_for_oldest(mx, 1), Oldest::Arrived(102));
        let open = &queue.entries.get(&102).unwrap().legs[0].open;
        assert!(matches!(open, Open::Fresh(_)));
        queue.remove(102);
        assert_eq!(queue.look_for_oldest(mx, 1), Oldest::None);
    }
}
