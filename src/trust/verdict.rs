//! The types that pass between the gates.

use super::certificate::{ClientCertificate, WhyAbsent};
use super::settings::{HalfProven, Tenant};
use crate::mail::{Domain, Mailbox, MailboxPattern, ReversePath, shown};
use crate::route::From;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// What is known of a connector peer before MAIL.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The source address lies in the configured networks.
    pub network: bool,
    /// The client certificate of this connection, judged anew.
    pub certificate: ClientCertificate,
}

/// Network and certificate, together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Both hold.
    Proven,
    /// Only the network holds.
    NetworkOnly,
    /// Only the certificate holds.
    CertificateOnly,
    /// Neither.
    Stranger,
}

impl Peer {
    /// Both gates in one word.
    #[must_use]
    pub fn standing(&self) -> Standing {
        match (self.network, self.certificate.is_verified()) {
            (true, true) => Standing::Proven,
            (true, false) => Standing::NetworkOnly,
            (false, true) => Standing::CertificateOnly,
            (false, false) => Standing::Stranger,
        }
    }

    /// What the first two gates saw.
    #[must_use]
    pub fn evidence(&self) -> Evidence {
        let network = if self.network {
            EvidenceState::Matches
        } else {
            EvidenceState::Differs
        };
        let (state, seen) = match &self.certificate {
            ClientCertificate::Verified { name } => {
                (EvidenceState::Matches, shown(name.as_bytes()))
            }
            ClientCertificate::Absent(why) => {
                let state = match why {
                    WhyAbsent::NoTls | WhyAbsent::NotPresented => EvidenceState::Absent,
                    WhyAbsent::Malformed => EvidenceState::Malformed,
                    WhyAbsent::UnknownIssuer
                    | WhyAbsent::Expired
                    | WhyAbsent::NotYetValid
                    | WhyAbsent::WrongKeyUsage
                    | WhyAbsent::BadChain
                    | WhyAbsent::NameMismatch { .. } => EvidenceState::Differs,
                };
                (state, why.to_string())
            }
        };
        let certificate = EvidenceItem {
            kind: EvidenceKind::Certificate,
            state,
            tenant: None,
            seen: Some(seen),
        };
        Evidence(vec![
            EvidenceItem::bare(EvidenceKind::Network, network),
            certificate,
        ])
    }
}

/// A submitting application or device, as far as it matters to judgement.
#[derive(Clone, Debug)]
pub struct Application {
    /// `name`.
    pub name: Arc<str>,
    /// `username`; without it the address alone is the proof.
    pub username: Option<String>,
    /// The tenant it writes for.
    pub tenant: Arc<Tenant>,
    /// `senders`: who it may be, in the envelope and in From:.
    pub senders: Vec<MailboxPattern>,
    /// `internal`.
    pub internal: bool,
    /// `stream`.
    pub stream: Option<Arc<str>>,
    /// `bounces_to`.
    pub bounces_to: Option<Mailbox>,
}

impl Application {
    /// Whether it may use this envelope sender.
    #[must_use]
    pub fn may_send_as(&self, reverse_path: &ReversePath) -> bool {
        match reverse_path {
            ReversePath::Null => self.senders.contains(&MailboxPattern::NullSender),
            ReversePath::Mailbox(mailbox) => self.may_write_as(mailbox),
        }
    }

    /// Whether it may stand in From:.
    #[must_use]
    pub fn may_write_as(&self, mailbox: &Mailbox) -> bool {
        self.senders.iter().any(|pattern| pattern.matches(mailbox))
    }
}

/// The tenants that may still be meant after MAIL, or the application that logged in.
#[derive(Clone, Debug)]
pub struct Candidates {
    pub(super) tenants: Vec<Arc<Tenant>>,
    pub(super) application: Option<Arc<Application>>,
}

impl Candidates {
    /// The tenants, at least one.
    pub fn tenants(&self) -> impl Iterator<Item = &Tenant> {
        self.tenants.iter().map(AsRef::as_ref)
    }

    /// The side the mail comes in from.
    #[must_use]
    pub fn from(&self) -> From {
        if self.application.is_some() {
            From::Submission
        } else {
            From::Connector
        }
    }

    /// The application's stream.
    #[must_use]
    pub fn stream(&self) -> Option<&str> {
        self.application
            .as_deref()
            .and_then(|application| application.stream.as_deref())
    }

    /// The application, on a submission listener.
    #[must_use]
    pub fn application(&self) -> Option<&Arc<Application>> {
        self.application.as_ref()
    }
}

/// What kind of mail the verdict makes it.
#[derive(Clone, Debug)]
pub enum Class {
    /// Proven to be the tenant's mail from a trusted connector.
    Proven {
        /// Envelope sender or From: lies outside the accepted domains (`forwarded_senders = "allow"`).
        foreign_sender: bool,
    },
    /// Microsoft's connector validation mail.
    Validation {
        /// From: lies outside the accepted domains.
        foreign_sender: bool,
    },
    /// Would have been refused; let in by `gate = "report"` as anything else.
    Reported {
        /// Why it would have been refused.
        reason: Reason,
    },
    /// From an application.
    Application {
        /// Which.
        application: Arc<Application>,
    },
    /// Gatepost's own (reports).
    Own,
}

/// The judgement that lets a message in; only this room makes one.
#[derive(Clone, Debug)]
pub struct Verdict {
    pub(super) tenant: Arc<Tenant>,
    pub(super) class: Class,
    /// The envelope sender's accepted domain, where there is one: what an internal stamp names as originator org.
    pub(super) sender_domain: Option<Domain>,
    pub(super) evidence: Evidence,
}

impl Verdict {
    /// Whose mail it is.
    #[must_use]
    pub fn tenant(&self) -> &Arc<Tenant> {
        &self.tenant
    }

    /// What kind it is.
    #[must_use]
    pub fn class(&self) -> &Class {
        &self.class
    }

    /// Why.
    #[must_use]
    pub fn evidence(&self) -> &Evidence {
        &self.evidence
    }

    /// The side it came from; our own mail counts as the connector's.
    #[must_use]
    pub fn from(&self) -> From {
        match self.class {
            Class::Application { .. } => From::Submission,
            Class::Proven { .. }
            | Class::Validation { .. }
            | Class::Reported { .. }
            | Class::Own => From::Connector,
        }
    }

    /// The stream of an application.
    #[must_use]
    pub fn stream(&self) -> Option<&str> {
        match &self.class {
            Class::Application { application } => application.stream.as_deref(),
            Class::Proven { .. }
            | Class::Validation { .. }
            | Class::Reported { .. }
            | Class::Own => None,
        }
    }

    /// The originator organisation that an internal stamp (product.md 4) names: set where the application is
    /// `internal` and its sender lies in an accepted domain.
    #[must_use]
    pub fn stamp_org(&self) -> Option<&Domain> {
        match &self.class {
            Class::Application { application } if application.internal => {
                self.sender_domain.as_ref()
            }
            Class::Own => self.sender_domain.as_ref(),
            Class::Application { .. }
            | Class::Proven { .. }
            | Class::Validation { .. }
            | Class::Reported { .. } => None,
        }
    }

    /// Whether copies to accepted domains over the inbound connector carry the internal stamp.
    #[must_use]
    pub fn stamps_internal(&self) -> bool {
        self.stamp_org().is_some()
    }

    /// Whether protected fields of the arriving message may stay (product.md 4, first two rows of the table).
    #[must_use]
    pub fn is_from_trusted_connector(&self) -> bool {
        match self.class {
            Class::Proven { .. } | Class::Validation { .. } => true,
            Class::Reported { .. } | Class::Application { .. } | Class::Own => false,
        }
    }
}

/// What the gates saw, item by item; never the value of a secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence(pub Vec<EvidenceItem>);

/// One item.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvidenceItem {
    /// What was looked at.
    pub kind: EvidenceKind,
    /// What it says.
    pub state: EvidenceState,
    /// The tenant that it names, where it names a configured one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// What was seen, escaped and cut; absent for secrets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<String>,
}

impl Evidence {
    /// Puts an item in the place of the one of its kind.
    pub(super) fn replace(&mut self, item: EvidenceItem) {
        match self.0.iter_mut().find(|own| own.kind == item.kind) {
            Some(own) => *own = item,
            None => self.0.push(item),
        }
    }
}

impl EvidenceItem {
    /// An item of which nothing more is known than its state.
    pub(super) fn bare(kind: EvidenceKind, state: EvidenceState) -> Self {
        Self {
            kind,
            state,
            tenant: None,
            seen: None,
        }
    }
}

/// The items of evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EvidenceKind {
    /// Source address against `networks`.
    Network,
    /// Client certificate.
    Certificate,
    /// `XOORG` on MAIL.
    Xoorg,
    /// `X-OriginatorOrg`.
    OriginatorOrg,
    /// `X-MS-Exchange-CrossTenant-Id`.
    CrossTenantId,
    /// `X-MS-Exchange-CrossTenant-OriginalAttributedTenantConnectingIp`.
    ConnectingIp,
    /// The tenant's secret header.
    SecretHeader,
    /// DKIM d=.
    Dkim,
    /// Envelope sender.
    EnvelopeSender,
    /// From:, Sender:, Resent-From:.
    HeaderSender,
}

/// What an item says about the tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EvidenceState {
    /// Names it, or holds.
    Matches,
    /// Names another, or fails.
    Differs,
    /// Not there.
    Absent,
    /// There, but not readable.
    Malformed,
    /// There more than once.
    Duplicate,
}

/// Why mail is refused (or only reported): the `reason` label of metrics and trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Neither network nor certificate: 550 5.7.1 at MAIL.
    Stranger,
    /// Only one of the two: 451 4.7.1, or 550 5.7.1 with `half_proven = "refuse"`.
    HalfProvenDefer,
    /// The same, refused.
    HalfProvenRefuse,
    /// XOORG names no configured tenant: 550 5.7.64 at MAIL.
    UnknownXoorg,
    /// Nothing names a configured tenant, or only malformed evidence does: 550 5.7.64.
    NoTenant,
    /// Fewer items than `proofs` name the tenant: 550 5.7.1.
    TooFewProofs,
    /// An item contradicts: 550 5.7.1.
    Contradiction,
    /// An item of evidence or From: stands twice or is malformed: 550 5.7.1.
    AmbiguousEvidence,
    /// The required secret header is missing: 550 5.7.1.
    SecretMissing,
    /// The envelope sender lies outside the tenant's accepted domains: 550 5.7.1.
    ForeignEnvelopeSender,
    /// From:, Sender:, Resent-From: lie outside: 550 5.7.1.
    ForeignHeaderSender,
    /// The application may not use this envelope sender: 550 5.7.1.
    SenderNotAllowed,
    /// The application may not write as this From:: 550 5.7.1.
    FromNotAllowed,
    /// From: of an application's mail is not there: 550 5.7.1.
    FromAbsent,
    /// It stands more than once: 550 5.7.1.
    FromDuplicate,
    /// It is empty, or leaves a doubt about whom it names: 550 5.7.1.
    FromUnreadable,
    /// A DKIM signature that would prove the tenant cannot be checked now (no resolver, no room, no time): 451 4.7.5.
    SignatureUnavailable,
    /// The tenant's loop header is there: 554 5.4.6.
    Loop,
}

impl Reason {
    /// Every one.
    pub const ALL: [Self; 18] = [
        Self::Stranger,
        Self::HalfProvenDefer,
        Self::HalfProvenRefuse,
        Self::UnknownXoorg,
        Self::NoTenant,
        Self::TooFewProofs,
        Self::Contradiction,
        Self::AmbiguousEvidence,
        Self::SecretMissing,
        Self::ForeignEnvelopeSender,
        Self::ForeignHeaderSender,
        Self::SenderNotAllowed,
        Self::FromNotAllowed,
        Self::FromAbsent,
        Self::FromDuplicate,
        Self::FromUnreadable,
        Self::SignatureUnavailable,
        Self::Loop,
    ];

    /// The label, in snake case.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Stranger => "stranger",
            Self::HalfProvenDefer => "half_proven_defer",
            Self::HalfProvenRefuse => "half_proven_refuse",
            Self::UnknownXoorg => "unknown_xoorg",
            Self::NoTenant => "no_tenant",
            Self::TooFewProofs => "too_few_proofs",
            Self::Contradiction => "contradiction",
            Self::AmbiguousEvidence => "ambiguous_evidence",
            Self::SecretMissing => "secret_missing",
            Self::ForeignEnvelopeSender => "foreign_envelope_sender",
            Self::ForeignHeaderSender => "foreign_header_sender",
            Self::SenderNotAllowed => "sender_not_allowed",
            Self::FromNotAllowed => "from_not_allowed",
            Self::FromAbsent => "from_absent",
            Self::FromDuplicate => "from_duplicate",
            Self::FromUnreadable => "from_unreadable",
            Self::SignatureUnavailable => "signature_unavailable",
            Self::Loop => "loop",
        }
    }

    /// What it means, in words for an administrator.
    #[must_use]
    pub fn describe(self) -> &'static str {
        match self {
            Self::Stranger => "neither source address nor client certificate is Exchange Online's",
            Self::HalfProvenDefer | Self::HalfProvenRefuse => {
                "only one of source address and client certificate is Exchange Online's"
            }
            Self::UnknownXoorg => "XOORG names no configured tenant",
            Self::NoTenant => "nothing names a configured tenant",
            Self::TooFewProofs => "fewer items than `proofs` name the tenant",
            Self::Contradiction => "an item of evidence contradicts the tenant",
            Self::AmbiguousEvidence => {
                "an item of evidence or From: is missing, malformed or stands twice"
            }
            Self::SecretMissing => "the required secret header is missing",
            Self::ForeignEnvelopeSender => {
                "the envelope sender lies outside the tenant's accepted domains"
            }
            Self::ForeignHeaderSender => {
                "From:, Sender: and Resent-From: lie outside the tenant's accepted domains"
            }
            Self::SenderNotAllowed => "the application may not use this envelope sender",
            Self::FromNotAllowed => "the application may not write as this From:",
            Self::FromAbsent => "the application's mail has no From:",
            Self::FromDuplicate => "the application's mail has more than one From:",
            Self::FromUnreadable => {
                "From: of the application's mail is empty, or cannot be read as a list of addresses"
            }
            Self::SignatureUnavailable => {
                "a DKIM signature that would prove the tenant cannot be checked now"
            }
            Self::Loop => "the tenant's loop header is there already",
        }
    }

    /// The refusal of a peer with this standing; `None` where both gates hold.
    #[must_use]
    pub fn of_standing(standing: Standing, half_proven: HalfProven) -> Option<Self> {
        match (standing, half_proven) {
            (Standing::Proven, _) => None,
            (Standing::Stranger, _) => Some(Self::Stranger),
            (Standing::NetworkOnly | Standing::CertificateOnly, HalfProven::Defer) => {
                Some(Self::HalfProvenDefer)
            }
            (Standing::NetworkOnly | Standing::CertificateOnly, HalfProven::Refuse) => {
                Some(Self::HalfProvenRefuse)
            }
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// A refusal with what was seen.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// Why.
    pub reason: Reason,
    /// The configured tenant that the evidence points at, if any.
    pub tenant: Option<Arc<Tenant>>,
    /// What was seen.
    pub evidence: Evidence,
}
