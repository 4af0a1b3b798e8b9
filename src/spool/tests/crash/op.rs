//! What can be done to the store.

use super::super::*;

/// What is done to the store. Numbers choose among what there is, modulo how much that is.
#[derive(Clone, Debug)]
pub(super) enum Op {
    Accept {
        octets: usize,
        kind: Kind,
    },
    /// Takes due work of a queue and says what became of each recipient.
    Try {
        queue: usize,
        ends: [End; 3],
        counts: bool,
    },
    /// The same with the oldest message, due or not.
    Probe {
        queue: usize,
        ends: [End; 3],
    },
    /// Mail of our own on its way without certificate: taken, or kept for the connector.
    Uncertified {
        taken: bool,
    },
    /// Takes work and keeps it.
    Lease {
        queue: usize,
    },
    /// Drops the oldest lease.
    GiveBack,
    Act {
        action: QueueAction,
        which: usize,
    },
    /// Who waits long is told of it, or that cannot be written.
    Notice {
        told: bool,
    },
    Pass {
        millis: u64,
    },
    /// What the journal's thread does within 200 ms.
    Write,
    /// What the keeper does within a second.
    Tidy,
    /// Stops in order and starts again.
    Restart,
    /// kill -9, and a start.
    Kill,
}

/// Whose mail, and which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    ToExchange(usize),
    ToDomains,
    Both,
    Own,
}

/// What becomes of a recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Delivered,
    Failed,
    Deferred(u64),
    Held(u64),
    /// Nothing is said of it.
    Untried,
}
