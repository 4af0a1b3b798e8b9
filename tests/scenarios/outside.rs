//! Mail that leaves for the world outside: by mail exchangers and by relays.

use crate::harness::{Changes, LETTER, Surroundings, World, last_word, until};
use gatepost::dns::Zone;
use gatepost::lab::certificates::{Authority, Leaf};
use gatepost::lab::samples::leaks;
use gatepost::lab::{
    Action, Carried, Mail, Outside, OutsideOptions, Phase, Received, Step, Transaction,
};
use gatepost::message_trace::{Event, RecipientResult, TlsFacts};
use std::net::{IpAddr, SocketAddr};

/// Exchange's mail and everything else for outside goes by mx.
const BY_MX: &str = r#"
[[route]]
recipients = "accepted"
via = "exchange"
[[route]]
recipients = "any"
via = "mx"
"#;

/// By the relay `upstream`.
const BY_RELAY: &str = r#"
[[route]]
recipients = "accepted"
via = "exchange"
[[route]]
recipients = "any"
via = "relay:upstream"
"#;

const ANY_TO_EXCHANGE: &str = "\n[[route]]\nrecipients = \"any\"\nvia = \"exchange\"\n";

fn routes(routes: &str, more: &str) -> Changes {
    let mut changes = Changes::replace(ANY_TO_EXCHANGE, routes);
    changes.append = format!("[delivery.mx]\nretry = [\"1s\"]\nexpire = \"1h\"\n{more}");
    changes
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

async fn stranger(options: OutsideOptions) -> Outside {
    Outside::start(options).await.unwrap()
}

/// A server on this address of loopback; the port is free (0) or the others'.
async fn stranger_at(ip: &str, port: u16) -> Outside {
    stranger(OutsideOptions {
        address: SocketAddr::new(address(ip), port),
        ..OutsideOptions::default()
    })
    .await
}

async fn encrypted(authority: &Authority, name: &str) -> OutsideOptions {
    OutsideOptions {
        identity: Some(authority.issue(&Leaf::named(name)).unwrap()),
        ..OutsideOptions::default()
    }
}

/// One domain, `partner.example`, whose only exchanger is this server.
async fn with_partner(partner: &Outside) -> World {
    with_partner_and(partner, "").await
}

async fn with_partner_and(partner: &Outside, more: &str) -> World {
    let zone = Zone::new()
        .mx("partner.example", 10, "mx.partner.example")
        .host("mx.partner.example", partner.address().ip());
    let changes = routes(BY_MX, more);
    World::abroad(
        Surroundings::new().await,
        changes,
        zone,
        partner.address().port(),
    )
    .await
}

fn mail(recipient: &str) -> Mail {
    Mail::new("ada@contoso.com", recipient, LETTER)
}

/// Ada's mail, as Exchange sends it.
async fn send(world: &World, mail: Mail) -> Transaction {
    let outbound = world.outbound(&world.around.contoso, mail);
    world.exchange_out().send(&outbound).await.unwrap()
}

/// The queue id of mail that was taken.
async fn taken(world: &World, mail: Mail) -> String {
    let answer = send(world, mail).await;
    assert!(answer.accepted(), "{answer:?}");
    last_word(answer.deciding())
}

pub struct Attempted {
    host: String,
    tls: Option<TlsFacts>,
    results: Vec<RecipientResult>,
}

pub async fn attempts(world: &World, id: &str) -> Vec<Attempted> {
    let events = world.trace(id).await;
    let attempts = events.into_iter().filter_map(|event| match event.event {
        Event::Attempt {
            host, tls, results, ..
        } => Some(Attempted { host, tls, results }),
        _ => None,
    });
    attempts.collect()
}

/// The first result of a recipient, once there is one.
pub async fn result(world: &World, id: &str, recipient: &str) -> RecipientResult {
    until("a result", async || {
        let attempts = attempts(world, id).await;
        let mut results = attempts.into_iter().flat_map(|attempt| attempt.results);
        results.find(|result| result.recipient == recipient)
    })
    .await
}

/// The one result of the recipient at `partner.example`.
async fn outcome(world: &World, id: &str) -> (String, String) {
    let result = result(world, id, "r@partner.example").await;
    (result.outcome, result.reply)
}

fn assert_clean(world: &World, message: &Carried) {
    let leaked = leaks(&message.content, &world.around.contoso);
    assert_eq!(leaked, Vec::<String>::new());
    assert!(
        message.header("X-OriginatorOrg").is_some(),
        "it stays (product.md 4)"
    );
    let shown = message.tls.as_ref().map_or(0, |tls| tls.chain.len());
    assert_eq!(shown, 0, "no certificate of a tenant is shown outside");
    let xoorg = |word: &String| word.starts_with("XOORG");
    assert!(
        !message.parameters.iter().any(xoorg),
        "{:?}",
        message.parameters
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_message_leaves_by_three_ways_in_the_form_of_each_and_nothing_leaks() {
    let around = Surroundings::new().await;
    let partner = stranger(encrypted(&around.authority, "mx.partner.example").await).await;
    let relay = stranger(encrypted(&around.authority, "relay.example.net").await).await;
    let zone = Zone::new()
        .mx("news.partner.example", 10, "mx.partner.example")
        .host("mx.partner.example", partner.address().ip())
        .host("relay.example.net", relay.address().ip());
    let three = r#"
[[route]]
recipients = "accepted"
via = "exchange"
[[route]]
tenant = "contoso"
recipients = ["*.partner.example"]
via = "mx"
[[route]]
recipients = ["*.partner.example", "vip@special.example"]
via = "relay:upstream"
[[route]]
recipients = "any"
via = "exchange"
"#;
    let upstream = format!(
        "[[relay]]\nname = \"upstream\"\nhost = \"relay.example.net\"\nport = {}\nserver_certificate_roots = \"ca.pem\"\n",
        relay.address().port()
    );
    let changes = routes(three, &upstream);
    let world = World::abroad(around, changes, zone, partner.address().port()).await;
    let letter = mail("bob@contoso.com")
        .and_to("r@news.partner.example> NOTIFY=FAILURE ORCPT=rfc822;r@news.partner.example")
        .and_to("vip@special.example")
        .and_to("other@special.example")
        .parameter("RET=HDRS")
        .parameter("ENVID=QQ1");
    taken(&world, letter).await;

    let by_mx = partner.received().await.unwrap();
    assert_eq!(by_mx.addresses(), ["r@news.partner.example"]);
    let parameters = &by_mx.recipients[0].1;
    assert_eq!(
        parameters,
        &["NOTIFY=FAILURE", "ORCPT=rfc822;r@news.partner.example"]
    );
    assert!(by_mx.parameters.contains(&"RET=HDRS".to_owned()));
    assert!(by_mx.parameters.contains(&"ENVID=QQ1".to_owned()));
    assert!(by_mx.tls.is_some());
    let by_relay = relay.received().await.unwrap();
    assert_eq!(by_relay.addresses(), ["vip@special.example"]);
    for message in [&by_mx, &by_relay] {
        assert_clean(&world, message);
    }
    assert_eq!(by_mx.content, by_relay.content, "one form for the outside");
    let exchange = world.received().await;
    assert_eq!(
        exchange.addresses(),
        ["bob@contoso.com", "other@special.example"]
    );
    let kept = |message: &Received| message.header("X-OrganizationHeadersPreserved").is_some();
    assert!(kept(&exchange) && exchange.header("X-Gatepost-Processed").is_some());

    // The mx route is Contoso's alone; the next one takes Fabrikam's.
    let letter = String::from_utf8(LETTER.to_vec())
        .unwrap()
        .replace("contoso", "fabrikam");
    let foreign = Mail::new(
        "ada@fabrikam.com",
        "r@news.partner.example",
        letter.into_bytes(),
    );
    let outbound = world.outbound(&world.around.fabrikam, foreign);
    assert!(
        world
            .exchange_out()
            .send(&outbound)
            .await
            .unwrap()
            .accepted()
    );
    assert_eq!(relay.received().await.unwrap().sender, "ada@fabrikam.com");
    assert!(partner.waiting().is_empty());
    let metrics = world.metrics();
    let delivered = "gatepost_deliveries_total{outcome=\"delivered\",stream=\"\",tenant=\"contoso\",via=\"mx\"} 1";
    assert!(metrics.contains(delivered), "{metrics}");
    world.host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_dns_says_of_a_domain_decides_what_becomes_of_its_mail_and_of_no_other() {
    let partner = stranger_at("127.0.60.1", 0).await;
    let zone = Zone::new()
        .host("implicit.example", partner.address().ip())
        .null_mx("null.example")
        .mx("loop.example", 10, crate::harness::HOSTNAME)
        .mx("nohost.example", 10, "gone.example")
        .broken("broken.example");
    let around = Surroundings::new().await;
    let changes = routes(BY_MX, "");
    let world = World::abroad(around, changes, zone, partner.address().port()).await;
    let letter = mail("r@implicit.example")
        .and_to("r@null.example")
        .and_to("r@nowhere.example")
        .and_to("r@loop.example")
        .and_to("r@nohost.example")
        .and_to("r@broken.example")
        .and_to(&format!("r@[{}]", partner.address().ip()));
    let id = taken(&world, letter).await;
    for (recipient, outcome, reply) in [
        ("r@implicit.example", "delivered", "250 2.0.0"),
        ("r@null.example", "failed", "556 5.1.10 "),
        ("r@nowhere.example", "failed", "550 5.1.2 "),
        ("r@loop.example", "failed", "554 5.4.6 "),
        ("r@nohost.example", "failed", "550 5.4.4 "),
        ("r@broken.example", "deferred", "451 4.4.3 "),
        ("r@[127.0.60.1]", "delivered", "250 2.0.0"),
    ] {
        let result = result(&world, &id, recipient).await;
        assert_eq!(result.outcome, outcome, "{result:?}");
        assert!(result.reply.starts_with(reply), "{result:?}");
    }
    world.host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_exchanger_is_tried_where_one_is_away_or_busy() {
    let busy = stranger_at("127.0.60.2", 0).await;
    let port = busy.address().port();
    let closed = stranger_at("127.0.60.3", port).await;
    let good = stranger_at("127.0.60.4", port).await;
    busy.script(Step::new(
        Phase::Connect,
        Action::ReplyAndClose("421 4.3.2 too busy".to_owned()),
    ));
    closed.script(Step::reply(Phase::Connect, "554 5.7.1 no mail here").always());
    let zone = Zone::new()
        .mx("partner.example", 10, "away.partner.example")
        .mx("partner.example", 20, "busy.partner.example")
        .mx("partner.example", 30, "closed.partner.example")
        .mx("partner.example", 40, "good.partner.example")
        .mx("closed.example", 10, "closed.partner.example")
        .host("away.partner.example", address("127.0.60.99"))
        .host("busy.partner.example", busy.address().ip())
        .host("closed.partner.example", closed.address().ip())
        .host("good.partner.example", good.address().ip());
    let around = Surroundings::new().await;
    let world = World::abroad(around, routes(BY_MX, ""), zone, port).await;
    let id = taken(&world, mail("r@partner.example")).await;
    good.received().await.unwrap();
    assert_eq!(outcome(&world, &id).await.0, "delivered");
    let attempts = attempts(&world, &id).await;
    assert_eq!(
        (attempts.len(), attempts[0].host.as_str()),
        (1, "good.partner.example")
    );
    assert_eq!((busy.connections(), closed.connections()), (1, 1));
    // Where nobody takes mail for good, it fails.
    let id = taken(&world, mail("r@closed.example")).await;
    let failed = result(&world, &id, "r@closed.example").await;
    assert_eq!(failed.outcome, "failed", "{failed:?}");
    world.host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_get_tls_where_they_offer_it_and_clear_text_where_it_fails() {
    let own = Authority::new("self-made").unwrap();
    let partner = stranger(encrypted(&own, "another.name.example").await).await;
    let world = with_partner(&partner).await;
    let id = taken(&world, mail("r@partner.example")).await;
    assert_clean(&world, &partner.received().await.unwrap());
    assert_eq!(outcome(&world, &id).await.0, "delivered");
    let attempts = attempts(&world, &id).await;
    let tls = attempts[0].tls.as_ref().expect("TLS was offered");
    assert_eq!(tls.peer_name, None, "nothing was proven");
    world.host.stop().await;

    let broken = OutsideOptions {
        broken_tls: true,
        ..encrypted(&own, "mx.partner.example").await
    };
    let shut = stranger(encrypted(&own, "mx.partner.example").await).await;
    shut.script(Step::new(Phase::StartTls, Action::Drop).always());
    let babbling = stranger(encrypted(&own, "mx.partner.example").await).await;
    babbling.script(Step::reply(Phase::StartTls, "hello there").always());
    let old = stranger(OutsideOptions::default()).await;
    old.script(Step::reply(Phase::Ehlo, "502 5.5.1 what?").always());
    for (partner, connections, hello) in [
        (stranger(broken).await, 2, "EHLO smarthost.contoso.com"),
        // Nor a word: the connection ends with STARTTLS.
        (shut, 2, "EHLO smarthost.contoso.com"),
        (babbling, 2, "EHLO smarthost.contoso.com"),
        (
            stranger(OutsideOptions::default()).await,
            1,
            "EHLO smarthost.contoso.com",
        ),
        (old, 1, "HELO smarthost.contoso.com"),
    ] {
        let world = with_partner(&partner).await;
        let id = taken(&world, mail("r@partner.example")).await;
        let message = partner.received().await.unwrap();
        assert_clean(&world, &message);
        assert!(
            message.tls.is_none() && message.hello == hello,
            "{message:?}"
        );
        assert_eq!(partner.connections(), connections);
        assert_eq!(outcome(&world, &id).await.0, "delivered");
        world.host.stop().await;
    }
}

/// Ada's mail by a relay with this table.
async fn by_relay(relay: &Outside, table: &str) -> (World, String) {
    let zone = Zone::new()
        .host("relay.example.net", relay.address().ip())
        .host("other.example.net", relay.address().ip());
    let table = format!(
        "[[relay]]\nname = \"upstream\"\nport = {}\n{table}",
        relay.address().port()
    );
    let around = Surroundings::new().await;
    let world = World::abroad(around, routes(BY_RELAY, &table), zone, 25).await;
    let id = taken(&world, mail("r@partner.example")).await;
    (world, id)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_is_verified_encrypted_or_neither_as_its_table_says() {
    let own = Authority::new("self-made").unwrap();
    let clear = stranger(OutsideOptions::default()).await;
    let relay = stranger(encrypted(&own, "relay.example.net").await).await;
    let verify = "host = \"relay.example.net\"\nserver_certificate_roots = \"own.pem\"\n";
    let tables = [
        (
            &relay,
            "tls = \"encrypt\"\nhost = \"relay.example.net\"\n",
            "delivered",
            true,
        ),
        (
            &relay,
            "tls = \"opportunistic\"\nhost = \"relay.example.net\"\n",
            "delivered",
            true,
        ),
        (
            &clear,
            "tls = \"opportunistic\"\nhost = \"relay.example.net\"\n",
            "delivered",
            false,
        ),
        (
            &relay,
            "host = \"relay.example.net\"\nserver_certificate_roots = \"ca.pem\"\n",
            "deferred",
            false,
        ),
        (
            &clear,
            "tls = \"encrypt\"\nhost = \"relay.example.net\"\n",
            "deferred",
            false,
        ),
    ];
    let shut = || async {
        let relay = stranger(encrypted(&own, "relay.example.net").await).await;
        relay.script(Step::new(Phase::StartTls, Action::Drop).always());
        relay
    };
    let (shut_out, shut_off) = (shut().await, shut().await);
    let tables = tables.into_iter().chain([
        (
            &shut_out,
            "tls = \"opportunistic\"\nhost = \"relay.example.net\"\n",
            "delivered",
            false,
        ),
        (
            &shut_off,
            "tls = \"encrypt\"\nhost = \"relay.example.net\"\n",
            "deferred",
            false,
        ),
    ]);
    for (relay, table, expected, tls) in tables {
        let (world, id) = by_relay(relay, table).await;
        let (outcome, reply) = outcome(&world, &id).await;
        assert_eq!(outcome, expected, "{table}: {reply}");
        let attempts = attempts(&world, &id).await;
        assert_eq!(attempts[0].tls.is_some(), tls, "{table}");
        if expected == "delivered" {
            assert_clean(&world, &relay.received().await.unwrap());
        } else {
            let said = match std::ptr::eq(relay, &raw const shut_off) {
                true => "connection lost (after STARTTLS)",
                false => "TLS: ",
            };
            assert!(reply.starts_with(said), "{reply}");
        }
        world.host.stop().await;
    }
    assert!(shut_off.waiting().is_empty());
    assert!(relay.waiting().is_empty() && clear.waiting().is_empty());

    // With the right roots the name decides.
    let around = Surroundings::new().await;
    std::fs::write(around.folder.path().join("own.pem"), own.pem()).unwrap();
    let zone = Zone::new()
        .host("relay.example.net", relay.address().ip())
        .host("other.example.net", relay.address().ip());
    let port = relay.address().port();
    let two = format!(
        "[[relay]]\nname = \"upstream\"\nport = {port}\n{verify}[[relay]]\nname = \"other\"\nport = {port}\n{}",
        verify.replace("relay.example", "other.example")
    );
    let way = format!(
        "\n[[route]]\nrecipients = [\"other@partner.example\"]\nvia = \"relay:other\"\n{BY_RELAY}"
    );
    let world = World::abroad(around, routes(&way, &two), zone, 25).await;
    let id = taken(
        &world,
        mail("r@partner.example").and_to("other@partner.example"),
    )
    .await;
    assert_eq!(outcome(&world, &id).await.0, "delivered");
    let other = result(&world, &id, "other@partner.example").await;
    assert_eq!(other.outcome, "deferred", "{other:?}");
    assert!(
        other.reply.starts_with("TLS: other.example.net"),
        "{other:?}"
    );
    let attempts = attempts(&world, &id).await;
    let proven = attempts
        .iter()
        .filter_map(|attempt| attempt.tls.as_ref())
        .next();
    assert_eq!(
        proven.unwrap().peer_name.as_deref(),
        Some("relay.example.net")
    );
    world.host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_is_told_the_password_under_tls_alone_and_its_refusal_bounces_nothing() {
    let own = Authority::new("self-made").unwrap();
    let login = |mechanisms: &str| OutsideOptions {
        login: Some(("gatepost".to_owned(), "sesame".to_owned())),
        mechanisms: mechanisms.to_owned(),
        ..OutsideOptions::default()
    };
    let table = |tls: &str, password: &str| {
        format!(
            "host = \"relay.example.net\"\ntls = \"{tls}\"\nusername = \"gatepost\"\npassword = \"{password}\"\n"
        )
    };
    for mechanisms in ["PLAIN LOGIN", "LOGIN"] {
        let relay = OutsideOptions {
            identity: encrypted(&own, "relay.example.net").await.identity,
            ..login(mechanisms)
        };
        let relay = stranger(relay).await;
        let (world, _) = by_relay(&relay, &table("encrypt", "sesame")).await;
        let message = relay.received().await.unwrap();
        assert_eq!(message.login.as_deref(), Some("gatepost"));
        assert_clean(&world, &message);
        world.host.stop().await;
        let (world, id) = by_relay(&relay, &table("encrypt", "wrong")).await;
        let (outcome, reply) = outcome(&world, &id).await;
        assert_eq!(outcome, "deferred");
        assert!(
            reply.starts_with("login: ") && reply.contains("535"),
            "{reply}"
        );
        assert!(!reply.contains("wrong"), "{reply}");
        world.host.stop().await;
        assert_eq!(relay.clear_logins(), 0);
    }
    let broken = OutsideOptions {
        broken_tls: true,
        identity: encrypted(&own, "relay.example.net").await.identity,
        ..login("PLAIN")
    };
    for relay in [login("PLAIN LOGIN"), broken] {
        let relay = stranger(relay).await;
        let (world, id) = by_relay(&relay, &table("opportunistic", "sesame")).await;
        let (outcome, reply) = outcome(&world, &id).await;
        assert_eq!(outcome, "deferred");
        assert!(
            reply.contains("the password is not sent in clear"),
            "{reply}"
        );
        assert_eq!(relay.clear_logins(), 0);
        assert!(relay.waiting().is_empty());
        world.host.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_leaves_from_its_own_address_and_shares_no_connection_with_others() {
    let partner = stranger_at("127.0.60.5", 0).await;
    let application = r#"source_addresses = { transactional = ["127.0.61.7", "::1"] }
[[application]]
name = "shop"
tenant = "contoso"
username = "shop"
password_hash = "HASH"
senders = ["shop@contoso.com"]
stream = "transactional"
"#;
    let hash = password_auth::generate_hash("sesame");
    let world = with_partner_and(&partner, &application.replace("HASH", &hash)).await;
    let shop = world
        .application("apps")
        .login("shop", "sesame", gatepost::lab::Dialect::Plain);
    let letter = String::from_utf8(LETTER.to_vec())
        .unwrap()
        .replace("ada@", "shop@");
    for _ in 0..2 {
        let order = Mail::new("shop@contoso.com", "r@partner.example", letter.as_bytes());
        assert!(shop.send(&order).await.unwrap().accepted());
        let order = partner.received().await.unwrap();
        assert_eq!(order.peer.ip(), address("127.0.61.7"));
        taken(&world, mail("r@partner.example")).await;
        let letter = partner.received().await.unwrap();
        assert_ne!(letter.peer.ip(), address("127.0.61.7"));
        assert_ne!(letter.connection, order.connection);
    }
    world.host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_domain_that_does_not_answer_keeps_nobody_else_waiting() {
    let alive = stranger_at("127.0.60.6", 0).await;
    let port = alive.address().port();
    let zone = Zone::new()
        .host("alive.example", alive.address().ip())
        .host("dead.example", address("127.0.60.7"));
    let around = Surroundings::new().await;
    let world = World::abroad(around, routes(BY_MX, ""), zone, port).await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(taken(&world, mail("r@dead.example").and_to("r@alive.example")).await);
        let message = alive.received().await.unwrap();
        assert_eq!(message.addresses(), ["r@alive.example"]);
    }
    let first = result(&world, &ids[0], "r@dead.example").await;
    assert_eq!(first.outcome, "deferred", "{first:?}");
    world.host.spool().refresh_metrics(u64::MAX / 2);
    let metrics = world.metrics();
    let queued = metrics
        .lines()
        .filter(|line| line.starts_with("gatepost_queue_messages") && line.contains("via=\"mx\""))
        .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap());
    assert_eq!(queued.sum::<u64>(), 3, "one for each message: {metrics}");
    assert!(!metrics.contains("dead.example"), "{metrics}");
    // Back again, it gets everything.
    let dead = stranger_at("127.0.60.7", port).await;
    for _ in 0..3 {
        let message = dead.received().await.unwrap();
        assert_eq!(message.addresses(), ["r@dead.example"]);
    }
    world.host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replies_outside_fail_or_wait_and_never_hold() {
    let partner = stranger_at("127.0.60.8", 0).await;
    let world = with_partner(&partner).await;
    for (reply, outcome) in [
        (
            "550 5.7.64 TenantAttribution; Relay Access Denied",
            "failed",
        ),
        ("550 5.1.1 no such user", "failed"),
        ("451 4.7.1 greylisted", "deferred"),
    ] {
        let recipient = format!("{outcome}-{}@partner.example", &reply[4..5]);
        partner.script(Step::reply(Phase::Rcpt, reply).for_recipient(&recipient));
        let id = taken(&world, mail(&recipient)).await;
        let result = result(&world, &id, &recipient).await;
        assert_eq!(
            (result.outcome.as_str(), result.reply.as_str()),
            (outcome, reply)
        );
    }
    // What was greylisted arrives with the next attempt.
    let late = partner.received().await.unwrap();
    assert_eq!(late.addresses(), ["deferred-4@partner.example"]);
    assert!(
        !world
            .metrics()
            .contains("state=\"held\",tenant=\"contoso\",via=\"mx\"} 1")
    );
    world.host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_next_hop_outside_cannot_carry_is_not_forced_on_it() {
    let partner = OutsideOptions {
        hidden: vec!["CHUNKING".to_owned(), "SMTPUTF8".to_owned()],
        ..OutsideOptions::default()
    };
    let partner = stranger(partner).await;
    let world = with_partner(&partner).await;
    let bare = [LETTER, b"bare\nline\r\n"].concat();
    let mut letter = Mail::new("ada@contoso.com", "r@partner.example", bare);
    letter.transfer = gatepost::lab::Transfer::Chunks(500);
    let id = taken(&world, letter).await;
    let (result, reply) = outcome(&world, &id).await;
    assert_eq!(result, "failed");
    assert!(reply.starts_with("554 5.6.11 "), "{reply}");
    // SMTPUTF8 is given by clients that need none.
    let id = taken(&world, mail("r@partner.example").parameter("SMTPUTF8")).await;
    let message = partner.received().await.unwrap();
    assert!(!message.parameters.iter().any(|said| said == "SMTPUTF8"));
    assert_eq!(outcome(&world, &id).await.0, "delivered");
    let letter = mail("j\u{fc}rgen@partner.example").parameter("SMTPUTF8");
    let id = taken(&world, letter).await;
    let attempts = until("an attempt", async || {
        let attempts = attempts(&world, &id).await;
        (!attempts.is_empty()).then_some(attempts)
    })
    .await;
    let result = &attempts[0].results[0];
    assert!(result.reply.starts_with("553 5.6.7 "), "{result:?}");
    assert_eq!(result.outcome, "failed");
    assert!(partner.waiting().is_empty());
    world.host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mail_of_a_foreign_sender_never_leaves_by_mx_or_relay() {
    let partner = stranger_at("127.0.60.10", 0).await;
    let zone = Zone::new().otherwise(partner.address().ip());
    let mut changes = routes(BY_MX, "");
    changes.replace.push((
        "accepted_domains = [\"contoso.com\"]",
        "accepted_domains = [\"contoso.com\"]\nforwarded_senders = \"allow\"".to_owned(),
    ));
    let around = Surroundings::new().await;
    let world = World::abroad(around, changes, zone, partner.address().port()).await;
    let foreign = String::from_utf8(LETTER.to_vec())
        .unwrap()
        .replace("ada@contoso.com", "eve@stranger.example");
    let forwarded = |recipient: &str| {
        let mail = Mail::new("eve@stranger.example", recipient, foreign.as_bytes());
        let mut outbound = world.outbound(&world.around.contoso, mail);
        outbound.xoorg = Some("contoso.com".to_owned());
        outbound
    };
    let refused = world
        .exchange_out()
        .send(&forwarded("r@partner.example"))
        .await
        .unwrap();
    assert!(!refused.accepted(), "{refused:?}");
    let reply = refused.deciding();
    assert_eq!(
        (reply.code, reply.enhanced),
        (550, Some((5, 7, 1))),
        "{reply}"
    );
    let inside = world
        .exchange_out()
        .send(&forwarded("bob@contoso.com"))
        .await
        .unwrap();
    assert!(inside.accepted(), "{inside:?}");
    world.received().await;
    // And from its own sender it does.
    taken(&world, mail("r@partner.example")).await;
    assert_eq!(partner.received().await.unwrap().sender, "ada@contoso.com");
    assert!(partner.waiting().is_empty());
    world.host.stop().await;
}
