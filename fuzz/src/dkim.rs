//! DKIM signatures as evidence of a tenant, from the header section to the verdict.
//!
//! ```text
//!  octet 0      1 a second proof stands in the message, 2 it is fabrikam's, 4 DNS has no answer, 8 DNS has another record before
//!  octet 1      which octet of what is signed is changed
//!  a line       the key record as DNS has it, its strings joined; `@P@` is the public key of tests/data/dkim-test.key
//!  the rest     the message; in its first DKIM-Signature field with `@B@`, `@BH@` becomes the hash of the body, and `@B@` the
//!               signature of that key, both made by [`sign`]
//! ```

use super::header::split;
use super::naive::{self, Field};
use super::rfc6376::{Read, Signed, is_host, is_plain, sign, signed_fields, value};
use super::world::{CONTOSO, FABRIKAM, NOW_SECONDS, runtime, world};
use gatepost::dns::{Answer, DnsError, MxRecord, Resolve};
use gatepost::header;
use gatepost::mail::Envelope;
use gatepost::mailauth::Verifier;
use gatepost::trust::certificate::ClientCertificate;
use gatepost::trust::{
    self, DkimFacts, MAX_SIGNATURES, Peer, Reason, Settlement, Signature, SignatureFact, Verdict,
};
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

const RECORD: &str = include_str!("../../tests/data/dkim-test.txt");
const USUAL: &[u8] = b"v=DKIM1; k=rsa; p=@P@";

/// What DNS says to every question for a key.
#[derive(Debug)]
struct Record(Result<Vec<Vec<u8>>, DnsError>);

impl Resolve for Record {
    fn addresses<'a>(&'a self, _: &'a str) -> Answer<'a, Vec<IpAddr>> {
        Box::pin(async { Err(DnsError::NotFound) })
    }
    fn mail_exchangers<'a>(&'a self, _: &'a str) -> Answer<'a, Vec<MxRecord>> {
        Box::pin(async { Err(DnsError::NotFound) })
    }
    fn host_records<'a>(&'a self, _: &'a str) -> Answer<'a, Vec<IpAddr>> {
        Box::pin(async { Err(DnsError::NotFound) })
    }
    fn texts<'a>(&'a self, _: &'a str) -> Answer<'a, Vec<Vec<u8>>> {
        Box::pin(async { self.0.clone() })
    }
}

/// Only a signature that a plain reading of RFC 6376 lets count is asked about, at most four, and none that is beyond doubt is
/// passed over. One is verified only where [`sign`] has signed it and a plain reading of the key record allows it, and a
/// usual one is. It is verified no more once an octet that is not blank is changed, or put in, in what is signed, or a field
/// comes in that was signed as absent. Without a verified one the verdict is what it is without any DKIM-Signature; with one
/// the message is let in; what cannot be looked up is refused for now.
///
/// Not held: ed25519, the strings of a record (the resolver joins them), `x=`, which goes by the library's clock, and what
/// [`is_plain`] leaves out: bodies of bare CR or LF, in which mail-auth reads line ends, and with lines of blanks at their end.
pub fn dkim(octets: &[u8]) {
    let [how, which, rest @ ..] = octets else {
        return;
    };
    let Some(end) = rest.iter().position(|octet| *octet == b'\n') else {
        return;
    };
    let (record, letter) = (&rest[..end], &rest[end + 1..]);
    let (tenant, id) = [("contoso", CONTOSO), ("fabrikam", FABRIKAM)][usize::from(how >> 1 & 1)];
    let domain = format!("{tenant}.com");
    let mut message = format!("X-OriginatorOrg: {domain}\r\n");
    if how & 1 != 0 {
        message += &format!("X-MS-Exchange-CrossTenant-Id: {id}\r\n");
    }
    message += "Received: by us\r\n";
    let (message, signed) = sign([message.as_bytes(), letter].concat());
    let Some(settled) = settle(&message, &domain) else {
        return;
    };
    let bare = naive::without(&message, |name| name == "dkim-signature");
    let bare = told(settle(&bare, &domain).expect("a header section"));
    let (fields, body) = naive::fields(&message);
    let reads = fields
        .iter()
        .filter(|field| field.name == "dkim-signature")
        .map(|field| Read::of(value(field), &domain));
    let reads: Vec<Read> = reads.collect();
    let pending = match settled {
        Settlement::NeedsSignature(pending) => pending,
        other => {
            let usual = reads.iter().any(|read| read.is_usual) && is_ordinary(&fields, &domain);
            assert!(bare != Err(Reason::TooFewProofs) || !usual, "not asked");
            assert_eq!(told(other), bare);
            return;
        }
    };
    let asked = pending.signatures().to_vec();
    let is_counted = |one: &Signature| {
        reads
            .iter()
            .any(|read| read.counts && read.value == one.value())
    };
    assert!(
        asked.len() <= MAX_SIGNATURES && asked.iter().all(is_counted),
        "{asked:?}"
    );
    let usual = reads.iter().filter(|read| read.is_usual).count();
    assert!(asked.len() >= usual.min(MAX_SIGNATURES), "passed over");

    let key = RECORD.rsplit_once("p=").expect("a key").1.trim();
    let record = String::from_utf8_lossy(record)
        .replace("@P@", key)
        .into_bytes();
    let mut records = vec![record.clone()];
    if how & 8 != 0 {
        records.insert(0, b"v=spf1 -all".to_vec());
    }
    let silent = how & 4 != 0;
    let dns = if silent {
        Err(DnsError::Unavailable("silent".into()))
    } else {
        Ok(records)
    };
    verifier().reload(Arc::new(Record(dns)));
    let facts = check(&asked, &message);
    assert_eq!(facts.0.len(), asked.len());
    let mut verified = false;
    for (signature, fact) in asked.iter().zip(&facts.0) {
        let own = signed
            .as_ref()
            .is_some_and(|own| own.value == signature.value());
        let read = reads.iter().find(|read| read.value == signature.value());
        let read = read.expect("it was counted");
        if *fact == SignatureFact::Verified {
            verified = true;
            assert!(own && !silent, "signed by nobody");
            assert!(read.is_allowed_by(&record, key), "the record");
            assert_no_change_is_overlooked(signature, read, &message, *which);
        } else {
            let is_filled = |own: &Signed| read.get("b") == own.b && read.get("bh") == own.bh;
            let is_filled = own && signed.as_ref().is_some_and(is_filled);
            let is_whole = is_filled && read.is_usual && is_plain(&fields, body);
            let usual = rest.starts_with(USUAL) && end == USUAL.len() && !silent;
            assert!(!is_whole || !usual, "{fact:?}");
        }
        assert_eq!(matches!(fact, SignatureFact::Unavailable(_)), silent);
    }
    match pending.conclude(&facts) {
        Ok(_) => assert!(verified || bare.is_ok()),
        Err(refusal) if silent => assert_eq!(refusal.reason, Reason::SignatureUnavailable),
        Err(refusal) => assert!(!verified && bare == Err(refusal.reason), "{refusal:?}"),
    }
}

fn settle(message: &[u8], domain: &str) -> Option<Settlement> {
    let length = split(message, 0).ok()?;
    let examined = header::examine(&message[..length]).ok()?;
    let tenants = &world().settings.tenants;
    let envelope = Envelope {
        reverse_path: format!("ada@{domain}").parse().expect("a sender"),
        recipients: Vec::new(),
        body: None,
        smtputf8: false,
        ret: None,
        envid: None,
        xoorg: None,
    };
    let name = "mail.protection.outlook.com".into();
    let peer = Peer {
        network: true,
        certificate: ClientCertificate::Verified { name },
    };
    let candidates = trust::candidates(tenants, &envelope.reverse_path, None, NOW_SECONDS);
    let candidates = candidates.expect("candidates");
    let settled = trust::settle(
        tenants,
        &candidates,
        &peer,
        &envelope,
        &examined,
        NOW_SECONDS,
    );
    Some(settled)
}

/// What a settlement says in the end.
fn told(settlement: Settlement) -> Result<String, Reason> {
    let of = |verdict: &Verdict| format!("{} {:?}", verdict.tenant().name, verdict.class());
    match settlement {
        Settlement::Settled(verdict) => Ok(of(&verdict)),
        Settlement::Refused(refusal) => Err(refusal.reason),
        Settlement::NeedsSignature(_) => panic!("there is none"),
    }
}

fn verifier() -> &'static Verifier {
    static VERIFIER: OnceLock<Verifier> = OnceLock::new();
    VERIFIER.get_or_init(|| {
        let nothing = Arc::new(Record(Ok(Vec::new())));
        desk().block_on(async { Verifier::new(nothing, 1).expect("a verifier") })
    })
}

fn desk() -> &'static tokio::runtime::Runtime {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    RUNTIME.get_or_init(runtime)
}

fn check(signatures: &[Signature], message: &[u8]) -> DkimFacts {
    let read = async { Ok::<_, ()>(message.to_vec()) };
    let checked = desk().block_on(verifier().check(signatures, message.len() as u64, read));
    checked.expect("the message is there")
}

/// A message that is let in once its tenant is proven.
fn is_ordinary(fields: &[Field<'_>], domain: &str) -> bool {
    let from: Vec<_> = fields.iter().filter(|field| field.name == "from").collect();
    let is_other = |field: &Field<'_>| {
        field.name.starts_with("resent-")
            || ["sender", "x-gatepost-processed"].contains(&field.name.as_str())
    };
    from.len() == 1
        && value(from[0]) == format!(" ada@{domain}").as_bytes()
        && !fields.iter().any(is_other)
}

/// A change of what is signed, chosen by `which`, does away with the signature.
fn assert_no_change_is_overlooked(signature: &Signature, read: &Read, message: &[u8], which: u8) {
    let (fields, body) = naive::fields(message);
    let blank = |octet: u8| b" \t\r\n\x0b\x0c".contains(&octet);
    let mut places: Vec<usize> = Vec::new();
    let signed = signed_fields(read, &fields);
    let mut at = 0;
    for (place, field) in fields.iter().enumerate() {
        let end = at + field.octets.len();
        if signed.contains(&place) && field.name != "dkim-signature" {
            let colon = field.octets.iter().position(|octet| *octet == b':');
            let value = at + colon.map_or(0, |colon| colon + 1)..end;
            places.extend(value.filter(|at| !blank(message[*at])));
        }
        at = end;
    }
    places.extend((message.len() - body.len()..message.len()).filter(|at| !blank(message[*at])));
    let mut changed = Vec::new();
    if !places.is_empty() {
        let place = places[usize::from(which) * 7 % places.len()];
        let other = if message[place] == b'x' { b'y' } else { b'x' };
        changed.push([&message[..place], &[other], &message[place + 1..]].concat());
        changed.push([&message[..place], b"x", &message[place..]].concat());
        changed.push([&message[..place], b"\x0c", &message[place..]].concat());
        changed.push([&message[..place], &message[place + 1..]].concat());
    }
    // More of a name is signed than is there.
    let absent = read.names().find(|name| {
        let there = fields.iter().filter(|field| field.name == *name).count();
        let wanted = read.names().filter(|own| own == name).count();
        wanted > there && is_host(name) && name != "dkim-signature"
    });
    if let Some(name) = absent {
        for field in [format!("{name}: x\r\n"), format!("{name} : x\r\n")] {
            changed.push([field.as_bytes(), message].concat());
        }
    }
    for changed in changed {
        let facts = check(std::slice::from_ref(signature), &changed);
        let shown = changed.escape_ascii();
        assert!(
            !facts.0.contains(&SignatureFact::Verified),
            "still verified: {shown}"
        );
    }
}
