//! What clients do in the siege. Each goes on until it is over, and counts what it got done.

use super::{Attack, Siege, ip, moment};
use crate::false_ends::{FALSE_ENDS, has_bare_newline};
use gatepost::lab::{ApplicationClient, Client, ClientError, ExchangeOut};
use gatepost::smtp::reply::Reply;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

/// Those that are refused wherever they stand.
fn bare_ends() -> Vec<&'static str> {
    let ends = FALSE_ENDS.iter().copied();
    ends.filter(|end| has_bare_newline(end)).collect()
}

/// Those of content in a chunk: what leaves by DATA, with its dots stuffed, and what does not fit there.
fn ends_in_chunks() -> (Vec<&'static str>, Vec<&'static str>) {
    let ends = FALSE_ENDS.iter().copied().chain(["\r\n.\r\n"]);
    let seven_bit = ends.filter(|end| end.is_ascii());
    seven_bit.partition(|end| !has_bare_newline(end) && !end.contains('\0'))
}

impl Siege {
    /// A connection, tried for again and again until the siege is over.
    async fn dialed(&self, to: SocketAddr, from: &str) -> Option<TcpStream> {
        while self.goes_on() {
            if let Some(stream) = dial(to, from).await {
                return Some(stream);
            }
            moment(100).await;
        }
        None
    }

    /// The same, of a peer that passes every gate.
    async fn entered(&self, out: &ExchangeOut) -> Option<Client> {
        while self.goes_on() {
            if let Ok(connection) = out.connect().await {
                return Some(connection.into_client());
            }
            moment(100).await;
        }
        None
    }
}

async fn dial(to: SocketAddr, from: &str) -> Option<TcpStream> {
    let socket = TcpSocket::new_v4().ok()?;
    socket.bind(SocketAddr::new(ip(from), 0)).ok()?;
    socket.connect(to).await.ok()
}

/// Opens connections and keeps them, saying an octet now and then.
pub async fn drip(siege: Siege, attack: Attack, to: SocketAddr, from: String, pause: u64) {
    while let Some(mut stream) = siege.dialed(to, &from).await {
        siege.count(attack);
        while siege.goes_on() && stream.write_all(b"x").await.is_ok() {
            moment(pause).await;
        }
        moment(100).await;
    }
}

/// Comes and goes.
pub async fn churn(siege: Siege, to: SocketAddr, number: u64) {
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
pub async fn read_nothing(siege: Siege, to: SocketAddr, from: String) {
    while let Some(mut stream) = siege.dialed(to, &from).await {
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
pub async fn garbage(siege: Siege, to: SocketAddr, from: String) {
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
    while let Some(mut stream) = siege.dialed(to, &from).await {
        turn += 1;
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
pub async fn half_handshake(siege: Siege, to: SocketAddr, from: String) {
    while let Some(mut stream) = siege.dialed(to, &from).await {
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
pub async fn guess(siege: Siege, client: ApplicationClient) {
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
pub async fn slow_content(siege: Siege, out: ExchangeOut, header: bool) {
    let attack = if header {
        Attack::SlowHeader
    } else {
        Attack::SlowBody
    };
    while let Some(mut client) = siege.entered(&out).await {
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
pub async fn recipients(siege: Siege, out: ExchangeOut) {
    let mut flood = String::from("MAIL FROM:<ada@contoso.com>\r\n");
    for number in 0..1500 {
        flood.push_str(&format!("RCPT TO:<r{number}@contoso.com>\r\n"));
    }
    flood.push_str("RSET\r\n");
    while let Some(mut client) = siege.entered(&out).await {
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

/// A second message behind false ends of the first, one after the other: in its body, and in its header section by both transfers.
pub async fn smuggle(siege: Siege, out: ExchangeOut) {
    let (ends, mut turn) = (bare_ends(), 0);
    while let Some(mut client) = siege.entered(&out).await {
        // Errors end a session; the next one goes on where it was.
        while siege.goes_on() && opened(&mut client, "bob@contoso.com").await.is_some() {
            turn += 1;
            let end = ends[turn / 3 % ends.len()];
            let behind = format!(
                "bait{end}MAIL FROM:<ada@contoso.com>\r\nRCPT TO:<bob@contoso.com>\r\nDATA\r\n\
                 {STAMPS}X-Smuggled: {turn}\r\n\r\nsmuggled\r\n"
            );
            let content = if turn % 3 == 0 {
                format!("{STAMPS}\r\n{behind}")
            } else {
                format!("{STAMPS}X-Bait: {behind}")
            };
            let wire = if turn % 3 == 1 {
                format!("BDAT {} LAST\r\n{content}", content.len())
            } else {
                let started = client.command("DATA").await;
                if !started.is_ok_and(|reply| reply.code == 354) {
                    break;
                }
                format!("{content}.\r\n")
            };
            let said = client.raw(wire.as_bytes()).await;
            let Some(reply) = reply_to(said, &mut client).await else {
                break;
            };
            assert_eq!(reply.code, 554, "{end:?}: {reply}");
            siege.count(Attack::Smuggling);
        }
    }
}

/// Mail of one who may send none, from an address that was never seen before.
pub async fn be_refused(siege: Siege, to: SocketAddr, number: usize) {
    let mut wire = b"EHLO stranger\r\n".to_vec();
    wire.extend(b"MAIL FROM:<eve@elsewhere.example>\r\n".repeat(15));
    let mut turn = 0;
    while siege.goes_on() {
        turn += 1;
        moment(20).await;
        let from = format!(
            "127.{}.{}.{}",
            80 + number,
            turn / 250 % 250,
            1 + turn % 250
        );
        let Ok(mut client) = Client::connect(to, Some(ip(&from))).await else {
            continue;
        };
        if client.raw(&wire).await.is_err() {
            continue;
        }
        let mut told = 0;
        while told < 15 {
            let Ok(reply) = client.reply().await else {
                break;
            };
            assert!(matches!(reply.code, 220 | 250 | 421 | 530), "{reply}");
            if reply.code == 530 {
                told += 1;
                siege.count(Attack::Refused);
            }
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
pub async fn long_header(siege: Siege, out: ExchangeOut) {
    let content = format!(
        "{STAMPS}{}\r\nbody\r\n",
        format!("X-Long: {}\r\n", "y".repeat(900)).repeat(330)
    );
    let chunk = format!("BDAT {} LAST\r\n{content}", content.len());
    let mut turn = 0;
    while let Some(mut client) = siege.entered(&out).await {
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
pub async fn chunks(siege: Siege, out: ExchangeOut) {
    let injected = "MAIL FROM:<ceo@contoso.com>\r\n";
    let mut turn = 0;
    while let Some(mut client) = siege.entered(&out).await {
        turn += 1;
        moment(50).await;
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
pub async fn proxy(siege: Siege, to: SocketAddr, from: String) {
    let first: &[u8] = b"PROXY TCP4 127.0.61.1 127.0.0.1 1 25\r\n";
    let second: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff";
    let mut turn = 0;
    while let Some(mut stream) = siege.dialed(to, &from).await {
        turn += 1;
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
pub async fn inject(siege: Siege, out: ExchangeOut) {
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
pub async fn by_data(siege: Siege, out: ExchangeOut, taken: Arc<Mutex<Vec<String>>>) {
    let mut turn = 0;
    while let Some(mut client) = siege.entered(&out).await {
        moment(50).await;
        while siege.goes_on() && opened(&mut client, "x@plain.example").await.is_some() {
            turn += 1;
            // What cannot leave by DATA, a bare newline or NUL, is failed by the smart host.
            let fits = turn % 2 == 0;
            let id = format!("{turn}");
            let content = hidden(&id, turn);
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

/// The content of the `turn`-th: a second message behind a false end, which fits through DATA in each second turn.
pub fn hidden(id: &str, turn: usize) -> String {
    let (fit, misfit) = ends_in_chunks();
    let ends = if turn.is_multiple_of(2) { fit } else { misfit };
    let end = ends[turn / 2 % ends.len()];
    format!(
        "X-Through: {id}\r\n{STAMPS}\r\n..bait{end}MAIL FROM:<ceo@contoso.com>\r\nRCPT TO:<x@plain.example>\r\nDATA\r\n\
         {STAMPS}X-Smuggled: {id}\r\n\r\nsmuggled\r\n"
    )
}
