//! Which queue gets a connection now? Looks at the spool whenever it changes and whenever a time is reached.

use super::lane::{Holds, Lane};
use super::notice;
use super::report::{self, Attempt};
use super::settings::DeliverSettings;
use super::store::{Store, Work};
use super::uncertified::Uncertified;
use super::worker::{Clock, Setup, Shared, Trace, Way, Worker};
use crate::clock;
use crate::dialogue::outcome::shown_reach;
use crate::dialogue::{Answer, Reach};
use crate::mail::QueueIds;
use crate::message_trace::Tracer;
use crate::metrics::Metrics;
use crate::route::Via;
use crate::schedule::fairness::{Demand, allot};
use crate::schedule::hold::REMEMBERED;
use crate::schedule::retry::longest_wait;
use crate::spool::Destination;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;

/// Connections of all queues together.
const MOST_CONNECTIONS: usize = 512;
/// Of those, to mail exchangers: however many of them do not answer, connectors and relays have places left.
const MOST_TO_STRANGERS: usize = 384;
/// A look at more queues than this is followed by a rest of a millisecond for each so many.
const QUEUES: usize = 100;
/// Queues that are remembered before those at rest are forgotten.
const LANES: usize = 1024;
/// Undeliverable work that is put back in one go.
const PUT_BACK: usize = 100;
/// The scheduler looks at least this often: a clock that was set, a hold that ran out.
const LOOK: Duration = Duration::from_secs(30);

/// By how many milliseconds the clock was set since the last call, if it was.
pub(super) type Steps = Box<dyn FnMut() -> Option<i64> + Send>;

/// The delivering half of the server: runs until stopped.
pub struct Dispatcher {
    holds: Holds,
    reload: Box<dyn Fn(DeliverSettings) + Send + Sync>,
    look: Box<dyn Fn() + Send + Sync>,
    stopping: watch::Sender<bool>,
    scheduler: tokio::task::JoinHandle<()>,
    hard_stop: watch::Sender<bool>,
}

impl std::fmt::Debug for Dispatcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Dispatcher")
    }
}

impl Dispatcher {
    /// Starts delivering what is due in `store`.
    #[must_use]
    pub fn start<S: Store>(
        store: S,
        settings: DeliverSettings,
        ids: Arc<QueueIds>,
        tracer: Tracer,
        metrics: Metrics,
        clock: clock::Clock,
    ) -> Self {
        let trace = Arc::new(move |event| tracer.record(&event));
        let mut steps = clock::Steps::of(&clock);
        let steps = Box::new(move || steps.taken());
        let now = Arc::new(move || clock.unix_millis());
        Self::start_with(store, settings, ids, trace, metrics, (now, steps))
    }

    /// The same with trace and clock of a test.
    pub(super) fn start_with<S: Store>(
        store: S,
        settings: DeliverSettings,
        ids: Arc<QueueIds>,
        trace: Trace,
        metrics: Metrics,
        (clock, steps): (Clock, Steps),
    ) -> Self {
        let stopping = watch::Sender::new(false);
        let hard_stop = watch::Sender::new(false);
        let shared = Arc::new(Shared {
            store,
            clock,
            ids,
            trace,
            metrics,
            setup: Mutex::new(Arc::new(Setup::new(settings, 0))),
            look: tokio::sync::Notify::new(),
            no_notice_before: AtomicU64::new(0),
            stopping: stopping.clone(),
        });
        let holds = Holds::default();
        let scheduler = Scheduler {
            shared: Arc::clone(&shared),
            lanes: HashMap::new(),
            most_lanes: LANES,
            holds: holds.clone(),
            steps,
            workers: JoinSet::new(),
            notices: None,
            uncertified: HashMap::new(),
            turn: 0,
            generation: 0,
        };
        let scheduler = tokio::spawn(scheduler.run(hard_stop.subscribe()));
        let looked = Arc::clone(&shared);
        let look = move || looked.look.notify_one();
        let reload = move |settings| {
            let mut setup = super::lane::lock(&shared.setup);
            *setup = Arc::new(Setup::new(settings, setup.generation + 1));
            drop(setup);
            shared.look.notify_one();
        };
        Self {
            holds,
            reload: Box::new(reload),
            look: Box::new(look),
            stopping,
            scheduler,
            hard_stop,
        }
    }

    /// New settings: connections in use finish their message, parked queues are probed at once.
    pub fn reload(&self, settings: DeliverSettings) {
        (self.reload)(settings);
    }

    /// The clock was set: what was waited for may be due.
    pub fn look_again(&self) {
        (self.look)();
    }

    /// Which tenants' connectors are held.
    #[must_use]
    pub fn holds(&self) -> Holds {
        self.holds.clone()
    }

    /// Finishes the messages in hand; what is not done at `deadline` is given back to the store.
    pub async fn stop(mut self, deadline: Duration) {
        self.stopping.send_replace(true);
        if timeout(deadline, &mut self.scheduler).await.is_err() {
            self.hard_stop.send_replace(true);
            // The tasks are aborted; this only waits until they have dropped what they held.
            if timeout(Duration::from_secs(1), &mut self.scheduler)
                .await
                .is_err()
            {
                self.scheduler.abort();
            }
        }
    }
}

struct Scheduler<S: Store> {
    shared: Arc<Shared<S>>,
    lanes: HashMap<Destination, Arc<Lane>>,
    /// How many there may be before the next look whether all are needed.
    most_lanes: usize,
    holds: Holds,
    steps: Steps,
    workers: JoinSet<()>,
    /// Those who tell senders that their mail waits, while they do.
    notices: Option<AbortHandle>,
    /// Connections of parked queues for mail of our own.
    uncertified: HashMap<Destination, AbortHandle>,
    turn: usize,
    generation: u64,
}

impl<S: Store> Scheduler<S> {
    async fn run(mut self, mut hard_stop: watch::Receiver<bool>) {
        let mut stopping = self.shared.stopping.subscribe();
        let shared = Arc::clone(&self.shared);
        self.take_up();
        while !*stopping.borrow_and_update() {
            let (pause, queues) = self.look();
            tokio::select! {
                () = shared.store.changed() => {}
                () = shared.look.notified() => {}
                () = tokio::time::sleep(pause) => {}
                Some(ended) = self.workers.join_next() => self.reap(ended),
                _ = stopping.changed() => {}
            }
            // With thousands of domains in hand each message would else cost a look at all of them.
            let rest = u64::try_from(queues / QUEUES).unwrap_or(u64::MAX).min(200);
            if rest > 0 {
                tokio::select! {
                    () = tokio::time::sleep(Duration::from_millis(rest)) => {}
                    _ = stopping.changed() => {}
                }
            }
        }
        for lane in self.lanes.values() {
            lane.wake.notify_waiters();
        }
        while !self.workers.is_empty() {
            tokio::select! {
                _ = hard_stop.changed() => self.workers.abort_all(),
                Some(ended) = self.workers.join_next() => self.reap(ended),
            }
        }
    }

    /// What was held before a restart is tried at once: whoever restarts has perhaps mended it. Where not, the queue is
    /// parked with the first of these attempts, and the hold counts from where it began.
    fn take_up(&mut self) {
        let now = (self.shared.clock)();
        let setup = self.shared.setup();
        let longest = |via: &Via| longest_wait(setup.law(via));
        self.shared.store.clock_was_set(0, now, longest);
        let of_the_tenant = |reply: &str| shown_reach(reply) == Some(Reach::Tenant);
        for before in self.shared.store.held(of_the_tenant, REMEMBERED) {
            let lane = self.lane(&before.destination, now);
            lane.hold(|hold| hold.take_up(before.since, &before.reply, &before.ids));
            for id in before.ids {
                self.shared.store.release(id, now);
            }
        }
    }

    /// Whoever waits goes on waiting as long as he would have: nothing falls due, expires or is put off because a clock was
    /// wrong, or the machine slept.
    fn clock_was_set(&self, setup: &Setup, by: i64) {
        let now = (self.shared.clock)();
        tracing::warn!(
            seconds = by / 1000,
            "the clock was set, or the machine slept: what waits goes on waiting as long as it would have"
        );
        let longest = |via: &Via| longest_wait(setup.law(via));
        self.shared.store.clock_was_set(by, now, longest);
        for lane in self.lanes.values() {
            lane.clock_was_set(by);
        }
        let moved = |moment: u64| Some(moment.saturating_add_signed(by));
        let order = Ordering::Relaxed;
        let _before = self
            .shared
            .no_notice_before
            .fetch_update(order, order, moved);
    }

    fn reap(&mut self, ended: Result<(), tokio::task::JoinError>) {
        if let Err(error) = ended
            && error.is_panic()
        {
            // The message is due again at once: pause, so that a message that always does this does not spin.
            tracing::error!(%error, "a delivery task panicked");
            let now = (self.shared.clock)();
            let setup = self.shared.setup();
            for lane in self.lanes.values() {
                let law = setup.law(&lane.destination.via);
                lane.hold(|hold| hold.back_off(law, now));
                report::tell_waits(&self.shared, lane);
            }
        }
    }

    /// Gives out connections; says how long nothing changes by itself, and how many queues were looked at.
    fn look(&mut self) -> (Duration, usize) {
        let shared = Arc::clone(&self.shared);
        let setup = shared.setup();
        if let Some(by) = (self.steps)() {
            self.clock_was_set(&setup, by);
        }
        let now = (shared.clock)();
        self.note_reload(&setup, now);
        self.hurry(now);
        for lane in self.lanes.values() {
            let law = setup.law(&lane.destination.via);
            if let Some(change) = lane.hold(|hold| hold.tick(law, now)) {
                report::queue_changed(&shared, lane, None, change, now);
            }
        }
        let mut queues: Vec<(Arc<Lane>, Demand)> = Vec::new();
        for (destination, ready) in shared.store.due(now) {
            let lane = self.lane(&destination, now);
            let Some(way) = setup.way(&destination) else {
                let work = unwanted(&shared, &lane, now);
                if !work.is_empty() {
                    let (shared, setup) = (Arc::clone(&shared), Arc::clone(&setup));
                    self.workers.spawn(put_back(shared, lane, setup, work));
                }
                continue;
            };
            let most = way.as_ref().map_or(1, Way::most_connections);
            let demand = lane.demand(ready, most, now);
            for _ in 0..demand.idle.min(demand.ready) {
                lane.wake.notify_one();
            }
            queues.push((lane, demand));
        }
        // A parked queue whose probe is due, though none of its messages is: the oldest goes all the same.
        for lane in self.lanes.values() {
            let known = |(other, _): &(Arc<Lane>, Demand)| Arc::ptr_eq(other, lane);
            let destination = &lane.destination;
            if lane.probe_is_due(now)
                && !queues.iter().any(known)
                && setup.way(destination).is_some()
                && shared.store.has_open(destination)
            {
                queues.push((Arc::clone(lane), lane.demand(1, 1, now)));
            }
        }
        self.turn = self.turn.wrapping_add(1);
        let looked_at = queues.len();
        let (strangers, known): (Vec<_>, Vec<_>) = queues
            .into_iter()
            .partition(|(lane, _)| lane.destination.via == Via::Mx);
        let free = MOST_CONNECTIONS.saturating_sub(self.workers.len());
        self.open(&known, free);
        let lanes = self.lanes.values();
        let open = lanes.filter(|lane| lane.destination.via == Via::Mx);
        let open = open.map(|lane| lane.connections()).sum();
        let free = MOST_CONNECTIONS.saturating_sub(self.workers.len());
        self.open(&strangers, for_strangers(free, open));
        self.take_past_holds(&setup, now);
        let notice = self.tell_of_delays(&setup, now);
        let pause = self.pause(&setup, now);
        let notice = notice.map(|at| Duration::from_millis(at.saturating_sub(now)));
        (pause.min(notice.unwrap_or(LOOK)), looked_at)
    }

    /// Mail of our own that a parked queue would carry, each queue over a connection of its own.
    fn take_past_holds(&mut self, setup: &Arc<Setup>, now: u64) {
        self.uncertified.retain(|_, task| !task.is_finished());
        for (destination, lane) in &self.lanes {
            if !lane.is_parked()
                || now < lane.uncertified_from()
                || self.workers.len() >= MOST_CONNECTIONS
                || self.uncertified.contains_key(destination)
                || !self.shared.store.has_uncertified(destination)
            {
                continue;
            }
            let Some(Ok(Way::Exchange(client))) = setup.way(destination) else {
                continue;
            };
            let worker = Uncertified {
                shared: Arc::clone(&self.shared),
                setup: Arc::clone(setup),
                client: Arc::clone(client),
                lane: Arc::clone(lane),
            };
            let task = self.workers.spawn(worker.run());
            self.uncertified.insert(destination.clone(), task);
        }
    }

    /// Sees to it that senders are told of mail that has waited long, some at a time; when there is more to tell, unless
    /// the end of the present task shows it.
    fn tell_of_delays(&mut self, setup: &Arc<Setup>, now: u64) -> Option<u64> {
        if self
            .notices
            .as_ref()
            .is_some_and(|task| !task.is_finished())
        {
            return None;
        }
        let due = self.shared.store.next_late(setup.patience(), now)?;
        let due = due.max(self.shared.no_notice_before.load(Ordering::Relaxed));
        if due > now {
            return Some(due);
        }
        let telling = notice::tell_some(
            Arc::clone(&self.shared),
            Arc::clone(setup),
            self.holds.clone(),
        );
        self.notices = Some(self.workers.spawn(telling));
        None
    }

    /// Opens up to `free` connections, fairly.
    fn open(&mut self, queues: &[(Arc<Lane>, Demand)], free: usize) {
        let demands: Vec<Demand> = queues.iter().map(|(_, demand)| *demand).collect();
        for ((lane, _), count) in queues.iter().zip(allot(&demands, free, self.turn)) {
            for _ in 0..count {
                self.workers.spawn(Worker::new(&self.shared, lane).run());
            }
        }
    }

    fn pause(&self, setup: &Setup, now: u64) -> Duration {
        // A time that has passed changes nothing by itself: then work must become due first, and that calls.
        let looks = self.lanes.values().filter_map(|lane| {
            let law = setup.law(&lane.destination.via);
            lane.hold(|hold| hold.next_look(law, now))
        });
        let rests = self.lanes.values().map(|lane| lane.uncertified_from());
        let looks = looks.chain(rests).filter(|at| *at > now);
        let wake = self.shared.store.next_wake();
        let wake = wake.map(|at| {
            if at > now {
                at
            } else {
                now.saturating_add(1_000)
            }
        });
        let pause = looks.chain(wake).min();
        let pause = pause.map_or(LOOK, |at| Duration::from_millis(at.saturating_sub(now)));
        pause.min(LOOK)
    }

    fn lane(&mut self, destination: &Destination, now: u64) -> Arc<Lane> {
        if let Some(lane) = self.lanes.get(destination) {
            return Arc::clone(lane);
        }
        if self.lanes.len() >= self.most_lanes {
            self.lanes
                .retain(|_, lane| Arc::strong_count(lane) > 1 || !lane.may_be_forgotten(now));
            self.most_lanes = LANES.max(2 * self.lanes.len());
        }
        let lane = Arc::new(Lane::new(destination.clone(), self.holds.clone()));
        self.lanes.insert(destination.clone(), Arc::clone(&lane));
        lane
    }

    fn note_reload(&mut self, setup: &Setup, now: u64) {
        if self.generation == setup.generation {
            return;
        }
        self.generation = setup.generation;
        self.lanes
            .retain(|destination, lane| setup.way(destination).is_some() || !lane.is_quiet());
        for lane in self.lanes.values() {
            if let Some(id) = lane.hold(|hold| hold.probe_now(now)) {
                self.shared.store.release(id, now);
            }
            report::tell_waits(&self.shared, lane);
            lane.wake.notify_waiters();
        }
    }

    /// What an operator wants tried now waits neither for the end of a pause nor for the next probe.
    fn hurry(&self, now: u64) {
        for destination in self.shared.store.hurried() {
            if let Some(lane) = self.lanes.get(&destination) {
                lane.hold(|hold| hold.hurry(now));
                report::tell_waits(&self.shared, lane);
            }
        }
    }
}

/// How many of the free places may go to mail exchangers, where so many have one.
fn for_strangers(free: usize, open: usize) -> usize {
    free.min(MOST_TO_STRANGERS.saturating_sub(open))
}

/// Work of a queue that has no way any more.
fn unwanted<S: Store>(shared: &Shared<S>, lane: &Lane, now: u64) -> Vec<S::Work> {
    let next = || shared.store.next_due(&lane.destination, now);
    std::iter::from_fn(next).take(PUT_BACK).collect()
}

/// Work that nobody can deliver now, since the settings have no such way any more. Deferred by the law.
async fn put_back<S: Store>(
    shared: Arc<Shared<S>>,
    lane: Arc<Lane>,
    setup: Arc<Setup>,
    unwanted: Vec<S::Work>,
) {
    let why = match &lane.destination.via {
        Via::Exchange => "the tenant has no inbound connector".to_owned(),
        Via::Mx => "the recipient has no domain".to_owned(),
        Via::Relay(name) => format!("there is no relay {name}"),
    };
    for work in unwanted {
        let recipients = work.recipients().iter();
        let answers: Vec<_> = recipients
            .map(|at| (*at, Answer::Unreachable(why.clone())))
            .collect();
        report::settle(&shared, &lane, &setup, work, Attempt::default(), &answers).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_leave_places_for_connectors_and_relays() {
        assert_eq!(for_strangers(MOST_CONNECTIONS, 0), MOST_TO_STRANGERS);
        assert_eq!(for_strangers(128, MOST_TO_STRANGERS), 0);
        assert_eq!(for_strangers(10, 300), 10);
        const { assert!(MOST_TO_STRANGERS < MOST_CONNECTIONS) };
    }
}
