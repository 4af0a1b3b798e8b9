//! What may those who have proven nothing write into the trace?
//!
//! Each refusal is a line in trace and log, and each failed handshake: whoever connects again and again would fill the disk
//! with them. So much of it stands there as a building full of scanners makes that nobody has set up; one address has a
//! share of that, and the first word to each address goes beyond it, so that whoever comes into a flood
//! learns why he is refused.

use super::listener::network_of;
use crate::message_trace::{Event, TraceEvent};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

/// Milliseconds that are counted together.
const WINDOW: u64 = 10_000;
/// Lines in a window, each of about half a KiB and as much in the log.
const ALL: u32 = 1000;
/// Of one address.
const ONE: u32 = 250;
/// With the first word to each address: what bounds the memory, too.
const WITH_FIRST_WORDS: u32 = 2 * ALL;
/// Octets of what a client offered in a handshake that count as a line.
const LINE: usize = 512;

/// What was written of late, on all listeners.
#[derive(Debug, Default)]
pub struct Strangers(Mutex<Window>);

#[derive(Debug, Default)]
struct Window {
    number: u64,
    all: u32,
    by_address: HashMap<IpAddr, u32>,
}

impl Strangers {
    /// Whether an event of a stranger at `address` may be written at `ticks` (milliseconds).
    pub(super) fn may_write(&self, event: &TraceEvent, address: IpAddr, ticks: u64) -> bool {
        let lines = lines(event);
        let mut window = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let number = ticks / WINDOW;
        if window.number != number {
            *window = Window {
                number,
                ..Window::default()
            };
        }
        let address = network_of(address);
        let own = window.by_address.get(&address).copied();
        let most = match own {
            Some(_) => ALL,
            None => WITH_FIRST_WORDS,
        };
        if window.all >= most || own.unwrap_or_default() >= ONE {
            return false;
        }
        window.all = window.all.saturating_add(lines);
        let own = window.by_address.entry(address).or_default();
        *own = own.saturating_add(lines);
        true
    }
}

/// How many usual lines an event takes as much room as.
fn lines(event: &TraceEvent) -> u32 {
    let offered = match &event.event {
        Event::HandshakeFailed { offered, .. } => offered.as_ref(),
        Event::Refused { .. }
        | Event::Received { .. }
        | Event::Attempt { .. }
        | Event::Report { .. }
        | Event::Queue { .. }
        | Event::Operator { .. } => None,
    };
    let octets = offered.map_or(0, |offered| {
        serde_json::to_vec(offered).map_or(usize::MAX, |json| json.len())
    });
    1 + u32::try_from(octets / LINE).unwrap_or(u32::MAX - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust::Evidence;

    fn refused() -> TraceEvent {
        let event = Event::Refused {
            listener: "apps".to_owned(),
            peer: "192.0.2.1:25".to_owned(),
            application: None,
            tenant: None,
            sender: None,
            recipients: Vec::new(),
            message_id: None,
            reply: "530 5.7.0 no".to_owned(),
            reason: "auth_required".to_owned(),
            evidence: Evidence::default(),
        };
        TraceEvent {
            at: 0,
            id: "A".to_owned(),
            event,
        }
    }

    fn told(strangers: &Strangers, address: &str, ticks: u64) -> usize {
        let address = address.parse().unwrap();
        let ask = || strangers.may_write(&refused(), address, ticks);
        (0..300).filter(|_| ask()).count()
    }

    #[test]
    fn one_address_has_a_share_and_all_have_a_bound() {
        let strangers = Strangers::default();
        assert_eq!(told(&strangers, "192.0.2.1", 5), 250);
        // A /64 of IPv6 is one address.
        assert_eq!(told(&strangers, "2001:db8::1", 6), 250);
        assert_eq!(told(&strangers, "2001:db8::2", 7), 0);
        for last in 2..4 {
            assert_eq!(told(&strangers, &format!("192.0.2.{last}"), 8), 250);
        }
        // Now each hears one word, until there are too many of them.
        let crowd = (0..2000).map(|number| format!("10.0.{}.{}", number / 250, number % 250));
        let crowd: usize = crowd.map(|own| told(&strangers, &own, 9)).sum();
        assert_eq!(crowd, 1000);
        assert_eq!(told(&strangers, "192.0.2.200", 9_999), 0);
        assert_eq!(told(&strangers, "192.0.2.200", 10_000), 250);
    }

    #[test]
    fn a_handshake_counts_as_the_lines_that_it_takes() {
        let mut event = refused();
        assert_eq!(lines(&event), 1);
        let offered = crate::message_trace::Offered {
            suites: vec!["TLS_AES_256_GCM_SHA384".to_owned(); 128],
            ..Default::default()
        };
        event.event = Event::HandshakeFailed {
            listener: "apps".to_owned(),
            peer: "192.0.2.1:25".to_owned(),
            error: "no".to_owned(),
            offered: Some(offered),
        };
        assert!((5..12).contains(&lines(&event)), "{}", lines(&event));
    }
}
