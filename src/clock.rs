//! What time is it? The shells' one clock, handed to them so that a rehearsal can set it forward.
//!
//! Two hands. The wall clock (milliseconds since 1970) stamps, dates and decides when a message is tried again; it can be
//! set. Ticks only go forward, at the pace of the machine: deadlines of peers are counted in them, so that nobody is cut
//! off because a clock was set. Who keeps moments of the wall clock asks [`Steps`] whether it was.

use crate::session::Now;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The clock of a server. Clones show the same time.
#[derive(Clone, Debug)]
pub struct Clock {
    started: Instant,
    /// How far the wall clock was set forward, in milliseconds.
    ahead: Arc<AtomicU64>,
    /// How far the machine's clock is said to have been set, in milliseconds.
    set: Arc<AtomicI64>,
}

impl Clock {
    /// A clock that shows the machine's time and whose ticks start now.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "the place where the shells' clock is read"
    )]
    pub fn start() -> Self {
        Self {
            started: Instant::now(),
            ahead: Arc::default(),
            set: Arc::default(),
        }
    }

    /// Milliseconds since 1970.
    #[must_use]
    pub fn unix_millis(&self) -> u64 {
        self.machine()
            .saturating_add(self.ahead.load(Ordering::Relaxed))
    }

    /// What the machine's clock shows, milliseconds since 1970.
    #[expect(
        clippy::disallowed_methods,
        reason = "the place where the shells' clock is read"
    )]
    fn machine(&self) -> u64 {
        let since_1970 = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or(Duration::ZERO);
        millis(since_1970).saturating_add_signed(self.set.load(Ordering::Relaxed))
    }

    /// Milliseconds since the start, whatever the wall clock does.
    #[must_use]
    pub fn ticks(&self) -> u64 {
        millis(self.started.elapsed())
    }

    /// Both hands, in the form that sessions take.
    #[must_use]
    pub fn now(&self) -> Now {
        Now {
            unix_millis: self.unix_millis(),
            ticks: self.ticks(),
        }
    }

    /// The moment of `ticks`.
    #[must_use]
    pub fn at(&self, ticks: u64) -> tokio::time::Instant {
        tokio::time::Instant::from_std(self.started + Duration::from_millis(ticks))
    }

    /// Sets the wall clock forward; ticks go on as they did. Who waits for a time looks again by himself only after a
    /// while: [`crate::app::Server::set_clock_forward`] calls him.
    pub fn set_forward(&self, by: Duration) {
        self.ahead.fetch_add(millis(by), Ordering::Relaxed);
    }

    /// As if somebody had set the machine's clock by so many milliseconds: no time has passed, the clock was wrong. What a
    /// step of the real one does can be seen with it.
    pub fn step(&self, by: i64) {
        self.set.fetch_add(by, Ordering::Relaxed);
    }
}

/// Smaller steps are what a clock is disciplined by; they do no harm, and are summed up here.
const LEAST_STEP: i64 = 2_000;

/// Sees that the machine's clock was set, or that the machine slept: then the wall clock and the ticks do not go on
/// together. For one who asks now and then.
#[derive(Debug)]
pub struct Steps {
    clock: Clock,
    lead: i64,
    /// When the last one was seen, in ticks.
    last: Option<u64>,
}

impl Steps {
    /// Steps from now on.
    #[must_use]
    pub fn of(clock: &Clock) -> Self {
        Self {
            clock: clock.clone(),
            lead: lead(clock),
            last: None,
        }
    }

    /// By how many milliseconds the clock was set since the last call, if it was.
    pub fn taken(&mut self) -> Option<i64> {
        let lead = lead(&self.clock);
        let by = lead.saturating_sub(self.lead);
        if by.saturating_abs() < LEAST_STEP {
            return None;
        }
        self.lead = lead;
        self.last = Some(self.clock.ticks());
        Some(by)
    }

    /// Whether the clock was left alone for so long, as far as was seen; what it shows can be relied upon.
    pub fn is_settled(&mut self, time: Duration) -> bool {
        self.taken();
        let ticks = self.clock.ticks();
        self.last
            .is_none_or(|last| ticks.saturating_sub(last) >= millis(time))
    }
}

/// How far the wall clock is ahead of the ticks.
fn lead(clock: &Clock) -> i64 {
    let wall = i64::try_from(clock.machine()).unwrap_or(i64::MAX);
    wall.saturating_sub(i64::try_from(clock.ticks()).unwrap_or(i64::MAX))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_are_set_together_and_ticks_stay() {
        let clock = Clock::start();
        let (before, other) = (clock.unix_millis(), clock.clone());
        clock.set_forward(Duration::from_secs(3600));
        assert!(other.unix_millis() >= before + 3_600_000);
        assert!(other.ticks() < 3_600_000);
    }

    #[test]
    fn a_step_is_seen_once_and_time_that_passes_is_none() {
        let clock = Clock::start();
        let mut steps = Steps::of(&clock);
        clock.set_forward(Duration::from_secs(3600));
        assert_eq!(steps.taken(), None, "a rehearsal's hour is time");
        assert!(steps.is_settled(Duration::from_secs(3600)));
        for by in [-7_200_000, 86_400_000] {
            clock.step(by);
            let seen = steps.taken().unwrap();
            assert!((by - seen).abs() < 2_000, "{by}: {seen}");
            assert_eq!(steps.taken(), None);
        }
        assert!(!steps.is_settled(Duration::from_secs(3600)));
        assert!(steps.is_settled(Duration::ZERO));
        let before = clock.unix_millis();
        clock.step(-1_000);
        assert_eq!(steps.taken(), None, "disciplined, not set");
        assert!(clock.unix_millis() < before, "and shown all the same");
        clock.step(-1_500);
        assert!(steps.taken().is_some(), "together they are one");
    }
}
