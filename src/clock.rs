//! What time is it? The shells' one clock, handed to them so that a rehearsal can set it forward.
//!
//! Two hands. The wall clock (milliseconds since 1970) stamps, dates and decides when a message is tried again; it can be
//! set. Ticks only go forward, at the pace of the machine: deadlines of peers are counted in them, so that nobody is cut
//! off because a clock was set.

use crate::session::Now;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The clock of a server. Clones show the same time.
#[derive(Clone, Debug)]
pub struct Clock {
    started: Instant,
    /// How far the wall clock was set forward, in milliseconds.
    ahead: Arc<AtomicU64>,
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
        }
    }

    /// Milliseconds since 1970.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "the place where the shells' clock is read"
    )]
    pub fn unix_millis(&self) -> u64 {
        let since_1970 = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or(Duration::ZERO);
        millis(since_1970).saturating_add(self.ahead.load(Ordering::Relaxed))
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
}
