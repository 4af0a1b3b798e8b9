//! What lies on disk: records, and a journal of any octets.

use super::world::scratch;
use gatepost::journal::disk::RealDisk;
use gatepost::journal::{self, Found, Kind, SEGMENT};
use gatepost::metrics::Metrics;
use gatepost::spool::records;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

/// The description of a record. What reads as a message is written again as the same message, and what start-up reads of
/// it agrees; an error never shows what a stranger wrote.
pub fn record(meta: &[u8]) {
    match records::message(meta) {
        Ok(Some(message)) => {
            let written = records::written(&message).expect("it can be written");
            let again = records::message(&written)
                .expect("and read")
                .expect("whole");
            assert_eq!(again, message);
            assert_eq!(records::written(&again).expect("the same"), written);
        }
        Ok(None) => {}
        Err(error) => {
            let text = error.to_string();
            assert!(text.is_ascii() && text.len() < 200, "{text}");
        }
    }
    if let Ok(written) = records::state(meta) {
        assert_eq!(records::state(&written).as_ref(), Ok(&written));
    }
}

const HEAD: usize = 36;
const SALT: u64 = 0x5a17_5a17_0bad_f00d;

/// A record as `journal/segment.rs` says it is written.
fn sealed(kind: u8, sequence: u64, meta: &[u8], body: &[u8]) -> Vec<u8> {
    let mut out = SALT.to_le_bytes().to_vec();
    out.extend([1, kind, 0, 0]);
    out.extend((meta.len() as u32).to_le_bytes());
    out.extend((body.len() as u32).to_le_bytes());
    out.extend(crc32fast::hash(body).to_le_bytes());
    out.extend(sequence.to_le_bytes());
    let crc = crc32fast::hash(&[&out, meta].concat());
    out.extend(crc.to_le_bytes());
    out.extend_from_slice(meta);
    out.extend_from_slice(body);
    out
}

struct Record {
    kind: u8,
    meta: Vec<u8>,
    end: usize,
}

/// The first octet says what becomes of the segment: 0 the rest is the segment as it is; else the rest is lines, each one
/// record (its first letter M a message, S a state, D done; `|` divides description and body), sealed as the journal
/// would, and then: 1 nothing, 2 cut at a point, 3 an octet changed, 4 followed by a torn record, 5 cut and followed by a
/// segment that says how far this one went.
pub fn journal(octets: &[u8]) {
    let [what, at, script @ ..] = octets else {
        return;
    };
    if what % 6 == 0 {
        let (found, _) = open(&[(1, script)], &[]);
        drop(found.map(|found| records::replayed(&found)));
        return;
    }
    let mut segment = Vec::new();
    let mut written = Vec::new();
    for (number, line) in script.split(|octet| *octet == b'\n').enumerate() {
        let Some((kind, rest)) = line.split_first() else {
            continue;
        };
        let kind = match kind {
            b'M' => 2,
            b'S' => 3,
            b'D' => 4,
            _ => continue,
        };
        let mut halves = rest.splitn(2, |octet| *octet == b'|');
        let meta = halves.next().unwrap_or_default();
        let body = halves.next().unwrap_or_default();
        segment.extend(sealed(kind, number as u64 + 1, meta, body));
        written.push(Record {
            kind,
            meta: meta.to_vec(),
            end: segment.len(),
        });
    }
    // Who writes mail cannot know the salt: a record within a record, also where description and body meet or an octet is
    // changed, is no case for what follows.
    let records = written.len();
    let has_more = |segment: &[u8], torn: usize| {
        let salts = segment.windows(8);
        let salts = salts.filter(|octets| *octets == SALT.to_le_bytes());
        salts.count() > records + torn
    };
    if has_more(&segment, 0) {
        return;
    }
    let point = segment.len() * usize::from(*at) / 256;
    let whole = segment.len();
    let mut survive = written.len();
    let mut next = Vec::new();
    match what % 6 {
        1 => {}
        2 => {
            // What is cut off counts as written where it is zeros, like those behind the end.
            let zeros = |end: usize| segment[point.min(end)..end].iter().all(|octet| *octet == 0);
            survive = written.iter().filter(|record| zeros(record.end)).count();
            segment.truncate(point);
        }
        3 if !segment.is_empty() => segment[point.min(whole - 1)] ^= 0x20,
        4 => {
            let torn = sealed(2, 1000, b"{}", b"body");
            segment.extend(&torn[..usize::from(*at) % torn.len()]);
        }
        5 => {
            segment.truncate(point);
            survive = written.iter().filter(|record| record.end <= point).count();
            let start = format!("{{\"previous\":1,\"previous_end\":{whole}}}");
            next = sealed(1, 2000, start.as_bytes(), b"");
        }
        _ => {}
    }
    if has_more(&segment, usize::from(what % 6 == 4)) {
        return;
    }
    // A segment is allocated in full: behind its end are zeros.
    if what % 6 != 5 {
        segment.resize(whole + 200, 0);
    }
    let segments: Vec<(u32, &[u8])> = if next.is_empty() {
        vec![(1, &segment)]
    } else {
        vec![(1, &segment), (2, &next)]
    };
    let (found, is_whole) = open(&segments, &written);
    let found = found.expect("nothing here is of a newer version");
    let same = |(found, record): (&Found, &Record)| {
        found.meta == record.meta && code(found.kind) == record.kind
    };
    if what % 6 == 3 {
        // One is damaged, all others are there, in order.
        assert!(found.len() + 1 >= written.len() && found.len() <= written.len());
        let mut rest = written.iter();
        for one in &found {
            assert!(
                rest.any(|record| same((one, record))),
                "nothing is invented"
            );
        }
    } else {
        assert_eq!(found.len(), survive, "every whole record, and no other");
        assert!(found.iter().zip(&written).all(same));
        assert_eq!(
            is_whole,
            what % 6 != 5 || survive == written.len(),
            "a loss is noticed"
        );
    }
    drop(records::replayed(&found));
}

fn code(kind: Kind) -> u8 {
    match kind {
        Kind::Start => 1,
        Kind::Message => 2,
        Kind::State => 3,
        Kind::Done => 4,
    }
}

/// Opens a journal of these segments: its records, and whether nothing of it was lost.
fn open(segments: &[(u32, &[u8])], _: &[Record]) -> (Result<Vec<Found>, String>, bool) {
    static FOLDER: OnceLock<(PathBuf, Metrics)> = OnceLock::new();
    let (root, metrics) = FOLDER.get_or_init(|| (scratch(), Metrics::new().expect("metrics")));
    // Threads of one process have a folder each.
    let thread = format!("{:?}", std::thread::current().id());
    let folder = root.join(thread.replace(|c: char| !c.is_ascii_alphanumeric(), ""));
    let _gone = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).expect("a folder");
    for (number, octets) in segments {
        let name = format!("{number:08}-{SALT:016x}.v1.log");
        std::fs::write(folder.join(name), octets).expect("a segment");
    }
    let mut found = Vec::new();
    let opened = journal::open(
        &folder,
        Arc::new(RealDisk),
        SEGMENT,
        metrics,
        &mut |record| {
            assert!(record.location.octets() >= (HEAD + record.meta.len()) as u64);
            found.push(record);
            Ok(())
        },
    );
    match opened {
        Ok(opened) => (Ok(found), opened.is_whole()),
        Err(error) => (Err(error.to_string()), false),
    }
}
