//! Keys of the configuration whose meaning only a running server can show: each test fails where the key is read and then
//! forgotten.

use crate::harness::{
    Changes, HOSTNAME, LETTER, PASSWORD, Process, Surroundings, World, free_port, last_word, until,
};
use gatepost::dns::Zone;
use gatepost::lab::{
    ApplicationClient, Client, Dialect, Mail, Outside, OutsideOptions, Phase, Security, Step,
};
use std::net::{IpAddr, SocketAddr};

pub const ERP: &[u8] = b"From: erp@contoso.com\r\nSubject: s\r\n\r\nbody\r\n";
const BUSY: &str = "451 4.7.0 Temporary server error. Please try again later";

pub fn from_erp(content: impl Into<Vec<u8>>) -> Mail {
    Mail::new("erp@contoso.com", "bob@contoso.com", content)
}

/// Further keys for the application `erp`.
pub fn of_erp(keys: &str) -> Changes {
    let name = "username = \"erp\"\n";
    Changes::replace(name, &format!("{name}{keys}\n"))
}

/// Further keys for the listener, which stand behind its name.
fn of_listener(name: &'static str, keys: &str) -> Changes {
    Changes::replace(name, &format!("{name}\n{keys}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bounces_to_is_who_hears_of_an_applications_failures() {
    let world = World::with(of_erp("bounces_to = \"owner@contoso.com\"")).await;
    let unknown = "550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found";
    let step = Step::reply(Phase::Rcpt, unknown).for_recipient("bob@contoso.com");
    world.around.exchange.script(step.always());
    assert!(world.erp().send(&from_erp(ERP)).await.unwrap().accepted());
    let report = world.received().await;
    assert_eq!(
        (report.sender.as_str(), report.addresses()),
        ("", vec!["owner@contoso.com"])
    );
    world.host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rate_is_the_applications_own_over_all_its_sessions() {
    let world = World::with(of_erp("rate = \"2/hour\"")).await;
    for taken in [true, true, false] {
        let answer = world.erp().send(&from_erp(ERP)).await.unwrap();
        assert_eq!(answer.accepted(), taken, "{answer:?}");
        if !taken {
            assert_eq!(answer.refused_at(), Some("MAIL"), "{answer:?}");
            let reply = answer.deciding();
            assert_eq!((reply.code, reply.enhanced), (450, Some((4, 7, 1))));
        }
    }
    let mail = Mail::new(
        "scanner@contoso.com",
        "bob@contoso.com",
        &b"From: scanner@contoso.com\r\n\r\nbody\r\n"[..],
    );
    assert!(world.scanner().send(&mail).await.unwrap().accepted());
    world.host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn auth_without_tls_lets_devices_log_in_in_clear_text_on_that_listener() {
    let keys = "auth_without_tls = true\nehlo_discard = [\"chunking\", \"DSN\"]";
    let world = World::with(of_listener("name = \"printers\"", keys)).await;
    let device = world
        .application("printers")
        .security(Security::Clear)
        .login("erp", PASSWORD, Dialect::Plain);
    assert!(device.send(&from_erp(ERP)).await.unwrap().accepted());
    let received = world.received().await;
    assert!(received.is_internal());
    // Hidden there, offered elsewhere.
    for (listener, offered) in [("printers", false), ("apps", true)] {
        let client = world.application(listener).connect().await.unwrap();
        for keyword in ["CHUNKING", "DSN"] {
            assert_eq!(client.offers(keyword), offered, "{listener} {keyword}");
        }
        assert!(client.offers("PIPELINING"));
    }
    world.host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn max_message_size_bounds_what_is_announced_and_what_comes() {
    let world = World::with(of_listener(
        "name = \"apps\"",
        "max_message_size = \"1MiB\"",
    ))
    .await;
    let large = [ERP, &b"0123456789abcdef\r\n".repeat(60_000)].concat();
    let size = format!("SIZE={}", large.len());
    let announced = from_erp(large.clone()).parameter(&size);
    for (mail, place) in [(announced, "MAIL"), (from_erp(large.clone()), "content")] {
        let answer = world.erp().send(&mail).await.unwrap();
        let reply = answer.deciding();
        assert_eq!(
            (reply.code, reply.enhanced),
            (552, Some((5, 3, 4))),
            "{place}: {answer:?}"
        );
    }
    // Another listener has its own limit.
    let mail = Mail::new("erp@contoso.com", "bob@contoso.com", large);
    let device = world
        .application("printers")
        .login("erp", PASSWORD, Dialect::Plain);
    assert!(device.send(&mail).await.unwrap().accepted());
    world.host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_speaks_tls_from_the_first_octet_or_never_where_it_says_so() {
    let mut changes = Changes::replace(
        "service = \"submission\"\ntls = \"starttls\"",
        "service = \"submission\"\ntls = \"implicit\"",
    );
    changes
        .replace
        .push(("tls = \"optional\"", "tls = \"none\"".to_owned()));
    let world = World::with(changes).await;
    let device = world
        .application("apps")
        .security(Security::Implicit)
        .login("erp", PASSWORD, Dialect::Plain);
    assert!(device.send(&from_erp(ERP)).await.unwrap().accepted());
    let mut client = Client::connect(world.listener("printers"), None)
        .await
        .unwrap();
    assert_eq!(client.reply().await.unwrap().code, 220);
    client.ehlo("x").await.unwrap();
    assert!(!client.offers("STARTTLS") && !client.offers("AUTH"));
    assert_eq!(client.command("STARTTLS").await.unwrap().class(), 5);
    let mail = Mail::new(
        "scanner@contoso.com",
        "bob@contoso.com",
        &b"From: scanner@contoso.com\r\n\r\nbody\r\n"[..],
    );
    assert!(world.scanner().send(&mail).await.unwrap().accepted());
    world.host.stop().await;
}

/// Mail for outside by this way, from the stream of `erp`; the law of Exchange is much slower than that of mx.
async fn outside_world(via: &str, partner: &Outside, more: &str) -> World {
    let relay = format!(
        "[[relay]]\nname = \"upstream\"\nhost = \"mx.partner.example\"\nport = {}\ntls = \"opportunistic\"\n",
        partner.address().port()
    );
    let mut changes = of_erp("stream = \"orders\"");
    for (from, to) in [
        (
            "\n[[route]]\nrecipients = \"any\"\nvia = \"exchange\"\n",
            format!("\n[[route]]\nrecipients = \"any\"\nvia = \"{via}\"\n{relay}"),
        ),
        ("retry = [\"1s\"]", "retry = [\"1h\"]".to_owned()),
    ] {
        changes.replace.push((from, to));
    }
    changes.append = format!("[delivery.mx]\nretry = [\"1s\"]\n{more}\n");
    let zone = Zone::new()
        .mx("partner.example", 10, "mx.partner.example")
        .host("mx.partner.example", partner.address().ip());
    let port = partner.address().port();
    World::abroad(Surroundings::new().await, changes, zone, port).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mx_and_relays_have_a_law_of_their_own_and_only_mx_has_source_addresses() {
    let source: IpAddr = "127.0.62.8".parse().unwrap();
    for (via, own_source) in [("mx", true), ("relay:upstream", false)] {
        let partner = Outside::start(OutsideOptions::default()).await.unwrap();
        let keys = "expire = \"1h\"\nsource_addresses = { orders = [\"127.0.62.8\"] }";
        let world = outside_world(via, &partner, keys).await;
        partner.script(Step::reply(Phase::Mail, BUSY));
        let mail = Mail::new("erp@contoso.com", "r@partner.example", ERP);
        assert!(world.erp().send(&mail).await.unwrap().accepted());
        // After a second, and not after the hour of Exchange's law.
        let carried = partner.received().await.unwrap();
        assert_eq!(carried.peer.ip() == source, own_source, "{via}");
        world.host.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mail_outside_expires_by_the_law_of_mx() {
    let partner = Outside::start(OutsideOptions::default()).await.unwrap();
    let world = outside_world("mx", &partner, "expire = \"1s\"").await;
    partner.script(Step::reply(Phase::Mail, BUSY).always());
    let mail = Mail::new("erp@contoso.com", "r@partner.example", ERP);
    let answer = world.erp().send(&mail).await.unwrap();
    let id = last_word(answer.deciding());
    until("the end of the message", async || {
        let story = world.trace(&id).await;
        let story = format!("{story:?}");
        story.contains("outcome: \"failed\"").then_some(())
    })
    .await;
    world.host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_has_the_format_and_level_of_its_keys_and_ready_stands_alone() {
    for (format, level) in [("json", "info"), ("text", "info"), ("text", "error")] {
        let around = Surroundings::new().await;
        let ports = [free_port(), free_port(), free_port()];
        let changes = Changes {
            append: format!("\n[log]\nformat = \"{format}\"\nlevel = \"{level}\"\n"),
            ..Changes::default()
        };
        let config = around.configuration(ports, &changes);
        let file = around.folder.path().join("log");
        // Looks that `gatepost ready` is the first line, and alone on it.
        let process = Process::logging(&config, &file);
        assert!(process.terminate().success());
        let log = std::fs::read_to_string(&file).unwrap();
        if level == "error" {
            assert_eq!(log, "");
            continue;
        }
        let ready = log.lines().find(|line| line.contains("ready")).unwrap();
        let listeners: Vec<String> = ports
            .iter()
            .map(|port| format!("127.0.0.1:{port}"))
            .collect();
        assert!(listeners.iter().all(|one| ready.contains(one)), "{ready}");
        for line in log.lines() {
            let parsed = serde_json::from_str::<serde_json::Value>(line);
            assert_eq!(parsed.is_ok(), format == "json", "{line}");
        }
        if format == "json" {
            let event: serde_json::Value = serde_json::from_str(ready).unwrap();
            assert_eq!(event["message"], "ready", "{ready}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_level_of_the_log_follows_a_reload_and_a_bad_file_changes_nothing() {
    let around = Surroundings::new().await;
    let ports = [free_port(), free_port(), free_port()];
    let level = |level: &str| Changes {
        append: format!("\n[log]\nlevel = \"{level}\"\n"),
        ..Changes::default()
    };
    let config = around.configuration(ports, &level("error"));
    let file = around.folder.path().join("log");
    let process = Process::logging(&config, &file);
    let logged = async |text: &str| {
        until(text, async || {
            let log = std::fs::read_to_string(&file).unwrap();
            log.contains(text).then_some(log)
        })
        .await
    };
    let good = std::fs::read_to_string(&config).unwrap();
    for (bad, why) in [
        (format!("{good}\n[[[broken"), "gatepost.toml:"),
        (format!("{good}\nformta = \"json\"\n"), "formta"),
        (
            good.replace("127.0.40.0/24", "127.0.40.0/99"),
            "exchange_online.networks",
        ),
    ] {
        std::fs::write(&config, bad).unwrap();
        std::fs::write(&file, "").unwrap();
        process.hang_up();
        let log = logged("not reloaded").await;
        assert!(log.contains(why), "{why} in {log}");
    }
    around.configuration(ports, &level("info"));
    process.hang_up();
    logged("reloaded").await;
    let roots = around.authority.roots().unwrap();
    let apps = SocketAddr::from(([127, 0, 0, 1], ports[1]));
    let erp = ApplicationClient::new(apps, HOSTNAME, &roots).unwrap();
    let erp = erp.login("erp", PASSWORD, Dialect::Plain);
    assert!(erp.send(&from_erp(ERP)).await.unwrap().accepted());
    let foreign = Mail::new("ada@contoso.com", "bob@contoso.com", LETTER);
    assert!(!erp.send(&foreign).await.unwrap().accepted());
    let log = logged("refused").await;
    assert!(log.contains("INFO"), "{log}");
    assert!(process.terminate().success());
}
