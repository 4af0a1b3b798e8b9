//! How many connections may each queue have now, so that a full queue neither starves the others nor floods a next hop?

/// What one queue looks like when connections are given out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    /// Messages that are due and in nobody's hand.
    pub ready: usize,
    /// Connections with a message in hand.
    pub busy: usize,
    /// Connections that wait for more work.
    pub idle: usize,
    /// Connections that are being opened for a message already taken, or will take one at once.
    pub starting: usize,
    /// The most that the queue may have now: `max_connections`, less in a ramp or after a back-off.
    pub most: usize,
}

impl Demand {
    /// How many more connections would be of use.
    ///
    /// One for each message that no idle or starting connection will take: a message is some round trips, and so is a
    /// connection, so a short burst is over sooner in parallel; connections linger and are used again.
    #[must_use]
    pub fn wanted(&self) -> usize {
        let open = self.busy + self.idle + self.starting;
        self.ready
            .saturating_sub(self.idle + self.starting)
            .min(self.most.saturating_sub(open))
    }
}

/// Gives out `free` connections: one to each queue in turn until nobody wants more, beginning with queue `first`, which
/// the caller moves on, so that the same queue is not always the last.
#[must_use]
pub fn allot(demands: &[Demand], free: usize, first: usize) -> Vec<usize> {
    let mut given = vec![0; demands.len()];
    let mut left = free;
    let mut wanted: Vec<usize> = demands.iter().map(Demand::wanted).collect();
    let start = first.checked_rem(demands.len()).unwrap_or_default();
    while left > 0 && wanted.iter().any(|want| *want > 0) {
        for index in (start..demands.len()).chain(0..start) {
            let (Some(want), Some(got)) = (wanted.get_mut(index), given.get_mut(index)) else {
                continue;
            };
            if *want > 0 && left > 0 {
                *want -= 1;
                *got += 1;
                left -= 1;
            }
        }
    }
    given
}

#[cfg(test)]
mod tests {
    use super::*;

    fn demand(ready: usize, busy: usize, idle: usize, most: usize) -> Demand {
        Demand {
            ready,
            busy,
            idle,
            starting: 0,
            most,
        }
    }

    #[test]
    fn idle_connections_are_used_before_new_ones_are_opened() {
        assert_eq!(demand(1, 0, 1, 10).wanted(), 0);
        assert_eq!(demand(3, 2, 1, 10).wanted(), 2);
        assert_eq!(demand(100, 4, 0, 10).wanted(), 6);
        assert_eq!(
            demand(100, 4, 0, 3).wanted(),
            0,
            "a smaller limit never underflows"
        );
    }

    #[test]
    fn a_full_queue_does_not_starve_the_others() {
        let demands = [
            demand(1000, 0, 0, 100),
            demand(2, 0, 0, 10),
            demand(1, 0, 0, 10),
        ];
        assert_eq!(allot(&demands, 6, 0), [3, 2, 1]);
        assert_eq!(allot(&demands, 2, 1), [0, 1, 1]);
        assert_eq!(allot(&demands, 500, 7), [100, 2, 1]);
        assert!(allot(&[], 5, 3).is_empty());
    }
}
