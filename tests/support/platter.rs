//! What a disk holds beside what programs see: the contents and names that were synced, and those that were not.
//!
//! Programs see the cache. A power cut leaves what was synced, and of the rest whatever [`Loss`] says: names in any choice
//! of those since the directory was synced, contents in sectors of 512 octets. A failed fdatasync loses what it was for, as
//! Linux does: the pages count as clean afterwards, programs go on seeing them, and no later sync writes them. After a kill
//! everything is as programs saw it, and still not synced.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "not every program that includes it uses all of it"
)]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const SECTOR: usize = 512;

#[derive(Clone, Debug)]
enum Change {
    Write { offset: usize, bytes: Arc<[u8]> },
    Length(usize),
}

#[derive(Clone, Debug, Default)]
struct Inode {
    cache: Arc<Vec<u8>>,
    durable: Arc<Vec<u8>>,
    pending: Vec<Change>,
}

#[derive(Clone, Debug)]
enum Naming {
    Folder(PathBuf),
    Make(PathBuf, u64),
    Move(PathBuf, PathBuf),
    Drop(PathBuf),
}

impl Naming {
    fn is_in(&self, folder: &Path) -> bool {
        match self {
            Self::Folder(own) | Self::Make(own, _) | Self::Drop(own) => {
                own.parent() == Some(folder)
            }
            Self::Move(from, to) => from.parent() == Some(folder) || to.parent() == Some(folder),
        }
    }
}

#[derive(Clone, Debug, Default)]
struct Names {
    folders: BTreeSet<PathBuf>,
    files: BTreeMap<PathBuf, u64>,
}

impl Names {
    fn take(&mut self, naming: &Naming) {
        match naming {
            Naming::Folder(path) => {
                self.folders.insert(path.clone());
            }
            Naming::Make(path, inode) => {
                self.files.insert(path.clone(), *inode);
            }
            Naming::Move(from, to) => {
                if let Some(inode) = self.files.remove(from) {
                    self.files.insert(to.clone(), inode);
                }
            }
            Naming::Drop(path) => {
                self.files.remove(path);
            }
        }
    }
}

/// What of the cache reaches the platter before the light goes out.
pub struct Loss<'a> {
    /// Whether the next change of a name does.
    pub names: &'a mut dyn FnMut() -> bool,
    /// Whether the next sector does.
    pub sectors: &'a mut dyn FnMut() -> bool,
}

/// The files that are left, with their folders; relative to the root where the platter was given one.
#[derive(Clone, Debug, Default)]
pub struct Left {
    folders: BTreeSet<PathBuf>,
    files: BTreeMap<PathBuf, Arc<Vec<u8>>>,
}

impl Left {
    /// Lays the files out below `to`, as they lay below `from`.
    pub fn lay_out(&self, from: &Path, to: &Path) {
        for folder in &self.folders {
            let folder = to.join(folder.strip_prefix(from).unwrap_or_else(|_| Path::new("")));
            std::fs::create_dir_all(folder).unwrap();
        }
        for (path, content) in &self.files {
            let path = to.join(path.strip_prefix(from).expect("a path of the store"));
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content.as_slice()).unwrap();
        }
    }
}

/// The disk.
#[derive(Clone, Debug, Default)]
pub struct Platter {
    inodes: HashMap<u64, Inode>,
    names: Names,
    durable: Names,
    namings: Vec<Naming>,
    next: u64,
}

impl Platter {
    /// A disk that holds what a power cut left, all of it synced, and `folder` on it (empty where nothing was left).
    pub fn holding(left: &Left) -> Self {
        let mut new = Self::default();
        for (path, content) in &left.files {
            new.next += 1;
            let inode = Inode {
                cache: Arc::clone(content),
                durable: Arc::clone(content),
                pending: Vec::new(),
            };
            new.inodes.insert(new.next, inode);
            new.names.files.insert(path.clone(), new.next);
        }
        new.names.folders.clone_from(&left.folders);
        new.durable = new.names.clone();
        new
    }

    pub fn inode(&self, path: &Path) -> Option<u64> {
        self.names.files.get(path).copied()
    }

    pub fn make_folder(&mut self, path: &Path) {
        if !self.names.folders.contains(path) {
            self.name(Naming::Folder(path.to_owned()));
        }
    }

    /// A new file, or the one that is there.
    pub fn make(&mut self, path: &Path) -> u64 {
        if let Some(inode) = self.inode(path) {
            return inode;
        }
        self.next += 1;
        self.inodes.insert(self.next, Inode::default());
        self.name(Naming::Make(path.to_owned(), self.next));
        self.next
    }

    pub fn rename(&mut self, from: &Path, to: &Path) {
        self.name(Naming::Move(from.to_owned(), to.to_owned()));
    }

    pub fn remove(&mut self, path: &Path) {
        self.name(Naming::Drop(path.to_owned()));
    }

    fn name(&mut self, naming: Naming) {
        self.names.take(&naming);
        self.namings.push(naming);
    }

    pub fn write(&mut self, inode: u64, offset: u64, bytes: &[u8]) {
        let offset = usize::try_from(offset).unwrap();
        let bytes = bytes.into();
        self.change(inode, Change::Write { offset, bytes });
    }

    /// As much of a write as `keep` lets through, sector by sector; programs see it too.
    pub fn write_torn(
        &mut self,
        inode: u64,
        offset: u64,
        bytes: &[u8],
        keep: &mut dyn FnMut() -> bool,
    ) {
        let offset = usize::try_from(offset).unwrap();
        for (at, piece) in sectors(offset, bytes) {
            if keep() {
                self.write(inode, at as u64, piece);
            }
        }
    }

    pub fn set_length(&mut self, inode: u64, length: u64) {
        self.change(inode, Change::Length(usize::try_from(length).unwrap()));
    }

    fn change(&mut self, inode: u64, change: Change) {
        let inode = self.inodes.get_mut(&inode).unwrap();
        apply(Arc::make_mut(&mut inode.cache), &change, &mut || true);
        inode.pending.push(change);
    }

    pub fn content(&self, inode: u64) -> &[u8] {
        &self.inodes[&inode].cache
    }

    pub fn sync(&mut self, inode: u64) {
        self.lose(inode, &mut || true);
    }

    /// A sync that failed: what `keep` lets through has reached the platter, the rest never will.
    pub fn lose(&mut self, inode: u64, keep: &mut dyn FnMut() -> bool) {
        let inode = self.inodes.get_mut(&inode).unwrap();
        let durable = Arc::make_mut(&mut inode.durable);
        for change in std::mem::take(&mut inode.pending) {
            apply(durable, &change, keep);
        }
    }

    pub fn sync_directory(&mut self, folder: &Path) {
        let namings = std::mem::take(&mut self.namings);
        let (done, left): (Vec<_>, _) =
            namings.into_iter().partition(|naming| naming.is_in(folder));
        done.iter().for_each(|naming| self.durable.take(naming));
        self.namings = left;
    }

    /// How many changes of names are not synced.
    pub fn open_namings(&self) -> usize {
        self.namings.len()
    }

    /// What a power cut leaves.
    pub fn cut(&self, loss: &mut Loss<'_>) -> Left {
        let mut names = self.durable.clone();
        for naming in &self.namings {
            if (loss.names)() {
                names.take(naming);
            }
        }
        // What lies in a folder that has no name is not found again.
        let is_found = |path: &Path| {
            let mut folders = path.ancestors().skip(1);
            folders.all(|folder| {
                !self.names.folders.contains(folder) || names.folders.contains(folder)
            })
        };
        let files = names.files.iter().filter(|(path, _)| is_found(path));
        let files = files.map(|(path, inode)| {
            let inode = &self.inodes[inode];
            let mut content = Arc::clone(&inode.durable);
            for change in &inode.pending {
                apply(Arc::make_mut(&mut content), change, loss.sectors);
            }
            (path.clone(), content)
        });
        let files = files.collect();
        let folders = names.folders.iter().filter(|path| is_found(path)).cloned();
        Left {
            folders: folders.collect(),
            files,
        }
    }

    /// What a kill leaves: all that programs saw.
    pub fn seen(&self) -> Left {
        let files = self.names.files.iter();
        let files =
            files.map(|(path, inode)| (path.clone(), Arc::clone(&self.inodes[inode].cache)));
        Left {
            folders: self.names.folders.clone(),
            files: files.collect(),
        }
    }
}

/// The pieces of a write that lie in one sector each, with where they go.
fn sectors(offset: usize, bytes: &[u8]) -> Vec<(usize, &[u8])> {
    let (mut at, mut left) = (offset, bytes);
    let mut pieces = Vec::new();
    while !left.is_empty() {
        let (piece, rest) = left.split_at((SECTOR - at % SECTOR).min(left.len()));
        pieces.push((at, piece));
        at += piece.len();
        left = rest;
    }
    pieces
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
            for (at, piece) in sectors(*offset, bytes) {
                if keep() {
                    if content.len() < at + piece.len() {
                        content.resize(at + piece.len(), 0);
                    }
                    content[at..at + piece.len()].copy_from_slice(piece);
                }
            }
        }
    }
}
