//! What a log collector and a person at the terminal get: one line for each event, whatever a peer writes.

use crate::harness::{
    Changes, LETTER, Said, Surroundings, World, free_port, gatepost, last_word, until,
};
use gatepost::lab::certificates::Leaf;
use gatepost::lab::{Client, Mail, Outbound, Phase, Step};
use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// A server process whose two outputs go to files.
pub struct Told {
    pub around: Surroundings,
    pub config: PathBuf,
    pub ports: [u16; 3],
    child: Child,
}

impl Told {
    pub async fn start(around: Surroundings, mut changes: Changes) -> Self {
        let ports = [free_port(), free_port(), free_port()];
        let admin = format!("[admin]\naddress = \"127.0.0.1:{}\"", free_port());
        changes
            .replace
            .push(("[admin]\naddress = \"127.0.0.1:0\"", admin));
        let config = around.configuration(ports, &changes);
        let file = |name: &str| File::create(around.folder.path().join(name)).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_gatepost"))
            .args(["serve", "--config"])
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(file("stdout"))
            .stderr(file("stderr"))
            .spawn()
            .unwrap();
        let told = Self {
            around,
            config,
            ports,
            child,
        };
        until("ready", async || {
            (told.read("stdout") == "gatepost ready\n").then_some(())
        })
        .await;
        told
    }

    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.around.folder.path().join(name)).unwrap()
    }

    pub fn listener(&self, position: usize) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.ports[position]))
    }

    pub fn signal(&self, signal: &str) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args([signal, &id]).status().unwrap();
        assert!(sent.success());
    }

    /// SIGTERM, and the end; both outputs are whole then.
    pub async fn stop(mut self) -> (Surroundings, PathBuf) {
        self.signal("-TERM");
        let status = until("the end", async || self.child.try_wait().unwrap()).await;
        assert!(status.success(), "{status}: {}", self.read("stderr"));
        assert_eq!(
            self.read("stdout"),
            "gatepost ready\n",
            "the line stands alone"
        );
        let around = std::mem::replace(&mut self.around, Surroundings::new().await);
        (around, self.config.clone())
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        let already_over = self.child.kill().is_err();
        let _reaped = (already_over, self.child.wait());
    }
}

fn changes(log: &str) -> Changes {
    Changes {
        append: format!("\n[log]\n{log}\n"),
        ..Changes::default()
    }
}

/// Mail that passes and mail that is refused.
async fn some_mail(told: &Told) {
    let around = &told.around;
    let out = around.exchange_out(told.listener(0));
    let mail = Mail::new("ada@contoso.com", "bob@contoso.com", LETTER);
    let outbound = Outbound::stamped(
        &around.contoso,
        mail.clone(),
        "0d6f9b1c-0000-4000-8000-000000000001",
    );
    assert!(out.send(&outbound.unwrap()).await.unwrap().accepted());
    assert!(!out.send(&Outbound::bare(mail)).await.unwrap().accepted());
    around.exchange.received().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn json_lines_parse_and_have_their_fields() {
    let told = Told::start(
        Surroundings::new().await,
        changes("format = \"json\"\nlevel = \"debug\""),
    )
    .await;
    some_mail(&told).await;
    // The level follows a reload: nothing but errors from here on.
    let text = std::fs::read_to_string(&told.config).unwrap();
    std::fs::write(
        &told.config,
        text.replace("level = \"debug\"", "level = \"error\""),
    )
    .unwrap();
    told.signal("-HUP");
    let admin = text.rsplit_once("[admin]\naddress = \"").unwrap().1;
    let admin: SocketAddr = admin.split('"').next().unwrap().parse().unwrap();
    until("the reload", async || {
        let metrics = crate::harness::scrape(admin).await;
        metrics
            .contains("gatepost_reloads_total{result=\"ok\"} 1")
            .then_some(())
    })
    .await;
    let (around, _) = told.stop().await;
    let log = std::fs::read_to_string(around.folder.path().join("stderr")).unwrap();
    let mut messages = Vec::new();
    for line in log.lines() {
        let event: serde_json::Value = serde_json::from_str(line).expect(line);
        let text = |key: &str| {
            event[key]
                .as_str()
                .unwrap_or_else(|| panic!("{key}: {line}"))
        };
        let at = text("timestamp");
        assert!(at.starts_with("20") && at.ends_with('Z'), "{line}");
        assert!(
            ["ERROR", "WARN", "INFO", "DEBUG"].contains(&text("level")),
            "{line}"
        );
        match text("message") {
            "ready" => {
                assert!(text("listeners").contains("exchange=127.0.0.1:"), "{line}");
                assert_eq!(text("admin"), admin.to_string());
            }
            "refused" => {
                assert_eq!(
                    (text("reason"), text("listener")),
                    ("no_tenant", "exchange")
                );
                assert!(
                    text("reply").starts_with("550 5.7.64 ") && text("id").len() == 13,
                    "{line}"
                );
            }
            "received" => assert_eq!(
                (text("tenant"), text("sender")),
                ("contoso", "ada@contoso.com")
            ),
            _ => {}
        }
        messages.push(text("message").to_owned());
    }
    for expected in ["ready", "received", "refused"] {
        assert!(
            messages.iter().any(|message| message == expected),
            "{expected}: {log}"
        );
    }
    assert!(
        !messages.iter().any(|message| message == "stopped"),
        "the level was not taken up: {log}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn text_is_told_by_level_and_a_server_that_cannot_start_says_why() {
    let told = Told::start(Surroundings::new().await, changes("level = \"info\"")).await;
    some_mail(&told).await;
    // A second one on the same data: status 1, one line, nothing on standard output.
    let second = gatepost(&told.config, &["serve"]).await;
    assert_eq!((second.status, second.out.as_str()), (1, ""));
    let last = second.err.lines().next_back().unwrap_or_default();
    assert!(last.contains("ERROR cannot start problem="), "{second:?}");
    assert!(last.contains("another process has the data"), "{second:?}");
    assert!(second.err.contains(" WARN configuration "), "{second:?}");
    let (around, config) = told.stop().await;
    let log = std::fs::read_to_string(around.folder.path().join("stderr")).unwrap();
    for part in [
        " INFO ready ",
        " INFO refused ",
        "reason=no_tenant",
        " INFO stopped",
    ] {
        assert!(log.contains(part), "{part}: {log}");
    }
    assert!(!log.contains("DEBUG") && !log.contains('\u{1b}'), "{log}");
    std::fs::write(&config, "hostname = 7").unwrap();
    let refused = gatepost(&config, &["serve"]).await;
    assert_eq!((refused.status, refused.out.as_str()), (2, ""));
}

/// What no terminal and no log collector must be handed: controls (also those of ISO 6429 in Unicode), and what turns the
/// direction of reading.
fn is_harmful(letter: char) -> bool {
    (letter.is_control() && letter != '\n')
        || matches!(letter, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn assert_harmless(what: &str, text: &str) {
    let found = text.find(is_harmful);
    let around = found.map(|at| text[..at].chars().rev().take(80).collect::<String>());
    assert_eq!(around, None, "{what}");
}

/// Every text within, of at most as many octets as a person is shown.
fn assert_short(value: &serde_json::Value) {
    match value {
        serde_json::Value::String(text) => {
            assert!(text.len() <= 200, "{} octets: {text}", text.len());
            assert_harmless("a text", text);
        }
        serde_json::Value::Array(list) => list.iter().for_each(assert_short),
        serde_json::Value::Object(map) => map.values().for_each(assert_short),
        _ => {}
    }
}

const EVIL: &str = "\u{1b}[31m\u{9b}2J\u{202e}\u{7}evil";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_peers_write_is_escaped_and_cut_wherever_a_person_sees_it() {
    let told = Told::start(Surroundings::new().await, changes("level = \"trace\"")).await;
    let around = &told.around;
    let long = "x".repeat(400);
    // EHLO, MAIL, RCPT and lines that are no commands.
    let mut client = Client::connect(told.listener(2), Some("127.0.7.7".parse().unwrap()))
        .await
        .unwrap();
    client.reply().await.unwrap();
    for line in [
        format!("EHLO {EVIL}"),
        format!("EHLO {long}"),
        format!("{EVIL}{long}"),
        "EHLO scanner".to_owned(),
        format!("MAIL FROM:<\"a{EVIL}\"@contoso.com> SMTPUTF8"),
        format!("MAIL FROM:<{EVIL}@contoso.com> SMTPUTF8 {EVIL}=1"),
        "MAIL FROM:<a\u{9b}2J\u{202e}@contoso.com> SMTPUTF8".to_owned(),
    ] {
        let reply = client.command(&line).await.unwrap();
        assert_harmless("a reply", &reply.lines.join(""));
    }
    let mut client = Client::connect(told.listener(2), Some("127.0.7.7".parse().unwrap()))
        .await
        .unwrap();
    client.reply().await.unwrap();
    client.ehlo("scanner").await.unwrap();
    // Fields that the trace shows, and a next hop's reply; the recipient's name is legal and wants to turn the line.
    let letter = format!(
        "From: scanner@contoso.com\r\nSubject: s\r\nMessage-ID: <{EVIL}{long}@x>\r\n\
         X-MS-Exchange-Organization-{EVIL}: {EVIL}\r\n\r\nbody\r\n"
    );
    let reply = format!("550 5.1.10 {EVIL} {long}");
    around.exchange.script(Step::reply(Phase::Rcpt, &reply));
    let mail = Mail::new(
        "scanner@contoso.com",
        "b\u{202e}ob@contoso.com",
        letter.into_bytes(),
    );
    let answer = client
        .transaction(&mail.parameter("SMTPUTF8"))
        .await
        .unwrap();
    let id = answer.accepted().then(|| last_word(answer.deciding()));
    let letter = format!(
        "From: scanner@contoso.com\r\nSubject: s\r\nMessage-ID: <{long}\u{9b}@x>\r\n\r\nbody\r\n"
    );
    let mail = Mail::new(
        "scanner@contoso.com",
        "bob@contoso.com",
        letter.into_bytes(),
    );
    let answer = client.transaction(&mail).await.unwrap();
    assert!(answer.accepted(), "{answer:?}");
    let second = last_word(answer.deciding());
    // A stamp, an XOORG and a certificate that say more than names.
    let leaf = Leaf::named(&format!("evil\u{1b}[31m{}.example", &long[..50]));
    let out = match around.authority.issue(&leaf) {
        Ok(identity) => {
            let roots = around.authority.roots().unwrap();
            gatepost::lab::ExchangeOut::new(
                told.listener(0),
                crate::harness::HOSTNAME,
                &roots,
                Some(&identity),
            )
            .unwrap()
        }
        Err(_) => around.exchange_out(told.listener(0)),
    };
    let forged = format!("X-OriginatorOrg: {EVIL}{long}\r\nX-contoso-Gate: {EVIL}\r\n");
    let forged = [forged.as_bytes(), LETTER].concat();
    let mail = Mail::new("ada@contoso.com", "bob@contoso.com", forged.clone());
    for out in [out, around.exchange_out(told.listener(0))] {
        let refused = out.send(&Outbound::bare(mail.clone())).await.unwrap();
        assert!(!refused.accepted(), "{refused:?}");
        assert_harmless("a refusal", &refused.deciding().lines.join(""));
    }
    // Not TLS at all, in a handshake.
    let mut client = Client::connect(told.listener(1), None).await.unwrap();
    client.reply().await.unwrap();
    client.ehlo("x").await.unwrap();
    client.command("STARTTLS").await.unwrap();
    client
        .raw(format!("{EVIL}\r\n{EVIL}").as_bytes())
        .await
        .unwrap();

    let seen = |said: &Said| {
        assert_harmless("standard output", &said.out);
        assert_harmless("standard error", &said.err);
    };
    until("the failure in the trace", async || {
        let said = gatepost(&told.config, &["trace", &second, "--json"]).await;
        seen(&said);
        said.out.contains("\"attempt\"").then_some(())
    })
    .await;
    let all = until("all of it", async || {
        let said = gatepost(&told.config, &["trace", "--since", "1h", "--json"]).await;
        said.out.contains("handshake_failed").then_some(said)
    })
    .await;
    let events = all.json();
    for event in events.as_array().unwrap() {
        assert_short(event);
    }
    for words in [
        &["trace", "--since", "1h"][..],
        &["queue", "list"],
        &["queue", "list", "--json"],
        &["trace", EVIL],
        &["queue", "show", EVIL],
    ] {
        seen(&gatepost(&told.config, words).await);
    }
    // Escaped and not dropped: each of the ways in has left its mark.
    let text = serde_json::to_string(&events).unwrap();
    for mark in [
        r"550 5.1.10 \\x1b[31m\\xc2\\x9b2J",
        r"evil\\x1b[31mxxx",
        r"\\x1b[31m\\xc2\\x9b2J\\xe2\\x80\\xae\\x07evilxxx",
        r"<xxxxx",
    ] {
        assert!(text.contains(mark), "{mark}: {text}");
    }
    assert!(id.is_none_or(|id| text.contains(&id)));
    let (around, _) = told.stop().await;
    let log = std::fs::read_to_string(around.folder.path().join("stderr")).unwrap();
    assert_harmless("the log", &log);
    for line in log.lines() {
        assert!(
            line.starts_with("20") && line.as_bytes()[4] == b'-',
            "no line of a peer's: {line}"
        );
    }
    let folder = around.folder.path().join("data/trace");
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            assert_harmless("the trace", &std::fs::read_to_string(path).unwrap());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readiness_fails_while_the_server_drains_and_metrics_are_still_told() {
    let world = World::start().await;
    let admin = world.host.admin_address();
    let ready = async |path| crate::harness::http(admin, "GET", path, &[], "").await;
    assert_eq!(ready("/readyz").await.unwrap(), (200, "ready\n".to_owned()));
    // A message in the middle keeps the drain waiting.
    let from = Some("127.0.7.7".parse().unwrap());
    let mut client = Client::connect(world.listener("printers"), from)
        .await
        .unwrap();
    client.reply().await.unwrap();
    client.ehlo("scanner").await.unwrap();
    for line in [
        "MAIL FROM:<scanner@contoso.com>",
        "RCPT TO:<bob@contoso.com>",
        "DATA",
    ] {
        assert!(client.command(line).await.unwrap().code < 400);
    }
    let World { host, around } = world;
    let stop = tokio::spawn(host.stop());
    let draining = until("503", async || {
        ready("/readyz").await.ok().filter(|answer| answer.0 == 503)
    })
    .await;
    assert_eq!(draining.1, "shutting down\n");
    assert_eq!(
        ready("/healthz").await.unwrap().0,
        200,
        "alive: not to be killed"
    );
    assert!(
        ready("/metrics")
            .await
            .unwrap()
            .1
            .contains("gatepost_connections_open{listener=\"printers\"} 1")
    );
    client
        .raw(b"From: scanner@contoso.com\r\n\r\nlast words\r\n.\r\n")
        .await
        .unwrap();
    assert_eq!(
        client.reply().await.unwrap().code,
        250,
        "what is in hand is finished"
    );
    stop.await.unwrap();
    assert!(ready("/healthz").await.is_err(), "nothing answers any more");
    drop(around);
}
