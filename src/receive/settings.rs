//! What a listener is told by the configuration.

use crate::session::{BareNewlines, Service, TlsMode};
use crate::trust::certificate::Identity;
use ipnet::IpNet;
use std::net::SocketAddr;
use std::sync::Arc;

/// One `[[listener]]`.
#[derive(Clone, Debug)]
pub struct ListenerSettings {
    /// `name`.
    pub name: Arc<str>,
    /// `address`; port 0 picks a free one.
    pub address: SocketAddr,
    /// `service`.
    pub service: Service,
    /// `tls`.
    pub tls: TlsMode,
    /// `certificate`, loaded; `None` only where `tls` is none.
    pub identity: Option<Arc<Identity>>,
    /// `proxy_protocol_from`.
    pub proxy_protocol_from: Vec<IpNet>,
    /// `max_message_size`, octets.
    pub max_message_size: u64,
    /// `max_connections`.
    pub max_connections: usize,
    /// `ehlo_discard`, upper case.
    pub ehlo_discard: Vec<String>,
    /// `bare_newlines`.
    pub bare_newlines: BareNewlines,
    /// `auth_without_tls`.
    pub auth_without_tls: bool,
}
