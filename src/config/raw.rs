//! The configuration file as serde structs: each key of the contract with its type and its default, and no judgement.
//!
//! A key that is not here is an error (`deny_unknown_fields`). Defaults that are values stand in [`default`]; where the
//! doc line names none, an absent key means "none". Strings still hold their `${…}`; the check replaces them.

use super::value::{ByLabel, Date, Key, List, Table, Tables, WordOrList};
use serde::Deserialize;

/// Defaults, as they would be written in the file.
pub(super) mod default {
    pub(in super::super) const DATA_DIRECTORY: &str = "/var/lib/gatepost";
    pub(in super::super) const ACME_DIRECTORY: &str =
        "https://acme-v02.api.letsencrypt.org/directory";
    pub(in super::super) const ACME_CHALLENGE_ADDRESS: &str = "0.0.0.0:80";
    pub(in super::super) const MAX_MESSAGE_SIZE: u64 = 150 * 1024 * 1024;
    pub(in super::super) const MAX_CONNECTIONS: usize = 1000;
    pub(in super::super) const CLIENT_CERTIFICATE_NAMES: &[&str] = &["mail.protection.outlook.com"];
    pub(in super::super) const SERVER_CERTIFICATE_NAMES: &[&str] = &[
        "mail.protection.outlook.com",
        "*.mail.protection.outlook.com",
        "*.mx.microsoft",
    ];
    pub(in super::super) const PROOFS: usize = 2;
    pub(in super::super) const CONNECTOR_PORT: u16 = 25;
    pub(in super::super) const CLOUD_SERVICES_MAIL_ENABLED: bool = true;
    pub(in super::super) const CONNECTOR_CONNECTIONS: usize = 10;
    pub(in super::super) const CONNECTOR_MESSAGES: usize = 199;
    pub(in super::super) const RELAY_PORT: u16 = 587;
    pub(in super::super) const EXCHANGE_RETRY: &[&str] = &["1m", "1m", "5m", "10m", "15m"];
    pub(in super::super) const EXCHANGE_EXPIRE: &str = "48h";
    pub(in super::super) const EXCHANGE_HOLD: &str = "24h";
    pub(in super::super) const MX_RETRY: &[&str] = &["5m", "10m", "20m", "40m", "1h", "2h"];
    pub(in super::super) const MX_EXPIRE: &str = "72h";
    pub(in super::super) const DELAY_NOTICE: &str = "4h";
    pub(in super::super) const TRACE_KEEP: &str = "30d";
    pub(in super::super) const ADMIN_ADDRESS: &str = "127.0.0.1:8025";
}

/// The whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct File {
    /// Banner, EHLO and `Received: by`. Required.
    pub(super) hostname: Key<String>,
    /// Where the spool, trace and index live. Default `/var/lib/gatepost`.
    pub(super) data_directory: Key<String>,
    /// `[store]`.
    pub(super) store: Table<Store>,
    /// `[acme]`.
    pub(super) acme: Table<Acme>,
    /// `[[certificate]]`.
    pub(super) certificate: Tables<Certificate>,
    /// `[[listener]]`.
    pub(super) listener: Tables<Listener>,
    /// `[exchange_online]`.
    pub(super) exchange_online: Table<ExchangeOnline>,
    /// `[[tenant]]`.
    pub(super) tenant: Tables<Tenant>,
    /// `[[application]]`.
    pub(super) application: Tables<Application>,
    /// `[[route]]`.
    pub(super) route: Tables<Route>,
    /// `[[relay]]`.
    pub(super) relay: Tables<Relay>,
    /// `[delivery]`.
    pub(super) delivery: Table<Delivery>,
    /// `[dns]`.
    pub(super) dns: Table<Dns>,
    /// `[trace]`.
    pub(super) trace: Table<Trace>,
    /// `[admin]`.
    pub(super) admin: Table<Admin>,
    /// `[log]`.
    pub(super) log: Table<Log>,
}

/// `[store]`: where accepted mail is kept.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Store {
    /// `embedded` (default) or `postgres`, which is not built.
    pub(super) engine: Key<String>,
    /// Data base of `engine = "postgres"`; a secret.
    pub(super) url: Key<String>,
}

/// `[[certificate]]`: a chain with its key, used by name.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Certificate {
    /// Required.
    pub(super) name: Key<String>,
    /// PEM file, leaf first, then every intermediate. Required.
    pub(super) chain: Key<String>,
    /// PEM file. Required.
    pub(super) key: Key<String>,
    /// Renewed by the authority of `[acme]`. Default false.
    pub(super) acme: Key<bool>,
    /// What it is ordered for. Required with `acme`.
    pub(super) names: Key<List>,
}

/// `[acme]`: the authority that signs certificates with `acme = true`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Acme {
    /// URL. Default Let's Encrypt's.
    pub(super) directory: Key<String>,
    /// Addresses that the authority may write to. Default none.
    pub(super) contact: Key<List>,
    /// Where tokens are fetched. Default `0.0.0.0:80`.
    pub(super) challenge_address: Key<String>,
    /// `system` (default) or a PEM file: who vouches for the authority's web server.
    pub(super) roots: Key<String>,
    /// Required, and true.
    pub(super) terms_of_service_agreed: Key<bool>,
}

/// `[[listener]]`: a socket that takes mail.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Listener {
    /// Required.
    pub(super) name: Key<String>,
    /// Address and port; port 0 picks one. Required.
    pub(super) address: Key<String>,
    /// `connector` or `submission`. Required.
    pub(super) service: Key<String>,
    /// `starttls` (default), `implicit`, `optional` or `none`.
    pub(super) tls: Key<String>,
    /// Name of a `[[certificate]]`. Required unless `tls = "none"`.
    pub(super) certificate: Key<String>,
    /// CIDR blocks that must speak PROXY. Default none.
    pub(super) proxy_protocol_from: Key<List>,
    /// SIZE (RFC 1870). Default `150MiB`.
    pub(super) max_message_size: Key<String>,
    /// Default 1000.
    pub(super) max_connections: Key<i64>,
    /// Extensions not to offer. Default none.
    pub(super) ehlo_discard: Key<List>,
    /// `refuse` (default) or `repair`.
    pub(super) bare_newlines: Key<String>,
    /// AUTH also outside TLS. Default false.
    pub(super) auth_without_tls: Key<bool>,
}

/// `[exchange_online]`: how Microsoft 365 proves itself.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ExchangeOnline {
    /// Default `mail.protection.outlook.com`.
    pub(super) client_certificate_names: Key<List>,
    /// `system` (default) or a PEM file.
    pub(super) client_certificate_roots: Key<String>,
    /// Default Microsoft's three.
    pub(super) server_certificate_names: Key<List>,
    /// `system` (default) or a PEM file.
    pub(super) server_certificate_roots: Key<String>,
    /// `published` (default) and CIDR blocks.
    pub(super) networks: Key<List>,
    /// `defer` (default) or `refuse`.
    pub(super) half_proven: Key<String>,
    /// JSON file of Microsoft's endpoint data. Default the shipped copy.
    pub(super) endpoints: Key<String>,
}

/// `[[tenant]]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Tenant {
    /// Required.
    pub(super) name: Key<String>,
    /// GUID. Required.
    pub(super) tenant_id: Key<String>,
    /// Domains. Required.
    pub(super) accepted_domains: Key<List>,
    /// Default `accepted_domains`.
    pub(super) originator_orgs: Key<List>,
    /// `enforce` (default) or `report`.
    pub(super) gate: Key<String>,
    /// Date; needed with `gate = "report"`.
    pub(super) gate_report_until: Key<Date>,
    /// Default 2.
    pub(super) proofs: Key<i64>,
    /// Optional proof.
    pub(super) secret_header: Table<SecretHeader>,
    /// `refuse` (default) or `allow`.
    pub(super) forwarded_senders: Key<String>,
    /// Optional loop guard.
    pub(super) loop_header: Table<LoopHeader>,
    /// Where we deliver.
    pub(super) inbound_connector: Table<InboundConnector>,
}

/// `secret_header`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct SecretHeader {
    /// Field name. Required.
    pub(super) name: Key<String>,
    /// Required; a secret.
    pub(super) value: Key<String>,
    /// Taken as well while the value is rotated; a secret.
    pub(super) previous: Key<WordOrList>,
    /// Without it nothing passes. Default false.
    pub(super) required: Key<bool>,
}

/// `loop_header`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct LoopHeader {
    /// Field name. Required.
    pub(super) name: Key<String>,
    /// Required; a secret.
    pub(super) value: Key<String>,
    /// Recognised as well while the value is rotated; a secret.
    pub(super) previous: Key<WordOrList>,
}

/// `[tenant.inbound_connector]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct InboundConnector {
    /// Name or address. Required.
    pub(super) host: Key<String>,
    /// Default 25.
    pub(super) port: Key<i64>,
    /// Name of a `[[certificate]]`. Required.
    pub(super) certificate: Key<String>,
    /// Default true.
    pub(super) cloud_services_mail_enabled: Key<bool>,
    /// Default 10.
    pub(super) max_connections: Key<i64>,
    /// Default 199.
    pub(super) max_messages_per_connection: Key<i64>,
}

/// `[[application]]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Application {
    /// Required.
    pub(super) name: Key<String>,
    /// Name of a `[[tenant]]`. Required.
    pub(super) tenant: Key<String>,
    /// Without it the address is the proof.
    pub(super) username: Key<String>,
    /// PHC string; a secret.
    pub(super) password_hash: Key<String>,
    /// Envelope and From: senders. Required.
    pub(super) senders: Key<List>,
    /// CIDR blocks. Default anywhere, with a `username`.
    pub(super) networks: Key<List>,
    /// Default false.
    pub(super) internal: Key<bool>,
    /// Failure reports go here instead of to the sender.
    pub(super) bounces_to: Key<String>,
    /// Label.
    pub(super) stream: Key<String>,
    /// Such as `600/hour`.
    pub(super) rate: Key<String>,
}

/// `[[route]]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Route {
    /// Default every tenant.
    pub(super) tenant: Key<String>,
    /// `accepted`, `any` or a list. Required.
    pub(super) recipients: Key<WordOrList>,
    /// `connector` or `submission`; default both.
    pub(super) from: Key<String>,
    /// Default every stream.
    pub(super) stream: Key<String>,
    /// `exchange`, `mx` or `relay:NAME`. Required.
    pub(super) via: Key<String>,
}

/// `[[relay]]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Relay {
    /// Required.
    pub(super) name: Key<String>,
    /// Name or address. Required.
    pub(super) host: Key<String>,
    /// Default 587.
    pub(super) port: Key<i64>,
    /// `verify` (default), `encrypt` or `opportunistic`.
    pub(super) tls: Key<String>,
    /// For `tls = "verify"`: `system` (default) or a PEM file.
    pub(super) server_certificate_roots: Key<String>,
    /// With `password`.
    pub(super) username: Key<String>,
    /// With `username`; a secret.
    pub(super) password: Key<String>,
}

/// `[delivery]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Delivery {
    /// `[delivery.exchange]`.
    pub(super) exchange: Table<ExchangeLaw>,
    /// `[delivery.mx]`.
    pub(super) mx: Table<MxLaw>,
}

/// `[delivery.exchange]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ExchangeLaw {
    /// Waits; the last repeats. Default 1m, 1m, 5m, 10m, 15m.
    pub(super) retry: Key<List>,
    /// Default `48h`.
    pub(super) expire: Key<String>,
    /// Default `24h`.
    pub(super) hold_on_connector_fault: Key<String>,
    /// Default `4h`; `0s` for none.
    pub(super) delay_notice: Key<String>,
}

/// `[delivery.mx]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct MxLaw {
    /// Waits; the last repeats. Default 5m, 10m, 20m, 40m, 1h, 2h.
    pub(super) retry: Key<List>,
    /// Default `72h`.
    pub(super) expire: Key<String>,
    /// Default `4h`; `0s` for none.
    pub(super) delay_notice: Key<String>,
    /// Addresses to send from, by stream. Default the system's choice.
    pub(super) source_addresses: Key<ByLabel>,
}

/// `[dns]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Dns {
    /// `system` (default) or a list of addresses.
    pub(super) servers: Key<WordOrList>,
}

/// `[trace]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Trace {
    /// Default `30d`.
    pub(super) keep: Key<String>,
}

/// `[admin]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Admin {
    /// Default `127.0.0.1:8025`.
    pub(super) address: Key<String>,
    /// Further host names of the API. Default none.
    pub(super) hosts: Key<List>,
    /// A secret. Default one that is written to the data directory.
    pub(super) token: Key<String>,
}

/// `[log]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Log {
    /// `text` (default) or `json`.
    pub(super) format: Key<String>,
    /// `info` by default.
    pub(super) level: Key<String>,
}
