//! When is a message tried next, when is it given up, which queue may run now?
//!
//! Pure: attempts, faults and `now` in, moments out. [`retry`] is the law of one message, [`hold`] parks, probes and
//! releases a tenant's queue, [`fairness`] says how many connections a destination may have now.

use std::time::Duration;

pub mod fairness;
pub mod hold;
pub mod retry;

/// `[delivery.*]`: the law of one kind of `via`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Law {
    /// `retry`: waits between attempts; the last repeats. Never empty.
    pub retry: Vec<Duration>,
    /// `expire`: from arrival.
    pub expire: Duration,
    /// `hold_on_connector_fault`: how long a connector fault holds instead of bouncing; zero where the law has none.
    pub hold_on_connector_fault: Duration,
    /// `delay_notice`: from arrival.
    pub delay_notice: Option<Duration>,
}

#[cfg(test)]
mod walk_tests;
