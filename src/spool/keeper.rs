//! Gives space back: bodies of messages that are done, dead segments, nearly empty old ones copied forward.

use super::record::{Brief, Row, StateRow, decode};
use super::{Inner, Ticket};
use crate::journal::{Job, JournalError, Kind, Location};
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

/// Without being woken, how often the keeper looks round.
const ROUND: Duration = Duration::from_secs(1);

/// Octets that are copied forward at once: what the journal's thread has to hold for it.
const PORTION: u64 = 4 * 1024 * 1024;

/// Wakes and ends the keeper.
#[derive(Clone, Debug, Default)]
pub(super) struct Wake(Arc<(Mutex<Orders>, Condvar)>);

#[derive(Debug, Default)]
struct Orders {
    look: bool,
    stop: bool,
    /// Places that the committer's thread has found to be dead.
    released: Vec<Location>,
    /// Copies that have no answer yet.
    copying: usize,
    /// Messages that the journal could not write, and which of them have a large body.
    refused: Vec<(u64, bool)>,
}

impl Wake {
    pub(super) fn wake(&self) {
        self.order(|orders| orders.look = true);
    }

    pub(super) fn stop(&self) {
        self.order(|orders| orders.stop = true);
    }

    /// A copy has its answer; `dead` is the place where nothing lives any more.
    pub(super) fn copied(&self, dead: Option<Location>) {
        self.order(|orders| {
            orders.released.extend(dead);
            orders.copying = orders.copying.saturating_sub(1);
            orders.look |= orders.copying == 0;
        });
    }

    /// The client was told that this message is not kept. Its record may be on disk all the same, whole: written down as
    /// done it stays away, and its body goes once that is on disk, as any other.
    pub(super) fn refused(&self, id: u64, large: bool) {
        self.order(|orders| orders.refused.push((id, large)));
    }

    fn order(&self, change: impl FnOnce(&mut Orders)) {
        let (orders, wake) = &*self.0;
        let mut orders = orders.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut orders);
        if orders.look || orders.stop {
            wake.notify_one();
        }
    }

    /// Waits for a reason to look round; false at the end.
    fn wait(&self) -> bool {
        let (orders, wake) = &*self.0;
        let mut orders = orders.lock().unwrap_or_else(PoisonError::into_inner);
        if !orders.look && !orders.stop {
            orders = wake
                .wait_timeout(orders, ROUND)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        !orders.stop
    }

    /// What there is to do.
    fn take(&self) -> Orders {
        let mut orders = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        let rest = Orders {
            stop: orders.stop,
            copying: orders.copying,
            ..Orders::default()
        };
        std::mem::replace(&mut *orders, rest)
    }
}

/// Starts the keeper's thread; it ends with the spool.
pub(super) fn start(mut keeper: Keeper) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new()
        .name("keeper".to_owned())
        .spawn(move || while keeper.wake.wait() && keeper.round() {})
}

/// Looks round, again and again.
#[derive(Debug)]
pub(super) struct Keeper {
    wake: Wake,
    inner: Weak<Inner>,
    to_copy: VecDeque<(u64, Location)>,
}

impl Keeper {
    pub(super) fn new(inner: &Arc<Inner>) -> Self {
        Self {
            wake: inner.keeper.clone(),
            inner: Arc::downgrade(inner),
            to_copy: VecDeque::new(),
        }
    }

    /// Looks round once; false where the spool is gone.
    pub(super) fn round(&mut self) -> bool {
        let Some(inner) = self.inner.upgrade() else {
            return false;
        };
        let Orders {
            released,
            copying,
            refused,
            ..
        } = self.wake.take();
        for location in released {
            inner.journal.release(location);
        }
        for (id, large) in refused {
            inner.journal.done(id, large);
        }
        for id in inner.journal.take_removals() {
            inner.bodies.remove(id);
        }
        let tidied = tidy(&inner, &mut self.to_copy, copying > 0);
        if let Err(error) = tidied {
            // With each look for space, so that it is seen as long as it lasts. The log has said so at the first.
            let is_full = error == JournalError::Full;
            let operation = if is_full { "full" } else { "reclaim" };
            let failures = &inner.metrics.store_failures;
            failures.with_label_values(&[operation]).inc();
            if !is_full {
                tracing::warn!(%error, "space could not be given back");
            }
        }
        true
    }
}

fn tidy(
    inner: &Inner,
    to_copy: &mut VecDeque<(u64, Location)>,
    copying: bool,
) -> Result<(), JournalError> {
    inner.journal.delete_dead()?;
    inner.journal.refill()?;
    // One portion at a time, and none on a disk that fails: what has no answer yet would be copied twice.
    if copying || !inner.journal.healthy() {
        return Ok(());
    }
    if to_copy.is_empty() {
        inner.journal.to_copy_forward(&mut |record| {
            if let Ok(brief) = decode::<Brief>(&record.meta)
                && lives(&inner.shared.memory(), brief.id, record.location)
            {
                to_copy.push_back((brief.id, record.location));
            }
        })?;
    }
    let mut octets = 0;
    while octets < PORTION
        && let Some((id, location)) = to_copy.pop_front()
    {
        octets += location.octets();
        if let Err(error) = copy_forward(inner, id, location) {
            // It stays where it is, and so does its segment: the message is found to be damaged when it is due.
            tracing::error!(%error, id = %crate::mail::QueueId::from_u64(id), "a message could not be copied forward");
        }
    }
    Ok(())
}

fn lives(memory: &super::memory::Memory, id: u64, location: Location) -> bool {
    let entry = memory.queue.entries.get(&id);
    entry.is_some_and(|entry| entry.location == location)
}

/// Writes a live message again at the end of the journal, with what is left to do for it.
fn copy_forward(inner: &Inner, id: u64, from: Location) -> Result<(), JournalError> {
    if !lives(&inner.shared.memory(), id, from) {
        return Ok(());
    }
    let mut row: Row = decode(&inner.journal.read_meta(from)?)?;
    let body = bytes::Bytes::from(inner.journal.read_body(from)?);
    // State and job under one lock, so that an outcome that comes between is written behind the copy.
    let memory = inner.shared.memory();
    if !lives(&memory, id, from) {
        return Ok(());
    }
    row.state = memory
        .queue
        .entries
        .get(&id)
        .map(|entry| StateRow::of(id, &entry.legs));
    let meta =
        serde_json::to_vec(&row).map_err(|error| JournalError::Failing(error.to_string()))?;
    inner.keeper.order(|orders| orders.copying += 1);
    inner.journal.push(Job {
        kind: Kind::Message,
        meta,
        body,
        ticket: Some(Ticket::Copy { id, from }),
        may_use_reserve: true,
    });
    Ok(())
}
