//! When is a certificate renewed, and when is a failed renewal tried again?

use super::Fault;

const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;

/// When a certificate is due (seconds since 1970): a third of its life before its end, and up to a thirtieth of it earlier,
/// so that not everybody comes at once. `random` is any number that stays the same for a certificate.
#[must_use]
pub fn due(not_before: u64, not_after: u64, random: u64) -> u64 {
    let life = not_after.saturating_sub(not_before);
    let earlier = random % (life / 30).max(1);
    not_after.saturating_sub(life / 3).saturating_sub(earlier)
}

/// How many seconds to wait after so many failures in a row: an hour, doubled up to a day, and up to a quarter more; a
/// day at once where the authority limits the rate, which every further try would make worse.
#[must_use]
pub fn back_off(failures: u32, last: &Fault, random: u64) -> u64 {
    let wait = match last {
        Fault::RateLimited(_) => DAY,
        Fault::Refused(_) | Fault::Failed(_) => {
            let doubled = HOUR << failures.saturating_sub(1).min(5);
            doubled.min(DAY)
        }
    };
    wait + random % (wait / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_third_of_the_life_is_left_when_it_is_due() {
        let (from, until) = (0, 90 * DAY);
        assert_eq!(due(from, until, 0), 60 * DAY);
        for random in [1, 7, 12345, u64::MAX] {
            let due = due(from, until, random);
            assert!((57 * DAY..=60 * DAY).contains(&due), "{due}");
        }
        // Six days, as short-lived certificates have.
        assert_eq!(due(0, 6 * DAY, 0), 4 * DAY);
        assert_eq!(due(5, 5, 3), 5);
    }

    #[test]
    fn failures_wait_longer_and_longer_up_to_a_day() {
        let failed = Fault::Failed(String::new());
        let waits: Vec<u64> = (1..8).map(|n| back_off(n, &failed, 0) / HOUR).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 24, 24]);
        assert_eq!(back_off(1, &Fault::RateLimited(String::new()), 0), DAY);
        for random in [1, 999, u64::MAX] {
            let wait = back_off(1, &failed, random);
            assert!((HOUR..HOUR + HOUR / 4).contains(&wait), "{wait}");
        }
        assert!(back_off(u32::MAX, &failed, 0) == DAY);
    }
}
