//! The real store, which tells the reference what delivery does with it.

use super::book::{Book, Kind};
use crate::deliver::store::{Store, Work};
use crate::mail::QueueId;
use crate::route::Via;
use crate::spool::tests::stepped::Stepped;
use crate::spool::{
    Destination, Disposition, Due, HeldBefore, Late, Leg, Message, Patience, Spool, SpoolError,
};
use bytes::Bytes;
use std::pin::pin;
use std::sync::{Arc, Mutex};

#[derive(Clone)]
pub(super) struct Watched {
    pub(super) spool: Spool,
    pub(super) stepped: Arc<Mutex<Stepped>>,
    pub(super) book: Book,
}

/// A lease, as both know it.
pub(super) struct Leased {
    due: Option<Due>,
    /// Mail that waits long, which is looked at and not leased.
    late: Option<Late<Due>>,
    key: u64,
    book: Book,
}

impl Leased {
    fn due(&self) -> &Due {
        let late = self.late.as_ref().map(Late::work);
        self.due.as_ref().or(late).unwrap()
    }

    fn settled(mut self) -> Due {
        self.due.take().unwrap()
    }
}

impl Drop for Leased {
    fn drop(&mut self) {
        if self.due.take().is_some() {
            self.book.dropped(self.key);
        }
    }
}

impl Watched {
    fn leased(&self, queue: &Destination, due: Option<Due>, kind: Kind) -> Option<Leased> {
        let due = due?;
        let id = due.message().id.as_u64();
        let key = self.book.leased(queue, id, due.recipients(), kind);
        Some(Leased {
            due: Some(due),
            late: None,
            key,
            book: self.book.clone(),
        })
    }

    /// Keeps a message; on disk once this returns, with all that was told before.
    pub(super) async fn keep(&self, message: Message, content: Bytes) -> Result<(), SpoolError> {
        let mut draft = self.spool.draft();
        draft.append(content).await?;
        let mut accepting = pin!(self.spool.accept(draft, message.clone()));
        let stored = std::future::poll_fn(|context| {
            let polled = accepting.as_mut().poll(context);
            let mut stepped = self.stepped.lock().unwrap();
            if polled.is_pending() && stepped.is_asked() {
                let all = stepped.write();
                if stepped.has(message.id.as_u64()) {
                    self.book.submitted(&message);
                }
                if all {
                    self.book.copied(&stepped.copied());
                    self.book.synced();
                }
                context.waker().wake_by_ref();
            }
            polled
        });
        stored.await.map(|_| ())
    }
}

fn id_of(late: &Late<Due>) -> u64 {
    late.work().message().id.as_u64()
}

impl Work for Leased {
    fn message(&self) -> &Message {
        self.due().message()
    }

    fn leg(&self) -> &Leg {
        self.due().leg()
    }

    fn recipients(&self) -> &[usize] {
        self.due().recipients()
    }

    fn attempts(&self) -> u32 {
        self.due().attempts()
    }

    fn arrived(&self) -> u64 {
        self.due().arrived()
    }

    fn held_since(&self) -> Option<u64> {
        self.due().held_since()
    }

    fn last_reply(&self, at: usize) -> Option<String> {
        Work::last_reply(self.due(), at)
    }
}

impl Store for Watched {
    type Work = Leased;

    fn next_due(&self, queue: &Destination, now: u64) -> Option<Leased> {
        self.leased(queue, self.spool.next_due(queue, now), Kind::Due)
    }

    fn oldest(&self, queue: &Destination, now: u64) -> Option<Leased> {
        self.book.probes(queue);
        self.leased(queue, self.spool.oldest(queue, now), Kind::Probe)
    }

    fn has_open(&self, queue: &Destination) -> bool {
        self.spool.has_open(queue)
    }

    fn due(&self, now: u64) -> Vec<(Destination, usize)> {
        self.spool.due(now)
    }

    fn next_wake(&self) -> Option<u64> {
        self.spool.next_wake()
    }

    async fn changed(&self) {
        self.spool.changed().await;
    }

    async fn read(&self, work: &Leased, offset: u64) -> Result<Bytes, SpoolError> {
        if offset == 0 {
            self.book.read_from_the_start(work.key);
        }
        self.spool.read(work.due(), offset).await
    }

    async fn accept(&self, message: Message, content: Bytes) -> Result<(), SpoolError> {
        self.book.reported(&message, &content);
        let kept = self.keep(message, content.clone()).await;
        if kept.is_err() {
            self.book.unreported(&content);
        }
        kept
    }

    fn settle(&self, work: Leased, results: Vec<(usize, Disposition)>, counts: bool) {
        self.book.settled(work.key, &results, counts);
        self.spool.settle(work.settled(), results, counts);
    }

    fn held(&self, meant: impl Fn(&str) -> bool, most: usize) -> Vec<HeldBefore> {
        let held = self.spool.held(meant, most);
        let known = held.iter().map(|before| {
            let ids = before.ids.iter().map(|id| id.as_u64());
            (before.destination.clone(), before.since, ids.collect())
        });
        self.book.taken_up(&known.collect::<Vec<_>>());
        held
    }

    fn clock_was_set(&self, by: i64, now: u64, longest: impl Fn(&Via) -> u64) {
        self.book.clock_was_set(by);
        self.spool.clock_was_set(by, now, longest);
    }

    fn release(&self, id: QueueId, now: u64) {
        self.book.released(id);
        Store::release(&self.spool, id, now);
    }

    fn parked(&self, destination: &Destination, next_probe: Option<u64>) {
        self.spool.parked(destination, next_probe);
    }

    fn paused(&self, destination: &Destination, until: Option<u64>) {
        self.spool.paused(destination, until);
    }

    fn hurried(&self) -> Vec<Destination> {
        self.spool.hurried()
    }

    fn next_late(&self, patience: Patience, now: u64) -> Option<u64> {
        self.spool.next_late(patience, now)
    }

    /// On this thread, so that nothing comes between what is found and what the reference knows.
    async fn late(&self, patience: Patience, now: u64, most: usize) -> Vec<Late<Leased>> {
        let late = self.spool.late(patience, now, most);
        let found = late.iter().map(|late| {
            let waiting = late.waiting().iter().map(|waiting| waiting.at);
            (id_of(late), waiting.collect())
        });
        self.book.late(&found.collect::<Vec<_>>(), most);
        let late = late.into_iter().map(|late| {
            let waiting = late.waiting().to_vec();
            let looked_at = Leased {
                due: None,
                late: Some(late),
                key: u64::MAX,
                book: self.book.clone(),
            };
            Late::new(looked_at, waiting)
        });
        late.collect()
    }

    fn still_waits(&self, late: &Late<Leased>) -> bool {
        let late = late.work().late.as_ref().unwrap();
        let waits = self.spool.still_waits(late);
        self.book.still_waits(id_of(late), waits);
        waits
    }

    fn told(&self, late: &Late<Leased>) {
        let late = late.work().late.as_ref().unwrap();
        self.book.told(id_of(late));
        self.spool.told(late);
    }

    fn put_back(&self, late: &Late<Leased>) {
        let late = late.work().late.as_ref().unwrap();
        self.book.put_back(id_of(late));
        self.spool.put_back(late);
    }

    fn next_uncertified(&self, queue: &Destination, now: u64) -> Option<Leased> {
        let due = self.spool.next_uncertified(queue, now);
        self.leased(queue, due, Kind::Uncertified)
    }

    fn has_uncertified(&self, queue: &Destination) -> bool {
        self.spool.has_uncertified(queue)
    }

    fn keep_uncertified(&self, work: Leased) {
        self.book.kept_uncertified(work.key);
        self.spool.keep_uncertified(work.settled());
    }
}
