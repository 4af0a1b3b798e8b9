//! Faults of the connector or of a recipient, certificates that are not shown, and what becomes of mail that is held.

use super::*;

#[tokio::test]
async fn a_recipient_fault_fails_after_an_hour() {
    let stage = Stage::new().await;
    stage
        .exchange
        .script(Step::reply(Phase::Rcpt, "550 5.7.133 SenderNotAuthenticatedForGroup").always());
    stage.simple(1);
    stage.settled(1).await;
    stage.advance(59 * MINUTE);
    stage.settled(2).await;
    stage.advance(MINUTE);
    let log = stage.settled(3).await;
    assert!(
        matches!(&log[1].2, Disposition::Held { next_try, .. } if *next_try == START + 60 * MINUTE),
        "{log:?}"
    );
    assert!(matches!(&log[2].2, Disposition::Failed { .. }), "{log:?}");
}

#[tokio::test]
async fn an_expired_message_fails_with_the_last_reply() {
    let stage = Stage::new().await;
    stage
        .exchange
        .script(Step::reply(Phase::EndOfData, "451 4.7.0 Temporary server error. PRX4").always());
    let old = message(
        1,
        "contoso",
        &["bob@contoso.com"],
        MAIL,
        START - 48 * 60 * MINUTE,
    );
    stage.fake.put(old, MAIL);
    let log = stage.settled(1).await;
    assert!(
        matches!(&log[0].2, Disposition::Failed { reply } if reply.contains("PRX4")),
        "{log:?}"
    );
}

#[tokio::test]
async fn a_wrong_server_certificate_parks_the_queue_and_the_right_one_releases_it() {
    let stage = Stage::new().await;
    let stranger = Authority::new("Stranger")
        .unwrap()
        .issue(&Leaf::exchange())
        .unwrap();
    stage.exchange.show_certificate(&stranger).unwrap();
    for id in 1..=3 {
        stage.simple(id);
        stage.settled(usize::try_from(id).unwrap()).await;
    }
    let log = stage.fake.log();
    assert!(
        log.iter().all(
            |(_, _, what)| matches!(what, Disposition::Held { reply, .. } if reply.contains("TLS"))
        ),
        "{log:?}"
    );
    assert_eq!(stage.queue_states(), ["parked"]);
    let connections = stage.exchange.connections();
    stage.simple(4);
    // The next message waits: nothing but the probe goes out.
    stage.advance(16 * MINUTE);
    stage.settled(4).await;
    assert_eq!(stage.exchange.connections(), connections + 1);
    assert_eq!(stage.queue_states(), ["parked", "probe_failed"]);
    let holds = stage.dispatcher.holds();
    let now = stage.clock.load(Ordering::SeqCst);
    let fault = holds
        .fault_older_than("contoso", now, Duration::from_secs(900))
        .unwrap();
    assert!(fault.contains("UnknownIssuer"), "{fault}");
    assert_eq!(
        holds.fault_older_than("fabrikam-ag", now, Duration::from_secs(900)),
        None
    );

    let right = stage.authority.issue(&Leaf::exchange()).unwrap();
    stage.exchange.show_certificate(&right).unwrap();
    stage.advance(5 * MINUTE);
    stage.delivered(4).await;
    assert_eq!(
        stage.queue_states().last().map(String::as_str),
        Some("released")
    );
    assert_eq!(
        holds.fault_older_than("contoso", u64::MAX, Duration::ZERO),
        None
    );
    assert_eq!(stage.exchange.taken(), 4);
}

#[tokio::test]
async fn a_server_with_another_name_is_not_trusted() {
    let stage = Stage::new().await;
    let other = stage
        .authority
        .issue(&Leaf::named("mail.evil.example"))
        .unwrap();
    stage.exchange.show_certificate(&other).unwrap();
    stage.simple(1);
    let log = stage.settled(1).await;
    assert!(
        matches!(&log[0].2, Disposition::Held { reply, .. } if reply.contains("NotValidForName")),
        "{log:?}"
    );
    let expired = stage.authority.issue(&Leaf::exchange().expired()).unwrap();
    stage.exchange.show_certificate(&expired).unwrap();
    stage.advance(MINUTE);
    let log = stage.settled(2).await;
    assert!(
        matches!(&log[1].2, Disposition::Held { reply, .. } if reply.contains("Expired")),
        "{log:?}"
    );
    let host = stage
        .authority
        .issue(&Leaf::named("x.example").and("127.0.0.1"))
        .unwrap();
    stage.exchange.show_certificate(&host).unwrap();
    stage.advance(MINUTE);
    stage.delivered(1).await;
}

#[tokio::test]
async fn a_lapsed_own_certificate_is_never_shown_and_a_reload_mends_it() {
    let stage = Stage::with(|options| options, |settings| settings, Leaf::expired).await;
    stage.simple(1);
    let log = stage.settled(1).await;
    assert!(
        matches!(&log[0].2, Disposition::Held { reply, .. } if reply.contains("certificate test has expired")),
        "{log:?}"
    );
    assert_eq!(stage.exchange.connections(), 0);
    assert_eq!(stage.queue_states(), ["parked"]);
    let port = stage.exchange.address().port();
    stage
        .dispatcher
        .reload(settings(&stage.authority, port, |leaf| leaf));
    stage.delivered(1).await;
}

#[tokio::test]
async fn a_certificate_in_a_foreign_name_is_never_shown() {
    let change = |mut settings: DeliverSettings| {
        settings.tenants = Tenants::new(vec![tenant("contoso-other")]);
        let mut own = (*tenant("contoso")).clone();
        own.accepted_domains = DomainSet::new(vec!["other.example".parse().unwrap()]);
        settings.tenants = Tenants::new(vec![Arc::new(own)]);
        settings
    };
    let stage = Stage::with(|options| options, change, |leaf| leaf).await;
    stage.simple(1);
    let log = stage.settled(1).await;
    assert!(
        matches!(&log[0].2, Disposition::Held { reply, .. } if reply.contains("accepted domains")),
        "{log:?}"
    );
    assert_eq!(stage.exchange.connections(), 0);
}

#[tokio::test]
async fn a_busy_next_hop_pauses_the_queue() {
    let stage = Stage::new().await;
    stage
        .exchange
        .script(Step::reply(Phase::Mail, "451 4.7.500 Server busy").times(1));
    stage.simple(1);
    stage.settled(1).await;
    stage.simple(2);
    assert_eq!(stage.queue_states(), ["backed_off"]);
    stage.advance(MINUTE);
    stage.delivered(2).await;
    assert_eq!(stage.queue_states(), ["backed_off"]);
}

#[tokio::test]
async fn after_its_hold_a_message_is_retried_until_it_expires() {
    let change = |mut settings: DeliverSettings| {
        settings.exchange_law = Law {
            retry: vec![Duration::from_secs(60)],
            expire: Duration::from_secs(300),
            hold_on_connector_fault: Duration::from_secs(120),
            delay_notice: None,
        };
        settings
    };
    let stage = Stage::with(|options| options, change, |leaf| leaf).await;
    let fault = "550 5.7.64 TenantAttribution; Relay Access Denied";
    stage
        .exchange
        .script(Step::reply(Phase::Rcpt, fault).always());
    stage.simple(1);
    let mut kinds = Vec::new();
    for attempt in 1..=6 {
        let log = stage.settled(attempt).await;
        kinds.push(match &log[attempt - 1].2 {
            Disposition::Delivered => "delivered",
            Disposition::Failed { reply } if reply.contains("5.7.64") => "failed",
            Disposition::Failed { .. } => "failed without the reply",
            Disposition::Deferred { .. } => "deferred",
            Disposition::Held { since: START, .. } => "held",
            Disposition::Held { .. } => "held anew",
        });
        stage.advance(MINUTE);
    }
    assert_eq!(
        kinds,
        ["held", "held", "deferred", "deferred", "deferred", "failed"]
    );
}

#[tokio::test]
async fn a_parked_queue_is_released_to_normal_retry_when_the_hold_is_over() {
    let stage = Stage::new().await;
    let fault = "451 4.4.62 Mail sent to the wrong Office 365 region. ATTR35";
    stage
        .exchange
        .script(Step::reply(Phase::Rcpt, fault).always());
    for id in 1..=3 {
        stage.simple(id);
        stage.settled(usize::try_from(id).unwrap()).await;
    }
    stage.simple(4);
    stage.advance(24 * 60 * MINUTE);
    let log = stage.settled(7).await;
    assert!(
        log[3..]
            .iter()
            .all(|(_, _, what)| matches!(what, Disposition::Deferred { .. })),
        "{log:?}"
    );
    assert_eq!(stage.queue_states(), ["parked", "released"]);
    let holds = stage.dispatcher.holds();
    assert_eq!(
        holds.fault_older_than("contoso", u64::MAX, Duration::ZERO),
        None
    );
}

#[tokio::test]
async fn the_probe_of_a_parked_queue_is_its_oldest_message_due_or_not() {
    let stage = Stage::new().await;
    let fault = "550 5.7.64 TenantAttribution; Relay Access Denied";
    stage
        .exchange
        .script(Step::reply(Phase::Rcpt, fault).always());
    // The first meets the fault three times, so that its own next attempt is five minutes away.
    stage.simple(1);
    for attempt in 1..=3 {
        stage.settled(attempt).await;
        if attempt < 3 {
            stage.advance(MINUTE);
        }
    }
    for id in 2..=3 {
        stage.simple(id);
        stage.settled(usize::try_from(id).unwrap() + 2).await;
    }
    assert_eq!(stage.queue_states(), ["parked"]);
    stage.advance(MINUTE);
    let log = stage.settled(6).await;
    assert_eq!(log[5].0, QueueId::from_u64(1), "{log:?}");
    // A queue whose messages all wait is probed all the same.
    let alone = Stage::new().await;
    alone
        .exchange
        .script(Step::reply(Phase::Rcpt, fault).always());
    for id in 1..=3 {
        alone.simple(id);
        alone.settled(usize::try_from(id).unwrap()).await;
    }
    alone.fake.put_off(10 * MINUTE);
    alone.advance(MINUTE);
    let log = alone.settled(4).await;
    assert_eq!(log[3].0, QueueId::from_u64(1), "{log:?}");
    assert_eq!(alone.queue_states(), ["parked", "probe_failed"]);
}

/// Three messages, the first of them to `full@contoso.com`, and a queue that is parked by them.
async fn parked() -> Stage {
    let stage = Stage::new().await;
    let fault = "550 5.7.64 TenantAttribution; Relay Access Denied";
    stage
        .exchange
        .script(Step::reply(Phase::Rcpt, fault).always());
    stage.put(1, "contoso", &["full@contoso.com"], MAIL);
    stage.settled(1).await;
    for id in 2..=3 {
        stage.simple(id);
        stage.settled(usize::try_from(id).unwrap()).await;
    }
    assert_eq!(stage.queue_states(), ["parked"]);
    stage.exchange.forget_script();
    stage
}

#[tokio::test]
async fn a_probe_that_is_answered_for_its_recipient_releases_the_queue() {
    let after = START + MINUTE;
    for (phase, reply, next) in [
        (Phase::Rcpt, "450 4.2.1 mailbox busy", Some(after + MINUTE)),
        (
            Phase::Rcpt,
            "550 5.2.122 The recipient has exceeded their limit",
            Some(after + 60 * MINUTE),
        ),
        (
            Phase::Rcpt,
            "550 5.7.12 rejected by organization policy",
            Some(after + MINUTE),
        ),
        (Phase::Rcpt, "550 5.1.1 User unknown", None),
        (
            Phase::EndOfData,
            "451 4.7.0 Temporary server error. PRX4",
            Some(after + MINUTE),
        ),
    ] {
        let stage = parked().await;
        stage.exchange.script(Step::reply(phase, reply).times(1));
        stage.advance(MINUTE);
        stage.delivered(2).await;
        let log = stage.fake.log();
        assert_eq!(log[3].0, QueueId::from_u64(1), "{log:?}");
        match (&log[3].2, next) {
            (Disposition::Failed { .. }, None) => {}
            (
                Disposition::Deferred { next_try, .. } | Disposition::Held { next_try, .. },
                Some(next),
            ) => {
                assert_eq!(*next_try, next, "its own time: {log:?}");
                assert_eq!(stage.fake.state(1), Some((2, false)), "{reply}");
            }
            _ => panic!("{log:?}"),
        }
        assert_eq!(stage.queue_states(), ["parked", "released"], "{reply}");
    }
}

#[tokio::test]
async fn a_probe_that_says_nothing_of_its_message_keeps_the_queue_parked() {
    for (phase, reply) in [
        (Phase::Connect, "421 4.3.2 Service not available"),
        (Phase::Ehlo, "550 5.1.1 not you"),
        (Phase::Mail, "550 5.7.51 TenantInboundAttribution"),
        (Phase::Mail, "451 4.7.500 Server busy"),
        (Phase::Mail, "421 4.3.2 Service not available"),
        (Phase::Rcpt, "451 4.7.500 Server busy"),
        (Phase::Rcpt, "550 5.7.64 TenantAttribution"),
    ] {
        let stage = parked().await;
        stage.exchange.script(Step::reply(phase, reply).always());
        stage.advance(MINUTE);
        stage.settled(4).await;
        let states = stage.queue_states();
        assert!(
            states.starts_with(&["parked".to_owned(), "probe_failed".to_owned()]),
            "{reply}: {states:?}"
        );
        assert!(!states.contains(&"released".to_owned()), "{states:?}");
    }
    let stage = parked().await;
    stage
        .exchange
        .script(Step::new(Phase::EndOfData, Action::Drop).always());
    stage.advance(MINUTE);
    stage.settled(4).await;
    assert_eq!(stage.queue_states(), ["parked", "probe_failed"], "lost");
}

#[tokio::test]
async fn what_an_operator_wants_tried_goes_at_once() {
    let stage = Stage::new().await;
    stage
        .exchange
        .script(Step::reply(Phase::Mail, "451 4.7.500 Server busy").times(3));
    stage.simple(1);
    for attempt in 1..=3 {
        stage.settled(attempt).await;
        // Each pause is the first step again.
        assert_eq!(stage.fake.pauses(), [START + MINUTE], "as a list shows it");
        stage.fake.retry(1, START);
    }
    stage.delivered(1).await;
    assert_eq!(stage.fake.pauses(), Vec::<u64>::new());
    assert_eq!(stage.queue_states(), ["backed_off"; 3]);
    // A parked queue asks at once, with its oldest message, and goes on waiting where nothing was mended.
    let stage = parked().await;
    let fault = "550 5.7.64 TenantAttribution; Relay Access Denied";
    stage
        .exchange
        .script(Step::reply(Phase::Rcpt, fault).times(1));
    stage.fake.retry(2, START);
    let log = stage.settled(4).await;
    assert_eq!(log[3].0, QueueId::from_u64(1), "{log:?}");
    assert_eq!(stage.queue_states(), ["parked", "probe_failed"]);
    stage.fake.retry(3, START);
    stage.delivered(3).await;
    let states = stage.queue_states();
    assert_eq!(states, ["parked", "probe_failed", "released"]);
}
