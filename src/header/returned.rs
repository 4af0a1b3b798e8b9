//! What may a report show of a message's header section? (product.md 7: never protected, loop or secret fields)
//!
//! The law of mail that nobody has proven ([`super::protected`]), wherever it came from, asked anew when the report is
//! written: whatever left on the way that failed has left already, and of what we put on top only what names the message is shown. An older loop header of ours
//! may go by a name that the configuration no longer knows.

use super::protected::{Row, is_marker_of};
use super::{HeaderFault, examine};
use crate::route::From;
use crate::trust::Tenants;

/// Of our own fields: the trace field, and what an application's message lacked.
const SHOWN_ON_TOP: [&str; 3] = ["Received", "Date", "Message-ID"];

/// The fields that a report may show, each with its CRLF, without the empty line: those of `top`, what we put above the
/// message, then those of `section`, its header section as it left.
///
/// # Errors
/// One of the two is no header section, which was ruled out when the message came in.
pub fn returned(
    top: &[u8],
    section: &[u8],
    from: From,
    tenants: &Tenants,
) -> Result<Vec<u8>, HeaderFault> {
    let row = Row::returned(from);
    let mut out = Vec::with_capacity(top.len() + section.len());
    let (top, section) = (examine(top)?, examine(section)?);
    let named = |name: &str| {
        SHOWN_ON_TOP
            .iter()
            .any(|own| own.eq_ignore_ascii_case(name))
    };
    let ours = top.fields().filter(|field| named(field.name()));
    let arrived = section.fields().filter(|field| {
        let name = field.name();
        !row.protects(name) && !is_marker_of(name, tenants.iter())
    });
    for field in ours.chain(arrived) {
        out.extend_from_slice(field.name().as_bytes());
        out.push(b':');
        out.extend_from_slice(field.value());
        out.extend_from_slice(b"\r\n");
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust::fixtures::{contoso, fabrikam, tenants};
    use proptest::prelude::*;

    fn shown(top: &str, section: &str, from: From) -> String {
        let tenants = tenants([contoso(), fabrikam()]);
        let out = returned(top.as_bytes(), section.as_bytes(), from, &tenants).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn of_our_own_fields_only_those_that_name_the_message_are_shown() {
        let top = "Received: from x\r\n\tby y; date\r\nX-Older-Loop-Name: secret\r\n\
            X-MS-Exchange-CrossPremises-AuthAs: Internal\r\nX-OriginatorOrg: contoso.com\r\nDate: now\r\n";
        assert_eq!(
            shown(top, "Subject: s\r\n\r\nbody", From::Submission),
            "Received: from x\r\n\tby y; date\r\nDate: now\r\nSubject: s\r\n"
        );
    }

    #[test]
    fn as_for_unproven_mail_and_of_an_application_no_blind_copies() {
        let section = "From: a@contoso.com\r\nBcc: b@contoso.com\r\nX-OriginatorOrg: contoso.com\r\n\
            X-Contoso-Gate: gate-contoso\r\nX-Gatepost-Processed: of-fabrikam\r\n\
            X-MS-Exchange-Organization-SCL: 1\r\n\r\n";
        let connector = "From: a@contoso.com\r\nBcc: b@contoso.com\r\n";
        assert_eq!(shown("", section, From::Connector), connector);
        assert_eq!(
            shown("", section, From::Submission),
            "From: a@contoso.com\r\n"
        );
    }

    const PROTECTED: [&str; 12] = [
        "X-OriginatorOrg",
        "X-MS-Exchange-CrossTenant-Id",
        "X-MS-Journal-Report",
        "X-Forefront-Antispam-Report",
        "X-MS-Exchange-Organization-AuthAs",
        "X-MS-Exchange-Forest-RulesExecuted",
        "X-MS-Exchange-CrossPremises-AuthAs",
        "X-CrossPremisesHeadersPromoted",
        "X-OrganizationHeadersPreserved",
        "X-Contoso-Gate",
        "X-Fabrikam-Gate",
        "X-Gatepost-Processed",
    ];

    fn odd_case(name: &str, upper: &[bool]) -> String {
        let letters = name.chars().zip(upper.iter().cycle());
        letters
            .map(|(letter, upper)| match upper {
                true => letter.to_ascii_uppercase(),
                false => letter.to_ascii_lowercase(),
            })
            .collect()
    }

    proptest! {
        /// However it is written: folded, mixed case, blanks before the colon, empty, at the end without an empty line.
        #[test]
        fn no_protected_field_is_shown_whatever_the_header_held(
            fields in proptest::collection::vec(
                (0usize..14, proptest::collection::vec(any::<bool>(), 1..9), "[ \t]{0,3}", "[ -~]{0,30}", "(\r\n[ \t][!-~ ]{0,20}){0,3}"),
                0..12,
            ),
            ended in any::<bool>(),
            submission in any::<bool>(),
        ) {
            let mut section = String::new();
            let mut harmless = 0;
            for (which, case, blanks, value, folding) in &fields {
                let name = PROTECTED.get(*which).copied();
                harmless += usize::from(name.is_none());
                let name = odd_case(name.unwrap_or("X-Harmless"), case);
                section.push_str(&format!("{name}{blanks}:{value}{folding}\r\n"));
            }
            if ended {
                section.push_str("\r\nX-MS-Exchange-Organization-SCL: only body\r\n");
            }
            let from = if submission { From::Submission } else { From::Connector };
            let out = shown("", &section, from);
            let again = examine(out.as_bytes()).unwrap();
            for field in again.fields() {
                prop_assert!(field.is("X-Harmless"), "{out}");
            }
            prop_assert_eq!(again.fields().count(), harmless);
        }
    }
}
