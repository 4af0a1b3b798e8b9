//! Where a session stops listening: sizes, counts, errors, and the chunks of a message that is refused.

use super::fixtures::{ADA, BOB, House, NOW, Played, policy, stamped, starts};
use super::*;

fn exchange() -> Played {
    Played::exchange(House::default())
}

fn device() -> Played {
    Played::secured(policy(Service::Submission), House::default(), false, false)
}

fn chunk(octets: &str, last: bool) -> String {
    let last = if last { " LAST" } else { "" };
    format!("BDAT {}{last}\r\n{octets}", octets.len())
}

fn open(played: &mut Played) {
    let opened = format!("MAIL FROM:<{ADA}>\r\nRCPT TO:<bob@contoso.com>\r\n");
    assert!(played.tell(&opened).contains("250 2.1.5 "));
}

/// The first line of each reply.
fn codes(replies: &str) -> Vec<&str> {
    replies
        .lines()
        .map(|line| line.get(..3).unwrap_or(line))
        .collect()
}

#[test]
fn a_message_over_the_limit_is_refused_over_every_transfer() {
    let large = stamped("") + &"x".repeat(1 << 20);
    starts(&exchange().send(ADA, BOB, &large), "552 5.3.4 ");
    let mut played = exchange();
    open(&mut played);
    starts(&played.tell(&chunk(&large, true)), "552 5.3.4 ");
    // It is known before the last chunk.
    open(&mut played);
    starts(&played.tell(&chunk(&stamped(""), false)), "250 2.0.0 ");
    starts(&played.tell(&chunk(&large, false)), "552 5.3.4 ");
    starts(&played.tell(&chunk("end", true)), "503 5.5.1 ");
    // The gate's fault comes first, however the bytes are cut; then a long header section counts, too.
    let fields = format!("X: {}\r\n", "y".repeat(996)).repeat(200);
    for (content, code) in [
        (fields.clone(), "550 5.7.64 "),
        (stamped(&fields), "552 5.3.4 "),
    ] {
        for piece in [usize::MAX, 50_000] {
            let mut small = policy(Service::Connector);
            small.max_message_size = 100_000;
            let mut small = Played::secured(small, House::default(), true, true);
            open(&mut small);
            let wire = chunk(&content, true);
            let parts = wire.as_bytes().chunks(piece);
            let replies: String = parts
                .map(|part| small.tell(std::str::from_utf8(part).unwrap()))
                .collect();
            starts(&replies, code);
        }
    }
}

#[test]
fn after_a_refused_chunk_everything_is_503_until_rset() {
    let mut played = exchange();
    open(&mut played);
    let unproven = format!("From: {ADA}\r\n\r\nbody");
    starts(&played.tell(&chunk(&unproven, false)), "550 5.7.64 ");
    for (said, code) in [
        (chunk("RSET\r\n", false), "503 5.5.1 "),
        (chunk("", false), "503 5.5.1 "),
        (format!("MAIL FROM:<{ADA}>\r\n"), "503 5.5.1 "),
        (chunk("QUIT\r\n", true), "503 5.5.1 "),
        (format!("MAIL FROM:<{ADA}>\r\n"), "503 5.5.1 "),
        ("DATA\r\n".to_owned(), "503 5.5.1 "),
        ("NOOP\r\n".to_owned(), "250 2.0.0 "),
        (format!("MAIL FROM:<{ADA}>\r\n"), "503 5.5.1 "),
        ("RSET\r\n".to_owned(), "250 2.0.0 "),
        (format!("MAIL FROM:<{ADA}>\r\n"), "250 2.1.0 "),
    ] {
        starts(&played.tell(&said), code);
    }
    // The last chunk ends the transaction itself; so does a refusal of the last.
    let mut played = exchange();
    open(&mut played);
    starts(&played.tell(&chunk(&unproven, true)), "550 5.7.64 ");
    open(&mut played);
}

#[test]
fn a_header_section_without_end_is_answered_at_the_end_of_its_chunk() {
    let fields = format!("X: {}\r\n", "y".repeat(994)).repeat(300);
    let mut played = exchange();
    open(&mut played);
    let wire = chunk(&fields, false);
    let (most, last) = wire.split_at(wire.len() - 1);
    assert_eq!(played.tell(most), "", "not before");
    starts(&played.tell(last), "552 5.3.4 ");
    starts(&played.tell(&chunk("", true)), "503 5.5.1 ");
}

#[test]
fn chunks_without_a_transaction_are_dropped_and_answered_each() {
    let mut played = exchange();
    let replies = played.tell(&format!(
        "{}{}NOOP\r\n",
        chunk("QUIT\r\n", false),
        chunk("RSET\r\n", true)
    ));
    assert_eq!(codes(&replies), ["503", "503", "250"]);
    open(&mut played);
}

#[test]
fn what_a_message_leaves_behind_never_stands_before_the_next() {
    let begun = chunk(&stamped(""), false);
    for end in [
        "RSET\r\n".to_owned(),
        "EHLO x\r\n".to_owned(),
        "HELO x\r\n".to_owned(),
        chunk(&"x".repeat(2 << 20), false) + "RSET\r\n",
        chunk(&"x".repeat(2 << 20), true),
    ] {
        let mut played = exchange();
        open(&mut played);
        starts(&played.tell(&begun), "250 2.0.0 ");
        // The harness looks for a draft that is left.
        played.tell(&end);
        assert!(played.session.is_between_transactions(), "{end:.20}");
        starts(&played.send(ADA, BOB, &stamped("")), "[store exchange]");
    }
    let mut played = device();
    let opened = "MAIL FROM:<erp@contoso.com>\r\nRCPT TO:<bob@contoso.com>\r\n";
    assert!(played.tell(opened).contains("250 2.1.5 "));
    starts(
        &played.tell(&chunk("From: erp@contoso.com\r\n\r\nx\r", false)),
        "250 2.0.0 ",
    );
    starts(&played.tell(&chunk("", true)), "554 5.6.0 ");
}

#[test]
fn a_flood_behind_a_refusal_ends_the_session() {
    let mut played = exchange();
    open(&mut played);
    let octets = 80 * 1024 * 1024;
    let block = "x: y\n\r\n".repeat(1 << 17);
    let mut replies = played.tell(&format!("BDAT {octets} LAST\r\n"));
    for _ in 0..octets / block.len() {
        replies.push_str(&played.tell(&block));
        if !replies.is_empty() {
            break;
        }
    }
    starts(&replies, "421 4.7.0 ");
    assert!(replies.ends_with("[closed]"), "{replies}");
}

#[test]
fn twenty_errors_end_a_session_and_refused_mail_is_none() {
    let mut played = exchange();
    for _ in 0..30 {
        let unproven = format!("From: {ADA}\r\n\r\nbody");
        starts(&played.send(ADA, BOB, &unproven), "550 5.7.64 ");
    }
    let replies = played.tell(&"XYZZY\r\n".repeat(25));
    assert_eq!(replies.matches("500 5.5.2 ").count(), 20, "{replies}");
    assert!(replies.contains("421 4.7.0 ") && replies.ends_with("[closed]"));
}

#[test]
fn a_malformed_chunk_that_is_the_twentieth_error_closes_once() {
    let mut played = exchange();
    let errors = "XYZZY\r\n".repeat(19);
    let replies = played.tell(&format!("{errors}BDAT x\r\n"));
    assert_eq!(replies.matches("421 4.7.0 ").count(), 1, "{replies}");
    assert_eq!(replies.matches("[closed]").count(), 1, "{replies}");
    assert!(replies.ends_with("[closed]"), "{replies}");
}

#[test]
fn twenty_logins_that_are_wrong_or_not_judged_end_a_session() {
    let mut played = device();
    for guess in 1..=20 {
        played.tell("AUTH PLAIN AGVycABwdw==\r\n");
        // What the brake of the address says (`credentials`), is answered in the session that it was drawn in, too.
        let (judged, code) = if guess <= 5 {
            (Credentials::Rejected, "535 5.7.8 ")
        } else {
            (Credentials::Throttled, "454 4.7.0 ")
        };
        played.session.handle(NOW, Input::Credentials(judged));
        let replies = played.said();
        starts(&replies, code);
        let end = "Too many errors, closing";
        assert_eq!(replies.contains(end), guess == 20, "{guess}: {replies}");
        assert_eq!(replies.ends_with("[closed]"), guess == 20, "{replies}");
    }
}

#[test]
fn a_chunk_is_told_why_nobody_takes_it() {
    let said = |played: &mut Played, words: &str| played.tell(words);
    let mut played = device();
    let replies = said(&mut played, "BDAT x\r\n");
    let lines: Vec<_> = replies.lines().collect();
    starts(lines[0], "501 5.5.4 ");
    starts(
        lines[1],
        "421 4.7.0 mx.example Nobody knows where a chunk of unknown size ends, closing ",
    );
    assert!(replies.ends_with("[closed]"), "{replies}");

    let mail = "MAIL FROM:<erp@contoso.com>\r\n";
    let rcpt = "RCPT TO:<bob@contoso.com>\r\n";
    let mut without = policy(Service::Submission);
    without.ehlo_discard = vec!["CHUNKING".to_owned()];
    let mut without = Played::secured(without, House::default(), false, false);
    for before in [String::new(), mail.to_owned(), format!("{mail}{rcpt}")] {
        without.tell(&before);
        let told = without.tell(&chunk("QUIT\r\n", true));
        starts(&told, "503 5.5.1 ");
        assert!(
            told.contains("BDAT is not offered here, begin anew with MAIL and use DATA "),
            "{told}"
        );
    }
    let mut played = device();
    let told = played.tell(&chunk("QUIT\r\n", true));
    assert!(told.contains("no transaction is open"), "{told}");
    played.tell(mail);
    let told = played.tell(&chunk("QUIT\r\n", true));
    assert!(told.contains("no recipient was accepted"), "{told}");
    played.tell(&format!("{mail}{rcpt}"));
    starts(&played.tell(&chunk("no header", false)), "250 2.0.0 ");
    starts(&played.tell(&chunk("\r\n\r\n", false)), "554 5.6.0 ");
    let told = played.tell(&chunk("QUIT\r\n", false));
    assert!(
        told.contains("this message is refused, RSET first"),
        "{told}"
    );
}

#[test]
fn auth_is_refused_by_what_would_help() {
    let login = "AUTH PLAIN AGVycABwdw==\r\n";
    let answer = |change: &dyn Fn(&mut Policy), tls: bool| {
        let mut own = policy(Service::Submission);
        change(&mut own);
        let mut played = if tls {
            Played::secured(own, House::default(), false, false)
        } else {
            Played::clear(own, House::default(), false)
        };
        played.tell("EHLO x\r\n");
        played.tell(login)
    };
    let discard = |policy: &mut Policy| policy.ehlo_discard = vec!["AUTH".to_owned()];
    let starttls = "530 5.7.0 mx.example Must issue a STARTTLS command first ";
    let never = "502 5.5.1 mx.example AUTH is not offered here ";
    starts(&answer(&|_| (), false), starttls);
    starts(&answer(&|own| own.tls = TlsMode::StartTls, false), starttls);
    assert_eq!(answer(&|_| (), true), "", "it is being checked");
    starts(&answer(&|own| own.tls = TlsMode::None, false), never);
    starts(&answer(&discard, true), never);
    starts(&answer(&discard, false), never);
    let clear = |own: &mut Policy| {
        own.tls = TlsMode::None;
        own.auth_without_tls = true;
    };
    assert_eq!(answer(&clear, false), "", "it is being checked");
}

#[test]
fn a_thousand_recipients_are_enough() {
    let mut played = exchange();
    let mut dialogue = format!("MAIL FROM:<{ADA}>\r\n");
    for number in 0..=1000 {
        dialogue.push_str(&format!("RCPT TO:<r{number}@contoso.com>\r\n"));
    }
    let replies = played.tell(&dialogue);
    assert_eq!(replies.matches("250 2.1.5 ").count(), 1000);
    starts(replies.lines().last().unwrap(), "452 4.5.3 ");
    starts(&played.tell("DATA\r\n"), "354 ");
}

#[test]
fn hops_count_for_applications_and_their_loop_headers_do_not() {
    let mut played = device();
    let mail = |fields: &str| format!("From: erp@contoso.com\r\n{fields}\r\nbody");
    let mut send = |fields: &str| played.send("erp@contoso.com", BOB, &mail(fields));
    starts(&send(&"Received: x\r\n".repeat(51)), "554 5.4.6 ");
    starts(&send(&"Received: x\r\n".repeat(50)), "[store exchange]");
    starts(
        &send("X-Gatepost-Processed: loop-contoso\r\n"),
        "[store exchange]",
    );
}

#[test]
fn validation_mail_has_64_kib_whatever_proves_it() {
    let own = "O365ConnectorValidation@contoso.com";
    let signed = format!(
        "From: {ADA}\r\nX-OriginatorOrg: contoso.com\r\n\
         DKIM-Signature: v=1; a=rsa-sha256; d=contoso.com; s=s; h=from; bh=abc=; b=def=\r\n\r\n"
    );
    for header in [stamped(""), signed] {
        for (size, code) in [(65_536, "[store exchange]"), (65_537, "552 5.3.4 ")] {
            for sender in [own, ADA] {
                let header = header.replacen(ADA, sender, 1);
                let content = header.clone() + &"x".repeat(size - header.len() - 2);
                // DATA brings a last CRLF.
                let code = if sender == own {
                    code
                } else {
                    "[store exchange]"
                };
                starts(&exchange().send(sender, BOB, &content), code);
            }
        }
    }
}
