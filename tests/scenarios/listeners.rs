//! How connections come in: overlapping addresses, balancers, handshakes that fail.

use crate::harness::{Changes, LETTER, Surroundings, World, free_port, last_word, until};
use gatepost::app::Server;
use gatepost::lab::{Client, Mail};
use gatepost::message_trace::Event;
use std::net::SocketAddr;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_on_one_address_stands_beside_one_on_all() {
    let port = free_port();
    let mut changes = Changes::replace(
        "name = \"exchange\"\naddress = \"127.0.0.1:0\"",
        &format!("name = \"exchange\"\naddress = \"0.0.0.0:{port}\""),
    );
    changes.replace.push((
        "name = \"printers\"\naddress = \"127.0.0.1:0\"",
        format!("name = \"printers\"\naddress = \"127.0.0.5:{port}\""),
    ));
    let world = World::with(changes).await;
    let from = Some("127.0.7.7".parse().unwrap());
    let printers = SocketAddr::from(([127, 0, 0, 5], port));
    for _ in 0..8 {
        let mut client = Client::connect(printers, from).await.unwrap();
        assert_eq!(client.reply().await.unwrap().code, 220);
        client.ehlo("scanner").await.unwrap();
        let reply = client
            .command("MAIL FROM:<scanner@contoso.com>")
            .await
            .unwrap();
        assert_eq!(reply.code, 250, "submission, by address: {reply}");
        let elsewhere = SocketAddr::from(([127, 0, 0, 6], port));
        let mut client = Client::connect(elsewhere, from).await.unwrap();
        assert_eq!(client.reply().await.unwrap().code, 220);
        client.ehlo("scanner").await.unwrap();
        let reply = client
            .command("MAIL FROM:<scanner@contoso.com>")
            .await
            .unwrap();
        assert_eq!(
            reply.code, 530,
            "a connector, which insists on TLS: {reply}"
        );
    }
    // A second server, with a queue of its own, on the same addresses.
    let second = Surroundings::new().await;
    let mut settings = second.settings(&Changes::default());
    let own = world.around.folder.path().join("gatepost.toml");
    let first = gatepost::config::load(&own).unwrap().settings.unwrap();
    settings.listeners = first.listeners;
    let error = Server::start(settings).await.unwrap_err();
    assert!(error.contains("listener exchange"), "{error}");
    assert!(error.contains(&port.to_string()), "{error}");
    world.host.stop().await;
}

/// Balancers at 127.0.9.0/28 before every listener.
fn balanced() -> Changes {
    let mut changes = Changes::default();
    for name in ["exchange", "apps", "printers"] {
        let address = match name {
            "exchange" => "name = \"exchange\"\naddress = \"127.0.0.1:0\"",
            "apps" => "name = \"apps\"\naddress = \"127.0.0.1:0\"",
            _ => "name = \"printers\"\naddress = \"127.0.0.1:0\"",
        };
        let with = format!("{address}\nproxy_protocol_from = [\"127.0.9.0/28\"]");
        changes.replace.push((address, with));
    }
    changes
}

async fn balancer(world: &World, listener: &str, header: &[u8]) -> Client {
    let from = Some("127.0.9.1".parse().unwrap());
    let mut client = Client::connect(world.listener(listener), from)
        .await
        .unwrap();
    client.raw(header).await.unwrap();
    client
}

/// Version 2, PROXY over TCP/IPv4 from this address, with a TLV (authority).
fn v2(source: [u8; 4]) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x12".to_vec();
    header.extend(source);
    header.extend([127, 0, 0, 1, 0x10, 0x00, 0, 25]);
    header.extend([0x02, 0x00, 0x03, b'm', b'x', b'1']);
    header
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_a_balancer_the_proxied_address_is_the_one_that_is_judged() {
    let world = World::with(balanced()).await;
    let v1 = |source: &str| format!("PROXY TCP4 {source} 127.0.0.1 4096 25\r\n").into_bytes();
    // Exchange behind the balancer: network and certificate hold, the trace names the client.
    for header in [v1("127.0.40.25"), v2([127, 0, 40, 25])] {
        let mut client = balancer(&world, "exchange", &header).await;
        assert_eq!(client.reply().await.unwrap().code, 220);
        client.ehlo("mail.example").await.unwrap();
        assert_eq!(client.command("STARTTLS").await.unwrap().code, 220);
        let mut client = world.exchange_out().encrypt(client).await.unwrap();
        client.ehlo("mail.example").await.unwrap();
        assert!(client.offers("XOORG"), "proven by both");
        let mail = world.outbound(
            &world.around.contoso,
            Mail::new("ada@contoso.com", "bob@contoso.com", LETTER),
        );
        let answer = client.transaction(&mail.mail).await.unwrap();
        assert!(answer.accepted(), "{answer:?}");
        let events = world.trace(&last_word(answer.deciding())).await;
        let Event::Received { peer, .. } = &events[0].event else {
            panic!("{events:?}")
        };
        assert_eq!(peer, "127.0.40.25:4096");
    }
    // A forger behind it: outside the networks, 451 with the certificate, and the stranger's limits before TLS.
    let mut client = balancer(&world, "exchange", &v1("127.0.99.1")).await;
    assert_eq!(client.reply().await.unwrap().code, 220);
    for _ in 0..10 {
        assert_eq!(client.command("NOOP").await.unwrap().code, 250);
    }
    assert_eq!(client.command("NOOP").await.unwrap().code, 421);
    // A device by its address; the balancer's own does not make one.
    let mail = "MAIL FROM:<scanner@contoso.com>";
    for (header, code) in [
        (v1("127.0.7.7"), 250),
        (v2([127, 0, 7, 7]), 250),
        (v1("127.0.7.8"), 530),
        (b"PROXY UNKNOWN\r\n".to_vec(), 530),
    ] {
        let mut client = balancer(&world, "printers", &header).await;
        assert_eq!(client.reply().await.unwrap().code, 220);
        client.ehlo("scanner").await.unwrap();
        assert_eq!(client.command(mail).await.unwrap().code, code);
    }
    // Guessing is braked for the guesser behind the balancer, not for all behind it.
    let guess = async |source: &str| {
        let mut client = balancer(&world, "apps", &v1(source)).await;
        assert_eq!(client.reply().await.unwrap().code, 220);
        client.ehlo("erp").await.unwrap();
        assert_eq!(client.command("STARTTLS").await.unwrap().code, 220);
        let mut client = world.exchange_out().encrypt(client).await.unwrap();
        client.ehlo("erp").await.unwrap();
        client
            .command("AUTH PLAIN AGVycAB3cm9uZw==")
            .await
            .unwrap()
            .code
    };
    for _ in 0..5 {
        assert_eq!(guess("127.0.66.6").await, 535);
    }
    assert_eq!(guess("127.0.66.6").await, 454);
    assert_eq!(guess("127.0.66.7").await, 535);
    world.host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_balancers_health_check_gets_greeting_and_quit() {
    let world = World::with(balanced()).await;
    let local = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00";
    let mut client = balancer(&world, "exchange", local).await;
    assert_eq!(client.reply().await.unwrap().code, 220);
    client.ehlo("balancer").await.unwrap();
    let mail = "MAIL FROM:<ada@contoso.com>";
    assert_eq!(client.command(mail).await.unwrap().code, 530);
    assert_eq!(client.command("QUIT").await.unwrap().code, 221);
    world.host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_balancer_without_header_and_a_header_without_balancer_are_refused() {
    let world = World::with(balanced()).await;
    let refused = async |count: &str| {
        until("the refusal in the metrics", async || {
            world.metrics().contains(count).then_some(())
        })
        .await;
    };
    // No greeting comes before the header, so a client that waits for it gets nothing; one that speaks is refused.
    let mut client = balancer(&world, "exchange", b"EHLO balancer\r\n").await;
    assert!(client.reply().await.is_err() || client.reply().await.is_err());
    refused("gatepost_connections_total{listener=\"exchange\",result=\"no_proxy_header\"} 1").await;
    let waits = balancer(&world, "exchange", b"").await;
    refused("gatepost_connections_total{listener=\"exchange\",result=\"no_proxy_header\"} 2").await;
    drop(waits);
    refused("gatepost_messages_refused_total{listener=\"exchange\",reason=\"proxy_protocol\"} 2")
        .await;
    assert!(
        world
            .metrics()
            .contains("gatepost_connections_open{listener=\"exchange\"} 0")
            || !world.metrics().contains("gatepost_connections_open"),
        "no seat was ever taken"
    );
    // From elsewhere a header is refused, and nothing of it believed.
    let from = Some("127.0.99.1".parse().unwrap());
    for header in [
        b"PROXY TCP4 127.0.40.25 127.0.0.1 4096 25\r\n".to_vec(),
        v2([127, 0, 40, 25]),
    ] {
        let mut client = Client::connect(world.listener("exchange"), from)
            .await
            .unwrap();
        assert_eq!(client.reply().await.unwrap().code, 220);
        client.raw(&header).await.unwrap();
        let reply = client.reply().await.unwrap();
        assert_eq!((reply.code, reply.enhanced), (421, Some((4, 7, 0))));
        let events = world.trace(&last_word(&reply)).await;
        let Event::Refused { peer, reason, .. } = &events[0].event else {
            panic!("{events:?}")
        };
        assert!(peer.starts_with("127.0.99.1:"), "{peer}");
        assert_eq!(reason, "proxy_protocol");
    }
    world.host.stop().await;
}

/// A device that knows TLS 1.0 and RSA key exchange (RFC 2246 §7.4.1.2), byte by byte.
const TLS_1_0: &[u8] = b"\x16\x03\x01\x00\x2f\x01\x00\x00\x2b\x03\x01\
    abcdefghijklmnopqrstuvwxyz012345\x00\x00\x04\x00\x35\x00\x2f\x01\x00";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_handshake_tells_what_the_peer_offered() {
    let world = World::start().await;
    let since = gatepost::message_trace::Query {
        since: Some(0),
        ..Default::default()
    };
    let counted = async |result: &str| {
        let line =
            format!("gatepost_tls_handshakes_total{{listener=\"exchange\",result=\"{result}\"}} 1");
        until("the failure in the metrics", async || {
            world.metrics().contains(&line).then_some(())
        })
        .await;
    };
    let table = [
        (TLS_1_0, "failed_version"),
        (&b"MAIL FROM:<x@y.example>\r\n"[..], "failed_not_tls"),
        (&TLS_1_0[..20], "failed_closed"),
    ];
    for (octets, result) in table {
        let mut client = world.exchange_out().clear().await.unwrap();
        client.ehlo("old.example").await.unwrap();
        assert_eq!(client.command("STARTTLS").await.unwrap().code, 220);
        client.raw(octets).await.unwrap();
        if result != "failed_closed" {
            // An alert comes, or the end of the connection.
            assert!(client.reply().await.is_err());
        }
        drop(client);
        counted(result).await;
    }
    world.host.tracer().flush().await;
    let events = world.host.tracer().find(since).await.unwrap();
    let failed: Vec<_> = events
        .iter()
        .filter(|event| matches!(event.event, Event::HandshakeFailed { .. }))
        .cloned()
        .collect();
    assert_eq!(failed.len(), 3, "{events:?}");
    let shown = gatepost::cli::trace::stories(&failed);
    assert!(
        shown.contains(
            "offered: TLS1.0 with TLS_RSA_WITH_AES_256_CBC_SHA TLS_RSA_WITH_AES_128_CBC_SHA"
        ),
        "{shown}"
    );
    assert!(shown.contains("no version in common"), "{shown}");
    assert_eq!(shown.matches("offered:").count(), 1, "{shown}");
    world.host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_address_does_not_fill_a_submission_listener() {
    let changes = Changes::replace("name = \"apps\"", "name = \"apps\"\nmax_connections = 52");
    let world = World::with(changes).await;
    let greeted = async |from: &str| {
        let mut client = Client::connect(world.listener("apps"), Some(from.parse().unwrap()))
            .await
            .unwrap();
        let reply = client.reply().await.unwrap();
        (client, reply.code)
    };
    let (first, code) = greeted("127.0.66.1").await;
    assert_eq!(code, 220);
    let mut others = Vec::new();
    for number in 2..=50 {
        let (client, code) = greeted("127.0.66.1").await;
        assert_eq!(code, 220, "{number}");
        others.push(client);
    }
    let (_, code) = greeted("127.0.66.1").await;
    assert_eq!(code, 421, "fifty of 52");
    let answer = world
        .erp()
        .send(&Mail::new(
            "erp@contoso.com",
            "bob@contoso.com",
            "From: erp@contoso.com\r\n\r\nx\r\n",
        ))
        .await
        .unwrap();
    assert!(answer.accepted(), "another address: {answer:?}");
    first.quit().await;
    until("the place is given back", async || {
        let (client, code) = greeted("127.0.66.1").await;
        (code == 220).then_some(client)
    })
    .await;
    drop(others);
    world.host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_max_connections_is_not_split_by_address() {
    let changes = Changes::replace("name = \"apps\"", "name = \"apps\"\nmax_connections = 3");
    let world = World::with(changes).await;
    let mut clients = Vec::new();
    for expected in [220, 220, 220, 421] {
        let from = Some("127.0.66.1".parse().unwrap());
        let mut client = Client::connect(world.listener("apps"), from).await.unwrap();
        assert_eq!(client.reply().await.unwrap().code, expected);
        clients.push(client);
    }
    drop(clients);
    world.host.stop().await;
}
