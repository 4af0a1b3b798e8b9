//! Gives space back: bodies of messages that are done, dead segments, nearly empty old ones copied forward.

use super::record::{Row, StateRow};
use super::{Inner, Ticket};
use crate::journal::{Found, Job, JournalError, Kind, Location};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::time::Duration;

/// Without being woken, how often the keeper looks round.
const ROUND: Duration = Duration::from_secs(1);

/// Wakes and ends the keeper.
#[derive(Clone, Debug, Default)]
pub(super) struct Wake(Arc<(Mutex<Orders>, Condvar)>);

#[derive(Debug, Default)]
struct Orders {
    look: bool,
    stop: bool,
    /// Places that the committer's thread has found to be dead.
    released: Vec<Location>,
}

impl Wake {
    pub(super) fn wake(&self) {
        self.order(|orders| orders.look = true);
    }

    pub(super) fn stop(&self) {
        self.order(|orders| orders.stop = true);
    }

    pub(super) fn release(&self, location: Location) {
        self.order(|orders| {
            orders.released.push(location);
            orders.look = true;
        });
    }

    fn order(&self, change: impl FnOnce(&mut Orders)) {
        change(&mut self.0.0.lock().unwrap_or_else(PoisonError::into_inner));
        self.0.1.notify_one();
    }

    /// Waits for a reason to look round; the released places, or nothing at the end.
    fn next(&self) -> Option<Vec<Location>> {
        let mut orders = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !orders.look && !orders.stop {
            orders = self
                .0
                .1
                .wait_timeout(orders, ROUND)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        orders.look = false;
        (!orders.stop).then(|| std::mem::take(&mut orders.released))
    }
}

/// Starts the keeper's thread; it ends with the spool.
pub(super) fn start(inner: &Arc<Inner>) -> std::io::Result<()> {
    let (wake, inner) = (inner.keeper.clone(), Arc::downgrade(inner));
    std::thread::Builder::new()
        .name("keeper".to_owned())
        .spawn(move || run(&wake, &inner))?;
    Ok(())
}

fn run(wake: &Wake, inner: &Weak<Inner>) {
    while let Some(released) = wake.next() {
        let Some(inner) = inner.upgrade() else { return };
        for location in released {
            inner.journal.release(location);
        }
        for id in inner.journal.take_removals() {
            inner.bodies.remove(id);
        }
        if let Err(error) = tidy(&inner) {
            inner
                .metrics
                .store_failures
                .with_label_values(&["reclaim"])
                .inc();
            tracing::warn!(%error, "space could not be given back");
        }
    }
}

fn tidy(inner: &Inner) -> Result<(), JournalError> {
    inner.journal.delete_dead()?;
    inner.journal.refill()?;
    let Some(records) = inner.journal.to_copy_forward()? else {
        return Ok(());
    };
    for record in records {
        copy_forward(inner, &record)?;
    }
    Ok(())
}

/// Writes a live message again at the end of the journal, with what is left to do for it.
fn copy_forward(inner: &Inner, record: &Found) -> Result<(), JournalError> {
    let Ok(mut row) = serde_json::from_slice::<Row>(&record.meta) else {
        return Ok(());
    };
    let id = row.id;
    let lives = |memory: &super::Memory| {
        memory
            .queue
            .entries
            .get(&id)
            .is_some_and(|entry| entry.location == record.location)
    };
    if !lives(&inner.shared.memory()) {
        return Ok(());
    }
    let body = bytes::Bytes::from(inner.journal.read_body(record.location)?);
    // State and job under one lock, so that an outcome that comes between is written behind the copy.
    let memory = inner.shared.memory();
    if !lives(&memory) {
        return Ok(());
    }
    row.state = memory
        .queue
        .entries
        .get(&id)
        .map(|entry| StateRow::of(id, &entry.legs));
    let meta =
        serde_json::to_vec(&row).map_err(|error| JournalError::Failing(error.to_string()))?;
    let ticket = Some(Ticket::Copy {
        id,
        from: record.location,
    });
    inner.journal.push(Job {
        kind: Kind::Message,
        meta,
        body,
        ticket,
        may_use_reserve: false,
    });
    Ok(())
}
