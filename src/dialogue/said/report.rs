//! Which replies, one for each recipient, stand in a report of several?
//!
//! A delivery report (RFC 3464 §2.3) has a group of fields for each recipient, and before these the same as text for people:
//! each recipient, then what the other server said.

use super::{MAX_SAID, Said, said};
use crate::mail::shown;

/// A reply, and for whom it was given, where the text says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SaidFor {
    /// The recipient, fit for a terminal.
    pub recipient: Option<String>,
    /// The reply.
    pub said: Said,
}

/// Recipients of one report that are looked at.
const MOST: usize = 1000;

/// Every reply of a report; of any other text the one that stands there. Empty where there is none.
#[must_use]
pub fn said_each(text: &[u8]) -> Vec<SaidFor> {
    let cut = text.get(..MAX_SAID).unwrap_or(text);
    let whole = String::from_utf8_lossy(cut);
    let lines: Vec<&str> = whole.lines().collect();
    let told = |parts: Parts| -> Vec<SaidFor> {
        let each = parts.into_iter().take(MOST);
        each.filter_map(|(recipient, part)| {
            let said = said(part.as_bytes())?;
            Some(SaidFor { recipient, said })
        })
        .collect()
    };
    let one = |said: Said| {
        vec![SaidFor {
            recipient: None,
            said,
        }]
    };
    let fields = told(groups(&lines));
    match fields.as_slice() {
        [_, _, ..] => return fields,
        // The fields come before what was written for people, which knows at most the phase.
        [own] if own.said.code.is_some() => {
            let phase = || said(text).and_then(|said| said.phase);
            return one(Said {
                phase: own.said.phase.or_else(phase),
                ..own.said.clone()
            });
        }
        [_] | [] => {}
    }
    let each = told(addressed(&lines));
    if each.len() > 1 {
        return each;
    }
    said(text).map(one).unwrap_or_default()
}

type Parts = Vec<(Option<String>, String)>;

/// The groups of fields with a `Final-Recipient`, wherever one begins.
fn groups(lines: &[&str]) -> Parts {
    let mut parts: Parts = Vec::new();
    // Within a group; its recipient is named; it says what became of it. Either field may come first.
    let (mut open, mut named, mut complete) = (false, false, false);
    for line in lines {
        let original = value_of(line, "Original-Recipient").is_some();
        let last = value_of(line, "Final-Recipient");
        let next = last.is_some() && (!open || named) || original && (!open || complete);
        if line.trim().is_empty() {
            open = false;
        } else if next {
            parts.push((None, String::new()));
            (open, named, complete) = (true, false, false);
        }
        complete |= value_of(line, "Status").is_some();
        if let (true, Some((recipient, part))) = (open, parts.last_mut()) {
            if let Some(address) = last {
                *recipient = Some(shown_address(address));
                named = true;
            }
            part.push_str(line);
            part.push('\n');
        }
    }
    parts.retain(|(recipient, _)| recipient.is_some());
    parts
}

/// Paragraphs that an address heads: alone in its line (Exchange, Exim, Gatepost), or in brackets before a colon (Postfix).
fn addressed(lines: &[&str]) -> Parts {
    let mut parts: Parts = Vec::new();
    let (mut open, mut empty) = (false, true);
    for line in lines {
        if let Some((address, rest)) = heads(line) {
            parts.push((Some(shown_address(address)), rest.to_owned() + "\n"));
            (open, empty) = (true, rest.trim().is_empty());
        } else if line.trim().is_empty() {
            open &= empty;
        } else if let (true, Some((_, part))) = (open, parts.last_mut()) {
            part.push_str(line);
            part.push('\n');
            empty = false;
            // Exchange quotes the reply: behind that, it is something else again.
            open = !(part.contains("eturned '") && line.trim_end().ends_with('\''));
        }
    }
    parts
}

/// The address that a line begins a paragraph with, and what follows it there.
fn heads(line: &str) -> Option<(&str, &str)> {
    let bracketed = line
        .strip_prefix('<')
        .and_then(|rest| rest.split_once(">:"));
    let (address, rest) = bracketed.unwrap_or_else(|| (line.trim(), ""));
    let is_address = address.contains('@')
        && !address.starts_with('@')
        && !address.contains(|letter: char| letter.is_whitespace() || ":;,'\"=".contains(letter));
    is_address.then_some((address, rest))
}

/// The value of a field of this name.
fn value_of<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let (own, value) = line.split_once(':')?;
    own.trim().eq_ignore_ascii_case(name).then(|| value.trim())
}

/// `rfc822; bob@contoso.com`
fn shown_address(value: &str) -> String {
    let address = value.split_once(';').map_or(value, |(_, address)| address);
    let address = address.trim().trim_matches(['<', '>']);
    shown(address.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialogue::replies::Phase;

    fn each(text: &str) -> Vec<(Option<String>, Option<u16>, String)> {
        let told = said_each(text.as_bytes());
        told.into_iter()
            .map(|own| (own.recipient, own.said.code, own.said.text))
            .collect()
    }

    fn row(address: &str, text: &str) -> (Option<String>, Option<u16>, String) {
        (Some(address.to_owned()), Some(550), text.to_owned())
    }

    #[test]
    fn every_recipient_of_a_report_has_its_reply() {
        let report = "Reporting-MTA: dns; mx.contoso.com\nArrival-Date: Tue, 24 Nov 2026 08:15:32 +0000\n\n\
            Original-Recipient: rfc822;Bob@contoso.com\nFinal-Recipient: rfc822;bob@contoso.com\nAction: failed\nStatus: 5.1.1\nDiagnostic-Code: smtp;550 5.1.1 no\n such user\n\n\
            Final-Recipient: rfc822; carol@contoso.com\nAction: failed\nStatus: 5.7.64\nRemote-MTA: dns; x.example\nDiagnostic-Code: smtp; 550 5.7.64 TenantAttribution; Relay Access Denied\n\n\
            From: ada@contoso.com\nSubject: 550 5.1.10 x\n";
        let wanted = [
            row("bob@contoso.com", "no such user"),
            row(
                "carol@contoso.com",
                "TenantAttribution; Relay Access Denied",
            ),
        ];
        assert_eq!(each(report), wanted);
        assert_eq!(each(&report.replace('\n', "\r\n")), wanted);
        // The empty lines got lost.
        let flat: String = report.replace("\n\n", "\n");
        let flat = flat.split("From: ").next().unwrap();
        assert_eq!(each(flat), wanted);
        // Postfix writes the two fields the other way round.
        let original = "Original-Recipient: rfc822;Bob@contoso.com\n";
        let last = "Final-Recipient: rfc822;bob@contoso.com\n";
        let turned = format!("{last}{original}");
        for text in [report, flat] {
            let text = text.replace(&format!("{original}{last}"), &turned);
            assert_eq!(each(&text), wanted);
        }
        // What is told for one is told as before, whatever people read above it.
        let above = |text: &str| {
            let own = "Status code: 550 5.7.64\n\nSMTP error after RCPT TO:<bob@contoso.com>:\n    550 5.1.1 something else\n\n";
            said_each(format!("{own}{text}").as_bytes())
        };
        let fields = "Final-Recipient: rfc822;bob@contoso.com\nAction: failed\nStatus: 5.1.1\nDiagnostic-Code: smtp;550 5.1.1 no\n such user\n";
        let [own] = &above(fields)[..] else {
            panic!("one recipient");
        };
        assert_eq!(
            (own.said.text.as_str(), own.said.phase),
            ("no such user", Some(Phase::Recipient))
        );

        let one = report
            .split("\nFinal-Recipient: rfc822; carol")
            .next()
            .unwrap();
        assert_eq!(each(one), [(None, Some(550), "no such user".to_owned())]);
    }

    #[test]
    fn what_exchange_shows_its_administrators_is_told_for_each() {
        let text = "Diagnostic information for administrators:\nGenerating server: AM8PR05MB0002.eurprd05.prod.outlook.com\n\
            bob@contoso.com\nRemote Server returned '550 5.1.10 RESOLVER.ADR.RecipientNotFound; not\n found'\n\n\
            carol@contoso.com\nRemote Server returned '550 5.7.64 TenantAttribution; Relay Access Denied'\nOriginal message headers:\nFrom: x\n";
        assert_eq!(
            each(text),
            [
                row(
                    "bob@contoso.com",
                    "RESOLVER.ADR.RecipientNotFound; not found"
                ),
                row(
                    "carol@contoso.com",
                    "TenantAttribution; Relay Access Denied"
                ),
            ]
        );
    }

    #[test]
    fn the_part_for_people_is_told_for_each() {
        let wanted = [
            row("bob@contoso.com", "no such user"),
            row(
                "carol@contoso.com",
                "TenantAttribution; Relay Access Denied",
            ),
        ];
        let [one, two] = [
            "550 5.1.1 no such user",
            "550 5.7.64 TenantAttribution; Relay Access Denied",
        ];
        let intro = "This is the mail system at host mx.example.\n\nI'm sorry.\n\n";
        let postfix = format!(
            "{intro}<bob@contoso.com>: host c.outlook.com[52.101.73.1] said: {one} (in reply to RCPT\n    TO command)\n\n\
             <carol@contoso.com>: host c.outlook.com[52.101.73.1] said: {two}\n    (in reply to RCPT TO command)\n\nReporting-MTA: dns; x\n"
        );
        let exim = format!(
            "{intro}  bob@contoso.com\n    host c.outlook.com [52.101.73.1]\n    SMTP error from remote mail server after RCPT TO:<bob@contoso.com>:\n    {one}\n\
             \u{20}\u{20}carol@contoso.com\n    host c.outlook.com [52.101.73.1]\n    SMTP error from remote mail server after RCPT TO:<carol@contoso.com>:\n    {two}\n\nReturned: x\n"
        );
        let ours = format!(
            "{intro}<bob@contoso.com>\n  c.outlook.com refused it:\n  {one}\n  What to do: check it.\n\n\
             <carol@contoso.com>\n  c.outlook.com refused it:\n  {two}\n\n  Something else\n"
        );
        let server = format!(
            "bob@contoso.com\n\n11/24/2026 8:15:32 AM - Server at c.outlook.com returned '{one}'\nmore: x\n\n\
             carol@contoso.com\n11/24/2026 8:15:32 AM - Server at c.outlook.com returned '{two}'\n"
        );
        for text in [postfix, exim, server] {
            assert_eq!(each(&text), wanted, "{text}");
        }
        let told = each(&ours);
        assert_eq!(told.len(), 2);
        assert_eq!((told[1].clone(), told[0].1), (wanted[1].clone(), Some(550)));
    }

    #[test]
    fn what_says_nothing_is_none_and_addresses_cannot_act_on_a_terminal() {
        assert_eq!(each("hello"), []);
        assert_eq!(
            each("Final-Recipient: rfc822;a@b\n\nFinal-Recipient: rfc822;c@d\n"),
            []
        );
        let text = "Final-Recipient: rfc822;\x1b[31m@b\nStatus: 5.1.1\n\nFinal-Recipient: x\nStatus: 4.2.2\n";
        let told = each(text);
        assert_eq!(told[0].0.as_deref(), Some("\\x1b[31m@b"));
        assert_eq!(told.len(), 2);
    }
}
