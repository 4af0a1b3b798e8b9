use super::*;
use crate::mail::{Envelope, Recipient};
use crate::smtp::data::ContentFacts;
use crate::smtp::sasl::Login;
use proptest::prelude::*;

const GREETING: &str = "220 AMS.mail.protection.outlook.com Microsoft ESMTP MAIL Service ready\r\n";
const PLAIN: &str = "250-ams Hello [192.0.2.1]\r\n250-SIZE 157286400\r\n250 STARTTLS\r\n";
const SECURE: &str = "250-ams Hello\r\n250-SIZE 1000\r\n250-PIPELINING\r\n250-DSN\r\n250-8BITMIME\r\n250-CHUNKING\r\n250 SMTPUTF8\r\n";
const SPARSE: &str = "250 ams Hello\r\n";

fn envelope(count: usize) -> Envelope {
    Envelope {
        reverse_path: "a@contoso.com".parse().unwrap(),
        recipients: (0..count)
            .map(|n| Recipient {
                mailbox: format!("r{n}@contoso.com").parse().unwrap(),
                notify: None,
                orcpt: None,
            })
            .collect(),
        body: None,
        smtputf8: false,
        ret: None,
        envid: None,
        xoorg: None,
    }
}

/// Plays a dialogue: `script` is what the peer says each time it has been sent something; the log is what we did.
fn play(script: &[&str], recipients: usize, cut: Option<usize>) -> (String, Dialogue) {
    play_with(Manners::default(), script, recipients, cut)
}

fn play_with(
    manners: Manners,
    script: &[&str],
    recipients: usize,
    cut: Option<usize>,
) -> (String, Dialogue) {
    let mut dialogue = Dialogue::with("host.contoso.com", manners);
    let mut log = String::new();
    let mut script = script.iter();
    let envelope = envelope(recipients);
    let positions: Vec<usize> = (0..recipients).collect();
    let facts = ContentFacts {
        size: 5,
        ends_with_crlf: true,
        ..ContentFacts::default()
    };
    let request = Request {
        envelope: &envelope,
        recipients: &positions,
        facts: &facts,
        size: 5,
        utf8_header: false,
        xoorg: None,
    };
    let feed = |dialogue: &mut Dialogue, text: Option<&&str>| match text {
        Some(text) => {
            let cut = cut.map_or(text.len(), |cut| cut % (text.len() + 1));
            dialogue.handle(Input::Bytes(&text.as_bytes()[..cut]));
            if cut < text.len() {
                dialogue.handle(Input::Bytes(&text.as_bytes()[cut..]));
            }
        }
        None => dialogue.handle(Input::Closed),
    };
    if dialogue.manners.tls != Tls::FromTheStart {
        feed(&mut dialogue, script.next());
    }
    loop {
        let mut sent = false;
        while let Some(output) = dialogue.next_output() {
            match output {
                Output::Send(bytes) => {
                    sent = true;
                    for line in String::from_utf8(bytes).unwrap().lines() {
                        log.push_str(&format!("C: {line}\n"));
                    }
                }
                Output::StartTls => {
                    log.push_str("(TLS)\n");
                    dialogue.handle(Input::TlsDone);
                    sent |= dialogue.manners.tls == Tls::FromTheStart;
                }
                Output::Ready => {
                    log.push_str("(ready)\n");
                    dialogue.begin(&request);
                }
                Output::Content(transfer) => {
                    log.push_str(&format!("({transfer:?})\n"));
                    dialogue.handle(Input::ContentSent);
                    sent = true;
                }
                Output::Finished(mut results) => {
                    results.sort_by_key(|(position, _)| *position);
                    for (position, answer) in results {
                        log.push_str(&format!(
                            "{position}: {:?} {}\n",
                            answer.judge(NextHop::Exchange).outcome,
                            answer.summary()
                        ));
                    }
                    dialogue.quit();
                }
                Output::Failed(answer) => log.push_str(&format!(
                    "failed: {:?} {}\n",
                    answer.judge(NextHop::Exchange).outcome,
                    answer.summary()
                )),
                Output::Close => {
                    log.push_str("(close)\n");
                    return (log, dialogue);
                }
            }
        }
        if sent {
            feed(&mut dialogue, script.next());
        } else {
            // The peer said less than a whole reply, or nothing: the wait ends.
            dialogue.handle(Input::Deadline);
        }
    }
}

fn secure(rest: &[&'static str]) -> Vec<&'static str> {
    let mut script = vec![GREETING, PLAIN, "220 go\r\n", SECURE];
    script.extend_from_slice(rest);
    script
}

const OPENING: &str =
    "C: EHLO host.contoso.com\nC: STARTTLS\n(TLS)\nC: EHLO host.contoso.com\n(ready)\n";

#[track_caller]
fn expect(script: &[&str], recipients: usize, after_opening: &str) {
    let (log, _) = play(script, recipients, None);
    let rest = log.strip_prefix(OPENING).unwrap_or_else(|| panic!("{log}"));
    assert_eq!(rest, after_opening, "\n{log}");
}

#[test]
fn mail_and_rcpts_leave_in_one_write_then_one_chunk() {
    expect(
        &secure(&[
            "250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n250 2.1.5 Ok\r\n",
            "250 2.6.0 <x> [InternalId=1] Queued mail for delivery\r\n",
            "221 2.0.0 Bye\r\n",
        ]),
        2,
        "C: MAIL FROM:<a@contoso.com> SIZE=5\n\
         C: RCPT TO:<r0@contoso.com>\n\
         C: RCPT TO:<r1@contoso.com>\n\
         C: BDAT 5 LAST\n\
         (Chunk)\n\
         0: Delivered 250 2.6.0 <x> [InternalId=1] Queued mail for delivery\n\
         1: Delivered 250 2.6.0 <x> [InternalId=1] Queued mail for delivery\n\
         C: QUIT\n\
         (close)\n",
    );
}

#[test]
fn without_pipelining_and_chunking_each_command_waits() {
    let script = [
        GREETING,
        PLAIN,
        "220 go\r\n",
        SPARSE,
        "250 ok\r\n",
        "250 ok\r\n",
        "550 5.1.1 no\r\n",
        "354 go\r\n",
        "250 ok\r\n",
        "221 bye\r\n",
    ];
    expect(
        &script,
        2,
        "C: MAIL FROM:<a@contoso.com>\n\
         C: RCPT TO:<r0@contoso.com>\n\
         C: RCPT TO:<r1@contoso.com>\n\
         C: DATA\n\
         (Dots)\n\
         0: Delivered 250 ok\n\
         1: Failed 550 5.1.1 no\n\
         C: QUIT\n\
         (close)\n",
    );
}

#[test]
fn without_an_accepted_recipient_no_content_is_sent() {
    expect(
        &secure(&[
            "250 ok\r\n550 5.1.1 no\r\n550 5.7.64 TenantAttribution\r\n",
            "250 reset\r\n",
            "221 bye\r\n",
        ]),
        2,
        "C: MAIL FROM:<a@contoso.com> SIZE=5\n\
         C: RCPT TO:<r0@contoso.com>\n\
         C: RCPT TO:<r1@contoso.com>\n\
         C: RSET\n\
         0: Failed 550 5.1.1 no\n\
         1: Held(Tenant) 550 5.7.64 TenantAttribution\n\
         C: QUIT\n\
         (close)\n",
    );
}

#[test]
fn a_refused_mail_answers_for_all_recipients() {
    expect(
        &secure(&[
            "451 4.7.500 Server busy\r\n503 5.5.1 no mail\r\n503 5.5.1 no mail\r\n",
            "221 bye\r\n",
        ]),
        2,
        "C: MAIL FROM:<a@contoso.com> SIZE=5\n\
         C: RCPT TO:<r0@contoso.com>\n\
         C: RCPT TO:<r1@contoso.com>\n\
         0: Deferred(BackOff) 451 4.7.500 Server busy\n\
         1: Deferred(BackOff) 451 4.7.500 Server busy\n\
         C: QUIT\n\
         (close)\n",
    );
}

#[test]
fn a_421_ends_the_connection_for_all_who_wait() {
    expect(
        &secure(&["250 ok\r\n550 5.1.1 no\r\n421 4.3.2 draining\r\n"]),
        3,
        "C: MAIL FROM:<a@contoso.com> SIZE=5\n\
         C: RCPT TO:<r0@contoso.com>\n\
         C: RCPT TO:<r1@contoso.com>\n\
         C: RCPT TO:<r2@contoso.com>\n\
         0: Failed 550 5.1.1 no\n\
         1: Deferred(Law) 421 4.3.2 draining\n\
         2: Deferred(Law) 421 4.3.2 draining\n\
         (close)\n",
    );
}

/// RFC 5321 §3.8: who says 421 closes, wherever in the transaction; nothing more is asked of it, not even QUIT.
#[test]
fn a_421_to_the_content_ends_the_connection_too() {
    let bye = "421 4.3.2 draining\r\n";
    let asked = "C: MAIL FROM:<a@contoso.com> SIZE=5\nC: RCPT TO:<r0@contoso.com>\n";
    let ended = "0: Deferred(Law) 421 4.3.2 draining\n(close)\n";
    expect(
        &secure(&["250 ok\r\n250 ok\r\n", bye]),
        1,
        &format!("{asked}C: BDAT 5 LAST\n(Chunk)\n{ended}"),
    );
    let by_data = |replies: &[&'static str]| {
        let mut script = vec![GREETING, PLAIN, "220 go\r\n", "250-a\r\n250 SIZE 1000\r\n"];
        script.extend(["250 ok\r\n", "250 ok\r\n"]);
        script.extend_from_slice(replies);
        script
    };
    expect(&by_data(&[bye]), 1, &format!("{asked}C: DATA\n{ended}"));
    expect(
        &by_data(&["354 go\r\n", bye]),
        1,
        &format!("{asked}C: DATA\n(Dots)\n{ended}"),
    );
}

/// Only a 2xx has taken the message (RFC 5321 §4.2.5); anything that is no answer to the end of content delivers nothing,
/// and what is left of such a conversation is not trusted with another message.
#[test]
fn a_reply_to_the_end_of_content_that_is_neither_yes_nor_no_is_no_delivery() {
    for odd in ["354 go on", "334 VXNlcm5hbWU6", "150 wait"] {
        let reply = format!("{odd}\r\n");
        let mut script = secure(&["250 ok\r\n250 ok\r\n"]);
        script.push(&reply);
        let (log, _) = play(&script, 1, None);
        let end = log.split_once("(Chunk)\n").unwrap().1;
        assert!(end.starts_with("0: Deferred(Law) "), "{odd}: {log}");
        assert!(
            end.ends_with("\n(close)\n") && !end.contains("QUIT"),
            "{odd}: {log}"
        );
    }
}

#[test]
fn a_lost_connection_defers_who_was_not_answered() {
    expect(
        &secure(&["250 ok\r\n550 5.1.1 no\r\n250 ok\r\n"]),
        2,
        "C: MAIL FROM:<a@contoso.com> SIZE=5\n\
         C: RCPT TO:<r0@contoso.com>\n\
         C: RCPT TO:<r1@contoso.com>\n\
         C: BDAT 5 LAST\n\
         (Chunk)\n\
         0: Failed 550 5.1.1 no\n\
         1: Deferred(Law) connection lost (after end of content)\n\
         (close)\n",
    );
}

#[test]
fn garbage_and_endless_replies_are_bounded() {
    let endless: &'static str = Box::leak("250-more\r\n".repeat(10_000).into_boxed_str());
    for (reply, why) in [
        ("hello\r\n", "malformed reply"),
        (endless, "reply too long"),
    ] {
        let (log, dialogue) = play(&secure(&[reply]), 1, None);
        assert!(
            log.contains(&format!("0: Deferred(Law) {why} (after MAIL)")),
            "{log}"
        );
        assert!(dialogue.input.len() <= 2 * reply::MAX_REPLY);
    }
}

#[test]
fn a_stall_ends_at_the_deadline() {
    let (log, _) = play(&secure(&["250 ok\r\n"]), 1, None);
    assert!(
        log.contains("0: Deferred(Law) no answer in time (after RCPT)"),
        "{log}"
    );
}

#[test]
fn clear_text_behind_starttls_drops_the_connection() {
    for cut in [None, Some(8), Some(9)] {
        let (log, _) = play(&[GREETING, PLAIN, "220 go\r\n250-evil\r\n"], 1, cut);
        assert!(!log.contains("(ready)"), "{log}");
        if cut.is_none() {
            assert!(
                log.contains("failed: Held(Tenant) TLS: clear text behind"),
                "{log}"
            );
            assert!(!log.contains("(TLS)"), "{log}");
        }
    }
}

#[test]
fn no_tls_is_a_fault_of_the_connector() {
    for (script, why) in [
        (vec![GREETING, SPARSE], "does not offer STARTTLS"),
        (vec![GREETING, PLAIN, "502 no\r\n"], "STARTTLS refused"),
    ] {
        let (log, _) = play(&script, 1, None);
        assert!(
            log.contains("failed: Held(Tenant)") && log.contains(why),
            "{log}"
        );
    }
    let (log, _) = play(&[GREETING, PLAIN, "454 4.7.0 later\r\n"], 1, None);
    assert!(log.contains("failed: Deferred(Law)"), "{log}");
}

#[test]
fn what_was_offered_in_clear_text_is_forgotten() {
    let script = [
        GREETING,
        "250-x\r\n250-STARTTLS\r\n250 CHUNKING\r\n",
        "220 go\r\n",
        SPARSE,
        "250 ok\r\n",
        "250 ok\r\n",
        "354 go\r\n",
        "250 ok\r\n",
    ];
    assert!(play(&script, 1, None).0.contains("C: DATA"));
}

#[test]
fn an_early_refusal_ends_the_content() {
    let mut dialogue = Dialogue::new("h");
    dialogue.state = State::Content(Accepted {
        recipients: vec![4],
        others: vec![],
        transfer: Transfer::Chunk,
    });
    dialogue.handle(Input::Bytes(b"554 5.4.6 loop\r\n"));
    let Some(Output::Finished(results)) = dialogue.next_output() else {
        panic!()
    };
    assert_eq!(results.len(), 1);
    assert_eq!(dialogue.next_output(), Some(Output::Close));
    dialogue.handle(Input::ContentSent);
    dialogue.handle(Input::Closed);
    assert_eq!(dialogue.next_output(), None, "nothing is said twice");
}

#[test]
fn an_unasked_reply_ends_an_idle_connection() {
    let mut dialogue = Dialogue::new("h");
    dialogue.state = State::Ready;
    dialogue.handle(Input::Bytes(b"421 4.4.2 idle too long\r\n"));
    assert_eq!(dialogue.next_output(), Some(Output::Close));
    let envelope = envelope(1);
    let facts = ContentFacts::default();
    dialogue.begin(&Request {
        envelope: &envelope,
        recipients: &[0],
        facts: &facts,
        size: 0,
        utf8_header: false,
        xoorg: None,
    });
    let Some(Output::Finished(results)) = dialogue.next_output() else {
        panic!()
    };
    assert!(results[0].1.met_closed_connection());
}

fn stranger(tls: Tls) -> Manners {
    Manners {
        tls,
        login: None,
        old_hello: true,
    }
}

fn relay(tls: Tls) -> Manners {
    Manners {
        login: Some(Login {
            username: "gatepost".to_owned(),
            password: crate::mail::Secret::new("hunter2"),
        }),
        ..stranger(tls)
    }
}

const DONE: [&str; 4] = ["250 ok\r\n", "250 ok\r\n", "354 go\r\n", "250 ok\r\n"];

fn to_stranger(manners: Manners, script: &[&str]) -> String {
    let script: Vec<&str> = script.iter().chain(&DONE).copied().collect();
    play_with(manners, &script, 1, None).0
}

#[test]
fn tls_is_used_where_it_is_offered_and_mail_goes_without_it_where_it_is_not() {
    let log = to_stranger(
        stranger(Tls::WhereOffered),
        &[GREETING, PLAIN, "220 go\r\n", SPARSE],
    );
    assert!(
        log.contains("(TLS)") && log.contains("0: Delivered"),
        "{log}"
    );
    for script in [
        [GREETING, SPARSE].as_slice(),
        &[GREETING, PLAIN, "454 4.7.0 no certificate today\r\n"],
        &[GREETING, PLAIN, "502 what?\r\n"],
    ] {
        let log = to_stranger(stranger(Tls::WhereOffered), script);
        assert!(
            !log.contains("(TLS)") && log.contains("0: Delivered"),
            "{log}"
        );
        let log = to_stranger(stranger(Tls::Required), script);
        assert!(
            log.contains("failed: ") && !log.contains("C: MAIL"),
            "{log}"
        );
    }
    let log = to_stranger(stranger(Tls::Never), &[GREETING, PLAIN]);
    assert!(
        !log.contains("STARTTLS") && log.contains("0: Delivered"),
        "{log}"
    );
}

#[test]
fn helo_is_tried_where_ehlo_is_refused() {
    let script = [GREETING, "502 5.5.1 what?\r\n", "250 old friend\r\n"];
    let log = to_stranger(stranger(Tls::WhereOffered), &script);
    assert!(
        log.contains("C: EHLO host.contoso.com\nC: HELO host.contoso.com\n(ready)"),
        "{log}"
    );
    assert!(
        log.contains("C: DATA") && log.contains("0: Delivered"),
        "{log}"
    );
    let log = to_stranger(stranger(Tls::Required), &script);
    assert!(
        log.contains("failed: ") && !log.contains("C: MAIL"),
        "{log}"
    );
    let log = to_stranger(
        stranger(Tls::WhereOffered),
        &[GREETING, "421 4.3.2 busy\r\n"],
    );
    assert!(!log.contains("C: HELO"), "{log}");
}

#[test]
fn a_relay_is_told_the_password_under_tls_alone() {
    let plain = "250-r\r\n250-STARTTLS\r\n250 AUTH PLAIN LOGIN\r\n";
    let secure = "250-r\r\n250 AUTH PLAIN LOGIN\r\n";
    let log = to_stranger(
        relay(Tls::WhereOffered),
        &[GREETING, plain, "220 go\r\n", secure, "235 2.7.0 ok\r\n"],
    );
    assert!(
        log.contains(
            "(TLS)\nC: EHLO host.contoso.com\nC: AUTH PLAIN AGdhdGVwb3N0AGh1bnRlcjI=\n(ready)"
        ),
        "{log}"
    );
    let log = to_stranger(relay(Tls::WhereOffered), &[GREETING, secure]);
    assert!(log.contains("no TLS") && !log.contains("C: AUTH"), "{log}");
    let log = to_stranger(relay(Tls::Never), &[GREETING, plain]);
    assert!(log.contains("no TLS") && !log.contains("C: AUTH"), "{log}");
    let start = to_stranger(
        relay(Tls::FromTheStart),
        &[GREETING, secure, "235 2.7.0 ok\r\n"],
    );
    assert!(
        start.starts_with("(TLS)\nC: EHLO") && start.contains("0: Delivered"),
        "{start}"
    );
}

#[test]
fn both_mechanisms_are_spoken_and_a_refused_login_is_no_failure_of_the_mail() {
    let tls = |rest: &[&'static str]| {
        let mut script = vec![GREETING, PLAIN, "220 go\r\n"];
        script.extend_from_slice(rest);
        to_stranger(relay(Tls::Required), &script)
    };
    let login = "250-r\r\n250 AUTH=LOGIN CRAM-MD5\r\n";
    let asks = "334 VXNlcm5hbWU6\r\n";
    let log = tls(&[login, asks, asks, "235 ok\r\n"]);
    assert!(
        log.contains("C: AUTH LOGIN\nC: Z2F0ZXBvc3Q=\nC: aHVudGVyMg==\n(ready)"),
        "{log}"
    );
    let log = tls(&["250-r\r\n250 AUTH PLAIN\r\n", "334 \r\n", "235 ok\r\n"]);
    let twice = log.matches("AGdhdGVwb3N0AGh1bnRlcjI=").count();
    assert!(twice == 2 && log.contains("(ready)"), "{log}");
    for script in [
        [login, asks, asks, "535 5.7.8 wrong\r\n"].as_slice(),
        &[login, asks, asks, "334 more\r\n"],
        &[login, "454 4.7.0 later\r\n"],
        &["250-r\r\n250 AUTH CRAM-MD5\r\n"],
        &[SPARSE],
    ] {
        let log = tls(script);
        assert!(log.contains("failed: Deferred(Law) login: "), "{log}");
        assert!(!log.contains("C: MAIL"), "{log}");
    }
}

#[test]
fn a_server_that_repeats_what_it_refuses_does_not_make_us_tell_the_password() {
    for (mechanism, echo) in [
        (
            "PLAIN",
            "500 5.5.1 Command unrecognized: \"AUTH PLAIN AGdhdGVwb3N0AGh1bnRlcjI=\"\r\n",
        ),
        ("PLAIN", "535-5.7.8 no\r\n535 5.7.8 hunter2 is wrong\r\n"),
        ("LOGIN", "500 5.5.1 what is aHVudGVyMg==?\r\n"),
    ] {
        let hello: &'static str = match mechanism {
            "PLAIN" => "250-r\r\n250 AUTH PLAIN\r\n",
            _ => "250-r\r\n250 AUTH LOGIN\r\n",
        };
        let mut script = vec![GREETING, PLAIN, "220 go\r\n", hello];
        if mechanism == "LOGIN" {
            script.extend(["334 VXNlcm5hbWU6\r\n", "334 UGFzc3dvcmQ6\r\n"]);
        }
        script.push(echo);
        let log = to_stranger(relay(Tls::Required), &script);
        let told = log.lines().find(|line| line.contains("login: ")).unwrap();
        assert!(told.contains("***"), "{told}");
        for secret in ["hunter2", "aHVudGVyMg", "AGdhdGVwb3N0AGh1bnRlcjI"] {
            assert!(!told.contains(secret), "{told}");
        }
    }
}

proptest! {
    #[test]
    fn splitting_input_at_any_byte_changes_nothing(cut in any::<usize>(), which in 0usize..6) {
        let scripts = [
            secure(&["250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n250 2.1.5 Ok\r\n", "250-2.6.0 <x>\r\n250 2.6.0 Queued\r\n", "221 2.0.0 Bye\r\n"]),
            secure(&["250 ok\r\n550 5.1.1 no\r\n421 4.3.2 draining\r\n"]),
            secure(&["451 4.7.500 busy\r\n503 5.5.1 no\r\n503 5.5.1 no\r\n", "221 bye\r\n"]),
            secure(&["250 ok\r\nwhat\r\n"]),
            vec![GREETING, PLAIN, "220 go\r\n", SPARSE, "250 ok\r\n", "250 ok\r\n", "452 4.5.3 no\r\n", "354 go\r\n", "250 ok\r\n"],
            vec!["554-no\r\n554 service\r\n"],
        ];
        prop_assert_eq!(play(&scripts[which], 2, Some(cut)).0, play(&scripts[which], 2, None).0);
    }

    #[test]
    fn every_recipient_is_answered_exactly_once(pieces in proptest::collection::vec(
        prop_oneof![
            Just("250 ok\r\n"), Just("250-a\r\n250 b\r\n"), Just("354 go\r\n"), Just("421 4.3.2 bye\r\n"),
            Just("451 4.7.0 x\r\n"), Just("550 5.1.1 x\r\n"), Just("452 4.5.3 x\r\n"), Just("junk\r\n"), Just("25"),
        ], 0..12), chunk in 1usize..4)
    {
        let joined: Vec<String> = pieces.chunks(chunk).map(|chunk| chunk.concat()).collect();
        let mut script = vec![GREETING, PLAIN, "220 go\r\n", SECURE];
        script.extend(joined.iter().map(String::as_str));
        let (log, _) = play(&script, 3, None);
        for position in 0..3 {
            let lines = log.lines().filter(|line| line.starts_with(&format!("{position}: "))).count();
            prop_assert_eq!(lines, 1, "{}", log);
        }
    }
}

/// What a hostile next hop says, in the place of each of its replies, one after the other.
const NONSENSE: &[&str] = &[
    "garbage\r\n",
    "\0\0\0\r\n",
    "250\0 ok\r\n",
    "\u{e4}\u{f6}\r\n",
    "HTTP/1.1 400 Bad Request\r\n\r\n",
    "999 ok\r\n",
    "150 wait\r\n",
    "250-one\r\n550 two\r\n",
    "-1 ok\r\n",
    "\r\n\r\n\r\n",
    "2",
    "250-never ends\r\n",
    "",
];

#[test]
fn a_next_hop_that_talks_nonsense_in_any_place_costs_a_connection_and_no_recipient_his_answer() {
    let endless: &'static str = Box::leak("250-more\r\n".repeat(10_000).into_boxed_str());
    let no_end: &'static str = Box::leak("x".repeat(100_000).into_boxed_str());
    let true_replies = secure(&["250 ok\r\n250 ok\r\n250 ok\r\n", "250 2.6.0 queued\r\n"]);
    let all: Vec<&str> = NONSENSE.iter().copied().chain([endless, no_end]).collect();
    for place in 0..true_replies.len() {
        for nonsense in &all {
            for cut in [None, Some(1), Some(7)] {
                let mut script = true_replies.clone();
                script.truncate(place);
                script.push(nonsense);
                let (log, dialogue) = play(&script, 2, cut);
                assert!(dialogue.input.len() < 2 * reply::MAX_REPLY, "{place}");
                assert!(log.ends_with("(close)\n"), "{place} {nonsense:.20?}: {log}");
                assert!(!log.contains("Delivered"), "{place} {nonsense:.20?}: {log}");
                assert!(
                    !log.contains("Failed"),
                    "nothing bounces: {place} {nonsense:.20?}: {log}"
                );
                if log.contains("(ready)") {
                    for recipient in 0..2 {
                        let lines = log
                            .lines()
                            .filter(|line| line.starts_with(&format!("{recipient}: ")));
                        assert_eq!(lines.count(), 1, "{place} {nonsense:.20?}: {log}");
                    }
                } else {
                    assert_eq!(
                        log.matches("failed: ").count(),
                        1,
                        "{place} {nonsense:.20?}: {log}"
                    );
                }
            }
        }
    }
}

#[test]
fn consent_before_it_was_asked_for_is_none() {
    let hello_and_go: &'static str = Box::leak(format!("{PLAIN}220 go\r\n").into_boxed_str());
    let greeting_and_hello: &'static str = Box::leak(format!("{GREETING}{PLAIN}").into_boxed_str());
    for script in [vec![greeting_and_hello], vec![GREETING, hello_and_go]] {
        let (log, _) = play(&script, 1, None);
        assert!(
            log.contains("Deferred(Law) a reply to nothing that was asked"),
            "{log}"
        );
        assert!(
            !log.contains("(TLS)") && !log.contains("C: STARTTLS"),
            "{log}"
        );
    }
    // A refusal may come at any time.
    let (log, _) = play(&["220 x\r\n421 4.3.2 going down\r\n"], 1, None);
    assert!(log.contains("421 4.3.2 going down"), "{log}");
    // All that could be wanted, at once: nothing was sent, and nothing counts as delivered.
    let everything = "250 ok\r\n250 ok\r\n250 2.6.0 queued\r\n";
    let (log, _) = play(&secure(&[everything]), 1, None);
    assert!(!log.contains("Delivered"), "{log}");
    let by_data = "354 go\r\n250 2.6.0 queued\r\n";
    let script = [
        GREETING,
        PLAIN,
        "220 go\r\n",
        SPARSE,
        "250 ok\r\n",
        "250 ok\r\n",
        by_data,
    ];
    let (log, _) = play(&script, 1, None);
    assert!(!log.contains("Delivered"), "{log}");
}

#[test]
fn who_accepts_recipients_and_then_refuses_or_leaves_has_said_no() {
    for (end, outcome) in [
        ("554 5.6.0 changed my mind\r\n", "Failed"),
        ("451 4.3.0 later\r\n", "Deferred"),
        ("421 4.4.2 bye\r\n", "Deferred"),
        ("354 what\r\n", "Deferred"),
    ] {
        let (log, _) = play(&secure(&["250 ok\r\n250 ok\r\n250 ok\r\n", end]), 2, None);
        for recipient in 0..2 {
            assert!(
                log.contains(&format!("{recipient}: {outcome}")),
                "{end}: {log}"
            );
        }
    }
    // The connection ends with no answer: who takes that for a yes loses mail.
    let mut script = secure(&["250 ok\r\n250 ok\r\n"]);
    let (log, _) = play(&script, 1, None);
    assert!(log.contains("0: Deferred(Law) connection lost"), "{log}");
    script.pop();
    let (log, _) = play(&script, 1, None);
    assert!(log.contains("0: Deferred(Law) connection lost"), "{log}");
}
