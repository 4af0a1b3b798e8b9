//! What is said of one certificate, as JSON and in words.

use crate::config::{Certificate, Problem, Severity};
use crate::mail::{plain, shown};
use crate::receive::Service;
use crate::trust::chain::{Link, Signer, Usage};
use crate::trust::sender_name::SenderName;
use serde::Serialize;

const DAY: i64 = 24 * 60 * 60;

/// One certificate.
#[derive(Debug, Serialize)]
pub(super) struct Facts {
    name: Option<String>,
    /// What files that are not in their places yet were judged as.
    place: Option<String>,
    chain_file: Option<String>,
    key_file: Option<String>,
    /// SAN dNSNames, else the subject CN.
    names: Vec<String>,
    not_before: Option<String>,
    not_after: Option<String>,
    /// Whole days; negative once it has expired.
    days_left: Option<i64>,
    key: Option<String>,
    key_fits: Option<bool>,
    usage: Option<Usage>,
    chain: Vec<Link>,
    known_root: bool,
    listeners: Vec<Listener>,
    tenants: Vec<Tenant>,
    problems: Vec<Finding>,
}

/// A listener that shows it.
#[derive(Debug, Serialize)]
struct Listener {
    name: String,
    service: &'static str,
    /// What an outbound connector's `TlsDomain` is compared with.
    covers_hostname: Option<bool>,
}

/// A tenant whose inbound connector it is presented to.
#[derive(Debug, Serialize)]
struct Tenant {
    name: String,
    host: String,
    /// `exact`, `below` or `none`.
    stands: &'static str,
    /// What `TlsSenderCertificateName` may say, best first.
    tls_sender_certificate_names: Vec<String>,
    #[serde(skip)]
    words: String,
}

/// What `check` says of it.
#[derive(Debug, Serialize)]
struct Finding {
    key: String,
    severity: &'static str,
    text: String,
}

impl Facts {
    /// All that is known of a certificate; of `problems` those that concern it.
    pub(super) fn of(certificate: &Certificate, problems: &[Problem], unix_seconds: u64) -> Self {
        let links = certificate
            .chain
            .as_ref()
            .map_or(&[][..], |chain| &chain.links);
        let leaf = links.first();
        let moment = |seconds: u64| super::super::clock(seconds.saturating_mul(1000));
        let file = |path: &std::path::Path| path.display().to_string();
        let origin = certificate.origin.as_ref();
        let keys = keys(certificate);
        let concerning = problems
            .iter()
            .filter(|problem| keys.contains(&problem.key));
        Self {
            name: certificate.name.clone(),
            place: None,
            chain_file: origin.map(|origin| file(&origin.chain)),
            key_file: origin.map(|origin| file(&origin.key)),
            names: certificate.names.clone(),
            not_before: leaf.map(|leaf| moment(leaf.not_before)),
            not_after: leaf.map(|leaf| moment(leaf.not_after)),
            days_left: leaf.map(|leaf| days_left(leaf.not_after, unix_seconds)),
            key: leaf.map(|leaf| leaf.key.clone()),
            key_fits: certificate.key_fits,
            usage: leaf.map(|leaf| leaf.usage.clone()),
            chain: links.to_vec(),
            known_root: certificate.known_root,
            listeners: certificate.listeners.iter().map(listener).collect(),
            tenants: certificate
                .connectors
                .iter()
                .map(|connector| tenant(&connector.tenant, &connector.host, &connector.sender_name))
                .collect(),
            problems: concerning.map(finding).collect(),
        }
    }

    /// The same, with what files that are not in their places yet were judged as.
    pub(super) fn judged_as(mut self, place: String) -> Self {
        self.place = Some(place);
        self
    }

    /// The same, with a finding that `check` does not have.
    pub(super) fn and(mut self, key: &str, severity: Severity, text: String) -> Self {
        let severity = word(severity);
        let key = key.to_owned();
        self.problems.push(Finding {
            key,
            severity,
            text,
        });
        self
    }

    /// Whether `check` has nothing against it.
    pub(super) fn is_well(&self) -> bool {
        self.problems
            .iter()
            .all(|problem| problem.severity != "error")
    }

    /// In words, each line ended.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!(
            "certificate {}",
            plain(self.name.as_deref().unwrap_or("(without a name)"))
        )];
        // Names that an authority has signed stand in findings, too.
        let mut say = |key: &str, text: String| lines.push(format!("  {key:<9} {}", plain(&text)));
        if let Some(place) = &self.place {
            say("place", place.clone());
        }
        let file = |file: &Option<String>| file.clone().unwrap_or_else(|| "(missing)".to_owned());
        say("chain", file(&self.chain_file));
        say(
            "key",
            format!("{}: {}", file(&self.key_file), self.key_words()),
        );
        if let (Some(from), Some(until), Some(days)) =
            (&self.not_before, &self.not_after, self.days_left)
        {
            let left = match days {
                // Whole days again: -1 is less than a day ago.
                -1 => "expired today".to_owned(),
                ..-1 => format!("expired {} days ago", -(days + 1)),
                _ => format!("{days} days left"),
            };
            say("valid", format!("{from} to {until}, {left}"));
            say("names", shown_list(&self.names));
        }
        if let Some(usage) = &self.usage {
            say("usage", usage_words(usage).to_owned());
        }
        for (index, link) in self.chain.iter().enumerate() {
            let number = index + 1;
            say(
                &format!("  {number}"),
                format!("{}, until {}", link.subject, day(link)),
            );
            say("", format!("serial {}, {}", link.serial, link.key));
            say("", format!("SHA-256 {}", link.sha256));
            say("", self.signer_words(number, link));
        }
        for listener in &self.listeners {
            let compared = match (listener.service, listener.covers_hostname) {
                (_, Some(true)) => "covers hostname",
                ("connector", Some(false)) => {
                    "does not cover hostname: TlsDomain must be a name of the certificate"
                }
                (_, Some(false)) => "does not cover hostname: applications that check it refuse it",
                (_, None) => "hostname is not set",
            };
            let (name, service) = (&listener.name, listener.service);
            say("listener", format!("{name} ({service}): {compared}"));
        }
        for tenant in &self.tenants {
            let (name, host, words) = (&tenant.name, &tenant.host, &tenant.words);
            say("tenant", format!("{name}, by {host}: {words}"));
        }
        for problem in &self.problems {
            let (severity, key, text) = (problem.severity, &problem.key, &problem.text);
            say(severity, format!("{key}: {text}"));
        }
        let verdict = match (self.is_well(), self.problems.is_empty()) {
            (true, true) => "well",
            (true, false) => "no error; read the warnings",
            (false, _) => "not well",
        };
        say("", verdict.to_owned());
        lines
    }

    fn key_words(&self) -> String {
        let kind = self.key.as_deref().unwrap_or("unknown");
        match self.key_fits {
            Some(true) => format!("{kind}, belongs to the certificate"),
            Some(false) => format!("does not belong to the certificate ({kind})"),
            None => "not compared".to_owned(),
        }
    }

    fn signer_words(&self, number: usize, link: &Link) -> String {
        let issuer = &link.issuer;
        match link.signer {
            Signer::Next => format!("signed by {}, verified", number + 1),
            Signer::NotNext => format!("signed by {issuer}, which does not come next"),
            Signer::NextHasAnotherKey => {
                format!("signed by {issuer}, but not with the key of {}", number + 1)
            }
            Signer::Itself if number == self.chain.len() => {
                "signed by itself: a root, which nobody needs in a chain".to_owned()
            }
            Signer::Itself => "signed by itself: a root, out of order".to_owned(),
            Signer::Beyond if self.known_root => {
                format!("signed by {issuer}; the chain leads to a known root")
            }
            Signer::Beyond => format!("signed by {issuer}, which is neither here nor a known root"),
        }
    }
}

/// The keys whose problems concern a certificate.
pub(super) fn keys(certificate: &Certificate) -> Vec<String> {
    let name = certificate.name.as_deref().unwrap_or_default();
    let own =
        ["name", "chain", "key", "acme", "names"].map(|key| format!("certificate.{name}.{key}"));
    let listeners = certificate.listeners.iter();
    let listeners = listeners.map(|one| format!("listener.{}.certificate", one.name));
    let connectors = certificate.connectors.iter();
    let connectors =
        connectors.map(|one| format!("tenant.{}.inbound_connector.certificate", one.tenant));
    own.into_iter().chain(listeners).chain(connectors).collect()
}

fn listener(own: &crate::config::ListenerUse) -> Listener {
    Listener {
        name: own.name.to_string(),
        service: match own.service {
            Service::Connector => "connector",
            Service::Submission => "submission",
        },
        covers_hostname: own.covers_hostname,
    }
}

fn tenant(name: &str, host: &str, sender_name: &SenderName) -> Tenant {
    let (stands, words) = match sender_name {
        SenderName::Exact(domains) => {
            let names: Vec<String> = domains.iter().map(ToString::to_string).collect();
            let words = match names.as_slice() {
                [name, others @ ..] if !others.is_empty() => format!(
                    "TlsSenderCertificateName {name}, as `connector render` writes it ({} would do as well): accepted domains",
                    others.join(" or ")
                ),
                names => format!(
                    "TlsSenderCertificateName {}: an accepted domain",
                    names.join(" or ")
                ),
            };
            ("exact", words)
        }
        SenderName::Below { name, parent } => {
            let words = format!(
                "TlsSenderCertificateName *.{parent}: {name} is below the accepted domain {parent}"
            );
            ("below", words)
        }
        SenderName::None => {
            let words = "no name is at or below an accepted domain: Exchange would not know it";
            ("none", words.to_owned())
        }
    };
    Tenant {
        name: name.to_owned(),
        host: host.to_owned(),
        stands,
        tls_sender_certificate_names: sender_name.connector_names(),
        words,
    }
}

fn finding(problem: &Problem) -> Finding {
    Finding {
        key: problem.key.clone(),
        severity: word(problem.severity),
        text: problem.text.clone(),
    }
}

fn word(severity: Severity) -> &'static str {
    if severity.is_bad() {
        "error"
    } else {
        "warning"
    }
}

fn usage_words(usage: &Usage) -> &'static str {
    match usage {
        Usage::Absent => "no extended key usage: good for everything",
        Usage::Named {
            server: true,
            client: true,
            ..
        } => "serverAuth and clientAuth",
        Usage::Named {
            server: true,
            client: false,
            ..
        } => {
            "serverAuth alone: enough, also as a client. Public authorities issue no clientAuth since 2026, and Exchange Online is not known to ask for it"
        }
        Usage::Named {
            server: false,
            client: true,
            ..
        } => {
            "clientAuth alone: enough for an inbound connector; on a listener whoever looks refuses it"
        }
        Usage::Named {
            server: false,
            client: false,
            ..
        } => "neither serverAuth nor clientAuth: whoever looks refuses it",
    }
}

fn shown_list(names: &[String]) -> String {
    let shown: Vec<String> = names.iter().map(|name| shown(name.as_bytes())).collect();
    shown.join(", ")
}

fn day(link: &Link) -> String {
    let moment = super::super::clock(link.not_after.saturating_mul(1000));
    moment.split('T').next().unwrap_or_default().to_owned()
}

fn days_left(not_after: u64, now: u64) -> i64 {
    let seconds = |moment: u64| i64::try_from(moment).unwrap_or(i64::MAX);
    seconds(not_after)
        .saturating_sub(seconds(now))
        .div_euclid(DAY)
}
