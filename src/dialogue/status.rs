//! What does a status code mean that no table of ours knows? (RFC 3463 §3, the IANA registry beyond it, RFC 5321 §4.2.3)

use super::replies::Whose;
use crate::smtp::reply::Enhanced;

/// What a subject of RFC 3463 speaks of, whose fault it mostly is, and what mostly helps.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subject {
    pub(super) speaks_of: &'static str,
    pub(super) whose: Whose,
    pub(super) advice: &'static str,
    /// What helps instead where it may pass by itself.
    pub(super) at_first: Option<&'static str>,
}

/// RFC 3463 §3.1; `None` for a subject that is not defined.
pub(super) fn subject(enhanced: Enhanced) -> Option<Subject> {
    let (speaks_of, whose, advice) = match enhanced.1 {
        0 => ("nothing in particular", Whose::Exchange, READ_TEXT),
        1 => match enhanced.2 {
            7 | 8 => (
                "the sender's address",
                Whose::Sender,
                "give the sender an address that exists and takes replies",
            ),
            _ => (
                "the recipient's address",
                Whose::Recipient,
                "check the address with the recipient",
            ),
        },
        2 => (
            "the recipient's mailbox",
            Whose::Recipient,
            "ask the recipient, or who runs the mailbox",
        ),
        3 => (
            "the receiving mail system",
            Whose::Exchange,
            "ask who runs that system",
        ),
        4 => (
            "network and routing",
            Whose::Exchange,
            "look at DNS and at the way to that host",
        ),
        5 => (
            "the SMTP dialogue",
            Whose::Gatepost,
            "report it as a defect of Gatepost, with the trace of the message",
        ),
        6 => (
            "the content of the message",
            Whose::Message,
            "let the application write the message otherwise",
        ),
        7 => match enhanced.2 {
            25 => (
                "policy and security",
                Whose::Operator,
                "give this host's address a reverse name that leads back to it",
            ),
            _ => (
                "policy and security",
                Whose::Sender,
                "read the text: it mostly names the policy; then ask who runs that system",
            ),
        },
        _ => return None,
    };
    Some(Subject {
        speaks_of,
        whose,
        advice,
        at_first: match enhanced.1 {
            3 => Some("nothing, unless it lasts; then ask who runs that system"),
            4 => Some("nothing, unless it lasts; then look at DNS and at the way to that host"),
            _ => None,
        },
    })
}

const READ_TEXT: &str = "read the text of the reply";

/// RFC 3463 §2.
pub(super) fn class(class: u8) -> &'static str {
    match class {
        2 => "success",
        4 => "not now: it may be tried again as it is",
        _ => "never in this form",
    }
}

/// Subject and detail of the registry, in our words.
pub(super) fn detail(enhanced: Enhanced) -> Option<&'static str> {
    let known = DETAILS
        .iter()
        .find(|(subject, detail, _)| (*subject, *detail) == (enhanced.1, enhanced.2));
    known.map(|(.., meaning)| *meaning)
}

/// RFC 3463 §3.2-3.8; 1.10, 7.27: RFC 7505; 3.6, 7.15, 7.16: RFC 6710; 5.6, 7.8-7.13: RFC 4954, 5248; 6.7-6.10: RFC 6531;
/// 7.17-7.19: RFC 7293; 7.20-7.26: RFC 7372; 7.28, 7.29: the registry; 7.30: RFC 8689.
const DETAILS: &[(u16, u16, &str)] = &[
    (1, 0, "something is wrong with an address"),
    (1, 1, "no such mailbox"),
    (
        1,
        2,
        "the domain of the address does not exist or takes no mail",
    ),
    (1, 3, "the recipient's address is not written as one"),
    (1, 4, "the recipient's address means several mailboxes"),
    (1, 5, "the recipient's address is good"),
    (
        1,
        6,
        "the mailbox has moved, and nobody knows where its mail goes",
    ),
    (1, 7, "the sender's address is not written as one"),
    (
        1,
        8,
        "the sender's domain does not exist or takes no replies",
    ),
    (
        1,
        9,
        "handed on to a host that sends no delivery notifications",
    ),
    (
        1,
        10,
        "the recipient's domain says that it takes no mail (null MX)",
    ),
    (2, 0, "something is wrong with the mailbox"),
    (2, 1, "the mailbox is switched off"),
    (2, 2, "the mailbox is full"),
    (2, 3, "the message is longer than the mailbox takes"),
    (2, 4, "the mailing list could not be expanded"),
    (3, 0, "something is wrong with the mail system"),
    (3, 1, "the mail system has no room left"),
    (3, 2, "the mail system takes no mail now"),
    (3, 3, "the mail system lacks what was asked of it"),
    (3, 4, "the message is larger than the mail system takes"),
    (3, 5, "the mail system is not set up rightly"),
    (3, 6, "the priority that was asked for was changed"),
    (4, 0, "something is wrong with network or routing"),
    (4, 1, "the host does not answer"),
    (4, 2, "the connection failed or broke"),
    (
        4,
        3,
        "a directory or name server that routing needs does not answer",
    ),
    (4, 4, "there is no way to that host"),
    (4, 5, "the mail system is congested"),
    (4, 6, "the message goes round in circles"),
    (4, 7, "the message waited too long"),
    (5, 0, "something is wrong with the dialogue"),
    (5, 1, "a command that the other side does not know here"),
    (5, 2, "a command that is not written as one"),
    (5, 3, "too many recipients for one message"),
    (5, 4, "a parameter that the other side does not take"),
    (5, 5, "another version of the protocol is needed"),
    (5, 6, "a line of the login is too long"),
    (6, 0, "something is wrong with the content"),
    (6, 1, "the kind of content is not taken"),
    (
        6,
        2,
        "the content would have to be converted, and may not be",
    ),
    (
        6,
        3,
        "the content would have to be converted, and cannot be",
    ),
    (6, 4, "the content was converted with a loss"),
    (6, 5, "the content could not be converted"),
    (6, 6, "the content is not to be had"),
    (6, 7, "addresses beyond US-ASCII are not taken"),
    (6, 8, "the reply would need UTF-8, which was not asked for"),
    (
        6,
        9,
        "a header in UTF-8 cannot be handed to one of the recipients",
    ),
    (
        6,
        10,
        "a header in UTF-8 cannot be handed to one of the recipients",
    ),
    (7, 0, "something is wrong with policy or security"),
    (7, 1, "the sender may not send to this recipient"),
    (7, 2, "the sender may not send to this mailing list"),
    (
        7,
        3,
        "the security of the message would have to be converted, and cannot be",
    ),
    (7, 4, "a security feature that is needed is not there"),
    (7, 5, "a cryptographic step failed"),
    (7, 6, "the cryptographic algorithm is not supported"),
    (7, 7, "the message was changed on its way"),
    (7, 8, "user name or password are wrong"),
    (7, 9, "the login mechanism is too weak"),
    (7, 10, "encryption is needed"),
    (7, 11, "encryption is needed for this login mechanism"),
    (
        7,
        12,
        "the password must be set anew for this login mechanism",
    ),
    (7, 13, "the account is switched off"),
    (7, 14, "a trust relationship with another server is needed"),
    (7, 15, "the priority of the message is too low now"),
    (7, 16, "the message is too large for its priority"),
    (7, 17, "the mailbox belongs to someone else now"),
    (7, 18, "the domain belongs to someone else now"),
    (
        7,
        19,
        "it cannot be told whether the mailbox still belongs to the same person",
    ),
    (7, 20, "no DKIM signature holds"),
    (7, 21, "no DKIM signature is acceptable"),
    (7, 22, "no DKIM signature of the author's domain holds"),
    (7, 23, "our address is not in the sender's SPF record"),
    (7, 24, "the sender's SPF record could not be evaluated"),
    (
        7,
        25,
        "our address has no reverse name that leads back to it",
    ),
    (7, 26, "several checks of authentication failed"),
    (
        7,
        27,
        "the sender's domain says that it takes no mail (null MX)",
    ),
    (7, 28, "too much mail of this kind"),
    (7, 29, "the ARC chain does not hold"),
    (7, 30, "the message asks for TLS all the way (REQUIRETLS)"),
];

/// What a reply code means by itself (RFC 5321 §4.2.3, RFC 7504, RFC 4954, RFC 3207), for a reply without enhanced code.
pub(super) fn code(code: u16) -> Option<&'static str> {
    Some(match code {
        421 => "the other side closes the connection",
        432 => "the password must be set anew first, or a limit of this mailbox is reached",
        450 => "the mailbox is not to be had now",
        451 => "an error on the other side; or greylisting",
        452 => "the other side has no room now, or the transaction has too many recipients",
        454 => "TLS or login is not possible now",
        455 => "a parameter cannot be honoured now",
        500 => "a command that the other side does not know",
        501 => "a parameter that is not written as one",
        502 => "a command that the other side does not have",
        503 => "a command at the wrong time",
        504 => "a parameter that the other side does not have",
        521 | 556 => "this host or domain takes no mail",
        530 => "a login, or TLS, is needed first",
        534 => "the login mechanism is too weak",
        535 => "user name or password are wrong",
        538 => "the login mechanism needs TLS",
        550 => "the mailbox is not to be had, or policy refuses the mail",
        551 => "the recipient is elsewhere",
        552 => "the mailbox or the system has no room for this message",
        553 => "an address that is not written as one, or is not allowed",
        554 => "refused without a particular reason; instead of a greeting: no mail is taken here",
        555 => "a parameter of MAIL or RCPT that the other side does not know",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_subject_and_detail_of_the_registry_is_there_once() {
        let last = [0u16, 10, 4, 6, 7, 6, 10, 30];
        for (number, last) in (0u16..).zip(last).skip(1) {
            assert!(subject((5, number, 0)).is_some());
            for own in 0..=last {
                let found = DETAILS.iter().filter(|row| (row.0, row.1) == (number, own));
                assert_eq!(found.count(), 1, "X.{number}.{own}");
            }
            assert_eq!(detail((5, number, last + 1)), None);
        }
        assert!(subject((5, 0, 0)).is_some() && subject((5, 8, 0)).is_none());
        let sorted = DETAILS.is_sorted_by_key(|row| (row.0, row.1));
        assert!(sorted, "it is read as a table");
    }

    #[test]
    fn codes_that_refuse_have_a_meaning_by_themselves() {
        for known in [
            421, 450, 451, 452, 454, 500, 521, 530, 535, 550, 552, 554, 555,
        ] {
            assert!(code(known).is_some(), "{known}");
        }
        assert_eq!(code(599), None);
    }
}
