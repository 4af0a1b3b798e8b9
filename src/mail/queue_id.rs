//! Queue ids: the name of one transaction in replies, trace, journal and commands.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU32, Ordering};

/// One transaction's id: milliseconds since 1970 and a counter, so that ids sort by arrival.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QueueId(u64);

const COUNTER_BITS: u32 = 20;
/// Base 32 without the letters that are mistaken for digits (Crockford's set).
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

impl QueueId {
    /// The number behind the text.
    #[must_use]
    pub fn as_u64(self) -> u64 {
        self.0
    }

    /// The id with this number, as read from the journal.
    #[must_use]
    pub fn from_u64(number: u64) -> Self {
        Self(number)
    }
}

impl fmt::Display for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for digit in (0..13u32).rev() {
            let index = usize::try_from((self.0 >> (digit * 5)) & 31).unwrap_or_default();
            let letter = ALPHABET.get(index).copied().unwrap_or(b'0');
            write!(f, "{}", char::from(letter))?;
        }
        Ok(())
    }
}

impl fmt::Debug for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for QueueId {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() != 13 {
            return Err("not a queue id");
        }
        let mut number: u64 = 0;
        for octet in text.bytes().map(|octet| octet.to_ascii_uppercase()) {
            let digit = ALPHABET
                .iter()
                .position(|&letter| letter == octet)
                .ok_or("not a queue id")?;
            number = number
                .checked_mul(32)
                .and_then(|shifted| shifted.checked_add(digit as u64))
                .ok_or("not a queue id")?;
        }
        Ok(Self(number))
    }
}

/// Hands out queue ids; one for each server, its counter started at random so that two servers seldom meet.
#[derive(Debug)]
pub struct QueueIds(AtomicU32);

impl QueueIds {
    /// A source whose counter starts at `start`.
    #[must_use]
    pub fn starting_at(start: u32) -> Self {
        Self(AtomicU32::new(start))
    }

    /// The next id, for a transaction that began at `unix_millis`.
    pub fn next(&self, unix_millis: u64) -> QueueId {
        let counter = self.0.fetch_add(1, Ordering::Relaxed) & ((1 << COUNTER_BITS) - 1);
        QueueId((unix_millis << COUNTER_BITS) | u64::from(counter))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_reads_back() {
        let ids = QueueIds::starting_at(u32::MAX);
        for millis in [0, 1_700_000_000_000] {
            let id = ids.next(millis);
            assert_eq!(id.to_string().parse(), Ok(id));
            assert_eq!(id.to_string().len(), 13);
        }
        assert!("ZZZZZZZZZZZZZ".parse::<QueueId>().is_err());
        assert!("short".parse::<QueueId>().is_err());
    }
}
