//! What a session is told, and what it may ask while it runs.

use crate::mail::{Domain, QueueId, ReversePath};
use crate::route::Routes;
use crate::smtp::extension::{Extension, discards};
use crate::trust::{Application, HalfProven, Tenants};
use std::net::IpAddr;
use std::sync::Arc;

/// `service` of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// Mail from Microsoft 365 over an outbound connector.
    Connector,
    /// Mail from applications and devices.
    Submission,
}

/// `tls` of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsMode {
    /// STARTTLS is offered and demanded before MAIL.
    StartTls,
    /// TLS from the first octet (RFC 8314).
    Implicit,
    /// STARTTLS is offered, clear text is served too.
    Optional,
    /// No TLS.
    None,
}

/// `bare_newlines` of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum BareNewlines {
    /// 554 5.6.0.
    #[default]
    Refuse,
    /// A bare CR or LF becomes CRLF before the header is split (submission only).
    Repair,
}

/// What holds for every session of one listener until the next reload.
#[derive(Clone, Debug)]
pub struct Policy {
    /// `hostname`
    pub hostname: Domain,
    /// `listener.name`
    pub listener: Arc<str>,
    /// `listener.service`
    pub service: Service,
    /// `listener.tls`
    pub tls: TlsMode,
    /// `listener.max_message_size`, octets
    pub max_message_size: u64,
    /// `listener.ehlo_discard`
    pub ehlo_discard: Vec<String>,
    /// `listener.bare_newlines`
    pub bare_newlines: BareNewlines,
    /// `listener.auth_without_tls`
    pub auth_without_tls: bool,
    /// `exchange_online.half_proven`
    pub half_proven: HalfProven,
    /// `[[tenant]]`
    pub tenants: Tenants,
    /// `[[route]]`
    pub routes: Routes,
}

impl Policy {
    /// Whether the configuration lets this extension be offered at all.
    #[must_use]
    pub fn allows(&self, extension: Extension) -> bool {
        !discards(&self.ehlo_discard, extension)
    }
}

/// The clock, as it is handed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds since 1970, for stamps and ids.
    pub unix_millis: u64,
    /// Milliseconds of a clock that only goes forward, for deadlines.
    pub ticks: u64,
}

impl Now {
    /// Seconds since 1970.
    #[must_use]
    pub fn unix_seconds(self) -> u64 {
        self.unix_millis / 1000
    }
}

/// What an address may submit without login.
#[derive(Clone, Debug)]
pub enum ByAddress {
    /// An entry takes this address and sender.
    Application(Arc<Application>),
    /// Entries take the address, none this sender.
    SenderNotAllowed(Arc<Application>),
    /// No entry takes the address.
    Unknown,
}

/// Where the policy in force is looked up, with every command between transactions: what was read in one piece with the
/// end of a transaction that began before a reload is judged by what that brought.
pub trait Policies: Send + Sync {
    /// The policy in force.
    fn in_force(&self) -> Arc<Policy>;
}

/// What a session asks of the rest of the house. Every answer is quick and never waits.
pub trait Conditions: Send + Sync {
    /// A fresh queue id.
    fn next_id(&self, now: Now) -> QueueId;
    /// Whether the store takes mail.
    fn store_ready(&self) -> bool;
    /// The fault that has held the tenant's connector for more than 15 minutes (product.md 6).
    fn connector_fault(&self, tenant: &str, now: Now) -> Option<String>;
    /// The application that an address is, for this sender.
    fn by_address(&self, address: IpAddr, sender: &ReversePath) -> ByAddress;
    /// An application that has logged in, as it is configured now; nothing where it is no more.
    fn renewed(&self, application: &Arc<Application>) -> Option<Arc<Application>>;
    /// Takes one message off the application's rate; false where it is used up.
    fn within_rate(&self, application: &str, now: Now) -> bool;
    /// Takes one off the 20 connector validation mails an hour of a tenant.
    fn within_validation_rate(&self, tenant: &str, now: Now) -> bool;
}
