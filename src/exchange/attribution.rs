//! For which tenant would Exchange Online take a message, and why? (exchange-online.md 2.2, 2.3)
//!
//! The order is the certificate's name, then the domain of MAIL FROM, then the domain of RCPT. A certificate counts where
//! its chain holds and a name of it fits `TlsSenderCertificateName` of an OnPremises inbound connector; it then relays
//! where that name, or the sender's domain, is an accepted domain of the tenant (ATTR36 otherwise). Without it mail is
//! anybody's: taken for the recipient's tenant as external, or refused.

mod endpoint;
mod steps;

use super::Mark;
use crate::mail::{Domain, DomainPattern, DomainSet};
use crate::trust::presented::Presented;
use endpoint::Endpoint;
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
    /// Whether a certificate domain is one of the accepted domains: itself, or by an entry with sub-domains.
    fn owns(&self, name: &str) -> Owns {
        let Ok(domain) = name.trim_start_matches("*.").parse::<Domain>() else {
            return Owns::No;
        };
        if self.accepted.contains(&domain) {
            return Owns::Yes;
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
    /// Below this accepted domain.
    Below(Domain),
    No,
}

/// The name that our scripts write into `TlsSenderCertificateName` for a certificate with these names: the one that is an
/// accepted domain, else one below, else the first.
#[must_use]
pub fn connector_name(names: &[String], accepted: &DomainSet) -> Option<String> {
    let organization = Organization {
        name: "",
        accepted,
        connector: None,
    };
    let rank = |name: &&String| match organization.owns(name) {
        Owns::Yes if !name.starts_with("*.") => 0,
        Owns::Yes => 1,
        Owns::Below(_) => 2,
        Owns::No => 3,
    };
    names.iter().min_by_key(rank).cloned()
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
        certificate_faults: certificate,
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

/// A tenant whose connector fits, and whether its name may relay.
struct Matched<'a> {
    organization: &'a Organization<'a>,
    connector: &'a Connector,
    owns: Owns,
    /// The accepted domains hold the sender.
    sends: bool,
}

/// What the steps came to.
struct Found<'a> {
    question: &'a Question<'a>,
    endpoint: Option<Endpoint>,
    certificate_faults: Option<&'static str>,
    matched: Vec<Matched<'a>>,
}

impl Found<'_> {
    fn answer(self, steps: Vec<Step>) -> Answer {
        if let Some((reply, because, mended_by)) = self
            .endpoint
            .as_ref()
            .and_then(|endpoint| endpoint.fatal.clone())
        {
            return Answer {
                verdict: Verdict::Refused,
                tenant: None,
                by: None,
                steps,
                replies: vec![reply],
                because,
                mended_by: Some(mended_by),
            };
        }
        match self.relaying() {
            Some(matched) => self.by_certificate(matched, steps),
            None => self.by_recipient(steps),
        }
    }

    /// The tenant whose connector takes the mail: among several the sender's, else the one that was meant.
    fn relaying(&self) -> Option<&Matched<'_>> {
        self.able()
            .find(|matched| matched.sends)
            .or_else(|| {
                let expected = self.question.expected;
                self.able()
                    .find(|own| Some(own.organization.name) == expected)
            })
            .or_else(|| self.able().next())
    }

    /// The tenants whose connector fits and may relay.
    fn able(&self) -> impl Iterator<Item = &Matched<'_>> {
        self.matched.iter().filter(|matched| {
            matched.connector.connector_type == ConnectorType::OnPremises
                && (matched.sends || matched.owns != Owns::No)
        })
    }

    fn by_certificate(&self, matched: &Matched<'_>, steps: Vec<Step>) -> Answer {
        let (name, connector) = (
            matched.organization.name,
            &matched.connector.certificate_name,
        );
        let several = self.able().count();
        let meant = self
            .question
            .expected
            .is_none_or(|expected| expected == name);
        let doubt = match &matched.owns {
            Owns::Below(parent) if !matched.sends => Some(parent),
            Owns::Yes | Owns::Below(_) | Owns::No => None,
        };
        let (verdict, because, mended_by) = if !meant {
            (
                Verdict::Misattributed,
                format!("the certificate fits the connector ({connector}) of tenant {name}, which is not the one that was meant"),
                Some("give each tenant a certificate of its own, with a name that no other tenant's connector fits ([tenant.inbound_connector] certificate)".to_owned()),
            )
        } else if several > 1 {
            (
                Verdict::Doubtful,
                format!("the certificate fits the connectors of {several} tenants; which one Exchange takes is not documented"),
                Some("give each tenant a certificate of its own, with a name that no other tenant's connector fits".to_owned()),
            )
        } else if let Some(parent) = doubt {
            (
                Verdict::Doubtful,
                format!(
                    "the certificate's name {connector} is below the accepted domain {parent}, none itself, and the sender is not in an accepted domain"
                ),
                Some(remedy_below(connector, parent)),
            )
        } else {
            (
                Verdict::Attributed,
                format!(
                    "the certificate fits TlsSenderCertificateName {connector} of tenant {name}'s connector"
                ),
                None,
            )
        };
        let replies = match verdict {
            Verdict::Doubtful if several < 2 => vec![
                Reply {
                    when: "where the parent domain is enough",
                    ..QUEUED
                },
                Reply {
                    when: "where it is not",
                    ..RELAY_DENIED
                },
            ],
            _ => vec![QUEUED],
        };
        Answer {
            verdict,
            tenant: Some(name.to_owned()),
            by: Some(By::Certificate),
            steps,
            replies,
            because,
            mended_by,
        }
    }

    fn by_recipient(&self, steps: Vec<Step>) -> Answer {
        let question = self.question;
        let (why, mended_by) = self.why_no_connector();
        let target = question
            .organizations
            .iter()
            .find(|own| own.accepted.contains(question.recipient));
        let Some(target) = target else {
            return Answer {
                verdict: Verdict::Refused,
                tenant: None,
                by: None,
                steps,
                replies: vec![
                    RELAY_DENIED,
                    Reply {
                        when: "in its place, where the endpoint is of another region",
                        ..WRONG_REGION
                    },
                ],
                because: format!(
                    "{why}, and the recipient's domain {} is not one that the tenant accepts: only a connector may relay there",
                    question.recipient
                ),
                mended_by: Some(mended_by),
            };
        };
        let from_itself = question
            .sender
            .is_some_and(|domain| target.accepted.contains(domain));
        let refused = from_itself && question.reject_direct_send == Some(true);
        let mut replies = Vec::new();
        if refused {
            replies.push(Reply {
                when: "",
                ..DIRECT_SEND
            });
        } else {
            replies.push(QUEUED);
            if from_itself && question.reject_direct_send.is_none() {
                replies.push(DIRECT_SEND);
            }
            replies.push(PARTNER);
        }
        let name = target.name;
        let because = if refused {
            format!("{why}, and tenant {name} rejects direct send from its own domains")
        } else {
            format!("{why}: tenant {name} takes the mail by the recipient's domain, as anybody's")
        };
        Answer {
            verdict: if refused {
                Verdict::Refused
            } else {
                Verdict::External
            },
            tenant: (!refused).then(|| name.to_owned()),
            by: (!refused).then_some(By::Recipient),
            steps,
            replies,
            because,
            mended_by: Some(mended_by),
        }
    }

    /// Why no connector takes it, and what mends that.
    fn why_no_connector(&self) -> (String, String) {
        if let Some(remedy) = self.certificate_faults {
            return (
                "the certificate counts for nothing".to_owned(),
                remedy.to_owned(),
            );
        }
        let partner = self
            .matched
            .iter()
            .find(|own| own.connector.connector_type == ConnectorType::Partner);
        if let Some(matched) = partner {
            return (
                format!(
                    "the connector of tenant {} that the certificate fits is of type Partner, which neither relays nor promotes",
                    matched.organization.name
                ),
                "make the connector anew with ConnectorType OnPremises".to_owned(),
            );
        }
        if let Some(matched) = self.matched.first() {
            let name = &matched.connector.certificate_name;
            return (
                format!(
                    "the certificate fits the connector of tenant {}, but neither its name {name} nor the sender's domain is an accepted domain there",
                    matched.organization.name
                ),
                format!(
                    "add {} as an accepted domain of the tenant, or take a certificate whose name is one",
                    name.trim_start_matches("*.")
                ),
            );
        }
        let wanted = self
            .question
            .expected_organization()
            .and_then(|own| own.connector.as_ref());
        match wanted {
            Some(connector) => (
                "no connector fits the certificate".to_owned(),
                format!("show a certificate with the name {}, or set TlsSenderCertificateName of the tenant's inbound connector to a name of this one that is an accepted domain", connector.certificate_name),
            ),
            None => (
                "no connector fits the certificate".to_owned(),
                "make an inbound connector of type OnPremises whose TlsSenderCertificateName is a name of the certificate and an accepted domain".to_owned(),
            ),
        }
    }
}

fn remedy_below(name: &str, parent: &Domain) -> String {
    format!(
        "add {} as an accepted domain, or set TlsSenderCertificateName to *.{parent}",
        name.trim_start_matches("*.")
    )
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
