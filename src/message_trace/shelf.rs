//! What the writer and the look-ups share: the folder, the index, and which part of the files the index has not read yet.

use super::log;
use crate::index::{Index, IndexError, Position};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

#[derive(Debug)]
pub(super) struct Shelf {
    pub(super) directory: PathBuf,
    index: OnceLock<Index>,
    /// By day, from which octet on: what was there at the start, and what was written since while that is not done.
    unread: Mutex<BTreeMap<u32, u64>>,
}

impl Shelf {
    pub(super) fn new(directory: PathBuf) -> Self {
        Self {
            directory,
            index: OnceLock::new(),
            unread: Mutex::default(),
        }
    }

    /// The index; none before it is open, and where it cannot be.
    pub(super) fn index(&self) -> Option<&Index> {
        self.index.get()
    }

    /// Opens the index, and sees how far it has come. Without it look-ups read the files.
    pub(super) fn open_index(&self) {
        let opened = Index::open(&self.directory.join("index")).and_then(|index| {
            let mut unread = self.unread();
            for (day, path) in log::days(&self.directory).map_err(failing)? {
                let length = path.metadata().map_err(failing)?.len();
                // Less than was read where a power cut took the end of the file.
                let from = index.read_until(day)?.min(length);
                if from < length {
                    unread.insert(day, from);
                }
            }
            Ok(index)
        });
        match opened {
            // Nobody else sets it.
            Ok(index) => drop(self.index.set(index)),
            Err(error) => {
                self.unread().clear();
                tracing::warn!(%error, "trace look-ups will read the files");
            }
        }
    }

    fn unread(&self) -> MutexGuard<'_, BTreeMap<u32, u64>> {
        self.unread.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the index has to read next.
    pub(super) fn first_unread(&self) -> Option<Position> {
        let unread = self.unread();
        let (day, offset) = unread.first_key_value()?;
        Some(Position {
            day: *day,
            offset: *offset,
        })
    }

    /// The index has read a day's file up to `offset`, and (`None`) to its end.
    pub(super) fn has_read(&self, day: u32, until: Option<u64>) {
        let mut unread = self.unread();
        match until {
            Some(offset) => drop(unread.insert(day, offset)),
            None => drop(unread.remove(&day)),
        }
    }

    /// Lines were written at `position`: whether the index is to be given them now. While it has older ones to read, it
    /// reads these behind them: all before what it has read of a file is found.
    pub(super) fn takes(&self, position: Position) -> Option<&Index> {
        let index = self.index()?;
        let mut unread = self.unread();
        if unread.is_empty() {
            return Some(index);
        }
        unread.entry(position.day).or_insert(position.offset);
        None
    }

    /// Which files a look-up has to read itself, and from which octet on.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub(super) fn beside_the_index(&self) -> std::io::Result<BTreeMap<u32, u64>> {
        if self.index().is_some() {
            return Ok(self.unread().clone());
        }
        let days = log::days(&self.directory)?;
        Ok(days.into_iter().map(|(day, _)| (day, 0)).collect())
    }
}

fn failing(error: std::io::Error) -> IndexError {
    IndexError::Failing(error.to_string())
}
