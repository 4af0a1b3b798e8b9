//! What does a connector fault do to a tenant's queue: hold, park, probe, release?
//!
//! A day's mail must not bounce because a certificate lapsed (product.md 6). A reply whose reach is the tenant holds its
//! message at once; three of them to different messages without a success between park the queue. A parked queue is
//! probed with its oldest message at the times of the law's `retry`, and the first success releases it with a ramp, as does
//! a probe that the next hop answers for reasons of the message's own: else mail for a full mailbox would keep all other
//! mail back from a connector that is well.
//! `hold_on_connector_fault` bounds all of it: afterwards the queue is tried normally until `expire`.
//!
//! Backing off is milder and independent: the next hop asks for less, so the queue pauses, from the first step of `retry`
//! doubling up to an hour, and goes on with one connection until something is delivered.

use super::Law;
use super::retry::{millis, wait};
use crate::mail::QueueId;
use std::collections::BTreeSet;

/// Different messages with a tenant fault that park the queue.
pub const FAULTS_TO_PARK: usize = 3;
/// A released queue gets its connections back over this time; the contract allows 60 s.
pub const RAMP: u64 = 30_000;
/// The longest pause of a back-off.
pub const LONGEST_PAUSE: u64 = 3_600_000;
/// How long a recipient fault holds before it fails.
pub const RECIPIENT_HOLD: u64 = 3_600_000;
/// How many held messages are remembered for the release: those under way when the queue was parked, and its probes. More
/// than that are tried at their own times.
pub const REMEMBERED: usize = 500;
/// After so long without news a pause says nothing about the next hop any more.
const STALE: u64 = 4 * LONGEST_PAUSE;

/// May the queue send now?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// With as many connections as [`Hold::connections`] says.
    Go,
    /// One message, to see whether the fault is gone.
    Probe,
    /// Not before this moment (milliseconds since 1970).
    Wait(u64),
}

/// What becomes of a message that met a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// Held, tried again at `next_try`; `since` is carried from attempt to attempt.
    Held {
        /// Milliseconds since 1970.
        next_try: u64,
        /// Milliseconds since 1970.
        since: u64,
    },
    /// The hold is over: for a tenant fault normal retry, for a recipient fault failure.
    Over,
}

/// What an administrator should hear about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The queue is parked.
    Parked,
    /// The probe met the fault again.
    ProbeFailed,
    /// Mail flows again, or the hold ran out; these messages were held and can go now.
    Released {
        /// Why it was parked.
        reason: String,
        /// Held one by one.
        held: Vec<QueueId>,
        /// `false` where the time was up and the connector has not shown that it is well.
        proven: bool,
    },
    /// The queue pauses until this moment.
    BackedOff {
        /// Milliseconds since 1970.
        until: u64,
    },
}

/// A message that met a fault of the tenant's connector.
#[derive(Clone, Copy, Debug)]
pub struct Fault<'a> {
    /// The message.
    pub id: QueueId,
    /// Its attempts, with this one.
    pub attempts: u32,
    /// When its hold began, if it was held before.
    pub held_since: Option<u64>,
    /// Its hold has already run out for this fault: it is retried as anything else.
    pub spent: bool,
    /// Known without asking the next hop (our certificate lapsed): parks at once.
    pub certain: bool,
    /// For people; escaped and cut.
    pub reason: &'a str,
}

#[derive(Clone, Debug)]
enum State {
    /// Mail flows, with the messages that met a tenant fault since the last success; in a ramp since `ramp`.
    Flowing {
        faults: Vec<QueueId>,
        ramp: Option<u64>,
    },
    Parked {
        probes: u32,
        next_probe: u64,
    },
    /// The hold's time is over and nothing was delivered since: faults are retried as anything else.
    Exhausted,
}

impl Default for State {
    fn default() -> Self {
        Self::Flowing {
            faults: Vec::new(),
            ramp: None,
        }
    }
}

/// The state of one tenant's queue.
#[derive(Clone, Debug, Default)]
pub struct Hold {
    state: State,
    since: Option<u64>,
    reason: String,
    held: BTreeSet<QueueId>,
    pause: u64,
    paused_until: u64,
    /// Pauses of [`Hold::pause`] without a success between.
    pauses: u32,
    unreachable: bool,
}

impl Hold {
    /// Whether the queue may send at `now`.
    #[must_use]
    pub fn admission(&self, now: u64) -> Admission {
        match self.state {
            State::Parked { next_probe, .. } if now >= next_probe => Admission::Probe,
            State::Parked { next_probe, .. } => Admission::Wait(next_probe),
            State::Flowing { .. } | State::Exhausted if now < self.paused_until => {
                Admission::Wait(self.paused_until)
            }
            State::Flowing { .. } | State::Exhausted => Admission::Go,
        }
    }

    /// How many connections the queue may have at `now` out of `most`.
    #[must_use]
    pub fn connections(&self, now: u64, most: usize) -> usize {
        let careful = self.pause > 0 || self.unreachable;
        match self.state {
            State::Parked { .. } => most.min(1),
            State::Flowing { .. } | State::Exhausted if careful => most.min(1),
            State::Flowing {
                ramp: Some(from), ..
            } => {
                let elapsed = now.saturating_sub(from).min(RAMP);
                let more = most.saturating_sub(1) as u64 * elapsed / RAMP;
                most.min(1 + usize::try_from(more).unwrap_or_default())
            }
            State::Flowing { ramp: None, .. } | State::Exhausted => most,
        }
    }

    /// When something changes by itself, so that somebody must look again.
    #[must_use]
    pub fn next_look(&self, law: &Law, now: u64) -> Option<u64> {
        match self.state {
            State::Parked { next_probe, .. } => {
                Some(self.end(law).map_or(next_probe, |end| end.min(next_probe)))
            }
            State::Flowing { .. } | State::Exhausted if now < self.paused_until => {
                Some(self.paused_until)
            }
            State::Flowing {
                ramp: Some(from), ..
            } if now < from.saturating_add(RAMP) => Some(now.saturating_add(1_000)),
            State::Flowing { .. } | State::Exhausted => None,
        }
    }

    /// Whether the queue is parked.
    #[must_use]
    pub fn is_parked(&self) -> bool {
        matches!(self.state, State::Parked { .. })
    }

    /// Since when the connector is at fault while the queue is parked, and which fault: counted from the first message
    /// that met it.
    #[must_use]
    pub fn parked(&self) -> Option<(u64, &str)> {
        self.since
            .filter(|_| self.is_parked())
            .map(|since| (since, self.reason.as_str()))
    }

    /// When a parked queue asks again.
    #[must_use]
    pub fn next_probe(&self) -> Option<u64> {
        match self.state {
            State::Parked { next_probe, .. } => Some(next_probe),
            State::Flowing { .. } | State::Exhausted => None,
        }
    }

    /// A probe is on its way: the next one comes a step later even if nobody tells how this one ended.
    pub fn probe_begun(&mut self, law: &Law, now: u64) {
        if let State::Parked { probes, next_probe } = &mut self.state {
            *next_probe = now.saturating_add(wait(law, probes.saturating_add(2)));
        }
    }

    /// Looks whether the hold's time is over.
    pub fn tick(&mut self, law: &Law, now: u64) -> Option<Change> {
        let over = self.end(law).is_some_and(|end| now >= end);
        (over && self.is_parked()).then(|| self.release(State::Exhausted, false))
    }

    /// Something was delivered: no fault stands any longer.
    ///
    /// Only a parked queue is released: a message that was held on its own while others went through keeps the times of
    /// the law, else every success would send it against the same wall again.
    pub fn delivered(&mut self, now: u64) -> Option<Change> {
        (self.pause, self.paused_until, self.unreachable) = (0, 0, false);
        self.pauses = 0;
        match &mut self.state {
            State::Parked { .. } => {
                let ramp = State::Flowing {
                    faults: Vec::new(),
                    ramp: Some(now),
                };
                return Some(self.release(ramp, true));
            }
            State::Exhausted => self.clear(State::default()),
            State::Flowing { faults, ramp } => {
                if ramp.is_some_and(|from| now >= from.saturating_add(RAMP)) {
                    *ramp = None;
                }
                if !faults.is_empty() {
                    faults.clear();
                    self.since = None;
                    self.held.clear();
                }
            }
        }
        None
    }

    /// A message met a fault of the tenant's connector. For a probe, [`Hold::probe_failed`] comes first.
    pub fn fault(&mut self, law: &Law, now: u64, fault: &Fault<'_>) -> (Kept, Option<Change>) {
        let since = fault.held_since.unwrap_or(now);
        let bound = millis(law.hold_on_connector_fault);
        let over = fault.spent || now >= since.saturating_add(bound);
        if over || matches!(self.state, State::Exhausted) {
            return (Kept::Over, self.tick(law, now));
        }
        self.since = Some(self.since.map_or(since, |first| first.min(since)));
        self.reason = fault.reason.to_owned();
        if self.held.len() < REMEMBERED {
            self.held.insert(fault.id);
        }
        let mut next_try = now.saturating_add(wait(law, fault.attempts));
        let mut change = None;
        match &mut self.state {
            State::Parked { next_probe, .. } => next_try = *next_probe,
            State::Flowing { faults, .. } => {
                if !faults.contains(&fault.id) {
                    faults.push(fault.id);
                }
                if fault.certain || faults.len() >= FAULTS_TO_PARK {
                    next_try = now.saturating_add(wait(law, 1));
                    self.state = State::Parked {
                        probes: 0,
                        next_probe: next_try,
                    };
                    change = Some(Change::Parked);
                }
            }
            State::Exhausted => {}
        }
        (Kept::Held { next_try, since }, change)
    }

    /// Takes up what was held before a restart: the messages that met the fault, the first of them `since` then. They are
    /// not parked on that word, for the fault may be gone; whoever meets it again finds the queue where it was.
    pub fn take_up(&mut self, since: u64, reason: &str, held: &[QueueId]) {
        if let State::Flowing { faults, ramp: None } = &mut self.state {
            faults.extend(held.iter().take(FAULTS_TO_PARK));
            self.held.extend(held.iter().take(REMEMBERED));
            self.since = Some(since);
            reason.clone_into(&mut self.reason);
        }
    }

    /// The probe of a parked queue, this message, was answered for itself or its recipients: the fault is gone, for all that
    /// is known. Where it is not, the next three messages park the queue again. The message keeps the times of its own
    /// answer.
    pub fn answered(&mut self, id: QueueId, now: u64) -> Option<Change> {
        if !self.is_parked() {
            return None;
        }
        self.held.remove(&id);
        self.delivered(now)
    }

    /// The probe of a parked queue ended with the fault again, or without an answer for its message.
    pub fn probe_failed(&mut self, law: &Law, now: u64) -> Option<Change> {
        let State::Parked { probes, next_probe } = &mut self.state else {
            return None;
        };
        *probes = probes.saturating_add(1);
        *next_probe = now.saturating_add(wait(law, probes.saturating_add(1)));
        Some(Change::ProbeFailed)
    }

    /// The next hop wants less: pause, doubling from the first step of `retry` up to an hour.
    ///
    /// Replies to messages that were under way when the pause began do not lengthen it.
    pub fn back_off(&mut self, law: &Law, now: u64) -> Option<Change> {
        if now < self.paused_until {
            return None;
        }
        let first = wait(law, 1).min(LONGEST_PAUSE);
        self.pause = self.pause.saturating_mul(2).clamp(first, LONGEST_PAUSE);
        self.paused_until = now.saturating_add(self.pause);
        Some(Change::BackedOff {
            until: self.paused_until,
        })
    }

    /// A next hop outside is not reached, or asks for less: the queue waits, by the steps of `retry` as each of its
    /// messages would, but none longer than an hour; then one connection tries. So a domain that is down is tried once a
    /// step, however many messages wait for it.
    pub fn pause(&mut self, law: &Law, now: u64) -> Option<Change> {
        if now < self.paused_until {
            return None;
        }
        self.pauses = self.pauses.saturating_add(1);
        self.pause = wait(law, self.pauses).min(LONGEST_PAUSE);
        self.paused_until = now.saturating_add(self.pause);
        Some(Change::BackedOff {
            until: self.paused_until,
        })
    }

    /// Whether nothing is lost when this is begun anew.
    #[must_use]
    pub fn may_be_forgotten(&self, now: u64) -> bool {
        let quiet = match &self.state {
            State::Flowing { faults, ramp } => {
                faults.is_empty() && ramp.is_none_or(|from| now >= from.saturating_add(RAMP))
            }
            State::Parked { .. } | State::Exhausted => false,
        };
        let rested = self.pause == 0 && !self.unreachable;
        quiet && (rested || now >= self.paused_until.saturating_add(STALE))
    }

    /// No connection could be made: one at a time until something is delivered. The host is not marked bad, its
    /// addresses front hundreds of machines (product.md 6); but a thousand messages need not knock at once.
    pub fn unreachable(&mut self) {
        self.unreachable = true;
    }

    /// The configuration was read again, perhaps with a new certificate: look at once whether that helped. The oldest held
    /// message, so that there is one to probe with.
    pub fn probe_now(&mut self, now: u64) -> Option<QueueId> {
        // One connection tries, as at the end of a pause.
        self.unreachable |= self.pause > 0;
        (self.pause, self.paused_until) = (0, 0);
        let State::Parked { next_probe, .. } = &mut self.state else {
            return None;
        };
        *next_probe = now;
        self.held.first().copied()
    }

    /// An operator wants mail of this queue tried now: what pauses it is forgotten, so that the next pause begins with the
    /// first step again, and a parked queue asks at once.
    pub fn hurry(&mut self, now: u64) {
        // The probe is the oldest message, due or not.
        let _held = self.probe_now(now);
        self.pauses = 0;
    }

    /// Until when the queue pauses; nothing where no pause was begun, or being parked goes before it.
    #[must_use]
    pub fn paused_until(&self) -> Option<u64> {
        (self.paused_until > 0 && !self.is_parked()).then_some(self.paused_until)
    }

    /// The clock was set by so many milliseconds, and no time has passed: every moment moves with it.
    pub fn clock_was_set(&mut self, by: i64) {
        let shift = |moment: &mut u64| *moment = moment.saturating_add_signed(by);
        self.since.iter_mut().for_each(shift);
        shift(&mut self.paused_until);
        match &mut self.state {
            State::Flowing { ramp, .. } => ramp.iter_mut().for_each(shift),
            State::Parked { next_probe, .. } => shift(next_probe),
            State::Exhausted => {}
        }
    }

    fn end(&self, law: &Law) -> Option<u64> {
        let bound = millis(law.hold_on_connector_fault);
        self.since.map(|since| since.saturating_add(bound))
    }

    fn release(&mut self, state: State, proven: bool) -> Change {
        let reason = std::mem::take(&mut self.reason);
        let held = std::mem::take(&mut self.held).into_iter().collect();
        self.clear(state);
        Change::Released {
            reason,
            held,
            proven,
        }
    }

    fn clear(&mut self, state: State) {
        self.state = state;
        self.since = None;
        self.reason.clear();
        self.held.clear();
    }
}

/// A recipient that takes internal senders only, though our mail should be internal: promotion may have failed. Held for
/// an hour with an alarm, tried at the times of the law, then failed (product.md 6).
#[must_use]
pub fn recipient_fault(law: &Law, attempts: u32, now: u64, held_since: Option<u64>) -> Kept {
    let since = held_since.unwrap_or(now);
    let end = since.saturating_add(RECIPIENT_HOLD);
    if now >= end {
        return Kept::Over;
    }
    Kept::Held {
        next_try: now.saturating_add(wait(law, attempts)).min(end),
        since,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    const MINUTE: u64 = 60_000;
    const HOUR: u64 = 60 * MINUTE;

    fn law() -> Law {
        Law {
            retry: [1, 1, 5, 10, 15]
                .map(|minutes| Duration::from_secs(minutes * 60))
                .to_vec(),
            expire: Duration::from_secs(48 * 3600),
            hold_on_connector_fault: Duration::from_secs(24 * 3600),
            delay_notice: None,
        }
    }

    #[test]
    fn after_a_restart_the_same_fault_finds_the_queue_where_it_was() {
        let ids = [1, 2, 3].map(QueueId::from_u64);
        let mut hold = Hold::default();
        hold.take_up(HOUR, "550 5.7.64 x", &ids);
        assert_eq!(
            hold.admission(2 * HOUR),
            Admission::Go,
            "the fault may be gone"
        );
        let again = Fault {
            held_since: Some(HOUR),
            ..fault(1)
        };
        let (_, change) = hold.fault(&law(), 2 * HOUR, &again);
        assert_eq!(change, Some(Change::Parked));
        assert_eq!(hold.parked().map(|(since, _)| since), Some(HOUR));
        // And where it is gone, nothing stays.
        let mut hold = Hold::default();
        hold.take_up(HOUR, "550 5.7.64 x", &ids);
        assert_eq!(hold.delivered(2 * HOUR), None);
        assert!(hold.may_be_forgotten(2 * HOUR));
    }

    fn fault(id: u64) -> Fault<'static> {
        Fault {
            id: QueueId::from_u64(id),
            attempts: 1,
            held_since: None,
            spent: false,
            certain: false,
            reason: "550 5.7.64 TenantAttribution",
        }
    }

    fn parked_at(now: u64) -> Hold {
        let mut hold = Hold::default();
        for id in 1..=3 {
            hold.fault(&law(), now, &fault(id));
        }
        assert!(hold.is_parked());
        hold
    }

    #[test]
    fn a_pause_follows_the_steps_of_the_law_and_ends_with_a_success() {
        let mut hold = Hold::default();
        let mut now = 0;
        for minutes in [1, 1, 5, 10, 15, 15] {
            let until = now + minutes * MINUTE;
            assert_eq!(hold.pause(&law(), now), Some(Change::BackedOff { until }));
            assert_eq!(
                hold.pause(&law(), until - 1),
                None,
                "a second message under way"
            );
            assert_eq!(hold.admission(until - 1), Admission::Wait(until));
            assert_eq!(
                (hold.admission(until), hold.connections(until, 5)),
                (Admission::Go, 1)
            );
            assert!(!hold.may_be_forgotten(until));
            now = until;
        }
        assert!(hold.may_be_forgotten(now + 5 * HOUR));
        assert_eq!(hold.delivered(now), None);
        assert!(hold.may_be_forgotten(now) && hold.connections(now, 5) == 5);
        let until = now + MINUTE;
        assert_eq!(hold.pause(&law(), now), Some(Change::BackedOff { until }));
    }

    #[test]
    fn one_fault_holds_the_message_at_the_times_of_the_law() {
        let mut hold = Hold::default();
        for (attempts, minutes) in [(1, 1), (2, 1), (3, 5), (4, 10), (5, 15), (6, 15)] {
            let again = Fault {
                attempts,
                held_since: Some(7),
                ..fault(1)
            };
            let (kept, change) = hold.fault(&law(), 1_000, &again);
            assert_eq!(
                kept,
                Kept::Held {
                    next_try: 1_000 + minutes * MINUTE,
                    since: 7
                }
            );
            assert_eq!(
                change, None,
                "the same message again is no further evidence"
            );
        }
        assert_eq!(hold.admission(2_000), Admission::Go);
        assert_eq!(hold.parked(), None);
    }

    #[test]
    fn three_different_messages_without_a_success_between_park_the_queue() {
        let mut hold = Hold::default();
        hold.fault(&law(), 0, &fault(1));
        hold.fault(&law(), 1, &fault(2));
        hold.delivered(2);
        hold.fault(&law(), 3, &fault(3));
        hold.fault(&law(), 4, &fault(4));
        assert!(!hold.is_parked(), "a success lay between");
        let (kept, change) = hold.fault(&law(), 5, &fault(5));
        assert_eq!(change, Some(Change::Parked));
        assert_eq!(
            kept,
            Kept::Held {
                next_try: 5 + MINUTE,
                since: 5
            }
        );
        assert_eq!(hold.parked(), Some((3, "550 5.7.64 TenantAttribution")));
        assert_eq!(hold.admission(6), Admission::Wait(5 + MINUTE));
        assert_eq!(hold.admission(5 + MINUTE), Admission::Probe);
        assert_eq!(hold.connections(5 + MINUTE, 10), 1);
    }

    #[test]
    fn probes_follow_the_law_and_the_first_success_releases_all() {
        let mut hold = parked_at(0);
        let mut now = 0;
        for minutes in [1, 1, 5, 10, 15, 15] {
            now += minutes * MINUTE;
            assert_eq!(hold.admission(now - 1), Admission::Wait(now));
            assert_eq!(hold.admission(now), Admission::Probe);
            hold.probe_begun(&law(), now);
            assert!(matches!(hold.admission(now), Admission::Wait(_)));
            assert_eq!(hold.probe_failed(&law(), now), Some(Change::ProbeFailed));
            let (kept, change) = hold.fault(&law(), now, &fault(1));
            assert_eq!(change, None);
            let Admission::Wait(next) = hold.admission(now) else {
                panic!("must wait")
            };
            assert_eq!(
                kept,
                Kept::Held {
                    next_try: next,
                    since: now
                }
            );
        }
        let Some(Change::Released {
            held, proven: true, ..
        }) = hold.delivered(now)
        else {
            panic!("must be released")
        };
        assert_eq!(held, [1, 2, 3].map(QueueId::from_u64));
        assert_eq!(hold.admission(now), Admission::Go);
        assert_eq!(hold.parked(), None);
    }

    #[test]
    fn a_probe_that_is_answered_for_itself_releases_the_others() {
        let mut hold = parked_at(0);
        let Some(Change::Released {
            held, proven: true, ..
        }) = hold.answered(QueueId::from_u64(1), MINUTE)
        else {
            panic!("must be released")
        };
        assert_eq!(
            held,
            [2, 3].map(QueueId::from_u64),
            "its own time is another"
        );
        assert_eq!(hold.connections(MINUTE, 10), 1, "with a ramp");
        // Elsewhere it says nothing.
        hold.fault(&law(), MINUTE, &fault(1));
        hold.fault(&law(), MINUTE, &fault(2));
        assert_eq!(hold.answered(QueueId::from_u64(4), MINUTE), None);
        hold.fault(&law(), MINUTE, &fault(3));
        assert!(hold.is_parked(), "it was not mended");
    }

    #[test]
    fn the_ramp_is_over_within_sixty_seconds() {
        let mut hold = parked_at(0);
        hold.delivered(0);
        let connections: Vec<_> = [0, 5, 10, 15, 20, 29, 30]
            .map(|s| hold.connections(s * 1000, 10))
            .to_vec();
        assert_eq!(connections, [1, 2, 4, 5, 7, 9, 10]);
        assert_eq!(hold.next_look(&law(), 29_000), Some(30_000));
        assert_eq!(hold.next_look(&law(), 30_000), None);
    }

    #[test]
    fn a_lapsed_certificate_parks_at_once() {
        let mut hold = Hold::default();
        let lapse = Fault {
            certain: true,
            ..fault(1)
        };
        assert_eq!(hold.fault(&law(), 0, &lapse).1, Some(Change::Parked));
        assert_eq!(hold.probe_now(10), Some(QueueId::from_u64(1)));
        assert_eq!(
            hold.admission(10),
            Admission::Probe,
            "a reload looks again at once"
        );
    }

    #[test]
    fn at_the_end_of_a_hold_normal_retry_goes_on() {
        let mut hold = parked_at(0);
        assert_eq!(hold.next_look(&law(), 24 * HOUR - 1), Some(MINUTE));
        assert_eq!(hold.tick(&law(), 24 * HOUR - 1), None);
        let Some(Change::Released {
            proven: false,
            held,
            ..
        }) = hold.tick(&law(), 24 * HOUR)
        else {
            panic!("must be released")
        };
        assert_eq!(held.len(), 3);
        let later = Fault {
            held_since: None,
            ..fault(9)
        };
        assert_eq!(
            hold.fault(&law(), 25 * HOUR, &later),
            (Kept::Over, None),
            "no new hold for the same fault"
        );
        hold.delivered(26 * HOUR);
        assert!(
            matches!(hold.fault(&law(), 27 * HOUR, &later).0, Kept::Held { .. }),
            "a new fault holds again"
        );
    }

    #[test]
    fn a_message_is_held_no_longer_than_the_law_says() {
        let mut hold = Hold::default();
        let old = Fault {
            held_since: Some(0),
            ..fault(1)
        };
        assert_eq!(hold.fault(&law(), 24 * HOUR, &old).0, Kept::Over);
        let spent = Fault {
            spent: true,
            ..fault(1)
        };
        assert_eq!(hold.fault(&law(), 24 * HOUR, &spent).0, Kept::Over);
        let mut none = law();
        none.hold_on_connector_fault = Duration::ZERO;
        assert_eq!(hold.fault(&none, 5, &fault(2)).0, Kept::Over);
    }

    #[test]
    fn a_hold_survives_a_restart_with_its_beginning() {
        let mut hold = Hold::default();
        for id in 1..=3 {
            hold.fault(
                &law(),
                HOUR,
                &Fault {
                    held_since: Some(id * MINUTE),
                    ..fault(id)
                },
            );
        }
        assert_eq!(hold.parked().map(|(since, _)| since), Some(MINUTE));
    }

    #[test]
    fn backing_off_starts_at_the_first_step_and_doubles_up_to_an_hour() {
        let mut hold = Hold::default();
        let mut now = 0;
        for minutes in [1, 2, 4, 8, 16, 32, 60, 60] {
            let until = now + minutes * MINUTE;
            assert_eq!(
                hold.back_off(&law(), now),
                Some(Change::BackedOff { until })
            );
            assert_eq!(
                hold.back_off(&law(), now),
                None,
                "one pause for all that were under way"
            );
            assert_eq!(hold.admission(now), Admission::Wait(until));
            now = until;
            assert_eq!(hold.admission(now), Admission::Go);
            assert_eq!(hold.connections(now, 10), 1);
        }
        hold.delivered(now);
        assert_eq!(hold.connections(now, 10), 10);
        assert_eq!(
            hold.back_off(&law(), now),
            Some(Change::BackedOff {
                until: now + MINUTE
            })
        );
    }

    #[test]
    fn who_is_hurried_waits_neither_for_a_pause_nor_for_a_probe() {
        for again in [Hold::pause, Hold::back_off] {
            let mut hold = Hold::default();
            let mut now = 0;
            for _ in 0..4 {
                drop(again(&mut hold, &law(), now));
                let until = hold.paused_until().unwrap();
                assert_eq!(hold.admission(now), Admission::Wait(until));
                now = until;
            }
            drop(again(&mut hold, &law(), now));
            hold.hurry(now);
            assert_eq!(
                (hold.admission(now), hold.paused_until()),
                (Admission::Go, None)
            );
            assert_eq!(hold.connections(now, 10), 1, "nothing was delivered");
            let until = now + MINUTE;
            let anew = Some(Change::BackedOff { until });
            assert_eq!(again(&mut hold, &law(), now), anew, "the first step");
        }
        let mut hold = parked_at(0);
        assert_eq!(hold.admission(1), Admission::Wait(MINUTE));
        hold.hurry(1);
        assert_eq!(hold.admission(1), Admission::Probe);
    }

    #[test]
    fn an_unreachable_host_is_tried_one_connection_at_a_time() {
        let mut hold = Hold::default();
        hold.unreachable();
        assert_eq!(
            (hold.admission(0), hold.connections(0, 10)),
            (Admission::Go, 1)
        );
        hold.delivered(0);
        assert_eq!(hold.connections(0, 10), 10);
    }

    #[test]
    fn a_recipient_fault_is_held_an_hour_then_failed() {
        let held = |next_try, since| Kept::Held { next_try, since };
        assert_eq!(recipient_fault(&law(), 1, 0, None), held(MINUTE, 0));
        assert_eq!(
            recipient_fault(&law(), 5, 50 * MINUTE, Some(0)),
            held(HOUR, 0)
        );
        assert_eq!(recipient_fault(&law(), 6, HOUR, Some(0)), Kept::Over);
    }

    #[test]
    fn a_clock_that_is_set_makes_no_hold_longer_or_shorter() {
        let (law, now) = (law(), 100 * HOUR);
        for by in [-90 * 3_600_000, -60_000, 60_000, 90 * 3_600_000] {
            let moved = |moment: u64| moment.saturating_add_signed(by);
            let mut parked = Hold::default();
            for id in 1..=3 {
                drop(parked.fault(&law, now, &fault(id)));
            }
            assert_eq!(parked.admission(now), Admission::Wait(now + MINUTE));
            parked.clock_was_set(by);
            let then = moved(now);
            assert_eq!(parked.admission(then), Admission::Wait(then + MINUTE));
            assert_eq!(parked.parked().unwrap().0, then);
            assert_eq!(parked.tick(&law, then + 23 * HOUR), None);
            assert!(parked.tick(&law, then + 24 * HOUR).is_some());
            let mut paused = Hold::default();
            drop(paused.back_off(&law, now));
            paused.clock_was_set(by);
            assert_eq!(paused.admission(then), Admission::Wait(then + MINUTE));
        }
    }

    proptest! {
        #[test]
        fn a_queue_always_moves_again(steps in proptest::collection::vec((0u8..9, 1u64..HOUR), 1..200)) {
            let (law, mut hold, mut now) = (law(), Hold::default(), 0);
            for (step, pause) in steps {
                now += pause;
                hold.tick(&law, now);
                match step {
                    0 => drop(hold.delivered(now)),
                    1 => drop(hold.back_off(&law, now)),
                    2 => drop(hold.probe_failed(&law, now)),
                    3 => hold.probe_begun(&law, now),
                    4 => hold.unreachable(),
                    5 => drop(hold.answered(QueueId::from_u64(now % 9), now)),
                    6 => hold.hurry(now),
                    id => drop(hold.fault(&law, now, &fault(u64::from(id) + now % 3))),
                }
                if let Admission::Wait(until) = hold.admission(now) {
                    prop_assert!(until > now && until <= now + HOUR);
                    let look = hold.next_look(&law, now);
                    prop_assert!(look.is_some_and(|look| look <= until), "somebody looks again");
                }
                prop_assert!((1..=10).contains(&hold.connections(now, 10)));
            }
        }
    }
}
