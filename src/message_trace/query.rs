//! Finds events: by key through the index, by time through the files, and always a message's whole story.

use super::TraceEvent;
use super::log::{bare_message_id, day_of, days, path_of};
use crate::index::{Index, Position};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Seek as _, SeekFrom};
use std::path::Path;

/// What to look for; all that is given must fit.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// Queue id, Message-ID, network message id or address.
    pub text: Option<String>,
    /// Milliseconds since 1970.
    pub since: Option<u64>,
    /// Milliseconds since 1970.
    pub until: Option<u64>,
}

impl Query {
    fn in_time(&self, event: &TraceEvent) -> bool {
        self.since.is_none_or(|since| event.at >= since)
            && self.until.is_none_or(|until| event.at <= until)
    }
}

/// Most events of one answer; the newest win.
const MAX_EVENTS: usize = 5_000;
/// Longest line that is read.
const MAX_LINE: u64 = 1024 * 1024;

/// Runs a query against the files.
pub(super) fn find(
    directory: &Path,
    index: Option<&Index>,
    query: &Query,
) -> std::io::Result<Vec<TraceEvent>> {
    let Some(text) = query.text.as_deref() else {
        return Ok(grouped(scan(directory, query, |_| true)?));
    };
    let key = bare_message_id(text);
    let Some(index) = index else {
        let ids = ids_of(scan(directory, query, |event| mentions(event, key))?);
        return Ok(grouped(scan(directory, &Query::default(), |event| {
            ids.contains(&event.id)
        })?));
    };
    let mut files = Files::default();
    let mut hits = files.read(
        directory,
        &index.find(key, MAX_EVENTS).map_err(std::io::Error::other)?,
    )?;
    hits.retain(|event| query.in_time(event));
    let mut story = Vec::new();
    for id in ids_of(hits) {
        let positions = index.find(&id, MAX_EVENTS).map_err(std::io::Error::other)?;
        story.extend(files.read(directory, &positions)?);
        if story.len() >= MAX_EVENTS {
            break;
        }
    }
    Ok(grouped(story))
}

/// Distinct ids, newest last.
fn ids_of(events: Vec<TraceEvent>) -> Vec<String> {
    let mut ids: Vec<String> = events.into_iter().map(|event| event.id).collect();
    ids.sort();
    ids.dedup();
    ids
}

/// Whether an event names the text as a whole value somewhere.
fn mentions(event: &TraceEvent, key: &str) -> bool {
    fn within(value: &serde_json::Value, key: &str) -> bool {
        match value {
            serde_json::Value::String(text) => bare_message_id(text).eq_ignore_ascii_case(key),
            serde_json::Value::Array(list) => list.iter().any(|value| within(value, key)),
            serde_json::Value::Object(map) => map.values().any(|value| within(value, key)),
            serde_json::Value::Null | serde_json::Value::Bool(_) | serde_json::Value::Number(_) => {
                false
            }
        }
    }
    serde_json::to_value(event).is_ok_and(|value| within(&value, key))
}

/// Messages in the order of their first event, each message's events together and in order.
fn grouped(events: Vec<TraceEvent>) -> Vec<TraceEvent> {
    let mut groups: BTreeMap<String, Vec<TraceEvent>> = BTreeMap::new();
    for event in events {
        groups.entry(event.id.clone()).or_default().push(event);
    }
    let mut groups: Vec<Vec<TraceEvent>> = groups.into_values().collect();
    for group in &mut groups {
        // What is accepted may be on its way, and that written down, within the millisecond in which it came; and the clock
        // may have been set back meanwhile.
        group.sort_by_key(|event| (!event.event.is_first(), event.at));
    }
    groups.sort_by_key(|group| group.first().map(|event| event.at));
    groups.into_iter().flatten().collect()
}

/// Reads the files of the days in question; keeps the newest that fit.
fn scan(
    directory: &Path,
    query: &Query,
    fits: impl Fn(&TraceEvent) -> bool,
) -> std::io::Result<Vec<TraceEvent>> {
    let first = query.since.map_or(0, day_of);
    let last = query.until.map_or(u32::MAX, day_of);
    let mut found = std::collections::VecDeque::new();
    for (day, path) in days(directory)? {
        if !(first..=last).contains(&day) {
            continue;
        }
        let mut reader = match File::open(path) {
            Ok(file) => BufReader::new(file),
            // Too old, and deleted since the folder was read.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        while let Some(event) = next_event(&mut reader)? {
            let Some(event) = event else { continue };
            if query.in_time(&event) && fits(&event) {
                if found.len() == MAX_EVENTS {
                    found.pop_front();
                }
                found.push_back(event);
            }
        }
    }
    Ok(found.into())
}

/// The next line; the inner `None` is a line that cannot be read (torn by a crash).
fn next_event(reader: &mut BufReader<File>) -> std::io::Result<Option<Option<TraceEvent>>> {
    use std::io::Read as _;
    let mut line = Vec::new();
    if reader
        .by_ref()
        .take(MAX_LINE)
        .read_until(b'\n', &mut line)?
        == 0
    {
        return Ok(None);
    }
    Ok(Some(serde_json::from_slice(&line).ok()))
}

/// Files that are open while a query runs.
#[derive(Default)]
struct Files(BTreeMap<u32, Option<BufReader<File>>>);

impl Files {
    /// The events at these positions; what retention has deleted is passed over.
    fn read(
        &mut self,
        directory: &Path,
        positions: &[Position],
    ) -> std::io::Result<Vec<TraceEvent>> {
        let mut events = Vec::with_capacity(positions.len());
        for position in positions {
            let open = || {
                File::open(path_of(directory, position.day))
                    .ok()
                    .map(BufReader::new)
            };
            let Some(reader) = self.0.entry(position.day).or_insert_with(open) else {
                continue;
            };
            reader.seek(SeekFrom::Start(position.offset))?;
            if let Some(Some(event)) = next_event(reader)? {
                events.push(event);
            }
        }
        Ok(events)
    }
}
