//! What delivery is told by the configuration.

use crate::dns::Resolve;
use crate::mail::{Domain, Secret, TenantName};
use crate::schedule::Law;
use crate::trust::Tenants;
use crate::trust::certificate::{Identity, Roots};
use std::net::IpAddr;
use std::sync::Arc;

/// Everything that delivery is told; exchanged as a whole at reload.
#[derive(Clone, Debug)]
pub struct DeliverSettings {
    /// `hostname`: said in EHLO.
    pub hostname: Domain,
    /// `[tenant.inbound_connector]`.
    pub connectors: Vec<Arc<InboundConnector>>,
    /// How Exchange's certificate is proven.
    pub server_trust: ServerTrust,
    /// `[delivery.exchange]`.
    pub exchange_law: Law,
    /// `[delivery.mx]`, also for relays.
    pub mx_law: Law,
    /// `[[relay]]`.
    pub relays: Vec<Arc<Relay>>,
    /// `[delivery.mx] source_addresses`, by stream.
    pub source_addresses: Vec<(Arc<str>, Vec<IpAddr>)>,
    /// The port of mail exchangers: 25, but in the lab.
    pub mx_port: u16,
    /// For their accepted domains, in which the client certificate's name must lie.
    pub tenants: Tenants,
    /// Host names to addresses.
    pub resolver: Arc<dyn Resolve>,
}

/// How Exchange Online's server certificate is proven.
#[derive(Clone, Debug)]
pub struct ServerTrust {
    /// `server_certificate_names`; `*.` stands for any depth here.
    pub names: Vec<String>,
    /// `server_certificate_roots`, loaded.
    pub roots: Arc<Roots>,
}

/// `[tenant.inbound_connector]`: Exchange's inbound connector, where we deliver.
#[derive(Clone, Debug)]
pub struct InboundConnector {
    /// Whose.
    pub tenant: TenantName,
    /// `host`: resolved anew for each connection; an address works too.
    pub host: Arc<str>,
    /// `port`, by default 25.
    pub port: u16,
    /// `certificate`, loaded: the client certificate that attributes the mail to the tenant.
    pub identity: Arc<Identity>,
    /// `cloud_services_mail_enabled`.
    pub cloud_services_mail_enabled: bool,
    /// `max_connections`.
    pub max_connections: usize,
    /// `max_messages_per_connection`.
    pub max_messages_per_connection: usize,
}

/// `tls` of a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelayTls {
    /// TLS with a verified certificate.
    Verify,
    /// TLS, certificate not verified.
    Encrypt,
    /// TLS where offered.
    Opportunistic,
}

/// One `[[relay]]`.
#[derive(Clone, Debug)]
pub struct Relay {
    /// `name`.
    pub name: Arc<str>,
    /// `host`.
    pub host: Arc<str>,
    /// `port`.
    pub port: u16,
    /// `tls`.
    pub tls: RelayTls,
    /// `server_certificate_roots`, loaded: what [`RelayTls::Verify`] verifies with.
    pub roots: Arc<Roots>,
    /// `username` and `password`.
    pub credentials: Option<(String, Secret)>,
}
