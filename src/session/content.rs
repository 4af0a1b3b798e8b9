//! DATA and BDAT: framing, judgement of the header section, and the last reply.

use super::intake::{Intake, Judged, Keep};
use super::rejection::Rejection;
use super::state::{State, Transaction};
use super::{Account, CONTENT_MILLIS, Core, Now, Output, SignatureCheck};
use crate::header::{self, Examined, ReceivedFacts, Rendition};
use crate::mail::{QueueId, shown};
use crate::message_trace::{Event, LegSummary, TraceEvent};
use crate::smtp::command::{Bdat, Command};
use crate::smtp::data::{ContentFacts, DotDecoder, Progress};
use crate::smtp::extension::Extension;
use crate::smtp::reply::Reply;
use crate::spool::{Leg, Message, SpoolError, Stored};
use crate::trust::{self, Class, DkimFacts, MAX_SIGNED_SIZE, Pending, Settlement, Verdict};
use std::sync::Arc;

/// What is read and dropped of a message beyond its limit before the connection is closed, octets.
const MAX_DROPPED: u64 = 64 * 1024 * 1024;

/// Content is arriving, or chunks of a message are between one another.
pub(crate) struct Content {
    framing: Framing,
    purpose: Purpose,
    /// An append has not been answered yet.
    appending: bool,
    /// A draft exists.
    drafted: bool,
    /// The framing has met its end.
    ended: bool,
    dropped: u64,
}

/// How bytes arrive.
enum Framing {
    Dot(DotDecoder),
    Chunk { size: u64, left: u64, last: bool },
}

/// What becomes of them.
enum Purpose {
    Message {
        transaction: Box<Transaction>,
        intake: Box<Intake<Opinion>>,
        refusal: Account,
    },
    /// A chunk outside a transaction: read, dropped, 503 (RFC 3030 §3).
    Unwanted(Unwanted),
}

/// Why a chunk is not wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unwanted {
    /// A chunk of its message was refused and was not the last (RFC 3030 §3).
    AfterRefusal,
    /// Something is not as it must be before a chunk.
    Because(&'static str),
}

impl Unwanted {
    /// That BDAT is not offered at all comes before what is missing. The transaction is over in either case (RFC 3030 §3).
    pub(super) fn of(core: &Core, otherwise: &'static str) -> Self {
        if core.policy.allows(Extension::Chunking) {
            Self::Because(otherwise)
        } else {
            Self::Because("BDAT is not offered here, begin anew with MAIL and use DATA")
        }
    }
}

/// What the header section made of the message.
pub(super) enum Opinion {
    /// Let in.
    Settled(Box<Judgement>),
    /// The verdict waits for a DKIM signature, which is verified when the body is there.
    Waits(Box<Waiting>),
}

/// A verdict that waits, and the header section as it arrived, which it is about.
pub(super) struct Waiting {
    pending: Pending,
    examined: Examined,
}

/// What is let in, and how it leaves.
pub(super) struct Judgement {
    verdict: Verdict,
    legs: Vec<Leg>,
    summaries: Vec<LegSummary>,
    removed: Vec<String>,
    message_id: Option<String>,
    network_message_id: Option<String>,
}

/// The content is whole, its verdict waits for the facts about its signatures.
pub(crate) struct Verifying {
    transaction: Box<Transaction>,
    waiting: Box<Waiting>,
    facts: ContentFacts,
    transfer: &'static str,
    refusal: Account,
}

/// The message is being stored; the reply waits for it.
pub(crate) struct Storing {
    transaction: Box<Transaction>,
}

impl Content {
    pub(super) fn data(core: &Core, transaction: Transaction) -> Self {
        Self::message(core, transaction, Framing::Dot(DotDecoder::default()))
    }

    pub(super) fn bdat(core: &Core, transaction: Transaction, chunk: Bdat) -> Self {
        Self::message(core, transaction, Framing::chunk(chunk))
    }

    fn message(core: &Core, transaction: Transaction, framing: Framing) -> Self {
        let chunked = matches!(framing, Framing::Chunk { .. });
        let intake = core.policy.terms().intake(chunked);
        let refusal = transaction.account();
        Self {
            framing,
            purpose: Purpose::Message {
                transaction: Box::new(transaction),
                intake: Box::new(intake),
                refusal,
            },
            appending: false,
            drafted: false,
            ended: false,
            dropped: 0,
        }
    }

    pub(super) fn unwanted_chunk(chunk: Bdat, why: Unwanted) -> State {
        State::Content(Box::new(Self {
            framing: Framing::chunk(chunk),
            purpose: Purpose::Unwanted(why),
            appending: false,
            drafted: false,
            ended: false,
            dropped: 0,
        }))
    }

    /// What MAIL announced of the message, or else its chunk: said by whoever sends it.
    pub(super) fn announced_size(&self) -> u64 {
        match (&self.purpose, &self.framing) {
            (Purpose::Unwanted(_), _) => 0,
            (Purpose::Message { transaction, .. }, framing) => {
                transaction.announced.unwrap_or(match framing {
                    Framing::Dot(_) => 0,
                    Framing::Chunk { size, .. } => *size,
                })
            }
        }
    }

    pub(super) fn waits_for_append(&self) -> bool {
        self.appending
    }

    /// Whether there is something to do without further input.
    pub(super) fn is_complete(&self) -> bool {
        self.ended || matches!(self.framing, Framing::Chunk { left: 0, .. })
    }

    pub(super) fn appended(&mut self, core: &mut Core, result: Result<(), SpoolError>) {
        self.appending = false;
        if result.is_err() {
            self.abandon(core, Rejection::StoreUnavailable);
        }
    }

    fn abandon(&mut self, core: &mut Core, rejection: Rejection) {
        if let Purpose::Message { intake, .. } = &mut self.purpose {
            intake.discard(rejection);
        }
        self.drop_draft(core);
    }

    fn drop_draft(&mut self, core: &mut Core) {
        if std::mem::take(&mut self.drafted) {
            core.outputs.push_back(Output::Abandon);
        }
    }

    /// Consumes input up to the end of the content, of the chunk, or up to an append.
    pub(super) fn take(
        mut self: Box<Self>,
        core: &mut Core,
        input: &[u8],
        taken: &mut usize,
        now: Now,
    ) -> State {
        if !self.ended {
            match &mut self.framing {
                Framing::Dot(decoder) => {
                    let mut content = Vec::with_capacity(input.len());
                    match decoder.decode(input, &mut content) {
                        Progress::More => *taken = input.len(),
                        Progress::End(length) => {
                            *taken = length;
                            self.ended = true;
                        }
                    }
                    self.push(core, content, now);
                }
                Framing::Chunk { left, .. } => {
                    let length = usize::try_from(*left)
                        .unwrap_or(usize::MAX)
                        .min(input.len());
                    *left -= length as u64;
                    self.ended = *left == 0;
                    *taken = length;
                    self.push(core, input.get(..length).unwrap_or_default().to_vec(), now);
                }
            }
            if self.dropped > core.policy.max_message_size.saturating_add(MAX_DROPPED) {
                core.refuse(Rejection::TooManyErrors, now);
                return State::Closed;
            }
            if self.appending || !self.ended {
                return State::Content(self);
            }
        }
        self.end(core, now)
    }

    fn push(&mut self, core: &mut Core, bytes: Vec<u8>, now: Now) {
        let length = bytes.len() as u64;
        let Purpose::Message {
            transaction,
            intake,
            refusal,
        } = &mut self.purpose
        else {
            self.dropped += length;
            return;
        };
        let keep = intake.push(bytes, &mut |buffer, length| {
            judge(core, transaction, refusal, buffer, length, now)
        });
        if intake.refusal().is_some() {
            self.dropped += length;
            self.drop_draft(core);
            return;
        }
        if let Keep::Bytes(kept) = keep
            && !kept.is_empty()
        {
            core.outputs.push_back(Output::Append(kept));
            self.appending = true;
            self.drafted = true;
        }
    }

    /// The end of the content or of a chunk: the answer.
    fn end(mut self: Box<Self>, core: &mut Core, now: Now) -> State {
        core.wait_for_command(now);
        let last = match self.framing {
            Framing::Dot(_) => true,
            Framing::Chunk { last, .. } => last,
        };
        let (transaction, intake, mut refusal) = match self.purpose {
            Purpose::Unwanted(why) => {
                let (expected, next) = match why {
                    Unwanted::AfterRefusal => {
                        let expected = "this message is refused, RSET first";
                        (expected, State::after_refused_chunk())
                    }
                    Unwanted::Because(expected) => (expected, State::ready()),
                };
                core.refuse(Rejection::BadSequence { expected }, now);
                return next;
            }
            Purpose::Message {
                transaction,
                intake,
                refusal,
            } => (transaction, intake, refusal),
        };
        if let Some(rejection) = intake.refusal() {
            core.refuse_as(transaction.id, rejection.clone(), refusal, now);
            return if last {
                State::ready()
            } else {
                State::after_refused_chunk()
            };
        }
        if !last {
            let Framing::Chunk { size, .. } = self.framing else {
                return State::ready();
            };
            core.reply(&Reply::new(
                250,
                (2, 0, 0),
                format!("{size} octets received"),
            ));
            self.purpose = Purpose::Message {
                transaction,
                intake,
                refusal,
            };
            return State::Chunks(self);
        }
        let transfer = self.framing.transfer();
        let (keep, result) = intake.finish(&mut |buffer, length| {
            judge(core, &transaction, &mut refusal, buffer, length, now)
        });
        match result {
            Ok((opinion, facts)) => {
                if let Keep::Bytes(bytes) = keep {
                    core.outputs.push_back(Output::Append(bytes));
                }
                match opinion {
                    Opinion::Settled(judgement) => {
                        judgement.store(core, transaction, facts, transfer, now)
                    }
                    Opinion::Waits(waiting) => Verifying {
                        transaction,
                        waiting,
                        facts,
                        transfer,
                        refusal,
                    }
                    .begin(core, now),
                }
            }
            Err(rejection) => {
                if self.drafted {
                    core.outputs.push_back(Output::Abandon);
                }
                core.refuse_as(transaction.id, rejection, refusal, now);
                State::ready()
            }
        }
    }

    /// A command between chunks (RFC 3030 §2).
    pub(super) fn between(
        mut self: Box<Self>,
        core: &mut Core,
        command: Command,
        now: Now,
    ) -> State {
        match command {
            Command::Bdat(chunk) => {
                core.wait_for_content(now);
                self.framing = Framing::chunk(chunk);
                self.ended = false;
                State::Content(self)
            }
            Command::Rset => {
                self.drop_draft(core);
                core.reply(&Reply::new(250, (2, 0, 0), "Reset"));
                State::ready()
            }
            Command::Ehlo(name) => {
                self.drop_draft(core);
                core.ehlo(name);
                State::ready()
            }
            Command::Helo(name) => {
                self.drop_draft(core);
                core.helo(name);
                State::ready()
            }
            Command::StartTls
            | Command::Auth(..)
            | Command::Mail(_)
            | Command::Rcpt(_)
            | Command::Data => {
                core.refuse(
                    Rejection::BadSequence {
                        expected: "BDAT or RSET",
                    },
                    now,
                );
                State::Chunks(self)
            }
            Command::Noop | Command::Quit | Command::Vrfy | Command::Expn | Command::Help => {
                core.anywhere(&command, now);
                State::Chunks(self)
            }
        }
    }
}

impl Framing {
    fn chunk(chunk: Bdat) -> Self {
        Self::Chunk {
            size: chunk.size,
            left: chunk.size,
            last: chunk.last,
        }
    }

    fn transfer(&self) -> &'static str {
        match self {
            Self::Dot(_) => "DATA",
            Self::Chunk { .. } => "BDAT",
        }
    }
}

impl Core {
    pub(super) fn wait_for_content(&mut self, now: Now) {
        self.progress = 0;
        self.wait_until(now.ticks + CONTENT_MILLIS);
    }
}

/// The header section is whole: grammar, tenant gate, loop, hop count, back-pressure, route, then the form for each path.
/// Where the tenant gate waits for a signature, all that follows it waits too.
fn judge(
    core: &Core,
    transaction: &Transaction,
    refusal: &mut Account,
    buffer: &mut [u8],
    length: usize,
    now: Now,
) -> Result<Judged<Opinion>, Rejection> {
    let section = buffer.get(..length).unwrap_or_default();
    let examined = header::examine(section)?;
    refusal.message_id = examined.message_id();
    let policy = &core.policy;
    let envelope = &transaction.envelope;
    let settlement = match transaction.candidates.application() {
        Some(application) => trust::application(application, envelope, &examined),
        None => trust::settle(
            &policy.tenants,
            &transaction.candidates,
            &core.trust,
            envelope,
            &examined,
            now.unix_seconds(),
        ),
    };
    let section = buffer.get_mut(..length).unwrap_or_default();
    let (value, limit) = match settlement {
        Settlement::Settled(verdict) => {
            let limit = policy.terms().limit(verdict.class());
            let judgement = let_in(core, transaction, refusal, verdict, &examined, now)?;
            header::blank_secrets(&examined, &judgement.verdict, &policy.tenants, section);
            (Opinion::Settled(Box::new(judgement)), limit)
        }
        Settlement::NeedsSignature(pending) => {
            for verdict in pending.likely_verdicts() {
                header::blank_secrets(&examined, verdict, &policy.tenants, section);
            }
            let pending = *pending;
            let waiting = Waiting { pending, examined };
            (Opinion::Waits(Box::new(waiting)), policy.max_message_size)
        }
        Settlement::Refused(refused) => return Err(refuse(refusal, refused)),
    };
    Ok(Judged { value, limit })
}

/// Notes what was seen, for the account of the refusal.
fn refuse(account: &mut Account, refused: trust::Refusal) -> Rejection {
    account.tenant = refused.tenant.map(|tenant| tenant.name.to_string());
    account.evidence = refused.evidence;
    refused.reason.into()
}

/// What follows the tenant gate.
fn let_in(
    core: &Core,
    transaction: &Transaction,
    refusal: &mut Account,
    verdict: Verdict,
    examined: &Examined,
    now: Now,
) -> Result<Judgement, Rejection> {
    let policy = &core.policy;
    refusal.tenant = Some(verdict.tenant().name.to_string());
    refusal.evidence = verdict.evidence().clone();
    if examined.is_over_hop_limit() {
        return Err(Rejection::TooManyHops);
    }
    // Whatever Exchange hands over, proven or reported, it can keep itself; an application cannot.
    if verdict.from() == crate::route::From::Connector
        && let Some(fault) = core.conditions.connector_fault(&verdict.tenant().name, now)
    {
        return Err(Rejection::ConnectorHeld { fault });
    }
    let routed = policy
        .routes
        .plan(&verdict, &transaction.envelope)
        .map_err(|_| Rejection::RecipientNotServed)?;
    if matches!(verdict.class(), Class::Validation { .. })
        && !core
            .conditions
            .within_validation_rate(&verdict.tenant().name, now)
    {
        return Err(Rejection::ValidationRateExceeded);
    }
    Ok(Judgement::new(
        core,
        transaction,
        verdict,
        examined,
        &routed,
        now,
    ))
}

impl Verifying {
    fn begin(self, core: &mut Core, now: Now) -> State {
        let signatures = self.waiting.pending.signatures();
        if self.facts.size > MAX_SIGNED_SIZE {
            let facts = DkimFacts::absent("the message is too large", signatures);
            return self.verified(core, Ok(facts), now);
        }
        core.outputs
            .push_back(Output::CheckSignatures(Box::new(SignatureCheck {
                signatures: signatures.to_vec(),
                section: self.waiting.examined.bytes().to_vec(),
                size: self.facts.size,
            })));
        State::Verifying(Box::new(self))
    }

    /// The facts are there: the verdict, and what follows it.
    pub(super) fn verified(
        mut self,
        core: &mut Core,
        result: Result<DkimFacts, SpoolError>,
        now: Now,
    ) -> State {
        core.wait_for_command(now);
        let Waiting { pending, examined } = *self.waiting;
        let refusal = &mut self.refusal;
        let judged = match result {
            Ok(facts) => pending
                .conclude(&facts)
                .map_err(|refused| refuse(refusal, refused)),
            Err(_) => Err(Rejection::StoreUnavailable),
        };
        let judged = judged.and_then(|verdict| {
            // The listener's own limit has been kept, this one was not known while the content came.
            if self.facts.size > core.policy.terms().limit(verdict.class()) {
                return Err(Rejection::ValidationTooLarge);
            }
            let_in(core, &self.transaction, refusal, verdict, &examined, now)
        });
        match judged {
            Ok(judgement) => {
                judgement.store(core, self.transaction, self.facts, self.transfer, now)
            }
            Err(rejection) => {
                core.outputs.push_back(Output::Abandon);
                core.refuse_as(self.transaction.id, rejection, self.refusal, now);
                State::ready()
            }
        }
    }
}

impl Judgement {
    fn new(
        core: &Core,
        transaction: &Transaction,
        verdict: Verdict,
        examined: &Examined,
        routed: &crate::route::Routed,
        now: Now,
    ) -> Self {
        let policy = &core.policy;
        let envelope = &transaction.envelope;
        let tls = core
            .tls
            .as_ref()
            .map(|tls| format!("{} {}", tls.version, tls.cipher));
        let helo = core.helo_name();
        let application = match verdict.class() {
            Class::Application { application } => Some(Arc::clone(&application.name)),
            Class::Proven { .. }
            | Class::Validation { .. }
            | Class::Reported { .. }
            | Class::Own => None,
        };
        let received = ReceivedFacts {
            by: policy.hostname.as_str(),
            helo: &helo,
            from_address: application
                .is_none()
                .then(|| core.peer_address.ip().to_canonical()),
            application: application.as_deref(),
            with: core.protocol(envelope.smtputf8),
            tls: tls.as_deref(),
            id: transaction.id,
            unix_seconds: now.unix_seconds(),
        };
        let mut legs = Vec::with_capacity(routed.paths().len());
        let mut summaries = Vec::with_capacity(routed.paths().len());
        for path in routed.paths() {
            let rendition: Rendition =
                header::rendition(examined, &verdict, &policy.tenants, path, &received);
            let xoorg = if path.stamped {
                verdict.stamp_org().cloned()
            } else if verdict.is_from_trusted_connector() && path.via.is_internal() {
                envelope.xoorg.clone()
            } else {
                None
            };
            legs.push(Leg {
                via: path.via.clone(),
                rendition,
                xoorg,
                recipients: path.recipients.clone(),
            });
            summaries.push(LegSummary {
                via: path.via.to_string(),
                stamped: path.stamped,
                recipients: addresses(envelope, path.recipients.iter().copied()),
            });
        }
        Self {
            legs,
            summaries,
            removed: header::removed_names(examined, &verdict, &policy.tenants),
            message_id: header::message_id_on_arrival(
                examined,
                &verdict,
                policy.hostname.as_str(),
                transaction.id,
            ),
            network_message_id: examined.network_message_id(),
            verdict,
        }
    }

    fn store(
        self,
        core: &mut Core,
        transaction: Box<Transaction>,
        facts: ContentFacts,
        transfer: &'static str,
        now: Now,
    ) -> State {
        let (message, event) = self.keep(core, &transaction, facts, transfer, now);
        core.outputs
            .push_back(Output::Store(Box::new(message), Box::new(event)));
        State::Storing(Box::new(Storing { transaction }))
    }

    /// The message as it is stored, with the event that tells of it.
    fn keep(
        self,
        core: &Core,
        transaction: &Transaction,
        facts: ContentFacts,
        transfer: &'static str,
        now: Now,
    ) -> (Message, TraceEvent) {
        let envelope = transaction.envelope.clone();
        let (class, reason, application) = match self.verdict.class() {
            Class::Proven { .. } => ("proven", None, None),
            Class::Validation { .. } => ("validation", None, None),
            Class::Reported { reason } => ("reported", Some(reason.to_string()), None),
            Class::Application { application } => {
                ("application", None, Some(Arc::clone(application)))
            }
            Class::Own => ("own", None, None),
        };
        let tenant = Arc::clone(&self.verdict.tenant().name);
        let event = Event::Received {
            listener: core.policy.listener.to_string(),
            peer: core.peer_address.to_string(),
            application: application
                .as_ref()
                .map(|application| application.name.to_string()),
            tenant: tenant.to_string(),
            sender: shown(envelope.reverse_path.to_string().as_bytes()),
            recipients: addresses(&envelope, 0..envelope.recipients.len()),
            message_id: self.message_id.clone(),
            network_message_id: self.network_message_id.clone(),
            size: facts.size,
            transfer: transfer.to_owned(),
            tls: core.tls.clone(),
            verdict: class.to_owned(),
            reason,
            evidence: self.verdict.evidence().clone(),
            removed: self.removed,
            legs: self.summaries,
        };
        let message = Message {
            id: transaction.id,
            arrived: now.unix_millis,
            tenant,
            from: self.verdict.from(),
            application: application
                .as_ref()
                .map(|application| Arc::clone(&application.name)),
            stream: application
                .as_ref()
                .and_then(|application| application.stream.clone()),
            bounces_to: application
                .as_ref()
                .and_then(|application| application.bounces_to.clone()),
            envelope,
            facts,
            legs: self.legs,
            message_id: self.message_id,
            network_message_id: self.network_message_id,
        };
        let event = TraceEvent {
            at: now.unix_millis,
            id: transaction.id.to_string(),
            event,
        };
        (message, event)
    }
}

fn addresses(
    envelope: &crate::mail::Envelope,
    positions: impl Iterator<Item = usize>,
) -> Vec<String> {
    positions
        .filter_map(|position| envelope.recipients.get(position))
        .map(|recipient| shown(recipient.mailbox.as_str().as_bytes()))
        .collect()
}

impl Storing {
    pub(super) fn stored(
        self,
        core: &mut Core,
        result: Result<Stored, SpoolError>,
        now: Now,
    ) -> State {
        core.wait_for_command(now);
        match result {
            Ok(stored) => {
                core.idle_commands = 0;
                core.reply(&Reply::new(
                    250,
                    (2, 0, 0),
                    format!("Ok: queued as {}", stored.id()),
                ));
            }
            Err(_) => {
                let id: QueueId = self.transaction.id;
                core.refuse_as(
                    id,
                    Rejection::StoreUnavailable,
                    self.transaction.account(),
                    now,
                );
            }
        }
        State::ready()
    }
}
