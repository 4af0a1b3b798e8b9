//! May this peer send this, and as whom? Three gates, and none replaces another (product.md 3).
//!
//! Their facts arrive at three times: the source address at accept ([`network`]), the certificate after STARTTLS
//! ([`certificate`]), the tenant in the header section ([`tenant`]). The first two and MAIL give [`Candidates`]; the
//! header section settles them into a [`Verdict`], a [`Refusal`], or a [`Pending`] verdict that only the facts about a DKIM
//! signature can conclude. Every verdict carries its [`Evidence`].
#![deny(clippy::wildcard_enum_match_arm)]

mod advice;
pub mod certificate;
pub mod chain;
pub mod endpoints;
mod evidence;
mod gate;
pub mod network;
pub mod presented;
pub mod renewal;
mod saved;
pub mod sender_name;
mod senders;
mod settings;
mod settle;
mod signature;
mod stamps;
mod tenant;
mod verdict;

pub use advice::{COMPARE_CERTIFICATE, RENEW_NETWORKS, advice, culprit};
pub use saved::settle_saved;
pub use settings::{
    ExchangeOnline, Forwarded, Gate, HalfProven, LoopHeader, SecretHeader, Tenant, Tenants,
};
pub use settle::{Pending, Settlement, settle};
pub use signature::{
    DkimFacts, MAX_SIGNATURES, MAX_SIGNED_SIZE, Signature, SignatureFact, TagList,
};
pub use tenant::{
    application, candidates, own, peer_evidence, submission_candidates, unreadable_xoorg,
};
pub use verdict::{
    Application, Candidates, Class, Evidence, EvidenceItem, EvidenceKind, EvidenceState, Peer,
    Reason, Refusal, Standing, Verdict,
};

#[cfg(test)]
pub(crate) mod fixtures;
#[cfg(test)]
mod tenant_tests;
