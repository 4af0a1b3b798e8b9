//! May this peer send this, and as whom? Three gates, and none replaces another (product.md 3).
//!
//! Their facts arrive at three times: the source address at accept ([`network`]), the certificate after STARTTLS
//! ([`certificate`]), the tenant in the header section ([`tenant`]). The first two and MAIL give [`Candidates`]; the
//! header section settles them into a [`Verdict`] or a [`Refusal`]. Every verdict carries its [`Evidence`].
#![deny(clippy::wildcard_enum_match_arm)]

pub mod certificate;
pub mod endpoints;
mod gate;
pub mod network;
mod senders;
mod settings;
mod stamps;
mod tenant;
mod verdict;

pub use settings::{
    ExchangeOnline, Forwarded, Gate, HalfProven, LoopHeader, SecretHeader, Tenant, Tenants,
};
pub use tenant::{application, candidates, own, peer_evidence, settle, submission_candidates};
pub use verdict::{
    Application, Candidates, Class, Evidence, EvidenceItem, EvidenceKind, EvidenceState, Peer,
    Reason, Refusal, Settlement, Standing, Verdict,
};

#[cfg(test)]
pub(crate) mod fixtures;
#[cfg(test)]
mod tenant_tests;
