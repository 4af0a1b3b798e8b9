//! What does a row of the index hold? The keys of a stretch of the trace (a run) that belong to one group, in order.
//!
//! A row's name is group, day, run, part: the rows that may hold a key stand together, the newest last. Its value is
//! records of key and offset, at most [`PART`], ascending.

use super::Position;

/// Records of a row: sled keeps values of this size within its pages.
const PART: usize = 256;
/// Octets of a record: the key, and the offset (up to 1 TiB a day).
const RECORD: usize = 13;
/// Octets of a row's name: group (8), day (4), run (4), part (2).
const NAME: usize = 18;

const DAY_MILLIS: u64 = 86_400_000;

/// A key of an event, and where that stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) key: u64,
    pub(super) position: Position,
}

/// Which keys share rows: those that are alike above so many bits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grouping {
    bits: u32,
}

/// Queue ids begin with the milliseconds of arrival (20 bits below are a counter): a group is about four seconds, so that
/// a message's events are found in few rows, however many messages there are.
pub(super) const STORIES: Grouping = Grouping { bits: 32 };
/// Hashes: 256 groups, so that a run fills one row in each.
pub(super) const NAMES: Grouping = Grouping { bits: 56 };

impl Grouping {
    /// What the names of the rows begin with that may hold `key`.
    pub(super) fn prefix(self, key: u64) -> [u8; 8] {
        (key >> self.bits).to_be_bytes()
    }

    /// The range of the names of rows of `group` of days before `day`.
    pub(super) fn days_before(self, group: u8, day: u32) -> std::ops::Range<[u8; 12]> {
        let name = |day: u32| {
            let mut name = [0; 12];
            let (start, end) = name.split_at_mut(8);
            start.copy_from_slice(&u64::from(group).to_be_bytes());
            end.copy_from_slice(&day.to_be_bytes());
            name
        };
        name(0)..name(day)
    }

    /// What the names of rows begin with, of messages that arrived on `day` first.
    pub(super) fn first_of(self, day: u32) -> Vec<u8> {
        let id = (u64::from(day) * DAY_MILLIS) << 20;
        self.prefix(id).to_vec()
    }

    /// Makes rows of `entries`.
    pub(super) fn rows(
        self,
        entries: &mut [Entry],
        run: u32,
        mut make: impl FnMut(Vec<u8>, Vec<u8>),
    ) {
        let place = |entry: &Entry| (entry.key >> self.bits, entry.position.day);
        entries.sort_unstable_by_key(|entry| (place(entry), entry.key, entry.position.offset));
        for own in entries.chunk_by(|one, two| place(one) == place(two)) {
            let Some((group, day)) = own.first().map(place) else {
                continue;
            };
            for (part, records) in own.chunks(PART).enumerate() {
                let mut name = Vec::with_capacity(NAME);
                name.extend_from_slice(&group.to_be_bytes());
                name.extend_from_slice(&day.to_be_bytes());
                name.extend_from_slice(&run.to_be_bytes());
                let part = u16::try_from(part).unwrap_or(u16::MAX);
                name.extend_from_slice(&part.to_be_bytes());
                let mut value = Vec::with_capacity(records.len() * RECORD);
                for entry in records {
                    value.extend_from_slice(&entry.key.to_be_bytes());
                    let [_, _, _, offset @ ..] = entry.position.offset.to_be_bytes();
                    value.extend_from_slice(&offset);
                }
                make(name, value);
            }
        }
    }
}

/// The day that a row belongs to.
pub(super) fn day(name: &[u8]) -> Option<u32> {
    let day = name.get(8..12)?;
    day.try_into().ok().map(u32::from_be_bytes)
}

/// The positions of `key` in a row, ascending.
pub(super) fn find<'a>(
    name: &[u8],
    value: &'a [u8],
    key: u64,
) -> impl Iterator<Item = Position> + use<'a> {
    let (records, _) = value.as_chunks::<RECORD>();
    let first = records.partition_point(|record| split(record).0 < key);
    let own = records.get(first..).unwrap_or_default();
    let own = own
        .iter()
        .map(split)
        .take_while(move |(own, _)| *own == key);
    let day = day(name);
    own.filter_map(move |(_, offset)| day.map(|day| Position { day, offset }))
}

/// Key and offset of a record.
fn split(record: &[u8; RECORD]) -> (u64, u64) {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m] = *record;
    (
        u64::from_be_bytes([a, b, c, d, e, f, g, h]),
        u64::from_be_bytes([0, 0, 0, i, j, k, l, m]),
    )
}
