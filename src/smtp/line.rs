//! Command lines out of a byte stream, with limits (RFC 5321 §2.3.8, §4.5.3.1.4).

/// Longest command line, with CRLF: 512 octets of RFC 5321 §4.5.3.1.4 plus what the extensions add to MAIL and RCPT
/// (ENVID and ORCPT of RFC 3461 alone allow 600 more, XOORG 255).
pub const MAX_COMMAND: usize = 2048;

/// Longest line of an AUTH exchange, with CRLF (RFC 4954 §4).
pub const MAX_AUTH: usize = 12_288;

/// What stands at the head of the input.
#[derive(Debug, PartialEq, Eq)]
pub enum Head {
    /// A whole line: its length without, and with, its end.
    Line {
        /// Octets before the line end.
        text: usize,
        /// Octets to consume.
        whole: usize,
    },
    /// A line that ended in a bare LF, or held a bare CR or a NUL: to be consumed and refused. Guessing where such a
    /// line ends is how commands are smuggled.
    Malformed {
        /// Octets to consume.
        whole: usize,
    },
    /// No line end yet.
    More,
    /// No line end within the limit.
    TooLong,
}

/// Looks for a line at the head of `input`.
#[must_use]
pub fn head(input: &[u8], limit: usize) -> Head {
    let Some(lf) = memchr::memchr(b'\n', input) else {
        return if input.len() >= limit {
            Head::TooLong
        } else {
            Head::More
        };
    };
    let whole = lf + 1;
    if whole > limit {
        return Head::TooLong;
    }
    let Some(text) = input.get(..lf).and_then(|line| line.strip_suffix(b"\r")) else {
        return Head::Malformed { whole };
    };
    if memchr::memchr2(b'\r', 0, text).is_some() {
        return Head::Malformed { whole };
    }
    Head::Line {
        text: text.len(),
        whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_crlf_ends_a_line() {
        assert_eq!(
            head(b"NOOP\r\nQUIT\r\n", 512),
            Head::Line { text: 4, whole: 6 }
        );
        assert_eq!(head(b"NOOP\nQUIT\r\n", 512), Head::Malformed { whole: 5 });
        assert_eq!(head(b"NO\rOP\r\n", 512), Head::Malformed { whole: 7 });
        assert_eq!(head(b"NO\0OP\r\n", 512), Head::Malformed { whole: 7 });
        assert_eq!(head(b"NOOP\r", 512), Head::More);
        assert_eq!(head(&[b'x'; 512], 512), Head::TooLong);
        assert_eq!(head(b"xxxxxxxx\r\n", 8), Head::TooLong);
    }
}
