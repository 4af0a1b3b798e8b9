//! A store in memory for the tests of this room.

use crate::deliver::store::{Store, Work};
use crate::header::Rendition;
use crate::mail::{Envelope, QueueId, Recipient, TenantName};
use crate::route::{From, Via};
use crate::smtp::data::Scanner;
use crate::spool::{
    Destination, Disposition, HeldBefore, Late, Leg, Message, Patience, SpoolError, Waiting,
};
use bytes::Bytes;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use tokio::sync::Notify;

#[derive(Debug)]
struct Item {
    message: Arc<Message>,
    content: Bytes,
    pending: Vec<usize>,
    attempts: u32,
    next_try: u64,
    held_since: Option<u64>,
    last_reply: Option<String>,
    leased: bool,
    /// Handed out as late, or told of.
    looked_at: bool,
    told: bool,
    uncertified: bool,
}

#[derive(Debug, Default)]
struct Inner {
    items: Mutex<Vec<Item>>,
    log: Mutex<Vec<(QueueId, usize, Disposition)>>,
    changed: Notify,
    settled: Notify,
    leased: Notify,
    full: AtomicBool,
    put_back: AtomicBool,
    pauses: Mutex<HashMap<Destination, u64>>,
    hurried: Mutex<Vec<Destination>>,
    accepted: Mutex<Vec<(Message, Bytes)>>,
    /// How much was recorded when each of those was taken.
    recorded: Mutex<Vec<usize>>,
}

#[derive(Clone, Debug, Default)]
pub(in crate::deliver) struct Fake(Arc<Inner>);

#[derive(Debug)]
pub(in crate::deliver) struct FakeWork {
    fake: Fake,
    message: Arc<Message>,
    pending: Vec<usize>,
    attempts: u32,
    held_since: Option<u64>,
    last_reply: Option<String>,
    settled: bool,
}

/// A message of `tenant` with this content, ready to be put.
pub(in crate::deliver) fn message(
    id: u64,
    tenant: &str,
    recipients: &[&str],
    content: &[u8],
    arrived: u64,
) -> Message {
    let mut scanner = Scanner::default();
    scanner.push(content);
    Message {
        id: QueueId::from_u64(id),
        arrived,
        tenant: tenant.into(),
        from: From::Submission,
        application: None,
        stream: None,
        bounces_to: None,
        envelope: Envelope {
            reverse_path: format!("printer@{tenant}.com").parse().unwrap(),
            recipients: recipients
                .iter()
                .map(|address| Recipient {
                    mailbox: address.parse().unwrap(),
                    notify: None,
                    orcpt: None,
                })
                .collect(),
            body: None,
            smtputf8: false,
            ret: None,
            envid: None,
            xoorg: None,
        },
        facts: scanner.facts(),
        legs: vec![Leg {
            via: Via::Exchange,
            rendition: Rendition {
                prepend: b"Received: by test\r\n".to_vec(),
                omit: Vec::new(),
            },
            xoorg: None,
            recipients: (0..recipients.len()).collect(),
        }],
        message_id: None,
        network_message_id: None,
    }
}

impl Fake {
    fn take(&self, wanted: impl Fn(&Item) -> bool) -> Option<FakeWork> {
        let mut items = self.0.items.lock().unwrap();
        let item = items.iter_mut().find(|item| wanted(item))?;
        item.leased = true;
        self.0.leased.notify_one();
        Some(FakeWork {
            fake: self.clone(),
            message: Arc::clone(&item.message),
            pending: item.pending.clone(),
            attempts: item.attempts,
            held_since: item.held_since,
            last_reply: item.last_reply.clone(),
            settled: false,
        })
    }

    pub(in crate::deliver) fn put(&self, message: Message, content: &[u8]) {
        self.0.items.lock().unwrap().push(Item {
            content: Bytes::copy_from_slice(content),
            pending: (0..message.envelope.recipients.len()).collect(),
            attempts: 0,
            next_try: 0,
            held_since: None,
            last_reply: None,
            leased: false,
            looked_at: false,
            told: false,
            uncertified: false,
            message: Arc::new(message),
        });
        self.0.changed.notify_one();
    }

    /// Whether it takes mail of our own.
    pub(in crate::deliver) fn full(&self, full: bool) {
        self.0.full.store(full, Ordering::SeqCst);
    }

    /// The mail of our own that it took: envelope recipients and the form that leaves.
    pub(in crate::deliver) fn accepted(&self) -> Vec<(Message, String)> {
        let accepted = self.0.accepted.lock().unwrap();
        let accepted = accepted.iter().map(|(message, content)| {
            let left = message.legs[0].rendition.apply(content);
            (message.clone(), String::from_utf8(left).unwrap())
        });
        accepted.collect()
    }

    /// Waits until this holds of a message: told that it waits, tried without certificate.
    pub(in crate::deliver) async fn until(&self, id: u64, holds: impl Fn(bool, bool) -> bool) {
        let known = || {
            self.0.items.lock().unwrap().iter().any(|item| {
                item.message.id == QueueId::from_u64(id) && holds(item.told, item.uncertified)
            })
        };
        self.wait(known).await;
    }

    /// Waits until a notice could not be kept.
    pub(in crate::deliver) async fn put_back_once(&self) {
        self.wait(|| self.0.put_back.load(Ordering::SeqCst)).await;
    }

    async fn wait(&self, known: impl Fn() -> bool) {
        let look = async {
            loop {
                let settled = self.0.settled.notified();
                tokio::pin!(settled);
                settled.as_mut().enable();
                if known() {
                    return;
                }
                settled.await;
            }
        };
        let waited = tokio::time::timeout(std::time::Duration::from_secs(20), look).await;
        waited.expect("never");
    }

    /// How many results stood in the log when each mail of our own was taken.
    pub(in crate::deliver) fn recorded_before(&self) -> Vec<usize> {
        self.0.recorded.lock().unwrap().clone()
    }

    /// Everything becomes due so much later.
    pub(in crate::deliver) fn put_off(&self, millis: u64) {
        for item in self.0.items.lock().unwrap().iter_mut() {
            item.next_try += millis;
        }
    }

    /// An operator wants it tried now.
    pub(in crate::deliver) fn retry(&self, id: u64, now: u64) {
        for item in self.0.items.lock().unwrap().iter_mut() {
            if item.message.id == QueueId::from_u64(id) {
                item.next_try = now;
                self.0.hurried.lock().unwrap().push(destination(item));
            }
        }
        self.0.changed.notify_one();
    }

    /// Until when the queues pause, as a list would show it.
    pub(in crate::deliver) fn pauses(&self) -> Vec<u64> {
        self.0.pauses.lock().unwrap().values().copied().collect()
    }

    pub(in crate::deliver) fn poke(&self) {
        self.0.changed.notify_one();
    }

    /// What was recorded, once `enough` says so.
    pub(in crate::deliver) async fn log_when(
        &self,
        enough: impl Fn(&[(QueueId, usize, Disposition)]) -> bool,
    ) -> Vec<(QueueId, usize, Disposition)> {
        let look = async {
            loop {
                let settled = self.0.settled.notified();
                tokio::pin!(settled);
                settled.as_mut().enable();
                let log = self.0.log.lock().unwrap().clone();
                if enough(&log) {
                    return log;
                }
                settled.await;
            }
        };
        let waited = tokio::time::timeout(std::time::Duration::from_secs(20), look).await;
        waited.unwrap_or_else(|_| panic!("never: {:?}", self.0.log.lock().unwrap()))
    }

    pub(in crate::deliver) fn log(&self) -> Vec<(QueueId, usize, Disposition)> {
        self.0.log.lock().unwrap().clone()
    }

    /// Completes when something has been leased since the last call.
    pub(in crate::deliver) async fn leased(&self) {
        self.0.leased.notified().await;
    }

    /// Attempts and lease of the message that is left under this id.
    pub(in crate::deliver) fn state(&self, id: u64) -> Option<(u32, bool)> {
        let items = self.0.items.lock().unwrap();
        let item = items
            .iter()
            .find(|item| item.message.id == QueueId::from_u64(id))?;
        Some((item.attempts, item.leased))
    }
}

fn destination(item: &Item) -> Destination {
    Destination {
        via: item.message.legs[0].via.clone(),
        tenant: TenantName::clone(&item.message.tenant),
        domain: (item.message.legs[0].via == Via::Mx).then(|| {
            let first = &item.message.envelope.recipients[0];
            first.mailbox.domain().clone()
        }),
    }
}

fn due(item: &Item, patience: Patience) -> Option<u64> {
    let internal = item.message.legs[0].via.is_internal();
    let wait = if internal {
        patience.exchange
    } else {
        patience.outside
    };
    Some(item.message.arrived + wait?)
}

fn may_go_uncertified(item: &Item, wanted: &Destination) -> bool {
    item.message.is_own() && !item.leased && !item.uncertified && destination(item) == *wanted
}

impl Store for Fake {
    type Work = FakeWork;

    fn next_due(&self, wanted: &Destination, now: u64) -> Option<FakeWork> {
        self.take(|item| !item.leased && item.next_try <= now && destination(item) == *wanted)
    }

    fn oldest(&self, wanted: &Destination, _now: u64) -> Option<FakeWork> {
        self.take(|item| !item.leased && destination(item) == *wanted)
    }

    async fn accept(&self, message: Message, content: Bytes) -> Result<(), SpoolError> {
        if self.0.full.load(Ordering::SeqCst) {
            return Err(SpoolError::Full);
        }
        let recorded = self.0.log.lock().unwrap().len();
        self.0.recorded.lock().unwrap().push(recorded);
        self.0.accepted.lock().unwrap().push((message, content));
        Ok(())
    }

    fn has_open(&self, wanted: &Destination) -> bool {
        let items = self.0.items.lock().unwrap();
        items
            .iter()
            .any(|item| !item.leased && destination(item) == *wanted)
    }

    fn due(&self, now: u64) -> Vec<(Destination, usize)> {
        let mut due: Vec<(Destination, usize)> = Vec::new();
        for item in self.0.items.lock().unwrap().iter() {
            if item.leased || item.next_try > now {
                continue;
            }
            let destination = destination(item);
            match due.iter_mut().find(|(other, _)| *other == destination) {
                Some((_, count)) => *count += 1,
                None => due.push((destination, 1)),
            }
        }
        due
    }

    fn next_wake(&self) -> Option<u64> {
        let items = self.0.items.lock().unwrap();
        items
            .iter()
            .filter(|item| !item.leased && item.next_try > 0)
            .map(|item| item.next_try)
            .min()
    }

    async fn changed(&self) {
        self.0.changed.notified().await;
    }

    async fn read(&self, work: &FakeWork, offset: u64) -> Result<Bytes, SpoolError> {
        let items = self.0.items.lock().unwrap();
        let item = items
            .iter()
            .find(|item| item.message.id == work.message.id)
            .unwrap();
        let prepend = &item.message.legs[0].rendition.prepend;
        let offset = usize::try_from(offset).unwrap();
        if offset < prepend.len() {
            return Ok(Bytes::copy_from_slice(&prepend[offset..]));
        }
        let start = (offset - prepend.len()).min(item.content.len());
        let end = (start + 50_000).min(item.content.len());
        Ok(item.content.slice(start..end))
    }

    fn settle(&self, mut work: FakeWork, results: Vec<(usize, Disposition)>, counts: bool) {
        work.settled = true;
        let mut items = self.0.items.lock().unwrap();
        let position = items
            .iter()
            .position(|item| item.message.id == work.message.id)
            .unwrap();
        let item = &mut items[position];
        item.leased = false;
        item.attempts += u32::from(counts);
        item.held_since = None;
        for (at, disposition) in &results {
            match disposition {
                Disposition::Delivered | Disposition::Failed { .. } => {
                    item.pending.retain(|pending| pending != at);
                }
                Disposition::Deferred { next_try, reply } => {
                    (item.next_try, item.last_reply) = (*next_try, Some(reply.clone()));
                }
                Disposition::Held {
                    next_try,
                    since,
                    reply,
                } => {
                    (item.next_try, item.last_reply) = (*next_try, Some(reply.clone()));
                    item.held_since = Some(*since);
                }
            }
        }
        if item.pending.is_empty() {
            items.remove(position);
        }
        drop(items);
        let id = work.message.id;
        self.0.log.lock().unwrap().extend(
            results
                .into_iter()
                .map(|(at, disposition)| (id, at, disposition)),
        );
        self.0.settled.notify_waiters();
        self.0.changed.notify_one();
    }

    fn held(&self, _: impl Fn(&str) -> bool, _: usize) -> Vec<HeldBefore> {
        Vec::new()
    }

    fn next_late(&self, patience: Patience, _: u64) -> Option<u64> {
        let items = self.0.items.lock().unwrap();
        let late = items
            .iter()
            .filter(|item| !item.leased && !item.looked_at && !item.told);
        late.filter_map(|item| due(item, patience)).min()
    }

    async fn late(&self, patience: Patience, now: u64, most: usize) -> Vec<Late<FakeWork>> {
        let mut items = self.0.items.lock().unwrap();
        let late = items
            .iter_mut()
            .filter(|item| !item.leased && !item.looked_at && !item.told)
            .filter(|item| due(item, patience).is_some_and(|due| due <= now));
        let views = late.take(most).map(|item| {
            item.looked_at = true;
            let waiting = item.pending.iter().map(|at| Waiting {
                at: *at,
                via: item.message.legs[0].via.clone(),
                reply: item.last_reply.as_deref().map(Into::into),
                operator_hold: false,
            });
            let waiting = waiting.collect();
            let view = FakeWork {
                fake: self.clone(),
                message: Arc::clone(&item.message),
                pending: item.pending.clone(),
                attempts: 0,
                held_since: None,
                last_reply: None,
                settled: true,
            };
            Late::new(view, waiting)
        });
        views.collect()
    }

    fn still_waits(&self, _: &Late<FakeWork>) -> bool {
        true
    }

    fn told(&self, late: &Late<FakeWork>) {
        for item in self.0.items.lock().unwrap().iter_mut() {
            item.told |= item.message.id == late.work().message.id;
        }
        self.0.settled.notify_waiters();
    }

    fn put_back(&self, late: &Late<FakeWork>) {
        for item in self.0.items.lock().unwrap().iter_mut() {
            item.looked_at &= item.message.id != late.work().message.id;
        }
        self.0.put_back.store(true, Ordering::SeqCst);
        self.0.settled.notify_waiters();
    }

    fn next_uncertified(&self, wanted: &Destination, _now: u64) -> Option<FakeWork> {
        self.take(|item| may_go_uncertified(item, wanted))
    }

    fn has_uncertified(&self, wanted: &Destination) -> bool {
        let items = self.0.items.lock().unwrap();
        items.iter().any(|item| may_go_uncertified(item, wanted))
    }

    fn keep_uncertified(&self, mut work: FakeWork) {
        work.settled = true;
        for item in self.0.items.lock().unwrap().iter_mut() {
            if item.message.id == work.message.id {
                (item.leased, item.uncertified) = (false, true);
            }
        }
        self.0.settled.notify_waiters();
        self.0.changed.notify_one();
    }

    fn clock_was_set(&self, by: i64, now: u64, longest: impl Fn(&Via) -> u64) {
        for item in self.0.items.lock().unwrap().iter_mut() {
            let latest = now + longest(&destination(item).via);
            item.next_try = item.next_try.saturating_add_signed(by).min(latest);
        }
    }

    fn parked(&self, _: &Destination, _: Option<u64>) {}

    fn paused(&self, destination: &Destination, until: Option<u64>) {
        let mut pauses = self.0.pauses.lock().unwrap();
        match until {
            Some(until) => pauses.insert(destination.clone(), until),
            None => pauses.remove(destination),
        };
    }

    fn hurried(&self) -> Vec<Destination> {
        std::mem::take(&mut *self.0.hurried.lock().unwrap())
    }

    fn release(&self, id: QueueId, now: u64) {
        for item in self.0.items.lock().unwrap().iter_mut() {
            if item.message.id == id {
                item.next_try = now;
            }
        }
        self.0.changed.notify_one();
    }
}

impl Work for FakeWork {
    fn message(&self) -> &Message {
        &self.message
    }

    fn leg(&self) -> &Leg {
        &self.message.legs[0]
    }

    fn recipients(&self) -> &[usize] {
        &self.pending
    }

    fn attempts(&self) -> u32 {
        self.attempts
    }

    fn arrived(&self) -> u64 {
        self.message.arrived
    }

    fn held_since(&self) -> Option<u64> {
        self.held_since
    }

    fn last_reply(&self, _: usize) -> Option<String> {
        self.last_reply.clone()
    }
}

impl Drop for FakeWork {
    fn drop(&mut self) {
        if self.settled {
            return;
        }
        let mut items = self.fake.0.items.lock().unwrap();
        for item in items
            .iter_mut()
            .filter(|item| item.message.id == self.message.id)
        {
            item.leased = false;
        }
        drop(items);
        self.fake.0.changed.notify_one();
    }
}
