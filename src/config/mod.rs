//! What does the configuration file say, and what is wrong with it? TOML in, each room's settings out, every problem
//! at once.
//!
//! [`raw`] is the file as serde structs, [`check`] turns it into [`Settings`]. A wrong value or type is a [`Problem`] at
//! its key and line, and reading goes on, as it does behind an unknown key; only a file that cannot be read or is not TOML is
//! [`Unreadable`]. No message holds the value of a secret, nor an excerpt of the file.

mod check;
mod expand;
mod exposed;
mod identity;
pub mod pem;
mod problem;
mod raw;
mod reader;
mod roots;
mod units;
mod value;

pub use exposed::foreign;
pub use problem::{Problem, Severity, Unreadable};

use crate::acme::Authority;
use crate::credentials::Account;
use crate::deliver::{InboundConnector, Relay, ServerTrust};
use crate::dns::Resolve;
use crate::mail::{Domain, Secret, TenantName};
use crate::receive::{ListenerSettings, Service};
use crate::route::Routes;
use crate::schedule::Law;
use crate::trust::certificate::{Identity, Origin, Roots};
use crate::trust::chain::Chain;
use crate::trust::endpoints::Published;
use crate::trust::sender_name::SenderName;
use crate::trust::{ExchangeOnline, Tenants};
use serde::Deserialize as _;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The checked configuration, in the words of the rooms.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `hostname`.
    pub hostname: Domain,
    /// `data_directory`.
    pub data_directory: PathBuf,
    /// `[[certificate]]`, loaded.
    pub identities: Vec<Arc<Identity>>,
    /// The roots of the system and of the Microsoft set: what a certificate that takes the place of another is judged by.
    pub known_roots: Arc<Roots>,
    /// `[acme]`.
    pub acme: Option<Authority>,
    /// The `[[certificate]]`s with `acme = true`.
    pub renewed: Vec<Arc<str>>,
    /// `[[listener]]`.
    pub listeners: Vec<ListenerSettings>,
    /// `[exchange_online]`, the receiving half.
    pub exchange_online: ExchangeOnline,
    /// When the endpoint data behind `published` was made (seconds since 1970), where it is used.
    pub endpoints_made: Option<u64>,
    /// The endpoint data itself: what a reload compares newer data with.
    pub endpoints: Published,
    /// A reload found a file with endpoint data that cannot be true, and kept the data in force.
    pub endpoints_rejected: bool,
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
    /// Stands in for DNS and for the port of mail exchangers. Never out of a file: the lab and scenarios put theirs here.
    pub outside: Option<Outside>,
    /// `[dns] servers`; `None` is the system's.
    pub dns_servers: Option<Vec<SocketAddr>>,
    /// `[trace] keep`.
    pub trace_keep: Duration,
    /// `[admin]`.
    pub admin: AdminSettings,
    /// `[log]`.
    pub log: LogSettings,
}

/// A world outside that is not the real one.
#[derive(Clone, Debug)]
pub struct Outside {
    /// In the place of DNS.
    pub resolver: Arc<dyn Resolve>,
    /// In the place of port 25.
    pub mx_port: u16,
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

/// What came out of a file that could be read.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// `None` where a problem is an error.
    pub settings: Option<Settings>,
    /// In the order of the lines.
    pub problems: Vec<Problem>,
    /// Whether one of them is a key that nobody knows.
    pub has_unknown_key: bool,
    /// `[[certificate]]`, in the order of the file.
    pub certificates: Vec<Certificate>,
    /// `[acme]`, also where the configuration is refused: the first certificate is ordered before it can be well.
    pub acme: Option<Authority>,
}

impl Loaded {
    /// Whether the configuration is refused.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        self.settings.is_none()
    }
}

/// One `[[certificate]]` as far as it could be read, also where the configuration is refused.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// `name`.
    pub name: Option<String>,
    /// Of the table, counted from 1.
    pub line: usize,
    /// `chain` and `key`, where both name a file.
    pub origin: Option<Origin>,
    /// What the chain says, where it could be read.
    pub chain: Option<Chain>,
    /// SAN dNSNames of the leaf, else the subject CN.
    pub names: Vec<String>,
    /// Whether the chain leads to a root of the system or of the Microsoft set, as far as names tell.
    pub known_root: bool,
    /// Whether the key belongs to the leaf; `None` where one of them could not be read.
    pub key_fits: Option<bool>,
    /// What it is ordered for with `acme = true`; else empty.
    pub acme_names: Vec<String>,
    /// The listeners that show it.
    pub listeners: Vec<ListenerUse>,
    /// The inbound connectors that it is presented to.
    pub connectors: Vec<ConnectorUse>,
}

/// A listener that shows a certificate.
#[derive(Clone, Debug)]
pub struct ListenerUse {
    /// `name`.
    pub name: Arc<str>,
    /// `service`.
    pub service: Service,
    /// Whether the certificate covers `hostname`; `None` without a host name.
    pub covers_hostname: Option<bool>,
}

/// A tenant whose inbound connector a certificate is presented to.
#[derive(Clone, Debug)]
pub struct ConnectorUse {
    /// `tenant.name`.
    pub tenant: TenantName,
    /// `host`.
    pub host: Arc<str>,
    /// How the names stand to the tenant's accepted domains.
    pub sender_name: SenderName,
}

/// Files that are looked at in the place of those that a `[[certificate]]` names.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// `certificate.name`.
    pub name: &'a str,
    /// In the place of `chain`.
    pub chain: &'a Path,
    /// In the place of `key`.
    pub key: &'a Path,
}

/// What a configuration means depends on: handed in, so that the same file reads the same in a test.
pub struct Surroundings<'a> {
    /// `${NAME}`.
    pub environment: &'a dyn Fn(&str) -> Option<OsString>,
    /// `"system"` roots.
    pub system_roots: &'a dyn Fn() -> Arc<Roots>,
    /// Now, for dates of certificates and of `gate_report_until`.
    pub unix_seconds: u64,
    /// At a reload the endpoint data in force: implausible newer data does not replace it, and is no error.
    pub endpoints_in_force: Option<&'a Published>,
    /// A certificate that is tried before it is put in its place.
    pub candidate: Option<Candidate<'a>>,
}

/// Reads and checks a configuration file.
///
/// # Errors
/// The file cannot be read or is not TOML.
pub fn load(path: &Path) -> Result<Loaded, Unreadable> {
    load_beside(path, None, None)
}

/// [`load`] with another chain and key in the place of a certificate's own.
///
/// # Errors
/// The file cannot be read or is not TOML.
pub fn load_with(path: &Path, candidate: Option<Candidate<'_>>) -> Result<Loaded, Unreadable> {
    load_beside(path, None, candidate)
}

/// [`reload`] with another chain and key in the place of a certificate's own.
///
/// # Errors
/// The file cannot be read or is not TOML.
pub fn reload_with(
    path: &Path,
    endpoints_in_force: &Published,
    candidate: Candidate<'_>,
) -> Result<Loaded, Unreadable> {
    load_beside(path, Some(endpoints_in_force), Some(candidate))
}

/// [`load`] for a server that runs: endpoint data that cannot be true does not refuse the rest, the data in force stay.
///
/// # Errors
/// The file cannot be read or is not TOML.
pub fn reload(path: &Path, endpoints_in_force: &Published) -> Result<Loaded, Unreadable> {
    load_beside(path, Some(endpoints_in_force), None)
}

fn load_beside(
    path: &Path,
    endpoints_in_force: Option<&Published>,
    candidate: Option<Candidate<'_>>,
) -> Result<Loaded, Unreadable> {
    let system_roots = std::cell::OnceCell::new();
    let surroundings = Surroundings {
        environment: &|name| std::env::var_os(name),
        system_roots: &|| Arc::clone(system_roots.get_or_init(|| Arc::new(roots::system()))),
        unix_seconds: unix_seconds(),
        endpoints_in_force,
        candidate,
    };
    load_in(path, &surroundings)
}

/// [`load`], in the given surroundings.
///
/// # Errors
/// The file cannot be read or is not TOML.
pub fn load_in(path: &Path, surroundings: &Surroundings<'_>) -> Result<Loaded, Unreadable> {
    let unreadable = |line, text| Unreadable {
        file: path.to_owned(),
        line,
        text,
    };
    let bytes = std::fs::read(path)
        .map_err(|error| unreadable(None, format!("cannot be read: {error}")))?;
    let source = std::str::from_utf8(&bytes).map_err(|error| {
        let line = bytes
            .iter()
            .take(error.valid_up_to())
            .filter(|&&octet| octet == b'\n')
            .count()
            + 1;
        unreadable(Some(line), "not UTF-8, which TOML must be".to_owned())
    })?;
    parse(path, source, surroundings)
}

/// Checks the text of a configuration that stands (or would stand) in `path`.
///
/// # Errors
/// It is not TOML.
pub fn parse(
    path: &Path,
    source: &str,
    surroundings: &Surroundings<'_>,
) -> Result<Loaded, Unreadable> {
    let (raw, unknown_keys) = raw(path, source)?;
    let mut reader = reader::Reader::new(path, source, surroundings);
    let (settings, certificates, acme) = check::check(&raw, &mut reader);
    let mut problems = reader.problems;
    let has_unknown_key = !unknown_keys.is_empty();
    problems.extend(unknown_keys);
    problems.sort_by_key(|problem| problem.line);
    let refused = problems
        .iter()
        .any(|problem| problem.severity == Severity::Error);
    Ok(Loaded {
        settings: settings.filter(|_| !refused),
        problems,
        has_unknown_key,
        certificates,
        acme,
    })
}

/// The file without the keys that nobody knows, and a problem for each of these.
fn raw(path: &Path, source: &str) -> Result<(raw::File, Vec<Problem>), Unreadable> {
    const MOST: usize = 100;
    let unreadable = |error| Unreadable::from_toml(path, source, &error);
    let mut table = toml::de::DeTable::parse(source).map_err(unreadable)?;
    let mut unknown = Vec::new();
    loop {
        // serde stops at the first one.
        let error = match raw::File::deserialize(toml::Deserializer::from(table.clone())) {
            Ok(raw) => return Ok((raw, unknown)),
            Err(error) => error,
        };
        match Problem::unknown_key(path, source, &error) {
            Some((problem, offset))
                if unknown.len() < MOST && problem::take_out(table.get_mut(), offset) =>
            {
                unknown.push(problem);
            }
            _ => return Err(unreadable(error)),
        }
    }
}

/// The line on which a key of the file stands, dotted as in [`Problem::key`]: for findings of others than the check. Of the
/// innermost table on its way, where the key is not there; 1 where nothing of it is.
#[must_use]
pub fn line_of_key(path: &Path, key: &str) -> usize {
    std::fs::read_to_string(path).map_or(1, |source| problem::line_of_key(&source, key))
}

/// What `"system"` means on this machine, for who hands in [`Surroundings`] of his own.
#[must_use]
pub fn system_roots() -> Roots {
    roots::system()
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one place where the configuration reads the clock"
)]
fn unix_seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
