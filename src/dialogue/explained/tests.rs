use super::super::said::said;
use super::refusal::speaks_of_our_tenant;
use super::*;
use crate::dialogue::outcome::Answer;
use Outcome::{Deferred, Failed, Held};
use Pace::{AtOnce, BackOff, Hourly, Law};

fn of(text: &str, next_hop: NextHop) -> Explanation {
    let said = said(text.as_bytes()).unwrap_or_else(|| panic!("nothing in {text:?}"));
    explain(&said, Some(next_hop), None).unwrap()
}

const NOW: Alarm = Alarm::AtOnce;
const NEVER: Alarm = Alarm::Never;
const RETRY: Outcome = Deferred(Law);
const PAUSE: Outcome = Deferred(BackOff);
const CONNECTOR: Outcome = Held(Reach::Tenant);
const RECIPIENT: Outcome = Held(Reach::Recipient);

/// Every reply and range of exchange-online.md section 7: first and last code, a text where the text decides, what is done,
/// when the administrator hears of it.
const SECTION_7: &[(&str, &str, &str, Outcome, Alarm)] = &[
    // draining, dropped, busy
    ("421 4.3.2", "421 4.4.2", "", RETRY, NEVER),
    ("ConnectionReset", "421 4.4.2", "", RETRY, NEVER),
    ("421 4.7.66", "421 4.7.66", "", CONNECTOR, NOW),
    (
        "432 4.3.2",
        "432 4.3.2",
        "STOREDRV.Deliver; recipient thread limit exceeded",
        RETRY,
        NEVER,
    ),
    ("451 4.3.1", "452 4.3.1", "", PAUSE, NEVER),
    // routing and the wrong door
    ("450 4.4.0", "451 4.4.4", "ATTR5", RETRY, Alarm::AfterAnHour),
    ("450 4.4.63", "451 4.4.315", "x", RETRY, Alarm::AfterAnHour),
    ("450 4.4.318", "451 4.4.999", "x", RETRY, Alarm::AfterAnHour),
    ("451 4.4.62", "451 4.4.62", "ATTR35", CONNECTOR, NOW),
    (
        "450 4.4.316",
        "450 4.4.316",
        "Connection refused",
        CONNECTOR,
        NOW,
    ),
    ("450 4.4.317", "450 4.4.317", "", CONNECTOR, NOW),
    ("450 4.4.8", "450 4.4.8", "", CONNECTOR, NOW),
    ("452 4.5.3", "452 4.5.3", "", Deferred(AtOnce), NEVER),
    ("451 4.7.0", "451 4.7.0", "PRX2", RETRY, NEVER),
    ("450 4.7.26", "450 4.7.26", "", RETRY, NEVER),
    ("450 4.7.230", "550 5.7.230", "", CONNECTOR, NOW),
    ("450 4.7.321", "450 4.7.325", "", CONNECTOR, NOW),
    ("550 5.7.321", "550 5.7.325", "", CONNECTOR, NOW),
    ("450 4.7.5", "550 5.7.5", "", CONNECTOR, NOW),
    ("450 4.4.8", "550 5.4.8", "", CONNECTOR, NOW),
    // throttles
    ("451 4.7.500", "451 4.7.649", "AS77712", PAUSE, NOW),
    ("451 4.7.652", "451 4.7.699", "", PAUSE, NOW),
    ("451 4.7.650", "451 4.7.651", "S775", PAUSE, NEVER),
    ("451 4.7.850", "451 4.7.899", "", PAUSE, NOW),
    ("421 4.7.28", "450 4.7.28", "", PAUSE, NEVER),
    // sender, recipient, size
    ("550 5.0.350", "554 5.0.350", "", Failed, NEVER),
    ("550 5.1.0", "550 5.1.0", "", Failed, NEVER),
    ("550 5.1.1", "550 5.1.1", "", Failed, NEVER),
    ("550 5.1.10", "550 5.1.10", "", Failed, NEVER),
    (
        "550 5.4.1",
        "550 5.4.1",
        "Recipient address rejected: Access denied",
        Failed,
        NEVER,
    ),
    ("550 5.1.8", "550 5.1.8", "", Failed, NOW),
    ("550 5.1.20", "550 5.1.20", "", Failed, NEVER),
    ("550 5.1.90", "550 5.1.90", "", Failed, NOW),
    ("550 5.2.2", "554 5.2.2", "", Deferred(Hourly), NOW),
    ("552 5.2.2", "554 5.2.2", "mailbox full", Failed, NEVER),
    ("550 5.2.121", "550 5.2.122", "", Deferred(Hourly), NEVER),
    ("550 5.2.3", "552 5.3.4", "", Failed, NEVER),
    ("552", "552", "", Failed, NEVER),
    ("550 5.3.190", "550 5.3.190", "", Failed, NOW),
    (
        "550 5.4.1",
        "554 5.4.1",
        "Relay access denied",
        CONNECTOR,
        NOW,
    ),
    ("554 5.4.6", "554 5.4.14", "", Failed, NOW),
    ("550 5.4.300", "550 5.4.300", "", Failed, NEVER),
    ("550 5.4.310", "550 5.4.317", "", Failed, NEVER),
    ("550 5.5.0", "550 5.5.0", "", Failed, NEVER),
    ("501 5.5.2", "501 5.5.4", "", Failed, NOW),
    ("554 5.6.0", "550 5.6.11", "", Failed, NEVER),
    (
        "550 5.7.1",
        "550 5.7.1",
        "Message not permitted",
        Failed,
        NEVER,
    ),
    ("550 5.7.1", "550 5.7.1", "Unable to relay", CONNECTOR, NOW),
    (
        "550 5.7.1",
        "530 5.7.1",
        "Client was not authenticated",
        Failed,
        NEVER,
    ),
    // promotion
    ("550 5.7.12", "550 5.7.13", "", RECIPIENT, NOW),
    ("550 5.7.133", "550 5.7.136", "", RECIPIENT, NOW),
    ("550 5.7.124", "550 5.7.129", "", Failed, NEVER),
    ("550 5.7.193", "550 5.7.193", "", Failed, NEVER),
    ("550 5.7.128", "550 5.7.128", "", Failed, NOW),
    // attribution
    ("550 5.7.23", "550 5.7.23", "", CONNECTOR, NOW),
    ("550 5.7.25", "550 5.7.25", "", CONNECTOR, NOW),
    ("550 5.7.508", "550 5.7.508", "", CONNECTOR, NOW),
    ("550 5.7.510", "550 5.7.510", "", CONNECTOR, NOW),
    ("550 5.7.30", "550 5.7.30", "", Failed, NOW),
    (
        "550 5.7.51",
        "550 5.7.51",
        "TenantInboundAttribution",
        CONNECTOR,
        NOW,
    ),
    ("530 5.7.57", "550 5.7.60", "", Failed, NOW),
    ("554 5.2.252", "554 5.2.252", "", Failed, NOW),
    (
        "550 5.7.64",
        "550 5.7.64",
        "TenantAttribution; Relay Access Denied [ATTR36]",
        CONNECTOR,
        NOW,
    ),
    (
        "550 5.7.68",
        "550 5.7.68",
        "TenantInboundAttribution",
        CONNECTOR,
        NOW,
    ),
    // limits and standing
    ("550 5.7.232", "550 5.7.233", "", Deferred(Hourly), NOW),
    ("550 5.7.236", "550 5.7.236", "", Failed, NOW),
    ("550 5.7.501", "550 5.7.503", "", Failed, NOW),
    ("550 5.7.504", "550 5.7.505", "", Failed, NEVER),
    ("554 5.7.506", "554 5.7.506", "", CONNECTOR, NOW),
    ("550 5.7.507", "550 5.7.507", "", Failed, NOW),
    ("550 5.7.513", "550 5.7.513", "", Failed, NOW),
    ("550 5.7.509", "550 5.7.509", "", Failed, NOW),
    ("550 5.7.511", "550 5.7.511", "", CONNECTOR, NOW),
    ("550 5.7.606", "550 5.7.649", "", CONNECTOR, NOW),
    ("550 5.7.512", "550 5.7.512", "", Failed, NEVER),
    ("550 5.7.515", "550 5.7.515", "", Failed, NOW),
    ("550 5.7.703", "550 5.7.703", "", Failed, NEVER),
    ("550 5.7.705", "550 5.7.708", "", CONNECTOR, NOW),
    ("550 5.7.750", "550 5.7.750", "", CONNECTOR, NOW),
    ("550 5.7.800", "550 5.7.800", "", CONNECTOR, NOW),
];

#[test]
fn every_reply_of_section_7_is_known_with_the_right_act() {
    let mut wrong = Vec::new();
    for (first, last, text, outcome, alarm) in SECTION_7 {
        for code in [first, last] {
            let said = format!("{code} {text}");
            let told = of(said.trim(), NextHop::Exchange);
            let found = (told.known, told.outcome, told.alarm);
            if found != (Known::Table, *outcome, *alarm) {
                wrong.push(format!("{said}: {found:?}, {}", told.meaning));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let count = SECTION_7.len();
    assert!(count > 70, "{count}");
}

/// Where a range of the table has different codes within, its middle is one of them, and nothing beyond is.
#[test]
fn ranges_hold_what_lies_between_and_nothing_beyond() {
    for (inside, known) in [
        ("451 4.7.600 x", true),
        ("451 4.7.700 x", false),
        ("451 4.7.499 x", false),
        ("450 4.7.323 x", true),
        ("450 4.7.326 x", false),
        ("550 5.7.620 x", true),
        ("550 5.7.605 x", false),
        ("550 5.7.650 x", false),
        ("550 5.4.313 x", true),
        ("550 5.7.137 x", false),
        ("550 5.7.14 x", false),
        ("451 4.7.875 x", true),
        ("451 4.7.900 x", false),
        // What a tenant's own rules may choose from (New-TransportRule -RejectMessageEnhancedStatusCode).
        ("550 5.7.900 x", true),
        ("550 5.7.999 x", true),
        ("550 5.7.899 x", false),
    ] {
        let told = of(inside, NextHop::Exchange);
        assert_eq!(told.known == Known::Table, known, "{inside}");
    }
}

#[test]
fn what_the_table_does_not_know_is_read_by_class_subject_and_detail() {
    let told = |text| {
        let told = of(text, NextHop::Exchange);
        format!(
            "{} | {} | {:?} | {}",
            told.meaning,
            told.whose.unwrap_or("-"),
            told.outcome,
            told.known
        )
    };
    insta::assert_snapshot!(
        [
            told("550 5.2.1 x"),
            told("450 4.2.1 x"),
            told("550 5.7.27 x"),
            told("550 5.7.899 x"),
            told("550 5.9.1 x"),
            told("450 x"),
            told("550"),
            told("599 x"),
        ].join("\n"),
        @r"
    the mailbox is switched off (never in this form) | recipient | Failed | RFC 3463 and its registry: the table does not know it
    the mailbox is switched off (not now: it may be tried again as it is) | recipient | Deferred(Law) | RFC 3463 and its registry: the table does not know it
    the sender's domain says that it takes no mail (null MX) (never in this form) | sender | Failed | RFC 3463 and its registry: the table does not know it
    about policy and security, detail 899 that no registry knows (never in this form) | sender | Failed | RFC 3463 and its registry: the table does not know it
    about a subject (9) that no registry knows (never in this form) | Exchange Online | Failed | RFC 3463 and its registry: the table does not know it
    the mailbox is not to be had now (not now: it may be tried again as it is) | Exchange Online | Deferred(Law) | RFC 5321, the reply code alone: the table does not know it
    the mailbox is not to be had, or policy refuses the mail (never in this form) | Exchange Online | Failed | RFC 5321, the reply code alone: the table does not know it
    a code that no standard knows (never in this form) | Exchange Online | Failed | RFC 5321, the reply code alone: the table does not know it
    "
    );
}

#[test]
fn a_rule_of_the_recipient_s_organisation_is_told_on_every_path() {
    for next_hop in [NextHop::Exchange, NextHop::Mx, NextHop::Relay] {
        let told = of("550 5.7.950 Not to this mailbox", next_hop);
        assert_eq!(
            (told.known, told.outcome, told.alarm),
            (Known::Table, Failed, NEVER)
        );
        assert!(
            told.meaning.contains("a mail flow rule"),
            "{}",
            told.meaning
        );
        assert_eq!(told.whose, Some("recipient"));
    }
}

#[test]
fn the_law_differs_by_path() {
    let relay_denied = "550 5.7.64 TenantAttribution; Relay Access Denied";
    assert_eq!(of(relay_denied, NextHop::Exchange).outcome, CONNECTOR);
    let outside = of(relay_denied, NextHop::Mx);
    assert_eq!((outside.outcome, outside.known), (Failed, Known::Registry));
    // What a stranger's Exchange says of its recipient is worth telling.
    let user = of("550 5.1.10 RESOLVER.ADR.RecipientNotFound", NextHop::Mx);
    assert_eq!((user.outcome, user.known), (Failed, Known::Table));
    assert!(user.meaning.contains("null MX") && user.meaning.contains("from Exchange Online"));
    let group = of("550 5.7.133 x", NextHop::Relay);
    assert_eq!((group.outcome, group.known), (Failed, Known::Registry));
    let login = of("530 5.7.0 Authentication required", NextHop::Relay);
    assert_eq!((login.outcome, login.alarm), (PAUSE, NOW));
    assert!(login.advice.contains("[[relay]]"), "{}", login.advice);
    assert_eq!(
        of("421 4.7.0 slow down", NextHop::Mx).does,
        "retried; the queue of this next hop pauses, by the steps of its `retry`, at most an hour each time"
    );
}

#[test]
fn the_phase_comes_from_the_question_then_from_the_text() {
    let said = said(b"554 go away (to connection)").unwrap();
    let told = explain(&said, Some(NextHop::Mx), None).unwrap();
    assert_eq!((told.outcome, told.notes.len()), (Failed, 0));
    let told = explain(&said, Some(NextHop::Exchange), None).unwrap();
    assert_eq!(
        (told.outcome, told.alarm),
        (RETRY, NOW),
        "not about a message"
    );
    let told = explain(&said, Some(NextHop::Exchange), Some(Phase::End)).unwrap();
    assert_eq!(told.outcome, Failed);
}

#[test]
fn acceptance_is_explained_and_steps_are_none() {
    let told = of(
        "250 2.6.0 <a@b> [InternalId=3, Hostname=AM8PR05MB0002.eurprd05.prod.outlook.com] 7 bytes Queued mail for delivery",
        NextHop::Exchange,
    );
    assert!(!told.is_bad_news() && told.whose.is_none());
    assert!(told.advice.contains("InternalId"), "{}", told.advice);
    assert_eq!(of("250 ok", NextHop::Mx).outcome, Outcome::Delivered);
    let step = said(b"354 Start mail input").unwrap();
    let problem = explain(&step, Some(NextHop::Mx), None)
        .unwrap_err()
        .to_string();
    assert!(problem.starts_with("354 is a step"), "{problem}");
}

#[test]
fn bad_news_is_what_is_lost_held_or_told_an_administrator() {
    for (text, bad) in [
        ("451 4.7.0 later", false),
        ("452 4.5.3 Too many recipients", false),
        ("550 5.1.1 x", true),
        ("550 5.7.64 x", true),
        ("550 5.7.133 x", true),
        ("451 4.7.500 x", true),
    ] {
        assert_eq!(of(text, NextHop::Exchange).is_bad_news(), bad, "{text}");
    }
}

#[test]
fn a_refusal_of_our_own_is_nobodys_connector() {
    for (text, outcome) in [
        (
            "550 5.7.1 smarthost.contoso.com Unable to relay: no route for this recipient 1M89EJVQ8XBM5",
            Failed,
        ),
        (
            "550 5.7.64 smarthost.contoso.com TenantAttribution; no tenant 1M89EJVQ8XBM5",
            Failed,
        ),
        (
            "451 4.4.0 smarthost.contoso.com Held: 5.7.64 1M89EJVQ8XBM5",
            RETRY,
        ),
        (
            "host smarthost.contoso.com[192.0.2.1] said: 550 5.7.1 smarthost.contoso.com Not allowed 1M89EJVQ8XBM5 (in reply to MAIL FROM command)",
            Failed,
        ),
    ] {
        let told = explain(&said(text.as_bytes()).unwrap(), None, None).unwrap();
        assert_eq!(
            (told.known, told.outcome, told.alarm),
            (Known::Own, outcome, NEVER),
            "{text}"
        );
        assert!(
            told.advice.contains("gatepost trace 1M89EJVQ8XBM5"),
            "{}",
            told.advice
        );
        // Of whom it is said that a next hop gave it, that way's law is told.
        for next_hop in [NextHop::Exchange, NextHop::Mx, NextHop::Relay] {
            assert_ne!(of(text, next_hop).known, Known::Own, "{text}");
        }
    }
    // A stranger's words around an id, or a host name without one, are no refusal of ours.
    for text in [
        "550 5.7.64 TenantAttribution; Relay Access Denied 1M89EJVQ8XBM5",
        "550 5.7.1 smarthost.contoso.com Unable to relay",
        "550 5.1.1 unknown 1M89EJVQ8XBM5",
    ] {
        let told = explain(&said(text.as_bytes()).unwrap(), None, None).unwrap();
        assert_ne!(told.known, Known::Own, "{text}");
    }
}

fn at(text: &str, next_hop: NextHop, phase: Phase) -> Explanation {
    let said = said(text.as_bytes()).unwrap();
    explain(&said, Some(next_hop), Some(phase)).unwrap()
}

#[test]
fn a_step_that_one_code_alone_grants_is_refused_by_any_other() {
    for text in ["250 2.0.0 ok", "334 x"] {
        let login = at(text, NextHop::Relay, Phase::Login);
        assert_eq!((login.outcome, login.alarm), (PAUSE, NOW), "{text}");
        assert!(login.meaning.contains("235"), "{}", login.meaning);
        assert_eq!(
            login.reply.code.to_string(),
            text.split(' ').next().unwrap()
        );
        let tls = at(text, NextHop::Exchange, Phase::StartTls);
        assert_eq!((tls.outcome, tls.known), (CONNECTOR, Known::Law), "{text}");
    }
    assert_eq!(
        at("220 x", NextHop::Exchange, Phase::StartTls).outcome,
        Outcome::Delivered
    );
    assert_eq!(
        at("235 x", NextHop::Relay, Phase::Login).outcome,
        Outcome::Delivered
    );
}

#[test]
fn a_refused_ehlo_is_followed_by_helo_where_servers_may_be_old() {
    for next_hop in [NextHop::Mx, NextHop::Relay] {
        let told = at("502 5.5.1 Command not implemented", next_hop, Phase::Hello);
        assert!(told.does.starts_with("goes on with HELO"), "{}", told.does);
        assert!(!told.is_bad_news());
        let busy = at("421 4.3.2 x", next_hop, Phase::Hello);
        assert!(busy.outcome == PAUSE && !busy.does.contains("HELO"));
    }
    let told = at("502 5.5.9 x", NextHop::Exchange, Phase::Hello);
    assert_eq!((told.outcome, told.alarm), (RETRY, NOW));
}

#[test]
fn before_mail_nothing_is_about_a_message() {
    for text in [
        "554 5.7.1 client host blocked",
        "550 5.1.1 x",
        "550 5.2.1 x",
        "550 5.6.0 x",
        "454 4.7.1 x",
        "450 4.2.1 x",
    ] {
        for next_hop in WAYS {
            let told = at(text, next_hop, Phase::Greeting);
            for word in ["recipient", "mailbox", "sender", "message is", "content"] {
                assert!(!told.meaning.contains(word), "{text}: {}", told.meaning);
            }
            assert_ne!(told.whose, Some("recipient"), "{text}");
        }
    }
    // What is about the machine is told.
    let room = at("452 4.3.1 x", NextHop::Mx, Phase::Greeting);
    assert!(room.meaning.contains("no room"), "{}", room.meaning);
    let none = at("554 no mail", NextHop::Mx, Phase::Greeting);
    assert!(none.outcome == Failed && none.meaning.contains("no mail at all"));
}

#[test]
fn what_was_given_up_is_not_waited_for() {
    for text in [
        "550 5.4.1 Relay access denied",
        "554 5.4.6 x",
        "554 5.4.14 x",
        "550 5.4.8 x",
        "554 5.3.5 x",
        "550 5.7.1 Relay access denied",
    ] {
        for next_hop in [NextHop::Mx, NextHop::Relay] {
            let told = of(text, next_hop);
            assert_eq!(told.outcome, Failed, "{text}");
            assert!(
                !told.advice.starts_with("nothing"),
                "{text}: {}",
                told.advice
            );
        }
    }
    assert!(
        of("451 4.4.1 x", NextHop::Mx)
            .advice
            .starts_with("nothing, unless")
    );
    let listed =
        "554 5.7.1 Service unavailable; Client host [192.0.2.1] blocked using zen.spamhaus.org";
    let told = of(listed, NextHop::Mx);
    assert!(
        told.meaning
            .starts_with("the address of this host stands on a block list")
    );
    assert!(told.advice.contains("removal"));
    let old = of("552 too many recipients", NextHop::Mx);
    assert_eq!(old.outcome, Deferred(AtOnce));
    assert!(
        old.meaning.contains("more recipients than one"),
        "{}",
        old.meaning
    );
    let relay = at("550 5.7.30 x", NextHop::Relay, Phase::Login);
    assert!(!relay.advice.contains("username"), "{}", relay.advice);
}

const WAYS: [NextHop; 3] = [NextHop::Exchange, NextHop::Mx, NextHop::Relay];

#[test]
fn a_refused_starttls_is_what_delivery_makes_of_it() {
    for text in [
        "502 5.5.1 Command not implemented",
        "554 5.7.1 x",
        "550 5.7.64 x",
        "501 x",
    ] {
        let reply = of(text, NextHop::Exchange).reply;
        for next_hop in [NextHop::Exchange, NextHop::Relay] {
            let judged = Answer::starttls_refused(reply.clone()).judge(next_hop);
            assert!(judged.reply.starts_with("TLS: STARTTLS refused: 5"));
            let told = at(text, next_hop, Phase::StartTls);
            assert_eq!(
                (told.outcome, told.alarm),
                (judged.outcome, judged.alarm),
                "{text}"
            );
            assert!(told.meaning.contains("STARTTLS"), "{}", told.meaning);
            assert_eq!(told.whose, Some("operator of this host"));
            // The line of the trace says the phase.
            let line = of(&judged.reply, next_hop);
            assert_eq!(
                (line.outcome, line.meaning, line.notes.len()),
                (told.outcome, told.meaning, 0)
            );
        }
        assert_eq!(
            at(text, NextHop::Exchange, Phase::StartTls).outcome,
            CONNECTOR
        );
        let mx = at(text, NextHop::Mx, Phase::StartTls);
        assert!(mx.does.contains("without TLS") && !mx.is_bad_news());
    }
    let later = at("454 4.7.0 not now", NextHop::Exchange, Phase::StartTls);
    assert_eq!(later.outcome, RETRY);
    assert_eq!(
        at("421 4.3.2 x", NextHop::Mx, Phase::StartTls).outcome,
        PAUSE
    );
}

#[test]
fn a_refused_login_at_a_relay_is_its_operator_s() {
    for text in [
        "login: the next hop refuses it: 535 5.7.8 Error: authentication failed",
        "login: 535 5.7.8 Error: authentication failed",
        "2026-11-29T08:15:31Z 1M89EJVQ8XBM5 deferred: login: the next hop refuses it: 535 5.7.8 x",
        "535 5.7.8 x",
        "535 x",
    ] {
        let told = of(text, NextHop::Relay);
        assert_eq!((told.outcome, told.alarm), (PAUSE, NOW), "{text}");
        assert_eq!(told.whose, Some("operator of this host"), "{text}");
        assert_eq!(told.advice, "set username and password of the [[relay]]");
        assert!(
            told.meaning.ends_with("user name or password are wrong"),
            "{}",
            told.meaning
        );
        assert!(!told.notes.iter().any(|note| note.contains("RCPT")));
    }
    for text in [
        "login: 454 4.7.0 not now",
        "deferred: login: 454 4.7.0 not now",
    ] {
        let busy = of(text, NextHop::Relay);
        assert_eq!(
            (busy.outcome, busy.whose),
            (PAUSE, Some("the relay, or what is behind it"))
        );
    }
}

#[test]
fn a_login_at_exchange_is_none_of_gatepost_s() {
    let text = "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant. Visit https://aka.ms/smtp_auth_disabled for more information.";
    let told = of(text, NextHop::Exchange);
    assert!(told.is_bad_news() && told.known == Known::Table);
    assert!(
        told.meaning.starts_with("SMTP AUTH is switched off"),
        "{}",
        told.meaning
    );
    assert!(told.does.starts_with("nothing: ") && told.whose == Some("tenant"));
    assert!(
        told.advice.contains("log in at Gatepost"),
        "{}",
        told.advice
    );
    let relay = of(text, NextHop::Relay);
    assert_eq!((relay.outcome, relay.alarm), (PAUSE, NOW));
    assert!(relay.meaning.contains("SMTP AUTH is switched off"));
    // Another detail beside 535 says less than 535 itself.
    let plain = of("535 5.7.3 Authentication unsuccessful", NextHop::Exchange);
    assert!(plain.meaning.starts_with("user name or password are wrong"));
    assert!(plain.is_bad_news());
}

#[test]
fn never_stands_beside_nothing_that_is_tried_again() {
    for entry in ["502 5.5.9 x", "550 5.7.8 x", "554 x", "535 5.7.8 x"] {
        for next_hop in WAYS {
            for phase in [Phase::Greeting, Phase::Hello, Phase::StartTls, Phase::Login] {
                let told = at(entry, next_hop, phase);
                let never = told.meaning.contains("never in this form");
                assert!(!never || told.outcome == Failed, "{told:?}");
            }
        }
    }
}

#[test]
fn a_stranger_s_reply_is_no_reason_to_touch_our_tenant() {
    let rows = super::super::reply_table::samples().chain([
        "552 5.2.2 over quota",
        "552 5.2.2 x",
        "554 5.7.1 x",
        "550 x",
        "552 too large",
    ]);
    for text in rows {
        for next_hop in [NextHop::Mx, NextHop::Relay] {
            for phase in [
                Phase::Greeting,
                Phase::Hello,
                Phase::StartTls,
                Phase::Mail,
                Phase::Recipient,
                Phase::End,
            ] {
                let told = at(text, next_hop, phase);
                assert!(
                    !speaks_of_our_tenant(&told.advice),
                    "{text}: {}",
                    told.advice
                );
                assert!(
                    told.whose != Some("tenant") && told.whose != Some("connector or certificate"),
                    "{text}: {told:?}"
                );
            }
        }
    }
}

#[test]
fn nobody_is_told_of_what_is_not_given_up() {
    for text in super::super::reply_table::samples() {
        for next_hop in [NextHop::Mx, NextHop::Relay] {
            for phase in [Phase::Greeting, Phase::Hello, Phase::Mail, Phase::Recipient] {
                let told = at(text, next_hop, phase);
                let says = told.advice.contains("the sender is told");
                assert!(
                    !says || told.outcome == Failed,
                    "{text}, {phase:?}: {told:?}"
                );
            }
        }
    }
}

#[test]
fn a_full_mailbox_is_its_owner_s() {
    for next_hop in WAYS {
        for text in [
            "554 5.2.2 mailbox full; STOREDRV.Deliver.Exception:QuotaExceededException.MapiExceptionShutoffQuotaExceeded",
            "552 5.2.2 over quota",
        ] {
            let told = of(text, next_hop);
            assert_eq!((told.outcome, told.whose), (Failed, Some("recipient")));
            assert!(told.meaning.starts_with("the mailbox is full"), "{told:?}");
        }
    }
    let bare = of("552 5.2.2 x", NextHop::Mx);
    assert!(bare.meaning.starts_with("the mailbox is full"), "{bare:?}");
    let quota = of("550 5.2.2 Submission quota exceeded", NextHop::Exchange);
    assert_eq!(quota.whose, Some("sender"));
    let policy = of(
        "552 5.7.0 This message was blocked because its content presents a potential security issue",
        NextHop::Mx,
    );
    assert!(
        !policy.meaning.contains("large") && !policy.advice.contains("size"),
        "{policy:?}"
    );
}

#[test]
fn a_connect_that_is_refused_is_no_fault_of_the_chain() {
    let told = of("450 4.4.316 Connection refused", NextHop::Exchange);
    assert!(
        told.advice.contains("port 25") && told.advice.contains("firewall"),
        "{}",
        told.advice
    );
    assert!(!told.advice.contains("chain") && !told.meaning.contains("chain"));
    let silent = of("450 4.4.315 Connection timed out", NextHop::Exchange);
    assert!(silent.advice.contains("port 25") && silent.known == Known::Table);
    let chain = of("450 4.4.317 UntrustedRoot", NextHop::Exchange);
    assert!(chain.advice.contains("chain"), "{}", chain.advice);
}

#[test]
fn restricted_recipients_and_endpoints_for_logins_are_told_apart() {
    let group = of(
        "550 5.7.1 RESOLVER.RST.AuthRequired; authentication required",
        NextHop::Exchange,
    );
    assert!(group.advice.contains("CloudServicesMailEnabled") && group.outcome == Failed);
    let door = of("530 5.7.1 Client was not authenticated", NextHop::Exchange);
    assert!(door.advice.contains("port 25") && door.outcome == Failed);
    let stranger = of("550 5.7.1 RESOLVER.RST.AuthRequired", NextHop::Mx);
    assert!(!stranger.meaning.contains("promotion"), "{stranger:?}");
    assert_eq!(stranger.whose, Some("recipient"));
}

#[test]
fn greylisting_passes_by_itself() {
    for text in [
        "451 4.7.1 greylisted",
        "450 4.2.0 <x@y.example>: Recipient address rejected: Greylisted",
        "451 Greylisting in effect",
    ] {
        let told = of(text, NextHop::Mx);
        assert_eq!((told.outcome, told.whose), (RETRY, Some("the other side")));
        assert!(told.meaning.starts_with("greylisting"), "{told:?}");
        assert!(told.advice.starts_with("nothing"), "{told:?}");
    }
    let policy = of("450 4.7.1 not now", NextHop::Mx);
    assert_eq!(policy.whose, Some("the other side"));
    // What names a reason stays with whoever can mend it.
    for (text, whose) in [
        ("550 5.7.27 x", "sender"),
        ("421 4.7.26 x", "operator of this host"),
        (
            "450 4.7.25 cannot find your hostname",
            "operator of this host",
        ),
        (
            "450 4.1.8 Sender address rejected: Domain not found",
            "sender",
        ),
        ("451 4.7.500 Server busy", "the other side"),
    ] {
        assert_eq!(of(text, NextHop::Mx).whose, Some(whose), "{text}");
    }
}
