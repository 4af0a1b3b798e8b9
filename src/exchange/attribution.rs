//! For which tenant would Exchange Online take a message, and why? (exchange-online.md 2.2, 2.3)
//!
//! The order is the certificate's name, then the domain of MAIL FROM, then the domain of RCPT. A certificate counts where
//! its chain holds and a name of it fits `TlsSenderCertificateName` of an OnPremises inbound connector; it then relays
//! where that name, or the sender's domain, is an accepted domain of the tenant (ATTR36 otherwise). Without it mail is
//! anybody's: taken for the recipient's tenant as external, or refused.

mod endpoint;
mod found;
mod steps;

use super::Mark;
use crate::mail::{Domain, DomainPattern, DomainSet};
use crate::trust::presented::Presented;
use found::{Found, Matched};
use std::fmt;

pub use steps::{State, Step};

/// `ConnectorType` of an inbound connector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ConnectorType {
    /// Relays and promotes for its tenant.
    #[default]
    OnPremises,
    /// Only restricts.
    Partner,
}

/// An inbound connector, as far as it is known here.
#[derive(Clone, Debug)]
pub struct Connector {
    /// `TlsSenderCertificateName`: a name, or `*.` and a domain.
    pub certificate_name: String,
    /// `ConnectorType`.
    pub connector_type: ConnectorType,
}

/// What Exchange holds of a tenant, as far as it is known here.
#[derive(Clone, Debug)]
pub struct Organization<'a> {
    /// The tenant's name in the configuration.
    pub name: &'a str,
    /// Its accepted domains.
    pub accepted: &'a DomainSet,
    /// Its inbound connector.
    pub connector: Option<Connector>,
}

impl Organization<'_> {
    /// Whether a certificate domain is one of the accepted domains: itself, or by an entry with sub-domains, or below one.
    fn owns(&self, name: &str) -> Owns {
        let Ok(domain) = name.trim_start_matches("*.").parse::<Domain>() else {
            return Owns::No;
        };
        if self.accepted.iter().any(|own| *own.domain() == domain) {
            return Owns::Yes;
        }
        if let Some(entry) = self.accepted.iter().find(|own| own.matches(&domain)) {
            return Owns::ByPattern(entry.domain().clone());
        }
        let mut parents = self.accepted.iter().map(DomainPattern::domain);
        match parents.find(|parent| domain.is_at_or_below(parent)) {
            Some(parent) => Owns::Below(parent.clone()),
            None => Owns::No,
        }
    }
}

/// Whether a certificate domain belongs to a tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Owns {
    Yes,
    /// Below this accepted domain, whose entry takes sub-domains in. Whether Exchange counts that for a certificate is not
    /// documented: Microsoft says to add the sub-domain itself (exchange-online.md 2.2).
    ByPattern(Domain),
    /// Below this accepted domain.
    Below(Domain),
    No,
}

/// What is asked.
#[derive(Clone, Debug)]
pub struct Question<'a> {
    /// Every tenant that is known here.
    pub organizations: &'a [Organization<'a>],
    /// The one whose mail it is meant to be.
    pub expected: Option<&'a str>,
    /// The host that is delivered to.
    pub host: Option<&'a str>,
    /// What TLS shows; `None`: no certificate.
    pub certificate: Option<&'a Presented>,
    /// The domain of MAIL FROM; `None`: the null sender.
    pub sender: Option<&'a Domain>,
    /// The domain of RCPT.
    pub recipient: &'a Domain,
    /// `RejectDirectSend` of the tenant, where it is known.
    pub reject_direct_send: Option<bool>,
}

/// By what a message was attributed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The certificate's name: originating mail of the tenant.
    Certificate,
    /// The domain of the recipient: anybody's mail.
    Recipient,
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Certificate => "the certificate's name",
            Self::Recipient => "the recipient's domain",
        })
    }
}

/// What comes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Taken as the tenant's own mail.
    Attributed,
    /// Taken as the tenant's own mail, if Exchange reads the accepted-domain rule so.
    Doubtful,
    /// Taken as the own mail of a tenant that was not meant.
    Misattributed,
    /// Taken for the recipient's tenant as anybody's mail, unless that tenant refuses it.
    External,
    /// Refused.
    Refused,
}

impl Verdict {
    /// For people and scripts.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Attributed => "attributed",
            Self::Doubtful => "doubtful",
            Self::Misattributed => "misattributed",
            Self::External => "external",
            Self::Refused => "refused",
        }
    }
}

/// A reply that Exchange would give, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Its beginning, as Exchange writes it.
    pub text: &'static str,
    /// Under which condition; empty: always.
    pub when: &'static str,
    /// How well this is known.
    pub mark: Mark,
}

/// The answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// What comes of it.
    pub verdict: Verdict,
    /// The tenant that the mail is taken for.
    pub tenant: Option<String>,
    /// By what.
    pub by: Option<By>,
    /// What was looked at, in Exchange's order.
    pub steps: Vec<Step>,
    /// What Exchange would answer.
    pub replies: Vec<Reply>,
    /// Because of what, a clause.
    pub because: String,
    /// What mends it; `None` where nothing is to be mended.
    pub mended_by: Option<String>,
}

const QUEUED: Reply = Reply {
    text: "250 2.6.0 ... Queued mail for delivery",
    when: "",
    mark: Mark::Observed,
};
const WRONG_REGION: Reply = Reply {
    text: "451 4.4.62 Mail sent to the wrong Office 365 region. ATTR35",
    when: "",
    mark: Mark::Documented,
};
const SUBMISSION: Reply = Reply {
    text: "530 5.7.57 Client not authenticated to send mail",
    when: "",
    mark: Mark::Documented,
};
const RELAY_DENIED: Reply = Reply {
    text: "550 5.7.64 TenantAttribution; Relay Access Denied [ATTR36]",
    when: "",
    mark: Mark::Documented,
};
const DIRECT_SEND: Reply = Reply {
    text: "550 5.7.68 TenantInboundAttribution; Direct Send not allowed for this organization from unauthorized sources",
    when: "where RejectDirectSend is on",
    mark: Mark::Observed,
};
const PARTNER: Reply = Reply {
    text: "550 5.7.51 TenantInboundAttribution; There is a partner connector configured",
    when: "where a Partner connector restricts the sender's domain to addresses or a certificate",
    mark: Mark::Observed,
};

/// Judges, offline.
#[must_use]
pub fn attribute(question: &Question<'_>) -> Answer {
    let endpoint = question.host.map(|host| {
        let expected = question.expected_organization();
        endpoint::judge(host, expected, question.organizations)
    });
    let mut steps = Vec::new();
    steps.extend(endpoint.as_ref().map(|endpoint| endpoint.step.clone()));
    let certificate = steps::certificate(question.certificate, &mut steps);
    let matched = steps::connectors(question, certificate, &mut steps);
    steps::senders(question, &mut steps);
    let found = Found {
        question,
        endpoint,
        certificate_remedy: certificate,
        matched,
    };
    found.answer(steps)
}

impl<'a> Question<'a> {
    fn expected_organization(&self) -> Option<&'a Organization<'a>> {
        let name = self.expected?;
        self.organizations.iter().find(|own| own.name == name)
    }
}

/// Whether a connector's name means a name of a certificate: itself; `*.x` any name below x, and `*.x` itself.
fn connector_fits(wanted: &str, name: &str) -> bool {
    let (wanted, name) = (wanted.to_ascii_lowercase(), name.to_ascii_lowercase());
    match wanted.strip_prefix("*.") {
        Some(parent) => name
            .strip_suffix(parent)
            .is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
        None => name == wanted,
    }
}

#[cfg(test)]
mod tests;
