//! What do the steps come to: whose mail is it, by what, with which reply, and what mends it?

use super::endpoint::Endpoint;
use super::steps::Step;
use super::{
    Answer, By, Connector, ConnectorType, DIRECT_SEND, Organization, Owns, PARTNER, QUEUED,
    Question, RELAY_DENIED, Reply, Verdict, WRONG_REGION,
};
use crate::mail::Domain;

/// A tenant whose connector fits, and whether its name may relay.
pub(super) struct Matched<'a> {
    pub(super) organization: &'a Organization<'a>,
    pub(super) connector: &'a Connector,
    pub(super) owns: Owns,
    /// The accepted domains hold the sender.
    pub(super) sends: bool,
}

/// What the steps came to.
pub(super) struct Found<'a> {
    pub(super) question: &'a Question<'a>,
    pub(super) endpoint: Option<Endpoint>,
    /// What mends a certificate that counts for nothing.
    pub(super) certificate_remedy: Option<&'static str>,
    pub(super) matched: Vec<Matched<'a>>,
}

impl Found<'_> {
    pub(super) fn answer(self, steps: Vec<Step>) -> Answer {
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
            Owns::Below(parent) if !matched.sends => Some((parent, "", "none itself")),
            Owns::ByPattern(parent) if !matched.sends => {
                Some((parent, "*.", "no entry of its own"))
            }
            Owns::Yes | Owns::ByPattern(_) | Owns::Below(_) | Owns::No => None,
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
        } else if let Some((parent, wildcard, what)) = doubt {
            (
                Verdict::Doubtful,
                format!(
                    "the certificate's name {connector} is below the accepted domain {wildcard}{parent}, {what}, and the sender is not in an accepted domain"
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
        if let Some(remedy) = self.certificate_remedy {
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
