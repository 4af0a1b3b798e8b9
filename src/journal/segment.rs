//! What does a record look like, and where is it?
//!
//! ```text
//!  head, 36 octets, little endian
//!  0   salt      u64   of the segment: unknown to whoever sends mail
//!  8   version   u8    1
//!  9   kind      u8
//!  10  zero      u16
//!  12  meta      u32   octets of meta
//!  16  body      u32   octets of body
//!  20  body crc  u32
//!  24  sequence  u64   grows over all segments
//!  32  head crc  u32   over the 32 octets before it and meta
//!  36  meta, then body
//! ```
//!
//! Meta has its checksum with the head and the body one of its own, so that start-up reads heads and skips bodies.

use super::{JournalError, locked};
use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

pub(super) const HEAD: usize = 36;
pub(super) const VERSION: u8 = 1;

/// What a record is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The first of a segment: which segment it follows, and how far that one is good.
    Start,
    /// A message, with what is left to do where that is not everything.
    Message,
    /// What is left to do for a message.
    State,
    /// Ids of messages that are done, eight octets each.
    Done,
}

impl Kind {
    pub(super) fn code(self) -> u8 {
        match self {
            Self::Start => 1,
            Self::Message => 2,
            Self::State => 3,
            Self::Done => 4,
        }
    }

    pub(super) fn of(code: u8) -> Option<Self> {
        [Self::Start, Self::Message, Self::State, Self::Done]
            .into_iter()
            .find(|kind| kind.code() == code)
    }
}

/// Where a record lies: 16 octets, kept in memory for each queued message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(test, derive(Default))]
pub struct Location {
    pub(super) segment: u32,
    pub(super) offset: u32,
    pub(super) meta: u32,
    pub(super) body: u32,
}

impl Location {
    /// Octets of the body.
    #[must_use]
    pub fn body_octets(&self) -> usize {
        self.body as usize
    }

    /// Octets of the whole record.
    #[must_use]
    pub fn octets(&self) -> u64 {
        HEAD as u64 + u64::from(self.meta) + u64::from(self.body)
    }
}

/// A segment's number and salt: its file name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name {
    pub(super) number: u32,
    pub(super) salt: u64,
}

impl Name {
    pub(super) fn path(&self, directory: &Path) -> PathBuf {
        directory.join(format!(
            "{:08}-{:016x}.v{VERSION}.log",
            self.number, self.salt
        ))
    }

    /// Reads a file name; `Ok(None)` where it is no segment.
    pub(super) fn parse(file: &str) -> Result<Option<Self>, JournalError> {
        let Some((number, rest)) = file.split_once('-') else {
            return Ok(None);
        };
        let Some((salt, rest)) = rest.split_once(".v") else {
            return Ok(None);
        };
        let Some(version) = rest.strip_suffix(".log") else {
            return Ok(None);
        };
        let (Ok(number), Ok(salt), Ok(version)) = (
            number.parse(),
            u64::from_str_radix(salt, 16),
            version.parse::<u32>(),
        ) else {
            return Ok(None);
        };
        if version > u32::from(VERSION) {
            return Err(newer(&format!("{file} has format {version}")));
        }
        Ok(Some(Self { number, salt }))
    }
}

/// Mail must not be passed over because an older program does not know how it is written.
pub(super) fn newer(what: &str) -> JournalError {
    JournalError::Failing(format!(
        "the journal was written by a newer version of gatepost ({what}): start that one"
    ))
}

/// A head that was read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    pub(super) version: u8,
    pub(super) kind: u8,
    pub(super) meta: u32,
    pub(super) body: u32,
    pub(super) body_crc: u32,
    pub(super) sequence: u64,
    crc: u32,
}

fn field<const N: usize>(octets: &[u8; HEAD], at: usize) -> [u8; N] {
    octets
        .get(at..at + N)
        .and_then(|slice| slice.try_into().ok())
        .unwrap_or([0; N])
}

impl Head {
    /// Reads a head; `None` where the salt is not there. The checksum is for [`Head::fits`].
    pub(super) fn parse(octets: &[u8; HEAD], salt: u64) -> Option<Self> {
        if u64::from_le_bytes(field(octets, 0)) != salt {
            return None;
        }
        Some(Self {
            version: u8::from_le_bytes(field(octets, 8)),
            kind: u8::from_le_bytes(field(octets, 9)),
            meta: u32::from_le_bytes(field(octets, 12)),
            body: u32::from_le_bytes(field(octets, 16)),
            body_crc: u32::from_le_bytes(field(octets, 20)),
            sequence: u64::from_le_bytes(field(octets, 24)),
            crc: u32::from_le_bytes(field(octets, 32)),
        })
    }

    /// Whether the checksum covers these octets and this meta.
    pub(super) fn fits(&self, octets: &[u8; HEAD], meta: &[u8]) -> bool {
        let mut crc = crc32fast::Hasher::new();
        crc.update(octets.get(..32).unwrap_or_default());
        crc.update(meta);
        crc.finalize() == self.crc
    }

    pub(super) fn octets(&self) -> u64 {
        HEAD as u64 + u64::from(self.meta) + u64::from(self.body)
    }
}

/// Appends head and meta of a record to `out`; the body follows in the file, from where it is.
pub(super) fn write_head(
    out: &mut Vec<u8>,
    salt: u64,
    kind: Kind,
    sequence: u64,
    meta: &[u8],
    body: &[u8],
) {
    let start = out.len();
    out.extend_from_slice(&salt.to_le_bytes());
    out.extend_from_slice(&[VERSION, kind.code(), 0, 0]);
    out.extend_from_slice(&u32::try_from(meta.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(&u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(&crc32fast::hash(body).to_le_bytes());
    out.extend_from_slice(&sequence.to_le_bytes());
    let mut crc = crc32fast::Hasher::new();
    crc.update(out.get(start..).unwrap_or_default());
    crc.update(meta);
    out.extend_from_slice(&crc.finalize().to_le_bytes());
    out.extend_from_slice(meta);
}

/// Open segment files for reading, at most [`OPEN_FILES`] of them: a long queue has more segments than a process may
/// have files.
#[derive(Debug)]
pub(super) struct Readers(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    paths: HashMap<u32, (Name, PathBuf)>,
    open: HashMap<u32, Arc<File>>,
}

const OPEN_FILES: usize = 64;

impl Readers {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Table::default()))
    }

    pub(super) fn add(&self, name: Name, directory: &Path) {
        locked(&self.0)
            .paths
            .insert(name.number, (name, name.path(directory)));
    }

    pub(super) fn forget(&self, number: u32) {
        let mut table = locked(&self.0);
        table.paths.remove(&number);
        table.open.remove(&number);
    }

    fn file(&self, number: u32) -> Result<(Name, Arc<File>), JournalError> {
        let (name, path) = {
            let table = locked(&self.0);
            let Some((name, path)) = table.paths.get(&number) else {
                return Err(JournalError::Corrupt);
            };
            if let Some(file) = table.open.get(&number) {
                return Ok((*name, Arc::clone(file)));
            }
            (*name, path.clone())
        };
        let file = File::open(&path)
            .map_err(|error| JournalError::of(&format!("opening {}", path.display()), &error))?;
        let file = Arc::new(file);
        let mut table = locked(&self.0);
        if table.open.len() >= OPEN_FILES {
            let oldest = table.open.keys().min().copied();
            oldest.map(|number| table.open.remove(&number));
        }
        table.open.insert(number, Arc::clone(&file));
        Ok((name, file))
    }

    fn head(&self, location: Location) -> Result<(Head, Vec<u8>, Arc<File>), JournalError> {
        let (name, file) = self.file(location.segment)?;
        let mut octets = vec![0; HEAD + location.meta as usize];
        read(&file, &mut octets, u64::from(location.offset))?;
        let meta = octets.split_off(HEAD);
        let octets: [u8; HEAD] = octets.try_into().map_err(|_| JournalError::Corrupt)?;
        match Head::parse(&octets, name.salt) {
            Some(head) if head.meta == location.meta && head.fits(&octets, &meta) => {
                Ok((head, meta, file))
            }
            _ => Err(JournalError::Corrupt),
        }
    }

    pub(super) fn read_meta(&self, location: Location) -> Result<Vec<u8>, JournalError> {
        self.head(location).map(|(_, meta, _)| meta)
    }

    pub(super) fn read_body(&self, location: Location) -> Result<Vec<u8>, JournalError> {
        let (head, _, file) = self.head(location)?;
        let mut body = vec![0; location.body as usize];
        read(
            &file,
            &mut body,
            u64::from(location.offset) + HEAD as u64 + u64::from(location.meta),
        )?;
        if head.body != location.body || crc32fast::hash(&body) != head.body_crc {
            return Err(JournalError::Corrupt);
        }
        Ok(body)
    }

    /// Meta and body in one read; the body only where it holds.
    pub(super) fn read_both(
        &self,
        location: Location,
    ) -> Result<(Vec<u8>, Option<Vec<u8>>), JournalError> {
        let (name, file) = self.file(location.segment)?;
        let at_meta = HEAD + location.meta as usize;
        let mut octets = vec![0; at_meta + location.body as usize];
        read(&file, &mut octets, u64::from(location.offset))?;
        let body = octets.split_off(at_meta);
        let meta = octets.split_off(HEAD);
        let octets: [u8; HEAD] = octets.try_into().map_err(|_| JournalError::Corrupt)?;
        let head = Head::parse(&octets, name.salt)
            .filter(|head| head.meta == location.meta && head.fits(&octets, &meta))
            .ok_or(JournalError::Corrupt)?;
        let holds = head.body == location.body && crc32fast::hash(&body) == head.body_crc;
        Ok((meta, holds.then_some(body)))
    }

    /// The message records of a segment, damaged ones left out.
    pub(super) fn message_records(
        &self,
        name: Name,
        each: &mut dyn FnMut(super::Found),
    ) -> Result<(), JournalError> {
        let (_, file) = self.file(name.number)?;
        super::replay::scan(&file, name, None, false, &mut |record| {
            if record.kind == Kind::Message {
                each(record);
            }
            Ok(())
        })?;
        Ok(())
    }
}

fn read(file: &File, octets: &mut [u8], offset: u64) -> Result<(), JournalError> {
    file.read_exact_at(octets, offset)
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => JournalError::Corrupt,
            _ => JournalError::of("reading the journal", &error),
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn segment_of_a_newer_format_is_an_error_that_says_so() {
        let name = Name {
            number: 7,
            salt: 0xabc,
        };
        let file = name.path(Path::new("")).display().to_string();
        assert_eq!(Name::parse(&file), Ok(Some(name)));
        let newer = Name::parse("00000007-0000000000000abc.v9.log");
        assert!(matches!(newer, Err(JournalError::Failing(why)) if why.contains("newer version")));
        assert_eq!(Name::parse("reserve"), Ok(None));
    }

    proptest! {
        #[test]
        fn any_flipped_bit_of_head_or_meta_is_noticed(meta: Vec<u8>, body: Vec<u8>, sequence: u64, salt: u64, bit in 0usize..36 * 8) {
            let mut out = Vec::new();
            write_head(&mut out, salt, Kind::Message, sequence, &meta, &body);
            let check = |out: &[u8]| {
                let octets: [u8; HEAD] = out[..HEAD].try_into().unwrap();
                Head::parse(&octets, salt).filter(|head| head.fits(&octets, &out[HEAD..]))
            };
            let head = check(&out).unwrap();
            prop_assert_eq!((head.sequence, head.meta as usize, head.body as usize), (sequence, meta.len(), body.len()));
            out[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(check(&out).is_none());
        }
    }
}
