//! The tenant gate.

use super::settings::{Tenant, Tenants};
use super::verdict::{Application, Candidates, Peer, Refusal, Settlement, Verdict};
use crate::header::Examined;
use crate::mail::{Domain, Envelope, ReversePath};
use std::sync::Arc;

/// At MAIL on a connector listener, network and certificate having held: the tenant of XOORG, else those whose accepted
/// domains hold the envelope sender, else (null or foreign) all.
///
/// # Errors
/// XOORG names no configured tenant.
pub fn candidates(
    _tenants: &Tenants,
    _reverse_path: &ReversePath,
    _xoorg: Option<&Domain>,
) -> Result<Candidates, Refusal> {
    unimplemented!()
}

/// At MAIL on a submission listener.
///
/// # Errors
/// The application may not use this envelope sender.
pub fn submission_candidates(
    _application: &Arc<Application>,
    _reverse_path: &ReversePath,
) -> Result<Candidates, Refusal> {
    unimplemented!()
}

/// With the header section of connector mail: the tenant gate, then the loop check, in that order (report mode: loop first).
#[must_use]
pub fn settle(
    _tenants: &Tenants,
    _candidates: &Candidates,
    _peer: &Peer,
    _envelope: &Envelope,
    _header: &Examined,
    _unix_seconds: u64,
) -> Settlement {
    unimplemented!()
}

/// With the header section of an application's mail: From: against `senders`.
#[must_use]
pub fn application(
    _application: &Arc<Application>,
    _envelope: &Envelope,
    _header: &Examined,
) -> Settlement {
    unimplemented!()
}

/// The verdict on mail that Gatepost writes itself for a tenant.
#[must_use]
pub fn own(_tenant: &Arc<Tenant>) -> Verdict {
    unimplemented!()
}

/// Network and certificate as evidence.
#[must_use]
pub fn peer_evidence(_peer: &Peer) -> super::Evidence {
    unimplemented!()
}
