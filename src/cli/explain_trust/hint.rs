//! What to do about mail that is refused, or what to ask next: by the reason, and by what the evidence shows.

use super::Question;
use crate::trust::{Evidence, EvidenceKind, EvidenceState, Reason};

/// The hint; none where the reason says it all.
pub(super) fn of(
    reason: Reason,
    evidence: &Evidence,
    question: &Question<'_>,
) -> Option<&'static str> {
    let holds = |kind| {
        let mut items = evidence.0.iter();
        items.any(|item| item.kind == kind && item.state == EvidenceState::Matches)
    };
    Some(match reason {
        Reason::Stranger | Reason::HalfProvenDefer | Reason::HalfProvenRefuse
            if question.certificate.is_none() =>
        {
            "--certificate was not given, which counts as a peer that shows none: give the chain that it showed"
        }
        Reason::Stranger => {
            "is --from the address that connected, and --certificate what that peer showed? Then it was not Exchange Online"
        }
        Reason::HalfProvenDefer | Reason::HalfProvenRefuse if holds(EvidenceKind::Network) => {
            "is --certificate what the peer showed? Then compare its names and issuer with exchange_online.client_certificate_names and _roots"
        }
        Reason::HalfProvenDefer | Reason::HalfProvenRefuse => {
            "is --from the address that connected? Then Microsoft may have new ones: renew the file of exchange_online.endpoints, or add the block to networks"
        }
        Reason::SignatureUnavailable if question.dns => {
            "ask again later: the name servers of dns.servers, or those of the signer, do not answer now"
        }
        Reason::SignatureUnavailable => "ask again with --dns",
        Reason::UnknownXoorg | Reason::NoTenant => {
            "is it a configured tenant's mail? Then compare what was seen with its tenant_id, originator_orgs and secret_header"
        }
        Reason::TooFewProofs | Reason::SecretMissing if !holds(EvidenceKind::SecretHeader) => {
            "does the tenant's transport rule set the secret header, with the configured value, on this mail?"
        }
        Reason::TooFewProofs | Reason::SecretMissing => {
            "the tenant's proofs want more evidence than the message has: see what is absent above"
        }
        Reason::ForeignEnvelopeSender | Reason::ForeignHeaderSender => {
            "add the domain to accepted_domains if it is the tenant's; forwarded_senders = \"allow\" lets forwarded mail pass"
        }
        Reason::Contradiction
        | Reason::AmbiguousEvidence
        | Reason::SenderNotAllowed
        | Reason::FromNotAllowed
        | Reason::FromAbsent
        | Reason::FromDuplicate
        | Reason::FromUnreadable
        | Reason::Loop => return None,
    })
}
