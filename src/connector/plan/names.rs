//! Which names does Exchange go by: of our host, in the listener's certificate, in the certificate that we deliver with?

use super::facts::{Delivery, Door, Facts};
use super::finding::Findings;
use crate::mail::{Domain, DomainPattern};
use crate::trust::certificate::{Identity, name_covers};
use crate::trust::sender_name::{SenderName, is_meant};

/// Ends of names that no public DNS knows: RFC 6761, RFC 6762 with its appendix G, RFC 8375, and ICANN's `internal`.
const INSIDE: [&str; 13] = [
    "local",
    "localhost",
    "localdomain",
    "internal",
    "intranet",
    "private",
    "corp",
    "home",
    "lan",
    "home.arpa",
    "test",
    "example",
    "invalid",
];

pub(super) fn judge_hostname(facts: &Facts<'_>, findings: &mut Findings) {
    let name = facts.hostname.as_str();
    let inside = INSIDE.iter().find(|end| {
        name.strip_suffix(**end)
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    });
    if let Some(end) = inside {
        findings.error(
            "hostname",
            format!("{name} ends in .{end}, which no public DNS knows: Exchange's outbound connector could not find it (5.4.310); give the name that the Internet has for this machine"),
        );
    }
}

/// The name in the listener's certificate that Exchange is told to look for.
pub(super) fn tls_domain(facts: &Facts<'_>, findings: &mut Findings) -> Option<String> {
    let usable: Vec<(&Door<'_>, &Identity)> = facts
        .doors
        .iter()
        .filter_map(|door| Some((door, door.identity?)))
        .collect();
    let standard = usable.iter().find(|(door, _)| door.port == 25);
    let Some((door, identity)) = standard.or_else(|| usable.first()).copied() else {
        findings.error(
            "listener",
            "no [[listener]] with service = \"connector\" has a certificate: Exchange's outbound connector asks for one",
        );
        return None;
    };
    if door.port != 25 {
        findings.warn(
            format!("listener.{}.address", door.name),
            format!(
                "port {}: Exchange connects to port 25 only; something in front must pass it on",
                door.port
            ),
        );
    }
    let key = format!("listener.{}.certificate", door.name);
    let names = dns_names(identity);
    let covering: Vec<&String> = names
        .iter()
        .filter(|name| name_covers(name, facts.hostname))
        .collect();
    let exact = covering.iter().find(|name| !name.starts_with("*."));
    let chosen = match exact.or_else(|| covering.first()) {
        Some(name) => (*name).clone(),
        None => {
            let first = names.iter().find(|name| !name.starts_with("*."));
            let Some(name) = first.or_else(|| names.first()) else {
                findings.error(
                    key,
                    "its certificate carries no name that TlsDomain could hold",
                );
                return None;
            };
            findings.warn(
                key.clone(),
                format!("the certificate does not cover hostname {}: TlsDomain is {name} instead, which Exchange takes; a certificate with the host's own name is clearer", facts.hostname),
            );
            name.clone()
        }
    };
    for (other, identity) in &usable {
        let covers = dns_names(identity).iter().any(|name| {
            name == &chosen
                || chosen
                    .parse()
                    .is_ok_and(|wanted| name_covers(name, &wanted))
        });
        if !covers {
            findings.warn(
                format!("listener.{}.certificate", other.name),
                format!("does not carry {chosen}, which TlsDomain asks for: mail that Exchange brings to this listener stays in its queue (450 4.4.317)"),
            );
        }
    }
    Some(chosen)
}

/// The names of a certificate in the form of DNS.
fn dns_names(identity: &Identity) -> Vec<String> {
    identity
        .names
        .iter()
        .map(|name| name.to_ascii_lowercase())
        .filter(|name| name.parse::<DomainPattern>().is_ok())
        .collect()
}

/// The certificate that Exchange is shown, and what its inbound connector says of it.
#[derive(Clone, Debug)]
pub(in crate::connector) struct Certificate {
    /// `TlsSenderCertificateName`.
    pub(in crate::connector) connector_name: String,
    /// Its names, in the form of DNS.
    pub(in crate::connector) names: Vec<String>,
    /// Where `connector_name` is a wildcard: the name of its own that the tenant could accept instead.
    pub(in crate::connector) sub_domain: Option<Domain>,
}

impl Certificate {
    /// Whether a `TlsSenderCertificateName` means this certificate.
    pub(in crate::connector) fn is_meant_by(&self, connector_name: &str) -> bool {
        is_meant(connector_name, &self.names)
    }

    /// The domain of `connector_name`.
    pub(in crate::connector) fn domain(&self) -> &str {
        let name = self.connector_name.as_str();
        name.strip_prefix("*.").unwrap_or(name)
    }
}

/// What TlsSenderCertificateName must hold (exchange-online.md 2.2, 2.3).
pub(super) fn certificate(facts: &Facts<'_>, findings: &mut Findings) -> Option<Certificate> {
    let tenant = facts.tenant;
    let Some(Delivery { identity, .. }) = facts.connector else {
        findings.error(
            format!("tenant.{}", tenant.name),
            "no [tenant.inbound_connector]: Gatepost delivers nothing to this tenant, so it needs no connectors",
        );
        return None;
    };
    let key = format!("tenant.{}.inbound_connector.certificate", tenant.name);
    let names = dns_names(identity);
    let sender_name = SenderName::of(&names, &tenant.accepted_domains);
    let Some(connector_name) = sender_name.connector_name() else {
        findings.error(
            key,
            format!("no name of the certificate ({}) lies in the tenant's accepted_domains: Exchange would take its mail for nobody's (550 5.7.64)", identity.names.join(", ")),
        );
        return None;
    };
    if let Some(warning) = sender_name.warning(&tenant.accepted_domains) {
        findings.warn(key.clone(), warning);
    }
    for (other, theirs) in &facts.others {
        if theirs.is_some_and(|theirs| is_meant(&connector_name, &dns_names(theirs))) {
            findings.warn(
                key.clone(),
                format!("the certificate of tenant {} fits {connector_name} as well: Exchange tells tenants apart by it", other.name),
            );
        }
    }
    let sub_domain = match sender_name {
        SenderName::Below {
            name: DomainPattern::Exact(name),
            ..
        } => Some(name),
        SenderName::Exact(_) | SenderName::Below { .. } | SenderName::None => None,
    };
    Some(Certificate {
        connector_name,
        names,
        sub_domain,
    })
}
