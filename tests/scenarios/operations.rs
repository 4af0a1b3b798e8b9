//! Two servers in one process, reload, shutdown.

use crate::harness::{
    Changes, HOSTNAME, LETTER, Process, Surroundings, World, free_port, until, write_identity,
};
use gatepost::lab::certificates::Leaf;
use gatepost::lab::{Action, Client, Mail, Phase, Step};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_servers_run_in_one_process() {
    let (one, two) = tokio::join!(World::start(), World::start());
    let answer = one
        .erp()
        .send(&Mail::new("erp@contoso.com", "bob@contoso.com", ERP))
        .await
        .unwrap();
    assert!(answer.accepted(), "{answer:?}");
    assert!(one.around.exchange.received().await.unwrap().is_internal());
    assert!(
        one.metrics()
            .contains("gatepost_messages_received_total{listener=\"apps\",tenant=\"contoso\"} 1")
    );
    assert!(
        two.metrics()
            .contains("gatepost_messages_received_total{listener=\"apps\",tenant=\"contoso\"} 0")
    );
    one.host.stop().await;
    two.host.stop().await;
}

const ERP: &[u8] = b"From: erp@contoso.com\r\nSubject: s\r\n\r\nbody\r\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_rotate_under_an_open_session() {
    let world = World::start().await;
    let mut connection = world.exchange_out().connect().await.unwrap();
    let outbound = world.outbound(
        &world.around.contoso,
        Mail::new("ada@contoso.com", "bob@contoso.com", LETTER),
    );
    assert!(connection.send(&outbound).await.unwrap().accepted());
    let rotated = Changes::replace(
        "value = \"contoso-secret\"",
        "value = \"new-secret\", previous = \"contoso-secret\", required = true",
    );
    world.host.reload(world.around.settings(&rotated)).unwrap();
    assert!(
        connection.send(&outbound).await.unwrap().accepted(),
        "the previous value passes"
    );
    let renewed = Changes::replace(
        "value = \"contoso-secret\"",
        "value = \"new-secret\", required = true",
    );
    world.host.reload(world.around.settings(&renewed)).unwrap();
    // At once, though the session has waited for its next command since before the reload.
    let answer = connection.send(&outbound).await.unwrap();
    assert!(!answer.accepted(), "{answer:?}");
    assert_eq!(answer.deciding().enhanced, Some((5, 7, 1)), "{answer:?}");
    connection.quit().await;
    world.host.stop().await;
}

/// The end of one message and all of the next arrive in one piece; between the two a secret was exchanged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_begins_behind_a_message_that_a_reload_met_is_judged_by_the_new_policy() {
    let world = World::start().await;
    let mail = Mail::new("ada@contoso.com", "bob@contoso.com", LETTER);
    let content = world.outbound(&world.around.contoso, mail).mail.content;
    let connection = world.exchange_out().connect().await.unwrap();
    let mut client = connection.into_client();
    let envelope = "MAIL FROM:<ada@contoso.com>\r\nRCPT TO:<bob@contoso.com>\r\n";
    let (first, rest) = content.split_at(content.len() - 3);
    client.raw(envelope.as_bytes()).await.unwrap();
    let chunk = format!("BDAT {}\r\n", first.len());
    client
        .raw(&[chunk.as_bytes(), first].concat())
        .await
        .unwrap();
    for _ in 0..3 {
        assert_eq!(client.reply().await.unwrap().code, 250);
    }
    let renewed = Changes::replace("value = \"contoso-secret\"", "value = \"new-secret\"");
    world.host.reload(world.around.settings(&renewed)).unwrap();
    let mut octets = format!("BDAT {} LAST\r\n", rest.len()).into_bytes();
    octets.extend_from_slice(rest);
    octets.extend_from_slice(envelope.as_bytes());
    octets.extend_from_slice(format!("BDAT {} LAST\r\n", content.len()).as_bytes());
    octets.extend_from_slice(&content);
    client.raw(&octets).await.unwrap();
    let mut codes = Vec::new();
    for _ in 0..4 {
        codes.push(client.reply().await.unwrap().code);
    }
    assert_eq!(
        codes,
        [250, 250, 250, 550],
        "ends by the old, begins by the new"
    );
    world.host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_is_still_in_clear_text_gets_the_new_certificate() {
    const NEW: &str = "new.contoso.com";
    let world = World::start().await;
    let tls = |roots| {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap();
        Arc::new(config.with_root_certificates(roots).with_no_client_auth())
    };
    let tls = tls(world.around.authority.roots().unwrap());
    let mut client = world.exchange_out().clear().await.unwrap();
    client.ehlo("am8.outbound.example").await.unwrap();
    let leaf = Leaf::named(HOSTNAME).and(NEW);
    let issued = world.around.authority.issue(&leaf).unwrap();
    write_identity(world.around.folder.path(), "host", &issued);
    let settings = world.around.settings(&Changes::default());
    world.host.reload(settings).unwrap();
    let secure = client.starttls(tls, NEW.try_into().unwrap()).await;
    assert!(secure.is_ok(), "{:?}", secure.err());
    world.host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_ends_idle_sessions_with_421() {
    let world = World::start().await;
    let mut client = world.exchange_out().connect().await.unwrap().into_client();
    let stop = tokio::spawn(world.host.stop());
    let reply = client.reply().await.unwrap();
    assert_eq!((reply.code, reply.enhanced), (421, Some((4, 3, 2))));
    tokio::time::timeout(std::time::Duration::from_secs(30), stop)
        .await
        .expect("within 30 s")
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_ends_within_thirty_seconds_whoever_stalls() {
    let around = Surroundings::new().await;
    let ports = [free_port(), free_port(), free_port()];
    let config = around.configuration(ports, &Changes::default());
    let process = Process::start(&config);
    let exchange = SocketAddr::from(([127, 0, 0, 1], ports[0]));
    let apps = SocketAddr::from(([127, 0, 0, 1], ports[1]));
    let printers = SocketAddr::from(([127, 0, 0, 1], ports[2]));
    let from = Some("127.0.7.7".parse().unwrap());
    let printer = async || {
        let mut client = Client::connect(printers, from).await.unwrap();
        assert_eq!(client.reply().await.unwrap().code, 220);
        client.ehlo("scanner").await.unwrap();
        client
    };
    // A next hop that says nothing after the last octet.
    around
        .exchange
        .script(Step::new(Phase::EndOfData, Action::Stall(Duration::from_secs(120))).always());
    let mut client = printer().await;
    let letter = b"From: scanner@contoso.com\r\nSubject: stalled\r\n\r\nbody\r\n";
    let mail = Mail::new("scanner@contoso.com", "bob@contoso.com", &letter[..]);
    assert!(client.transaction(&mail).await.unwrap().accepted());
    until("the delivery that stalls", async || {
        (around.exchange.connections() > 0).then_some(())
    })
    .await;
    // Sessions of every kind: idle, before and within TLS; with a transaction; in the middle of DATA; between chunks; in a
    // handshake, on each listener, so that no listener waits for another.
    let mut idle = vec![client, printer().await];
    idle.push(
        around
            .exchange_out(exchange)
            .connect()
            .await
            .unwrap()
            .into_client(),
    );
    let mut transaction = printer().await;
    let mail = "MAIL FROM:<scanner@contoso.com>";
    assert_eq!(transaction.command(mail).await.unwrap().code, 250);
    idle.push(transaction);
    let mut content = Vec::new();
    for words in ["DATA\r\n", "BDAT 4\r\nX: y"] {
        let mut client = printer().await;
        assert_eq!(client.command(mail).await.unwrap().code, 250);
        let to = "RCPT TO:<bob@contoso.com>";
        assert_eq!(client.command(to).await.unwrap().code, 250);
        client.raw(words.as_bytes()).await.unwrap();
        let ready = client.reply().await.unwrap();
        assert!(matches!(ready.code, 354 | 250), "{ready}");
        client.raw(b"Subject: never ends\r\n").await.unwrap();
        content.push(client);
    }
    let mut shaking = Vec::new();
    for listener in [exchange, apps, printers] {
        let mut client = Client::connect(listener, None).await.unwrap();
        assert_eq!(client.reply().await.unwrap().code, 220);
        client.ehlo("x").await.unwrap();
        assert_eq!(client.command("STARTTLS").await.unwrap().code, 220);
        client.raw(b"\x16\x03\x01").await.unwrap();
        shaking.push(client);
    }

    let began = std::time::Instant::now();
    let stopped = tokio::task::spawn_blocking(move || process.terminate());
    for client in &mut idle {
        let reply = client.reply().await.unwrap();
        assert_eq!((reply.code, reply.enhanced), (421, Some((4, 3, 2))));
    }
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "who has nothing in hand is told at once"
    );
    for client in &mut content {
        // The chunk's client gets 500 for what stands between chunks; at the end both are told.
        let mut reply = client.reply().await.unwrap();
        while reply.code == 500 {
            reply = client.reply().await.unwrap();
        }
        assert_eq!((reply.code, reply.enhanced), (421, Some((4, 3, 2))));
    }
    assert!(stopped.await.unwrap().success(), "status 0");
    let took = began.elapsed();
    assert!(took < Duration::from_secs(30), "{took:?}");

    // What was in hand is delivered by the next run.
    around.exchange.forget_script();
    let process = Process::start(&config);
    let received = around.exchange.received().await.unwrap();
    assert_eq!(received.header("Subject").as_deref(), Some("stalled"));
    assert!(process.terminate().success());
}
