//! Is what was read also on disk?
//!
//! After a kill the kernel still holds what was written and not synced, and replay reads it like everything else. Much is
//! decided upon what was read: a segment whose messages were copied forward is deleted, a body file that is done removed. Were
//! the copy, or the word "done", still only in memory, a power cut would then take mail that was answered 250.
//!
//! So the end of the journal, which nothing that follows has vouched for, is written once more and synced before anything
//! is decided. Synced alone would not do: after a failed fdatasync the kernel may show pages that never reached the disk
//! and take them for clean, and the next fdatasync succeeds without writing them. The octets are the same, so a write that is
//! torn does no harm.

use super::JournalError;
use super::disk::{Disk, write_all_at};
use super::replay::Segment;
use std::fs::File;
use std::io::IoSlice;
use std::os::unix::fs::FileExt;
use std::path::Path;

const PIECE: u64 = 1024 * 1024;

/// Makes durable what was read in segments that no other one vouches for, and the names of all.
///
/// # Errors
/// The disk fails: then nothing may be decided upon what was read.
pub(super) fn confirm(
    directory: &Path,
    disk: &dyn Disk,
    segments: &[Segment],
) -> Result<(), JournalError> {
    for segment in segments {
        if !segment.vouched && segment.end > 0 {
            let path = segment.name.path(directory);
            rewrite(&path, disk, segment.end).map_err(|error| {
                JournalError::of(&format!("writing {} once more", path.display()), &error)
            })?;
        }
    }
    disk.sync_directory(directory)
        .map_err(|error| JournalError::of(&format!("syncing {}", directory.display()), &error))
}

fn rewrite(path: &Path, disk: &dyn Disk, end: u64) -> std::io::Result<()> {
    let read = File::open(path)?;
    let mut file = disk.open(path)?;
    let mut octets = Vec::new();
    let mut at = 0;
    while at < end {
        let length = PIECE.min(end - at);
        octets.resize(usize::try_from(length).unwrap_or_default(), 0);
        read.read_exact_at(&mut octets, at)?;
        write_all_at(file.as_mut(), &mut [IoSlice::new(&octets)], at)?;
        at += length;
    }
    file.sync()
}
