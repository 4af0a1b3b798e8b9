//! How does one connection to a next hop go, from greeting to QUIT?
//!
//! The client side as a machine without a socket: inputs are bytes, "TLS is up", "content is sent", a deadline, the end
//! of the connection; outputs say what to send and when to stream content ([`Dialogue::next_output`]). What became of
//! each recipient comes out as an [`Answer`]; [`outcome`] judges it.
//!
//! MAIL and all RCPTs leave in one write where PIPELINING is offered (RFC 2920), their replies are read, then the content
//! goes as one `BDAT n LAST` (RFC 3030), or by DATA where CHUNKING is not offered. Without an accepted recipient no
//! content is sent.
#![deny(clippy::wildcard_enum_match_arm)]

mod explained;
mod login;
mod manners;
pub mod outcome;
mod outside;
pub mod replies;
mod reply_table;
mod said;
mod status;
mod transaction;

pub use explained::{Explanation, Known, Unheard, explain};
pub use manners::{Manners, Tls};
pub use outcome::{Answer, Broken, NextHop, Outcome, Pace, Reach, Unfit};
pub use replies::{Alarm, Phase};
pub use said::{MAX_SAID, Said, SaidFor, said, said_each, why_nothing_is_said};
pub use transaction::{Request, Transfer};

use crate::smtp::SLOWEST;
use crate::smtp::extension::Offered;
use crate::smtp::reply::{self, Reply, ReplyFault};
use login::Asked;
use std::collections::VecDeque;
use std::time::Duration;
use transaction::Commands;

/// How long a transaction may take beside the time for its content: the waits of RFC 5321 §4.5.3.2 for MAIL, RCPT and DATA,
/// some of them more than once.
const TRANSACTION: Duration = Duration::from_secs(20 * 60);

/// What happens to a dialogue.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// The peer sent these.
    Bytes(&'a [u8]),
    /// The handshake that [`Output::StartTls`] asked for is done.
    TlsDone,
    /// The content that [`Output::Content`] asked for was written to its end.
    ContentSent,
    /// [`Dialogue::patience`] is over.
    Deadline,
    /// The peer closed, or the connection failed.
    Closed,
    /// TLS failed, for people. Under TLS 1.3 a refusal of our certificate comes as an alert after the handshake.
    TlsFailed(&'a str),
}

/// What a dialogue wants.
#[derive(Debug, PartialEq, Eq)]
pub enum Output {
    /// These bytes go to the peer. They need not be flushed while more outputs wait.
    Send(Vec<u8>),
    /// Do a TLS handshake on the connection, then say [`Input::TlsDone`].
    StartTls,
    /// A transaction may begin.
    Ready,
    /// Stream the content so, then say [`Input::ContentSent`].
    Content(Transfer),
    /// The transaction is over; every recipient of the request is named.
    Finished(Vec<(usize, Answer)>),
    /// The connection came to nothing before a transaction could begin.
    Failed(Answer),
    /// Close the connection.
    Close,
}

#[derive(Debug)]
enum State {
    Greeting,
    Hello,
    /// EHLO was refused, HELO was sent.
    OldHello,
    StartTls,
    Handshake,
    Login(Asked),
    Ready,
    Envelope(Addressing),
    /// MAIL was refused, replies to RCPTs sent along are still to come.
    Swallowing {
        left: usize,
        results: Vec<(usize, Answer)>,
    },
    /// DATA was sent, 354 is awaited.
    DataCommand(Accepted),
    Content(Accepted),
    End(Accepted),
    /// No recipient was accepted: RSET was sent.
    Reset(Vec<(usize, Answer)>),
    Quitting,
    Closed,
}

/// MAIL and RCPTs on their way.
#[derive(Debug)]
struct Addressing {
    mail_accepted: bool,
    /// RCPTs that were not sent yet: without PIPELINING they go one by one.
    unsent: VecDeque<(usize, Vec<u8>)>,
    /// RCPTs whose reply is awaited.
    awaited: VecDeque<usize>,
    so_far: Accepted,
    size: u64,
}

/// Recipients that the peer accepted, and what is known of the others.
#[derive(Debug)]
struct Accepted {
    recipients: Vec<usize>,
    others: Vec<(usize, Answer)>,
    transfer: Transfer,
}

impl Accepted {
    fn conclude(mut self, answer: &Answer) -> Vec<(usize, Answer)> {
        let recipients = self.recipients.iter();
        self.others
            .extend(recipients.map(|position| (*position, answer.clone())));
        self.others
    }
}

/// One connection to a next hop.
#[derive(Debug)]
pub struct Dialogue {
    hostname: Box<str>,
    manners: Manners,
    state: State,
    secure: bool,
    offered: Offered,
    input: Vec<u8>,
    outputs: VecDeque<Output>,
    replies: u64,
}

impl Dialogue {
    /// A dialogue that will greet as `hostname` and wait for the peer's greeting; TLS is mandatory.
    #[must_use]
    pub fn new(hostname: &str) -> Self {
        Self::with(hostname, Manners::default())
    }

    /// The same with other manners.
    #[must_use]
    pub fn with(hostname: &str, manners: Manners) -> Self {
        let mut dialogue = Self {
            hostname: hostname.into(),
            state: State::Greeting,
            secure: false,
            offered: Offered::default(),
            input: Vec::new(),
            outputs: VecDeque::new(),
            replies: 0,
            manners,
        };
        if dialogue.manners.tls == Tls::FromTheStart {
            dialogue.state = State::Handshake;
            dialogue.outputs.push_back(Output::StartTls);
        }
        dialogue
    }

    /// What the peer offers, once it said so.
    #[must_use]
    pub fn offered(&self) -> &Offered {
        &self.offered
    }

    /// Whether a transaction may begin.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        matches!(self.state, State::Ready)
    }

    /// Whether content is being streamed, and may go on.
    #[must_use]
    pub fn is_sending(&self) -> bool {
        matches!(self.state, State::Content(_))
    }

    /// How many replies have been read: each begins a new wait.
    #[must_use]
    pub fn replies(&self) -> u64 {
        self.replies
    }

    /// How long the peer may take for its next reply, or for taking the next bytes of content.
    ///
    /// RFC 5321 §4.5.3.2 where a message is at stake. Before MAIL nothing is, and the next address or connection may do
    /// better, so greeting and EHLO get a minute instead of five; QUIT is a courtesy.
    #[must_use]
    pub fn patience(&self) -> Duration {
        Duration::from_secs(match self.state {
            State::Greeting
            | State::Hello
            | State::OldHello
            | State::StartTls
            | State::Login(_) => 60,
            State::Handshake => 30,
            State::Envelope(_) | State::Swallowing { .. } => 300,
            State::DataCommand(_) => 120,
            State::Content(_) => 180,
            State::End(_) => 600,
            State::Reset(_) => 60,
            State::Quitting | State::Ready | State::Closed => 5,
        })
    }

    /// How long a transaction of `size` octets may take, from MAIL to the last octet of content.
    ///
    /// [`Self::patience`] begins anew with each reply and each piece of content. A next hop that answers a hundred RCPTs at
    /// the last moment each, or takes content by drops, would keep its connection for hours or days.
    #[must_use]
    pub fn patience_for_all(size: u64) -> Duration {
        TRANSACTION + Duration::from_secs(size / SLOWEST)
    }

    /// Whether that time runs. Once all is sent it does not: the reply that may be on its way has its own time in full,
    /// since to give up on it means to send the message twice.
    #[must_use]
    pub fn is_on_the_clock(&self) -> bool {
        match self.state {
            State::Envelope(_)
            | State::Swallowing { .. }
            | State::DataCommand(_)
            | State::Content(_) => true,
            State::Greeting
            | State::Hello
            | State::OldHello
            | State::StartTls
            | State::Handshake
            | State::Login(_)
            | State::Ready
            | State::End(_)
            | State::Reset(_)
            | State::Quitting
            | State::Closed => false,
        }
    }

    /// The next thing to do.
    pub fn next_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Takes in what happened.
    pub fn handle(&mut self, input: Input<'_>) {
        match input {
            Input::Bytes(bytes) => {
                self.input.extend_from_slice(bytes);
                self.read_replies();
            }
            Input::TlsDone => {
                if matches!(self.state, State::Handshake) {
                    self.secure = true;
                    if self.manners.tls == Tls::FromTheStart {
                        self.state = State::Greeting;
                    } else {
                        self.hello();
                    }
                }
            }
            Input::ContentSent => {
                let state = std::mem::replace(&mut self.state, State::Closed);
                self.state = match state {
                    State::Content(accepted) => State::End(accepted),
                    other @ (State::Greeting
                    | State::Hello
                    | State::OldHello
                    | State::StartTls
                    | State::Handshake
                    | State::Login(_)
                    | State::Ready
                    | State::Envelope(_)
                    | State::Swallowing { .. }
                    | State::DataCommand(_)
                    | State::End(_)
                    | State::Reset(_)
                    | State::Quitting
                    | State::Closed) => other,
                };
                self.read_replies();
            }
            Input::Deadline => self.break_off(Broken::Deadline),
            Input::Closed => self.break_off(Broken::Closed),
            Input::TlsFailed(why) => match self.state {
                State::Greeting if self.secure => self.fail(Answer::NoTls(why.to_owned())),
                State::Handshake | State::Hello => self.fail(Answer::NoTls(why.to_owned())),
                State::Greeting
                | State::OldHello
                | State::StartTls
                | State::Login(_)
                | State::Ready
                | State::Envelope(_)
                | State::Swallowing { .. }
                | State::DataCommand(_)
                | State::Content(_)
                | State::End(_)
                | State::Reset(_)
                | State::Quitting
                | State::Closed => self.break_off(Broken::Closed),
            },
        }
    }

    /// Begins a transaction; [`Output::Finished`] ends it.
    pub fn begin(&mut self, request: &Request<'_>) {
        if !self.is_ready() {
            let lost = Answer::Broken {
                phase: Phase::Mail,
                why: Broken::Closed,
            };
            let all = request.recipients.iter();
            let results = all.map(|position| (*position, lost.clone())).collect();
            self.outputs.push_back(Output::Finished(results));
            return;
        }
        let commands = Commands::new(request, &self.offered);
        let so_far = Accepted {
            recipients: Vec::with_capacity(commands.rcpt.len()),
            others: commands.unfit,
            transfer: commands.transfer,
        };
        if commands.rcpt.is_empty() {
            self.outputs.push_back(Output::Finished(so_far.others));
            return;
        }
        let mut addressing = Addressing {
            mail_accepted: false,
            unsent: commands.rcpt.into(),
            awaited: VecDeque::new(),
            so_far,
            size: commands.size,
        };
        let mut bytes = commands.mail;
        if self.offered.pipelining {
            for (position, line) in addressing.unsent.drain(..) {
                bytes.extend_from_slice(&line);
                addressing.awaited.push_back(position);
            }
        }
        self.outputs.push_back(Output::Send(bytes));
        self.state = State::Envelope(addressing);
    }

    /// Says goodbye; [`Output::Close`] follows the answer or the deadline.
    pub fn quit(&mut self) {
        if self.is_ready() {
            self.send("QUIT\r\n");
            self.state = State::Quitting;
        } else {
            self.close();
        }
    }

    fn read_replies(&mut self) {
        loop {
            match self.state {
                State::Closed => return,
                // What comes behind 220 STARTTLS in clear text was injected (RFC 3207 §6): nothing of it is ever read.
                State::Handshake if !self.input.is_empty() => {
                    self.input.clear();
                    self.outputs.retain(|output| *output != Output::StartTls);
                    self.fail(Answer::NoTls(
                        "clear text behind the reply to STARTTLS: somebody injects".to_owned(),
                    ));
                    return;
                }
                // Nothing was asked: 421 before an idle connection is closed, or nonsense. Either way it is over.
                State::Ready if !self.input.is_empty() => {
                    self.close();
                    return;
                }
                State::Handshake | State::Ready => return,
                State::Greeting
                | State::Hello
                | State::OldHello
                | State::StartTls
                | State::Login(_)
                | State::Envelope(_)
                | State::Swallowing { .. }
                | State::DataCommand(_)
                | State::Content(_)
                | State::End(_)
                | State::Reset(_)
                | State::Quitting => {}
            }
            if self.has_an_answer_too_many() {
                self.input.clear();
                self.outputs
                    .retain(|output| !matches!(output, Output::Send(_)));
                self.break_off(Broken::Nonsense(ReplyFault::Unasked));
                return;
            }
            match reply::parse(&self.input) {
                Ok(None) => return,
                Ok(Some((reply, consumed))) => {
                    self.input.drain(..consumed);
                    self.replies += 1;
                    self.on(reply);
                }
                Err(fault) => {
                    self.input.clear();
                    self.break_off(Broken::Nonsense(fault));
                    return;
                }
            }
        }
    }

    /// Consent to a command that nobody has taken from us to send: before the envelope, each command waits for the reply to the one
    /// before. Replies of one peer would be taken for answers of another, or of another moment (RFC 3207 §6). A refusal may
    /// come at any time.
    fn has_an_answer_too_many(&self) -> bool {
        matches!(
            self.state,
            State::Hello | State::OldHello | State::StartTls | State::Login(_)
        ) && matches!(self.input.first(), Some(b'2' | b'3'))
            && self
                .outputs
                .iter()
                .any(|output| matches!(output, Output::Send(_)))
    }

    fn on(&mut self, reply: Reply) {
        match std::mem::replace(&mut self.state, State::Closed) {
            State::Greeting => self.on_greeting(reply),
            State::Hello => self.on_hello(reply),
            State::OldHello => self.on_old_hello(reply),
            State::StartTls => self.on_starttls(reply),
            State::Login(asked) => self.on_login(asked, reply),
            State::Envelope(addressing) => self.on_envelope(addressing, reply),
            State::Swallowing { left, results } => self.on_swallowed(left, results, reply.code),
            State::DataCommand(accepted) => self.on_data(accepted, reply),
            State::Content(accepted) => self.on_early(accepted, reply),
            State::End(accepted) => self.on_end(accepted, reply),
            State::Reset(results) => self.finish(results, reply.class() == 2),
            State::Quitting | State::Closed => self.close(),
            state @ (State::Handshake | State::Ready) => self.state = state,
        }
    }

    fn on_greeting(&mut self, reply: Reply) {
        match reply.code {
            220 => self.hello(),
            _ => self.fail(refused(Phase::Greeting, reply)),
        }
    }

    fn hello(&mut self) {
        let line = format!("EHLO {}\r\n", self.hostname);
        self.send(&line);
        self.state = State::Hello;
    }

    fn on_hello(&mut self, reply: Reply) {
        if reply.code == 250 {
            self.offered = Offered::read(&reply);
            self.greeted();
        } else if reply.class() == 5 && self.manners.old_hello {
            // RFC 5321 §3.2: a server without extensions refuses EHLO, and takes HELO.
            let line = format!("HELO {}\r\n", self.hostname);
            self.send(&line);
            self.state = State::OldHello;
        } else {
            self.fail(refused(Phase::Hello, reply));
        }
    }

    fn on_old_hello(&mut self, reply: Reply) {
        if reply.code == 250 {
            self.offered = Offered::default();
            self.greeted();
        } else {
            self.fail(refused(Phase::Hello, reply));
        }
    }

    /// The peer has said what it offers: TLS is next, or the login, or work.
    fn greeted(&mut self) {
        if self.secure {
            self.log_in();
            return;
        }
        match self.manners.tls {
            Tls::Required | Tls::WhereOffered if self.offered.starttls => {
                self.send("STARTTLS\r\n");
                self.state = State::StartTls;
            }
            Tls::WhereOffered | Tls::Never => self.log_in(),
            Tls::Required | Tls::FromTheStart => self.fail(Answer::NoTls(
                "the next hop does not offer STARTTLS".to_owned(),
            )),
        }
    }

    fn on_starttls(&mut self, reply: Reply) {
        if reply.code == 220 {
            self.offered = Offered::default();
            self.outputs.push_back(Output::StartTls);
            self.state = State::Handshake;
        } else if self.manners.tls == Tls::WhereOffered && reply.code != 421 {
            // RFC 3207 §4: the client may go on without.
            self.log_in();
        } else {
            self.fail(Answer::starttls_refused(reply));
        }
    }

    fn on_envelope(&mut self, mut addressing: Addressing, reply: Reply) {
        if reply.code == 421 {
            let phase = addressing.phase();
            self.finish(addressing.abandon(&refused(phase, reply)), false);
            return;
        }
        match (reply.class(), addressing.mail_accepted) {
            (2, false) => addressing.mail_accepted = true,
            (4 | 5, false) => {
                let refusal = refused(Phase::Mail, reply);
                let swallow = addressing.awaited.len();
                let results = addressing.abandon(&refusal);
                self.swallow(swallow, results);
                return;
            }
            (2, true) => addressing
                .so_far
                .recipients
                .extend(addressing.awaited.pop_front()),
            (4 | 5, true) => {
                let refusal = refused(Phase::Recipient, reply);
                if let Some(position) = addressing.awaited.pop_front() {
                    addressing.so_far.others.push((position, refusal));
                }
            }
            _ => {
                let phase = addressing.phase();
                let why = Broken::Unexpected(reply);
                self.finish(addressing.abandon(&Answer::Broken { phase, why }), false);
                return;
            }
        }
        if let Some((position, line)) = addressing.unsent.pop_front() {
            addressing.awaited.push_back(position);
            self.outputs.push_back(Output::Send(line));
        }
        if !addressing.awaited.is_empty() {
            self.state = State::Envelope(addressing);
        } else if addressing.so_far.recipients.is_empty() {
            self.send("RSET\r\n");
            self.state = State::Reset(addressing.so_far.others);
        } else {
            self.content(addressing.so_far, addressing.size);
        }
    }

    /// MAIL was refused: the replies to RCPTs that were sent along say nothing of their own.
    fn on_swallowed(&mut self, left: usize, results: Vec<(usize, Answer)>, code: u16) {
        if code == 421 {
            self.finish(results, false);
        } else {
            self.swallow(left.saturating_sub(1), results);
        }
    }

    fn swallow(&mut self, left: usize, results: Vec<(usize, Answer)>) {
        if left == 0 {
            self.finish(results, true);
        } else {
            self.state = State::Swallowing { left, results };
        }
    }

    fn content(&mut self, accepted: Accepted, size: u64) {
        match accepted.transfer {
            Transfer::Chunk => {
                self.send(&format!("BDAT {size} LAST\r\n"));
                self.outputs.push_back(Output::Content(Transfer::Chunk));
                self.state = State::Content(accepted);
            }
            Transfer::Dots => {
                self.send("DATA\r\n");
                self.state = State::DataCommand(accepted);
            }
        }
    }

    fn on_data(&mut self, accepted: Accepted, reply: Reply) {
        match reply.class() {
            3 if reply.code == 354 => {
                self.outputs.push_back(Output::Content(Transfer::Dots));
                self.state = State::Content(accepted);
            }
            4 | 5 => {
                let alive = reply.code != 421;
                let results = accepted.conclude(&refused(Phase::Content, reply));
                self.finish(results, alive);
            }
            _ => self.unexpected(accepted, Phase::Content, reply),
        }
    }

    /// A reply while content is still being sent: a refusal ends it, and the connection with it, since the rest of the
    /// content cannot be taken back.
    fn on_early(&mut self, accepted: Accepted, reply: Reply) {
        match reply.class() {
            4 | 5 => {
                let results = accepted.conclude(&refused(Phase::Content, reply));
                self.finish(results, false);
            }
            _ => self.unexpected(accepted, Phase::Content, reply),
        }
    }

    fn on_end(&mut self, accepted: Accepted, reply: Reply) {
        match reply.class() {
            2 => self.finish(accepted.conclude(&Answer::Taken(reply)), true),
            4 | 5 => {
                let alive = reply.code != 421;
                let results = accepted.conclude(&refused(Phase::End, reply));
                self.finish(results, alive);
            }
            _ => self.unexpected(accepted, Phase::End, reply),
        }
    }

    fn unexpected(&mut self, accepted: Accepted, phase: Phase, reply: Reply) {
        let why = Broken::Unexpected(reply);
        self.finish(accepted.conclude(&Answer::Broken { phase, why }), false);
    }

    fn finish(&mut self, results: Vec<(usize, Answer)>, alive: bool) {
        self.outputs.push_back(Output::Finished(results));
        if alive {
            self.state = State::Ready;
        } else {
            self.close();
        }
    }

    fn break_off(&mut self, why: Broken) {
        let broken = |phase| Answer::Broken {
            phase,
            why: why.clone(),
        };
        match std::mem::replace(&mut self.state, State::Closed) {
            State::Greeting => self.fail(broken(Phase::Greeting)),
            State::Hello | State::OldHello => self.fail(broken(Phase::Hello)),
            State::StartTls => self.fail(broken(Phase::StartTls)),
            State::Login(_) => self.fail(broken(Phase::Login)),
            State::Handshake => self.fail(Answer::NoTls(format!("TLS handshake: {why}"))),
            State::Envelope(addressing) => {
                let phase = addressing.phase();
                self.finish(addressing.abandon(&broken(phase)), false);
            }
            State::DataCommand(accepted) | State::Content(accepted) => {
                self.finish(accepted.conclude(&broken(Phase::Content)), false);
            }
            State::End(accepted) => self.finish(accepted.conclude(&broken(Phase::End)), false),
            State::Reset(results) | State::Swallowing { results, .. } => {
                self.finish(results, false);
            }
            State::Ready | State::Quitting => self.close(),
            State::Closed => {}
        }
    }

    fn fail(&mut self, answer: Answer) {
        self.outputs.push_back(Output::Failed(answer));
        self.close();
    }

    fn close(&mut self) {
        self.state = State::Closed;
        self.outputs.push_back(Output::Close);
    }

    fn send(&mut self, line: &str) {
        self.outputs
            .push_back(Output::Send(line.as_bytes().to_vec()));
    }
}

impl Addressing {
    fn phase(&self) -> Phase {
        if self.mail_accepted {
            Phase::Recipient
        } else {
            Phase::Mail
        }
    }

    /// Every recipient whose reply is missing, or worthless without content, gets this answer.
    fn abandon(self, answer: &Answer) -> Vec<(usize, Answer)> {
        let missing = self.awaited.into_iter();
        let missing = missing.chain(self.unsent.into_iter().map(|(position, _)| position));
        let mut accepted = self.so_far;
        accepted.recipients.extend(missing);
        accepted.conclude(answer)
    }
}

fn refused(phase: Phase, reply: Reply) -> Answer {
    Answer::Refused { phase, reply }
}

#[cfg(test)]
mod tests;
