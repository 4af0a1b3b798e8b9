//! A disk that counts its calls, keeps what a platter would hold before each, and does one of them wrong.

use super::platter::{Left, Loss, Platter};
use crate::journal::disk::{Disk, LogFile};
use crate::journal::locked;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use std::io::{self, IoSlice};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// A call that can go wrong, and before and after which the light can go out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Point {
    Open,
    Create,
    Preallocate,
    Write,
    Truncate,
    Sync,
    Rename,
    Unlink,
    MakeFolder,
    SyncFolder,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    /// EIO, nothing done. A sync: the pages are clean now, and what of them reached the platter is chance.
    Fails,
    /// ENOSPC, nothing done.
    Full,
    /// Half of it is written, which is no error.
    Short,
    /// Half of it is written, then ENOSPC.
    ShortThenFull,
    /// Any of its sectors are written, then EIO.
    Torn,
    /// Done, and EIO all the same.
    DoneAndFails,
}

impl Point {
    /// The ways in which it can go wrong.
    pub(super) fn faults(self) -> &'static [Fault] {
        match self {
            Self::Write => &[
                Fault::Fails,
                Fault::Full,
                Fault::Short,
                Fault::ShortThenFull,
                Fault::Torn,
            ],
            Self::Preallocate | Self::Create => &[Fault::Fails, Fault::Full],
            Self::Sync | Self::SyncFolder | Self::Rename | Self::Unlink => {
                &[Fault::Fails, Fault::DoneAndFails]
            }
            Self::Open | Self::Truncate | Self::MakeFolder => &[Fault::Fails],
        }
    }
}

/// At which call, what, and for how many calls of that kind.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) at: usize,
    pub(super) fault: Fault,
    pub(super) times: usize,
    /// The next call fails as well, whatever it is: what cleans up fails, too.
    pub(super) and_next: bool,
}

/// Before a call: what the platter holds.
#[derive(Clone, Debug)]
pub(super) struct Moment {
    pub(super) before: usize,
    pub(super) point: Point,
    pub(super) platter: Platter,
}

#[derive(Debug)]
struct Steps {
    root: PathBuf,
    platter: Platter,
    calls: Vec<Point>,
    plan: Option<Plan>,
    struck: Option<Point>,
    /// From which call on, up to which, moments are kept.
    keep: std::ops::Range<usize>,
    moments: Vec<Moment>,
    chance: StdRng,
}

/// The disk below `root`.
#[derive(Clone, Debug)]
pub(super) struct StepDisk(Arc<Mutex<Steps>>);

impl StepDisk {
    pub(super) fn new(root: &Path, platter: Platter, seed: u64) -> Self {
        Self(Arc::new(Mutex::new(Steps {
            root: root.to_owned(),
            platter,
            calls: Vec::new(),
            plan: None,
            struck: None,
            keep: 0..0,
            moments: Vec::new(),
            chance: StdRng::seed_from_u64(seed),
        })))
    }

    /// The disk with these files on it, laid out below `root`.
    pub(super) fn holding(root: &Path, left: &Left, platter: Platter) -> Self {
        left.lay_out(Path::new(""), root);
        Self::new(root, platter, 1)
    }

    pub(super) fn go_wrong(&self, plan: Option<Plan>) {
        locked(&self.0).plan = plan;
    }

    pub(super) fn keep(&self, calls: std::ops::Range<usize>) {
        locked(&self.0).keep = calls;
    }

    pub(super) fn moments(&self) -> Vec<Moment> {
        std::mem::take(&mut locked(&self.0).moments)
    }

    pub(super) fn calls(&self) -> Vec<Point> {
        locked(&self.0).calls.clone()
    }

    /// How many calls there were.
    pub(super) fn count(&self) -> usize {
        locked(&self.0).calls.len()
    }

    pub(super) fn platter(&self) -> Platter {
        locked(&self.0).platter.clone()
    }

    /// What is left if the light goes out now and nothing that was not synced is.
    pub(super) fn cut(&self) -> Left {
        self.platter().cut(&mut Loss {
            names: &mut || false,
            sectors: &mut || false,
        })
    }

    /// Counts a call; what is to go wrong with it.
    fn at(&self, point: Point) -> Option<Fault> {
        let mut steps = locked(&self.0);
        let before = steps.calls.len();
        if steps.keep.contains(&before) {
            let platter = steps.platter.clone();
            steps.moments.push(Moment {
                before,
                point,
                platter,
            });
        }
        steps.calls.push(point);
        let plan = steps.plan.as_mut()?;
        if plan.and_next && before == plan.at + 1 {
            return Some(Fault::Fails);
        }
        let begins = before == plan.at;
        let (fault, over) = (plan.fault, plan.times == 0);
        if over || !(begins || (before > plan.at && steps.struck == Some(point))) {
            return None;
        }
        if let Some(plan) = steps.plan.as_mut() {
            plan.times -= 1;
        }
        steps.struck = Some(point);
        Some(fault)
    }

    fn with<R>(&self, call: impl FnOnce(&mut Platter, &Path) -> R) -> R {
        let mut steps = locked(&self.0);
        let root = steps.root.clone();
        call(&mut steps.platter, &root)
    }

    /// A call that is done as a whole or not at all.
    fn whole(
        &self,
        point: Point,
        really: impl FnOnce() -> io::Result<()>,
        then: impl FnOnce(&mut Platter, &Path),
    ) -> io::Result<()> {
        let fault = self.at(point);
        match fault {
            None | Some(Fault::DoneAndFails | Fault::Short) => {}
            Some(Fault::Full | Fault::ShortThenFull) => return Err(full()),
            Some(Fault::Fails | Fault::Torn) => return Err(broken()),
        }
        really()?;
        self.with(then);
        match fault {
            Some(Fault::DoneAndFails) => Err(broken()),
            _ => Ok(()),
        }
    }
}

fn below(path: &Path, root: &Path) -> PathBuf {
    path.strip_prefix(root).unwrap().to_owned()
}

fn full() -> io::Error {
    io::ErrorKind::StorageFull.into()
}

fn broken() -> io::Error {
    io::Error::other("injected EIO")
}

impl Disk for StepDisk {
    fn allocate(&self, path: &Path, bytes: u64) -> io::Result<()> {
        let make = || std::fs::File::create(path).map(drop);
        self.whole(Point::Create, make, |platter, root| {
            let inode = platter.make(&below(path, root));
            platter.set_length(inode, 0);
        })?;
        let grow = || {
            std::fs::OpenOptions::new()
                .write(true)
                .open(path)?
                .set_len(bytes)
        };
        self.whole(Point::Preallocate, grow, |platter, root| {
            let inode = platter.inode(&below(path, root)).unwrap();
            platter.set_length(inode, bytes);
        })?;
        let inode = self.with(|platter, root| platter.inode(&below(path, root)).unwrap());
        self.sync(inode)
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn LogFile>> {
        self.whole(Point::Open, || Ok(()), |_, _| ())?;
        self.file(path, std::fs::OpenOptions::new().write(true))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn LogFile>> {
        let make = || std::fs::File::create_new(path).map(drop);
        self.whole(Point::Create, make, |platter, root| {
            platter.make(&below(path, root));
        })?;
        self.file(path, std::fs::OpenOptions::new().write(true))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let really = || std::fs::rename(from, to);
        self.whole(Point::Rename, really, |platter, root| {
            platter.rename(&below(from, root), &below(to, root));
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let really = || std::fs::remove_file(path);
        self.whole(Point::Unlink, really, |platter, root| {
            platter.remove(&below(path, root));
        })
    }

    fn make_folder(&self, path: &Path) -> io::Result<()> {
        let really = || std::fs::create_dir_all(path);
        self.whole(Point::MakeFolder, really, |platter, root| {
            platter.make_folder(&below(path, root));
        })
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        self.whole(
            Point::SyncFolder,
            || Ok(()),
            |platter, root| {
                platter.sync_directory(&below(path, root));
            },
        )
    }
}

impl StepDisk {
    fn file(&self, path: &Path, how: &std::fs::OpenOptions) -> io::Result<Box<dyn LogFile>> {
        let file = how.open(path)?;
        let inode = self.with(|platter, root| platter.inode(&below(path, root)).unwrap());
        Ok(Box::new(StepFile {
            file,
            inode,
            disk: self.clone(),
        }))
    }

    /// No real fdatasync: the platter is what counts.
    fn sync(&self, inode: u64) -> io::Result<()> {
        match self.at(Point::Sync) {
            None => {
                self.with(|platter, _| platter.sync(inode));
                Ok(())
            }
            Some(Fault::DoneAndFails) => {
                self.with(|platter, _| platter.sync(inode));
                Err(broken())
            }
            Some(_) => {
                let mut steps = locked(&self.0);
                let Steps {
                    platter, chance, ..
                } = &mut *steps;
                let kept = [0, 50, 90][chance.random_range(0..3)];
                platter.lose(inode, &mut || chance.random_ratio(kept, 100));
                Err(broken())
            }
        }
    }
}

#[derive(Debug)]
struct StepFile {
    file: std::fs::File,
    inode: u64,
    disk: StepDisk,
}

impl StepFile {
    fn put(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)?;
        self.disk
            .with(|platter, _| platter.write(self.inode, offset, bytes));
        Ok(())
    }

    fn put_torn(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut steps = locked(&self.disk.0);
        let Steps {
            platter, chance, ..
        } = &mut *steps;
        platter.write_torn(self.inode, offset, bytes, &mut || chance.random());
        self.file.write_all_at(platter.content(self.inode), 0)
    }
}

impl LogFile for StepFile {
    fn write_at(&mut self, slices: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.to_vec()).collect();
        let half = bytes.len().div_ceil(2);
        match self.disk.at(Point::Write) {
            None => {
                self.put(&bytes, offset)?;
                Ok(bytes.len())
            }
            Some(Fault::Short) => {
                self.put(&bytes[..half], offset)?;
                Ok(half)
            }
            Some(Fault::ShortThenFull) => {
                self.put(&bytes[..half], offset)?;
                Err(full())
            }
            Some(Fault::Torn) => {
                self.put_torn(&bytes, offset)?;
                Err(broken())
            }
            Some(Fault::Full) => Err(full()),
            Some(Fault::Fails | Fault::DoneAndFails) => Err(broken()),
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        self.disk.sync(self.inode)
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        let really = || self.file.set_len(length);
        self.disk.whole(Point::Truncate, really, |platter, _| {
            platter.set_length(self.inode, length);
        })
    }
}
