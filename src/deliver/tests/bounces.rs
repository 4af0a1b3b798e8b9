//! Whose mail is given up, and who hears of it.

use super::*;

/// One message whose only recipient is refused, after `change`; then what was told.
async fn refused(
    change: impl FnOnce(&mut crate::spool::Message),
) -> (Stage, Vec<(crate::spool::Message, String)>) {
    let stage = Stage::new().await;
    let refusal = "550 5.1.10 RESOLVER.ADR.RecipientNotFound";
    stage
        .exchange
        .script(Step::reply(Phase::Rcpt, refusal).always());
    let mut sent = message(1, "contoso", &["bob@contoso.com"], MAIL, START);
    change(&mut sent);
    stage.fake.put(sent, MAIL);
    let log = stage.settled(1).await;
    assert!(
        matches!(&log[0].2, Disposition::Failed { reply } if reply.contains("5.1.10")),
        "{log:?}"
    );
    let accepted = stage.fake.accepted();
    (stage, accepted)
}

#[tokio::test]
async fn the_sender_of_refused_mail_is_told_by_mail_of_our_own() {
    let (stage, accepted) = refused(|_| {}).await;
    let [(report, text)] = accepted.as_slice() else {
        panic!("{accepted:?}");
    };
    assert_eq!(report.envelope.reverse_path, ReversePath::Null);
    let [reader] = report.envelope.recipients.as_slice() else {
        panic!("{report:?}");
    };
    assert_eq!(reader.mailbox.as_str(), "printer@contoso.com");
    assert_eq!(reader.notify, Some(Notify::Never));
    assert_eq!(report.legs[0].via, Via::Exchange);
    for part in [
        "X-MS-Exchange-CrossPremises-AuthAs: Internal\r\n",
        "X-OriginatorOrg: contoso.com\r\n",
        "From: Mail Delivery System <postmaster@contoso.com>\r\n",
        "Final-Recipient: rfc822; bob@contoso.com\r\n",
        "Remote-MTA: dns; [127.0.0.1]\r\n",
        "Diagnostic-Code: smtp; 550 5.1.10 RESOLVER.ADR.RecipientNotFound\r\n",
        "Content-Type: text/rfc822-headers\r\n",
        "Subject: scan\r\n",
    ] {
        assert!(text.contains(part), "{part:?} in\n{text}");
    }
    assert!(!text.contains(".dot"), "without RET no body is returned");
    let told = stage.trace.lock().unwrap();
    let named = told.iter().any(|event| {
        matches!(&event.event, Event::Report { report: id, to, .. }
            if *id == report.id.to_string() && to == "printer@contoso.com")
            && event.id == QueueId::from_u64(1).to_string()
    });
    assert!(named, "{told:?}");
    let bounces = &stage.metrics.bounces;
    let failures = bounces.with_label_values(&["contoso", "failure"]);
    assert_eq!(failures.get(), 1);
    let before = stage.fake.recorded_before();
    assert_eq!(before, [0], "durable before the failure is recorded");
}

#[tokio::test]
async fn a_null_sender_and_notify_never_are_told_nothing() {
    let changes: [fn(&mut crate::spool::Message); 3] = [
        |message| message.envelope.reverse_path = ReversePath::Null,
        |message| message.envelope.recipients[0].notify = Some(Notify::Never),
        |message| {
            message.envelope.recipients[0].notify = Some(Notify::On {
                success: true,
                failure: false,
                delay: true,
            });
        },
    ];
    for change in changes {
        let (stage, accepted) = refused(change).await;
        assert!(accepted.is_empty(), "{accepted:?}");
        let untold = stage
            .metrics
            .bounces
            .with_label_values(&["contoso", "untold"]);
        assert_eq!(untold.get(), 1);
    }
}

#[tokio::test]
async fn an_application_may_have_its_reports_sent_elsewhere() {
    let (_stage, accepted) =
        refused(|message| message.bounces_to = Some("owner@elsewhere.example".parse().unwrap()))
            .await;
    let (report, text) = &accepted[0];
    assert_eq!(
        report.envelope.recipients[0].mailbox.as_str(),
        "owner@elsewhere.example"
    );
    assert!(
        !text.contains("X-MS-Exchange-CrossPremises-AuthAs"),
        "who is not the tenant's gets no stamp"
    );
}

#[tokio::test]
async fn with_ret_full_the_message_comes_back_whole() {
    let (_stage, accepted) = refused(|message| {
        message.envelope.ret = Some(crate::mail::Ret::Full);
        message.envelope.envid = Some("QQ314".into());
    })
    .await;
    let (_, text) = &accepted[0];
    assert!(
        text.contains("Content-Type: message/rfc822\r\n")
            && text.contains("\r\n\r\n.dot\r\nlast line without end\r\n--=_")
            && text.contains("Original-Envelope-Id: QQ314\r\n"),
        "{text}"
    );
}

#[tokio::test]
async fn nothing_is_given_up_while_its_report_cannot_be_kept() {
    let stage = Stage::new().await;
    let refusal = "550 5.1.1 no";
    stage
        .exchange
        .script(Step::reply(Phase::Rcpt, refusal).always());
    stage.fake.full(true);
    stage.simple(1);
    let log = stage.settled(1).await;
    assert!(
        matches!(&log[0].2, Disposition::Deferred { reply, .. } if reply.contains("5.1.1")),
        "{log:?}"
    );
    stage.fake.full(false);
    stage.advance(5 * MINUTE);
    let log = stage.settled(2).await;
    assert!(matches!(&log[1].2, Disposition::Failed { .. }), "{log:?}");
    assert_eq!(stage.fake.accepted().len(), 1);
}

#[tokio::test]
async fn a_report_tells_what_the_next_hop_said_from_our_own_reasons_and_names_nobody_who_asked_not_to()
 {
    let stage = Stage::with(
        |options| options.hide("CHUNKING"),
        |settings| settings,
        |leaf| leaf,
    )
    .await;
    let bare = b"Subject: x\r\n\r\nbare\nnewline\r\n";
    let mut sent = message(
        1,
        "contoso",
        &["bob@contoso.com", "eve@contoso.com"],
        bare,
        START,
    );
    sent.envelope.recipients[1].notify = Some(Notify::Never);
    stage.fake.put(sent, bare);
    let log = stage.settled(2).await;
    assert!(
        log.iter().all(
            |(_, _, what)| matches!(what, Disposition::Failed { reply } if reply.contains("5.6.11"))
        ),
        "{log:?}"
    );
    let (_, text) = &stage.fake.accepted()[0];
    assert!(
        text.contains("Status: 5.6.11\r\nDiagnostic-Code: X-Gatepost; ")
            && !text.contains("Remote-MTA"),
        "{text}"
    );
    assert!(!text.contains("eve@contoso.com"), "{text}");
    let bounces = &stage.metrics.bounces;
    for class in ["failure", "untold"] {
        assert_eq!(
            bounces.with_label_values(&["contoso", class]).get(),
            1,
            "{class}"
        );
    }
}
