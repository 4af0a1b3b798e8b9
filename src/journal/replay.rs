//! What is on disk after a stop, a kill or a power cut?
//!
//! Heads and metas are read, bodies are skipped. A segment that another one follows is good as far as that one's first
//! record says. In the last one the end is not known: bodies are checked too, and what is torn there was never
//! acknowledged and is cut. A damaged record in the middle is passed over, counted, and its bytes are kept aside; it never
//! stops the rest.

use super::committer::Start;
use super::segment::{HEAD, Head, Kind, Location, Name, newer};
use super::{JournalError, disk};
use crate::metrics::Metrics;
use memchr::memmem::Finder;
use std::collections::HashMap;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// A record that was read.
#[derive(Clone, Debug)]
pub struct Found {
    /// What it is about.
    pub kind: Kind,
    /// Where it lies.
    pub location: Location,
    /// Its description.
    pub meta: Vec<u8>,
}

#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub(super) name: Name,
    pub(super) end: u64,
    /// Nothing torn or damaged: may be written on.
    pub(super) clean: bool,
    /// Another one follows, which was begun when this one was on disk so far.
    pub(super) vouched: bool,
    /// What could not be read up to the end, from and to.
    pub(super) damaged: Vec<(u64, u64)>,
}

#[derive(Debug)]
pub(super) struct Replayed {
    /// In order.
    pub(super) segments: Vec<Segment>,
    pub(super) last_sequence: u64,
    /// Pieces that could not be read.
    pub(super) damaged: usize,
}

type Each<'a> = &'a mut dyn FnMut(Found) -> Result<(), JournalError>;

/// Reads the whole journal.
pub(super) fn replay(
    directory: &Path,
    metrics: &Metrics,
    each: Each<'_>,
) -> Result<Replayed, JournalError> {
    let names = segments(directory)?;
    let mut ends = HashMap::new();
    for name in &names {
        let follows = follows(&open(directory, *name)?, *name);
        if let Some(start) = follows.map_err(|error| within(directory, *name, error))?
            && let Some(number) = start.previous
        {
            ends.insert(number, start);
        }
    }
    let mut replayed = Replayed {
        segments: Vec::new(),
        last_sequence: 0,
        damaged: 0,
    };
    for name in names {
        let file = open(directory, name)?;
        let next = ends.get(&name.number);
        let known = next.map(|next| (next.previous_end, next.previous_damaged.as_slice()));
        let scanned = scan(&file, name, known, known.is_none(), each)
            .map_err(|error| within(directory, name, error))?;
        // Told when they were found.
        replayed.damaged += known.map_or(0, |(_, damaged)| damaged.len());
        for range in &scanned.damaged {
            replayed.damaged += 1;
            metrics.store_failures.with_label_values(&["replay"]).inc();
            keep_aside(directory, &file, name, range);
        }
        replayed.last_sequence = replayed.last_sequence.max(scanned.last_sequence);
        let clean = !scanned.torn && scanned.damaged.is_empty();
        replayed.segments.push(Segment {
            name,
            end: scanned.end,
            clean,
            vouched: known.is_some(),
            damaged: (scanned.damaged.iter())
                .map(|range| (range.start, range.end))
                .collect(),
        });
    }
    Ok(replayed)
}

/// Says in which file: whoever has to look at it, or to start a newer version, must not search.
fn within(directory: &Path, name: Name, error: JournalError) -> JournalError {
    match error {
        JournalError::Failing(why) => {
            JournalError::Failing(format!("{}: {why}", name.path(directory).display()))
        }
        other @ (JournalError::Full
        | JournalError::Locked
        | JournalError::Closed
        | JournalError::Corrupt) => other,
    }
}

fn segments(directory: &Path) -> Result<Vec<Name>, JournalError> {
    let failed = |error: std::io::Error| {
        JournalError::of(&format!("reading {}", directory.display()), &error)
    };
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let file = entry.map_err(failed)?.file_name();
        names.extend(file.to_str().map(Name::parse).transpose()?.flatten());
    }
    names.sort_unstable();
    Ok(names)
}

fn open(directory: &Path, name: Name) -> Result<File, JournalError> {
    let path = name.path(directory);
    File::open(&path)
        .map_err(|error| JournalError::of(&format!("opening {}", path.display()), &error))
}

/// Which segment this one follows and how far that one holds: what its first record says.
fn follows(file: &File, name: Name) -> Result<Option<Start>, JournalError> {
    let mut window = Window::new(file)?;
    let Some(record) = window.record(name, 0, true)? else {
        return Ok(None);
    };
    if record.kind != Kind::Start {
        return Ok(None);
    }
    let start: Start = serde_json::from_slice(&record.meta).map_err(|error| {
        newer(&format!(
            "the first record of segment {}: {error}",
            name.number
        ))
    })?;
    Ok(Some(start))
}

/// For a person to look at; that it fails too must not stop the rest.
fn keep_aside(directory: &Path, file: &File, name: Name, range: &Range<u64>) {
    let aside = directory.join("damaged");
    let path = aside.join(format!("{:08}-{}.bin", name.number, range.start));
    let whole = file.metadata().map_or(range.end, |file| file.len());
    let length =
        usize::try_from(range.end.min(whole).saturating_sub(range.start)).unwrap_or_default();
    let mut octets = vec![0; length];
    let kept = file
        .read_exact_at(&mut octets, range.start)
        .map_err(|error| JournalError::of("reading damaged octets", &error))
        .and_then(|()| disk::make_directory(&disk::RealDisk, &aside))
        .and_then(|()| write_private(&path, &octets));
    match kept {
        Ok(()) => {
            tracing::error!(segment = name.number, offset = range.start, octets = length, kept = %path.display(),
            "damaged octets in the journal: a message may be missing, the rest goes on")
        }
        Err(error) => {
            tracing::error!(segment = name.number, offset = range.start, octets = length, %error,
            "damaged octets in the journal, which could not be kept aside")
        }
    }
}

fn write_private(path: &Path, octets: &[u8]) -> Result<(), JournalError> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(octets))
        .map_err(|error| JournalError::of(&format!("writing {}", path.display()), &error))
}

pub(super) struct Scanned {
    pub(super) end: u64,
    pub(super) torn: bool,
    pub(super) damaged: Vec<Range<u64>>,
    pub(super) last_sequence: u64,
}

/// Hands every record of a segment to `each`; where its end is known, up to there, and not what is known to be damaged
/// before it.
pub(super) fn scan(
    file: &File,
    name: Name,
    known: Option<(u64, &[(u64, u64)])>,
    check_bodies: bool,
    each: Each<'_>,
) -> Result<Scanned, JournalError> {
    let mut window = Window::new(file)?;
    let (known, damaged) = known.map_or((None, &[][..]), |(end, damaged)| (Some(end), damaged));
    let mut damaged = damaged.iter().peekable();
    let limit = known.map_or(window.length, |end| end.min(window.length));
    let mut scanned = Scanned {
        end: 0,
        torn: false,
        damaged: Vec::new(),
        last_sequence: 0,
    };
    let mut offset = 0;
    while offset < limit {
        while damaged.next_if(|(_, end)| *end <= offset).is_some() {}
        if let Some((_, end)) = damaged.next_if(|(start, _)| *start <= offset) {
            offset = *end;
            continue;
        }
        if let Some(record) = window.record(name, offset, check_bodies)? {
            offset += record.location.octets();
            scanned.end = offset;
            scanned.last_sequence = scanned.last_sequence.max(window.sequence);
            if record.kind != Kind::Start {
                each(record)?;
            }
            continue;
        }
        match window.next_record(name, offset + 1, limit, check_bodies)? {
            Some(next) => {
                scanned.damaged.push(offset..next);
                offset = next;
            }
            None => {
                scanned.torn = window
                    .at(offset, 8)?
                    .is_some_and(|octets| octets == name.salt.to_le_bytes());
                break;
            }
        }
    }
    // Where the end is known, the records of a segment reach it.
    if let Some(known) = known.filter(|known| scanned.end < *known) {
        scanned.damaged.push(scanned.end..known);
    }
    Ok(scanned)
}

/// A file read forwards in pieces.
struct Window<'a> {
    file: &'a File,
    length: u64,
    start: u64,
    octets: Vec<u8>,
    /// Of the last record.
    sequence: u64,
}

const PIECE: usize = 256 * 1024;

impl<'a> Window<'a> {
    fn new(file: &'a File) -> Result<Self, JournalError> {
        let length = file
            .metadata()
            .map_err(|error| JournalError::of("reading the journal", &error))?
            .len();
        Ok(Self {
            file,
            length,
            start: 0,
            octets: Vec::new(),
            sequence: 0,
        })
    }

    /// `length` octets at `offset`; `None` behind the end of the file.
    fn at(&mut self, offset: u64, length: usize) -> Result<Option<&[u8]>, JournalError> {
        let end = offset + length as u64;
        if end > self.length {
            return Ok(None);
        }
        if offset < self.start || end > self.start + self.octets.len() as u64 {
            let take = (self.length - offset).min(length.max(PIECE) as u64);
            self.octets
                .resize(usize::try_from(take).unwrap_or(PIECE), 0);
            self.start = offset;
            self.file
                .read_exact_at(&mut self.octets, offset)
                .map_err(|error| JournalError::of("reading the journal", &error))?;
        }
        let from = usize::try_from(offset - self.start).unwrap_or_default();
        Ok(self.octets.get(from..from + length))
    }

    fn record(
        &mut self,
        name: Name,
        offset: u64,
        check_body: bool,
    ) -> Result<Option<Found>, JournalError> {
        let Some(octets) = self
            .at(offset, HEAD)?
            .and_then(|octets| <[u8; HEAD]>::try_from(octets).ok())
        else {
            return Ok(None);
        };
        let Some(head) = Head::parse(&octets, name.salt) else {
            return Ok(None);
        };
        if offset + head.octets() > self.length {
            return Ok(None);
        }
        let Some(meta) = self.at(offset + HEAD as u64, head.meta as usize)? else {
            return Ok(None);
        };
        if !head.fits(&octets, meta) {
            return Ok(None);
        }
        let meta = meta.to_vec();
        let kind = match Kind::of(head.kind) {
            Some(kind) if head.version == super::segment::VERSION => kind,
            _ => {
                return Err(newer(&format!(
                    "record kind {} of format {}",
                    head.kind, head.version
                )));
            }
        };
        if check_body && head.body > 0 {
            let body = self.at(
                offset + HEAD as u64 + u64::from(head.meta),
                head.body as usize,
            )?;
            if body.is_none_or(|body| crc32fast::hash(body) != head.body_crc) {
                return Ok(None);
            }
        }
        self.sequence = head.sequence;
        let location = Location {
            segment: name.number,
            offset: u32::try_from(offset).unwrap_or(u32::MAX),
            meta: head.meta,
            body: head.body,
        };
        Ok(Some(Found {
            kind,
            location,
            meta,
        }))
    }

    /// Where the next whole record begins, from `from`: found by the salt, which nobody outside knows.
    fn next_record(
        &mut self,
        name: Name,
        from: u64,
        limit: u64,
        check: bool,
    ) -> Result<Option<u64>, JournalError> {
        let salt = name.salt.to_le_bytes();
        let finder = Finder::new(&salt);
        let mut offset = from;
        while offset + HEAD as u64 <= limit {
            let take = usize::try_from(limit - offset).unwrap_or(PIECE).min(PIECE);
            let found = self
                .at(offset, take)?
                .and_then(|octets| finder.find(octets));
            match found {
                Some(position) => {
                    let candidate = offset + position as u64;
                    if self.record(name, candidate, check)?.is_some() {
                        return Ok(Some(candidate));
                    }
                    offset = candidate + 1;
                }
                None => offset += (take - (salt.len() - 1)) as u64,
            }
        }
        Ok(None)
    }
}
