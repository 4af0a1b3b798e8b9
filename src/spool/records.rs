//! What does a record of the journal say, outside a store? The door through which tests and fuzz targets reach
//! `record::decode` and the replay with octets that no store of ours wrote.

use super::message::{Message, SpoolError};
use super::record::{Row, StateRow, decode};
use super::replay::Replay;
use super::spool_error;
use crate::journal::Found;
use crate::mail::QueueId;

/// Reads a message's record; nothing where a field of it does not read back.
///
/// # Errors
/// It is no record, or one of a newer version.
pub fn message(meta: &[u8]) -> Result<Option<Message>, SpoolError> {
    let row: Row = decode(meta).map_err(spool_error)?;
    Ok(row.into_message())
}

/// Reads a record of what is left to do, and writes it again.
///
/// # Errors
/// It is no record, or one of a newer version.
pub fn state(meta: &[u8]) -> Result<Vec<u8>, SpoolError> {
    let state: StateRow = decode(meta).map_err(spool_error)?;
    serde_json::to_vec(&state).map_err(|error| SpoolError::Failing(error.to_string()))
}

/// What is written for a message whose body lies in the journal.
///
/// # Errors
/// It cannot be written down.
pub fn written(message: &Message) -> Result<Vec<u8>, SpoolError> {
    serde_json::to_vec(&Row::of(message, None))
        .map_err(|error| SpoolError::Failing(error.to_string()))
}

/// A queued message: its id, and the open recipients of its legs.
pub type Queued = (QueueId, Vec<Vec<u32>>);

/// The queue that a start-up makes of these records, in the order of ids.
///
/// # Errors
/// The server would not start over one of them.
pub fn replayed(records: &[Found]) -> Result<Vec<Queued>, SpoolError> {
    let mut replay = Replay::default();
    for record in records {
        replay.take(record).map_err(spool_error)?;
    }
    let (queue, _) = replay.finish();
    let entries = queue.entries.iter().map(|(id, entry)| {
        let positions = |open: Vec<super::queue::Tried>| -> Vec<u32> {
            open.iter().map(|tried| tried.position).collect()
        };
        let legs = entry.legs.iter().map(|leg| positions(leg.open()));
        (QueueId::from_u64(*id), legs.collect())
    });
    Ok(entries.collect())
}
