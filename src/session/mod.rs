//! The server side of one connection, without its socket: bytes and `now` in, decisions out.
//!
//! `Session::handle(now, Input)`, then `while let Some(output) = session.next_output()`. While it waits for the answer to
//! an [`Output`] (TLS, credentials, an append, the store) it consumes no input: that is the back-pressure. One struct per
//! phase in `state`; how content comes in `content` and `intake`, what becomes of it in `judgement`; every refusal in
//! [`rejection`].

#![deny(clippy::wildcard_enum_match_arm)]

mod auth;
mod content;
#[cfg(test)]
mod fixtures;
mod hello;
#[cfg(test)]
mod hostile_tests;
mod intake;
mod judgement;
#[cfg(test)]
mod judgement_tests;
#[cfg(test)]
mod limit_tests;
pub mod rejection;
mod sender;
mod settings;
mod state;
mod terms;
#[cfg(test)]
mod tests;

pub use rejection::Rejection;
pub use settings::{BareNewlines, ByAddress, Conditions, Now, Policies, Policy, Service, TlsMode};
pub use terms::Terms;

use crate::mail::{QueueId, shown};
use crate::message_trace::{Event, TlsFacts, TraceEvent};
use crate::smtp::SLOWEST;
use crate::smtp::command::{Bdat, Command, CommandFault};
use crate::smtp::line::{self, Head};
use crate::smtp::reply::Reply;
use crate::smtp::sasl::Login;
use crate::spool::{Message, SpoolError, Stored};
use crate::trust::certificate::{ClientCertificate, WhyAbsent};
use crate::trust::{Application, DkimFacts, Evidence, Peer, Signature};
use state::State;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

/// What happens to a session.
#[derive(Debug)]
pub enum Input<'a> {
    /// The client sent these.
    Bytes(&'a [u8]),
    /// The TLS handshake succeeded; what it agreed, and our judgement of the client certificate.
    Secured(TlsFacts, ClientCertificate),
    /// The answer to [`Output::CheckCredentials`].
    Credentials(Credentials),
    /// The answer to [`Output::Append`].
    Appended(Result<(), SpoolError>),
    /// The answer to [`Output::CheckSignatures`]; an error where the draft could not be read.
    Signatures(Result<DkimFacts, SpoolError>),
    /// The answer to [`Output::Store`].
    Stored(Result<Stored, SpoolError>),
    /// [`Session::deadline`] has passed.
    Deadline,
    /// The server shuts down: end at the next boundary.
    Shutdown,
}

/// What became of a login.
#[derive(Clone, Debug)]
pub enum Credentials {
    /// Right.
    Accepted(Arc<Application>),
    /// Wrong.
    Rejected,
    /// Too many are being checked.
    Busy,
    /// Too many failures from this address.
    Throttled,
}

/// What a session wants done.
#[derive(Debug)]
pub enum Output {
    /// Send these bytes. May be held back until nothing else is to be done.
    Send(Vec<u8>),
    /// After what was sent before: start the TLS handshake.
    StartTls,
    /// Check a login.
    CheckCredentials(Login),
    /// Append to the draft of the message; the first one of a message opens it. Where that fails, so must a `CheckSignatures` or a
    /// `Store` of this message: either may follow at once.
    Append(Vec<u8>),
    /// The message is refused: drop its draft, if there is one.
    Abandon,
    /// Verify DKIM signatures of the message, whose bytes are all there; the verdict waits for it.
    CheckSignatures(Box<SignatureCheck>),
    /// Keep the message durably; the bytes are all there. The trace event belongs to it and is recorded once it is stored.
    Store(Box<Message>, Box<TraceEvent>),
    /// For the trace and the metrics.
    Trace(Box<TraceEvent>),
    /// After what was sent before: close the connection.
    Close,
}

/// What is to be verified.
#[derive(Debug)]
pub struct SignatureCheck {
    /// These, in this order.
    pub signatures: Vec<Signature>,
    /// The header section as it arrived: in the draft the secrets are blanked.
    pub section: Vec<u8>,
    /// Octets of the whole message.
    pub size: u64,
}

/// Most recipients of one message (RFC 5321 §4.5.3.1.8 asks for 100; Exchange's own limit is 1000).
pub const MAX_RECIPIENTS: usize = 1000;
/// Most errors of one session, logins that are wrong or not judged among them.
const MAX_ERRORS: u32 = 20;
/// Most refusals of any kind in one session, refused mail and recipients among them: each leaves a line in the trace. More
/// than Exchange has messages, and a mailing list has recipients beyond [`MAX_RECIPIENTS`], on one connection.
const MAX_REFUSALS: u32 = 2_000;
/// Most commands that bring no mail (NOOP, RSET, EHLO and the like) between one accepted message and the next.
const MAX_IDLE_COMMANDS: u32 = 500;
/// No command is taken while so many octets of replies wait to be sent: EHLO has a reply thirty times its own size, and
/// whoever pipelines thousands of commands shares the processor with those who do not. A hundred RCPTs fit in.
pub(crate) const MAX_UNSENT: usize = 4 * 1024;
/// What an address outside the networks may do before STARTTLS (product.md 3).
const STRANGER_COMMANDS: u32 = 10;
const STRANGER_MILLIS: u64 = 30_000;
/// RFC 5321 §4.5.3.2.7: wait for a command.
const COMMAND_MILLIS: u64 = 5 * 60_000;
/// RFC 5321 §4.5.3.2.5: wait for the next block of content; a block is at least [`CONTENT_BLOCK`] octets, so that a peer
/// cannot keep a session for ever with an octet a minute.
const CONTENT_MILLIS: u64 = 3 * 60_000;
const CONTENT_BLOCK: u64 = 4096;
/// What the content of a message may take in all, beside the time that it needs at [`SLOWEST`].
const MESSAGE_MILLIS: u64 = 10 * 60_000;
/// How long a client is served that has neither logged in nor begun a message, and is not at an address of Exchange Online:
/// whoever opens connections to fill the listener pays again for each every two minutes.
const UNKNOWN_MILLIS: u64 = 2 * 60_000;
/// The same where half of the listener's connections were taken when he came: enough to log in, and a crowd that only
/// stands there makes room for who has mail.
const HURRIED_MILLIS: u64 = 15_000;
/// How long content that is arriving when the server stops may still take.
const DRAIN_MILLIS: u64 = 15_000;
/// How a header of the PROXY protocol begins, from a balancer that `proxy_protocol_from` does not name.
const PROXY_V1: &[u8] = b"PROXY ";
const PROXY_V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// One connection.
pub struct Session {
    core: Core,
    state: State,
    input: Vec<u8>,
    /// The server shuts down, and nothing is waited for beyond this moment.
    drain_by: Option<u64>,
    /// When something last happened.
    now: Now,
}

/// What lives as long as the connection.
pub(crate) struct Core {
    policy: Arc<Policy>,
    policies: Option<Arc<dyn Policies>>,
    conditions: Arc<dyn Conditions>,
    peer_address: SocketAddr,
    /// Whether the address is the client's, so that it may prove something.
    address_proves: bool,
    trust: Peer,
    tls: Option<TlsFacts>,
    greeted: Option<Greeted>,
    application: Option<Arc<Application>>,
    outputs: VecDeque<Output>,
    /// Octets of replies that the shell has not taken all of.
    unsent: usize,
    errors: u32,
    refusals: u32,
    commands: u32,
    /// Commands since the last accepted message that brought none.
    idle_commands: u32,
    opened: u64,
    /// MAIL was accepted once.
    has_mailed: bool,
    /// The client's address stands for an application that needs no login.
    by_address: bool,
    /// How long a client may be unknown.
    unknown_millis: u64,
    deadline: u64,
    progress: u64,
    /// When the content in hand began, and how much of it has come.
    content: (u64, u64),
    closing: bool,
}

/// The client's EHLO or HELO.
#[derive(Clone, Debug)]
pub(crate) struct Greeted {
    name: String,
    extended: bool,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("peer", &self.core.peer_address)
            .field("state", &self.state.name())
            .finish()
    }
}

impl Session {
    /// A connection was accepted from `peer`; `network` says whether the address lies in Exchange Online's networks. With
    /// implicit TLS the greeting waits for [`Input::Secured`].
    #[must_use]
    pub fn new(
        policy: Arc<Policy>,
        conditions: Arc<dyn Conditions>,
        peer: SocketAddr,
        network: bool,
        now: Now,
    ) -> Self {
        let trust = Peer {
            network,
            certificate: ClientCertificate::Absent(WhyAbsent::NoTls),
        };
        let implicit = policy.tls == TlsMode::Implicit;
        let mut core = Core {
            policy,
            policies: None,
            conditions,
            peer_address: peer,
            address_proves: true,
            trust,
            tls: None,
            greeted: None,
            application: None,
            outputs: VecDeque::new(),
            unsent: 0,
            errors: 0,
            refusals: 0,
            commands: 0,
            idle_commands: 0,
            opened: now.ticks,
            has_mailed: false,
            by_address: false,
            unknown_millis: UNKNOWN_MILLIS,
            deadline: 0,
            progress: 0,
            content: (0, 0),
            closing: false,
        };
        core.wait_for_command(now);
        let state = if implicit {
            core.outputs.push_back(Output::StartTls);
            State::Securing
        } else {
            core.greet();
            State::ready()
        };
        Self {
            core,
            state,
            input: Vec::new(),
            drain_by: None,
            now,
        }
    }

    /// Works by the policy that is in force whenever it is between transactions.
    #[must_use]
    pub fn with_policies(mut self, policies: Arc<dyn Policies>) -> Self {
        self.core.policies = Some(policies);
        self
    }

    /// The address is a load balancer's own (PROXY LOCAL or UNKNOWN): it proves nothing, neither to the network gate nor
    /// to an application's `networks`.
    #[must_use]
    pub fn with_unproven_address(mut self) -> Self {
        self.core.address_proves = false;
        self.core.trust.network = false;
        self
    }

    /// Half of the listener's connections are taken: who submits nothing soon makes room.
    #[must_use]
    pub fn in_a_crowd(mut self) -> Self {
        self.core.unknown_millis = HURRIED_MILLIS;
        self.core.wait_until(self.core.deadline);
        self
    }

    /// What the session wants done next, in order. Where many replies wait no command is taken until all are here: who asks
    /// for the next output has sent the ones before, or is about to.
    pub fn next_output(&mut self) -> Option<Output> {
        if self.core.outputs.is_empty() {
            let held_back = self.core.has_much_to_send();
            self.core.unsent = 0;
            if held_back {
                self.advance(self.now);
            }
        }
        self.core.outputs.pop_front()
    }

    /// When [`Input::Deadline`] is due, in ticks; while the session waits for us, not for the client, there is none.
    #[must_use]
    pub fn deadline(&self) -> Option<u64> {
        let mut deadline = self.core.deadline;
        if self.state.is_within_content() {
            deadline = deadline.min(self.core.content_by());
        }
        if let Some(by) = self.drain_by {
            deadline = deadline.min(by);
        }
        (!self.state.waits_for_us()).then_some(deadline)
    }

    /// Octets that the client announced of the content that is arriving (SIZE=, RFC 1870, or the size of a chunk), which may be
    /// wrong; 0 where nothing was announced.
    #[must_use]
    pub fn announced_size(&self) -> u64 {
        self.state.announced_size()
    }

    /// Whether the client has proven anything: an address of Exchange Online or of an application, a certificate, a login.
    #[must_use]
    pub fn is_known(&self) -> bool {
        let Peer {
            network,
            certificate,
        } = &self.core.trust;
        let verified = matches!(certificate, ClientCertificate::Verified { .. });
        *network || verified || self.core.application.is_some() || self.core.by_address
    }

    /// Whether no transaction is under way.
    fn is_between_transactions(&self) -> bool {
        matches!(self.state, State::Ready(_))
    }

    /// Whether the session has been told of the shutdown.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.drain_by.is_some()
    }

    /// Something happened.
    pub fn handle(&mut self, now: Now, input: Input<'_>) {
        if self.core.closing {
            return;
        }
        self.now = now;
        match input {
            Input::Bytes(bytes) => {
                self.core.note_progress(bytes.len(), &self.state, now);
                let rest = self.content_at_once(bytes, now);
                self.input.extend_from_slice(rest);
            }
            Input::Secured(tls, certificate) => self.secured(tls, certificate, now),
            Input::Credentials(credentials) => {
                self.step(|state, core| state.credentials(core, credentials, now))
            }
            Input::Appended(result) => self.step(|state, core| state.appended(core, result)),
            Input::Signatures(result) => {
                self.step(|state, core| state.signatures(core, result, now))
            }
            Input::Stored(result) => self.step(|state, core| state.stored(core, result, now)),
            Input::Deadline => {
                let stranger = self.core.is_stranger_outside_tls();
                let rejection = if self.drain_by.is_some() {
                    Rejection::ShuttingDown
                } else if stranger {
                    Rejection::StrangerLimit
                } else {
                    Rejection::IdleTooLong
                };
                self.core.refuse(rejection, now);
            }
            Input::Shutdown => {
                self.drain_by.get_or_insert(now.ticks + DRAIN_MILLIS);
            }
        }
        self.advance(now);
    }

    /// Content for which nothing else waits is taken from where it lies; what is left of the bytes.
    fn content_at_once<'a>(&mut self, bytes: &'a [u8], now: Now) -> &'a [u8] {
        let at_once = matches!(self.state, State::Content(_))
            && !self.state.waits_for_us()
            && self.input.is_empty()
            && !bytes.is_empty();
        let mut taken = 0;
        if at_once {
            self.step(|state, core| state.content(core, bytes, &mut taken, now));
        }
        bytes.get(taken..).unwrap_or_default()
    }

    fn step(&mut self, change: impl FnOnce(State, &mut Core) -> State) {
        let state = std::mem::replace(&mut self.state, State::Closed);
        self.state = change(state, &mut self.core);
    }

    fn secured(&mut self, tls: TlsFacts, certificate: ClientCertificate, now: Now) {
        if !matches!(self.state, State::Securing) {
            return;
        }
        self.core.tls = Some(tls);
        self.core.trust.certificate = certificate;
        // RFC 3207 §4.2: what was learnt in clear text is forgotten.
        self.core.greeted = None;
        self.core.application = None;
        self.core.wait_for_command(now);
        if self.core.policy.tls == TlsMode::Implicit {
            self.core.greet();
        }
        self.state = State::ready();
    }

    /// Consumes input as far as the state allows.
    fn advance(&mut self, now: Now) {
        loop {
            if self.core.closing {
                self.state = State::Closed;
                self.input.clear();
                return;
            }
            if self.state.waits_for_us() {
                return;
            }
            if self.is_draining() && self.is_between_transactions() {
                self.core.refuse(Rejection::ShuttingDown, now);
                continue;
            }
            if let State::Content(_) = self.state {
                if self.input.is_empty() && !self.state.takes_nothing() {
                    return;
                }
                let input = std::mem::take(&mut self.input);
                let mut taken = 0;
                self.step(|state, core| state.content(core, &input, &mut taken, now));
                self.input = input;
                self.input.drain(..taken.min(self.input.len()));
                continue;
            }
            if self.core.has_much_to_send() {
                return;
            }
            if !self.take_line(now) {
                // Nothing is in hand before the first octet of content: nothing was promised, and a client that never
                // goes on would hold up the stop.
                if self.is_draining() && self.state.has_no_content() {
                    self.core.refuse(Rejection::ShuttingDown, now);
                    continue;
                }
                return;
            }
        }
    }

    /// Consumes one line, if there is one.
    fn take_line(&mut self, now: Now) -> bool {
        if self.core.awaits_first_command() && !self.input.is_empty() {
            let common = self.input.len().min(PROXY_V2.len());
            if self.input.get(..common) == PROXY_V2.get(..common) {
                // Its first octets look like empty lines: they wait until it is clear what they are.
                if common == PROXY_V2.len() {
                    self.core.refuse(Rejection::ProxyNotTaken, now);
                }
                return common == PROXY_V2.len();
            }
        }
        match line::head(&self.input, self.state.line_limit()) {
            Head::More => false,
            Head::TooLong => {
                self.core.refuse(Rejection::LineTooLong, now);
                true
            }
            Head::Malformed { whole } => {
                self.input.drain(..whole);
                self.core.refuse(Rejection::LineMalformed, now);
                true
            }
            Head::Line { text, whole } => {
                let line: Vec<u8> = self.input.get(..text).unwrap_or_default().to_vec();
                self.input.drain(..whole);
                self.line(&line, now);
                true
            }
        }
    }

    fn line(&mut self, line: &[u8], now: Now) {
        self.core.wait_for_command(now);
        if matches!(self.state, State::Authenticating(_)) {
            self.step(|state, core| state.response(core, line, now));
            return;
        }
        if self.core.awaits_first_command() && line.starts_with(PROXY_V1) {
            self.core.refuse(Rejection::ProxyNotTaken, now);
            return;
        }
        if self.is_between_transactions()
            && let Some(policies) = &self.core.policies
        {
            self.core.policy = policies.in_force();
        }
        self.core.commands += 1;
        if self.core.is_stranger_outside_tls() && self.core.commands > STRANGER_COMMANDS {
            self.core.refuse(Rejection::StrangerLimit, now);
            return;
        }
        let command = Command::parse(line);
        if self.core.is_idle_for_too_long(&command) {
            self.core.refuse(Rejection::TooManyErrors, now);
            return;
        }
        match command {
            // Within a transaction it is out of place: what was taken in clear text would go on under TLS.
            Ok(Command::StartTls)
                if self.core.offers_starttls() && self.is_between_transactions() =>
            {
                // RFC 3207 §4.2: clear bytes behind STARTTLS are dropped: what a middleman put there must not be
                // taken for the client's words under TLS.
                self.input.clear();
                self.core
                    .reply(&Reply::new(220, (2, 0, 0), "Ready to start TLS"));
                self.core.outputs.push_back(Output::StartTls);
                self.state = State::Securing;
            }
            Ok(command) => self.step(|state, core| state.command(core, command, now)),
            // Before TLS nothing is said of an envelope: what would be wrong with it is told under TLS.
            Err(_) if self.core.must_start_tls() && Command::is_envelope(line) => {
                self.core.refuse(Rejection::StartTlsRequired, now);
            }
            Err(fault) => {
                self.core.refuse(fault.into(), now);
                // The octets of a chunk follow, nobody knows how many: they must not be taken for commands.
                if Command::is_chunk(line) && !self.core.closing {
                    self.core.refuse(Rejection::ChunkOfUnknownSize, now);
                }
            }
        }
    }
}

impl Core {
    /// The banner (RFC 5321 §4.2).
    fn greet(&mut self) {
        let banner = format!("{} ESMTP Gatepost", self.policy.hostname);
        self.reply(&Reply::plain(220, vec![banner.into()]));
    }

    fn reply(&mut self, reply: &Reply) {
        if let Some(Output::Send(bytes)) = self.outputs.back_mut() {
            let before = bytes.len();
            reply.write_to(bytes);
            self.unsent += bytes.len() - before;
            return;
        }
        let mut bytes = Vec::with_capacity(128);
        reply.write_to(&mut bytes);
        self.unsent += bytes.len();
        self.outputs.push_back(Output::Send(bytes));
    }

    fn has_much_to_send(&self) -> bool {
        self.unsent >= MAX_UNSENT
    }

    /// Counts commands that bring no mail; a client that says nothing else is sent away.
    fn is_idle_for_too_long(&mut self, command: &Result<Command, CommandFault>) -> bool {
        match command {
            Ok(
                Command::Ehlo(_)
                | Command::Helo(_)
                | Command::Rset
                | Command::Noop
                | Command::Vrfy
                | Command::Expn
                | Command::Help
                // A chunk of nothing, and not the last.
                | Command::Bdat(Bdat {
                    size: 0,
                    last: false,
                }),
            ) => self.idle_commands += 1,
            // Bounded otherwise: by their number, by what they bring, or as errors and refusals.
            Ok(
                Command::StartTls
                | Command::Auth(..)
                | Command::Mail(_)
                | Command::Rcpt(_)
                | Command::Data
                | Command::Bdat(_)
                | Command::Quit,
            )
            | Err(_) => {}
        }
        self.idle_commands > MAX_IDLE_COMMANDS
    }

    /// Refuses outside a transaction's own account: answers, traces, counts, closes where it must.
    fn refuse(&mut self, rejection: Rejection, now: Now) {
        let id = self.conditions.next_id(now);
        self.refuse_as(id, rejection, Account::default(), now);
    }

    /// Refuses under an id, with what is known of the transaction.
    fn refuse_as(&mut self, id: QueueId, rejection: Rejection, account: Account, now: Now) {
        let reply = rejection.reply(&self.policy.hostname, id);
        let event = Event::Refused {
            listener: self.policy.listener.to_string(),
            peer: self.peer_address.to_string(),
            application: self
                .application
                .as_ref()
                .map(|application| application.name.to_string()),
            tenant: account.tenant,
            sender: account.sender,
            recipients: account.recipients,
            message_id: account.message_id,
            reply: reply.summary(),
            reason: rejection.label().to_owned(),
            evidence: account.evidence,
        };
        self.trace(id, event, now);
        self.reply(&reply);
        self.errors += u32::from(rejection.is_error_of_protocol());
        self.refusals += 1;
        if rejection.closes() {
            self.close();
        } else if self.errors >= MAX_ERRORS || self.refusals >= MAX_REFUSALS {
            let farewell = Rejection::TooManyErrors.reply(&self.policy.hostname, id);
            self.reply(&farewell);
            self.close();
        }
    }

    fn trace(&mut self, id: QueueId, event: Event, now: Now) {
        let event = TraceEvent {
            at: now.unix_millis,
            id: id.to_string(),
            event,
        };
        // Before the reply, so that who reads the reply finds the event.
        let at = match self.outputs.back() {
            Some(Output::Send(_)) => self.outputs.len() - 1,
            _ => self.outputs.len(),
        };
        self.outputs.insert(at, Output::Trace(Box::new(event)));
    }

    fn close(&mut self) {
        self.closing = true;
        self.outputs.push_back(Output::Close);
    }

    fn is_connector(&self) -> bool {
        self.policy.service == Service::Connector
    }

    fn is_stranger_outside_tls(&self) -> bool {
        self.is_connector() && !self.trust.network && self.tls.is_none()
    }

    /// Whether who comes from this address is waited for as RFC 5321 has it, whatever he brings: only Exchange is.
    fn is_expected(&self) -> bool {
        self.is_connector() && self.trust.network
    }

    /// Nothing has been said yet, in clear text: where a PROXY header would stand.
    fn awaits_first_command(&self) -> bool {
        self.commands == 0 && self.tls.is_none()
    }

    fn offers_starttls(&self) -> bool {
        self.tls.is_none() && matches!(self.policy.tls, TlsMode::StartTls | TlsMode::Optional)
    }

    /// The listener insists on TLS, and there is none yet.
    fn must_start_tls(&self) -> bool {
        self.tls.is_none() && self.policy.tls == TlsMode::StartTls
    }

    fn wait_for_command(&mut self, now: Now) {
        self.progress = 0;
        self.wait_until(now.ticks + COMMAND_MILLIS);
    }

    /// A stranger outside TLS has his time in all, whatever he says; so has who submits nothing.
    pub(crate) fn wait_until(&mut self, ticks: u64) {
        self.deadline = if self.is_stranger_outside_tls() {
            ticks.min(self.opened + STRANGER_MILLIS)
        } else if !self.is_expected() && !self.has_mailed && self.application.is_none() {
            ticks.min(self.opened + self.unknown_millis)
        } else {
            ticks
        };
    }

    /// Content begins: of a message, or of a chunk that nobody wants.
    fn begin_content(&mut self, now: Now) {
        self.content = (now.ticks, 0);
    }

    /// When the content in hand has taken too long in all, for what has come of it.
    fn content_by(&self) -> u64 {
        let (begun, octets) = self.content;
        begun + MESSAGE_MILLIS + octets.saturating_mul(1000) / SLOWEST
    }

    /// A message is under way: from here on the client is waited for as RFC 5321 has it.
    fn has_begun_a_message(&mut self, now: Now) {
        self.has_mailed = true;
        self.wait_for_command(now);
    }

    fn note_progress(&mut self, octets: usize, state: &State, now: Now) {
        if !matches!(state, State::Content(_)) {
            return;
        }
        self.content.1 += octets as u64;
        self.progress += octets as u64;
        if self.progress >= CONTENT_BLOCK {
            self.progress = 0;
            self.wait_until(now.ticks + CONTENT_MILLIS);
        }
    }

    /// The peer's EHLO name, fit for a Received field.
    fn helo_name(&self) -> String {
        self.greeted.as_ref().map_or_else(
            || "unknown".to_owned(),
            |greeted| shown(greeted.name.as_bytes()),
        )
    }

    /// The `with` token of our Received field (RFC 3848, RFC 6531 §4.3).
    fn protocol(&self, smtputf8: bool) -> &'static str {
        let extended = self
            .greeted
            .as_ref()
            .is_some_and(|greeted| greeted.extended);
        let authenticated = self.application.is_some();
        match (extended, smtputf8, self.tls.is_some(), authenticated) {
            (false, ..) => "SMTP",
            (true, false, false, false) => "ESMTP",
            (true, false, true, false) => "ESMTPS",
            (true, false, false, true) => "ESMTPA",
            (true, false, true, true) => "ESMTPSA",
            (true, true, false, false) => "UTF8SMTP",
            (true, true, true, false) => "UTF8SMTPS",
            (true, true, false, true) => "UTF8SMTPA",
            (true, true, true, true) => "UTF8SMTPSA",
        }
    }
}

/// What the trace says of a refused transaction.
#[derive(Default)]
pub(crate) struct Account {
    tenant: Option<String>,
    sender: Option<String>,
    recipients: Vec<String>,
    message_id: Option<String>,
    evidence: Evidence,
}
