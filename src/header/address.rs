//! Whom does From:, Sender: or Resent-From: name, beyond doubt? (RFC 5322 §3.4)
//!
//! The gate trusts these addresses, so two readers must see the same ones: a strict reader of our own, which knows no
//! groups, routes or blanks inside an address, and mail-parser, which reads as leniently as mail programs do. Where they
//! differ, or where a comment or an encoded word holds what a careless reader takes for another address, the field
//! counts as malformed. Display names may hold any octet.

use crate::mail::Mailbox;
use mail_parser::parsers::MessageStream;
use mail_parser::{Address, HeaderValue};

/// The mailboxes of an unfolded value, at least one; `None` where there is a doubt.
pub(super) fn mailboxes(value: &[u8]) -> Option<Vec<Mailbox>> {
    let entries = Reader { rest: value }.entries()?;
    agrees(value, &entries).then(|| entries.into_iter().map(|entry| entry.mailbox).collect())
}

/// One element of the list as the strict reader sees it.
struct Entry {
    mailbox: Mailbox,
    /// The display name holds encoded words (RFC 2047).
    encoded: bool,
}

/// Whether mail-parser reads the same addresses, and no decoded display name holds another one.
fn agrees(value: &[u8], entries: &[Entry]) -> bool {
    let line = [value, b"\r\n"].concat();
    let HeaderValue::Address(Address::List(list)) = MessageStream::new(&line).parse_address()
    else {
        return false;
    };
    list.len() == entries.len()
        && list.iter().zip(entries).all(|(theirs, ours)| {
            let address = theirs.address.as_deref().unwrap_or_default();
            address == ours.mailbox.as_str()
                && !(ours.encoded
                    && hides_address(theirs.name.as_deref().unwrap_or_default(), &ours.mailbox))
        })
}

fn hides_address(name: &str, own: &Mailbox) -> bool {
    let separates = |c: char| c.is_whitespace() || c.is_control() || "\"(),:;[]\\'".contains(c);
    name.contains(['<', '>'])
        || name.split(separates).any(|word| {
            word.parse::<Mailbox>()
                .is_ok_and(|other| !same(&other, own))
        })
}

fn same(one: &Mailbox, other: &Mailbox) -> bool {
    one.domain() == other.domain() && one.local_part().eq_ignore_ascii_case(other.local_part())
}

struct Reader<'a> {
    rest: &'a [u8],
}

/// A word of an element.
enum Token<'a> {
    Atom(&'a [u8]),
    Quoted(&'a [u8]),
    Angle(&'a [u8]),
    Comma,
}

impl<'a> Reader<'a> {
    fn entries(mut self) -> Option<Vec<Entry>> {
        let mut entries = Vec::new();
        let mut words: Vec<Token<'a>> = Vec::new();
        loop {
            match self.token()? {
                Some(Token::Comma) => entries.push(entry(&std::mem::take(&mut words))?),
                Some(token) => words.push(token),
                None => {
                    entries.push(entry(&words)?);
                    return Some(entries);
                }
            }
        }
    }

    /// The next token, comments and blanks skipped; `Some(None)` at the end, `None` on a fault.
    #[expect(clippy::option_option, reason = "a fault and the end are two things")]
    fn token(&mut self) -> Option<Option<Token<'a>>> {
        loop {
            let Some(&octet) = self.rest.first() else {
                return Some(None);
            };
            match octet {
                b' ' | b'\t' => self.skip(1),
                b'(' => self.comment()?,
                b'"' => return self.quoted().map(|text| Some(Token::Quoted(text))),
                b'<' => return self.angle().map(|text| Some(Token::Angle(text))),
                b',' => {
                    self.skip(1);
                    return Some(Some(Token::Comma));
                }
                _ => return self.atom().map(|text| Some(Token::Atom(text))),
            }
        }
    }

    fn skip(&mut self, octets: usize) {
        self.rest = self.rest.get(octets..).unwrap_or_default();
    }

    fn take(&mut self, octets: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(octets)?;
        self.rest = rest;
        Some(taken)
    }

    fn atom(&mut self) -> Option<&'a [u8]> {
        let ends = |octet: &u8| matches!(octet, b' ' | b'\t' | b'(' | b'"' | b'<' | b',');
        let length = self.rest.iter().position(ends).unwrap_or(self.rest.len());
        let text = self.take(length)?;
        let fit = |&octet: &u8| octet > 32 && octet != 127 && !b")>[]:;\\".contains(&octet);
        text.iter().all(fit).then_some(text)
    }

    /// Between the quotes, escapes kept.
    fn quoted(&mut self) -> Option<&'a [u8]> {
        let mut at = 1;
        loop {
            match self.rest.get(at)? {
                b'"' => break,
                b'\\' => at += 2,
                0..=8 | 10..=31 | 127 => return None,
                _ => at += 1,
            }
        }
        self.take(at + 1)?.get(1..at)
    }

    fn angle(&mut self) -> Option<&'a [u8]> {
        let mut quoted = false;
        let mut at = 1;
        loop {
            match self.rest.get(at)? {
                b'>' if !quoted => break,
                b'"' => quoted = !quoted,
                b'\\' if quoted => at += 1,
                b'<' | b'(' | b')' if !quoted => return None,
                _ => {}
            }
            at += 1;
        }
        self.take(at + 1)?.get(1..at)
    }

    /// A comment, nested ones with it; one that holds what could be taken for an address is a trick.
    fn comment(&mut self) -> Option<()> {
        let (mut depth, mut at) = (0_usize, 0);
        loop {
            match self.rest.get(at)? {
                b'(' => depth += 1,
                b')' => {
                    depth -= 1;
                    if depth == 0 {
                        self.skip(at + 1);
                        return Some(());
                    }
                }
                b'@' | b'<' | b'>' | b'"' | b'\\' | 0..=8 | 10..=31 | 127 => return None,
                b'=' if self.rest.get(at + 1) == Some(&b'?') => return None,
                _ => {}
            }
            at += 1;
        }
    }
}

fn entry(words: &[Token<'_>]) -> Option<Entry> {
    match words {
        [Token::Atom(address)] => Some(Entry {
            mailbox: mailbox(address)?,
            encoded: false,
        }),
        [phrase @ .., Token::Angle(address)] => {
            let mailbox = mailbox(address)?;
            let mut encoded = false;
            for word in phrase {
                match word {
                    // Exchange writes `a@b <a@b>` without quotes; any other address there leaves a doubt.
                    Token::Atom(text) if text.contains(&b'@') => {
                        if !text.eq_ignore_ascii_case(address) {
                            return None;
                        }
                    }
                    Token::Atom(text) | Token::Quoted(text) => {
                        encoded |= text.windows(2).any(|pair| pair == b"=?");
                    }
                    Token::Angle(_) | Token::Comma => return None,
                }
            }
            Some(Entry { mailbox, encoded })
        }
        _ => None,
    }
}

/// One address; a domain that only becomes plain ASCII by mapping look-alikes (full-width letters) is none.
fn mailbox(text: &[u8]) -> Option<Mailbox> {
    let text = std::str::from_utf8(text).ok()?;
    let mailbox: Mailbox = text.parse().ok()?;
    let domain = text.rsplit_once('@')?.1;
    (domain.is_ascii() || mailbox.domain().as_str().contains("xn--")).then_some(mailbox)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(value: &str) -> Option<Vec<String>> {
        mailboxes(value.as_bytes()).map(|list| list.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn plain_forms_are_read() {
        for value in [
            " ada@contoso.com",
            "<ada@contoso.com>",
            "Ada Example <ada@contoso.com>",
            "\"Example, Ada\" <ada@contoso.com>",
            "\"ceo@fabrikam.com\" <ada@contoso.com>",
            "\"A \\\" <x@y.example>\" <ada@contoso.com>",
            "=?utf-8?Q?Gr=C3=BC=C3=9Fe?= <ada@contoso.com>",
            "=?utf-8?Q?M=C3=BCller_=40_Contoso?= <ada@contoso.com>",
            "ada@contoso.com (Ada Example)",
            "Ada (Sales (EMEA)) Example <ada@contoso.com>",
            "ada@contoso.com <ada@contoso.com>",
            "Dr. Ada O'Example <ada@contoso.com> ",
            "Müller <ada@contoso.com>",
        ] {
            assert_eq!(
                read(value).as_deref(),
                Some(&["ada@contoso.com".to_owned()][..]),
                "{value}"
            );
        }
        assert_eq!(
            mailboxes(b"M\xfcller <ada@contoso.com>").map(|list| list.len()),
            Some(1)
        );
    }

    #[test]
    fn lists_are_read() {
        assert_eq!(
            read("Ada <ada@contoso.com>, \"B, C\" <b@contoso.com>,c@contoso.com")
                .map(|list| list.join(" ")),
            Some("ada@contoso.com b@contoso.com c@contoso.com".to_owned())
        );
    }

    #[test]
    fn doubtful_forms_are_malformed() {
        for value in [
            "",
            " ",
            "Ada Example",
            "<>",
            "undisclosed-recipients:;",
            "Group: ada@contoso.com;",
            "Group: ada@contoso.com, b@contoso.com;",
            "<@relay.example:ada@contoso.com>",
            "ada@contoso.com@fabrikam.com",
            "<ada@fabrikam.com@contoso.com>",
            "ceo@fabrikam.com <ada@contoso.com>",
            "<ceo@fabrikam.com> <ada@contoso.com>",
            "ada@contoso.com <ceo@fabrikam.com> ada@contoso.com",
            "<ada@contoso.com> ceo@fabrikam.com",
            "ada @contoso.com",
            "ada@ contoso.com",
            "<ada@contoso.com >",
            "ada@contoso.com.",
            "ada@.contoso.com",
            "ada@contoso.com (ceo@fabrikam.com)",
            "(ceo@fabrikam.com) ada@contoso.com",
            "ada(x)@contoso.com",
            "ada@contoso.com(<ceo@fabrikam.com>)",
            "ada@contoso.com (unclosed",
            "ada@contoso.com unopened)",
            "\"unclosed <ada@contoso.com>",
            "<ada@contoso.com",
            "ada@contoso.com>",
            "ada@contoso.com,",
            ",ada@contoso.com",
            "ada@contoso.com,,b@contoso.com",
            "ada@contoso.com; b@contoso.com",
            "=?utf-8?Q?ada=40contoso.com?=",
            "=?utf-8?Q?ceo?=ada@contoso.com",
            "=?utf-8?B?PGFAYi5jPg==?=ada@contoso.com",
            "=?utf-8?Q?ceo=40fabrikam.com?= <ada@contoso.com>",
            "=?utf-8?Q?=3Cceo=40fabrikam.com=3E=2C?= <ada@contoso.com>",
            "=?utf-8?B?PGNlb0BmYWJyaWthbS5jb20+?= <ada@contoso.com>",
            "\"=?utf-8?Q?ceo=40fabrikam.com?=\" <ada@contoso.com>",
            "ada@\u{ff43}ontoso.com",
            "ada\u{0}@contoso.com",
            "Ada \u{1} <ada@contoso.com>",
            "ada@\u{ff0e}contoso.com",
        ] {
            assert_eq!(read(value), None, "{value}");
        }
        assert_eq!(
            mailboxes(b"ada@contos\xf6.com").map(|list| list.len()),
            None
        );
    }

    proptest! {
        /// mail-parser is only asked about what the strict reader took, and never brings the server down.
        #[test]
        fn any_value_has_an_answer(words in proptest::collection::vec(prop_oneof![
            Just("a@contoso.com".to_owned()), Just("<a@contoso.com>".to_owned()), Just(",".to_owned()),
            Just("(".to_owned()), Just(")".to_owned()), Just("\"".to_owned()), Just("\\".to_owned()),
            Just("=?utf-8?B?PGFAYi5jPg==?=".to_owned()), Just(" ".to_owned()), Just("<".to_owned()),
            Just(">".to_owned()), Just(":".to_owned()), Just(";".to_owned()), "[ -~]{0,4}",
        ], 0..8), raw in proptest::collection::vec(any::<u8>(), 0..4)) {
            let value = [words.concat().as_bytes(), &raw].concat();
            if let Some(list) = mailboxes(&value) {
                prop_assert!(!list.is_empty());
            }
        }
    }

    #[test]
    fn look_alike_domains_stay_other_domains() {
        let list = mailboxes("ada@\u{441}ontoso.com".as_bytes()).unwrap();
        assert_ne!(list[0].domain().as_str(), "contoso.com");
    }
}
