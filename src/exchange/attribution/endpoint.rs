//! Is this the right door? The host that mail is delivered to (exchange-online.md 2.1).

use super::steps::{State, Step};
use super::{Organization, Reply, SUBMISSION, WRONG_REGION};
use crate::exchange::Mark;
use crate::mail::{DomainPattern, shown};
use std::net::IpAddr;

/// The suffixes under which Exchange Online takes a tenant's mail; the first label names the domain.
const FAMILIES: &[&str] = &[
    ".mail.protection.outlook.com",
    ".mail.protection.office365.us",
    ".mail.protection.partner.outlook.cn",
    ".mx.microsoft",
];

/// Names of old that answer for no tenant.
const OLD: [&str; 2] = [
    "mail.messaging.microsoft.com",
    "mail.global.frontbridge.com",
];

/// The door, judged.
#[derive(Clone, Debug)]
pub(super) struct Endpoint {
    pub(super) step: Step,
    /// The reply, because of what, and what mends it, where nothing gets through there.
    pub(super) fatal: Option<(Reply, String, String)>,
}

pub(super) fn judge(
    host: &str,
    expected: Option<&Organization<'_>>,
    all: &[Organization<'_>],
) -> Endpoint {
    let name = host.trim_end_matches('.').to_ascii_lowercase();
    let seen = shown(name.as_bytes());
    let right = "set host to the tenant's own endpoint: its MX record, or the name of its onmicrosoft.com domain below mail.protection.outlook.com";
    let fatal = |says: &str, reply: Reply| Endpoint {
        step: Step::new("endpoint", State::Fails, says.to_owned(), Mark::Documented),
        fatal: Some((reply, says.to_owned(), right.to_owned())),
    };
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    let address = bare.parse::<IpAddr>().ok();
    if address.is_some_and(|address| address.is_loopback()) {
        let says = format!("{seen} is this machine: a simulated Exchange, not the real one");
        return Endpoint {
            step: Step::new("endpoint", State::Unknown, says, Mark::Given),
            fatal: None,
        };
    }
    if address.is_some() {
        return fatal(
            &format!("the host {seen} is an address: Exchange wants a tenant's endpoint name"),
            WRONG_REGION,
        );
    }
    if OLD.contains(&name.as_str()) {
        return fatal(&format!("the host {seen} is a name of old"), WRONG_REGION);
    }
    if matches!(
        name.as_str(),
        "smtp.office365.com" | "smtp-mail.outlook.com" | "outlook.office365.com"
    ) {
        return fatal(
            &format!("the host {seen} is for clients that log in, no connector's endpoint"),
            SUBMISSION,
        );
    }
    let Some(label) = FAMILIES
        .iter()
        .find_map(|family| name.strip_suffix(family))
        .map(|rest| rest.split('.').next().unwrap_or(rest))
    else {
        let says = format!(
            "{seen} is no endpoint name of Exchange Online that is known: it leads there by another way, or not at all"
        );
        return Endpoint {
            step: Step::new("endpoint", State::Unknown, says, Mark::Inferred),
            fatal: None,
        };
    };
    let of = |organization: &Organization<'_>| {
        let mut domains = organization.accepted.iter().map(DomainPattern::domain);
        domains.any(|domain| means(label, domain.as_str()))
    };
    let wanted =
        |own: &&Organization<'_>| expected.is_none_or(|expected| expected.name == own.name);
    if let Some(own) = all.iter().filter(wanted).find(|own| of(own)) {
        let says = format!(
            "{seen} is the endpoint of an accepted domain of tenant {}",
            own.name
        );
        return Endpoint {
            step: Step::new("endpoint", State::Holds, says, Mark::Documented),
            fatal: None,
        };
    }
    if let Some(other) = all.iter().find(|own| of(own)) {
        return fatal(
            &format!("{seen} is the endpoint of tenant {}", other.name),
            WRONG_REGION,
        );
    }
    let says = format!(
        "{seen} names no accepted domain of the tenant: right only if it is one that the configuration does not list"
    );
    Endpoint {
        step: Step::new("endpoint", State::Unknown, says, Mark::Documented),
        fatal: None,
    }
}

/// `contoso-com` for contoso.com, `contoso` for contoso.onmicrosoft.com.
fn means(label: &str, domain: &str) -> bool {
    domain.replace('.', "-") == label
        || domain.strip_suffix(".onmicrosoft.com") == Some(label)
        || domain.strip_suffix(".onmicrosoft.us") == Some(label)
        || domain.strip_suffix(".partner.onmschina.cn") == Some(label)
}
