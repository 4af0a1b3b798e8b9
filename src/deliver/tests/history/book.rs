//! The reference: what was handed in, what the next hop heard and said of it, and so what must be recorded. It is told of
//! each step of delivery as that comes, and notes the first that must not be.

mod end;
mod lease;
mod mail;
mod notice;
mod report;
mod verdict;

use super::lane::{EXCHANGE, HOUR, Lane, May, Met, OUTSIDE, Rule, UNREPORTED};
use crate::mail::{Notify, QueueId};
use crate::route::Via;
use crate::spool::tests::stepped::Owed;
use crate::spool::{Destination, Disposition, Message, QueueAction};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

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
    /// There was no connection.
    Unreached,
    /// It ended, or somebody said that he takes no mail now, before there was a message.
    Turned,
}

/// How a new connection is met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Door {
    Open,
    /// Nobody listens.
    Refused,
    /// Closed before the greeting.
    Lost,
    /// 421 for a greeting.
    Busy,
    /// 554 for a greeting.
    NoMail,
    /// No TLS.
    Clear,
}

impl Door {
    /// What a message meets there that goes by `via`; nothing where it is let in.
    fn says(self, via: &Via) -> Option<Said> {
        Some(match (self, via) {
            (Self::Open, _) => return None,
            (Self::Refused, _) => Said::Unreached,
            // A stranger who takes no mail at all says so for good (RFC 7504).
            (Self::NoMail, Via::Mx) => Said::Never,
            (Self::Lost | Self::Busy | Self::NoMail, _) => Said::Turned,
            (Self::Clear, Via::Exchange) => Said::Fault,
            (Self::Clear, Via::Relay(_)) => Said::Turned,
            // RFC 7435: what is offered is used.
            (Self::Clear, Via::Mx) => return None,
        })
    }
}

/// Which door leads to a queue's next hop.
fn door_of(queue: &Destination) -> usize {
    match (&queue.via, &queue.domain) {
        (Via::Exchange, _) if *queue.tenant == *"contoso" => 0,
        (Via::Exchange, _) => 1,
        (_, Some(domain)) if domain.as_str() == "a.example" => 2,
        (Via::Mx, _) => 3,
        (Via::Relay(_), _) => 4,
    }
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
    notify: Option<Notify>,
    /// The sender knows that it waits.
    told: bool,
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
    /// Looked at for a notice, since it waits long: by connector, and outside.
    looked: [bool; 2],
    /// When it arrived, as its record says: by the clock as it was then.
    recorded: u64,
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
    /// Taken by a host that reports nothing, which the sender should know.
    handed_on: BTreeSet<usize>,
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
    pub(super) answered: usize,
    pub(super) hurried: usize,
    pub(super) ramps: usize,
    pub(super) uncertified: usize,
    pub(super) kills: usize,
    pub(super) relayed: usize,
    pub(super) notices: usize,
    /// Written, and not sent: something had become of the mail.
    pub(super) overtaken: usize,
    /// Not written, since the next attempt is the last.
    pub(super) at_their_end: usize,
    pub(super) turned: usize,
    pub(super) unreported: usize,
    pub(super) clocks: usize,
    /// Begun on a disk that was not well.
    pub(super) sick_starts: usize,
    /// Not begun, on such a disk.
    pub(super) no_starts: usize,
}

#[derive(Debug, Default)]
struct Inner {
    now: u64,
    most: usize,
    mails: BTreeMap<u64, Mail>,
    /// As they were when last something of them was handed to the journal.
    written: BTreeMap<u64, Mail>,
    /// As a restart will find them.
    durable: BTreeMap<u64, Mail>,
    lanes: BTreeMap<Destination, Lane>,
    leases: BTreeMap<u64, Lease>,
    copies: BTreeMap<(u64, usize), Times>,
    bounces: BTreeMap<(u64, usize), Times>,
    relays: BTreeMap<(u64, usize), Times>,
    notices: BTreeMap<(u64, usize), Times>,
    /// Handed out to be told: who should hear of it, of whom, and whether the notice is stored.
    to_tell: BTreeMap<u64, ToTell>,
    /// Nobody is told that his mail waits before: a notice could not be kept.
    no_notice_before: u64,
    /// The process has taken up what was there.
    has_begun: bool,
    /// The clock was set by so much, and nobody has seen it.
    clock: Option<i64>,
    doors: [Option<Door>; 5],
    /// How often somebody came to a closed door, and no message has told of it.
    knocks: [usize; 5],
    /// By address: whether the host that took it reports.
    reports: BTreeMap<String, bool>,
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

/// Mail that waits long, as it was handed out.
#[derive(Clone, Debug)]
struct ToTell {
    waiting: BTreeSet<usize>,
    wanted: BTreeSet<usize>,
    stored: bool,
}

/// Told by everyone, looked at by the test.
#[derive(Clone, Debug, Default)]
pub(super) struct Book(Arc<Mutex<Inner>>, Arc<tokio::sync::Notify>);

/// `r2.m17@…`: recipient 2 of message 17.
pub(super) fn address_of(address: &str) -> Option<(u64, usize)> {
    let (local, _) = address.split_once('@')?;
    let (position, id) = local.strip_prefix('r')?.split_once(".m")?;
    Some((id.parse().ok()?, position.parse().ok()?))
}

/// Under what is noted what the next hop said to the content of a report.
pub(super) fn own_name(id: u64) -> String {
    format!("report {id}")
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
        inner.durable = inner.written.clone();
    }

    /// What is left of these messages is written once more, in another place.
    pub(super) fn copied(&self, ids: &[u64]) {
        let mut inner = self.lock();
        ids.iter().for_each(|id| inner.write(*id));
    }

    pub(super) fn clock(&self, by: i64) {
        let mut inner = self.lock();
        inner.now = inner.now.saturating_add_signed(by);
        inner.clock = Some(by);
        inner.tally.clocks += 1;
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
        let mut inner = self.lock();
        inner.act(id, action);
        if matches!(action, QueueAction::Retry | QueueAction::Release) {
            inner.hurry(id);
        }
    }

    pub(super) fn door(&self, which: usize, door: Door) {
        let mut inner = self.lock();
        inner.doors[which] = Some(door);
        inner.knocks[which] = 0;
    }

    pub(super) fn dying(&self) {
        self.lock().dying = true;
    }

    /// A process begins, on a disk that is well or not.
    pub(super) fn starts(&self, well: bool, has_started: bool) {
        let tally = &mut self.lock().tally;
        tally.sick_starts += usize::from(!well && has_started);
        tally.no_starts += usize::from(!has_started);
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

    pub(super) fn late(&self, found: &[(u64, BTreeSet<usize>)], most: usize) {
        let mut inner = self.lock();
        if let Err(error) = inner.late(found, most) {
            inner.note(error);
        }
        self.happened(&mut inner);
    }

    pub(super) fn still_waits(&self, id: u64, waits: bool) {
        let mut inner = self.lock();
        if let Err(error) = inner.still_waits(id, waits) {
            inner.note(error);
        }
        self.happened(&mut inner);
    }

    pub(super) fn told(&self, id: u64) {
        let mut inner = self.lock();
        if let Err(error) = inner.told(id) {
            inner.note(error);
        }
        self.happened(&mut inner);
    }

    pub(super) fn unreported(&self, content: &[u8]) {
        let mut inner = self.lock();
        if let Err(error) = inner.unreported(content) {
            inner.note(error);
        }
        self.happened(&mut inner);
    }

    pub(super) fn put_back(&self, id: u64) {
        let mut inner = self.lock();
        inner.put_back(id);
        self.happened(&mut inner);
    }

    pub(super) fn clock_was_set(&self, by: i64) {
        let mut inner = self.lock();
        // With 0 a new process looks whether it was; what it does then is seen by what it has.
        if by != 0 && inner.clock.take() != Some(by) {
            inner.note(format!("the clock is set by {by}, and nobody did that"));
        }
        inner.has_begun = true;
        inner.clock_was_set(by);
        self.happened(&mut inner);
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

    pub(super) fn knocks(&self, which: usize) {
        self.lock().knocks[which] += 1;
    }

    pub(super) fn door_is(&self, which: usize) -> Door {
        self.lock().doors[which].unwrap_or(Door::Open)
    }

    /// What the sender asked for is asked of a host that offers it.
    pub(super) fn is_asked(&self, address: &str, has_notify: bool) {
        let mut inner = self.lock();
        let Some((id, at)) = address_of(address) else {
            return;
        };
        let parts = inner
            .mails
            .get(&id)
            .into_iter()
            .flat_map(|mail| &mail.parts);
        let mut found = parts.filter_map(|part| part.recipients.get(&at));
        if found
            .next()
            .is_some_and(|one| one.notify.is_some() != has_notify)
        {
            inner.note(format!("NOTIFY for {address}: {has_notify}"));
        }
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
    pub(super) fn takes(&self, who: (u64, usize), address: &str, said: Said, reports: bool) {
        let (id, position) = who;
        let mut inner = self.lock();
        inner.reports.insert(address.to_owned(), reports);
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

impl Inner {
    fn note(&mut self, error: String) {
        self.error.get_or_insert(error);
    }

    /// What was last said of a recipient, and when. Before there is content a report has no name but its reader's, where all
    /// that is for him is refused alike.
    fn heard(&self, id: u64, one: &Recipient) -> Option<(u64, Said)> {
        let heard = self.heard.get(&one.address).copied();
        if !self.mails[&id].own {
            return heard;
        }
        let content = self.heard.get(&own_name(id)).copied();
        let heard = heard.filter(|(_, said)| *said == Said::Fault);
        heard
            .into_iter()
            .chain(content)
            .max_by_key(|(when, _)| *when)
    }

    /// What is known of a message is handed to the journal.
    fn write(&mut self, id: u64) {
        if let Some(mail) = self.mails.get(&id) {
            self.written.insert(id, mail.clone());
        }
    }

    fn part(&mut self, id: u64, part: usize) -> Option<&mut Part> {
        self.mails.get_mut(&id)?.parts.get_mut(part)
    }
}
