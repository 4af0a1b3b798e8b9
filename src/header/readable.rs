//! What do people read in a mail or a page that somebody saved?
//!
//! A bounce as `.eml` has its delivery-status part behind a text in quoted-printable or base64, often of HTML; a page of Outlook
//! pasted into a ticket has tags. This makes plain text of it, to be explained; nothing that is delivered ever comes this way.

use mail_parser::decoders::html::html_to_text;
use mail_parser::{ContentType, Message, MessageParser, MimeHeaders as _, PartType};

/// Octets of a mail that are looked at: the text of a bounce and its delivery-status part come before what it returns.
pub const MAX_READABLE: usize = 4 * 1024 * 1024;

/// The text of a MIME message, its delivery-status parts first, without what it returns or attaches; `None` where the text is
/// none.
#[must_use]
pub fn mail_text(text: &[u8]) -> Option<String> {
    let text = text.get(..MAX_READABLE).unwrap_or(text);
    let text = text.trim_ascii_start();
    let is_mbox = text.starts_with(b"From ");
    let end = memchr::memchr(b'\n', text).filter(|_| is_mbox);
    let text = text.get(end.map_or(0, |end| end + 1)..)?;
    let message = MessageParser::new().with_mime_headers().parse(text)?;
    let root = message.parts.first()?;
    let is_multipart = matches!(&root.body, PartType::Multipart(parts) if !parts.is_empty());
    let is_encoded = root.content_transfer_encoding().is_some();
    (is_multipart || root.content_type().is_some() && is_encoded)
        .then(|| text_of(&message, NESTED))
        .flatten()
}

/// How deep a report may lie: one that was forwarded is attached to a mail.
const NESTED: usize = 2;

fn text_of(message: &Message<'_>, deeper: usize) -> Option<String> {
    let (mut status, mut text, mut nested) = (String::new(), String::new(), String::new());
    for part in &message.parts {
        let kind = part.content_type().map(kind_of);
        match (&part.body, kind) {
            (PartType::Binary(octets), Some(("message", subtype)))
                if subtype.ends_with("delivery-status") =>
            {
                append(&mut status, &String::from_utf8_lossy(octets));
            }
            (PartType::Html(page), _) => append(&mut text, &without_tags(page)),
            (PartType::Text(own), None | Some(("text", "plain"))) => append(&mut text, own),
            (PartType::Message(inner), _) if deeper > 0 => {
                let is_report = inner
                    .content_type()
                    .is_some_and(|own| kind_of(own) == ("multipart", "report"));
                if let Some(inner) = is_report.then(|| text_of(inner, deeper - 1)).flatten() {
                    append(&mut nested, &inner);
                }
            }
            // What is returned or attached says nothing of the fault.
            (
                PartType::Text(_)
                | PartType::Binary(_)
                | PartType::InlineBinary(_)
                | PartType::Message(_)
                | PartType::Multipart(_),
                _,
            ) => {}
        }
    }
    // A report that returns a report is about the outer one.
    let all = if status.is_empty() && !nested.is_empty() {
        nested
    } else {
        status + &text
    };
    (!all.trim().is_empty()).then_some(all)
}

fn kind_of<'a>(own: &'a ContentType<'_>) -> (&'a str, &'a str) {
    (own.ctype(), own.subtype().unwrap_or_default())
}

fn append(all: &mut String, more: &str) {
    all.push_str(more.trim());
    all.push_str("\n\n");
}

/// Elements that end a line, which the library knows of `br` and `p` only.
const ENDS: [&str; 9] = [
    "</div", "</tr", "</td", "</th", "</li", "</h1", "</h2", "</h3", "</pre",
];

/// The text of a page without its tags; `None` where the text is none.
#[must_use]
pub fn page_text(text: &[u8]) -> Option<String> {
    let text = text.get(..MAX_READABLE).unwrap_or(text);
    let page = std::str::from_utf8(text).ok()?;
    (begins_with_tag(page) && has_tags(page)).then(|| without_tags(page))
}

/// Whether the first `<` opens a tag: in sessions and reports it stands before an address, or marks a line.
fn begins_with_tag(text: &str) -> bool {
    let Some((_, tag)) = text.split_once('<') else {
        return false;
    };
    let is_name = |letter: char| letter.is_ascii_alphanumeric() || "!?:-".contains(letter);
    let behind = tag.trim_start_matches(is_name);
    tag.starts_with(|letter: char| letter.is_ascii_alphabetic() || "!?".contains(letter))
        && behind.starts_with(['>', '/', ' ', '\t', '\r', '\n'])
}

/// Whether a text has what a page has: an element of those is closed, or a line broken.
fn has_tags(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    let known = [
        "<br>", "<br/>", "<br ", "</p>", "</span>", "</html>", "</body>", "</b>",
    ];
    ENDS.iter().chain(&known).any(|tag| lower.contains(tag))
}

fn without_tags(page: &str) -> String {
    // ASCII alone changes its case, so that places are the same in both.
    let lower = page.to_ascii_lowercase();
    let mut marked = String::with_capacity(page.len());
    for (at, letter) in page.char_indices() {
        let rest = lower.get(at..).unwrap_or_default();
        if letter == '<'
            && (rest.starts_with("<br ") || ENDS.iter().any(|end| rest.starts_with(end)))
        {
            marked.push_str("<br>");
        }
        marked.push(letter);
    }
    let text = html_to_text(&marked);
    let lines = text.lines().map(|line| line.replace('\u{a0}', " "));
    let lines: Vec<String> = lines.map(|line| line.trim().to_owned()).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> String {
        let text = text.as_bytes();
        let read = mail_text(text).or_else(|| page_text(text));
        read.unwrap_or_else(|| String::from_utf8(text.to_vec()).unwrap())
    }

    const STATUS: &str = "Reporting-MTA: dns;mx.example\r\n\r\nFinal-Recipient: rfc822;b@x.example\r\nStatus: 5.1.1\r\nDiagnostic-Code: smtp;550 5.1.1 no such user";

    fn report(head: &str, text: &str) -> String {
        format!(
            "From: postmaster@contoso.com\r\nSubject: Undeliverable: 550 5.9.9\r\nMIME-Version: 1.0\r\nContent-Type: multipart/report; report-type=delivery-status;\r\n boundary=\"b1\"\r\n\r\n\
             --b1\r\n{head}\r\n\r\n{text}\r\n--b1\r\nContent-Type: message/delivery-status\r\n\r\n{STATUS}\r\n\r\n\
             --b1\r\nContent-Type: message/rfc822\r\n\r\nSubject: 550 5.8.8\r\n\r\n550 5.7.7 of the message\r\n--b1--\r\n"
        )
    }

    #[test]
    fn a_report_is_its_status_then_its_text() {
        let quoted = report(
            "Content-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable",
            "<html><head><title>x</title></head><body><p style=3D\"a\">Reported&nbsp;error:</p><div>550 5.1=\r\n.1 no</div></body></html>",
        );
        // "550 5.1.1 in base64", cut into lines.
        let base64 = report(
            "Content-Type: text/plain\r\nContent-Transfer-Encoding: base64",
            "NTUwIDUuMS4x\r\nIGluIGJhc2U2NA==",
        );
        for (mail, text) in [
            (quoted, "Reported error:\n550 5.1.1 no"),
            (base64, "550 5.1.1 in base64"),
        ] {
            for mail in [mail.clone(), mail.replace("\r\n", "\n")] {
                let found = read(&mail);
                let status = found
                    .find("Diagnostic-Code: smtp;550 5.1.1 no such user")
                    .unwrap();
                assert!(status < found.find(text).unwrap(), "{found}");
                for other in ["5.9.9", "5.8.8", "5.7.7"] {
                    assert!(!found.contains(other), "{found}");
                }
                assert_eq!(read(&format!("From x@y Sun Nov 29\n{mail}")), found);
                assert_eq!(read(&format!("\n\n{mail}")), found);
            }
        }
    }

    #[test]
    fn a_report_that_was_forwarded_is_read() {
        let inner = report("Content-Type: text/plain", "hello");
        let mail = format!(
            "Subject: FW\r\nContent-Type: multipart/mixed; boundary=b2\r\n\r\n--b2\r\nContent-Type: text/plain\r\n\r\nplease look\r\n--b2\r\nContent-Type: message/rfc822\r\n\r\n{inner}\r\n--b2--\r\n"
        );
        let found = read(&mail);
        assert!(
            found.starts_with("Reporting-MTA") && !found.contains("5.7.7"),
            "{found}"
        );
    }

    #[test]
    fn a_page_loses_its_tags() {
        let page = "<td>Status code: <b>550 5.7.64</b></td>\n<td style=\"x\">Reported error:&nbsp;<i>550 5.7.64 a &amp; b</i><br style=\"y\">DSN generated by: x</td>";
        assert_eq!(
            read(page),
            "Status code: 550 5.7.64\nReported error: 550 5.7.64 a & b\nDSN generated by: x"
        );
    }

    #[test]
    fn any_other_text_stays_as_it_is() {
        for text in [
            "550 5.7.64 TenantAttribution; Relay Access Denied",
            "<bob@contoso.com>: host x said: 550 5.1.1 <bob@contoso.com> unknown",
            "<bob@contoso.com>: host x said: 550 5.1.1 unknown\n\nFrom: x\n\n<p>hi</p>\n",
            "<-  220 mx\n -> <p>hi</p>\n<** 554 spam",
            "MAIL FROM:<>\n250 ok\n<p>hi</p>",
            "<<< 550 5.1.1 x\n>>> QUIT",
            "Status: 5.1.1\nDiagnostic-Code: smtp; 550 5.1.1 x",
            "Subject: x\n\n550 5.1.1 x",
            "Content-Type: multipart/report; boundary=x\n\n550 5.1.1 no boundary",
            "",
        ] {
            assert_eq!(read(text), text);
        }
    }

    proptest! {
        #[test]
        fn any_octets_are_read(octets in proptest::collection::vec(any::<u8>(), 0..300)) {
            let page = [b"<p>", &octets[..], b"</p></td>"].concat();
            let mail = [b"Content-Type: text/html\nContent-Transfer-Encoding: quoted-printable\n\n", &octets[..]].concat();
            for text in [&octets, &page, &mail] {
                drop((mail_text(text), page_text(text)));
            }
        }
    }
}
