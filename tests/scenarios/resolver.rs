//! A resolver that is away, or says nothing that can be used, while mail goes by mail exchangers and signatures decide: mail
//! by the connector is not slowed, what needs DNS waits in bounds, and all of it goes on by itself afterwards.

use crate::harness::{Changes, LETTER, Surroundings, World, until};
use crate::load::Flow;
use gatepost::dns::Dns;
use gatepost::lab::certificates::Leaf;
use gatepost::lab::{Mail, Outbound, Outside, OutsideOptions};
use hickory_resolver::proto::op::{Message, MessageType, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, MX};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use hickory_resolver::proto::serialize::binary::{BinDecodable as _, BinEncodable as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};
use tokio::net::UdpSocket;

const ANSWERS: u8 = 0;
const SILENT: u8 = 1;
const SERVFAIL: u8 = 2;
const GARBAGE: u8 = 3;

/// The connector's host.
const HOST: &str = "contoso-com.mail.protection.outlook.com";

/// A look-up that nobody answers: two questions of 5 s each (`dns.rs`). Mail by the connector waits 1.8 s of it, once (`dns/known.rs`).
const LOOK_UP: Duration = Duration::from_secs(8);

/// A name server that can be told to be of no use; mail for any domain goes to `partner`. Answers may be kept for a second.
pub async fn name_server(mood: Arc<AtomicU8>, exchange: Ipv4Addr, partner: Ipv4Addr) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut packet = [0; 1024];
        while let Ok((length, peer)) = socket.recv_from(&mut packet).await {
            let mut message = Message::from_bytes(&packet[..length]).unwrap();
            message.metadata.message_type = MessageType::Response;
            message.metadata.recursion_available = true;
            match mood.load(Ordering::SeqCst) {
                SILENT => continue,
                GARBAGE => {
                    // The id of the question, and nothing that follows from it.
                    let mut noise = packet[..length].to_vec();
                    noise[2..].iter_mut().for_each(|octet| *octet ^= 0xa5);
                    let _sent = socket.send_to(&noise, peer).await;
                    continue;
                }
                SERVFAIL => message.metadata.response_code = ResponseCode::ServFail,
                _ => {
                    let query = message.queries[0].clone();
                    let owner = query.name().to_ascii().to_lowercase();
                    let address = match owner.trim_end_matches('.') {
                        HOST => Some(exchange),
                        "mx.partner.example" => Some(partner),
                        _ => None,
                    };
                    let data = match (query.query_type(), address) {
                        (RecordType::A, Some(address)) => Some(RData::A(A(address))),
                        (RecordType::MX, _) => {
                            let host = Name::from_ascii("mx.partner.example.").unwrap();
                            Some(RData::MX(MX::new(10, host)))
                        }
                        _ => None,
                    };
                    if let Some(data) = data {
                        let name = query.name().clone();
                        message.add_answer(Record::from_rdata(name, 1, data));
                    }
                }
            }
            let _sent = socket.send_to(&message.to_bytes().unwrap(), peer).await;
        }
    });
    address
}

/// Memory of this process, octets, and its threads.
fn figures() -> (u64, u64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let of = |name: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let number = line.unwrap().split_whitespace().next().unwrap();
        number.parse().unwrap()
    };
    (of("VmRSS:") * 1024, of("Threads:"))
}

/// Mail that nobody's stamps prove, only a signature could.
fn signed(number: u64) -> Outbound {
    let head = "DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d=contoso.com; s=s1; h=from;\r\n \
        bh=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=; b=AAAA\r\n";
    let letter = String::from_utf8(LETTER.to_vec()).unwrap();
    let org = "X-OriginatorOrg: contoso.com\r\n";
    let content = format!("{head}{org}X-Number: {number}\r\n{letter}");
    Outbound::bare(Mail::new(
        "ada@contoso.com",
        "bob@contoso.com",
        content.into_bytes(),
    ))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resolver_that_is_away_slows_no_mail_by_the_connector_and_is_recovered_from() {
    let around = Surroundings::new().await;
    let IpAddr::V4(exchange) = around.exchange.address().ip() else {
        panic!("the lab is on IPv4");
    };
    let issued = around.authority.issue(&Leaf::named("mx.partner.example"));
    let options = OutsideOptions {
        identity: Some(issued.unwrap()),
        ..OutsideOptions::default()
    };
    let partner = Outside::start(options).await.unwrap();
    let IpAddr::V4(partner_address) = partner.address().ip() else {
        panic!("the lab is on IPv4");
    };
    let mood = Arc::new(AtomicU8::new(ANSWERS));
    let server = name_server(Arc::clone(&mood), exchange, partner_address).await;
    let by_name = format!("host = \"{HOST}\"");
    let mut changes = Changes::replace(
        "[[route]]\nrecipients = \"any\"",
        "[[route]]\nrecipients = [\"*.partner.example\"]\nvia = \"mx\"\n[[route]]\nrecipients = \"any\"",
    );
    changes.replace.push(("host = \"127.0.0.1\"", by_name));
    changes.append = "[delivery.mx]\nretry = [\"1s\"]\nexpire = \"1h\"\n".to_owned();
    let mut settings = around.settings(&changes);
    settings.outside = Some(gatepost::config::Outside {
        resolver: Arc::new(Dns::new(Some(&[server])).unwrap()),
        mx_port: partner.address().port(),
    });
    let host = gatepost::app::Server::start(settings).await.unwrap();
    let world = World { around, host };
    let listeners = ["exchange", "apps", "printers"].map(|name| world.listener(name));
    let flow = Flow::start(&world.around, listeners);
    flow.go_on(40).await;
    let (resident, threads) = figures();
    let mut outside = 0_u64;
    for (round, state) in [SILENT, SERVFAIL, GARBAGE].into_iter().enumerate() {
        mood.store(state, Ordering::SeqCst);
        // What needs DNS meanwhile: mail to many domains, and mail that only a signature could prove.
        let mut connection = world.exchange_out().connect().await.unwrap();
        for number in 0..40 {
            let recipient = format!("r@d{number}.r{round}.partner.example");
            let mail = Mail::new("ada@contoso.com", &recipient, LETTER);
            let outbound = world.outbound(&world.around.contoso, mail);
            let answer = connection.send(&outbound).await.unwrap();
            assert!(answer.accepted(), "{answer:?}");
            outside += 1;
        }
        connection.quit().await;
        let out = world.exchange_out();
        let begun = Instant::now();
        let mut judged = tokio::task::JoinSet::new();
        // Noise is silence once more: nothing in it answers the question.
        let signed_mail = if state == GARBAGE { 0 } else { 20 };
        for number in 0..signed_mail {
            let out = out.clone();
            judged.spawn(async move { out.send(&signed(number)).await.unwrap() });
        }
        flow.go_on(40).await;
        while let Some(answer) = judged.join_next().await {
            let answer = answer.unwrap();
            let reply = answer.deciding();
            assert_eq!(reply.code, 451, "{reply}");
            assert!(reply.to_string().contains("4.7.5"), "{reply}");
        }
        assert!(begun.elapsed() < Duration::from_secs(40), "in bounds");
        flow.go_on(20).await;
        let (now, busy) = figures();
        assert!(now < resident + 300 * 1024 * 1024, "{resident} -> {now}");
        assert!(busy < threads + 64, "{threads} -> {busy} threads");
    }
    mood.store(ANSWERS, Ordering::SeqCst);
    // Domains that could not be found wait for their time, and need no restart.
    let mut arrived = 0;
    until("mail to the outside", async || {
        arrived = partner.waiting().len() as u64;
        (arrived == outside).then_some(())
    })
    .await;
    flow.go_on(40).await;
    let flowed = flow.end().await;
    flowed.undisturbed();
    assert!(flowed.worst < LOOK_UP, "{:?}", flowed.worst);
    world.host.stop().await;
}
