//! A store whose threads somebody else turns step by step, for the rooms that stand on it: so a test knows what is on disk,
//! and what is gone with the process.

use super::super::*;
use crate::journal::disk::{LogFile, RealDisk};
use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::os::unix::fs::FileExt as _;

/// Small, so that segments are filled and used again.
const SEGMENT: u64 = 256 * 1024;

/// The store, and what its threads would do.
pub(crate) struct Stepped {
    spool: Spool,
    hands: Hands,
    /// Where each message lay at the last look.
    places: BTreeMap<u64, Location>,
}

/// A recipient that is still owed its message, as the store has it in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Owed {
    pub(crate) id: u64,
    pub(crate) position: usize,
    pub(crate) attempts: u32,
    pub(crate) next_try: u64,
    pub(crate) held_since: u64,
    pub(crate) operator_hold: bool,
    pub(crate) uncertified: bool,
    pub(crate) leased: bool,
    pub(crate) told: bool,
}

impl Stepped {
    /// Opens what lies in `folder`.
    pub(crate) fn open(folder: &Path, disk: &Kept) -> Result<Self, SpoolError> {
        let metrics = Metrics::new().unwrap();
        let opened = Spool::with_hands(folder, Arc::new(disk.clone()), SEGMENT, &metrics);
        let (spool, hands) = opened?;
        let places = BTreeMap::new();
        let mut stepped = Self {
            spool,
            hands,
            places,
        };
        stepped.copied();
        Ok(stepped)
    }

    /// The store.
    pub(crate) fn spool(&self) -> &Spool {
        &self.spool
    }

    /// Whether somebody waits for an answer.
    pub(crate) fn is_asked(&self) -> bool {
        self.hands.committer.is_asked()
    }

    /// The journal's thread writes what waits; whether all of it is on disk.
    #[must_use]
    pub(crate) fn write(&mut self) -> bool {
        self.hands.committer.turn();
        self.hands.committer.is_idle()
    }

    /// Whether it has taken a message that is not done.
    pub(crate) fn has(&self, id: u64) -> bool {
        let memory = self.spool.0.shared.memory();
        memory.queue.entries.contains_key(&id)
    }

    /// Messages that lie in another place than when this was asked last.
    pub(crate) fn copied(&mut self) -> Vec<u64> {
        let memory = self.spool.0.shared.memory();
        let entries = memory.queue.entries.iter();
        let places: BTreeMap<u64, Location> =
            entries.map(|(id, entry)| (*id, entry.location)).collect();
        drop(memory);
        let before = std::mem::replace(&mut self.places, places);
        let moved = self.places.iter().filter(|(id, place)| {
            let was = before.get(id);
            was.is_some_and(|was| was != *place)
        });
        moved.map(|(id, _)| *id).collect()
    }

    /// The keeper looks round once.
    pub(crate) fn tidy(&mut self) {
        assert!(self.hands.keeper.round());
    }

    /// The process ends: what waits is not written.
    pub(crate) fn end(self) {
        self.spool.0.journal.stop();
    }

    /// All that is owed, by id.
    pub(crate) fn owed(&self) -> Vec<Owed> {
        let memory = self.spool.0.shared.memory();
        let mut all = Vec::new();
        for (id, entry) in &memory.queue.entries {
            for leg in &entry.legs {
                all.extend(leg.open().into_iter().map(|tried| Owed {
                    id: *id,
                    position: tried.position as usize,
                    attempts: tried.attempts,
                    next_try: tried.next_try,
                    held_since: tried.held_since,
                    operator_hold: tried.operator_hold,
                    uncertified: tried.uncertified,
                    leased: leg.active,
                    told: tried.told,
                }));
            }
        }
        all.sort_by_key(|owed| (owed.id, owed.position));
        all
    }
}

/// The machine's disk, where it is the process that ends and not the machine: what was written is there, synced or not.
///
/// While it is not well nothing new gets on it. Where it is full, what is there may be written once more: that takes no room.
#[derive(Clone, Debug, Default)]
pub(crate) struct Kept(Arc<Mutex<Option<Sick>>>);

/// What is wrong with a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sick {
    /// ENOSPC, wherever something would be written.
    Full,
    /// The same, and half of what was to be written is.
    Short,
    /// EIO.
    Writes,
    /// fdatasync fails.
    Syncs,
}

impl Kept {
    pub(crate) fn is(&self, sick: Option<Sick>) {
        *self.0.lock().unwrap() = sick;
    }

    pub(crate) fn is_well(&self) -> bool {
        self.0.lock().unwrap().is_none()
    }

    fn file(&self, path: &Path, file: Box<dyn LogFile>) -> io::Result<Box<dyn LogFile>> {
        Ok(Box::new(KeptFile {
            file,
            seen: std::fs::File::open(path)?,
            disk: self.clone(),
        }))
    }

    fn may_grow(&self) -> io::Result<()> {
        match *self.0.lock().unwrap() {
            Some(Sick::Full | Sick::Short) => Err(io::ErrorKind::StorageFull.into()),
            Some(Sick::Writes) => Err(io::Error::other("EIO")),
            Some(Sick::Syncs) | None => Ok(()),
        }
    }
}

#[derive(Debug)]
struct KeptFile {
    file: Box<dyn LogFile>,
    seen: std::fs::File,
    disk: Kept,
}

impl KeptFile {
    fn is_there(&self, octets: &[u8], offset: u64) -> bool {
        let mut there = vec![0; octets.len()];
        self.seen.read_exact_at(&mut there, offset).is_ok() && there == octets
    }
}

impl Disk for Kept {
    fn allocate(&self, path: &Path, bytes: u64) -> io::Result<()> {
        self.may_grow()?;
        std::fs::File::create(path)?.set_len(bytes)
    }
    fn open(&self, path: &Path) -> io::Result<Box<dyn LogFile>> {
        self.file(path, RealDisk.open(path)?)
    }
    fn create(&self, path: &Path) -> io::Result<Box<dyn LogFile>> {
        self.may_grow()?;
        self.file(path, RealDisk.create(path)?)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }
    fn make_folder(&self, path: &Path) -> io::Result<()> {
        RealDisk.make_folder(path)
    }
    fn sync_directory(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
}

impl LogFile for KeptFile {
    fn write_at(&mut self, slices: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        if let Err(error) = self.disk.may_grow() {
            let sick = *self.disk.0.lock().unwrap();
            let first = slices.first().map_or(&[][..], |slice| slice);
            if sick != Some(Sick::Writes) && self.is_there(first, offset) {
                return Ok(first.len());
            }
            if sick == Some(Sick::Short) {
                let half = IoSlice::new(&first[..first.len() / 2]);
                self.file.write_at(&[half], offset)?;
            }
            return Err(error);
        }
        self.file.write_at(slices, offset)
    }
    fn sync(&mut self) -> io::Result<()> {
        match *self.disk.0.lock().unwrap() {
            Some(Sick::Syncs) => Err(io::Error::other("EIO")),
            _ => Ok(()),
        }
    }
    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.file.truncate(length)
    }
}
