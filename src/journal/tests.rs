//! The journal against a disk that fails as real ones do, and against what a kill or a power cut leaves of its files.

use super::disk::RealDisk;
use super::disk::faulty::{Fault, FaultyDisk};
use super::*;
use proptest::prelude::*;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

const SMALL: u64 = 64 * 1024;

struct Rig {
    journal: Journal<u64>,
    answers: Receiver<(u64, Result<Location, JournalError>)>,
    metrics: Metrics,
}

fn start(folder: &Path, disk: Arc<dyn Disk>, segment: u64) -> (Rig, Vec<Found>) {
    let metrics = Metrics::new().unwrap();
    let mut found = Vec::new();
    let opened = open(folder, disk, segment, &metrics, &mut |record| {
        found.push(record);
        Ok(())
    })
    .unwrap();
    let (answer, answers) = channel();
    let (journal, committer) = opened
        .start(&metrics, move |batch| {
            for answered in batch {
                answer.send(answered).ok();
            }
        })
        .unwrap();
    journal.run(committer).unwrap();
    let rig = Rig {
        journal,
        answers,
        metrics,
    };
    (rig, found)
}

fn message(id: u64, body: &[u8]) -> Job<u64> {
    Job {
        kind: Kind::Message,
        meta: id.to_string().into_bytes(),
        body: bytes::Bytes::copy_from_slice(body),
        ticket: Some(id),
        may_use_reserve: false,
    }
}

fn outcome(text: &str) -> Job<u64> {
    Job {
        kind: Kind::State,
        meta: text.as_bytes().to_vec(),
        body: bytes::Bytes::new(),
        ticket: None,
        may_use_reserve: true,
    }
}

impl Rig {
    fn answer(&self) -> (u64, Result<Location, JournalError>) {
        self.answers.recv_timeout(Duration::from_secs(30)).unwrap()
    }

    /// Commits one message by itself.
    fn commit(&self, id: u64, body: &[u8]) -> Result<Location, JournalError> {
        self.journal.push(message(id, body));
        let (answered, result) = self.answer();
        assert_eq!(answered, id);
        result
    }

    /// Waits for what the committer does by itself.
    fn eventually(&self, what: &str, reached: impl Fn() -> bool) {
        for _ in 0..1500 {
            if reached() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("not in time: {what}");
    }
}

fn metas(found: &[Found]) -> Vec<String> {
    let text = |record: &Found| String::from_utf8_lossy(&record.meta).into_owned();
    let told = |record: &&Found| matches!(record.kind, Kind::Message | Kind::State);
    found.iter().filter(told).map(text).collect()
}

fn replayed(folder: &Path) -> (Vec<Found>, replay::Replayed) {
    let mut found = Vec::new();
    let metrics = Metrics::new().unwrap();
    let replayed = replay::replay(folder, &metrics, &mut |record| {
        found.push(record);
        Ok(())
    });
    (found, replayed.unwrap())
}

fn logs(folder: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut logs: Vec<PathBuf> = files
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .collect();
    logs.sort();
    logs
}

#[test]
fn one_fdatasync_covers_all_who_wait() {
    let folder = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let (rig, _) = start(folder.path(), Arc::new(disk.clone()), SMALL);
    rig.commit(0, b"opens the segment").unwrap();
    let before = disk.count(".log", "sync");
    disk.pause(true);
    rig.journal.push(message(1, b"first"));
    rig.eventually("the first is being synced", || {
        disk.count(".log", "sync") == before + 1
    });
    for id in 2..=50 {
        rig.journal.push(message(id, b"arrived meanwhile"));
    }
    assert!(rig.answers.try_recv().is_err(), "answered before fdatasync");
    disk.pause(false);
    for id in 1..=50 {
        let (answered, result) = rig.answer();
        assert_eq!(answered, id, "in order");
        result.unwrap();
    }
    assert_eq!(disk.count(".log", "sync"), before + 2);
    assert_eq!(
        rig.metrics.store_sync_duration.get_sample_count(),
        before as u64 + 1
    );
}

#[test]
fn an_outcome_is_on_disk_within_a_second_without_company() {
    let folder = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let (rig, _) = start(folder.path(), Arc::new(disk.clone()), SMALL);
    let began = committer_now();
    rig.journal.push(outcome("deferred"));
    rig.eventually("written and synced", || disk.count(".log", "sync") == 2);
    assert!(committer_now().duration_since(began) < Duration::from_secs(1));
    assert_eq!(metas(&replayed(folder.path()).0), ["deferred"]);
}

#[expect(
    clippy::disallowed_methods,
    reason = "the bound of the test is in wall-clock time"
)]
fn committer_now() -> std::time::Instant {
    std::time::Instant::now()
}

#[test]
fn after_a_failed_fdatasync_the_segment_is_never_written_again_and_nothing_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let (rig, _) = start(folder.path(), Arc::new(disk.clone()), SMALL);
    rig.commit(1, b"kept").unwrap();
    let failed = logs(folder.path()).pop().unwrap().display().to_string();
    rig.journal.push(outcome("result of 1"));
    disk.next(&[Fault::Sync]);
    assert!(matches!(
        rig.commit(2, b"refused"),
        Err(JournalError::Failing(_))
    ));
    assert!(!rig.journal.healthy());
    assert!(rig.journal.ready().is_err());
    let calls = disk.count(&failed, "write") + disk.count(&failed, "sync");
    // By itself, so that a server that takes no mail while it is unhealthy gets well again.
    rig.eventually("well again", || rig.journal.healthy());
    rig.commit(3, b"kept again").unwrap();
    assert_eq!(
        calls,
        disk.count(&failed, "write") + disk.count(&failed, "sync")
    );
    rig.journal.stop();
    let (found, replayed) = replayed(folder.path());
    assert_eq!(
        metas(&found),
        ["1", "result of 1", "3"],
        "what was refused is not there"
    );
    assert_eq!(replayed.damaged, 0);
}

#[test]
fn a_write_that_stops_half_way_on_a_full_disk_is_cut_and_answered_as_full() {
    let folder = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let (rig, _) = start(folder.path(), Arc::new(disk.clone()), SMALL);
    rig.commit(1, b"kept").unwrap();
    disk.next(&[Fault::ShortThenFull]);
    assert_eq!(rig.commit(2, &[b'x'; 3000]), Err(JournalError::Full));
    rig.commit(3, b"kept").unwrap();
    rig.journal.stop();
    let (found, replayed) = replayed(folder.path());
    assert_eq!(metas(&found), ["1", "3"]);
    assert_eq!(replayed.damaged, 0);
}

#[test]
fn a_disk_that_fails_again_and_again_takes_no_more_and_more_space() {
    let folder = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let (rig, _) = start(folder.path(), Arc::new(disk.clone()), SMALL);
    rig.commit(1, b"kept").unwrap();
    disk.next(&[Fault::Write; 20]);
    for id in 2..12 {
        assert!(rig.commit(id, b"refused").is_err());
    }
    assert!(logs(folder.path()).len() <= 2, "{:?}", logs(folder.path()));
    disk.heal();
    rig.commit(12, b"kept").unwrap();
    rig.journal.stop();
    assert_eq!(metas(&replayed(folder.path()).0), ["1", "12"]);
}

#[test]
fn on_a_full_disk_outcomes_are_written_and_messages_are_not_and_a_deleted_segment_ends_it() {
    let folder = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let (rig, _) = start(folder.path(), Arc::new(disk.clone()), SMALL);
    let first = rig.commit(1, &[b'x'; 40_000]).unwrap();
    disk.next(&[Fault::Allocate; 1000]);
    // The second segment takes the reserve, and no other can be made.
    let second = rig.commit(2, &[b'x'; 40_000]).unwrap();
    assert_eq!(rig.journal.ready(), Err(JournalError::Full));
    let full = || {
        rig.metrics
            .store_failures
            .with_label_values(&["full"])
            .get()
    };
    assert_eq!(full(), 1, "counted before anybody is refused");
    assert_eq!(rig.commit(3, b"refused"), Err(JournalError::Full));
    assert_eq!(full(), 2);
    rig.journal.push(outcome("result of 2"));
    rig.eventually("an outcome is written", || {
        metas(&replayed(folder.path()).0).contains(&"result of 2".to_owned())
    });
    rig.journal.done(1, false);
    assert!(rig.journal.release(first), "the first segment is dead");
    rig.journal.delete_dead().unwrap();
    rig.journal.refill().unwrap();
    assert_eq!(
        rig.journal.ready(),
        Ok(()),
        "the dead segment is the reserve now"
    );
    rig.commit(4, &[b'x'; 40_000]).unwrap();
    assert!(rig.journal.read_body(second).is_ok());
    rig.journal.stop();
    assert_eq!(metas(&replayed(folder.path()).0), ["2", "result of 2", "4"]);
}

#[test]
fn blocks_of_a_segment_that_are_used_again_bring_no_old_message_back() {
    let folder = tempfile::tempdir().unwrap();
    let (rig, _) = start(folder.path(), Arc::new(RealDisk), SMALL);
    for id in 0..40 {
        let location = rig.commit(id, &[b'x'; 20_000]).unwrap();
        rig.journal.done(id, false);
        rig.journal.release(location);
        rig.journal.delete_dead().unwrap();
    }
    assert!(rig.journal.disk_bytes() <= 3 * SMALL);
    rig.journal.stop();
    let (found, replayed) = replayed(folder.path());
    let done = |id: u64| {
        found.iter().any(|record| {
            record.kind == Kind::Done && record.meta.chunks(8).any(|own| own == id.to_le_bytes())
        })
    };
    for record in found.iter().filter(|record| record.kind == Kind::Message) {
        let id = String::from_utf8_lossy(&record.meta).parse().unwrap();
        assert!(done(id), "message {id} has come back");
    }
    assert_eq!(replayed.damaged, 0);
}

#[test]
fn a_restart_goes_on_in_the_same_segment() {
    let folder = tempfile::tempdir().unwrap();
    for id in 0..5 {
        let (rig, found) = start(folder.path(), Arc::new(RealDisk), SMALL);
        assert_eq!(found.len(), id);
        rig.commit(id as u64, b"kept").unwrap();
    }
    assert_eq!(logs(folder.path()).len(), 1);
}

#[test]
fn what_a_start_has_read_is_written_once_more_and_synced_before_anything_is_decided() {
    let folder = tempfile::tempdir().unwrap();
    let (rig, _) = start(folder.path(), Arc::new(RealDisk), SMALL);
    rig.commit(1, &[b'x'; 40_000]).unwrap();
    rig.commit(2, &[b'x'; 40_000]).unwrap();
    drop(rig);
    let disk = FaultyDisk::default();
    let (rig, found) = start(folder.path(), Arc::new(disk.clone()), SMALL);
    assert_eq!(metas(&found), ["1", "2"]);
    let calls = |log: &str, call| disk.count(log, call);
    // The second follows the first, which was on disk before it was begun.
    assert_eq!(
        (calls("00000001-", "write"), calls("00000001-", "sync")),
        (0, 0)
    );
    assert_eq!(
        (calls("00000002-", "write"), calls("00000002-", "sync")),
        (1, 1)
    );
    drop(rig);
    disk.next(&[Fault::Sync]);
    let opened = open(
        folder.path(),
        Arc::new(disk),
        SMALL,
        &Metrics::new().unwrap(),
        &mut |_| Ok(()),
    );
    assert!(matches!(opened.unwrap_err(), JournalError::Failing(why) if why.contains("once more")));
}

#[test]
fn a_new_folder_has_its_name_synced_in_those_above_it() {
    let folder = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let (rig, _) = start(
        &folder.path().join("data/spool"),
        Arc::new(disk.clone()),
        SMALL,
    );
    let name = folder.path().display().to_string();
    let synced: Vec<String> = disk
        .log()
        .into_iter()
        .filter(|(_, call)| *call == "folder")
        .map(|(path, _)| path)
        .collect();
    for above in ["", "/data", "/data/spool"] {
        assert!(synced.contains(&format!("{name}{above}")), "{synced:?}");
    }
    drop(rig);
}

#[test]
fn a_segment_that_cannot_be_opened_keeps_no_space() {
    for fault in [Fault::Open, Fault::RenameDone] {
        let folder = tempfile::tempdir().unwrap();
        let disk = FaultyDisk::default();
        let (rig, _) = start(folder.path(), Arc::new(disk.clone()), SMALL);
        rig.commit(1, &[b'x'; 40_000]).unwrap();
        disk.next(&[fault; 10]);
        for id in 2..12 {
            assert!(rig.commit(id, &[b'x'; 40_000]).is_err());
        }
        assert_eq!(logs(folder.path()).len(), 1, "{fault:?}");
        rig.commit(12, &[b'x'; 40_000]).unwrap();
        rig.journal.stop();
        assert_eq!(metas(&replayed(folder.path()).0), ["1", "12"]);
    }
}

#[test]
fn a_failed_sync_of_the_folder_does_not_end_the_giving_back_of_space() {
    let folder = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let (rig, _) = start(folder.path(), Arc::new(disk.clone()), SMALL);
    let first = rig.commit(1, &[b'x'; 40_000]).unwrap();
    rig.commit(2, &[b'x'; 40_000]).unwrap();
    rig.journal.done(1, false);
    assert!(rig.journal.release(first));
    disk.next(&[Fault::Folder]);
    assert!(rig.journal.delete_dead().is_err());
    rig.journal.delete_dead().unwrap();
    assert_eq!(logs(folder.path()).len(), 1);
    rig.commit(3, &[b'x'; 40_000]).unwrap();
    rig.journal.stop();
}

#[test]
fn a_damaged_record_in_the_middle_is_passed_over_counted_and_kept_aside() {
    for sealed in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let (rig, _) = start(folder.path(), Arc::new(RealDisk), SMALL);
        let locations: Vec<_> = (1..=3)
            .map(|id| rig.commit(id, &[b'x'; 500]).unwrap())
            .collect();
        if sealed {
            rig.commit(4, &[b'y'; 64_500]).unwrap();
        }
        rig.journal.stop();
        let path = logs(folder.path()).remove(0);
        let mut octets = std::fs::read(&path).unwrap();
        // Its meta: the digit "2".
        octets[locations[1].offset as usize + 36] ^= 1;
        std::fs::write(&path, &octets).unwrap();
        let (found, replayed) = replayed(folder.path());
        let rest = if sealed {
            &["1", "3", "4"][..]
        } else {
            &["1", "3"]
        };
        assert_eq!(metas(&found), rest);
        assert_eq!(replayed.damaged, 1);
        let mut aside = std::fs::read_dir(folder.path().join("damaged")).unwrap();
        let kept = aside.next().unwrap().unwrap().path();
        assert_eq!(
            std::fs::metadata(kept).unwrap().len(),
            locations[1].octets()
        );
        // The segment is not written on, and the damage is still there for a person to see.
        let (rig, _) = start(folder.path(), Arc::new(RealDisk), SMALL);
        rig.commit(9, b"goes on").unwrap();
        assert_eq!(logs(folder.path()).len(), 2);
    }
}

/// A power cut leaves a body torn between whole records. The segment is the last one no more as soon as the journal goes on, and
/// its bodies are not looked at again.
#[test]
fn what_was_torn_in_the_last_segment_stays_away_at_every_later_start() {
    let folder = tempfile::tempdir().unwrap();
    let (rig, _) = start(folder.path(), Arc::new(RealDisk), SMALL);
    let locations: Vec<_> = (1..=5)
        .map(|id| rig.commit(id, &[b'x'; 500]).unwrap())
        .collect();
    rig.journal.stop();
    let path = logs(folder.path()).remove(0);
    let mut octets = std::fs::read(&path).unwrap();
    for torn in [1, 3] {
        let behind = (locations[torn].offset as u64 + locations[torn].octets()) as usize;
        octets[behind - 1] ^= 1;
    }
    std::fs::write(&path, &octets).unwrap();
    for (round, rest) in [
        &["1", "3", "5"][..],
        &["1", "3", "5", "10"],
        &["1", "3", "5", "10", "11"],
    ]
    .into_iter()
    .enumerate()
    {
        let (found, replayed) = replayed(folder.path());
        assert_eq!(
            (metas(&found).as_slice(), replayed.damaged),
            (
                &rest.iter().map(ToString::to_string).collect::<Vec<_>>()[..],
                2
            )
        );
        let (rig, _) = start(folder.path(), Arc::new(RealDisk), SMALL);
        rig.commit(10 + round as u64, b"goes on").unwrap();
        rig.journal.stop();
    }
    assert_eq!(
        std::fs::read_dir(folder.path().join("damaged"))
            .unwrap()
            .count(),
        2
    );
}

#[test]
fn the_end_of_a_segment_that_another_follows_is_known_and_its_loss_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let (rig, _) = start(folder.path(), Arc::new(RealDisk), SMALL);
    rig.commit(1, &[b'x'; 500]).unwrap();
    let last = rig.commit(2, &[b'x'; 500]).unwrap();
    rig.commit(3, &[b'y'; 64_500]).unwrap();
    rig.journal.stop();
    let path = logs(folder.path()).remove(0);
    let whole = std::fs::read(&path).unwrap();
    let mut zeroed = whole.clone();
    zeroed[last.offset as usize..].fill(0);
    for octets in [&zeroed[..], &whole[..last.offset as usize]] {
        std::fs::write(&path, octets).unwrap();
        let (found, replayed) = replayed(folder.path());
        assert_eq!(metas(&found), ["1", "3"]);
        assert_eq!(replayed.damaged, 1, "an acknowledged record is missing");
    }
}

#[test]
fn a_body_that_looks_like_a_record_is_never_taken_for_one() {
    let folder = tempfile::tempdir().unwrap();
    let (rig, _) = start(folder.path(), Arc::new(RealDisk), SMALL);
    // The best that a sender can do: a record in every detail, but for the salt that is not known outside.
    let mut forged = Vec::new();
    segment::write_head(
        &mut forged,
        0x1234_5678_9abc_def0,
        Kind::Message,
        99,
        b"forged",
        b"",
    );
    let location = rig.commit(1, &forged).unwrap();
    rig.commit(2, b"kept").unwrap();
    rig.journal.stop();
    let path = logs(folder.path()).remove(0);
    let mut octets = std::fs::read(&path).unwrap();
    octets[location.offset as usize + 36] ^= 1;
    std::fs::write(&path, &octets).unwrap();
    assert_eq!(metas(&replayed(folder.path()).0), ["2"]);
}

#[test]
fn a_record_of_an_unknown_kind_stops_the_start_and_is_not_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let (rig, _) = start(folder.path(), Arc::new(RealDisk), SMALL);
    let location = rig.commit(1, b"").unwrap();
    rig.journal.stop();
    let path = logs(folder.path()).remove(0);
    let mut octets = std::fs::read(&path).unwrap();
    let at = location.offset as usize;
    octets[at + 9] = 77;
    let mut crc = crc32fast::Hasher::new();
    crc.update(&octets[at..at + 32]);
    crc.update(b"1");
    octets[at + 32..at + 36].copy_from_slice(&crc.finalize().to_le_bytes());
    std::fs::write(&path, &octets).unwrap();
    let metrics = Metrics::new().unwrap();
    let opened = open(
        folder.path(),
        Arc::new(RealDisk),
        SMALL,
        &metrics,
        &mut |_| Ok(()),
    );
    assert!(
        matches!(opened.unwrap_err(), JournalError::Failing(why) if why.contains("newer version"))
    );
}

/// A journal of several segments with the positions where its records end.
fn sample(folder: &Path, bodies: &[usize]) -> Vec<Location> {
    let (rig, _) = start(folder, Arc::new(RealDisk), SMALL);
    let body = vec![b'b'; 30_000];
    let locations = bodies
        .iter()
        .enumerate()
        .map(|(id, size)| rig.commit(id as u64, &body[..*size]).unwrap());
    let locations = locations.collect();
    rig.journal.stop();
    locations
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// What kill -9 or a power cut leaves: the last segment up to some octet; behind it nothing, zeros, or rubbish.
    #[test]
    fn any_prefix_replays_to_exactly_the_records_that_are_whole(
        bodies in proptest::collection::vec(0usize..30_000, 1..12),
        cut in 0.0f64..=1.0,
        tail in 0u8..3,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let locations = sample(folder.path(), &bodies);
        let path = logs(folder.path()).pop().unwrap();
        let last = locations.iter().map(|location| location.segment).max().unwrap();
        let end = locations.iter().filter(|location| location.segment == last).map(|location| u64::from(location.offset) + location.octets()).max().unwrap();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a place in a small file")]
        let cut = (cut * end as f64) as usize;
        let mut octets = std::fs::read(&path).unwrap();
        match tail {
            0 => octets.truncate(cut),
            1 => octets[cut..].fill(0),
            _ => octets[cut..].iter_mut().enumerate().for_each(|(at, octet)| *octet = (at * 31 % 251) as u8 | 1),
        }
        std::fs::write(&path, &octets).unwrap();
        let whole = |location: &Location| location.segment < last || u64::from(location.offset) + location.octets() <= cut as u64;
        let expected: Vec<String> = locations.iter().enumerate().filter(|(_, location)| whole(location)).map(|(id, _)| id.to_string()).collect();
        let (found, read) = replayed(folder.path());
        prop_assert_eq!(metas(&found), expected.clone());
        prop_assert_eq!(read.damaged, 0);
        // And it goes on from there: what comes next is found beside the rest.
        let (rig, _) = start(folder.path(), Arc::new(RealDisk), SMALL);
        rig.commit(77, b"after the cut").unwrap();
        rig.journal.stop();
        let (found, _) = replayed(folder.path());
        prop_assert_eq!(metas(&found), expected.into_iter().chain(std::iter::once("77".to_owned())).collect::<Vec<_>>());
    }

    #[test]
    fn any_flipped_octet_costs_at_most_the_record_it_lies_in(
        bodies in proptest::collection::vec(0usize..30_000, 2..10),
        place in 0.0f64..1.0,
        which in 0usize..10,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let locations = sample(folder.path(), &bodies);
        let hit = which % locations.len();
        let location = locations[hit];
        let path = logs(folder.path()).into_iter().find(|path| path.file_name().unwrap().to_str().unwrap().starts_with(&format!("{:08}-", location.segment))).unwrap();
        let mut octets = std::fs::read(&path).unwrap();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a place in a small file")]
        let at = location.offset as usize + (place * location.octets() as f64) as usize;
        octets[at] ^= 0x10;
        std::fs::write(&path, &octets).unwrap();
        let (found, _) = replayed(folder.path());
        let found = metas(&found);
        for id in (0..locations.len()).filter(|id| *id != hit) {
            prop_assert!(found.contains(&id.to_string()), "{} is gone, {} was hit", id, hit);
        }
        // In a segment that another follows bodies are skipped: there the damage shows when the body is read.
        if found.contains(&hit.to_string()) {
            let (rig, _) = start(folder.path(), Arc::new(RealDisk), SMALL);
            prop_assert_eq!(rig.journal.read_body(location), Err(JournalError::Corrupt));
        }
    }
}
