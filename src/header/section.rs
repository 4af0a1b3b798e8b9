//! Where does the header section end, and is its grammar sound? (RFC 5322 §2.1, §2.2; product.md 4)
//!
//! One machine reads octet by octet across any split of the input; [`Splitter`] asks it while bytes arrive, [`examine`]
//! once the section is whole. Both therefore give the same answer, and the first fault by position is the one that
//! counts. The common case, a section that lies whole in the first buffer, runs from line end to line end by `memchr`.

use super::examined::{Examined, Span};
use super::{HeaderFault, MAX_HEADER};

/// Finds the end of the header section in a stream of content bytes.
///
/// The answer does not depend on how the bytes are split. Once it has answered `Complete` or a fault, it repeats that.
#[derive(Clone, Debug, Default)]
pub struct Splitter {
    machine: Machine,
    answer: Option<Result<usize, HeaderFault>>,
}

/// How far a [`Splitter`] has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The section goes on.
    More,
    /// The empty line has been seen.
    Complete {
        /// Octets of the header section with the empty line that ends it, counted from the start of the content.
        length: usize,
    },
}

impl Splitter {
    /// Reads on.
    ///
    /// # Errors
    /// The first fault by position: of grammar, or [`HeaderFault::TooLarge`] where [`MAX_HEADER`] octets did not
    /// bring the end.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Progress, HeaderFault> {
        if self.answer.is_none() {
            match self.machine.read(bytes, |_, _| ()) {
                Ok(false) => return Ok(Progress::More),
                Ok(true) => self.answer = Some(Ok(self.machine.read)),
                Err(fault) => self.answer = Some(Err(fault)),
            }
        }
        match self.answer {
            None => Ok(Progress::More),
            Some(Ok(length)) => Ok(Progress::Complete { length }),
            Some(Err(fault)) => Err(fault),
        }
    }

    /// The content has ended: the length of the header section, which is all of it where no empty line came.
    ///
    /// # Errors
    /// The fault that `push` gave, or that of an unfinished last line.
    pub fn finish(&mut self) -> Result<usize, HeaderFault> {
        let answer = match self.answer {
            Some(answer) => answer,
            None => self.machine.end().map(|()| self.machine.read),
        };
        self.answer = Some(answer);
        answer
    }
}

/// Checks the grammar of a whole header section: the bytes up to and with the empty line that ends it, or the whole
/// message where there is none. Bytes behind the empty line are not looked at.
///
/// # Errors
/// The first fault.
pub fn examine(section: &[u8]) -> Result<Examined, HeaderFault> {
    let mut machine = Machine::default();
    let mut spans: Vec<Span> = Vec::with_capacity(64);
    let complete = machine.read(section, |mark, position| match mark {
        Mark::FieldStart => {
            if let Some(last) = spans.last_mut() {
                last.end = position;
            }
            spans.push(Span {
                start: position,
                name_end: position,
                colon: position,
                end: position,
            });
        }
        Mark::NameEnd => {
            if let Some(last) = spans.last_mut() {
                last.name_end = position;
            }
        }
        Mark::Colon => {
            if let Some(last) = spans.last_mut() {
                last.colon = position;
            }
        }
        Mark::EmptyLine => {
            if let Some(last) = spans.last_mut() {
                last.end = position;
            }
        }
    })?;
    if !complete {
        machine.end()?;
        if let Some(last) = spans.last_mut() {
            last.end = machine.read;
        }
    }
    let bytes = section.get(..machine.read).unwrap_or(section);
    Ok(Examined::new(bytes.into(), spans, complete))
}

/// A place in the section, as the machine passes it.
#[derive(Clone, Copy)]
enum Mark {
    FieldStart,
    /// Behind the last octet of the name.
    NameEnd,
    Colon,
    EmptyLine,
}

/// What the next octet belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum At {
    /// The first octet of the first line.
    #[default]
    FirstLine,
    /// The first octet of a later line.
    Line,
    /// Behind a CR that opened a line.
    EmptyCr,
    Name,
    /// Behind blanks that follow a name (tolerated before the colon only).
    NameBlank,
    /// Behind a CR where a colon was still due.
    NameCr,
    Value,
    ValueCr,
}

#[derive(Clone, Debug, Default)]
struct Machine {
    at: At,
    /// The current name has an octet that no name may have; said at the colon, for without one it is no field at all.
    bad_name: bool,
    /// Octets read so far.
    read: usize,
}

impl Machine {
    /// Reads up to the empty line; whether it came.
    fn read(
        &mut self,
        bytes: &[u8],
        mut mark: impl FnMut(Mark, usize),
    ) -> Result<bool, HeaderFault> {
        let room = MAX_HEADER.saturating_sub(self.read);
        let mut rest = bytes.get(..room).unwrap_or(bytes);
        while let Some((&octet, after)) = rest.split_first() {
            if self.at == At::Value {
                let skip = memchr::memchr3(b'\r', b'\n', 0, rest).unwrap_or(rest.len());
                if skip > 0 {
                    self.read += skip;
                    rest = rest.get(skip..).unwrap_or_default();
                    continue;
                }
            }
            if self.step(octet, &mut mark)? {
                self.read += 1;
                return Ok(true);
            }
            self.read += 1;
            rest = after;
        }
        if bytes.len() > room {
            return Err(if self.bad_name {
                HeaderFault::BadName
            } else {
                HeaderFault::TooLarge
            });
        }
        Ok(false)
    }

    /// One octet; true at the LF of the empty line.
    fn step(&mut self, octet: u8, mark: &mut impl FnMut(Mark, usize)) -> Result<bool, HeaderFault> {
        let behind_cr = matches!(self.at, At::EmptyCr | At::NameCr | At::ValueCr);
        self.at = match (self.at, octet) {
            (At::EmptyCr, b'\n') => {
                mark(Mark::EmptyLine, self.read.saturating_sub(1));
                return Ok(true);
            }
            (At::NameCr, b'\n') => return Err(HeaderFault::NoColon),
            (At::ValueCr, b'\n') => At::Line,
            (_, _) if behind_cr => return Err(HeaderFault::BareCr),
            (_, b'\n') => return Err(HeaderFault::BareLf),
            (_, 0) => return Err(HeaderFault::Nul),
            (At::FirstLine | At::Line, b'\r') => At::EmptyCr,
            (At::FirstLine, b' ' | b'\t') => return Err(HeaderFault::LeadingContinuation),
            (At::Line, b' ' | b'\t') => At::Value,
            (At::FirstLine | At::Line, b':') => return Err(HeaderFault::BadName),
            (At::FirstLine | At::Line, _) => {
                mark(Mark::FieldStart, self.read);
                self.bad_name = !is_name_octet(octet);
                At::Name
            }
            (At::Name | At::NameBlank, b'\r') => {
                self.bad_name = false;
                At::NameCr
            }
            (At::Name | At::NameBlank, b':') if self.bad_name => return Err(HeaderFault::BadName),
            (at @ (At::Name | At::NameBlank), b':') => {
                if at == At::Name {
                    mark(Mark::NameEnd, self.read);
                }
                mark(Mark::Colon, self.read);
                At::Value
            }
            (at @ (At::Name | At::NameBlank), b' ' | b'\t') => {
                if at == At::Name {
                    mark(Mark::NameEnd, self.read);
                }
                At::NameBlank
            }
            (At::Name, _) => {
                self.bad_name |= !is_name_octet(octet);
                At::Name
            }
            (At::NameBlank, _) => {
                self.bad_name = true;
                At::Name
            }
            (_, b'\r') => At::ValueCr,
            (_, _) => At::Value,
        };
        Ok(false)
    }

    /// The content ends here.
    fn end(&self) -> Result<(), HeaderFault> {
        match self.at {
            At::FirstLine | At::Line | At::Value => Ok(()),
            At::Name | At::NameBlank => Err(HeaderFault::NoColon),
            At::EmptyCr | At::NameCr | At::ValueCr => Err(HeaderFault::BareCr),
        }
    }
}

/// RFC 5322 §2.2: printable US-ASCII, not the colon (which is looked for before).
fn is_name_octet(octet: u8) -> bool {
    (33..=126).contains(&octet)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn whole(bytes: &[u8]) -> Result<usize, HeaderFault> {
        let mut splitter = Splitter::default();
        match splitter.push(bytes)? {
            Progress::Complete { length } => Ok(length),
            Progress::More => splitter.finish(),
        }
    }

    #[test]
    fn the_section_ends_with_the_first_empty_line() {
        assert_eq!(whole(b"A: b\r\nC: d\r\n\r\nX: y\r\n\r\n"), Ok(14));
        assert_eq!(whole(b"\r\nbody"), Ok(2));
        assert_eq!(whole(b""), Ok(0));
        assert_eq!(
            whole(b"A: b\r\n"),
            Ok(6),
            "no empty line: the whole message"
        );
        assert_eq!(whole(b"A: b"), Ok(4), "nor a last CRLF");
        assert_eq!(
            whole(b"A:\r\n \t \r\n\r\nbody"),
            Ok(11),
            "a line of blanks only continues its field"
        );
    }

    #[test]
    fn grammar_faults() {
        for (bytes, fault) in [
            (&b"A: b\rc\r\n\r\n"[..], HeaderFault::BareCr),
            (b"A: b\r\r\n\r\n", HeaderFault::BareCr),
            (b"A: b\r", HeaderFault::BareCr),
            (b"A: b\r\n\r", HeaderFault::BareCr),
            (b"A: b\r\n\rX: y\r\n", HeaderFault::BareCr),
            (b"A: b\n\r\n", HeaderFault::BareLf),
            (b"A: b\r\n\nbody", HeaderFault::BareLf),
            (b"\nA: b\r\n\r\n", HeaderFault::BareLf),
            (b"A\n: b\r\n\r\n", HeaderFault::BareLf),
            (b"A: b\0\r\n\r\n", HeaderFault::Nul),
            (b"A\0: b\r\n\r\n", HeaderFault::Nul),
            (b"\0", HeaderFault::Nul),
            (b"A: b\r\nno colon here\r\n\r\n", HeaderFault::NoColon),
            (b"A: b\r\nunfinished", HeaderFault::NoColon),
            (b"A b: c\r\n\r\n", HeaderFault::BadName),
            (b"\xc3\xa4: c\r\n\r\n", HeaderFault::BadName),
            (b"A\x7f: c\r\n\r\n", HeaderFault::BadName),
            (b"A\x01: c\r\n\r\n", HeaderFault::BadName),
            (b": c\r\n\r\n", HeaderFault::BadName),
            (b"A: b\r\n: c\r\n\r\n", HeaderFault::BadName),
            (b" A: b\r\n\r\n", HeaderFault::LeadingContinuation),
            (b"\t\r\n\r\n", HeaderFault::LeadingContinuation),
        ] {
            assert_eq!(whole(bytes), Err(fault), "{}", bytes.escape_ascii());
            assert_eq!(
                examine(bytes).err(),
                Some(fault),
                "{}",
                bytes.escape_ascii()
            );
        }
    }

    #[test]
    fn values_may_hold_any_other_octet() {
        assert_eq!(whole(b"A: \x01\x7f\xff\xc3\xa4\r\n\r\n"), Ok(12));
    }

    #[test]
    fn blanks_before_the_colon_are_tolerated() {
        let examined = examine(b"From \t : a@b\r\n\r\n").unwrap();
        assert_eq!(
            examined
                .fields()
                .next()
                .map(|field| field.name().to_owned()),
            Some("From".to_owned())
        );
    }

    #[test]
    fn the_limit_counts_the_empty_line_and_grammar_before_it_comes_first() {
        let line = |length: usize| [b"A: ".as_slice(), &vec![b'x'; length - 5], b"\r\n"].concat();
        let exact = [line(MAX_HEADER - 2), b"\r\nbody".to_vec()].concat();
        assert_eq!(whole(&exact), Ok(MAX_HEADER));
        let over = [line(MAX_HEADER - 1), b"\r\n".to_vec()].concat();
        assert_eq!(whole(&over), Err(HeaderFault::TooLarge));
        let endless = vec![b'A'; MAX_HEADER + 1];
        assert_eq!(whole(&endless), Err(HeaderFault::TooLarge));
        let bare = [b"A: b\nc\r\n".to_vec(), line(MAX_HEADER)].concat();
        assert_eq!(whole(&bare), Err(HeaderFault::BareLf));
        let late = [line(MAX_HEADER), b"\n".to_vec()].concat();
        assert_eq!(whole(&late), Err(HeaderFault::TooLarge));
    }

    #[test]
    fn an_answer_is_repeated() {
        let mut splitter = Splitter::default();
        assert_eq!(
            splitter.push(b"A: b\r\n\r\nbody"),
            Ok(Progress::Complete { length: 8 })
        );
        assert_eq!(splitter.push(b"\0\n"), Ok(Progress::Complete { length: 8 }));
        assert_eq!(splitter.finish(), Ok(8));
        let mut splitter = Splitter::default();
        assert_eq!(splitter.push(b"A\n"), Err(HeaderFault::BareLf));
        assert_eq!(splitter.push(b"A: b\r\n\r\n"), Err(HeaderFault::BareLf));
        assert_eq!(splitter.finish(), Err(HeaderFault::BareLf));
    }

    /// Pieces that steer the machine into every state.
    fn odd_bytes() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            8 => Just(b"\r\n".to_vec()),
            2 => Just(b"\r".to_vec()),
            1 => Just(b"\n".to_vec()),
            1 => Just(b"\0".to_vec()),
            6 => Just(b"Name: value\r\n".to_vec()),
            3 => Just(b" folded\r\n".to_vec()),
            2 => Just(b": ".to_vec()),
            2 => Just(b" \t".to_vec()),
            3 => proptest::collection::vec(any::<u8>(), 0..6),
        ];
        proptest::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn splitting_anywhere_gives_the_same_answer(bytes in odd_bytes(), cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..6)) {
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.push(bytes.len());
            cuts.sort_unstable();
            let (mut splitter, mut from) = (Splitter::default(), 0);
            let mut answer = Ok(Progress::More);
            for cut in cuts {
                answer = splitter.push(&bytes[from..cut]);
                from = cut;
                if answer != Ok(Progress::More) {
                    break;
                }
            }
            let answer = match answer {
                Ok(Progress::Complete { length }) => Ok(length),
                Ok(Progress::More) => splitter.finish(),
                Err(fault) => Err(fault),
            };
            prop_assert_eq!(answer, whole(&bytes));
            prop_assert_eq!(examine(&bytes).map(|examined| examined.len()), answer);
        }

        #[test]
        fn fields_cover_the_section_without_gap(bytes in odd_bytes()) {
            if let Ok(examined) = examine(&bytes) {
                let mut at = 0;
                for field in examined.fields() {
                    prop_assert_eq!(field.range().start, at);
                    at = field.range().end;
                }
                let tail = if examined.is_ended() { 2 } else { 0 };
                prop_assert_eq!(at + tail, examined.len() as u64);
            }
        }
    }
}
