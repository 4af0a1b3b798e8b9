//! What of a queued message's header section is told, so that it can be explained?
//!
//! The names of all fields, and the values of those that count for Exchange's judgement: never a secret or loop header's
//! value, whatever it is called now or was called once.

use super::protected::is_exchange_only;
use super::{HeaderFault, Rendition, Splitter, examine};

/// Told beside what only Exchange may say; neither may be the name of a secret or loop header (`check` refuses that).
const TOLD: [&str; 5] = ["Received", "From", "Sender", "Message-ID", "Date"];

/// What stands in the place of a value that is not told.
pub const KEPT_BACK: &str = "(not shown)";

/// The header section of a rendition of a message that begins with `head`, its values kept back where they do not count.
///
/// # Errors
/// The message has no sound header section, which was ruled out when it came in.
pub fn told(rendition: &Rendition, head: &[u8]) -> Result<Vec<u8>, HeaderFault> {
    let form = rendition.apply(head);
    let mut splitter = Splitter::default();
    splitter.push(&form)?;
    let length = splitter.finish()?;
    let examined = examine(form.get(..length).unwrap_or(&form))?;
    let mut out = Vec::with_capacity(length);
    for field in examined.fields() {
        let name = field.name();
        out.extend_from_slice(name.as_bytes());
        out.push(b':');
        let counts = |own: &&str| own.eq_ignore_ascii_case(name);
        if is_exchange_only(name) || TOLD.iter().any(counts) {
            out.extend_from_slice(field.value());
        } else {
            out.push(b' ');
            out.extend_from_slice(KEPT_BACK.as_bytes());
        }
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_counts_has_its_value() {
        let rendition = Rendition {
            prepend: b"Received: from a\r\n\tby h; now\r\nX-Old-Loop: secret\r\n".to_vec(),
            omit: std::iter::once(0..16).collect(),
        };
        let head = b"X-Gate: secret\r\nFrom: a@contoso.com\r\nSubject: private\r\n folded\r\n\
            x-ms-exchange-crosspremises-authas : Internal\r\n\r\nbody";
        let text = String::from_utf8(told(&rendition, head).unwrap()).unwrap();
        assert_eq!(
            text,
            "Received: from a\r\n\tby h; now\r\nX-Old-Loop: (not shown)\r\nFrom: a@contoso.com\r\n\
             Subject: (not shown)\r\nx-ms-exchange-crosspremises-authas: Internal\r\n\r\n"
        );
    }
}
