//! Mail that waits, mail that is handed on, and who hears of it: also while the connector that would tell is held.

use crate::bounces::{LETTER_OF_ERP, assert_own, body};
use crate::harness::{
    Changes, HOSTNAME, PASSWORD, Process, Surroundings, World, free_port, last_word, until,
};
use gatepost::dns::Zone;
use gatepost::lab::{
    ApplicationClient, ClientIdentity, Dialect, Mail, Outside, OutsideOptions, Phase, Received,
    Step,
};
use gatepost::message_trace::Event;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

const TEN_MINUTES: Duration = Duration::from_secs(600);
const LATER: &str = "432 4.3.2 STOREDRV.Deliver; thread limit exceeded";

fn notice_after(wait: &str) -> Changes {
    Changes::replace(
        "expire = \"1h\"",
        &format!("expire = \"1h\"\ndelay_notice = \"{wait}\""),
    )
}

fn later(recipient: &str) -> Step {
    Step::reply(Phase::Rcpt, LATER)
        .for_recipient(recipient)
        .always()
}

async fn report(around: &Surroundings) -> Arc<Received> {
    let reports = around
        .exchange
        .received_where(|message| message.sender.is_empty());
    reports.await.unwrap()
}

fn count(world: &World, class: &str) -> u64 {
    let metrics = world.metrics();
    let name = format!(r#"gatepost_bounces_total{{class="{class}",tenant="contoso"}} "#);
    let line = metrics.lines().find_map(|line| line.strip_prefix(&name));
    line.map_or(0, |count| count.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_hears_once_that_its_mail_waits_and_then_it_arrives() {
    let world = World::with(notice_after("10m")).await;
    for address in ["bob@contoso.com", "eve@contoso.com", "kim@contoso.com"] {
        world.around.exchange.script(later(address));
    }
    let mail = Mail::new(
        "erp@contoso.com",
        "bob@contoso.com> ORCPT=rfc822;robert@contoso.com",
        LETTER_OF_ERP,
    )
    .and_to("ada@contoso.com")
    .and_to("eve@contoso.com")
    .and_to("kim@contoso.com> NOTIFY=FAILURE")
    .parameter("RET=FULL")
    .parameter("ENVID=order-7");
    let answer = world.erp().send(&mail).await.unwrap();
    assert!(answer.accepted(), "{answer:?}");
    let id = last_word(answer.deciding());
    until("three that wait", async || {
        (world.around.exchange.refused().len() >= 3).then_some(())
    })
    .await;
    world.host.set_clock_forward(TEN_MINUTES);
    let report = report(&world.around).await;
    assert_own(&report, "erp@contoso.com");
    let text = body(&report);
    for part in [
        "Original-Envelope-Id: order-7\r\n",
        "Original-Recipient: rfc822; robert@contoso.com\r\n\
         Final-Recipient: rfc822; bob@contoso.com\r\nAction: delayed\r\nStatus: 4.3.2\r\n",
        "Final-Recipient: rfc822; eve@contoso.com\r\nAction: delayed\r\n",
        "Diagnostic-Code: smtp; 432 4.3.2 STOREDRV.Deliver",
        "Will-Retry-Until: ",
        "Content-Type: text/rfc822-headers\r\n",
    ] {
        assert!(text.contains(part), "{part:?} in\n{text}");
    }
    for other in ["ada@contoso.com", "kim@contoso.com", "Please pay."] {
        assert!(!text.contains(other), "{other} in\n{text}");
    }
    until("the notice in the trace", async || {
        let story = world.trace(&id).await;
        story
            .iter()
            .any(|event| matches!(&event.event, Event::Report { class, .. } if class == "delay"))
            .then_some(())
    })
    .await;
    world.around.exchange.forget_script();
    let mut missing = vec!["bob@contoso.com", "eve@contoso.com", "kim@contoso.com"];
    while !missing.is_empty() {
        let received = world.received().await;
        assert_ne!(received.sender, "", "told once");
        missing.retain(|address| !received.addresses().contains(address));
    }
    until("an empty queue", async || {
        world.host.spool().scan(1, 0).is_empty().then_some(())
    })
    .await;
    assert_eq!((count(&world, "delay"), count(&world, "failure")), (2, 0));
    world.host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_told_is_not_told_again_after_kill_9() {
    let around = Surroundings::new().await;
    around.exchange.script(later("bob@contoso.com"));
    let ports = [free_port(), free_port(), free_port()];
    let config = around.configuration(ports, &notice_after("1s"));
    let server = Process::start(&config);
    let apps = SocketAddr::from(([127, 0, 0, 1], ports[1]));
    let erp = ApplicationClient::new(apps, HOSTNAME, &around.authority.roots().unwrap())
        .unwrap()
        .login("erp", PASSWORD, Dialect::Plain);
    let mail = Mail::new("erp@contoso.com", "bob@contoso.com", LETTER_OF_ERP);
    assert!(erp.send(&mail).await.unwrap().accepted());
    report(&around).await;
    // Results are on disk within a second: two more attempts, a second apart, say that it has passed.
    let tried = around.exchange.refused().len();
    let two_more = async || (around.exchange.refused().len() >= tried + 2).then_some(());
    until("two more attempts", two_more).await;
    server.kill();
    let server = Process::start(&config);
    let tried = around.exchange.refused().len();
    let two_more = async || (around.exchange.refused().len() >= tried + 2).then_some(());
    until("two attempts after the restart", two_more).await;
    around.exchange.forget_script();
    let received = around.exchange.received().await.unwrap();
    assert_eq!(
        (received.sender.as_str(), received.addresses()),
        ("erp@contoso.com", vec!["bob@contoso.com"]),
        "no second notice came before it"
    );
    assert!(server.terminate().success());
}

/// Everything that is not the tenant's goes to the exchanger of `partner.example`.
async fn with_partner(hidden: &[&str]) -> (World, Outside) {
    let options = OutsideOptions {
        hidden: hidden.iter().map(ToString::to_string).collect(),
        ..OutsideOptions::default()
    };
    let partner = Outside::start(options).await.unwrap();
    let zone = Zone::new()
        .mx("partner.example", 10, "mx.partner.example")
        .host("mx.partner.example", partner.address().ip());
    let to_exchange = "\n[[route]]\nrecipients = \"any\"\nvia = \"exchange\"\n";
    let by_mx = "\n[[route]]\nrecipients = \"accepted\"\nvia = \"exchange\"\n\
        [[route]]\nrecipients = \"any\"\nvia = \"mx\"\n";
    let changes = Changes::replace(to_exchange, by_mx);
    let port = partner.address().port();
    let world = World::abroad(Surroundings::new().await, changes, zone, port).await;
    (world, partner)
}

async fn send_for_success(world: &World) {
    let mail = Mail::new(
        "erp@contoso.com",
        "r@partner.example> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;old@partner.example",
        LETTER_OF_ERP,
    )
    .and_to("s@partner.example")
    .parameter("RET=HDRS")
    .parameter("ENVID=order-7");
    let answer = world.erp().send(&mail).await.unwrap();
    assert!(answer.accepted(), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_for_success_hears_that_mail_was_handed_to_a_host_without_dsn() {
    let (world, partner) = with_partner(&["DSN"]).await;
    send_for_success(&world).await;
    let carried = partner.received().await.unwrap();
    let said = format!("{:?} {:?}", carried.parameters, carried.recipients);
    for parameter in ["RET", "ENVID", "NOTIFY", "ORCPT"] {
        assert!(!said.contains(parameter), "{said}");
    }
    let report = report(&world.around).await;
    assert_own(&report, "erp@contoso.com");
    let text = body(&report);
    assert!(
        text.contains(
            "Original-Recipient: rfc822; old@partner.example\r\n\
             Final-Recipient: rfc822; r@partner.example\r\nAction: relayed\r\nStatus: 2."
        ) && text.contains("Remote-MTA: dns; mx.partner.example\r\n")
            && !text.contains("s@partner.example\r\nAction"),
        "{text}"
    );
    until("the report counted", async || {
        (count(&world, "relayed") == 1).then_some(())
    })
    .await;
    world.host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_with_dsn_is_told_what_the_sender_wants_to_hear_and_we_say_nothing() {
    let (world, partner) = with_partner(&[]).await;
    send_for_success(&world).await;
    let carried = partner.received().await.unwrap();
    for parameter in ["RET=HDRS", "ENVID=order-7"] {
        assert!(
            carried.parameters.iter().any(|own| own == parameter),
            "{:?}",
            carried.parameters
        );
    }
    let (_, parameters) = &carried.recipients[0];
    assert_eq!(
        *parameters,
        ["NOTIFY=SUCCESS,FAILURE", "ORCPT=rfc822;old@partner.example"]
    );
    until("an empty queue", async || {
        world.host.spool().scan(1, 0).is_empty().then_some(())
    })
    .await;
    assert_eq!(count(&world, "relayed"), 0);
    assert!(world.around.exchange.waiting().is_empty());
    world.host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_report_goes_past_a_held_connector_without_our_certificate() {
    // The tenant's connector is gone: mail for outside is refused, and mail for the tenant is anyone's.
    let around = Surroundings::with(|mut options| {
        for organization in &mut options.organizations {
            Arc::make_mut(organization).inbound = None;
        }
        options
    })
    .await;
    let world = World::within(around, notice_after("10m")).await;
    for number in 1..=3 {
        let to = format!("r{number}@partner.example");
        let mail = Mail::new("erp@contoso.com", &to, LETTER_OF_ERP);
        assert!(world.erp().send(&mail).await.unwrap().accepted());
    }
    let parked = r#"gatepost_queue_parked{tenant="contoso",via="exchange"} 1"#;
    until("a parked queue", async || {
        world.metrics().contains(parked).then_some(())
    })
    .await;
    world.host.set_clock_forward(TEN_MINUTES);
    let mut reports = Vec::new();
    for _ in 0..3 {
        reports.push(report(&world.around).await);
    }
    for report in &reports {
        assert_eq!(report.identity, ClientIdentity::None, "no certificate");
        assert!(report.tls.is_some() && !report.is_internal());
        assert_eq!(report.addresses(), ["erp@contoso.com"]);
        assert_eq!(
            report.header("X-Gatepost-Processed").as_deref(),
            Some("contoso-loop")
        );
        for stamp in [
            "X-OriginatorOrg",
            "X-MS-Exchange-CrossPremises-AuthAs",
            "X-MS-Exchange-CrossPremises-AuthSource",
        ] {
            assert_eq!(report.header(stamp), None, "{stamp}");
        }
        assert_eq!(report.parameter("XOORG"), None);
        let text = body(report);
        assert!(
            text.contains("Action: delayed\r\nStatus: 4.7.64\r\n")
                && text.contains("TenantAttribution"),
            "{text}"
        );
    }
    let metrics = world.metrics();
    assert!(metrics.contains(parked), "that proved nothing: {metrics}");
    let id = reports[0].header("Message-ID").unwrap();
    let story = until("the delivery in the trace", async || {
        let story = world.trace(&id).await;
        let delivered = story.iter().any(|event| {
            matches!(&event.event, Event::Attempt { uncertified: true, results, .. }
                if results[0].outcome == "delivered")
        });
        delivered.then_some(story)
    })
    .await;
    let told = gatepost::cli::trace::stories(&story);
    assert!(told.contains("without our certificate"), "{told}");
    until("only the mail that waits is left", async || {
        (world.host.spool().scan(10, 0).len() == 3).then_some(())
    })
    .await;
    world.host.stop().await;
}
