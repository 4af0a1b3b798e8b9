//! The journal's thread and the keeper at the same time: before each single call of the disk that one of them makes, the
//! other has its whole turn; in two runs of three more than that: two turns with mail that is settled between them, or
//! the same again a few calls later.
//!
//! The crash tests beside this one do everything on one thread, one thing after the other, and so cannot see what comes
//! between the calls of one thing. Here each run of a script is stopped at another call, and goes on when the other thread
//! has done what there is to do, or waits for a lock. What is left is then read by a new process: all that was kept and not
//! settled, octet by octet. The memory order of single variables is not what is looked at (all that both threads change lies behind
//! mutexes, but for figures), so that `loom` or `shuttle` would find no more, and would want their own types in the journal.

use super::*;
use crate::journal::disk::{LogFile, RealDisk};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use std::collections::BTreeSet;
use std::io::{self, IoSlice};
use std::pin::pin;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

/// Small: a message or two fill one.
const SEGMENT: u64 = 32 * 1024;
/// Steps of a run.
const STEPS: usize = 40;
/// Steps after the stop that are looked at.
const LOOKS: usize = 3;
/// After so long the other thread waits for a lock that is held here.
const BLOCKED: Duration = Duration::from_millis(15);

/// Who has a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Journal,
    Keeper,
}

type Turn = Arc<dyn Fn() + Send + Sync>;
/// A call, and whose.
type Place = (Who, &'static str);

/// At which call a run is stopped, and what comes then.
#[derive(Clone, Copy, Debug, Default)]
struct Plan {
    at: Option<usize>,
    /// Once more so many calls later.
    again: Option<usize>,
    /// Turns of the other, with a message settled between two.
    turns: usize,
}

impl Plan {
    fn of(seed: u64, at: usize) -> Self {
        let (again, turns) = match at % 3 {
            0 => (None, 1),
            1 => (None, 2),
            _ => (Some(1 + (seed as usize + at) % 11), 2),
        };
        let at = Some(at);
        Self { at, again, turns }
    }

    fn stops_at(&self, call: usize) -> bool {
        let again = self.at.zip(self.again);
        self.at == Some(call) || again.is_some_and(|(at, later)| at + later == call)
    }
}

/// The disk, which counts the calls of whoever has a turn, and gives the other one before some of them.
#[derive(Default)]
struct Stop {
    count: usize,
    plan: Plan,
    turn: Option<Turn>,
    stops: usize,
    /// The other's turn, where it is not over yet.
    rest: Option<(Receiver<()>, std::thread::JoinHandle<()>)>,
    /// Whose calls are counted; nobody's between turns.
    who: Option<Who>,
    stopped_in: Option<Place>,
}

#[derive(Clone, Default)]
struct Between(Arc<Mutex<Stop>>);

impl std::fmt::Debug for Between {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Between")
    }
}

impl Between {
    fn call(&self, name: &'static str) {
        let (send, ended) = channel();
        let (who, turn) = {
            let mut stop = self.0.lock().unwrap();
            let Some(who) = stop.who else { return };
            stop.count += 1;
            if !stop.plan.stops_at(stop.count - 1) {
                return;
            }
            stop.stopped_in.get_or_insert((who, name));
            stop.stops += 1;
            // Calls of the other are not counted.
            stop.who = None;
            (who, stop.turn.clone())
        };
        let Some(turn) = turn else { return };
        let other = std::thread::spawn(move || {
            turn();
            send.send(()).unwrap();
        });
        match ended.recv_timeout(BLOCKED) {
            Ok(()) => {
                other.join().unwrap();
                self.0.lock().unwrap().who = Some(who);
            }
            Err(RecvTimeoutError::Timeout) => {
                self.0.lock().unwrap().rest = Some((ended, other));
            }
            Err(RecvTimeoutError::Disconnected) => panic!("the other thread panicked"),
        }
    }
}

impl Disk for Between {
    fn allocate(&self, path: &Path, bytes: u64) -> io::Result<()> {
        self.call("allocate");
        std::fs::File::create(path)?.set_len(bytes)
    }
    fn open(&self, path: &Path) -> io::Result<Box<dyn LogFile>> {
        self.call("open");
        Ok(Box::new(BetweenFile(RealDisk.open(path)?, self.clone())))
    }
    fn create(&self, path: &Path) -> io::Result<Box<dyn LogFile>> {
        self.call("create");
        Ok(Box::new(BetweenFile(RealDisk.create(path)?, self.clone())))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.call("rename");
        RealDisk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.call("remove");
        RealDisk.remove(path)
    }
    fn make_folder(&self, path: &Path) -> io::Result<()> {
        RealDisk.make_folder(path)
    }
    fn sync_directory(&self, _: &Path) -> io::Result<()> {
        self.call("sync of a folder");
        Ok(())
    }
}

#[derive(Debug)]
struct BetweenFile(Box<dyn LogFile>, Between);

impl LogFile for BetweenFile {
    fn write_at(&mut self, slices: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        self.1.call("write");
        self.0.write_at(slices, offset)
    }
    fn sync(&mut self) -> io::Result<()> {
        self.1.call("fdatasync");
        Ok(())
    }
    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.1.call("truncate");
        self.0.truncate(length)
    }
}

struct Race {
    folder: tempfile::TempDir,
    disk: Between,
    spool: Spool,
    committer: Arc<Mutex<Committer<Ticket>>>,
    keeper: Arc<Mutex<Keeper>>,
    /// What is owed, and its octets.
    owed: BTreeMap<u64, Vec<u8>>,
    /// Settled between two turns.
    settled: Arc<Mutex<Vec<u64>>>,
    next: u64,
}

fn opened(folder: &Path, disk: &Between) -> Result<(Spool, Hands), String> {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    Spool::with_hands(folder, disk, SEGMENT, &Metrics::new().unwrap())
        .map_err(|error| format!("does not open: {error}"))
}

impl Race {
    fn new(plan: Plan) -> Result<Self, String> {
        let (folder, disk) = (tempfile::tempdir().unwrap(), Between::default());
        let (spool, Hands { committer, keeper }) = opened(folder.path(), &disk)?;
        disk.0.lock().unwrap().plan = plan;
        Ok(Self {
            folder,
            disk,
            spool,
            committer: Arc::new(Mutex::new(committer)),
            keeper: Arc::new(Mutex::new(keeper)),
            owed: BTreeMap::new(),
            settled: Arc::default(),
            next: 1,
        })
    }

    /// One thread has its turn, and the other's lies ready for the call where it is stopped.
    fn turn(&self, who: Who) {
        let (committer, keeper) = (Arc::clone(&self.committer), Arc::clone(&self.keeper));
        let journal = move || {
            committer.lock().unwrap().turn();
        };
        // Twice: what the first round makes possible, the second does.
        let keeps = move || assert!((0..2).all(|_| keeper.lock().unwrap().round()));
        let (own, other): (Turn, Turn) = match who {
            Who::Journal => (Arc::new(journal), Arc::new(keeps)),
            Who::Keeper => (Arc::new(keeps), Arc::new(journal)),
        };
        {
            let mut stop = self.disk.0.lock().unwrap();
            let (spool, settled, turns) = (
                self.spool.clone(),
                Arc::clone(&self.settled),
                stop.plan.turns,
            );
            let all: Turn = Arc::new(move || {
                other();
                for _ in 1..turns {
                    if let Some(due) = spool.next_due(&exchange(), NOW) {
                        settled.lock().unwrap().push(due.message().id.as_u64());
                        spool.settle(due, vec![(0, Disposition::Delivered)], true);
                    }
                    other();
                }
            });
            (stop.who, stop.turn) = (Some(who), Some(all));
        }
        own();
        let rest = {
            let mut stop = self.disk.0.lock().unwrap();
            (stop.who, stop.turn) = (None, None);
            stop.rest.take()
        };
        if let Some((ended, other)) = rest {
            let waited = ended.recv_timeout(Duration::from_secs(20));
            waited.expect("the two threads wait for each other");
            other.join().unwrap();
        }
    }

    async fn accept(&mut self, octets: usize) -> Result<(), String> {
        let id = self.next;
        self.next += 1;
        let body: Vec<u8> = format!("X-Id: {id}\r\n")
            .bytes()
            .cycle()
            .take(octets)
            .collect();
        let mut draft = self.spool.draft();
        draft.append(Bytes::from(body.clone())).await.unwrap();
        let spool = self.spool.clone();
        let mut accepting = pin!(spool.accept(draft, message(id, 1, &body)));
        let stored = std::future::poll_fn(|context| {
            let polled = accepting.as_mut().poll(context);
            let asked = || self.committer.lock().unwrap().is_asked();
            if polled.is_pending() && asked() {
                self.turn(Who::Journal);
                context.waker().wake_by_ref();
            }
            polled
        });
        stored
            .await
            .map_err(|error| format!("{id} is refused: {error}"))?;
        self.owed.insert(id, body);
        Ok(())
    }

    async fn settle(&mut self) -> Result<(), String> {
        let Some(due) = self.spool.next_due(&exchange(), NOW) else {
            return Ok(());
        };
        let id = due.message().id.as_u64();
        check(&self.spool, &due, &self.owed).await?;
        self.spool
            .settle(due, vec![(0, Disposition::Delivered)], true);
        self.owed.remove(&id);
        Ok(())
    }

    async fn run(&mut self, seed: u64) -> Result<(), String> {
        let mut chance = StdRng::seed_from_u64(seed);
        let mut looks = 0;
        for _ in 0..STEPS {
            match chance.random_range(0..10) {
                0..4 => self.accept(chance.random_range(2_000..14_000)).await?,
                4..8 => self.settle().await?,
                8 => self.turn(Who::Journal),
                _ => self.turn(Who::Keeper),
            }
            for id in self.settled.lock().unwrap().drain(..) {
                self.owed.remove(&id);
            }
            // Soon after the stop, while what may have been lost is still owed.
            if looks < LOOKS && self.disk.0.lock().unwrap().stopped_in.is_some() {
                looks += 1;
                self.would_be_found().await?;
            }
        }
        // All that is known goes to disk, also what is settled meanwhile.
        self.turn(Who::Journal);
        self.committer.lock().unwrap().turn();
        for id in self.settled.lock().unwrap().drain(..) {
            self.owed.remove(&id);
        }
        Ok(())
    }

    /// A process that began now would find what is owed. What was settled since the last write may come once more.
    async fn would_be_found(&self) -> Result<(), String> {
        let copy = tempfile::tempdir().unwrap();
        for entry in std::fs::read_dir(self.folder.path()).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_file() {
                std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
            }
        }
        let found = found_in(copy.path(), &self.owed).await?;
        let lost = self.owed.keys().find(|id| !found.contains(id));
        lost.map_or(Ok(()), |id| Err(format!("{id} would be lost")))
    }

    /// A new process finds what is owed, and nothing else.
    async fn ends(self) -> Result<(), String> {
        self.spool.0.journal.stop();
        let found = found_in(self.folder.path(), &self.owed).await?;
        let owed: BTreeSet<_> = self.owed.keys().copied().collect();
        if found != owed {
            return Err(format!("found {found:?}, and {owed:?} is owed"));
        }
        Ok(())
    }
}

/// What is due to a new process, with the octets that are owed.
async fn found_in(folder: &Path, owed: &BTreeMap<u64, Vec<u8>>) -> Result<BTreeSet<u64>, String> {
    let (spool, _hands) = opened(folder, &Between::default())?;
    let mut found = Vec::new();
    while let Some(due) = spool.next_due(&exchange(), NOW) {
        if owed.contains_key(&due.message().id.as_u64()) {
            check(&spool, &due, owed).await?;
        }
        found.push(due);
    }
    let ids = found.iter().map(|due| due.message().id.as_u64());
    Ok(ids.collect())
}

async fn check(spool: &Spool, due: &Due, owed: &BTreeMap<u64, Vec<u8>>) -> Result<(), String> {
    let id = due.message().id.as_u64();
    let body = owed.get(&id).ok_or_else(|| format!("{id} has come back"))?;
    let mut octets = Vec::new();
    loop {
        let piece = spool.read(due, octets.len() as u64).await;
        let piece = piece.map_err(|error| format!("{id}: {error}"))?;
        if piece.is_empty() {
            break;
        }
        octets.extend_from_slice(&piece);
    }
    if octets != rendered(body) {
        return Err(format!("{id} has other octets"));
    }
    Ok(())
}

/// What a run comes to that is stopped as planned: the number of its calls, where it was stopped first, and how often.
fn race(seed: u64, plan: Plan) -> Result<(usize, Option<Place>, usize), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut race = Race::new(plan)?;
        race.run(seed).await?;
        let disk = race.disk.clone();
        race.ends().await?;
        let stop = disk.0.lock().unwrap();
        Ok((stop.count, stop.stopped_in, stop.stops))
    })
}

#[test]
fn whatever_the_keeper_does_between_two_calls_of_the_journal_and_the_other_way_nothing_is_lost() {
    let given = std::env::var("GATEPOST_CRASHES").ok();
    let most = given.map_or(400, |most| most.parse().expect("a number"));
    let (mut runs, mut twice, mut seen) = (0, 0, BTreeMap::<String, usize>::new());
    for seed in 1.. {
        let (calls, ..) = race(seed, Plan::default()).unwrap();
        for at in 0..calls {
            let plan = Plan::of(seed, at);
            let (_, stopped, stops) = race(seed, plan)
                .unwrap_or_else(|error| panic!("seed {seed}, stopped by {plan:?}: {error}"));
            twice += usize::from(stops > 1);
            let (who, call) = stopped.expect("the same calls each time");
            *seen.entry(format!("{who:?} before {call}")).or_default() += 1;
            runs += 1;
        }
        if runs >= most {
            break;
        }
    }
    println!("{runs} runs, {twice} stopped twice: {seen:?}");
    assert!(seen.len() > 8 && twice > 0, "{twice}, {seen:?}");
}
