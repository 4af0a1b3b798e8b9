//! From the raw file to each room's settings, with every problem at once.
//!
//! A step that finds a fault notes it and hands on what it could make, so that later steps still find theirs. Nothing
//! here is used unless no error was noted: [`Settings`] comes out only then.

mod acme;
mod applications;
mod certificates;
mod connectors;
mod exchange_online;
mod headers;
mod house;
mod listeners;
mod named;
mod outward;
mod reach;
mod routes;
mod tenants;

use super::raw::{File, default};
use super::reader::{At, Reader, Scope, base_of};
use super::value::Tables;
use super::{Certificate, ConnectorUse, ListenerUse, Settings};
use crate::acme::Authority;
use crate::mail::{Domain, DomainSet};
use crate::receive::ListenerSettings;
use crate::trust::Tenants;
use crate::trust::certificate::Identity;
use crate::trust::sender_name::SenderName;
use named::Named;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

/// Checks everything. `None` where something that settings need could not be made; then there is an error, too.
pub(super) fn check(
    raw: &File,
    reader: &mut Reader<'_>,
) -> (Option<Settings>, Vec<Certificate>, Option<Authority>) {
    let data_directory = reader
        .path(&Scope::top(), "data_directory", &raw.data_directory)
        .map(|at| at.value)
        .unwrap_or_else(|| base_of(reader.file()).join(default::DATA_DIRECTORY));
    let authority = acme::authority(raw, reader, &data_directory);
    let (certificates, mut seen) = certificates::certificates(raw, reader);
    let mut settings = settings(raw, reader, data_directory, certificates, &mut seen);
    if let Some(settings) = &mut settings {
        settings.acme.clone_from(&authority);
        settings.renewed = seen
            .iter()
            .filter(|own| !own.acme_names.is_empty())
            .filter_map(|own| own.name.as_deref().map(Into::into))
            .collect();
    }
    (settings, seen, authority)
}

fn settings(
    raw: &File,
    reader: &mut Reader<'_>,
    data_directory: PathBuf,
    certificates: Named<Arc<Identity>>,
    seen: &mut [Certificate],
) -> Option<Settings> {
    let top = Scope::top();
    let hostname = reader.required(&top, "hostname", &raw.hostname, host_name);
    if let Some(At { value, spot }) = &hostname
        && !value.as_str().contains('.')
    {
        let why = "others may refuse mail of a host that has no full domain name";
        reader.warn(spot, format!("{NO_NAME} (RFC 5321 §2.3.5): {why}"));
    }
    house::store(raw, reader);
    let hostname_value = hostname.as_ref().map(|at| &at.value);
    let listeners = listeners::listeners(raw, reader, &certificates, hostname_value);
    let exchange = exchange_online::exchange_online(raw, reader);
    let own = connectors::Own {
        hostname: hostname_value,
        listeners: &listeners,
    };
    let tenants = tenants::tenants(raw, reader, &certificates, &own);
    uses(seen, hostname_value, &listeners, &tenants);
    let accounts = applications::accounts(raw, reader, &tenants, &listeners);
    let relays = outward::relays(raw, reader, &own);
    let routes = routes::routes(raw, reader, &tenants, &relays, &accounts);
    let laws = outward::laws(raw, reader, &accounts);
    let house = house::house(raw, reader, &listeners);
    if listeners.is_empty() && is_none(&raw.listener) {
        reader.warn(
            &top.missing("listener"),
            "no [[listener]]: no mail can come in",
        );
    }
    if tenants.is_empty() && is_none(&raw.tenant) {
        reader.warn(
            &top.missing("tenant"),
            "no [[tenant]]: no mail is anyone's, and all of it is refused",
        );
    }
    Some(Settings {
        hostname: hostname?.value,
        data_directory,
        identities: certificates.into_values(),
        known_roots: (reader.surroundings.system_roots)(),
        acme: None,
        renewed: Vec::new(),
        listeners,
        exchange_online: exchange.receiving,
        endpoints_made: exchange.endpoints_made,
        endpoints: exchange.endpoints,
        endpoints_rejected: exchange.endpoints_rejected,
        server_trust: exchange.delivering,
        inbound_connectors: tenants
            .iter()
            .filter_map(|facts| facts.connector.clone())
            .collect(),
        tenants: Tenants::new(
            tenants
                .into_iter()
                .filter_map(|facts| facts.tenant)
                .collect(),
        ),
        accounts: accounts.into_iter().map(|facts| facts.account).collect(),
        routes,
        relays: relays.into_values(),
        exchange_law: laws.exchange,
        mx_law: laws.mx,
        mx_source_addresses: laws.source_addresses,
        outside: None,
        dns_servers: house.dns_servers,
        trace_keep: house.trace_keep,
        admin: house.admin,
        log: house.log,
    })
}

/// Who depends on which certificate.
fn uses(
    seen: &mut [Certificate],
    hostname: Option<&Domain>,
    listeners: &[ListenerSettings],
    tenants: &[tenants::Facts],
) {
    for certificate in seen {
        let own = |identity: &Identity| certificate.name.as_deref() == Some(&*identity.name);
        let showing = listeners.iter().filter_map(|listener| {
            let identity = listener
                .identity
                .as_ref()
                .filter(|identity| own(identity))?;
            Some(ListenerUse {
                name: Arc::clone(&listener.name),
                service: listener.service,
                covers_hostname: hostname.map(|hostname| identity.covers(hostname)),
            })
        });
        certificate.listeners = showing.collect();
        let presenting = tenants.iter().filter_map(|facts| {
            let connector = facts.connector.as_ref().filter(|one| own(&one.identity))?;
            let accepted = DomainSet::new(facts.accepted().cloned().collect());
            Some(ConnectorUse {
                tenant: Arc::clone(&connector.tenant),
                host: Arc::clone(&connector.host),
                sender_name: SenderName::of(&connector.identity.names, &accepted),
            })
        });
        certificate.connectors = presenting.collect();
    }
}

/// A domain with at least two labels, and no address.
fn fully_qualified(text: &str) -> Result<Domain, String> {
    let domain = host_name(text)?;
    if !domain.as_str().contains('.') {
        return Err(NO_NAME.to_owned());
    }
    Ok(domain)
}

/// A domain, and no address.
fn host_name(text: &str) -> Result<Domain, String> {
    let domain: Domain = text
        .parse()
        .map_err(|why: crate::mail::DomainError| why.to_string())?;
    if domain.as_str().starts_with('[') || domain.as_str().parse::<IpAddr>().is_ok() {
        return Err(NO_NAME.to_owned());
    }
    Ok(domain)
}

const NO_NAME: &str = "must be a full domain name, such as smarthost.contoso.com";

/// A host to connect to: a name or an address (IPv6 with or without brackets), as it is dialled.
fn host(text: &str) -> Result<String, String> {
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(text);
    if let Ok(address) = bare.parse::<IpAddr>() {
        return Ok(address.to_string());
    }
    let domain: Domain = text
        .parse()
        .map_err(|_| "neither a host name nor an IP address".to_owned())?;
    Ok(domain.as_str().to_owned())
}

/// Whether the file has no table of the kind.
fn is_none<T>(tables: &Tables<T>) -> bool {
    matches!(tables, Tables::Given(list) if list.is_empty())
}
