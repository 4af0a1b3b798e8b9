//! The header section: where it ends, what it holds, and what of it leaves by which path.

use super::naive;
use super::world::{CONTOSO, FABRIKAM, HOSTNAME, NOW_SECONDS, world};
use gatepost::cli::explain_headers;
use gatepost::exchange::promotion::{self, Facts, Reading};
use gatepost::header::{
    self, Examined, HeaderFault, MAX_HEADER, Progress, ReceivedFacts, Splitter,
};
use gatepost::mail::{Envelope, QueueId};
use gatepost::route::{Path, Via};
use gatepost::trust::certificate::ClientCertificate;
use gatepost::trust::{self, Class, Gate, Peer, Settlement, Tenant, Tenants, Verdict};
use std::sync::{Arc, OnceLock};

/// A header as somebody copied it, as `explain headers` reads it. What is made of it is a header section that reads again
/// as the same; internal is only what says so in a field that counts; no loop value is shown, and nothing acts on a terminal.
pub fn pasted(octets: &[u8]) {
    if let Some(section) = header::pasted(octets) {
        let examined = header::examine(&section).expect("a header section");
        assert!(examined.is_ended() && examined.fields().count() > 0);
        assert_eq!(header::pasted(&section), Some(section));
    }
    // ASCII reads the same in UTF-16 without its mark.
    if octets.is_ascii() && octets.len() >= 4 && !octets.contains(&0) {
        let wide = |little: bool| -> Vec<u8> {
            let pair = |octet: &u8| if little { [*octet, 0] } else { [0, *octet] };
            octets.iter().flat_map(pair).collect()
        };
        for wide in [wide(true), wide(false)] {
            if wide.len() <= header::MAX_PASTED {
                assert_eq!(header::pasted(&wide), header::pasted(octets));
            }
        }
    }
    let Some(examined) = explain_headers::examined(octets) else {
        assert!(explain_headers::answer_to(octets, false).is_err());
        return;
    };
    let settings = &world().settings;
    let tenant = promotion::tenant_of(&examined, &settings.tenants);
    let facts = Facts {
        tenants: Some(&settings.tenants),
        hostname: Some(&settings.hostname),
        tenant: tenant.as_deref(),
        promotes: Some(true),
        ..Facts::default()
    };
    for facts in [facts, Facts::default()] {
        for reading in [None, Some(Reading::OnItsWay), Some(Reading::Mailbox)] {
            let told = promotion::judge(&examined, reading, &facts);
            let text = format!("{}\n{:?}", told.sentence(), told.rows);
            assert!(!told.sentence().contains(char::is_control), "{text}");
            let says = examined.fields().any(|field| {
                let name = field.name().to_ascii_lowercase();
                let counts = name.starts_with("x-ms-exchange-cross")
                    || name.starts_with("x-ms-exchange-organization-");
                counts
                    && name.ends_with("-authas")
                    && field.text().eq_ignore_ascii_case(b"internal")
            });
            assert!(told.internal != Some(true) || says, "{text}");
            // What decides stands once, and on its way a stamp as well.
            let count = |name: &str| {
                let named = |field: &header::Field<'_>| field.name().eq_ignore_ascii_case(name);
                examined.fields().filter(named).count()
            };
            let [inside, exit, crossing] = ["Organization", "CrossTenant", "CrossPremises"]
                .map(|family| count(&format!("X-MS-Exchange-{family}-AuthAs")));
            let once = match told.reading {
                Reading::Mailbox => inside == 1 || inside == 0 && exit == 1,
                Reading::OnItsWay => {
                    let stamps = [
                        count("X-OriginatorOrg"),
                        count("X-MS-Exchange-CrossTenant-Id"),
                    ];
                    crossing == 1 && stamps.contains(&1) && stamps.iter().all(|own| *own < 2)
                }
            };
            assert!(told.internal != Some(true) || once, "{text}");
            // By a configuration, each stamp names a tenant, and all the same.
            let all = |name: &str, fits: &dyn Fn(&str) -> bool| {
                let named = |field: &header::Field<'_>| field.name().eq_ignore_ascii_case(name);
                examined.fields().filter(named).all(|field| {
                    let text = String::from_utf8_lossy(&field.text()).to_ascii_lowercase();
                    fits(text.trim())
                })
            };
            let of = |domain: &str, id: &str| {
                let org = |text: &str| text == domain || text.ends_with(&format!(".{domain}"));
                all("X-OriginatorOrg", &org)
                    && all("X-MS-Exchange-CrossTenant-Id", &|text| text == id)
            };
            let one = of("contoso.com", CONTOSO) || of("fabrikam.com", FABRIKAM);
            let judged = facts.tenants.is_some() && told.reading == Reading::OnItsWay;
            assert!(told.internal != Some(true) || !judged || one, "{text}");
            let elsewhere = examined.fields().any(|field| {
                !naive::is_loop(field.name()) && naive::contains(&field.text(), b"contoso-loop")
            });
            // An escaped octet may end in the c of what follows (\x9contoso-loop), and parts nothing that stands together.
            let mut pieces = text.split("\\x");
            let mut plain = pieces.next().unwrap_or_default().to_owned();
            for piece in pieces {
                plain.push('?');
                plain.push_str(piece.get(2..).unwrap_or_default());
            }
            assert!(elsewhere || !plain.contains("contoso-loop"), "{text}");
        }
    }
    let (good, text) = explain_headers::answer_to(octets, false).expect("it has fields");
    let (again, json) = explain_headers::answer_to(octets, true).expect("it has fields");
    assert_eq!(good, again);
    assert!(
        !text.replace('\n', "").contains(char::is_control),
        "{text:?}"
    );
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json[0]["internal"] == true, good);
}

/// The first octet cuts, the rest is a message. What is taken has one reading: ours, that of a line reader, and that of
/// mail-parser, which reads as leniently as mail programs do.
pub fn examine(octets: &[u8]) {
    let Some((&seed, message)) = octets.split_first() else {
        return;
    };
    let whole = split(message, 0);
    assert_eq!(split(message, u64::from(seed) + 1), whole, "cut otherwise");
    let section = match whole {
        Ok(length) => {
            assert!(length <= message.len() && length <= MAX_HEADER);
            &message[..length]
        }
        Err(fault) => {
            assert_eq!(header::examine(message).err(), Some(fault));
            return;
        }
    };
    let examined = header::examine(section).expect("what the splitter takes is sound");
    assert_eq!(examined.bytes(), section);
    agrees_with_a_line_reader(&examined, message);
    agrees_with_mail_parser(&examined, message);
    mailboxes_are_in_the_text(&examined);
    drop((examined.message_id(), examined.network_message_id()));
}

pub(super) fn split(message: &[u8], seed: u64) -> Result<usize, HeaderFault> {
    let mut splitter = Splitter::default();
    for piece in naive::pieces(message, seed) {
        if let Progress::Complete { length } = splitter.push(piece)? {
            return Ok(length);
        }
    }
    splitter.finish()
}

fn agrees_with_a_line_reader(examined: &Examined, message: &[u8]) {
    let (fields, rest) = naive::fields(message);
    let names: Vec<String> = fields.iter().map(|field| field.name.clone()).collect();
    let ours: Vec<String> = examined
        .fields()
        .map(|field| field.name().to_ascii_lowercase())
        .collect();
    assert_eq!(ours, names);
    assert_eq!(examined.is_ended(), rest.starts_with(b"\r\n"));
    let mut at = 0;
    for (ours, theirs) in examined.fields().zip(&fields) {
        let range = ours.range();
        assert_eq!(range.start, at);
        assert_eq!(
            &message[range.start as usize..range.end as usize],
            theirs.octets
        );
        assert!(!ours.text().contains(&b'\n') && !ours.text().contains(&b'\r'));
        assert!(
            ours.name()
                .bytes()
                .all(|octet| (33..127).contains(&octet) && octet != b':')
        );
        at = range.end;
    }
    let ended = if examined.is_ended() { 2 } else { 0 };
    assert_eq!(at as usize + ended, examined.len());
}

/// A protected field that we do not see and a mail program does would be let in; one that only we see would be left out of
/// a message in which Exchange did not say it. Names of the other fields need not agree.
fn agrees_with_mail_parser(examined: &Examined, message: &[u8]) {
    let mut ours: Vec<String> = examined
        .fields()
        .map(|field| field.name().to_ascii_lowercase())
        .collect();
    ours.retain(|name| naive::is_protected(name));
    ours.sort();
    // With a map that is not empty, values are left as they stand; mail-parser's own reading of a date that is none may
    // take the next line with it.
    let plain = mail_parser::MessageParser::new()
        .header_raw("X-Gatepost-None")
        .default_header_raw();
    assert_eq!(ours, theirs(&plain, message));
    values_agree(&plain, examined, message);
    // That reading may see less, and never something that we do not; of the section alone, for such a date may take the
    // empty line, too, and then the body is read on.
    let mut left = ours;
    for name in theirs(&mail_parser::MessageParser::new(), examined.bytes()) {
        let at = left.iter().position(|own| *own == name);
        left.remove(at.expect("a protected field that we see, too"));
    }
}

/// What trust decides by says the same to others: the values of protected fields, in order, to mail-parser; whom From: names,
/// where it is written without comments, quotes, groups and encoded words, to somebody who looks for commas and brackets.
fn values_agree(plain: &mail_parser::MessageParser, examined: &Examined, message: &[u8]) {
    let text = |value: &[u8]| -> String {
        let unfolded: Vec<u8> = (value.iter().copied())
            .filter(|octet| !b"\r\n".contains(octet))
            .collect();
        let unfolded = String::from_utf8_lossy(&unfolded);
        unfolded.trim_matches([' ', '\t']).to_owned()
    };
    let ours = examined.fields().filter_map(|field| {
        let name = field.name().to_ascii_lowercase();
        naive::is_protected(&name).then(|| (name, text(field.value())))
    });
    let ours: Vec<(String, String)> = ours.collect();
    let parsed = plain.parse_headers(message);
    let headers = parsed.iter().flat_map(|message| message.headers());
    let theirs = headers.filter_map(|header| {
        let name = header.name.as_str().trim_matches([' ', '\t']);
        let name = name.to_ascii_lowercase();
        let value = header.value.as_text().unwrap_or_default();
        naive::is_protected(&name).then(|| (name, text(value.as_bytes())))
    });
    assert_eq!(ours, theirs.collect::<Vec<_>>());
    let Ok(own) = examined.mailboxes("From") else {
        return;
    };
    let Some(field) = examined.named("From").next() else {
        return;
    };
    let value = String::from_utf8_lossy(&field.unfolded()).into_owned();
    if value.contains(['"', '(', ')', '\\', ':', ';', '[', '=']) || !value.is_ascii() {
        return;
    }
    let address = |element: &str| -> Option<String> {
        let element = element.trim_matches([' ', '\t']);
        let address = match element.split_once('<') {
            Some((_, rest)) => rest.strip_suffix('>')?,
            None => element,
        };
        (!address.is_empty()).then(|| address.trim_matches([' ', '\t']).to_owned())
    };
    let theirs: Vec<String> = value.split(',').filter_map(address).collect();
    let ours: Vec<&str> = own.iter().map(|mailbox| mailbox.as_str()).collect();
    assert_eq!(ours, theirs, "{value:?}");
}

/// The protected names that mail-parser finds, sorted.
fn theirs(parser: &mail_parser::MessageParser, message: &[u8]) -> Vec<String> {
    let parsed = parser.parse_headers(message);
    let headers = parsed.iter().flat_map(|message| message.headers());
    let name = |header: &mail_parser::Header<'_>| {
        header
            .name
            .as_str()
            .trim_matches([' ', '\t'])
            .to_ascii_lowercase()
    };
    let mut names: Vec<String> = headers
        .map(name)
        .filter(|name| naive::is_protected(name))
        .collect();
    names.sort();
    names
}

/// Whom a field names stands in it, letter by letter.
fn mailboxes_are_in_the_text(examined: &Examined) {
    for name in ["From", "Sender", "Resent-From"] {
        let Ok(list) = examined.mailboxes(name) else {
            continue;
        };
        assert!(!list.is_empty());
        assert_eq!(examined.count(name), 1);
        let text = examined
            .named(name)
            .next()
            .expect("it stands once")
            .unfolded();
        for mailbox in list {
            assert!(
                naive::contains(&text, mailbox.as_str().as_bytes()),
                "{mailbox}"
            );
            assert_eq!(mailbox.as_str().parse().as_ref(), Ok(&mailbox));
        }
    }
}

/// Every verdict that there is, made by the gates.
fn verdicts() -> &'static [Verdict] {
    static VERDICTS: OnceLock<Vec<Verdict>> = OnceLock::new();
    VERDICTS.get_or_init(|| {
        let settings = &world().settings;
        let tenants = &settings.tenants;
        let contoso = tenants.named("contoso").expect("contoso");
        let envelope = |sender: &str| Envelope {
            reverse_path: sender.parse().expect("a sender"),
            recipients: Vec::new(),
            body: None,
            smtputf8: false,
            ret: None,
            envid: None,
            xoorg: None,
        };
        let peer = Peer {
            network: true,
            certificate: ClientCertificate::Verified {
                name: "mail.protection.outlook.com".into(),
            },
        };
        let proven = |sender: &str, message: &str| {
            let envelope = envelope(sender);
            let candidates = trust::candidates(tenants, &envelope.reverse_path, None, NOW_SECONDS).expect("candidates");
            let examined = header::examine(message.as_bytes()).expect("sound");
            match trust::settle(tenants, &candidates, &peer, &envelope, &examined, NOW_SECONDS) {
                Settlement::Settled(verdict) => verdict,
                other => panic!("{other:?}"),
            }
        };
        let mut verdicts = vec![
            proven(
                "ada@contoso.com",
                "From: ada@contoso.com\r\nX-OriginatorOrg: contoso.com\r\nX-contoso-Gate: contoso-secret\r\n\r\n",
            ),
            proven(
                "O365ConnectorValidation@contoso.com",
                "From: O365ConnectorValidation@contoso.com\r\nX-OriginatorOrg: contoso.com\r\n\
                 X-MS-Exchange-CrossTenant-Id: 11111111-2222-3333-4444-555555555555\r\n\r\n",
            ),
            trust::own(contoso),
        ];
        for account in &settings.accounts {
            let application = &account.application;
            let envelope = envelope("scanner@contoso.com");
            let examined = header::examine(b"From: scanner@contoso.com\r\n\r\n").expect("sound");
            match trust::application(application, &envelope, &examined) {
                Settlement::Settled(verdict) => verdicts.push(verdict),
                other => panic!("{other:?}"),
            }
        }
        assert!(matches!(verdicts[0].class(), Class::Proven { .. }));
        assert!(matches!(verdicts[1].class(), Class::Validation { .. }));
        verdicts.push(reported(contoso, &peer, &envelope("ada@contoso.com")));
        verdicts
    })
}

/// What a gate that only reports lets in without a proof.
fn reported(contoso: &Tenant, peer: &Peer, envelope: &Envelope) -> Verdict {
    let reporting = Tenant {
        gate: Gate::Report { until: u64::MAX },
        ..contoso.clone()
    };
    let tenants = Tenants::new(vec![Arc::new(reporting)]);
    let candidates = trust::candidates(&tenants, &envelope.reverse_path, None, NOW_SECONDS);
    let examined = header::examine(b"From: ada@contoso.com\r\n\r\n").expect("sound");
    let candidates = candidates.expect("candidates");
    match trust::settle(
        &tenants,
        &candidates,
        peer,
        envelope,
        &examined,
        NOW_SECONDS,
    ) {
        Settlement::Settled(verdict) if matches!(verdict.class(), Class::Reported { .. }) => {
            verdict
        }
        other => panic!("{other:?}"),
    }
}

/// A message, by every verdict and path: exactly what must leave leaves, everything else stays byte for byte, on top
/// stand whole fields, and no secret rests in what is kept.
pub fn rendition(message: &[u8]) {
    let Ok(examined) = split(message, 0).and_then(|length| header::examine(&message[..length]))
    else {
        return;
    };
    let tenants = &world().settings.tenants;
    for verdict in verdicts() {
        for via in [Via::Exchange, Via::Mx, Via::Relay("upstream".into())] {
            let inside = via.is_internal();
            let stamped = matches!(verdict.class(), Class::Application { application } if application.internal);
            let path = Path {
                via,
                stamped,
                recipients: vec![0],
            };
            let made = header::rendition(&examined, verdict, tenants, &path, &received());
            let out = made.apply(message);
            assert_eq!(out.len() as u64, made.size(message.len() as u64));
            let (top, rest) = out.split_at(made.prepend.len());
            let leaves = |name: &str| match (verdict.class(), inside) {
                (Class::Proven { .. }, true) => name == "x-contoso-gate",
                (Class::Proven { .. }, false) | (Class::Validation { .. }, _) => {
                    naive::is_internal(name)
                }
                (Class::Application { .. }, _) => {
                    naive::is_protected(name) || naive::is_blind(name)
                }
                (Class::Reported { .. } | Class::Own, _) => naive::is_protected(name),
            };
            assert!(
                rest == naive::without(message, leaves),
                "{:?} inside {inside}",
                verdict.class()
            );
            assert_top(top, &examined, verdict, inside, stamped);
            // What was made is sound in itself, and its body begins where that of the arrival does.
            let again = header::examine(&out).expect("a rendition has a sound header section");
            assert_eq!(out.len() - again.len(), message.len() - examined.len());
        }
        assert_blanked(message, &examined, verdict);
        assert_removed_names(&examined, verdict);
    }
    assert_returned(&examined);
}

fn received() -> ReceivedFacts<'static> {
    ReceivedFacts {
        by: HOSTNAME,
        helo: "peer",
        from_address: None,
        application: Some("erp"),
        with: "ESMTPS",
        tls: None,
        id: QueueId::from_u64(7),
        unix_seconds: NOW_SECONDS,
    }
}

fn assert_top(top: &[u8], examined: &Examined, verdict: &Verdict, inside: bool, stamped: bool) {
    let (fields, rest) = naive::fields(top);
    assert!(rest.is_empty() && top.ends_with(b"\r\n"));
    let names: Vec<&str> = fields.iter().map(|field| field.name.as_str()).collect();
    let mut expected = vec!["received"];
    if inside {
        expected.push("x-gatepost-processed");
        if stamped {
            expected.extend([
                "x-ms-exchange-crosspremises-authas",
                "x-ms-exchange-crosspremises-authmechanism",
                "x-ms-exchange-crosspremises-authsource",
                "x-originatororg",
            ]);
        }
    }
    if matches!(verdict.class(), Class::Application { .. }) {
        for name in ["date", "message-id"] {
            if !examined.has(name) {
                expected.push(name);
            }
        }
    }
    assert_eq!(names, expected);
}

/// In what the journal keeps, no secret value rests that leaves on every path; nothing else was touched.
fn assert_blanked(message: &[u8], examined: &Examined, verdict: &Verdict) {
    let tenants = &world().settings.tenants;
    let mut kept = message[..examined.len()].to_vec();
    header::blank_secrets(examined, verdict, tenants, &mut kept);
    let (before, after) = (
        naive::fields(&message[..examined.len()]),
        naive::fields(&kept),
    );
    assert_eq!(before.0.len(), after.0.len());
    for (before, after) in before.0.iter().zip(&after.0) {
        let own = naive::is_secret(&before.name) || naive::is_loop(&before.name);
        let blanked = match verdict.class() {
            // A neighbour's markers go back as they came.
            Class::Proven { .. } => before.name == "x-contoso-gate",
            _ => own,
        };
        assert_eq!(before.octets.len(), after.octets.len());
        if !blanked {
            assert_eq!(before.octets, after.octets);
            continue;
        }
        let value = after
            .octets
            .iter()
            .skip_while(|octet| **octet != b':')
            .skip(1);
        assert!(
            value.clone().all(|octet| b"-\r\n \t".contains(octet)),
            "{:?}",
            after.name
        );
    }
}

fn assert_removed_names(examined: &Examined, verdict: &Verdict) {
    let names = header::removed_names(examined, verdict, &world().settings.tenants);
    let trusted = matches!(
        verdict.class(),
        Class::Proven { .. } | Class::Validation { .. }
    );
    if trusted {
        assert!(names.is_empty());
        return;
    }
    // Names that differ behind what a line shows of them are told once.
    let mut expected: Vec<String> = Vec::new();
    for field in examined.fields() {
        let told = gatepost::mail::shown(field.name().as_bytes()).to_ascii_lowercase();
        if naive::is_protected(&field.name().to_ascii_lowercase()) && !expected.contains(&told) {
            expected.push(told);
        }
    }
    expected.truncate(50);
    let names: Vec<String> = names.iter().map(|name| name.to_ascii_lowercase()).collect();
    assert_eq!(names, expected);
}

/// What a report may show holds nothing protected, and of an application's mail nobody blind.
fn assert_returned(examined: &Examined) {
    use gatepost::route::From;
    for from in [From::Connector, From::Submission] {
        let shown = header::returned(
            b"Received: x\r\n",
            examined.bytes(),
            from,
            &world().settings.tenants,
        );
        let shown = shown.expect("both are sound");
        for field in naive::fields(&shown).0 {
            let name = field.name.as_str();
            let hidden = match from {
                From::Connector => naive::is_protected(name),
                From::Submission => naive::is_protected(name) || naive::is_blind(name),
            };
            assert!(!hidden, "{name}");
        }
    }
}
