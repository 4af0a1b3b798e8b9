//! A disk whose power can be cut: what was not synced may be there, in part, or not at all.
//!
//! Calls go to real files, so that the store reads what it wrote; beside them a [`Platter`] keeps what would be left.

use crate::platter::{Left, Loss, Platter};
use gatepost::journal::disk::{Disk, LogFile, RealDisk};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// How many calls behind a rename are tense, and one in how many of them is cut.
const TENSE: u32 = 10;

/// What may go wrong at a call, each with its chance in a thousand.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weather {
    /// fallocate, and writes to a body: ENOSPC.
    pub full: u32,
    /// A write stops half way and fails.
    pub short: u32,
    /// fdatasync: EIO.
    pub sync: u32,
}

#[derive(Debug)]
struct State {
    platter: Platter,
    chance: StdRng,
    weather: Weather,
    /// Cuts that are still to be made, and one call in how many makes one.
    cuts: usize,
    every: u32,
    /// Calls in which a name was just changed: there a cut is likelier, for such instants are few.
    tense: u32,
}

/// What is done at a cut, while the disk stands still, and how many syncs of segments there have been.
type AtCut = Box<dyn Fn(Left, u64) + Send + Sync>;

/// The disk.
#[derive(Clone)]
pub struct PowerDisk {
    state: Arc<Mutex<State>>,
    at_cut: Arc<AtCut>,
    /// Syncs of segments that went well.
    pub syncs: Arc<AtomicU64>,
}

impl std::fmt::Debug for PowerDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PowerDisk")
    }
}

impl PowerDisk {
    /// A disk that is cut `cuts` times, at one call in `every`; `at_cut` is called while nothing else moves.
    pub fn new(
        seed: u64,
        cuts: usize,
        every: u32,
        at_cut: impl Fn(Left, u64) + Send + Sync + 'static,
    ) -> Self {
        let state = State {
            platter: Platter::default(),
            chance: StdRng::seed_from_u64(seed),
            weather: Weather::default(),
            cuts,
            every,
            tense: 0,
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            at_cut: Arc::new(Box::new(at_cut)),
            syncs: Arc::default(),
        }
    }

    /// From now on.
    pub fn weather(&self, weather: Weather) {
        self.state.lock().unwrap().weather = weather;
    }

    /// Whether all cuts were made.
    pub fn is_over(&self) -> bool {
        self.state.lock().unwrap().cuts == 0
    }

    fn with<R>(&self, call: impl FnOnce(&mut State) -> R) -> R {
        let mut state = self.state.lock().unwrap();
        let result = call(&mut state);
        let mut every = state.every;
        if state.tense > 0 {
            state.tense -= 1;
            every = every.min(TENSE);
        }
        if state.cuts > 0 && state.chance.random_ratio(1, every) {
            state.cuts -= 1;
            let cut = state.cut();
            (self.at_cut)(cut, self.syncs.load(Ordering::SeqCst));
        }
        result
    }
}

impl State {
    fn struck(&mut self, thousandth: u32) -> bool {
        thousandth > 0 && self.chance.random_ratio(thousandth, 1000)
    }

    /// Most of the cache was written, or little, or all or nothing; of the names any.
    fn cut(&mut self) -> Left {
        let kept = [0, 10, 50, 90, 100][self.chance.random_range(0..5)];
        let mut names = StdRng::seed_from_u64(self.chance.random());
        let chance = &mut self.chance;
        self.platter.cut(&mut Loss {
            names: &mut || names.random(),
            sectors: &mut || chance.random_ratio(kept, 100),
        })
    }
}

fn full() -> io::Error {
    io::ErrorKind::StorageFull.into()
}

impl Disk for PowerDisk {
    fn allocate(&self, path: &Path, bytes: u64) -> io::Result<()> {
        if self.with(|state| {
            let full = state.weather.full;
            state.struck(full)
        }) {
            return Err(full());
        }
        RealDisk.allocate(path, bytes)?;
        self.with(|state| {
            let inode = state.platter.make(path);
            // Emptied and filled with zeros, then synced (the contents; the name is the directory's matter).
            state.platter.set_length(inode, 0);
            state.platter.set_length(inode, bytes);
            state.platter.sync(inode);
        });
        Ok(())
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn LogFile>> {
        let file = RealDisk.open(path)?;
        let inode = self.with(|state| state.platter.inode(path).unwrap());
        Ok(Box::new(PowerFile {
            file,
            inode,
            is_segment: true,
            disk: self.clone(),
        }))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn LogFile>> {
        let file = RealDisk.create(path)?;
        let inode = self.with(|state| state.platter.make(path));
        Ok(Box::new(PowerFile {
            file,
            inode,
            is_segment: false,
            disk: self.clone(),
        }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)?;
        self.with(|state| {
            state.platter.rename(from, to);
            state.tense = 4 * TENSE;
        });
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)?;
        self.with(|state| state.platter.remove(path));
        Ok(())
    }

    fn make_folder(&self, path: &Path) -> io::Result<()> {
        RealDisk.make_folder(path)?;
        self.with(|state| state.platter.make_folder(path));
        Ok(())
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        RealDisk.sync_directory(path)?;
        self.with(|state| state.platter.sync_directory(path));
        Ok(())
    }
}

#[derive(Debug)]
struct PowerFile {
    file: Box<dyn LogFile>,
    inode: u64,
    /// Opened where it was allocated; the others are bodies.
    is_segment: bool,
    disk: PowerDisk,
}

impl LogFile for PowerFile {
    fn write_at(&mut self, slices: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        let bytes: Vec<u8> = slices
            .iter()
            .flat_map(|slice| slice.iter().copied())
            .collect();
        let short = self.disk.with(|state| {
            let short = state.weather.short;
            state.struck(short)
        });
        let taken = if short { bytes.len() / 2 } else { bytes.len() };
        let mut done = 0;
        while done < taken {
            let piece = [IoSlice::new(&bytes[done..taken])];
            done += self.file.write_at(&piece, offset + done as u64)?;
        }
        self.disk
            .with(|state| state.platter.write(self.inode, offset, &bytes[..taken]));
        if short { Err(full()) } else { Ok(taken) }
    }

    fn sync(&mut self) -> io::Result<()> {
        // No real fdatasync: the platter is what counts, and thousands of cuts are wanted.
        self.disk.with(|state| {
            let sync = state.weather.sync;
            if state.struck(sync) {
                let State {
                    platter, chance, ..
                } = state;
                let kept = chance.random_range(0..=100);
                platter.lose(self.inode, &mut || chance.random_ratio(kept, 100));
                return Err(io::Error::other("injected EIO"));
            }
            state.platter.sync(self.inode);
            if self.is_segment {
                self.disk.syncs.fetch_add(1, Ordering::SeqCst);
            }
            Ok(())
        })
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.file.truncate(length)?;
        self.disk
            .with(|state| state.platter.set_length(self.inode, length));
        Ok(())
    }
}
