//! A disk whose power can be cut: what was not synced may be there, in part, or not at all.
//!
//! Calls go to real files, so that the store reads what it wrote; beside them this keeps what a platter would hold. A
//! [`PowerDisk::cut`] lays that out in another folder: names as far as the directory was synced and some way beyond, in
//! order; contents as far as each file was synced, and of what was written since any sectors of 512 octets. A failed
//! fdatasync loses what it was for, as Linux does (the pages count as clean afterwards, and no later sync writes them).

use gatepost::journal::disk::{Disk, LogFile, RealDisk};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use std::collections::{BTreeMap, HashMap};
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

const SECTOR: usize = 512;
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

#[derive(Clone, Debug)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Length(usize),
}

#[derive(Clone, Debug, Default)]
struct Inode {
    durable: Vec<u8>,
    pending: Vec<Change>,
}

#[derive(Clone, Debug)]
enum Naming {
    Make(PathBuf, u64),
    Move(PathBuf, PathBuf),
    Drop(PathBuf),
}

#[derive(Debug)]
struct Platter {
    inodes: HashMap<u64, Inode>,
    names: BTreeMap<PathBuf, u64>,
    durable_names: BTreeMap<PathBuf, u64>,
    namings: Vec<Naming>,
    next: u64,
    chance: StdRng,
    weather: Weather,
    /// Cuts that are still to be made, and one call in how many makes one.
    cuts: usize,
    every: u32,
    /// Calls in which a name was just changed: there a cut is likelier, for such instants are few.
    tense: u32,
}

/// What is done at a cut, while the disk stands still.
type AtCut = Box<dyn Fn(Cut) + Send + Sync>;

/// The disk.
#[derive(Clone)]
pub struct PowerDisk {
    platter: Arc<Mutex<Platter>>,
    at_cut: Arc<AtCut>,
}

impl std::fmt::Debug for PowerDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PowerDisk")
    }
}

/// What a power cut leaves: files by their path.
pub struct Cut(BTreeMap<PathBuf, Vec<u8>>);

impl Cut {
    /// Lays the files out below `to`, as they lay below `from`.
    pub fn lay_out(&self, from: &Path, to: &Path) {
        for (path, content) in &self.0 {
            let path = to.join(path.strip_prefix(from).expect("a path of the store"));
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
    }
}

impl PowerDisk {
    /// A disk that is cut `cuts` times, at one call in `every`; `at_cut` is called while nothing else moves.
    pub fn new(
        seed: u64,
        cuts: usize,
        every: u32,
        at_cut: impl Fn(Cut) + Send + Sync + 'static,
    ) -> Self {
        let platter = Platter {
            inodes: HashMap::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            namings: Vec::new(),
            next: 0,
            chance: StdRng::seed_from_u64(seed),
            weather: Weather::default(),
            cuts,
            every,
            tense: 0,
        };
        Self {
            platter: Arc::new(Mutex::new(platter)),
            at_cut: Arc::new(Box::new(at_cut)),
        }
    }

    /// From now on.
    pub fn weather(&self, weather: Weather) {
        self.platter.lock().unwrap().weather = weather;
    }

    /// Whether all cuts were made.
    pub fn is_over(&self) -> bool {
        self.platter.lock().unwrap().cuts == 0
    }

    fn with<R>(&self, call: impl FnOnce(&mut Platter) -> R) -> R {
        let mut platter = self.platter.lock().unwrap();
        let result = call(&mut platter);
        let mut every = platter.every;
        if platter.tense > 0 {
            platter.tense -= 1;
            every = every.min(TENSE);
        }
        if platter.cuts > 0 && platter.chance.random_ratio(1, every) {
            platter.cuts -= 1;
            let cut = platter.cut();
            (self.at_cut)(cut);
        }
        result
    }
}

impl Platter {
    fn struck(&mut self, thousandth: u32) -> bool {
        thousandth > 0 && self.chance.random_ratio(thousandth, 1000)
    }

    fn make(&mut self, path: &Path) -> u64 {
        self.next += 1;
        self.inodes.insert(self.next, Inode::default());
        self.names.insert(path.to_owned(), self.next);
        self.namings.push(Naming::Make(path.to_owned(), self.next));
        self.next
    }

    fn pend(&mut self, inode: u64, change: Change) {
        self.inodes.get_mut(&inode).unwrap().pending.push(change);
    }

    fn sync(&mut self, inode: u64) {
        let inode = self.inodes.get_mut(&inode).unwrap();
        for change in std::mem::take(&mut inode.pending) {
            apply(&mut inode.durable, &change, &mut || true);
        }
    }

    /// A sync that failed: some of it has reached the platter, the rest never will.
    fn lose(&mut self, inode: u64) {
        let chance = &mut self.chance;
        let inode = self.inodes.get_mut(&inode).unwrap();
        let kept = chance.random_range(0..=100);
        for change in std::mem::take(&mut inode.pending) {
            apply(&mut inode.durable, &change, &mut || {
                chance.random_ratio(kept, 100)
            });
        }
    }

    fn cut(&mut self) -> Cut {
        let mut names = self.durable_names.clone();
        let some = self.chance.random_range(0..=self.namings.len());
        for naming in self.namings.iter().take(some) {
            rename(&mut names, naming);
        }
        // Most of the cache was written, or little, or all or nothing.
        let kept = [0, 10, 50, 90, 100][self.chance.random_range(0..5)];
        let chance = &mut self.chance;
        let files = names.into_iter().map(|(path, inode)| {
            let inode = &self.inodes[&inode];
            let mut content = inode.durable.clone();
            for change in &inode.pending {
                apply(&mut content, change, &mut || chance.random_ratio(kept, 100));
            }
            (path, content)
        });
        Cut(files.collect())
    }
}

fn rename(names: &mut BTreeMap<PathBuf, u64>, naming: &Naming) {
    match naming {
        Naming::Make(path, inode) => {
            names.insert(path.clone(), *inode);
        }
        Naming::Move(from, to) => {
            if let Some(inode) = names.remove(from) {
                names.insert(to.clone(), inode);
            }
        }
        Naming::Drop(path) => {
            names.remove(path);
        }
    }
}

/// Does what `keep` lets through, sector by sector.
fn apply(content: &mut Vec<u8>, change: &Change, keep: &mut dyn FnMut() -> bool) {
    match change {
        Change::Length(length) => {
            if keep() {
                content.resize(*length, 0);
            }
        }
        Change::Write { offset, bytes } => {
            let mut at = *offset;
            let mut left = bytes.as_slice();
            while !left.is_empty() {
                let piece = (SECTOR - at % SECTOR).min(left.len());
                if keep() {
                    if content.len() < at + piece {
                        content.resize(at + piece, 0);
                    }
                    content[at..at + piece].copy_from_slice(&left[..piece]);
                }
                at += piece;
                left = &left[piece..];
            }
        }
    }
}

fn full() -> io::Error {
    io::ErrorKind::StorageFull.into()
}

impl Disk for PowerDisk {
    fn allocate(&self, path: &Path, bytes: u64) -> io::Result<()> {
        if self.with(|platter| {
            let full = platter.weather.full;
            platter.struck(full)
        }) {
            return Err(full());
        }
        RealDisk.allocate(path, bytes)?;
        self.with(|platter| {
            let inode = match platter.names.get(path) {
                Some(inode) => *inode,
                None => platter.make(path),
            };
            // Emptied and filled with zeros, then synced (the contents; the name is the directory's matter).
            platter.pend(inode, Change::Length(0));
            platter.pend(inode, Change::Length(usize::try_from(bytes).unwrap()));
            platter.sync(inode);
        });
        Ok(())
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn LogFile>> {
        let file = RealDisk.open(path)?;
        let inode = self.with(|platter| platter.names[path]);
        Ok(Box::new(PowerFile {
            file,
            inode,
            disk: self.clone(),
        }))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn LogFile>> {
        let file = RealDisk.create(path)?;
        let inode = self.with(|platter| platter.make(path));
        Ok(Box::new(PowerFile {
            file,
            inode,
            disk: self.clone(),
        }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)?;
        self.with(|platter| {
            let naming = Naming::Move(from.to_owned(), to.to_owned());
            rename(&mut platter.names, &naming);
            platter.namings.push(naming);
            platter.tense = 4 * TENSE;
        });
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)?;
        self.with(|platter| {
            let naming = Naming::Drop(path.to_owned());
            rename(&mut platter.names, &naming);
            platter.namings.push(naming);
        });
        Ok(())
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        RealDisk.sync_directory(path)?;
        self.with(|platter| {
            let here = |naming: &Naming| match naming {
                Naming::Make(own, _) | Naming::Drop(own) => own.parent() == Some(path),
                Naming::Move(from, to) => from.parent() == Some(path) || to.parent() == Some(path),
            };
            let (done, left) = std::mem::take(&mut platter.namings)
                .into_iter()
                .partition::<Vec<_>, _>(here);
            for naming in &done {
                rename(&mut platter.durable_names, naming);
            }
            platter.namings = left;
        });
        Ok(())
    }
}

#[derive(Debug)]
struct PowerFile {
    file: Box<dyn LogFile>,
    inode: u64,
    disk: PowerDisk,
}

impl LogFile for PowerFile {
    fn write_at(&mut self, slices: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        let bytes: Vec<u8> = slices
            .iter()
            .flat_map(|slice| slice.iter().copied())
            .collect();
        let short = self.disk.with(|platter| {
            let short = platter.weather.short;
            platter.struck(short)
        });
        let taken = if short { bytes.len() / 2 } else { bytes.len() };
        let mut done = 0;
        while done < taken {
            let piece = [IoSlice::new(&bytes[done..taken])];
            done += self.file.write_at(&piece, offset + done as u64)?;
        }
        self.disk.with(|platter| {
            let change = Change::Write {
                offset: usize::try_from(offset).unwrap(),
                bytes: bytes[..taken].to_vec(),
            };
            platter.pend(self.inode, change);
        });
        if short { Err(full()) } else { Ok(taken) }
    }

    fn sync(&mut self) -> io::Result<()> {
        let failed = self.disk.with(|platter| {
            let sync = platter.weather.sync;
            let failed = platter.struck(sync);
            if failed {
                platter.lose(self.inode);
            }
            failed
        });
        if failed {
            return Err(io::Error::other("injected EIO"));
        }
        // No real fdatasync: the platter is what counts, and thousands of cuts are wanted.
        self.disk.with(|platter| platter.sync(self.inode));
        Ok(())
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.file.truncate(length)?;
        self.disk.with(|platter| {
            let length = usize::try_from(length).unwrap();
            platter.pend(self.inode, Change::Length(length));
        });
        Ok(())
    }
}
