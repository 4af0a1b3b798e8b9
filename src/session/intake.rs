//! Content on its way in: header section first, judged when it is whole; then body bytes; or everything dropped.
//!
//! The order of faults is fixed (contract, Fine print): header grammar, header size, tenant gate, loop, route. A refusal
//! is known before a body byte is kept; the rest is read and dropped, then answered.

use super::rejection::Rejection;
use crate::header::{HeaderFault, MAX_HEADER, Progress, Splitter};
use crate::smtp::data::{ContentFacts, Repair, Scanner, SectionEnd};

/// Where the bytes of one message go.
#[derive(Debug)]
pub(super) struct Intake<T> {
    repair: Option<Repair>,
    /// A bare CR or LF in the body refuses.
    strict: bool,
    limit: u64,
    arrived: u64,
    scanner: Scanner,
    stage: Stage<T>,
}

#[derive(Debug)]
enum Stage<T> {
    Header {
        splitter: Splitter,
        buffer: Vec<u8>,
    },
    /// The header section is at fault; told where it ends.
    Faulty {
        fault: HeaderFault,
        end: SectionEnd,
        /// Octets of it so far.
        seen: usize,
    },
    Body {
        judged: T,
        limit: u64,
    },
    Discard(Rejection),
}

/// What the caller is to do with what was pushed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Keep {
    /// Nothing yet, or nothing more.
    Nothing,
    /// These bytes belong to the draft.
    Bytes(Vec<u8>),
}

/// Judges a header section: called once, with the bytes of the section and their length.
pub(super) type Judge<'a, T> = &'a mut dyn FnMut(&mut [u8], usize) -> Result<Judged<T>, Rejection>;

/// What the judge makes of a header section: what is needed later, and a limit of its own for the whole message.
pub(super) struct Judged<T> {
    pub(super) value: T,
    pub(super) limit: u64,
}

impl<T> Intake<T> {
    pub(super) fn new(strict: bool, repair: bool, limit: u64) -> Self {
        Self {
            repair: repair.then(Repair::default),
            strict,
            limit,
            arrived: 0,
            scanner: Scanner::default(),
            stage: Stage::Header {
                splitter: Splitter::default(),
                buffer: Vec::new(),
            },
        }
    }

    /// Takes content bytes (unframed). `judge` is called once, with the header section and its length; it may blank
    /// secrets in place.
    pub(super) fn push(&mut self, bytes: Vec<u8>, judge: Judge<'_, T>) -> Keep {
        match &mut self.repair {
            None => self.take_whole(bytes, judge),
            Some(repair) => {
                let mut repaired = Vec::with_capacity(bytes.len() + 16);
                repair.push(&bytes, &mut repaired);
                self.take_whole(repaired, judge)
            }
        }
    }

    /// [`Self::take`] of bytes that are kept as they are where all of them are body bytes within the limit, which is what
    /// most of a large message is.
    fn take_whole(&mut self, bytes: Vec<u8>, judge: Judge<'_, T>) -> Keep {
        let fits = match &self.stage {
            Stage::Body { limit, .. } => self.arrived + bytes.len() as u64 <= *limit,
            Stage::Header { .. } | Stage::Faulty { .. } | Stage::Discard(_) => false,
        };
        if !fits || bytes.is_empty() {
            return self.take(&bytes, judge);
        }
        self.arrived += bytes.len() as u64;
        self.scanner.push(&bytes);
        self.check_body(Keep::Bytes(bytes))
    }

    /// Takes bytes up to each place where a fault can stand, the end of the header section and the limit of the size, so
    /// that the first fault by position is the one that counts, however the bytes are cut.
    fn take(&mut self, bytes: &[u8], judge: Judge<'_, T>) -> Keep {
        let mut kept = Vec::new();
        let mut rest = bytes;
        while !rest.is_empty() {
            let (taken, keep) = self.take_some(rest, judge);
            match keep {
                Keep::Bytes(bytes) if kept.is_empty() => kept = bytes,
                Keep::Bytes(bytes) => kept.extend_from_slice(&bytes),
                Keep::Nothing => {}
            }
            rest = rest.get(taken..).unwrap_or_default();
        }
        if kept.is_empty() || self.refusal().is_some() {
            Keep::Nothing
        } else {
            Keep::Bytes(kept)
        }
    }

    /// The next step of [`Self::take`], and how many octets it took: at least one.
    fn take_some(&mut self, bytes: &[u8], judge: Judge<'_, T>) -> (usize, Keep) {
        let mut taken = bytes.len();
        let (next, keep) =
            match std::mem::replace(&mut self.stage, Stage::Discard(Rejection::StoreUnavailable)) {
                Stage::Discard(rejection) => (Stage::Discard(rejection), Keep::Nothing),
                Stage::Header {
                    mut splitter,
                    mut buffer,
                } => match splitter.push(bytes) {
                    Err(HeaderFault::TooLarge) => {
                        let rejection = HeaderFault::TooLarge.into();
                        (Stage::Discard(rejection), Keep::Nothing)
                    }
                    Err(fault) => {
                        buffer.extend_from_slice(bytes);
                        let begun = (SectionEnd::default(), 0);
                        (faulty(fault, begun, &buffer), Keep::Nothing)
                    }
                    Ok(Progress::More) => {
                        buffer.extend_from_slice(bytes);
                        (Stage::Header { splitter, buffer }, Keep::Nothing)
                    }
                    Ok(Progress::Complete { length }) => {
                        taken = length.saturating_sub(buffer.len()).clamp(1, bytes.len());
                        // The body's first bytes will follow.
                        buffer.reserve(bytes.len());
                        buffer.extend_from_slice(bytes.get(..taken).unwrap_or_default());
                        judged(buffer, length, self.limit, judge)
                    }
                },
                Stage::Faulty { fault, end, seen } => {
                    (faulty(fault, (end, seen), bytes), Keep::Nothing)
                }
                Stage::Body { judged, limit } => {
                    let room = usize::try_from(limit.saturating_sub(self.arrived));
                    let room = room.unwrap_or(usize::MAX);
                    if room > 0 {
                        taken = taken.min(room);
                    }
                    let bytes = bytes.get(..taken).unwrap_or_default();
                    (Stage::Body { judged, limit }, Keep::Bytes(bytes.to_vec()))
                }
            };
        self.stage = next;
        self.arrived += taken as u64;
        self.scanner.push(bytes.get(..taken).unwrap_or_default());
        (taken, self.check_body(keep))
    }

    /// Limits and newlines of what has arrived so far; a fault drops everything.
    fn check_body(&mut self, keep: Keep) -> Keep {
        let facts = self.scanner.facts_so_far();
        let fault = match &self.stage {
            Stage::Discard(_) => return Keep::Nothing,
            // Its own limit bounds it; the gate's faults come first, however the bytes are cut.
            Stage::Header { .. } | Stage::Faulty { .. } => None,
            Stage::Body { limit, .. } if self.arrived > *limit => Some(if *limit < self.limit {
                Rejection::ValidationTooLarge
            } else {
                Rejection::MessageTooLarge
            }),
            Stage::Body { .. } => {
                (self.strict && (facts.bare_cr || facts.bare_lf)).then_some(Rejection::BareNewline)
            }
        };
        match fault {
            Some(rejection) => {
                self.stage = Stage::Discard(rejection);
                Keep::Nothing
            }
            None => keep,
        }
    }

    /// The end of the content: what is still to be kept, and either the judged header with the facts, or the refusal.
    pub(super) fn finish(
        mut self,
        judge: Judge<'_, T>,
    ) -> (Keep, Result<(T, ContentFacts), Rejection>) {
        let mut keep = Vec::new();
        if let Some(mut repair) = self.repair.take() {
            let mut last = Vec::new();
            repair.finish(&mut last);
            if !last.is_empty()
                && let Keep::Bytes(bytes) = self.take(&last, judge)
            {
                keep = bytes;
            }
        }
        if let Stage::Header {
            mut splitter,
            buffer,
        } = self.stage
        {
            // A header section without an empty line: the whole message (RFC 5322 §3.5 makes the body optional).
            let (stage, bytes) = match splitter.finish() {
                Err(fault) => (Stage::Discard(fault.into()), Keep::Nothing),
                Ok(length) => judged(buffer, length, self.limit, judge),
            };
            self.stage = stage;
            if let Keep::Bytes(bytes) = self.check_body(bytes) {
                keep.extend_from_slice(&bytes);
            }
        }
        let facts = self.scanner.facts();
        let keep = if keep.is_empty() {
            Keep::Nothing
        } else {
            Keep::Bytes(keep)
        };
        match self.stage {
            Stage::Body { .. } if self.strict && (facts.bare_cr || facts.bare_lf) => {
                (Keep::Nothing, Err(Rejection::BareNewline))
            }
            Stage::Body { judged, .. } => (keep, Ok((judged, facts))),
            Stage::Discard(rejection) => (Keep::Nothing, Err(rejection)),
            Stage::Faulty { fault, .. } => (Keep::Nothing, Err(fault.into())),
            Stage::Header { .. } => (Keep::Nothing, Err(Rejection::StoreUnavailable)),
        }
    }

    /// Drops the message for a fault outside the content (the store failed).
    pub(super) fn discard(&mut self, rejection: Rejection) {
        if !matches!(self.stage, Stage::Discard(_) | Stage::Faulty { .. }) {
            self.stage = Stage::Discard(rejection);
        }
    }

    /// The refusal, once it is to be told: a fault of the header section where that is complete (product.md 5).
    pub(super) fn refusal(&self) -> Option<&Rejection> {
        match &self.stage {
            Stage::Discard(rejection) => Some(rejection),
            Stage::Header { .. } | Stage::Faulty { .. } | Stage::Body { .. } => None,
        }
    }
}

/// What becomes of a header section at fault with these octets of it, behind so many others: it ends with its empty line, or
/// where it is too large.
fn faulty<T>(fault: HeaderFault, (mut end, before): (SectionEnd, usize), bytes: &[u8]) -> Stage<T> {
    let seen = before + bytes.len();
    let is_over = bytes.iter().any(|octet| end.push(*octet));
    match is_over || seen > MAX_HEADER {
        true => Stage::Discard(fault.into()),
        false => Stage::Faulty { fault, end, seen },
    }
}

fn judged<T>(
    mut buffer: Vec<u8>,
    length: usize,
    limit: u64,
    judge: Judge<'_, T>,
) -> (Stage<T>, Keep) {
    match judge(&mut buffer, length) {
        Ok(judged) => (
            Stage::Body {
                judged: judged.value,
                limit: judged.limit.min(limit),
            },
            Keep::Bytes(buffer),
        ),
        Err(rejection) => (Stage::Discard(rejection), Keep::Nothing),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: u64 = 40;
    /// What validation mail may have.
    const SMALL: u64 = 30;

    /// What is kept of these bytes, or the label of the refusal.
    fn take(bytes: &[u8], limit: u64, piece: usize) -> Result<Vec<u8>, &'static str> {
        let mut intake = Intake::new(true, false, LIMIT);
        let mut kept = Vec::new();
        let mut judge = |buffer: &mut [u8], length: usize| {
            assert_eq!(buffer.len(), length, "the section and nothing else");
            Ok(Judged { value: (), limit })
        };
        for part in bytes.chunks(piece) {
            if let Keep::Bytes(bytes) = intake.push(part.to_vec(), &mut judge) {
                kept.extend(bytes);
            }
        }
        let (keep, result) = intake.finish(&mut judge);
        if let Keep::Bytes(bytes) = keep {
            kept.extend(bytes);
        }
        result.map(|_| kept).map_err(|rejection| rejection.label())
    }

    #[test]
    fn the_first_fault_by_position_counts_however_the_bytes_are_cut() {
        let body = |text: &str| format!("From: a@b.example\r\n\r\n{text}").into_bytes();
        let long = "x".repeat(100);
        let bare = Rejection::BareNewline.label();
        let large = Rejection::MessageTooLarge.label();
        let small = Rejection::ValidationTooLarge.label();
        for (text, limit, expected) in [
            ("fits", LIMIT, None),
            ("a\nb", LIMIT, Some(bare)),
            (&*format!("a\nb{long}"), LIMIT, Some(bare)),
            (&*format!("{long}\n"), LIMIT, Some(large)),
            (&*format!("a\nb{long}"), SMALL, Some(bare)),
            (&*format!("{long}\n"), SMALL, Some(small)),
            // The CR lies within the limit, that it is bare shows beyond.
            ("12345678\rx", SMALL, Some(small)),
        ] {
            let bytes = body(text);
            let expected = expected.map_or_else(|| Ok(bytes.clone()), Err);
            for piece in [1, 2, 7, 25, usize::MAX] {
                assert_eq!(take(&bytes, limit, piece), expected, "{text} by {piece}");
            }
        }
    }
}
