//! How would an administrator's own configuration fare? The same samples in the names of its tenants.
//!
//! Kept: tenants, gates, headers, routes, applications, laws, and the certificates, whose chains the simulated Exchange
//! trusts as the real one trusts a public authority. Replaced, so that nothing outside is touched: addresses and ports,
//! Microsoft's networks and roots, the host of every inbound connector, relays, name servers, the data directory,
//! passwords and the applications' networks, rates, small limits of connections. `gate = "report"` enforces here, for that
//! is what it must be ready for.

use super::cast::{self, Passwords};
use super::folder::Folder;
use super::missing::{self, StandIn};
use super::{HostRoots, Prepared, Stopped};
use crate::config::{self, AdminSettings, Settings, Surroundings};
use crate::credentials::Account;
use crate::deliver::Relay;
use crate::lab::certificates::{Authority, EXCHANGE_NAME, Leaf};
use crate::lab::dkim::Signer;
use crate::lab::scene::Cast;
use crate::lab::x509::chain_holds;
use crate::lab::{ExchangeOptions, NETWORK};
use crate::mail::Secret;
use crate::trust::certificate::Roots;
use crate::trust::network::Networks;
use crate::trust::{Gate, Tenant, Tenants};
use rustls_pki_types::TrustAnchor;
use std::cell::RefCell;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// The samples come one after another from one address; a listener that takes one connection at a time would refuse the next
/// while the last is still closing.
const CONNECTIONS: usize = 32;

/// A port where nobody answers.
const NOBODY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9);

/// Prepares a rehearsal of this configuration.
pub(super) fn prepare(path: &Path, folder: &Folder) -> Result<Prepared, Stopped> {
    let authority = Authority::new("Gatepost Lab")?;
    let (mut settings, mut remarks) = load(path, &authority, folder)?;
    let passwords =
        disarm(&mut settings, folder).map_err(|error| Stopped::Broken(error.to_string()))?;
    remarks.extend(enforce(&mut settings));

    let public = settings.server_trust.roots.anchors.clone();
    let client_name = settings.exchange_online.client_certificate_names.first();
    let client_name = client_name.map_or_else(|| EXCHANGE_NAME.to_owned(), ToString::to_string);
    let lab_roots = Arc::new(Roots {
        anchors: authority.roots()?.roots,
    });
    settings.exchange_online.client_certificate_roots = Arc::clone(&lab_roots);
    settings.server_trust.roots = lab_roots;

    let connector = cast::connector_listener(&settings);
    let server_name = connector.map(|listener| cast::server_name(&settings, listener));
    if let Some((server_name, false)) = &server_name {
        remarks.push(format!(
            "note: the connector listener's certificate does not name {}; an outbound connector with that TlsDomain would queue. It is checked as {server_name} here.",
            settings.hostname
        ));
    }
    remarks.extend(untrusted(&settings, &authority, &public)?);
    let signer = Arc::new(Signer::new()?);
    let cast = cast::of(&settings, &passwords, &signer)?;
    remarks.extend(evidence(&settings));
    remarks.extend(silent(&settings, &cast));
    let chains: Vec<_> = settings
        .inbound_connectors
        .iter()
        .map(|connector| connector.identity.chain.as_slice())
        .collect();
    let mut exchange = ExchangeOptions::new(&authority, cast.organizations.clone())?;
    exchange.roots = authority.roots_and(&public, &chains)?;
    let server_certificate_name = settings
        .server_trust
        .names
        .first()
        .map_or(EXCHANGE_NAME, String::as_str);
    let exchange = exchange.identity(authority.issue(&Leaf::named(
        &server_certificate_name.replacen("*.", "lab.", 1),
    ))?);
    let listeners = settings
        .listeners
        .iter()
        .filter_map(|listener| listener.identity.as_ref());
    let roots_of_host = HostRoots {
        chains: listeners.map(|identity| identity.chain.clone()).collect(),
        anchors: public,
    };
    remarks.insert(0, format!("Rehearsal of {}: its tenants, gates, routes and certificates; loopback instead of the world.", path.display()));
    remarks.push(String::new());
    Ok(Prepared {
        authority,
        cast,
        settings,
        exchange,
        server_name: server_name.map(|(name, _)| name),
        roots_of_host,
        client_name,
        remarks,
        own_authority: false,
    })
}

/// The administrator's settings, with stand-ins for files and variables that are not at hand, and what there is to say
/// about them.
fn load(
    path: &Path,
    authority: &Authority,
    folder: &Folder,
) -> Result<(Settings, Vec<String>), Stopped> {
    let source = std::fs::read_to_string(path).map_err(|error| {
        Stopped::Unusable(format!("{}: cannot be read: {error}", path.display()))
    })?;
    let StandIn {
        source,
        mut remarks,
    } = missing::stand_in(path, &source, authority, folder)?;
    let lab_root = authority.roots()?.roots;
    let made_up = RefCell::new(Vec::new());
    let environment = |name: &str| {
        std::env::var_os(name).or_else(|| {
            let mut made_up = made_up.borrow_mut();
            if !made_up.iter().any(|one| one == name) {
                made_up.push(name.to_owned());
            }
            // A password hash is also a good enough value for a header; each name gets one of its own.
            Some(password_auth::generate_hash(name).into())
        })
    };
    let surroundings = Surroundings {
        environment: &environment,
        // Certificates that the lab made are as good as public ones here.
        system_roots: &|| {
            let mut roots = config::system_roots();
            roots.anchors.extend(lab_root.iter().cloned());
            Arc::new(roots)
        },
        unix_seconds: unix_seconds(),
        endpoints_in_force: None,
        candidate: None,
    };
    let loaded = config::parse(path, &source, &surroundings)
        .map_err(|error| Stopped::Unusable(error.to_string()))?;
    let names = made_up.into_inner().into_iter();
    remarks.extend(
        names.map(|name| {
            format!("note: ${{{name}}} is not set; a made-up value stands in its place")
        }),
    );
    remarks.extend(loaded.problems.iter().map(ToString::to_string));
    match loaded.settings {
        Some(settings) => Ok((settings, remarks)),
        None => Err(Stopped::Unusable(format!(
            "the configuration is refused:\n{}",
            remarks.join("\n")
        ))),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the dates of certificates are judged at the time of the rehearsal"
)]
fn unix_seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// Takes everything out that would touch the world or that only its owner knows.
fn disarm(settings: &mut Settings, folder: &Folder) -> std::io::Result<Passwords> {
    settings.data_directory = folder.path("data");
    settings.admin = AdminSettings {
        address: free_port(),
        hosts: Vec::new(),
        token: None,
    };
    for listener in &mut settings.listeners {
        listener.address = free_port();
        listener.proxy_protocol_from.clear();
        listener.max_connections = listener.max_connections.max(CONNECTIONS);
    }
    settings.exchange_online.networks = Networks::new(NETWORK.parse().into_iter().collect());
    // Names are asked of nobody: mail exchangers are the lab's own.
    settings.dns_servers = Some(vec![NOBODY]);
    settings.mx_source_addresses.clear();
    for relay in &mut settings.relays {
        *relay = Arc::new(Relay {
            host: NOBODY.ip().to_string().into(),
            port: NOBODY.port(),
            credentials: None,
            ..Relay::clone(relay)
        });
    }
    let mut passwords = Passwords::default();
    for (index, account) in settings.accounts.iter_mut().enumerate() {
        let name = account.application.name.to_string();
        let mut mine = Account::clone(account);
        if mine.application.username.is_some() {
            passwords.make(&name)?;
            mine.password_hash = Some(Secret::new(passwords.hash(&name)));
        }
        if !mine.networks.is_empty() {
            let block = format!("127.0.{}.0/28", 100 + index % 150);
            mine.networks = block.parse().into_iter().collect();
        }
        mine.rate = None;
        *account = Arc::new(mine);
    }
    Ok(passwords)
}

/// A certificate whose chain leads nowhere fails here as it does at Exchange; an authority of one's own can stand among the
/// public ones for a rehearsal.
fn untrusted(
    settings: &Settings,
    authority: &Authority,
    public: &[TrustAnchor<'static>],
) -> Result<Vec<String>, Stopped> {
    let connectors = settings.inbound_connectors.iter();
    let listeners = settings.listeners.iter();
    let mut identities: Vec<_> = connectors
        .map(|connector| &connector.identity)
        .chain(listeners.filter_map(|listener| listener.identity.as_ref()))
        .collect();
    identities.sort_by(|one, other| one.name.cmp(&other.name));
    identities.dedup_by(|one, other| one.name == other.name);
    let mut told = Vec::new();
    for identity in identities {
        let roots = authority.roots_and(public, &[identity.chain.as_slice()])?;
        let Err(why) = chain_holds(&identity.chain, &roots) else {
            continue;
        };
        let cure = if identity.known_root {
            ""
        } else {
            ". With SSL_CERT_FILE=ca.pem before the command, an authority of your own counts as a public one here"
        };
        told.push(format!(
            "note: certificate {} is taken neither here nor by Exchange Online: {why}{cure}",
            identity.name
        ));
    }
    Ok(told)
}

/// What `proofs` asks for beyond stamps and secret, of each tenant.
fn evidence(settings: &Settings) -> Vec<String> {
    let Some(listener) = cast::connector_listener(settings) else {
        return Vec::new();
    };
    let remark = |tenant: &Arc<Tenant>| {
        let (name, proofs) = (&tenant.name, tenant.proofs);
        let items = cast::unsigned_items(tenant, listener);
        if proofs <= items {
            return None;
        }
        let told = if proofs == items + 1 {
            "so every message needs a DKIM signature. The lab's Exchange signs with a key of its own; see that the real one signs as a domain of the tenant"
        } else {
            "so with a DKIM signature too it is out of reach: all mail of the tenant from Exchange is refused"
        };
        Some(format!(
            "note: tenant {name} has proofs = {proofs}, and stamps and secret are {items} items on listener {}, {told}",
            listener.name
        ))
    };
    settings.tenants.iter().filter_map(remark).collect()
}

/// The applications that have no part, by name.
fn silent(settings: &Settings, cast: &Cast) -> Option<String> {
    let accounts = settings.accounts.iter();
    let names = accounts.map(|account| account.application.name.to_string());
    let silent = names.filter(|name| cast.actors.iter().all(|actor| actor.name != *name));
    let silent: Vec<String> = silent.collect();
    (!silent.is_empty()).then(|| {
        format!(
            "note: not played, for no listener lets them in (a login needs AUTH there) or no sender fits: {}",
            silent.join(", ")
        )
    })
}

/// Every gate enforces; what that changes is said.
fn enforce(settings: &mut Settings) -> Vec<String> {
    let mut remarks = Vec::new();
    let tenants = settings.tenants.iter().map(|tenant| match tenant.gate {
        Gate::Enforce => Arc::clone(tenant),
        Gate::Report { .. } => {
            remarks.push(format!(
                "note: tenant {} has gate = \"report\"; here the gate enforces",
                tenant.name
            ));
            Arc::new(Tenant {
                gate: Gate::Enforce,
                ..Tenant::clone(tenant)
            })
        }
    });
    settings.tenants = Tenants::new(tenants.collect());
    remarks
}

fn free_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}
