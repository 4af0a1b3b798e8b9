//! Daily append-only files of JSON lines, written by a thread of its own in batches.

use super::inbox::{Batch, Mark, Orders, Receiver};
use super::shelf::Shelf;
use super::{Event, TraceEvent};
use crate::index::{IndexError, Key, Position, Sweep};
use std::fs::File;
use std::io::{BufRead as _, BufReader, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

const DAY_MILLIS: u64 = 86_400_000;
/// Rows of the index that are looked at in one step when old ones are removed: what waits meanwhile waits for milliseconds.
const STEP: usize = 20_000;
/// Octets of the disk that are left to the mail, or a quarter of a small disk: lines are lost before a message is refused.
const LEFT_FOR_MAIL: u64 = 256 * 1024 * 1024;
/// Octets beyond those that must be free before lines are written again: at the edge each batch would say so.
const REGAINED: usize = 16 * 1024 * 1024;
/// Lines that the index reads in one step.
const LINES: usize = 1_000;

pub(super) struct Writer {
    shelf: Arc<Shelf>,
    keep_days: u32,
    lost: prometheus::IntCounter,
    open: Option<Day>,
    /// The day that was last told.
    today: Option<u32>,
    /// The oldest day that was kept when last looked.
    oldest: Option<u32>,
    /// The removal of old index rows, while it is under way.
    sweep: Option<Sweep>,
    /// What is left of the disk.
    room: fn(&Path) -> std::io::Result<Room>,
    /// Lines are being lost.
    losing: bool,
}

/// A disk, in octets.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    pub(super) free: u64,
    pub(super) size: u64,
}

impl Room {
    /// What the disk of `directory` has for programs without privileges.
    fn of(directory: &Path) -> std::io::Result<Self> {
        let disk = rustix::fs::statvfs(directory)?;
        Ok(Self {
            free: disk.f_bavail.saturating_mul(disk.f_frsize),
            size: disk.f_blocks.saturating_mul(disk.f_frsize),
        })
    }

    /// Whether so many octets leave enough. A file system that says nothing of its size is believed to have room.
    fn takes(self, octets: usize) -> bool {
        let left = LEFT_FOR_MAIL.min(self.size / 4);
        self.size == 0 || self.free >= left.saturating_add(octets as u64)
    }
}

/// The file that is appended to.
struct Day {
    number: u32,
    file: File,
    length: u64,
}

impl Writer {
    pub(super) fn new(shelf: Arc<Shelf>, keep: Duration, lost: prometheus::IntCounter) -> Self {
        Self {
            shelf,
            keep_days: in_days(keep),
            lost,
            open: None,
            today: None,
            oldest: None,
            sweep: None,
            room: Room::of,
            losing: false,
        }
    }

    /// The same on a disk that `room` measures.
    #[cfg(test)]
    pub(super) fn with_room(self, room: fn(&Path) -> std::io::Result<Room>) -> Self {
        Self { room, ..self }
    }

    /// Writes until nobody records any more. The index is opened here: a start does not wait for it.
    pub(super) fn run(mut self, inbox: &Receiver) {
        self.shelf.open_index();
        let mut batch = Batch::default();
        while let Some(orders) = inbox.next(&mut batch, self.is_busy()) {
            self.write(&batch);
            batch.clear();
            self.obey(orders);
            self.read_on();
            self.sweep();
        }
        if let Some(index) = self.shelf.index()
            && let Err(error) = index.flush()
        {
            tracing::warn!(%error, "index");
        }
    }

    /// Whether there is something to do that nobody asks for.
    fn is_busy(&self) -> bool {
        self.sweep.is_some() || self.shelf.first_unread().is_some() && self.has_room(0)
    }

    fn obey(&mut self, orders: Orders) {
        if let Some(keep) = orders.keep {
            self.keep_days = in_days(keep);
            self.oldest = None;
        }
        let asked = orders.keep.is_some() || orders.today.is_some();
        self.today = orders.today.or(self.today);
        // A shorter time after a reload counts from the date that was last told: this moment's may be wrong.
        if let Some(day) = self.today.filter(|_| asked) {
            self.retain(day);
        }
        for done in orders.flushes {
            if done.send(()).is_err() {
                tracing::debug!("nobody waits for the flush any more");
            }
        }
    }

    pub(super) fn write(&mut self, batch: &Batch) {
        let (mut octets, mut keys) = (&*batch.octets, &*batch.keys);
        for lines in batch.marks.chunk_by(|one, two| one.day == two.day) {
            let length = lines.iter().map(|line| line.octets).sum();
            let (own, rest) = octets.split_at_checked(length).unwrap_or_default();
            octets = rest;
            let count = lines.iter().map(|line| line.keys).sum();
            let (own_keys, rest) = keys.split_at_checked(count).unwrap_or_default();
            keys = rest;
            self.write_lines(lines, own, own_keys);
        }
    }

    /// Writes lines of one day, and gives the index those that are written.
    fn write_lines(&mut self, lines: &[Mark], octets: &[u8], keys: &[Key]) {
        let Some(number) = lines.first().map(|line| line.day) else {
            return;
        };
        let more = if self.losing { REGAINED } else { 0 };
        if !self.has_room(octets.len() + more) {
            self.loses(&"the rest of the disk is left to the mail");
            self.lost.inc_by(lines.len() as u64);
            return;
        }
        let (start, written) = match self.open_day(number) {
            Ok(day) => {
                let start = day.length;
                (start, day.append(octets))
            }
            Err(error) => (0, Err(error)),
        };
        let end = start + self.open.as_ref().map_or(0, |day| day.length - start);
        match written {
            Ok(()) if self.losing => {
                self.losing = false;
                tracing::info!("the trace is written again");
            }
            Ok(()) => {}
            Err(error) => {
                self.open = None;
                self.loses(&error);
            }
        }
        let (mut offset, mut keys) = (start, keys);
        let first = Position {
            day: number,
            offset,
        };
        let index = self.shelf.takes(first);
        let mut failed = None;
        for line in lines {
            let position = Position {
                day: number,
                offset,
            };
            offset += line.octets as u64;
            if offset > end {
                self.lost.inc();
                continue;
            }
            let (own, rest) = keys.split_at_checked(line.keys).unwrap_or_default();
            keys = rest;
            if let Some(index) = index
                && let Err(error) = index.gather(own, position, offset)
            {
                failed = Some(error);
            }
        }
        missed(failed);
    }

    /// Whether the disk has room for so many octets; where nobody can say, it says so itself.
    fn has_room(&self, octets: usize) -> bool {
        (self.room)(&self.shelf.directory).map_or(true, |room| room.takes(octets))
    }

    /// Lines are lost: said when it begins, for ten times a second would fill another disk.
    fn loses(&mut self, why: &dyn std::fmt::Display) {
        if !std::mem::replace(&mut self.losing, true) {
            tracing::warn!(%why, "the trace is not written: stories have gaps from here on");
        }
    }

    fn open_day(&mut self, number: u32) -> std::io::Result<&mut Day> {
        let other = self.open.take_if(|day| day.number != number);
        let day = match self.open.take() {
            Some(day) => day,
            None => {
                drop(other);
                Day::open(&self.shelf.directory, number)?
            }
        };
        Ok(self.open.insert(day))
    }

    /// Deletes the files of days that are too old; what the index knows of them goes step by step.
    fn retain(&mut self, today: u32) {
        let oldest = today.saturating_sub(self.keep_days);
        if self.oldest == Some(oldest) {
            return;
        }
        self.oldest = Some(oldest);
        self.sweep = Some(Sweep::before(oldest));
        for (number, path) in days(&self.shelf.directory).unwrap_or_default() {
            if number < oldest
                && let Err(error) = std::fs::remove_file(&path)
            {
                tracing::warn!(%error, file = %path.display(), "an old trace file stays");
                self.oldest = None;
            }
        }
    }

    fn sweep(&mut self) {
        let (Some(index), Some(sweep)) = (self.shelf.index(), &mut self.sweep) else {
            self.sweep = None;
            return;
        };
        match index.forget(sweep, STEP) {
            Ok(false) => {}
            Ok(true) => self.sweep = None,
            Err(error) => {
                tracing::warn!(%error, "old index rows stay");
                self.sweep = None;
            }
        }
    }

    /// Reads some of what the index has not read: after a crash, or all where the index is new.
    fn read_on(&self) {
        let (Some(from), Some(index)) = (self.shelf.first_unread(), self.shelf.index()) else {
            return;
        };
        if !self.has_room(0) {
            return;
        }
        let mut failed = None;
        let mut gather = |keys: &[Key], position, end| {
            if let Err(error) = index.gather(keys, position, end) {
                failed = Some(error);
            }
        };
        let until = read_lines(&self.shelf.directory, from, &mut gather);
        self.shelf.has_read(
            from.day,
            until.unwrap_or_else(|error| {
                tracing::debug!(%error, "a trace file has gone, or cannot be read");
                None
            }),
        );
        missed(failed);
    }
}

fn missed(failed: Option<IndexError>) {
    if let Some(error) = failed {
        tracing::warn!(%error, "trace look-ups will miss something");
    }
}

impl Day {
    fn open(directory: &Path, number: u32) -> std::io::Result<Self> {
        use std::os::unix::fs::OpenOptionsExt as _;
        let path = path_of(directory, number);
        let mut file = File::options()
            .create(true)
            .append(true)
            .read(true)
            .mode(0o600)
            .open(&path)?;
        let mut length = file.metadata()?.len();
        if length > 0 && !ends_with_newline(&path)? {
            // A line that a crash tore: it stays alone on its line.
            file.write_all(b"\n")?;
            length += 1;
        }
        Ok(Self {
            number,
            file,
            length,
        })
    }

    /// Appends; after an error `length` says how far.
    fn append(&mut self, mut octets: &[u8]) -> std::io::Result<()> {
        while !octets.is_empty() {
            match self.file.write(octets) {
                Ok(0) => return Err(std::io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    self.length += written as u64;
                    octets = octets.get(written..).unwrap_or_default();
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Hands out the keys of up to [`LINES`] events from a position on, each with its position and its end; where to go on, or
/// nothing at the end of the file.
fn read_lines(
    directory: &Path,
    from: Position,
    gather: &mut impl FnMut(&[Key], Position, u64),
) -> std::io::Result<Option<u64>> {
    let Position { day, mut offset } = from;
    let mut reader = BufReader::with_capacity(64 * 1024, File::open(path_of(directory, day))?);
    reader.seek(SeekFrom::Start(offset))?;
    let mut line = Vec::new();
    let mut own = Vec::new();
    for _ in 0..LINES {
        line.clear();
        let length = reader.read_until(b'\n', &mut line)?;
        if length == 0 {
            return Ok(None);
        }
        let position = Position { day, offset };
        offset += length as u64;
        own.clear();
        if let Ok(event) = serde_json::from_slice::<TraceEvent>(&line) {
            own.extend(keys(&event));
        }
        gather(&own, position, offset);
    }
    Ok(Some(offset))
}

fn ends_with_newline(path: &Path) -> std::io::Result<bool> {
    use std::io::{Read as _, Seek as _, SeekFrom};
    let mut file = File::open(path)?;
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}

/// What an event is found by: its id, and what names its message.
pub(super) fn keys(event: &TraceEvent) -> impl Iterator<Item = Key> {
    std::iter::once(Key::story(&event.id)).chain(names(event).map(Key::name))
}

/// What names the message of an event.
pub(super) fn names(event: &TraceEvent) -> impl Iterator<Item = &str> {
    let (sender, recipients, message_id, network_message_id) = match &event.event {
        Event::Refused {
            sender,
            recipients,
            message_id,
            ..
        } => (
            sender.as_deref(),
            &**recipients,
            message_id.as_deref(),
            None,
        ),
        Event::Received {
            sender,
            recipients,
            message_id,
            network_message_id,
            ..
        } => (
            Some(&**sender),
            &**recipients,
            message_id.as_deref(),
            network_message_id.as_deref(),
        ),
        Event::HandshakeFailed { .. }
        | Event::Attempt { .. }
        | Event::Report { .. }
        | Event::Queue { .. }
        | Event::Operator { .. } => (None, &[][..], None, None),
    };
    let sender = sender.filter(|sender| !sender.is_empty());
    sender
        .into_iter()
        .chain(recipients.iter().map(String::as_str))
        .chain(message_id.map(bare_message_id))
        .chain(network_message_id)
}

/// A Message-ID without its angle brackets: people paste it either way.
pub(super) fn bare_message_id(text: &str) -> &str {
    let text = text.trim();
    text.strip_prefix('<')
        .and_then(|inner| inner.strip_suffix('>'))
        .unwrap_or(text)
}

fn in_days(keep: Duration) -> u32 {
    u32::try_from(keep.as_secs().div_ceil(86_400)).unwrap_or(u32::MAX)
}

/// Days since 1970.
pub(super) fn day_of(unix_millis: u64) -> u32 {
    u32::try_from(unix_millis / DAY_MILLIS).unwrap_or(u32::MAX)
}

const FORMAT: &[time::format_description::FormatItem<'_>] =
    time::macros::format_description!("[year]-[month]-[day].jsonl");

pub(super) fn path_of(directory: &Path, day: u32) -> PathBuf {
    let date = time::Date::from_julian_day(JULIAN_1970.saturating_add_unsigned(day))
        .unwrap_or(time::Date::MAX);
    directory.join(
        date.format(FORMAT)
            .unwrap_or_else(|_| format!("{day}.jsonl")),
    )
}

/// The Julian day of 1 January 1970.
const JULIAN_1970: i32 = 2_440_588;

/// The daily files, oldest first.
pub(super) fn days(directory: &Path) -> std::io::Result<Vec<(u32, PathBuf)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let date = path
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| time::Date::parse(name, FORMAT).ok());
        if let Some(number) =
            date.and_then(|date| u32::try_from(date.to_julian_day() - JULIAN_1970).ok())
        {
            found.push((number, path));
        }
    }
    found.sort();
    Ok(found)
}
