//! How does a certificate come from an authority by itself? ACME (RFC 8555), one order at a time.
//!
//! The authority proves that a name is ours by fetching a token from port 80 of that name (http-01, RFC 8555 §8.3); the small
//! listener for it ([`challenge`]) is up only while an order runs. The private key stays the same from one certificate to the
//! next: then one file is replaced, and in one step, and a TLSA record that names the key stays true. Whether the new
//! certificate may take the place of the old one is not decided here.

pub mod challenge;
mod http;
pub mod schedule;

use crate::dns::Resolve;
use crate::mail::shown;
use crate::trust::certificate::Roots;
use challenge::Responder;
use instant_acme::{
    Account, AuthorizationStatus, ChallengeType, Error, Identifier, NewAccount, NewOrder, Order,
    OrderStatus, RetryPolicy,
};
use rcgen::{CertificateParams, CertificateSigningRequest, DistinguishedName, DnType, KeyPair};
use rustls_pki_types::PrivateKeyDer;
use std::fmt;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// A whole order, from the account to the certificate.
const BOUND: Duration = Duration::from_secs(300);
/// How long the authority may take to look at our tokens, and then to sign; it is asked again and again meanwhile.
const PATIENCE: Duration = Duration::from_secs(120);
/// The longest commonName (RFC 5280 appendix A.1, ub-common-name).
const LONGEST_COMMON_NAME: usize = 64;

/// Whether a host of a URL is this machine: only there clear text will do.
#[must_use]
pub fn is_loopback(host: &str) -> bool {
    host.parse::<std::net::IpAddr>()
        .is_ok_and(|own| own.is_loopback())
        || host == "localhost"
}

/// `[acme]`.
#[derive(Clone, Debug)]
pub struct Authority {
    /// `directory`: the URL that the authority is known by.
    pub directory: String,
    /// `contact`: as URLs (`mailto:`).
    pub contact: Vec<String>,
    /// `challenge_address`: where tokens are fetched.
    pub challenge_address: SocketAddr,
    /// `roots`, loaded: who vouches for the authority's own web server.
    pub roots: Arc<Roots>,
    /// Where the account's key is kept, in a file of its own for each directory.
    pub folder: PathBuf,
}

/// Why there is no certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The authority wants to be left alone for a while (RFC 8555 §6.6).
    RateLimited(String),
    /// It did not find the token, or does not want to sign.
    Refused(String),
    /// Something between us and it.
    Failed(String),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RateLimited(text) => write!(f, "the authority limits the rate: {text}"),
            Self::Refused(text) => write!(f, "the authority refuses: {text}"),
            Self::Failed(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for Fault {}

/// A certificate signing request (PKCS #10) for these names: all as SAN, the first as CN too where it fits.
///
/// # Errors
/// A name that no certificate can hold, or a key that cannot sign.
pub fn request(names: &[String], key: &KeyPair) -> Result<CertificateSigningRequest, rcgen::Error> {
    let mut params = CertificateParams::new(names.to_vec())?;
    params.distinguished_name = DistinguishedName::new();
    if let Some(first) = names.first().filter(|one| one.len() <= LONGEST_COMMON_NAME) {
        params
            .distinguished_name
            .push(DnType::CommonName, first.as_str());
    }
    params.serialize_request(key)
}

/// Orders a certificate for these names and this key; the chain in PEM form, leaf first.
///
/// # Errors
/// Why there is none; in bounded time.
pub async fn obtain(
    authority: &Authority,
    resolver: Arc<dyn Resolve>,
    names: &[String],
    key: &PrivateKeyDer<'_>,
) -> Result<String, Fault> {
    let obtained = tokio::time::timeout(BOUND, Box::pin(obtained(authority, resolver, names, key)));
    let late = || Fault::Failed("the authority did not come to an end in time".to_owned());
    obtained.await.map_err(|_| late())?
}

async fn obtained(
    authority: &Authority,
    resolver: Arc<dyn Resolve>,
    names: &[String],
    key: &PrivateKeyDer<'_>,
) -> Result<String, Fault> {
    let failed = |what: &str, error: &dyn fmt::Display| Fault::Failed(format!("{what}: {error}"));
    let key = KeyPair::try_from(key).map_err(|error| failed("the private key", &error))?;
    let request = request(names, &key).map_err(|error| failed("the request", &error))?;
    let account = account(authority, resolver).await?;
    let identifiers: Vec<Identifier> = names.iter().cloned().map(Identifier::Dns).collect();
    let order = account.new_order(&NewOrder::new(&identifiers)).await;
    let mut order = order.map_err(|error| account_fault(authority, "the order", &error))?;
    prove(authority, &mut order).await?;
    let finalized = order.finalize_csr(request.der()).await;
    finalized.map_err(|error| fault("the request", &error))?;
    let signed = order.poll_certificate(&patience()).await;
    signed.map_err(|error| fault("the certificate", &error))
}

/// Shows the tokens until the authority has seen them all.
async fn prove(authority: &Authority, order: &mut Order) -> Result<(), Fault> {
    let address = authority.challenge_address;
    let responder = Responder::start(address)
        .await
        .map_err(|error| Fault::Failed(format!("acme.challenge_address {address}: {error}")))?;
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization.map_err(|error| fault("an authorization", &error))?;
        if authorization.status == AuthorizationStatus::Valid {
            continue;
        }
        let name = shown(authorization.identifier().to_string().as_bytes());
        let mut challenge = authorization
            .challenge(ChallengeType::Http01)
            .ok_or_else(|| Fault::Refused(format!("{name}: no http-01")))?;
        responder.show(&challenge.token, challenge.key_authorization().as_str());
        let ready = challenge.set_ready().await;
        ready.map_err(|error| fault(&name, &error))?;
    }
    match order.poll_ready(&patience()).await {
        Ok(OrderStatus::Ready | OrderStatus::Valid) => Ok(()),
        Ok(OrderStatus::Invalid) => Err(Fault::Refused(why_invalid(order).await)),
        Ok(status) => Err(Fault::Failed(format!("the order stays {status:?}"))),
        Err(error) => Err(fault("the order", &error)),
    }
}

/// What the authority says of each name that it did not find proven.
async fn why_invalid(order: &mut Order) -> String {
    let mut said = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        if authorization.refresh().await.is_err() {
            continue;
        }
        let name = authorization.identifier().to_string();
        let errors = authorization.challenges.iter();
        let errors = errors.filter_map(|challenge| challenge.error.as_ref());
        let errors = errors.filter_map(|problem| problem.detail.as_deref());
        said.extend(errors.map(|detail| shown(format!("{name}: {detail}").as_bytes())));
    }
    if said.is_empty() {
        "a name is not proven".to_owned()
    } else {
        said.join("; ")
    }
}

fn patience() -> RetryPolicy {
    RetryPolicy::new().timeout(PATIENCE)
}

/// The account of before, or a new one.
async fn account(authority: &Authority, resolver: Arc<dyn Resolve>) -> Result<Account, Fault> {
    let client = http::Client::new(&authority.roots, resolver).map_err(Fault::Failed)?;
    let builder = Account::builder_with_http(Box::new(client));
    let path = account_file(authority);
    let at = |error: &dyn fmt::Display| Fault::Failed(format!("{}: {error}", path.display()));
    match std::fs::read(&path) {
        Ok(bytes) => {
            let credentials = serde_json::from_slice(&bytes).map_err(|_| at(&"no ACME account"))?;
            let account = builder.from_credentials(credentials).await;
            account.map_err(|error| account_fault(authority, "the account", &error))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let contact: Vec<&str> = authority.contact.iter().map(String::as_str).collect();
            let new = NewAccount {
                contact: &contact,
                terms_of_service_agreed: true,
                only_return_existing: false,
            };
            let created = builder
                .create(&new, authority.directory.clone(), None)
                .await;
            let (account, credentials) = created.map_err(|error| fault("the account", &error))?;
            let bytes = serde_json::to_vec(&credentials).map_err(|error| at(&error))?;
            write_private(&path, &bytes).map_err(|error| at(&error))?;
            Ok(account)
        }
        Err(error) => Err(at(&error)),
    }
}

/// [`fault`], and where the authority has forgotten the account (RFC 8555 §6.7, accountDoesNotExist), which it would say for
/// ever: which file to move away.
fn account_fault(authority: &Authority, what: &str, error: &Error) -> Fault {
    let forgotten = |kind: &str| kind.ends_with(":accountDoesNotExist");
    match (fault(what, error), error) {
        (Fault::Refused(text), Error::Api(problem))
            if problem.r#type.as_deref().is_some_and(forgotten) =>
        {
            Fault::Refused(format!(
                "{text}: move {} away, and the next try makes a new account",
                account_file(authority).display()
            ))
        }
        (fault, _) => fault,
    }
}

fn account_file(authority: &Authority) -> PathBuf {
    use sha2::{Digest as _, Sha256};
    let digest = Sha256::digest(authority.directory.as_bytes());
    let id: String = digest
        .iter()
        .take(4)
        .map(|octet| format!("{octet:02x}"))
        .collect();
    authority.folder.join(format!("acme-account-{id}.json"))
}

/// A file that was not there, 0600, on the disk.
fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

/// What a library's error means; the authority's text is escaped and cut.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the library's error is open; what is not a problem document is between us and the authority"
)]
fn fault(what: &str, error: &Error) -> Fault {
    match error {
        Error::Api(problem) => {
            let text = format!("{what}: {}", shown(problem.to_string().as_bytes()));
            let limited = |kind: &str| kind.ends_with(":rateLimited");
            if problem.r#type.as_deref().is_some_and(limited) || problem.status == Some(429) {
                Fault::RateLimited(text)
            } else if problem.status.is_some_and(|status| status >= 500) {
                Fault::Failed(text)
            } else {
                Fault::Refused(text)
            }
        }
        error => Fault::Failed(format!("{what}: {}", shown(error.to_string().as_bytes()))),
    }
}
