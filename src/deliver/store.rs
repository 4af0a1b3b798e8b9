//! What delivery needs of the spool, so that its tests run against memory.

use crate::mail::QueueId;
use crate::route::Via;
use crate::spool::{
    Destination, Disposition, Due, HeldBefore, Late, Leg, Message, Patience, Spool, SpoolError,
};
use bytes::Bytes;
use std::future::Future;

/// Work in hand: leased until it is settled or dropped.
pub trait Work: Send + Sync + 'static {
    /// The message.
    fn message(&self) -> &Message;
    /// The leg.
    fn leg(&self) -> &Leg;
    /// Positions of the recipients to try now, at most 100.
    fn recipients(&self) -> &[usize];
    /// Attempts so far that count.
    fn attempts(&self) -> u32;
    /// When it arrived, milliseconds since 1970 by the clock as it is now.
    fn arrived(&self) -> u64;
    /// When its hold began, while it is held.
    fn held_since(&self) -> Option<u64>;
    /// The reply that was last recorded for the recipient at this position.
    fn last_reply(&self, at: usize) -> Option<String>;
}

/// Where work comes from and results go.
pub trait Store: Clone + Send + Sync + 'static {
    /// Its work.
    type Work: Work;

    /// Takes the next due work of a queue, oldest first.
    fn next_due(&self, destination: &Destination, now: u64) -> Option<Self::Work>;
    /// Takes the oldest work of a queue, due or not: the probe of a parked queue.
    fn oldest(&self, destination: &Destination, now: u64) -> Option<Self::Work>;
    /// Whether there would be an oldest.
    fn has_open(&self, destination: &Destination) -> bool;
    /// Queues with due work, and how much.
    fn due(&self, now: u64) -> Vec<(Destination, usize)>;
    /// When other work becomes due.
    fn next_wake(&self) -> Option<u64>;
    /// Completes when work has become due since the last call.
    fn changed(&self) -> impl Future<Output = ()> + Send;
    /// The next bytes of the rendition; empty at its end.
    fn read(
        &self,
        work: &Self::Work,
        offset: u64,
    ) -> impl Future<Output = Result<Bytes, SpoolError>> + Send;
    /// Keeps a message of our own durably.
    fn accept(
        &self,
        message: Message,
        content: Bytes,
    ) -> impl Future<Output = Result<(), SpoolError>> + Send;
    /// Records results.
    fn settle(&self, work: Self::Work, results: Vec<(usize, Disposition)>, counts: bool);
    /// What was held before a restart for replies that `meant` picks, up to `most` messages of each queue.
    fn held(&self, meant: impl Fn(&str) -> bool, most: usize) -> Vec<HeldBefore>;
    /// The clock was set by so many milliseconds and no time has passed; 0: perhaps it was, before the start. No wait is
    /// longer than `longest` of its way afterwards.
    fn clock_was_set(&self, by: i64, now: u64, longest: impl Fn(&Via) -> u64);
    /// Makes a held message due now, unless an operator holds it.
    fn release(&self, id: QueueId, now: u64);
    /// The queue is parked and asks again then, or is parked no more: what a list and the metrics say of its mail.
    fn parked(&self, destination: &Destination, next_probe: Option<u64>);
    /// The queue pauses until then, or pauses no more: what a list says of its mail.
    fn paused(&self, destination: &Destination, until: Option<u64>);
    /// Queues of which an operator wants mail tried now, each named once.
    fn hurried(&self) -> Vec<Destination>;

    /// When the next message may have waited so long that its sender should hear of it.
    fn next_late(&self, patience: Patience, now: u64) -> Option<u64>;
    /// At most so many messages that have waited so long, each handed out once.
    fn late(
        &self,
        patience: Patience,
        now: u64,
        most: usize,
    ) -> impl Future<Output = Vec<Late<Self::Work>>> + Send;
    /// Whether all of them still wait, and none is on its way; where that is not so it will be handed out again.
    fn still_waits(&self, late: &Late<Self::Work>) -> bool;
    /// Records that the sender was told of those who wait.
    fn told(&self, late: &Late<Self::Work>);
    /// The sender could not be told: to be handed out again.
    fn put_back(&self, late: &Late<Self::Work>);

    /// Takes the oldest mail of our own of a queue that has not been tried without certificate, in the form for that.
    fn next_uncertified(&self, destination: &Destination, now: u64) -> Option<Self::Work>;
    /// Whether there may be one.
    fn has_uncertified(&self, destination: &Destination) -> bool;
    /// Mail of our own was not taken without certificate: it waits with its queue, and is not tried so again.
    fn keep_uncertified(&self, work: Self::Work);
}

impl Work for Due {
    fn message(&self) -> &Message {
        Self::message(self)
    }

    fn leg(&self) -> &Leg {
        Self::leg(self)
    }

    fn recipients(&self) -> &[usize] {
        Self::recipients(self)
    }

    fn attempts(&self) -> u32 {
        Self::attempts(self)
    }

    fn arrived(&self) -> u64 {
        Self::arrived(self)
    }

    fn held_since(&self) -> Option<u64> {
        Self::held_since(self)
    }

    fn last_reply(&self, at: usize) -> Option<String> {
        Self::last_reply(self, at).map(|reply| reply.to_string())
    }
}

impl Store for Spool {
    type Work = Due;

    fn next_due(&self, destination: &Destination, now: u64) -> Option<Due> {
        Self::next_due(self, destination, now)
    }

    fn oldest(&self, destination: &Destination, now: u64) -> Option<Due> {
        Self::oldest(self, destination, now)
    }

    fn has_open(&self, destination: &Destination) -> bool {
        Self::has_open(self, destination)
    }

    fn due(&self, now: u64) -> Vec<(Destination, usize)> {
        Self::due(self, now)
    }

    fn next_wake(&self) -> Option<u64> {
        Self::next_wake(self)
    }

    async fn changed(&self) {
        Self::changed(self).await;
    }

    async fn read(&self, work: &Due, offset: u64) -> Result<Bytes, SpoolError> {
        Self::read(self, work, offset).await
    }

    async fn accept(&self, message: Message, content: Bytes) -> Result<(), SpoolError> {
        let mut draft = self.draft();
        draft.append(content).await?;
        Self::accept(self, draft, message).await.map(|_| ())
    }

    fn settle(&self, work: Due, results: Vec<(usize, Disposition)>, counts: bool) {
        Self::settle(self, work, results, counts);
    }

    fn held(&self, meant: impl Fn(&str) -> bool, most: usize) -> Vec<HeldBefore> {
        Self::held(self, meant, most)
    }

    fn clock_was_set(&self, by: i64, now: u64, longest: impl Fn(&Via) -> u64) {
        Self::clock_was_set(self, by, now, longest);
    }

    fn release(&self, id: QueueId, now: u64) {
        let found = Self::release(self, id, now);
        tracing::debug!(%id, found, "released");
    }

    fn parked(&self, destination: &Destination, next_probe: Option<u64>) {
        Self::parked(self, destination, next_probe);
    }

    fn paused(&self, destination: &Destination, until: Option<u64>) {
        Self::paused(self, destination, until);
    }

    fn hurried(&self) -> Vec<Destination> {
        Self::hurried(self)
    }

    fn next_late(&self, patience: Patience, now: u64) -> Option<u64> {
        Self::next_late(self, patience, now)
    }

    async fn late(&self, patience: Patience, now: u64, most: usize) -> Vec<Late<Due>> {
        let spool = self.clone();
        let read = move || Self::late(&spool, patience, now, most);
        let late = tokio::task::spawn_blocking(read).await;
        late.unwrap_or_else(|error| {
            tracing::error!(%error, "mail that waits could not be looked at");
            Vec::new()
        })
    }

    fn still_waits(&self, late: &Late<Due>) -> bool {
        Self::still_waits(self, late)
    }

    fn told(&self, late: &Late<Due>) {
        Self::told(self, late);
    }

    fn put_back(&self, late: &Late<Due>) {
        Self::put_back(self, late);
    }

    fn next_uncertified(&self, destination: &Destination, now: u64) -> Option<Due> {
        Self::next_uncertified(self, destination, now)
    }

    fn has_uncertified(&self, destination: &Destination) -> bool {
        Self::has_uncertified(self, destination)
    }

    fn keep_uncertified(&self, work: Due) {
        Self::keep_uncertified(self, work);
    }
}
