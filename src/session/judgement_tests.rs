//! What a session answers to mail: the order of faults, what is offered to whom, and what the rest of the house says.

use super::fixtures::{ADA, BOB, House, NOW, Played, policy, stamped, starts};
use super::*;
use crate::trust::fixtures::{application, contoso, fabrikam, tenants};
use crate::trust::{Gate, HalfProven, Tenant};

#[test]
fn the_first_fault_in_the_order_of_the_contract_answers() {
    let mut exchange = Played::exchange(House::default());
    // Each has the faults behind it as well.
    let foreign = &["bob@contoso.com", "partner@outside.example"][..];
    let looping = "X-Gatepost-Processed: loop-contoso\r\n";
    let fat = format!("X-Fat: {}\r\n", "y".repeat(300 * 1024));
    let unproven = format!("From: {ADA}\r\n{looping}");
    for (content, code) in [
        (format!("{unproven}no colon\r\n{fat}\r\nx\ny"), "554 5.6.0 "),
        (format!("{unproven}{fat}\r\nx\ny"), "552 5.3.4 "),
        (format!("{unproven}\r\nx\ny"), "550 5.7.64 "),
        (stamped(looping) + "\ny", "554 5.4.6 "),
        (stamped(&"Received: x\r\n".repeat(51)) + "\ny", "554 5.4.6 "),
        (stamped("") + "\ny", "550 5.7.1 "),
    ] {
        // The null sender makes every tenant a candidate, and fabrikam has a route for anyone.
        starts(&exchange.send("", foreign, &content), code);
    }
    starts(
        &exchange.send(ADA, BOB, &(stamped("") + "\ny")),
        "554 5.6.0 ",
    );
    starts(&exchange.send(ADA, BOB, &stamped("")), "[store exchange]");
}

#[test]
fn a_recipient_is_taken_if_any_candidate_has_a_route() {
    let mut exchange = Played::exchange(House::default());
    for (mail, rcpt, expected) in [
        ("<ada@contoso.com>", "partner@outside.example", "550 5.7.1 "),
        (
            "<ada@fabrikam.com>",
            "partner@outside.example",
            "250 2.1.5 ",
        ),
        ("<>", "partner@outside.example", "250 2.1.5 "),
        (
            "<x@outside.example>",
            "partner@outside.example",
            "250 2.1.5 ",
        ),
        (
            "<ada@fabrikam.com> XOORG=contoso.com",
            "partner@outside.example",
            "550 5.7.1 ",
        ),
        (
            "<x@outside.example> XOORG=contoso.com",
            "bob@contoso.com",
            "250 2.1.5 ",
        ),
        ("<ada@contoso.com>", "bob@fabrikam.com", "550 5.7.1 "),
    ] {
        starts(
            &exchange.tell(&format!("MAIL FROM:{mail}\r\n")),
            "250 2.1.0 ",
        );
        starts(&exchange.tell(&format!("RCPT TO:<{rcpt}>\r\n")), expected);
        exchange.tell("RSET\r\n");
    }
}

#[test]
fn while_the_connector_is_held_exchange_keeps_its_mail_and_applications_are_served() {
    let house = House {
        held: true,
        ..House::default()
    };
    let mut exchange = Played::exchange(house);
    let reply = exchange.send(ADA, BOB, &stamped(""));
    starts(&reply, "451 4.4.0 mx.example ");
    assert!(reply.contains("certificate expired"), "the fault: {reply}");
    let mut reporting = policy(Service::Connector);
    let gate = Gate::Report { until: u64::MAX };
    reporting.tenants = tenants([Tenant { gate, ..contoso() }, fabrikam()]);
    let mut reporting = Played::secured(reporting, house, true, true);
    let bare = format!("From: {ADA}\r\n\r\nbody");
    starts(&reporting.send(ADA, BOB, &bare), "451 4.4.0 ");
    let mut application = Played::secured(policy(Service::Submission), house, false, false);
    let own = "From: erp@contoso.com\r\n\r\nbody";
    starts(
        &application.send("erp@contoso.com", BOB, own),
        "[store exchange]",
    );
}

#[test]
fn a_queue_that_cannot_store_says_so_at_mail_or_at_the_end() {
    let full = House {
        full: true,
        ..House::default()
    };
    let mail = format!("MAIL FROM:<{ADA}>\r\n");
    starts(&Played::exchange(full).tell(&mail), "451 4.3.1 ");
    let late = Played::exchange(House::default()).send(ADA, BOB, &stamped(""));
    starts(&late, "[store exchange]\r\n451 4.3.1 ");
}

#[test]
fn rates_are_told_at_mail_and_for_validation_with_the_content() {
    let house = House {
        over_rate: true,
        over_validation_rate: true,
        ..House::default()
    };
    let mut application = Played::clear(policy(Service::Submission), house, false);
    let reply = application.tell("EHLO x\r\nMAIL FROM:<erp@contoso.com>\r\n");
    starts(reply.lines().last().unwrap(), "450 4.7.1 ");
    let mut exchange = Played::exchange(house);
    starts(&exchange.send(ADA, BOB, &stamped("")), "[store exchange]");
    let validation = "O365ConnectorValidation@contoso.com";
    let content = stamped("").replacen(ADA, validation, 1);
    starts(&exchange.send(validation, BOB, &content), "450 4.7.1 ");
}

/// The keywords of the reply to EHLO.
fn offered(played: &mut Played) -> String {
    let reply = played.tell("EHLO x\r\n");
    let lines = reply.lines().skip(1).map(|line| &line[4..]);
    lines.collect::<Vec<_>>().join(", ")
}

#[test]
fn what_is_offered_depends_on_service_tls_and_proof() {
    let (connector, submission) = (
        || policy(Service::Connector),
        || policy(Service::Submission),
    );
    let all = "SIZE 1048576, PIPELINING, DSN, ENHANCEDSTATUSCODES";
    let rest = "8BITMIME, CHUNKING, SMTPUTF8, LIMITS RCPTMAX=1000";
    let none = House::default();
    for (mut played, between, last) in [
        (Played::clear(connector(), none, true), ", STARTTLS", ""),
        (
            Played::secured(connector(), none, true, true),
            "",
            ", XOORG",
        ),
        (Played::secured(connector(), none, true, false), "", ""),
        (Played::secured(connector(), none, false, true), "", ""),
        (Played::secured(connector(), none, false, false), "", ""),
        (Played::clear(submission(), none, true), ", STARTTLS", ""),
        (
            Played::secured(submission(), none, true, true),
            ", AUTH PLAIN LOGIN, AUTH=PLAIN LOGIN",
            "",
        ),
    ] {
        assert_eq!(
            offered(&mut played),
            format!("{all}{between}, {rest}{last}")
        );
    }
}

#[test]
fn what_is_hidden_is_not_taken_either() {
    let mut hiding = policy(Service::Connector);
    hiding.ehlo_discard = ["CHUNKING", "DSN", "XOORG", "SMTPUTF8", "8BITMIME", "SIZE"]
        .map(str::to_owned)
        .to_vec();
    let mut exchange = Played::secured(hiding, House::default(), true, true);
    assert_eq!(
        offered(&mut exchange),
        "PIPELINING, ENHANCEDSTATUSCODES, LIMITS RCPTMAX=1000"
    );
    for parameter in [
        "XOORG=contoso.com",
        "RET=HDRS",
        "ENVID=x",
        "SMTPUTF8",
        "BODY=8BITMIME",
        "SIZE=1",
        "AUTH=<>",
    ] {
        let mail = format!("MAIL FROM:<{ADA}> {parameter}\r\n");
        starts(&exchange.tell(&mail), "555 5.5.4 ");
    }
    exchange.tell(&format!("MAIL FROM:<{ADA}>\r\n"));
    for parameter in ["NOTIFY=NEVER", "ORCPT=rfc822;x@y"] {
        let rcpt = format!("RCPT TO:<bob@contoso.com> {parameter}\r\n");
        starts(&exchange.tell(&rcpt), "555 5.5.4 ");
    }
    exchange.tell("RCPT TO:<bob@contoso.com>\r\n");
    starts(&exchange.tell("BDAT 6 LAST\r\nQUIT\r\n"), "503 5.5.1 ");
}

#[test]
fn originator_organisations_are_for_proven_peers_alone() {
    let none = House::default();
    let mail = "MAIL FROM:<erp@contoso.com> XOORG=contoso.com\r\n";
    let submission = policy(Service::Submission);
    starts(
        &Played::secured(submission, none, true, true).tell(mail),
        "555 5.5.4 ",
    );
    for (network, certificate, expected) in [
        (true, true, "250 2.1.0 "),
        (true, false, "451 4.7.1 "),
        (false, true, "451 4.7.1 "),
        (false, false, "550 5.7.1 "),
    ] {
        let connector = policy(Service::Connector);
        let mut peer = Played::secured(connector, none, network, certificate);
        starts(&peer.tell(mail), expected);
        let mut refusing = policy(Service::Connector);
        refusing.half_proven = HalfProven::Refuse;
        let mut peer = Played::secured(refusing, none, network, certificate);
        let expected = expected.replace("451 4.7.1", "550 5.7.1");
        starts(&peer.tell(mail), &expected);
    }
}

#[test]
fn before_tls_a_connector_listener_tells_nobody_more_than_starttls() {
    for network in [true, false] {
        // Before EHLO, too (RFC 3207 §4).
        for hello in ["", "EHLO x\r\n"] {
            for envelope in [
                "MAIL FROM:<ada@contoso.com>",
                "MAIL FROM:<ada@contoso.com> XOORG=evil.example",
                "MAIL FROM:<a> FOO=1",
                "MAIL FROM:<ada@contoso.com> FOO=1",
                "mail from:<ada@contoso.com> SIZE=x",
                "MAIL nobody",
                "RCPT TO:<bob@contoso.com>",
                "RCPT TO:<bob@contoso.com> FOO=1",
                "rcpt\tTO:<@>",
            ] {
                let mut peer = Played::clear(policy(Service::Connector), House::default(), network);
                peer.tell(hello);
                starts(&peer.tell(&format!("{envelope}\r\n")), "530 5.7.0 ");
            }
        }
        let mut peer = Played::clear(policy(Service::Connector), House::default(), network);
        starts(&peer.tell("MAILFROM:<a>\r\n"), "500 5.5.2 ");
    }
}

#[test]
fn under_tls_and_where_none_is_demanded_a_wrong_parameter_is_told() {
    let wrong = "MAIL FROM:<ada@contoso.com> FOO=1\r\n";
    let mut exchange = Played::exchange(House::default());
    starts(&exchange.tell(wrong), "555 5.5.4 ");
    let optional = policy(Service::Submission);
    let mut device = Played::clear(optional, House::default(), false);
    device.tell("EHLO x\r\n");
    starts(&device.tell(wrong), "555 5.5.4 ");
}

#[test]
fn newlines_have_one_policy_whatever_carries_them() {
    let chunks = |content: &str| {
        let (one, two) = content.split_at(content.len() / 2);
        format!(
            "BDAT {}\r\n{one}BDAT {} LAST\r\n{two}",
            one.len(),
            two.len()
        )
    };
    let open = |played: &mut Played, sender: &str| {
        let opened = format!("MAIL FROM:<{sender}>\r\nRCPT TO:<bob@contoso.com>\r\n");
        played.tell(&opened);
    };
    let last = |replies: String| {
        let at = replies.find("[store").or_else(|| replies.find("554 "));
        at.map_or_else(|| replies.clone(), |at| replies[at..].to_owned())
    };
    for newline in ["x\ny", "x\ry", "x\n", "x\r", "\n.\r\n"] {
        let mut exchange = Played::exchange(House::default());
        let content = format!("{}{newline}", stamped(""));
        starts(&exchange.send(ADA, BOB, &content), "554 5.6.0 ");
        open(&mut exchange, ADA);
        starts(&last(exchange.tell(&chunks(&content))), "[store exchange]");
        let own = format!("From: erp@contoso.com\r\n\r\n{newline}");
        for repair in [false, true] {
            let mut policy = policy(Service::Submission);
            if repair {
                policy.bare_newlines = BareNewlines::Repair;
            }
            let mut application = Played::secured(policy, House::default(), false, false);
            let expected = if repair {
                "[store exchange]"
            } else {
                "554 5.6.0 "
            };
            starts(&application.send("erp@contoso.com", BOB, &own), expected);
            open(&mut application, "erp@contoso.com");
            starts(&last(application.tell(&chunks(&own))), expected);
        }
    }
    // In the header section nothing is forgiven, but where the listener repairs before it splits.
    let mut exchange = Played::exchange(House::default());
    open(&mut exchange, ADA);
    let content = stamped("X: a\nb: c\r\n");
    starts(&last(exchange.tell(&chunks(&content))), "554 5.6.0 ");
}

#[test]
fn the_null_sender_is_for_applications_that_list_it() {
    let mut application =
        Played::secured(policy(Service::Submission), House::default(), false, false);
    let own = "From: erp@contoso.com\r\n\r\nbody";
    starts(&application.send("", BOB, own), "[store exchange]");
    let other = "From: ceo@contoso.com\r\n\r\nbody";
    starts(&application.send("", BOB, other), "550 5.7.1 ");
}

#[test]
fn a_login_outlives_a_reload_but_what_it_may_do_is_what_is_configured_now() {
    let old = || application(&Arc::new(contoso()), &["old@contoso.com"], false);
    let log_in = |gone: bool| {
        let house = House {
            gone,
            ..House::default()
        };
        let mut played = Played::secured(policy(Service::Submission), house, false, false);
        played.tell("AUTH PLAIN AGVycABwdw==\r\n");
        let accepted = Credentials::Accepted(old());
        played.session.handle(NOW, Input::Credentials(accepted));
        starts(&played.said(), "235 2.7.0 ");
        played
    };
    let mut kept = log_in(false);
    starts(&kept.tell("MAIL FROM:<old@contoso.com>\r\n"), "550 5.7.1 ");
    starts(&kept.tell("MAIL FROM:<new@contoso.com>\r\n"), "250 2.1.0 ");
    let mut gone = log_in(true);
    starts(&gone.tell("MAIL FROM:<old@contoso.com>\r\n"), "530 5.7.0 ");
    assert_eq!(
        gone.tell("AUTH PLAIN AGVycABwdw==\r\n"),
        "",
        "is asked anew"
    );
}
