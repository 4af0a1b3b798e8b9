//! What are spool, trace and metrics told after an attempt?
//!
//! Here the answers about recipients meet the law and the hold of the queue, and become dispositions.

use super::bounce::{self, Failure, HandedOn};
use super::lane::Lane;
use super::store::{Store, Work};
use super::worker::{Setup, Shared};
use crate::dialogue::outcome::shown_reach;
use crate::dialogue::{Answer, NextHop, Outcome, Pace, Reach};
use crate::mail::{QueueId, shown};
use crate::message_trace::{Event, RecipientResult, TlsFacts, TraceEvent};
use crate::route::Via;
use crate::schedule::Law;
use crate::schedule::hold::{Change, Fault, Kept, recipient_fault};
use crate::schedule::retry::{Next, next_attempt};
use crate::spool::Disposition;

/// The least wait after a reply whose limit moves by the hour.
const HOUR: u64 = 3_600_000;
/// Until the next attempt where a failure could not be reported: then it fails again, or has become deliverable.
const UNREPORTED: u64 = 300_000;

/// How an attempt went, beside its answers.
#[derive(Debug, Default)]
pub(super) struct Attempt {
    /// The next hop's host.
    pub(super) host: String,
    /// Its address, once connected.
    pub(super) address: Option<String>,
    /// TLS of the connection.
    pub(super) tls: Option<TlsFacts>,
    /// The connection had carried a message before.
    pub(super) reused: bool,
    /// Milliseconds.
    pub(super) took: u64,
    /// It was the probe of a parked queue.
    pub(super) probe: bool,
    /// Recipients that were taken by a host which offers no DSN.
    pub(super) relayed: Vec<usize>,
}

/// Who answers on this way.
pub(super) fn next_hop(via: &Via) -> NextHop {
    match via {
        Via::Exchange => NextHop::Exchange,
        Via::Mx => NextHop::Mx,
        Via::Relay(_) => NextHop::Relay,
    }
}

/// Settles `work` with what was answered about each recipient.
pub(super) async fn settle<S: Store>(
    shared: &Shared<S>,
    lane: &Lane,
    setup: &Setup,
    work: S::Work,
    attempt: Attempt,
    answers: &[(usize, Answer)],
) {
    let now = (shared.clock)();
    let law = setup.law(&lane.destination.via);
    let mut report = Report {
        shared,
        lane,
        law,
        now,
        attempts: work.attempts().saturating_add(1),
        work: &work,
        faults: Vec::new(),
        changes: Vec::new(),
        waits_otherwise: false,
    };
    let judged: Vec<_> = answers
        .iter()
        .map(|(at, answer)| (*at, answer.judge(next_hop(&lane.destination.via))))
        .collect();
    report.tell_hold(&judged, answers, &attempt);
    if let Some((_, Answer::Unreadable(why))) = answers
        .iter()
        .find(|(_, answer)| matches!(answer, Answer::Unreadable(_)))
    {
        // Kept, and tried again: a person has to look at it.
        tracing::error!(id = %work.message().id, %why, "a queued message cannot be sent");
        let failures = &shared.metrics.store_failures;
        failures.with_label_values(&["read"]).inc();
    }
    let (mut results, mut lines) = (
        Vec::with_capacity(judged.len()),
        Vec::with_capacity(judged.len()),
    );
    let age = now.saturating_sub(work.arrived());
    let alarming = judged.iter().find(|(_, judged)| judged.alarm.is_due(age));
    if let Some((_, judged)) = alarming {
        report.alarm(&judged.reply);
    }
    let mut decided = Vec::with_capacity(judged.len());
    let (mut failures, mut handed_on) = (Vec::new(), Vec::new());
    for ((at, judged), (_, answer)) in judged.into_iter().zip(answers) {
        let disposition = report.dispose(at, judged.outcome, judged.reply.clone());
        if matches!(disposition, Disposition::Failed { .. }) {
            failures.push(Failure {
                at,
                reply: judged.reply.clone(),
                expired: !matches!(
                    judged.outcome,
                    Outcome::Failed | Outcome::Held(Reach::Recipient)
                ),
                said: matches!(answer, Answer::Refused { .. }),
            });
        }
        if disposition == Disposition::Delivered && attempt.relayed.contains(&at) {
            handed_on.push(HandedOn {
                at,
                reply: judged.reply.clone(),
            });
        }
        decided.push((at, disposition, judged.reply));
    }
    let told = if failures.is_empty() {
        Ok(())
    } else {
        bounce::tell(shared, &setup.settings, &work, &attempt.host, &failures).await
    };
    if !handed_on.is_empty() {
        bounce::tell_relayed(shared, &setup.settings, &work, &attempt.host, &handed_on).await;
    }
    if let Err(error) = &told {
        let id = work.message().id;
        tracing::error!(%id, %error, "a failure cannot be reported yet: its recipients stay open");
    }
    for (at, mut disposition, reply) in decided {
        if told.is_err() && matches!(disposition, Disposition::Failed { .. }) {
            disposition = report.unreported(at, reply.clone());
        }
        lines.push(report.line(at, &disposition, reply));
        results.push((at, disposition));
    }
    let changes = std::mem::take(&mut report.changes);
    let waits_otherwise = report.waits_otherwise;
    let id = work.message().id;
    shared.trace(attempted(
        lane,
        work.message().id,
        now,
        attempt,
        false,
        lines,
    ));
    shared.store.settle(work, results, true);
    if waits_otherwise {
        tell_waits(shared, lane);
    }
    for change in changes {
        queue_changed(shared, lane, Some(id), change, now);
    }
}

/// Settles mail of our own that went without certificate while its queue is parked: taken, or it waits with the queue. It
/// has one recipient. Nothing is concluded about the queue.
pub(super) fn settle_uncertified<S: Store>(
    shared: &Shared<S>,
    lane: &Lane,
    work: S::Work,
    attempt: Attempt,
    answers: &[(usize, Answer)],
) {
    let now = (shared.clock)();
    let taken = |(_, answer): &(usize, Answer)| matches!(answer, Answer::Taken(_));
    let delivered = !answers.is_empty() && answers.iter().all(taken);
    let outcome = if delivered { "delivered" } else { "held" };
    let line = |(at, answer): &(usize, Answer)| {
        tell_result(shared, lane, &work, *at, outcome, None, answer.summary())
    };
    let lines = answers.iter().map(line).collect();
    shared.trace(attempted(
        lane,
        work.message().id,
        now,
        attempt,
        true,
        lines,
    ));
    if delivered {
        let results = answers.iter().map(|(at, _)| (*at, Disposition::Delivered));
        shared.store.settle(work, results.collect(), true);
    } else {
        shared.store.keep_uncertified(work);
    }
}

/// An attempt as the trace tells it.
fn attempted(
    lane: &Lane,
    id: QueueId,
    now: u64,
    attempt: Attempt,
    uncertified: bool,
    results: Vec<RecipientResult>,
) -> TraceEvent {
    TraceEvent {
        at: now,
        id: id.to_string(),
        event: Event::Attempt {
            tenant: lane.destination.tenant.to_string(),
            via: lane.destination.via.to_string(),
            host: shown(attempt.host.as_bytes()),
            address: attempt.address,
            tls: attempt.tls,
            reused: attempt.reused,
            uncertified,
            took: attempt.took,
            results,
        },
    }
}

/// One recipient's result, counted.
fn tell_result<S: Store>(
    shared: &Shared<S>,
    lane: &Lane,
    work: &S::Work,
    at: usize,
    outcome: &str,
    next_try: Option<u64>,
    reply: String,
) -> RecipientResult {
    let message = work.message();
    let recipient = message.envelope.recipients.get(at);
    let destination = &lane.destination;
    let stream = message.stream.as_deref().unwrap_or_default();
    let (via, tenant) = (destination.via.to_string(), &*destination.tenant);
    let metrics = &shared.metrics;
    let labels = [via.as_str(), tenant, stream, outcome];
    metrics.deliveries.with_label_values(&labels).inc();
    if outcome == "delivered" {
        let duration = (shared.clock)().saturating_sub(work.arrived()) as f64 / 1000.0;
        let way = [via.as_str(), tenant];
        let histogram = metrics.delivery_duration.with_label_values(&way);
        histogram.observe(duration);
    }
    RecipientResult {
        recipient: recipient.map_or_else(String::new, |one| shown(one.mailbox.as_str().as_bytes())),
        outcome: outcome.to_owned(),
        reply,
        next_try,
    }
}

/// What a recipient met before: since when it is held for a fault of the same reach, and whether such a hold has run out.
type Past = (Option<u64>, bool);

struct Report<'a, S: Store> {
    shared: &'a Shared<S>,
    lane: &'a Lane,
    law: &'a Law,
    now: u64,
    attempts: u32,
    work: &'a S::Work,
    /// What the queue says to a fault of the connector: once for all recipients with the same past.
    faults: Vec<(Past, Kept)>,
    changes: Vec<Change>,
    /// The queue pauses until another moment than before, or no more.
    waits_otherwise: bool,
}

impl<S: Store> Report<'_, S> {
    /// What the whole message says about the queue.
    fn tell_hold(
        &mut self,
        judged: &[(usize, crate::dialogue::outcome::Judged)],
        answers: &[(usize, Answer)],
        attempt: &Attempt,
    ) {
        let (law, now) = (self.law, self.now);
        let any = |outcome| judged.iter().any(|(_, judged)| judged.outcome == outcome);
        let delivered = any(Outcome::Delivered);
        let certain = answers
            .iter()
            .any(|(_, answer)| matches!(answer, Answer::OwnCertificate(_)));
        let unreachable = answers
            .iter()
            .any(|(_, answer)| matches!(answer, Answer::Unreachable(_)));
        let backed_off = any(Outcome::Deferred(Pace::BackOff));
        // A probe that is answered for itself shows that the connector works, unless somebody still blames that or its use.
        let answered = attempt.probe
            && !delivered
            && !backed_off
            && !any(Outcome::Held(Reach::Tenant))
            && answers
                .iter()
                .any(|(_, answer)| answer.is_about_the_message());
        let mut faults: Vec<(Past, &str)> = Vec::new();
        for (at, judged) in judged {
            if judged.outcome != Outcome::Held(Reach::Tenant) {
                continue;
            }
            let past = self.earlier(*at, Reach::Tenant);
            if faults.iter().all(|(other, _)| *other != past) {
                faults.push((past, &judged.reply));
            }
        }
        let (id, attempts) = (self.work.message().id, self.attempts);
        let outside = !self.lane.destination.via.is_internal();
        self.lane.hold(|hold| {
            let paused = hold.paused_until();
            if answered {
                self.changes.extend(hold.answered(id, now));
            } else if attempt.probe && !delivered {
                self.changes.extend(hold.probe_failed(law, now));
            }
            for (past, reason) in faults {
                let (held_since, spent) = past;
                let fault = Fault {
                    id,
                    attempts,
                    held_since,
                    spent,
                    certain,
                    reason,
                };
                let (kept, change) = hold.fault(law, now, &fault);
                self.faults.push((past, kept));
                self.changes.extend(change);
            }
            if unreachable && !outside {
                hold.unreachable();
            }
            if backed_off && outside {
                self.changes.extend(hold.pause(law, now));
            } else if backed_off {
                self.changes.extend(hold.back_off(law, now));
            }
            if delivered {
                self.changes.extend(hold.delivered(now));
            }
            self.waits_otherwise = hold.paused_until() != paused;
        });
    }

    /// When the recipient's hold for a fault of this reach began, and whether it has already run out.
    fn earlier(&self, at: usize, reach: Reach) -> Past {
        let Some(last) = self.work.last_reply(at) else {
            return (None, false);
        };
        if shown_reach(&last) != Some(reach) {
            return (None, false);
        }
        let since = self.work.held_since();
        (since, since.is_none())
    }

    fn dispose(&self, at: usize, outcome: Outcome, reply: String) -> Disposition {
        let (law, now, attempts) = (self.law, self.now, self.attempts);
        let held = |next_try, since, reply| Disposition::Held {
            next_try,
            since,
            reply,
        };
        match outcome {
            Outcome::Delivered => Disposition::Delivered,
            Outcome::Failed => self.failed(reply),
            Outcome::Deferred(pace) => self.deferred(pace, reply),
            Outcome::Held(Reach::Tenant) => {
                let past = self.earlier(at, Reach::Tenant);
                let kept = self.faults.iter().find(|(other, _)| *other == past);
                match kept.map(|(_, kept)| *kept) {
                    Some(Kept::Held { next_try, since }) => held(next_try, since, reply),
                    Some(Kept::Over) | None => self.deferred(Pace::Law, reply),
                }
            }
            Outcome::Held(Reach::Recipient) => {
                let (since, _) = self.earlier(at, Reach::Recipient);
                match recipient_fault(law, attempts, now, since) {
                    Kept::Held { next_try, since } => held(next_try, since, reply),
                    Kept::Over => self.failed(reply),
                }
            }
        }
    }

    fn deferred(&self, pace: Pace, reply: String) -> Disposition {
        match next_attempt(self.law, self.attempts, self.work.arrived(), self.now) {
            Next::At(next_try) => {
                let next_try = match pace {
                    Pace::Hourly => next_try.max(self.now.saturating_add(HOUR)),
                    Pace::Law | Pace::BackOff | Pace::AtOnce => next_try,
                };
                Disposition::Deferred { next_try, reply }
            }
            Next::GiveUp => self.failed(reply),
        }
    }

    /// This recipient failed: the one place where that is concluded. [`settle`] tells the sender.
    fn failed(&self, reply: String) -> Disposition {
        Disposition::Failed { reply }
    }

    /// It failed, and nobody could be told: tried again, and a recipient's own hold stays as old as it is, so that it is over
    /// then as well.
    fn unreported(&self, at: usize, reply: String) -> Disposition {
        let next_try = self.now.saturating_add(UNREPORTED);
        match self.earlier(at, Reach::Recipient).0 {
            Some(since) if shown_reach(&reply) == Some(Reach::Recipient) => Disposition::Held {
                next_try,
                since,
                reply,
            },
            _ => Disposition::Deferred { next_try, reply },
        }
    }

    fn alarm(&self, reply: &str) {
        let (tenant, id) = (&*self.lane.destination.tenant, self.work.message().id);
        let via = self.lane.destination.via.to_string();
        tracing::warn!(tenant, via, %id, reply, "a reply that an administrator should see: gatepost explain reply");
    }

    fn line(&self, at: usize, disposition: &Disposition, reply: String) -> RecipientResult {
        let (outcome, next_try) = match disposition {
            Disposition::Delivered => ("delivered", None),
            Disposition::Failed { .. } => ("failed", None),
            Disposition::Deferred { next_try, .. } => ("deferred", Some(*next_try)),
            Disposition::Held { next_try, .. } => ("held", Some(*next_try)),
        };
        tell_result(
            self.shared,
            self.lane,
            self.work,
            at,
            outcome,
            next_try,
            reply,
        )
    }
}

/// Tells the store until when mail of the queue waits with it: what a list shows.
pub(super) fn tell_waits<S: Store>(shared: &Shared<S>, lane: &Lane) {
    let (next_probe, until) = lane.hold(|hold| (hold.next_probe(), hold.paused_until()));
    shared.store.parked(&lane.destination, next_probe);
    shared.store.paused(&lane.destination, until);
}

/// Says what became of a queue: trace, metric, log, and the release of what was held one by one. `id` is the message that
/// brought it about; where none did, the oldest of those that are released.
pub(super) fn queue_changed<S: Store>(
    shared: &Shared<S>,
    lane: &Lane,
    mut id: Option<QueueId>,
    change: Change,
    now: u64,
) {
    let destination = &lane.destination;
    let tenant = &*destination.tenant;
    tell_waits(shared, lane);
    let fault = lane.hold(|hold| hold.parked().map(|(_, reason)| reason.to_owned()));
    let parked = shared
        .metrics
        .queue_parked
        .with_label_values(&[destination.via.to_string().as_str(), tenant]);
    parked.set(i64::from(fault.is_some()));
    let fault = fault.unwrap_or_default();
    let (state, reason) = match change {
        Change::Parked => {
            tracing::warn!(
                tenant,
                fault,
                "the tenant's queue is parked: its connector or certificate is at fault"
            );
            ("parked", fault)
        }
        Change::ProbeFailed => ("probe_failed", fault),
        Change::Released {
            reason,
            held,
            proven,
        } => {
            tracing::warn!(
                tenant,
                fault = reason,
                proven,
                "the tenant's queue is released"
            );
            id = id.or_else(|| held.first().copied());
            for id in held {
                shared.store.release(id, now);
            }
            ("released", reason)
        }
        Change::BackedOff { until } => {
            let seconds = until.saturating_sub(now) / 1000;
            match &destination.domain {
                // Domains that do not answer are everyday life.
                Some(domain) => {
                    tracing::debug!(tenant, %domain, seconds, "a domain's queue pauses");
                    ("backed_off", format!("{domain}, for {seconds} s"))
                }
                None => {
                    tracing::warn!(
                        tenant,
                        via = %destination.via,
                        seconds,
                        "the next hop asks for less or is not reached: the tenant's queue pauses"
                    );
                    ("backed_off", format!("for {seconds} s"))
                }
            }
        }
    };
    shared.trace(TraceEvent {
        at: now,
        id: id.map_or_else(String::new, |id| id.to_string()),
        event: Event::Queue {
            tenant: tenant.to_owned(),
            via: destination.via.to_string(),
            state: state.to_owned(),
            reason,
        },
    });
}
