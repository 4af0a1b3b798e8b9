//! Every history of a tenant's queue up to some length: the hold, beside a few messages and a dispatcher in their plainest
//! form. Not a model of the hold but the hold itself is walked; the plain part says what must be true of it.
//!
//! At each state all that can happen is tried: minutes pass, a message or a probe is taken, an attempt ends in any way,
//! the configuration is read again, the server is killed and takes up what was held. States that were met are not walked
//! again. A model checker would walk a description of the hold instead, which then has to be held against the code.

use super::Law;
use super::hold::{Admission, Change, Fault, Hold, Kept, RAMP};
use super::retry::{Next, next_attempt};
use crate::mail::QueueId;
use std::collections::{HashSet, VecDeque};
use std::time::Duration;

const MINUTE: u64 = 60_000;
const MESSAGES: u64 = 4;
const MOST: usize = 3;
/// Contract: a released queue has all its connections back by then.
const RAMP_AT_MOST: u64 = 60_000;

fn law() -> Law {
    let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
    Law {
        retry: vec![minutes(1), minutes(2)],
        expire: minutes(12),
        hold_on_connector_fault: minutes(5),
        delay_notice: None,
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    Waits,
    OnItsWay { probe: bool },
    Delivered,
    GivenUp,
}

#[derive(Clone, Debug)]
struct Mail {
    id: u64,
    doing: Doing,
    attempts: u32,
    next_try: u64,
    held_since: Option<u64>,
    spent: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Delivered,
    Fault {
        certain: bool,
    },
    Later,
    /// Later, for reasons of its own.
    Answered,
    /// Later, and the next hop wants less.
    BackOff,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    /// So many minutes pass.
    Pass(u64),
    Take,
    Ends(usize, End),
    Reload,
    /// An operator wants all tried now.
    Hurry,
    Killed,
}

#[derive(Clone, Debug)]
struct Walk {
    hold: Hold,
    mails: Vec<Mail>,
    now: u64,
    /// When the queue was released by a success.
    ramp_from: Option<u64>,
    /// The next hop has, since the last success: then one connection is right.
    asked_for_less: bool,
}

impl Walk {
    fn begin() -> Self {
        let mail = |id| Mail {
            id,
            doing: Doing::Waits,
            attempts: 0,
            next_try: 0,
            held_since: None,
            spent: false,
        };
        Self {
            hold: Hold::default(),
            mails: (1..=MESSAGES).map(mail).collect(),
            now: 0,
            ramp_from: None,
            asked_for_less: false,
        }
    }

    fn on_their_way(&self) -> usize {
        let all = self.mails.iter();
        all.filter(|mail| matches!(mail.doing, Doing::OnItsWay { .. }))
            .count()
    }

    fn events(&self) -> Vec<Event> {
        let mut events = vec![
            Event::Pass(1),
            Event::Pass(6),
            Event::Take,
            Event::Reload,
            Event::Hurry,
            Event::Killed,
        ];
        for (at, mail) in self.mails.iter().enumerate() {
            if matches!(mail.doing, Doing::OnItsWay { .. }) {
                let ends = [
                    End::Delivered,
                    End::Fault { certain: false },
                    End::Fault { certain: true },
                    End::Later,
                    End::Answered,
                    End::BackOff,
                ];
                events.extend(ends.map(|end| Event::Ends(at, end)));
            }
        }
        events
    }

    /// What happens then; `false` where nothing does.
    fn step(&mut self, event: Event) -> bool {
        let (parked, since) = (
            self.hold.is_parked(),
            self.hold.parked().map(|(since, _)| since),
        );
        let answered = matches!(event, Event::Ends(at, End::Answered)
            if self.mails[at].doing == (Doing::OnItsWay { probe: true }));
        match event {
            Event::Pass(minutes) => self.pass(minutes),
            Event::Take => {
                if !self.take() {
                    return false;
                }
            }
            Event::Ends(at, end) => self.ends(at, end),
            Event::Reload => {
                let Some(id) = self.hold.probe_now(self.now) else {
                    return false;
                };
                self.release(&[id]);
            }
            Event::Hurry => {
                self.hold.hurry(self.now);
                let ids = (1..=MESSAGES).map(QueueId::from_u64).collect::<Vec<_>>();
                self.release(&ids);
                let may = self.hold.admission(self.now);
                assert!(!matches!(may, Admission::Wait(_)), "hurried, and waits");
            }
            Event::Killed => self.killed(),
        }
        if parked && !self.hold.is_parked() {
            let over = since.is_some_and(|since| self.now >= since + 5 * MINUTE);
            let why = matches!(event, Event::Killed | Event::Ends(_, End::Delivered));
            let why = why || answered || over;
            assert!(why, "released by {event:?}: {self:?}");
        }
        assert!(
            !answered || !self.hold.is_parked(),
            "the connector works: {self:?}"
        );
        self.look();
        true
    }

    fn pass(&mut self, minutes: u64) {
        self.now += minutes * MINUTE;
        let change = self.hold.tick(&law(), self.now);
        self.changed(change);
    }

    /// As a connection that asks for work, where the pool gives it.
    fn take(&mut self) -> bool {
        let now = self.now;
        if self.on_their_way() >= self.hold.connections(now, MOST) {
            return false;
        }
        let probe = match self.hold.admission(now) {
            Admission::Wait(_) => return false,
            Admission::Probe => true,
            Admission::Go => false,
        };
        if probe {
            self.hold.probe_begun(&law(), now);
            assert_ne!(
                self.hold.admission(now),
                Admission::Probe,
                "two probes at once"
            );
        }
        let may_go =
            |mail: &&mut Mail| mail.doing == Doing::Waits && (probe || mail.next_try <= now);
        let Some(mail) = self.mails.iter_mut().find(may_go) else {
            return false;
        };
        mail.doing = Doing::OnItsWay { probe };
        mail.attempts += 1;
        true
    }

    fn ends(&mut self, at: usize, end: End) {
        let (law, now) = (law(), self.now);
        let mail = self.mails[at].clone();
        let mut changes = Vec::new();
        let was_parked = self.hold.is_parked();
        if mail.doing == (Doing::OnItsWay { probe: true }) {
            match end {
                End::Delivered => {}
                End::Answered => {
                    let id = QueueId::from_u64(mail.id);
                    changes.extend(self.hold.answered(id, now));
                }
                End::Fault { .. } | End::Later | End::BackOff => {
                    changes.extend(self.hold.probe_failed(&law, now));
                }
            }
        }
        let released = was_parked && !self.hold.is_parked();
        self.asked_for_less = match end {
            End::Delivered => false,
            End::BackOff => true,
            End::Fault { .. } | End::Later | End::Answered => self.asked_for_less && !released,
        };
        let mut kept = Kept::Over;
        match end {
            End::Delivered => changes.extend(self.hold.delivered(now)),
            End::Later | End::Answered => {}
            End::BackOff => changes.extend(self.hold.back_off(&law, now)),
            End::Fault { certain } => {
                let fault = Fault {
                    id: QueueId::from_u64(mail.id),
                    attempts: mail.attempts,
                    held_since: mail.held_since,
                    spent: mail.spent,
                    certain,
                    reason: "550 5.7.64",
                };
                let (what, change) = self.hold.fault(&law, now, &fault);
                kept = what;
                changes.extend(change);
            }
        }
        let own = &mut self.mails[at];
        own.doing = Doing::Waits;
        match (end, kept) {
            (End::Delivered, _) => own.doing = Doing::Delivered,
            (End::Fault { .. }, Kept::Held { next_try, since }) => {
                // With its queue at the latest: while that is parked, a probe may be due already.
                let waits = next_try > now || self.hold.is_parked();
                assert!(waits, "held and due at once");
                assert!(
                    now < since + 5 * MINUTE,
                    "held for longer than the law says"
                );
                (own.next_try, own.held_since) = (next_try, Some(since));
            }
            (end, _) => {
                own.spent |= matches!(end, End::Fault { .. });
                own.held_since = None;
                match next_attempt(&law, own.attempts, 0, now) {
                    Next::At(next_try) => own.next_try = next_try,
                    Next::GiveUp => {
                        assert!(now >= 12 * MINUTE, "given up before its time");
                        own.doing = Doing::GivenUp;
                    }
                }
            }
        }
        for change in changes {
            self.changed(Some(change));
        }
    }

    fn changed(&mut self, change: Option<Change>) {
        match change {
            Some(Change::Released { held, proven, .. }) => {
                self.ramp_from = proven.then_some(self.now);
                self.release(&held);
                assert!(!self.hold.is_parked());
            }
            Some(Change::Parked) => {
                let faulty = self.mails.iter();
                let faulty = faulty.filter(|mail| mail.held_since.is_some());
                assert!(faulty.count() >= 1, "parked for nothing");
                self.ramp_from = None;
            }
            Some(Change::ProbeFailed | Change::BackedOff { .. }) | None => {}
        }
    }

    fn release(&mut self, ids: &[QueueId]) {
        for mail in &mut self.mails {
            if ids.contains(&QueueId::from_u64(mail.id)) && mail.doing == Doing::Waits {
                mail.next_try = self.now;
            }
        }
    }

    /// Leases end with the process; what was held is taken up.
    fn killed(&mut self) {
        self.hold = Hold::default();
        (self.ramp_from, self.asked_for_less) = (None, false);
        for mail in &mut self.mails {
            if let Doing::OnItsWay { .. } = mail.doing {
                mail.doing = Doing::Waits;
                mail.attempts -= 1;
            }
        }
        let held = self.mails.iter().filter(|mail| mail.doing == Doing::Waits);
        let held: Vec<_> = held
            .filter_map(|mail| Some((mail.held_since?, QueueId::from_u64(mail.id))))
            .collect();
        if let Some((since, _)) = held.iter().min() {
            let ids: Vec<_> = held.iter().map(|(_, id)| *id).collect();
            self.hold.take_up(*since, "550 5.7.64", &ids);
        }
    }

    /// What is true in every state.
    fn look(&self) {
        let now = self.now;
        let probes = self.mails.iter();
        let probes = probes.filter(|mail| mail.doing == (Doing::OnItsWay { probe: true }));
        if self.hold.is_parked() {
            assert!(probes.count() <= 1, "two probes: {self:?}");
            assert_eq!(self.hold.connections(now, MOST), 1);
            let (since, reason) = self.hold.parked().unwrap();
            assert!(since <= now && !reason.is_empty());
            assert!(now < since + 5 * MINUTE || self.hold.clone().tick(&law(), now).is_some());
        }
        // Somebody looks again before anyone waits in vain.
        if let Admission::Wait(until) = self.hold.admission(now) {
            assert!(until > now && until <= now + 60 * MINUTE);
            assert!(
                self.hold
                    .next_look(&law(), now)
                    .is_some_and(|look| look <= until)
            );
        }
        if let Some(from) = self.ramp_from
            && now >= from + RAMP_AT_MOST.max(RAMP)
            && self.hold.admission(now) == Admission::Go
        {
            let all = self.hold.connections(now, MOST) == MOST;
            assert!(
                all || self.asked_for_less,
                "the ramp does not end: {self:?}"
            );
        }
    }

    /// From here on the connector is well: soon everything is delivered that was not given up.
    fn heals(mut self) {
        for _ in 0..8 {
            for at in 0..self.mails.len() {
                if let Doing::OnItsWay { .. } = self.mails[at].doing {
                    self.ends(at, End::Delivered);
                }
            }
            while self.take() {
                let on_its_way = |mail: &Mail| matches!(mail.doing, Doing::OnItsWay { .. });
                let at = self.mails.iter().position(on_its_way).unwrap();
                self.ends(at, End::Delivered);
            }
            let waits = |mail: &Mail| mail.doing == Doing::Waits;
            if !self.mails.iter().any(waits) {
                return;
            }
            self.pass(1);
        }
        panic!("it heals, and mail still waits: {self:?}");
    }
}

#[test]
fn in_every_history_one_probe_at_most_is_on_its_way_and_nothing_waits_for_ever() {
    let given = std::env::var("GATEPOST_CRASHES").ok();
    // Eight events need so many states at least.
    let most = given.map_or(0, |states| states.parse().unwrap());
    let most = most.max(120_000);
    let mut met = HashSet::new();
    let mut next = VecDeque::from([(Walk::begin(), 0)]);
    let (mut parked, mut ramps, mut given_up) = (0, 0, 0);
    // Every history of so many events was walked; of longer ones some.
    let mut whole = None;
    let mut deepest = 0;
    while let Some((walk, depth)) = next.pop_front() {
        deepest = depth;
        parked += usize::from(walk.hold.is_parked());
        ramps += usize::from(walk.ramp_from.is_some());
        let is_given_up = |mail: &Mail| mail.doing == Doing::GivenUp;
        given_up += usize::from(walk.mails.iter().any(is_given_up));
        walk.clone().heals();
        for event in walk.events() {
            let mut after = walk.clone();
            if !after.step(event) {
                continue;
            }
            let state = format!("{after:?}");
            if met.len() == most {
                if !met.contains(&state) {
                    whole.get_or_insert(depth);
                }
            } else if met.insert(state) {
                next.push_back((after, depth + 1));
            }
        }
    }
    println!(
        "{} states: every history of {whole:?} events, some of {deepest}; parked in {parked}, in a ramp in {ramps}, mail given \
         up in {given_up}",
        met.len()
    );
    assert!(whole.is_none_or(|whole| whole >= 8), "docs/durability.md");
    assert!(parked > 1000 && ramps > 100 && given_up > 100);
}
