//! All attacks at once, on a server of its own process, while honest mail keeps flowing: what it has of memory and file
//! descriptors, and how long mail takes. The attacks one by one, with the bound of each: docs/hostile-peers.md.

mod attacks;
mod next_hops;

use crate::hammers::Hammers;
use crate::harness::{
    Changes, LETTER, PASSWORD, Process, Surroundings, free_port, scrape, until, write_identity,
};
use attacks::{
    be_refused, by_data, chunks, churn, drip, garbage, guess, half_handshake, hidden, inject,
    long_header, proxy, read_nothing, recipients, slow_content, smuggle,
};
use gatepost::lab::certificates::Leaf;
use gatepost::lab::{
    ApplicationClient, Dialect, Mail, Outbound, Outside, OutsideOptions, Security, Transfer,
};
use next_hops::{exchanger, hostile_exchange, hostile_next_hop};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// What each honest sender gets through at the least.
const HONEST: [(&str, usize); 3] = [("exchange", 20), ("erp", 5), ("scanner", 20)];
/// How long it lasts.
const SIEGE: Duration = Duration::from_secs(20);
/// `max_connections` of each of the four listeners.
const SEATS: u64 = 200;
/// Connections to two relays and two tenants' hosts; to mail exchangers comes one for each domain, of which none ever answers well.
const NEXT_HOPS: u64 = 4 * 10;
/// Connections to the admin API; who comes then takes the place of the one who has sat there longest.
const ADMIN_SEATS: u64 = 256;
/// Sockets of who has just left: six hundred come and go in a second, and a busy server is a third of one behind.
const COME_AND_GONE: u64 = 200;
/// The soft limit of open files that the server is started with.
const FEW: u64 = 256;
/// Who takes his time over a body, and over a header section.
const SLOW_BODIES: u64 = 40;
const SLOW_HEADERS: u64 = 20;
/// What a connection may have at most, octets: buffers for reading, for replies and of TLS.
const OF_A_CONNECTION: u64 = (16 + 16 + 8 + 64) * 1024;
/// A header section, octets, while the buffer that it is gathered in grows.
const OF_A_HEADER: u64 = 2 * 256 * 1024;
/// All drafts together, recent bodies that are kept in memory, index cache.
const OF_ALL: u64 = (64 + 32 + 32) * 1024 * 1024;
/// A password check; there are as many at a time as cores.
const OF_A_CHECK: u64 = 19 * 1024 * 1024;
/// Half of all honest mail, from the first try to Exchange. Where commands are answered without taking turns it is 1.8 s
/// and more; else a quarter of a second, also with all other tests beside it.
const MEDIAN: Duration = Duration::from_secs(1);
/// All of it: its sender comes again where a seat was taken, and the honest application where its login was not judged. Ten times
/// what is seen.
const WORST: Duration = Duration::from_secs(15);

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// What the system says of a process.
#[derive(Clone, Copy, Debug, Default)]
struct Figures {
    resident: u64,
    peak: u64,
    descriptors: u64,
    /// Time of processors, in hundredths of a second.
    worked: u64,
}

fn figures(process: u32) -> Figures {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let of = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib: u64 = line
            .unwrap()
            .split_whitespace()
            .next()
            .unwrap()
            .parse()
            .unwrap();
        kib * 1024
    };
    let descriptors = std::fs::read_dir(format!("/proc/{process}/fd"))
        .unwrap()
        .count();
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let worked = [11, 12].map(|at| fields[at].parse::<u64>().unwrap());
    Figures {
        worked: worked[0] + worked[1],
        resident: of("VmRSS:"),
        peak: of("VmHWM:"),
        descriptors: descriptors as u64,
    }
}

/// Counts what the attackers got done, and tells them when it is over.
#[derive(Clone)]
struct Siege {
    over: Arc<AtomicBool>,
    /// Honest messages that were taken, by who sent them.
    taken: Arc<Mutex<HashMap<&'static str, usize>>>,
    done: Arc<[AtomicU64; ATTACKS.len()]>,
}

impl Siege {
    fn new() -> Self {
        Self {
            over: Arc::default(),
            taken: Arc::default(),
            done: Arc::new(ATTACKS.map(|_| AtomicU64::new(0))),
        }
    }

    fn goes_on(&self) -> bool {
        !self.over.load(Ordering::Relaxed)
    }

    /// Whether each honest sender got so many through.
    fn has_seen(&self, wanted: &[(&'static str, usize)]) -> bool {
        let taken = self.taken.lock().unwrap();
        let mut wanted = wanted.iter();
        wanted.all(|(name, least)| taken.get(name).is_some_and(|own| own >= least))
    }

    fn count(&self, attack: Attack) {
        self.done[attack as usize].fetch_add(1, Ordering::Relaxed);
    }
}

#[derive(Clone, Copy, Debug)]
enum Attack {
    Stranger,
    Churn,
    SlowCommand,
    SlowReader,
    Garbage,
    HalfHandshake,
    Guess,
    SlowBody,
    SlowHeader,
    Recipients,
    Smuggling,
    NextHop,
    Exchange,
    Exchanger,
    LongHeader,
    Chunks,
    Proxy,
    Injection,
    ByData,
    Refused,
}

const ATTACKS: [Attack; 20] = [
    Attack::Stranger,
    Attack::Churn,
    Attack::SlowCommand,
    Attack::SlowReader,
    Attack::Garbage,
    Attack::HalfHandshake,
    Attack::Guess,
    Attack::SlowBody,
    Attack::SlowHeader,
    Attack::Recipients,
    Attack::Smuggling,
    Attack::NextHop,
    Attack::Exchange,
    Attack::Exchanger,
    Attack::LongHeader,
    Attack::Chunks,
    Attack::Proxy,
    Attack::Injection,
    Attack::ByData,
    Attack::Refused,
];

/// A moment, as a peer's slowness; nothing is waited for.
async fn moment(millis: u64) {
    tokio::time::sleep(Duration::from_millis(millis)).await;
}

/// One honest sender: sends until the siege is over, comes again where it is turned away; what was taken, and when it was
/// begun.
async fn honest(
    siege: Siege,
    name: &'static str,
    number: Arc<AtomicU64>,
    send: impl AsyncFn(String) -> bool,
) -> Vec<(String, Instant)> {
    let mut taken = Vec::new();
    while siege.goes_on() {
        let id = format!("{name}-{}", number.fetch_add(1, Ordering::Relaxed));
        let begun = Instant::now();
        loop {
            if send(id.clone()).await {
                taken.push((id, begun));
                *siege.taken.lock().unwrap().entry(name).or_default() += 1;
                break;
            }
            if begun.elapsed() > Duration::from_secs(60) {
                panic!("{id} was not taken within a minute");
            }
            moment(100).await;
        }
        moment(50).await;
    }
    taken
}

fn with_id(id: &str, from: &str) -> Vec<u8> {
    let letter = String::from_utf8(LETTER.to_vec()).unwrap();
    let letter = letter.replace("Ada <ada@contoso.com>", from);
    format!("X-Honest: {id}\r\n{letter}").into_bytes()
}

fn own_letter(id: &str, from: &str) -> Vec<u8> {
    format!("From: {from}\r\nTo: bob@contoso.com\r\nX-Honest: {id}\r\nSubject: x\r\n\r\nbody\r\n")
        .into_bytes()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn honest_mail_keeps_flowing_under_all_attacks_at_once_and_memory_and_descriptors_are_bounded()
 {
    let around = Surroundings::new().await;
    let ports = [free_port(), free_port(), free_port()];
    let (admin, balanced) = (free_port(), free_port());
    let plain = OutsideOptions {
        hidden: vec!["CHUNKING".to_owned()],
        ..OutsideOptions::default()
    };
    let plain = Outside::start(plain).await.unwrap();
    let next_hop = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut changes = Changes::replace(
        "service = ",
        &format!("max_connections = {SEATS}\nservice = "),
    );
    changes.replace.push((
        "[[route]]\nrecipients = \"any\"",
        "[[route]]\nrecipients = [\"hostile.example\"]\nvia = \"relay:hostile\"\n[[route]]\nrecipients = [\"plain.example\"]\nvia = \"relay:plain\"\n[[route]]\nrecipients = [\"*.partner.example\"]\nvia = \"mx\"\n[[route]]\nrecipients = \"any\"".to_owned(),
    ));
    changes.replace.push((
        "address = \"127.0.0.1:0\"",
        format!("address = \"127.0.0.1:{admin}\""),
    ));
    let exchange_hop = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stolen = around
        .authority
        .issue(&Leaf::named("hostile.test"))
        .unwrap();
    write_identity(around.folder.path(), "hostile", &stolen);
    let exchanger = exchanger().await;
    if exchanger.is_none() {
        println!("port 25 of 127.0.99.1 cannot be had: no hostile mail exchanger");
    }
    let servers = exchanger.as_ref().map_or(String::new(), |(server, _)| {
        format!("[dns]\nservers = [\"{server}\"]\n")
    });
    changes.append = format!(
        "[[certificate]]\nname = \"hostile\"\nchain = \"hostile.pem\"\nkey = \"hostile.key\"\n\
         [[tenant]]\nname = \"hostile\"\ntenant_id = \"99999999-2222-3333-4444-555555555555\"\n\
         accepted_domains = [\"hostile.test\"]\n[tenant.inbound_connector]\nhost = \"127.0.0.1\"\nport = {}\n\
         certificate = \"hostile\"\ncloud_services_mail_enabled = true\n\
         [[application]]\nname = \"bait\"\ntenant = \"hostile\"\nnetworks = [\"127.0.7.8/32\"]\nsenders = [\"a@hostile.test\"]\n\
         {servers}[[relay]]\nname = \"hostile\"\nhost = \"127.0.0.1\"\nport = {}\ntls = \"opportunistic\"\n\
         [[relay]]\nname = \"plain\"\nhost = \"127.0.0.1\"\nport = {}\ntls = \"opportunistic\"\n\
         [[listener]]\nname = \"balanced\"\naddress = \"127.0.0.1:{balanced}\"\nservice = \"submission\"\ntls = \"starttls\"\n\
         certificate = \"host\"\nmax_connections = {SEATS}\nproxy_protocol_from = [\"127.0.67.0/24\"]\n\
         [delivery.mx]\nretry = [\"1s\"]\nexpire = \"1h\"\n",
        exchange_hop.local_addr().unwrap().port(),
        next_hop.local_addr().unwrap().port(),
        plain.address().port()
    );
    let config = around.configuration(ports, &changes);
    // With fewer descriptors than it needs, as a shell gives them: it takes what the hard limit grants.
    let server = Process::with_few_descriptors(&config, FEW);
    let [exchange, apps, printers] = ports.map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    let roots = around.authority.roots().unwrap();
    let application = |to| ApplicationClient::new(to, crate::harness::HOSTNAME, &roots).unwrap();
    let erp = application(apps).login("erp", PASSWORD, Dialect::Plain);
    let scanner = application(printers)
        .security(Security::Clear)
        .from_address(ip("127.0.7.7"));
    let out = around.exchange_out(exchange);
    let number = Arc::new(AtomicU64::new(0));
    let own = |id: &str| {
        Mail::new(
            "erp@contoso.com",
            "bob@contoso.com",
            own_letter(id, "erp@contoso.com"),
        )
    };
    // The owner has logged in before, as it does each day.
    let first = erp.send(&own("before")).await.unwrap();
    assert!(first.accepted(), "{first:?}");
    around.exchange.received().await.unwrap();
    let base = figures(server.id());

    let siege = Siege::new();
    let mut attackers = JoinSet::new();
    for one in 0..60 {
        let from = format!("127.0.61.{}", 1 + one);
        attackers.spawn(drip(siege.clone(), Attack::Stranger, exchange, from, 1000));
    }
    for one in 0..90 {
        let from = format!("127.0.62.{}", 1 + one % 3);
        attackers.spawn(drip(siege.clone(), Attack::SlowCommand, apps, from, 200));
    }
    for one in 0..3 {
        for to in [exchange, apps, printers] {
            attackers.spawn(churn(siege.clone(), to, one));
        }
    }
    for one in 0..30 {
        for to in [apps, printers] {
            let from = format!("127.0.63.{}", 1 + one % 5);
            attackers.spawn(read_nothing(siege.clone(), to, from));
        }
    }
    for one in 0..12 {
        let to = [exchange, apps, printers][one % 3];
        let from = format!("127.0.40.{}", 100 + one);
        attackers.spawn(garbage(siege.clone(), to, from));
    }
    for one in 0..20 {
        let from = format!("127.0.64.{}", 1 + one % 5);
        attackers.spawn(half_handshake(siege.clone(), apps, from));
    }
    for one in 0..8 {
        let from = ip(&format!("127.0.65.{}", 1 + one));
        let guesser = application(apps)
            .login("erp", "wrong", Dialect::Plain)
            .from_address(from);
        attackers.spawn(guess(siege.clone(), guesser));
    }
    for one in 0..SLOW_BODIES + SLOW_HEADERS {
        let from = ip(&format!("127.0.40.{}", 1 + one));
        let out = around.exchange_out(exchange).from_address(from);
        attackers.spawn(slow_content(siege.clone(), out, one < SLOW_HEADERS));
    }
    for one in 0..2 {
        let from = ip(&format!("127.0.40.{}", 80 + one));
        let out = around.exchange_out(exchange).from_address(from);
        attackers.spawn(recipients(siege.clone(), out.clone()));
        attackers.spawn(smuggle(siege.clone(), out));
    }
    let through = Arc::new(Mutex::new(Vec::new()));
    let out_of = |number: u8| {
        let from = ip(&format!("127.0.40.{number}"));
        around.exchange_out(exchange).from_address(from)
    };
    attackers.spawn(long_header(siege.clone(), out_of(82)));
    attackers.spawn(chunks(siege.clone(), out_of(83)));
    attackers.spawn(inject(siege.clone(), out_of(84)));
    attackers.spawn(by_data(siege.clone(), out_of(85), Arc::clone(&through)));
    for one in 0..20 {
        let to = SocketAddr::from(([127, 0, 0, 1], balanced));
        let from = format!("127.0.67.{}", 1 + one);
        attackers.spawn(proxy(siege.clone(), to, from));
    }
    for one in 0..4 {
        attackers.spawn(be_refused(siege.clone(), [apps, printers][one % 2], one));
    }
    // Each has one connection at a time, as have the honest.
    let seats = attackers.len() as u64 + 5;
    attackers.spawn(hostile_next_hop(siege.clone(), Attack::NextHop, next_hop));
    attackers.spawn(hostile_exchange(
        siege.clone(),
        exchange_hop,
        around.exchange_identity.clone(),
    ));
    let hammers = Hammers::strangers(SocketAddr::from(([127, 0, 0, 1], admin)));
    let with_exchanger = exchanger.is_some();
    if let Some((_, socket)) = exchanger {
        attackers.spawn(hostile_next_hop(siege.clone(), Attack::Exchanger, socket));
    }

    // Mail for the hostile next hops, enough for every connection that may be made to them.
    let victim = application(printers)
        .security(Security::Clear)
        .from_address(ip("127.0.7.8"));
    let others = honest(siege.clone(), "other", Arc::default(), async move |id| {
        let number = id.rsplit('-').next().unwrap().to_owned();
        let recipient = if number.ends_with(['1', '3', '5', '7', '9']) {
            "b@hostile.test".to_owned()
        } else {
            format!("r@d{number}.partner.example")
        };
        let content = own_letter(&id, "a@hostile.test");
        let mail = Mail::new("a@hostile.test", &recipient, content);
        victim
            .send(&mail)
            .await
            .is_ok_and(|answer| answer.accepted())
    });
    let mail = Mail::new(
        "erp@contoso.com",
        "x@hostile.example",
        own_letter("hostile", "erp@contoso.com"),
    );
    let bait = honest(siege.clone(), "bait", Arc::default(), {
        let erp = erp.clone();
        async move |_| erp.send(&mail).await.is_ok_and(|answer| answer.accepted())
    });
    let from_exchange = honest(siege.clone(), "exchange", Arc::clone(&number), {
        let organization = around.contoso.clone();
        async move |id| {
            let mail = Mail::new(
                "ada@contoso.com",
                "bob@contoso.com",
                with_id(&id, "Ada <ada@contoso.com>"),
            );
            let outbound =
                Outbound::stamped(&organization, mail, "0d6f9b1c-0000-4000-8000-000000000001")
                    .unwrap();
            out.send(&outbound)
                .await
                .is_ok_and(|answer| answer.accepted())
        }
    });
    let from_erp = honest(siege.clone(), "erp", Arc::clone(&number), {
        let erp = erp.clone();
        async move |id| {
            erp.send(&own(&id))
                .await
                .is_ok_and(|answer| answer.accepted())
        }
    });
    let from_scanner = honest(siege.clone(), "scanner", Arc::clone(&number), {
        async move |id| {
            let content = own_letter(&id, "scanner@contoso.com");
            let mail = Mail::new("scanner@contoso.com", "bob@contoso.com", content);
            scanner
                .send(&mail)
                .await
                .is_ok_and(|answer| answer.accepted())
        }
    });
    // When each honest message arrived: noted by whoever watches the simulated Exchange.
    let mut watched = around.exchange.watch();
    let arrivals = tokio::spawn(async move {
        let mut seen = std::collections::HashMap::new();
        while let Ok(received) = watched.recv().await {
            assert!(
                received.header("X-Smuggled").is_none(),
                "a smuggled message came through"
            );
            if let Some(id) = received.header("X-Honest") {
                if id == "end" {
                    break;
                }
                seen.entry(id).or_insert_with(Instant::now);
            }
        }
        seen
    });
    let process = server.id();
    let watching = siege.clone();
    let sampler = tokio::spawn(async move {
        let mut most = Figures::default();
        while watching.goes_on() {
            let now = figures(process);
            most.resident = most.resident.max(now.resident);
            most.worked = now.worked;
            most.descriptors = most.descriptors.max(now.descriptors);
            moment(50).await;
        }
        most
    });
    let ending = siege.clone();
    let end = async move {
        // The length of the siege, not a wait for something to happen.
        tokio::time::sleep(SIEGE).await;
        // On a machine that has other things to do it takes longer until there is something to say.
        let patience = Instant::now() + SIEGE * 4;
        while !ending.has_seen(&HONEST) && Instant::now() < patience {
            moment(100).await;
        }
        ending.over.store(true, Ordering::Relaxed);
    };
    let (from_exchange, from_erp, from_scanner, bait, others, ()) =
        tokio::join!(from_exchange, from_erp, from_scanner, bait, others, end);
    let most = sampler.await.unwrap();
    let left = tokio::time::timeout(Duration::from_secs(30), async {
        while let Some(ended) = attackers.join_next().await {
            ended.expect("an attacker found what it looked for");
        }
    });
    left.await.expect("an attacker hangs");
    let shut_out = hammers.end().await;

    // The end: everything that was taken has arrived by the time the last one does.
    let sent: Vec<(String, Instant)> = [from_exchange, from_erp, from_scanner].concat();
    let total = sent.len();
    until("the queue to Exchange is empty", async || {
        let text = scrape(SocketAddr::from(([127, 0, 0, 1], admin))).await;
        let waiting = text.lines().any(|line| {
            line.starts_with("gatepost_queue_messages{")
                && (line.contains("via=\"exchange\"") || line.contains("via=\"relay:plain\""))
                && !line.contains("tenant=\"hostile\"")
                && !line.ends_with(" 0")
        });
        (!waiting).then_some(())
    })
    .await;
    let last = erp.send(&own("end")).await.unwrap();
    assert!(last.accepted(), "{last:?}");
    let seen = tokio::time::timeout(Duration::from_secs(20), arrivals)
        .await
        .unwrap()
        .unwrap();
    let mut latencies: Vec<Duration> = Vec::new();
    for (id, begun) in &sent {
        let arrived = seen
            .get(id)
            .unwrap_or_else(|| panic!("{id} was answered 250 and did not arrive"));
        latencies.push(arrived.duration_since(*begun));
    }
    // What left by DATA ended where it should have, and was given once.
    let carried = plain.waiting();
    let mut through = std::mem::take(&mut *through.lock().unwrap());
    let mut given = Vec::new();
    for one in &carried {
        assert_eq!(one.transfer, Transfer::Data);
        assert!(one.header("X-Smuggled").is_none(), "{:?}", one.dialogue);
        let id = one.header("X-Through").unwrap();
        let sent = hidden(&id, id.parse().unwrap());
        let (_, body) = sent.split_once("\r\n\r\n").unwrap();
        assert!(one.content.ends_with(body.as_bytes()), "{id}");
        given.push(id);
    }
    through.sort();
    given.sort();
    assert_eq!(given, through, "by DATA");
    latencies.sort();
    let (median, worst) = (latencies[total / 2], *latencies.last().unwrap());

    // It is over: connections, descriptors and body files are given back.
    let after = until("descriptors are near where they were", async || {
        let text = scrape(SocketAddr::from(([127, 0, 0, 1], admin))).await;
        let open = text
            .lines()
            .any(|line| line.starts_with("gatepost_connections_open{") && !line.ends_with(" 0"));
        let now = figures(server.id());
        (!open && now.descriptors <= base.descriptors + 16).then_some(now)
    })
    .await;

    // By mail exchangers goes a half of it, to a domain each.
    let domains = others.len() as u64 / 2 + 1;
    let connections = seats + ADMIN_SEATS + NEXT_HOPS + domains + COME_AND_GONE;
    let descriptors = base.descriptors + connections + SLOW_BODIES;
    let cores = std::thread::available_parallelism().map_or(2, usize::from) as u64;
    let memory = connections * OF_A_CONNECTION
        + (SLOW_HEADERS + 1) * OF_A_HEADER
        + cores * OF_A_CHECK
        + OF_ALL;
    let growth = after.peak.saturating_sub(base.resident);
    let mib = |octets: u64| octets / (1024 * 1024);
    println!("siege of {} s:", SIEGE.as_secs());
    for attack in ATTACKS {
        println!(
            "  {attack:?}: {}",
            siege.done[attack as usize].load(Ordering::Relaxed)
        );
    }
    println!(
        "  honest: {total} taken and arrived, {} more for the hostile next hops; median {median:?}, worst {worst:?}",
        bait.len() + others.len()
    );
    println!("  {} left by DATA", carried.len());
    println!("  {shut_out} without the token at the admin API");
    println!(
        "  descriptors: {} before, {} at most, {} afterwards, bound {descriptors}",
        base.descriptors, most.descriptors, after.descriptors
    );
    println!(
        "  resident: {} MiB before, {} MiB at most while it went on (peak {}), {} afterwards, bound of growth {} MiB",
        mib(base.resident),
        mib(most.resident),
        mib(after.peak),
        mib(after.resident),
        mib(memory)
    );
    println!(
        "  processor: {} s by the server, {} s by all who sent and the simulated Exchange",
        (most.worked - base.worked) / 100,
        figures(std::process::id()).worked / 100
    );
    assert!(most.descriptors > FEW, "the soft limit was met");
    assert!(most.descriptors <= descriptors, "{most:?}");
    assert!(growth <= memory, "{after:?}");
    assert!(median < MEDIAN, "{median:?}");
    assert!(worst < WORST, "{worst:?}");
    assert!(shut_out > 0, "the admin API never answered");
    assert!(siege.has_seen(&HONEST), "{:?}", siege.taken.lock().unwrap());
    for attack in ATTACKS {
        let done = siege.done[attack as usize].load(Ordering::Relaxed);
        let possible = with_exchanger || !matches!(attack, Attack::Exchanger);
        assert!(done > 0 || !possible, "{attack:?} never took place");
    }
    assert!(server.terminate().success(), "SIGTERM ends with status 0");
}
