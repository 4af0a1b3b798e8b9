//! The grammar of SMTP: lines, commands, replies, extensions, content framing, SASL. No policy, no state of a session.

pub mod command;
pub mod data;
pub mod extension;
pub mod line;
pub mod reply;
pub mod sasl;

/// The slowest that the content of a message may go in either direction, over the whole of it, octets a second: 64 kbit/s,
/// once the line of an office.
///
/// The waits of RFC 5321 §4.5.3.2 hold for a step each: whoever makes the least progress in time could keep a connection
/// for days with one large message.
pub const SLOWEST: u64 = 8 * 1024;

/// Decodes xtext (RFC 3461 §4): `+41` is `A`.
///
/// Returns nothing where the text is not xtext.
#[must_use]
pub fn decode_xtext(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut octets = text.bytes();
    while let Some(octet) = octets.next() {
        match octet {
            b'+' => {
                let high = hex_digit(octets.next()?)?;
                let low = hex_digit(octets.next()?)?;
                out.push(high << 4 | low);
            }
            b'=' => return None,
            33..=126 => out.push(octet),
            _ => return None,
        }
    }
    Some(out)
}

/// Encodes as xtext (RFC 3461 §4).
#[must_use]
pub fn encode_xtext(text: &[u8]) -> String {
    let mut out = String::with_capacity(text.len());
    for &octet in text {
        if (33..=126).contains(&octet) && octet != b'+' && octet != b'=' {
            out.push(char::from(octet));
        } else {
            out.push_str(&format!("+{octet:02X}"));
        }
    }
    out
}

fn hex_digit(octet: u8) -> Option<u8> {
    match octet {
        b'0'..=b'9' => Some(octet - b'0'),
        b'A'..=b'F' => Some(octet - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn xtext_reads_back(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            prop_assert_eq!(decode_xtext(&encode_xtext(&bytes)), Some(bytes));
        }
    }

    #[test]
    fn malformed_xtext_is_none() {
        for bad in ["+4", "+", "a=b", "+4g", "a b", "+4a"] {
            assert_eq!(decode_xtext(bad), None, "{bad}");
        }
    }
}
