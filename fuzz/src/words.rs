//! The words of the trade: commands, addresses, replies, SASL, DSN parameters.

use gatepost::cli::explain_reply;
use gatepost::dialogue::{self, NextHop, Outcome};
use gatepost::dsn::{Fate, Kind, Report, Returned, Source};
use gatepost::mail::{
    Domain, DomainPattern, Mailbox, MailboxPattern, QueueId, Recipient, ReversePath, Secret,
};
use gatepost::smtp::command::{Command, ForwardPath, Xoorg};
use gatepost::smtp::extension::Offered;
use gatepost::smtp::reply::{self, MAX_REPLY};
use gatepost::smtp::{decode_xtext, encode_xtext, sasl};

/// A text that somebody copied, as `explain reply` reads it: codes are codes that stand there, one reply has one answer on
/// each path, none of a report's is left out, and nothing of the text can act on a terminal.
pub fn said(octets: &[u8]) {
    let (text, each) = explain_reply::read(octets);
    assert!(!each.is_empty() || dialogue::said(&text).is_none());
    for own in &each {
        let said = &own.said;
        let digits = |number: u16| octets_hold(&text, &number.to_string());
        assert!(said.code.is_none_or(digits), "{said:?}");
        let recipient = own.recipient.iter().any(|it| it.contains(char::is_control));
        assert!(
            !said.text.contains(char::is_control) && !recipient,
            "{own:?}"
        );
    }
    for next_hop in [
        None,
        Some(NextHop::Exchange),
        Some(NextHop::Mx),
        Some(NextHop::Relay),
    ] {
        let mut good = !each.is_empty();
        let mut steps = false;
        for own in &each {
            let said = &own.said;
            let Ok(told) = explain_reply::explained(said, next_hop, None) else {
                let is_step =
                    |code: u16| code / 100 == 3 || code / 100 == 2 && said.phase.is_some();
                assert!(said.code.is_some_and(is_step), "{said:?}");
                steps = true;
                continue;
            };
            assert!(!told.meaning.is_empty() && !told.advice.is_empty());
            let granted = told.reply.class() == 2 && !said.is_no_consent_to(said.phase);
            assert_eq!(granted, told.outcome == Outcome::Delivered);
            let held = matches!(told.outcome, Outcome::Held(_));
            assert!(
                !held || next_hop.is_none_or(|own| own == NextHop::Exchange),
                "strangers are never held for"
            );
            good &= !told.is_bad_news();
        }
        for json in [false, true] {
            let told = explain_reply::told(octets, next_hop, None, json);
            assert_eq!(told.is_err(), each.is_empty() || steps);
            let Ok((well, text)) = told else {
                continue;
            };
            assert_eq!(well, good);
            let bare = text.replace('\n', "");
            assert!(!bare.contains(char::is_control), "{text:?}");
        }
    }
}

fn octets_hold(octets: &[u8], text: &str) -> bool {
    octets
        .windows(text.len())
        .any(|window| window == text.as_bytes())
}

/// A command line means one thing: what was read of its addresses reads again as the same, and nothing that was read can
/// begin a line or a parameter of its own.
pub fn command(line: &[u8]) {
    let Ok(command) = Command::parse(line) else {
        return;
    };
    match command {
        Command::Ehlo(name) | Command::Helo(name) => {
            assert!(
                !name.is_empty() && !name.contains(char::is_control),
                "{name:?}"
            );
        }
        Command::Mail(mail) => {
            let text = mail.reverse_path.to_string();
            assert_one_line(&text);
            assert_eq!(text.parse::<ReversePath>().as_ref(), Ok(&mail.reverse_path));
            if let Some(Xoorg::Domain(org)) = &mail.xoorg {
                assert_eq!(org.as_str().parse::<Domain>().as_ref(), Ok(org));
            }
            if let Some(id) = &mail.envid {
                assert!(decode_xtext(id).is_some() && !id.contains(' '), "{id:?}");
            }
            // Read once more from what it means, it is the same.
            let again = Command::parse(format!("MAIL FROM:<{text}>").as_bytes());
            let Ok(Command::Mail(again)) = again else {
                panic!("{text:?}: {again:?}");
            };
            assert_eq!(again.reverse_path, mail.reverse_path);
        }
        Command::Rcpt(rcpt) => {
            if let Some(original) = &rcpt.orcpt {
                assert_one_line(original);
                assert!(!original.contains(' '), "{original:?}");
            }
            let ForwardPath::Mailbox(mailbox) = &rcpt.forward_path else {
                return;
            };
            assert_mailbox(mailbox);
            let again = Command::parse(format!("RCPT TO:<{mailbox}>").as_bytes());
            let Ok(Command::Rcpt(again)) = again else {
                panic!("{mailbox}: {again:?}");
            };
            assert_eq!(again.forward_path, rcpt.forward_path);
        }
        _ => {}
    }
}

fn assert_one_line(text: &str) {
    assert!(!text.contains(['\r', '\n', '\0']), "{text:?}");
}

fn assert_mailbox(mailbox: &Mailbox) {
    let text = mailbox.as_str();
    assert_one_line(text);
    let again: Mailbox = text.parse().expect("an address reads back");
    assert_eq!((again.as_str(), again.domain()), (text, mailbox.domain()));
    assert_eq!(again.local_part(), mailbox.local_part());
    assert_eq!(mailbox.needs_smtputf8(), !text.is_ascii());
    assert!(text.starts_with(mailbox.local_part()) && !mailbox.local_part().is_empty());
}

/// Domains, mailboxes and patterns: what reads, reads back as itself, and only ASCII labels are compared.
pub fn address(octets: &[u8]) {
    let Ok(text) = std::str::from_utf8(octets) else {
        return;
    };
    if let Ok(domain) = text.parse::<Domain>() {
        let own = domain.as_str();
        assert!(own.is_ascii() && own == own.to_ascii_lowercase(), "{own:?}");
        assert!(
            !own.contains(|c: char| c.is_ascii_whitespace() || c.is_ascii_control()),
            "{own:?}"
        );
        assert_eq!(own.parse::<Domain>().as_ref(), Ok(&domain), "{text:?}");
        assert!(domain.is_at_or_below(&domain));
        let pattern: DomainPattern = own.parse().expect("a domain is a pattern");
        assert!(pattern.matches(&domain) && pattern.overlaps(&pattern));
    }
    if let Ok(mailbox) = text.parse::<Mailbox>() {
        assert_mailbox(&mailbox);
        assert_eq!(
            text.parse::<ReversePath>(),
            Ok(ReversePath::Mailbox(mailbox.clone()))
        );
        let exact: Result<MailboxPattern, _> = text.parse();
        if let Ok(pattern) = exact {
            assert!(
                pattern.matches(&mailbox) || text.starts_with('*'),
                "{text:?}"
            );
        }
    }
    if let Ok(path) = text.parse::<ReversePath>() {
        assert_eq!(path.to_string().parse::<ReversePath>(), Ok(path));
    }
    if let Ok(id) = text.parse::<QueueId>() {
        assert_eq!(id.to_string(), text.to_ascii_uppercase());
    }
}

/// A reply is read in one way however it arrives, consumes what it has, and reads back from what we would write.
pub fn reply(octets: &[u8]) {
    let mut at = 0;
    let mut turns = 0;
    while at < octets.len() {
        turns += 1;
        assert!(turns <= octets.len(), "it goes round in circles");
        let rest = &octets[at..];
        let read = reply::parse(rest);
        // Octet by octet, the answer comes with the same octet and is the same.
        if rest.len() <= 600 {
            let early = (0..rest.len()).map(|end| reply::parse(&rest[..end]));
            let first = early.into_iter().find(|early| !matches!(early, Ok(None)));
            if let Some(first) = first {
                assert_eq!(first, read);
            }
        }
        let Ok(Some((reply, consumed))) = read else {
            return;
        };
        assert!(consumed > 0 && consumed <= rest.len() && consumed <= MAX_REPLY + 1024);
        assert!((200..=599).contains(&reply.code) && !reply.lines.is_empty());
        let lines = rest[..consumed]
            .iter()
            .filter(|octet| **octet == b'\n')
            .count();
        assert_eq!(lines, reply.lines.len());
        assert!(
            reply.lines.iter().all(|line| !line.contains('\n')),
            "{reply:?}"
        );
        let summary = reply.summary();
        assert!(summary.is_ascii() && !summary.contains(|c: char| c.is_ascii_control()));
        let mut wire = Vec::new();
        reply.write_to(&mut wire);
        if wire.len() < MAX_REPLY {
            let again = reply::parse(&wire).expect("what we write is a reply");
            let (again, whole) = again.expect("and a whole one");
            assert_eq!((again.code, whole), (reply.code, wire.len()));
            assert_eq!(again.lines.len(), reply.lines.len());
        }
        let offered = Offered::read(&reply);
        assert!(
            offered
                .auth
                .iter()
                .all(|name| *name == name.to_ascii_uppercase())
        );
        at += consumed;
    }
}

/// A response of AUTH: decoded text has no padding of its own; a login never has a NUL, and reads back from what a client
/// would say.
pub fn sasl(line: &[u8]) {
    let decoded = sasl::decode(line);
    if let Some(decoded) = &decoded {
        let again = sasl::encode(decoded);
        assert_eq!(sasl::decode(again.as_bytes()).as_ref(), Some(decoded));
    }
    // The message itself, too, so that the fuzzer need not find base64 first.
    for message in decoded.into_iter().chain([line.to_vec()]) {
        let Some(login) = sasl::plain(&message) else {
            continue;
        };
        assert!(!login.username.is_empty() && !login.username.contains('\0'));
        assert!(!login.password.expose().contains(&0));
        let said = sasl::decode(sasl::plain_message(&login).as_bytes());
        assert_eq!(
            sasl::plain(&said.expect("base64 reads back")),
            Some(login.clone())
        );
        let other = sasl::Login {
            password: Secret::new("another"),
            ..login.clone()
        };
        assert_eq!(
            format!("{login:?}"),
            format!("{other:?}"),
            "it shows the password"
        );
    }
}

/// xtext reads back; what ORCPT, ENVID and the reply of a next hop say never begins a line of a report.
pub fn dsn(octets: &[u8]) {
    assert_eq!(decode_xtext(&encode_xtext(octets)).as_deref(), Some(octets));
    let Ok(text) = std::str::from_utf8(octets) else {
        return;
    };
    if let Some(decoded) = decode_xtext(text) {
        assert!(decoded.len() <= text.len());
        assert_eq!(decode_xtext(&encode_xtext(&decoded)), Some(decoded));
    }
    // One line each: ORCPT, ENVID, the address, the reply, the host that said it, the Message-ID.
    let mut lines = text.split('\n');
    let mut line = || lines.next().filter(|line| !line.is_empty());
    let words: Vec<Option<&str>> = (0..6).map(|_| line()).collect();
    let parse = |line: String| Command::parse(line.as_bytes()).ok();
    let mut recipient = Recipient {
        mailbox: "bob@contoso.com".parse().expect("an address"),
        notify: None,
        orcpt: None,
    };
    if let Some(mailbox) = words[2].and_then(|text| text.parse().ok()) {
        recipient.mailbox = mailbox;
    }
    let original = words[0].map(|text| format!("RCPT TO:<bob@contoso.com> ORCPT={text}"));
    if let Some(Command::Rcpt(rcpt)) = original.and_then(parse) {
        recipient.orcpt = rcpt.orcpt;
    }
    let mut envid = None;
    let id = words[1].map(|text| format!("MAIL FROM:<> ENVID={text}"));
    if let Some(Command::Mail(mail)) = id.and_then(parse) {
        envid = mail.envid;
    }
    let shown =
        |text: Option<&str>| gatepost::mail::shown(text.unwrap_or("451 4.0.0 x").as_bytes());
    let (reply, remote, message_id) = (shown(words[3]), shown(words[4]), shown(words[5]));
    let ascii: Mailbox = "ada@contoso.com".parse().expect("an address");
    let utf8: Mailbox = "jörg@contoso.com".parse().expect("an address");
    for (to, kind) in [
        (&ascii, Kind::Failed),
        (&utf8, Kind::Delayed),
        (&ascii, Kind::Relayed),
    ] {
        let fates = [Fate {
            recipient: &recipient,
            status: (5, 1, 1),
            reply: &reply,
            source: words[4].map_or(Source::Ours, |_| Source::NextHop(Some(&remote))),
            expired: false,
            retry_until: None,
        }];
        let report = Report {
            kind,
            hostname: "mx.contoso.com",
            from: &ascii,
            to,
            id: QueueId::from_u64(1),
            original: QueueId::from_u64(2),
            message_id: words[5].map(|_| message_id.as_str()),
            envid: envid.as_deref(),
            arrived: 1_795_593_600,
            now: 1_795_593_900,
            boundary: "=_boundary",
            fates: &fates,
            returned: Returned::Nothing,
        };
        assert_report(&report.write(), report.needs_smtputf8());
    }
}

/// The frame holds, and the status part is fields in two groups: nothing that a stranger wrote made another.
fn assert_report(report: &[u8], utf8: bool) {
    let mut before = 0;
    for octet in report {
        assert!(*octet != b'\n' || before == b'\r', "a bare LF");
        assert!(before != b'\r' || *octet == b'\n', "a bare CR");
        before = *octet;
    }
    let text = std::str::from_utf8(report).expect("a report is UTF-8");
    assert!(utf8 || !text.contains("global-delivery-status"));
    assert_eq!(text.matches("\r\n--=_boundary").count(), 3, "{text}");
    let status = text
        .split("\r\n--=_boundary")
        .nth(2)
        .expect("a status part");
    let (_, fields) = status.split_once("\r\n\r\n").expect("its head");
    assert!(utf8 || fields.is_ascii(), "{fields}");
    assert_eq!(
        fields.trim_end().split("\r\n\r\n").count(),
        2,
        "one group, one recipient: {fields}"
    );
    for name in ["Reporting-MTA", "Final-Recipient", "Action", "Status"] {
        let starts = fields
            .lines()
            .filter(|line| line.starts_with(&format!("{name}:")));
        assert_eq!(starts.count(), 1, "{name} in {fields}");
    }
    let names = [
        "Reporting-MTA",
        "Arrival-Date",
        "Original-Envelope-Id",
        "Original-Recipient",
        "Final-Recipient",
        "Action",
        "Status",
        "Remote-MTA",
        "Diagnostic-Code",
        "Last-Attempt-Date",
        "Will-Retry-Until",
        "X-Gatepost",
        "Final-Log-ID",
        "Localized-",
    ];
    for line in fields
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with([' ', '\t']))
    {
        assert!(
            names.iter().any(|name| line.starts_with(name)),
            "{line:?} in {fields}"
        );
    }
}
