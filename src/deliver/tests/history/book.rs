//! The reference: what was handed in, what the next hop heard and said of it, and so what must be recorded. It is told of
//! each step of delivery as that comes, and notes the first that must not be.

use super::lane::{EXCHANGE, HOUR, Lane, May, Met, OUTSIDE, Rule};
use crate::mail::QueueId;
use crate::route::Via;
use crate::spool::tests::stepped::Owed;
use crate::spool::{Destination, Disposition, Message, QueueAction};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::Notify;

/// What a recipient was answered, at last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    Taken,
    /// Taken, and the answer did not come back.
    Unsaid,
    Later,
    Never,
    /// This recipient takes others than us.
    Restricted,
    /// The connector is at fault.
    Fault,
    /// Everyone should send less.
    Busy,
    TooMany,
    Broke,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Open,
    Delivered,
    Failed,
    Deleted,
}

#[derive(Clone, Debug)]
struct Recipient {
    address: String,
    end: End,
    attempts: u32,
    next_try: u64,
    held_since: u64,
    last: Option<Said>,
    operator_hold: bool,
    uncertified: bool,
}

/// The recipients of a message in one queue.
#[derive(Clone, Debug)]
struct Part {
    queue: Destination,
    recipients: BTreeMap<usize, Recipient>,
    leased: bool,
}

#[derive(Clone, Debug)]
struct Mail {
    arrived: u64,
    /// Somebody hears of failures.
    answers: bool,
    own: bool,
    parts: Vec<Part>,
}

/// How often something came, and how often it may at most.
#[derive(Clone, Copy, Debug)]
struct Times {
    is: usize,
    may: usize,
}

impl Default for Times {
    fn default() -> Self {
        Self { is: 0, may: 1 }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Due,
    Probe,
    Uncertified,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    Delivered,
    Failed,
    /// Tried again then; held since.
    At(u64, Option<u64>),
}

#[derive(Debug)]
struct Lease {
    id: u64,
    part: usize,
    recipients: Vec<usize>,
    kind: Kind,
    /// What was heard before is not about it.
    mark: u64,
    /// How often its content was read from the start.
    reads: usize,
    judged: Option<BTreeMap<usize, Expected>>,
    /// What it was judged by; remembered with the result, not before.
    said: BTreeMap<usize, Said>,
}

/// What happened, for the test to know that something did.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    pub(super) leases: usize,
    pub(super) delivered: usize,
    pub(super) again: usize,
    pub(super) failed: usize,
    pub(super) expired: usize,
    pub(super) bounces: usize,
    pub(super) deferred: usize,
    pub(super) held: usize,
    pub(super) parked: usize,
    pub(super) probes: usize,
    pub(super) ramps: usize,
    pub(super) uncertified: usize,
    pub(super) kills: usize,
}

#[derive(Debug, Default)]
struct Inner {
    now: u64,
    most: usize,
    mails: BTreeMap<u64, Mail>,
    /// As a restart will find them.
    durable: BTreeMap<u64, Mail>,
    lanes: BTreeMap<Destination, Lane>,
    leases: BTreeMap<u64, Lease>,
    copies: BTreeMap<(u64, usize), Times>,
    bounces: BTreeMap<(u64, usize), Times>,
    /// By address: when, and what.
    heard: BTreeMap<String, (u64, Said)>,
    /// By address: how often content was asked for, in transactions of which it is the first.
    granted: BTreeMap<String, usize>,
    /// By message: when a connection was closed at MAIL.
    broke: BTreeMap<u64, u64>,
    count: u64,
    /// The process is being killed.
    dying: bool,
    error: Option<String>,
    tally: Tally,
}

/// Told by everyone, looked at by the test.
#[derive(Clone, Debug, Default)]
pub(super) struct Book(Arc<Mutex<Inner>>, Arc<Notify>);

/// `r2.m17@…`: recipient 2 of message 17.
pub(super) fn address_of(address: &str) -> Option<(u64, usize)> {
    let (local, _) = address.split_once('@')?;
    let (position, id) = local.strip_prefix('r')?.split_once(".m")?;
    Some((id.parse().ok()?, position.parse().ok()?))
}

fn rule(via: &Via) -> &'static Rule {
    if via.is_internal() {
        &EXCHANGE
    } else {
        &OUTSIDE
    }
}

impl Book {
    pub(super) fn new(now: u64, most: usize) -> Self {
        let book = Self::default();
        let mut inner = book.lock();
        (inner.now, inner.most) = (now, most);
        drop(inner);
        book
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }

    /// Something happened: who waits looks again.
    fn happened(&self, inner: &mut Inner) {
        inner.count += 1;
        self.1.notify_one();
    }

    pub(super) async fn changed(&self) {
        self.1.notified().await;
    }

    pub(super) fn count(&self) -> u64 {
        self.lock().count
    }

    pub(super) fn error(&self) -> Option<String> {
        self.lock().error.clone()
    }

    pub(super) fn tally(&self) -> Tally {
        self.lock().tally
    }

    pub(super) fn why_not_quiet(&self) -> Option<String> {
        self.lock().why_not_quiet()
    }

    // ---- what the test does -------------------------------------------------------------------------------------

    pub(super) fn submitted(&self, message: &Message) {
        let mut inner = self.lock();
        inner.submit(message);
        self.happened(&mut inner);
    }

    pub(super) fn synced(&self) {
        let mut inner = self.lock();
        inner.durable = inner.mails.clone();
    }

    pub(super) fn pass(&self, millis: u64) {
        let mut inner = self.lock();
        inner.now += millis;
        let now = inner.now;
        inner.lanes.values_mut().for_each(|lane| lane.tick(now));
    }

    pub(super) fn reloaded(&self) {
        let mut inner = self.lock();
        let now = inner.now;
        inner.lanes.values_mut().for_each(|lane| lane.reloaded(now));
    }

    pub(super) fn open(&self) -> Vec<u64> {
        let inner = self.lock();
        let open = inner.mails.iter().filter(|(_, mail)| mail.is_open());
        open.map(|(id, _)| *id).collect()
    }

    pub(super) fn act(&self, id: u64, action: QueueAction) {
        self.lock().act(id, action);
    }

    pub(super) fn dying(&self) {
        self.lock().dying = true;
    }

    /// The process has ended; what was not on disk is as it was before.
    pub(super) fn restarted(&self) {
        self.lock().restarted();
    }

    pub(super) fn compare(&self, owed: &[Owed]) -> Result<(), String> {
        self.lock().compare(owed)
    }

    /// Every recipient came to one end, and whoever should know of it does.
    pub(super) fn all_is_over(&self) -> Result<(), String> {
        self.lock().all_is_over()
    }

    // ---- what delivery does -------------------------------------------------------------------------------------

    pub(super) fn leased(
        &self,
        queue: &Destination,
        id: u64,
        recipients: &[usize],
        kind: Kind,
    ) -> u64 {
        let mut inner = self.lock();
        let key = inner.count;
        if let Err(error) = inner.lease(queue, id, recipients, kind) {
            inner.note(error);
        }
        self.happened(&mut inner);
        key
    }

    /// A connection asks for the probe, whether or not there is one.
    pub(super) fn probes(&self, queue: &Destination) {
        let mut inner = self.lock();
        let now = inner.now;
        let lane = inner.lanes.entry(queue.clone()).or_default();
        if lane.may(now) != May::Probe {
            let error = format!("a probe of {queue}, which is not due: {lane:?} at {now}");
            return inner.note(error);
        }
        lane.probe_begun(now);
    }

    pub(super) fn read_from_the_start(&self, key: u64) {
        let mut inner = self.lock();
        inner.read_from_the_start(key);
    }

    pub(super) fn reported(&self, message: &Message, content: &[u8]) {
        let mut inner = self.lock();
        if let Err(error) = inner.report(message, content) {
            inner.note(error);
        }
    }

    pub(super) fn settled(&self, key: u64, results: &[(usize, Disposition)], counts: bool) {
        let mut inner = self.lock();
        if let Err(error) = inner.settle(key, results, counts) {
            inner.note(error);
        }
        self.happened(&mut inner);
    }

    pub(super) fn kept_uncertified(&self, key: u64) {
        let mut inner = self.lock();
        if let Err(error) = inner.keep_uncertified(key) {
            inner.note(error);
        }
        self.happened(&mut inner);
    }

    pub(super) fn dropped(&self, key: u64) {
        let mut inner = self.lock();
        let lease = inner.leases.remove(&key);
        if let Some(lease) = lease {
            if !inner.dying {
                let id = lease.id;
                inner.note(format!("the lease of {id} is dropped"));
            }
            if let Some(part) = inner.part(lease.id, lease.part) {
                part.leased = false;
            }
        }
        self.happened(&mut inner);
    }

    pub(super) fn released(&self, id: QueueId) {
        let mut inner = self.lock();
        let id = id.as_u64();
        let now = inner.now;
        let mut found = inner.lanes.values_mut().any(|lane| lane.lets_go(id));
        if !found {
            // Parked after its time was over, because of a hold from before a restart: that ends with the next look.
            inner.lanes.values_mut().for_each(|lane| lane.tick(now));
            found = inner.lanes.values_mut().any(|lane| lane.lets_go(id));
        }
        if !found {
            let error = format!(
                "{id} is let go at {now}, and nobody said so: {:?}",
                inner.lanes
            );
            inner.note(error);
        }
        inner.act(id, QueueAction::Retry);
        self.happened(&mut inner);
    }

    /// What a new process finds held.
    pub(super) fn taken_up(&self, found: &[(Destination, u64, Vec<u64>)]) {
        let mut inner = self.lock();
        let expected = inner.held();
        if expected != found {
            inner.note(format!("held before are {found:?}, expected {expected:?}"));
        }
        for (queue, since, ids) in expected {
            inner.lanes.entry(queue).or_default().take_up(since, &ids);
        }
    }

    // ---- what the next hop hears --------------------------------------------------------------------------------

    pub(super) fn hears(&self, address: &str, said: Said) {
        let mut inner = self.lock();
        let at = inner.count;
        inner.heard.insert(address.to_owned(), (at, said));
        self.happened(&mut inner);
    }

    pub(super) fn grants(&self, address: &str) {
        let mut inner = self.lock();
        *inner.granted.entry(address.to_owned()).or_default() += 1;
    }

    pub(super) fn has_one_way(&self, id: u64) -> bool {
        let inner = self.lock();
        inner
            .mails
            .get(&id)
            .is_some_and(|mail| mail.parts.len() == 1)
    }

    pub(super) fn breaks_at_mail(&self, id: u64) {
        let mut inner = self.lock();
        let at = inner.count;
        inner.broke.insert(id, at);
        self.happened(&mut inner);
    }

    /// It has a whole message, for good.
    pub(super) fn takes(&self, id: u64, position: usize, address: &str, said: Said) {
        let mut inner = self.lock();
        let times = inner.copies.entry((id, position)).or_default();
        times.is += 1;
        let Times { is, may } = *times;
        if said == Said::Unsaid {
            times.may += 1;
        }
        inner.tally.again += usize::from(is > 1);
        if is > may {
            inner.note(format!(
                "recipient {position} of {id} got copy {is} of {may}"
            ));
        }
        let at = inner.count;
        inner.heard.insert(address.to_owned(), (at, said));
        self.happened(&mut inner);
    }
}

impl Mail {
    fn of(message: &Message) -> Self {
        let mut parts: Vec<Part> = Vec::new();
        for leg in &message.legs {
            for position in &leg.recipients {
                let mailbox = &message.envelope.recipients[*position].mailbox;
                let queue = Destination {
                    via: leg.via.clone(),
                    tenant: Arc::clone(&message.tenant),
                    domain: (leg.via == Via::Mx).then(|| mailbox.domain().clone()),
                };
                let recipient = Recipient {
                    address: mailbox.as_str().to_owned(),
                    end: End::Open,
                    attempts: 0,
                    next_try: message.arrived,
                    held_since: 0,
                    last: None,
                    operator_hold: false,
                    uncertified: false,
                };
                let known = parts.iter().position(|part| part.queue == queue);
                let at = known.unwrap_or_else(|| {
                    parts.push(Part {
                        queue,
                        recipients: BTreeMap::new(),
                        leased: false,
                    });
                    parts.len() - 1
                });
                parts[at].recipients.insert(*position, recipient);
            }
        }
        Self {
            arrived: message.arrived,
            answers: message.envelope.reverse_path.mailbox().is_some(),
            own: message.is_own(),
            parts,
        }
    }

    fn is_open(&self) -> bool {
        self.parts.iter().any(|part| part.open().next().is_some())
    }
}

impl Part {
    fn open(&self) -> impl Iterator<Item = (&usize, &Recipient)> {
        let all = self.recipients.iter();
        all.filter(|(_, one)| one.end == End::Open)
    }
}

impl Inner {
    fn note(&mut self, error: String) {
        self.error.get_or_insert(error);
    }

    fn part(&mut self, id: u64, part: usize) -> Option<&mut Part> {
        self.mails.get_mut(&id)?.parts.get_mut(part)
    }

    fn submit(&mut self, message: &Message) {
        self.mails.insert(message.id.as_u64(), Mail::of(message));
    }

    /// What is still to happen at this moment; nothing where all wait for a later one.
    fn why_not_quiet(&self) -> Option<String> {
        if let Some(lease) = self.leases.values().next() {
            return Some(format!("on its way: {lease:?}"));
        }
        for (queue, lane) in &self.lanes {
            if !lane.to_release.is_empty() {
                return Some(format!("to be let go in {queue}: {:?}", lane.to_release));
            }
            if lane.is_over(self.now) {
                return Some(format!("the hold of {queue} is over: {lane:?}"));
            }
        }
        let parts = self.mails.iter();
        let mut parts = parts.flat_map(|(id, mail)| mail.parts.iter().map(move |part| (id, part)));
        parts.find_map(|(id, part)| {
            let may = self
                .lanes
                .get(&part.queue)
                .map_or(May::Go, |lane| lane.may(self.now));
            let mut open = part.open().filter(|(_, one)| !one.operator_hold);
            let goes = match may {
                May::Go => open.any(|(_, one)| one.next_try <= self.now),
                May::Probe => open.next().is_some(),
                May::Wait => false,
            };
            goes.then(|| format!("{id} waits in {}, and {may:?}: {part:?}", part.queue))
        })
    }

    fn act(&mut self, id: u64, action: QueueAction) {
        let now = self.now;
        let Some(mail) = self.mails.get_mut(&id) else {
            return;
        };
        let all = mail.parts.iter_mut();
        let all = all.flat_map(|part| part.recipients.values_mut());
        for one in all.filter(|one| one.end == End::Open) {
            match action {
                QueueAction::Delete => one.end = End::Deleted,
                QueueAction::Hold => one.operator_hold = true,
                QueueAction::Release => {
                    (one.operator_hold, one.held_since, one.next_try) = (false, 0, now);
                }
                QueueAction::Retry if one.operator_hold => {}
                QueueAction::Retry => one.next_try = now,
            }
        }
    }

    fn lease(
        &mut self,
        queue: &Destination,
        id: u64,
        recipients: &[usize],
        kind: Kind,
    ) -> Result<(), String> {
        let (now, most, mark) = (self.now, self.most, self.count);
        let other = |lease: &&Lease| {
            let mail = self.mails.get(&lease.id);
            lease.kind != Kind::Uncertified
                && mail.is_some_and(|mail| mail.parts[lease.part].queue == *queue)
        };
        let others = self.leases.values().filter(other).count();
        let lane = self.lanes.entry(queue.clone()).or_default();
        let fits = match kind {
            Kind::Due => lane.may(now) == May::Go,
            // That it was due was seen when it was asked for.
            Kind::Probe => lane.is_parked(),
            Kind::Uncertified => lane.is_parked(),
        };
        if !fits {
            return Err(format!(
                "{id} goes as {kind:?} at {now}, and its queue is {lane:?}"
            ));
        }
        let ramp = lane.ramp(now, most).unwrap_or(most);
        let most = if queue.via.is_internal() {
            ramp
        } else {
            usize::MAX
        };
        if kind != Kind::Uncertified && others + 1 > most {
            return Err(format!(
                "{id} is number {} on its way of {most}: {lane:?} at {now}",
                others + 1
            ));
        }
        let mail = self.mails.get_mut(&id).ok_or("mail that nobody sent")?;
        let has_them =
            |part: &Part| part.queue == *queue && part.recipients.contains_key(&recipients[0]);
        let at = mail.parts.iter().position(has_them);
        let at = at.ok_or_else(|| format!("{id} in {queue}, which is not its way"))?;
        let part = &mut mail.parts[at];
        if part.leased {
            return Err(format!("{id} is leased twice"));
        }
        let first = part.recipients[&recipients[0]].clone();
        for position in recipients {
            let one = part.recipients.get(position);
            let alike = |one: &&Recipient| {
                one.end == End::Open
                    && !one.operator_hold
                    && (kind != Kind::Due || one.next_try <= now)
                    && (kind != Kind::Uncertified || mail.own && !one.uncertified)
                    && (one.attempts, one.held_since) == (first.attempts, first.held_since)
            };
            if one.filter(alike).is_none() {
                return Err(format!(
                    "{position} of {id} goes as {kind:?} at {now}: {one:?}"
                ));
            }
        }
        part.leased = true;
        for position in recipients {
            self.granted.remove(&part.recipients[position].address);
        }
        self.tally.leases += 1;
        self.tally.probes += usize::from(kind == Kind::Probe);
        self.tally.uncertified += usize::from(kind == Kind::Uncertified);
        let lease = Lease {
            id,
            part: at,
            recipients: recipients.to_vec(),
            kind,
            mark,
            reads: 0,
            judged: None,
            said: BTreeMap::new(),
        };
        self.leases.insert(mark, lease);
        Ok(())
    }

    /// Content is read once for each time that the next hop asked for it; what is read beyond is for a report.
    fn read_from_the_start(&mut self, key: u64) {
        let Some(lease) = self.leases.get_mut(&key) else {
            return;
        };
        lease.reads += 1;
        let (reads, id, part) = (lease.reads, lease.id, lease.part);
        let positions = lease.recipients.clone();
        let own = self.mails[&id].own;
        let all = &self.mails[&id].parts[part].recipients;
        let granted = positions
            .iter()
            .filter_map(|at| self.granted.get(&all[at].address));
        if !own
            && reads > granted.sum()
            && let Err(error) = self.judge(key)
        {
            self.note(error);
        }
    }

    fn judge(&mut self, key: u64) -> Result<(), String> {
        let now = self.now;
        let lease = self.leases.get(&key).ok_or("results without a lease")?;
        if lease.judged.is_some() {
            return Ok(());
        }
        let (id, kind) = (lease.id, lease.kind);
        let mail = &self.mails[&id];
        let part = &mail.parts[lease.part];
        let mut said = Vec::new();
        for at in &lease.recipients {
            let heard = self.heard.get(&part.recipients[at].address);
            let heard = heard.filter(|(when, _)| *when > lease.mark);
            // On a new connection: that was the attempt.
            let broke = self.broke.get(&id).filter(|when| **when > lease.mark);
            match (heard, broke) {
                (Some((when, _)), Some(broke)) if when > broke => {
                    return Err(format!(
                        "{at} of {id} was asked for again after a new connection broke"
                    ));
                }
                (Some((_, Said::TooMany)) | None, Some(_)) => said.push((*at, Said::Broke)),
                (Some((_, said_of)), _) => said.push((*at, *said_of)),
                (None, None) => {
                    return Err(format!("{at} of {id} has a result, and nobody was asked"));
                }
            }
        }
        let first = &part.recipients[&lease.recipients[0]];
        let attempts = first.attempts + 1;
        // Recipients on one lease may have been held at one moment for different reasons.
        let before = |at: &usize, said| {
            let one = &part.recipients[at];
            let since = Some(one.held_since).filter(|since| *since > 0);
            (one.last == Some(said)).then_some(since)
        };
        let internal = part.queue.via.is_internal();
        let rule = rule(&part.queue.via);
        let alone = kind == Kind::Probe
            && self
                .leases
                .values()
                .filter(|other| other.id != id)
                .all(|other| self.mails[&other.id].parts[other.part].queue != part.queue);
        let any = |what| said.iter().any(|(_, said)| *said == what);
        let mut held: Vec<(Option<Option<u64>>, Option<(u64, u64)>)> = Vec::new();
        if internal {
            let lane = self.lanes.entry(part.queue.clone()).or_default();
            let parked = lane.is_parked();
            if kind == Kind::Probe && !any(Said::Taken) {
                lane.probe_failed(now);
            }
            for (at, _) in said.iter().filter(|(_, said)| *said == Said::Fault) {
                let past = before(at, Said::Fault);
                if held.iter().any(|(other, _)| *other == past) {
                    continue;
                }
                let met = Met {
                    id,
                    attempts,
                    held_since: past.flatten(),
                    spent: past == Some(None),
                };
                held.push((past, lane.fault(now, &met)));
            }
            if any(Said::Busy) {
                lane.busy(now);
            }
            if any(Said::Taken) {
                lane.delivered(now, alone);
            }
            self.tally.parked += usize::from(!parked && lane.is_parked());
            self.tally.ramps += usize::from(parked && lane.ramp_from_one);
        }
        let by_the_rule = if now >= mail.arrived + rule.expire {
            Expected::Failed
        } else {
            Expected::At(
                (now + rule.wait(attempts)).min(mail.arrived + rule.expire),
                None,
            )
        };
        let expected = said.into_iter().map(|(at, said)| {
            let expected = match said {
                Said::Taken => Expected::Delivered,
                Said::Never => Expected::Failed,
                Said::Restricted => {
                    let since = before(&at, said).flatten().unwrap_or(now);
                    if now >= since + HOUR {
                        Expected::Failed
                    } else {
                        Expected::At((now + rule.wait(attempts)).min(since + HOUR), Some(since))
                    }
                }
                Said::Fault => {
                    let past = before(&at, said);
                    let kept = held.iter().find(|(other, _)| *other == past);
                    let kept = kept.and_then(|(_, kept)| *kept);
                    kept.map_or(by_the_rule, |(next, since)| Expected::At(next, Some(since)))
                }
                Said::Unsaid | Said::Later | Said::Busy | Said::TooMany | Said::Broke => {
                    by_the_rule
                }
            };
            (at, (said, expected))
        });
        let expected: Vec<_> = expected.collect();
        let old = |(_, (said, expected)): &&(usize, (Said, Expected))| {
            *expected == Expected::Failed && !matches!(said, Said::Never | Said::Restricted)
        };
        self.tally.expired += expected.iter().filter(old).count();
        let lease = self.leases.get_mut(&key).unwrap();
        let judged = expected.iter().map(|(at, (_, expected))| (*at, *expected));
        lease.judged = Some(judged.collect());
        lease.said = expected
            .iter()
            .map(|(at, (said, _))| (*at, *said))
            .collect();
        Ok(())
    }

    fn report(&mut self, message: &Message, content: &[u8]) -> Result<(), String> {
        let text = String::from_utf8_lossy(content);
        let named = text.lines();
        let named = named.filter_map(|line| line.strip_prefix("Final-Recipient: rfc822; "));
        let named: Vec<_> = named.filter_map(address_of).collect();
        let (id, _) = *named.first().ok_or("a report on nobody")?;
        let sender = format!("s.m{id}@");
        let to = message.envelope.recipients[0].mailbox.as_str();
        if named.iter().any(|(other, _)| *other != id) || !to.starts_with(&sender) {
            return Err(format!("a report to {to} on {named:?}"));
        }
        let key = self.leases.iter().find(|(_, lease)| {
            lease.id == id && named.iter().all(|(_, at)| lease.recipients.contains(at))
        });
        let key = *key
            .ok_or_else(|| format!("a report on {id}, which nobody tries"))?
            .0;
        self.judge(key)?;
        let judged = self.leases[&key].judged.clone().unwrap();
        let failed = judged.iter().filter(|(_, what)| **what == Expected::Failed);
        let failed: BTreeSet<_> = failed.map(|(at, _)| *at).collect();
        if named.iter().map(|(_, at)| *at).collect::<BTreeSet<_>>() != failed {
            return Err(format!("a report of {id} on {named:?}, and {judged:?}"));
        }
        for who in named {
            let times = self.bounces.entry(who).or_default();
            times.is += 1;
            self.tally.bounces += 1;
            if times.is > times.may {
                return Err(format!("{who:?} is reported {times:?}"));
            }
        }
        Ok(())
    }

    fn settle(
        &mut self,
        key: u64,
        results: &[(usize, Disposition)],
        counts: bool,
    ) -> Result<(), String> {
        let kind = self.leases.get(&key).map(|lease| lease.kind);
        if kind == Some(Kind::Uncertified) {
            return self.settle_uncertified(key, results);
        }
        let judged = self.judge(key);
        judged.map_err(|error| format!("{error}: {results:?}"))?;
        let lease = self.leases.remove(&key).unwrap();
        let (id, judged) = (lease.id, lease.judged.clone().unwrap());
        let got: BTreeMap<usize, Expected> = results
            .iter()
            .map(|(at, disposition)| {
                let got = match disposition {
                    Disposition::Delivered => Expected::Delivered,
                    Disposition::Failed { .. } => Expected::Failed,
                    Disposition::Deferred { next_try, .. } => Expected::At(*next_try, None),
                    Disposition::Held {
                        next_try, since, ..
                    } => Expected::At(*next_try, Some(*since)),
                };
                (*at, got)
            })
            .collect();
        if got != judged || !counts {
            return Err(format!("{id} came to {results:?}, expected {judged:?}"));
        }
        let answers = self.mails[&id].answers;
        for (at, expected) in judged {
            let bounces = self.bounces.entry((id, at)).or_default();
            let told = bounces.is == bounces.may;
            let copies = self.copies.entry((id, at)).or_default();
            if expected == Expected::Delivered && copies.is != copies.may {
                return Err(format!("{at} of {id} is delivered, and has {copies:?}"));
            }
            if (expected == Expected::Failed && answers) != told {
                return Err(format!(
                    "{at} of {id} is {expected:?}, and reported {bounces:?}"
                ));
            }
            self.count_end(expected);
            let part = self.part(id, lease.part).unwrap();
            part.leased = false;
            let one = part.recipients.get_mut(&at).unwrap();
            one.last = Some(lease.said[&at]);
            match expected {
                Expected::Delivered => one.end = End::Delivered,
                Expected::Failed => one.end = End::Failed,
                Expected::At(next_try, since) => {
                    one.next_try = next_try;
                    one.held_since = since.unwrap_or_default();
                    one.attempts += 1;
                }
            }
        }
        Ok(())
    }

    fn count_end(&mut self, expected: Expected) {
        let tally = &mut self.tally;
        match expected {
            Expected::Delivered => tally.delivered += 1,
            Expected::Failed => tally.failed += 1,
            Expected::At(_, None) => tally.deferred += 1,
            Expected::At(_, Some(_)) => tally.held += 1,
        }
    }

    /// Mail of our own that went as anyone's: taken, or as if nothing had been.
    fn settle_uncertified(
        &mut self,
        key: u64,
        results: &[(usize, Disposition)],
    ) -> Result<(), String> {
        let lease = self.leases.remove(&key).unwrap();
        let part = self.part(lease.id, lease.part).unwrap();
        part.leased = false;
        let address = part.recipients[&0].address.clone();
        let taken = matches!(results, [(0, Disposition::Delivered)]);
        let said = self
            .heard
            .get(&address)
            .filter(|(when, _)| *when > lease.mark);
        if !taken || said.is_none_or(|(_, said)| *said != Said::Taken) {
            return Err(format!("{} came to {results:?} after {said:?}", lease.id));
        }
        let part = self.part(lease.id, lease.part).unwrap();
        part.recipients.get_mut(&0).unwrap().end = End::Delivered;
        Ok(())
    }

    fn keep_uncertified(&mut self, key: u64) -> Result<(), String> {
        let lease = self.leases.remove(&key).ok_or("kept without a lease")?;
        let part = self.part(lease.id, lease.part).unwrap();
        part.leased = false;
        let all = part.recipients.values_mut();
        all.for_each(|one| one.uncertified = true);
        let address = part.recipients[&0].address.clone();
        let said = self
            .heard
            .get(&address)
            .filter(|(when, _)| *when > lease.mark);
        if said.is_some_and(|(_, said)| *said == Said::Taken) {
            return Err(format!("{} was taken and is kept", lease.id));
        }
        Ok(())
    }

    /// By queue: since when, and which messages.
    fn held(&self) -> Vec<(Destination, u64, Vec<u64>)> {
        let mut found: BTreeMap<Destination, (u64, Vec<u64>)> = BTreeMap::new();
        for (id, mail) in &self.mails {
            for part in &mail.parts {
                let mut open = part.open();
                let held =
                    open.find(|(_, one)| one.held_since > 0 && one.last == Some(Said::Fault));
                if let Some((_, one)) = held {
                    let (since, ids) = found
                        .entry(part.queue.clone())
                        .or_insert((one.held_since, Vec::new()));
                    *since = (*since).min(one.held_since);
                    ids.push(*id);
                }
            }
        }
        found
            .into_iter()
            .map(|(queue, (since, ids))| (queue, since, ids))
            .collect()
    }

    fn restarted(&mut self) {
        self.tally.kills += usize::from(self.dying);
        self.dying = false;
        self.mails = self.durable.clone();
        self.lanes.clear();
        self.leases.clear();
        for (id, mail) in &mut self.mails {
            for part in &mut mail.parts {
                part.leased = false;
                for (at, _) in part.open() {
                    let copies = self.copies.entry((*id, *at)).or_default();
                    copies.may = copies.is + 1;
                    let bounces = self.bounces.entry((*id, *at)).or_default();
                    bounces.may = bounces.is + 1;
                }
            }
        }
    }

    fn compare(&self, owed: &[Owed]) -> Result<(), String> {
        let mut expected = Vec::new();
        for (id, mail) in &self.mails {
            for part in &mail.parts {
                expected.extend(part.open().map(|(at, one)| Owed {
                    id: *id,
                    position: *at,
                    attempts: one.attempts,
                    next_try: one.next_try,
                    held_since: one.held_since,
                    operator_hold: one.operator_hold,
                    uncertified: one.uncertified,
                    leased: part.leased,
                }));
            }
        }
        expected.sort_by_key(|owed| (owed.id, owed.position));
        let differs = |(own, other): &(&Owed, &Owed)| own != other;
        match owed.iter().zip(&expected).find(differs) {
            Some((is, should)) => Err(format!("the store has {is:?}, expected {should:?}")),
            None if owed.len() != expected.len() => {
                Err(format!("the store owes {owed:?}, expected {expected:?}"))
            }
            None => Ok(()),
        }
    }

    fn all_is_over(&self) -> Result<(), String> {
        for (id, mail) in &self.mails {
            let all = mail.parts.iter().flat_map(|part| &part.recipients);
            for (at, one) in all {
                let copies = self.copies.get(&(*id, *at)).copied().unwrap_or_default();
                let bounces = self.bounces.get(&(*id, *at)).copied().unwrap_or_default();
                let well = match one.end {
                    End::Open => false,
                    End::Delivered => copies.is >= 1 && copies.is == copies.may,
                    End::Failed => !mail.answers || bounces.is == bounces.may,
                    End::Deleted => true,
                };
                if !well {
                    return Err(format!("{at} of {id}: {one:?}, {copies:?}, {bounces:?}"));
                }
            }
        }
        Ok(())
    }
}
