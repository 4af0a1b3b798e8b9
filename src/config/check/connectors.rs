//! `[tenant.inbound_connector]`: where we deliver, and as whom Exchange would take us.

use super::super::raw::{InboundConnector as Raw, default};
use super::super::reader::{At, Reader, Scope, label};
use super::super::value::Table;
use super::listeners::reaches;
use super::named::Named;
use crate::deliver::InboundConnector;
use crate::mail::{Domain, DomainSet, TenantName};
use crate::receive::ListenerSettings;
use crate::session::Service;
use crate::smtp::extension::{Extension, discards};
use crate::trust::certificate::Identity;
use crate::trust::sender_name::SenderName;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// Ourselves, as a target that would be a loop.
pub(super) struct Own<'a> {
    pub(super) hostname: Option<&'a Domain>,
    pub(super) listeners: &'a [ListenerSettings],
}

impl Own<'_> {
    /// How many connector listeners offer XOORG, and how many do not.
    pub(super) fn connector_listeners_by_xoorg(&self) -> (usize, usize) {
        let own = self.listeners.iter();
        let (without, with): (Vec<_>, Vec<_>) = own
            .filter(|listener| listener.service == Service::Connector)
            .partition(|listener| discards(&listener.ehlo_discard, Extension::Xoorg));
        (with.len(), without.len())
    }

    /// Whether dialling `host` at `port` would reach us.
    pub(super) fn is_reached(&self, host: &str, port: u16) -> bool {
        match host.parse::<IpAddr>() {
            Ok(address) => {
                let target = SocketAddr::new(address, port);
                self.listeners
                    .iter()
                    .any(|listener| reaches(listener.address, target))
            }
            // Whatever port: what answers to our own name is no Exchange and no relay.
            Err(_) => self.hostname.is_some_and(|own| own.as_str() == host),
        }
    }
}

/// A connector with the place of its certificate, for comparisons between tenants.
pub(super) struct Connector {
    pub(super) settings: Arc<InboundConnector>,
    pub(super) identity: At<Arc<Identity>>,
}

pub(super) fn inbound_connector(
    reader: &mut Reader<'_>,
    scope: &Scope,
    key: &Table<Raw>,
    tenant: Option<&TenantName>,
    accepted: &DomainSet,
    certificates: &Named<Arc<Identity>>,
    own: &Own<'_>,
) -> Option<Connector> {
    let (table, scope) = reader.table(scope, "inbound_connector", key)?;
    let host = reader.required(&scope, "host", &table.host, super::host);
    let port = reader
        .whole(&scope, "port", &table.port, 1..=65_535)
        .map_or(default::CONNECTOR_PORT, |at| at.value);
    let certificate = reader.required(&scope, "certificate", &table.certificate, label);
    let identity = certificate
        .as_ref()
        .and_then(|name| certificates.find(reader, name))
        .flatten()
        .cloned();
    let flag = reader.flag(
        &scope,
        "cloud_services_mail_enabled",
        &table.cloud_services_mail_enabled,
    );
    let connections = reader.whole(
        &scope,
        "max_connections",
        &table.max_connections,
        1..=10_000,
    );
    let messages = reader.whole(
        &scope,
        "max_messages_per_connection",
        &table.max_messages_per_connection,
        1..=1_000_000,
    );
    if let Some(host) = &host
        && own.is_reached(&host.value, port)
    {
        reader.error(
            &host.spot,
            "is this smart host itself: mail would go round in circles",
        );
    }
    if let Some(flag) = flag.as_ref().filter(|flag| !flag.value) {
        reader.warn(
            &flag.spot,
            "without it Exchange takes everything that we deliver as external",
        );
    }
    if let (Some(certificate), Some(identity)) = (&certificate, &identity) {
        judge_name(reader, certificate, identity, accepted);
    }
    let settings = InboundConnector {
        tenant: Arc::clone(tenant?),
        host: host?.value.into(),
        port,
        identity: Arc::clone(identity.as_ref()?),
        cloud_services_mail_enabled: flag
            .map_or(default::CLOUD_SERVICES_MAIL_ENABLED, |at| at.value),
        max_connections: connections.map_or(default::CONNECTOR_CONNECTIONS, |at| at.value),
        max_messages_per_connection: messages.map_or(default::CONNECTOR_MESSAGES, |at| at.value),
    };
    Some(Connector {
        settings: Arc::new(settings),
        identity: At {
            value: identity?,
            spot: certificate?.spot,
        },
    })
}

/// Exchange attributes mail by the certificate's name, which must be an accepted domain (exchange-online.md 2.3).
fn judge_name(
    reader: &mut Reader<'_>,
    certificate: &At<String>,
    identity: &Identity,
    accepted: &DomainSet,
) {
    if accepted.iter().next().is_none() || identity.names.is_empty() {
        return; // told where they are missing
    }
    let sender_name = SenderName::of(&identity.names, accepted);
    if let Some(warning) = sender_name.warning(accepted) {
        reader.warn(&certificate.spot, warning);
    }
    match sender_name {
        SenderName::Exact(_) | SenderName::Below { .. } => {}
        SenderName::None => {
            let shown = identity.names.join(", ");
            reader.error(
                &certificate.spot,
                format!("no name of the certificate ({shown}) is an accepted domain of the tenant: Exchange would refuse or misattribute its mail (550 5.7.64)"),
            );
        }
    }
}
