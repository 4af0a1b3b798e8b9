//! Who takes mail in the world outside? A stranger's mail exchanger, or a relay: an SMTP server on loopback.
//!
//! It knows nobody, asks nobody who they are (a relay: for a login), and keeps each message with what was said about it.
//! Client certificates are asked for, so that one that is shown is seen.

use super::certificates::Issued;
use super::exchange_in::grammar::{path, unstuffed};
use super::fields::Section;
use super::script::{Phase, Script, Step};
use super::stand::{Inbox, Said, accept, act, lock, plain};
use super::wire::{self, Dialogue, Stream, TlsSeen, Wire};
use super::{LabError, Transfer};
use crate::smtp::sasl;
use rustls::ServerConfig;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

/// How long [`Outside::received`] waits.
const WAIT: Duration = Duration::from_secs(20);
/// The connections that are served at once.
const CONNECTIONS: usize = 64;
/// The largest message.
const MAX_SIZE: usize = 32 * 1024 * 1024;

/// How a server outside is set up.
#[derive(Clone, Debug)]
pub struct OutsideOptions {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its certificate; without one it offers no STARTTLS.
    pub identity: Option<Issued>,
    /// It says that it is ready for TLS, and is not.
    pub broken_tls: bool,
    /// TLS comes before the greeting.
    pub tls_first: bool,
    /// Name and password that it wants before MAIL.
    pub login: Option<(String, String)>,
    /// The mechanisms that it offers, also in clear text, as a careless server does.
    pub mechanisms: String,
    /// Extensions that it does not offer, upper case.
    pub hidden: Vec<String>,
}

impl Default for OutsideOptions {
    fn default() -> Self {
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            identity: None,
            broken_tls: false,
            tls_first: false,
            login: None,
            mechanisms: "PLAIN LOGIN".to_owned(),
            hidden: Vec::new(),
        }
    }
}

/// A message that has left for the outside.
#[derive(Clone, Debug)]
pub struct Carried {
    /// The connection, counted from 1.
    pub connection: u64,
    /// The smart host's address.
    pub peer: SocketAddr,
    /// Its greeting: `EHLO` or `HELO`, and the name.
    pub hello: String,
    /// TLS, where there was some.
    pub tls: Option<TlsSeen>,
    /// The name that was logged in.
    pub login: Option<String>,
    /// Envelope sender; empty is null.
    pub sender: String,
    /// Parameters of MAIL.
    pub parameters: Vec<String>,
    /// Recipients, each with its parameters.
    pub recipients: Vec<(String, Vec<String>)>,
    /// How the content came.
    pub transfer: Transfer,
    /// Its exact bytes.
    pub content: Vec<u8>,
    /// What was said so far.
    pub dialogue: Dialogue,
}

impl Carried {
    /// The value of the first field of this name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<String> {
        Section::of(&self.content).first(name)
    }

    /// The recipients' addresses.
    #[must_use]
    pub fn addresses(&self) -> Vec<&str> {
        self.recipients
            .iter()
            .map(|(address, _)| address.as_str())
            .collect()
    }
}

/// A server outside. Ends with its last handle.
#[derive(Debug)]
pub struct Outside {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    options: OutsideOptions,
    tls: Option<Arc<ServerConfig>>,
    script: Mutex<Script>,
    connections: AtomicU64,
    /// Octets of AUTH commands and answers that came in clear text.
    clear_logins: AtomicU64,
    received: Inbox<Carried>,
    places: Arc<Semaphore>,
}

impl Outside {
    /// Starts listening.
    ///
    /// # Errors
    /// No socket, or a certificate that cannot serve.
    pub async fn start(options: OutsideOptions) -> Result<Self, LabError> {
        let listener = TcpListener::bind(options.address)
            .await
            .map_err(LabError::Socket)?;
        let address = listener.local_addr().map_err(LabError::Socket)?;
        let tls = options.identity.as_ref().map(wire::server_config);
        let shared = Arc::new(Shared {
            tls: tls
                .transpose()
                .map_err(|error| LabError::Certificate(error.to_string()))?,
            options,
            script: Mutex::default(),
            connections: AtomicU64::new(0),
            clear_logins: AtomicU64::new(0),
            received: Inbox::default(),
            places: Arc::new(Semaphore::new(CONNECTIONS)),
        });
        let own = Arc::clone(&shared);
        let serve = move |tcp, peer| serve(Arc::clone(&own), tcp, peer);
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

    /// Adds a step to the script.
    pub fn script(&self, step: Step) {
        lock(&self.shared.script).add(step);
    }

    /// Forgets all steps.
    pub fn forget_script(&self) {
        lock(&self.shared.script).clear();
    }

    /// The number of connections since the start.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// How often AUTH came in clear text.
    #[must_use]
    pub fn clear_logins(&self) -> u64 {
        self.shared.clear_logins.load(Ordering::SeqCst)
    }

    /// The messages that were taken and not fetched.
    #[must_use]
    pub fn waiting(&self) -> Vec<Arc<Carried>> {
        self.shared.received.waiting()
    }

    /// The next message, oldest first.
    ///
    /// # Errors
    /// None came within 20 seconds.
    pub async fn received(&self) -> Result<Arc<Carried>, LabError> {
        self.received_within(WAIT, |_| true).await
    }

    /// The next message for which `wanted` holds.
    ///
    /// # Errors
    /// None came in time.
    pub async fn received_within(
        &self,
        wait: Duration,
        wanted: impl Fn(&Carried) -> bool,
    ) -> Result<Arc<Carried>, LabError> {
        let found = self.shared.received.fetch(wait, wanted).await;
        found.ok_or(LabError::NothingCame("a message to the outside"))
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        self.accepting.abort();
        self.shared.places.close();
    }
}

struct Session<'a> {
    shared: &'a Shared,
    peer: SocketAddr,
    number: u64,
    hello: Option<String>,
    tls: Option<TlsSeen>,
    login: Option<String>,
    open: Option<Open>,
}

#[derive(Default)]
struct Open {
    sender: String,
    parameters: Vec<String>,
    recipients: Vec<(String, Vec<String>)>,
    content: Vec<u8>,
    chunks: usize,
}

async fn serve(shared: Arc<Shared>, tcp: TcpStream, peer: SocketAddr) -> io::Result<()> {
    let number = shared.connections.fetch_add(1, Ordering::SeqCst) + 1;
    tcp.set_nodelay(true)?;
    let mut wire = Wire::server(Stream::Clear(tcp), Duration::from_secs(30));
    let mut session = Session {
        shared: &shared,
        peer,
        number,
        hello: None,
        tls: None,
        login: None,
        open: None,
    };
    if shared.options.tls_first {
        wire = session.encrypt(wire).await?;
    }
    let banner = "220 mx.outside.example ESMTP";
    if session.answer(&mut wire, Phase::Connect, banner).await? != Said::Yes {
        wire.close().await;
        return Ok(());
    }
    while let Some(line) = wire.line().await? {
        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
        let (verb, rest) = line.split_once(' ').unwrap_or((&line, ""));
        let verb = verb.to_ascii_uppercase();
        if verb == "STARTTLS" && session.tls.is_none() && shared.tls.is_some() {
            let ready = "220 2.0.0 go ahead";
            match session.answer(&mut wire, Phase::StartTls, ready).await? {
                Said::Yes if shared.options.broken_tls => {
                    wire.send(b"this is no TLS\r\n").await?;
                    break;
                }
                Said::Yes => wire = session.encrypt(wire).await?,
                Said::No => {}
                Said::Closed => break,
            }
        } else if session.command(&mut wire, &verb, rest).await? == Said::Closed {
            break;
        }
    }
    wire.close().await;
    Ok(())
}

impl Session<'_> {
    async fn encrypt(&mut self, wire: Wire) -> io::Result<Wire> {
        let config = self.shared.tls.clone();
        let config = config.ok_or(io::ErrorKind::InvalidInput)?;
        let (wire, seen) = wire.accept_tls(config).await?;
        self.tls = Some(seen);
        self.hello = None;
        Ok(wire)
    }

    async fn command(&mut self, wire: &mut Wire, verb: &str, rest: &str) -> io::Result<Said> {
        match verb {
            "EHLO" => self.ehlo(wire, rest).await,
            "HELO" => {
                self.hello = Some(format!("HELO {rest}"));
                plain(wire, "250 mx.outside.example").await
            }
            "AUTH" => self.auth(wire, rest).await,
            "MAIL" => self.mail(wire, rest).await,
            "RCPT" => self.rcpt(wire, rest).await,
            "DATA" => self.data(wire).await,
            "BDAT" => self.bdat(wire, rest).await,
            "RSET" => {
                self.open = None;
                plain(wire, "250 2.0.0 forgotten").await
            }
            "QUIT" => {
                plain(wire, "221 2.0.0 bye").await?;
                Ok(Said::Closed)
            }
            _ => plain(wire, "500 5.5.1 what?").await,
        }
    }

    async fn ehlo(&mut self, wire: &mut Wire, name: &str) -> io::Result<Said> {
        let options = &self.shared.options;
        let mut offers = vec![
            "mx.outside.example".to_owned(),
            format!("SIZE {MAX_SIZE}"),
            "PIPELINING".to_owned(),
            "DSN".to_owned(),
            "8BITMIME".to_owned(),
            "CHUNKING".to_owned(),
            "SMTPUTF8".to_owned(),
            // Bait: it must not be taken outside.
            "XOORG".to_owned(),
        ];
        if self.shared.tls.is_some() && self.tls.is_none() {
            offers.push("STARTTLS".to_owned());
        }
        if options.login.is_some() {
            offers.push(format!("AUTH {}", options.mechanisms));
        }
        offers.retain(|offer| {
            let keyword = offer.split(' ').next().unwrap_or_default();
            !options.hidden.iter().any(|hidden| hidden == keyword)
        });
        let last = offers.len() - 1;
        let lines = offers.iter().enumerate();
        let lines: Vec<String> = lines
            .map(|(at, offer)| format!("250{}{offer}", if at == last { ' ' } else { '-' }))
            .collect();
        let said = self.answer(wire, Phase::Ehlo, &lines.join("\r\n")).await?;
        if said == Said::Yes {
            self.hello = Some(format!("EHLO {name}"));
        }
        Ok(said)
    }

    async fn auth(&mut self, wire: &mut Wire, rest: &str) -> io::Result<Said> {
        if self.tls.is_none() {
            self.shared.clear_logins.fetch_add(1, Ordering::SeqCst);
        }
        let (mechanism, initial) = rest.split_once(' ').unwrap_or((rest, ""));
        let login = if mechanism.eq_ignore_ascii_case("PLAIN") {
            sasl::decode(initial.as_bytes()).and_then(|message| sasl::plain(&message))
        } else {
            let mut said = Vec::new();
            for prompt in ["334 VXNlcm5hbWU6", "334 UGFzc3dvcmQ6"] {
                plain(wire, prompt).await?;
                let line = wire.line().await?.unwrap_or_default();
                said.push(sasl::decode(&line).unwrap_or_default());
            }
            let password = said.pop().unwrap_or_default();
            let username = String::from_utf8(said.pop().unwrap_or_default());
            username.ok().map(|username| sasl::Login {
                username,
                password: crate::mail::Secret::new(password),
            })
        };
        let right = self.shared.options.login.as_ref();
        let good = login.filter(|login| {
            right.is_some_and(|(name, password)| {
                login.username == *name && login.password.matches(password.as_bytes())
            })
        });
        match good {
            Some(login) => {
                self.login = Some(login.username);
                plain(wire, "235 2.7.0 welcome").await
            }
            None => plain(wire, "535 5.7.8 no").await,
        }
    }

    async fn mail(&mut self, wire: &mut Wire, rest: &str) -> io::Result<Said> {
        if self.shared.options.login.is_some() && self.login.is_none() {
            return plain(wire, "530 5.7.0 Authentication required").await;
        }
        let found = path(rest, "FROM:").filter(|_| self.hello.is_some() && self.open.is_none());
        let Some((sender, parameters)) = found else {
            return plain(wire, "503 5.5.1 not now").await;
        };
        let said = self.answer(wire, Phase::Mail, "250 2.1.0 ok").await?;
        if said == Said::Yes {
            self.open = Some(Open {
                sender,
                parameters,
                ..Open::default()
            });
        }
        Ok(said)
    }

    async fn rcpt(&mut self, wire: &mut Wire, rest: &str) -> io::Result<Said> {
        let Some(recipient) = path(rest, "TO:").filter(|_| self.open.is_some()) else {
            return plain(wire, "503 5.5.1 not now").await;
        };
        let action = lock(&self.shared.script).take(Phase::Rcpt, &[&recipient.0]);
        let said = act(wire, action, "250 2.1.5 ok").await?;
        if let (Said::Yes, Some(open)) = (said, self.open.as_mut()) {
            open.recipients.push(recipient);
        }
        Ok(said)
    }

    fn has_recipients(&self) -> bool {
        let open = self.open.as_ref();
        open.is_some_and(|open| !open.recipients.is_empty())
    }

    async fn data(&mut self, wire: &mut Wire) -> io::Result<Said> {
        if !self.has_recipients() {
            return plain(wire, "503 5.5.1 to whom?").await;
        }
        let said = self.answer(wire, Phase::Data, "354 go ahead").await?;
        if said != Said::Yes {
            return Ok(said);
        }
        let stuffed = wire.dotted(MAX_SIZE).await?;
        let (Some(stuffed), Some(mut open)) = (stuffed, self.open.take()) else {
            return plain(wire, "552 5.3.4 too large").await;
        };
        open.content = unstuffed(&stuffed);
        self.finish(wire, open, Transfer::Data).await
    }

    async fn bdat(&mut self, wire: &mut Wire, rest: &str) -> io::Result<Said> {
        let (count, last) = rest.split_once(' ').unwrap_or((rest, ""));
        let count = count.parse().ok().filter(|count| *count <= MAX_SIZE);
        let Some(count) = count else {
            return Ok(Said::Closed);
        };
        let bytes = wire.exactly(count).await?;
        let Some(mut open) = self.open.take().filter(|open| !open.recipients.is_empty()) else {
            return plain(wire, "503 5.5.1 to whom?").await;
        };
        open.content.extend_from_slice(&bytes);
        open.chunks += 1;
        if last.eq_ignore_ascii_case("LAST") {
            let chunks = open.chunks;
            return self.finish(wire, open, Transfer::Chunks(chunks)).await;
        }
        self.open = Some(open);
        plain(wire, "250 2.0.0 more").await
    }

    async fn finish(
        &mut self,
        wire: &mut Wire,
        open: Open,
        transfer: Transfer,
    ) -> io::Result<Said> {
        let addresses: Vec<&str> = open.recipients.iter().map(|one| one.0.as_str()).collect();
        let action = lock(&self.shared.script).take(Phase::EndOfData, &addresses);
        let said = act(wire, action, "250 2.0.0 taken").await?;
        if said == Said::Yes {
            let carried = Carried {
                connection: self.number,
                peer: self.peer,
                hello: self.hello.clone().unwrap_or_default(),
                tls: self.tls.clone(),
                login: self.login.clone(),
                sender: open.sender,
                parameters: open.parameters,
                recipients: open.recipients,
                transfer,
                content: open.content,
                dialogue: wire.dialogue().clone(),
            };
            self.shared.received.keep(Arc::new(carried));
            let action = lock(&self.shared.script).take(Phase::AfterMessage, &[]);
            if let Some(action) = action {
                return act(wire, Some(action), "").await;
            }
        }
        Ok(said)
    }

    async fn answer(&self, wire: &mut Wire, phase: Phase, truth: &str) -> io::Result<Said> {
        let action = lock(&self.shared.script).take(phase, &[]);
        act(wire, action, truth).await
    }
}
