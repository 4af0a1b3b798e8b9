//! What does the header section say? Fields by name, as bytes; and the few readings that judgement needs.

use super::{MAX_RECEIVED, address};
use crate::mail::{Mailbox, shown};
use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

/// A header section whose grammar was checked; ranges are positions in the arrival bytes. Only
/// [`examine`](super::examine) makes one.
#[derive(Clone)]
pub struct Examined {
    bytes: Box<[u8]>,
    spans: Vec<Span>,
    ended: bool,
}

/// Where a field lies.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) start: usize,
    pub(super) name_end: usize,
    pub(super) colon: usize,
    pub(super) end: usize,
}

/// Why a field that must name mailboxes exactly once does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// Not there.
    Absent,
    /// There more than once.
    Duplicate,
    /// Not readable as a list of mailboxes beyond doubt.
    Unreadable,
}

impl Examined {
    pub(super) fn new(bytes: Box<[u8]>, spans: Vec<Span>, ended: bool) -> Self {
        Self {
            bytes,
            spans,
            ended,
        }
    }

    /// Octets of the section with the empty line.
    #[must_use]
    #[expect(
        clippy::len_without_is_empty,
        reason = "a section of nothing but the empty line has a length of 2"
    )]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether an empty line ended the section; else the message has no body.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.ended
    }

    /// The section's bytes, the empty line with them.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The fields from top to bottom.
    pub fn fields(&self) -> impl Iterator<Item = Field<'_>> {
        self.spans.iter().map(|&span| Field {
            bytes: &self.bytes,
            span,
        })
    }

    /// The fields with this name, without regard to case or to blanks before the colon.
    pub fn named(&self, name: &str) -> impl Iterator<Item = Field<'_>> {
        self.fields().filter(move |field| field.is(name))
    }

    /// How many fields have this name.
    #[must_use]
    pub fn count(&self, name: &str) -> usize {
        self.named(name).count()
    }

    /// Whether a field has this name.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.named(name).next().is_some()
    }

    /// How many `Received:` fields there are (RFC 5321 §6.3).
    #[must_use]
    pub fn received_count(&self) -> usize {
        self.count("Received")
    }

    /// Whether the message has come through more hops than any route has: 554 5.4.6.
    #[must_use]
    pub fn is_over_hop_limit(&self) -> bool {
        self.received_count() > MAX_RECEIVED
    }

    /// The Message-ID as shown to a person.
    #[must_use]
    pub fn message_id(&self) -> Option<String> {
        self.first_shown("Message-ID")
    }

    /// Exchange's id of the message in its last pass, as shown to a person.
    #[must_use]
    pub fn network_message_id(&self) -> Option<String> {
        self.first_shown("X-MS-Exchange-CrossTenant-Network-Message-Id")
            .or_else(|| self.first_shown("X-MS-Exchange-Organization-Network-Message-Id"))
    }

    fn first_shown(&self, name: &str) -> Option<String> {
        let field = self.named(name).next()?;
        let text = field.text();
        (!text.is_empty()).then(|| shown(&text))
    }

    /// The mailboxes of `From:`.
    ///
    /// # Errors
    /// It is missing, stands twice, or leaves a doubt about whom it names.
    pub fn from_mailboxes(&self) -> Result<Vec<Mailbox>, Malformed> {
        self.mailboxes("From")
    }

    /// The mailboxes of a field that may stand once.
    ///
    /// # Errors
    /// It is missing, stands twice, or leaves a doubt about whom it names.
    pub fn mailboxes(&self, name: &str) -> Result<Vec<Mailbox>, Malformed> {
        let mut fields = self.named(name);
        match (fields.next(), fields.next()) {
            (None, _) => Err(Malformed::Absent),
            (Some(_), Some(_)) => Err(Malformed::Duplicate),
            (Some(field), None) => field.mailboxes(),
        }
    }
}

/// Never the values: one of them may be a secret.
impl fmt::Debug for Examined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Examined")
            .field("octets", &self.bytes.len())
            .field("fields", &self.spans.len())
            .finish_non_exhaustive()
    }
}

/// One field, whole: name, colon, value with its folding, and the CRLF at its end.
#[derive(Clone, Copy)]
pub struct Field<'a> {
    bytes: &'a [u8],
    span: Span,
}

impl<'a> Field<'a> {
    /// The name as written, without blanks before the colon. Its octets are US-ASCII (33-126) by grammar.
    #[must_use]
    pub fn name(&self) -> &'a str {
        let name = self.bytes.get(self.span.start..self.span.name_end);
        name.and_then(|name| std::str::from_utf8(name).ok())
            .unwrap_or_default()
    }

    /// Whether this is the name, without regard to case.
    #[must_use]
    pub fn is(&self, name: &str) -> bool {
        self.name().eq_ignore_ascii_case(name)
    }

    /// The value's bytes behind the colon, folding kept, without the last CRLF.
    #[must_use]
    pub fn value(&self) -> &'a [u8] {
        let raw = self
            .bytes
            .get(self.span.colon + 1..self.span.end)
            .unwrap_or_default();
        raw.strip_suffix(b"\r\n").unwrap_or(raw)
    }

    /// The value unfolded (RFC 5322 §2.2.3: each CRLF before a blank goes, the blank stays).
    #[must_use]
    pub fn unfolded(&self) -> Cow<'a, [u8]> {
        let value = self.value();
        if memchr::memchr(b'\r', value).is_none() {
            return Cow::Borrowed(value);
        }
        // By grammar every CR and LF in a value is part of a CRLF that a blank follows.
        Cow::Owned(
            value
                .iter()
                .copied()
                .filter(|octet| !matches!(octet, b'\r' | b'\n'))
                .collect(),
        )
    }

    /// The value unfolded, without blanks at its ends: what comparisons look at.
    #[must_use]
    pub fn text(&self) -> Cow<'a, [u8]> {
        match self.unfolded() {
            Cow::Borrowed(value) => Cow::Borrowed(trimmed(value)),
            Cow::Owned(value) => Cow::Owned(trimmed(&value).to_vec()),
        }
    }

    /// The positions of the whole field in the arrival bytes.
    #[must_use]
    pub fn range(&self) -> Range<u64> {
        self.span.start as u64..self.span.end as u64
    }

    /// The positions of the value in the section, last CRLF included.
    pub(super) fn value_range(&self) -> Range<usize> {
        self.span.colon + 1..self.span.end
    }

    /// The mailboxes that the value names.
    ///
    /// # Errors
    /// [`Malformed::Unreadable`].
    pub fn mailboxes(&self) -> Result<Vec<Mailbox>, Malformed> {
        address::mailboxes(&self.unfolded()).ok_or(Malformed::Unreadable)
    }
}

/// Never the value: it may be a secret.
impl fmt::Debug for Field<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Field").field(&self.name()).finish()
    }
}

/// Without spaces and tabs at both ends; no other octet counts as a blank (RFC 5234 WSP).
fn trimmed(value: &[u8]) -> &[u8] {
    let blank = |octet: &u8| matches!(octet, b' ' | b'\t');
    let start = value
        .iter()
        .position(|octet| !blank(octet))
        .unwrap_or(value.len());
    let end = value
        .iter()
        .rposition(|octet| !blank(octet))
        .map_or(start, |last| last + 1);
    value.get(start..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::examine;

    #[test]
    fn names_compare_without_case_and_blanks_before_the_colon() {
        let examined =
            examine(b"x-ORIGINATORORG \t: a\r\nX-OriginatorOrg: b\r\nX-OriginatorOrgs: c\r\n\r\n")
                .unwrap();
        assert_eq!(examined.count("X-OriginatorOrg"), 2);
        assert!(!examined.has("X-Originator"));
    }

    #[test]
    fn folded_values_are_unfolded_and_trimmed_on_demand_only() {
        let examined = examine(b"A:\r\n\tone\r\n  two \r\n \r\nB:x\r\n\r\n").unwrap();
        let field = examined.named("a").next().unwrap();
        assert_eq!(field.value(), b"\r\n\tone\r\n  two \r\n ");
        assert_eq!(&*field.text(), b"one  two");
        assert_eq!(field.range(), 0..21);
        assert_eq!(&*examined.named("B").next().unwrap().text(), b"x");
    }

    #[test]
    fn other_white_space_is_not_trimmed() {
        let examined = examine(b"A: \x0bx\xc2\xa0\r\n\r\n").unwrap();
        assert_eq!(
            &*examined.named("A").next().unwrap().text(),
            b"\x0bx\xc2\xa0"
        );
    }

    #[test]
    fn header_like_lines_in_the_body_are_no_fields() {
        let examined =
            examine(b"From: a@b.example\r\n\r\nX-OriginatorOrg: contoso.com\r\n\r\n").unwrap();
        assert!(!examined.has("X-OriginatorOrg"));
        assert_eq!(examined.len(), 21);
    }

    #[test]
    fn ids_for_the_trace_are_escaped() {
        let examined = examine(
            b"Message-ID:\r\n <a\x1b@b>\r\nx-ms-exchange-crosstenant-network-message-id: 1-2\r\nSubject:\r\n\r\n",
        )
        .unwrap();
        assert_eq!(examined.message_id().as_deref(), Some("<a\\x1b@b>"));
        assert_eq!(examined.network_message_id().as_deref(), Some("1-2"));
        assert_eq!(examined.first_shown("Subject"), None);
    }

    #[test]
    fn debug_prints_no_value() {
        let examined = examine(b"X-Contoso-Gate: hunter2\r\n\r\n").unwrap();
        let text = format!("{examined:?} {:?}", examined.fields().collect::<Vec<_>>());
        assert!(!text.contains("hunter2"), "{text}");
    }

    #[test]
    fn more_than_fifty_received_fields_are_a_loop() {
        let lines = |count: usize| ["Received: x\r\n".repeat(count), "\r\n".to_owned()].concat();
        assert!(!examine(lines(50).as_bytes()).unwrap().is_over_hop_limit());
        assert!(examine(lines(51).as_bytes()).unwrap().is_over_hop_limit());
    }
}
