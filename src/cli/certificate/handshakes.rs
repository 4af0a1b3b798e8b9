//! Would Exchange talk to us by this certificate, and take our mail by it? Real handshakes, on loopback.
//!
//! The configuration's own listeners and inbound connectors, as far as they use the certificate, in a real server; opposite
//! of it the simulated Exchange Online, which trusts what the system and the Microsoft set hold and nothing else, for a
//! public authority is what Exchange asks for. Its connectors are set as the certificate in force wants it.

use super::super::lab::cast;
use super::super::lab::folder::Folder;
use crate::app::Server;
use crate::config::{self, AdminSettings, Settings};
use crate::credentials::Account;
use crate::lab::certificates::{Authority, EXCHANGE_NAME, Leaf};
use crate::lab::{
    ApplicationClient, By, ExchangeIn, ExchangeOptions, ExchangeOut, Mail, NETWORK, Security,
};
use crate::mail::{MailboxPattern, TenantName};
use crate::message_trace::{Event, Query};
use crate::receive::{ListenerSettings, Service, TlsMode};
use crate::route::{Recipients, Route, Routes, Via};
use crate::trust::certificate::Roots;
use crate::trust::network::Networks;
use crate::trust::{Application, Gate, Tenant, Tenants};
use rustls::RootCertStore;
use serde::Serialize;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// All of it, however many listeners and tenants there are.
const BOUND: Duration = Duration::from_secs(120);
/// One handshake or delivery.
const PATIENCE: Duration = Duration::from_secs(15);
const LOOK: Duration = Duration::from_millis(30);
/// The listener that the rehearsal's own mail comes in by; no configuration can name one so.
const DOOR: &str = "(rehearsal)";

/// One thing that was tried.
#[derive(Debug, Serialize)]
pub(super) struct Step {
    /// Who did what.
    pub(super) what: String,
    /// What came of it.
    pub(super) seen: String,
    /// Whether it is as it must be.
    pub(super) well: bool,
}

/// Plays every use of the certificate `name` of `settings`, before an Exchange that is set for `in_force`.
///
/// # Errors
/// The stage did not come up; in words.
pub(super) async fn play(
    in_force: &Settings,
    settings: &Settings,
    name: &str,
) -> Result<Vec<Step>, String> {
    let played = tokio::time::timeout(BOUND, Box::pin(played(in_force, settings, name))).await;
    played.unwrap_or_else(|_| Err("the rehearsal did not end in time".to_owned()))
}

async fn played(in_force: &Settings, settings: &Settings, name: &str) -> Result<Vec<Step>, String> {
    let words = |error: crate::lab::LabError| error.to_string();
    let folder = Folder::make().map_err(|error| error.to_string())?;
    let authority = Authority::new("Gatepost Lab").map_err(words)?;
    let public = RootCertStore {
        roots: config::system_roots().anchors,
    };
    let exchange = exchange(in_force, settings, &authority, &public).map_err(words)?;
    let exchange = ExchangeIn::start(exchange).await.map_err(words)?;
    let staged = stage(settings, name, &authority, &folder, exchange.address()).map_err(words)?;
    let client_name = settings.exchange_online.client_certificate_names.first();
    let client_name = client_name.map_or(EXCHANGE_NAME, |name| name.as_str());
    let shown = authority.issue(&Leaf::named(client_name)).map_err(words)?;
    let server = Server::start(staged.clone()).await?;
    let mut steps = Vec::new();
    for listener in staged.listeners.iter().filter(|own| &*own.name != DOOR) {
        let Some(address) = server.listener_address(&listener.name) else {
            continue;
        };
        let server_name = server_name(in_force, listener);
        let (what, seen) = match listener.service {
            Service::Connector => {
                let what = format!(
                    "Exchange connects to listener {} with TlsDomain {server_name}",
                    listener.name
                );
                let dialling = ExchangeOut::new(address, &server_name, &public, Some(&shown));
                (what, greeted(dialling.map_err(words)?, listener.tls).await)
            }
            Service::Submission => {
                let what = format!(
                    "an application connects to listener {} as {server_name}",
                    listener.name
                );
                let client = ApplicationClient::new(address, &server_name, &public);
                let security = match listener.tls {
                    TlsMode::Implicit => Security::Implicit,
                    TlsMode::StartTls | TlsMode::Optional => Security::StartTls,
                    TlsMode::None => Security::Clear,
                };
                let client = client.map_err(words)?.security(security);
                let connected = tokio::time::timeout(PATIENCE, client.connect()).await;
                let seen = connected.map(|done| {
                    done.map(|client| tls_line(&client.dialogue().lines()))
                        .map_err(|error| error.to_string())
                });
                (what, seen.unwrap_or_else(|_| Err(LATE.to_owned())))
            }
        };
        steps.push(step(what, seen));
    }
    let door = server.listener_address(DOOR).ok_or("no door")?;
    for (index, tenant) in presenting(settings, name).iter().enumerate() {
        let what = format!("mail of tenant {} goes to Exchange", tenant.name);
        let promotes = in_force.inbound_connectors.iter().any(|connector| {
            connector.tenant == tenant.name && connector.cloud_services_mail_enabled
        });
        let delivered = delivered(&server, &exchange, tenant, door, source(index), promotes);
        let seen = delivered.await;
        steps.push(step(what, seen));
    }
    server.stop().await;
    Ok(steps)
}

const LATE: &str = "nothing came of it in time";

fn step(what: String, seen: Result<String, String>) -> Step {
    let well = seen.is_ok();
    Step {
        what,
        seen: seen.unwrap_or_else(|fault| fault),
        well,
    }
}

/// The simulated Exchange: tenants with connectors as they are set today, and no trust but in public authorities.
fn exchange(
    in_force: &Settings,
    settings: &Settings,
    authority: &Authority,
    public: &RootCertStore,
) -> Result<ExchangeOptions, crate::lab::LabError> {
    let organizations = settings.tenants.iter().map(|tenant| {
        let of = |settings: &Settings| {
            let mut connectors = settings.inbound_connectors.iter();
            connectors.find(|one| one.tenant == tenant.name).cloned()
        };
        let connector = of(in_force).or_else(|| of(settings));
        cast::organization(tenant, connector.as_ref())
    });
    let mut options = ExchangeOptions::new(authority, organizations.collect())?;
    options.roots = public.clone();
    let names = settings.server_trust.names.first();
    let server_name = names.map_or(EXCHANGE_NAME, String::as_str);
    Ok(options.identity(authority.issue(&Leaf::named(&server_name.replacen("*.", "lab.", 1)))?))
}

/// The tenants whose inbound connector the certificate is presented to.
fn presenting(settings: &Settings, name: &str) -> Vec<Arc<Tenant>> {
    let is_its = |tenant: &TenantName| {
        let mut connectors = settings.inbound_connectors.iter();
        connectors.any(|one| one.tenant == *tenant && &*one.identity.name == name)
    };
    let tenants = settings.tenants.iter();
    tenants.filter(|own| is_its(&own.name)).cloned().collect()
}

/// Where the rehearsal's mail of a tenant comes from: an address is all the login it has.
fn source(index: usize) -> IpAddr {
    let octet = |number: usize| u8::try_from(number % 200).unwrap_or_default();
    IpAddr::V4(Ipv4Addr::new(
        127,
        0,
        100 + octet(index / 200),
        1 + octet(index),
    ))
}

/// The settings with everything taken out that is not rehearsed or would touch the world.
fn stage(
    settings: &Settings,
    name: &str,
    authority: &Authority,
    folder: &Folder,
    exchange: SocketAddr,
) -> Result<Settings, crate::lab::LabError> {
    let mut staged = settings.clone();
    let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
    staged.data_directory = folder.path("data");
    staged.admin = AdminSettings {
        address: anywhere,
        hosts: Vec::new(),
        token: None,
    };
    staged.relays.clear();
    staged.mx_source_addresses.clear();
    staged.dns_servers = Some(vec![SocketAddr::from(([127, 0, 0, 1], 9))]);
    let lab_roots = Arc::new(Roots {
        anchors: authority.roots()?.roots,
    });
    staged.exchange_online.client_certificate_roots = Arc::clone(&lab_roots);
    staged.server_trust.roots = lab_roots;
    staged.exchange_online.networks = Networks::new(NETWORK.parse().into_iter().collect());
    staged.listeners.retain(|listener| {
        let identity = listener.identity.as_ref();
        identity.is_some_and(|identity| &*identity.name == name)
    });
    for listener in &mut staged.listeners {
        listener.address = anywhere;
        listener.proxy_protocol_from.clear();
        listener.ehlo_discard.clear();
    }
    staged.listeners.push(ListenerSettings {
        name: DOOR.into(),
        address: anywhere,
        service: Service::Submission,
        tls: TlsMode::None,
        identity: None,
        proxy_protocol_from: Vec::new(),
        max_message_size: 1024 * 1024,
        max_connections: 100,
        ehlo_discard: Vec::new(),
        bare_newlines: crate::receive::BareNewlines::Refuse,
        auth_without_tls: false,
    });
    let tenants = staged.tenants.iter().map(|tenant| {
        Arc::new(Tenant {
            gate: Gate::Enforce,
            ..Tenant::clone(tenant)
        })
    });
    staged.tenants = Tenants::new(tenants.collect());
    let presenting = presenting(&staged, name);
    let accounts = presenting.iter().enumerate();
    staged.accounts = accounts
        .map(|(index, tenant)| account(tenant, source(index)))
        .collect();
    staged.routes = Routes::new(vec![Route {
        tenant: None,
        recipients: Recipients::Any,
        from: None,
        stream: None,
        via: Via::Exchange,
    }]);
    cast::deliver_to(&mut staged, exchange);
    Ok(staged)
}

fn account(tenant: &Arc<Tenant>, source: IpAddr) -> Arc<Account> {
    let senders = tenant.accepted_domains.iter().cloned();
    Arc::new(Account {
        application: Arc::new(Application {
            name: tenant.name.to_string().into(),
            username: None,
            tenant: Arc::clone(tenant),
            senders: senders.map(MailboxPattern::Domain).collect(),
            internal: true,
            stream: None,
            bounces_to: None,
        }),
        password_hash: None,
        networks: vec![source.into()],
        rate: None,
    })
}

/// The name that Exchange's outbound connector demands today: the host name, or a name that the certificate in force has.
fn server_name(in_force: &Settings, listener: &ListenerSettings) -> String {
    let mut listeners = in_force.listeners.iter();
    let present = listeners.find(|own| own.name == listener.name);
    cast::server_name(in_force, present.unwrap_or(listener)).0
}

/// Exchange's side up to its second EHLO: what the handshake agreed, or why Exchange would keep its mail.
async fn greeted(exchange: ExchangeOut, tls: TlsMode) -> Result<String, String> {
    if tls == TlsMode::Implicit {
        return Err("Exchange speaks STARTTLS, not implicit TLS".to_owned());
    }
    let connected = tokio::time::timeout(PATIENCE, exchange.connect()).await;
    let connection = connected
        .map_err(|_| LATE.to_owned())?
        .map_err(|error| format!("{error}: Exchange would keep its mail (450 4.4.317)"))?;
    let said = tls_line(&connection.dialogue().lines());
    connection.quit().await;
    Ok(said)
}

/// What the dialogue notes of a handshake.
fn tls_line(lines: &[String]) -> String {
    let mut noted = lines
        .iter()
        .filter_map(|line| line.trim().strip_prefix("TLS: "));
    let seen = noted.next().unwrap_or("no TLS");
    format!("{seen}, chain verified")
}

/// One message of the tenant, through the server to Exchange: whose it was taken for, or what was said instead. Internal is
/// to be seen only where the connector `promotes` (`cloud_services_mail_enabled`).
async fn delivered(
    server: &Server,
    exchange: &ExchangeIn,
    tenant: &Tenant,
    door: SocketAddr,
    source: IpAddr,
    promotes: bool,
) -> Result<String, String> {
    let domain = tenant.accepted_domains.iter().next();
    let domain = domain.ok_or("the tenant has no accepted domain")?.domain();
    let address = format!("gatepost-rehearsal@{domain}");
    let content = format!(
        "From: <{address}>\r\nTo: <{address}>\r\nSubject: certificate rehearsal\r\n\r\nNo one reads this.\r\n"
    );
    let mail = Mail::new(&address, &address, content);
    let roots = RootCertStore::empty();
    let client = ApplicationClient::new(door, "localhost", &roots)
        .map_err(|error| error.to_string())?
        .security(Security::Clear)
        .from_address(source);
    let answer = client
        .send(&mail)
        .await
        .map_err(|error| error.to_string())?;
    if !answer.accepted() {
        return Err(format!("not taken in: {}", answer.deciding().summary()));
    }
    let id = answer.deciding().lines.last().cloned().unwrap_or_default();
    let id = id.rsplit(' ').next().unwrap_or_default().to_owned();
    let tried = tokio::time::timeout(PATIENCE, first_attempt(server, &id)).await;
    let (outcome, reply) = tried.map_err(|_| LATE.to_owned())?;
    if outcome != "delivered" {
        return Err(format!("{outcome}: {reply}"));
    }
    let arrived = exchange.received_within(PATIENCE, |seen| seen.sender == address);
    let seen = arrived.await.map_err(|error| error.to_string())?;
    let attribution = seen.recipients.first().map(|to| &to.attribution);
    let (organization, by) = attribution.map_or(("nobody", None), |attribution| {
        (attribution.organization.name.as_str(), Some(attribution.by))
    });
    let identity = &seen.identity;
    match by {
        Some(By::Certificate) if organization == &*tenant.name && seen.is_internal() => {
            Ok(format!(
                "Exchange saw {identity}, and took the mail as {organization}'s by it, internal"
            ))
        }
        Some(By::Certificate) if organization == &*tenant.name && !promotes => Ok(format!(
            "Exchange saw {identity}, and took the mail as {organization}'s by it, external, as cloud_services_mail_enabled = false has it"
        )),
        Some(By::Certificate) if organization == &*tenant.name => Err(format!(
            "Exchange saw {identity}, and took the mail as {organization}'s by it, and yet as external"
        )),
        Some(By::Certificate) => Err(format!(
            "Exchange saw {identity}, and took the mail for {organization}'s"
        )),
        _ => Err(format!(
            "Exchange saw {identity}, and did not know the tenant by it: external mail, and what it relays or bounces is refused (550 5.7.64)"
        )),
    }
}

/// What became of the first attempt, by the trace: outcome and reply.
async fn first_attempt(server: &Server, id: &str) -> (String, String) {
    loop {
        server.tracer().flush().await;
        let query = Query {
            text: Some(id.to_owned()),
            ..Query::default()
        };
        let events = server.tracer().find(query).await.unwrap_or_default();
        let mut results = events.into_iter().filter_map(|event| match event.event {
            Event::Attempt { results, .. } => results.into_iter().next(),
            _ => None,
        });
        if let Some(result) = results.next() {
            return (result.outcome, result.reply);
        }
        tokio::time::sleep(LOOK).await;
    }
}
