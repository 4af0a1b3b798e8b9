//! How is an address written in a delivery status? (RFC 3464 §2.3.1, RFC 6533 §3)

use crate::mail::Mailbox;
use crate::smtp::decode_xtext;

/// `Final-Recipient`: the address that we were given.
pub(super) fn of(mailbox: &Mailbox, utf8: bool) -> String {
    let text = mailbox.as_str();
    if text.is_ascii() {
        format!("rfc822; {text}")
    } else if utf8 {
        format!("utf-8; {text}")
    } else {
        format!("utf-8; {}", encoded(text))
    }
}

/// `Original-Recipient`: what ORCPT said, decoded (RFC 3461 §4.2). Nothing where that is no text of one line: decoded
/// octets must not begin a field of their own.
pub(super) fn original(orcpt: &str, utf8: bool) -> Option<String> {
    let (kind, address) = orcpt.split_once(';')?;
    let is_atom = |octet: u8| octet.is_ascii_alphanumeric() || octet == b'-';
    if kind.is_empty() || !kind.bytes().all(is_atom) {
        return None;
    }
    if kind.eq_ignore_ascii_case("utf-8") {
        let address = embedded(address)?;
        let address = if utf8 { address } else { encoded(&address) };
        return Some(format!("{kind}; {address}"));
    }
    Some(format!("{kind}; {}", line(address)?))
}

/// xtext that is one line of printable ASCII, decoded.
pub(super) fn line(xtext: &str) -> Option<String> {
    let octets = decode_xtext(xtext)?;
    let printable = !octets.is_empty() && octets.iter().all(|octet| (32..127).contains(octet));
    printable.then(|| String::from_utf8(octets).ok()).flatten()
}

/// utf-8-addr-xtext: fit for a field that must be ASCII.
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        if letter.is_ascii_graphic() && !matches!(letter, '+' | '=' | '\\') {
            out.push(letter);
        } else {
            out.push_str(&format!("\\x{{{:X}}}", u32::from(letter)));
        }
    }
    out
}

/// Reads utf-8-addr-xtext and utf-8-addr-unitext: `\x{FC}` is `ü`.
fn embedded(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(rest.get(..at)?);
        let (digits, after) = rest.get(at..)?.strip_prefix("\\x{")?.split_once('}')?;
        out.push(char::from_u32(u32::from_str_radix(digits, 16).ok()?)?);
        rest = after;
    }
    out.push_str(rest);
    let is_line = !out.is_empty() && !out.chars().any(char::is_control);
    is_line.then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_original_recipient_is_decoded() {
        for (orcpt, utf8, expected) in [
            (
                "rfc822;b+2Bx@contoso.com",
                false,
                Some("rfc822; b+x@contoso.com"),
            ),
            ("utf-8;\\x{FC}@x.example", true, Some("utf-8; ü@x.example")),
            (
                "utf-8;\\x{FC}@x.example",
                false,
                Some("utf-8; \\x{FC}@x.example"),
            ),
            ("utf-8;ü@x.example", false, Some("utf-8; \\x{FC}@x.example")),
            ("x400;/c=de/", false, None),
            ("no type", false, None),
        ] {
            assert_eq!(original(orcpt, utf8).as_deref(), expected, "{orcpt}");
        }
    }

    #[test]
    fn what_is_decoded_cannot_begin_a_field() {
        for hostile in [
            "rfc822;a+0D+0AX-Injected:+20yes",
            "rfc822;a+00b",
            "rf:c;a",
            "utf-8;\\x{D}\\x{A}X:y",
            "utf-8;\\x{110000}",
            "utf-8;\\x41",
        ] {
            assert_eq!(original(hostile, true), None, "{hostile}");
        }
        assert_eq!(line("a+0Ab"), None);
    }

    #[test]
    fn a_final_recipient_is_ascii_unless_the_report_may_be_utf_8() {
        let mailbox = "jürgen+x@contoso.com".parse().unwrap();
        assert_eq!(
            of(&mailbox, false),
            "utf-8; j\\x{FC}rgen\\x{2B}x@contoso.com"
        );
        assert_eq!(of(&mailbox, true), "utf-8; jürgen+x@contoso.com");
        assert_eq!(
            embedded(&encoded("jürgen+x@ö")).as_deref(),
            Some("jürgen+x@ö")
        );
    }
}
