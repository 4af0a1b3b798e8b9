//! Events on their way to the writer: lines as they will stand in the files, so that a bound in octets is exact.
//!
//! Who records waits for nobody: a line is put behind the others, and the writer called where it sleeps. It gathers for a
//! moment ([`GATHER`]), so that a thousand messages a second cost ten wake-ups and not a thousand.

use super::TraceEvent;
use super::log::{day_of, keys};
use crate::index::Key;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Octets of memory that events may take before the writer has them: at a thousand messages a second a stall of the disk
/// of ten seconds.
const MOST: usize = 16 * 1024 * 1024;
/// The writer does not wait for more once it has so many octets.
const ENOUGH: usize = 256 * 1024;
/// How long an event waits for company.
const GATHER: Duration = Duration::from_millis(100);
/// Octets of memory that are kept for the next lines.
const KEPT: usize = 1024 * 1024;

/// An event as it is written.
#[derive(Debug)]
pub(super) struct Line {
    /// Days since 1970.
    day: u32,
    /// JSON and a newline.
    octets: Vec<u8>,
    keys: Vec<Key>,
}

impl Line {
    pub(super) fn of(event: &TraceEvent) -> serde_json::Result<Self> {
        let mut octets = Vec::with_capacity(1024);
        serde_json::to_writer(&mut octets, event)?;
        octets.push(b'\n');
        Ok(Self {
            day: day_of(event.at),
            octets,
            keys: keys(event).collect(),
        })
    }

    fn memory(&self) -> usize {
        self.octets.len() + size_of_val(&*self.keys) + size_of::<Mark>()
    }
}

/// A line of a batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    pub(super) day: u32,
    pub(super) octets: usize,
    pub(super) keys: usize,
}

/// Lines one behind the other.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) octets: Vec<u8>,
    pub(super) keys: Vec<Key>,
    pub(super) marks: Vec<Mark>,
}

impl Batch {
    fn memory(&self) -> usize {
        self.octets.len() + size_of_val(&*self.keys) + size_of_val(&*self.marks)
    }

    fn push(&mut self, line: &Line) {
        self.octets.extend_from_slice(&line.octets);
        self.keys.extend_from_slice(&line.keys);
        self.marks.push(Mark {
            day: line.day,
            octets: line.octets.len(),
            keys: line.keys.len(),
        });
    }

    /// Empties it, and gives back what a burst took.
    pub(super) fn clear(&mut self) {
        self.octets.clear();
        self.keys.clear();
        self.marks.clear();
        self.octets.shrink_to(KEPT);
        self.keys.shrink_to(KEPT / size_of::<Key>());
        self.marks.shrink_to(KEPT / size_of::<Mark>());
    }
}

/// What the writer is told beside lines.
#[derive(Debug, Default)]
pub(super) struct Orders {
    /// Answer once everything before can be found.
    pub(super) flushes: Vec<tokio::sync::oneshot::Sender<()>>,
    /// It is this day: what is too old goes.
    pub(super) today: Option<u32>,
    /// From now on files are kept for as long.
    pub(super) keep: Option<Duration>,
}

impl Orders {
    fn is_empty(&self) -> bool {
        self.flushes.is_empty() && self.today.is_none() && self.keep.is_none()
    }
}

/// Where the two ends meet.
#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// The writer has something to do.
    work: Condvar,
    /// There is room again.
    room: Condvar,
}

#[derive(Debug, Default)]
struct State {
    batch: Batch,
    orders: Orders,
    /// The writer sleeps, and wakes by itself once lines have gathered.
    asleep: bool,
    /// Nobody will record any more.
    closed: bool,
    /// Nobody will write any more.
    gone: bool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The rooms' end; the writer ends with the last of them.
#[derive(Debug)]
pub(super) struct Sender(Arc<Shared>);

/// The writer's end.
#[derive(Debug)]
pub(super) struct Receiver(Arc<Shared>);

pub(super) fn inbox() -> (Sender, Receiver) {
    let shared = Arc::new(Shared::default());
    (Sender(Arc::clone(&shared)), Receiver(shared))
}

impl Sender {
    /// Hands in a line; false where there is no room for it.
    #[must_use]
    pub(super) fn push(&self, line: &Line) -> bool {
        self.put(self.0.state(), line)
    }

    /// Hands in a line, waiting for room; false where nobody writes any more.
    #[must_use]
    pub(super) fn push_patiently(&self, line: &Line) -> bool {
        let full = |state: &mut State| !state.gone && !state.has_room(line);
        let state = self.0.room.wait_while(self.0.state(), full);
        self.put(state.unwrap_or_else(PoisonError::into_inner), line)
    }

    fn put(&self, mut state: MutexGuard<'_, State>, line: &Line) -> bool {
        if state.gone || !state.has_room(line) {
            return false;
        }
        let before = state.batch.memory();
        state.batch.push(line);
        let after = state.batch.memory();
        // A writer that gathers is called once: where there is enough.
        let calls = state.asleep && (before == 0 || (before < ENOUGH && after >= ENOUGH));
        drop(state);
        if calls {
            self.0.work.notify_one();
        }
        true
    }

    /// Tells the writer something.
    pub(super) fn order(&self, change: impl FnOnce(&mut Orders)) {
        let mut state = self.0.state();
        if state.gone {
            return;
        }
        change(&mut state.orders);
        drop(state);
        self.0.work.notify_one();
    }
}

impl State {
    /// One line is always taken where there is no other, however long.
    fn has_room(&self, line: &Line) -> bool {
        let taken = self.batch.memory();
        taken == 0 || taken + line.memory() <= MOST
    }

    fn is_urgent(&self) -> bool {
        self.closed || !self.orders.is_empty() || self.batch.memory() >= ENOUGH
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.0.state().closed = true;
        self.0.work.notify_one();
    }
}

impl Receiver {
    /// Fills `batch`, which is empty, with what has come, and says what else is ordered; nothing at the end. Where nothing
    /// has come it waits, but for a `busy` writer.
    pub(super) fn next(&self, batch: &mut Batch, busy: bool) -> Option<Orders> {
        let mut state = self.0.state();
        if !busy {
            state.asleep = true;
            state = (self.0.work)
                .wait_while(state, |state| {
                    !state.is_urgent() && state.batch.memory() == 0
                })
                .unwrap_or_else(PoisonError::into_inner);
            state = (self.0.work)
                .wait_timeout_while(state, GATHER, |state| !state.is_urgent())
                .unwrap_or_else(PoisonError::into_inner)
                .0;
            state.asleep = false;
        }
        std::mem::swap(&mut state.batch, batch);
        let orders = std::mem::take(&mut state.orders);
        let over = state.closed && batch.marks.is_empty() && orders.is_empty();
        drop(state);
        self.0.room.notify_all();
        (!over).then_some(orders)
    }
}

impl Drop for Receiver {
    /// Also where the writer panics: who waits for an answer is told, by the end of its channel.
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.gone = true;
        state.orders = Orders::default();
        state.batch = Batch::default();
        drop(state);
        self.0.room.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message_trace::Event;

    fn line(size: usize) -> Line {
        let event = TraceEvent {
            at: 1,
            id: "0000000000001".to_owned(),
            event: Event::Operator {
                action: "x".repeat(size),
            },
        };
        Line::of(&event).unwrap()
    }

    #[test]
    fn what_waits_is_bounded_in_octets_and_who_is_patient_has_room_in_time() {
        let (sender, receiver) = inbox();
        let large = line(1 << 20);
        let taken = (0..100).filter(|_| sender.push(&large)).count();
        assert_eq!(taken, MOST / large.memory());
        let small = line(1);
        let mut batch = Batch::default();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| sender.push_patiently(&large));
            let orders = receiver.next(&mut batch, false).unwrap();
            assert!(orders.is_empty());
            assert_eq!(batch.marks.len(), taken);
            assert!(waiting.join().unwrap());
        });
        batch.clear();
        assert!(batch.octets.capacity() <= KEPT, "a burst is given back");
        assert!(sender.push(&small));
        assert!(receiver.next(&mut batch, true).is_some());
        assert_eq!(batch.marks.len(), 2);
        batch.clear();
        drop(sender);
        assert!(receiver.next(&mut batch, false).is_none());
    }

    #[test]
    fn one_line_is_taken_however_long_and_none_once_the_writer_is_gone() {
        let (sender, receiver) = inbox();
        let huge = line(2 * MOST);
        assert!(sender.push(&huge));
        assert!(!sender.push(&line(1)));
        drop(receiver);
        assert!(!sender.push(&line(1)));
        assert!(!sender.push_patiently(&huge));
        let (done, mut answer) = tokio::sync::oneshot::channel();
        sender.order(|orders| orders.flushes.push(done));
        assert!(answer.try_recv().is_err(), "told that nobody answers");
    }
}
