//! Mail that is given up, and who hears of it.

use crate::harness::{Changes, LETTER, World, last_word, until};
use gatepost::lab::{Mail, Phase, Received, Step};
use gatepost::message_trace::Event;

const UNKNOWN: &str = "550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found";

/// Exchange does not know this recipient.
async fn refusing(recipient: &str, changes: Changes) -> World {
    let world = World::with(changes).await;
    let step = Step::reply(Phase::Rcpt, UNKNOWN).for_recipient(recipient);
    world.around.exchange.script(step.always());
    world
}

pub fn body(report: &Received) -> String {
    String::from_utf8(report.content.clone()).unwrap()
}

/// The report arrived as the tenant's own internal mail, from nobody.
pub fn assert_own(report: &Received, reader: &str) {
    assert_eq!(report.sender, "", "nothing answers a report");
    assert_eq!(report.addresses(), [reader]);
    assert_eq!(report.tenant(), "contoso");
    assert!(report.is_internal(), "{:?}", report.entry);
    assert_eq!(
        report.header("X-Gatepost-Processed").as_deref(),
        Some("contoso-loop")
    );
    assert_eq!(
        report.header("Auto-Submitted").as_deref(),
        Some("auto-replied")
    );
    assert_eq!(report.headers("Received").len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_hears_of_a_refused_recipient_and_the_trace_leads_from_one_to_the_other() {
    let world = refusing("gone@contoso.com", Changes::default()).await;
    let mail = Mail::new("erp@contoso.com", "bob@contoso.com", LETTER_OF_ERP)
        .and_to("gone@contoso.com> ORCPT=rfc822;old+2Bname@contoso.com")
        .parameter("ENVID=order-7");
    let answer = world.erp().send(&mail).await.unwrap();
    assert!(answer.accepted(), "{answer:?}");
    let id = last_word(answer.deciding());
    let (one, other) = (world.received().await, world.received().await);
    let (report, sent) = if one.sender.is_empty() {
        (one, other)
    } else {
        (other, one)
    };
    assert_eq!(
        sent.addresses(),
        ["bob@contoso.com"],
        "the other recipient has it"
    );
    assert_own(&report, "erp@contoso.com");
    let text = body(&report);
    for part in [
        "Original-Envelope-Id: order-7\r\n",
        "Original-Recipient: rfc822; old+name@contoso.com\r\n",
        "Final-Recipient: rfc822; gone@contoso.com\r\n",
        "Action: failed\r\nStatus: 5.1.10\r\n",
        "Subject: invoice\r\n",
    ] {
        assert!(text.contains(part), "{part:?} in\n{text}");
    }
    assert!(
        !text.contains("bob@contoso.com\r\nAction"),
        "bob's mail did not fail"
    );
    assert!(!text.contains("secret-bcc"), "{text}");
    let story = until("the report in the trace", async || {
        let story = world.trace(&id).await;
        story.iter().find_map(|event| match &event.event {
            Event::Report { report, to, .. } => Some((report.clone(), to.clone())),
            _ => None,
        })
    })
    .await;
    assert_eq!(story.1, "erp@contoso.com");
    // Exchange has it a moment before the story says so.
    let own = until("the report's delivery in the trace", async || {
        let own = world.trace(&story.0).await;
        let delivered = own.iter().any(|event| {
            matches!(&event.event, Event::Attempt { results, .. } if results[0].outcome == "delivered")
        });
        delivered.then_some(own)
    })
    .await;
    assert!(gatepost::cli::trace::stories(&own).contains("written by the smart host"));
    let metrics = world.metrics();
    assert!(
        metrics.contains(r#"gatepost_bounces_total{class="failure",tenant="contoso"} 1"#),
        "{metrics}"
    );
    world.host.stop().await;
}

pub const LETTER_OF_ERP: &[u8] =
    b"From: erp@contoso.com\r\nTo: bob@contoso.com\r\nBcc: secret-bcc@contoso.com\r\n\
    Subject: invoice\r\nX-OriginatorOrg: forged.example\r\n\r\nPlease pay.\r\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_hears_of_it_and_reads_nothing_protected() {
    let world = refusing("bob@contoso.com", Changes::default()).await;
    let mail = Mail::new("ada@contoso.com", "bob@contoso.com", LETTER).parameter("RET=FULL");
    let outbound = world.outbound(&world.around.contoso, mail);
    let answer = world.exchange_out().send(&outbound).await.unwrap();
    assert!(answer.accepted(), "{answer:?}");
    let report = world.received().await;
    assert_own(&report, "ada@contoso.com");
    let text = body(&report);
    let (_, returned) = text.split_once("Content-Type: message/rfc822\r\n").unwrap();
    assert!(returned.contains("Subject: hello\r\n") && returned.contains("\r\n\r\nHello.\r\n"));
    let lower = returned.to_ascii_lowercase();
    for leak in [
        "x-ms-exchange-organization-",
        "x-ms-exchange-crosspremises-",
        "x-ms-exchange-forest-",
        "x-contoso-gate",
        "x-gatepost-processed",
        "contoso-secret",
        "contoso-loop",
    ] {
        assert!(!lower.contains(leak), "{leak} in\n{returned}");
    }
    world.host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_expires_is_reported_with_the_last_reply() {
    let changes = Changes::replace("expire = \"1h\"", "expire = \"2s\"");
    let world = World::with(changes).await;
    let busy = "451 4.7.500 Server busy. Please try again later";
    let step = Step::reply(Phase::Rcpt, busy).for_recipient("bob@contoso.com");
    world.around.exchange.script(step.always());
    let mail = Mail::new("erp@contoso.com", "bob@contoso.com", LETTER_OF_ERP);
    let answer = world.erp().send(&mail).await.unwrap();
    assert!(answer.accepted(), "{answer:?}");
    let report = world.received().await;
    assert_own(&report, "erp@contoso.com");
    let text = body(&report);
    assert!(
        text.contains("Status: 4.4.7\r\n") && text.contains("could not be delivered in time"),
        "{text}"
    );
    assert!(text.contains("Server busy"), "{text}");
    world.host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_report_that_is_refused_ends_there() {
    let world = World::start().await;
    for recipient in ["bob@contoso.com", "erp@contoso.com"] {
        let step = Step::reply(Phase::Rcpt, UNKNOWN).for_recipient(recipient);
        world.around.exchange.script(step.always());
    }
    let mail = Mail::new("erp@contoso.com", "bob@contoso.com", LETTER_OF_ERP);
    let answer = world.erp().send(&mail).await.unwrap();
    assert!(answer.accepted(), "{answer:?}");
    until("the report given up", async || {
        let metrics = world.metrics();
        metrics
            .contains(r#"gatepost_bounces_total{class="untold",tenant="contoso"} 1"#)
            .then_some(())
    })
    .await;
    let metrics = world.metrics();
    assert!(
        metrics.contains(r#"gatepost_bounces_total{class="failure",tenant="contoso"} 1"#),
        "one report was written, none about it: {metrics}"
    );
    // It is counted a moment before it is gone.
    until("an empty queue: nothing goes round", async || {
        world.host.spool().scan(10, 0).is_empty().then_some(())
    })
    .await;
    world.host.stop().await;
}
