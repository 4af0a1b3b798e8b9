//! Who proves what to whom: the keys of `[exchange_online]`, `[[tenant]]` and `[[application]]` whose meaning is a gate.
//! Each test fails where its key is read and then forgotten (tests/keys.md).

use crate::gates::expect;
use crate::harness::{CONTOSO, Changes, HOSTNAME, LETTER, Surroundings, World, last_word};
use crate::keys::{ERP, from_erp, of_erp};
use crate::outside::result;
use crate::tenant_gate::{REFUSED, SIGNERS, accepted, from_ada, letter, refused, send, sign};
use gatepost::lab::certificates::{Authority, Leaf};
use gatepost::lab::{Client, ExchangeOut, Mail, Outbound};
use gatepost::message_trace::Event;

/// Contoso's table with these keys, and a name server that knows its DKIM key.
async fn tenant(keys: &str) -> World {
    crate::tenant_gate::world(keys, SIGNERS).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exchange_is_known_by_the_listed_names_under_the_roots_for_clients() {
    let around = Surroundings::new().await;
    let clients = Authority::new("clients").unwrap();
    std::fs::write(around.folder.path().join("clients.pem"), clients.pem()).unwrap();
    let changes = Changes::replace(
        "client_certificate_roots = \"ca.pem\"",
        "client_certificate_roots = \"clients.pem\"\nclient_certificate_names = [\"gate.exchange.example\"]",
    );
    let world = World::within(around, changes).await;
    let roots = world.around.authority.roots().unwrap();
    for (authority, name, code) in [
        (&clients, "gate.exchange.example", 250),
        (&clients, "mail.protection.outlook.com", 451),
        (&world.around.authority, "gate.exchange.example", 451),
    ] {
        let issued = authority.issue(&Leaf::named(name)).unwrap();
        let listener = world.listener("exchange");
        let exchange = ExchangeOut::new(listener, HOSTNAME, &roots, Some(&issued)).unwrap();
        let mut client = exchange.connect().await.unwrap().into_client();
        let reply = client.command("MAIL FROM:<ada@contoso.com>").await.unwrap();
        assert_eq!(reply.code, code, "{name}: {reply}");
    }
    world.host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exchange_is_delivered_to_by_the_listed_names_of_any_depth_under_the_roots_for_servers() {
    let servers = Authority::new("servers").unwrap();
    let deep = Leaf::named("contoso-com.h-v1.mx.example");
    let first = servers.issue(&deep).unwrap();
    let around = Surroundings::with(|options| options.identity(first)).await;
    std::fs::write(around.folder.path().join("servers.pem"), servers.pem()).unwrap();
    let changes = Changes::replace(
        "server_certificate_roots = \"ca.pem\"",
        "server_certificate_roots = \"servers.pem\"\nserver_certificate_names = [\"*.mx.example\"]",
    );
    let world = World::within(around, changes).await;
    // Every message meets a handshake of its own.
    world.around.exchange.close_after(1);
    let common = Leaf::named("mail.protection.outlook.com");
    for (authority, leaf, expected) in [
        (&servers, &deep, "delivered"),
        (&servers, &common, "held"),
        (&world.around.authority, &deep, "held"),
    ] {
        let shown = authority.issue(leaf).unwrap();
        world.around.exchange.show_certificate(&shown).unwrap();
        let answer = world.erp().send(&from_erp(ERP)).await.unwrap();
        let id = last_word(answer.deciding());
        let result = result(&world, &id, "bob@contoso.com").await;
        assert_eq!(result.outcome, expected, "{result:?}");
    }
    assert_eq!(world.around.exchange.taken(), 1);
    world.host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_balancer_inside_the_networks_lends_its_address_to_nobody() {
    let address = "name = \"exchange\"\naddress = \"127.0.0.1:0\"";
    let with = format!("{address}\nproxy_protocol_from = [\"127.0.40.9\"]\nmax_connections = 1");
    let world = World::with(Changes::replace(address, &with)).await;
    let headers: [(&[u8], bool); 3] = [
        (b"PROXY TCP4 127.0.40.25 127.0.0.1 4096 25\r\n", true),
        (b"PROXY UNKNOWN\r\n", false),
        (b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00", false),
    ];
    let mut open = Vec::new();
    for (header, proven) in headers {
        let from = Some("127.0.40.9".parse().unwrap());
        let client = Client::connect(world.listener("exchange"), from).await;
        let mut client = client.unwrap();
        client.raw(header).await.unwrap();
        assert_eq!(client.reply().await.unwrap().code, 220);
        client.ehlo("mail.example").await.unwrap();
        assert_eq!(client.command("STARTTLS").await.unwrap().code, 220);
        let mut client = world.exchange_out().encrypt(client).await.unwrap();
        client.ehlo("mail.example").await.unwrap();
        assert_eq!(client.offers("XOORG"), proven);
        let reply = client.command("MAIL FROM:<ada@contoso.com>").await.unwrap();
        assert_eq!(reply.code, if proven { 250 } else { 451 }, "{reply}");
        // The first has Exchange's only place; strangers have their own.
        open.push(client);
    }
    world.host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn originator_orgs_are_the_ones_that_name_the_tenant_and_no_accepted_domain_besides() {
    let world = tenant("originator_orgs = [\"contoso.onmicrosoft.com\"]").await;
    let theirs = letter("", "Hello.");
    let own = theirs.replacen("Org: contoso.com", "Org: contoso.onmicrosoft.com", 1);
    refused(&world, from_ada(theirs), REFUSED, "contradiction").await;
    accepted(&world, from_ada(own.clone()), "proven").await;
    let exchange = world.exchange_out();
    let said = Outbound::bare(from_ada(own));
    let answer = exchange
        .send(&said.clone().xoorg(Some("contoso.com")))
        .await;
    expect(&answer.unwrap(), "MAIL", 550, (5, 7, 64));
    let own = said.xoorg(Some("contoso.onmicrosoft.com"));
    assert!(exchange.send(&own).await.unwrap().accepted());
    world.host.stop().await;
}

/// Mail with the first so many of the five items of evidence.
fn proven_by(items: usize) -> Outbound {
    let fields = [
        "X-OriginatorOrg: contoso.com\r\n".to_owned(),
        format!("X-MS-Exchange-CrossTenant-Id: {CONTOSO}\r\n"),
        "X-contoso-Gate: contoso-secret\r\n".to_owned(),
    ];
    let fields = fields.iter().take(items).cloned().collect::<String>();
    let mut content = format!("From: ada@contoso.com\r\nSubject: s\r\n{fields}\r\nHello.\r\n");
    if items == 5 {
        content = sign(&content, "contoso.com", "s1", false);
    }
    Outbound::bare(from_ada(content)).xoorg((items >= 4).then_some("contoso.com"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_many_proofs_as_the_key_says_are_enough_and_one_less_is_not() {
    for proofs in 1..=5 {
        let world = tenant(&format!("proofs = {proofs}")).await;
        let exchange = world.exchange_out();
        for items in [proofs, proofs - 1] {
            let answer = exchange.send(&proven_by(items)).await.unwrap();
            assert_eq!(
                answer.accepted(),
                items == proofs,
                "{items} of {proofs}: {answer:?}"
            );
        }
        world.host.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_accepted_domain_is_the_tenants_and_a_star_means_what_is_below_too() {
    let world = World::with(Changes::replace(
        "accepted_domains = [\"contoso.com\"]",
        "accepted_domains = [\"contoso.com\", \"*.contoso.example\", \"bücher.example\"]",
    ))
    .await;
    for (domain, own) in [
        ("eu.contoso.example", true),
        ("contoso.example", true),
        ("xn--bcher-kva.example", true),
        ("notcontoso.example", false),
        ("eu.xn--bcher-kva.example", false),
    ] {
        let sender = format!("ada@{domain}");
        let content = letter("", "Hello.").replacen("ada@contoso.com", &sender, 1);
        let mail = Mail::new(&sender, "bob@contoso.com", content);
        if own {
            accepted(&world, mail, "proven").await;
        } else {
            refused(&world, mail, REFUSED, "foreign_envelope_sender").await;
        }
    }
    world.host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loop_is_known_by_the_previous_value_too_and_the_new_one_is_written() {
    let world = World::with(Changes::replace(
        "value = \"contoso-loop\"",
        "value = \"new-loop-value\", previous = [\"older-loop-value\", \"contoso-loop\"]",
    ))
    .await;
    let field = |value: &str| letter(&format!("X-Gatepost-Processed: {value}\r\n"), "Hello.");
    for value in ["new-loop-value", "contoso-loop", "older-loop-value"] {
        refused(&world, from_ada(field(value)), (554, (5, 4, 6)), "loop").await;
    }
    assert!(send(&world, from_ada(field("another"))).await.accepted());
    let received = world.received().await;
    assert_eq!(
        received.headers("X-Gatepost-Processed"),
        ["new-loop-value", "another"]
    );
    world.host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_with_networks_holds_from_them_alone() {
    let world = World::with(of_erp("networks = [\"127.0.7.0/24\"]")).await;
    let from = |address: &str| world.erp().from_address(address.parse().unwrap());
    for _ in 0..2 {
        let answer = from("127.0.7.9").send(&from_erp(ERP)).await.unwrap();
        assert!(answer.accepted(), "{answer:?}");
        // The second time the password is remembered, and the address still counts.
        let mut client = from("127.0.8.9").connect().await.unwrap();
        let reply = from("127.0.8.9").log_in(&mut client).await.unwrap();
        assert_eq!(reply.unwrap().code, 535);
    }
    world.host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_is_nobody_but_its_senders_and_null_only_where_they_say_so() {
    let world = World::start().await;
    let content = |from: &str| format!("From: {from}\r\nSubject: s\r\n\r\nbody\r\n");
    let scanner = content("scanner@contoso.com");
    let null = Mail::new("", "bob@contoso.com", scanner);
    assert!(world.scanner().send(&null).await.unwrap().accepted());
    let null = Mail::new("", "bob@contoso.com", ERP);
    let answer = world.erp().send(&null).await.unwrap();
    assert!(!answer.accepted(), "{answer:?}");
    for (sender, from) in [
        ("ada@contoso.com", "erp@contoso.com"),
        ("erp@contoso.com", "ada@contoso.com"),
    ] {
        let mail = Mail::new(sender, "bob@contoso.com", content(from));
        let answer = world.erp().send(&mail).await.unwrap();
        assert_eq!(answer.deciding().class(), 5, "{answer:?}");
    }
    world.host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_is_told_by_its_name_and_not_by_its_address() {
    let name = "[[application]]\nname = \"erp\"";
    let other = name.replace("erp", "book-keeping");
    let world = World::with(Changes::replace(name, &other)).await;
    let answer = world.erp().send(&from_erp(ERP)).await.unwrap();
    assert!(answer.accepted(), "{answer:?}");
    let received = world.received().await;
    let field = received.header("Received").unwrap();
    assert!(field.contains("book-keeping"), "{field}");
    assert!(!field.contains("127.0.0.1"), "{field}");
    let events = world.trace(&last_word(answer.deciding())).await;
    let told = events.iter().find_map(|event| match &event.event {
        Event::Received { application, .. } => application.as_deref(),
        _ => None,
    });
    assert_eq!(told, Some("book-keeping"));
    world.host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_that_is_not_internal_is_stamped_with_nothing() {
    let world = World::with(Changes::replace("internal = true", "internal = false")).await;
    assert!(world.erp().send(&from_erp(ERP)).await.unwrap().accepted());
    let received = world.received().await;
    assert!(!received.is_internal(), "{:?}", received.entry);
    assert_eq!(received.parameter("XOORG"), None);
    for stamp in ["X-OriginatorOrg", "X-MS-Exchange-CrossPremises-AuthAs"] {
        assert_eq!(received.header(stamp), None);
    }
    // Nor does it take anything from what users send.
    let user = world.outbound(
        &world.around.contoso,
        Mail::new("ada@contoso.com", "bob@contoso.com", LETTER),
    );
    assert!(world.exchange_out().send(&user).await.unwrap().accepted());
    assert!(world.received().await.is_internal());
    world.host.stop().await;
}
