//! Which tenant does mail prove to be of? Each rule of the gate once through the whole server.

use crate::gates::expect;
use crate::harness::{CONTOSO, Changes, FABRIKAM, Surroundings, World, last_word};
use gatepost::lab::{Mail, Outbound, Transaction, Transfer};
use gatepost::message_trace::Event;
use gatepost::trust::{Evidence, EvidenceKind, EvidenceState};
use hickory_resolver::proto::op::{Message, MessageType, ResponseCode};
use hickory_resolver::proto::rr::rdata::TXT;
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use hickory_resolver::proto::serialize::binary::{BinDecodable as _, BinEncodable as _};
use mail_auth::common::crypto::{RsaKey, Sha256};
use mail_auth::common::headers::HeaderWriter as _;
use mail_auth::dkim::DkimSigner;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;
use std::net::SocketAddr;

const KEY: &str = include_str!("../data/dkim-test.key");
const RECORD: &str = include_str!("../data/dkim-test.txt");
/// What most refusals of trust are answered with.
pub const REFUSED: (u16, (u8, u16, u16)) = (550, (5, 7, 1));

/// A name server: the test key lies at `s1._domainkey` of these domains, for `broken` nobody can say, and nothing else exists.
async fn name_server(domains: &'static [&'static str]) -> SocketAddr {
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut packet = [0u8; 1024];
        while let Ok((length, peer)) = socket.recv_from(&mut packet).await {
            let mut message = Message::from_bytes(&packet[..length]).unwrap();
            let query = message.queries[0].clone();
            let asked = query.name().to_ascii().to_lowercase();
            let asked = asked.trim_end_matches('.');
            let domain = asked.strip_prefix("s1._domainkey.");
            message.metadata.message_type = MessageType::Response;
            message.metadata.recursion_available = true;
            if asked.starts_with("broken.") {
                message.metadata.response_code = ResponseCode::ServFail;
            } else if query.query_type() == RecordType::TXT
                && domain.is_some_and(|domain| domains.contains(&domain))
            {
                let (one, two) = RECORD.split_at(200);
                let text = TXT::new(vec![one.to_owned(), two.to_owned()]);
                let owner = Name::from_ascii(format!("{asked}.")).unwrap();
                message.add_answer(Record::from_rdata(owner, 60, RData::TXT(text)));
            } else {
                message.metadata.response_code = ResponseCode::NXDomain;
            }
            let answer = message.to_bytes().unwrap();
            socket.send_to(&answer, peer).await.unwrap();
        }
    });
    address
}

/// The usual world, with `proofs` for contoso, further keys of its table, and a name server.
pub async fn world(keys: &str, domains: &'static [&'static str]) -> World {
    let server = name_server(domains).await;
    let mut changes = Changes::replace(
        "accepted_domains = [\"contoso.com\"]\n",
        &format!("accepted_domains = [\"contoso.com\"]\n{keys}\n"),
    );
    changes.append = format!("[dns]\nservers = [\"{server}\"]\n");
    World::with(changes).await
}

pub const SIGNERS: &[&str] = &["contoso.com", "fabrikam.com"];

/// Two stamps of contoso, and further fields.
pub fn letter(fields: &str, body: &str) -> String {
    format!(
        "From: ada@contoso.com\r\nTo: bob@contoso.com\r\nSubject: s\r\nX-OriginatorOrg: contoso.com\r\n\
         X-MS-Exchange-CrossTenant-Id: {CONTOSO}\r\n{fields}\r\n{body}\r\n"
    )
}

pub fn sign(message: &str, domain: &str, selector: &str, partly: bool) -> String {
    let key = PrivateKeyDer::from_pem_slice(KEY.as_bytes()).unwrap();
    let signer = DkimSigner::from_key(RsaKey::<Sha256>::from_key_der(key).unwrap())
        .domain(domain)
        .selector(selector)
        .headers(["From", "Subject", "X-contoso-Gate"])
        .body_length(partly);
    let signature = signer.sign(message.as_bytes()).unwrap();
    format!("{}{message}", signature.to_header())
}

pub fn from_ada(content: impl Into<Vec<u8>>) -> Mail {
    Mail::new("ada@contoso.com", "bob@contoso.com", content)
}

pub async fn send(world: &World, mail: Mail) -> Transaction {
    let sent = world.exchange_out().send(&Outbound::bare(mail)).await;
    sent.unwrap()
}

/// Evidence and reason of the transaction that was answered so.
async fn account(world: &World, answer: &Transaction) -> (Evidence, String) {
    let events = world.trace(&last_word(answer.deciding())).await;
    let found = events.into_iter().find_map(|event| match event.event {
        Event::Received {
            evidence, verdict, ..
        } => Some((evidence, verdict)),
        Event::Refused {
            evidence, reason, ..
        } => Some((evidence, reason)),
        _ => None,
    });
    found.unwrap_or_else(|| panic!("no event for {answer:?}"))
}

/// Refused with the content, by this code and for this reason, which trace and metrics tell.
pub async fn refused(
    world: &World,
    mail: Mail,
    (code, enhanced): (u16, (u8, u16, u16)),
    reason: &str,
) -> Evidence {
    let answer = send(world, mail).await;
    expect(&answer, "content", code, enhanced);
    let (evidence, told) = account(world, &answer).await;
    assert_eq!(told, reason, "{answer:?}");
    let metrics = world.metrics();
    assert!(
        metrics.lines().any(|line| {
            line.starts_with("gatepost_trust_verdicts_total{")
                && line.contains(&format!("reason=\"{reason}\""))
                && line.contains("verdict=\"refused\"")
        }),
        "{reason}: {metrics}"
    );
    evidence
}

pub async fn accepted(world: &World, mail: Mail, verdict: &str) -> Evidence {
    let answer = send(world, mail).await;
    assert!(answer.accepted(), "{answer:?}");
    let (evidence, told) = account(world, &answer).await;
    assert_eq!(told, verdict);
    evidence
}

fn dkim(evidence: &Evidence) -> (EvidenceState, &str) {
    let item = evidence
        .0
        .iter()
        .find(|item| item.kind == EvidenceKind::Dkim);
    let item = item.expect("DKIM is in the table");
    (item.state, item.seen.as_deref().unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signature_is_the_deciding_proof_over_every_transfer() {
    let world = world("proofs = 4", SIGNERS).await;
    // The secret is signed over: what is verified is what arrived, not what is stored.
    let secret = "X-contoso-Gate: contoso-secret\r\n";
    let small = sign(&letter(secret, "Hello."), "contoso.com", "s1", false);
    let line = "0123456789abcdefghijklmnopqrstuvwxyz\r\n";
    let large = letter(secret, &line.repeat(3 * 1024 * 1024 / line.len()));
    let large = sign(&large, "contoso.com", "s1", false);
    for (content, transfer) in [
        (&small, Transfer::Best),
        (&small, Transfer::Chunks(100)),
        (&small, Transfer::Data),
        (&large, Transfer::Chunks(300_000)),
        (&large, Transfer::Data),
    ] {
        let evidence = accepted(&world, from_ada(content.as_bytes()).by(transfer), "proven").await;
        assert_eq!(
            dkim(&evidence),
            (EvidenceState::Matches, "contoso.com: verified")
        );
        let received = world.received().await;
        let expected = content.replacen(secret, "", 1);
        let text = String::from_utf8(received.content.clone()).unwrap();
        assert!(
            text.ends_with(&expected),
            "every other byte is kept ({transfer:?})"
        );
        assert!(!text.contains("contoso-secret"));
    }
    world.host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_goes_on_behind_a_verified_message() {
    let world = world("proofs = 3", SIGNERS).await;
    let content = sign(&letter("", "Hello."), "contoso.com", "s1", false);
    let mut client = world.exchange_out().connect().await.unwrap().into_client();
    let transaction = format!(
        "MAIL FROM:<ada@contoso.com>\r\nRCPT TO:<bob@contoso.com>\r\nBDAT {} LAST\r\n{content}",
        content.len()
    );
    // Two whole transactions in one write (RFC 2920, RFC 3030): the second waits until the first is judged.
    client
        .raw(format!("{transaction}{transaction}NOOP\r\n").as_bytes())
        .await
        .unwrap();
    for code in [250, 250, 250, 250, 250, 250, 250] {
        let reply = client.reply().await.unwrap();
        assert_eq!(reply.code, code, "{reply}");
    }
    assert_eq!(world.received().await.sender, "ada@contoso.com");
    assert_eq!(world.received().await.sender, "ada@contoso.com");
    world.host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signature_that_does_not_count_is_as_good_as_absent() {
    let world = world("proofs = 3", SIGNERS).await;
    let plain = letter("", "Hello.");
    let good = sign(&plain, "contoso.com", "s1", false);
    let forged = good.replacen("Hello.", "Pay me.", 1);
    let evidence = refused(&world, from_ada(forged), REFUSED, "too_few_proofs").await;
    assert_eq!(dkim(&evidence).0, EvidenceState::Absent);
    assert!(
        dkim(&evidence).1.starts_with("contoso.com: "),
        "{evidence:?}"
    );
    for (content, seen) in [
        (plain.clone(), ""),
        (
            sign(&plain, "fabrikam.com", "s1", false),
            "fabrikam.com: not asked, it could not change the verdict",
        ),
        (
            sign(&plain, "evil.example", "s1", false),
            "evil.example: no tenant's",
        ),
        (
            sign(&plain, "contoso.com", "s1", true),
            "none over From: and the whole body in a known algorithm",
        ),
        (
            sign(&plain, "contoso.com", "s2", false),
            "contoso.com: no such key",
        ),
    ] {
        let evidence = refused(&world, from_ada(content), REFUSED, "too_few_proofs").await;
        assert_eq!(dkim(&evidence), (EvidenceState::Absent, seen));
    }
    // Only four are looked at, from the top; the fifth would hold.
    let mut five = good.clone();
    for selector in ["a", "b", "c", "d"] {
        five = sign(&five, "contoso.com", selector, false);
    }
    let evidence = refused(&world, from_ada(five), REFUSED, "too_few_proofs").await;
    assert_eq!(dkim(&evidence).1.matches("no such key").count(), 4);
    let mut four = good.clone();
    for selector in ["a", "b", "c"] {
        four = sign(&four, "contoso.com", selector, false);
    }
    accepted(&world, from_ada(four), "proven").await;
    // DKIM never contradicts.
    let both = sign(&good, "fabrikam.com", "s1", false);
    accepted(&world, from_ada(both), "proven").await;
    assert_eq!(world.received().await.sender, "ada@contoso.com");
    world.host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signature_alone_names_the_tenant_where_one_proof_is_enough() {
    let world = world("proofs = 1", SIGNERS).await;
    let bare = "From: ada@contoso.com\r\nSubject: s\r\n\r\nHello.\r\n";
    let signed = sign(bare, "contoso.com", "s1", false);
    accepted(&world, from_ada(signed.clone()), "proven").await;
    let null = Mail::new("", "bob@contoso.com", signed.clone());
    accepted(&world, null, "proven").await;
    let forged = signed.replacen("Hello.", "Pay me.", 1);
    refused(&world, from_ada(forged), (550, (5, 7, 64)), "no_tenant").await;
    world.host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resolver_that_does_not_answer_makes_a_451() {
    for keys in [
        "proofs = 3",
        "proofs = 3\ngate = \"report\"\ngate_report_until = \"2099-01-01\"",
    ] {
        let world = world(keys, SIGNERS).await;
        let content = sign(&letter("", "Hello."), "contoso.com", "broken", false);
        let answer = (451, (4, 7, 5));
        let evidence = refused(
            &world,
            from_ada(content.clone()),
            answer,
            "signature_unavailable",
        )
        .await;
        let (state, seen) = dkim(&evidence);
        assert_eq!(state, EvidenceState::Absent);
        assert!(
            seen.starts_with("contoso.com: cannot be checked now: "),
            "{seen}"
        );
        // Another signature of the tenant still decides.
        let also = sign(&content, "contoso.com", "s1", false);
        accepted(&world, from_ada(also), "proven").await;
        world.host.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_32_mib_a_signature_counts_as_absent() {
    let world = world("proofs = 3", SIGNERS).await;
    let line = format!("{}\r\n", "x".repeat(998));
    let content = letter("", &line.repeat(33 * 1024 + 600));
    assert!(content.len() > 32 * 1024 * 1024);
    let content = sign(&content, "contoso.com", "s1", false);
    let evidence = refused(&world, from_ada(content), REFUSED, "too_few_proofs").await;
    assert_eq!(
        dkim(&evidence),
        (
            EvidenceState::Absent,
            "contoso.com: the message is too large"
        )
    );
    assert_eq!(world.around.exchange.taken(), 0);
    world.host.stop().await;
}

const PROTECTED: &str = "X-MS-Exchange-Organization-SCL: -1\r\nX-MS-Exchange-CrossPremises-AuthAs: Internal\r\n\
    X-Forefront-Antispam-Report: x\r\nX-contoso-Gate: contoso-secret\r\nX-fabrikam-Gate: fabrikam-secret\r\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn report_mode_lets_in_as_anything_else_until_its_day() {
    let report = |until: &str| format!("gate = \"report\"\ngate_report_until = \"{until}\"");
    let world = world(&report("2099-01-01"), &[]).await;
    let bare = format!(
        "From: ada@contoso.com\r\nSubject: s\r\n{PROTECTED}X-MS-Exchange-CrossTenant-Id: 99999999-2222-3333-4444-555555555555\r\n\r\nHello.\r\n"
    );
    accepted(&world, from_ada(bare.clone()), "reported").await;
    let received = world.received().await;
    let text = String::from_utf8(received.content.clone()).unwrap();
    assert!(
        text.ends_with("From: ada@contoso.com\r\nSubject: s\r\n\r\nHello.\r\n"),
        "{text}"
    );
    let metrics = world.metrics();
    assert!(
        metrics.contains("gatepost_trust_verdicts_total{reason=\"contradiction\",tenant=\"contoso\",verdict=\"reported\"} 1"),
        "{metrics}"
    );
    // Null sender: From: names the tenant. A foreign one is nobody's.
    let plain = "From: ada@contoso.com\r\n\r\nHello.\r\n";
    accepted(&world, Mail::new("", "bob@contoso.com", plain), "reported").await;
    let foreign = Mail::new(
        "",
        "bob@contoso.com",
        "From: x@evil.example\r\n\r\nHello.\r\n",
    );
    refused(&world, foreign, (550, (5, 7, 64)), "no_tenant").await;
    // Only to the accepted domains.
    let outside = from_ada(plain).and_to("partner@outside.example");
    expect(&send(&world, outside).await, "content", 550, (5, 7, 1));
    // Mail proven to be another configured tenant's is always refused.
    let theirs = format!(
        "From: ada@contoso.com\r\nX-OriginatorOrg: fabrikam.com\r\nX-MS-Exchange-CrossTenant-Id: {FABRIKAM}\r\n\r\nHello.\r\n"
    );
    refused(&world, from_ada(theirs), REFUSED, "foreign_envelope_sender").await;
    // The loop check comes first, before anything is removed.
    let looping = "X-Gatepost-Processed: contoso-loop\r\nFrom: ada@contoso.com\r\n\r\nHello.\r\n";
    refused(&world, from_ada(looping), (554, (5, 4, 6)), "loop").await;
    world.host.stop().await;

    let world = self::world(&report("2020-01-01"), &[]).await;
    refused(&world, from_ada(plain), (550, (5, 7, 64)), "no_tenant").await;
    world.host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forwarded_mail_passes_where_it_is_allowed() {
    let forwarded = letter("", "Hello.").replacen("ada@contoso.com", "x@evil.example", 1);
    let mail = |recipient: &str| Mail::new("x@evil.example", recipient, forwarded.clone());
    let host = world("", &[]).await;
    refused(
        &host,
        mail("bob@contoso.com"),
        REFUSED,
        "foreign_envelope_sender",
    )
    .await;
    refused(
        &host,
        from_ada(forwarded.clone()),
        REFUSED,
        "foreign_header_sender",
    )
    .await;
    host.host.stop().await;

    let host = world("forwarded_senders = \"allow\"", &[]).await;
    accepted(&host, mail("bob@contoso.com"), "proven").await;
    let received = host.around.exchange.received().await.unwrap();
    assert_eq!(
        received.headers("X-OriginatorOrg"),
        ["contoso.com"],
        "proven mail keeps all"
    );
    host.host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connector_validation_mail_passes_within_its_limits() {
    let around = Surroundings::new().await;
    let changes = Changes::replace(
        "value = \"contoso-secret\"",
        "value = \"contoso-secret\", required = true",
    );
    let world = World::within(around, changes).await;
    let content = |body: &str| {
        letter(PROTECTED, body)
            .replacen("ada@", "O365ConnectorValidation@", 1)
            .replacen("X-contoso-Gate: contoso-secret\r\n", "", 1)
    };
    let check = |recipient: &str, content: String| {
        Mail::new("O365ConnectorValidation@contoso.com", recipient, content)
    };
    accepted(
        &world,
        check("bob@contoso.com", content("Hello.")),
        "validation",
    )
    .await;
    let received = world.received().await;
    for name in [
        "X-MS-Exchange-Organization-SCL",
        "X-MS-Exchange-CrossPremises-AuthAs",
    ] {
        assert!(
            received.header(name).is_none(),
            "{name} is what mx would lose"
        );
    }
    refused(
        &world,
        from_ada(letter("", "Hello.")),
        REFUSED,
        "secret_missing",
    )
    .await;
    let outside = check("partner@outside.example", content("Hello."));
    expect(&send(&world, outside).await, "content", 550, (5, 7, 1));
    let large = check("bob@contoso.com", content(&"x".repeat(64 * 1024)));
    for transfer in [Transfer::Data, Transfer::Best] {
        let answer = send(&world, large.clone().by(transfer)).await;
        expect(&answer, "content", 552, (5, 3, 4));
    }
    // Too few proofs are too few here too.
    let bare = "From: O365ConnectorValidation@contoso.com\r\n\r\nHello.\r\n".to_owned();
    refused(
        &world,
        check("bob@contoso.com", bare),
        (550, (5, 7, 64)),
        "no_tenant",
    )
    .await;
    let mut connection = world.exchange_out().connect().await.unwrap();
    let mut taken = 0;
    let last = loop {
        let mail = Outbound::bare(check("bob@contoso.com", content("Hello.")));
        let answer = connection.send(&mail).await.unwrap();
        if !answer.accepted() {
            break answer;
        }
        taken += 1;
    };
    // One was taken above, and the two that were too large had been counted.
    assert_eq!(taken, 17);
    expect(&last, "content", 450, (4, 7, 1));
    world.host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_is_rotated_without_a_refused_message() {
    let changes = Changes::replace(
        "value = \"contoso-secret\"",
        "value = \"new\", previous = \"contoso-secret\", required = true",
    );
    let world = World::with(changes).await;
    for value in ["new", "contoso-secret"] {
        let content = letter(&format!("X-contoso-Gate: {value}\r\n"), "Hello.");
        accepted(&world, from_ada(content), "proven").await;
        let received = world.received().await;
        assert!(received.header("X-contoso-Gate").is_none());
    }
    let wrong = letter("X-contoso-Gate: contoso\r\n", "Hello.");
    refused(&world, from_ada(wrong), REFUSED, "contradiction").await;
    refused(
        &world,
        from_ada(letter("", "Hello.")),
        REFUSED,
        "secret_missing",
    )
    .await;
    world.host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twice_malformed_and_contradicting_evidence_is_refused() {
    let world = World::start().await;
    let connecting = "X-MS-Exchange-CrossTenant-OriginalAttributedTenantConnectingIp";
    for (fields, reason) in [
        (
            "X-OriginatorOrg: contoso.com\r\n".to_owned(),
            "ambiguous_evidence",
        ),
        (
            format!("x-ms-exchange-crosstenant-id : {CONTOSO}\r\n"),
            "ambiguous_evidence",
        ),
        (
            "X-contoso-Gate: contoso-secret\r\nX-contoso-Gate: contoso-secret\r\n".to_owned(),
            "ambiguous_evidence",
        ),
        ("From: ada@contoso.com\r\n".to_owned(), "ambiguous_evidence"),
        ("X-contoso-Gate: wrong\r\n".to_owned(), "contradiction"),
        (
            format!("{connecting}: TenantId={FABRIKAM};Ip=[203.0.113.66];Helo=[x]\r\n"),
            "contradiction",
        ),
    ] {
        refused(&world, from_ada(letter(&fields, "Hello.")), REFUSED, reason).await;
    }
    let secret = letter("X-contoso-Gate: contoso-secret\r\n", "Hello.");
    for (from, to, reason) in [
        (
            "X-OriginatorOrg: contoso.com",
            "X-OriginatorOrg: contoso com",
            "ambiguous_evidence",
        ),
        (CONTOSO, "contoso", "ambiguous_evidence"),
        ("From: ada@contoso.com", "From: ada", "ambiguous_evidence"),
        (
            "From: ada@contoso.com",
            "X-From: ada@contoso.com",
            "ambiguous_evidence",
        ),
        (
            "X-OriginatorOrg: contoso.com",
            "X-OriginatorOrg: fabrikam.com",
            "contradiction",
        ),
        (CONTOSO, FABRIKAM, "contradiction"),
    ] {
        let content = secret.replacen(from, to, 1);
        refused(&world, from_ada(content), REFUSED, reason).await;
    }
    // The only evidence there is, malformed: nothing names a tenant.
    let only = "From: ada@contoso.com\r\nX-OriginatorOrg: contoso com\r\n\r\nHello.\r\n";
    refused(&world, from_ada(only), (550, (5, 7, 64)), "no_tenant").await;
    let own = format!("{connecting}: TenantId={CONTOSO};Ip=[203.0.113.66];Helo=[x]\r\n");
    accepted(&world, from_ada(letter(&own, "Hello.")), "proven").await;
    accepted(
        &world,
        Mail::new("", "bob@contoso.com", letter("", "Hello.")),
        "proven",
    )
    .await;
    // XOORG of the other tenant against two stamps of this one; of no tenant, at MAIL.
    let outbound = Outbound::bare(from_ada(letter("", "Hello.")));
    let answer = world
        .exchange_out()
        .send(&outbound.clone().xoorg(Some("fabrikam.com")))
        .await;
    expect(&answer.unwrap(), "content", 550, (5, 7, 1));
    let answer = world
        .exchange_out()
        .send(&outbound.clone().xoorg(Some("evil.example")))
        .await;
    expect(&answer.unwrap(), "MAIL", 550, (5, 7, 64));
    let answer = world
        .exchange_out()
        .send(&outbound.xoorg(Some("contoso.com")))
        .await;
    assert!(answer.unwrap().accepted());
    world.host.stop().await;
}
