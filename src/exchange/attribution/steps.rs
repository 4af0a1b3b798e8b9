//! What Exchange looks at, one after the other.

use super::{Connector, ConnectorType, Matched, Organization, Owns, Question, connector_fits};
use crate::exchange::Mark;
use crate::mail::{Domain, shown};
use crate::trust::certificate::WhyAbsent;
use crate::trust::presented::{Above, Presented, Purposes};

/// How a step came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// As it should be.
    Holds,
    /// Not as it should be.
    Fails,
    /// Nobody can say from here.
    Unknown,
    /// Worth knowing.
    Note,
}

impl State {
    /// For people and scripts.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Holds => "holds",
            Self::Fails => "fails",
            Self::Unknown => "unknown",
            Self::Note => "note",
        }
    }
}

/// One thing that Exchange looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What.
    pub what: &'static str,
    /// How it came out.
    pub state: State,
    /// In words; what peers and files say is escaped.
    pub says: String,
    /// How well this is known.
    pub mark: Mark,
}

impl Step {
    pub(super) fn new(what: &'static str, state: State, says: String, mark: Mark) -> Self {
        Self {
            what,
            state,
            says,
            mark,
        }
    }
}

/// Chain, dates, key usage. What mends it, where the certificate counts for nothing.
pub(super) fn certificate(
    presented: Option<&Presented>,
    steps: &mut Vec<Step>,
) -> Option<&'static str> {
    let Some(presented) = presented else {
        steps.push(Step::new(
            "certificate",
            State::Fails,
            "none is shown".to_owned(),
            Mark::Given,
        ));
        return Some("show the tenant's certificate ([tenant.inbound_connector] certificate)");
    };
    let fault = presented.fault.as_ref().map(|why| faulty(why, presented));
    match &fault {
        Some((says, mark, _)) => {
            steps.push(Step::new("certificate", State::Fails, says.clone(), *mark));
        }
        None => {
            let issuer = &presented.issuer;
            let says = format!(
                "valid, issued by {issuer}; its chain leads to a root that Exchange is taken to trust"
            );
            steps.push(Step::new(
                "certificate",
                State::Holds,
                says,
                Mark::Documented,
            ));
        }
    }
    if presented.fault.is_none() && presented.purposes == Purposes::ServerOnly {
        steps.push(Step::new(
            "key usage",
            State::Note,
            "serverAuth without clientAuth, as public authorities issue them since 2026: Exchange should take it, nobody has documented that".to_owned(),
            Mark::Inferred,
        ));
    }
    fault.map(|(.., remedy)| remedy)
}

fn faulty(why: &WhyAbsent, presented: &Presented) -> (String, Mark, &'static str) {
    let issuer = &presented.issuer;
    if let Some(told) = presented.above.as_ref().and_then(|own| above(why, own)) {
        return told;
    }
    match why {
        WhyAbsent::UnknownIssuer | WhyAbsent::BadChain if presented.self_issued => (
            "it has issued itself, which Exchange refuses".to_owned(),
            Mark::Documented,
            "take a certificate of a public authority",
        ),
        WhyAbsent::UnknownIssuer => (
            format!(
                "its chain does not lead to a public root (issued by {issuer}): Exchange does not fetch a missing intermediate (450 4.4.317 UntrustedRoot, or 5.7.64)"
            ),
            Mark::Documented,
            "put every intermediate into the chain file, leaf first; if they are all there, take a certificate of a public authority",
        ),
        WhyAbsent::Expired => (
            format!("it has expired (on {})", day(presented.not_after)),
            Mark::Observed,
            "renew it, and send SIGHUP",
        ),
        WhyAbsent::NotYetValid => (
            format!("it is not valid before {}", day(presented.not_before)),
            Mark::Observed,
            "use the certificate that is valid now, or mend the clock",
        ),
        WhyAbsent::WrongKeyUsage => (
            "its key usage allows neither client nor server authentication".to_owned(),
            Mark::Inferred,
            "take a TLS certificate",
        ),
        WhyAbsent::NoTls
        | WhyAbsent::NotPresented
        | WhyAbsent::Malformed
        | WhyAbsent::BadChain
        | WhyAbsent::NameMismatch { .. } => (
            format!("{why}"),
            Mark::Inferred,
            "take a TLS certificate of a public authority, with its whole chain",
        ),
    }
}

/// A fault of a certificate above the leaf.
fn above(why: &WhyAbsent, above: &Above) -> Option<(String, Mark, &'static str)> {
    let which = format!(
        "certificate {} of its chain ({})",
        above.number, above.subject
    );
    match why {
        WhyAbsent::Expired => Some((
            format!("{which} has expired (on {})", day(above.not_after)),
            Mark::Observed,
            "put the authority's newer intermediate in its place in the chain file (the leaf may stay while it is valid), and send SIGHUP",
        )),
        WhyAbsent::NotYetValid => Some((
            format!("{which} is not valid before {}", day(above.not_before)),
            Mark::Observed,
            "put the intermediate that is valid now into the chain file and send SIGHUP, or mend the clock",
        )),
        WhyAbsent::WrongKeyUsage => Some((
            format!("the key usage of {which} allows neither client nor server authentication"),
            Mark::Inferred,
            "take a TLS certificate that another intermediate has signed",
        )),
        WhyAbsent::NoTls
        | WhyAbsent::NotPresented
        | WhyAbsent::Malformed
        | WhyAbsent::UnknownIssuer
        | WhyAbsent::BadChain
        | WhyAbsent::NameMismatch { .. } => None,
    }
}

fn day(unix_seconds: u64) -> String {
    let at = i64::try_from(unix_seconds).unwrap_or(i64::MAX);
    time::OffsetDateTime::from_unix_timestamp(at)
        .map_or_else(|_| "a day far away".to_owned(), |at| at.date().to_string())
}

/// Which connectors the certificate's names fit, and whether they may relay by it.
pub(super) fn connectors<'a>(
    question: &Question<'a>,
    fault: Option<&str>,
    steps: &mut Vec<Step>,
) -> Vec<Matched<'a>> {
    let mut matched = Vec::new();
    let Some(presented) = question.certificate else {
        return matched;
    };
    let names: Vec<&str> = presented.names().collect();
    let told = shown(names.join(", ").as_bytes());
    for organization in question.organizations {
        let Some(connector) = &organization.connector else {
            continue;
        };
        let wanted = &connector.certificate_name;
        let fits = names.iter().find(|name| connector_fits(wanted, name));
        let meant = question.expected == Some(organization.name);
        match fits {
            Some(name) => {
                let ends = if fault.is_some() {
                    "; it would fit, were the certificate good"
                } else {
                    ""
                };
                steps.push(Step::new(
                    "connector name",
                    if fault.is_some() {
                        State::Unknown
                    } else {
                        State::Holds
                    },
                    format!(
                        "{} fits TlsSenderCertificateName {wanted} of tenant {}{ends}",
                        shown(name.as_bytes()),
                        organization.name
                    ),
                    Mark::Documented,
                ));
                places(presented, name, wanted, steps);
                if fault.is_none() {
                    matched.push(rule(question, organization, connector, steps));
                }
            }
            None if meant => steps.push(Step::new(
                "connector name",
                State::Fails,
                format!(
                    "the names {told} do not fit TlsSenderCertificateName {wanted} of tenant {}",
                    organization.name
                ),
                Mark::Documented,
            )),
            None => {}
        }
    }
    matched
}

/// Where the name stands, and how the connector names it.
fn places(presented: &Presented, name: &str, wanted: &str, steps: &mut Vec<Step>) {
    let same = |other: &str| other.eq_ignore_ascii_case(name);
    let in_san = presented.alternative.iter().any(|other| same(other));
    let in_cn = presented.common.as_deref().is_some_and(same);
    if !(in_san && in_cn) {
        let place = if in_san { "SAN" } else { "CN" };
        steps.push(Step::new(
            "names",
            State::Note,
            format!("it stands in the {place} alone; Microsoft names CN and SAN in different places, both is safest"),
            Mark::Inferred,
        ));
    }
    if wanted.starts_with("*.") {
        steps.push(Step::new(
            "wildcard",
            State::Note,
            format!("{wanted} fits every certificate of that domain, also one that sends Internet mail to other tenants"),
            Mark::Documented,
        ));
    }
}

/// The accepted-domain rule (since July 2017, tightened in November 2023).
fn rule<'a>(
    question: &Question<'a>,
    organization: &'a Organization<'a>,
    connector: &'a Connector,
    steps: &mut Vec<Step>,
) -> Matched<'a> {
    let name = connector.certificate_name.trim_start_matches("*.");
    let owns = organization.owns(&connector.certificate_name);
    let sends = |domain: &Domain| organization.accepted.contains(domain);
    let sends = question.sender.is_some_and(sends);
    if connector.connector_type == ConnectorType::Partner {
        steps.push(Step::new(
            "connector type",
            State::Fails,
            "Partner: it restricts, but neither relays nor promotes".to_owned(),
            Mark::Documented,
        ));
    }
    let mark = match (&owns, sends) {
        (Owns::ByPattern(_), false) => Mark::Inferred,
        (Owns::Yes | Owns::Below(_) | Owns::No, _) | (Owns::ByPattern(_), true) => Mark::Documented,
    };
    let (state, says) = match (&owns, sends) {
        (Owns::Yes, _) => (
            State::Holds,
            format!(
                "{name} is an accepted domain: any sender passes, also the null sender and forwarded mail"
            ),
        ),
        (Owns::ByPattern(parent), true) => (
            State::Holds,
            format!(
                "the sender's domain is an accepted domain; {name} is one by *.{parent} alone, and whether that counts for a certificate is not documented: reports (null sender) and forwarded mail may be refused"
            ),
        ),
        (Owns::ByPattern(parent), false) => (
            State::Unknown,
            format!(
                "{name} is an accepted domain by *.{parent} alone, and the sender is in none: that this counts for a certificate is not documented; Microsoft says to add {name} itself"
            ),
        ),
        (Owns::Below(parent), true) => (
            State::Holds,
            format!(
                "the sender's domain is an accepted domain; {name} itself is only below {parent}: reports (null sender) and forwarded mail may be refused"
            ),
        ),
        (Owns::Below(parent), false) => (
            State::Unknown,
            format!(
                "{name} is below the accepted domain {parent}, none itself, and the sender is not in one: Microsoft only says to add it, or to use *.{parent}"
            ),
        ),
        (Owns::No, true) => (
            State::Holds,
            format!(
                "the sender's domain is an accepted domain; {name} is none: reports (null sender) and forwarded mail are refused"
            ),
        ),
        (Owns::No, false) => (
            State::Fails,
            format!(
                "neither {name} nor the sender's domain is an accepted domain of tenant {} (ATTR36)",
                organization.name
            ),
        ),
    };
    steps.push(Step::new("accepted domain", state, says, mark));
    Matched {
        organization,
        connector,
        owns,
        sends,
    }
}

/// MAIL FROM and RCPT: what counts where no connector does.
pub(super) fn senders(question: &Question<'_>, steps: &mut Vec<Step>) {
    let whose = |domain: &Domain| {
        let own = question.organizations.iter();
        own.filter(|own| own.accepted.contains(domain))
            .map(|own| own.name)
            .next()
    };
    let says = |domain: &Domain| match whose(domain) {
        Some(name) => format!("{domain} is an accepted domain of tenant {name}"),
        None => format!("{domain} is no accepted domain of a tenant that is configured"),
    };
    let (sender, mark) = match question.sender {
        None => (
            "the null sender: only the certificate can carry it".to_owned(),
            Mark::Documented,
        ),
        Some(domain) => (says(domain), Mark::Given),
    };
    steps.push(Step::new("mail from", State::Note, sender, mark));
    let recipient = says(question.recipient);
    steps.push(Step::new("rcpt to", State::Note, recipient, Mark::Given));
}
