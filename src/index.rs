//! Where in the trace does a message stand? Look-up keys in sled; the only file that names it.
//!
//! The index is losable: it can be thrown away and is rebuilt from the trace files. sled 0.34 lost acknowledged records at
//! simulated power cuts, so nobody asks it whether mail exists, and it is never on the way to a 250 or to a delivery.
//!
//! sled copies a page for every row that it is given, so that a row for each key would cost more than the mail. Keys are
//! gathered in memory ([`RUN`]), sorted, and written many to a row ([`rows`]). What is gathered is found, too; after a crash
//! it is read from the trace again, for the index knows how far it has come in each day's file ([`Index::read_until`]).

mod rows;

use crate::mail::QueueId;
use rows::{Entry, Grouping};
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Memory that sled may use for its cache, octets.
const CACHE: u64 = 16 * 1024 * 1024;

/// Keys that are gathered before they are written: 1.5 MiB, and what a crash makes the next start read again.
const RUN: usize = 65_536;

/// Keys that a day's file of version 0.1 had a row for each: nothing of it is read any more.
const OLD_TREE: &[u8] = b"positions";

/// Look-up keys (queue id, Message-ID, network message id, sender, recipient) to positions in the trace: cheap to clone.
#[derive(Clone, Debug)]
pub struct Index(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// By queue id, grouped by the time of its arrival.
    stories: sled::Tree,
    /// By the hash of what names a message.
    names: sled::Tree,
    /// How far each day's file was read, and the number of the last run.
    read: sled::Tree,
    gathered: Mutex<Gathered>,
    db: sled::Db,
}

/// What is not written yet.
#[derive(Debug, Default)]
struct Gathered {
    stories: Vec<Entry>,
    names: Vec<Entry>,
    read: BTreeMap<u32, u64>,
    run: u32,
}

/// What an event is found by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// A queue id: its number.
    Story(u64),
    /// Anything else: the beginning of its SHA-256, so that nobody can make a name that hides another.
    Name(u64),
}

impl Key {
    /// The key of a transaction's events.
    #[must_use]
    pub fn story(id: &str) -> Self {
        id.parse::<QueueId>()
            .map_or_else(|_| Self::name(id), |id| Self::Story(id.as_u64()))
    }

    /// The key of an address or message id; names compare without case.
    #[must_use]
    pub fn name(text: &str) -> Self {
        let digest: [u8; 32] = if text.bytes().any(|octet| !is_folded(octet)) {
            Sha256::digest(text.to_lowercase()).into()
        } else {
            Sha256::digest(text).into()
        };
        let [a, b, c, d, e, f, g, h, ..] = digest;
        Self::Name(u64::from_be_bytes([a, b, c, d, e, f, g, h]))
    }
}

/// Whether an octet is in lower case already.
fn is_folded(octet: u8) -> bool {
    octet.is_ascii() && !octet.is_ascii_uppercase()
}

/// Why the index cannot be used.
#[derive(Debug)]
pub enum IndexError {
    /// Another process has it: no damage.
    Locked,
    /// The disk fails.
    Failing(String),
}

impl std::fmt::Display for IndexError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Locked => f.write_str("another process has the index open"),
            Self::Failing(why) => write!(f, "index: {why}"),
        }
    }
}

impl std::error::Error for IndexError {}

impl From<sled::Error> for IndexError {
    fn from(error: sled::Error) -> Self {
        match error {
            sled::Error::Io(error) if is_lock(&error) => Self::Locked,
            other => Self::Failing(other.to_string()),
        }
    }
}

/// The position of an event: a day's file and the offset in it. Ascending is older to newer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Days since 1970.
    pub day: u32,
    /// Octets.
    pub offset: u64,
}

/// How far the removal of old rows has come.
#[derive(Debug)]
pub struct Sweep {
    day: u32,
    /// The group of names that is next; none once only the stories are left.
    group: Option<u8>,
    /// Behind which story.
    story: Vec<u8>,
}

impl Sweep {
    /// Of the rows of days before `day`.
    #[must_use]
    pub fn before(day: u32) -> Self {
        Self {
            day,
            group: Some(0),
            story: Vec::new(),
        }
    }
}

impl Index {
    /// Opens the index in `directory`; a damaged one is put aside and said so, one of an older version is made anew.
    ///
    /// # Errors
    /// Locked by another process, or the disk fails.
    pub fn open(directory: &Path) -> Result<Self, IndexError> {
        match Self::try_open(directory) {
            Ok(Some(index)) => Ok(index),
            Ok(None) => {
                tracing::info!("the trace's index is of an older version: made anew");
                let failed = |error: std::io::Error| IndexError::Failing(error.to_string());
                std::fs::remove_dir_all(directory).map_err(failed)?;
                Self::anew(directory)
            }
            Err(IndexError::Locked) => Err(IndexError::Locked),
            Err(error) => {
                let aside = free_name(directory);
                tracing::warn!(%error, aside = %aside.display(), "the index is damaged: put aside, rebuilt from the trace");
                std::fs::rename(directory, &aside)
                    .map_err(|error| IndexError::Failing(error.to_string()))?;
                Self::anew(directory)
            }
        }
    }

    fn anew(directory: &Path) -> Result<Self, IndexError> {
        Self::try_open(directory)?
            .ok_or_else(|| IndexError::Failing("it is old and will not go".to_owned()))
    }

    /// Nothing where it is of an older version.
    fn try_open(directory: &Path) -> Result<Option<Self>, IndexError> {
        let config = sled::Config::new()
            .path(directory)
            .cache_capacity(CACHE)
            .flush_every_ms(Some(2000));
        let db = config.open()?;
        if db.tree_names().iter().any(|name| name == OLD_TREE) {
            return Ok(None);
        }
        let read = db.open_tree("read")?;
        let run = match read.get(RUN_NUMBER)? {
            Some(value) => number(&value).unwrap_or(0),
            None => 0,
        };
        let gathered = Gathered {
            run,
            ..Gathered::default()
        };
        Ok(Some(Self(Arc::new(Inner {
            stories: db.open_tree("stories")?,
            names: db.open_tree("names")?,
            read,
            gathered: Mutex::new(gathered),
            db,
        }))))
    }

    /// How much of a day's file the index has read, octets.
    ///
    /// # Errors
    /// The disk fails.
    pub fn read_until(&self, day: u32) -> Result<u64, IndexError> {
        if let Some(until) = self.0.gathered().read.get(&day) {
            return Ok(*until);
        }
        let value = self.0.read.get(day.to_be_bytes())?;
        let octets = value.and_then(|value| <[u8; 8]>::try_from(&*value).ok());
        Ok(octets.map_or(0, u64::from_be_bytes))
    }

    /// Adds the keys of an event, and remembers that its day's file is read up to `end`.
    ///
    /// # Errors
    /// The disk fails; what was gathered until then is not found any more before the index is made anew.
    pub fn gather(&self, keys: &[Key], position: Position, end: u64) -> Result<(), IndexError> {
        let mut gathered = self.0.gathered();
        for key in keys {
            match *key {
                Key::Story(key) => gathered.stories.push(Entry { key, position }),
                Key::Name(key) => gathered.names.push(Entry { key, position }),
            }
        }
        gathered.read.insert(position.day, end);
        if gathered.stories.len() + gathered.names.len() < RUN {
            return Ok(());
        }
        self.0.write(&mut gathered)
    }

    /// Writes what is gathered, and waits for the disk.
    ///
    /// # Errors
    /// The disk fails.
    pub fn flush(&self) -> Result<(), IndexError> {
        self.0.write(&mut self.0.gathered())?;
        self.0.db.flush()?;
        Ok(())
    }

    /// The newest `limit` positions of a key, oldest first. A name may be found where it does not stand, with the odds of
    /// two hashes that are alike.
    ///
    /// # Errors
    /// The disk fails.
    pub fn find(&self, key: Key, limit: usize) -> Result<Vec<Position>, IndexError> {
        let mut found = BTreeSet::new();
        let (tree, grouping, key) = {
            let gathered = self.0.gathered();
            let (tree, grouping, key, entries) = match key {
                Key::Story(key) => (&self.0.stories, rows::STORIES, key, &gathered.stories),
                Key::Name(key) => (&self.0.names, rows::NAMES, key, &gathered.names),
            };
            let own = entries.iter().filter(|entry| entry.key == key);
            found.extend(own.map(|entry| entry.position));
            (tree, grouping, key)
        };
        let mut rows = tree.scan_prefix(grouping.prefix(key)).rev();
        while found.len() < limit
            && let Some(row) = rows.next()
        {
            let (name, value) = row?;
            found.extend(rows::find(&name, &value, key));
        }
        let surplus = found.len().saturating_sub(limit);
        Ok(found.into_iter().skip(surplus).collect())
    }

    /// Removes rows of days that are too old, looking at no more than `most`: a whole round of a large index takes its
    /// time. True once the round is over.
    ///
    /// # Errors
    /// The disk fails.
    pub fn forget(&self, sweep: &mut Sweep, most: usize) -> Result<bool, IndexError> {
        let Some(group) = sweep.group else {
            return self.forget_stories(sweep, most);
        };
        let range = rows::NAMES.days_before(group, sweep.day);
        let mut batch = sled::Batch::default();
        let mut looked = 0;
        for row in self.0.names.range(range).keys().take(most) {
            batch.remove(row?);
            looked += 1;
        }
        self.0.names.apply_batch(batch)?;
        if looked < most {
            sweep.group = group.checked_add(1);
        }
        Ok(false)
    }

    /// Rows of messages that arrived on later days hold nothing that old.
    fn forget_stories(&self, sweep: &mut Sweep, most: usize) -> Result<bool, IndexError> {
        let until = rows::STORIES.first_of(sweep.day);
        let (mut batch, mut looked) = (sled::Batch::default(), 0);
        let behind = (
            std::ops::Bound::Excluded(std::mem::take(&mut sweep.story)),
            std::ops::Bound::Excluded(until),
        );
        for row in self.0.stories.range(behind).keys().take(most) {
            let row = row?;
            looked += 1;
            sweep.story = row.to_vec();
            if rows::day(&row).is_none_or(|day| day < sweep.day) {
                batch.remove(row);
            }
        }
        self.0.stories.apply_batch(batch)?;
        if looked == most {
            return Ok(false);
        }
        for day in self.0.read.range(..sweep.day.to_be_bytes()).keys() {
            let day = day?;
            if day.len() == 4 {
                self.0.read.remove(day)?;
            }
        }
        Ok(true)
    }
}

/// Where the number of the last run stands, beside the days; no day has such a long name.
const RUN_NUMBER: &[u8] = b"last run";

impl Inner {
    fn gathered(&self) -> MutexGuard<'_, Gathered> {
        self.gathered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Rows first, then how far they reach: a crash between makes the next start write some of them once more.
    fn write(&self, gathered: &mut Gathered) -> Result<(), IndexError> {
        if gathered.read.is_empty() {
            return Ok(());
        }
        let run = gathered.run.wrapping_add(1);
        gathered.run = run;
        let write = |tree: &sled::Tree, grouping: Grouping, entries: &mut Vec<Entry>| {
            let mut batch = sled::Batch::default();
            grouping.rows(entries, run, |name, value| batch.insert(name, value));
            entries.clear();
            tree.apply_batch(batch)
        };
        let mut read = sled::Batch::default();
        read.insert(RUN_NUMBER, run.to_be_bytes().as_slice());
        for (day, until) in std::mem::take(&mut gathered.read) {
            read.insert(&day.to_be_bytes(), until.to_be_bytes().as_slice());
        }
        write(&self.stories, rows::STORIES, &mut gathered.stories)?;
        write(&self.names, rows::NAMES, &mut gathered.names)?;
        self.read.apply_batch(read)?;
        Ok(())
    }
}

fn number(value: &[u8]) -> Option<u32> {
    value.try_into().ok().map(u32::from_be_bytes)
}

/// sled tells a lock only in words.
fn is_lock(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::WouldBlock
        || error.to_string().contains("could not acquire lock")
}

fn free_name(directory: &Path) -> PathBuf {
    let mut number = 1;
    loop {
        let name = directory.with_extension(format!("damaged-{number}"));
        if !name.exists() {
            return name;
        }
        number += 1;
    }
}

#[cfg(test)]
mod tests;
