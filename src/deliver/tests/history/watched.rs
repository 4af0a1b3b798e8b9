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
    key: u64,
    book: Book,
}

impl Leased {
    fn due(&self) -> &Due {
        self.due.as_ref().unwrap()
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
                stepped.write();
                self.book.submitted(&message);
                self.book.synced();
                context.waker().wake_by_ref();
            }
            polled
        });
        stored.await.map(|_| ())
    }
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
        self.keep(message, content).await
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
        self.spool.clock_was_set(by, now, longest);
    }

    fn release(&self, id: QueueId, now: u64) {
        self.book.released(id);
        Store::release(&self.spool, id, now);
    }

    fn next_late(&self, _: Patience) -> Option<u64> {
        None
    }

    async fn late(&self, _: Patience, _: u64, _: usize) -> Vec<Late<Leased>> {
        Vec::new()
    }

    fn told(&self, _: &Late<Leased>) {}

    fn put_back(&self, _: &Late<Leased>) {}

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
