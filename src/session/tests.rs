//! Rules of a session that no transcript can tell: the stop of the server, strangers, balancers.

use super::*;
use crate::route::{Recipients, Route, Routes, Via};
use crate::trust::HalfProven;
use crate::trust::fixtures::{contoso, tenants};
use std::net::IpAddr;

#[derive(Default)]
struct Desk {
    store_fails: bool,
    fault: Option<&'static str>,
}

impl Conditions for Desk {
    fn next_id(&self, _: Now) -> QueueId {
        QueueId::from_u64(1)
    }
    fn store_ready(&self) -> bool {
        !self.store_fails
    }
    fn connector_fault(&self, _: &str, _: Now) -> Option<String> {
        self.fault.map(str::to_owned)
    }
    fn by_address(&self, address: IpAddr, _: &crate::mail::ReversePath) -> ByAddress {
        let application = Application {
            name: "scanner".into(),
            username: None,
            tenant: Arc::new(contoso()),
            senders: vec!["scanner@contoso.com".parse().unwrap()],
            internal: false,
            stream: None,
            bounces_to: None,
        };
        if address == IpAddr::from([127, 0, 0, 1]) {
            ByAddress::Application(Arc::new(application))
        } else {
            ByAddress::Unknown
        }
    }
    fn renewed(&self, application: &Arc<Application>) -> Option<Arc<Application>> {
        Some(Arc::clone(application))
    }
    fn within_rate(&self, _: &str, _: Now) -> bool {
        true
    }
    fn within_validation_rate(&self, _: &str, _: Now) -> bool {
        true
    }
}

fn at(ticks: u64) -> Now {
    Now {
        unix_millis: 1_795_593_600_000 + ticks,
        ticks,
    }
}

/// A session in clear text; `service` and whether the address lies in Exchange Online's networks.
fn session(service: Service, network: bool) -> Session {
    session_at(Desk::default(), service, network)
}

fn session_at(desk: Desk, service: Service, network: bool) -> Session {
    let route = Route {
        tenant: None,
        recipients: Recipients::Any,
        from: None,
        stream: None,
        via: Via::Exchange,
    };
    let policy = Policy {
        hostname: "mx.example".parse().unwrap(),
        listener: "listener".into(),
        service,
        tls: TlsMode::Optional,
        max_message_size: 1 << 20,
        ehlo_discard: Vec::new(),
        bare_newlines: BareNewlines::Refuse,
        auth_without_tls: true,
        half_proven: HalfProven::Defer,
        tenants: tenants([contoso()]),
        routes: Routes::new(vec![route]),
    };
    let peer = ([127, 0, 0, 1], 4000).into();
    Session::new(Arc::new(policy), Arc::new(desk), peer, network, at(0))
}

/// What it says and does now; appends are done at once.
fn said(session: &mut Session, now: Now) -> String {
    let mut said = String::new();
    while let Some(output) = session.next_output() {
        match output {
            Output::Send(bytes) => said.push_str(&String::from_utf8(bytes).unwrap()),
            Output::Close => said.push_str("closed"),
            Output::Append(_) => session.handle(now, Input::Appended(Ok(()))),
            Output::StartTls
            | Output::CheckCredentials(_)
            | Output::CheckSignatures(_)
            | Output::Abandon
            | Output::Store(..)
            | Output::Trace(_) => {}
        }
    }
    said
}

fn tell(session: &mut Session, now: Now, text: &str) -> String {
    session.handle(now, Input::Bytes(text.as_bytes()));
    said(session, now)
}

/// The handshake succeeds, without a client certificate.
fn secure(session: &mut Session, now: Now) {
    let facts = TlsFacts {
        version: "TLS1.3".to_owned(),
        cipher: "TLS_AES_256_GCM_SHA384".to_owned(),
        peer_name: None,
        resumed: false,
    };
    let absent = ClientCertificate::Absent(WhyAbsent::NotPresented);
    session.handle(now, Input::Secured(facts, absent));
}

const MAIL: &str = "EHLO x\r\nMAIL FROM:<scanner@contoso.com>\r\nRCPT TO:<bob@contoso.com>\r\n";

#[test]
fn a_stop_ends_what_has_no_content_at_once() {
    for words in ["", "EHLO x\r\n", MAIL, "EHLO x\r\nAUTH LOGIN\r\n"] {
        let mut session = session(Service::Submission, false);
        tell(&mut session, at(0), words);
        session.handle(at(1), Input::Shutdown);
        let end = said(&mut session, at(1));
        assert!(
            end.starts_with("421 4.3.2 ") && end.ends_with("closed"),
            "{words:?}: {end}"
        );
    }
}

#[test]
fn a_stop_lets_content_that_arrives_end_within_fifteen_seconds() {
    let mut session = session(Service::Submission, false);
    let reply = tell(
        &mut session,
        at(0),
        &format!("{MAIL}DATA\r\nSubject: x\r\n"),
    );
    assert!(reply.contains("354 "), "{reply}");
    session.handle(at(1000), Input::Shutdown);
    assert_eq!(said(&mut session, at(1000)), "", "the rest may come");
    assert_eq!(session.deadline(), Some(16_000));
    tell(&mut session, at(15_000), &"x: y\r\n".repeat(1000));
    assert_eq!(session.deadline(), Some(16_000), "and no later");
    session.handle(at(16_000), Input::Deadline);
    let end = said(&mut session, at(16_000));
    assert!(
        end.starts_with("421 4.3.2 ") && end.ends_with("closed"),
        "{end}"
    );
}

#[test]
fn half_a_line_does_not_hold_up_a_stop() {
    let mut session = session(Service::Submission, false);
    tell(
        &mut session,
        at(0),
        "EHLO x\r\nMAIL FROM:<scanner@contoso.com>\r\nRCPT TO:<bob",
    );
    session.handle(at(1), Input::Shutdown);
    let end = said(&mut session, at(1));
    assert!(end.starts_with("421 4.3.2 "), "{end}");
}

#[test]
fn a_stranger_has_thirty_seconds_and_ten_commands_before_starttls() {
    let mut slow = session(Service::Connector, false);
    said(&mut slow, at(0));
    for second in 1..=9 {
        let now = at(second * 3000);
        assert!(tell(&mut slow, now, "NOOP\r\n").starts_with("250 "));
        assert_eq!(slow.deadline(), Some(30_000), "not put off by commands");
    }
    slow.handle(at(30_000), Input::Deadline);
    assert!(said(&mut slow, at(30_000)).starts_with("421 4.7.0 "));

    let mut busy = session(Service::Connector, false);
    said(&mut busy, at(0));
    let replies = tell(&mut busy, at(1), &"NOOP\r\n".repeat(12));
    assert_eq!(replies.matches("250 2.0.0").count(), 10, "{replies}");
    assert!(replies.contains("421 4.7.0 ") && replies.ends_with("closed"));

    let mut chunk = session(Service::Connector, false);
    let octets = format!("BDAT 100000\r\n{}", "x".repeat(9000));
    assert!(tell(&mut chunk, at(1), &octets).starts_with("220 "));
    assert_eq!(chunk.deadline(), Some(30_000), "not put off by octets");

    let mut known = session(Service::Connector, true);
    said(&mut known, at(0));
    let replies = tell(&mut known, at(1), &"NOOP\r\n".repeat(12));
    assert_eq!(replies.matches("250 2.0.0").count(), 12, "{replies}");
    assert_eq!(known.deadline(), Some(1 + COMMAND_MILLIS));
}

#[test]
fn a_stranger_inside_tls_has_two_minutes_in_all_and_the_commands_of_anyone() {
    let mut session = session(Service::Connector, false);
    tell(&mut session, at(0), "EHLO x\r\nSTARTTLS\r\n");
    secure(&mut session, at(10));
    assert_eq!(session.deadline(), Some(UNKNOWN_MILLIS));
    let replies = tell(&mut session, at(11), &"NOOP\r\n".repeat(12));
    assert_eq!(replies.matches("250 2.0.0").count(), 12, "{replies}");
}

#[test]
fn a_proxy_header_from_an_address_that_is_no_balancer_ends_the_session() {
    let v2 = "\r\n\r\n\0\r\nQUIT\n\u{21}\u{11}";
    for header in ["PROXY TCP4 127.0.40.1 127.0.0.1 5 25\r\n", v2] {
        for piece in [1, 3, 100] {
            let mut session = session(Service::Connector, true);
            said(&mut session, at(0));
            let mut end = String::new();
            for part in header.as_bytes().chunks(piece) {
                session.handle(at(1), Input::Bytes(part));
                end.push_str(&said(&mut session, at(1)));
            }
            assert!(
                end.starts_with("421 4.7.0 ") && end.ends_with("closed"),
                "{header:?} by {piece}: {end}"
            );
            assert_eq!(end.lines().count(), 2, "nothing else is said: {end}");
        }
    }
    let mut session = session(Service::Connector, true);
    said(&mut session, at(0));
    tell(&mut session, at(1), "EHLO x\r\n");
    let later = tell(&mut session, at(1), "PROXY TCP4 1.1.1.1 1.1.1.1 5 25\r\n");
    assert!(later.starts_with("500 "), "only first: {later}");
    let empty = tell(&mut session, at(1), "\r\n");
    assert!(empty.starts_with("500 "), "{empty}");
}

#[test]
fn an_empty_first_line_is_answered_once_it_is_no_proxy_header() {
    let mut session = session(Service::Connector, true);
    said(&mut session, at(0));
    assert_eq!(tell(&mut session, at(1), "\r\n"), "");
    let replies = tell(&mut session, at(1), "NOOP\r\n");
    assert!(
        replies.starts_with("500 ") && replies.contains("250 2.0.0"),
        "{replies}"
    );
}

#[test]
fn a_balancers_own_address_is_no_application_and_passes_no_network_gate() {
    let mut own = session(Service::Submission, false);
    let replies = tell(&mut own, at(1), MAIL);
    assert!(replies.contains("250 2.1.0"), "by its address: {replies}");
    let mut balancer = session(Service::Submission, false).with_unproven_address();
    let replies = tell(&mut balancer, at(1), MAIL);
    assert!(replies.contains("530 5.7.0"), "{replies}");
    let mut balancer = session(Service::Connector, true).with_unproven_address();
    said(&mut balancer, at(0));
    let replies = tell(&mut balancer, at(1), &"NOOP\r\n".repeat(12));
    assert!(replies.contains("421 4.7.0"), "a stranger: {replies}");
}

#[test]
fn starttls_within_a_transaction_is_out_of_place() {
    let chunk = "BDAT 29\r\nFrom: scanner@contoso.com\r\n\r\n";
    for clear in ["", chunk] {
        let mut session = session(Service::Submission, false);
        let replies = tell(&mut session, at(0), &format!("{MAIL}{clear}STARTTLS\r\n"));
        let last = replies.lines().last().unwrap();
        assert!(last.starts_with("503 5.5.1 "), "{replies}");
        let replies = tell(&mut session, at(0), "RSET\r\nSTARTTLS\r\n");
        assert!(replies.contains("220 2.0.0 "), "{replies}");
    }
}

#[test]
fn what_was_said_in_clear_text_is_forgotten_under_tls() {
    let mut session = session(Service::Submission, false);
    let login = "AUTH PLAIN AGVycABwdw==\r\n";
    tell(&mut session, at(0), &format!("EHLO x\r\n{login}"));
    let ByAddress::Application(application) =
        Desk::default().by_address([127, 0, 0, 1].into(), &crate::mail::ReversePath::Null)
    else {
        panic!("no application");
    };
    session.handle(
        at(1),
        Input::Credentials(Credentials::Accepted(application)),
    );
    assert!(said(&mut session, at(1)).starts_with("235 "));
    assert!(tell(&mut session, at(1), login).starts_with("503 "), "once");
    tell(&mut session, at(2), "STARTTLS\r\n");
    secure(&mut session, at(3));
    let mail = tell(&mut session, at(3), "MAIL FROM:<scanner@contoso.com>\r\n");
    assert!(mail.starts_with("503 5.5.1 "), "EHLO anew: {mail}");
    tell(&mut session, at(3), &format!("EHLO x\r\n{login}"));
    session.handle(at(4), Input::Credentials(Credentials::Rejected));
    assert!(
        said(&mut session, at(4)).starts_with("535 "),
        "and AUTH anew"
    );
}

#[test]
fn octets_behind_a_chunk_of_unknown_size_are_no_commands() {
    for bad in [
        "BDAT",
        "bdat x LAST",
        "BDAT 99999999999999999999",
        "BDAT 4 LAST LAST",
        "BDAT -1",
    ] {
        let mut session = session(Service::Submission, false);
        tell(&mut session, at(0), MAIL);
        let replies = tell(&mut session, at(1), &format!("{bad}\r\nNOOP\r\n"));
        assert!(replies.starts_with("501 5.5.4 "), "{bad}: {replies}");
        assert!(replies.ends_with("closed"), "{bad}: {replies}");
        assert!(!replies.contains("250 "), "{bad}: {replies}");
    }
}

#[test]
fn a_store_that_cannot_take_mail_is_told_at_mail_and_at_the_end_and_the_session_goes_on() {
    let desk = Desk {
        store_fails: true,
        ..Desk::default()
    };
    let mut full = session_at(desk, Service::Submission, false);
    let replies = tell(&mut full, at(1), MAIL);
    assert!(replies.contains("451 4.3.1 "), "{replies}");
    assert!(!replies.contains("250 2.1.0"), "{replies}");

    let content = format!("{MAIL}DATA\r\nFrom: scanner@contoso.com\r\n\r\nbody\r\n.\r\nNOOP\r\n");
    for error in [
        SpoolError::Full,
        SpoolError::Failing("EIO".to_owned()),
        SpoolError::Closed,
    ] {
        // At the last byte: the record could not be written.
        let mut session = session(Service::Submission, false);
        let before = tell(&mut session, at(1), &content);
        assert!(
            before.ends_with("\r\n") && before.contains("354 "),
            "{before}"
        );
        session.handle(at(2), Input::Stored(Err(error.clone())));
        let end = said(&mut session, at(2));
        assert!(end.starts_with("451 4.3.1 "), "{error:?}: {end}");
        assert!(end.contains("250 2.0.0"), "the NOOP behind it: {end}");
        assert!(!end.contains("queued as"), "{end}");

        // Before it: the rest is read, then answered.
        let mut session = self::session(Service::Submission, false);
        session.handle(at(1), Input::Bytes(content.as_bytes()));
        let mut end = String::new();
        while let Some(output) = session.next_output() {
            match output {
                Output::Send(bytes) => end.push_str(&String::from_utf8(bytes).unwrap()),
                Output::Append(_) => session.handle(at(1), Input::Appended(Err(error.clone()))),
                Output::Store(..) => panic!("a draft with a hole is stored"),
                Output::StartTls
                | Output::CheckCredentials(_)
                | Output::CheckSignatures(_)
                | Output::Abandon
                | Output::Trace(_)
                | Output::Close => {}
            }
        }
        assert!(end.contains("451 4.3.1 "), "{error:?}: {end}");
        assert!(end.contains("250 2.0.0"), "the NOOP behind it: {end}");
    }
}

#[test]
fn a_held_connector_is_told_to_exchange_and_not_to_applications() {
    let held = || Desk {
        fault: Some("550 5.7.64 TenantAttribution"),
        ..Desk::default()
    };
    let letter = "DATA\r\nFrom: ada@contoso.com\r\nX-OriginatorOrg: contoso.com\r\n\
        X-MS-Exchange-CrossTenant-Id: TENANT\r\n\r\nbody\r\n.\r\n";
    let letter = letter.replace("TENANT", &contoso().id.to_string());
    let from_ada = "EHLO x\r\nMAIL FROM:<ada@contoso.com>\r\nRCPT TO:<bob@contoso.com>\r\n";
    for (desk, wanted) in [(held(), Some("451 4.4.0 ")), (Desk::default(), None)] {
        let mut exchange = session_at(desk, Service::Connector, true);
        tell(&mut exchange, at(0), "EHLO x\r\nSTARTTLS\r\n");
        let facts = TlsFacts {
            version: "TLS1.3".to_owned(),
            cipher: "TLS_AES_256_GCM_SHA384".to_owned(),
            peer_name: None,
            resumed: false,
        };
        let verified = ClientCertificate::Verified {
            name: "mail.protection.outlook.com".into(),
        };
        exchange.handle(at(1), Input::Secured(facts, verified));
        let replies = tell(&mut exchange, at(1), &format!("{from_ada}{letter}"));
        let (_, answer) = replies.split_once("354 ").unwrap();
        let answer = answer.lines().nth(1);
        match wanted {
            Some(code) => {
                let answer = answer.unwrap();
                assert!(answer.starts_with(code), "{answer}");
                assert!(answer.contains("5.7.64"), "with the fault: {answer}");
            }
            None => assert_eq!(answer, None, "it is being stored"),
        }
    }
    let mut device = session_at(held(), Service::Submission, false);
    let letter = "DATA\r\nFrom: scanner@contoso.com\r\n\r\nbody\r\n.\r\n";
    let replies = tell(&mut device, at(1), &format!("{MAIL}{letter}"));
    let (_, answer) = replies.split_once("354 ").unwrap();
    assert_eq!(answer.lines().nth(1), None, "it is being stored: {replies}");
}
