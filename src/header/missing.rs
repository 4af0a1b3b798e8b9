//! What does an application's message lack that every message needs? (RFC 6409 §8.2, §8.3)

use super::{Examined, rfc5322_date};
use crate::mail::QueueId;

/// `Date:` and `Message-ID:` where the message has none: whole fields, or nothing.
///
/// They stand below everything else that we put on top, next to the fields they complete.
#[must_use]
pub fn missing_fields(
    examined: &Examined,
    hostname: &str,
    id: QueueId,
    unix_seconds: u64,
) -> Vec<u8> {
    let mut fields = String::new();
    if !examined.has("Date") {
        fields.push_str(&format!("Date: {}\r\n", rfc5322_date(unix_seconds)));
    }
    if !examined.has("Message-ID") {
        fields.push_str(&format!("Message-ID: <{id}@{hostname}>\r\n"));
    }
    fields.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::super::examine;
    use super::*;

    #[test]
    fn only_what_is_absent_is_added() {
        let id: QueueId = "06BHC43PXW001".parse().unwrap();
        let add = |section: &str| {
            let examined = examine(section.as_bytes()).unwrap();
            String::from_utf8(missing_fields(
                &examined,
                "smarthost.contoso.com",
                id,
                1_795_594_533,
            ))
            .unwrap()
        };
        assert_eq!(
            add("From: erp@contoso.com\r\n\r\n"),
            "Date: Wed, 25 Nov 2026 08:15:33 +0000\r\nMessage-ID: <06BHC43PXW001@smarthost.contoso.com>\r\n"
        );
        assert_eq!(add("message-id : <a@b>\r\nDATE:\r\n\r\n"), "");
        assert!(add("Message-ID: <a@b>\r\n\r\n").starts_with("Date: "));
    }
}
