//! Signatures made by mail-auth's own signer with a key that only these tests know.

use super::*;
use crate::dns::{Answer, MxRecord, Zone};
use crate::header::examine;
use crate::trust::fixtures::{contoso, envelope, proven_peer, tenants};
use crate::trust::{Settlement, Tenant, candidates, settle};
use mail_auth::common::crypto::{RsaKey, Sha256};
use mail_auth::common::headers::HeaderWriter as _;
use mail_auth::dkim::{Canonicalization, DkimSigner};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};

const KEY: &str = include_str!("../../tests/data/dkim-test.key");
const RECORD: &str = include_str!("../../tests/data/dkim-test.txt");
const NAME: &str = "s1._domainkey.contoso.com";
const LETTER: &str = "From: Ada <ada@contoso.com>\r\nSubject: hello\r\n\tagain\r\n\r\nHello, \t world.\r\n\r\n.\r\n\r\n\r\n";

struct Signing {
    domain: &'static str,
    canonicalization: Canonicalization,
    expires: u64,
    identity: Option<&'static str>,
}

const USUAL: Signing = Signing {
    domain: "contoso.com",
    canonicalization: Canonicalization::Relaxed,
    expires: 0,
    identity: None,
};

fn sign(message: &str, how: &Signing) -> String {
    let key = PrivateKeyDer::from_pem_slice(KEY.as_bytes()).unwrap();
    let key = RsaKey::<Sha256>::from_key_der(key).unwrap();
    let mut signer = DkimSigner::from_key(key)
        .domain(how.domain)
        .selector("s1")
        .headers(["From", "Subject"])
        .header_canonicalization(how.canonicalization)
        .body_canonicalization(how.canonicalization)
        .expiration(how.expires);
    if let Some(identity) = how.identity {
        signer = signer.agent_user_identifier(identity);
    }
    let header = signer.sign(message.as_bytes()).unwrap().to_header();
    format!("{header}{message}")
}

/// With a signature of contoso.com over the body as it stands, and the zone that has its key.
pub(crate) fn signed(message: &str) -> (String, Zone) {
    let simple = Signing {
        canonicalization: Canonicalization::Simple,
        ..USUAL
    };
    (sign(message, &simple), Zone::new().text(NAME, RECORD))
}

/// The signatures of a message that the gate would ask about, one proof being enough.
fn question(message: &str) -> Vec<Signature> {
    let tenants = tenants([Tenant {
        proofs: 1,
        ..contoso()
    }]);
    let envelope = envelope("ada@contoso.com");
    let candidates = candidates(&tenants, &envelope.reverse_path, None, 0).unwrap();
    let end = message.find("\r\n\r\n").unwrap() + 4;
    let header = examine(&message.as_bytes()[..end]).unwrap();
    match settle(&tenants, &candidates, &proven_peer(), &envelope, &header, 0) {
        Settlement::NeedsSignature(pending) => pending.signatures().to_vec(),
        Settlement::Settled(_) | Settlement::Refused(_) => Vec::new(),
    }
}

async fn facts_with(resolver: impl Resolve + 'static, message: &str) -> Vec<SignatureFact> {
    let verifier = Verifier::new(Arc::new(resolver), 1).unwrap();
    let signatures = question(message);
    assert!(!signatures.is_empty(), "nothing is asked: {message}");
    let read = async { Ok::<_, ()>(message.as_bytes().to_vec()) };
    let facts = verifier
        .check(&signatures, message.len() as u64, read)
        .await;
    facts.unwrap().0
}

/// One word for the one signature: `verified`, `failed: why`, `unavailable: why`.
async fn says(resolver: impl Resolve + 'static, message: &str) -> String {
    let facts = facts_with(resolver, message).await;
    assert_eq!(facts.len(), 1, "{facts:?}");
    match &facts[0] {
        SignatureFact::Verified => "verified".to_owned(),
        SignatureFact::Failed(why) => format!("failed: {why}"),
        SignatureFact::Unavailable(why) => format!("unavailable: {why}"),
    }
}

fn zone() -> Zone {
    Zone::new().text(NAME, RECORD)
}

#[tokio::test]
async fn a_signature_that_holds_is_verified() {
    for canonicalization in [Canonicalization::Relaxed, Canonicalization::Simple] {
        let how = Signing {
            canonicalization,
            expires: 3600,
            identity: Some("ada@contoso.com"),
            ..USUAL
        };
        assert_eq!(says(zone(), &sign(LETTER, &how)).await, "verified");
    }
    // What is added on top, and what is not signed, does not matter.
    let message = format!("Received: x\r\n{}", sign(LETTER, &USUAL));
    assert_eq!(says(zone(), &message).await, "verified");
    let relaxed = sign(LETTER, &USUAL).replacen("Hello, \t world.", "Hello, world.  ", 1);
    assert_eq!(says(zone(), &relaxed).await, "verified");
}

#[tokio::test]
async fn what_was_changed_fails() {
    let signed = sign(LETTER, &USUAL);
    for (from, to) in [
        ("Hello,", "Hallo,"),
        ("Subject: hello", "Subject: hullo"),
        ("From: Ada <ada@", "From: Eve <ada@"),
        ("\r\n\r\n.\r\n", "\r\n\r\n.\r\nmore\r\n"),
    ] {
        let changed = signed.replacen(from, to, 1);
        assert_ne!(changed, signed);
        let said = says(zone(), &changed).await;
        assert!(said.starts_with("failed: "), "{from}: {said}");
    }
    let simple = Signing {
        canonicalization: Canonicalization::Simple,
        ..USUAL
    };
    let blanks = sign(LETTER, &simple).replacen("Hello, \t world.", "Hello, world.", 1);
    assert!(says(zone(), &blanks).await.starts_with("failed: "));
}

/// Fields in which mail-auth does not see what was put in. `To:` and `Subject:` are signed; there is no `To:`.
#[tokio::test]
async fn what_is_put_in_where_the_library_does_not_look_fails() {
    let key = PrivateKeyDer::from_pem_slice(KEY.as_bytes()).unwrap();
    let signer = DkimSigner::from_key(RsaKey::<Sha256>::from_key_der(key).unwrap());
    let signer = signer.domain("contoso.com").selector("s1");
    let header = signer
        .headers(["From", "Subject", "To"])
        .sign(LETTER.as_bytes())
        .unwrap()
        .to_header();
    let signed = format!("{header}{LETTER}");
    assert_eq!(says(zone(), &signed).await, "verified");
    let body = signed.find("\r\n\r\n").unwrap() + 4;
    let in_body = |at: usize, put: &str| format!("{}{put}{}", &signed[..at], &signed[at..]);
    for changed in [
        in_body(body, "\r"),
        in_body(body + 1, "\r"),
        in_body(signed.len(), "\r\r"),
        format!(
            "{}{}",
            &signed[..body],
            signed[body..].replace("\r\n", "\n")
        ),
        signed.replacen("Subject: hello", "Subject: hel\x0clo", 1),
        format!("To : eve@fabrikam.com\r\n{signed}"),
        format!("To: eve@fabrikam.com\r\n{signed}"),
    ] {
        let said = says(zone(), &changed).await;
        assert!(said.starts_with("failed: "), "{changed}: {said}");
    }
}

#[tokio::test]
async fn the_key_must_be_there_and_meant_for_mail() {
    let signed = sign(LETTER, &USUAL);
    let with = |record: &str| Zone::new().text(NAME, record);
    for (from, to) in [
        ("v=DKIM1", "v=DKIM2"),
        ("v=DKIM1; k=rsa", "k=rsa; v=DKIM1"),
        ("k=rsa", "k=rsa; t=y"),
        ("k=rsa", "k=rsa; t=s:y"),
        ("k=rsa", "k=rsa; s=tlsrpt"),
        ("k=rsa", "k=rsa; h=sha1"),
        ("k=rsa", "k=ed25519"),
        ("k=rsa", "k=rsa; k=rsa"),
        ("p=MII", "p=NII"),
        ("p=", "p=; x="),
        ("p=", "x="),
        ("p=", "P="),
        ("p=", "p=; P="),
        ("k=rsa", "k="),
        ("k=rsa", "k=r sa"),
        ("k=rsa", "k=rsa; n=\u{1}"),
    ] {
        let record = RECORD.replacen(from, to, 1);
        assert_ne!(record, RECORD);
        let said = says(with(&record), &signed).await;
        assert!(said.starts_with("failed: "), "{to}: {said}");
    }
    for (from, to) in [
        ("v=DKIM1; ", ""),
        ("k=rsa", "k=rsa; t=s"),
        ("k=rsa", "k=rsa; s=*; h=sha1:sha256; n=a note"),
        ("k=rsa", "k=rsa; s=email"),
    ] {
        let record = RECORD.replacen(from, to, 1);
        assert_eq!(says(with(&record), &signed).await, "verified", "{to}");
    }
    let below = Signing {
        identity: Some("@sub.contoso.com"),
        ..USUAL
    };
    let below = sign(LETTER, &below);
    assert_eq!(says(zone(), &below).await, "verified");
    let strict = with(&RECORD.replacen("k=rsa", "k=rsa; t=s", 1));
    assert!(says(strict, &below).await.starts_with("failed: "));
    let two = Zone::new().text(NAME, "v=spf1 -all").text(NAME, RECORD);
    assert_eq!(says(two, &signed).await, "verified");
}

#[tokio::test]
async fn no_key_is_a_failure_and_no_answer_is_none() {
    let signed = sign(LETTER, &USUAL);
    assert_eq!(says(Zone::new(), &signed).await, "failed: no such key");
    let there = Zone::new().host(NAME, "192.0.2.1".parse().unwrap());
    assert_eq!(says(there, &signed).await, "failed: no such key");
    let broken = Zone::new().broken(NAME);
    assert_eq!(says(broken, &signed).await, "unavailable: no answer");
}

#[tokio::test]
async fn each_signature_has_a_fact_of_its_own() {
    let other = Signing {
        domain: "contoso.onmicrosoft.com",
        ..USUAL
    };
    let twice = sign(&sign(LETTER, &USUAL), &other);
    let facts = facts_with(zone(), &twice).await;
    assert_eq!(facts.len(), 2);
    assert_eq!(facts[0], SignatureFact::Failed("no such key".to_owned()));
    assert_eq!(facts[1], SignatureFact::Verified);
    // The same field twice is looked at twice, not more often.
    let end = twice.find("From:").unwrap();
    let doubled = format!("{}{twice}", &twice[..end]);
    assert_eq!(facts_with(zone(), &doubled).await.len(), 4);
    // Where one key is missing for now, the other still decides.
    let zone = zone().broken("s1._domainkey.contoso.onmicrosoft.com");
    let facts = facts_with(zone, &twice).await;
    assert!(
        matches!(facts[0], SignatureFact::Unavailable(_)),
        "{facts:?}"
    );
    assert_eq!(facts[1], SignatureFact::Verified);
}

#[tokio::test]
async fn a_body_is_only_read_where_a_key_is_there_and_the_size_allows_it() {
    let signed = sign(LETTER, &USUAL);
    let signatures = question(&signed);
    let read = AtomicBool::new(false);
    let check = async |zone: Zone, size: u64| {
        let verifier = Verifier::new(Arc::new(zone), 1).unwrap();
        let message = async {
            read.store(true, Ordering::Relaxed);
            Err::<Vec<u8>, &str>("the disk fails")
        };
        verifier.check(&signatures, size, message).await
    };
    let facts = check(Zone::new(), 100).await.unwrap();
    assert_eq!(facts, DkimFacts::absent("no such key", &signatures));
    let facts = check(zone(), MAX_SIGNED_SIZE + 1).await.unwrap();
    assert_eq!(
        facts,
        DkimFacts::absent("the message is too large", &signatures)
    );
    assert!(!read.load(Ordering::Relaxed));
    assert_eq!(check(zone(), MAX_SIGNED_SIZE).await, Err("the disk fails"));
    assert!(read.load(Ordering::Relaxed));
}

/// A resolver that never answers.
#[derive(Debug)]
struct Silent;

impl Resolve for Silent {
    fn addresses<'a>(&'a self, _: &'a str) -> Answer<'a, Vec<IpAddr>> {
        Box::pin(std::future::pending())
    }
    fn mail_exchangers<'a>(&'a self, _: &'a str) -> Answer<'a, Vec<MxRecord>> {
        Box::pin(std::future::pending())
    }
    fn host_records<'a>(&'a self, _: &'a str) -> Answer<'a, Vec<IpAddr>> {
        Box::pin(std::future::pending())
    }
    fn texts<'a>(&'a self, _: &'a str) -> Answer<'a, Vec<Vec<u8>>> {
        Box::pin(std::future::pending())
    }
}

#[tokio::test(start_paused = true)]
async fn a_check_has_a_deadline() {
    let said = says(Silent, &sign(LETTER, &USUAL)).await;
    assert_eq!(said, "unavailable: no answer in time");
}

#[tokio::test(start_paused = true)]
async fn what_finds_no_room_in_time_is_not_judged() {
    let signed = sign(LETTER, &USUAL);
    let signatures = question(&signed);
    let verifier = Verifier::new(Arc::new(zone()), 1).unwrap();
    let stuck = || std::future::pending::<Result<Vec<u8>, ()>>();
    let half = MAX_SIGNED_SIZE;
    let late = DkimFacts::unavailable("no answer in time", &signatures);
    // Two of 32 MiB fill the room.
    let (one, two, full) = tokio::join!(
        verifier.check(&signatures, half, stuck()),
        verifier.check(&signatures, half, stuck()),
        async {
            while verifier.memory.available_permits() > 0 {
                tokio::task::yield_now().await;
            }
            verifier.memory.available_permits()
        },
    );
    assert_eq!(
        (one.unwrap(), two.unwrap(), full),
        (late.clone(), late.clone(), 0)
    );
    // Where there is no room, the next one waits, however small; for as long as its own time lasts.
    let room = verifier.memory.acquire_many(MEMORY).await.unwrap();
    let read = async { Ok::<_, ()>(signed.clone().into_bytes()) };
    assert_eq!(verifier.check(&signatures, 1, read).await.unwrap(), late);
    drop(room);
    // All have given it back.
    let read = async { Ok::<_, ()>(signed.clone().into_bytes()) };
    let facts = verifier.check(&signatures, half, read).await.unwrap();
    assert_eq!(facts.0, [SignatureFact::Verified]);
}

#[tokio::test]
async fn another_resolver_may_be_asked_from_now_on() {
    let signed = sign(LETTER, &USUAL);
    let signatures = question(&signed);
    let verifier = Verifier::new(Arc::new(Zone::new()), 1).unwrap();
    verifier.reload(Arc::new(zone()));
    let read = async { Ok::<_, ()>(signed.clone().into_bytes()) };
    let facts = verifier.check(&signatures, 1, read).await.unwrap();
    assert_eq!(facts.0, [SignatureFact::Verified]);
}
