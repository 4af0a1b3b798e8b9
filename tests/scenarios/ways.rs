//! Where mail goes, by how many connections, and how long it waits: the keys of `[tenant.inbound_connector]`, `[[route]]`
//! and `[delivery.*]`. Each test fails where its key is read and then forgotten (tests/keys.md).

use crate::harness::{Changes, LETTER, Surroundings, World, last_word, until, write_identity};
use crate::keys::{ERP, from_erp};
use gatepost::dns::Zone;
use gatepost::lab::certificates::Leaf;
use gatepost::lab::{Carried, Mail, Outside, OutsideOptions, Phase, Step};
use gatepost::message_trace::Event;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const LATER: &str = "450 4.2.1 The mailbox is busy, try again";

/// When each attempt at `id` that deferred it was made, and how long until the next.
async fn waits(world: &World, id: &str) -> Vec<u64> {
    let events = world.trace(id).await;
    let waits = events.into_iter().filter_map(|event| match event.event {
        Event::Attempt { results, .. } => Some(results[0].next_try? - event.at),
        _ => None,
    });
    waits.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connector_has_no_more_connections_and_each_no_more_messages_than_its_table_says() {
    for (keys, most) in [
        ("max_connections = 1", usize::MAX),
        ("max_connections = 1\nmax_messages_per_connection = 2", 2),
    ] {
        let table = "certificate = \"contoso\"\ncloud";
        let world = World::with(Changes::replace(
            table,
            &table.replace("\ncloud", &format!("\n{keys}\ncloud")),
        ))
        .await;
        let exchange = &world.around.exchange;
        exchange.script(Step::reply(Phase::Rcpt, LATER).always());
        for _ in 0..8 {
            assert!(world.erp().send(&from_erp(ERP)).await.unwrap().accepted());
        }
        until("all to wait", async || {
            (exchange.refused().len() >= 8).then_some(())
        })
        .await;
        // Then all are due at once.
        exchange.forget_script();
        let before = exchange.connections();
        world.host.set_clock_forward(10 * MINUTE);
        let mut by_connection = BTreeMap::<u64, usize>::new();
        for _ in 0..8 {
            let message = exchange.received().await.unwrap();
            *by_connection.entry(message.connection).or_default() += 1;
        }
        let opened = exchange.connections() - before;
        if most == usize::MAX {
            assert!(opened <= 1, "{opened} connections for 8 messages");
        }
        assert!(
            by_connection.values().all(|count| *count <= most),
            "{by_connection:?}"
        );
        world.host.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connectors_host_is_asked_of_the_resolver_and_met_at_its_port() {
    let around = Surroundings::new().await;
    let exchange = around.exchange.address();
    let zone = Zone::new().host("contoso-com.mail.example", exchange.ip());
    let table = format!("host = \"{}\"\nport", exchange.ip());
    let table: &'static str = Box::leak(table.into_boxed_str());
    let changes = Changes::replace(table, "host = \"contoso-com.mail.example\"\nport");
    let world = World::abroad(around, changes, zone, 25).await;
    let answer = world.erp().send(&from_erp(ERP)).await.unwrap();
    assert!(world.received().await.is_internal());
    let id = last_word(answer.deciding());
    let host = until("the attempt in the trace", async || {
        let events = world.trace(&id).await;
        events.into_iter().find_map(|event| match event.event {
            Event::Attempt { host, address, .. } => Some((host, address)),
            _ => None,
        })
    })
    .await;
    assert_eq!(
        host,
        (
            "contoso-com.mail.example".to_owned(),
            Some(exchange.to_string())
        )
    );
    world.host.stop().await;
}

async fn outside() -> Outside {
    Outside::start(OutsideOptions::default()).await.unwrap()
}

async fn taken_by(outside: &Outside) -> Arc<Carried> {
    outside.received().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_route_takes_only_its_tenant_its_side_and_its_stream_and_the_first_one_wins() {
    let (partner, relay) = (outside().await, outside().await);
    let routes = format!(
        r#"
[[route]]
tenant = "fabrikam"
recipients = "any"
via = "exchange"
[[route]]
stream = "orders"
recipients = "any"
via = "mx"
[[route]]
from = "connector"
recipients = "any"
via = "exchange"
[[route]]
from = "submission"
recipients = "any"
via = "relay:upstream"
[[route]]
recipients = "any"
via = "mx"
[[relay]]
name = "upstream"
host = "127.0.0.1"
port = {}
tls = "opportunistic"
"#,
        relay.address().port()
    );
    let mut changes = Changes::replace(
        "username = \"erp\"\n",
        "username = \"erp\"\nstream = \"orders\"\n",
    );
    let any = "\n[[route]]\nrecipients = \"any\"\nvia = \"exchange\"\n";
    changes.replace.push((any, routes));
    let zone = Zone::new()
        .mx("partner.example", 10, "mx.partner.example")
        .host("mx.partner.example", partner.address().ip());
    let port = partner.address().port();
    let world = World::abroad(Surroundings::new().await, changes, zone, port).await;

    let order = Mail::new("erp@contoso.com", "r@partner.example", ERP);
    assert!(world.erp().send(&order).await.unwrap().accepted());
    assert_eq!(taken_by(&partner).await.sender, "erp@contoso.com");
    let scan = &b"From: scanner@contoso.com\r\nSubject: s\r\n\r\nbody\r\n"[..];
    let scan = Mail::new("scanner@contoso.com", "r@partner.example", scan);
    assert!(world.scanner().send(&scan).await.unwrap().accepted());
    assert_eq!(taken_by(&relay).await.sender, "scanner@contoso.com");
    for (organization, name) in [
        (&world.around.contoso, "contoso"),
        (&world.around.fabrikam, "fabrikam"),
    ] {
        let letter = String::from_utf8(LETTER.to_vec()).unwrap();
        let letter = letter.replace("contoso", name).into_bytes();
        let mail = Mail::new(&format!("ada@{name}.com"), "r@partner.example", letter);
        let outbound = world.outbound(organization, mail);
        let answer = world.exchange_out().send(&outbound).await.unwrap();
        assert!(answer.accepted(), "{answer:?}");
        let received = world.received().await;
        assert_eq!(received.tenant(), name);
    }
    assert!(partner.waiting().is_empty() && relay.waiting().is_empty());
    world.host.stop().await;
}

/// Contoso's applications to Exchange, and what goes to the partner by mx, where both next hops say "later".
async fn busy_world(exchange: &str, mx: &str) -> (World, Outside) {
    let partner = outside().await;
    partner.script(Step::reply(Phase::Rcpt, LATER).always());
    let zone = Zone::new()
        .mx("partner.example", 10, "mx.partner.example")
        .host("mx.partner.example", partner.address().ip());
    let mut changes = Changes::replace("retry = [\"1s\"]\nexpire = \"1h\"", exchange);
    changes.replace.push((
        "\n[[route]]\nrecipients = \"any\"\nvia = \"exchange\"\n",
        "\n[[route]]\nrecipients = \"accepted\"\nvia = \"exchange\"\n[[route]]\nrecipients = \"any\"\nvia = \"mx\"\n"
            .to_owned(),
    ));
    changes.append = format!("[delivery.mx]\n{mx}\n");
    let port = partner.address().port();
    let world = World::abroad(Surroundings::new().await, changes, zone, port).await;
    let step = Step::reply(Phase::Rcpt, LATER).for_recipient("bob@contoso.com");
    world.around.exchange.script(step.always());
    (world, partner)
}

async fn to(world: &World, recipient: &str) -> String {
    let mail = Mail::new("erp@contoso.com", recipient, ERP);
    let answer = world.erp().send(&mail).await.unwrap();
    assert!(answer.accepted(), "{answer:?}");
    last_word(answer.deciding())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_law_has_waits_of_its_own_and_the_last_repeats() {
    let (world, _partner) =
        busy_world("retry = [\"3m\", \"20m\"]", "retry = [\"7m\", \"30m\"]").await;
    for (recipient, law) in [
        ("bob@contoso.com", [3, 20, 20]),
        ("r@partner.example", [7, 30, 30]),
    ] {
        let id = to(&world, recipient).await;
        for made in 1..=3 {
            let told = until("the attempt", async || {
                let waits = waits(&world, &id).await;
                (waits.len() >= made).then_some(waits)
            })
            .await;
            // The attempt itself takes a moment.
            let expected = law[made - 1] * 60_000;
            let wait = told[made - 1];
            assert!(
                (expected - 2_000..=expected + 2_000).contains(&wait),
                "{recipient}: {told:?}"
            );
            world
                .host
                .set_clock_forward(Duration::from_millis(expected));
        }
    }
    world.host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_law_tells_of_a_delay_after_its_own_time_and_0s_never_does() {
    for (exchange, mx, late, never) in [
        ("10m", "0s", "bob@contoso.com", "r@partner.example"),
        ("0s", "10m", "r@partner.example", "bob@contoso.com"),
    ] {
        let notice =
            |wait: &str| format!("retry = [\"1h\"]\nexpire = \"90h\"\ndelay_notice = \"{wait}\"");
        let (world, _partner) = busy_world(&notice(exchange), &notice(mx)).await;
        // What is never told of waits longer.
        let unheard = to(&world, never).await;
        world.host.set_clock_forward(MINUTE);
        let told = to(&world, late).await;
        for id in [&unheard, &told] {
            until("the first attempt", async || {
                (!waits(&world, id).await.is_empty()).then_some(())
            })
            .await;
        }
        world.host.set_clock_forward(10 * MINUTE);
        let report = world.received().await;
        assert_eq!(
            (&*report.sender, report.addresses()),
            ("", vec!["erp@contoso.com"])
        );
        let text = String::from_utf8(report.content.clone()).unwrap();
        assert!(text.contains("Action: delayed"), "{text}");
        assert!(text.contains(late) && !text.contains(never), "{text}");
        // Nor after days; a second message that is told of proves that everybody was looked at.
        world.host.set_clock_forward(40 * HOUR);
        to(&world, late).await;
        world.host.set_clock_forward(10 * MINUTE);
        let second = world.received().await;
        let text = String::from_utf8(second.content.clone()).unwrap();
        assert!(text.contains(late) && !text.contains(never), "{text}");
        world.host.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_is_parked_as_long_as_the_key_says() {
    let around = Surroundings::new().await;
    let expired = around
        .authority
        .issue(&Leaf::named("contoso.com").expired());
    write_identity(around.folder.path(), "contoso", &expired.unwrap());
    let world = World::within(
        around,
        Changes::replace(
            "expire = \"1h\"",
            "expire = \"48h\"\nhold_on_connector_fault = \"5h\"",
        ),
    )
    .await;
    assert!(world.erp().send(&from_erp(ERP)).await.unwrap().accepted());
    let parked = |count: u8| {
        let line =
            format!("gatepost_queue_parked{{tenant=\"contoso\",via=\"exchange\"}} {count}\n");
        let world = &world;
        until("the queue to change", async move || {
            world.metrics().contains(&line).then_some(())
        })
    };
    parked(1).await;
    world.host.set_clock_forward(5 * HOUR);
    parked(0).await;
    world.host.stop().await;
}
