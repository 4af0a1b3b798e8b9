//! What does an application's message lack that every message needs? (RFC 6409 §8.2, §8.3)

use super::{Examined, rfc5322_date};
use crate::mail::QueueId;
use crate::trust::{Class, Verdict};

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
        fields.push_str(&format!("Message-ID: {}\r\n", made(hostname, id)));
    }
    fields.into_bytes()
}

/// The Message-ID by which the mailbox knows the message: its own, or the one that we add to an application's.
///
/// The trace keeps it, for it is what the administrator reads in Exchange and asks us about.
#[must_use]
pub fn message_id_on_arrival(
    examined: &Examined,
    verdict: &Verdict,
    hostname: &str,
    id: QueueId,
) -> Option<String> {
    match verdict.class() {
        Class::Application { .. } if !examined.has("Message-ID") => Some(made(hostname, id)),
        Class::Application { .. }
        | Class::Proven { .. }
        | Class::Validation { .. }
        | Class::Reported { .. }
        | Class::Own => examined.message_id(),
    }
}

fn made(hostname: &str, id: QueueId) -> String {
    format!("<{id}@{hostname}>")
}

#[cfg(test)]
mod tests {
    use super::super::examine;
    use super::*;
    use crate::trust::fixtures::{application, contoso, tenants, verdict};

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
    #[test]
    fn the_message_id_that_we_add_is_the_one_that_is_remembered() {
        let id: QueueId = "06BHC43PXW001".parse().unwrap();
        let tenants = tenants([contoso()]);
        let verdict = |class| verdict(tenants.named("contoso").unwrap(), class);
        let known = |section: &str, class| {
            let examined = examine(section.as_bytes()).unwrap();
            message_id_on_arrival(&examined, &verdict(class), "smarthost.contoso.com", id)
        };
        let application = || Class::Application {
            application: application(tenants.named("contoso").unwrap(), &["*@contoso.com"], false),
        };
        let added = known("From: erp@contoso.com\r\n\r\n", application()).unwrap();
        let fields = missing_fields(
            &examine(b"From: erp@contoso.com\r\n\r\n").unwrap(),
            "smarthost.contoso.com",
            id,
            0,
        );
        assert!(String::from_utf8(fields).unwrap().contains(&added));
        assert_eq!(
            known("Message-ID: <a@b>\r\n\r\n", application()).as_deref(),
            Some("<a@b>")
        );
        assert_eq!(known("From: a@contoso.com\r\n\r\n", Class::Own), None);
    }
}
