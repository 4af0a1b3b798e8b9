//! All attacks at once, on a server of its own process, while honest mail keeps flowing: what it has of memory and file
//! descriptors, and how long mail takes. The attacks one by one, with the bound of each: docs/hostile-peers.md.

use crate::harness::{
    Changes, LETTER, PASSWORD, Process, Surroundings, World, free_port, scrape, until,
    write_identity,
};
use crate::resolver::name_server;
use gatepost::lab::certificates::{Issued, Leaf};
use gatepost::lab::{
    ApplicationClient, Client, ClientError, Dialect, ExchangeOut, Mail, Outbound, Outside,
    OutsideOptions, Security, Transfer,
};
use gatepost::smtp::reply::Reply;
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// What each honest sender gets through at the least.
const HONEST: [(&str, usize); 3] = [("exchange", 20), ("erp", 5), ("scanner", 20)];
/// How long it lasts.
const SIEGE: Duration = Duration::from_secs(20);
/// `max_connections` of each of the four listeners.
const SEATS: u64 = 200;
/// Connections to two relays and two tenants' hosts; to mail exchangers comes one for each domain, of which none ever answers well.
const NEXT_HOPS: u64 = 4 * 10;
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
}

const ATTACKS: [Attack; 19] = [
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
];

async fn dial(to: SocketAddr, from: &str) -> Option<TcpStream> {
    let socket = TcpSocket::new_v4().ok()?;
    socket.bind(SocketAddr::new(ip(from), 0)).ok()?;
    socket.connect(to).await.ok()
}

/// A moment, as a peer's slowness; nothing is waited for.
async fn moment(millis: u64) {
    tokio::time::sleep(Duration::from_millis(millis)).await;
}

/// Opens connections and keeps them, saying an octet now and then.
async fn drip(siege: Siege, attack: Attack, to: SocketAddr, from: String, pause: u64) {
    while siege.goes_on() {
        let Some(mut stream) = dial(to, &from).await else {
            moment(100).await;
            continue;
        };
        siege.count(attack);
        while siege.goes_on() && stream.write_all(b"x").await.is_ok() {
            moment(pause).await;
        }
        moment(100).await;
    }
}

/// Comes and goes.
async fn churn(siege: Siege, to: SocketAddr, number: u64) {
    let mut turn = 0;
    while siege.goes_on() {
        turn += 1;
        let from = format!(
            "127.{}.{}.{}",
            70 + number,
            turn / 250 % 250,
            1 + turn % 250
        );
        if let Some(stream) = dial(to, &from).await {
            siege.count(Attack::Churn);
            drop(stream);
        }
        moment(10).await;
    }
}

/// Asks much and reads nothing.
async fn read_nothing(siege: Siege, to: SocketAddr, from: String) {
    while siege.goes_on() {
        let Some(mut stream) = dial(to, &from).await else {
            moment(100).await;
            continue;
        };
        siege.count(Attack::SlowReader);
        let flood = b"EHLO x\r\n".repeat(1000);
        while siege.goes_on() {
            let written =
                tokio::time::timeout(Duration::from_millis(500), stream.write_all(&flood));
            if matches!(written.await, Ok(Err(_))) {
                break;
            }
        }
    }
}

/// No SMTP at all.
async fn garbage(siege: Siege, to: SocketAddr, from: String) {
    let floods: [Vec<u8>; 4] = [
        vec![b'x'; 100_000],
        b"\0\r\n\xff\xfe\n\r\r\n".repeat(1000),
        b"BDAT 18446744073709551615\r\n".repeat(10),
        [
            &b"EHLO x\r\nSTARTTLS\r\nMAIL FROM:<ceo@contoso.com>\r\n"[..],
            &vec![0x16; 5000],
        ]
        .concat(),
    ];
    let mut turn = 0;
    while siege.goes_on() {
        turn += 1;
        let Some(mut stream) = dial(to, &from).await else {
            moment(100).await;
            continue;
        };
        siege.count(Attack::Garbage);
        let said = stream.write_all(&floods[turn % floods.len()]).await;
        let mut answer = [0; 512];
        if said.is_ok() {
            let _heard =
                tokio::time::timeout(Duration::from_millis(300), stream.read(&mut answer)).await;
        }
        moment(50).await;
    }
}

/// Begins TLS and goes no further.
async fn half_handshake(siege: Siege, to: SocketAddr, from: String) {
    while siege.goes_on() {
        let Some(mut stream) = dial(to, &from).await else {
            moment(100).await;
            continue;
        };
        let said = stream.write_all(b"EHLO x\r\nSTARTTLS\r\n").await;
        moment(300).await;
        if said.is_err()
            || stream
                .write_all(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc")
                .await
                .is_err()
        {
            continue;
        }
        siege.count(Attack::HalfHandshake);
        while siege.goes_on() && stream.write_all(b"\x03").await.is_ok() {
            moment(500).await;
        }
    }
}

/// Guesses passwords of the one account there is.
async fn guess(siege: Siege, client: ApplicationClient) {
    while siege.goes_on() {
        if let Ok(mut connection) = client.connect().await {
            while siege.goes_on() {
                match client.log_in(&mut connection).await {
                    Ok(_) => siege.count(Attack::Guess),
                    Err(_) => break,
                }
            }
        }
        moment(100).await;
    }
}

const STAMPS: &str = "From: ada@contoso.com\r\nX-OriginatorOrg: contoso.com\r\n\
    X-MS-Exchange-CrossTenant-Id: 11111111-2222-3333-4444-555555555555\r\n";

/// A peer that passes every gate, and then takes its time over almost a MiB of content.
async fn slow_content(siege: Siege, out: ExchangeOut, header: bool) {
    let attack = if header {
        Attack::SlowHeader
    } else {
        Attack::SlowBody
    };
    while siege.goes_on() {
        let Ok(connection) = out.connect().await else {
            moment(100).await;
            continue;
        };
        let mut client = connection.into_client();
        let open = async {
            client.command("MAIL FROM:<ada@contoso.com>").await.ok()?;
            client.command("RCPT TO:<bob@contoso.com>").await.ok()?;
            client.command("DATA").await.ok()
        };
        if open.await.is_none() {
            continue;
        }
        let mut content = STAMPS.as_bytes().to_vec();
        if header {
            content.extend(
                format!("X-Long: {}\r\n", "y".repeat(900))
                    .repeat(250)
                    .bytes(),
            );
        } else {
            content.extend_from_slice(b"\r\n");
            content.resize(1_000_000, b'x');
        }
        if client.raw(&content).await.is_err() {
            continue;
        }
        siege.count(attack);
        while siege.goes_on() && client.raw(b"x").await.is_ok() {
            moment(500).await;
        }
    }
}

/// Thousands of recipients, and refused ones without end.
async fn recipients(siege: Siege, out: ExchangeOut) {
    let mut flood = String::from("MAIL FROM:<ada@contoso.com>\r\n");
    for number in 0..1500 {
        flood.push_str(&format!("RCPT TO:<r{number}@contoso.com>\r\n"));
    }
    flood.push_str("RSET\r\n");
    while siege.goes_on() {
        let Ok(connection) = out.connect().await else {
            moment(100).await;
            continue;
        };
        let mut client = connection.into_client();
        while siege.goes_on() && client.say(&flood).await.is_ok() {
            siege.count(Attack::Recipients);
            for _ in 0..1502 {
                if client.reply().await.is_err() {
                    break;
                }
            }
        }
    }
}

/// A second message behind false ends of the first, one after the other.
async fn smuggle(siege: Siege, out: ExchangeOut) {
    let ends = [
        "\n.\n",
        "\r\n.\n",
        "\n.\r\n",
        "\r.\r",
        "\r\n.\r",
        "\r\n\0.\r\n\n.\n",
    ];
    let mut turn = 0;
    while siege.goes_on() {
        let Ok(connection) = out.connect().await else {
            moment(100).await;
            continue;
        };
        let mut client = connection.into_client();
        for end in ends {
            turn += 1;
            let content = format!(
                "{STAMPS}\r\nbait{end}MAIL FROM:<ada@contoso.com>\r\nRCPT TO:<bob@contoso.com>\r\nDATA\r\n\
                 {STAMPS}X-Smuggled: {turn}\r\n\r\nsmuggled\r\n.\r\n"
            );
            let open = "MAIL FROM:<ada@contoso.com>\r\nRCPT TO:<bob@contoso.com>\r\nDATA\r\n";
            if client.say(open).await.is_err() {
                break;
            }
            let mut last = None;
            for _ in 0..3 {
                last = client.reply().await.ok();
            }
            if last.is_none_or(|reply| reply.code != 354)
                || client.raw(content.as_bytes()).await.is_err()
            {
                break;
            }
            let Ok(reply) = client.reply().await else {
                break;
            };
            assert_eq!(reply.code, 554, "{end:?}: {reply}");
            siege.count(Attack::Smuggling);
        }
    }
}

/// The open transaction of a peer that passes every gate, up to its content.
async fn opened(client: &mut Client, recipient: &str) -> Option<()> {
    let open = format!("MAIL FROM:<ada@contoso.com>\r\nRCPT TO:<{recipient}>\r\n");
    client.say(&open).await.ok()?;
    for _ in 0..2 {
        let reply = client.reply().await.ok()?;
        (reply.code == 250).then_some(())?;
    }
    Some(())
}

/// A header section of more than 256 KiB, by DATA and in one chunk.
async fn long_header(siege: Siege, out: ExchangeOut) {
    let content = format!(
        "{STAMPS}{}\r\nbody\r\n",
        format!("X-Long: {}\r\n", "y".repeat(900)).repeat(330)
    );
    let chunk = format!("BDAT {} LAST\r\n{content}", content.len());
    let mut turn = 0;
    while siege.goes_on() {
        let Ok(connection) = out.connect().await else {
            moment(100).await;
            continue;
        };
        let mut client = connection.into_client();
        while opened(&mut client, "bob@contoso.com").await.is_some() {
            turn += 1;
            let said = if turn % 2 == 0 {
                let started = client.command("DATA").await;
                if !started.is_ok_and(|reply| reply.code == 354) {
                    break;
                }
                client.raw(format!("{content}.\r\n").as_bytes()).await
            } else {
                client.raw(chunk.as_bytes()).await
            };
            let Some(reply) = reply_to(said, &mut client).await else {
                break;
            };
            assert_eq!(reply.code, 552, "{reply}");
            siege.count(Attack::LongHeader);
            moment(100).await;
            if !siege.goes_on() {
                break;
            }
        }
    }
}

async fn reply_to(said: Result<(), ClientError>, client: &mut Client) -> Option<Reply> {
    said.ok()?;
    client.reply().await.ok()
}

/// Chunks within a transaction: larger than anything, shorter than their content, and longer.
async fn chunks(siege: Siege, out: ExchangeOut) {
    let injected = "MAIL FROM:<ceo@contoso.com>\r\n";
    let mut turn = 0;
    while siege.goes_on() {
        turn += 1;
        moment(50).await;
        let Ok(connection) = out.connect().await else {
            continue;
        };
        let mut client = connection.into_client();
        if opened(&mut client, "bob@contoso.com").await.is_none() {
            continue;
        }
        match turn % 3 {
            // Nobody takes so much; what is sent of it before the end is read, and no more is kept than of any message.
            0 => {
                let chunk = format!("BDAT 18446744073709551615\r\n{STAMPS}\r\n");
                let mut said = client.raw(chunk.as_bytes()).await;
                for _ in 0..8 {
                    if said.is_ok() {
                        said = client.raw(&[b'x'; 100_000]).await;
                    }
                }
                siege.count(Attack::Chunks);
            }
            // What stands behind it is a command, and this one has its place after the first chunk of content.
            1 => {
                let chunk = format!("BDAT {}\r\n{STAMPS}{injected}", STAMPS.len());
                let said = client.raw(chunk.as_bytes()).await;
                let Some(reply) = reply_to(said, &mut client).await else {
                    continue;
                };
                assert_eq!(reply.code, 250, "{reply}");
                if let Ok(reply) = client.reply().await {
                    assert_eq!(reply.code, 503, "{reply}");
                    siege.count(Attack::Chunks);
                }
            }
            // What should have been a command is content: of the chunk, that waits for the rest, nothing is answered.
            _ => {
                let length = STAMPS.len() + 2 + injected.len() + 1;
                let chunk = format!("BDAT {length} LAST\r\n{STAMPS}\r\n{injected}");
                if client.raw(chunk.as_bytes()).await.is_ok() {
                    let heard = tokio::time::timeout(Duration::from_millis(300), client.reply());
                    let heard = heard.await;
                    let told = matches!(&heard, Ok(Ok(reply)) if reply.code != 421);
                    assert!(!told, "{heard:?}");
                    siege.count(Attack::Chunks);
                }
            }
        }
    }
}

/// A balancer that has all the time in the world for its header.
async fn proxy(siege: Siege, to: SocketAddr, from: String) {
    let first: &[u8] = b"PROXY TCP4 127.0.61.1 127.0.0.1 1 25\r\n";
    let second: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff";
    let mut turn = 0;
    while siege.goes_on() {
        turn += 1;
        let Some(mut stream) = dial(to, &from).await else {
            moment(100).await;
            continue;
        };
        siege.count(Attack::Proxy);
        // Version 1 stops before its end; version 2 says that 64 KiB more will come.
        let header = if turn % 2 == 0 {
            &first[..first.len() - 2]
        } else {
            second
        };
        for octet in header.iter().chain(std::iter::repeat(&b' ')) {
            if !siege.goes_on() || stream.write_all(&[*octet]).await.is_err() {
                break;
            }
            moment(100).await;
        }
    }
}

/// Commands behind STARTTLS, in the same write: obeyed before the handshake or behind it, they would be answered.
async fn inject(siege: Siege, out: ExchangeOut) {
    while siege.goes_on() {
        moment(50).await;
        let Ok(mut client) = out.clear().await else {
            continue;
        };
        if client.ehlo("peer.example").await.is_err() {
            continue;
        }
        let said = client
            .raw(b"STARTTLS\r\nEHLO peer.example\r\nMAIL FROM:<ceo@contoso.com>\r\n")
            .await;
        let begun = reply_to(said, &mut client).await;
        if begun.is_none_or(|reply| reply.code != 220) {
            continue;
        }
        // An answer in clear text, or octets that were read too late to be dropped, are no handshake.
        let Ok(mut client) = out.encrypt(client).await else {
            continue;
        };
        if let Ok(reply) = client.command("RCPT TO:<bob@contoso.com>").await {
            assert_eq!(
                reply.code, 503,
                "no MAIL was taken, and nothing was answered: {reply}"
            );
            siege.count(Attack::Injection);
        }
    }
}

/// False ends in chunks, where they are content, for a next hop that takes DATA alone: the ids of those that it must be given, once.
async fn by_data(siege: Siege, out: ExchangeOut, taken: Arc<Mutex<Vec<String>>>) {
    let mut turn = 0;
    while siege.goes_on() {
        moment(50).await;
        let Ok(connection) = out.connect().await else {
            continue;
        };
        let mut client = connection.into_client();
        while siege.goes_on() && opened(&mut client, "x@plain.example").await.is_some() {
            turn += 1;
            // What cannot leave by DATA, a bare newline, is failed by the smart host.
            let fits = turn % 2 == 0;
            let id = format!("{turn}");
            let content = hidden(&id, if fits { "\r\n.\r\n" } else { "\n.\r\n" });
            let chunk = format!("BDAT {} LAST\r\n{content}", content.len());
            let said = client.raw(chunk.as_bytes()).await;
            let Some(reply) = reply_to(said, &mut client).await else {
                break;
            };
            assert_eq!(reply.code, 250, "{reply}");
            siege.count(Attack::ByData);
            if fits {
                taken.lock().unwrap().push(id);
            }
            moment(100).await;
        }
    }
}

/// A second message behind a false end.
fn hidden(id: &str, end: &str) -> String {
    format!(
        "X-Through: {id}\r\n{STAMPS}\r\n..bait{end}MAIL FROM:<ceo@contoso.com>\r\nRCPT TO:<x@plain.example>\r\nDATA\r\n\
         {STAMPS}X-Smuggled: {id}\r\n\r\nsmuggled\r\n"
    )
}

/// A next hop that lies, stalls and talks nonsense, each connection in another way.
async fn hostile_next_hop(siege: Siege, attack: Attack, socket: TcpListener) {
    let mut guests = JoinSet::new();
    let mut turn = 0;
    while siege.goes_on() {
        let accepted = tokio::time::timeout(Duration::from_millis(100), socket.accept()).await;
        let Ok(Ok((mut stream, _))) = accepted else {
            continue;
        };
        turn += 1;
        siege.count(attack);
        let siege = siege.clone();
        guests.spawn(async move {
            let hello = b"220 x\r\n250-x\r\n250 PIPELINING\r\n";
            let endless = b"220-more\r\n".repeat(5000);
            let said = match turn % 8 {
                0 => Vec::new(),
                1 => endless,
                2 => vec![b'2'; 100_000],
                3 => b"\0\0\0\r\n\xff".repeat(1000),
                4 => [&hello[..], b"250 ok\r\n250 ok\r\n354 go\r\n250 ok\r\n"].concat(),
                5 => [&hello[..], b"250 ok\r\n250 ok\r\n"].concat(),
                6 => [&hello[..], b"421 4.7.0 later\r\n"].concat(),
                _ => b"220 x\r\n250-x\r\n250 STARTTLS\r\n220 go\r\n250 injected\r\n".to_vec(),
            };
            let _said = stream.write_all(&said).await;
            // Half of them take what they are told, by drops; the others nothing. None ends it.
            let mut drop_of_it = [0; 1];
            while siege.goes_on() {
                if turn % 2 == 0 {
                    moment(200).await;
                } else if !matches!(stream.read(&mut drop_of_it).await, Ok(1..)) {
                    return;
                }
                moment(20).await;
            }
        });
    }
    guests.abort_all();
}

/// A tenant's host that has a good certificate and no good intention, each connection in another way.
async fn hostile_exchange(siege: Siege, socket: TcpListener, identity: Issued) {
    let tls = TlsAcceptor::from(server_tls(&identity));
    let mut guests = JoinSet::new();
    let mut turn = 0;
    while siege.goes_on() {
        let accepted = tokio::time::timeout(Duration::from_millis(100), socket.accept()).await;
        let Ok(Ok((stream, _))) = accepted else {
            continue;
        };
        turn += 1;
        siege.count(Attack::Exchange);
        let (siege, tls) = (siege.clone(), tls.clone());
        guests.spawn(async move {
            // An error is the other side's: it has had enough.
            let _ended = misbehave(&siege, turn, stream, tls).await;
        });
    }
    guests.abort_all();
}

async fn misbehave(
    siege: &Siege,
    turn: u64,
    mut stream: TcpStream,
    tls: TlsAcceptor,
) -> std::io::Result<()> {
    stream.write_all(b"220 x\r\n").await?;
    line(&mut stream).await?;
    stream.write_all(b"250-x\r\n250 STARTTLS\r\n").await?;
    line(&mut stream).await?;
    stream.write_all(b"220 go\r\n").await?;
    if turn.is_multiple_of(8) {
        // Garbage in the place of a handshake.
        stream.write_all(&[0x16; 5000]).await?;
        return Ok(());
    }
    let mut stream = tls.accept(stream).await?;
    if turn % 8 == 1 {
        return Ok(());
    }
    line(&mut stream).await?;
    let hello = b"250-x\r\n250-PIPELINING\r\n250-CHUNKING\r\n250 8BITMIME\r\n";
    stream.write_all(hello).await?;
    line(&mut stream).await?;
    let envelope = b"250 ok\r\n250 ok\r\n";
    match turn % 8 {
        // Octet by octet, and never the end of a line.
        2 => {
            while siege.goes_on() {
                stream.write_all(b"2").await?;
                stream.flush().await?;
                moment(200).await;
            }
        }
        // Without end.
        3 => {
            while siege.goes_on() {
                stream.write_all(&b"250-more\r\n".repeat(500)).await?;
            }
        }
        // Takes the envelope, an octet of the content, and goes.
        4 => {
            stream.write_all(envelope).await?;
            line(&mut stream).await?;
            let mut octet = [0; 1];
            stream.read_exact(&mut octet).await?;
        }
        // Takes all of it and says nothing.
        5 => {
            stream.write_all(envelope).await?;
            let mut all = [0; 4096];
            while siege.goes_on() && stream.read(&mut all).await? > 0 {}
        }
        // Says that it has taken what was not sent yet, twice.
        6 => {
            stream.write_all(envelope).await?;
            stream.write_all(b"250 ok\r\n250 ok\r\n").await?;
            moment(1_000).await;
        }
        // Garbage, NULs, replies in two minds.
        _ => {
            stream
                .write_all(b"250-a\r\n550 b\r\n\0\xff\xfe\r\n999 \r\n")
                .await?;
            moment(1_000).await;
        }
    }
    Ok(())
}

/// Reads up to the end of a line.
async fn line(stream: &mut (impl AsyncRead + Unpin)) -> std::io::Result<()> {
    while stream.read_u8().await? != b'\n' {}
    Ok(())
}

fn server_tls(identity: &Issued) -> Arc<ServerConfig> {
    let chain = CertificateDer::pem_slice_iter(identity.chain_pem().as_bytes());
    let key = PrivateKeyDer::from_pem_slice(identity.key_pem().as_bytes()).unwrap();
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain.map(Result::unwrap).collect(), key);
    Arc::new(config.unwrap())
}

/// A name server for whom every domain's mail is taken at one address, where port 25 is for everybody to bind; else none.
async fn exchanger() -> Option<(SocketAddr, TcpListener)> {
    let address = Ipv4Addr::new(127, 0, 99, 1);
    let socket = TcpListener::bind((address, 25)).await.ok()?;
    let server = name_server(Arc::default(), address, address).await;
    Some((server, socket))
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
    // Each has one connection at a time, as have the honest.
    let seats = attackers.len() as u64 + 5;
    attackers.spawn(hostile_next_hop(siege.clone(), Attack::NextHop, next_hop));
    attackers.spawn(hostile_exchange(
        siege.clone(),
        exchange_hop,
        around.exchange_identity.clone(),
    ));
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
            most.peak = now.peak;
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
        let sent = hidden(&id, "\r\n.\r\n");
        let (_, body) = sent.split_once("\r\n\r\n").unwrap();
        assert!(one.content.ends_with(body.as_bytes()), "{id}");
        given.push(id);
    }
    through.sort();
    given.sort();
    assert_eq!(given, through, "by DATA");
    latencies.sort();
    let (median, worst) = (latencies[total / 2], *latencies.last().unwrap());

    // By mail exchangers goes a half of it, to a domain each.
    let domains = others.len() as u64 / 2 + 1;
    let connections = seats + NEXT_HOPS + domains + COME_AND_GONE;
    let descriptors = base.descriptors + connections + SLOW_BODIES;
    let cores = std::thread::available_parallelism().map_or(2, usize::from) as u64;
    let memory = connections * OF_A_CONNECTION
        + (SLOW_HEADERS + 1) * OF_A_HEADER
        + cores * OF_A_CHECK
        + OF_ALL;
    let growth = most.peak.saturating_sub(base.resident);
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
    println!(
        "  descriptors: {} before, {} at most, bound {descriptors}",
        base.descriptors, most.descriptors
    );
    println!(
        "  resident: {} MiB before, {} MiB at most (peak {}), bound of growth {} MiB",
        mib(base.resident),
        mib(most.resident),
        mib(most.peak),
        mib(memory)
    );
    println!(
        "  processor: {} s by the server, {} s by all who sent and the simulated Exchange",
        (most.worked - base.worked) / 100,
        figures(std::process::id()).worked / 100
    );
    assert!(most.descriptors > FEW, "the soft limit was met");
    assert!(most.descriptors <= descriptors, "{most:?}");
    assert!(growth <= memory, "{most:?}");
    assert!(median < MEDIAN, "{median:?}");
    assert!(worst < WORST, "{worst:?}");
    assert!(siege.has_seen(&HONEST), "{:?}", siege.taken.lock().unwrap());
    for attack in ATTACKS {
        let done = siege.done[attack as usize].load(Ordering::Relaxed);
        let possible = with_exchanger || !matches!(attack, Attack::Exchanger);
        assert!(done > 0 || !possible, "{attack:?} never took place");
    }
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
    println!(
        "  after: {} descriptors, {} MiB resident",
        after.descriptors,
        mib(after.resident)
    );
    assert!(server.terminate().success(), "SIGTERM ends with status 0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_address_does_not_fill_a_submission_listener() {
    let changes = Changes::replace("name = \"apps\"", "name = \"apps\"\nmax_connections = 52");
    let world = World::with(changes).await;
    let greeted = async |from: &str| {
        let mut client = Client::connect(world.listener("apps"), Some(ip(from)))
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
            own_letter("1", "erp@contoso.com"),
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
        let from = Some(ip("127.0.66.1"));
        let mut client = Client::connect(world.listener("apps"), from).await.unwrap();
        assert_eq!(client.reply().await.unwrap().code, expected);
        clients.push(client);
    }
    drop(clients);
    world.host.stop().await;
}
