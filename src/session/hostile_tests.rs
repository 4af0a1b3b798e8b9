//! Peers that mean harm: false ends of content, slow senders, floods. What each is answered, and where it ends.

#[path = "../../tests/support/false_ends.rs"]
mod false_ends;

use super::fixtures::{ADA, House, Played, policy, stamped, starts};
use super::*;
use crate::smtp::line::MAX_COMMAND;
use false_ends::{FALSE_ENDS, has_bare_newline};

/// A second transaction behind a false end.
fn hidden(end: &str) -> String {
    format!(
        "bait{end}MAIL FROM:<ceo@contoso.com>\r\nRCPT TO:<bob@contoso.com>\r\nDATA\r\n\
         From: ceo@contoso.com\r\n\r\nsmuggled"
    )
}

fn device(repair: bool) -> Played {
    let mut policy = policy(Service::Submission);
    if repair {
        policy.bare_newlines = BareNewlines::Repair;
    }
    Played::secured(policy, House::default(), false, false)
}

fn open(played: &mut Played, sender: &str) {
    let opened = format!("MAIL FROM:<{sender}>\r\nRCPT TO:<bob@contoso.com>\r\n");
    assert!(played.tell(&opened).contains("250 2.1.5 "));
}

/// Told in pieces of this many octets.
fn tell_in_pieces(played: &mut Played, wire: &str, piece: usize) -> String {
    let mut said = String::new();
    for part in wire.as_bytes().chunks(piece) {
        played
            .session
            .handle(super::fixtures::NOW, Input::Bytes(part));
        said.push_str(&played.said());
    }
    said
}

/// One message was judged, and what stands in it was not heard: the next command is the next that is answered.
#[track_caller]
fn one_answer(played: &mut Played, wire: &str, code: &str, why: &str) {
    for piece in [1, 7, usize::MAX] {
        let replies = tell_in_pieces(played, wire, piece);
        starts(&replies, code);
        let rest = replies
            .strip_prefix("[store exchange]\r\n")
            .unwrap_or(&replies);
        assert_eq!(rest.lines().count(), 1, "{why:?} by {piece}: {replies}");
        starts(&played.tell("NOOP\r\n"), "250 2.0.0 ");
        assert!(played.session.is_between_transactions(), "{why:?}");
        if piece != usize::MAX {
            let sender = if played.session.core.is_connector() {
                ADA
            } else {
                "erp@contoso.com"
            };
            open(played, sender);
            if wire.ends_with("\r\n.\r\n") {
                starts(&played.tell("DATA\r\n"), "354 ");
            }
        }
    }
}

#[test]
fn no_false_end_of_content_lets_a_second_message_in_by_data() {
    for end in FALSE_ENDS {
        let bare = has_bare_newline(end);
        let refused = "554 5.6.0 ";
        let kept = "[store exchange]";
        let strict = if bare { refused } else { kept };
        let mut exchange = Played::exchange(House::default());
        open(&mut exchange, ADA);
        starts(&exchange.tell("DATA\r\n"), "354 ");
        let wire = format!("{}\r\n{}\r\n.\r\n", stamped(""), hidden(end));
        one_answer(&mut exchange, &wire, strict, end);
        let wire = format!("From: erp@contoso.com\r\n\r\n{}\r\n.\r\n", hidden(end));
        for repair in [false, true] {
            let mut application = device(repair);
            open(&mut application, "erp@contoso.com");
            starts(&application.tell("DATA\r\n"), "354 ");
            let code = if repair { kept } else { strict };
            one_answer(&mut application, &wire, code, end);
        }
    }
}

#[test]
fn in_a_chunk_nothing_ends_the_content_but_its_length() {
    let mut ends = FALSE_ENDS.to_vec();
    ends.push("\r\n.\r\n");
    ends.push("\r\nBDAT 0 LAST\r\n");
    for end in ends {
        let chunk = |content: &str| format!("BDAT {} LAST\r\n{content}", content.len());
        let mut exchange = Played::exchange(House::default());
        open(&mut exchange, ADA);
        let wire = chunk(&format!("{}\r\n{}", stamped(""), hidden(end)));
        one_answer(&mut exchange, &wire, "[store exchange]", end);
        let wire = chunk(&format!("From: erp@contoso.com\r\n\r\n{}", hidden(end)));
        for repair in [false, true] {
            let mut application = device(repair);
            open(&mut application, "erp@contoso.com");
            let refused = has_bare_newline(end) && !repair;
            let code = if refused {
                "554 5.6.0 "
            } else {
                "[store exchange]"
            };
            one_answer(&mut application, &wire, code, end);
        }
    }
}

#[test]
fn a_false_end_in_the_header_section_is_refused_by_both_transfers() {
    for end in FALSE_ENDS.iter().filter(|end| has_bare_newline(end)) {
        for chunked in [false, true] {
            let mut exchange = Played::exchange(House::default());
            open(&mut exchange, ADA);
            let content = format!("X-Bait: {}\r\n{}", hidden(end), stamped(""));
            let wire = if chunked {
                format!("BDAT {} LAST\r\n{content}", content.len())
            } else {
                starts(&exchange.tell("DATA\r\n"), "354 ");
                format!("{content}\r\n.\r\n")
            };
            starts(&exchange.tell(&wire), "554 5.6.0 ");
            starts(&exchange.tell("NOOP\r\n"), "250 2.0.0 ");
        }
    }
}

#[test]
fn the_largest_chunk_that_can_be_named_overflows_nothing_and_is_not_waited_for() {
    for (opened, code) in [(true, "421 4.7.0 "), (false, "421 4.7.0 ")] {
        let mut played = Played::exchange(House::default());
        if opened {
            open(&mut played, ADA);
        }
        let mut replies = played.tell(&format!("BDAT {} LAST\r\nNOOP\r\n", u64::MAX));
        assert_eq!(replies, "", "what follows is content");
        let block = "x".repeat(1 << 20);
        for _ in 0..80 {
            replies.push_str(&played.tell(&block));
        }
        starts(&replies, code);
        assert!(replies.ends_with("[closed]"), "{replies}");
    }
}

fn at(ticks: u64) -> Now {
    Now {
        ticks,
        ..super::fixtures::NOW
    }
}

/// What comes of sending `octets` one by one, one each `pause` milliseconds: the last reply and when it came.
fn drip(
    played: &mut Played,
    octets: &mut dyn Iterator<Item = u8>,
    mut now: u64,
    pause: u64,
) -> (String, u64) {
    loop {
        let due = played.session.deadline().expect("the peer is waited for");
        if due <= now + pause {
            played.session.handle(at(due), Input::Deadline);
            return (played.said(), due);
        }
        let Some(octet) = octets.next() else {
            panic!("dripped to the end at {now}, due {due}")
        };
        now += pause;
        played.session.handle(at(now), Input::Bytes(&[octet]));
        let said = played.said();
        if said.ends_with("[closed]") {
            return (said, now);
        }
    }
}

#[test]
fn a_command_by_drops_has_five_minutes_and_two_from_whom_nobody_knows() {
    let line = |length: usize| std::iter::repeat_n(b'x', length);
    let mut exchange = Played::exchange(House::default());
    let (end, when) = drip(&mut exchange, &mut line(10_000), 0, 1000);
    starts(&end, "421 4.4.2 ");
    assert_eq!(when, COMMAND_MILLIS);
    let mut unknown = device(false);
    let (end, when) = drip(&mut unknown, &mut line(10_000), 0, 1000);
    starts(&end, "421 4.4.2 ");
    assert_eq!(when, UNKNOWN_MILLIS);
    // Nor do whole commands put it off.
    let mut unknown = device(false);
    let noops = b"NOOP\r\n".iter().copied().cycle();
    let (end, when) = drip(&mut unknown, &mut noops.take(10_000), 0, 1000);
    starts(&end, "421 4.4.2 ");
    assert_eq!(when, UNKNOWN_MILLIS);
    // In a crowd there is less patience.
    let mut crowd = device(false);
    crowd.session = crowd.session.in_a_crowd();
    let (end, when) = drip(&mut crowd, &mut line(10_000), 0, 1000);
    starts(&end, "421 4.4.2 ");
    assert_eq!(when, HURRIED_MILLIS);
    // Who is known, by a login or by a sender that is his, is waited for as RFC 5321 has it.
    let mut known = device(false);
    known.tell("MAIL FROM:<erp@contoso.com>\r\nRSET\r\n");
    assert_eq!(known.session.deadline(), Some(COMMAND_MILLIS));
    // Without a line end the input does not grow beyond the limit either.
    let mut long = Played::exchange(House::default());
    open(&mut long, ADA);
    starts(&long.tell(&"x".repeat(MAX_COMMAND)), "500 5.5.6 ");
}

#[test]
fn content_by_drops_is_not_waited_for() {
    // Header and body alike: an octet a second makes no block in three minutes.
    for begun in ["", "From: ada@contoso.com\r\n", &stamped("")] {
        let mut slow = Played::exchange(House::default());
        open(&mut slow, ADA);
        starts(&slow.tell("DATA\r\n"), "354 ");
        assert_eq!(slow.tell(begun), "");
        let (end, when) = drip(&mut slow, &mut std::iter::repeat_n(b'x', 10_000), 0, 1000);
        starts(&end, "421 4.4.2 ");
        assert_eq!(when, CONTENT_MILLIS);
    }
}

#[test]
fn content_has_a_time_in_all_that_grows_with_what_comes_of_it() {
    // Just quick enough for each wait of its own: a block each three minutes, or a chunk of an octet each five.
    let mut by_blocks = Played::exchange(House::default());
    open(&mut by_blocks, ADA);
    by_blocks.tell("DATA\r\n");
    by_blocks.tell(&stamped("\r\n"));
    let block = "x".repeat(4096);
    let mut now = 0;
    let mut end = String::new();
    while end.is_empty() {
        let due = by_blocks.session.deadline().unwrap();
        if due <= now + CONTENT_MILLIS - 1000 {
            by_blocks.session.handle(at(due), Input::Deadline);
            now = due;
        } else {
            now += CONTENT_MILLIS - 1000;
            by_blocks
                .session
                .handle(at(now), Input::Bytes(block.as_bytes()));
        }
        end = by_blocks.said();
    }
    starts(&end, "421 4.4.2 ");
    assert!((600_000..603_000).contains(&now), "{now}");

    let mut by_chunks = Played::exchange(House::default());
    open(&mut by_chunks, ADA);
    let mut now = 0;
    let mut end = String::new();
    while !end.ends_with("[closed]") {
        let due = by_chunks.session.deadline().unwrap();
        if due <= now + COMMAND_MILLIS - 1000 {
            by_chunks.session.handle(at(due), Input::Deadline);
            now = due;
        } else {
            now += COMMAND_MILLIS - 1000;
            by_chunks
                .session
                .handle(at(now), Input::Bytes(b"BDAT 1\r\nX"));
        }
        end = by_chunks.said();
    }
    starts(&end, "421 4.4.2 ");
    // The time begins with the first chunk.
    assert!(now < 2 * COMMAND_MILLIS + MESSAGE_MILLIS, "{now}");

    // At the slowest speed there is no end to it but the message's own.
    let mut steady = policy(Service::Connector);
    steady.max_message_size = 150 << 20;
    let mut steady = Played::secured(steady, House::default(), true, true);
    open(&mut steady, ADA);
    steady.tell("DATA\r\n");
    steady.tell(&stamped("\r\n"));
    let minute = "x".repeat(usize::try_from(60 * SLOWEST).unwrap());
    for now in 1..=120 {
        assert!(steady.session.deadline().unwrap() > now * 60_000);
        steady
            .session
            .handle(at(now * 60_000), Input::Bytes(minute.as_bytes()));
        assert_eq!(steady.said(), "");
    }
    starts(&steady.tell("\r\n.\r\n"), "[store exchange]");
}

#[test]
fn a_chunk_that_nobody_wants_is_not_waited_for_any_longer() {
    let mut played = Played::exchange(House::default());
    played.tell(&format!("BDAT {}\r\n", 1 << 30));
    let block = "x".repeat(4096);
    let mut now = 0;
    while now + CONTENT_MILLIS - 1000 < played.session.deadline().unwrap() {
        now += CONTENT_MILLIS - 1000;
        played
            .session
            .handle(at(now), Input::Bytes(block.as_bytes()));
        assert_eq!(played.said(), "");
        assert!(now < 2 * MESSAGE_MILLIS, "{now}");
    }
}

#[test]
fn replies_to_a_flood_are_held_back_until_they_are_sent() {
    let mut played = device(false);
    let flood = "EHLO x\r\n".repeat(400);
    played.session.handle(at(0), Input::Bytes(flood.as_bytes()));
    let mut sizes = Vec::new();
    while let Some(output) = played.session.next_output() {
        let Output::Send(bytes) = output else {
            panic!("{output:?}")
        };
        assert!(bytes.ends_with(b"\r\n"));
        sizes.push(bytes.len());
    }
    let total: usize = sizes.iter().sum();
    assert!(total > 5 * MAX_UNSENT, "all are answered: {total}");
    let most = sizes.iter().max().unwrap();
    assert!(*most < MAX_UNSENT + 1024, "at once: {most}");
    starts(&played.tell("QUIT\r\n"), "221 ");
}

#[test]
fn commands_that_bring_no_mail_come_to_an_end() {
    for word in ["NOOP", "RSET", "EHLO x", "HELO x", "VRFY x", "HELP"] {
        let mut played = Played::exchange(House::default());
        let replies = played.tell(&format!("{word}\r\n").repeat(1000));
        assert!(replies.contains("\r\n421 4.7.0 "), "{word}: {replies}");
        assert!(replies.ends_with("[closed]"), "{word}");
    }
    // Also within a transaction.
    let mut played = Played::exchange(House::default());
    let words = format!("MAIL FROM:<{ADA}>\r\nRSET\r\n");
    let replies = played.tell(&words.repeat(1000));
    assert!(replies.ends_with("[closed]"), "{replies}");
    // A chunk of nothing is none; chunks that bring something are bounded by what they bring.
    let mut played = Played::exchange(House::default());
    let envelope = format!("MAIL FROM:<{ADA}>\r\nRCPT TO:<bob@contoso.com>\r\n");
    let replies = played.tell(&(envelope + &"BDAT 0\r\n".repeat(1000)));
    let taken = replies.matches(" 0 octets received").count();
    assert!((450..=500).contains(&taken), "{taken}: {replies}");
    assert!(replies.ends_with("[closed]"), "{replies}");
}

#[test]
fn refusals_come_to_an_end_before_the_trace_is_full_of_them() {
    let mut played = Played::exchange(House::default());
    let (mut refused, mut end) = (0, String::new());
    while end.is_empty() && refused < 5000 {
        let reply = played.tell("MAIL FROM:<eve@contoso.com> XOORG=evil.example\r\n");
        starts(&reply, "550 5.7.64 ");
        refused += 1;
        if reply.ends_with("[closed]") {
            end = reply;
        }
    }
    assert_eq!(refused, MAX_REFUSALS);
    assert!(end.contains("421 4.7.0 "), "{end}");
    // More recipients than a message may have are no attack yet.
    let mut list = Played::exchange(House::default());
    let mut dialogue = format!("MAIL FROM:<{ADA}>\r\n");
    for number in 0..2500 {
        dialogue.push_str(&format!("RCPT TO:<r{number}@contoso.com>\r\n"));
    }
    let replies = list.tell(&dialogue);
    assert_eq!(replies.matches("250 2.1.5 ").count(), 1000);
    assert_eq!(replies.matches("452 4.5.3 ").count(), 1500);
    starts(&list.tell("DATA\r\n"), "354 ");
}

#[test]
fn a_flood_of_logins_ends_however_it_is_told() {
    for dialect in [
        "AUTH LOGIN\r\n*\r\n",
        "AUTH NTLM\r\n",
        "AUTH PLAIN !!!!\r\n",
    ] {
        let mut played = device(false);
        let replies = played.tell(&dialect.repeat(100));
        assert!(replies.contains("421 4.7.0 "), "{dialect:?}: {replies}");
        assert!(replies.ends_with("[closed]"), "{dialect:?}: {replies}");
    }
}

#[test]
fn clear_octets_behind_starttls_are_gone_however_they_are_cut() {
    let wire =
        "EHLO x\r\nSTARTTLS\r\nMAIL FROM:<injected@contoso.com>\r\nRCPT TO:<bob@contoso.com>\r\n";
    for service in [Service::Connector, Service::Submission] {
        let mut played = Played::clear(policy(service), House::default(), true);
        let replies = played.tell(wire);
        assert!(
            replies.ends_with("220 2.0.0 Ready to start TLS\r\n"),
            "{replies}"
        );
        let facts = TlsFacts {
            version: "TLS1.3".to_owned(),
            cipher: String::new(),
            peer_name: None,
            resumed: false,
        };
        let absent = ClientCertificate::Absent(WhyAbsent::NotPresented);
        played.session.handle(at(0), Input::Secured(facts, absent));
        assert_eq!(played.said(), "", "nothing is left to be answered");
        starts(&played.tell("RCPT TO:<bob@contoso.com>\r\n"), "503 5.5.1 ");
    }
}

#[test]
fn a_chunk_is_as_long_as_it_was_said_to_be() {
    let content = "From: erp@contoso.com\r\n\r\nbody";
    // Longer: the rest is no content.
    let mut played = device(false);
    open(&mut played, "erp@contoso.com");
    let said = content.len() - 4;
    let replies = played.tell(&format!("BDAT {said} LAST\r\n{content}\r\n"));
    starts(&replies, "[store exchange]");
    assert!(
        replies.ends_with("Command not recognised 0000000000001\r\n"),
        "{replies}"
    );
    // Shorter: what follows is content, whatever it looks like.
    let mut played = device(false);
    open(&mut played, "erp@contoso.com");
    let said = content.len() + 6;
    let replies = played.tell(&format!("BDAT {said} LAST\r\n{content}QUIT\r\nNOOP\r\n"));
    starts(&replies, "[store exchange]");
    assert!(
        replies.ends_with("250 2.0.0 OK\r\n") || replies.contains("\r\n250 2.0.0 "),
        "{replies}"
    );
    assert!(!replies.contains("221 "), "{replies}");
}
