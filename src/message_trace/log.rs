//! Daily append-only files of JSON lines, written by a thread of its own in batches.

use super::{Event, TraceEvent};
use crate::index::{Index, Position};
use std::fs::File;
use std::io::{BufRead as _, BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

/// What the writer is told.
pub(super) enum Order {
    Write(Box<TraceEvent>),
    /// Answer once everything before is in the files and in the index.
    Flush(tokio::sync::oneshot::Sender<()>),
    /// It is this day: what is too old goes.
    Today(u32),
    /// From now on files are kept for as long.
    Keep(Duration),
}

const DAY_MILLIS: u64 = 86_400_000;
/// Rows that are gathered for one index batch.
const BATCH: usize = 512;
/// Rows of the index that are looked at in one step when old ones are removed: what waits meanwhile waits for milliseconds.
const STEP: usize = 20_000;
/// How long a written event may stay in memory.
const PAUSE: Duration = Duration::from_millis(500);

pub(super) struct Writer {
    directory: PathBuf,
    keep_days: u32,
    index: Option<Index>,
    lost: prometheus::IntCounter,
    open: Option<Day>,
    keys: Vec<(String, Position)>,
    /// The oldest day that was kept when last looked.
    oldest: Option<u32>,
    /// Where the removal of old index rows goes on; nothing while there is none under way.
    sweep: Option<Vec<u8>>,
}

/// The file that is appended to.
struct Day {
    number: u32,
    file: BufWriter<File>,
    length: u64,
}

impl Writer {
    pub(super) fn new(
        directory: PathBuf,
        keep: Duration,
        index: Option<Index>,
        lost: prometheus::IntCounter,
    ) -> Self {
        Self {
            directory,
            keep_days: in_days(keep),
            index,
            lost,
            open: None,
            keys: Vec::new(),
            oldest: None,
            sweep: None,
        }
    }

    pub(super) fn run(mut self, inbox: &Receiver<Order>, fill: bool) {
        if fill {
            self.fill_index();
        }
        loop {
            match inbox.recv_timeout(PAUSE) {
                Ok(Order::Write(event)) => self.write(&event),
                Ok(Order::Flush(done)) => {
                    self.flush();
                    if done.send(()).is_err() {
                        tracing::debug!("nobody waits for the flush any more");
                    }
                }
                Ok(Order::Today(day)) => self.retain(day),
                Ok(Order::Keep(keep)) => {
                    self.keep_days = in_days(keep);
                    self.oldest = None;
                }
                Err(RecvTimeoutError::Timeout) => self.flush(),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        self.flush();
        if let Some(index) = &self.index
            && let Err(error) = index.flush()
        {
            tracing::warn!(%error, "index");
        }
    }

    fn write(&mut self, event: &TraceEvent) {
        if let Err(error) = self.try_write(event) {
            self.lost.inc();
            tracing::debug!(%error, "a trace event could not be written");
            self.open = None;
        }
        if self.keys.len() >= BATCH {
            self.index_keys();
        }
    }

    fn try_write(&mut self, event: &TraceEvent) -> std::io::Result<()> {
        let number = day_of(event.at);
        if self.open.as_ref().is_none_or(|day| day.number != number) {
            self.open_day(number)?;
        }
        let Some(day) = &mut self.open else {
            return Ok(());
        };
        let mut line = serde_json::to_vec(event)?;
        line.push(b'\n');
        let position = Position {
            day: number,
            offset: day.length,
        };
        day.file.write_all(&line)?;
        day.length += line.len() as u64;
        if self.index.is_some() {
            self.keys
                .extend(keys(event).into_iter().map(|key| (key, position)));
        }
        Ok(())
    }

    fn open_day(&mut self, number: u32) -> std::io::Result<()> {
        use std::os::unix::fs::OpenOptionsExt as _;
        if let Some(mut day) = self.open.take() {
            day.file.flush()?;
        }
        let path = path_of(&self.directory, number);
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
        self.open = Some(Day {
            number,
            file: BufWriter::with_capacity(64 * 1024, file),
            length,
        });
        Ok(())
    }

    /// Deletes the files of days that are too old, and step by step what the index knows of them.
    fn retain(&mut self, today: u32) {
        let oldest = today.saturating_sub(self.keep_days);
        if self.oldest != Some(oldest) {
            self.oldest = Some(oldest);
            self.sweep = Some(Vec::new());
            for (number, path) in days(&self.directory).unwrap_or_default() {
                if number < oldest
                    && let Err(error) = std::fs::remove_file(&path)
                {
                    tracing::warn!(%error, file = %path.display(), "an old trace file stays");
                    self.oldest = None;
                }
            }
        }
        if let (Some(index), Some(after)) = (&self.index, self.sweep.take()) {
            match index.forget_before(oldest, &after, STEP) {
                Ok(next) => self.sweep = next,
                Err(error) => tracing::warn!(%error, "old index rows stay"),
            }
        }
    }

    fn flush(&mut self) {
        if let Some(day) = &mut self.open
            && let Err(error) = day.file.flush()
        {
            self.lost.inc();
            tracing::warn!(%error, "trace");
            self.open = None;
        }
        self.index_keys();
    }

    fn index_keys(&mut self) {
        let Some(index) = &self.index else { return };
        if self.keys.is_empty() {
            return;
        }
        if let Err(error) = index.add(
            self.keys
                .iter()
                .map(|(key, position)| (key.as_str(), *position)),
        ) {
            tracing::warn!(%error, "trace look-ups will miss something");
        }
        self.keys.clear();
    }

    /// Reads all files once, for an index that is new.
    fn fill_index(&mut self) {
        for (number, path) in days(&self.directory).unwrap_or_default() {
            let Ok(file) = File::open(&path) else {
                continue;
            };
            let mut reader = BufReader::new(file);
            let (mut offset, mut line) = (0, Vec::new());
            while let Ok(length) = reader.read_until(b'\n', &mut line) {
                if length == 0 {
                    break;
                }
                if let Ok(event) = serde_json::from_slice::<TraceEvent>(&line) {
                    let position = Position {
                        day: number,
                        offset,
                    };
                    self.keys
                        .extend(keys(&event).into_iter().map(|key| (key, position)));
                }
                if self.keys.len() >= BATCH {
                    self.index_keys();
                }
                offset += length as u64;
                line.clear();
            }
        }
        self.index_keys();
    }
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
fn keys(event: &TraceEvent) -> Vec<String> {
    let mut keys = vec![event.id.clone()];
    let mut message =
        |sender: Option<&String>, recipients: &[String], message_id: Option<&String>| {
            keys.extend(sender.filter(|sender| !sender.is_empty()).cloned());
            keys.extend(recipients.iter().cloned());
            keys.extend(message_id.map(|id| bare_message_id(id).to_owned()));
        };
    match &event.event {
        Event::Refused {
            sender,
            recipients,
            message_id,
            ..
        } => {
            message(sender.as_ref(), recipients, message_id.as_ref());
        }
        Event::Received {
            sender,
            recipients,
            message_id,
            network_message_id,
            ..
        } => {
            message(Some(sender), recipients, message_id.as_ref());
            keys.extend(network_message_id.clone());
        }
        Event::HandshakeFailed { .. }
        | Event::Attempt { .. }
        | Event::Report { .. }
        | Event::Queue { .. }
        | Event::Operator { .. } => {}
    }
    keys
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
