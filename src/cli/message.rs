//! What does the file hold, as it would come over the wire?
//!
//! On the wire a line ends in CRLF (RFC 5321 §2.3.8), and the server takes nothing else in a header section. A tool of Unix
//! or an editor saves with LF alone: a file in which no line ends in CRLF has lost nothing but that, and is read with its CRs
//! back, for the header section and for the body that a signature covers. A file that has both is left as it is: nobody
//! can say which of its line ends the sender wrote.

use crate::header::{HeaderFault, Progress, Splitter};
use crate::trust::MAX_SIGNED_SIZE;
use serde::Serialize;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// A message out of a file.
#[derive(Clone, Debug)]
pub(super) struct Message {
    /// As over the wire; cut where nobody reads on.
    pub(super) octets: Vec<u8>,
    pub(super) line_ends: LineEnds,
}

/// How the file ends its lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum LineEnds {
    /// As on the wire, or there is no line end.
    Crlf,
    /// LF only: read as CRLF.
    Lf,
    /// Both: read as it is.
    Mixed,
}

impl Message {
    /// Reads a file, up to where it is larger than `largest` and than any signature may cover.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn read(path: &Path, largest: u64) -> Result<Self, String> {
        let most = largest.max(MAX_SIGNED_SIZE).saturating_add(1);
        let mut octets = Vec::new();
        File::open(path)
            .and_then(|file| file.take(most).read_to_end(&mut octets))
            .map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Self::of(octets))
    }

    /// What a file of these octets is.
    pub(super) fn of(octets: Vec<u8>) -> Self {
        let line_ends = LineEnds::of(&octets);
        let octets = match line_ends {
            LineEnds::Crlf | LineEnds::Mixed => octets,
            LineEnds::Lf => with_crlf(&octets),
        };
        Self { octets, line_ends }
    }

    /// The header section.
    ///
    /// # Errors
    /// What the server finds wrong with it.
    pub(super) fn section(&self) -> Result<&[u8], HeaderFault> {
        let mut splitter = Splitter::default();
        let length = match splitter.push(&self.octets)? {
            Progress::Complete { length } => length,
            Progress::More => splitter.finish()?,
        };
        Ok(self.octets.get(..length).unwrap_or(&self.octets))
    }

    /// A fault of the header section with its line, and what to do about it.
    pub(super) fn tell(&self, fault: HeaderFault) -> (String, String) {
        let line = self.line_of_fault();
        let explanation = match fault {
            HeaderFault::TooLarge => fault.to_string(),
            HeaderFault::BareCr
            | HeaderFault::BareLf
            | HeaderFault::Nul
            | HeaderFault::NoColon
            | HeaderFault::BadName
            | HeaderFault::LeadingContinuation => format!("line {line}: {fault}"),
        };
        let first = |prefix: &[u8]| line == 1 && self.octets.starts_with(prefix);
        let hint = match fault {
            HeaderFault::BareLf => {
                "the file has lines that end in LF and lines that end in CRLF. If a tool made it so, put it right (unix2dos FILE) and ask again; if it \
                 came so over the wire, who sent it must write CRLF"
            }
            HeaderFault::NoColon | HeaderFault::BadName if first(b"From ") => {
                "the first line is an mbox separator and no part of the message: remove it"
            }
            HeaderFault::NoColon | HeaderFault::BadName if first(b"\xef\xbb\xbf") => {
                "the file begins with a byte order mark: save it without"
            }
            HeaderFault::Nul | HeaderFault::NoColon | HeaderFault::BadName
                if first(b"\xff\xfe") || first(b"\xfe\xff") =>
            {
                "the file is UTF-16, as a redirection of Windows PowerShell writes it: save the message as it is"
            }
            HeaderFault::BareCr => {
                "a CR stands alone in that line: who wrote the message must write CRLF, or leave the CR out"
            }
            HeaderFault::Nul | HeaderFault::NoColon | HeaderFault::BadName => {
                "is the file the message as it arrived, from its first header line on? Else who wrote it must mend that line"
            }
            HeaderFault::LeadingContinuation => {
                "a message begins with the name of a field: remove what stands before it"
            }
            HeaderFault::TooLarge => {
                "an empty line ends the header section: is it there? Else the message has too many or too long fields"
            }
        };
        (explanation, hint.to_owned())
    }

    /// The number of the line with which the header section goes wrong, from 1.
    fn line_of_fault(&self) -> usize {
        let mut splitter = Splitter::default();
        let mut lines = self.octets.split_inclusive(|octet| *octet == b'\n');
        lines
            .position(|line| splitter.push(line).is_err())
            .map_or_else(
                || self.octets.split_inclusive(|octet| *octet == b'\n').count(),
                |before| before + 1,
            )
    }
}

impl LineEnds {
    fn of(octets: &[u8]) -> Self {
        let (mut bare, mut whole) = (false, false);
        for at in memchr::memchr_iter(b'\n', octets) {
            let behind_cr = at.checked_sub(1).and_then(|at| octets.get(at)) == Some(&b'\r');
            whole |= behind_cr;
            bare |= !behind_cr;
        }
        match (bare, whole) {
            (true, true) => Self::Mixed,
            (true, false) => Self::Lf,
            (false, _) => Self::Crlf,
        }
    }
}

fn with_crlf(octets: &[u8]) -> Vec<u8> {
    let count = memchr::memchr_iter(b'\n', octets).count();
    let mut out = Vec::with_capacity(octets.len() + count);
    for line in octets.split_inclusive(|octet| *octet == b'\n') {
        match line.strip_suffix(b"\n") {
            Some(text) => {
                out.extend_from_slice(text);
                out.extend_from_slice(b"\r\n");
            }
            None => out.extend_from_slice(line),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Message {
        Message::of(text.as_bytes().to_vec())
    }

    #[test]
    fn a_file_of_lf_lines_is_read_with_crlf_and_no_other_is_touched() {
        for (text, line_ends, octets) in [
            ("A: b\r\n\r\nc\r\n", LineEnds::Crlf, "A: b\r\n\r\nc\r\n"),
            ("A: b\n\nc\n", LineEnds::Lf, "A: b\r\n\r\nc\r\n"),
            ("A: b\n c\n\nd", LineEnds::Lf, "A: b\r\n c\r\n\r\nd"),
            // A CR that ends no line stays, to be judged as on the wire.
            ("A: b\rc\n\n", LineEnds::Lf, "A: b\rc\r\n\r\n"),
            ("A: b\r\n\r\nc\n", LineEnds::Mixed, "A: b\r\n\r\nc\n"),
            ("A: b\n\r\n", LineEnds::Mixed, "A: b\n\r\n"),
            ("A: b", LineEnds::Crlf, "A: b"),
            ("\n", LineEnds::Lf, "\r\n"),
            ("", LineEnds::Crlf, ""),
        ] {
            let message = read(text);
            assert_eq!(message.line_ends, line_ends, "{text:?}");
            assert_eq!(message.octets, octets.as_bytes(), "{text:?}");
        }
    }

    #[test]
    fn a_fault_is_told_with_its_line_and_a_cure() {
        for (text, explanation, hint) in [
            (
                "A: b\r\nC: d\nE: f\r\n\r\n",
                "line 2: a LF without CR",
                "unix2dos",
            ),
            (
                "A: b\rc\n\n",
                "line 1: a CR without LF",
                "a CR stands alone",
            ),
            ("A: b\n\n", "", ""),
            (
                "From ada@contoso.com Sun Nov 29 13:07:09 2026\nA: b\n\n",
                "line 1: ",
                "mbox",
            ),
            ("From ada\nA: b\n\n", "line 1: ", "mbox"),
            ("\u{feff}A: b\n\n", "line 1: ", "byte order mark"),
            (
                "A: b\nnonsense\n\n",
                "line 2: a header line without colon",
                "first header line",
            ),
            (
                "A: b\nnonsense",
                "line 2: a header line without colon",
                "first header line",
            ),
            (
                " A: b\n\n",
                "line 1: the first header line is a continuation",
                "remove",
            ),
        ] {
            let message = read(text);
            let Err(fault) = message.section() else {
                assert!(explanation.is_empty(), "{text:?}");
                continue;
            };
            let (told, cure) = message.tell(fault);
            assert!(
                told.starts_with(explanation) && cure.contains(hint),
                "{text:?}: {told}: {cure}"
            );
        }
        let utf_16 = Message::of(b"\xff\xfeA\0:\0 \0b\0\r\0\n\0".to_vec());
        let fault = utf_16.section().unwrap_err();
        assert!(utf_16.tell(fault).1.contains("UTF-16"), "{fault}");
    }
}
