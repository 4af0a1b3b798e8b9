//! The configuration file: TOML in, each room's settings out, every problem at once.

use crate::credentials::Account;
use crate::deliver::{InboundConnector, Relay, ServerTrust};
use crate::mail::{Domain, Secret};
use crate::receive::ListenerSettings;
use crate::route::Routes;
use crate::schedule::Law;
use crate::trust::certificate::Identity;
use crate::trust::{ExchangeOnline, Tenants};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// The checked configuration, in the words of the rooms.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `hostname`.
    pub hostname: Domain,
    /// `data_directory`.
    pub data_directory: PathBuf,
    /// `[[certificate]]`, loaded.
    pub identities: Vec<Arc<Identity>>,
    /// `[[listener]]`.
    pub listeners: Vec<ListenerSettings>,
    /// `[exchange_online]`, the receiving half.
    pub exchange_online: ExchangeOnline,
    /// When the endpoint data behind `published` was made (seconds since 1970), where it is used.
    pub endpoints_made: Option<u64>,
    /// `[exchange_online]`, the delivering half.
    pub server_trust: ServerTrust,
    /// `[[tenant]]`.
    pub tenants: Tenants,
    /// `[tenant.inbound_connector]`.
    pub inbound_connectors: Vec<Arc<InboundConnector>>,
    /// `[[application]]`.
    pub accounts: Vec<Arc<Account>>,
    /// `[[route]]`.
    pub routes: Routes,
    /// `[[relay]]`.
    pub relays: Vec<Arc<Relay>>,
    /// `[delivery.exchange]`.
    pub exchange_law: Law,
    /// `[delivery.mx]`.
    pub mx_law: Law,
    /// `[delivery.mx] source_addresses`, by stream.
    pub mx_source_addresses: Vec<(Arc<str>, Vec<std::net::IpAddr>)>,
    /// `[dns] servers`; `None` is the system's.
    pub dns_servers: Option<Vec<SocketAddr>>,
    /// `[trace] keep`.
    pub trace_keep: Duration,
    /// `[admin]`.
    pub admin: AdminSettings,
    /// `[log]`.
    pub log: LogSettings,
}

/// `[admin]`.
#[derive(Clone, Debug)]
pub struct AdminSettings {
    /// `address`.
    pub address: SocketAddr,
    /// `hosts`.
    pub hosts: Vec<String>,
    /// `token`; without one a file is written.
    pub token: Option<Secret>,
}

/// `[log]`.
#[derive(Clone, Debug)]
pub struct LogSettings {
    /// `format = "json"`.
    pub json: bool,
    /// `level`.
    pub level: tracing::Level,
}
