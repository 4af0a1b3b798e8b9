//! Which reply stands in a text that somebody copied: out of a log, a bounce's `Diagnostic-Code`, Exchange's queue or
//! message trace (`[{LED=...};{MSG=...}]`)?
//!
//! The text is nobody's proof of anything: it is only explained. So it is read generously, but a code is never made up:
//! a number counts as a reply code only where a reply code can stand.

mod log;
mod none;
mod report;
mod session;

pub use self::none::why_nothing_is_said;
pub use self::report::{SaidFor, said_each};

use super::outcome::NextHop;
use super::replies::Phase;
use crate::smtp::reply::{Enhanced, parse_enhanced};

/// Octets of a text that are looked at.
pub const MAX_SAID: usize = 64 * 1024;

/// A reply as somebody copied it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// The reply code, where one stands there.
    pub code: Option<u16>,
    /// The enhanced code, where one stands there.
    pub enhanced: Option<Enhanced>,
    /// What follows the codes, in one line.
    pub text: String,
    /// What it was an answer to, where the text says so.
    pub phase: Option<Phase>,
    /// Who gave it, where the text says so.
    pub next_hop: Option<NextHop>,
    /// Whether Exchange, which wrapped it, has given the message up: `550 5.4.300 Message expired -> 451 ...`.
    pub given_up: bool,
}

impl Said {
    /// 2 to 5, by the code, else by the enhanced code.
    fn class(&self) -> Option<u16> {
        let of_enhanced = || self.enhanced.map(|(class, ..)| u16::from(class));
        self.code.map(|code| code / 100).or_else(of_enhanced)
    }

    /// Whether it is a refusal, for now or for good.
    #[must_use]
    pub fn refuses(&self) -> bool {
        matches!(self.class(), Some(4 | 5)) || self.is_no_consent_to(self.phase)
    }

    /// Whether it refuses, as an answer to this, without a code of a refusal: STARTTLS is granted by 220 alone (RFC 3207 §4), a
    /// login by 235 alone (RFC 4954 §6), and delivery takes everything else as a no.
    #[must_use]
    pub fn is_no_consent_to(&self, phase: Option<Phase>) -> bool {
        let consent = match phase {
            Some(Phase::StartTls) => 220,
            Some(Phase::Login) => 235,
            _ => return false,
        };
        self.code.is_some_and(|code| code < 400 && code != consent)
    }
}

/// The reply in `text`; `None` where there is none.
#[must_use]
pub fn said(text: &[u8]) -> Option<Said> {
    let text = text.get(..MAX_SAID).unwrap_or(text);
    let whole: String = String::from_utf8_lossy(text)
        .chars()
        .map(|letter| match letter {
            '\n' => '\n',
            letter if letter.is_control() => ' ',
            letter => letter,
        })
        .collect();
    let whole = log::with_line_ends(&whole);
    if let Some((phase, reply)) = session::decided(&whole)
        && let Some(found) = read(&reply)
    {
        return Some(Said {
            phase: Some(phase),
            ..found
        });
    }
    // Of several attempts: what was refused for good, else what was refused for now.
    let rank = |own: &Said| match own.class() {
        Some(4) => 1,
        _ if own.refuses() => 0,
        _ => 2,
    };
    let attempts = log::attempts(&whole).into_iter();
    attempts.filter_map(of_attempt).min_by_key(rank)
}

fn of_attempt(attempt: &str) -> Option<Said> {
    let (phase, next_hop) = (log::phase(attempt), log::next_hop(attempt));
    let mut first = None;
    for (region, wrapped) in regions(attempt) {
        let Some(found) = read(region) else {
            continue;
        };
        let found = Said {
            phase,
            next_hop,
            given_up: wrapped.is_some_and(|outer| gives_up(outer, &found)),
            ..found
        };
        if found.refuses() {
            return Some(found);
        }
        // Of what was granted and what was refused, the refusal is why somebody asks; what the text says of a step, it says of
        // a refusal.
        first.get_or_insert(Said {
            phase: None,
            ..found
        });
    }
    first
}

/// Where to look first, and what it is wrapped in: Exchange wraps the next hop's reply, the last one, into codes of its own.
fn regions(whole: &str) -> Vec<(&str, Option<&str>)> {
    let mut regions = Vec::new();
    if let Some((_, rest)) = whole.split_once("LED=") {
        let end = ["};{", "}]", "};"].iter().filter_map(|end| rest.find(end));
        let end = end.min().unwrap_or(rest.len());
        let led = rest.get(..end).unwrap_or(rest);
        regions.extend(around_arrow(led));
        regions.push((led, None));
    }
    regions.extend(around_arrow(whole));
    regions.extend(log::last_answer(whole).map(|answer| (answer, None)));
    regions.push((whole, None));
    regions
}

/// What follows the last arrow, and what stands before it. An arrow that heads its line is no wrapping of Exchange's.
fn around_arrow(text: &str) -> Option<(&str, Option<&str>)> {
    let (before, last) = text.rsplit_once(" -> ")?;
    let line = before.rsplit('\n').next().unwrap_or(before);
    (!line.trim().is_empty()).then_some((last, Some(before)))
}

/// Whether what wraps a temporary refusal is a permanent one: then nobody tries again.
fn gives_up(outer: &str, inner: &Said) -> bool {
    inner.class() == Some(4) && read(outer).and_then(|own| own.class()) == Some(5)
}

/// A word of digits and dots with its place.
#[derive(Clone, Copy)]
struct Word<'a> {
    start: usize,
    end: usize,
    text: &'a str,
}

/// Runs of digits and dots that stand alone: no letter, digit or dot beside them.
fn words(text: &str) -> impl Iterator<Item = Word<'_>> {
    let mut rest = 0;
    std::iter::from_fn(move || {
        loop {
            let from = rest
                + text
                    .get(rest..)?
                    .find(|letter: char| letter.is_ascii_digit())?;
            let run = text.get(from..)?;
            let length = run
                .find(|letter: char| !(letter.is_ascii_digit() || letter == '.'))
                .unwrap_or(run.len());
            let end = from + length;
            rest = end;
            let before = text.get(..from)?.chars().next_back();
            let after = text.get(end..)?.chars().next();
            let joined = |letter: Option<char>| {
                letter.is_some_and(|letter| letter.is_alphanumeric() || letter == '.')
            };
            let bare = run.get(..length)?.trim_end_matches('.');
            if !joined(before) && !joined(after) && !bare.is_empty() {
                return Some(Word {
                    start: from,
                    end: from + bare.len(),
                    text: bare,
                });
            }
        }
    })
}

/// Where codes stand: the reply code, the enhanced code, and the end of both.
type Codes = (Option<u16>, Option<Enhanced>, usize);

/// The reply in a region: codes side by side, else a code at the head of a line, else an enhanced code with or without a
/// reply code elsewhere. What refuses goes before what does not.
fn read(region: &str) -> Option<Said> {
    let words: Vec<Word<'_>> = words(region).collect();
    let side_by_side = words
        .iter()
        .zip(words.iter().skip(1))
        .filter_map(|(one, two)| {
            let (code, enhanced) = (any_code(one.text)?, enhanced(two.text)?);
            let between = region.get(one.end..two.start)?;
            (matches!(between, " " | "-" | "- " | "  ") && code / 100 == u16::from(enhanced.0))
                .then_some((Some(code), Some(enhanced), two.end))
        });
    let side_by_side: Vec<Codes> = side_by_side.collect();
    let heads_line = words.iter().filter_map(|word| {
        let before = region.get(..word.start)?;
        let head = before.trim_end_matches([' ', '\t', '<', '>', '"', '\'', '-', '#', '*', '~']);
        let heads = head.is_empty() || head.ends_with('\n');
        (heads && ends_code(region, word.end)).then_some((
            Some(any_code(word.text)?),
            None,
            word.end,
        ))
    });
    let heads_line: Vec<Codes> = heads_line.collect();
    let refuses = |codes: &Codes| codes.0.is_some_and(|code| code >= 400);
    // Beside codes of consent, a number at the head of a line must at least look like one (RFC 5321 §4.2.1).
    let is_code = |codes: &Codes| {
        codes
            .0
            .is_some_and(|code| reply_code(&code.to_string()).is_some())
    };
    let first = |all: &[Codes]| {
        let first = all
            .iter()
            .find(|codes| refuses(codes))
            .or_else(|| all.first());
        first.map(|codes| with_text(region, all, *codes))
    };
    let refused = || {
        let strict: Vec<Codes> = heads_line.iter().copied().filter(is_code).collect();
        first(&side_by_side)
            .filter(refuses)
            .or_else(|| first(&strict).filter(refuses))
    };
    let found = refused()
        .or_else(|| first(&side_by_side))
        .or_else(|| first(&heads_line))
        .or_else(|| anywhere(region, &words));
    let (code, enhanced, end) = match found {
        Some(found) => found,
        None => by_words(region)?,
    };
    let (before, rest) = region.split_at_checked(end).unwrap_or((region, ""));
    let text = text_behind(before, rest, code);
    Some(Said {
        code,
        enhanced,
        text,
        phase: None,
        next_hop: None,
        given_up: false,
    })
}

/// Characters behind codes within which their text begins.
const NEAR: usize = 80;

/// Outlook heads a report with the bare codes, and shows the reply below: the same codes with a text say more.
fn with_text(region: &str, all: &[Codes], found: Codes) -> Codes {
    let has_text = |codes: &Codes| {
        let rest = region.get(codes.2..).unwrap_or_default();
        let mut line = rest.chars().take_while(|letter| *letter != '\n').take(NEAR);
        line.any(char::is_alphabetic)
    };
    if has_text(&found) {
        return found;
    }
    let same = all
        .iter()
        .find(|own| (own.0, own.1) == (found.0, found.1) && has_text(own));
    same.copied().unwrap_or(found)
}

/// An enhanced code, with or without a reply code elsewhere.
fn anywhere(region: &str, words: &[Word<'_>]) -> Option<Codes> {
    let enhanced = words
        .iter()
        .find_map(|word| Some((enhanced(word.text)?, word.end)));
    let code = words.iter().find_map(|word| {
        let before = region.get(..word.start)?.trim_end_matches(' ');
        let opens = before.is_empty() || before.ends_with([':', ';', '\'', '"', '(', '<', '#']);
        let code = reply_code(word.text)?;
        (opens && ends_code(region, word.end)).then_some((code, word.end))
    });
    match (code, enhanced) {
        (Some((code, end)), Some((enhanced, other))) if code / 100 == u16::from(enhanced.0) => {
            Some((Some(code), Some(enhanced), end.max(other)))
        }
        (_, Some((enhanced, end))) => Some((None, Some(enhanced), end)),
        (Some((code, end)), None) => Some((Some(code), None, end)),
        (None, None) => None,
    }
}

/// A reply code is followed by a blank, a hyphen, or the end of the line (RFC 5321 §4.2).
fn ends_code(region: &str, end: usize) -> bool {
    let after = region.get(end..).and_then(|rest| rest.chars().next());
    matches!(after, None | Some(' ' | '-' | '\n'))
}

/// RFC 5321 §4.2.1: 2 to 5, then 0 to 5.
fn reply_code(word: &str) -> Option<u16> {
    match word.as_bytes() {
        [b'2'..=b'5', b'0'..=b'5', b'0'..=b'9'] => word.parse().ok(),
        _ => None,
    }
}

/// Where nothing else can stand: three digits, as delivery reads them on the wire.
fn any_code(word: &str) -> Option<u16> {
    match word.as_bytes() {
        [b'2'..=b'5', b'0'..=b'9', b'0'..=b'9'] => word.parse().ok(),
        _ => None,
    }
}

fn enhanced(word: &str) -> Option<Enhanced> {
    parse_enhanced(word)
}

/// Where something else begins: a blank line, another field, or another part of the mail that the reply was copied with.
fn ends_reply(line: &str) -> bool {
    let is_name = |name: &str| {
        !name.is_empty()
            && name
                .bytes()
                .all(|octet| octet.is_ascii_alphanumeric() || octet == b'-')
    };
    line.trim().is_empty()
        || line.starts_with("--")
        || line.starts_with(">>>")
        || log::begins_entry(line)
        || LABELS.iter().any(|label| line.starts_with(label))
        || line.split_once(':').is_some_and(|(name, value)| {
            is_name(name) && (value.is_empty() || value.starts_with(' '))
        })
}

/// What Exchange and Outlook write behind a reply.
const LABELS: &[&str] = &[
    "DSN generated by:",
    "Remote server:",
    "Generating server:",
    "Original message headers",
    "Original Message Headers",
    "Message Hops",
    "Notification details",
];

/// What follows the codes: the codes of the further lines of one reply are left out, and what wraps the end.
fn text_behind(before: &str, rest: &str, code: Option<u16>) -> String {
    let code = code.map(|code| code.to_string());
    // RFC 5321 §4.2.1: a hyphen behind the code says that a line follows.
    let follows = |line: &str, at: usize| line.get(at..).is_some_and(|rest| rest.starts_with('-'));
    let mut more = code.as_deref().is_some_and(|code| {
        rest.starts_with('-')
            || before
                .rfind(code)
                .is_some_and(|at| follows(before, at + code.len()))
    });
    // Our own trace has a reply in one line; a log ends it with a quotation mark.
    let line = before.rsplit('\n').next().unwrap_or(before);
    let is_traced = log::of_trace(line).is_some();
    let is_code = |letter: char| letter.is_ascii_digit() || " .-".contains(letter);
    let is_quoted = line.trim_end_matches(is_code).ends_with('"');
    let rest = log::up_to_quote(rest).filter(|_| is_quoted).unwrap_or(rest);
    let mut out = String::new();
    for (number, line) in rest.lines().enumerate() {
        if number > 0 && (is_traced || ends_reply(line)) {
            break;
        }
        let mut line = log::without_marks(line.trim());
        if let Some(after) = code.as_deref().and_then(|code| line.strip_prefix(code))
            && let Some(after) = after.strip_prefix(['-', ' '])
        {
            if number > 0 && !more {
                break;
            }
            more = line.get(3..4) == Some("-");
            let (word, behind) = after.split_once(' ').unwrap_or((after, ""));
            line = if enhanced(word).is_some() {
                behind
            } else {
                after
            };
        }
        if !out.is_empty() && !line.is_empty() {
            out.push(' ');
        }
        out.push_str(line);
    }
    let wraps = [' ', '-', '\'', '"', '#', '>', ';'];
    let trimmed = log::unwrapped(&out).trim_matches(wraps);
    trimmed.to_owned()
}

/// Words that stand for a code where the code was lost on the way.
const WORDS: &[(&str, Enhanced)] = &[
    ("attr36", (5, 7, 64)),
    ("attr35", (4, 4, 62)),
    ("attr34", (5, 4, 14)),
    ("direct send not allowed", (5, 7, 68)),
    ("restrictdomainsto", (5, 7, 51)),
    ("relay access denied", (5, 7, 64)),
    ("tenantattribution", (5, 7, 64)),
    ("unable to relay", (5, 7, 1)),
    ("untrustedroot", (4, 4, 317)),
    ("connectionreset", (4, 4, 2)),
    ("barelinefeedsareillegal", (5, 6, 11)),
    ("sendernotauthenticatedforgroup", (5, 7, 133)),
];

fn by_words(region: &str) -> Option<(Option<u16>, Option<Enhanced>, usize)> {
    let lower = region.to_ascii_lowercase();
    let known = WORDS.iter().find(|(word, _)| lower.contains(word))?;
    Some((None, Some(known.1), 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read_as(text: &str) -> (Option<u16>, Option<Enhanced>, String) {
        let said = said(text.as_bytes()).unwrap_or_else(|| panic!("nothing in {text:?}"));
        (said.code, said.enhanced, said.text)
    }

    #[test]
    fn a_reply_is_found_in_whatever_wraps_it() {
        let relay = Some((5, 7, 64));
        let text = "TenantAttribution; Relay Access Denied";
        for wrapped in [
            "550 5.7.64 TenantAttribution; Relay Access Denied",
            "550-5.7.64 TenantAttribution;\r\n550 5.7.64 Relay Access Denied\r\n",
            "smtp;550 5.7.64 TenantAttribution; Relay Access Denied",
            "Diagnostic-Code: smtp; 550 5.7.64 TenantAttribution;\n    Relay Access Denied",
            "Remote Server returned '550 5.7.64 TenantAttribution; Relay Access Denied'",
            "mail.contoso.com #550 5.7.64 TenantAttribution; Relay Access Denied ##",
            "[{LED=550 5.7.64 TenantAttribution; Relay Access Denied};{MSG=};{FQDN=c.mail.protection.outlook.com};{IP=52.101.73.1};{LRT=11/25/2026 8:15:31 AM}]",
            "Reason: [{LED=550 5.4.300 Message expired -> 550 5.7.64 TenantAttribution; Relay Access Denied};{MSG=x}]",
            "550 5.0.350 Remote server returned an error -> 550 5.7.64 TenantAttribution; Relay Access Denied",
            "S: 550 5.7.64 TenantAttribution; Relay Access Denied",
            "2026-11-25T08:15:31Z,out,08DD,12,192.0.2.1:25,<,550 5.7.64 TenantAttribution; Relay Access Denied",
        ] {
            let (code, enhanced, found) = read_as(wrapped);
            assert_eq!((code, enhanced), (Some(550), relay), "{wrapped}");
            assert_eq!(found, text, "{wrapped}");
        }
    }

    #[test]
    fn what_stands_behind_the_reply_is_none_of_it() {
        for behind in [
            "\n\nUnrelated text of the mail",
            "\r\nRemote-MTA: dns; mail.contoso.com",
            "\n--7a3c1f0e\nContent-Type: message/rfc822",
            "\n \t\nFrom: Ada <ada@example.com>",
        ] {
            let text = format!("Diagnostic-Code: smtp; 550 5.1.10 not\n found{behind}");
            assert_eq!(read_as(&text).2, "not found", "{text}");
        }
    }

    #[test]
    fn a_log_line_tells_what_the_reply_answered() {
        let line = "status=bounced (host c.mail.protection.outlook.com[52.101.73.1] said: 550 5.7.64 TenantAttribution (in reply to RCPT TO command))";
        let said = said(line.as_bytes()).unwrap();
        assert_eq!((said.code, said.phase), (Some(550), Some(Phase::Recipient)));
        for (line, phase) in [
            ("554 no mail here (to connection)", Phase::Greeting),
            (
                "SMTP error from remote mail server after end of data: 554 5.6.0 x",
                Phase::End,
            ),
        ] {
            assert_eq!(super::said(line.as_bytes()).unwrap().phase, Some(phase));
        }
    }

    #[test]
    fn a_bare_code_yields_to_the_same_with_a_text() {
        for reply in [
            "550 5.7.64 smarthost.contoso.com TenantAttribution; Relay Access Denied 1M8MRDBTZFQSA",
            "550 5.4.1 Relay access denied",
            "550 5.7.1 Unable to relay",
            "550 Unable to relay",
        ] {
            let (code, enhanced, text) = read_as(reply);
            let bare = reply.strip_suffix(&text).unwrap().trim_end();
            let ndr = format!(
                "Your message couldn't be delivered.\n\nMore Info for Email Admins\nStatus code: {bare}\n\nError Details\nReported error:\t{reply}\n\
                 DSN generated by:       AM0PR01MB1234.eurprd01.prod.exchangelabs.com\nRemote server: smarthost.contoso.com\n"
            );
            if enhanced.is_some() {
                assert_eq!(read_as(&ndr), (code, enhanced, text.clone()), "{ndr}");
            }
            let lines = format!("{bare}\n\n{reply}\n");
            assert_eq!(read_as(&lines), (code, enhanced, text), "{lines}");
        }
        // Other codes have other texts.
        assert_eq!(
            read_as("550 5.7.64\n\n550 5.1.1 unknown").1,
            Some((5, 7, 64))
        );
        assert_eq!(
            read_as("550 5.7.64\n  TenantAttribution").2,
            "TenantAttribution"
        );
    }

    #[test]
    fn a_refusal_goes_before_what_was_granted() {
        for text in [
            "250 2.1.0 Sender OK\n550 5.7.64 TenantAttribution",
            "250 2.1.0 Sender OK\n550 Relay denied",
            "220 2.0.0 ready\nS: 454 4.7.0 later\n221 2.0.0 bye\n450 later",
            "250 2.1.0 ok -> 250 2.1.5 ok\n550 5.1.1 no",
            "[{LED=250 2.1.5 RESOLVER.GRP.Expanded};{MSG=550 5.1.1 no}]",
        ] {
            assert!(said(text.as_bytes()).unwrap().refuses(), "{text}");
        }
        for text in [
            "250 2.6.0 <a@b> 5000 bytes in 0.1,\n567 KB/sec Queued mail for delivery",
            "status=sent (250 2.6.0 Queued)",
            "250 2.0.0 ok\n354 go on",
        ] {
            assert!(!said(text.as_bytes()).unwrap().refuses(), "{text}");
        }
    }

    #[test]
    fn what_exchange_has_given_up_is_told_as_that() {
        for (text, given_up) in [
            ("550 5.4.300 Message expired -> 451 4.4.0 x", true),
            (
                "Remote server returned '550 5.4.300 Message expired -> 421 4.4.2 Connection dropped'",
                true,
            ),
            (
                "[{LED=450 4.4.316 Connection refused -> 421 4.4.2 x};{MSG=}]",
                false,
            ),
            (
                "550 5.0.350 Remote server returned an error -> 550 5.7.64 x",
                false,
            ),
            ("451 4.4.0 x", false),
        ] {
            assert_eq!(said(text.as_bytes()).unwrap().given_up, given_up, "{text}");
        }
    }

    #[test]
    fn one_of_the_two_codes_is_enough() {
        assert_eq!(read_as("5.7.64"), (None, Some((5, 7, 64)), String::new()));
        assert_eq!(read_as("#5.7.133#").1, Some((5, 7, 133)));
        assert_eq!(
            read_as("550 Unable to relay"),
            (Some(550), None, "Unable to relay".to_owned())
        );
        assert_eq!(read_as("host said: 550 Unable to relay").0, Some(550));
        assert_eq!(
            read_as("Status: 5.7.64\nDiagnostic-Code: smtp; 550 Relay denied"),
            (Some(550), Some((5, 7, 64)), "Relay denied".to_owned())
        );
        assert_eq!(read_as("dsn=4.7.500, status=deferred").1, Some((4, 7, 500)));
        assert_eq!(read_as("ConnectionReset").1, Some((4, 4, 2)));
        assert_eq!(read_as("452-4.5.3 Too\n452 4.5.3 many").2, "Too many");
        assert_eq!(read_as("250").0, Some(250));
    }

    #[test]
    fn numbers_that_are_no_codes_are_none() {
        for text in [
            "",
            "hello",
            "10.20.30.40",
            "Microsoft SMTP Server id 15.20.4523.18",
            "192.0.2.250 is listed",
            "5.7.64.1",
            "delivered 250 messages of 550",
            "650 5.x",
            "v4.4.2beta",
        ] {
            assert_eq!(said(text.as_bytes()), None, "{text}");
        }
        // A code of another class behind it belongs to the text, as on the wire.
        assert_eq!(read_as("250 5.1.1 odd").1, None);
    }

    proptest! {
        #[test]
        fn any_octets_are_read_or_not(octets in proptest::collection::vec(any::<u8>(), 0..300)) {
            drop(said(&octets));
        }

        /// What delivery reads on the wire is read the same where it was copied whole.
        #[test]
        fn the_wire_form_reads_as_delivery_reads_it(
            code in 400u16..600, subject in 0u16..8, detail in 0u16..900, text in "[a-zA-Z ]{0,40}",
        ) {
                let class = code / 100;
            let wire = format!("{code} {class}.{subject}.{detail} {text}\r\n");
            let (reply, _) = crate::smtp::reply::parse(wire.as_bytes()).unwrap().unwrap();
            let said = said(wire.as_bytes()).unwrap();
            prop_assert_eq!((said.code, said.enhanced), (Some(reply.code), reply.enhanced));
        }
    }
}
