//! Why is there no reply in a text? Said so that the next attempt has one.

use super::words;
use crate::mail::shown;

/// What to paste instead.
const PASTE: &str = "paste the other server's reply from its first digit on (550 5.7.64 TenantAttribution), or the whole line of the log or the bounce that has it";

/// Why `said` found nothing in the text.
#[must_use]
pub fn why_nothing_is_said(text: &[u8]) -> String {
    let whole = String::from_utf8_lossy(text);
    let number = words(&whole).find(|word| {
        let before = whole.get(..word.start).unwrap_or_default();
        before
            .lines()
            .next_back()
            .is_none_or(|line| line.trim().is_empty())
            || before.ends_with('\n')
    });
    let number = number.map_or("", |word| word.text);
    let dots = number.matches('.').count();
    let first = number.chars().next();
    let why = match (number.len(), dots, first) {
        (0, ..) => {
            return format!(
                "no SMTP reply in \"{}\": it has a code (550), an enhanced code (5.7.64), or both: {PASTE}",
                shown(text.trim_ascii_end())
            );
        }
        (3, 0, Some('0' | '1' | '6'..='9')) => {
            format!(
                "{number} is no reply code: the first digit of one is 2 to 5 (RFC 5321 \u{a7}4.2)"
            )
        }
        (3, 0, _) => format!(
            "{number} is a reply code only before a blank, a hyphen or the end of the line (RFC 5321 \u{a7}4.2)"
        ),
        (_, 0, _) => {
            format!("{number} is no reply code: one has three digits (RFC 5321 \u{a7}4.2)")
        }
        (_, 2, Some('2' | '4' | '5')) => format!(
            "{number} is no enhanced code: its second and third number have at most three digits (RFC 3463 \u{a7}2)"
        ),
        (_, 2, _) => format!(
            "{number} is no enhanced code: the first number of one is 2, 4 or 5 (RFC 3463 \u{a7}2)"
        ),
        (..) => format!("{number} is neither a reply code (550) nor an enhanced code (5.7.64)"),
    };
    format!(
        "no SMTP reply in \"{}\": {why}; {PASTE}",
        shown(text.trim_ascii_end())
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialogue::said;

    #[test]
    fn what_is_wrong_is_named() {
        for (text, why) in [
            (
                "999 foo",
                "999 is no reply code: the first digit of one is 2 to 5",
            ),
            ("199 x", "199 is no reply code: the first digit"),
            ("50 foo", "50 is no reply code: one has three digits"),
            ("5500 x", "5500 is no reply code: one has three digits"),
            ("550: x", "550 is a reply code only before a blank"),
            ("5.7", "5.7 is neither a reply code (550) nor"),
            ("7.7.64", "7.7.64 is no enhanced code: the first number"),
            ("5.7.6400", "5.7.6400 is no enhanced code: its second"),
            ("hello", "it has a code (550)"),
            ("hello 999", "it has a code (550)"),
            ("", "it has a code (550)"),
        ] {
            assert_eq!(said(text.as_bytes()), None, "{text}");
            let told = why_nothing_is_said(text.as_bytes());
            assert!(
                told.contains(why) && told.contains("paste"),
                "{text}: {told}"
            );
        }
    }
}
