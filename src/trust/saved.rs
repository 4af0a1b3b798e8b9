//! What would the tenant gate make of a header section that somebody has saved, the other two gates holding?
//!
//! For who explains: a file knows neither the peer nor the envelope. The judgement is the server's own, so that an
//! explanation cannot differ from what is done; what the envelope alone can say (its sender, XOORG) is left open.

use super::certificate::ClientCertificate;
use super::settings::Tenants;
use super::settle::{Settlement, is_validator, settle};
use super::verdict::{Candidates, Peer};
use crate::header::Examined;
use crate::mail::{Envelope, ReversePath};

/// As [`settle`], of mail that a proven peer would have sent with a sender that fits.
#[must_use]
pub fn settle_saved(tenants: &Tenants, header: &Examined, unix_seconds: u64) -> Settlement {
    let peer = Peer {
        network: true,
        certificate: ClientCertificate::Verified { name: "-".into() },
    };
    let candidates = Candidates {
        tenants: tenants.iter().cloned().collect(),
        application: None,
    };
    // Microsoft's connector check is known by its sender, which writes it as well; any other sender is taken to fit.
    let from = header.from_mailboxes().ok().and_then(|mut list| list.pop());
    let reverse_path = from
        .filter(is_validator)
        .map_or(ReversePath::Null, ReversePath::Mailbox);
    let envelope = Envelope {
        reverse_path,
        recipients: Vec::new(),
        body: None,
        smtputf8: false,
        ret: None,
        envid: None,
        xoorg: None,
    };
    settle(tenants, &candidates, &peer, &envelope, header, unix_seconds)
}
