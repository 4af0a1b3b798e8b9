//! What does Exchange Online make of what we deliver? The simulated inbound side: one SMTP server for all tenants.
//!
//! It offers what the business endpoint offers, asks for a client certificate and judges it after the handshake, refuses
//! relaying as 5.7.64, and keeps each message with its exact bytes, its tenant, and whether it was taken as internal.
//! The dialogue itself is in [`session`].

pub(super) mod grammar;
mod session;

use super::border::Entry;
use super::certificates::{Authority, Issued, Leaf};
use super::fields::Section;
use super::organization::{Attribution, ClientIdentity, Organization};
use super::script::{Script, Step};
use super::stand::{Inbox, KEPT, accept, lock};
use super::wire::{self, Dialogue, TlsSeen};
use super::{LabError, Transfer};
use rustls::{RootCertStore, ServerConfig};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, broadcast};
use tokio::task::JoinHandle;

/// How long [`ExchangeIn::received`] waits.
const WAIT: Duration = Duration::from_secs(20);

/// The connections that are served at once.
const CONNECTIONS: usize = 256;

/// How the simulated Exchange is set up.
#[derive(Clone, Debug)]
pub struct ExchangeOptions {
    /// Its tenants.
    pub organizations: Vec<Arc<Organization>>,
    /// Its certificate.
    pub identity: Issued,
    /// Whom it trusts to sign client certificates.
    pub roots: RootCertStore,
    /// Where it listens.
    pub address: SocketAddr,
    /// Extensions that it does not offer, upper case.
    pub hidden: Vec<String>,
    /// How long it waits for each line.
    pub patience: Duration,
}

impl ExchangeOptions {
    /// On a free port of loopback, with a certificate of this authority, trusting it.
    ///
    /// # Errors
    /// No certificate could be made.
    pub fn new(authority: &Authority, organizations: Vec<Organization>) -> Result<Self, LabError> {
        Ok(Self {
            organizations: organizations.into_iter().map(Arc::new).collect(),
            identity: authority.issue(&Leaf::exchange())?,
            roots: authority.roots()?,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            hidden: Vec::new(),
            patience: Duration::from_secs(60),
        })
    }

    /// Does not offer this extension.
    #[must_use]
    pub fn hide(mut self, keyword: &str) -> Self {
        self.hidden.push(keyword.to_ascii_uppercase());
        self
    }

    /// Shows this certificate instead.
    #[must_use]
    pub fn identity(mut self, identity: Issued) -> Self {
        self.identity = identity;
        self
    }
}

/// One RCPT that was accepted.
#[derive(Clone, Debug)]
pub struct RecipientSeen {
    /// The address.
    pub address: String,
    /// Its parameters, as given.
    pub parameters: Vec<String>,
    /// Whose the copy is.
    pub attribution: Attribution,
}

/// One message that the simulated Exchange took.
#[derive(Clone, Debug)]
pub struct Received {
    /// The connection, counted from 1: to see what shares one.
    pub connection: u64,
    /// The how-manieth message on it, from 1.
    pub position: usize,
    /// The smart host's address.
    pub peer: SocketAddr,
    /// Its EHLO name.
    pub helo: String,
    /// TLS, where there was some.
    pub tls: Option<TlsSeen>,
    /// Its client certificate, as Exchange judged it.
    pub identity: ClientIdentity,
    /// Envelope sender; empty is null.
    pub sender: String,
    /// Parameters of MAIL, as given.
    pub parameters: Vec<String>,
    /// Envelope recipients.
    pub recipients: Vec<RecipientSeen>,
    /// How the content came: chunks, or DATA.
    pub transfer: Transfer,
    /// The exact bytes of the content.
    pub content: Vec<u8>,
    /// The message as a mailbox shows it, and whether it is internal.
    pub entry: Entry,
    /// The reply.
    pub reply: String,
    /// What was said on the connection so far.
    pub dialogue: Dialogue,
}

impl Received {
    /// The tenant that the message was attributed to.
    #[must_use]
    pub fn tenant(&self) -> &str {
        self.recipients.first().map_or("", |recipient| {
            recipient.attribution.organization.name.as_str()
        })
    }

    /// Whether Exchange took it as internal.
    #[must_use]
    pub fn is_internal(&self) -> bool {
        self.entry.internal
    }

    /// The value of the first field of this name, as it arrived.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<String> {
        Section::of(&self.content).first(name)
    }

    /// The values of all fields of this name.
    #[must_use]
    pub fn headers(&self, name: &str) -> Vec<String> {
        let section = Section::of(&self.content);
        section
            .named(name)
            .map(|field| section.value(field))
            .collect()
    }

    /// The value of a field as the mailbox shows it.
    #[must_use]
    pub fn mailbox_header(&self, name: &str) -> Option<String> {
        Section::of(&self.entry.content).first(name)
    }

    /// A parameter of MAIL: `parameter("SIZE")` is `Some("1234")`.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find_map(|given| {
            let (key, value) = given.split_once('=').unwrap_or((given, ""));
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    /// The recipients' addresses.
    #[must_use]
    pub fn addresses(&self) -> Vec<&str> {
        self.recipients
            .iter()
            .map(|recipient| recipient.address.as_str())
            .collect()
    }
}

/// What the simulated Exchange refused after MAIL.
#[derive(Clone, Debug)]
pub struct Refused {
    /// The connection.
    pub connection: u64,
    /// Envelope sender.
    pub sender: String,
    /// The recipient, where RCPT was refused.
    pub recipient: Option<String>,
    /// The client certificate.
    pub identity: ClientIdentity,
    /// The reply.
    pub reply: String,
}

/// The simulated Exchange Online, inbound. Ends with its last handle.
#[derive(Debug)]
pub struct ExchangeIn {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    organizations: Vec<Arc<Organization>>,
    roots: RootCertStore,
    hidden: Vec<String>,
    patience: Duration,
    tls: Mutex<Arc<ServerConfig>>,
    script: Mutex<Script>,
    close_after: AtomicUsize,
    connections: AtomicU64,
    taken: AtomicU64,
    received: Inbox<Received>,
    refused: Mutex<VecDeque<Refused>>,
    watchers: broadcast::Sender<Arc<Received>>,
    places: Arc<Semaphore>,
}

impl ExchangeIn {
    /// Starts listening.
    ///
    /// # Errors
    /// No socket, or a certificate that cannot serve.
    pub async fn start(options: ExchangeOptions) -> Result<Self, LabError> {
        let listener = TcpListener::bind(options.address)
            .await
            .map_err(LabError::Socket)?;
        let address = listener.local_addr().map_err(LabError::Socket)?;
        let shared = Arc::new(Shared {
            organizations: options.organizations,
            roots: options.roots,
            hidden: options.hidden,
            patience: options.patience,
            tls: Mutex::new(server_tls(&options.identity)?),
            script: Mutex::default(),
            close_after: AtomicUsize::new(usize::MAX),
            connections: AtomicU64::new(0),
            taken: AtomicU64::new(0),
            received: Inbox::default(),
            refused: Mutex::default(),
            watchers: broadcast::channel(1024).0,
            places: Arc::new(Semaphore::new(CONNECTIONS)),
        });
        let own = Arc::clone(&shared);
        let serve = move |tcp, peer| session::serve(Arc::clone(&own), tcp, peer);
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared.places), serve));
        Ok(Self {
            address,
            shared,
            accepting,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The next message that was taken, oldest first.
    ///
    /// # Errors
    /// None came within 20 seconds.
    pub async fn received(&self) -> Result<Arc<Received>, LabError> {
        self.received_where(|_| true).await
    }

    /// The next message for which `wanted` holds; others stay.
    ///
    /// # Errors
    /// None came within 20 seconds.
    pub async fn received_where(
        &self,
        wanted: impl Fn(&Received) -> bool,
    ) -> Result<Arc<Received>, LabError> {
        self.received_within(WAIT, wanted).await
    }

    /// The same, with a deadline of one's own.
    ///
    /// # Errors
    /// None came in time.
    pub async fn received_within(
        &self,
        wait: Duration,
        wanted: impl Fn(&Received) -> bool,
    ) -> Result<Arc<Received>, LabError> {
        let found = self.shared.received.fetch(wait, wanted).await;
        found.ok_or(LabError::NothingCame("a message to Exchange"))
    }

    /// The messages that were taken and not fetched.
    #[must_use]
    pub fn waiting(&self) -> Vec<Arc<Received>> {
        self.shared.received.waiting()
    }

    /// What was refused so far.
    #[must_use]
    pub fn refused(&self) -> Vec<Refused> {
        lock(&self.shared.refused).iter().cloned().collect()
    }

    /// The number of messages taken since the start.
    #[must_use]
    pub fn taken(&self) -> u64 {
        self.shared.taken.load(Ordering::SeqCst)
    }

    /// The number of connections since the start.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// A copy of each message from now on; who reads too slowly misses some.
    #[must_use]
    pub fn watch(&self) -> broadcast::Receiver<Arc<Received>> {
        self.shared.watchers.subscribe()
    }

    /// Adds a step to the script.
    pub fn script(&self, step: Step) {
        lock(&self.shared.script).add(step);
    }

    /// Forgets all steps.
    pub fn forget_script(&self) {
        lock(&self.shared.script).clear();
    }

    /// Closes each connection without a word after so many messages, as Exchange does after about 20 minutes.
    pub fn close_after(&self, messages: usize) {
        self.shared.close_after.store(messages, Ordering::SeqCst);
    }

    /// Shows this certificate from the next connection on.
    ///
    /// # Errors
    /// The certificate cannot serve.
    pub fn show_certificate(&self, identity: &Issued) -> Result<(), LabError> {
        *lock(&self.shared.tls) = server_tls(identity)?;
        Ok(())
    }
}

impl Drop for ExchangeIn {
    fn drop(&mut self) {
        self.accepting.abort();
        self.shared.places.close();
    }
}

impl Shared {
    fn keep(&self, message: Received) {
        let message = Arc::new(message);
        self.taken.fetch_add(1, Ordering::SeqCst);
        // Nobody watching is no fault.
        drop(self.watchers.send(Arc::clone(&message)));
        self.received.keep(message);
    }

    fn keep_refusal(&self, refusal: Refused) {
        let mut refused = lock(&self.refused);
        if refused.len() >= KEPT {
            refused.pop_front();
        }
        refused.push_back(refusal);
    }
}

fn server_tls(identity: &Issued) -> Result<Arc<ServerConfig>, LabError> {
    wire::server_config(identity).map_err(|error| LabError::Certificate(error.to_string()))
}
