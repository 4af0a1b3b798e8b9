//! What an operator does, and what befalls a machine, while mail flows: docs/looking-after.md, "While mail flows". No session is
//! dropped that need not be, no message is lost or doubled, and none waits long.

use crate::hammers::Hammers;
use crate::harness::{
    Changes, LETTER, Process, Surroundings, World, free_port, get, http, scrape, until,
    write_identity,
};
use crate::load::Flow;
use gatepost::lab::certificates::{Authority, Leaf};
use gatepost::lab::{Client, ClientError, Mail, Outbound, Phase, Received, Step};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// A configuration for a server process, at ports that are known.
struct Place {
    around: Surroundings,
    ports: [u16; 3],
    admin: SocketAddr,
}

impl Place {
    async fn new() -> Self {
        Self {
            around: Surroundings::new().await,
            ports: [free_port(), free_port(), free_port()],
            admin: SocketAddr::from(([127, 0, 0, 1], free_port())),
        }
    }

    fn configure(&self, mut changes: Changes) -> PathBuf {
        changes.replace.push((
            "[admin]\naddress = \"127.0.0.1:0\"",
            format!("[admin]\naddress = \"{}\"", self.admin),
        ));
        self.around.configuration(self.ports, &changes)
    }

    fn flow(&self) -> Flow {
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        Flow::start(&self.around, self.ports.map(at))
    }

    /// SIGHUP, and until it has come to this end for the `times`-th time.
    async fn reload(&self, process: &Process, result: &str, times: usize) {
        process.hang_up();
        let line = format!("gatepost_reloads_total{{result=\"{result}\"}} {times}\n");
        until("the reload", async || {
            // A connection may have to give way to another.
            let metrics = http(self.admin, "GET", "/metrics", &[], "").await.ok()?;
            metrics.1.contains(&line).then_some(())
        })
        .await;
    }

    fn hammer(&self) -> Hammers {
        Hammers::all(self.admin, &self.around.token())
    }
}

/// One round of changes: what a good reload takes up in the `round`-th.
fn good(place: &Place, round: usize) -> Changes {
    let folder = place.around.folder.path();
    let issue = |leaf: &Leaf| place.around.authority.issue(leaf).unwrap();
    let also = format!("round{round}.contoso.com");
    match round % 3 {
        0 => write_identity(
            folder,
            "host",
            &issue(&Leaf::named(crate::harness::HOSTNAME).and(&also)),
        ),
        1 => write_identity(
            folder,
            "contoso",
            &issue(&Leaf::named("contoso.com").and(&also)),
        ),
        _ => {}
    }
    // The old value of each secret is what Exchange's rules still set and what open sessions began with.
    let mut changes = Changes::replace(
        "{ name = \"X-contoso-Gate\", value = \"contoso-secret\" }",
        &format!(
            "{{ name = \"X-contoso-Gate\", value = \"round-{round}\", previous = \"contoso-secret\" }}"
        ),
    );
    changes.replace.push((
        "{ name = \"X-Gatepost-Processed\", value = \"contoso-loop\" }",
        format!("{{ name = \"X-Gatepost-Processed\", value = \"loop-{round}\", previous = \"contoso-loop\" }}"),
    ));
    changes.replace.push((
        "accepted_domains = [\"contoso.com\"]",
        format!("accepted_domains = [\"contoso.com\", \"round{round}.example\"]"),
    ));
    changes.replace.push((
        "name = \"exchange\"",
        format!(
            "name = \"exchange\"\nmax_message_size = \"{}MiB\"",
            20 + round
        ),
    ));
    changes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dozen_reloads_in_a_row_good_and_bad_disturb_nobody() {
    let place = Place::new().await;
    let folder = place.around.folder.path();
    let process = Process::start(&place.configure(Changes::default()));
    let flow = place.flow();
    flow.go_on(20).await;
    let other = Authority::new("other").unwrap();
    let mut refused = 0;
    for round in 1..=12 {
        let config = place.configure(good(&place, round));
        place.reload(&process, "ok", round).await;
        flow.go_on(10).await;
        // What is refused: no TOML, an unset variable, a key of another certificate, one that has expired.
        let good = std::fs::read_to_string(&config).unwrap();
        let keep = ["contoso.pem", "contoso.key"].map(|name| {
            let path = folder.join(name);
            (path.clone(), std::fs::read(path).unwrap())
        });
        match round % 4 {
            0 => std::fs::write(&config, "hostname = [").unwrap(),
            1 => std::fs::write(&config, good.replace("contoso-loop", "${UNSET_BY_ALL}")).unwrap(),
            2 => {
                let foreign = other.issue(&Leaf::named("contoso.com")).unwrap();
                std::fs::write(folder.join("contoso.key"), foreign.key_pem()).unwrap();
            }
            _ => {
                let leaf = Leaf::named("contoso.com").expired();
                write_identity(
                    folder,
                    "contoso",
                    &place.around.authority.issue(&leaf).unwrap(),
                );
            }
        }
        refused += 1;
        place.reload(&process, "failed", refused).await;
        flow.go_on(10).await;
        for (path, octets) in keep {
            std::fs::write(path, octets).unwrap();
        }
    }
    flow.end().await.undisturbed();
    assert!(process.terminate().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_nobody_reads_stops_no_mail_and_no_end() {
    let place = Place::new().await;
    let changes = Changes {
        append: "\n[log]\nlevel = \"debug\"\n".to_owned(),
        ..Changes::default()
    };
    let (process, log) = Process::unheard(&place.configure(changes));
    let flow = place.flow();
    // A pipe holds 64 KiB; each message has two lines or more.
    for _ in 0..10 {
        flow.go_on(80).await;
    }
    flow.end().await.undisturbed();
    let begun = Instant::now();
    assert!(
        process.terminate().success(),
        "the end does not wait for a reader"
    );
    assert!(
        begun.elapsed() < Duration::from_secs(15),
        "{:?}",
        begun.elapsed()
    );
    let mut said = String::new();
    std::io::Read::read_to_string(&mut { log }, &mut said).unwrap();
    assert!(said.len() > 60_000, "the pipe was full: {}", said.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_whose_reader_goes_away_or_comes_late_stops_no_mail() {
    let place = Place::new().await;
    let changes = Changes {
        append: "\n[log]\nlevel = \"debug\"\n".to_owned(),
        ..Changes::default()
    };
    let (process, mut log) = Process::unheard(&place.configure(changes));
    let flow = place.flow();
    for _ in 0..6 {
        flow.go_on(80).await;
    }
    // Late, it is given every line, in order: the pipe was full and memory was not.
    let heard = tokio::task::spawn_blocking(move || {
        let mut said = Vec::new();
        while said.len() < 100_000 {
            let mut piece = [0; 4096];
            let length = std::io::Read::read(&mut log, &mut piece).unwrap();
            said.extend_from_slice(&piece[..length]);
        }
        (log, String::from_utf8_lossy(&said).into_owned())
    });
    let (log, heard) = heard.await.unwrap();
    for line in heard.lines().take(heard.lines().count() - 1) {
        assert!(
            line.starts_with("20") && line.contains('Z'),
            "a whole line: {line}"
        );
    }
    assert!(
        scrape(place.admin)
            .await
            .contains("gatepost_log_lost_total 0\n")
    );
    drop(log);
    // Closed: what nobody can be told is counted.
    flow.go_on(40).await;
    flow.end().await.undisturbed();
    assert!(
        !scrape(place.admin)
            .await
            .contains("gatepost_log_lost_total 0\n")
    );
    assert!(process.terminate().success());
}

/// Exchange defers the next message, so that it waits for its time.
fn defer_next(world: &World) {
    world
        .around
        .exchange
        .script(Step::reply(Phase::EndOfData, "451 4.3.2 later").times(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_is_set_back_and_forward_disturbs_nobody() {
    let changes = Changes::replace("retry = [\"1s\"]", "retry = [\"2s\"]");
    let world = World::with(changes).await;
    let listeners = ["exchange", "apps", "printers"].map(|name| world.listener(name));
    let flow = Flow::start(&world.around, listeners);
    flow.go_on(20).await;
    const HOUR: i64 = 3_600_000;
    // By less than an hour's expiry and by far more; in the end it is right again.
    for by in [-2 * HOUR, 3 * HOUR, -26 * HOUR, 25 * HOUR, 90_000, -90_000] {
        defer_next(&world);
        flow.go_on(10).await;
        world.host.step_clock(by);
        flow.go_on(20).await;
        defer_next(&world);
        flow.go_on(10).await;
    }
    let flowed = flow.end().await;
    flowed.undisturbed();
    assert!(flowed.worst >= Duration::from_secs(2), "some were deferred");
    let metrics = world.metrics();
    let failed = metrics
        .lines()
        .filter(|line| line.contains("outcome=\"failed\""));
    assert!(
        failed.clone().all(|line| line.ends_with(" 0")),
        "nothing expired: {metrics}"
    );
    world.host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn days_of_the_trace_change_and_go_while_it_is_read() {
    let changes = Changes {
        append: "\n[trace]\nkeep = \"1d\"\n".to_owned(),
        ..Changes::default()
    };
    let world = World::with(changes).await;
    let listeners = ["exchange", "apps", "printers"].map(|name| world.listener(name));
    let flow = Flow::start(&world.around, listeners);
    let (token, admin) = (world.token(), world.host.admin_address());
    let over = Arc::new(AtomicBool::new(false));
    let mut readers = JoinSet::new();
    for text in ["bob@contoso.com", ""] {
        let (token, over) = (format!("Bearer {token}"), Arc::clone(&over));
        readers.spawn(async move {
            let mut answers = 0;
            while !over.load(Ordering::Relaxed) {
                let path = match text {
                    "" => "/api/trace?since=1".to_owned(),
                    text => format!("/api/trace?text={text}"),
                };
                let (status, body) = get(admin, &path, &[("Authorization", &token)]).await;
                assert_eq!(status, 200, "{body}");
                serde_json::from_str::<serde_json::Value>(&body).unwrap();
                answers += 1;
            }
            answers
        });
    }
    let files = || {
        let entries = std::fs::read_dir(world.around.folder.path().join("data/trace")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.filter(|name| name.ends_with(".jsonl")).collect();
        names.sort();
        names
    };
    let day = Duration::from_secs(86_400);
    let mut before = Vec::new();
    for _ in 0..4 {
        flow.go_on(20).await;
        before = files();
        world.host.set_clock_forward(day);
        flow.go_on(20).await;
        scrape(admin).await;
        until("the new day's file", async || {
            world.host.tracer().flush().await;
            (files().last() > before.last()).then_some(())
        })
        .await;
    }
    assert!(files().len() <= 2, "{:?}, before {before:?}", files());
    // A clock that was wrong for a while deletes nothing.
    world.host.step_clock(10 * 86_400_000);
    flow.go_on(20).await;
    scrape(admin).await;
    world.host.tracer().flush().await;
    let wrong = files();
    assert!(
        wrong.contains(before.last().unwrap()) || wrong.len() == 3,
        "{wrong:?}"
    );
    world.host.step_clock(-10 * 86_400_000);
    flow.go_on(20).await;
    over.store(true, Ordering::Relaxed);
    while let Some(answers) = readers.join_next().await {
        assert!(answers.unwrap() > 0);
    }
    flow.end().await.undisturbed();
    world.host.stop().await;
}

/// How long `/readyz` takes to say 200, several times in a row; asked again where the connection gave way to another.
async fn readiness(admin: SocketAddr) -> Duration {
    let mut worst = Duration::ZERO;
    for _ in 0..10 {
        let begun = Instant::now();
        until("readiness", async || {
            let asked = tokio::time::timeout(
                Duration::from_secs(5),
                http(admin, "GET", "/readyz", &[], ""),
            );
            matches!(asked.await, Ok(Ok((200, _)))).then_some(())
        })
        .await;
        worst = worst.max(begun.elapsed());
    }
    worst
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_admin_api_under_a_flood_stops_no_mail_and_says_that_it_is_ready() {
    let place = Place::new().await;
    let process = Process::start(&place.configure(Changes::default()));
    let flow = place.flow();
    flow.go_on(20).await;
    let hammers = place.hammer();
    flow.go_on(40).await;
    let worst = readiness(place.admin).await;
    println!("/readyz under the flood: {worst:?} at worst");
    flow.go_on(40).await;
    hammers.end().await;
    flow.end().await.undisturbed();
    assert!(worst < Duration::from_secs(10), "{worst:?}");
    assert!(process.terminate().success());
}

/// Halves of a message's content; what is on its way when the server is told to end.
fn halves(mark: &str, from: &str) -> [String; 2] {
    let stamps = "X-OriginatorOrg: contoso.com\r\n\
        X-MS-Exchange-CrossTenant-Id: 11111111-2222-3333-4444-555555555555\r\n";
    [
        format!(
            "From: {from}\r\nTo: bob@contoso.com\r\n{stamps}Subject: {mark}\r\n\r\nfirst half\r\n"
        ),
        "second half\r\n".to_owned(),
    ]
}

async fn say(client: &mut Client, line: &str, code: u16) {
    let reply = client.command(line).await.unwrap();
    assert_eq!(reply.code, code, "{line}: {reply}");
}

/// In the middle of the content, by DATA in clear text.
async fn half_by_data(place: &Place, mark: &str) -> Client {
    let mut client = idle(place).await;
    say(&mut client, "MAIL FROM:<scanner@contoso.com>", 250).await;
    say(&mut client, "RCPT TO:<bob@contoso.com>", 250).await;
    say(&mut client, "DATA", 354).await;
    let [first, _] = halves(mark, "scanner@contoso.com");
    client.raw(first.as_bytes()).await.unwrap();
    client
}

/// The same between two chunks, from Exchange.
async fn half_by_chunks(place: &Place, mark: &str) -> Client {
    let listener = SocketAddr::from(([127, 0, 0, 1], place.ports[0]));
    let out = place.around.exchange_out(listener);
    let mut client = out.connect().await.unwrap().into_client();
    say(&mut client, "MAIL FROM:<ada@contoso.com>", 250).await;
    say(&mut client, "RCPT TO:<bob@contoso.com>", 250).await;
    let [first, _] = halves(mark, "ada@contoso.com");
    let chunk = format!("BDAT {}\r\n{first}", first.len());
    client.raw(chunk.as_bytes()).await.unwrap();
    assert_eq!(client.reply().await.unwrap().code, 250);
    client
}

/// A scanner that has said EHLO.
async fn idle(place: &Place) -> Client {
    let listener = SocketAddr::from(([127, 0, 0, 1], place.ports[2]));
    let from = "127.0.7.7".parse().unwrap();
    let mut client = Client::connect(listener, Some(from)).await.unwrap();
    assert_eq!(client.reply().await.unwrap().code, 220);
    client.ehlo("scanner").await.unwrap();
    client
}

/// What ends the session of a server that ends: 421 4.3.2, and nothing behind it.
async fn is_sent_away(client: &mut Client) {
    let farewell = client.reply().await.unwrap().to_string();
    assert!(farewell.starts_with("421 4.3.2 "), "{farewell}");
    let after = client.reply().await;
    assert!(matches!(after, Err(ClientError::Closed)), "{after:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_in_place_loses_and_doubles_nothing() {
    let place = Place::new().await;
    let config = place.configure(Changes::default());
    let mut process = Process::older(&config);
    let flow = place.flow();
    let mut gaps = Vec::new();
    for round in 0..3 {
        flow.go_on(30).await;
        let marks = [format!("data {round}"), format!("chunks {round}")];
        let mut witness = idle(&place).await;
        let mut data = half_by_data(&place, &marks[0]).await;
        let mut chunks = half_by_chunks(&place, &marks[1]).await;
        let begun = Instant::now();
        let end = tokio::task::spawn_blocking(move || process.terminate());
        // Once who does nothing was sent away, the others are known to go on in a server that ends.
        is_sent_away(&mut witness).await;
        let [_, rest] = halves("", "");
        data.raw(format!("{rest}.\r\n").as_bytes()).await.unwrap();
        let last = format!("BDAT {} LAST\r\n{rest}", rest.len());
        chunks.raw(last.as_bytes()).await.unwrap();
        for client in [&mut data, &mut chunks] {
            let reply = client.reply().await.unwrap();
            assert_eq!(reply.code, 250, "{reply}");
            assert!(reply.to_string().contains("queued as "), "{reply}");
            is_sent_away(client).await;
        }
        assert!(end.await.unwrap().success());
        let down = Instant::now();
        process = Process::start(&config);
        gaps.push((begun, Instant::now()));
        println!(
            "SIGTERM to the end: {:?}, and to the new one's ready: {:?}",
            down - begun,
            begun.elapsed()
        );
        for mark in marks {
            let is_it = |received: &Received| received.header("Subject").as_ref() == Some(&mark);
            let received = place.around.exchange.received_where(is_it).await.unwrap();
            let whole = b"\r\n\r\nfirst half\r\nsecond half\r\n";
            assert!(received.content.ends_with(whole), "{mark}");
        }
    }
    flow.go_on(30).await;
    flow.end().await.restarted(&gaps);
    assert!(process.terminate().success());
}

/// Good and bad reloads in turn, with a DNS that is silent while mail for it comes.
async fn rounds(place: &Place, process: &Process, base: &str, flow: &Flow) {
    for round in 1..=3 {
        let mut changes = good(place, round);
        by_mx(&mut changes, base);
        let config = place.configure(changes);
        place.reload(process, "ok", round).await;
        let kept = std::fs::read(&config).unwrap();
        std::fs::write(&config, "hostname = [").unwrap();
        place.reload(process, "failed", round).await;
        std::fs::write(&config, kept).unwrap();
        let listener = SocketAddr::from(([127, 0, 0, 1], place.ports[0]));
        let recipient = format!("r@d{round}.partner.example");
        let mail = Mail::new("ada@contoso.com", &recipient, LETTER);
        let id = "0d6f9b1c-0000-4000-8000-000000000001";
        let outbound = Outbound::stamped(&place.around.contoso, mail, id).unwrap();
        let answer = place.around.exchange_out(listener).send(&outbound).await;
        assert!(answer.unwrap().accepted(), "mail that waits for DNS");
        flow.go_on(20).await;
    }
}

fn by_mx(changes: &mut Changes, base: &str) {
    changes.replace.push((
        "[[route]]\nrecipients = \"any\"",
        "[[route]]\nrecipients = [\"*.partner.example\"]\nvia = \"mx\"\n[[route]]\nrecipients = \"any\""
            .to_owned(),
    ));
    changes.append = base.to_owned();
}

/// What an end may take while name servers are silent, on a machine that is busy: far less than the 20 s of a look-up.
const PROMPT: Duration = Duration::from_secs(8);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_of_it_at_once_loses_and_doubles_nothing() {
    let place = Place::new().await;
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let base = format!(
        "[dns]\nservers = [\"{}\"]\n[delivery.mx]\nretry = [\"1s\"]\nexpire = \"1h\"\n[log]\nlevel = \"debug\"\n",
        silent.local_addr().unwrap()
    );
    let mut changes = Changes::default();
    by_mx(&mut changes, &base);
    let (process, log) = Process::unheard(&place.configure(changes));
    let flow = place.flow();
    flow.go_on(20).await;
    let hammers = place.hammer();
    rounds(&place, &process, &base, &flow).await;
    assert!(readiness(place.admin).await < Duration::from_secs(10));
    // An upgrade in the middle of it, which waits for no look-up.
    let begun = Instant::now();
    assert!(process.terminate().success());
    let down = begun.elapsed();
    println!("SIGTERM to the end: {down:?}");
    assert!(down < PROMPT, "{down:?}");
    let config = place.around.folder.path().join("gatepost.toml");
    let (process, second_log) = Process::unheard(&config);
    let gap = (begun, Instant::now());
    rounds(&place, &process, &base, &flow).await;
    hammers.end().await;
    flow.end().await.restarted(&[gap]);
    let queue = scrape(place.admin).await;
    assert!(
        queue.contains("gatepost_queue_messages{state=\"deferred\",tenant=\"contoso\",via=\"mx\"}"),
        "{queue}"
    );
    assert!(process.terminate().success());
    drop((log, second_log));
}

/// The same in this process, whose clock can be set: the flood, a DNS that is silent, an end and a new beginning, and each
/// time a clock that was wrong.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_of_it_at_once_with_a_clock_that_is_set_loses_and_doubles_nothing() {
    const HOUR: i64 = 3_600_000;
    let place = Place::new().await;
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let base = format!(
        "[dns]\nservers = [\"{}\"]\n[delivery.mx]\nretry = [\"1s\"]\nexpire = \"1h\"\n",
        silent.local_addr().unwrap()
    );
    let mut changes = Changes::default();
    by_mx(&mut changes, &base);
    let config = place.configure(changes);
    let start = async || {
        let loaded = gatepost::config::load(&config).unwrap();
        gatepost::app::Server::start(loaded.settings.unwrap())
            .await
            .unwrap()
    };
    let mut host = start().await;
    let mut gaps = Vec::new();
    let flow = place.flow();
    flow.go_on(20).await;
    let hammers = place.hammer();
    let listener = SocketAddr::from(([127, 0, 0, 1], place.ports[0]));
    for (round, steps) in [[-2 * HOUR, 3 * HOUR], [-26 * HOUR, 25 * HOUR]]
        .into_iter()
        .enumerate()
    {
        for by in steps {
            let recipient = format!("r@d{round}.partner.example");
            let mail = Mail::new("ada@contoso.com", &recipient, LETTER);
            let id = "0d6f9b1c-0000-4000-8000-000000000001";
            let outbound = Outbound::stamped(&place.around.contoso, mail, id).unwrap();
            let answer = place.around.exchange_out(listener).send(&outbound).await;
            assert!(answer.unwrap().accepted(), "mail that waits for DNS");
            flow.go_on(10).await;
            host.step_clock(by);
            flow.go_on(20).await;
        }
        assert!(readiness(place.admin).await < Duration::from_secs(10));
        // In the flood a seat may be taken before the answer has come.
        let metrics = until("the metrics", async || {
            let answer = http(place.admin, "GET", "/metrics", &[], "").await.ok()?;
            Some(answer.1)
        })
        .await;
        let failed = metrics.lines();
        let mut failed = failed.filter(|line| line.contains("outcome=\"failed\""));
        assert!(
            failed.all(|line| line.ends_with(" 0")),
            "nothing expired: {metrics}"
        );
        let begun = Instant::now();
        host.stop().await;
        let down = begun.elapsed();
        println!("asked to end, and ended: {down:?}");
        assert!(down < PROMPT, "{down:?}");
        host = start().await;
        gaps.push((begun, Instant::now()));
    }
    flow.go_on(20).await;
    hammers.end().await;
    flow.end().await.restarted(&gaps);
    host.stop().await;
}
