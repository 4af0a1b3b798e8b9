//! The gates themselves are tested in `trust`; here, what of them is told.

use super::*;
use crate::credentials::{Account, Accounts};
use crate::dns::Zone;
use crate::header::MAX_HEADER;
use crate::session::{BareNewlines, Service, Terms};
use crate::trust::SignatureFact;
use crate::trust::certificate::Roots;
use crate::trust::fixtures::{application, contoso, fabrikam, tenants};
use crate::trust::network::{Networks, parse_block};
use crate::trust::{Gate, HalfProven, Tenant};
use rcgen::{CertificateParams, KeyPair};
use std::path::PathBuf;

const NOW: u64 = 1_795_594_533;
const GOOD: &str = "From: Ada <ada@contoso.com>\r\nX-OriginatorOrg: contoso.com\r\n\
    X-MS-Exchange-CrossTenant-Id: 11111111-2222-3333-4444-555555555555\r\nX-Contoso-Gate: gate-contoso\r\n\r\nbody\n";

/// One stamp, and a signature that decides.
const SIGNED: &str = "From: ada@contoso.com\r\nX-OriginatorOrg: contoso.com\r\n\
    DKIM-Signature: v=1; a=rsa-sha256; d=contoso.com; s=s1; h=From; bh=YQ==; b=YQ==\r\n\r\nbody\r\n";

struct Bench {
    folder: tempfile::TempDir,
    listeners: Vec<Listener>,
    submission: Submission,
    exchange_online: ExchangeOnline,
    tenants: Tenants,
    pem: PathBuf,
    message: PathBuf,
}

impl Bench {
    fn new(list: impl IntoIterator<Item = Tenant>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = KeyPair::generate().unwrap();
        let params =
            CertificateParams::new(vec!["mail.protection.outlook.com".to_owned()]).unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let pem = folder.path().join("peer.pem");
        std::fs::write(&pem, certificate.pem()).unwrap();
        let (roots, _) = Roots::from_certificates([certificate.der()]);
        let exchange_online = ExchangeOnline {
            client_certificate_names: vec!["mail.protection.outlook.com".parse().unwrap()],
            client_certificate_roots: roots.into(),
            networks: Networks::new(vec![parse_block("40.92.0.0/15").unwrap()]),
            half_proven: HalfProven::Defer,
        };
        Self {
            message: folder.path().join("message.eml"),
            folder,
            listeners: vec![listener("exchange", 1 << 20, &[])],
            submission: Submission {
                accounts: Accounts::new(Vec::new(), [0; 32]),
                listeners: Vec::new(),
            },
            exchange_online,
            tenants: tenants(list),
            pem,
        }
    }

    /// Of a message that ada sends by Exchange Online, changed; no signature decides.
    fn ask<'a>(
        &'a self,
        message: &str,
        change: impl FnOnce(&mut Question<'a>),
    ) -> Result<Answer, String> {
        self.ask_with(message, change, &no_check)
    }

    fn ask_with<'a>(
        &'a self,
        message: &str,
        change: impl FnOnce(&mut Question<'a>),
        check: Check<'_>,
    ) -> Result<Answer, String> {
        std::fs::write(&self.message, message).unwrap();
        let mut question = Question {
            message: &self.message,
            from: "40.93.214.103".parse().unwrap(),
            certificate: Some(&self.pem),
            mail_from: "<ada@contoso.com>",
            xoorg: None,
            dns: false,
        };
        change(&mut question);
        self.explain(&question, check)
    }

    fn explain(&self, question: &Question<'_>, check: Check<'_>) -> Result<Answer, String> {
        explain(
            &self.exchange_online,
            &self.tenants,
            &self.listeners,
            &self.submission,
            question,
            NOW,
            check,
        )
    }
}

fn listener(name: &str, max_message_size: u64, discard: &[&str]) -> Listener {
    let discard: Vec<String> = discard.iter().map(|&keyword| keyword.into()).collect();
    Listener {
        name: name.into(),
        max_message_size,
        terms: Terms::new(
            Service::Connector,
            BareNewlines::Refuse,
            max_message_size,
            &discard,
        ),
    }
}

fn no_check(_: &Pending, _: &Message) -> Result<DkimFacts, String> {
    Err("nothing is to be checked".to_owned())
}

/// Signatures are looked up in this zone.
fn by(zone: &Zone) -> impl Fn(&Pending, &Message) -> Result<DkimFacts, String> {
    |pending, message| {
        verify(message, pending, || {
            Ok(Arc::new(zone.clone()) as Arc<dyn Resolve>)
        })
    }
}

fn words(answer: &Answer) -> (bool, &'static str, Option<&'static str>) {
    (answer.accepted, answer.verdict, answer.reason)
}

#[test]
fn proven_mail_shows_its_evidence_and_no_secret() {
    let answer = Bench::new([contoso(), fabrikam()])
        .ask(GOOD, |_| ())
        .unwrap();
    insta::assert_snapshot!(answer.to_string(), @r#"
    EVIDENCE           STATE      NAMES            SEEN
    network            matches    -                40.93.214.103
    certificate        matches    -                mail.protection.outlook.com
    xoorg              absent     -                -
    originator_org     matches    contoso          contoso.com
    cross_tenant_id    matches    contoso          11111111-2222-3333-4444-555555555555
    connecting_ip      absent     -                -
    secret_header      matches    contoso          -
    dkim               absent     -                -
    envelope_sender    matches    contoso          ada@contoso.com
    header_sender      matches    contoso          ada@contoso.com

    verdict: proven (contoso)
    reason:  proven mail of contoso
    "#);
    let json = serde_json::to_string(&answer).unwrap();
    assert!(
        !json.contains("gate-contoso") && json.contains(r#""accepted":true"#),
        "{json}"
    );
}

#[test]
fn only_proven_mail_is_accepted() {
    let bench = Bench::new([contoso()]);
    let says = |message: &str, change: &dyn Fn(&mut Question<'_>)| {
        words(&bench.ask(message, |q| change(q)).unwrap())
    };
    let refused = |reason| (false, "refused", Some(reason));
    assert_eq!(says(GOOD, &|_| ()), (true, "proven", None));
    assert_eq!(
        says(GOOD, &|q| q.from = "192.0.2.1".parse().unwrap()),
        refused("half_proven_defer")
    );
    assert_eq!(
        says(GOOD, &|q| q.certificate = None),
        refused("half_proven_defer")
    );
    let stranger = |q: &mut Question<'_>| {
        q.from = "192.0.2.1".parse().unwrap();
        q.certificate = None;
    };
    assert_eq!(says(GOOD, &stranger), refused("stranger"));
    assert_eq!(
        says(GOOD, &|q| q.xoorg = Some("evil.example")),
        refused("unknown_xoorg")
    );
    assert_eq!(
        says(GOOD, &|q| q.xoorg = Some("contoso.com")),
        (true, "proven", None)
    );
    assert_eq!(
        says(GOOD, &|q| q.mail_from = "x@evil.example"),
        refused("foreign_envelope_sender")
    );
    assert_eq!(says(GOOD, &|q| q.mail_from = "<>"), (true, "proven", None));
    assert_eq!(
        says(&GOOD.replace("\r\n", "\n"), &|_| ()),
        (true, "proven", None)
    );
    assert_eq!(
        says(&GOOD.replacen("\r\n", "\n", 1), &|_| ()),
        refused("malformed_header")
    );
    let received = "Received: x\r\n".repeat(51);
    assert_eq!(
        says(&format!("{received}{GOOD}"), &|_| ()),
        refused("too_many_hops")
    );
    assert_eq!(
        says(
            &format!("X-Gatepost-Processed: loop-contoso\r\n{GOOD}"),
            &|_| ()
        ),
        refused("loop")
    );
    let large = format!("X: {}\r\n{GOOD}", "x".repeat(MAX_HEADER));
    assert_eq!(says(&large, &|_| ()), refused("malformed_header"));
}

#[test]
fn reported_mail_is_not_proven() {
    let bench = Bench::new([Tenant {
        gate: Gate::Report { until: NOW + 1 },
        ..contoso()
    }]);
    let answer = bench.ask("From: ada@contoso.com\r\n\r\n", |_| ()).unwrap();
    assert_eq!(words(&answer), (false, "reported", Some("no_tenant")));
}

#[test]
fn a_signature_that_decides_is_looked_up_or_said_to_be_missing() {
    let bench = Bench::new([contoso()]);
    let refused = |reason| (false, "refused", Some(reason));
    for (zone, expected, seen) in [
        (
            Zone::new(),
            refused("too_few_proofs"),
            "contoso.com: no such key",
        ),
        (
            Zone::new().broken("s1._domainkey.contoso.com"),
            refused("signature_unavailable"),
            "contoso.com: cannot be checked now: no answer",
        ),
        (
            Zone::new().text(
                "s1._domainkey.contoso.com",
                include_str!("../../../tests/data/dkim-test.txt"),
            ),
            refused("too_few_proofs"),
            "contoso.com: Calculated body hash does not match signature hash",
        ),
    ] {
        let answer = bench.ask_with(SIGNED, |_| (), &by(&zone)).unwrap();
        assert_eq!(words(&answer), expected);
        let text = answer.to_string();
        assert!(text.contains(seen), "{text}");
    }
    let verified = |pending: &Pending, _: &Message| {
        let facts = vec![SignatureFact::Verified; pending.signatures().len()];
        Ok(DkimFacts(facts))
    };
    let answer = bench.ask_with(SIGNED, |_| (), &verified).unwrap();
    assert_eq!(words(&answer), (true, "proven", None));
}

#[test]
fn wrong_arguments_are_said() {
    let bench = Bench::new([contoso()]);
    let missing = bench.folder.path().join("missing");
    assert!(
        bench
            .ask(GOOD, |q| q.mail_from = "nobody")
            .unwrap_err()
            .contains("--mail-from")
    );
    assert!(
        bench
            .ask(GOOD, |q| q.xoorg = Some("a..b"))
            .unwrap_err()
            .contains("--xoorg")
    );
    let no_pem = &bench.message;
    for bad in [missing.as_path(), no_pem] {
        let asked = bench.ask(GOOD, |q| (q.certificate, q.mail_from) = (Some(bad), ""));
        assert!(asked.is_err());
    }
}

/// What stands below the evidence.
fn told(answer: &Answer) -> String {
    let text = answer.to_string();
    let (_, told) = text.split_once("\n\n").unwrap();
    told.to_owned()
}

#[test]
fn refused_for_now_is_told_apart_from_refused() {
    let bench = Bench::new([contoso()]);
    let no_certificate = bench.ask(GOOD, |q| q.certificate = None).unwrap();
    insta::assert_snapshot!(told(&no_certificate), @"
    verdict: refused for now
    reason:  half_proven_defer: only one of source address and client certificate is Exchange Online's
    reply:   451 4.7.1: who sent it keeps the mail and tries again
    hint:    --certificate was not given, which counts as a peer that shows none: give the chain that it showed
    ");
    let elsewhere = bench
        .ask(GOOD, |q| q.from = "192.0.2.1".parse().unwrap())
        .unwrap();
    insta::assert_snapshot!(told(&elsewhere), @"
    verdict: refused for now
    reason:  half_proven_defer: only one of source address and client certificate is Exchange Online's
    reply:   451 4.7.1: who sent it keeps the mail and tries again
    hint:    is --from the address that connected? Then Microsoft may have new ones: renew the file of exchange_online.endpoints, or add the block to networks
    ");
    let unproven = bench.ask("From: ada@contoso.com\r\n\r\n", |_| ()).unwrap();
    insta::assert_snapshot!(told(&unproven), @"
    verdict: refused
    reason:  no_tenant: nothing names a configured tenant
    reply:   550 5.7.64: given up, who sent it gets a report
    hint:    is it a configured tenant's mail? Then compare what was seen with its tenant_id, originator_orgs and secret_header
    ");
    let strict = Bench {
        exchange_online: ExchangeOnline {
            half_proven: HalfProven::Refuse,
            ..bench.exchange_online.clone()
        },
        ..bench
    };
    let refused = strict.ask(GOOD, |q| q.certificate = None).unwrap();
    insta::assert_snapshot!(told(&refused), @"
    verdict: refused
    reason:  half_proven_refuse: only one of source address and client certificate is Exchange Online's
    reply:   550 5.7.1: given up, who sent it gets a report
    hint:    --certificate was not given, which counts as a peer that shows none: give the chain that it showed
    ");
    for (answer, temporary, reply) in [
        (&no_certificate, true, "451 4.7.1"),
        (&unproven, false, "550 5.7.64"),
        (&refused, false, "550 5.7.1"),
    ] {
        let json = serde_json::to_value(answer).unwrap();
        assert_eq!(json["temporary"], temporary);
        assert_eq!(json["reply"], reply);
        assert_eq!(json["verdict"], "refused");
    }
    let proven = serde_json::to_value(strict.ask(GOOD, |_| ()).unwrap()).unwrap();
    assert!(proven["reply"].is_null() && proven["temporary"] == false);
}

#[test]
fn a_signature_that_was_not_looked_up_is_said_to_be_so() {
    let bench = Bench::new([contoso()]);
    let check = |pending: &Pending, _: &Message| Ok(not_asked(pending));
    let answer = bench.ask_with(SIGNED, |_| (), &check).unwrap();
    insta::assert_snapshot!(told(&answer), @"
    verdict: refused for now (contoso)
    reason:  signature_unavailable: a DKIM signature decides, and it was not looked up, for --dns was not given: it counts as one that cannot be looked up
    reply:   451 4.7.5: who sent it keeps the mail and tries again
    hint:    ask again with --dns
    ");
    assert!(answer.to_string().contains("looked up with --dns only"));
}

#[test]
fn a_file_of_lf_lines_is_judged_as_it_was_on_the_wire() {
    let bench = Bench::new([contoso()]);
    let letter = "From: ada@contoso.com\r\nX-OriginatorOrg: contoso.com\r\nSubject: two\r\n\tlines\r\n\r\nHello\r\n\r\nworld\r\n";
    let (signed, zone) = crate::mailauth::tests::signed(letter);
    let says = |octets: &str| {
        let asked = bench.ask_with(octets, |q| q.dns = true, &by(&zone));
        asked.unwrap()
    };
    let wire = says(&signed);
    assert_eq!(words(&wire), (true, "proven", None), "{wire}");
    assert!(!wire.to_string().contains("note:"), "{wire}");
    let saved = says(&signed.replace("\r\n", "\n"));
    assert_eq!(words(&saved), (true, "proven", None), "{saved}");
    insta::assert_snapshot!(told(&saved), @"
    verdict: proven (contoso)
    reason:  proven mail of contoso
    note:    every line of the file ends in LF: read with CRLF, as on the wire
    ");
    assert_eq!(serde_json::to_value(&saved).unwrap()["line_ends"], "lf");
    // A body that the tool changed otherwise is not the one that was signed, and a mixed header section is none.
    let changed = signed.replace("\r\n", "\n").replacen("world", "World", 1);
    assert_eq!(
        words(&says(&changed)),
        (false, "refused", Some("too_few_proofs"))
    );
    let mixed = says(&signed.replacen("contoso.com\r\nSubject", "contoso.com\nSubject", 1));
    assert_eq!(words(&mixed), (false, "refused", Some("malformed_header")));
    insta::assert_snapshot!(told(&mixed), @"
    verdict: refused
    reason:  malformed_header: line 9: a LF without CR in the header section
    reply:   554 5.6.0: given up, who sent it gets a report
    hint:    the file has lines that end in LF and lines that end in CRLF. If a tool made it so, put it right (unix2dos FILE) and ask again; if it came so over the wire, who sent it must write CRLF
    ");
}

#[test]
fn what_no_listener_would_carry_is_not_accepted() {
    let mut bench = Bench::new([contoso()]);
    let large = GOOD.replace("body\n", &"x".repeat(3000));
    let bare = GOOD.replace("body\n", "a\nb\r\n");
    let own = "O365ConnectorValidation@contoso.com";
    let validation = GOOD.replace("ada@contoso.com", own);
    let validation = validation.replace("body\n", &"x".repeat(70_000));
    let ask = |bench: &Bench, message: &str| {
        let sender = if message.contains(own) {
            own
        } else {
            "ada@contoso.com"
        };
        bench.ask(message, |q| q.mail_from = sender).unwrap()
    };

    // Microsoft's connector check is small, whatever the listener takes.
    let answer = ask(&bench, &validation);
    assert_eq!(words(&answer), (false, "refused", Some("validation_size")));
    insta::assert_snapshot!(told(&answer), @"
    verdict: refused (contoso)
    reason:  validation_size: connector validation mail may have 65536 octets, this has 70179
    reply:   552 5.3.4: given up, who sent it gets a report
    ");
    let answer = ask(&bench, &validation.replace(&"x".repeat(10_000), ""));
    assert_eq!(words(&answer), (true, "validation", None));

    // Every listener, then all but one.
    bench.listeners = vec![listener("one", 2000, &[])];
    insta::assert_snapshot!(told(&ask(&bench, &large)), @"
    verdict: refused (contoso)
    reason:  message_size: the message is larger than max_message_size, 2000 octets
    reply:   552 5.3.4: given up, who sent it gets a report
    hint:    raise max_message_size of the listener, if such mail is to pass
    ");
    bench.listeners.push(listener("two", 2500, &["CHUNKING"]));
    insta::assert_snapshot!(told(&ask(&bench, &large)), @"
    verdict: refused (contoso)
    reason:  message_size: no connector listener takes it, see each below
    reply:   552 5.3.4: given up, who sent it gets a report
    hint:    raise max_message_size of the listener, if such mail is to pass
    note:    listener one answers 552 5.3.4: the message is larger than max_message_size, 2000 octets
    note:    listener two answers 552 5.3.4: the message is larger than max_message_size, 2500 octets
    ");
    bench.listeners.push(listener("three", 4000, &[]));
    let answer = ask(&bench, &large);
    assert_eq!(words(&answer), (true, "proven", None));
    insta::assert_snapshot!(told(&answer), @"
    verdict: proven (contoso)
    reason:  proven mail of contoso
    note:    listener one answers 552 5.3.4: the message is larger than max_message_size, 2000 octets
    note:    listener two answers 552 5.3.4: the message is larger than max_message_size, 2500 octets
    ");
    let json = serde_json::to_value(&answer).unwrap();
    assert_eq!(json["refused_by"][0]["listener"], "one");
    assert_eq!(json["refused_by"][1]["reply"], "552 5.3.4");

    // By BDAT a bare newline passes; where every listener leaves DATA alone, it does not.
    assert_eq!(words(&ask(&bench, &bare)), (true, "proven", None));
    insta::assert_snapshot!(told(&ask(&bench, &bare)), @"
    verdict: proven (contoso)
    reason:  proven mail of contoso
    note:    listener two answers 554 5.6.0: the body has a bare CR or LF, which DATA does not carry, and ehlo_discard has CHUNKING
    ");
    bench.listeners = vec![listener("two", 2500, &["chunking"])];
    let answer = ask(&bench, &bare);
    assert_eq!(words(&answer), (false, "refused", Some("bare_newline")));
    insta::assert_snapshot!(told(&answer), @"
    verdict: refused (contoso)
    reason:  bare_newline: the body has a bare CR or LF, which DATA does not carry, and ehlo_discard has CHUNKING
    reply:   554 5.6.0: given up, who sent it gets a report
    hint:    take CHUNKING out of ehlo_discard: by BDAT such a body passes as it is
    ");
    assert_eq!(
        words(&ask(&bench, &bare.replace("a\n", "a"))),
        (true, "proven", None)
    );

    // XOORG where it is not offered is a parameter that nobody knows.
    bench.listeners = vec![listener("one", 1 << 20, &["xoorg"])];
    let with = |q: &mut Question<'_>| q.xoorg = Some("contoso.com");
    assert_eq!(words(&ask(&bench, GOOD)), (true, "proven", None));
    insta::assert_snapshot!(told(&bench.ask(GOOD, with).unwrap()), @"
    verdict: refused (contoso)
    reason:  unknown_parameter: MAIL has XOORG, which this listener does not offer: ehlo_discard has it
    reply:   555 5.5.4: given up, who sent it gets a report
    hint:    leave --xoorg out: who is not offered XOORG does not send it
    ");
    bench.listeners.push(listener("two", 1 << 20, &[]));
    insta::assert_snapshot!(told(&bench.ask(GOOD, with).unwrap()), @"
    verdict: proven (contoso)
    reason:  proven mail of contoso
    note:    listener one answers 555 5.5.4: MAIL has XOORG, which this listener does not offer: ehlo_discard has it
    ");

    // An application's listener takes none of Exchange's mail.
    bench.listeners.clear();
    let answer = ask(&bench, GOOD);
    assert_eq!(words(&answer), (false, "refused", Some("no_listener")));
    insta::assert_snapshot!(told(&answer), @r#"
    verdict: refused (contoso)
    reason:  no_listener: no listener has service = "connector": nobody takes mail of Exchange
    "#);
}

/// A printer that is known by its address is a stranger to a connector listener, and is told from one.
#[test]
fn the_address_of_an_application_is_told_with_what_a_submission_listener_makes_of_its_mail() {
    let mut bench = Bench::new([contoso()]);
    let tenant = bench.tenants.named("contoso").unwrap();
    let account = Arc::new(Account {
        application: application(tenant, &["printer@contoso.com"], true),
        password_hash: None,
        networks: vec!["127.0.0.9/32".parse().unwrap()],
        rate: None,
    });
    let with_login = Arc::new(Account {
        application: Arc::new(crate::trust::Application {
            name: "crm".into(),
            username: Some("crm".to_owned()),
            ..(*application(tenant, &["crm@contoso.com", "*@erp.contoso.com"], true)).clone()
        }),
        networks: vec!["127.0.0.0/28".parse().unwrap()],
        ..(*account).clone()
    });
    bench.submission = Submission {
        accounts: Accounts::new(vec![account, with_login], [0; 32]),
        listeners: vec!["apps".into(), "printers".into()],
    };
    let scan = "From: printer@contoso.com\r\n\r\nscan\r\n";
    let ask = |message: &str, from: &str, sender: &'static str| {
        let change = |q: &mut Question<'_>| {
            (q.from, q.certificate, q.mail_from) = (from.parse().unwrap(), None, sender);
        };
        bench.ask(message, change).unwrap()
    };
    let taken = ask(scan, "127.0.0.9", "printer@contoso.com");
    assert_eq!(words(&taken), (false, "refused", Some("stranger")));
    insta::assert_snapshot!(told(&taken), @"
    verdict: refused
    reason:  stranger: neither source address nor client certificate is Exchange Online's
    reply:   550 5.7.1: given up, who sent it gets a report
    note:    connector listeners are judged here, and 127.0.0.9 is application erp's (networks), whose `senders` hold --mail-from: a submission listener (apps, printers) takes this mail as the application's
    ");
    let json = serde_json::to_value(&taken).unwrap();
    assert_eq!(json["application"]["name"], "erp");
    assert_eq!(json["application"]["accepted"], true);
    insta::assert_snapshot!(told(&ask(scan, "::ffff:127.0.0.9", "erp@contoso.com")), @"
    verdict: refused
    reason:  stranger: neither source address nor client certificate is Exchange Online's
    reply:   550 5.7.1: given up, who sent it gets a report
    note:    connector listeners are judged here, and 127.0.0.9 is application erp's (networks), whose `senders` do not hold --mail-from: a submission listener (apps, printers) answers 550 5.7.1: the application may not use this envelope sender; add the address to `senders` of the [[application]], if it may write as that; else let it use one of those
    ");
    let other = ask(
        &scan.replace("printer@", "boss@"),
        "127.0.0.9",
        "printer@contoso.com",
    );
    let json = serde_json::to_value(&other).unwrap();
    assert_eq!(json["application"]["senders_hold"], true);
    assert_eq!(json["application"]["reason"], "from_not_allowed");
    assert_eq!(json["application"]["reply"], "550 5.7.1");
    // Who logs in may send from where it may log in.
    let note = "this envelope sender is in the `senders` of crm, which may use it once logged in";
    for (from, sender, told) in [
        ("127.0.0.9", "crm@contoso.com", true),
        ("127.0.0.8", "crm@contoso.com", true),
        ("127.0.0.16", "crm@contoso.com", false),
        ("127.0.0.8", "eve@contoso.com", false),
        ("127.0.0.9", "printer@contoso.com", false),
    ] {
        let answer = ask(scan, from, sender);
        assert_eq!(answer.to_string().contains(note), told, "{from} {sender}");
        assert_eq!(answer.logins.is_some(), told);
    }
    // Nobody's address is as it was.
    let stranger = ask(scan, "127.0.0.8", "printer@contoso.com");
    assert!(stranger.application.is_none());
    assert!(stranger.to_string().contains("--certificate was not given"));
}
