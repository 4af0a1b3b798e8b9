//! What mends a refusal, and which item of evidence decided it? One text for each, for all who explain: `explain trust`,
//! `explain headers`, `explain reply`.

use super::verdict::{Evidence, EvidenceItem, EvidenceKind, EvidenceState, Reason};
use std::borrow::Cow;

/// Where the source address is not known as Exchange Online's.
pub const RENEW_NETWORKS: &str = "Microsoft may have new ones: renew the file of exchange_online.endpoints, or add the block to networks";

/// Where the client certificate is not known as Exchange Online's.
pub const COMPARE_CERTIFICATE: &str =
    "compare its names and issuer with exchange_online.client_certificate_names and _roots";

/// What mends a refusal for this reason, by what the evidence shows; where that is empty, what mostly does.
#[must_use]
pub fn advice(reason: Reason, evidence: &Evidence) -> Cow<'static, str> {
    let state = |kind| {
        let item = evidence.0.iter().find(|item| item.kind == kind)?;
        Some(item.state)
    };
    let matches = |kind| state(kind) == Some(EvidenceState::Matches);
    let text = match reason {
        Reason::Stranger => {
            "nothing, if it was not Exchange Online: applications and devices belong on a submission listener"
        }
        Reason::HalfProvenDefer | Reason::HalfProvenRefuse => {
            return match (matches(EvidenceKind::Network), matches(EvidenceKind::Certificate)) {
                (true, false) => format!("of the certificate, {COMPARE_CERTIFICATE}").into(),
                (false, true) => format!("of the address: {RENEW_NETWORKS}").into(),
                _ => format!(
                    "if it was Exchange Online: where its address is not known, {RENEW_NETWORKS}; where its certificate is not, {COMPARE_CERTIFICATE}"
                )
                .into(),
            };
        }
        Reason::SignatureUnavailable => {
            "nothing, unless it lasts: then see that the name servers of dns.servers answer; with a secret header no signature is needed"
        }
        Reason::UnknownXoorg | Reason::NoTenant => {
            "is it a configured tenant's mail? Then compare what was seen with its tenant_id, originator_orgs and secret_header"
        }
        Reason::TooFewProofs | Reason::SecretMissing if !matches(EvidenceKind::SecretHeader) => {
            "does the tenant's transport rule set the secret header, with the configured value, on this mail?"
        }
        Reason::TooFewProofs | Reason::SecretMissing => {
            "the tenant's proofs want more evidence than the message has: see what is absent"
        }
        Reason::ForeignEnvelopeSender | Reason::ForeignHeaderSender => {
            "add the domain to accepted_domains if it is the tenant's; forwarded_senders = \"allow\" lets forwarded mail pass"
        }
        Reason::Contradiction => return of_contradiction(culprit(reason, evidence)),
        Reason::AmbiguousEvidence => return of_ambiguity(culprit(reason, evidence)),
        Reason::SenderNotAllowed => {
            "add the address to `senders` of the [[application]], if it may write as that; else let it use one of those"
        }
        Reason::FromNotAllowed => {
            "let the application write one of its `senders` into From:, or add the address to them, if it may write as that"
        }
        Reason::FromAbsent => "let the application write a From: with one of its `senders`",
        Reason::FromDuplicate => "let the application write one From: only",
        Reason::FromUnreadable => {
            "let the application write its From: as Name <address> or as the address alone"
        }
        Reason::Loop => {
            "compare both connectors and the transport rule's exception for the loop header: gatepost connector diff"
        }
    };
    text.into()
}

/// The item that decided: what contradicts, what stands twice or cannot be read; `None` where no single item does.
#[must_use]
pub fn culprit(reason: Reason, evidence: &Evidence) -> Option<&EvidenceItem> {
    use EvidenceKind::{
        ConnectingIp, CrossTenantId, HeaderSender, OriginatorOrg, SecretHeader, Xoorg,
    };
    use EvidenceState::{Absent, Differs, Duplicate, Malformed};
    let find = |wanted: &dyn Fn(&EvidenceItem) -> bool| evidence.0.iter().find(|item| wanted(item));
    match reason {
        Reason::Contradiction => find(&|item| {
            let counts = matches!(
                item.kind,
                Xoorg | OriginatorOrg | CrossTenantId | ConnectingIp | SecretHeader
            );
            counts && item.state == Differs
        }),
        Reason::AmbiguousEvidence | Reason::NoTenant => find(&|item| {
            let stamp = matches!(item.kind, OriginatorOrg | CrossTenantId | SecretHeader);
            stamp && matches!(item.state, Duplicate | Malformed)
        })
        .or_else(|| {
            let unreadable = |item: &EvidenceItem| {
                item.kind == HeaderSender && matches!(item.state, Absent | Duplicate | Malformed)
            };
            find(&unreadable).filter(|_| reason == Reason::AmbiguousEvidence)
        }),
        Reason::Stranger
        | Reason::HalfProvenDefer
        | Reason::HalfProvenRefuse
        | Reason::UnknownXoorg
        | Reason::TooFewProofs
        | Reason::SecretMissing
        | Reason::ForeignEnvelopeSender
        | Reason::ForeignHeaderSender
        | Reason::SenderNotAllowed
        | Reason::FromNotAllowed
        | Reason::FromAbsent
        | Reason::FromDuplicate
        | Reason::FromUnreadable
        | Reason::SignatureUnavailable
        | Reason::Loop => None,
    }
}

impl EvidenceItem {
    /// The item as a person looks for it in the message: its field, and its value where that may be shown.
    #[must_use]
    pub fn words(&self) -> String {
        let field = self.kind.field();
        match &self.seen {
            Some(seen) => format!("{field}: {seen}"),
            None => field.to_owned(),
        }
    }
}

impl EvidenceKind {
    /// Where it stands.
    #[must_use]
    pub fn field(self) -> &'static str {
        match self {
            Self::Network => "source address",
            Self::Certificate => "client certificate",
            Self::Xoorg => "XOORG",
            Self::OriginatorOrg => "X-OriginatorOrg",
            Self::CrossTenantId => "X-MS-Exchange-CrossTenant-Id",
            Self::ConnectingIp => "X-MS-Exchange-CrossTenant-OriginalAttributedTenantConnectingIp",
            Self::SecretHeader => "the secret header",
            Self::Dkim => "DKIM-Signature",
            Self::EnvelopeSender => "envelope sender",
            Self::HeaderSender => "From",
        }
    }
}

fn of_contradiction(culprit: Option<&EvidenceItem>) -> Cow<'static, str> {
    let Some(item) = culprit else {
        return "gatepost explain trust shows which item differs: mostly a domain that accepted_domains (or originator_orgs) of the tenant lacks, or a secret header with another value".into();
    };
    let seen = item.seen.as_deref().unwrap_or_default();
    match (item.kind, &item.tenant) {
        (EvidenceKind::OriginatorOrg | EvidenceKind::Xoorg, None) => format!(
            "add {seen} to accepted_domains of the tenant (and to originator_orgs, where that is set), if the domain is its own; a stranger's mail stays refused"
        )
        .into(),
        (EvidenceKind::OriginatorOrg | EvidenceKind::Xoorg, Some(other)) => format!(
            "move {seen} from {other} to accepted_domains (or originator_orgs) of this tenant, if the domain is its own; mail with the stamps of two tenants stays refused"
        )
        .into(),
        (EvidenceKind::CrossTenantId, _) => {
            "set tenant_id as the tenant has it, if that id is its own; a stranger's mail stays refused".into()
        }
        (EvidenceKind::ConnectingIp, _) => {
            "nothing here, for a connector of another tenant handed it to Exchange: each tenant's mail leaves by its own connector".into()
        }
        (EvidenceKind::SecretHeader, _) => {
            "give secret_header and the tenant's transport rule the same value: gatepost connector diff compares them, and `previous` takes the old one while it is rotated".into()
        }
        (
            EvidenceKind::Network
            | EvidenceKind::Certificate
            | EvidenceKind::Dkim
            | EvidenceKind::EnvelopeSender
            | EvidenceKind::HeaderSender,
            _,
        ) => of_contradiction(None),
    }
}

fn of_ambiguity(culprit: Option<&EvidenceItem>) -> Cow<'static, str> {
    let Some(item) = culprit else {
        return "gatepost explain trust shows which item it is: take out what writes it a second time, or what spoils it on the way".into();
    };
    let field = item.kind.field();
    match (item.kind, item.state) {
        (EvidenceKind::HeaderSender, EvidenceState::Absent) => {
            "let who writes the message write a From:".into()
        }
        (_, EvidenceState::Duplicate) => {
            format!("take out what writes {field} a second time on the way").into()
        }
        (EvidenceKind::HeaderSender, _) => {
            "let who writes the message write From: as a list of addresses".into()
        }
        _ => format!("let {field} through as Exchange writes it").into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(kind: EvidenceKind, state: EvidenceState, seen: &str) -> EvidenceItem {
        EvidenceItem {
            kind,
            state,
            tenant: None,
            seen: (!seen.is_empty()).then(|| seen.to_owned()),
        }
    }

    #[test]
    fn what_contradicts_is_named_with_what_mends_it() {
        for (kind, seen, words, mends) in [
            (
                EvidenceKind::OriginatorOrg,
                "example.com",
                "X-OriginatorOrg: example.com",
                "add example.com to accepted_domains",
            ),
            (
                EvidenceKind::CrossTenantId,
                "1-2",
                "X-MS-Exchange-CrossTenant-Id: 1-2",
                "tenant_id",
            ),
            (
                EvidenceKind::SecretHeader,
                "",
                "the secret header",
                "connector diff",
            ),
        ] {
            let evidence = Evidence(vec![
                item(EvidenceKind::Network, EvidenceState::Differs, "192.0.2.1"),
                item(kind, EvidenceState::Differs, seen),
            ]);
            let found = culprit(Reason::Contradiction, &evidence).unwrap();
            assert_eq!(found.words(), words);
            let told = advice(Reason::Contradiction, &evidence);
            assert!(told.contains(mends), "{told}");
        }
    }

    #[test]
    fn what_stands_twice_or_cannot_be_read_is_named() {
        let twice = Evidence(vec![item(
            EvidenceKind::SecretHeader,
            EvidenceState::Duplicate,
            "",
        )]);
        let told = advice(Reason::AmbiguousEvidence, &twice);
        assert!(told.contains("the secret header a second time"), "{told}");
        let spoilt = Evidence(vec![
            item(
                EvidenceKind::CrossTenantId,
                EvidenceState::Malformed,
                "garbage",
            ),
            item(EvidenceKind::HeaderSender, EvidenceState::Absent, ""),
        ]);
        let told = advice(Reason::AmbiguousEvidence, &spoilt);
        assert!(told.contains("CrossTenant-Id through"), "{told}");
        let lacking = Evidence(spoilt.0[1..].to_vec());
        let found = culprit(Reason::NoTenant, &lacking);
        assert_eq!(found, None, "From: says nothing of the tenant");
    }

    #[test]
    fn every_reason_has_its_advice_without_evidence() {
        for reason in Reason::ALL {
            let told = advice(reason, &Evidence::default());
            assert!(
                told.len() > 20 && !told.contains("above") && !told.ends_with('.'),
                "{told}"
            );
        }
    }
}
