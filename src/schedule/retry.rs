//! When is one message tried next, and when is it given up?

use super::Law;
use super::hold::LONGEST_PAUSE;
use std::time::Duration;

/// What becomes of a message after an attempt that did not settle it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Tried again at this moment (milliseconds since 1970).
    At(u64),
    /// Its time is over.
    GiveUp,
}

/// The next attempt of a message that arrived at `arrived` and was just tried, `attempts` counting that try.
///
/// The waits of `retry` follow each other and the last repeats. A wait that would outlast `expire` is cut short, so that
/// the last attempt is made when the time is up and its reply is the one that is shown; after it the message is given up
/// (RFC 5321 §4.5.4.1). No jitter: the contract promises these times.
#[must_use]
pub fn next_attempt(law: &Law, attempts: u32, arrived: u64, now: u64) -> Next {
    let end = arrived.saturating_add(millis(law.expire));
    if now >= end {
        return Next::GiveUp;
    }
    Next::At(now.saturating_add(wait(law, attempts)).min(end))
}

/// The wait in milliseconds after try number `attempts` (1 is the first); never zero.
#[must_use]
pub fn wait(law: &Law, attempts: u32) -> u64 {
    let index = usize::try_from(attempts.saturating_sub(1)).unwrap_or(usize::MAX);
    let step = law.retry.get(index).or_else(|| law.retry.last());
    step.map_or(60_000, |wait| millis(*wait)).max(1)
}

/// The longest wait in milliseconds that the law, a hold or a pause gives: whoever waits longer does so because a clock was
/// set.
#[must_use]
pub fn longest_wait(law: &Law) -> u64 {
    let longest = law.retry.iter().map(|wait| millis(*wait)).max();
    longest.unwrap_or_default().max(LONGEST_PAUSE)
}

/// A duration in whole milliseconds.
#[must_use]
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn law(retry: &[u64], expire: u64) -> Law {
        Law {
            retry: retry
                .iter()
                .map(|secs| Duration::from_secs(*secs))
                .collect(),
            expire: Duration::from_secs(expire),
            hold_on_connector_fault: Duration::ZERO,
            delay_notice: None,
        }
    }

    #[test]
    fn the_last_wait_repeats() {
        let law = law(&[60, 60, 300], 1_000_000);
        let waits: Vec<_> = (1..=5).map(|attempts| wait(&law, attempts)).collect();
        assert_eq!(waits, [60_000, 60_000, 300_000, 300_000, 300_000]);
        assert_eq!(next_attempt(&law, 2, 0, 5), Next::At(60_005));
    }

    #[test]
    fn the_last_attempt_is_made_when_the_time_is_up() {
        let law = law(&[60], 90);
        assert_eq!(next_attempt(&law, 1, 1_000, 1_000), Next::At(61_000));
        assert_eq!(next_attempt(&law, 2, 1_000, 61_000), Next::At(91_000));
        assert_eq!(next_attempt(&law, 3, 1_000, 91_000), Next::GiveUp);
    }

    proptest! {
        #[test]
        fn retry_times_only_grow_and_end(
            retry in proptest::collection::vec(0u64..7200, 0..6),
            expire in 1u64..200_000,
            arrived in 0u64..2_000_000_000_000,
            took in 0u64..600_000,
        ) {
            let law = law(&retry, expire);
            let end = arrived + expire * 1000;
            let mut now = arrived + took;
            for attempts in 1..2_000 {
                match next_attempt(&law, attempts, arrived, now) {
                    Next::At(next) => {
                        prop_assert!(next > now && next <= end);
                        now = next;
                    }
                    Next::GiveUp => {
                        prop_assert!(now >= end);
                        return Ok(());
                    }
                }
            }
        }
    }
}
