//! A store whose threads somebody else turns step by step, for the rooms that stand on it: so a test knows what is on disk,
//! and what is gone with the process.

use super::super::*;
use crate::journal::disk::{LogFile, RealDisk};
use std::io::{self, IoSlice};

/// Small, so that segments are filled and used again.
const SEGMENT: u64 = 256 * 1024;

/// The store, and what its threads would do.
pub(crate) struct Stepped {
    spool: Spool,
    hands: Hands,
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
    pub(crate) fn open(folder: &Path) -> Self {
        let metrics = Metrics::new().unwrap();
        let opened = Spool::with_hands(folder, Arc::new(Kept), SEGMENT, &metrics);
        let (spool, hands) = opened.unwrap();
        Self { spool, hands }
    }

    /// The store.
    pub(crate) fn spool(&self) -> &Spool {
        &self.spool
    }

    /// Whether somebody waits for an answer.
    pub(crate) fn is_asked(&self) -> bool {
        self.hands.committer.is_asked()
    }

    /// The journal's thread writes what waits.
    pub(crate) fn write(&mut self) {
        self.hands.committer.turn();
        assert!(self.hands.committer.is_idle(), "the disk is well");
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
#[derive(Debug)]
struct Kept;

#[derive(Debug)]
struct KeptFile(Box<dyn LogFile>);

impl Disk for Kept {
    fn allocate(&self, path: &Path, bytes: u64) -> io::Result<()> {
        std::fs::File::create(path)?.set_len(bytes)
    }
    fn open(&self, path: &Path) -> io::Result<Box<dyn LogFile>> {
        Ok(Box::new(KeptFile(RealDisk.open(path)?)))
    }
    fn create(&self, path: &Path) -> io::Result<Box<dyn LogFile>> {
        Ok(Box::new(KeptFile(RealDisk.create(path)?)))
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
        self.0.write_at(slices, offset)
    }
    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.0.truncate(length)
    }
}
