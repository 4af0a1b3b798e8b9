//! Finds events: by key through the index, by time through the files, and always a message's whole story.

use super::TraceEvent;
use super::log::{bare_message_id, day_of, days, names, path_of};
use super::shelf::Shelf;
use crate::index::{Key, Position};
use crate::mail::shown;
use std::collections::{BTreeMap, BTreeSet, HashSet};
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
pub(super) fn find(shelf: &Shelf, query: &Query) -> std::io::Result<Vec<TraceEvent>> {
    let Some(text) = query.text.as_deref() else {
        let first = query.since.map_or(0, day_of);
        let last = query.until.map_or(u32::MAX, day_of);
        let days = days(&shelf.directory)?;
        let days = days.into_iter().map(|(day, _)| (day, 0));
        let days = days.filter(|(day, _)| (first..=last).contains(day));
        return Ok(grouped(scan(&shelf.directory, days, |event| {
            query.in_time(event)
        })?));
    };
    // Before the index is asked: what it reads meanwhile is then found twice, and not missed.
    let beside = shelf.beside_the_index()?;
    let id = bare_message_id(text);
    let forms = forms(id);
    let mut keys = vec![Key::story(id)];
    keys.extend(forms.iter().map(|form| Key::name(form)));
    let id = id.to_lowercase();
    let is_meant = |event: &TraceEvent| {
        query.in_time(event)
            && (event.id.to_lowercase() == id
                || names(event).any(|own| forms.contains(&own.to_lowercase())))
    };
    let mut hits = indexed(shelf, &mut Files::default(), &keys, is_meant)?;
    hits.extend(scan(&shelf.directory, beside.clone(), is_meant)?);
    let mut story = Found::new();
    let mut files = Files::default();
    let mut ids = HashSet::new();
    // The newest first: what is more than an answer holds is old.
    for event in hits.into_values().rev() {
        if story.len() >= MAX_EVENTS || ids.contains(&event.id) {
            continue;
        }
        let own = |other: &TraceEvent| other.id == event.id;
        story.extend(indexed(shelf, &mut files, &[Key::story(&event.id)], own)?);
        ids.insert(event.id);
    }
    let of_these = |event: &TraceEvent| ids.contains(&event.id);
    story.extend(scan(&shelf.directory, beside, of_these)?);
    Ok(grouped(story))
}

/// What a name that somebody asks for may be kept as, in lower case: as it was typed, or as [`shown`] writes it, which
/// escapes what is no ASCII, and cuts. People paste either. Letters beyond ASCII are escaped in the case in which they came: in
/// small and in capital letters they are looked for, too.
fn forms(name: &str) -> BTreeSet<String> {
    let mut forms = BTreeSet::from([name.to_lowercase()]);
    for name in [name, &name.to_lowercase(), &name.to_uppercase()] {
        let address = shown(name.as_bytes());
        // With its brackets a Message-ID is cut elsewhere.
        let message_id = shown(format!("<{name}>").as_bytes());
        forms.insert(bare_message_id(&message_id).to_lowercase());
        forms.insert(address.to_lowercase());
    }
    forms
}

/// Events by where they stand: what is found in two ways is one.
type Found = BTreeMap<Position, TraceEvent>;

/// The events that the index knows by one of `keys`, the newest.
fn indexed(
    shelf: &Shelf,
    files: &mut Files,
    keys: &[Key],
    is_meant: impl Fn(&TraceEvent) -> bool,
) -> std::io::Result<Found> {
    let mut found = Found::new();
    let Some(index) = shelf.index() else {
        return Ok(found);
    };
    for key in keys {
        let positions = index
            .find(*key, MAX_EVENTS)
            .map_err(std::io::Error::other)?;
        for position in positions {
            let event = files.read(&shelf.directory, position)?;
            // A name is a hash, and a file may be another than the one that was indexed.
            found.extend(event.filter(&is_meant).map(|event| (position, event)));
        }
    }
    Ok(found)
}

/// Messages in the order of their first event, each message's events together and in order.
fn grouped(events: Found) -> Vec<TraceEvent> {
    let mut groups: BTreeMap<String, Vec<TraceEvent>> = BTreeMap::new();
    for event in events.into_values() {
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

/// Reads files, each from an offset on; keeps the newest that fit. What retention has deleted is passed over.
fn scan(
    directory: &Path,
    days: impl IntoIterator<Item = (u32, u64)>,
    fits: impl Fn(&TraceEvent) -> bool,
) -> std::io::Result<Found> {
    let mut found = Found::new();
    for (day, mut offset) in days {
        let mut reader = match File::open(path_of(directory, day)) {
            Ok(file) => BufReader::new(file),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        reader.seek(SeekFrom::Start(offset))?;
        while let Some((length, event)) = next_event(&mut reader)? {
            let position = Position { day, offset };
            offset += length;
            let Some(event) = event.filter(&fits) else {
                continue;
            };
            if found.len() == MAX_EVENTS {
                found.pop_first();
            }
            found.insert(position, event);
        }
    }
    Ok(found)
}

/// The next line: its octets, and the event; none where it cannot be read (torn by a crash).
fn next_event(reader: &mut BufReader<File>) -> std::io::Result<Option<(u64, Option<TraceEvent>)>> {
    use std::io::Read as _;
    let mut line = Vec::new();
    let length = reader
        .by_ref()
        .take(MAX_LINE)
        .read_until(b'\n', &mut line)?;
    if length == 0 {
        return Ok(None);
    }
    Ok(Some((length as u64, serde_json::from_slice(&line).ok())))
}

/// Files that are open while a query runs.
#[derive(Default)]
struct Files(BTreeMap<u32, Option<BufReader<File>>>);

impl Files {
    /// The event at a position; none where retention has deleted it.
    fn read(
        &mut self,
        directory: &Path,
        position: Position,
    ) -> std::io::Result<Option<TraceEvent>> {
        let open = || {
            let file = File::open(path_of(directory, position.day));
            file.ok().map(BufReader::new)
        };
        let Some(reader) = self.0.entry(position.day).or_insert_with(open) else {
            return Ok(None);
        };
        reader.seek(SeekFrom::Start(position.offset))?;
        Ok(next_event(reader)?.and_then(|(_, event)| event))
    }
}
