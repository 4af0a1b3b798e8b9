//! Which header section did somebody copy out of a window?
//!
//! Outlook's properties, the Message Header Analyzer, a ticket, a mail that quotes it, a file saved with LF line ends: what
//! is pasted is not what was on the wire. This makes a header section of it that [`examine`](super::examine) reads, to be
//! explained; nothing that is delivered ever comes this way.

use super::MAX_HEADER;
use std::borrow::Cow;

/// Octets of a pasted text that are looked at.
pub const MAX_PASTED: usize = 1024 * 1024;

/// The header section in a pasted text, unfolded, with CRLF line ends; `None` where there is no field in it.
///
/// It ends with the first empty line behind a field, as a message's does; but for a table of the analyzer (a name, a tab,
/// a value), and for a copy in which every second line is empty.
#[must_use]
pub fn pasted(text: &[u8]) -> Option<Vec<u8>> {
    let text = decoded(text.get(..MAX_PASTED).unwrap_or(text));
    let mut lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    outdent(&mut lines);
    unquote(&mut lines);
    outdent(&mut lines);
    let shape = Shape::of(&lines);
    let mut fields: Vec<(&str, String)> = Vec::new();
    let mut room = MAX_HEADER;
    for line in lines {
        if line.trim_start().is_empty() {
            if fields.is_empty() || shape.skips_empty_lines {
                continue;
            }
            break;
        }
        match (shape.field(line), fields.last_mut()) {
            (Some((name, value)), _) => {
                room = room.checked_sub(name.len() + value.len() + 4)?;
                fields.push((name, value.to_owned()));
            }
            (None, Some((_, value))) if !shape.table || line.starts_with([' ', '\t']) => {
                let more = line.trim_start();
                room = room.checked_sub(more.len() + 1)?;
                if !value.is_empty() {
                    value.push(' ');
                }
                value.push_str(more);
            }
            // A heading above, or between the tables of the analyzer.
            (None, _) => {}
        }
    }
    if fields.is_empty() {
        return None;
    }
    let mut section = Vec::new();
    for (name, value) in fields {
        section.extend_from_slice(name.as_bytes());
        section.extend_from_slice(b": ");
        section.extend_from_slice(value.as_bytes());
        section.extend_from_slice(b"\r\n");
    }
    section.extend_from_slice(b"\r\n");
    (section.len() <= MAX_HEADER).then_some(section)
}

/// UTF-16, as PowerShell writes files, with its mark or without, as UTF-8; anything else as it is, but without UTF-8's mark.
#[must_use]
pub fn utf8(text: &[u8]) -> Cow<'_, [u8]> {
    let wide = |octets: &[u8], read: fn([u8; 2]) -> u16| {
        let units = octets
            .chunks_exact(2)
            .filter_map(|pair| pair.try_into().ok());
        let text = String::from_utf16_lossy(&units.map(read).collect::<Vec<u16>>());
        Cow::Owned(text.into_bytes())
    };
    match text {
        [0xff, 0xfe, rest @ ..] => wide(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => wide(rest, u16::from_be_bytes),
        [0xef, 0xbb, 0xbf, rest @ ..] => Cow::Borrowed(rest),
        text if begins_wide(text, |[low, high]| [high, low]) => wide(text, u16::from_le_bytes),
        text if begins_wide(text, |pair| pair) => wide(text, u16::from_be_bytes),
        text => Cow::Borrowed(text),
    }
}

/// As text; every kind of line end one LF; web pages' hard blanks are blanks, and no other control octet is left.
fn decoded(text: &[u8]) -> String {
    let text = utf8(text);
    let text = String::from_utf8_lossy(&text);
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    text.chars()
        .filter_map(|letter| match letter {
            '\n' | '\t' => Some(letter),
            '\u{a0}' => Some(' '),
            '\u{200b}' | '\u{feff}' => None,
            letter if letter.is_control() => Some('?'),
            letter => Some(letter),
        })
        .collect()
}

/// Whether it begins as UTF-16 without its mark: every second octet of ASCII is NUL, and a header section begins with a name.
fn begins_wide(text: &[u8], big_endian: fn([u8; 2]) -> [u8; 2]) -> bool {
    const ENOUGH: usize = 4;
    let pairs = text.chunks_exact(2).take(ENOUGH);
    let ascii = |pair: &[u8]| {
        let pair = <[u8; 2]>::try_from(pair).ok().map(big_endian);
        matches!(pair, Some([0, 1..=0x7f]))
    };
    pairs.len() == ENOUGH && pairs.clone().all(ascii)
}

fn is_empty(line: &str) -> bool {
    line.trim_start().is_empty()
}

/// Quotations within quotations that are taken off.
const DEEPEST: usize = 16;

/// Takes `> ` off a text of which every line is quoted, as often as it is there.
#[must_use]
pub fn unquoted(text: &[u8]) -> Cow<'_, [u8]> {
    let lines = |text: &[u8]| -> Vec<Vec<u8>> {
        let lines = text.split(|octet| *octet == b'\n');
        lines.map(<[u8]>::to_vec).collect()
    };
    let is_quoted = |text: &[u8]| {
        let lines = text.split(|octet| *octet == b'\n');
        let mut filled = lines
            .filter(|line| !line.trim_ascii().is_empty())
            .peekable();
        filled.peek().is_some() && filled.all(|line| line.starts_with(b">"))
    };
    let mut text = Cow::Borrowed(text);
    for _ in 0..DEEPEST {
        if !is_quoted(&text) {
            break;
        }
        let mut bare = lines(&text);
        for line in &mut bare {
            let marks = usize::from(line.starts_with(b">")) + usize::from(line.starts_with(b"> "));
            line.drain(..marks);
        }
        text = Cow::Owned(bare.join(&b'\n'));
    }
    text
}

/// Takes off `> `, as often as it is there, where the header is what is quoted; the words of who quotes go.
fn unquote(lines: &mut [&str]) {
    for _ in 0..DEEPEST {
        if !is_quoted(lines) {
            return;
        }
        let quoted = |line: &&str| line.starts_with('>');
        let first = lines.iter().position(quoted).unwrap_or(0);
        let last = lines.iter().rposition(quoted).unwrap_or(0);
        for (number, line) in lines.iter_mut().enumerate() {
            *line = match line.strip_prefix('>') {
                Some(bare) => bare.strip_prefix(' ').unwrap_or(bare),
                // Between quoted lines it may be the rest of one that was wrapped.
                None if (first..last).contains(&number) => line,
                None => "",
            };
        }
    }
}

/// Whether every line is quoted, or more fields are than are not.
fn is_quoted(lines: &[&str]) -> bool {
    let (mut some, mut all) = (false, true);
    let (mut within, mut beside) = (0_usize, 0_usize);
    for line in lines.iter().filter(|line| !is_empty(line)) {
        let is_quoted = line.starts_with('>');
        some |= is_quoted;
        all &= is_quoted;
        let bare = line.trim_start_matches(['>', ' ']);
        if field(bare, false).is_some() || cells(bare).is_some() {
            *(if is_quoted { &mut within } else { &mut beside }) += 1;
        }
    }
    some && (all || within > beside)
}

/// Takes off the blanks that every line begins with, and those of the first line, which continues nothing.
fn outdent(lines: &mut [&str]) {
    let blanks = |line: &&str| line.len() - line.trim_start_matches([' ', '\t']).len();
    let filled = || lines.iter().filter(|line| !is_empty(line));
    let common = filled().map(blanks).min().unwrap_or(0);
    for line in lines.iter_mut() {
        *line = line.get(common..).unwrap_or_default();
    }
    if let Some(first) = lines.iter_mut().find(|line| !is_empty(line)) {
        *first = first.trim_start();
    }
}

/// How a paste is laid out.
struct Shape {
    /// Names and values are columns with a tab between.
    table: bool,
    skips_empty_lines: bool,
    /// Continuation lines have kept their blanks, so that `Name:value` without one is a field.
    folded: bool,
}

impl Shape {
    fn of(lines: &[&str]) -> Self {
        let filled = || lines.iter().filter(|line| !is_empty(line));
        let tabbed = filled().filter(|line| cells(line).is_some()).count();
        let colons = filled().filter(|line| field(line, false).is_some()).count();
        let table = tabbed > colons;
        let spaced = {
            let start = lines.iter().position(|line| !is_empty(line)).unwrap_or(0);
            let rest = lines.get(start..).unwrap_or_default();
            let head: Vec<bool> = rest.iter().take(12).map(|line| is_empty(line)).collect();
            head.len() == 12 && head.chunks(2).all(|pair| pair == [false, true])
        };
        Self {
            table,
            skips_empty_lines: table || spaced,
            folded: lines.iter().any(|line| line.starts_with([' ', '\t'])),
        }
    }

    fn field<'a>(&self, line: &'a str) -> Option<(&'a str, &'a str)> {
        if self.table
            && let Some(cells) = cells(line)
        {
            return Some(cells);
        }
        field(line, self.folded)
    }
}

/// `Name: value`.
fn field(line: &str, tight: bool) -> Option<(&str, &str)> {
    let (name, value) = line.split_once(':')?;
    let name = name.trim_end_matches([' ', '\t']);
    let apart = tight || value.is_empty() || value.starts_with([' ', '\t']);
    (apart && is_name(name)).then(|| (name, value.trim_start()))
}

/// `Name<tab>value`, perhaps behind a number: a row of the Message Header Analyzer.
fn cells(line: &str) -> Option<(&str, &str)> {
    let (first, rest) = line.split_once('\t')?;
    let number = !first.is_empty() && first.bytes().all(|octet| octet.is_ascii_digit());
    let (name, value) = match number {
        true => rest.split_once('\t')?,
        false => (first, rest),
    };
    let name = name.trim().trim_end_matches(':');
    is_name(name).then(|| (name, value.trim_start()))
}

/// As field names are: narrower than the grammar, since folded text has lost its blanks in some pastes.
fn is_name(name: &str) -> bool {
    name.starts_with(|letter: char| letter.is_ascii_alphabetic())
        && name.len() <= 128
        && name
            .bytes()
            .all(|octet| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::super::examine;
    use super::*;
    use proptest::prelude::*;

    /// The fields that a paste is read as.
    fn fields(text: &str) -> Vec<(String, String)> {
        let section = pasted(text.as_bytes()).unwrap_or_else(|| panic!("nothing in {text:?}"));
        let examined = examine(&section).unwrap();
        let pair = |field: super::super::Field<'_>| {
            let value = String::from_utf8_lossy(&field.text()).into_owned();
            (field.name().to_owned(), value)
        };
        examined.fields().map(pair).collect()
    }

    fn expected(list: &[(&str, &str)]) -> Vec<(String, String)> {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        list.iter().map(own).collect()
    }

    const AUTH: &str = "X-MS-Exchange-Organization-AuthAs";

    #[test]
    fn a_block_of_outlooks_window_is_read_with_its_folding() {
        let block = "Received: from a.example (192.0.2.1) by\n b.example with Microsoft\n\tSMTP Server id 1; Tue, 24 Nov 2026 08:15:32\n +0000\nX-MS-Exchange-Organization-AuthAs: Internal\nX-Empty:\nFrom: a@contoso.com\n";
        let wanted = expected(&[
            (
                "Received",
                "from a.example (192.0.2.1) by b.example with Microsoft SMTP Server id 1; Tue, 24 Nov 2026 08:15:32 +0000",
            ),
            (AUTH, "Internal"),
            ("X-Empty", ""),
            ("From", "a@contoso.com"),
        ]);
        assert_eq!(fields(block), wanted);
        let indented: String = block
            .lines()
            .map(|line| format!("    {line}\r\n"))
            .collect();
        assert_eq!(fields(&indented), wanted);
        let quoted: String = block.lines().map(|line| format!("> {line}\n")).collect();
        assert_eq!(fields(&quoted), wanted);
        let wrote = "On Monday, 23 November 2026 at 10:15, Bob wrote:";
        let deep: String = block.lines().map(|line| format!("> > {line}\n")).collect();
        let tight: String = block.lines().map(|line| format!(">>{line}\n")).collect();
        for text in [
            deep.clone(),
            tight.clone(),
            format!("{wrote}\n{quoted}"),
            format!("{wrote}\n\n{quoted}Is that internal?\n"),
            format!("Hello,\n\n{wrote}\n> On Sunday, Carol wrote:\n{tight}"),
            format!("{wrote}\n> Carol wrote:\n>\n{deep}> and: what now?\nYes.\n"),
            format!("From: bob@contoso.com\nSubject: why\n\n{quoted}"),
            deep.replace("> > ", "  > > "),
            // A mail program has wrapped the quotation.
            quoted.replace("with Microsoft\n", "with\nMicrosoft\n"),
        ] {
            assert_eq!(fields(&text), wanted, "{text}");
        }
        // Of a message that quotes another's header, the header is its own.
        let own = format!("{block}\n> From: x@y.example\n> Subject: s\n");
        assert_eq!(fields(&own), wanted);
        let blanks = format!("\n\n  {block}\nX-Body: this is no field\n");
        assert_eq!(fields(&blanks), wanted);
        let double: String = block.lines().map(|line| format!("{line}\n\n")).collect();
        assert_eq!(fields(&double), wanted);
        let flat: String = block
            .lines()
            .map(|line| format!("{}\n", line.trim()))
            .collect();
        assert_eq!(fields(&flat), wanted, "the folding has lost its blanks");
        let hard: String = block
            .lines()
            .map(|line| format!("\u{a0}{line}\n"))
            .collect();
        assert_eq!(fields(&hard), wanted);
    }

    #[test]
    fn a_table_of_the_header_analyzer_is_read() {
        let table = "Summary\nSubject\tLunch\nMessage Id\t<a@b>\n\nOther headers\n#\tHeader\tValue\n1\tX-MS-Exchange-Organization-AuthAs\tAnonymous\n2\tX-EOPAttributedMessage\t0\n3\tX-Forefront-Antispam-Report\tCIP:192.0.2.1;DIR:INB;\n";
        let read = fields(table);
        for wanted in expected(&[
            (AUTH, "Anonymous"),
            ("X-EOPAttributedMessage", "0"),
            ("X-Forefront-Antispam-Report", "CIP:192.0.2.1;DIR:INB;"),
        ]) {
            assert!(read.contains(&wanted), "{read:?}");
        }
    }

    #[test]
    fn a_file_that_powershell_wrote_is_read() {
        let text = format!("{AUTH}: Internal\r\n");
        let mut file = vec![0xff, 0xfe];
        file.extend(text.encode_utf16().flat_map(u16::to_le_bytes));
        let section = pasted(&file).unwrap();
        assert_eq!(section, format!("{AUTH}: Internal\r\n\r\n").as_bytes());
        let marked = format!("\u{feff}{text}");
        assert_eq!(pasted(marked.as_bytes()).unwrap(), section);
        // A part of such a file has no mark.
        let text = format!("\r\nFrom: Zo\u{eb} \u{4e2d}\r\n{text}");
        for unit in [u16::to_le_bytes, u16::to_be_bytes] {
            let octets: Vec<u8> = text.encode_utf16().flat_map(unit).collect();
            assert_eq!(pasted(&octets), pasted(text.as_bytes()));
        }
        for octets in [
            &b"a\0:\0 \0\0b"[..],
            b"\0\0\0a\0\0\0:\0\0\0 \0\0\0b",
            b"From: \0a\r\n",
        ] {
            let read = pasted(octets).unwrap_or_default();
            assert!(!read.contains(&0), "{octets:?}");
        }
    }

    #[test]
    fn text_without_a_field_is_none() {
        for text in ["", "\n\n", "hello", "12:30 lunch", "\t\t", "> > >"] {
            assert_eq!(pasted(text.as_bytes()), None, "{text}");
        }
        let marks = ">".repeat(MAX_PASTED);
        assert_eq!(pasted(marks.as_bytes()), None);
        let endless = format!("X-A: {}\n", "y".repeat(MAX_HEADER));
        assert_eq!(pasted(endless.as_bytes()), None);
    }

    proptest! {
        /// What comes out reads as a header section, and reads again as the same.
        #[test]
        fn any_octets_make_a_sound_section_or_none(octets in proptest::collection::vec(any::<u8>(), 0..400)) {
            if let Some(section) = pasted(&octets) {
                let examined = examine(&section).unwrap();
                prop_assert!(examined.fields().count() > 0 && examined.is_ended());
                prop_assert_eq!(pasted(&section), Some(section));
            }
        }

        #[test]
        fn ascii_is_the_same_text_in_utf_16_without_a_mark(text in "[!-~\t\r\n ]{4,200}") {
            for unit in [u16::to_le_bytes, u16::to_be_bytes] {
                let octets: Vec<u8> = text.encode_utf16().flat_map(unit).collect();
                prop_assert_eq!(pasted(&octets), pasted(text.as_bytes()));
            }
        }

        #[test]
        fn a_header_section_is_read_as_on_the_wire(
            list in proptest::collection::vec(("X-[A-Za-z]{1,10}", "[!-~]{1,20}( [!-~]{1,20}){0,3}"), 1..8),
        ) {
            let wire: String = list.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
            let section = pasted(wire.as_bytes()).unwrap();
            prop_assert_eq!(section, format!("{wire}\r\n").into_bytes());
        }
    }
}
