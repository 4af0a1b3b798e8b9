//! DATA and BDAT: framing, judgement of the header section, and the last reply.

use super::intake::{Intake, Judged, Keep};
use super::rejection::Rejection;
use super::state::{State, Transaction};
use super::{Account, BareNewlines, CONTENT_MILLIS, Core, Now, Output, Service};
use crate::header::{self, Examined, ReceivedFacts, Rendition};
use crate::mail::{QueueId, shown};
use crate::message_trace::{Event, LegSummary, TraceEvent};
use crate::smtp::command::{Bdat, Command};
use crate::smtp::data::{ContentFacts, DotDecoder, Progress};
use crate::smtp::reply::Reply;
use crate::spool::{Leg, Message, SpoolError, Stored};
use crate::trust::{self, Class, Settlement, Verdict};
use std::sync::Arc;

/// Connector validation mail is small (product.md 3).
const MAX_VALIDATION: u64 = 64 * 1024;
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
        intake: Box<Intake<Judgement>>,
        refusal: Account,
    },
    /// A chunk outside a transaction: read, dropped, 503 (RFC 3030 §3).
    Unwanted { was_after_refusal: bool },
}

/// What the header section settled.
pub(super) struct Judgement {
    verdict: Verdict,
    legs: Vec<Leg>,
    summaries: Vec<LegSummary>,
    removed: Vec<String>,
    message_id: Option<String>,
    network_message_id: Option<String>,
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
        let policy = &core.policy;
        let repair =
            policy.service == Service::Submission && policy.bare_newlines == BareNewlines::Repair;
        // Over BDAT a connector's body stays as it came (product.md 4).
        let as_it_came =
            policy.service == Service::Connector && matches!(framing, Framing::Chunk { .. });
        let intake = Intake::new(!repair && !as_it_came, repair, policy.max_message_size);
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

    pub(super) fn unwanted_chunk(chunk: Bdat, was_after_refusal: bool) -> State {
        State::Content(Box::new(Self {
            framing: Framing::chunk(chunk),
            purpose: Purpose::Unwanted { was_after_refusal },
            appending: false,
            drafted: false,
            ended: false,
            dropped: 0,
        }))
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
                    self.push(core, &content, now);
                }
                Framing::Chunk { left, .. } => {
                    let length = usize::try_from(*left)
                        .unwrap_or(usize::MAX)
                        .min(input.len());
                    *left -= length as u64;
                    self.ended = *left == 0;
                    *taken = length;
                    self.push(core, input.get(..length).unwrap_or_default(), now);
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

    fn push(&mut self, core: &mut Core, bytes: &[u8], now: Now) {
        let Purpose::Message {
            transaction,
            intake,
            refusal,
        } = &mut self.purpose
        else {
            self.dropped += bytes.len() as u64;
            return;
        };
        let transfer = self.framing.transfer();
        let keep = intake.push(bytes, &mut |buffer, length| {
            judge(core, transaction, refusal, transfer, buffer, length, now)
        });
        if intake.refusal().is_some() {
            self.dropped += bytes.len() as u64;
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
        let (mut transaction, intake, mut refusal) = match self.purpose {
            Purpose::Unwanted { was_after_refusal } => {
                core.refuse(
                    Rejection::BadSequence {
                        expected: "no transaction is open for this chunk",
                    },
                    now,
                );
                return if was_after_refusal {
                    State::after_refused_chunk()
                } else {
                    State::ready()
                };
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
            judge(
                core,
                &transaction,
                &mut refusal,
                transfer,
                buffer,
                length,
                now,
            )
        });
        match result {
            Ok((judgement, facts)) => {
                if let Keep::Bytes(bytes) = keep {
                    core.outputs.push_back(Output::Append(bytes));
                }
                let (message, event) = judgement.keep(core, &mut transaction, facts, transfer, now);
                core.outputs
                    .push_back(Output::Store(Box::new(message), Box::new(event)));
                State::Storing(Box::new(Storing { transaction }))
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
        self.deadline = now.ticks + CONTENT_MILLIS;
    }
}

/// The header section is whole: grammar, tenant gate, loop, hop count, back-pressure, route, then the form for each path.
fn judge(
    core: &Core,
    transaction: &Transaction,
    refusal: &mut Account,
    _transfer: &'static str,
    buffer: &mut [u8],
    length: usize,
    now: Now,
) -> Result<Judged<Judgement>, Rejection> {
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
    let verdict = match settlement {
        Settlement::Settled(verdict) => verdict,
        Settlement::Refused(refused) => {
            refusal.tenant = refused.tenant.map(|tenant| tenant.name.to_string());
            refusal.evidence = refused.evidence;
            return Err(refused.reason.into());
        }
    };
    refusal.tenant = Some(verdict.tenant().name.to_string());
    refusal.evidence = verdict.evidence().clone();
    if examined.is_over_hop_limit() {
        return Err(Rejection::TooManyHops);
    }
    if verdict.is_from_trusted_connector()
        && let Some(fault) = core.conditions.connector_fault(&verdict.tenant().name, now)
    {
        return Err(Rejection::ConnectorHeld { fault });
    }
    let routed = policy
        .routes
        .plan(&verdict, envelope)
        .map_err(|_| Rejection::RecipientNotServed)?;
    let mut limit = policy.max_message_size;
    if matches!(verdict.class(), Class::Validation) {
        limit = MAX_VALIDATION;
        if !core
            .conditions
            .within_validation_rate(&verdict.tenant().name, now)
        {
            return Err(Rejection::ValidationRateExceeded);
        }
    }
    let judgement = Judgement::new(core, transaction, verdict, &examined, &routed, now);
    if let Some(section) = buffer.get_mut(..length) {
        header::blank_secrets(&examined, &judgement.verdict, &policy.tenants, section);
    }
    Ok(Judged {
        value: judgement,
        limit,
    })
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
            Class::Proven { .. } | Class::Validation | Class::Reported { .. } | Class::Own => None,
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
            message_id: examined.message_id(),
            network_message_id: examined.network_message_id(),
            verdict,
        }
    }

    /// The message as it is stored, with the event that tells of it.
    fn keep(
        self,
        core: &Core,
        transaction: &mut Transaction,
        facts: ContentFacts,
        transfer: &'static str,
        now: Now,
    ) -> (Message, TraceEvent) {
        let envelope = transaction.envelope.clone();
        let (class, reason, application) = match self.verdict.class() {
            Class::Proven { .. } => ("proven", None, None),
            Class::Validation => ("validation", None, None),
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
            Ok(stored) => core.reply(&Reply::new(
                250,
                (2, 0, 0),
                format!("Ok: queued as {}", stored.id()),
            )),
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
