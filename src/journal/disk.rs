//! The few disk calls of the journal, behind a trait: a test hands in a disk that fails as real ones do.

use super::JournalError;
use rustix::fs::{FallocateFlags, FlockOperation};
use std::fmt::Debug;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// The disk.
pub trait Disk: Send + Sync + Debug {
    /// Makes (or empties) a file with `bytes` allocated, synced.
    ///
    /// # Errors
    /// As the system says; a full disk must be known here, not at the first write.
    fn allocate(&self, path: &Path, bytes: u64) -> io::Result<()>;
    /// Opens a file for writing.
    ///
    /// # Errors
    /// As the system says.
    fn open(&self, path: &Path) -> io::Result<Box<dyn LogFile>>;
    /// Makes a new file, 0600.
    ///
    /// # Errors
    /// As the system says.
    fn create(&self, path: &Path) -> io::Result<Box<dyn LogFile>>;
    /// Renames.
    ///
    /// # Errors
    /// As the system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes.
    ///
    /// # Errors
    /// As the system says.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes a directory, 0700; one that is there stays as it is.
    ///
    /// # Errors
    /// As the system says.
    fn make_folder(&self, path: &Path) -> io::Result<()>;
    /// Makes names durable.
    ///
    /// # Errors
    /// As the system says.
    fn sync_directory(&self, path: &Path) -> io::Result<()>;
}

/// A file that is written at offsets and synced.
pub trait LogFile: Send + Debug + Sync {
    /// Writes some of `slices` at `offset`; how many octets were taken.
    ///
    /// # Errors
    /// As the system says.
    fn write_at(&mut self, slices: &[IoSlice<'_>], offset: u64) -> io::Result<usize>;
    /// fdatasync.
    ///
    /// # Errors
    /// As the system says.
    fn sync(&mut self) -> io::Result<()>;
    /// Cuts the file.
    ///
    /// # Errors
    /// As the system says.
    fn truncate(&mut self, length: u64) -> io::Result<()>;
}

/// Writes all of `slices` at `offset`.
///
/// # Errors
/// As the system says; some may have been written.
pub fn write_all_at(
    file: &mut dyn LogFile,
    mut slices: &mut [IoSlice<'_>],
    mut offset: u64,
) -> io::Result<()> {
    /// IOV_MAX of Linux.
    const MOST: usize = 1024;
    // Nothing to write is no write: a disk that takes nothing of it is well.
    IoSlice::advance_slices(&mut slices, 0);
    while !slices.is_empty() {
        let now = slices.get(..MOST).unwrap_or(slices);
        match file.write_at(now, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                offset += written as u64;
                IoSlice::advance_slices(&mut slices, written);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The machine's disk.
#[derive(Debug)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn allocate(&self, path: &Path, bytes: u64) -> io::Result<()> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)?;
        // The size is set along: with an unchanged size and blocks that exist, fdatasync has no inode to write.
        match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, bytes) {
            Ok(()) => {}
            // Some network and copy-on-write file systems cannot; there a full disk shows at the write.
            Err(
                rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS | rustix::io::Errno::INVAL,
            ) => file.set_len(bytes)?,
            Err(error) => return Err(error.into()),
        }
        file.sync_all()
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn LogFile>> {
        Ok(Box::new(RealFile(
            OpenOptions::new().read(true).write(true).open(path)?,
        )))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn LogFile>> {
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        Ok(Box::new(RealFile(file)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn make_folder(&self, path: &Path) -> io::Result<()> {
        match DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            made => made,
        }
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }
}

#[derive(Debug)]
struct RealFile(File);

impl LogFile for RealFile {
    fn write_at(&mut self, slices: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        match slices {
            [one] => self.0.write_at(one, offset),
            many => Ok(rustix::io::pwritev(&self.0, many, offset)?),
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.0.set_len(length)
    }
}

/// Makes a directory 0700 with those above it, and makes an existing one so: mail is nobody else's business
/// (product.md 10). Its name is durable afterwards, and so are theirs: what is synced in a directory that a power cut takes
/// away is gone with it.
///
/// # Errors
/// The disk fails.
pub fn make_directory(disk: &dyn Disk, path: &Path) -> Result<(), JournalError> {
    make_with_those_above(disk, path)
        .and_then(|()| std::fs::set_permissions(path, PermissionsExt::from_mode(0o700)))
        .map_err(|error| JournalError::of(&format!("making {}", path.display()), &error))
}

fn make_with_those_above(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    let above = match path.parent() {
        None => return Ok(()),
        Some(above) if above.as_os_str().is_empty() => Path::new("."),
        Some(above) => above,
    };
    if !above.exists() {
        make_with_those_above(disk, above)?;
    }
    disk.make_folder(path)?;
    match disk.sync_directory(above) {
        // Not ours to read: then it is not ours to make, either, and its maker has seen to it.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        synced => synced,
    }
}

/// Takes the lock file, without waiting.
pub(super) fn lock(path: &Path) -> Result<File, JournalError> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|error| JournalError::of(&format!("opening {}", path.display()), &error))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(JournalError::Locked),
        Err(error) => Err(JournalError::of(
            &format!("locking {}", path.display()),
            &error.into(),
        )),
    }
}

#[cfg(test)]
pub(crate) mod faulty {
    //! A disk that fails on demand.

    use super::*;
    use crate::journal::locked;
    use std::sync::{Arc, Condvar, Mutex};

    /// What goes wrong next; each is used up by one call.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum Fault {
        /// write: EIO, nothing written.
        Write,
        /// write: half of it, then ENOSPC.
        ShortThenFull,
        /// fdatasync: EIO.
        Sync,
        /// fallocate: ENOSPC.
        Allocate,
        /// Body write: ENOSPC.
        BodyFull,
        /// open: EMFILE, as it were.
        Open,
        /// rename: done, and EIO all the same.
        RenameDone,
        /// fsync of a folder: EIO.
        Folder,
    }

    #[derive(Debug, Default)]
    struct Plan {
        faults: Vec<Fault>,
        /// Path and `write`, `sync` or `fault` of each call.
        log: Vec<(String, &'static str)>,
    }

    #[derive(Debug, Clone, Default)]
    pub(crate) struct FaultyDisk(Arc<Mutex<Plan>>, Arc<Gate>);

    #[derive(Debug, Default)]
    struct Gate(Mutex<bool>, Condvar);

    impl FaultyDisk {
        pub(crate) fn next(&self, faults: &[Fault]) {
            locked(&self.0).faults.extend(faults);
        }
        pub(crate) fn heal(&self) {
            locked(&self.0).faults.clear();
        }
        pub(crate) fn log(&self) -> Vec<(String, &'static str)> {
            locked(&self.0).log.clone()
        }
        /// Makes fdatasync wait, or go on.
        pub(crate) fn pause(&self, paused: bool) {
            *locked(&self.1.0) = paused;
            self.1.1.notify_all();
        }
        /// How many calls of this kind a path that holds `part` has seen.
        pub(crate) fn count(&self, part: &str, what: &str) -> usize {
            let log = self.log();
            let calls = log
                .iter()
                .filter(|(path, call)| path.contains(part) && *call == what);
            calls.count()
        }
        fn take(&self, fault: Fault) -> bool {
            let mut plan = locked(&self.0);
            match plan.faults.iter().position(|planned| *planned == fault) {
                Some(position) => {
                    plan.faults.remove(position);
                    true
                }
                None => false,
            }
        }
        fn note(&self, path: &str, what: &'static str) {
            locked(&self.0).log.push((path.to_owned(), what));
        }
    }

    impl Disk for FaultyDisk {
        fn allocate(&self, path: &Path, bytes: u64) -> io::Result<()> {
            if self.take(Fault::Allocate) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            RealDisk.allocate(path, bytes)
        }
        fn open(&self, path: &Path) -> io::Result<Box<dyn LogFile>> {
            if self.take(Fault::Open) {
                return Err(io::Error::other("injected EMFILE"));
            }
            let file = RealDisk.open(path)?;
            Ok(Box::new(FaultyFile {
                file,
                disk: self.clone(),
                path: path.display().to_string(),
                half_written: false,
            }))
        }
        fn create(&self, path: &Path) -> io::Result<Box<dyn LogFile>> {
            let file = RealDisk.create(path)?;
            Ok(Box::new(FaultyFile {
                file,
                disk: self.clone(),
                path: path.display().to_string(),
                half_written: false,
            }))
        }
        fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
            RealDisk.rename(from, to)?;
            if self.take(Fault::RenameDone) {
                return Err(io::Error::other("injected EIO"));
            }
            Ok(())
        }
        fn remove(&self, path: &Path) -> io::Result<()> {
            RealDisk.remove(path)
        }
        fn make_folder(&self, path: &Path) -> io::Result<()> {
            RealDisk.make_folder(path)
        }
        fn sync_directory(&self, path: &Path) -> io::Result<()> {
            if self.take(Fault::Folder) {
                return Err(io::Error::other("injected EIO"));
            }
            self.note(&path.display().to_string(), "folder");
            RealDisk.sync_directory(path)
        }
    }

    #[derive(Debug)]
    struct FaultyFile {
        file: Box<dyn LogFile>,
        disk: FaultyDisk,
        path: String,
        half_written: bool,
    }

    impl LogFile for FaultyFile {
        fn write_at(&mut self, slices: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
            self.disk.note(&self.path, "write");
            if std::mem::take(&mut self.half_written)
                || (self.path.contains("bodies") && self.disk.take(Fault::BodyFull))
            {
                return Err(io::ErrorKind::StorageFull.into());
            }
            if self.disk.take(Fault::Write) {
                return Err(io::Error::other("injected EIO"));
            }
            if self.disk.take(Fault::ShortThenFull) {
                let first = slices.iter().find(|slice| !slice.is_empty()).unwrap();
                self.half_written = true;
                return self
                    .file
                    .write_at(&[IoSlice::new(&first[..first.len().div_ceil(2)])], offset);
            }
            self.file.write_at(slices, offset)
        }
        fn sync(&mut self) -> io::Result<()> {
            if self.disk.take(Fault::Sync) {
                self.disk.note(&self.path, "fault");
                return Err(io::Error::other("injected EIO"));
            }
            self.disk.note(&self.path, "sync");
            let gate = &self.disk.1;
            drop(
                gate.1
                    .wait_while(locked(&gate.0), |paused| *paused)
                    .unwrap(),
            );
            self.file.sync()
        }
        fn truncate(&mut self, length: u64) -> io::Result<()> {
            self.file.truncate(length)
        }
    }
}
