//! What does a refusal of Gatepost's own mean, for the administrator of whoever was refused?
//!
//! The wordings are one table ([`Rejection`]); here is what it means, whose fault it is and what to do, with the texts that
//! `explain trust` has for the same refusals.

use crate::cli::explain_trust::listeners::{OFFER_CHUNKING, RAISE_SIZE};
use crate::dialogue::{Alarm, Explanation, Known, Outcome, Pace, Said};
use crate::header::MAX_RECEIVED;
use crate::mail::{Domain, QueueId, shown};
use crate::session::Rejection;
use crate::smtp::command::CommandFault;
use crate::smtp::reply::Reply;
use crate::trust::{self, Evidence, Reason};

/// The explanation, where the text is a refusal of ours: a host name first, then a wording of ours, then an id.
pub(super) fn explained(said: &Said) -> Option<Explanation> {
    let code = said.code?;
    let mut words: Vec<&str> = said.text.split_whitespace().collect();
    let id = words
        .iter()
        .rposition(|word| word.parse::<QueueId>().is_ok())?;
    let id = words.drain(id..).next()?;
    let (host, wording) = words.split_first()?;
    let host: Domain = host.parse().ok()?;
    let rejection = Rejection::recognised(code, said.enhanced, &wording.join(" "))?;
    let told = told(&rejection, &wording.join(" "));
    let for_now = code / 100 == 4;
    Some(Explanation {
        reply: Reply {
            code,
            enhanced: said.enhanced,
            lines: vec![said.text.clone().into()],
        },
        meaning: told.meaning,
        whose: told.whose,
        via: None,
        outcome: if for_now {
            Outcome::Deferred(Pace::Law)
        } else {
            Outcome::Failed
        },
        does: if for_now {
            "has not taken the message: whoever sent it keeps it and tries again"
        } else {
            "has not taken the message: whoever sent it reports it as failed"
        },
        alarm: Alarm::Never,
        advice: format!("{}; gatepost trace {id} says what was seen", told.advice),
        known: Known::Refusals,
        notes: vec![format!(
            "where {host} is no Gatepost of yours, --via says which next hop gave this, and that way's law is told"
        )],
    })
}

struct Told {
    meaning: String,
    whose: Option<&'static str>,
    advice: String,
}

const CLIENT: Option<&str> = Some("the program that sent it");
const APPLICATION: Option<&str> = Some("the application, or its [[application]] here");
const TENANT: Option<&str> =
    Some("the tenant's connector or transport rule, or Gatepost's configuration");
const OPERATOR: Option<&str> = Some("operator of this host");
const ROUTES: Option<&str> = Some("the recipient, or Gatepost's [[route]]s");
const NOBODY: Option<&str> = None;

const LOOK: &str = "look at what that program sends";
const LATER: &str = "nothing, unless it lasts";
const LOGIN: &str = "let it log in with the username and password of its [[application]] inside TLS, or give a device that cannot an [[application]] with its address in networks and without username";

fn told(rejection: &Rejection, wording: &str) -> Told {
    let say = |meaning: &str, whose: Option<&'static str>, advice: &str| Told {
        meaning: meaning.to_owned(),
        whose,
        advice: advice.to_owned(),
    };
    match rejection {
        Rejection::Trust(reason) => of_trust(*reason),
        Rejection::Syntax(fault) => of_syntax(*fault),
        Rejection::Header(fault) => say(
            &format!("{fault}, which nobody may guess the end or the meaning of"),
            CLIENT,
            "mend what writes the message: each field on lines that end in CRLF, an empty line behind the last, at most 256 KiB",
        ),
        Rejection::LineMalformed => say(
            "a command line with a bare CR, a bare LF or a NUL",
            CLIENT,
            LOOK,
        ),
        Rejection::LineTooLong => say("a command line without end", CLIENT, LOOK),
        Rejection::TooManyErrors => say(
            "too many commands of this connection were refused",
            CLIENT,
            "look at the refusals before this one",
        ),
        Rejection::ChunkOfUnknownSize => say(
            "a BDAT command whose size cannot be read, so that nobody knows where the next command begins",
            CLIENT,
            LOOK,
        ),
        Rejection::BadSequence { .. } => {
            let (_, wanted) = wording.split_once(": ").unwrap_or_default();
            say(
                &format!("a command at the wrong time ({})", shown(wanted.as_bytes())),
                CLIENT,
                LOOK,
            )
        }
        Rejection::NotImplemented => say(
            "a command that Gatepost does not have here; AUTH is none of a connector listener",
            CLIENT,
            "let applications log in on a submission listener",
        ),
        Rejection::StartTlsRequired => say(
            "the client went on in clear text where this listener wants TLS first",
            CLIENT,
            "switch STARTTLS on in the client; a device without TLS gets a submission listener with tls = \"optional\"",
        ),
        Rejection::StartTlsNotAvailable => say(
            "STARTTLS where there is none: this listener has tls = \"implicit\" or \"none\"",
            CLIENT,
            "set the client to the kind of TLS that the listener's tls has",
        ),
        Rejection::AuthNotAvailable => say(
            "a login where none is offered: outside TLS, or ehlo_discard has AUTH",
            CLIENT,
            "let the client log in inside TLS; auth_without_tls lets it in clear text",
        ),
        Rejection::AuthenticationRequired => say(
            "the client did not log in, and its address lies in no application's networks",
            APPLICATION,
            LOGIN,
        ),
        Rejection::BadCredentials => say(
            "user name or password is wrong, or the [[application]] may not log in from this address (networks)",
            APPLICATION,
            "compare the user name with username; make the password's hash anew with gatepost hash-password",
        ),
        Rejection::AuthenticationBusy => say(
            "more logins at once than can be checked",
            NOBODY,
            "nothing, unless it lasts: then let the client keep its connection, or log in with the same password from fewer places",
        ),
        Rejection::AuthenticationThrottled => say(
            "several logins from this address have failed within a minute, and further ones are not looked at for now",
            APPLICATION,
            "find the client with the wrong password at that address; the same user may log in from another",
        ),
        Rejection::AuthenticationCancelled => say("the client broke its login off", CLIENT, LOOK),
        Rejection::AuthenticationMalformed => {
            say("a login that is not written as one", CLIENT, LOOK)
        }
        Rejection::UnknownMechanism => say(
            "a login mechanism that is not offered",
            CLIENT,
            "set the client to PLAIN or LOGIN, inside TLS",
        ),
        Rejection::NoRoute => say(
            "no [[route]] of the sender's tenant takes this recipient",
            ROUTES,
            "check the address; else add a [[route]] whose recipients hold it and whose from fits",
        ),
        Rejection::RecipientNotServed => say(
            "the message turned out to be of a tenant that has no [[route]] for one of its recipients, which refuses it whole",
            ROUTES,
            "add a [[route]] of that tenant whose recipients hold all of them",
        ),
        Rejection::RateExceeded => say(
            "the rate of this [[application]] is used up",
            APPLICATION,
            "nothing, if it sends on later; else raise rate, or find out why it sends so much",
        ),
        Rejection::ValidationRateExceeded => say(
            "more than 20 connector checks of this tenant within an hour",
            NOBODY,
            "check the connector again later",
        ),
        Rejection::TooManyRecipients => say(
            "more recipients than one message may have here",
            CLIENT,
            "nothing, where the client sends the others in another transaction, as mail servers do; else let it write to fewer at once",
        ),
        Rejection::NeedsSmtpUtf8 => say(
            "an address beyond US-ASCII, and MAIL without SMTPUTF8",
            CLIENT,
            "let the client offer SMTPUTF8, or write to an address in US-ASCII",
        ),
        Rejection::MessageTooLarge => say(
            "the message is larger than max_message_size of the listener",
            CLIENT,
            RAISE_SIZE,
        ),
        Rejection::ValidationTooLarge => say(
            "a connector check over 64 KiB, which Microsoft's is not",
            CLIENT,
            "send no other mail as O365ConnectorValidation",
        ),
        Rejection::BareNewline => say(
            "the body has a bare CR or LF, behind which a second message could hide",
            CLIENT,
            &format!(
                "of a device that knows no better, bare_newlines = \"repair\" of its submission listener; of Exchange, {OFFER_CHUNKING}"
            ),
        ),
        Rejection::TooManyHops => say(
            &format!("more than {MAX_RECEIVED} Received fields: a loop"),
            TENANT,
            &trust::advice(Reason::Loop, &Evidence::default()),
        ),
        Rejection::ConnectorHeld { fault } => say(
            &format!(
                "Exchange has refused what the tenant's inbound connector should allow for over 15 minutes ({}), so that its own mail waits there until that is mended",
                shown(fault.as_bytes())
            ),
            Some("connector or certificate"),
            "mend that fault, which gatepost explain reply explains; the first success releases all",
        ),
        Rejection::StoreUnavailable => say(
            "the queue cannot be written: the disk is full or sick",
            OPERATOR,
            "look at the log and at the disk of data_directory",
        ),
        Rejection::StrangerLimit => say(
            "an address that is not Exchange Online's stayed longer, or said more, than a stranger may before STARTTLS",
            Some("whoever connected, or exchange_online.networks"),
            &format!(
                "nothing, if it was not Exchange Online; else {}",
                trust::RENEW_NETWORKS
            ),
        ),
        Rejection::IdleTooLong => say("the client said nothing for too long", CLIENT, LATER),
        Rejection::ShuttingDown => say("Gatepost is being stopped or restarted", NOBODY, LATER),
        Rejection::TooManyConnections => say(
            "more connections than max_connections of the listener, or than one address may have of them",
            OPERATOR,
            "nothing, unless it lasts; then raise max_connections, or find out who keeps them open",
        ),
        Rejection::ProxyNotTaken => say(
            "a PROXY header from an address that is no load balancer of the listener",
            OPERATOR,
            "add the balancer's address to proxy_protocol_from, if it is one",
        ),
        Rejection::ProxyRequired => say(
            "an address of proxy_protocol_from that began without PROXY header",
            OPERATOR,
            "let the balancer send one, or take its address out of proxy_protocol_from",
        ),
    }
}

fn of_syntax(fault: CommandFault) -> Told {
    let (meaning, advice) = match fault {
        CommandFault::Unknown => (
            "a command that SMTP does not have: mostly another protocol on this port",
            LOOK,
        ),
        CommandFault::Arguments => ("a command that is not written as RFC 5321 has it", LOOK),
        CommandFault::Sender => (
            "the address in MAIL FROM is not written as one",
            "give the sender an address of the form name@domain",
        ),
        CommandFault::Recipient => (
            "the address in RCPT TO is not written as one",
            "write the recipient as name@domain",
        ),
        CommandFault::Parameter => (
            "a parameter of MAIL or RCPT that Gatepost does not know, or does not offer to this client",
            "let the client use what the answer to EHLO offers; ehlo_discard hides some of it",
        ),
    };
    Told {
        meaning: meaning.to_owned(),
        whose: CLIENT,
        advice: advice.to_owned(),
    }
}

fn of_trust(reason: Reason) -> Told {
    let whose = match reason {
        Reason::Stranger => Some("whoever connected, or Gatepost's configuration"),
        Reason::HalfProvenDefer | Reason::HalfProvenRefuse => {
            Some("Gatepost's configuration, or whoever connected")
        }
        Reason::UnknownXoorg
        | Reason::NoTenant
        | Reason::TooFewProofs
        | Reason::Contradiction
        | Reason::AmbiguousEvidence
        | Reason::SecretMissing
        | Reason::Loop => TENANT,
        Reason::ForeignEnvelopeSender | Reason::ForeignHeaderSender => {
            Some("the sender, or accepted_domains of the tenant")
        }
        Reason::SenderNotAllowed
        | Reason::FromNotAllowed
        | Reason::FromAbsent
        | Reason::FromDuplicate
        | Reason::FromUnreadable => APPLICATION,
        Reason::SignatureUnavailable => Some("the name servers"),
    };
    let meaning = match reason {
        Reason::SenderNotAllowed => format!(
            "{}: it is not in `senders` of its [[application]]",
            reason.describe()
        ),
        Reason::FromNotAllowed => format!(
            "{}: an address there is not in `senders` of its [[application]]",
            reason.describe()
        ),
        // One wording stands for both.
        Reason::UnknownXoorg | Reason::NoTenant => Reason::NoTenant.describe().to_owned(),
        reason => reason.describe().to_owned(),
    };
    Told {
        meaning,
        whose,
        advice: trust::advice(reason, &Evidence::default()).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialogue::said;

    const ID: &str = "1M89EJVQ8XBM5";

    fn explain(text: &str) -> Option<Explanation> {
        explained(&said(text.as_bytes()).unwrap())
    }

    #[test]
    fn every_refusal_is_recognised_as_it_goes_over_the_wire() {
        let mut meanings = std::collections::BTreeSet::new();
        let mut count = 0;
        for host in ["smarthost.contoso.com", "smarthost"] {
            for own in Rejection::every() {
                let reply = own.reply(&host.parse().unwrap(), ID.parse().unwrap());
                let mut wire = Vec::new();
                reply.write_to(&mut wire);
                let wire = String::from_utf8(wire).unwrap();
                for text in [
                    wire.clone(),
                    format!("host {host}[192.0.2.1] said: {wire} (in reply to MAIL FROM command)"),
                    format!("Diagnostic-Code: smtp; {}", wire.replace(": ", ":\r\n  ")),
                    format!("Remote Server returned '{}'", wire.trim_end()),
                ] {
                    let told = explain(&text).unwrap_or_else(|| panic!("{own:?}: {text}"));
                    assert_eq!(told.known, Known::Refusals, "{text}");
                    assert_eq!(told.reply.code, own.status().0);
                    assert!(told.advice.contains(&format!("gatepost trace {ID}")));
                    assert!(
                        told.meaning.len() > 10 && told.advice.len() > 40,
                        "{told:?}"
                    );
                    assert_eq!(told.is_bad_news(), told.reply.code >= 500);
                }
                meanings.insert(explain(&wire).unwrap().meaning);
                count += 1;
            }
        }
        assert!(
            meanings.len() * 2 >= count - 6,
            "{} of {count}",
            meanings.len()
        );
    }

    #[test]
    fn what_ends_as_it_comes_is_told_with_its_end() {
        let held = explain(&format!(
            "451 4.4.0 smarthost.contoso.com Inbound connector of this tenant is held: 550 5.7.64 TenantAttribution {ID}"
        ));
        let held = held.unwrap();
        assert!(
            held.meaning.contains("(550 5.7.64 TenantAttribution)"),
            "{}",
            held.meaning
        );
        let order = explain(&format!(
            "503 5.5.1 smarthost.contoso.com Bad sequence of commands: EHLO first {ID}"
        ));
        let order = order.unwrap();
        assert!(order.meaning.contains("(EHLO first)"), "{}", order.meaning);
    }

    #[test]
    fn a_stranger_s_words_are_none_of_ours() {
        for text in [
            format!("550 5.7.1 mx.example Access denied {ID}"),
            format!("550 5.7.1 Unable to relay: no route for this recipient {ID}"),
            "550 5.7.1 mx.example Unable to relay: no route for this recipient".to_owned(),
            format!("554 5.7.1 mx.example Unable to relay: no route for this recipient {ID}"),
            format!("550 5.7.2 mx.example Unable to relay: no route for this recipient {ID}"),
        ] {
            assert!(explain(&text).is_none(), "{text}");
        }
    }
}
