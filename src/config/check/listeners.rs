//! `[[listener]]`: where mail comes in, and what each combination of service and TLS lets through.

use super::super::raw::{File, default};
use super::super::reader::{At, Reader, Spot, label};
use super::super::units;
use super::named::Named;
use crate::mail::Domain;
use crate::receive::{BareNewlines, ListenerSettings, Service, TlsMode};
use crate::trust::certificate::{Identity, Role};
use crate::trust::chain::{Chain, Link};
use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

/// What we may offer (product.md 5).
const EXTENSIONS: [&str; 11] = [
    "PIPELINING",
    "SIZE",
    "DSN",
    "ENHANCEDSTATUSCODES",
    "STARTTLS",
    "8BITMIME",
    "CHUNKING",
    "SMTPUTF8",
    "LIMITS",
    "XOORG",
    "AUTH",
];

pub(super) fn listeners(
    raw: &File,
    reader: &mut Reader<'_>,
    certificates: &Named<Arc<Identity>>,
    hostname: Option<&Domain>,
) -> Vec<ListenerSettings> {
    let mut named = Named::new("listener");
    let mut addresses: Vec<At<SocketAddr>> = Vec::new();
    for (table, scope) in reader.tables("listener", &raw.listener, |table| Some(&table.name)) {
        let name = reader.name(&scope, &table.name);
        let address = reader.required(&scope, "address", &table.address, |text| {
            units::socket(text, None)
        });
        if let Some(address) = &address {
            let first = addresses
                .iter()
                .find(|other| other.value == address.value && address.value.port() != 0);
            super::named::unique(reader, "[[listener]] with this address", address, first);
            addresses.push(address.clone());
        }
        reader.demand(&scope, "service", &table.service);
        let services = [
            ("connector", Service::Connector),
            ("submission", Service::Submission),
        ];
        let service = reader
            .choice(&scope, "service", &table.service, &services)
            .map(|at| at.value);
        let modes = [
            ("starttls", TlsMode::StartTls),
            ("implicit", TlsMode::Implicit),
            ("optional", TlsMode::Optional),
            ("none", TlsMode::None),
        ];
        let tls_spot = reader.spot(&scope, "tls", &table.tls);
        let tls = reader
            .choice(&scope, "tls", &table.tls, &modes)
            .map_or(TlsMode::StartTls, |at| at.value);
        if tls != TlsMode::None {
            reader.demand(&scope, "certificate", &table.certificate);
        }
        let certificate = reader.parse(&scope, "certificate", &table.certificate, label);
        let identity = certificate
            .as_ref()
            .and_then(|name| certificates.find(reader, name))
            .flatten()
            .cloned();
        let proxies = reader.list(
            &scope,
            "proxy_protocol_from",
            &table.proxy_protocol_from,
            units::block,
        );
        judge_balancers(reader, proxies.as_deref().unwrap_or_default());
        let size = reader.parse(
            &scope,
            "max_message_size",
            &table.max_message_size,
            units::size,
        );
        let connections = reader.whole(
            &scope,
            "max_connections",
            &table.max_connections,
            1..=1_000_000,
        );
        let discard_spot = reader.spot(&scope, "ehlo_discard", &table.ehlo_discard);
        let discard = reader.list(&scope, "ehlo_discard", &table.ehlo_discard, |text| {
            Ok(text.to_ascii_uppercase())
        });
        let discard = discard.unwrap_or_default();
        let newlines_words = [
            ("refuse", BareNewlines::Refuse),
            ("repair", BareNewlines::Repair),
        ];
        let newlines = reader.choice(
            &scope,
            "bare_newlines",
            &table.bare_newlines,
            &newlines_words,
        );
        let clear_auth = reader.flag(&scope, "auth_without_tls", &table.auth_without_tls);

        judge_extensions(reader, &discard, &discard_spot, service, tls);
        match service {
            Some(Service::Connector) => judge_connector(
                reader,
                &tls_spot,
                tls,
                newlines.as_ref(),
                clear_auth.as_ref(),
            ),
            Some(Service::Submission) => {
                judge_submission(reader, &tls_spot, tls, clear_auth.as_ref())
            }
            None => {}
        }
        if let (Some(Service::Connector), Some(certificate), Some(identity), Some(hostname)) =
            (service, &certificate, &identity, hostname)
            && !identity.covers(hostname)
        {
            reader.warn(
                &certificate.spot,
                format!("none of its names ({}) is hostname {hostname}: an outbound connector with TlsSettings DomainValidation must name one of them in TlsDomain", identity.names.join(", ")),
            );
        }
        if let (Some(certificate), Some(identity)) = (&certificate, &identity)
            && tls != TlsMode::None
        {
            judge_shown(reader, &certificate.spot, identity);
        }
        let settings = match (&name, address, service) {
            (Some(name), Some(address), Some(service)) => Some(ListenerSettings {
                name: name.value.as_str().into(),
                address: address.value,
                service,
                tls,
                identity: identity.filter(|_| tls != TlsMode::None),
                proxy_protocol_from: proxies
                    .unwrap_or_default()
                    .into_iter()
                    .map(|at| at.value)
                    .collect(),
                max_message_size: size.map_or(default::MAX_MESSAGE_SIZE, |at| at.value),
                max_connections: connections.map_or(default::MAX_CONNECTIONS, |at| at.value),
                ehlo_discard: discard.into_iter().map(|at| at.value).collect(),
                bare_newlines: newlines.map(|at| at.value).unwrap_or_default(),
                auth_without_tls: clear_auth.is_some_and(|at| at.value),
            }),
            _ => None,
        };
        named.add(reader, name, settings);
    }
    named.into_values()
}

/// What whoever connects would have against the certificate, beside what is told of it wherever it is used.
fn judge_shown(reader: &mut Reader<'_>, spot: &Spot, identity: &Identity) {
    let Ok(chain) = Chain::read(&identity.chain) else {
        return; // told where it is read
    };
    let client_alone = |link: &&Link| link.usage.allows(Role::Client);
    if let Some((number, _)) = chain
        .forbids(Role::Server)
        .filter(|(_, link)| client_alone(link))
    {
        let whose = match number {
            1 => "its extended key usage".to_owned(),
            number => format!("the extended key usage of certificate {number} of its chain"),
        };
        reader.warn(spot, format!("{whose} allows client authentication alone: here whoever looks refuses it, Exchange Online (450 4.4.317) and applications"));
    }
    let is_address = |name: &String| name.parse::<IpAddr>().is_ok();
    let bare = |leaf: &Link| leaf.alternative_names.iter().all(is_address);
    if chain.links.first().is_some_and(bare) && !identity.names.is_empty() {
        reader.warn(spot, "its name stands in the subject CN alone: whoever looks for it in the SAN (subjectAltName), as RFC 9525 has it, refuses the certificate here");
    }
}

fn judge_extensions(
    reader: &mut Reader<'_>,
    discard: &[At<String>],
    spot: &Spot,
    service: Option<Service>,
    tls: TlsMode,
) {
    for keyword in discard {
        if !EXTENSIONS.contains(&keyword.value.as_str()) {
            reader.warn(
                &keyword.spot,
                format!("is never offered; what is: {}", EXTENSIONS.join(" ")),
            );
        }
    }
    let discards = |keyword: &str| discard.iter().any(|own| own.value == keyword);
    if discards("STARTTLS") && tls == TlsMode::StartTls {
        reader.error(
            spot,
            "without STARTTLS nobody can send here, because tls = \"starttls\" demands it",
        );
    }
    if discards("CHUNKING") && service == Some(Service::Connector) {
        reader.warn(
            spot,
            "without CHUNKING Exchange Online bounces mail that holds a bare LF",
        );
    }
}

/// Whoever connects from one of these may claim any source address.
fn judge_balancers(reader: &mut Reader<'_>, blocks: &[At<IpNet>]) {
    for block in blocks {
        let host_bits = block.value.max_prefix_len() - block.value.prefix_len();
        // A /16, or a /64 of IPv6, is the widest network that one operator plausibly keeps balancers in.
        let widest = match block.value {
            IpNet::V4(_) => 16,
            IpNet::V6(_) => 64,
        };
        if host_bits > widest {
            reader.warn(
                &block.spot,
                "is absurdly wide: everyone in it may claim any source address; name the load balancers' own addresses",
            );
        } else if !super::reach::is_private(&block.value) && super::reach::is_wide(&block.value) {
            reader.warn(
                &block.spot,
                "is a wide block of public addresses: everyone in it may claim any source address",
            );
        }
    }
}

fn judge_connector(
    reader: &mut Reader<'_>,
    tls_spot: &Spot,
    tls: TlsMode,
    newlines: Option<&At<BareNewlines>>,
    clear_auth: Option<&At<bool>>,
) {
    if matches!(tls, TlsMode::None | TlsMode::Optional) {
        reader.error(
            tls_spot,
            "a connector listener insists on TLS: \"starttls\" or \"implicit\"",
        );
    }
    if tls == TlsMode::Implicit {
        reader.warn(
            tls_spot,
            "Exchange Online speaks STARTTLS on port 25, not implicit TLS",
        );
    }
    if let Some(newlines) = newlines.filter(|newlines| newlines.value == BareNewlines::Repair) {
        reader.error(
            &newlines.spot,
            "only for submission: mail from Exchange is passed on byte for byte",
        );
    }
    if let Some(clear) = clear_auth.filter(|clear| clear.value) {
        reader.warn(
            &clear.spot,
            "has no effect: a connector listener takes no AUTH",
        );
    }
}

fn judge_submission(
    reader: &mut Reader<'_>,
    tls_spot: &Spot,
    tls: TlsMode,
    clear_auth: Option<&At<bool>>,
) {
    if let Some(clear) = clear_auth.filter(|clear| clear.value) {
        reader.warn(&clear.spot, "passwords cross the network in clear text: whoever listens can send as the application");
        return;
    }
    match tls {
        TlsMode::None => reader.warn(
            tls_spot,
            "no TLS: nobody can log in here; only an [[application]] with networks and without username can send, and its mail can be read on the way",
        ),
        TlsMode::Optional => reader.warn(
            tls_spot,
            "outside TLS nobody can log in; there only an [[application]] with networks and without username can send",
        ),
        TlsMode::StartTls | TlsMode::Implicit => {}
    }
}

/// Whether something that we dial at `target` would reach a listener of ours.
pub(super) fn reaches(listener: SocketAddr, target: SocketAddr) -> bool {
    let own = listener.ip().to_canonical();
    let there = target.ip().to_canonical();
    let everywhere = own.is_unspecified() && (there.is_loopback() || there.is_unspecified());
    listener.port() == target.port() && listener.port() != 0 && (own == there || everywhere)
        || there == IpAddr::V4(Ipv4Addr::UNSPECIFIED)
            && own.is_loopback()
            && listener.port() == target.port()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_reached_by_its_address_and_everywhere_by_loopback() {
        let reaches = |listener: &str, target: &str| {
            reaches(listener.parse().unwrap(), target.parse().unwrap())
        };
        assert!(reaches("10.0.0.5:25", "10.0.0.5:25"));
        assert!(reaches("0.0.0.0:25", "127.0.0.1:25"));
        assert!(reaches("[::]:25", "[::1]:25"));
        assert!(reaches("10.0.0.5:25", "[::ffff:10.0.0.5]:25"));
        assert!(!reaches("10.0.0.5:25", "10.0.0.5:26"));
        assert!(!reaches("10.0.0.5:25", "10.0.0.6:25"));
        assert!(!reaches("0.0.0.0:25", "192.0.2.1:25"));
        assert!(!reaches("127.0.0.1:0", "127.0.0.1:0"));
    }
}
