//! Our trace field: `Received:` (RFC 5321 §4.4), the one field that every rendition carries on top.

use crate::mail::QueueId;
use std::net::IpAddr;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

/// Facts for our Received field (RFC 5321 §4.4) that the header room cannot know.
#[derive(Clone, Debug)]
pub struct ReceivedFacts<'a> {
    /// Our host name.
    pub by: &'a str,
    /// The name of EHLO, already escaped.
    pub helo: &'a str,
    /// The peer's address; `None` for applications, whose name is given instead.
    pub from_address: Option<IpAddr>,
    /// `application NAME` in place of the address.
    pub application: Option<&'a str>,
    /// `ESMTP`, `ESMTPS`, `ESMTPSA`, `UTF8SMTPS` ... (RFC 3848, RFC 6531 §4.3).
    pub with: &'a str,
    /// TLS version and suite, e.g. `TLS1.3 TLS_AES_256_GCM_SHA384`.
    pub tls: Option<&'a str>,
    /// Queue id.
    pub id: QueueId,
    /// Seconds since 1970.
    pub unix_seconds: u64,
}

/// The widest line that we write where the words allow it (RFC 5322 §2.1.1 recommends 78 at most).
const WIDTH: usize = 77;

/// The field with its last CRLF.
pub(super) fn field(facts: &ReceivedFacts<'_>) -> Vec<u8> {
    let mut words = vec![format!("from {}", helo(facts))];
    match (facts.application, facts.from_address) {
        (Some(application), _) => words.push(format!("(application {})", clean(application))),
        (None, Some(address)) => words.push(format!("({})", literal(address))),
        (None, None) => {}
    }
    words.push(format!("by {}", clean(facts.by)));
    words.push(format!("with {}", clean(facts.with)));
    if let Some(tls) = facts.tls {
        words.push(format!("({})", clean_spaced(tls)));
    }
    words.push(format!("id {};", facts.id));
    words.push(rfc5322_date(facts.unix_seconds));
    folded("Received:", &words)
}

/// A moment as RFC 5322 §3.3 writes it, in UTC.
#[must_use]
pub fn rfc5322_date(unix_seconds: u64) -> String {
    let date = i64::try_from(unix_seconds)
        .ok()
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .and_then(|moment| moment.format(&Rfc2822).ok());
    // Beyond the year 9999 there is no form to write it in; a clock that far off is no date.
    date.unwrap_or_else(|| "Thu, 01 Jan 1970 00:00:00 +0000".to_owned())
}

/// The name that the peer gave; for an application not where it is nothing but its address, which stays unsaid.
fn helo(facts: &ReceivedFacts<'_>) -> String {
    let name = facts.helo;
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    let bare = match bare.get(..5) {
        Some(tag) if tag.eq_ignore_ascii_case("IPv6:") => bare.get(5..).unwrap_or_default(),
        _ => bare,
    };
    let is_address = name.starts_with('[') || bare.parse::<IpAddr>().is_ok();
    if name.is_empty() || (facts.application.is_some() && is_address) {
        "unknown".to_owned()
    } else {
        clean(name)
    }
}

/// An address literal (RFC 5321 §4.1.3).
fn literal(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(v4) => format!("[{v4}]"),
        IpAddr::V6(v6) => format!("[IPv6:{v6}]"),
    }
}

/// Octets that would end a word, a comment or the line become `?`.
fn clean(text: &str) -> String {
    clean_spaced(text).replace(' ', "_")
}

fn clean_spaced(text: &str) -> String {
    text.chars()
        .take(255)
        .map(|c| {
            if (c.is_ascii_graphic() || c == ' ') && !"()<>\\;\"".contains(c) {
                c
            } else {
                '?'
            }
        })
        .collect()
}

fn folded(name: &str, words: &[String]) -> Vec<u8> {
    let mut out = name.to_owned();
    let mut width = out.len();
    for word in words {
        if width + 1 + word.len() > WIDTH {
            out.push_str("\r\n\t");
            // A tab is one octet, whatever it looks like.
            width = 1 + word.len();
        } else {
            out.push(' ');
            width += 1 + word.len();
        }
        out.push_str(word);
    }
    out.push_str("\r\n");
    out.into_bytes()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A connector's facts.
    pub(crate) fn facts() -> ReceivedFacts<'static> {
        ReceivedFacts {
            by: "smarthost.contoso.com",
            helo: "GV1PR07CU001.outbound.protection.outlook.com",
            from_address: Some("40.93.214.103".parse().unwrap()),
            application: None,
            with: "ESMTPS",
            tls: Some("TLS1.3 TLS_AES_256_GCM_SHA384"),
            id: "06BHC43PXW001".parse().unwrap(),
            unix_seconds: 1_795_594_533,
        }
    }

    fn text(facts: &ReceivedFacts<'_>) -> String {
        String::from_utf8(field(facts)).unwrap()
    }

    #[test]
    fn a_connector_peer_is_named_with_its_address() {
        assert_eq!(
            text(&facts()),
            "Received: from GV1PR07CU001.outbound.protection.outlook.com ([40.93.214.103])\r\n\
             \tby smarthost.contoso.com with ESMTPS (TLS1.3 TLS_AES_256_GCM_SHA384)\r\n\
             \tid 06BHC43PXW001; Wed, 25 Nov 2026 08:15:33 +0000\r\n"
        );
    }

    #[test]
    fn an_application_is_named_and_its_address_is_not() {
        for helo in [
            "[10.0.0.7]",
            "10.0.0.7",
            "[IPv6:fd00::7]",
            "[ipv6:fd00::7]",
            "fd00::7",
            "",
        ] {
            let from_address = Some("10.0.0.7".parse().unwrap());
            let facts = ReceivedFacts {
                helo,
                application: Some("erp"),
                from_address,
                ..facts()
            };
            assert!(
                text(&facts).starts_with("Received: from unknown (application erp) by "),
                "{helo}"
            );
            assert!(!text(&facts).contains("10.0.0.7"), "{helo}");
        }
        let facts = ReceivedFacts {
            helo: "erp01.contoso.local",
            application: Some("erp"),
            ..facts()
        };
        assert!(
            text(&facts).starts_with("Received: from erp01.contoso.local (application erp) by ")
        );
    }

    #[test]
    fn lines_are_below_78_columns_and_no_word_breaks_out() {
        let helo = "a b);\r\nX-Evil: 1\u{e4}";
        let facts = ReceivedFacts {
            helo,
            from_address: Some("2001:db8::1".parse().unwrap()),
            ..facts()
        };
        let field = text(&facts);
        assert!(field.lines().all(|line| line.len() < 78), "{field}");
        assert!(field.starts_with("Received: from a_b???"), "{field}");
        assert!(field.contains("([IPv6:2001:db8::1])"));
        assert_eq!(
            crate::header::examine(field.as_bytes()).map(|examined| examined.fields().count()),
            Ok(1)
        );
    }
}
