//! How does text of the tenant's stand in a report? A secret in it is hidden first, and what is left escaped and cut.
//!
//! Administrators copy a value into a comment, a name, another rule. What was cut before could no longer be known for a
//! secret, though its beginning tells most of it. So the text is carried as it is, between marks, until the report is whole:
//! then [`Hidden::finish`] hides, and shortens what is left.

use super::literal as powershell;
use crate::mail::{Secret, shown as cut};

/// So many octets of a secret in a row are hidden, wherever they stand. A shorter secret is hidden as a whole.
pub(super) const RUN: usize = 8;

/// What stands in the place of a secret, or of a part of it.
const HIDDEN: &str = "(secret)";

/// Unicode has these for such a use, and for no text (§23.7).
const SHOWN: char = '\u{fdd0}';
const LITERAL: char = '\u{fdd1}';
const WHOLE: char = '\u{fdd2}';
const END: char = '\u{fdd3}';

/// Far more than is shown of a text; what it ends in the middle of is still known by its parts.
const LOOKED_AT: usize = 8192;

/// For a terminal: escaped and cut.
pub(super) fn shown(text: &[u8]) -> String {
    let start = text.get(..LOOKED_AT).unwrap_or(text);
    marked(SHOWN, &String::from_utf8_lossy(start))
}

/// As a word of PowerShell.
pub(super) fn literal(text: &str) -> String {
    marked(LITERAL, text)
}

/// Uncut: what is to be copied, and harmless on a terminal by its grammar.
pub(super) fn whole(text: &str) -> String {
    marked(WHOLE, text)
}

fn marked(mark: char, text: &str) -> String {
    let clean = text.replace([SHOWN, LITERAL, WHOLE, END], "\u{fffd}");
    format!("{mark}{clean}{END}")
}

/// Whether a property of a rule holds values of header fields: which of them is a loop value of another time, nobody can say.
pub(super) fn may_hold_a_loop_value(property: &str) -> bool {
    let name = property.to_ascii_lowercase();
    let is_value = name.ends_with("words") || name.ends_with("patterns") || name.ends_with("value");
    name.contains("header") && is_value
}

/// The value of a property, as it is told.
pub(super) fn value_of(property: &str, value: &str) -> String {
    match value {
        "" => "not set".to_owned(),
        _ if may_hold_a_loop_value(property) => {
            "set (not shown: it may be a loop value)".to_owned()
        }
        value => shown(value.as_bytes()),
    }
}

/// What is not told.
pub(super) struct Hidden<'a>(Vec<&'a str>);

impl<'a> Hidden<'a> {
    /// These values, and each part of them.
    pub(super) fn new(secrets: &'a [Secret]) -> Self {
        let values = secrets.iter().map(Secret::expose_str);
        let mut values: Vec<&str> = values.filter(|value| !value.is_empty()).collect();
        // One that begins another is part of it.
        values.sort_by_key(|value| std::cmp::Reverse(value.len()));
        Self(values)
    }

    /// Brings the marked texts into their last form. Between them stand our own words; a whole secret of `least` octets or
    /// more is looked for there as well.
    pub(super) fn finish(&self, text: &str, least: usize) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, mark, inner, after)) = next(rest) {
            out.push_str(before);
            match mark {
                LITERAL => out.push_str(&powershell(&self.without(inner, RUN))),
                WHOLE => out.push_str(&self.without(inner, RUN)),
                _ => out.push_str(&cut(self.without(inner, 1).as_bytes())),
            }
            rest = after;
        }
        out.push_str(rest);
        for value in self.0.iter().filter(|value| value.len() >= least) {
            for form in [(*value).to_owned(), cut(value.as_bytes())] {
                if out.contains(&form) {
                    out = out.replace(&form, HIDDEN);
                }
            }
        }
        out
    }

    /// The text without a secret of `least` octets or more, and without [`RUN`] octets of one.
    fn without(&self, text: &str, least: usize) -> String {
        let octets = text.as_bytes();
        let mut secret = vec![false; octets.len()];
        for value in self.0.iter().filter(|value| value.len() >= least) {
            let length = value.len().min(RUN);
            let runs: Vec<&[u8]> = value.as_bytes().windows(length).collect();
            for (place, run) in octets.windows(length).enumerate() {
                if runs.contains(&run) {
                    let covered = secret.iter_mut().skip(place).take(length);
                    covered.for_each(|octet| *octet = true);
                }
            }
        }
        let mut out = String::with_capacity(text.len());
        let mut hides = false;
        for (place, letter) in text.char_indices() {
            let own = secret.iter().skip(place).take(letter.len_utf8());
            let is_secret = own.into_iter().any(|octet| *octet);
            match (is_secret, hides) {
                (true, false) => out.push_str(HIDDEN),
                (true, true) => {}
                (false, _) => out.push(letter),
            }
            hides = is_secret;
        }
        out
    }
}

/// The first marked text with what stands before and after it.
fn next(text: &str) -> Option<(&str, char, &str, &str)> {
    let (place, mark) = text
        .char_indices()
        .find(|(_, letter)| matches!(*letter, SHOWN | LITERAL | WHOLE))?;
    let (before, marked) = text.split_at_checked(place)?;
    let (inner, after) = marked.split_once(END)?;
    Some((before, mark, inner.strip_prefix(mark)?, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finished(secrets: &[&str], text: &str) -> String {
        let secrets: Vec<Secret> = secrets.iter().map(|value| Secret::new(*value)).collect();
        Hidden::new(&secrets).finish(text, 1)
    }

    const VALUE: &str = "k7~tq'9x0v2m\u{e9}w4p";

    #[test]
    fn a_secret_is_hidden_before_the_text_is_cut() {
        for before in 0..300 {
            let text = format!("{}{VALUE} and more", "-".repeat(before));
            let told = finished(&[VALUE], &shown(text.as_bytes()));
            assert!(
                !told.contains("k7") && told.len() <= 200,
                "{before}: {told}"
            );
        }
        assert_eq!(
            finished(&["abc"], &shown(b"an abc word")),
            "an (secret) word"
        );
        // Of the last one only a part is looked at, which may end in the middle of a letter.
        for before in 0..40 {
            let text = format!("{}{}", "-".repeat(before), VALUE.repeat(1000));
            let told = finished(&[VALUE], &shown(text.as_bytes()));
            let after = told.len() - before - HIDDEN.len();
            assert!(after <= "\\xef\\xbf\\xbd".len(), "{before}: {told}");
        }
    }

    #[test]
    fn a_part_of_a_secret_is_hidden_and_a_shorter_one_is_no_part() {
        for (text, told) in [
            ("k7~tq'9x", "(secret)"),
            ("k7~tq'9", "k7~tq'9"),
            ("q'9x0v2m, \u{e9}w4p", "(secret), \\xc3\\xa9w4p"),
            ("<q'9x0v2m\u{e9}w4>", "<(secret)>"),
            ("0v2m\u{e9}w4p0v2m\u{e9}w4p", "(secret)"),
        ] {
            assert_eq!(finished(&[VALUE], &shown(text.as_bytes())), told, "{text}");
        }
    }

    #[test]
    fn a_line_of_powershell_hides_it_before_quotes_are_doubled_and_keeps_short_words() {
        let line = format!("-Identity {}", literal(&format!("it's {VALUE}")));
        assert_eq!(finished(&[VALUE], &line), "-Identity 'it''s (secret)'");
        let line = format!("-Identity {}", literal("true"));
        let secrets = [Secret::new("true")];
        assert_eq!(Hidden::new(&secrets).finish(&line, RUN), "-Identity 'true'");
    }

    #[test]
    fn marks_in_the_text_itself_mean_nothing() {
        let text = format!("a{END}{LITERAL}b{SHOWN}");
        let told = finished(&[VALUE], &format!("is {}!", shown(text.as_bytes())));
        assert_eq!(
            told,
            format!("is {}!", cut("a\u{fffd}\u{fffd}b\u{fffd}".as_bytes()))
        );
        assert_eq!(finished(&[VALUE], &whole("contoso.com")), "contoso.com");
    }

    #[test]
    fn values_of_header_conditions_are_never_told() {
        for property in [
            "ExceptIfHeaderMatchesPatterns",
            "HeaderMatchesPatterns",
            "HeaderContainsWords",
            "ExceptIfHeaderContainsWords",
            "SetHeaderValue",
        ] {
            assert_eq!(
                value_of(property, "another value"),
                "set (not shown: it may be a loop value)"
            );
        }
        for property in [
            "SetHeaderName",
            "HeaderMatchesMessageHeader",
            "SubjectContainsWords",
        ] {
            let told = finished(&[], &value_of(property, "X-Other"));
            assert_eq!(told, "X-Other", "{property}");
        }
        assert_eq!(value_of("HeaderContainsWords", ""), "not set");
    }
}
