//! The nouns of mail: what every other room talks about.
//!
//! Each type is made once, at the edge, by its `FromStr` or constructor, and then trusted. Message bytes are not here:
//! they stay bytes. This room imports no other.

mod address;
mod domain;
mod envelope;
mod queue_id;
mod secret;
mod tenant_id;

pub use address::{AddressError, Mailbox, MailboxPattern, ReversePath};
pub use domain::{Domain, DomainError, DomainPattern, DomainSet};
pub use envelope::{BodyType, Envelope, Notify, Recipient, Ret};
pub use queue_id::{QueueId, QueueIds};
pub use secret::Secret;
pub use tenant_id::{TenantId, TenantIdError};

use std::sync::Arc;

/// The configured name of a tenant (`[[tenant]] name`): a label, cheap to clone, never a proof of anything.
pub type TenantName = Arc<str>;

/// The longest piece of a peer's text that is shown to a person, in bytes.
pub const SHOWN_TEXT: usize = 200;

/// Text from a peer, made fit for a log line, a trace event or a terminal: control, non-ASCII and backslash octets
/// escaped, cut at [`SHOWN_TEXT`] bytes of output.
#[must_use]
pub fn shown(text: &[u8]) -> String {
    let mut out = String::with_capacity(text.len().min(SHOWN_TEXT));
    for &octet in text {
        let escaped = std::ascii::escape_default(octet);
        let plain = matches!(octet, b'\'' | b'"');
        let length = if plain { 1 } else { escaped.len() };
        if out.len() + length > SHOWN_TEXT - 3 {
            out.push_str("...");
            break;
        }
        if plain {
            out.push(char::from(octet));
        } else {
            out.extend(escaped.map(char::from));
        }
    }
    out
}

/// Text in its own letters, made fit for a terminal: what has no form of its own there (control and format characters, line
/// separators, lone combining marks) is escaped.
#[must_use]
pub fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '\\' | '\'' | '"' => out.push(letter),
            letter => out.extend(letter.escape_debug()),
        }
    }
    out
}

/// A name that somebody else wrote, [`plain`] and cut at [`SHOWN_TEXT`] characters.
#[must_use]
pub fn printable(name: &str) -> String {
    let mut out = plain(name);
    if out.chars().count() > SHOWN_TEXT {
        let cut = out.char_indices().nth(SHOWN_TEXT - 3);
        out.truncate(cut.map_or(0, |(at, _)| at));
        out.push_str("...");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_keeps_its_letters_and_nothing_that_acts() {
        assert_eq!(
            printable("CN=Müller \"O'Hara\", O=会社"),
            "CN=Müller \"O'Hara\", O=会社"
        );
        assert_eq!(
            printable("a\u{1b}[31m\u{202e}b\u{2028}c\u{7}\r\n\u{200b}"),
            "a\\u{1b}[31m\\u{202e}b\\u{2028}c\\u{7}\\r\\n\\u{200b}"
        );
        assert_eq!(
            printable(&"x".repeat(300)),
            format!("{}...", "x".repeat(197))
        );
    }

    #[test]
    fn peer_text_is_escaped_and_cut() {
        assert_eq!(
            shown(b"550 \"no\"\r\n\x1b[31m"),
            "550 \"no\"\\r\\n\\x1b[31m"
        );
        let long = shown(&[b'x'; 1000]);
        assert_eq!(long.len(), SHOWN_TEXT);
        assert!(long.ends_with("..."));
    }
}
