//! What was answered 250 survives a power cut at any instant, on a disk that also fills up, stops half way and fails to
//! sync (product.md 9).
//!
//! Senders, deliverers and an operator work on a store whose disk is cut again and again while they do; what each cut leaves
//! is laid out in a folder and opened as after a restart. `GATEPOST_POWER_CUTS=20000` makes a long night of it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::or_fun_call,
    clippy::large_futures,
    reason = "test code"
)]
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::disallowed_methods,
    reason = "test code; it reads the clock to bound its waits"
)]

mod disk;
#[path = "../support/mail.rs"]
mod mail;
#[path = "../support/platter.rs"]
mod platter;

use bytes::Bytes;
use disk::{PowerDisk, Weather};
use gatepost::journal::disk::RealDisk;
use gatepost::mail::QueueId;
use gatepost::metrics::Metrics;
use gatepost::spool::{Disposition, Message, QueueAction, Spool};
use mail::exchange;
use platter::Left;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Small, so that segments are filled, copied forward and used again all the time.
const SEGMENT: u64 = 256 * 1024;
const NOW: u64 = 1_800_000_000_000;
const LATER: u64 = NOW + 1_000_000_000;
/// A result is written with the batch behind the one that is being written when the store is told, and a batch goes over several
/// segments of this size, each with syncs of its own: after so many it is on disk, and its recipient is not open again.
const SOON: u64 = 8;

/// What the world knows, on both sides of the store.
#[derive(Clone, Default)]
struct Ledger {
    /// Handed to the store: how many recipients, how long.
    submitted: BTreeMap<u64, (usize, usize)>,
    /// Answered 250.
    acknowledged: BTreeSet<u64>,
    /// Recipients whose end the store was told of, or is about to be.
    settled: BTreeMap<u64, BTreeSet<usize>>,
    /// How many syncs of segments had ended well when the store had been told.
    told: BTreeMap<(u64, usize), u64>,
    /// Messages all of whose recipients are.
    done: usize,
}

impl Ledger {
    fn settle(&mut self, id: u64, recipients: impl IntoIterator<Item = usize>) {
        let all = self.submitted[&id].0;
        let settled = self.settled.entry(id).or_default();
        let before = settled.len();
        settled.extend(recipients);
        self.done += usize::from(before < all && settled.len() == all);
    }

    fn in_hand(&self) -> usize {
        self.acknowledged.len().saturating_sub(self.done)
    }
}

/// A cut, and what was known at its instant.
struct Moment {
    folder: PathBuf,
    ledger: Ledger,
    syncs: u64,
}

#[derive(Debug, Default)]
struct Tally {
    cuts: usize,
    /// Answered 250 and not settled at the cut, over all cuts: all were found.
    owed: usize,
    /// Recipients that were settled before the cut and are open after it: duplicates.
    again: usize,
    /// The most syncs of segments that one of them has seen since the store was told.
    waited: u64,
    settled: usize,
    /// Found though nobody was answered 250.
    unanswered: usize,
}

fn content(id: u64, length: usize) -> Bytes {
    let line = format!("X-Id: {id}\r\n");
    line.bytes().cycle().take(length).collect()
}

fn message(id: u64, recipients: usize, body: &[u8]) -> Message {
    let mut message = mail::message(id, NOW, recipients, body);
    message.legs[0].rendition.prepend = b"Top: 1\r\n".to_vec();
    message
}

/// Sends message after message until the last cut.
async fn send(spool: Spool, disk: PowerDisk, ledger: Arc<Mutex<Ledger>>, sender: u64) {
    let mut chance = StdRng::seed_from_u64(sender);
    let mut number = 0;
    while !disk.is_over() {
        number += 1;
        let id = (sender << 32) + number;
        let length = match chance.random_range(0..100) {
            0..3 => chance.random_range(1_048_576..1_300_000),
            3..15 => chance.random_range(10_000..90_000),
            _ => chance.random_range(20..4_000),
        };
        let recipients = chance.random_range(1..5);
        let body = content(id, length);
        let known = (recipients, length);
        ledger.lock().unwrap().submitted.insert(id, known);
        let mut draft = spool.draft();
        let mut whole = true;
        for piece in body.chunks(64 * 1024) {
            whole &= draft.append(body.slice_ref(piece)).await.is_ok();
        }
        if whole
            && spool
                .accept(draft, message(id, recipients, &body))
                .await
                .is_ok()
        {
            ledger.lock().unwrap().acknowledged.insert(id);
        }
        // A queue that only grows would never give a segment back.
        while ledger.lock().unwrap().in_hand() > 300 && !disk.is_over() {
            tokio::task::yield_now().await;
        }
    }
}

/// Delivers, defers and fails until the last cut.
async fn deliver(spool: Spool, disk: PowerDisk, ledger: Arc<Mutex<Ledger>>, seed: u64) {
    let mut chance = StdRng::seed_from_u64(seed);
    while !disk.is_over() {
        // A queue with something in it has more to lose.
        if ledger.lock().unwrap().in_hand() < 100 {
            tokio::task::yield_now().await;
            continue;
        }
        let Some(due) = spool.next_due(&exchange(), NOW) else {
            tokio::task::yield_now().await;
            continue;
        };
        let id = due.message().id.as_u64();
        let mut results = Vec::new();
        for at in due.recipients().to_vec() {
            let reply = "451 4.4.0 later".to_owned();
            let disposition = match chance.random_range(0..10) {
                0..6 => Disposition::Delivered,
                6 => Disposition::Failed { reply },
                7 => Disposition::Deferred {
                    next_try: NOW,
                    reply,
                },
                8 => Disposition::Held {
                    next_try: NOW,
                    since: NOW,
                    reply,
                },
                _ => continue,
            };
            if matches!(
                disposition,
                Disposition::Delivered | Disposition::Failed { .. }
            ) {
                ledger.lock().unwrap().settle(id, [at]);
            }
            results.push((at, disposition));
        }
        let settled: Vec<usize> = results
            .iter()
            .filter(|(_, disposition)| {
                matches!(
                    disposition,
                    Disposition::Delivered | Disposition::Failed { .. }
                )
            })
            .map(|(at, _)| *at)
            .collect();
        spool.settle(due, results, true);
        let syncs = disk.syncs.load(Ordering::SeqCst);
        let told = settled.into_iter().map(|at| ((id, at), syncs));
        ledger.lock().unwrap().told.extend(told);
        tokio::task::yield_now().await;
    }
}

/// Holds, releases and deletes until the last cut.
async fn operate(spool: Spool, disk: PowerDisk, ledger: Arc<Mutex<Ledger>>, seed: u64) {
    let mut chance = StdRng::seed_from_u64(seed);
    while !disk.is_over() {
        tokio::time::sleep(Duration::from_millis(2)).await;
        let some = {
            let ledger = ledger.lock().unwrap();
            let known = ledger.acknowledged.len();
            let at = chance.random_range(0..=known);
            ledger.acknowledged.iter().nth(at).copied()
        };
        let Some(id) = some else { continue };
        let action = match chance.random_range(0..3) {
            0 => QueueAction::Hold,
            1 => QueueAction::Release,
            _ => {
                let mut ledger = ledger.lock().unwrap();
                let recipients = ledger.submitted[&id].0;
                ledger.settle(id, 0..recipients);
                QueueAction::Delete
            }
        };
        let _acted = spool.act(Some(QueueId::from_u64(id)), None, action, NOW);
    }
    let _acted = spool.act(None, None, QueueAction::Release, NOW);
}

/// Works on a store until its disk was cut so often; what each cut left.
async fn work(
    seed: u64,
    cuts: usize,
    weather: Weather,
    folder: &Path,
) -> (Vec<Moment>, Arc<Mutex<Ledger>>) {
    let ledger = Arc::new(Mutex::new(Ledger::default()));
    let moments = Arc::new(Mutex::new(Vec::new()));
    let root = folder.join("spool");
    let (known, kept, from, to) = (
        Arc::clone(&ledger),
        Arc::clone(&moments),
        root.clone(),
        folder.to_owned(),
    );
    let disk = PowerDisk::new(seed, cuts, 40, move |cut: Left, syncs| {
        let mut kept = kept.lock().unwrap();
        let folder = to.join(format!("cut-{}", kept.len()));
        std::fs::create_dir_all(&folder).unwrap();
        cut.lay_out(&from, &folder);
        let ledger = known.lock().unwrap().clone();
        kept.push(Moment {
            folder,
            ledger,
            syncs,
        });
    });
    let metrics = Metrics::new().unwrap();
    let spool = Spool::open_on(&root, Arc::new(disk.clone()), SEGMENT, &metrics).unwrap();
    disk.weather(weather);
    let mut tasks = tokio::task::JoinSet::new();
    for sender in 1..=4 {
        tasks.spawn(send(
            spool.clone(),
            disk.clone(),
            Arc::clone(&ledger),
            seed * 16 + sender,
        ));
    }
    for deliverer in 5..=6 {
        tasks.spawn(deliver(
            spool.clone(),
            disk.clone(),
            Arc::clone(&ledger),
            seed * 16 + deliverer,
        ));
    }
    tasks.spawn(operate(
        spool.clone(),
        disk.clone(),
        Arc::clone(&ledger),
        seed,
    ));
    let all = async { while tasks.join_next().await.is_some() {} };
    let patience = Duration::from_secs(60 + cuts as u64 / 10);
    tokio::time::timeout(patience, all)
        .await
        .expect("the work does not end");
    disk.weather(Weather::default());
    spool.close().await;
    let moments = std::mem::take(&mut *moments.lock().unwrap());
    assert_eq!(moments.len(), cuts);
    (moments, ledger)
}

/// A message that nobody sent, of a start before the one that is looked at.
const BEFORE: u64 = 2;

/// Opens what a cut left, as a restart would, and compares it with what was promised; at every second cut only after a start
/// in which the store went on.
async fn judge(moment: &Moment, all: &Ledger, tally: &mut Tally) {
    let metrics = Metrics::new().unwrap();
    let open = || Spool::open_on(&moment.folder, Arc::new(RealDisk), SEGMENT, &metrics);
    let body = content(1, 100);
    let again = async |spool: &Spool, id: u64| {
        let mut draft = spool.draft();
        draft.append(body.clone()).await.unwrap();
        spool.accept(draft, message(id, 1, &body)).await.unwrap();
    };
    if tally.cuts % 2 == 1 {
        let spool = open().unwrap_or_else(|error| panic!("{}: {error}", moment.folder.display()));
        again(&spool, BEFORE).await;
        spool.close().await;
    }
    let spool = open().unwrap_or_else(|error| panic!("{}: {error}", moment.folder.display()));
    let _acted = spool.act(None, None, QueueAction::Release, NOW);
    let mut found: BTreeMap<u64, BTreeSet<usize>> = BTreeMap::new();
    while let Some(due) = spool.next_due(&exchange(), LATER) {
        let id = due.message().id.as_u64();
        if id == BEFORE {
            spool.settle(due, vec![(0, Disposition::Delivered)], true);
            continue;
        }
        let Some((recipients, length)) = all.submitted.get(&id) else {
            panic!("{id:x} was never sent");
        };
        let mut bytes = Vec::new();
        loop {
            let piece = spool.read(&due, bytes.len() as u64).await;
            let piece = piece
                .unwrap_or_else(|error| panic!("{}: {id:x}: {error}", moment.folder.display()));
            if piece.is_empty() {
                break;
            }
            bytes.extend_from_slice(&piece);
        }
        let sent = [b"Top: 1\r\n".as_slice(), &content(id, *length)].concat();
        assert!(bytes == sent, "{id:x} came back otherwise");
        let open = found.entry(id).or_default();
        for at in due.recipients() {
            assert!(at < recipients, "{id:x} has no recipient {at}");
            open.insert(*at);
        }
        let delivered = due
            .recipients()
            .iter()
            .map(|at| (*at, Disposition::Delivered));
        let delivered = delivered.collect();
        spool.settle(due, delivered, true);
    }
    let none = BTreeSet::new();
    for id in &moment.ledger.acknowledged {
        let settled = moment.ledger.settled.get(id).unwrap_or(&none);
        let open = found.get(id).unwrap_or(&none);
        for at in 0..all.submitted[id].0 {
            if settled.contains(&at) {
                tally.settled += 1;
                if open.contains(&at) {
                    tally.again += 1;
                    let told = moment.ledger.told.get(&(*id, at));
                    let waited = told.map_or(0, |syncs| moment.syncs - syncs);
                    tally.waited = tally.waited.max(waited);
                }
            } else {
                tally.owed += 1;
                assert!(
                    open.contains(&at),
                    "{}: lost: {id:x}, recipient {at}",
                    moment.folder.display()
                );
            }
        }
    }
    let unanswered = found
        .keys()
        .filter(|id| !moment.ledger.acknowledged.contains(id));
    tally.unanswered += unanswered.count();
    tally.cuts += 1;
    // The store goes on where it is, and what it does then is durable as well.
    again(&spool, 1).await;
    spool.close().await;
    let spool = open().unwrap();
    let left: Vec<u64> = std::iter::from_fn(|| spool.next_due(&exchange(), LATER))
        .map(|due| {
            let id = due.message().id.as_u64();
            std::mem::forget(due);
            id
        })
        .collect();
    assert_eq!(
        left,
        [1],
        "what was settled after the restart stays settled"
    );
    spool.close().await;
}

async fn rounds(name: &str, cuts: usize, weather: Weather) {
    let mut tally = Tally::default();
    let began = Instant::now();
    for (round, left) in (0..cuts).step_by(100).enumerate() {
        let folder = tempfile::tempdir().unwrap();
        let few = (cuts - left).min(100);
        let seed = round as u64 + 1;
        let (moments, ledger) = work(seed, few, weather, folder.path()).await;
        let ledger = ledger.lock().unwrap().clone();
        for moment in &moments {
            judge(moment, &ledger, &mut tally).await;
            std::fs::remove_dir_all(&moment.folder).unwrap();
        }
    }
    assert!(tally.owed > cuts, "the load was no load: {tally:?}");
    println!("{name}: {tally:?}, {} s", began.elapsed().as_secs());
    assert!(tally.settled > cuts && tally.unanswered > 0, "{tally:?}");
    assert!(tally.waited <= SOON, "{} syncs", tally.waited);
}

/// How many cuts each test makes.
fn cuts() -> usize {
    let given = std::env::var("GATEPOST_POWER_CUTS").ok();
    given.map_or(60, |cuts| cuts.parse().expect("a number"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_cut_at_any_instant_loses_nothing_that_was_answered_250() {
    rounds("power cuts", cuts(), Weather::default()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nor_does_it_on_a_disk_that_is_full_stops_half_way_and_fails_to_sync() {
    let weather = Weather {
        full: 50,
        short: 10,
        sync: 10,
    };
    rounds("in bad weather", cuts(), weather).await;
}
