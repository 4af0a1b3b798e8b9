//! What the content's header section makes of a message: refused, stored in the form for each way, or verified before.

use super::intake::Judged;
use super::rejection::Rejection;
use super::state::{State, Transaction};
use super::{Account, Core, Now, Output, SignatureCheck};
use crate::header::{self, Examined, ReceivedFacts, Rendition};
use crate::mail::{Envelope, QueueId, shown};
use crate::message_trace::{Event, LegSummary, TraceEvent};
use crate::route::{From, Routed};
use crate::smtp::data::ContentFacts;
use crate::smtp::reply::Reply;
use crate::spool::{Leg, Message, SpoolError, Stored};
use crate::trust::{self, Class, DkimFacts, MAX_SIGNED_SIZE, Pending, Settlement, Verdict};
use std::sync::Arc;

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
    pub(super) transaction: Box<Transaction>,
    pub(super) waiting: Box<Waiting>,
    pub(super) facts: ContentFacts,
    pub(super) transfer: &'static str,
    pub(super) refusal: Account,
}

/// The message is being stored; the reply waits for it.
pub(crate) struct Storing {
    transaction: Box<Transaction>,
}

/// The header section is whole: grammar, tenant gate, loop, hop count, back-pressure, route, then the form for each path.
/// Where the tenant gate waits for a signature, all that follows it waits too.
pub(super) fn judge(
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
    if verdict.from() == From::Connector
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
    pub(super) fn begin(self, core: &mut Core, now: Now) -> State {
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
        routed: &Routed,
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

    pub(super) fn store(
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

fn addresses(envelope: &Envelope, positions: impl Iterator<Item = usize>) -> Vec<String> {
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
