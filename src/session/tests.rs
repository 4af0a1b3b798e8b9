//! Rules of a session that no transcript can tell: the stop of the server, strangers, balancers.

use super::*;
use crate::route::{From, Recipients, Route, Routes, Via};
use crate::trust::HalfProven;
use crate::trust::fixtures::{contoso, tenants};
use std::net::IpAddr;

struct Desk;

impl Conditions for Desk {
    fn next_id(&self, _: Now) -> QueueId {
        QueueId::from_u64(1)
    }
    fn store_ready(&self) -> bool {
        true
    }
    fn connector_fault(&self, _: &str, _: Now) -> Option<String> {
        None
    }
    fn by_address(&self, address: IpAddr, _: &crate::mail::ReversePath) -> ByAddress {
        let application = Application {
            name: "scanner".into(),
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
    let route = Route {
        tenant: None,
        recipients: Recipients::Any,
        from: Some(From::Submission),
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
    Session::new(Arc::new(policy), Arc::new(Desk), peer, network, at(0))
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

    let mut known = session(Service::Connector, true);
    said(&mut known, at(0));
    let replies = tell(&mut known, at(1), &"NOOP\r\n".repeat(12));
    assert_eq!(replies.matches("250 2.0.0").count(), 12, "{replies}");
    assert_eq!(known.deadline(), Some(1 + COMMAND_MILLIS));
}

#[test]
fn a_stranger_inside_tls_has_the_patience_of_anyone() {
    let mut session = session(Service::Connector, false);
    tell(&mut session, at(0), "EHLO x\r\nSTARTTLS\r\n");
    let facts = TlsFacts {
        version: "TLS1.3".to_owned(),
        cipher: "TLS_AES_256_GCM_SHA384".to_owned(),
        peer_name: None,
        resumed: false,
    };
    let absent = ClientCertificate::Absent(WhyAbsent::NotPresented);
    session.handle(at(10), Input::Secured(facts, absent));
    assert_eq!(session.deadline(), Some(10 + COMMAND_MILLIS));
    let replies = tell(&mut session, at(11), &"NOOP\r\n".repeat(12));
    assert_eq!(replies.matches("250 2.0.0").count(), 12, "{replies}");
}
