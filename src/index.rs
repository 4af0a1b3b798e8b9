//! Where in the trace does a message stand? Look-up keys in sled; the only file that names it.
//!
//! The index is losable: it can be thrown away and is rebuilt from the trace files. sled 0.34 lost acknowledged records at
//! simulated power cuts, so nobody asks it whether mail exists, and it is never on the way to a 250 or to a delivery.

use std::path::{Path, PathBuf};

/// Memory that sled may use for its cache, octets.
const CACHE: u64 = 16 * 1024 * 1024;

/// Look-up keys (queue id, Message-ID, network message id, sender, recipient) to positions in the trace.
#[derive(Clone, Debug)]
pub struct Index {
    tree: sled::Tree,
    db: sled::Db,
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

/// An opened index, and whether it has to be filled anew.
#[derive(Debug)]
pub struct Opened {
    /// The index.
    pub index: Index,
    /// It is new, or the old one was damaged and put aside: the trace is to be read once.
    pub empty: bool,
}

/// The position of an event: a day's file and the offset in it. Ascending is older to newer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Days since 1970.
    pub day: u32,
    /// Octets.
    pub offset: u64,
}

impl Index {
    /// Opens the index in `directory`; a damaged one is put aside and said so.
    ///
    /// # Errors
    /// Locked by another process, or the disk fails.
    pub fn open(directory: &Path) -> Result<Opened, IndexError> {
        match Self::try_open(directory) {
            Ok(opened) => Ok(opened),
            Err(sled::Error::Io(error)) if is_lock(&error) => Err(IndexError::Locked),
            Err(error) => {
                let aside = free_name(directory);
                tracing::warn!(%error, aside = %aside.display(), "the index is damaged: put aside, rebuilt from the trace");
                std::fs::rename(directory, &aside)
                    .map_err(|error| IndexError::Failing(error.to_string()))?;
                Self::try_open(directory).map_err(|error| IndexError::Failing(error.to_string()))
            }
        }
    }

    fn try_open(directory: &Path) -> sled::Result<Opened> {
        let config = sled::Config::new()
            .path(directory)
            .cache_capacity(CACHE)
            .flush_every_ms(Some(2000));
        let db = config.open()?;
        let tree = db.open_tree("positions")?;
        let empty = tree.is_empty();
        Ok(Opened {
            index: Self { tree, db },
            empty,
        })
    }

    /// Adds keys in one batch, each with its position. Keys compare without case.
    ///
    /// # Errors
    /// The disk fails.
    pub fn add<'a>(
        &self,
        entries: impl Iterator<Item = (&'a str, Position)>,
    ) -> Result<(), IndexError> {
        let mut batch = sled::Batch::default();
        for (key, position) in entries {
            batch.insert(row(key, position), sled::IVec::default());
        }
        self.tree
            .apply_batch(batch)
            .map_err(|error| IndexError::Failing(error.to_string()))
    }

    /// The newest `limit` positions of a key, oldest first.
    ///
    /// # Errors
    /// The disk fails.
    pub fn find(&self, key: &str, limit: usize) -> Result<Vec<Position>, IndexError> {
        let mut found = Vec::new();
        for row in self.tree.scan_prefix(prefix(key)).rev().take(limit) {
            let (row, _) = row.map_err(|error| IndexError::Failing(error.to_string()))?;
            found.extend(position(&row));
        }
        found.reverse();
        Ok(found)
    }

    /// Removes the rows of days before `day`, looking at no more than `most` of all rows, behind the row `after`; tells where
    /// to go on, or nothing at the end. The rows of a day lie scattered among all others, so that a whole round of a large
    /// index takes its time: it is made in steps.
    ///
    /// # Errors
    /// The disk fails.
    pub fn forget_before(
        &self,
        day: u32,
        after: &[u8],
        most: usize,
    ) -> Result<Option<Vec<u8>>, IndexError> {
        let failing = |error: sled::Error| IndexError::Failing(error.to_string());
        let (mut batch, mut looked, mut last) = (sled::Batch::default(), 0, None);
        let behind = (
            std::ops::Bound::Excluded(after),
            std::ops::Bound::Unbounded::<&[u8]>,
        );
        for row in self.tree.range::<&[u8], _>(behind).keys().take(most) {
            let row = row.map_err(failing)?;
            looked += 1;
            if position(&row).is_none_or(|position| position.day < day) {
                batch.remove(row.clone());
            }
            last = Some(row);
        }
        self.tree.apply_batch(batch).map_err(failing)?;
        Ok(last.filter(|_| looked == most).map(|row| row.to_vec()))
    }

    /// Writes what is pending.
    ///
    /// # Errors
    /// The disk fails.
    pub fn flush(&self) -> Result<(), IndexError> {
        self.db
            .flush()
            .map(|_| ())
            .map_err(|error| IndexError::Failing(error.to_string()))
    }
}

/// Longest part of a key that is kept.
const MAX_KEY: usize = 320;

/// `key NUL`, folded and cut.
fn prefix(key: &str) -> Vec<u8> {
    let mut out: Vec<u8> = key
        .to_lowercase()
        .bytes()
        .filter(|octet| *octet != 0)
        .take(MAX_KEY)
        .collect();
    out.push(0);
    out
}

fn row(key: &str, position: Position) -> Vec<u8> {
    let mut out = prefix(key);
    out.extend_from_slice(&position.day.to_be_bytes());
    out.extend_from_slice(&position.offset.to_be_bytes());
    out
}

fn position(row: &[u8]) -> Option<Position> {
    let (_, tail) = row.split_at_checked(row.len().checked_sub(12)?)?;
    let (day, offset) = tail.split_at_checked(4)?;
    Some(Position {
        day: u32::from_be_bytes(day.try_into().ok()?),
        offset: u64::from_be_bytes(offset.try_into().ok()?),
    })
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
mod tests {
    use super::*;

    fn at(day: u32, offset: u64) -> Position {
        Position { day, offset }
    }

    #[test]
    fn keys_are_found_without_case_and_without_their_neighbours() {
        let folder = tempfile::tempdir().unwrap();
        let Opened { index, empty } = Index::open(&folder.path().join("index")).unwrap();
        assert!(empty);
        let rows = [
            ("Bob@Contoso.com", at(1, 500)),
            ("bob@contoso.com", at(2, 7)),
            ("bob@contoso.com.evil", at(1, 1)),
        ];
        index.add(rows.into_iter()).unwrap();
        assert_eq!(
            index.find("BOB@contoso.COM", 10).unwrap(),
            [at(1, 500), at(2, 7)]
        );
        assert_eq!(
            index.find("bob@contoso.com", 1).unwrap(),
            [at(2, 7)],
            "the newest"
        );
        let mut from = index.forget_before(2, b"", 2).unwrap();
        assert!(from.is_some(), "not everything was looked at");
        while let Some(after) = from {
            from = index.forget_before(2, &after, 2).unwrap();
        }
        assert_eq!(index.find("bob@contoso.com", 10).unwrap(), [at(2, 7)]);
        assert_eq!(index.find("bob@contoso.com.evil", 10).unwrap(), []);
    }

    #[test]
    fn a_lock_is_no_damage_and_damage_is_put_aside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("index");
        let first = Index::open(&path).unwrap();
        assert!(matches!(Index::open(&path), Err(IndexError::Locked)));
        first.index.add([("a", at(1, 1))].into_iter()).unwrap();
        first.index.flush().unwrap();
        drop(first);
        assert!(!Index::open(&path).unwrap().empty);
        std::fs::write(path.join("conf"), b"not sled's").unwrap();
        std::fs::write(path.join("db"), b"garbage").unwrap();
        let again = Index::open(&path).unwrap();
        assert!(again.empty);
        assert!(folder.path().join("index.damaged-1").exists());
    }
}
