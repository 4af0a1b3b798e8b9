//! Any history of the whole delivery: its queues, connections and holds over the real store, with a next hop that answers
//! as it likes, beside a plain reference that knows what must become of each recipient.
//!
//! The reference predicts. It is told what was handed in, what an operator does, how time passes, and what the next hop said; from
//! this follows which leases there may be, how each ends, which reports are owed, when a queue is parked, probed and
//! released, and what a new process finds. A step is over when nothing is left that may go at its moment: a message that
//! should and does not is an error as well as one that should not and does. What is on disk is known, since the journal's
//! thread is turned by the test: a kill loses just what was not.
//!
//! `GATEPOST_HISTORIES=60 cargo test --lib history -- --nocapture`

mod book;
mod hop;
mod lane;
mod watched;

use super::*;
use crate::header::Rendition;
use crate::mail::{Envelope, Recipient};
use crate::route::From;
use crate::smtp::data::Scanner;
use crate::spool::tests::stepped::{Kept, Sick, Stepped};
use crate::spool::{Leg, Message, QueueAction};
use book::{Book, Door, Said, Tally};
use bytes::Bytes;
use hop::{Hop, Mood, Names};
use lane::{EXCHANGE, MINUTE as MINUTES, OUTSIDE, Rule, SECOND};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};
use std::net::SocketAddr;
use std::sync::atomic::AtomicI64;
use watched::Watched;

/// What happens. Numbers choose among what there is.
#[derive(Clone, Debug)]
enum Op {
    New {
        tenant: usize,
        exchange: usize,
        relay: bool,
        domains: usize,
        from_nobody: bool,
        count: usize,
        /// Where in the usual turns of NOTIFY its recipients begin.
        notify: usize,
        /// How long ago it arrived.
        age: u64,
    },
    Pass(u64),
    Mood(usize, Mood),
    Door(usize, Door),
    /// The next hop reports what it is asked to, or not.
    Dsn(bool),
    Act(QueueAction, usize),
    /// The clock is set by so many milliseconds, and no time passes.
    Clock(i64),
    Disk(Option<Sick>),
    Write,
    Tidy,
    Reload,
    Restart,
}

/// An op, and the process is killed when so much has happened after it, if ever so much does.
type Step = (Op, Option<u64>);

fn op() -> impl Strategy<Value = Op> {
    // More of one tenant than of the other, so that its queue sees something.
    let tenant = prop_oneof![3 => Just(0_usize), 1 => Just(1)];
    let which = prop_oneof![4 => Just(0_usize), 1 => Just(1), 1 => Just(2)];
    // Some may have waited long already, so that their time is over soon.
    let age =
        prop_oneof![4 => Just(0), 1 => Just(24 * MINUTES), 1 => Just(39 * MINUTES + 30 * SECOND)];
    let new = (
        tenant,
        0..4_usize,
        any::<bool>(),
        0..3_usize,
        0..10,
        1..5_usize,
        0..7_usize,
        age,
    );
    let new = new.prop_map(
        |(tenant, exchange, relay, domains, nobody, count, notify, age)| Op::New {
            tenant,
            exchange,
            relay,
            domains,
            from_nobody: nobody == 0,
            count,
            notify,
            age,
        },
    );
    let pass = prop_oneof![
        Just(7 * SECOND),
        Just(15 * SECOND),
        Just(MINUTES),
        Just(MINUTES),
        Just(2 * MINUTES),
        Just(6 * MINUTES),
        Just(16 * MINUTES),
    ];
    let mood = prop_oneof![
        3 => Just(Mood::Well),
        4 => Just(Mood::Mixed),
        5 => Just(Mood::Faulty),
        1 => Just(Mood::Busy),
    ];
    let door = prop_oneof![
        4 => Just(Door::Open),
        1 => Just(Door::Refused),
        1 => Just(Door::Lost),
        1 => Just(Door::Busy),
        1 => Just(Door::NoMail),
        1 => Just(Door::Clear),
    ];
    let disk = prop_oneof![
        3 => Just(None),
        1 => Just(Some(Sick::Full)),
        1 => Just(Some(Sick::Short)),
        1 => Just(Some(Sick::Writes)),
        1 => Just(Some(Sick::Syncs)),
    ];
    let minutes = |minutes: i64| Just(minutes * 60_000);
    let clock = prop_oneof![
        minutes(-24 * 60),
        minutes(-95),
        minutes(-11),
        minutes(11),
        minutes(95),
        minutes(24 * 60),
    ];
    let action = prop_oneof![
        Just(QueueAction::Hold),
        Just(QueueAction::Release),
        Just(QueueAction::Retry),
        Just(QueueAction::Delete),
    ];
    prop_oneof![
        8 => new,
        8 => pass.prop_map(Op::Pass),
        4 => (which, mood).prop_map(|(which, mood)| Op::Mood(which, mood)),
        2 => clock.prop_map(Op::Clock),
        2 => disk.prop_map(Op::Disk),
        3 => (0..5_usize, door).prop_map(|(which, door)| Op::Door(which, door)),
        1 => any::<bool>().prop_map(Op::Dsn),
        3 => (action, 0..64_usize).prop_map(|(action, which)| Op::Act(action, which)),
        1 => Just(Op::Write),
        1 => Just(Op::Tidy),
        1 => Just(Op::Reload),
        1 => Just(Op::Restart),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let kill = prop_oneof![9 => Just(None), 1 => (0..30_u64).prop_map(Some)];
    proptest::collection::vec((op(), kill), 10..60)
}

struct World {
    folder: tempfile::TempDir,
    disk: Kept,
    stepped: Arc<Mutex<Stepped>>,
    book: Book,
    hop: Hop,
    settings: DeliverSettings,
    dispatcher: Dispatcher,
    clock: Clock,
    ids: Arc<QueueIds>,
}

/// What time it is, and by how much the clock was set since somebody looked.
#[derive(Clone, Default)]
struct Clock {
    now: Arc<AtomicU64>,
    set: Arc<AtomicI64>,
    /// Since when nobody has set it: by it nothing is older.
    since: Arc<AtomicU64>,
}

fn law_of(rule: &Rule) -> Law {
    Law {
        retry: rule
            .retry
            .iter()
            .copied()
            .map(Duration::from_millis)
            .collect(),
        expire: Duration::from_millis(rule.expire),
        hold_on_connector_fault: Duration::from_millis(rule.hold),
        delay_notice: Some(Duration::from_millis(rule.notice)),
    }
}

fn next_hop(authority: &Authority, hop: &Hop, book: &Book, most: usize) -> DeliverSettings {
    let port = hop.port();
    let mut settings = settings(authority, port, |leaf| leaf);
    for connector in &mut settings.connectors {
        let connector = Arc::make_mut(connector);
        connector.max_connections = most;
        connector.host = format!("{}.in", connector.tenant).into();
    }
    settings.exchange_law = law_of(&EXCHANGE);
    settings.mx_law = law_of(&OUTSIDE);
    settings.mx_port = port;
    settings.relays.push(Arc::new(Relay {
        name: "partner".into(),
        host: "partner.in".into(),
        port,
        tls: RelayTls::Encrypt,
        roots: Arc::clone(&settings.server_trust.roots),
        credentials: None,
    }));
    settings.resolver = Arc::new(Names(book.clone()));
    settings
}

/// The journal's thread has a turn.
fn write(stepped: &Mutex<Stepped>, disk: &Kept, book: &Book) {
    let mut stepped = stepped.lock().unwrap();
    let all = stepped.write();
    assert!(all || !disk.is_well(), "the disk is well");
    if all {
        book.copied(&stepped.copied());
        book.synced();
    }
}

fn start(
    stepped: &Arc<Mutex<Stepped>>,
    book: &Book,
    settings: &DeliverSettings,
    ids: &Arc<QueueIds>,
    clock: &Clock,
) -> Dispatcher {
    let spool = stepped.lock().unwrap().spool().clone();
    let store = Watched {
        spool,
        stepped: Arc::clone(stepped),
        book: book.clone(),
    };
    let Clock { now, set, .. } = clock.clone();
    Dispatcher::start_with(
        store,
        settings.clone(),
        Arc::clone(ids),
        Arc::new(|_| ()),
        Metrics::new().unwrap(),
        (
            Arc::new(move || now.load(Ordering::SeqCst)),
            Box::new(move || Some(set.swap(0, Ordering::SeqCst)).filter(|by| *by != 0)),
        ),
    )
}

fn usual_notify(turn: usize) -> Option<Notify> {
    let on = |success, failure, delay| {
        Some(Notify::On {
            success,
            failure,
            delay,
        })
    };
    match turn % 7 {
        3 => Some(Notify::Never),
        4 => on(true, true, false),
        5 => on(true, false, true),
        6 => on(false, true, true),
        _ => None,
    }
}

impl World {
    async fn new(seed: u64, most: usize) -> Self {
        let authority = Authority::new("Lab").unwrap();
        let book = Book::new(START, most);
        let issued = authority.issue(&Leaf::exchange()).unwrap();
        let hop = Hop::start(&issued, book.clone(), seed).await;
        let settings = next_hop(&authority, &hop, &book, most);
        let folder = tempfile::tempdir().unwrap();
        let disk = Kept::default();
        let stepped = Arc::new(Mutex::new(Stepped::open(folder.path(), &disk).unwrap()));
        let (clock, ids) = (Clock::default(), Arc::new(QueueIds::starting_at(7)));
        clock.now.store(START, Ordering::SeqCst);
        clock.since.store(START - 60 * MINUTES, Ordering::SeqCst);
        let dispatcher = start(&stepped, &book, &settings, &ids, &clock);
        Self {
            folder,
            disk,
            stepped,
            book,
            hop,
            settings,
            dispatcher,
            clock,
            ids,
        }
    }

    fn store(&self) -> Watched {
        Watched {
            spool: self.stepped.lock().unwrap().spool().clone(),
            stepped: Arc::clone(&self.stepped),
            book: self.book.clone(),
        }
    }

    async fn step(self, (op, kill): &Step) -> Result<Self, String> {
        let before = self.book.count();
        let mut world = self.does(op).await?;
        let at = kill.map(|after| before + after);
        if world.settles(at).await? {
            world = world.dies(true).await?;
            world.settles(None).await?;
        }
        let owed = world.stepped.lock().unwrap().owed();
        world.book.compare(&owed)?;
        Ok(world)
    }

    async fn does(mut self, op: &Op) -> Result<Self, String> {
        let now = self.clock.now.load(Ordering::SeqCst);
        match op {
            Op::New { count, .. } => {
                for _ in 0..*count {
                    if let Some((message, content)) = self.letter(op, now) {
                        let kept = self.store().keep(message, content).await;
                        match kept {
                            Err(error) if self.disk.is_well() => return Err(error.to_string()),
                            Ok(()) if !self.disk.is_well() => {
                                return Err("taken by a disk that is not well".to_owned());
                            }
                            Ok(()) | Err(_) => {}
                        }
                    }
                }
            }
            Op::Pass(millis) => {
                // In so much time a connection without work is closed.
                self.hop.close_idle().await;
                self.book.pass(*millis);
                self.clock.now.fetch_add(*millis, Ordering::SeqCst);
                self.dispatcher.look_again();
            }
            Op::Mood(which, mood) => self.hop.mood(*which, *mood),
            Op::Door(which, door) => self.book.door(*which, *door),
            Op::Dsn(dsn) => self.hop.dsn(*dsn),
            Op::Act(action, which) => {
                let open = self.book.open();
                if let Some(at) = which.checked_rem(open.len()) {
                    self.book.act(open[at], *action);
                    let spool = self.stepped.lock().unwrap().spool().clone();
                    let found = spool.act(Some(QueueId::from_u64(open[at])), None, *action, now);
                    assert_eq!(found, 1);
                }
            }
            Op::Clock(by) => {
                // What was copied before and is written after would be known by neither clock.
                self.disk.is(None);
                self.write();
                self.book.clock(*by);
                let then = now.saturating_add_signed(*by);
                self.clock.now.store(then, Ordering::SeqCst);
                self.clock.since.store(then, Ordering::SeqCst);
                self.clock.set.store(*by, Ordering::SeqCst);
                self.dispatcher.look_again();
            }
            Op::Disk(sick) => {
                self.disk.is(*sick);
                if sick.is_none() {
                    // As its thread would, before long.
                    self.write();
                }
            }
            Op::Write => self.write(),
            Op::Tidy => self.stepped.lock().unwrap().tidy(),
            Op::Reload => {
                self.book.reloaded();
                self.dispatcher.reload(self.settings.clone());
            }
            Op::Restart => {
                self = self.dies(false).await?;
            }
        }
        Ok(self)
    }

    fn write(&self) {
        write(&self.stepped, &self.disk, &self.book);
    }

    fn letter(&mut self, op: &Op, now: u64) -> Option<(Message, Bytes)> {
        let Op::New {
            tenant,
            exchange,
            relay,
            domains,
            from_nobody,
            notify,
            age,
            ..
        } = op
        else {
            return None;
        };
        let name = ["contoso", "fabrikam-ag"][*tenant];
        let arrived = (now - age).max(self.clock.since.load(Ordering::SeqCst));
        let id = self.ids.next(arrived).as_u64();
        let mut recipients: Vec<String> = vec![format!("{name}.com"); *exchange];
        let mut ways = vec![Via::Exchange; *exchange];
        recipients.extend(
            ["a.example", "b.example"]
                .map(str::to_owned)
                .into_iter()
                .take(*domains),
        );
        ways.extend(vec![Via::Mx; *domains]);
        if *relay {
            recipients.push("partner.example".to_owned());
            ways.push(Via::Relay("partner".into()));
        }
        if recipients.is_empty() {
            return None;
        }
        let content = format!("From: x@{name}.com\r\nX-Id: {id}\r\n\r\nbody of {id}\r\n.dot\r\n");
        let mut scanner = Scanner::default();
        scanner.push(content.as_bytes());
        let mut legs: Vec<Leg> = Vec::new();
        for (at, via) in ways.into_iter().enumerate() {
            match legs.iter_mut().find(|leg| leg.via == via) {
                Some(leg) => leg.recipients.push(at),
                None => legs.push(Leg {
                    via,
                    rendition: Rendition {
                        prepend: b"Received: by test\r\n".to_vec(),
                        omit: Vec::new(),
                    },
                    xoorg: None,
                    recipients: vec![at],
                }),
            }
        }
        let recipient = |(at, domain): (usize, String)| Recipient {
            mailbox: format!("r{at}.m{id}@{domain}").parse().unwrap(),
            notify: usual_notify(notify + at),
            orcpt: None,
        };
        let sender = format!("s.m{id}@{name}.com");
        let message = Message {
            id: QueueId::from_u64(id),
            arrived,
            tenant: name.into(),
            from: From::Connector,
            application: None,
            stream: None,
            bounces_to: None,
            envelope: Envelope {
                reverse_path: match from_nobody {
                    true => ReversePath::Null,
                    false => sender.parse().unwrap(),
                },
                recipients: recipients.into_iter().enumerate().map(recipient).collect(),
                body: None,
                smtputf8: false,
                ret: None,
                envid: None,
                xoorg: None,
            },
            facts: scanner.facts(),
            legs,
            message_id: None,
            network_message_id: None,
        };
        Some((message, content.into()))
    }

    /// Waits until nothing may go at this moment, or (then it says so) until so much has happened.
    async fn settles(&self, until: Option<u64>) -> Result<bool, String> {
        loop {
            if let Some(error) = self.book.error() {
                return Err(error);
            }
            if until.is_some_and(|count| self.book.count() >= count) {
                return Ok(true);
            }
            let Some(why) = self.book.why_not_quiet() else {
                return Ok(false);
            };
            let patience = Duration::from_secs(10);
            let changed = tokio::time::timeout(patience, self.book.changed());
            if changed.await.is_err() {
                return Err(format!("nothing happens: {why}"));
            }
        }
    }

    /// The process ends, in order or by a kill, and a new one begins.
    async fn dies(self, killed: bool) -> Result<Self, String> {
        let patience = if killed {
            self.book.dying();
            Duration::ZERO
        } else {
            Duration::from_secs(20)
        };
        self.dispatcher.stop(patience).await;
        // What was written to the next hop before is heard by it all the same.
        self.hop.close_idle().await;
        if !killed {
            write(&self.stepped, &self.disk, &self.book);
        }
        let Ok(stepped) = Arc::try_unwrap(self.stepped) else {
            return Err("a task outlives the process".to_owned());
        };
        stepped.into_inner().unwrap().end();
        self.clock.set.store(0, Ordering::SeqCst);
        self.book.restarted();
        let open = || Stepped::open(self.folder.path(), &self.disk);
        let well = self.disk.is_well();
        let opened = open();
        self.book.starts(well, opened.is_ok());
        let opened = opened.or_else(|error| {
            // It needs a disk that is well, and says so.
            self.disk.is(None);
            if well { Err(error) } else { open() }
        });
        let opened = opened.map_err(|error| error.to_string())?;
        let stepped = Arc::new(Mutex::new(opened));
        let dispatcher = start(&stepped, &self.book, &self.settings, &self.ids, &self.clock);
        Ok(Self {
            stepped,
            dispatcher,
            ..self
        })
    }

    /// All is well from here on: everything comes to its end.
    async fn heals(mut self) -> Result<(), String> {
        (0..3).for_each(|which| self.hop.mood(which, Mood::Well));
        (0..5).for_each(|which| self.book.door(which, Door::Open));
        self = self.does(&Op::Disk(None)).await?;
        let mut rounds = 0;
        while !self.book.open().is_empty() {
            let open = self.book.open();
            for (which, _) in open.iter().enumerate() {
                let release = Op::Act(QueueAction::Release, which);
                if rounds == 0 {
                    self = self.does(&release).await?;
                }
            }
            self = self.step(&(Op::Pass(6 * MINUTES), None)).await?;
            rounds += 1;
            if rounds > 12 {
                return Err(format!("all is well, and {open:?} are still there"));
            }
        }
        self.book.all_is_over()?;
        self.dispatcher.stop(Duration::from_secs(20)).await;
        Ok(())
    }
}

fn history(steps: &[Step], seed: u64) -> Result<Tally, String> {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().build().unwrap();
    runtime.block_on(async {
        let mut world = World::new(seed, [1, 3, 4][seed as usize % 3]).await;
        let book = world.book.clone();
        for (number, step) in steps.iter().enumerate() {
            let told = |error| format!("step {number}, {step:?}: {error}");
            world = world.step(step).await.map_err(told)?;
        }
        world.heals().await?;
        Ok(book.tally())
    })
}

/// A history that is written out: one message, what its recipients are answered in turn, and what else happens.
fn told(said: &[(usize, Vec<Said>)], then: Vec<Op>) -> Result<Tally, String> {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().build().unwrap();
    runtime.block_on(async {
        let mut world = World::new(1, 3).await;
        let book = world.book.clone();
        for (at, said) in said {
            let id = QueueIds::starting_at(7).next(START).as_u64();
            let address = format!("r{at}.m{id}@contoso.com");
            world.hop.will_say(&address, said.iter().copied());
        }
        let new = Op::New {
            tenant: 0,
            exchange: said.len(),
            relay: false,
            domains: 0,
            from_nobody: false,
            count: 1,
            notify: 0,
            age: 0,
        };
        let steps = [Op::Mood(0, Mood::Told), new].into_iter();
        let steps = steps.chain(then);
        for (number, op) in steps.enumerate() {
            let told = |error| format!("step {number}, {op:?}: {error}");
            world = world.step(&(op.clone(), None)).await.map_err(told)?;
        }
        world.heals().await?;
        Ok(book.tally())
    })
}

fn minutes(minutes: usize) -> Vec<Op> {
    vec![Op::Pass(MINUTES); minutes]
}

fn histories(runner: &mut TestRunner) -> Vec<Tally> {
    let told = Mutex::new(Vec::new());
    let run = runner.run(&(steps(), any::<u64>()), |(steps, seed)| {
        let tally = history(&steps, seed).map_err(TestCaseError::fail)?;
        told.lock().unwrap().push(tally);
        Ok(())
    });
    if let Err(error) = run {
        panic!("{error}");
    }
    told.into_inner().unwrap()
}

fn cases(usual: u32) -> Config {
    let given = std::env::var("GATEPOST_HISTORIES").ok();
    Config {
        cases: given.map_or(usual, |cases| cases.parse().expect("a number")),
        failure_persistence: None,
        max_shrink_time: 120_000,
        ..Config::default()
    }
}

/// The same each time.
#[test]
fn what_was_said_of_each_recipient_is_what_becomes_of_it() {
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let told = histories(&mut TestRunner::new_with_rng(cases(16), rng));
    let sum = |of: fn(&Tally) -> usize| told.iter().map(of).sum::<usize>();
    println!(
        "{} histories: {} leases, {} recipients delivered ({} copies more), {} failed ({} of old age), {} reported, {} deferred, {} held; \
         {} queues parked, {} probes ({} answered for themselves), {} ramps, {} past a parked queue, {} kills; {} handed on, {} told that it waits ({} overtaken, {} at their end), {} turned away, {} reports not kept, {} times the clock was set, {} starts on a disk that was not well, {} refused there",
        told.len(),
        sum(|tally| tally.leases),
        sum(|tally| tally.delivered),
        sum(|tally| tally.again),
        sum(|tally| tally.failed),
        sum(|tally| tally.expired),
        sum(|tally| tally.bounces),
        sum(|tally| tally.deferred),
        sum(|tally| tally.held),
        sum(|tally| tally.parked),
        sum(|tally| tally.probes),
        sum(|tally| tally.answered),
        sum(|tally| tally.ramps),
        sum(|tally| tally.uncertified),
        sum(|tally| tally.kills),
        sum(|tally| tally.relayed),
        sum(|tally| tally.notices),
        sum(|tally| tally.overtaken),
        sum(|tally| tally.at_their_end),
        sum(|tally| tally.turned),
        sum(|tally| tally.unreported),
        sum(|tally| tally.clocks),
        sum(|tally| tally.sick_starts),
        sum(|tally| tally.no_starts),
    );
    let some: [fn(&Tally) -> usize; 16] = [
        |tally| tally.expired,
        |tally| tally.delivered,
        |tally| tally.again,
        |tally| tally.bounces,
        |tally| tally.held,
        |tally| tally.parked,
        |tally| tally.probes,
        |tally| tally.ramps,
        |tally| tally.kills,
        |tally| tally.relayed,
        |tally| tally.notices,
        |tally| tally.at_their_end,
        |tally| tally.turned,
        |tally| tally.unreported,
        |tally| tally.clocks,
        |tally| tally.sick_starts,
    ];
    assert!(some.iter().all(|of| sum(*of) > 0), "too little happened");
}

/// Others each time.
#[test]
fn what_was_said_of_each_recipient_is_what_becomes_of_it_in_other_histories() {
    histories(&mut TestRunner::new(cases(8)));
}

/// Recipients that were held at one moment go together, and the hold of each counts from its own first fault.
#[test]
fn two_holds_of_one_moment_do_not_take_each_others_beginning() {
    let (fault, restricted) = (vec![Said::Fault; 40], vec![Said::Restricted; 40]);
    for said in [
        [(0, fault.clone()), (1, restricted.clone())],
        [(0, restricted), (1, fault)],
    ] {
        let tally = told(&said, minutes(12)).unwrap_or_else(|error| panic!("{error}"));
        assert!(tally.held > 6, "{tally:?}");
    }
}

/// One recipient's hold has run out, and he is retried as anyone, beside one who meets the fault for the first time.
#[test]
fn a_hold_that_has_run_out_does_not_take_that_of_another_recipient() {
    let spent = vec![Said::Fault; 60];
    let late = [vec![Said::Later; 8], vec![Said::Fault; 60]].concat();
    for said in [
        [(0, spent.clone()), (1, late.clone())],
        [(0, late), (1, spent)],
    ] {
        let tally = told(&said, minutes(36)).unwrap_or_else(|error| panic!("{error}"));
        assert!(tally.held > 6, "{tally:?}");
    }
}

/// A hold of an hour is over when the disk takes no report: he is given up as soon as it does, not an hour later.
#[test]
fn a_hold_that_is_over_stays_over_while_its_report_cannot_be_kept() {
    let said = [(0, vec![Said::Restricted; 60])];
    for sick in [Sick::Full, Sick::Short, Sick::Writes, Sick::Syncs] {
        let (sick, well) = (vec![Op::Disk(Some(sick))], vec![Op::Disk(None)]);
        let then = [minutes(58), sick, minutes(4), well, minutes(5)].concat();
        let tally = told(&said, then);
        let tally = tally.unwrap_or_else(|error| panic!("{error}"));
        assert!(tally.unreported > 0 && tally.bounces == 1, "{tally:?}");
    }
}

/// Mail of one tenant, each message for one recipient at its connector.
fn new(count: usize) -> Op {
    Op::New {
        tenant: 0,
        exchange: 1,
        relay: false,
        domains: 0,
        from_nobody: false,
        count,
        notify: 0,
        age: 0,
    }
}

/// The oldest message meets the fault and parks the queue with others; as its probe it is answered for its own sake.
#[test]
fn a_probe_that_is_answered_for_itself_lets_the_others_go() {
    for own in [Said::Later, Said::Restricted, Said::Never, Said::TooMany] {
        let said = [(0, vec![Said::Fault, own, own, own])];
        let parked = vec![Op::Mood(0, Mood::Faulty), new(3)];
        let probed = vec![Op::Mood(0, Mood::Told), Op::Pass(MINUTES)];
        let tally = told(&said, [parked, probed, minutes(3)].concat());
        let tally = tally.unwrap_or_else(|error| panic!("{own:?}: {error}"));
        let counts = (tally.parked, tally.probes, tally.answered, tally.ramps);
        assert_eq!(counts, (1, 1, 1, 1), "{own:?}: {tally:?}");
    }
}

/// An operator's retry or release goes out at once, whatever keeps the queue back, and the pauses begin anew.
#[test]
fn what_an_operator_wants_tried_waits_for_no_pause_and_no_probe() {
    use QueueAction::{Release, Retry};
    let told = |then| {
        let tally = told(&[(0, vec![Said::Later; 3])], then);
        tally.unwrap_or_else(|error| panic!("{error}"))
    };
    for action in [Retry, Release] {
        let act = || Op::Act(action, 0);
        // Exchange asks for less, again and again, until it is well.
        let busy = vec![
            Op::Mood(0, Mood::Busy),
            new(2),
            act(),
            act(),
            minutes(1)[0].clone(),
        ];
        let tally = told([busy, vec![act(), Op::Mood(0, Mood::Well), act()]].concat());
        assert!(tally.hurried >= 4 && tally.delivered == 3, "{tally:?}");
        // Nobody listens at a domain.
        let mut outside = new(1);
        if let Op::New {
            exchange, domains, ..
        } = &mut outside
        {
            (*exchange, *domains) = (0, 1);
        }
        let second = || Op::Act(action, 1);
        let closed = vec![Op::Door(2, Door::Refused), outside, second(), second()];
        let tally = told([closed, vec![Op::Door(2, Door::Open), second()]].concat());
        assert!(tally.turned == 3 && tally.delivered == 2, "{tally:?}");
        // The queue is parked, and its connector mended.
        let parked = vec![Op::Mood(0, Mood::Faulty), new(3), act()];
        let tally = told([parked, vec![Op::Mood(0, Mood::Well), act()]].concat());
        let counts = (tally.parked, tally.probes, tally.delivered);
        assert_eq!(counts, (1, 2, 4), "{tally:?}");
    }
}

/// A next hop that is not reached is tried by one message at a time; outside its queue waits besides.
#[test]
fn a_closed_door_is_not_beset() {
    let new = |exchange, domains| Op::New {
        tenant: 0,
        exchange,
        relay: false,
        domains,
        from_nobody: false,
        count: 4,
        notify: 0,
        age: 0,
    };
    for (which, new) in [(0, new(1, 0)), (2, new(0, 1))] {
        let closed = vec![Op::Door(which, Door::Refused), new.clone()];
        let more = vec![Op::Pass(7 * SECOND), new];
        let then = [closed, more, minutes(5)].concat();
        let tally = told(&[], then).unwrap_or_else(|error| panic!("{error}"));
        assert!(tally.turned > 2 && tally.delivered >= 8, "{tally:?}");
    }
}

/// A full disk keeps no process from beginning: what is queued leaves, and so makes room. One that does not write does.
#[test]
fn what_is_queued_leaves_a_disk_that_is_full_at_the_start() {
    for (sick, starts) in [
        (Sick::Full, (1, 0)),
        (Sick::Short, (1, 0)),
        (Sick::Writes, (0, 1)),
        (Sick::Syncs, (0, 1)),
    ] {
        let closed = vec![Op::Door(0, Door::Refused), new(3), Op::Pass(7 * SECOND)];
        let then = vec![Op::Disk(Some(sick)), Op::Restart, Op::Door(0, Door::Open)];
        let tally = told(&[], [closed, then, minutes(4)].concat());
        let tally = tally.unwrap_or_else(|error| panic!("{sick:?}: {error}"));
        let begun = (tally.sick_starts, tally.no_starts);
        assert_eq!((begun, tally.delivered), (starts, 3), "{sick:?}: {tally:?}");
    }
}
