//! Which segments may go?
//!
//! A segment is deleted when no message lives in it and every older one is gone: a record that says "done" always lies in
//! the same or a later segment than the message, so it outlives it, and no message comes back. An old message would pin
//! everything behind it: where more than half of the journal is dead, what lives in the oldest segment is copied to the
//! end, synced, and the segment deleted. So a journal takes at most about twice what lives in it, for at most one octet
//! copied for each octet given back.
//!
//! A deleted segment becomes the reserve where it can: its blocks are written already, and overwriting such blocks costs
//! no metadata in fdatasync.

use super::disk::{Disk, LogFile};
use super::segment::{Location, Name, Readers};
use super::{JournalError, locked};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// Dead octets that are tolerated, in segments: below this nothing is copied.
const SLACK_SEGMENTS: u64 = 2;

#[derive(Debug)]
pub(super) struct Accounts {
    directory: PathBuf,
    disk: Arc<dyn Disk>,
    segment_bytes: u64,
    table: Mutex<Table>,
    /// Held while the reserve is renamed or made: two background threads do that, never a session.
    reserve: Mutex<Reserve>,
    /// There was no space for the reserve when it was last asked for: what a session may ask without waiting for a disk.
    full: AtomicBool,
    /// Octets that the active segment can still take.
    room: AtomicU64,
}

#[derive(Debug, Default)]
struct Table {
    segments: BTreeMap<u32, Account>,
    active: Option<u32>,
    live_octets: u64,
}

#[derive(Debug)]
struct Account {
    name: Name,
    live: u64,
    live_octets: u64,
}

impl Account {
    fn new(name: Name) -> Self {
        Self {
            name,
            live: 0,
            live_octets: 0,
        }
    }
}

#[derive(Debug, Default)]
struct Reserve {
    present: bool,
    recycled: bool,
}

impl Accounts {
    pub(super) fn new(directory: PathBuf, disk: Arc<dyn Disk>, segment_bytes: u64) -> Self {
        Self {
            directory,
            disk,
            segment_bytes,
            table: Mutex::default(),
            reserve: Mutex::default(),
            full: AtomicBool::new(false),
            room: AtomicU64::new(0),
        }
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(super) fn disk(&self) -> &dyn Disk {
        self.disk.as_ref()
    }

    pub(super) fn segment_bytes(&self) -> u64 {
        self.segment_bytes
    }

    pub(super) fn opened(&self, name: Name) {
        locked(&self.table)
            .segments
            .insert(name.number, Account::new(name));
    }

    pub(super) fn has_room(&self, octets: u64) {
        self.room.store(octets, Ordering::Relaxed);
    }

    pub(super) fn active(&self, number: u32) {
        locked(&self.table).active = Some(number);
    }

    pub(super) fn closed(&self, name: Name) {
        locked(&self.table).segments.remove(&name.number);
    }

    pub(super) fn keep(&self, location: Location) {
        let mut table = locked(&self.table);
        table.live_octets += location.octets();
        if let Some(account) = table.segments.get_mut(&location.segment) {
            account.live += 1;
            account.live_octets += location.octets();
        }
    }

    pub(super) fn release(&self, location: Location) -> bool {
        let mut table = locked(&self.table);
        table.live_octets = table.live_octets.saturating_sub(location.octets());
        if let Some(account) = table.segments.get_mut(&location.segment) {
            account.live = account.live.saturating_sub(1);
            account.live_octets = account.live_octets.saturating_sub(location.octets());
        }
        table.dead().is_some() || table.to_copy(self.segment_bytes).is_some()
    }

    pub(super) fn disk_bytes(&self) -> u64 {
        let segments = locked(&self.table).segments.len() as u64;
        (segments + u64::from(self.has_reserve())) * self.segment_bytes
    }

    pub(super) fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    pub(super) fn has_reserve(&self) -> bool {
        locked(&self.reserve).present
    }

    fn reserve_path(&self) -> PathBuf {
        self.directory.join("reserve")
    }

    /// Makes the next segment's file, unless it is there.
    pub(super) fn make_reserve(&self) -> Result<(), JournalError> {
        let mut reserve = locked(&self.reserve);
        if reserve.present {
            // Also where a deleted segment has become the reserve since the disk was full.
            self.full.store(false, Ordering::Relaxed);
            return Ok(());
        }
        let path = self.reserve_path();
        let made = self
            .disk
            .allocate(&path, self.segment_bytes)
            .and_then(|()| self.disk.sync_directory(&self.directory));
        if let Err(error) = made {
            // A half-made file would take the very space that is missing.
            if let Err(error) = self.disk.remove(&path)
                && error.kind() != std::io::ErrorKind::NotFound
            {
                tracing::warn!(%error, "cannot remove a half-made reserve");
            }
            self.full.store(true, Ordering::Relaxed);
            return Err(JournalError::of("reserving space", &error));
        }
        self.full.store(false, Ordering::Relaxed);
        *reserve = Reserve {
            present: true,
            recycled: false,
        };
        Ok(())
    }

    /// Turns the reserve into segment `name`, which is active from now on.
    pub(super) fn take_reserve(&self, name: Name) -> Result<Box<dyn LogFile>, JournalError> {
        self.make_reserve()?;
        // Known from here on: whatever goes wrong, the file is deleted in its turn, at the latest. And active in the same
        // breath: the keeper would take a segment in which nothing lives yet for one in which nothing lives any more.
        let before = {
            let mut table = locked(&self.table);
            table.segments.insert(name.number, Account::new(name));
            table.active.replace(name.number)
        };
        let path = name.path(&self.directory);
        let taken = {
            let mut reserve = locked(&self.reserve);
            // Also where this fails: whether the name has changed is not known then, and the reserve is made anew.
            *reserve = Reserve::default();
            self.disk
                .rename(&self.reserve_path(), &path)
                .and_then(|()| self.disk.sync_directory(&self.directory))
                .and_then(|()| self.disk.open(&path))
        };
        match taken {
            Ok(file) => Ok(file),
            Err(error) => {
                locked(&self.table).active = before;
                // At once where that can be: a disk or a process that lacks something fails again and again.
                if self.disk.remove(&path).is_ok() {
                    self.closed(name);
                }
                Err(JournalError::of("opening a segment", &error))
            }
        }
    }

    /// Deletes segments in which nothing lives, oldest first, each durably before the next: were a later one gone and an
    /// older one back after a power cut, done messages would come back with it.
    pub(super) fn delete_dead(&self, readers: &Readers) -> Result<(), JournalError> {
        loop {
            let Some(name) = locked(&self.table).dead() else {
                return Ok(());
            };
            let path = name.path(&self.directory);
            readers.forget(name.number);
            {
                let mut reserve = locked(&self.reserve);
                let whole =
                    std::fs::metadata(&path).is_ok_and(|file| file.len() == self.segment_bytes);
                let recycle = whole && !(reserve.present && reserve.recycled);
                let gone = if recycle {
                    self.disk.rename(&path, &self.reserve_path())
                } else {
                    self.disk.remove(&path)
                };
                if recycle && gone.is_ok() {
                    *reserve = Reserve {
                        present: true,
                        recycled: true,
                    };
                }
                // Gone already where the last attempt came as far as here: its name is still to be made so.
                let gone = gone.or_else(|error| match error.kind() {
                    std::io::ErrorKind::NotFound => Ok(()),
                    _ => Err(error),
                });
                gone.and_then(|()| self.disk.sync_directory(&self.directory))
                    .map_err(|error| JournalError::of("deleting a segment", &error))?;
            }
            locked(&self.table).segments.remove(&name.number);
        }
    }

    /// The oldest segment, where it should be copied forward. On a full disk only where that fits into half of what is
    /// left, which is kept for outcomes.
    pub(super) fn wants_copying(&self) -> Option<Name> {
        let room = self.room.load(Ordering::Relaxed);
        let fits = |octets: u64| !self.is_full() || octets <= room / 2;
        let table = locked(&self.table);
        let oldest = table.to_copy(self.segment_bytes)?;
        fits(oldest.live_octets).then_some(oldest.name)
    }
}

impl Table {
    fn oldest(&self) -> Option<&Account> {
        self.segments
            .first_key_value()
            .filter(|(number, _)| Some(**number) != self.active)
            .map(|(_, account)| account)
    }

    fn dead(&self) -> Option<Name> {
        self.oldest()
            .filter(|account| account.live == 0)
            .map(|account| account.name)
    }

    fn to_copy(&self, segment_bytes: u64) -> Option<&Account> {
        let whole = self.segments.len() as u64 * segment_bytes;
        let tolerated = 2 * self.live_octets + SLACK_SEGMENTS * segment_bytes;
        self.oldest().filter(|_| whole > tolerated)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::disk::RealDisk;
    use std::io;
    use std::sync::{OnceLock, Weak};

    /// At each call, the keeper would look what is dead.
    #[derive(Debug, Default)]
    struct Watched {
        accounts: OnceLock<Weak<Accounts>>,
        seen: Mutex<Vec<u32>>,
    }

    impl Watched {
        fn look(&self) {
            if let Some(accounts) = self.accounts.get().and_then(Weak::upgrade)
                && let Some(dead) = locked(&accounts.table).dead()
            {
                locked(&self.seen).push(dead.number);
            }
        }
    }

    impl Disk for Arc<Watched> {
        fn allocate(&self, path: &Path, bytes: u64) -> io::Result<()> {
            self.look();
            RealDisk.allocate(path, bytes)
        }
        fn open(&self, path: &Path) -> io::Result<Box<dyn LogFile>> {
            self.look();
            RealDisk.open(path)
        }
        fn create(&self, path: &Path) -> io::Result<Box<dyn LogFile>> {
            RealDisk.create(path)
        }
        fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
            self.look();
            RealDisk.rename(from, to)
        }
        fn remove(&self, path: &Path) -> io::Result<()> {
            RealDisk.remove(path)
        }
        fn make_folder(&self, path: &Path) -> io::Result<()> {
            RealDisk.make_folder(path)
        }
        fn sync_directory(&self, path: &Path) -> io::Result<()> {
            self.look();
            RealDisk.sync_directory(path)
        }
    }

    #[test]
    fn a_segment_that_is_being_begun_is_not_dead() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Arc::new(Watched::default());
        let accounts = Arc::new(Accounts::new(
            folder.path().to_owned(),
            Arc::new(Arc::clone(&disk)),
            4096,
        ));
        disk.accounts.set(Arc::downgrade(&accounts)).unwrap();
        let name = |number| Name { number, salt: 7 };
        let _first = accounts.take_reserve(name(1)).unwrap();
        let readers = Readers::new();
        accounts.delete_dead(&readers).unwrap();
        assert!(name(1).path(folder.path()).exists());
        assert!(locked(&disk.seen).is_empty(), "the only one");
        let _second = accounts.take_reserve(name(2)).unwrap();
        // The one before, in which nothing lives, is deleted once it is not written to any more.
        accounts.delete_dead(&readers).unwrap();
        assert!(!name(1).path(folder.path()).exists());
        assert!(name(2).path(folder.path()).exists());
        assert!(!locked(&disk.seen).contains(&2), "{:?}", disk.seen);
    }

    #[test]
    fn a_segment_that_could_not_be_begun_leaves_the_one_before_active() {
        let folder = tempfile::tempdir().unwrap();
        let accounts = Accounts::new(folder.path().to_owned(), Arc::new(RealDisk), 4096);
        let name = |number| Name { number, salt: 7 };
        let _first = accounts.take_reserve(name(1)).unwrap();
        accounts.make_reserve().unwrap();
        std::fs::remove_file(folder.path().join("reserve")).unwrap();
        assert!(accounts.take_reserve(name(2)).is_err());
        accounts.delete_dead(&Readers::new()).unwrap();
        assert!(name(1).path(folder.path()).exists());
        assert_eq!(locked(&accounts.table).active, Some(1));
    }
}
