//! Mail on its way to Exchange: connections, recipients, content, and what cannot be reached.

use super::*;

#[tokio::test]
async fn a_message_arrives_byte_for_byte_with_the_tenants_certificate() {
    let stage = Stage::new().await;
    stage.simple(1);
    let received = stage.exchange.received().await.unwrap();
    assert_eq!(received.content, whole(MAIL));
    assert_eq!(
        received.identity,
        ClientIdentity::Trusted {
            names: vec!["contoso.com".to_owned()]
        }
    );
    assert_eq!(received.tenant(), "contoso");
    assert!(
        received.transfer != Transfer::Data,
        "{:?}",
        received.transfer
    );
    stage.delivered(1).await;
    let trace = stage.trace.lock().unwrap();
    let Event::Attempt {
        results,
        tls,
        address,
        ..
    } = &trace[0].event
    else {
        panic!()
    };
    assert_eq!(results[0].outcome, "delivered");
    assert!(
        results[0].reply.starts_with("250 2.6.0"),
        "{}",
        results[0].reply
    );
    assert!(address.is_some());
    assert_eq!(
        tls.as_ref().unwrap().peer_name.as_deref(),
        Some("mail.protection.outlook.com")
    );
    let text = String::from_utf8(stage.metrics.text().unwrap()).unwrap();
    assert!(text.contains("gatepost_deliveries_total{outcome=\"delivered\",stream=\"\",tenant=\"contoso\",via=\"exchange\"} 1"), "{text}");
}

#[tokio::test]
async fn one_connection_carries_one_message_after_the_other() {
    let stage = Stage::new().await;
    for id in 1..=4 {
        stage.simple(id);
        stage.delivered(usize::try_from(id).unwrap()).await;
    }
    assert_eq!(stage.exchange.connections(), 1);
    assert_eq!(stage.reused(), [false, true, true, true]);
}

#[tokio::test]
async fn a_connection_ends_after_its_number_of_messages() {
    let change = |mut settings: DeliverSettings| {
        let mut own = (*settings.connectors[0]).clone();
        (own.max_messages_per_connection, own.max_connections) = (2, 1);
        settings.connectors[0] = Arc::new(own);
        settings
    };
    let stage = Stage::with(|options| options, change, |leaf| leaf).await;
    (1..=5).for_each(|id| stage.simple(id));
    stage.delivered(5).await;
    assert_eq!(stage.exchange.connections(), 3);
}

/// Exchange drops a connection at about 20 minutes (product.md 6): busy or not, it carries nothing after 15.
#[tokio::test(start_paused = true)]
async fn a_connection_ends_after_a_quarter_of_an_hour() {
    let change = |mut settings: DeliverSettings| {
        let mut own = (*settings.connectors[0]).clone();
        own.max_connections = 1;
        settings.connectors[0] = Arc::new(own);
        settings
    };
    let stage = Stage::with(|options| options, change, |leaf| leaf).await;
    // Eight minutes each, so that the connection is never without work.
    let slow = Action::Stall(Duration::from_secs(8 * 60));
    stage
        .exchange
        .script(Step::new(Phase::EndOfData, slow).times(2));
    (1..=4).for_each(|id| stage.simple(id));
    let patience = Duration::from_secs(3600);
    for _ in 0..4 {
        stage
            .exchange
            .received_within(patience, |_| true)
            .await
            .unwrap();
    }
    stage.delivered(4).await;
    assert_eq!(stage.reused(), [false, true, false, true]);
    assert_eq!(stage.exchange.connections(), 2);
}

#[tokio::test]
async fn a_closed_reused_connection_is_no_attempt() {
    for action in [
        Action::Drop,
        Action::ReplyAndClose("421 4.4.2 too long".to_owned()),
    ] {
        let stage = Stage::new().await;
        stage.simple(1);
        stage.delivered(1).await;
        stage.exchange.script(Step::new(Phase::Mail, action));
        stage.simple(2);
        stage.delivered(2).await;
        assert_eq!(stage.fake.log().len(), 2, "nothing was deferred");
        assert_eq!(stage.exchange.connections(), 2);
    }
}

#[tokio::test]
async fn a_new_connection_that_is_closed_is_an_attempt() {
    let stage = Stage::new().await;
    stage.exchange.script(Step::new(Phase::Mail, Action::Drop));
    stage.simple(1);
    let log = stage.settled(1).await;
    assert!(
        matches!(&log[0].2, Disposition::Deferred { next_try, .. } if *next_try == START + MINUTE),
        "{log:?}"
    );
    assert_eq!(stage.fake.state(1), Some((1, false)));
    stage.advance(MINUTE);
    stage.delivered(1).await;
}

#[tokio::test]
async fn two_tenants_never_share_a_connection() {
    let stage = Stage::new().await;
    for id in 0..20 {
        let name = ["contoso", "fabrikam-ag"][id % 2];
        stage.put(id as u64, name, &[&format!("bob@{name}.com")], MAIL);
    }
    stage.delivered(20).await;
    let mut owner = std::collections::HashMap::new();
    for received in stage.exchange.waiting() {
        let name = received.tenant().to_owned();
        let ClientIdentity::Trusted { names } = &received.identity else {
            panic!()
        };
        assert_eq!(names, &[format!("{name}.com")]);
        let first = owner
            .entry(received.connection)
            .or_insert_with(|| name.clone());
        assert_eq!(first, &name);
        assert!(received.sender.ends_with(&format!("@{name}.com")));
    }
    assert!(owner.len() >= 2);
}

#[tokio::test]
async fn too_many_recipients_are_split_without_delay() {
    let stage = Stage::new().await;
    stage.exchange.script(
        Step::reply(Phase::Rcpt, "452 4.5.3 Too many recipients")
            .after(2)
            .times(2),
    );
    let recipients: Vec<String> = (0..4).map(|n| format!("r{n}@contoso.com")).collect();
    let recipients: Vec<&str> = recipients.iter().map(String::as_str).collect();
    stage.put(1, "contoso", &recipients, MAIL);
    let log = stage.settled(4).await;
    assert!(
        log.iter()
            .all(|(_, _, what)| *what == Disposition::Delivered),
        "{log:?}"
    );
    assert_eq!(stage.exchange.taken(), 2);
    assert_eq!(stage.reused().len(), 1, "one attempt");
}

#[tokio::test]
async fn the_transactions_of_a_split_message_count_as_messages_of_the_connection() {
    let change = |mut settings: DeliverSettings| {
        let mut own = (*settings.connectors[0]).clone();
        (own.max_messages_per_connection, own.max_connections) = (2, 1);
        settings.connectors[0] = Arc::new(own);
        settings
    };
    let stage = Stage::with(|options| options, change, |leaf| leaf).await;
    // One recipient a transaction: the first RCPT of each is taken, the others are too many.
    for rest in (1..5).rev() {
        let step = Step::reply(Phase::Rcpt, "452 4.5.3 Too many recipients");
        stage.exchange.script(step.after(5 - rest).times(rest));
    }
    let recipients: Vec<String> = (0..5).map(|n| format!("r{n}@contoso.com")).collect();
    let recipients: Vec<&str> = recipients.iter().map(String::as_str).collect();
    stage.put(1, "contoso", &recipients, MAIL);
    stage.delivered(5).await;
    assert_eq!(stage.exchange.taken(), 5);
    assert_eq!(stage.exchange.connections(), 3, "two, two, one");
}

#[tokio::test]
async fn each_recipient_has_its_own_result() {
    let stage = Stage::new().await;
    for (who, reply) in [
        ("b", "550 5.1.10 RecipientNotFound"),
        ("c", "432 4.3.2 STOREDRV.Deliver; thread limit"),
        ("d", "550 5.7.133 SenderNotAuthenticatedForGroup"),
    ] {
        stage.exchange.script(
            Step::reply(Phase::Rcpt, reply)
                .for_recipient(&format!("{who}@contoso.com"))
                .always(),
        );
    }
    stage.put(
        1,
        "contoso",
        &[
            "a@contoso.com",
            "b@contoso.com",
            "c@contoso.com",
            "d@contoso.com",
        ],
        MAIL,
    );
    let mut log = stage.settled(4).await;
    log.sort_by_key(|(_, at, _)| *at);
    let kinds: Vec<_> = log.into_iter().map(|(_, _, what)| what).collect();
    assert_eq!(kinds[0], Disposition::Delivered);
    assert!(matches!(&kinds[1], Disposition::Failed { reply } if reply.contains("5.1.10")));
    assert!(matches!(&kinds[2], Disposition::Deferred { .. }));
    assert!(matches!(&kinds[3], Disposition::Held { since: START, .. }));
    assert_eq!(stage.queue_states().len(), 0, "no fault of the connector");
}

#[tokio::test]
async fn data_gets_its_final_newline_and_cannot_carry_bare_ones() {
    let stage = Stage::with(
        |options| options.hide("CHUNKING").hide("PIPELINING"),
        |settings| settings,
        |leaf| leaf,
    )
    .await;
    stage.simple(1);
    let received = stage.exchange.received().await.unwrap();
    assert_eq!(received.content, whole(&[MAIL, b"\r\n"].concat()));
    assert_eq!(received.transfer, Transfer::Data);
    stage.put(
        2,
        "contoso",
        &["bob@contoso.com"],
        b"From: a@contoso.com\r\n\r\nbare\nnewline\r\n",
    );
    let log = stage.settled(2).await;
    assert!(
        matches!(&log[1].2, Disposition::Failed { reply } if reply.contains("5.6.11")),
        "{log:?}"
    );
}

#[tokio::test]
async fn smtputf8_that_was_given_is_needed_for_addresses_and_header_alone() {
    let header = "From: J\u{fc}rgen <a@contoso.com>\r\n\r\nbody\r\n".as_bytes();
    let body = "From: a@contoso.com\r\n\r\nb\u{fc}dy\r\n".as_bytes();
    let omitted = "Bcc: J\u{fc}rgen <b@contoso.com>\r\n";
    let hidden = [omitted.as_bytes(), MAIL].concat();
    let top = "Received: by b\u{fc}cher\r\n";
    for hide in [false, true] {
        let options = |options: ExchangeOptions| {
            if hide {
                options.hide("SMTPUTF8")
            } else {
                options
            }
        };
        let stage = Stage::with(options, |settings| settings, |leaf| leaf).await;
        for (id, (given, content, omit, top, needed)) in [
            (true, MAIL, 0, "", false),
            (true, body, 0, "", false),
            (true, header, 0, "", true),
            (true, &hidden, omitted.len(), "", false),
            (true, MAIL, 0, top, true),
            // As it came from Exchange, which does so.
            (false, header, 0, "", false),
        ]
        .into_iter()
        .enumerate()
        {
            let mut sent = message(id as u64, "contoso", &["bob@contoso.com"], content, START);
            sent.envelope.smtputf8 = given;
            sent.legs[0]
                .rendition
                .prepend
                .extend_from_slice(top.as_bytes());
            // The store of this test leaves nothing out: what it keeps is what is left.
            let left = &content[omit..];
            sent.facts.size = left.len() as u64;
            stage.fake.put(sent, left);
            let log = stage.settled(id + 1).await;
            let what = &log[id].2;
            if hide && needed {
                let unfit =
                    matches!(what, Disposition::Failed { reply } if reply.contains("5.6.7"));
                assert!(unfit, "{id}: {what:?}");
                continue;
            }
            assert_eq!(*what, Disposition::Delivered, "{id}");
            let received = stage.exchange.received().await.unwrap();
            let said = received.parameters.iter().any(|said| said == "SMTPUTF8");
            assert_eq!(said, given && !hide, "{id}: {:?}", received.parameters);
        }
    }
}

#[tokio::test]
async fn large_content_arrives_whole_by_both_transfers() {
    let mut content = b"From: a@contoso.com\r\n\r\n".to_vec();
    for line in 0..60_000 {
        content.extend_from_slice(
            format!(
                "{}line {line} with some more text to fill it\r\n",
                ".".repeat(line % 3)
            )
            .as_bytes(),
        );
    }
    for hidden in ["XNOTHING", "CHUNKING"] {
        let stage = Stage::with(
            |options| options.hide(hidden),
            |settings| settings,
            |leaf| leaf,
        )
        .await;
        stage.put(1, "contoso", &["bob@contoso.com"], &content);
        let received = stage.exchange.received().await.unwrap();
        assert!(
            received.content == whole(&content),
            "{} octets",
            received.content.len()
        );
        stage.delivered(1).await;
    }
}

#[tokio::test]
async fn garbage_and_endless_replies_defer_the_message() {
    let endless = format!("{}250 end", "250-more\r\n".repeat(10_000));
    for reply in ["hello?", &endless] {
        let stage = Stage::new().await;
        stage.exchange.script(Step::reply(Phase::Mail, reply));
        stage.simple(1);
        let log = stage.settled(1).await;
        assert!(
            matches!(&log[0].2, Disposition::Deferred { reply, .. } if reply.contains("reply")),
            "{log:?}"
        );
    }
}

#[tokio::test]
async fn a_connection_that_is_lost_at_starttls_defers_the_message() {
    let stage = Stage::new().await;
    stage
        .exchange
        .script(Step::new(Phase::StartTls, Action::Drop).times(1));
    stage.simple(1);
    let log = stage.settled(1).await;
    assert!(
        matches!(&log[0].2, Disposition::Deferred { reply, .. } if reply.contains("after STARTTLS")),
        "{log:?}"
    );
    stage.advance(MINUTE);
    let received = stage.exchange.received().await.unwrap();
    assert!(received.tls.is_some(), "never in clear text");
}

#[tokio::test]
async fn an_unreachable_host_defers_each_message() {
    let change = |mut settings: DeliverSettings| {
        let mut own = (*settings.connectors[0]).clone();
        own.host = "host.invalid".into();
        settings.connectors[0] = Arc::new(own);
        settings.resolver = Arc::new(crate::dns::Zone::new());
        settings
    };
    let stage = Stage::with(|options| options, change, |leaf| leaf).await;
    stage.simple(1);
    let log = stage.settled(1).await;
    assert!(
        matches!(&log[0].2, Disposition::Deferred { reply, .. } if reply.contains("no such name")),
        "{log:?}"
    );
}

#[tokio::test]
async fn what_the_settings_have_no_way_for_is_deferred() {
    let stage = Stage::new().await;
    let mut other = message(1, "contoso", &["x@example.org"], MAIL, START);
    other.legs[0].via = Via::Relay("gone".into());
    stage.fake.put(other, MAIL);
    let log = stage.settled(1).await;
    assert!(
        matches!(&log[0].2, Disposition::Deferred { reply, .. } if reply == "there is no relay gone"),
        "{log:?}"
    );
}

#[tokio::test]
async fn the_real_spool_is_emptied_and_the_trace_tells_it() {
    let folder = tempfile::tempdir().unwrap();
    let metrics = Metrics::new().unwrap();
    let spool = crate::spool::Spool::open(&folder.path().join("spool"), &metrics).unwrap();
    let tracer = crate::message_trace::Tracer::open(
        &folder.path().join("trace"),
        Duration::from_secs(86_400),
        &metrics,
    )
    .unwrap();
    let authority = Authority::new("Lab").unwrap();
    let exchange = ExchangeOptions::new(&authority, vec![organization("contoso")]).unwrap();
    let exchange = ExchangeIn::start(exchange).await.unwrap();
    exchange.script(
        Step::reply(Phase::Rcpt, "550 5.1.10 RecipientNotFound").for_recipient("b@contoso.com"),
    );
    let settings = settings(&authority, exchange.address().port(), |leaf| leaf);
    let dispatcher = Dispatcher::start(
        spool.clone(),
        settings,
        Arc::new(QueueIds::starting_at(7)),
        tracer,
        metrics.clone(),
        crate::clock::Clock::start(),
    );
    for id in 1..=20 {
        let mut draft = spool.draft();
        draft.append(bytes::Bytes::from_static(MAIL)).await.unwrap();
        let recipients = ["a@contoso.com", "b@contoso.com"];
        spool
            .accept(draft, message(id, "contoso", &recipients, MAIL, START))
            .await
            .unwrap();
    }
    // The one refusal is told to the sender, by mail of our own.
    let mut reports = 0;
    for _ in 1..=21 {
        let received = exchange.received().await.unwrap();
        if received.sender.is_empty() {
            reports += 1;
        } else {
            assert_eq!(received.content, whole(MAIL));
        }
    }
    assert_eq!(reports, 1);
    dispatcher.stop(Duration::from_secs(5)).await;
    assert!(spool.scan(10, u64::MAX).is_empty());
    assert!(
        exchange.connections() <= 4,
        "{} connections",
        exchange.connections()
    );
    let failed = metrics
        .deliveries
        .with_label_values(&["exchange", "contoso", "", "failed"]);
    assert_eq!(failed.get(), 1);
    spool.close().await;
}
