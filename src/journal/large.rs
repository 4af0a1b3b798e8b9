//! Where is a body that is too large for the journal?
//!
//! In a file of its own, written as it arrives under a temporary name; then rename, fdatasync, directory sync, all before
//! the record that names it. So a record never names a body that is not there, and a body that no record names is
//! rubbish from a session that ended.

use super::JournalError;
use super::disk::{Disk, LogFile, write_all_at};
use std::collections::HashSet;
use std::io::{IoSlice, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A larger body gets a file of its own.
pub const LARGE: usize = 1024 * 1024;

const TEMPORARY: &str = "incoming-";

/// What a record says of a body that lies in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct BodyFile {
    /// Octets.
    pub length: u64,
    /// CRC-32 of all.
    pub crc: u32,
}

/// The directory of large bodies.
#[derive(Clone, Debug)]
pub struct Bodies {
    directory: PathBuf,
    disk: Arc<dyn Disk>,
    next: Arc<AtomicU64>,
    octets: Arc<AtomicU64>,
}

impl Bodies {
    /// The bodies in `directory`.
    #[must_use]
    pub fn new(directory: PathBuf, disk: Arc<dyn Disk>) -> Self {
        Self {
            directory,
            disk,
            next: Arc::default(),
            octets: Arc::default(),
        }
    }

    /// The file of message `id`.
    #[must_use]
    pub fn path(&self, id: u64) -> PathBuf {
        self.directory.join(format!("{id:016x}"))
    }

    /// Starts a body. Blocks, as everything here does.
    ///
    /// # Errors
    /// The disk is full or fails.
    pub fn create(&self) -> Result<Incoming, JournalError> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let path = self.directory.join(format!("{TEMPORARY}{number}"));
        let file = self
            .disk
            .create(&path)
            .map_err(|error| JournalError::of("making a body file", &error))?;
        Ok(Incoming {
            bodies: self.clone(),
            path,
            file,
            length: 0,
            crc: crc32fast::Hasher::new(),
            kept: false,
        })
    }

    /// Removes the file of a message that is done.
    pub fn remove(&self, id: u64) {
        let path = self.path(id);
        let octets = std::fs::metadata(&path).map_or(0, |file| file.len());
        self.octets.fetch_sub(octets, Ordering::Relaxed);
        self.remove_file(&path);
    }

    /// Octets of all kept bodies.
    #[must_use]
    pub fn octets(&self) -> u64 {
        self.octets.load(Ordering::Relaxed)
    }

    fn remove_file(&self, path: &Path) {
        if let Err(error) = self.disk.remove(path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(%error, path = %path.display(), "cannot remove a body file");
        }
    }

    /// At start-up: removes what sessions left behind and, where the journal was read without error (`whole`), what no
    /// live message names. How many octets remain.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn sweep(&self, live: &HashSet<u64>, whole: bool) -> Result<u64, JournalError> {
        let failed = |error: std::io::Error| {
            JournalError::of(&format!("reading {}", self.directory.display()), &error)
        };
        let mut octets = 0;
        for entry in std::fs::read_dir(&self.directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            let id = u64::from_str_radix(name, 16).ok();
            let orphan = whole && id.is_some_and(|id| !live.contains(&id));
            if name.starts_with(TEMPORARY) || orphan {
                self.remove_file(&entry.path());
            } else {
                octets += entry.metadata().map(|file| file.len()).unwrap_or_default();
            }
        }
        self.octets.store(octets, Ordering::Relaxed);
        Ok(octets)
    }
}

/// A body on its way in; its file goes with it unless it is kept.
#[derive(Debug)]
pub struct Incoming {
    bodies: Bodies,
    path: PathBuf,
    file: Box<dyn LogFile>,
    length: u64,
    crc: crc32fast::Hasher,
    kept: bool,
}

impl Incoming {
    /// Writes more.
    ///
    /// # Errors
    /// The disk is full or fails.
    pub fn write(&mut self, octets: &[u8]) -> Result<(), JournalError> {
        write_all_at(self.file.as_mut(), &mut [IoSlice::new(octets)], self.length)
            .map_err(|error| JournalError::of("writing a body file", &error))?;
        self.length += octets.len() as u64;
        self.crc.update(octets);
        Ok(())
    }

    /// Reads back what was written so far; blocks when it is called, as everything here does.
    pub fn read_back(&self) -> impl FnOnce() -> Result<Vec<u8>, JournalError> + Send + use<> {
        let (path, length) = (self.path.clone(), self.length);
        move || {
            let failed = |error: std::io::Error| JournalError::of("reading a body file", &error);
            let mut octets = Vec::with_capacity(usize::try_from(length).unwrap_or_default());
            let file = std::fs::File::open(&path).map_err(failed)?;
            file.take(length).read_to_end(&mut octets).map_err(failed)?;
            Ok(octets)
        }
    }

    /// Makes the body durable under the name of message `id`.
    ///
    /// # Errors
    /// The disk is full or fails; the file is gone then.
    pub fn keep(mut self, id: u64) -> Result<BodyFile, JournalError> {
        let failed = |error: std::io::Error| JournalError::of("keeping a body file", &error);
        // Renamed before the sync, so that one commit of the file system carries both: until a record names it, the file is
        // rubbish under either name.
        let path = self.bodies.path(id);
        self.bodies.disk.rename(&self.path, &path).map_err(failed)?;
        self.path = path;
        self.file.sync().map_err(failed)?;
        self.bodies
            .disk
            .sync_directory(&self.bodies.directory)
            .map_err(failed)?;
        self.kept = true;
        self.bodies.octets.fetch_add(self.length, Ordering::Relaxed);
        Ok(BodyFile {
            length: self.length,
            crc: self.crc.clone().finalize(),
        })
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if !self.kept {
            self.bodies.remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::disk::RealDisk;
    use crate::journal::disk::faulty::{Fault, FaultyDisk};

    #[test]
    fn body_that_is_not_kept_leaves_nothing_and_a_kept_one_stays_until_swept() {
        let directory = tempfile::tempdir().unwrap();
        let bodies = Bodies::new(directory.path().to_owned(), Arc::new(RealDisk));
        let mut lost = bodies.create().unwrap();
        lost.write(b"half").unwrap();
        drop(lost);
        let mut kept = bodies.create().unwrap();
        kept.write(b"one ").unwrap();
        kept.write(b"two").unwrap();
        let file = kept.keep(7).unwrap();
        assert_eq!(
            file,
            BodyFile {
                length: 7,
                crc: crc32fast::hash(b"one two")
            }
        );
        std::mem::forget(bodies.create().unwrap());
        assert_eq!(bodies.sweep(&HashSet::new(), false), Ok(7));
        assert_eq!(std::fs::read(bodies.path(7)).unwrap(), b"one two");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
        assert_eq!(bodies.sweep(&HashSet::from([7]), true), Ok(7));
        assert_eq!(bodies.sweep(&HashSet::new(), true), Ok(0));
        assert!(!bodies.path(7).exists());
    }

    #[test]
    fn full_disk_is_told_apart_from_a_failing_one() {
        let directory = tempfile::tempdir().unwrap();
        let disk = FaultyDisk::default();
        // The fault is meant for paths that hold "bodies".
        let path = directory.path().join("bodies");
        std::fs::create_dir(&path).unwrap();
        let bodies = Bodies::new(path.clone(), Arc::new(disk.clone()));
        disk.next(&[Fault::BodyFull, Fault::Write, Fault::Sync]);
        assert_eq!(
            bodies.create().unwrap().write(b"x"),
            Err(JournalError::Full)
        );
        assert!(matches!(
            bodies.create().unwrap().write(b"x"),
            Err(JournalError::Failing(_))
        ));
        let mut body = bodies.create().unwrap();
        body.write(b"x").unwrap();
        assert!(matches!(body.keep(1), Err(JournalError::Failing(_))));
        assert_eq!(std::fs::read_dir(&path).unwrap().count(), 0);
    }
}
