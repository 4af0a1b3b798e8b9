//! A queue's connector in its plainest form: faults park it, a probe that is taken lets it go on, slowly at first.

use std::collections::BTreeSet;

pub(super) const SECOND: u64 = 1_000;
pub(super) const MINUTE: u64 = 60 * SECOND;
pub(super) const HOUR: u64 = 60 * MINUTE;

/// Different messages with a fault that park a queue.
const FAULTS: usize = 3;
const RAMP: u64 = 30 * SECOND;
/// Until the next attempt where a report could not be kept.
pub(super) const UNREPORTED: u64 = 5 * MINUTE;

/// Waits and bounds, milliseconds.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) retry: &'static [u64],
    pub(super) expire: u64,
    pub(super) hold: u64,
    /// After so long the sender hears that mail still waits.
    pub(super) notice: u64,
}

pub(super) const EXCHANGE: Rule = Rule {
    retry: &[MINUTE, MINUTE, 5 * MINUTE],
    expire: 40 * MINUTE,
    hold: 20 * MINUTE,
    notice: 9 * MINUTE,
};

pub(super) const OUTSIDE: Rule = Rule {
    retry: &[MINUTE, 2 * MINUTE],
    expire: 25 * MINUTE,
    hold: 0,
    notice: 7 * MINUTE,
};

impl Rule {
    pub(super) fn wait(&self, attempts: u32) -> u64 {
        let at = (attempts.max(1) as usize - 1).min(self.retry.len() - 1);
        self.retry[at]
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Flows,
    Parked {
        probes: u32,
        next: u64,
    },
    Exhausted,
}

/// May the queue send?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum May {
    Go,
    Probe,
    Wait,
}

#[derive(Debug, Default)]
pub(super) struct Lane {
    state: State,
    faults: BTreeSet<u64>,
    held: BTreeSet<u64>,
    since: Option<u64>,
    pause: u64,
    paused_until: u64,
    /// Pauses outside, without a success between.
    pauses: u32,
    /// Nobody was reached at that moment: one connection at a time, once those that were there are gone.
    unreached: Option<u64>,
    /// Released by a success at this moment.
    ramp: Option<u64>,
    /// That was a probe, and nothing else was on its way: so few connections are left.
    pub(super) ramp_from_one: bool,
    /// Messages that are to be let go, one call each.
    pub(super) to_release: Vec<u64>,
}

/// A message's fault, as its recipients with the same past remember the one before.
pub(super) struct Met {
    pub(super) id: u64,
    pub(super) attempts: u32,
    pub(super) held_since: Option<u64>,
    pub(super) spent: bool,
}

impl Lane {
    pub(super) fn is_parked(&self) -> bool {
        matches!(self.state, State::Parked { .. })
    }

    pub(super) fn may(&self, now: u64) -> May {
        match self.state {
            State::Parked { next, .. } if now >= next => May::Probe,
            State::Parked { .. } => May::Wait,
            State::Flows | State::Exhausted if now < self.paused_until => May::Wait,
            State::Flows | State::Exhausted => May::Go,
        }
    }

    /// Connections that the queue may have by now.
    pub(super) fn most(&self, now: u64, most: usize) -> usize {
        if self.pause > 0 || self.unreached.is_some_and(|since| since < now) {
            return 1;
        }
        self.ramp(now, most).unwrap_or(most)
    }

    fn ramp(&self, now: u64, most: usize) -> Option<usize> {
        let from = self.ramp.filter(|_| self.ramp_from_one)?;
        let gone = now - from;
        (gone < RAMP).then(|| 1 + (most - 1) * usize::try_from(gone).unwrap() / RAMP as usize)
    }

    pub(super) fn probe_begun(&mut self, now: u64) {
        if let State::Parked { probes, next } = &mut self.state {
            *next = now + EXCHANGE.wait(*probes + 2);
        }
    }

    pub(super) fn probe_failed(&mut self, now: u64) {
        if let State::Parked { probes, next } = &mut self.state {
            *probes += 1;
            *next = now + EXCHANGE.wait(*probes + 1);
        }
    }

    /// The probe was answered for its message: whatever it was, the connector is not at fault.
    pub(super) fn answered(&mut self, id: u64, now: u64, alone: bool) {
        if self.is_parked() {
            self.held.remove(&id);
            self.delivered(now, alone);
        }
    }

    /// Held until when and since when; nothing where the time for that is over.
    pub(super) fn fault(&mut self, now: u64, met: &Met) -> Option<(u64, u64)> {
        let since = met.held_since.unwrap_or(now);
        if met.spent || now >= since + EXCHANGE.hold || self.state == State::Exhausted {
            self.tick(now);
            return None;
        }
        self.since = Some(self.since.map_or(since, |first| first.min(since)));
        self.held.insert(met.id);
        let next = match self.state {
            State::Parked { next, .. } => next,
            State::Flows | State::Exhausted => {
                self.faults.insert(met.id);
                if self.faults.len() < FAULTS {
                    now + EXCHANGE.wait(met.attempts)
                } else {
                    let next = now + EXCHANGE.wait(1);
                    self.state = State::Parked { probes: 0, next };
                    (self.ramp, self.ramp_from_one) = (None, false);
                    next
                }
            }
        };
        Some((next, since))
    }

    pub(super) fn busy(&mut self, now: u64) {
        if now >= self.paused_until {
            self.pause = (2 * self.pause).clamp(EXCHANGE.wait(1), HOUR);
            self.paused_until = now + self.pause;
        }
    }

    /// Nobody was reached by the connector.
    pub(super) fn unreached(&mut self, now: u64) {
        self.unreached = Some(now);
    }

    /// Nobody outside was reached, or he takes no mail now: the queue waits as one message would.
    pub(super) fn rest(&mut self, now: u64) {
        if now >= self.paused_until {
            self.pauses += 1;
            self.pause = OUTSIDE.wait(self.pauses);
            self.paused_until = now + self.pause;
        }
    }

    /// Something was taken; `alone`: as a probe, and nothing else is on its way.
    pub(super) fn delivered(&mut self, now: u64, alone: bool) {
        (self.pause, self.paused_until) = (0, 0);
        (self.pauses, self.unreached) = (0, None);
        if self.is_parked() {
            self.release(State::Flows);
            (self.ramp, self.ramp_from_one) = (Some(now), alone);
        } else if self.state == State::Exhausted || !self.faults.is_empty() {
            self.clear(State::Flows);
        }
    }

    /// Parked for as long as the rule allows: tried as any other from here on.
    pub(super) fn tick(&mut self, now: u64) {
        if self.is_over(now) {
            self.release(State::Exhausted);
        }
    }

    pub(super) fn is_over(&self, now: u64) -> bool {
        let over = self.since.is_some_and(|since| now >= since + EXCHANGE.hold);
        over && self.is_parked()
    }

    /// Whether a message was to be let go; now it is.
    pub(super) fn lets_go(&mut self, id: u64) -> bool {
        let at = self.to_release.iter().position(|other| *other == id);
        at.map(|at| self.to_release.remove(at)).is_some()
    }

    /// The configuration was read again.
    pub(super) fn reloaded(&mut self, now: u64) {
        self.goes_on_with_one(now);
        if let State::Parked { next, .. } = &mut self.state {
            *next = now;
            self.to_release.extend(self.held.first());
        }
    }

    /// A pause is over before its time, and nothing was delivered.
    fn goes_on_with_one(&mut self, now: u64) {
        if self.pause > 0 {
            self.unreached = Some(now.saturating_sub(1));
        }
        (self.pause, self.paused_until) = (0, 0);
    }

    /// An operator wants mail of it tried now.
    pub(super) fn hurried(&mut self, now: u64) {
        self.goes_on_with_one(now);
        self.pauses = 0;
        if let State::Parked { next, .. } = &mut self.state {
            *next = now;
        }
    }

    /// The clock was set: every moment moves with it.
    pub(super) fn clock_was_set(&mut self, by: i64) {
        let shift = |moment: &mut u64| *moment = moment.saturating_add_signed(by);
        let moments = [&mut self.since, &mut self.ramp, &mut self.unreached];
        moments.into_iter().flatten().for_each(shift);
        shift(&mut self.paused_until);
        if let State::Parked { next, .. } = &mut self.state {
            shift(next);
        }
    }

    /// A new process knows of these messages that they were held.
    pub(super) fn take_up(&mut self, since: u64, ids: &[u64]) {
        self.faults.extend(ids.iter().take(FAULTS));
        self.held.extend(ids);
        self.since = Some(since);
        self.to_release.extend(ids);
    }

    fn release(&mut self, state: State) {
        self.to_release.extend(self.held.iter());
        self.clear(state);
    }

    fn clear(&mut self, state: State) {
        self.state = state;
        self.since = None;
        self.held.clear();
        self.faults.clear();
    }
}
