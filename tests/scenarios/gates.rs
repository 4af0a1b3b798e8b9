//! Who is refused, where, and with what words.

use crate::harness::{Changes, HOSTNAME, LETTER, World, last_word};
use gatepost::lab::certificates::{Authority, Leaf};
use gatepost::lab::{Client, ExchangeOut, Mail, Outbound, Transaction};
use gatepost::message_trace::{Event, TraceEvent};

pub fn expect(answer: &Transaction, at: &str, code: u16, enhanced: (u8, u16, u16)) {
    assert_eq!(answer.refused_at(), Some(at), "{answer:?}");
    let reply = answer.deciding();
    assert_eq!(
        (reply.code, reply.enhanced),
        (code, Some(enhanced)),
        "{answer:?}"
    );
    assert!(
        reply.lines[0].starts_with(HOSTNAME),
        "begins with our name: {reply}"
    );
}

fn stamped(extra: &str, body: &str) -> Vec<u8> {
    format!(
        "From: ada@contoso.com\r\nTo: bob@contoso.com\r\nSubject: s\r\nX-OriginatorOrg: contoso.com\r\n\
         X-MS-Exchange-CrossTenant-Id: {}\r\n{extra}\r\n{body}\r\n",
        crate::harness::CONTOSO
    )
    .into_bytes()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hostile_tenant_with_our_from_is_refused_and_traced() {
    let world = World::start().await;
    let mail = Mail::new("ceo@contoso.com", "bob@contoso.com", LETTER);
    let hostile = Outbound::stamped(
        &world.around.fabrikam,
        mail,
        "0d6f9b1c-0000-4000-8000-000000000002",
    )
    .unwrap();
    let answer = world
        .exchange_out()
        .send(&hostile.clone().xoorg(None))
        .await
        .unwrap();
    expect(&answer, "content", 550, (5, 7, 1));
    let events = world.trace(&last_word(answer.deciding())).await;
    let Event::Refused { evidence, .. } = &events[0].event else {
        panic!("{events:?}")
    };
    assert!(!evidence.0.is_empty(), "the evidence is told");
    let text = serde_json::to_string(&events).unwrap();
    assert!(
        !text.contains("fabrikam-secret"),
        "a secret is never printed: {text}"
    );
    assert_eq!(world.around.exchange.taken(), 0);
    world.host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_tenant_is_refused_with_5_7_64() {
    let world = World::start().await;
    let letter = b"From: a@elsewhere.example\r\nX-OriginatorOrg: elsewhere.example\r\n\
        X-MS-Exchange-CrossTenant-Id: 99999999-2222-3333-4444-555555555555\r\n\r\nx\r\n";
    let outbound = Outbound::bare(Mail::new(
        "a@elsewhere.example",
        "bob@contoso.com",
        &letter[..],
    ));
    expect(
        &world.exchange_out().send(&outbound).await.unwrap(),
        "content",
        550,
        (5, 7, 64),
    );
    let outbound = outbound.xoorg(Some("elsewhere.example"));
    expect(
        &world.exchange_out().send(&outbound).await.unwrap(),
        "MAIL",
        550,
        (5, 7, 64),
    );
    world.host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_a_proof_is_deferred_and_none_is_refused() {
    let world = World::start().await;
    let outbound = Outbound::bare(Mail::new(
        "ada@contoso.com",
        "bob@contoso.com",
        stamped("", "x"),
    ));
    let elsewhere = "127.0.99.1".parse().unwrap();
    let answer = world
        .exchange_out()
        .from_address(elsewhere)
        .send(&outbound)
        .await
        .unwrap();
    expect(&answer, "MAIL", 451, (4, 7, 1));
    let forger = Authority::new("forger").unwrap();
    let roots = world.around.authority.roots().unwrap();
    let forged = forger.issue(&Leaf::exchange()).unwrap();
    let with = |identity| {
        ExchangeOut::new(world.listener("exchange"), HOSTNAME, &roots, identity).unwrap()
    };
    expect(
        &with(Some(&forged)).send(&outbound).await.unwrap(),
        "MAIL",
        451,
        (4, 7, 1),
    );
    expect(
        &with(None).send(&outbound).await.unwrap(),
        "MAIL",
        451,
        (4, 7, 1),
    );
    // An XOORG that nobody can read is no reason to forget which half it was.
    let mut client = with(None).connect().await.unwrap().into_client();
    let mail = "MAIL FROM:<ada@contoso.com> XOORG=contoso..com";
    let reply = client.command(mail).await.unwrap();
    assert_eq!((reply.code, reply.enhanced), (451, Some((4, 7, 1))));
    let stranger = with(None).from_address(elsewhere);
    expect(
        &stranger.send(&outbound).await.unwrap(),
        "MAIL",
        550,
        (5, 7, 1),
    );
    let metrics = world.metrics();
    assert!(
        metrics
            .contains("gatepost_half_proven_total{holds=\"certificate\",listener=\"exchange\"} 1"),
        "{metrics}"
    );
    assert!(
        metrics.contains("gatepost_half_proven_total{holds=\"network\",listener=\"exchange\"} 3"),
        "{metrics}"
    );
    world.host.stop().await;

    let world = World::with(Changes::replace(
        "networks = [\"127.0.40.0/24\"]",
        "networks = [\"127.0.40.0/24\"]\nhalf_proven = \"refuse\"",
    ))
    .await;
    let answer = world
        .exchange_out()
        .from_address(elsewhere)
        .send(&outbound)
        .await
        .unwrap();
    expect(&answer, "MAIL", 550, (5, 7, 1));
    world.host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_of_the_content_have_their_codes_in_their_order() {
    let world = World::start().await;
    let mut connection = world.exchange_out().connect().await.unwrap();
    let mut send = async |content: Vec<u8>| {
        let mail = Mail::new("ada@contoso.com", "bob@contoso.com", content);
        connection.send(&Outbound::bare(mail)).await.unwrap()
    };
    expect(
        &send(b"From: ada@contoso.com\r\nno colon here\r\n\r\nx".to_vec()).await,
        "content",
        554,
        (5, 6, 0),
    );
    expect(
        &send(b"From: ada@contoso.com\nX: y\r\n\r\nx".to_vec()).await,
        "content",
        554,
        (5, 6, 0),
    );
    let fat = format!("X-Fat: {}\r\n", "y".repeat(300 * 1024));
    expect(&send(stamped(&fat, "x")).await, "content", 552, (5, 3, 4));
    expect(
        &send(stamped("X-OriginatorOrg: contoso.com\r\n", "x")).await,
        "content",
        550,
        (5, 7, 1),
    );
    expect(
        &send(stamped("X-Gatepost-Processed: contoso-loop\r\n", "x")).await,
        "content",
        554,
        (5, 4, 6),
    );
    let hops = "Received: from a by b; Tue, 24 Nov 2026 08:15:31 +0000\r\n".repeat(51);
    expect(&send(stamped(&hops, "x")).await, "content", 554, (5, 4, 6));
    assert!(
        send(stamped("X-Gatepost-Processed: fabrikam-loop\r\n", "x"))
            .await
            .accepted(),
        "another tenant's is none"
    );
    let hops = "Received: from a by b; Tue, 24 Nov 2026 08:15:31 +0000\r\n".repeat(50);
    assert!(send(stamped(&hops, "x")).await.accepted());
    world.host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_cannot_pass_for_exchange_or_for_somebody_else() {
    let world = World::start().await;
    let letter = b"From: erp@contoso.com\r\nX-MS-Exchange-Organization-SCL: -1\r\nx-ms-exchange-crosspremises-authas : Internal\r\n\
        X-OriginatorOrg: fabrikam.com\r\nX-Gatepost-Processed: contoso-loop\r\nBcc: secret@contoso.com\r\nSubject: s\r\n\r\nbody\r\n";
    let answer = world
        .erp()
        .send(&Mail::new(
            "erp@contoso.com",
            "bob@contoso.com",
            &letter[..],
        ))
        .await
        .unwrap();
    assert!(answer.accepted(), "{answer:?}");
    let received = world.received().await;
    assert_eq!(received.headers("X-OriginatorOrg"), ["contoso.com"]);
    assert_eq!(
        received.headers("X-MS-Exchange-CrossPremises-AuthAs").len(),
        1
    );
    assert!(
        received.header("X-MS-Exchange-Organization-SCL").is_none()
            && received.header("Bcc").is_none()
    );
    assert_eq!(
        received.headers("X-Gatepost-Processed").len(),
        1,
        "ours alone"
    );
    let forged = b"From: ceo@contoso.com\r\nSubject: s\r\n\r\nbody\r\n";
    let answer = world
        .erp()
        .send(&Mail::new(
            "erp@contoso.com",
            "bob@contoso.com",
            &forged[..],
        ))
        .await
        .unwrap();
    expect(&answer, "content", 550, (5, 7, 1));
    let answer = world
        .erp()
        .send(&Mail::new(
            "ceo@contoso.com",
            "bob@contoso.com",
            &letter[..],
        ))
        .await
        .unwrap();
    expect(&answer, "MAIL", 550, (5, 7, 1));
    let answer = world
        .erp()
        .send(&Mail::new("", "bob@contoso.com", &letter[..]))
        .await
        .unwrap();
    expect(&answer, "MAIL", 550, (5, 7, 1));
    world.host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guessing_passwords_is_braked_for_the_guesser_alone() {
    let world = World::start().await;
    let guess = |from: &str, password: &str| {
        let client = world
            .application("apps")
            .from_address(from.parse().unwrap());
        client.login("erp", password, gatepost::lab::Dialect::Plain)
    };
    for _ in 0..5 {
        let guesser = guess("127.0.66.6", "wrong");
        let mut client = guesser.connect().await.unwrap();
        let reply = guesser.log_in(&mut client).await.unwrap().unwrap();
        assert_eq!((reply.code, reply.enhanced), (535, Some((5, 7, 8))));
    }
    let guesser = guess("127.0.66.6", crate::harness::PASSWORD);
    let mut client = guesser.connect().await.unwrap();
    let reply = guesser.log_in(&mut client).await.unwrap().unwrap();
    assert_eq!(
        (reply.code, reply.enhanced),
        (454, Some((4, 7, 0))),
        "unjudged, in a new session"
    );
    // The same within the session in which he guessed: the sixth is told what the seventh in a new one is.
    let guesser = guess("127.0.66.7", "wrong");
    let right = guess("127.0.66.7", crate::harness::PASSWORD);
    let mut client = guesser.connect().await.unwrap();
    for _ in 0..5 {
        assert_eq!(
            guesser.log_in(&mut client).await.unwrap().unwrap().code,
            535
        );
    }
    for again in [&right, &guesser] {
        let reply = again.log_in(&mut client).await.unwrap().unwrap();
        assert_eq!((reply.code, reply.enhanced), (454, Some((4, 7, 0))));
    }
    assert_eq!(client.command("NOOP").await.unwrap().code, 250);
    let owner = guess("127.0.5.5", crate::harness::PASSWORD);
    let mut client = owner.connect().await.unwrap();
    assert_eq!(owner.log_in(&mut client).await.unwrap().unwrap().code, 235);
    world.host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chunk_that_completes_a_bad_header_is_answered_and_later_ones_get_503() {
    let world = World::start().await;
    let mut client = world.exchange_out().connect().await.unwrap().into_client();
    assert_eq!(
        client
            .command("MAIL FROM:<ada@contoso.com>")
            .await
            .unwrap()
            .code,
        250
    );
    assert_eq!(
        client
            .command("RCPT TO:<bob@contoso.com>")
            .await
            .unwrap()
            .code,
        250
    );
    client
        .raw(b"BDAT 30\r\nFrom: ada@contoso.com\r\n\r\nbody ")
        .await
        .unwrap();
    let reply = client.reply().await.unwrap();
    assert_eq!(
        (reply.code, reply.enhanced),
        (550, Some((5, 7, 64))),
        "at the end of the chunk: {reply}"
    );
    client
        .raw(b"BDAT 4\r\nmoreBDAT 3 LAST\r\nend")
        .await
        .unwrap();
    assert_eq!(client.reply().await.unwrap().code, 503);
    assert_eq!(client.reply().await.unwrap().code, 503);
    assert_eq!(client.command("RSET").await.unwrap().code, 250);
    assert_eq!(
        client
            .command("MAIL FROM:<ada@contoso.com>")
            .await
            .unwrap()
            .code,
        250
    );
    world.host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clear_bytes_behind_starttls_are_dropped() {
    let world = World::start().await;
    let out = world.exchange_out();
    let mut client = out.clear().await.unwrap();
    client.ehlo("peer.example").await.unwrap();
    client
        .raw(b"STARTTLS\r\nMAIL FROM:<injected@contoso.com>\r\n")
        .await
        .unwrap();
    assert_eq!(client.reply().await.unwrap().code, 220);
    // Whether the injected octets were read with the command (dropped) or not (no handshake): no reply comes to them.
    if let Ok(mut client) = out.encrypt(client).await {
        let reply = client.command("NOOP").await.unwrap();
        assert_eq!(
            (reply.code, reply.enhanced),
            (250, Some((2, 0, 0))),
            "the first reply is NOOP's: {reply}"
        );
        assert_eq!(
            client
                .command("RCPT TO:<bob@contoso.com>")
                .await
                .unwrap()
                .code,
            503,
            "no MAIL was taken"
        );
    }
    world.host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_have_ten_commands_and_fifty_connections() {
    let world = World::start().await;
    let stranger = world
        .exchange_out()
        .from_address("127.0.99.1".parse().unwrap());
    let mut client = stranger.clear().await.unwrap();
    for _ in 0..10 {
        assert_eq!(client.command("NOOP").await.unwrap().code, 250);
    }
    let reply = client.command("NOOP").await.unwrap();
    assert_eq!((reply.code, reply.enhanced), (421, Some((4, 7, 0))));
    drop(client);
    let mut crowd = Vec::new();
    let mut turned_away = false;
    for _ in 0..60 {
        match stranger.clear().await {
            Ok(client) => crowd.push(client),
            Err(_) => {
                turned_away = true;
                break;
            }
        }
    }
    assert!(
        turned_away && (45..=51).contains(&crowd.len()),
        "{}",
        crowd.len()
    );
    assert!(
        world.exchange_out().clear().await.is_ok(),
        "Exchange is not kept out by strangers"
    );
    world.host.stop().await;
}

/// What each refusal costs the trace is bounded, and strangers take no word from those who are known.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_flood_of_strangers_a_hundred_are_told_and_the_others_are_closed() {
    let world = World::with(Changes::replace(
        "name = \"exchange\"",
        "name = \"exchange\"\nmax_connections = 1",
    ))
    .await;
    let knock = async |from: &str| {
        let from = Some(from.parse().unwrap());
        let to = world.listener("exchange");
        let mut client = Client::connect(to, from).await.ok()?;
        let reply = client.reply().await.ok()?;
        Some((client, reply.code))
    };
    let begun = std::time::Instant::now();
    let (mut seated, mut told, mut closed) = (Vec::new(), 0, 0);
    for _ in 0..50 + 400 {
        match knock("127.0.99.1").await {
            Some((client, 220)) => seated.push(client),
            Some((_, code)) => {
                assert_eq!(code, 421);
                told += 1;
            }
            None => closed += 1,
        }
    }
    // Ten more may be told with every second.
    let most = 101 + 10 * begun.elapsed().as_secs() + 10;
    assert!((100..=most).contains(&told), "{told} of {most}");
    assert_eq!((seated.len(), told + closed), (50, 400));
    let (_first, code) = knock("127.0.40.1").await.unwrap();
    assert_eq!(code, 220);
    let (_, code) = knock("127.0.40.2").await.expect("is told");
    assert_eq!(code, 421);
    world.host.stop().await;
}

/// Anybody may be refused without end; what stands in the trace of it has a bound, and no refusal is told that it lacks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_refusals_does_not_fill_the_trace_and_is_closed_without_a_word() {
    let world = World::start().await;
    // What was told, and whether that was all.
    let refused = async |last: usize, commands: usize| {
        let from = Some(format!("127.0.99.{last}").parse().unwrap());
        let to = world.listener("apps");
        let mut client = Client::connect(to, from).await.unwrap();
        assert_eq!(client.reply().await.unwrap().code, 220);
        let mut wire = b"EHLO stranger\r\n".to_vec();
        wire.extend(b"MAIL FROM:<eve@elsewhere.example>\r\n".repeat(commands));
        client.raw(&wire).await.unwrap();
        let mut told = Vec::new();
        while let Ok(reply) = client.reply().await {
            if reply.code == 530 {
                told.push(last_word(&reply));
            }
            if told.len() == commands {
                return (told, true);
            }
        }
        (told, false)
    };
    let begun = std::time::Instant::now();
    let (mut told, mut closed) = (Vec::new(), 0);
    while closed < 60 {
        let (own, is_all) = refused(1 + closed % 6, 15).await;
        told.extend(own);
        closed += usize::from(!is_all);
        assert!(begun.elapsed().as_secs() < 60, "{} are told", told.len());
    }
    // A thousand in each ten seconds; what was about to be told when a session was closed stands in the trace alone.
    let most = 1015 * (begun.elapsed().as_secs() as usize / 10 + 2);
    assert!(
        (900..=most).contains(&told.len()),
        "{} of {most}",
        told.len()
    );
    // Who comes new learns what is wrong.
    let (first, is_all) = refused(77, 1).await;
    assert!(is_all);
    told.extend(first);
    let last = told.last().unwrap();
    assert!(matches!(
        world.trace(last).await[0].event,
        Event::Refused { .. }
    ));
    let folder = world.around.folder.path().join("data/trace");
    let files = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let files = files.filter(|path| path.is_file());
    let trace: String = files
        .map(|path| std::fs::read_to_string(path).unwrap())
        .collect();
    let refusals = trace.lines().filter(|line| line.contains("127.0.99."));
    assert!((told.len()..=most).contains(&refusals.count()));
    assert!(told.iter().all(|id| trace.contains(id)));
    // Who is known is told what is wrong all the same.
    let forged = Mail::new("ceo@elsewhere.example", "bob@contoso.com", LETTER);
    let answer = world.erp().send(&forged).await.unwrap();
    expect(&answer, "MAIL", 550, (5, 7, 1));
    let letter = "From: erp@contoso.com\r\n\r\nx\r\n";
    let good = Mail::new("erp@contoso.com", "bob@contoso.com", letter);
    assert!(world.erp().send(&good).await.unwrap().accepted());
    world.host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_do_not_count_against_max_connections_and_the_next_one_gets_421() {
    let world = World::with(Changes::replace(
        "name = \"exchange\"",
        "name = \"exchange\"\nmax_connections = 2",
    ))
    .await;
    let greeted = async |from: &str| {
        let from = Some(from.parse().unwrap());
        let mut client = Client::connect(world.listener("exchange"), from)
            .await
            .unwrap();
        let reply = client.reply().await.unwrap();
        (client, reply)
    };
    let mut strangers = Vec::new();
    for _ in 0..50 {
        let (client, reply) = greeted("127.0.99.1").await;
        assert_eq!(reply.code, 220, "{}", strangers.len());
        strangers.push(client);
    }
    let (_, reply) = greeted("127.0.98.1").await;
    assert_eq!(
        (reply.code, reply.enhanced),
        (421, Some((4, 3, 2))),
        "one pool for all strangers"
    );
    let (first, reply) = greeted("127.0.40.1").await;
    assert_eq!(reply.code, 220);
    let (_second, reply) = greeted("127.0.40.2").await;
    assert_eq!(reply.code, 220);
    let (_, reply) = greeted("127.0.40.3").await;
    assert_eq!((reply.code, reply.enhanced), (421, Some((4, 3, 2))));
    let story = world.trace(&last_word(&reply)).await;
    assert!(
        matches!(&story[..], [TraceEvent { event: Event::Refused { peer, reason, .. }, .. }]
            if peer.starts_with("127.0.40.3:") && reason == "too_many_connections"),
        "{story:?}"
    );
    assert!(
        world
            .metrics()
            .contains("gatepost_connections_total{listener=\"exchange\",result=\"turned_away\"} 2"),
        "{}",
        world.metrics()
    );
    first.quit().await;
    crate::harness::until("the seat is given back", async || {
        let (client, reply) = greeted("127.0.40.3").await;
        (reply.code == 220).then_some(client)
    })
    .await;
    strangers.pop().unwrap().quit().await;
    crate::harness::until("the stranger's seat is given back", async || {
        let (client, reply) = greeted("127.0.99.1").await;
        (reply.code == 220).then_some(client)
    })
    .await;
    world.host.stop().await;
}
