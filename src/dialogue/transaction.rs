//! The commands of one transaction: what a next hop is told of a message, given what it offers.

use super::outcome::{Answer, Unfit};
use crate::mail::{BodyType, Domain, Envelope, Notify, Recipient, Ret};
use crate::smtp::data::ContentFacts;
use crate::smtp::encode_xtext;
use crate::smtp::extension::Offered;

/// A message as a dialogue needs to know it.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// As received.
    pub envelope: &'a Envelope,
    /// Positions of the recipients to address.
    pub recipients: &'a [usize],
    /// What the content holds.
    pub facts: &'a ContentFacts,
    /// Octets of the rendition that is sent: `SIZE=` and `BDAT`.
    pub size: u64,
    /// The header section of that rendition is internationalised, as was announced with SMTPUTF8. Of account only where
    /// SMTPUTF8 is not offered.
    pub utf8_header: bool,
    /// `XOORG=`, where it is offered.
    pub xoorg: Option<&'a Domain>,
}

/// How the content goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transfer {
    /// As it is, behind one `BDAT n LAST` (RFC 3030).
    Chunk,
    /// Dot-stuffed, behind DATA.
    Dots,
}

/// Commands, ready to be sent, and recipients that need not be asked.
#[derive(Debug)]
pub(super) struct Commands {
    pub(super) mail: Vec<u8>,
    pub(super) rcpt: Vec<(usize, Vec<u8>)>,
    pub(super) unfit: Vec<(usize, Answer)>,
    pub(super) transfer: Transfer,
    pub(super) size: u64,
}

impl Commands {
    pub(super) fn new(request: &Request<'_>, offered: &Offered) -> Self {
        let transfer = if offered.chunking {
            Transfer::Chunk
        } else {
            Transfer::Dots
        };
        let whole = unfit(request, offered);
        let mut utf8 = request.envelope.smtputf8;
        let mut rcpt = Vec::with_capacity(request.recipients.len());
        let mut refused = Vec::new();
        for &position in request.recipients {
            let Some(recipient) = request.envelope.recipients.get(position) else {
                continue;
            };
            let needs_utf8 = request.utf8_header || request.envelope.needs_smtputf8(recipient);
            if let Some(why) = &whole {
                refused.push((position, Answer::Unfit(why.clone())));
            } else if needs_utf8 && !offered.smtputf8 {
                refused.push((position, Answer::Unfit(Unfit::SmtpUtf8)));
            } else {
                utf8 |= needs_utf8;
                let utf8 = utf8 && offered.smtputf8;
                rcpt.push((position, rcpt_command(recipient, offered, utf8)));
            }
        }
        Self {
            mail: mail_command(request, offered, utf8),
            rcpt,
            unfit: refused,
            transfer,
            size: request.size,
        }
    }
}

/// Why the message fits no recipient of this next hop.
fn unfit(request: &Request<'_>, offered: &Offered) -> Option<Unfit> {
    let limit = offered.size.filter(|limit| *limit > 0);
    match limit {
        Some(limit) if request.size > limit => Some(Unfit::TooLarge {
            size: request.size,
            limit,
        }),
        _ if request.facts.needs_bdat() && !offered.chunking => Some(Unfit::BareNewlines),
        _ if request.facts.eight_bit && !offered.eight_bit_mime => Some(Unfit::EightBit),
        _ => None,
    }
}

fn mail_command(request: &Request<'_>, offered: &Offered, utf8: bool) -> Vec<u8> {
    let envelope = request.envelope;
    let mut line = format!("MAIL FROM:<{}>", envelope.reverse_path);
    if offered.size.is_some() {
        line.push_str(&format!(" SIZE={}", request.size));
    }
    let eight_bit = request.facts.eight_bit || envelope.body == Some(BodyType::EightBitMime);
    if offered.eight_bit_mime && eight_bit {
        line.push_str(" BODY=8BITMIME");
    }
    if offered.smtputf8 && utf8 {
        line.push_str(" SMTPUTF8");
    }
    if offered.dsn {
        match envelope.ret {
            Some(Ret::Full) => line.push_str(" RET=FULL"),
            Some(Ret::Headers) => line.push_str(" RET=HDRS"),
            None => {}
        }
        if let Some(id) = envelope.envid.as_deref().filter(|id| is_word(id, false)) {
            line.push_str(" ENVID=");
            line.push_str(id);
        }
    }
    if let Some(org) = request.xoorg.filter(|_| offered.xoorg) {
        line.push_str(" XOORG=");
        line.push_str(&encode_xtext(org.as_str().as_bytes()));
    }
    line.push_str("\r\n");
    line.into_bytes()
}

fn rcpt_command(recipient: &Recipient, offered: &Offered, utf8: bool) -> Vec<u8> {
    let mut line = format!("RCPT TO:<{}>", recipient.mailbox);
    if offered.dsn {
        if let Some(notify) = recipient.notify {
            line.push_str(" NOTIFY=");
            line.push_str(&notify_value(notify));
        }
        let original = recipient.orcpt.as_deref();
        if let Some(original) = original.filter(|text| is_word(text, utf8)) {
            line.push_str(" ORCPT=");
            line.push_str(original);
        }
    }
    line.push_str("\r\n");
    line.into_bytes()
}

fn notify_value(notify: Notify) -> String {
    let Notify::On {
        success,
        failure,
        delay,
    } = notify
    else {
        return "NEVER".to_owned();
    };
    let words = [(success, "SUCCESS"), (failure, "FAILURE"), (delay, "DELAY")];
    let words: Vec<_> = words
        .iter()
        .filter(|(on, _)| *on)
        .map(|(_, word)| *word)
        .collect();
    if words.is_empty() {
        // No event at all: said as RFC 3461 §4.1 can say it.
        return "NEVER".to_owned();
    }
    words.join(",")
}

/// Whether a parameter can be handed on as it is: no octet that would end it. UTF-8 only under SMTPUTF8 (RFC 6533 §3).
fn is_word(text: &str, utf8: bool) -> bool {
    let octet = |octet: u8| matches!(octet, 33..=126) || (utf8 && octet >= 0x80);
    !text.is_empty() && text.bytes().all(octet)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope() -> Envelope {
        Envelope {
            reverse_path: "a@contoso.com".parse().unwrap(),
            recipients: vec![
                Recipient {
                    mailbox: "b@contoso.com".parse().unwrap(),
                    notify: Some(Notify::On {
                        success: true,
                        failure: false,
                        delay: true,
                    }),
                    orcpt: Some("rfc822;b+2Bx@contoso.com".into()),
                },
                Recipient {
                    mailbox: "ü@contoso.com".parse().unwrap(),
                    notify: None,
                    orcpt: None,
                },
            ],
            body: None,
            smtputf8: false,
            ret: Some(Ret::Headers),
            envid: Some("QQ+3D1".into()),
            xoorg: None,
        }
    }

    fn all() -> Offered {
        Offered {
            size: Some(1000),
            pipelining: true,
            dsn: true,
            enhanced_status_codes: true,
            starttls: true,
            eight_bit_mime: true,
            chunking: true,
            smtputf8: true,
            xoorg: true,
            auth: Vec::new(),
        }
    }

    fn commands(facts: ContentFacts, size: u64, offered: &Offered) -> (String, Commands) {
        let envelope = envelope();
        let org = "contoso.com".parse().unwrap();
        let request = Request {
            envelope: &envelope,
            recipients: &[0, 1],
            facts: &facts,
            size,
            utf8_header: false,
            xoorg: Some(&org),
        };
        let commands = Commands::new(&request, offered);
        let mut text = String::from_utf8(commands.mail.clone()).unwrap();
        for (_, line) in &commands.rcpt {
            text.push_str(std::str::from_utf8(line).unwrap());
        }
        (text, commands)
    }

    #[test]
    fn everything_that_is_offered_and_needed_is_said() {
        let facts = ContentFacts {
            eight_bit: true,
            ..ContentFacts::default()
        };
        let (text, commands) = commands(facts, 77, &all());
        assert_eq!(
            text,
            "MAIL FROM:<a@contoso.com> SIZE=77 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=QQ+3D1 XOORG=contoso.com\r\n\
             RCPT TO:<b@contoso.com> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;b+2Bx@contoso.com\r\n\
             RCPT TO:<ü@contoso.com>\r\n"
        );
        assert_eq!(commands.transfer, Transfer::Chunk);
    }

    #[test]
    fn nothing_is_said_that_is_not_offered() {
        let (text, commands) = commands(ContentFacts::default(), 77, &Offered::default());
        assert_eq!(
            text,
            "MAIL FROM:<a@contoso.com>\r\nRCPT TO:<b@contoso.com>\r\n"
        );
        assert_eq!(commands.unfit, [(1, Answer::Unfit(Unfit::SmtpUtf8))]);
        assert_eq!(commands.transfer, Transfer::Dots);
    }

    #[test]
    fn a_message_that_does_not_fit_is_not_offered() {
        let bare = ContentFacts {
            bare_lf: true,
            ..ContentFacts::default()
        };
        let eight = ContentFacts {
            eight_bit: true,
            ..ContentFacts::default()
        };
        let no_chunks = Offered {
            chunking: false,
            eight_bit_mime: false,
            ..all()
        };
        for (facts, size, offered, code) in [
            (ContentFacts::default(), 1001, &all(), "5.3.4"),
            (bare, 1, &no_chunks, "5.6.11"),
            (eight, 1, &no_chunks, "5.6.3"),
        ] {
            let (_, commands) = commands(facts, size, offered);
            assert!(commands.rcpt.is_empty());
            assert_eq!(commands.unfit.len(), 2);
            assert!(
                commands
                    .unfit
                    .iter()
                    .all(|(_, answer)| answer.summary().contains(code))
            );
        }
        assert!(commands(bare, 1000, &all()).1.unfit.is_empty());
    }

    #[test]
    fn smtputf8_is_said_where_it_is_offered_and_demanded_where_it_is_needed() {
        let facts = ContentFacts::default();
        let mut envelope = envelope();
        envelope.smtputf8 = true;
        envelope.recipients[0].orcpt = Some("utf-8;\u{fc}@contoso.com".into());
        let without = Offered {
            smtputf8: false,
            ..all()
        };
        for (utf8_header, offered, fits) in [
            (false, &all(), [true, true]),
            // It was announced, and only one of the two needs it.
            (false, &without, [true, false]),
            (true, &all(), [true, true]),
            (true, &without, [false, false]),
        ] {
            let request = Request {
                envelope: &envelope,
                recipients: &[0, 1],
                facts: &facts,
                size: 1,
                utf8_header,
                xoorg: None,
            };
            let commands = Commands::new(&request, offered);
            let said = |line: &[u8]| String::from_utf8(line.to_vec()).unwrap();
            let mail = said(&commands.mail);
            assert_eq!(mail.contains(" SMTPUTF8"), offered.smtputf8, "{mail}");
            for (at, fits) in fits.into_iter().enumerate() {
                let asked = commands.rcpt.iter().find(|(position, _)| *position == at);
                assert_eq!(asked.is_some(), fits, "{at}: {commands:?}");
                let unfit = (at, Answer::Unfit(Unfit::SmtpUtf8));
                assert_eq!(commands.unfit.contains(&unfit), !fits);
            }
            if let Some((0, line)) = commands.rcpt.first() {
                assert_eq!(said(line).contains("ORCPT="), offered.smtputf8);
            }
        }
    }

    #[test]
    fn a_parameter_cannot_smuggle_a_command() {
        assert!(!is_word("a b", true) && !is_word("a\r\nRSET", true) && !is_word("ü", false));
        assert!(is_word("ü", true));
    }
}
