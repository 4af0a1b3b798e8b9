//! SMTP replies, written as a server and read as a client (RFC 5321 §4.2, RFC 2034, RFC 3463).

use crate::mail::shown;
use std::borrow::Cow;
use std::fmt;
use std::io::Write as _;

/// An enhanced status code: class, subject, detail.
pub type Enhanced = (u8, u16, u16);

/// One reply.
#[derive(Clone, PartialEq, Eq)]
pub struct Reply {
    /// 200 to 599.
    pub code: u16,
    /// RFC 3463 code, given on every line.
    pub enhanced: Option<Enhanced>,
    /// At least one line of text, without codes.
    pub lines: Vec<Cow<'static, str>>,
}

impl Reply {
    /// A reply of one line.
    #[must_use]
    pub fn new(code: u16, enhanced: Enhanced, text: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            enhanced: Some(enhanced),
            lines: vec![text.into()],
        }
    }

    /// A reply without enhanced code: greeting, EHLO, 354, 334 (RFC 2034 §4).
    #[must_use]
    pub fn plain(code: u16, lines: Vec<Cow<'static, str>>) -> Self {
        Self {
            code,
            enhanced: None,
            lines,
        }
    }

    /// The class: 2, 3, 4 or 5.
    #[must_use]
    pub fn class(&self) -> u16 {
        self.code / 100
    }

    /// Appends the reply as it goes over the wire.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        let last = self.lines.len().saturating_sub(1);
        for (index, line) in self.lines.iter().enumerate() {
            let mark = if index == last { ' ' } else { '-' };
            // Writing into a Vec cannot fail.
            let written = match self.enhanced {
                Some((class, subject, detail)) => {
                    write!(
                        out,
                        "{}{mark}{class}.{subject}.{detail} {line}\r\n",
                        self.code
                    )
                }
                None => write!(out, "{}{mark}{line}\r\n", self.code),
            };
            debug_assert!(written.is_ok());
        }
    }

    /// All lines in one, for a person; escaped and cut.
    #[must_use]
    pub fn summary(&self) -> String {
        let mut text = self.code.to_string();
        if let Some((class, subject, detail)) = self.enhanced {
            text.push_str(&format!(" {class}.{subject}.{detail}"));
        }
        for line in &self.lines {
            text.push(' ');
            text.push_str(line);
        }
        shown(text.as_bytes())
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.summary())
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.summary())
    }
}

/// Most octets of a whole reply that are read; RFC 5321 §4.5.3.1.5 asks for 512 a line.
pub const MAX_REPLY: usize = 16 * 1024;

/// Why the peer's bytes are no reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyFault {
    /// A line does not begin with a code of three digits, 2 to 5 first, then a blank, a hyphen or the line end.
    Malformed,
    /// The lines of one reply carry different codes.
    MixedCodes,
    /// Longer than [`MAX_REPLY`] octets.
    TooLong,
    /// It came before there was anything to answer.
    Unasked,
}

impl fmt::Display for ReplyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "malformed reply",
            Self::MixedCodes => "reply lines with different codes",
            Self::TooLong => "reply too long",
            Self::Unasked => "a reply to nothing that was asked",
        })
    }
}

/// Reads the reply at the head of `input`: the reply and the octets it took, or nothing where more is needed.
///
/// Lines may end in a bare LF: here a lenient reading hides nothing, since only codes are acted upon.
///
/// # Errors
/// The bytes are no reply; the connection is to be dropped.
pub fn parse(input: &[u8]) -> Result<Option<(Reply, usize)>, ReplyFault> {
    let mut lines: Vec<Cow<'static, str>> = Vec::new();
    let mut code = None;
    let mut enhanced = None;
    let mut consumed = 0;
    loop {
        let rest = input.get(consumed..).unwrap_or_default();
        let Some(lf) = memchr::memchr(b'\n', rest) else {
            return if input.len() >= MAX_REPLY {
                Err(ReplyFault::TooLong)
            } else {
                Ok(None)
            };
        };
        consumed += lf + 1;
        if consumed > MAX_REPLY {
            return Err(ReplyFault::TooLong);
        }
        let line = rest.get(..lf).unwrap_or_default();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let (this, more, text) = split_line(line).ok_or(ReplyFault::Malformed)?;
        if *code.get_or_insert(this) != this {
            return Err(ReplyFault::MixedCodes);
        }
        let (line_enhanced, text) = split_enhanced(this, text);
        if lines.is_empty() {
            enhanced = line_enhanced;
        }
        lines.push(Cow::Owned(String::from_utf8_lossy(text).into_owned()));
        if !more {
            return Ok(Some((
                Reply {
                    code: this,
                    enhanced,
                    lines,
                },
                consumed,
            )));
        }
    }
}

fn split_line(line: &[u8]) -> Option<(u16, bool, &[u8])> {
    let (digits, rest) = line.split_at_checked(3)?;
    if !matches!(digits.first(), Some(b'2'..=b'5')) || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let code = digits
        .iter()
        .fold(0, |code, digit| code * 10 + u16::from(digit - b'0'));
    match rest.split_first() {
        None => Some((code, false, rest)),
        Some((b' ', text)) => Some((code, false, text)),
        Some((b'-', text)) => Some((code, true, text)),
        Some(_) => None,
    }
}

/// Takes `5.7.64 ` off the text where its class agrees with the code (RFC 2034 §4).
fn split_enhanced(code: u16, text: &[u8]) -> (Option<Enhanced>, &[u8]) {
    let end = memchr::memchr(b' ', text).unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    let Some(status) = std::str::from_utf8(word).ok().and_then(parse_enhanced) else {
        return (None, text);
    };
    if u16::from(status.0) != code / 100 {
        return (None, text);
    }
    (Some(status), rest.strip_prefix(b" ").unwrap_or(rest))
}

/// Reads `5.7.64` (RFC 3463 §2).
#[must_use]
pub fn parse_enhanced(word: &str) -> Option<Enhanced> {
    let mut parts = word.split('.');
    let mut number = |most: usize| {
        let part = parts.next()?;
        let good =
            (1..=most).contains(&part.len()) && part.bytes().all(|octet| octet.is_ascii_digit());
        good.then(|| part.parse::<u16>().ok()).flatten()
    };
    let (class, subject, detail) = (number(1)?, number(3)?, number(3)?);
    let class = u8::try_from(class)
        .ok()
        .filter(|class| matches!(class, 2 | 4 | 5))?;
    parts.next().is_none().then_some((class, subject, detail))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn several_lines_make_one_reply() {
        let input = b"550-5.7.64 TenantAttribution;\r\n550 5.7.64 Relay Access Denied\r\n250 next";
        let (reply, consumed) = parse(input).unwrap().unwrap();
        assert_eq!((reply.code, reply.enhanced), (550, Some((5, 7, 64))));
        assert_eq!(reply.lines, ["TenantAttribution;", "Relay Access Denied"]);
        assert_eq!(&input[consumed..], b"250 next");
    }

    #[test]
    fn enhanced_code_of_another_class_is_text() {
        let (reply, _) = parse(b"250 5.1.1 odd\r\n").unwrap().unwrap();
        assert_eq!(reply.enhanced, None);
        assert_eq!(parse(b"250\r\n").unwrap().unwrap().0.code, 250);
    }

    #[test]
    fn garbage_is_refused_and_length_is_bounded() {
        for bad in [
            &b"hello\r\n"[..],
            b"25 ok\r\n",
            b"650 ok\r\n",
            b"250_ok\r\n",
            b"\r\n",
        ] {
            assert_eq!(parse(bad), Err(ReplyFault::Malformed), "{bad:?}");
        }
        assert_eq!(parse(b"250-a\r\n251 b\r\n"), Err(ReplyFault::MixedCodes));
        let endless = b"250-more\r\n".repeat(10_000);
        assert_eq!(parse(&endless), Err(ReplyFault::TooLong));
        assert_eq!(parse(&[b'2'; MAX_REPLY]), Err(ReplyFault::TooLong));
    }

    proptest! {
        #[test]
        fn written_replies_read_back(code in 200u16..600, lines in proptest::collection::vec("[ -~]{1,40}", 1..4)) {
            let class = u8::try_from(code / 100).unwrap();
            let enhanced = matches!(class, 2 | 4 | 5).then_some((class, 7, 1));
            let lines: Vec<_> = lines.into_iter().map(|line| Cow::Owned(format!("x{line}"))).collect();
            let reply = Reply { code, enhanced, lines };
            let mut wire = Vec::new();
            reply.write_to(&mut wire);
            prop_assert_eq!(parse(&wire), Ok(Some((reply, wire.len()))));
        }

        #[test]
        fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            drop(parse(&bytes));
        }
    }
}
