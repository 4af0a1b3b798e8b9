//! One queue at run time: how many connections it has, and whether it may send.

use crate::mail::TenantName;
use crate::schedule::Law;
use crate::schedule::fairness::Demand;
use crate::schedule::hold::{Admission, Hold};
use crate::spool::Destination;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// Which tenants' connectors are held, for the receiving side: cheap to clone and to ask.
#[derive(Clone, Debug, Default)]
pub struct Holds(Arc<Mutex<HashMap<TenantName, (u64, String)>>>);

impl Holds {
    /// The fault that has parked the tenant's queue for longer than `age`, so that its own connector mail is better kept by
    /// Exchange (451 4.4.0, product.md 6).
    #[must_use]
    pub fn fault_older_than(&self, tenant: &str, now_millis: u64, age: Duration) -> Option<String> {
        let held = lock(&self.0);
        let (since, reason) = held.get(tenant)?;
        let old = u128::from(now_millis.saturating_sub(*since)) > age.as_millis();
        old.then(|| reason.clone())
    }

    /// The fault that has parked the tenant's queue.
    pub(super) fn fault(&self, tenant: &str) -> Option<String> {
        lock(&self.0).get(tenant).map(|(_, reason)| reason.clone())
    }

    fn set(&self, tenant: &TenantName, fault: Option<(u64, &str)>) {
        let mut held = lock(&self.0);
        match fault {
            Some((since, reason)) => {
                held.insert(Arc::clone(tenant), (since, reason.to_owned()));
            }
            None => {
                held.remove(tenant);
            }
        }
    }
}

/// A panic elsewhere leaves counters and times behind, nothing half-written: the lock stays usable.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doing {
    Starting,
    Busy,
    Idle,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    starting: usize,
    busy: usize,
    idle: usize,
}

impl Counts {
    fn of(&mut self, doing: Doing) -> &mut usize {
        match doing {
            Doing::Starting => &mut self.starting,
            Doing::Busy => &mut self.busy,
            Doing::Idle => &mut self.idle,
        }
    }
}

/// One queue.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) destination: Destination,
    /// Calls idle connections to work.
    pub(super) wake: Notify,
    hold: Mutex<Hold>,
    counts: Mutex<Counts>,
    holds: Holds,
    /// Our own mail is not tried without certificate before.
    uncertified_from: AtomicU64,
}

impl Lane {
    pub(super) fn new(destination: Destination, holds: Holds) -> Self {
        Self {
            destination,
            wake: Notify::new(),
            hold: Mutex::default(),
            counts: Mutex::default(),
            holds,
            uncertified_from: AtomicU64::new(0),
        }
    }

    /// Whether the queue is parked.
    pub(super) fn is_parked(&self) -> bool {
        lock(&self.hold).is_parked()
    }

    /// When our own mail may be tried without certificate.
    pub(super) fn uncertified_from(&self) -> u64 {
        self.uncertified_from.load(Ordering::Relaxed)
    }

    /// The clock was set by so many milliseconds: every moment moves with it.
    pub(super) fn clock_was_set(&self, by: i64) {
        self.hold(|hold| hold.clock_was_set(by));
        let moved = self.uncertified_from().saturating_add_signed(by);
        self.rest_uncertified(moved);
    }

    /// Not before this moment.
    pub(super) fn rest_uncertified(&self, until: u64) {
        self.uncertified_from.store(until, Ordering::Relaxed);
    }

    /// Asks or tells the hold; the receiving side learns of it.
    pub(super) fn hold<R>(&self, with: impl FnOnce(&mut Hold) -> R) -> R {
        let mut hold = lock(&self.hold);
        let before = hold.is_parked();
        let result = with(&mut hold);
        if before || hold.is_parked() {
            self.holds.set(&self.destination.tenant, hold.parked());
        }
        result
    }

    /// Whether a connection may take a message now, and whether that message is a probe.
    pub(super) fn admit(&self, law: &Law, now: u64) -> Option<bool> {
        self.hold(|hold| match hold.admission(now) {
            Admission::Go => Some(false),
            Admission::Probe => {
                hold.probe_begun(law, now);
                Some(true)
            }
            Admission::Wait(_) => None,
        })
    }

    /// Whether the queue is parked and the time of its next probe has come.
    pub(super) fn probe_is_due(&self, now: u64) -> bool {
        self.hold(|hold| hold.admission(now) == Admission::Probe)
    }

    /// What the queue could use now.
    pub(super) fn demand(&self, ready: usize, most: usize, now: u64) -> Demand {
        let most = self.hold(|hold| match hold.admission(now) {
            Admission::Wait(_) => 0,
            Admission::Go | Admission::Probe => hold.connections(now, most),
        });
        let counts = *lock(&self.counts);
        Demand {
            ready: if most == 0 { 0 } else { ready },
            busy: counts.busy,
            idle: counts.idle,
            starting: counts.starting,
            most,
        }
    }

    /// Whether the queue can be made anew when there is work for it again.
    pub(super) fn may_be_forgotten(&self, now: u64) -> bool {
        self.is_quiet() && self.hold(|hold| hold.may_be_forgotten(now))
    }

    /// How many connections are open.
    pub(super) fn connections(&self) -> usize {
        let counts = *lock(&self.counts);
        counts.starting + counts.busy + counts.idle
    }

    /// Whether none is open.
    pub(super) fn is_quiet(&self) -> bool {
        self.connections() == 0
    }
}

/// The place of one connection among those of its queue, given up when dropped.
#[derive(Debug)]
pub(super) struct Place {
    lane: Arc<Lane>,
    doing: Doing,
}

impl Place {
    pub(super) fn new(lane: &Arc<Lane>) -> Self {
        *lock(&lane.counts).of(Doing::Starting) += 1;
        Self {
            lane: Arc::clone(lane),
            doing: Doing::Starting,
        }
    }

    pub(super) fn now(&mut self, doing: Doing) {
        let mut counts = lock(&self.lane.counts);
        leave(&mut counts, self.doing);
        *counts.of(doing) += 1;
        self.doing = doing;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        leave(&mut lock(&self.lane.counts), self.doing);
    }
}

fn leave(counts: &mut Counts, doing: Doing) {
    let count = counts.of(doing);
    *count = count.saturating_sub(1);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::QueueId;
    use crate::route::Via;
    use crate::schedule::hold::Fault;

    fn law() -> Law {
        Law {
            retry: vec![Duration::from_secs(60)],
            expire: Duration::from_secs(172_800),
            hold_on_connector_fault: Duration::from_secs(86_400),
            delay_notice: None,
        }
    }

    #[test]
    fn the_receiving_side_hears_of_a_hold_when_it_is_old() {
        let holds = Holds::default();
        let destination = Destination {
            via: Via::Exchange,
            tenant: "contoso".into(),
            domain: None,
        };
        let lane = Lane::new(destination, holds.clone());
        let quarter = Duration::from_secs(900);
        for id in 0..3 {
            let fault = Fault {
                id: QueueId::from_u64(id),
                attempts: 1,
                held_since: None,
                spent: false,
                certain: false,
                reason: "550 5.7.64 TenantAttribution",
            };
            assert_eq!(holds.fault_older_than("contoso", 2_000_000, quarter), None);
            lane.hold(|hold| hold.fault(&law(), 1_000, &fault));
        }
        assert_eq!(holds.fault_older_than("contoso", 901_000, quarter), None);
        let fault = holds.fault_older_than("contoso", 901_001, quarter);
        assert_eq!(fault.as_deref(), Some("550 5.7.64 TenantAttribution"));
        assert_eq!(holds.fault_older_than("fabrikam", 901_001, quarter), None);
        lane.hold(|hold| hold.delivered(902_000));
        assert_eq!(holds.fault_older_than("contoso", 2_000_000, quarter), None);
    }

    #[test]
    fn places_are_counted_and_given_up() {
        let destination = Destination {
            via: Via::Exchange,
            tenant: "contoso".into(),
            domain: None,
        };
        let lane = Arc::new(Lane::new(destination, Holds::default()));
        let mut place = Place::new(&lane);
        assert_eq!(lane.demand(5, 10, 0).starting, 1);
        place.now(Doing::Idle);
        assert_eq!(
            (lane.demand(5, 10, 0).starting, lane.demand(5, 10, 0).idle),
            (0, 1)
        );
        drop(place);
        assert!(lane.is_quiet());
    }
}
