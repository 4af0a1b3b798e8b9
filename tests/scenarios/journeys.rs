//! The journeys that pay for it.

use crate::harness::{LETTER, World, last_word, until};
use gatepost::lab::{Dialect, Mail, Security};
use gatepost::message_trace::Event;

const SCAN: &[u8] = b"From: Scanner <scanner@contoso.com>\r\nTo: bob@contoso.com\r\nSubject: scan\r\n\r\nscanned\r\n";
const INVOICE: &[u8] =
    b"From: ERP <erp@contoso.com>\r\nTo: bob@contoso.com\r\nSubject: invoice\r\n\
    Date: Tue, 24 Nov 2026 08:15:31 +0000\r\nMessage-ID: <i@contoso.com>\r\n\r\nPlease pay.\r\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_printer_without_tls_or_login_lands_internal() {
    let world = World::start().await;
    let answer = world
        .scanner()
        .send(&Mail::new("scanner@contoso.com", "bob@contoso.com", SCAN))
        .await
        .unwrap();
    assert!(answer.accepted(), "{answer:?}");
    let received = world.received().await;
    assert!(received.is_internal(), "{:?}", received.entry);
    assert_eq!(received.tenant(), "contoso");
    assert_eq!(
        received.header("X-OriginatorOrg").as_deref(),
        Some("contoso.com")
    );
    assert_eq!(
        received
            .header("X-MS-Exchange-CrossPremises-AuthAs")
            .as_deref(),
        Some("Internal")
    );
    assert_eq!(received.parameter("XOORG"), Some("contoso.com"));
    assert!(
        received.header("Date").is_some() && received.header("Message-ID").is_some(),
        "RFC 6409 section 8"
    );
    assert!(
        received.header("Received").unwrap().contains("scanner"),
        "the application is named"
    );
    assert!(
        !received.header("Received").unwrap().contains("127.0.7.7"),
        "its address is not"
    );
    world.host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_logs_in_by_every_dialect() {
    let world = World::start().await;
    for dialect in [
        Dialect::Plain,
        Dialect::PlainOnRequest,
        Dialect::Login,
        Dialect::LoginWithName,
        Dialect::LowerCaseLogin,
    ] {
        let erp = world
            .application("apps")
            .login("erp", crate::harness::PASSWORD, dialect);
        let answer = erp
            .send(&Mail::new("erp@contoso.com", "bob@contoso.com", INVOICE))
            .await
            .unwrap();
        assert!(answer.accepted(), "{dialect:?}: {answer:?}");
        let received = world.received().await;
        assert!(received.is_internal(), "{dialect:?}");
        assert!(
            received.content.ends_with(INVOICE),
            "nothing but what stands on top was added"
        );
    }
    world.host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn user_mail_comes_back_internal_with_every_byte_but_the_secret() {
    let world = World::start().await;
    let outbound = world.outbound(
        &world.around.contoso,
        Mail::new("ada@contoso.com", "bob@contoso.com", LETTER),
    );
    let answer = world.exchange_out().send(&outbound).await.unwrap();
    assert!(answer.accepted(), "{answer:?}");
    let received = world.received().await;
    assert!(received.is_internal(), "{:?}", received.entry);
    let sent = String::from_utf8(outbound.mail.content.clone()).unwrap();
    let secret: Vec<&str> = sent
        .split_inclusive("\r\n")
        .filter(|line| line.starts_with("X-contoso-Gate:"))
        .collect();
    assert_eq!(secret.len(), 1, "the rule set the secret header: {sent}");
    let expected = sent.replace(secret[0], "");
    let seen = String::from_utf8(received.content.clone()).unwrap();
    let top = seen
        .strip_suffix(&expected)
        .expect("all other bytes as they came");
    assert!(
        top.starts_with("Received: from ")
            && top.ends_with("X-Gatepost-Processed: contoso-loop\r\n"),
        "{top}"
    );
    assert_eq!(
        top.matches("\r\n").count(),
        top.matches("\r\n\t").count() + top.matches("\r\n ").count() + 2,
        "{top}"
    );
    world.host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dsn_parameters_and_the_null_sender_are_handed_on() {
    let world = World::start().await;
    let mail = Mail::new(
        "",
        "bob@contoso.com> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;bob+2Bx@contoso.com",
        LETTER,
    )
    .parameter("RET=HDRS")
    .parameter("ENVID=QQ+2B314159");
    let outbound = world.outbound(&world.around.contoso, mail);
    let answer = world.exchange_out().send(&outbound).await.unwrap();
    assert!(answer.accepted(), "{answer:?}");
    let received = world.received().await;
    assert_eq!(received.sender, "");
    assert_eq!(received.parameter("RET"), Some("HDRS"));
    assert_eq!(received.parameter("ENVID"), Some("QQ+2B314159"));
    let recipient = &received.recipients[0];
    assert!(
        recipient
            .parameters
            .iter()
            .any(|parameter| parameter == "NOTIFY=SUCCESS,FAILURE"),
        "{recipient:?}"
    );
    assert!(
        recipient
            .parameters
            .iter()
            .any(|parameter| parameter == "ORCPT=rfc822;bob+2Bx@contoso.com")
    );
    world.host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_tenants_share_a_connection_in_and_none_out() {
    let world = World::start().await;
    let mut connection = world.exchange_out().connect().await.unwrap();
    for round in 0..3 {
        for (organization, name) in [
            (&world.around.contoso, "contoso"),
            (&world.around.fabrikam, "fabrikam"),
        ] {
            let letter = format!(
                "From: a@{name}.com\r\nSubject: {round}\r\nX-MS-Exchange-Organization-AuthAs: Internal\r\nX-MS-Exchange-Organization-AuthMechanism: 04\r\nX-MS-Exchange-Organization-AuthSource: AM8PR05MB0002.eurprd05.prod.outlook.com\r\n\r\n{name}\r\n"
            );
            let mail = Mail::new(&format!("a@{name}.com"), &format!("b@{name}.com"), letter);
            let answer = connection
                .send(&world.outbound(organization, mail))
                .await
                .unwrap();
            assert!(answer.accepted(), "{answer:?}");
        }
    }
    connection.quit().await;
    let mut by_connection = std::collections::HashMap::new();
    for _ in 0..6 {
        let received = world.received().await;
        assert!(received.is_internal());
        let tenant = by_connection
            .entry(received.connection)
            .or_insert_with(|| received.tenant().to_owned());
        assert_eq!(
            tenant,
            received.tenant(),
            "a connection is never shared between tenants"
        );
    }
    world.host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_trace_tells_the_whole_story() {
    let world = World::start().await;
    let answer = world
        .erp()
        .send(&Mail::new("erp@contoso.com", "bob@contoso.com", INVOICE))
        .await
        .unwrap();
    let id = last_word(answer.content.as_ref().unwrap());
    world.received().await;
    let events = until("the attempt in the trace", async || {
        let events = world.trace(&id).await;
        events
            .iter()
            .any(|event| matches!(event.event, Event::Attempt { .. }))
            .then_some(events)
    })
    .await;
    let Event::Received {
        tenant,
        application,
        verdict,
        ..
    } = &events[0].event
    else {
        panic!("{events:?}")
    };
    assert_eq!(
        (tenant.as_str(), application.as_deref(), verdict.as_str()),
        ("contoso", Some("erp"), "application")
    );
    let attempt = events.iter().find_map(|event| match &event.event {
        Event::Attempt { results, tls, .. } => Some((results, tls)),
        _ => None,
    });
    let (results, tls) = attempt.unwrap();
    assert_eq!(results[0].outcome, "delivered");
    assert!(
        results[0].reply.contains("Queued mail for delivery"),
        "{results:?}"
    );
    assert_eq!(
        tls.as_ref().unwrap().peer_name.as_deref(),
        Some("mail.protection.outlook.com")
    );
    for text in ["<i@contoso.com>", "bob@contoso.com", "erp@contoso.com"] {
        assert!(
            world.trace(text).await.iter().any(|event| event.id == id),
            "found by {text}"
        );
    }
    world.host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bare_newlines_of_a_device_are_repaired_only_where_the_listener_says_so() {
    let world = World::start().await;
    let letter = b"From: scanner@contoso.com\nSubject: lf\n\nline\n.\nafter\n\r\n";
    let answer = world
        .scanner()
        .send(&Mail::new(
            "scanner@contoso.com",
            "bob@contoso.com",
            &letter[..],
        ))
        .await
        .unwrap();
    assert!(answer.accepted(), "{answer:?}");
    let received = world.received().await;
    assert!(
        received
            .content
            .ends_with(b"Subject: lf\r\n\r\nline\r\n.\r\nafter\r\n\r\n"),
        "{}",
        received.content.escape_ascii()
    );
    let letter = b"From: erp@contoso.com\r\nSubject: lf\r\n\r\nbare\nline\r\n";
    let answer = world
        .erp()
        .send(&Mail::new(
            "erp@contoso.com",
            "bob@contoso.com",
            &letter[..],
        ))
        .await
        .unwrap();
    assert_eq!(answer.deciding().code, 554);
    assert_eq!(answer.deciding().enhanced, Some((5, 6, 0)));
    world.host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clear_text_logins_are_not_taken() {
    let world = World::start().await;
    let erp = world.application("printers").security(Security::Clear);
    let mut client = erp.connect().await.unwrap();
    assert!(!client.offers("AUTH"));
    let reply = client.command("AUTH PLAIN AGVycABwdw==").await.unwrap();
    assert_eq!((reply.code, reply.enhanced), (530, Some((5, 7, 0))));
    let reply = client.command("MAIL FROM:<erp@contoso.com>").await.unwrap();
    assert_eq!((reply.code, reply.enhanced), (530, Some((5, 7, 0))));
    world.host.stop().await;
}
