//! What to do about mail that is refused, or what to ask next: by the reason, by what the evidence shows, and by what was asked.

use super::Question;
use crate::trust::{
    self, COMPARE_CERTIFICATE, Evidence, EvidenceKind, EvidenceState, RENEW_NETWORKS, Reason,
};

/// The hint.
pub(super) fn of(reason: Reason, evidence: &Evidence, question: &Question<'_>) -> String {
    let network = evidence
        .0
        .iter()
        .any(|item| item.kind == EvidenceKind::Network && item.state == EvidenceState::Matches);
    match reason {
        Reason::Stranger | Reason::HalfProvenDefer | Reason::HalfProvenRefuse
            if question.certificate.is_none() =>
        {
            "--certificate was not given, which counts as a peer that shows none: give the chain that it showed".to_owned()
        }
        Reason::Stranger => {
            "is --from the address that connected, and --certificate what that peer showed? Then it was not Exchange Online".to_owned()
        }
        Reason::HalfProvenDefer | Reason::HalfProvenRefuse if network => {
            format!("is --certificate what the peer showed? Then {COMPARE_CERTIFICATE}")
        }
        Reason::HalfProvenDefer | Reason::HalfProvenRefuse => {
            format!("is --from the address that connected? Then {RENEW_NETWORKS}")
        }
        Reason::SignatureUnavailable if question.dns => {
            "ask again later: the name servers of dns.servers, or those of the signer, do not answer now".to_owned()
        }
        Reason::SignatureUnavailable => "ask again with --dns".to_owned(),
        Reason::UnknownXoorg
        | Reason::NoTenant
        | Reason::TooFewProofs
        | Reason::SecretMissing
        | Reason::ForeignEnvelopeSender
        | Reason::ForeignHeaderSender
        | Reason::Contradiction
        | Reason::AmbiguousEvidence
        | Reason::SenderNotAllowed
        | Reason::FromNotAllowed
        | Reason::FromAbsent
        | Reason::FromDuplicate
        | Reason::FromUnreadable
        | Reason::Loop => trust::advice(reason, evidence).into_owned(),
    }
}
