//! Content framing: dots and newlines (RFC 5321 §4.5.2), and what the content holds.

use memchr::memmem::Finder;
use std::sync::LazyLock;

/// What the content holds, as far as the choice of transfer depends on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts about one stream of bytes"
)]
pub struct ContentFacts {
    /// Octets as stored.
    pub size: u64,
    /// A CR without LF.
    pub bare_cr: bool,
    /// A LF without CR.
    pub bare_lf: bool,
    /// A NUL octet.
    pub nul: bool,
    /// An octet over 127.
    pub eight_bit: bool,
    /// The last two octets are CRLF.
    pub ends_with_crlf: bool,
}

impl ContentFacts {
    /// Whether only BDAT can carry the content unchanged.
    #[must_use]
    pub fn needs_bdat(&self) -> bool {
        self.bare_cr || self.bare_lf || self.nul
    }
}

/// Collects [`ContentFacts`] as bytes pass.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scanner {
    facts: ContentFacts,
    after_cr: bool,
}

impl Scanner {
    /// Looks at the next bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        let Some(&last) = bytes.last() else { return };
        self.facts.size += bytes.len() as u64;
        self.facts.eight_bit = self.facts.eight_bit || !bytes.is_ascii();
        self.facts.nul = self.facts.nul || memchr::memchr(0, bytes).is_some();
        let mut after_cr = self.after_cr;
        let mut expected = 0;
        for position in memchr::memchr2_iter(b'\r', b'\n', bytes) {
            let octet = bytes.get(position).copied();
            // A CR is whole only where the very next octet is LF.
            let follows_cr = after_cr && position == expected;
            if after_cr && position > expected {
                self.facts.bare_cr = true;
            }
            match octet {
                Some(b'\n') => {
                    self.facts.bare_lf |= !follows_cr;
                    after_cr = false;
                }
                _ => {
                    self.facts.bare_cr |= follows_cr;
                    after_cr = true;
                }
            }
            expected = position + 1;
        }
        if after_cr && expected < bytes.len() {
            self.facts.bare_cr = true;
            after_cr = false;
        }
        let before = if bytes.len() >= 2 {
            bytes.get(bytes.len() - 2) == Some(&b'\r')
        } else {
            self.after_cr
        };
        self.facts.ends_with_crlf = last == b'\n' && before;
        self.after_cr = after_cr;
    }

    /// What has been seen so far; a CR at the very end may yet get its LF.
    #[must_use]
    pub fn facts_so_far(&self) -> ContentFacts {
        self.facts
    }

    /// What has been seen, taking the bytes so far as all there are.
    #[must_use]
    pub fn facts(&self) -> ContentFacts {
        ContentFacts {
            bare_cr: self.facts.bare_cr || self.after_cr,
            ..self.facts
        }
    }
}

/// Finds the empty line that ends a header section, as the bytes of a message pass, whatever else is in it.
#[derive(Clone, Copy, Debug, Default)]
pub struct SectionEnd(Line);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Line {
    #[default]
    Start,
    /// A CR where a line begins.
    StartCr,
    Inside,
    Cr,
    /// The empty line was seen.
    Over,
}

impl SectionEnd {
    /// Looks at the next octet; whether the section is over with it, or was before.
    pub fn push(&mut self, octet: u8) -> bool {
        self.0 = match (self.0, octet) {
            (Line::StartCr, b'\n') | (Line::Over, _) => Line::Over,
            (Line::Start, b'\r') => Line::StartCr,
            (Line::Cr, b'\n') => Line::Start,
            (Line::Inside | Line::Cr | Line::StartCr, b'\r') => Line::Cr,
            (Line::Start | Line::StartCr | Line::Inside | Line::Cr, _) => Line::Inside,
        };
        self.is_over()
    }

    /// Whether the empty line was seen.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.0 == Line::Over
    }
}

/// Whether a header section has an octet beyond US-ASCII, as the bytes of a message pass. It ends with the first empty line,
/// or with the message.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeaderOctets {
    end: SectionEnd,
    eight_bit: bool,
}

impl HeaderOctets {
    /// Looks at the next bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        for octet in bytes {
            if self.is_known() {
                return;
            }
            self.eight_bit = !octet.is_ascii();
            self.end.push(*octet);
        }
    }

    /// Whether what follows changes nothing.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.eight_bit || self.end.is_over()
    }

    /// Whether there was one so far.
    #[must_use]
    pub fn eight_bit(&self) -> bool {
        self.eight_bit
    }
}

/// How far the dot decoder got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// All input was consumed; the content goes on.
    More,
    /// The end was met; this many octets of the input were consumed.
    End(usize),
}

/// Removes dot-stuffing and finds the end of content (RFC 5321 §4.5.2).
///
/// The end is CRLF.CRLF under every policy of newlines: a lenient reader and a strict next hop would disagree about where
/// the message ends, and a second message could hide in the difference. Bare CR and LF pass through; [`Scanner`] sees
/// them and [`Repair`] mends them, after the end has been found.
#[derive(Clone, Copy, Debug)]
pub struct DotDecoder(At);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    LineStart,
    Dot,
    DotCr,
    InLine,
    Cr,
}

impl Default for DotDecoder {
    fn default() -> Self {
        Self(At::LineStart)
    }
}

impl DotDecoder {
    /// Decodes `input`, appending content to `out`.
    pub fn decode(&mut self, input: &[u8], out: &mut Vec<u8>) -> Progress {
        let mut position = 0;
        while let Some(&octet) = input.get(position) {
            self.0 = match (self.0, octet) {
                (At::LineStart, b'.') => At::Dot,
                (At::Dot, b'\r') => At::DotCr,
                (At::DotCr, b'\n') => {
                    self.0 = At::LineStart;
                    return Progress::End(position + 1);
                }
                (At::DotCr, _) => {
                    // ".\rX": the dot was stuffing, the CR is content.
                    out.push(b'\r');
                    self.0 = At::Cr;
                    continue;
                }
                (At::Cr, b'\n') => {
                    out.push(octet);
                    At::LineStart
                }
                (At::LineStart | At::InLine | At::Cr, b'\r') => {
                    out.push(octet);
                    At::Cr
                }
                (At::LineStart | At::Dot | At::InLine | At::Cr, _) => {
                    // Lines that do not begin with a dot are taken together.
                    let rest = input.get(position..).unwrap_or_default();
                    let (text, end) = up_to_dotted_line(rest);
                    out.extend_from_slice(text);
                    position += text.len();
                    self.0 = match end {
                        LineEnd::Whole => At::LineStart,
                        LineEnd::Cr => At::Cr,
                        LineEnd::No => At::InLine,
                    };
                    continue;
                }
            };
            position += 1;
        }
        Progress::More
    }
}

/// The octets up to and with the first CRLF that a dot follows, or all of them, and how they end.
fn up_to_dotted_line(octets: &[u8]) -> (&[u8], LineEnd) {
    static DOTTED: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\r\n."));
    let found = DOTTED.find(octets);
    let text = found.map_or(octets, |at| octets.get(..at + 2).unwrap_or_default());
    let end = match text {
        [.., b'\r', b'\n'] => LineEnd::Whole,
        [.., b'\r'] => LineEnd::Cr,
        _ => LineEnd::No,
    };
    (text, end)
}

/// Turns bare CR and bare LF into CRLF (`bare_newlines = "repair"`).
#[derive(Clone, Copy, Debug, Default)]
pub struct Repair {
    after_cr: bool,
}

impl Repair {
    /// Repairs `input`, appending to `out`.
    pub fn push(&mut self, input: &[u8], out: &mut Vec<u8>) {
        let mut rest = input;
        while let Some(&octet) = rest.first() {
            if self.after_cr {
                self.after_cr = false;
                out.push(b'\n');
                if octet == b'\n' {
                    rest = rest.get(1..).unwrap_or_default();
                }
                continue;
            }
            let length = memchr::memchr2(b'\r', b'\n', rest).unwrap_or(rest.len());
            let (text, from_newline) = rest.split_at(length);
            out.extend_from_slice(text);
            match from_newline.first() {
                Some(b'\r') => {
                    out.push(b'\r');
                    self.after_cr = true;
                }
                Some(_) => out.extend_from_slice(b"\r\n"),
                None => {}
            }
            rest = from_newline.get(1..).unwrap_or_default();
        }
    }

    /// Ends the content: a last CR gets its LF.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        if self.after_cr {
            self.after_cr = false;
            out.push(b'\n');
        }
    }
}

/// Adds dot-stuffing for DATA (RFC 5321 §4.5.2), as a client.
#[derive(Clone, Copy, Debug, Default)]
pub struct DotStuffer {
    matched: LineEnd,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum LineEnd {
    #[default]
    Whole,
    Cr,
    No,
}

impl DotStuffer {
    /// Stuffs `input`, appending to `out`.
    pub fn push(&mut self, input: &[u8], out: &mut Vec<u8>) {
        let mut rest = input;
        while let Some(&octet) = rest.first() {
            match (self.matched, octet) {
                (LineEnd::Whole, b'.') => out.extend_from_slice(b".."),
                (LineEnd::Cr, b'\n') => {
                    out.push(octet);
                    self.matched = LineEnd::Whole;
                    rest = rest.get(1..).unwrap_or_default();
                    continue;
                }
                (LineEnd::Whole | LineEnd::Cr | LineEnd::No, b'\r') => {
                    out.push(octet);
                    self.matched = LineEnd::Cr;
                    rest = rest.get(1..).unwrap_or_default();
                    continue;
                }
                (LineEnd::Whole | LineEnd::Cr | LineEnd::No, _) => {
                    let (text, end) = up_to_dotted_line(rest);
                    out.extend_from_slice(text);
                    self.matched = end;
                    rest = rest.get(text.len()..).unwrap_or_default();
                    continue;
                }
            }
            self.matched = LineEnd::No;
            rest = rest.get(1..).unwrap_or_default();
        }
    }

    /// Ends the content: CRLF where the last line lacks it, then the dot.
    pub fn finish(self, out: &mut Vec<u8>) {
        match self.matched {
            LineEnd::Whole => {}
            LineEnd::Cr => out.push(b'\n'),
            LineEnd::No => out.extend_from_slice(b"\r\n"),
        }
        out.extend_from_slice(b".\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode_in_pieces(wire: &[u8], cuts: &[usize]) -> (Vec<u8>, Option<usize>) {
        let mut decoder = DotDecoder::default();
        let mut out = Vec::new();
        let mut start = 0;
        let mut ends: Vec<usize> = cuts.iter().map(|cut| cut % (wire.len() + 1)).collect();
        ends.sort_unstable();
        ends.push(wire.len());
        for end in ends {
            if let Progress::End(taken) = decoder.decode(&wire[start..end], &mut out) {
                return (out, Some(start + taken));
            }
            start = end;
        }
        (out, None)
    }

    #[test]
    fn the_end_is_crlf_dot_crlf_and_nothing_else() {
        for smuggled in [
            &b"a\n.\n"[..],
            b"a\n.\r\n",
            b"a\r.\r\n",
            b"a\r\n.\n",
            b"a\r\n.\r",
            b"a\r\n.\r\r\n",
            b"a\r\n.\0\r\n",
        ] {
            assert_eq!(decode_in_pieces(smuggled, &[]).1, None, "{smuggled:?}");
        }
        assert_eq!(
            decode_in_pieces(b"a\r\n.\r\nQUIT", &[]),
            (b"a\r\n".to_vec(), Some(6))
        );
        assert_eq!(decode_in_pieces(b".\r\n", &[]), (vec![], Some(3)));
    }

    #[test]
    fn stuffing_is_removed_only_at_line_starts() {
        let (content, end) = decode_in_pieces(b"..a\r\nb..\r\n...\r\n.\rx\r\n\n.y\r\n.\r\n", &[]);
        assert_eq!(content, b".a\r\nb..\r\n..\r\n\rx\r\n\n.y\r\n");
        assert!(end.is_some());
    }

    #[test]
    fn repair_mends_every_bare_newline() {
        let mut repair = Repair::default();
        let mut out = Vec::new();
        for piece in [&b"a\nb\r"[..], b"c\r", b"\nd\r\r", b"\n\n"] {
            repair.push(piece, &mut out);
        }
        repair.push(b"e\r", &mut out);
        repair.finish(&mut out);
        assert_eq!(out, b"a\r\nb\r\nc\r\nd\r\n\r\n\r\ne\r\n");
    }

    /// Every string over this alphabet, up to this length.
    fn all_strings(alphabet: &[u8], longest: usize) -> Vec<Vec<u8>> {
        let mut all = vec![vec![]];
        let mut last = 0;
        for _ in 0..longest {
            let until = all.len();
            for start in last..until {
                for octet in alphabet {
                    let mut next = all[start].clone();
                    next.push(*octet);
                    all.push(next);
                }
            }
            last = until;
        }
        all
    }

    /// Where a reader ends who takes CR, LF and CRLF alike for newlines and hears no NUL: the first line of one dot.
    fn end_for_the_most_lenient(wire: &[u8]) -> Option<usize> {
        let mut line = Vec::new();
        let mut position = 0;
        while position < wire.len() {
            let newline = match &wire[position..] {
                [b'\r', b'\n', ..] => 2,
                [b'\r' | b'\n', ..] => 1,
                _ => 0,
            };
            if newline == 0 {
                line.extend(Some(wire[position]).filter(|octet| *octet != 0));
                position += 1;
                continue;
            }
            position += newline;
            if line == b"." {
                return Some(position);
            }
            line.clear();
        }
        None
    }

    #[test]
    fn what_leaves_by_data_ends_at_one_place_for_the_strictest_and_the_most_lenient_reader() {
        let (mut by_data, mut by_chunk_only) = (0, 0);
        for content in all_strings(b"\r\n.a\0", 7) {
            let mut scanner = Scanner::default();
            scanner.push(&content);
            if scanner.facts().needs_bdat() {
                by_chunk_only += 1;
                continue;
            }
            by_data += 1;
            for middle in [0, content.len() / 2] {
                let mut stuffer = DotStuffer::default();
                let mut wire = Vec::new();
                stuffer.push(&content[..middle], &mut wire);
                stuffer.push(&content[middle..], &mut wire);
                stuffer.finish(&mut wire);
                let (read, end) = decode_in_pieces(&wire, &[]);
                assert_eq!(end, Some(wire.len()), "{content:?}");
                assert_eq!(end_for_the_most_lenient(&wire), end, "{content:?}");
                assert!(read.starts_with(&content), "{content:?}: {read:?}");
                assert!(matches!(&read[content.len()..], b"" | b"\r\n"), "{read:?}");
            }
        }
        assert!(
            by_data > 500 && by_chunk_only > 90_000,
            "{by_data} {by_chunk_only}"
        );
    }

    #[test]
    fn the_end_is_where_the_first_crlf_dot_crlf_is_and_nowhere_else() {
        for wire in all_strings(b"\r\n.a", 8) {
            let from_line_start = [b"\r\n", &wire[..]].concat();
            let expected = from_line_start
                .windows(5)
                .position(|five| five == b"\r\n.\r\n");
            let end = decode_in_pieces(&wire, &[]).1;
            assert_eq!(end, expected.map(|at| at + 3), "{wire:?}");
        }
    }

    fn newline_heavy() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(
            prop_oneof![
                Just(b'\r'),
                Just(b'\n'),
                Just(b'.'),
                Just(b'a'),
                Just(0),
                Just(0xe4)
            ],
            0..60,
        )
    }

    fn naive_facts(bytes: &[u8]) -> ContentFacts {
        let at = |index: usize| bytes.get(index).copied();
        let newline = |index: usize, octet| at(index) == Some(octet);
        ContentFacts {
            size: bytes.len() as u64,
            bare_cr: (0..bytes.len()).any(|i| newline(i, b'\r') && !newline(i + 1, b'\n')),
            bare_lf: (0..bytes.len())
                .any(|i| newline(i, b'\n') && (i == 0 || !newline(i - 1, b'\r'))),
            nul: bytes.contains(&0),
            eight_bit: bytes.iter().any(|octet| *octet > 127),
            ends_with_crlf: bytes.ends_with(b"\r\n"),
        }
    }

    fn eight_bit_header(parts: &[&[u8]]) -> bool {
        let mut octets = HeaderOctets::default();
        parts.iter().for_each(|part| octets.push(part));
        octets.eight_bit()
    }

    #[test]
    fn a_header_section_is_told_from_the_body() {
        for (text, expected) in [
            ("A: b\r\n\r\n\u{fc}", false),
            ("A: \u{fc}\r\n\r\n", true),
            ("A: b\r\n \u{fc}\r\n\r\n", true),
            ("A: b\r\n \r\nB: \u{fc}\r\n\r\n", true),
            ("\r\n\u{fc}", false),
            ("A: b", false),
            ("A: \u{fc}", true),
            ("", false),
        ] {
            let bytes = text.as_bytes();
            for at in 0..=bytes.len() {
                let (first, second) = bytes.split_at(at);
                assert_eq!(
                    eight_bit_header(&[first, second]),
                    expected,
                    "{text:?} {at}"
                );
            }
        }
    }

    proptest! {
        #[test]
        fn a_header_section_ends_with_the_first_empty_line(content in newline_heavy()) {
            let end = if content.starts_with(b"\r\n") { Some(0) } else { memchr::memmem::find(&content, b"\r\n\r\n") };
            let section = &content[..end.unwrap_or(content.len())];
            prop_assert_eq!(eight_bit_header(&[&content]), !section.is_ascii());
        }

        #[test]
        fn stuff_then_unstuff_is_identity(mut content in newline_heavy(), cuts in proptest::collection::vec(any::<usize>(), 0..4)) {
            content.extend_from_slice(b"\r\n");
            let mut wire = Vec::new();
            let mut stuffer = DotStuffer::default();
            let middle = cuts.first().map_or(0, |cut| cut % content.len());
            stuffer.push(&content[..middle], &mut wire);
            stuffer.push(&content[middle..], &mut wire);
            stuffer.finish(&mut wire);
            let length = wire.len();
            prop_assert_eq!(decode_in_pieces(&wire, &cuts), (content, Some(length)));
        }

        #[test]
        fn facts_do_not_depend_on_the_pieces(bytes in newline_heavy(), cut in any::<usize>()) {
            let cut = cut % (bytes.len() + 1);
            let mut scanner = Scanner::default();
            scanner.push(&bytes[..cut]);
            scanner.push(&bytes[cut..]);
            prop_assert_eq!(scanner.facts(), naive_facts(&bytes));
        }

        #[test]
        fn repaired_content_has_no_bare_newline(bytes in newline_heavy(), cut in any::<usize>()) {
            let cut = cut % (bytes.len() + 1);
            let mut repair = Repair::default();
            let mut out = Vec::new();
            repair.push(&bytes[..cut], &mut out);
            repair.push(&bytes[cut..], &mut out);
            repair.finish(&mut out);
            let facts = naive_facts(&out);
            prop_assert!(!facts.bare_cr && !facts.bare_lf, "{:?}", out);
            let mut again = Vec::new();
            let mut repair = Repair::default();
            repair.push(&out, &mut again);
            prop_assert_eq!(again, out);
        }
    }
}
