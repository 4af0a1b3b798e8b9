//! `gatepost explain reply`: what does this reply mean, whose fault is it, what does Gatepost do, what should I do?

mod each;
mod own;

use self::each::Each;
use crate::dialogue::{
    Alarm, Explanation, NextHop, Outcome, Pace, Phase, Reach, Said, SaidFor, explain, said_each,
    why_nothing_is_said,
};
use crate::header;
use clap::{Args, ValueEnum};
use std::io::Read as _;

/// UTF-16 has two octets where others have one.
const MOST_READ: u64 = 2 * header::MAX_READABLE as u64;

/// What is asked.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The reply, as a log, a bounce or a message trace shows it; without, it is read from standard input.
    #[arg(value_name = "REPLY")]
    reply: Vec<String>,
    /// Who gave it: each way has its own law. By default exchange, or Gatepost itself, if it has the form of our refusals.
    #[arg(long, value_enum)]
    via: Option<Via>,
    /// What it was an answer to; by default what the text says, else RCPT.
    #[arg(long, value_enum)]
    phase: Option<Step>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Via {
    /// The tenant's inbound connector.
    Exchange,
    /// A mail exchanger.
    Mx,
    /// A [[relay]].
    Relay,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Step {
    /// In the place of a greeting.
    Connection,
    Ehlo,
    Starttls,
    Auth,
    Mail,
    Rcpt,
    Data,
    /// To the end of content.
    End,
}

impl From<Step> for Phase {
    fn from(step: Step) -> Self {
        match step {
            Step::Connection => Self::Greeting,
            Step::Ehlo => Self::Hello,
            Step::Starttls => Self::StartTls,
            Step::Auth => Self::Login,
            Step::Mail => Self::Mail,
            Step::Rcpt => Self::Recipient,
            Step::Data => Self::Content,
            Step::End => Self::End,
        }
    }
}

/// What to print, and whether it is no bad news: nothing is given up, held or alarmed.
///
/// # Errors
/// There is no reply in the text.
pub fn answer(arguments: &Arguments, json: bool) -> Result<(bool, String), String> {
    let text = if arguments.reply.is_empty() {
        let mut text = Vec::new();
        std::io::stdin()
            .lock()
            .take(MOST_READ)
            .read_to_end(&mut text)
            .map_err(|error| format!("standard input: {error}"))?;
        text
    } else {
        joined(&arguments.reply).into_bytes()
    };
    let next_hop = arguments.via.map(|via| match via {
        Via::Exchange => NextHop::Exchange,
        Via::Mx => NextHop::Mx,
        Via::Relay => NextHop::Relay,
    });
    told(&text, next_hop, arguments.phase.map(Phase::from), json)
}

/// What a shell has taken apart: words of one line, or, quoted, the lines of one reply.
fn joined(words: &[String]) -> String {
    let is_line = |word: &String| {
        let (head, rest) = word.split_at_checked(3).unwrap_or((word, ""));
        let code = head.len() == 3 && head.bytes().all(|octet| octet.is_ascii_digit());
        code && rest.starts_with(['-', ' ']) && rest.contains(' ')
    };
    let mut text = String::new();
    for word in words {
        if !text.is_empty() {
            text.push(if is_line(word) { '\n' } else { ' ' });
        }
        text.push_str(word);
    }
    text
}

/// [`answer`] to a text.
///
/// # Errors
/// There is no reply in the text.
pub fn told(
    text: &[u8],
    next_hop: Option<NextHop>,
    phase: Option<Phase>,
    json: bool,
) -> Result<(bool, String), String> {
    let (text, said) = read(text);
    let all = each::explained_each(&said, next_hop, phase)?;
    let Some((worst, others)) = all.split_first() else {
        return Err(why_nothing_is_said(&text));
    };
    let good = !all.iter().any(|own| own.told.is_bad_news());
    let text = if json {
        let value = as_json(worst, others);
        serde_json::to_string_pretty(&value).map_err(|error| error.to_string())? + "\n"
    } else {
        let texts: Vec<String> = all.iter().map(as_text).collect();
        texts.join("\n")
    };
    Ok((good, text))
}

/// A text as it is read, and the replies in it: out of its encoding, quotes, MIME parts and tags.
#[must_use]
pub fn read(octets: &[u8]) -> (Vec<u8>, Vec<SaidFor>) {
    let text = header::utf8(octets);
    let text = header::unquoted(&text);
    let plain = header::mail_text(&text).or_else(|| {
        // A session or a report has said something before the page that it shows.
        let before = text.split(|octet| *octet == b'<').next();
        let before = said_each(before.unwrap_or_default());
        let says = |own: &SaidFor| own.said.phase.is_some() || own.said.refuses();
        (!before.iter().any(says))
            .then(|| header::page_text(&text))
            .flatten()
    });
    let plain = plain.map(|plain| (said_each(plain.as_bytes()), plain));
    match plain {
        Some((said, plain)) if !said.is_empty() => (plain.into_bytes(), said),
        // A reply may stand where nobody would look for it.
        _ => {
            let said = said_each(&text);
            (text.into_owned(), said)
        }
    }
}

/// By Gatepost's own refusals, where nobody says that a next hop gave it; else as delivery reads it.
///
/// # Errors
/// It is no reply that decides anything: a step was granted, and no word is said of the message.
pub fn explained(
    said: &Said,
    next_hop: Option<NextHop>,
    phase: Option<Phase>,
) -> Result<Explanation, String> {
    let (next_hop, phase) = (next_hop.or(said.next_hop), phase.or(said.phase));
    let ours = match next_hop {
        None => own::explained(said),
        Some(_) => None,
    };
    let told = match ours {
        Some(ours) => ours,
        None => explain(said, next_hop, phase).map_err(|why| why.to_string())?,
    };
    // Of a session; what --phase says of the refusals in a report, it does not say of what was granted there.
    if let (Outcome::Delivered, Some(step), Some(_)) = (told.outcome, phase, said.phase)
        && step != Phase::End
    {
        return Err(format!(
            "\"{}\" grants {} and nothing more: what became of the message is not in the text; which reply came last?",
            told.reply.summary(),
            step.name()
        ));
    }
    Ok(if said.given_up { told.given_up() } else { told })
}

fn as_text(Each { told, recipients }: &Each) -> String {
    let mut text = String::new();
    if !recipients.is_empty() {
        text += &format!("{:<11} {}\n", "recipient:", recipients.join(", "));
    }
    let alarm = match told.alarm {
        Alarm::Never => "",
        Alarm::AtOnce => "; an administrator is told at once (log, metrics)",
        Alarm::AfterAnHour => {
            "; an administrator is told (log) where it still comes an hour after the message arrived"
        }
    };
    let rows = [
        ("reply", told.reply.summary()),
        ("means", told.meaning.clone()),
        ("fault", told.whose.unwrap_or("nobody's").to_owned()),
        ("Gatepost", format!("{}{alarm}", told.does)),
        ("you", told.advice.clone()),
        ("known from", told.known.to_string()),
    ];
    let notes = told.notes.iter().map(|note| ("note", note.clone()));
    for (label, value) in rows.into_iter().chain(notes) {
        text += &format!("{:<11} {value}\n", format!("{label}:"));
    }
    text
}

fn as_json(Each { told, recipients }: &Each, others: &[Each]) -> serde_json::Value {
    let others: Vec<_> = others.iter().map(|own| as_json(own, &[])).collect();
    let enhanced = told
        .reply
        .enhanced
        .map(|(class, subject, detail)| format!("{class}.{subject}.{detail}"));
    serde_json::json!({
        "recipients": recipients,
        "reply": told.reply.summary(),
        "code": told.reply.code,
        "enhanced": enhanced,
        "via": told.via.map(|via| match via {
            NextHop::Exchange => "exchange",
            NextHop::Mx => "mx",
            NextHop::Relay => "relay",
        }),
        "meaning": told.meaning,
        "fault": told.whose,
        "outcome": match told.outcome {
            Outcome::Delivered => "delivered",
            Outcome::Failed => "failed",
            Outcome::Deferred(_) => "deferred",
            Outcome::Held(_) => "held",
        },
        "reach": match told.outcome {
            Outcome::Held(Reach::Tenant) => Some("tenant"),
            Outcome::Held(Reach::Recipient) => Some("recipient"),
            Outcome::Delivered | Outcome::Failed | Outcome::Deferred(_) => None,
        },
        "pace": match told.outcome {
            Outcome::Deferred(Pace::Law) => Some("law"),
            Outcome::Deferred(Pace::Hourly) => Some("hourly"),
            Outcome::Deferred(Pace::BackOff) => Some("back_off"),
            Outcome::Deferred(Pace::AtOnce) => Some("at_once"),
            Outcome::Delivered | Outcome::Failed | Outcome::Held(_) => None,
        },
        "gatepost": told.does,
        "alarm": told.alarm == Alarm::AtOnce,
        "alarm_after_seconds": match told.alarm {
            Alarm::Never => None,
            Alarm::AtOnce => Some(0),
            Alarm::AfterAnHour => Some(3600),
        },
        "advice": told.advice,
        "known_from": told.known.to_string(),
        "notes": told.notes,
        "others": others,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bounce_of_exchange_is_explained_for_its_administrator() {
        let bounce =
            b"Diagnostic-Code: smtp;550 5.7.64 TenantAttribution; Relay Access Denied [ATTR36]\n";
        let (good, text) = told(bounce, Some(NextHop::Exchange), None, false).unwrap();
        assert!(!good);
        insta::assert_snapshot!(text, @r"
        reply:      550 5.7.64 TenantAttribution; Relay Access Denied [ATTR36]
        means:      no inbound connector matched our certificate, or its domain is no accepted domain of the tenant; also an incomplete chain
        fault:      connector or certificate
        Gatepost:   held, not bounced; three such replies to different messages park the tenant's queue until a probe succeeds; an administrator is told at once (log, metrics)
        you:        compare the certificate's names with the accepted domains and both connectors: gatepost check, gatepost explain attribution, gatepost connector diff
        known from: the table that delivery uses
        note:       taken as an answer to RCPT (--phase says otherwise)
        ");
    }

    #[test]
    fn words_and_lines_of_the_shell_are_one_reply() {
        for (words, text) in [
            (
                &["550", "5.7.64", "TenantAttribution"][..],
                "550 5.7.64 TenantAttribution",
            ),
            (
                &["550 5.7.64 TenantAttribution"],
                "550 5.7.64 TenantAttribution",
            ),
            (
                &["550", "5.1.10", "note:", "in 550 ways"],
                "550 5.1.10 note: in 550 ways",
            ),
            (&["550-5.7.1 a", "550 5.7.1 b"], "550-5.7.1 a\n550 5.7.1 b"),
        ] {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            assert_eq!(joined(&words), text);
        }
        let split = ["451", "4.7.1", "greylisted"].map(str::to_owned);
        let told = |text: &str| {
            told(text.as_bytes(), Some(NextHop::Mx), None, false)
                .unwrap()
                .1
        };
        assert_eq!(told(&joined(&split)), told("451 4.7.1 greylisted"));
    }

    #[test]
    fn json_holds_the_same() {
        let (good, text) = told(b"451 4.7.0 PRX2", Some(NextHop::Exchange), None, true).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert!(good);
        assert_eq!(
            (&value["outcome"], &value["pace"], &value["enhanced"]),
            (&"deferred".into(), &"law".into(), &"4.7.0".into())
        );
        assert_eq!(value["alarm_after_seconds"], serde_json::Value::Null);
    }

    #[test]
    fn an_alarm_that_waits_an_hour_is_told_with_its_hour_and_is_no_bad_news() {
        let reply = b"451 4.4.4 Mail received as unauthenticated. ATTR5";
        let (good, text) = told(reply, Some(NextHop::Exchange), None, false).unwrap();
        assert!(
            good && text.contains("still comes an hour after the message arrived"),
            "{text}"
        );
        let (_, json) = told(reply, Some(NextHop::Exchange), None, true).unwrap();
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(
            (&value["alarm"], &value["alarm_after_seconds"]),
            (&false.into(), &3600.into())
        );
    }

    const REPORT: &str = "Final-Recipient: rfc822;bob@contoso.com\nStatus: 5.1.1\nDiagnostic-Code: smtp; 550 5.1.1 no such user bob\n\n\
        Final-Recipient: rfc822;carol@contoso.com\nStatus: 5.7.64\nDiagnostic-Code: smtp; 550 5.7.64 TenantAttribution; Relay Access Denied\n\n\
        Final-Recipient: rfc822;dave@contoso.com\nStatus: 5.1.1\nDiagnostic-Code: smtp; 550 5.1.1 no such user dave\n\n\
        Final-Recipient: rfc822;erin@contoso.com\nStatus: 2.0.0\nDiagnostic-Code: smtp; 250 2.0.0 taken\n";

    #[test]
    fn every_recipient_of_a_bounce_is_explained_the_worst_first() {
        let (good, text) = told(REPORT.as_bytes(), None, None, false).unwrap();
        assert!(!good);
        let rows = |label: &str| -> Vec<&str> {
            let own = text.lines().filter_map(|line| line.strip_prefix(label));
            own.map(str::trim).collect()
        };
        assert_eq!(
            rows("recipient:"),
            [
                "carol@contoso.com",
                "bob@contoso.com, dave@contoso.com",
                "erin@contoso.com"
            ]
        );
        assert_eq!(
            rows("reply:"),
            [
                "550 5.7.64 TenantAttribution; Relay Access Denied",
                "550 5.1.1 no such user bob",
                "250 2.0.0 taken"
            ]
        );
        let (good, json) = told(REPORT.as_bytes(), None, None, true).unwrap();
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert!(!good && value["outcome"] == "held");
        assert_eq!(value["others"][0]["recipients"][1], "dave@contoso.com");
        assert_eq!(value["others"].as_array().unwrap().len(), 2);
        // One reply has no others, and is told as ever.
        let (_, json) = told(b"550 5.1.1 x", None, None, true).unwrap();
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(value["others"], serde_json::json!([]));
        let (_, text) = told(b"550 5.1.1 x", None, None, false).unwrap();
        assert!(text.starts_with("reply:"), "{text}");
    }

    #[test]
    fn a_bounce_that_is_quoted_is_read_as_it_was() {
        let plain = told(REPORT.as_bytes(), None, None, false).unwrap();
        for mark in ["> ", ">", ">> ", "> > "] {
            let quoted: String = REPORT
                .lines()
                .map(|line| format!("{mark}{line}\r\n"))
                .collect();
            assert_eq!(told(quoted.as_bytes(), None, None, false).unwrap(), plain);
        }
    }

    #[test]
    fn a_refusal_of_ours_in_outlook_s_report_is_no_connector_s() {
        let report = b"Status code: 550 5.7.64\n\nError Details\nReported error: 550 5.7.64 smarthost.contoso.com TenantAttribution; Relay Access Denied 1M8MRDBTZFQSA\n\
            DSN generated by:       AM0PR01MB1234.eurprd01.prod.exchangelabs.com\nRemote server: smarthost.contoso.com\n";
        let (good, text) = told(report, None, None, false).unwrap();
        assert!(
            !good && text.contains("table of Gatepost's own refusals"),
            "{text}"
        );
        assert!(!text.contains("DSN generated"), "{text}");
    }

    #[test]
    fn a_bounce_that_was_saved_is_read_behind_its_long_text() {
        let long = "<td style=3D\"padding:0\">=C2=A0</td>=\r\n".repeat(3000);
        let mail = format!(
            "Subject: Undeliverable\r\nContent-Type: multipart/report; boundary=b1\r\n\r\n--b1\r\nContent-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n\
             Status code: 550 5.7.64<br>{long}\r\n--b1\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns;x\r\n\r\n{REPORT}\r\n--b1--\r\n"
        );
        assert!(mail.len() > 100_000);
        let wanted = told(REPORT.as_bytes(), None, None, false).unwrap();
        assert_eq!(told(mail.as_bytes(), None, None, false).unwrap(), wanted);
    }

    #[test]
    fn a_refused_login_in_our_trace_is_a_relay_s_without_being_told() {
        let line = "1M89EJVQ8XBM5 deferred: login: the next hop refuses it: 535 5.7.8 relay.contoso.com wrong 1M89EJVQ8XBM6";
        let (good, told) = told(line.as_bytes(), None, None, true).unwrap();
        let value: serde_json::Value = serde_json::from_str(&told).unwrap();
        assert!(
            !good && value["via"] == "relay" && value["pace"] == "back_off",
            "{told}"
        );
        assert_eq!(
            value["advice"],
            "set username and password of the [[relay]]"
        );
    }

    #[test]
    fn a_step_that_was_granted_is_no_good_news() {
        let session = "220 mx\nEHLO a\n250 STARTTLS\nSTARTTLS\n220 go\n*** TLS startup failed\n";
        let why = told(session.as_bytes(), None, None, false).unwrap_err();
        assert!(
            why.starts_with("\"220 go\" grants STARTTLS and nothing more"),
            "{why}"
        );
        assert!(
            told(session.as_bytes(), None, Some(Phase::End), false)
                .unwrap()
                .0
        );
        assert!(told(REPORT.as_bytes(), None, Some(Phase::Recipient), false).is_ok());
        // Delivery goes on by 220 alone.
        for (line, next_hop) in [
            (
                "bob@contoso.com held: TLS: STARTTLS refused: 250 ok",
                "exchange",
            ),
            (
                "deferred: login: the next hop refuses it: 250 2.0.0 ok",
                "relay",
            ),
        ] {
            let (good, told) = told(line.as_bytes(), None, None, true).unwrap();
            let value: serde_json::Value = serde_json::from_str(&told).unwrap();
            assert!(!good && value["via"] == next_hop, "{told}");
            assert_eq!(value["code"], 250);
        }
    }

    #[test]
    fn the_way_in_our_log_is_the_law() {
        let line = "via=\"mx\" id=1M89EJVQ8XBM5 reply=\"550 5.7.64 TenantAttribution\"";
        for (given, via) in [(None, "mx"), (Some(NextHop::Relay), "relay")] {
            let (_, told) = told(line.as_bytes(), given, None, true).unwrap();
            let value: serde_json::Value = serde_json::from_str(&told).unwrap();
            assert_eq!(
                (&value["via"], &value["outcome"]),
                (&via.into(), &"failed".into()),
                "{told}"
            );
        }
    }

    #[test]
    fn a_page_in_a_report_or_a_session_is_none_of_it() {
        let page = "\n\nFrom: x\nContent-Type: text/html\n\n<p>hi</p>\n";
        let postfix = "<bob@contoso.com>: host c[192.0.2.1] said: 550 5.1.1 no such user\n\n<carol@contoso.com>: host c[192.0.2.1] said: 550 5.7.64 TenantAttribution\n";
        let telnet = "220 mx\nEHLO a\n250 mx\nMAIL FROM: a@b.c\n250 ok\nRCPT TO: d@e.f\n250 ok\nDATA\n354 go\n<p>550 5.1.1 x</p>\n.\n554 spam\n";
        for text in [REPORT, postfix] {
            let wanted = told(text.as_bytes(), None, None, false).unwrap();
            let with = format!("{text}{page}");
            assert_eq!(told(with.as_bytes(), None, None, false).unwrap(), wanted);
        }
        let (good, text) = told(telnet.as_bytes(), None, None, false).unwrap();
        assert!(
            !good && text.starts_with("reply:      554 spam\n"),
            "{text}"
        );
        // PHPMailer shows its session as a page.
        let mailer = "SERVER -&gt; CLIENT: 220 mx<br>\nCLIENT -&gt; SERVER: EHLO a<br>\nSERVER -&gt; CLIENT: 250 mx<br>\nCLIENT -&gt; SERVER: MAIL FROM:&lt;a@b&gt;<br>\nSERVER -&gt; CLIENT: 550 Relay denied<br>\nCLIENT -&gt; SERVER: QUIT<br>\nSERVER -&gt; CLIENT: 221 2.0.0 bye<br>\n";
        let (good, text) = told(mailer.as_bytes(), None, None, false).unwrap();
        assert!(
            !good && text.starts_with("reply:      550 Relay denied\n"),
            "{text}"
        );
        // A page below somebody's words is one.
        let (_, text) = told(
            b"Bob has seen:\n<p>550 <b>5.1.1</b> no</p>",
            None,
            None,
            false,
        )
        .unwrap();
        assert!(text.starts_with("reply:      550 5.1.1 no\n"), "{text}");
    }

    #[test]
    fn what_has_expired_is_told_as_an_end() {
        for inner in [
            "451 4.4.0 smarthost.contoso.com Inbound connector of this tenant is held: 550 5.7.64 x 1M89EJVQ8XBM5",
            "451 4.7.0 Temporary server error",
        ] {
            let text = format!("550 5.4.300 Message expired -> {inner}");
            let (good, told) = told(text.as_bytes(), None, None, true).unwrap();
            let value: serde_json::Value = serde_json::from_str(&told).unwrap();
            assert!(
                !good && value["outcome"] == "failed" && value["code"] == 451,
                "{told}"
            );
            let does = value["gatepost"].as_str().unwrap();
            assert!(
                does.contains("expired") && !does.contains("retried"),
                "{does}"
            );
            let advice = value["advice"].as_str().unwrap();
            assert!(!advice.starts_with("nothing"), "{advice}");
            assert_eq!(value["alarm"], false);
        }
    }

    #[test]
    fn what_powershell_wrote_into_a_file_is_read() {
        let wanted = told(REPORT.as_bytes(), None, None, false).unwrap();
        let units = || REPORT.encode_utf16();
        let mut marked = vec![0xff, 0xfe];
        marked.extend(units().flat_map(u16::to_le_bytes));
        let bare: Vec<u8> = units().flat_map(u16::to_be_bytes).collect();
        let utf8 = format!("\u{feff}{REPORT}");
        for octets in [&marked[..], &bare, utf8.as_bytes()] {
            assert_eq!(told(octets, None, None, false).unwrap(), wanted);
        }
    }

    #[test]
    fn a_refusal_of_ours_is_explained_by_its_own_table() {
        let reply = b"550 5.7.1 smarthost.contoso.com This application may not send as this sender address 1M89EJVQ8XBM5";
        let (good, text) = told(reply, None, None, false).unwrap();
        assert!(!good);
        insta::assert_snapshot!(text, @"
        reply:      550 5.7.1 smarthost.contoso.com This application may not send as this sender address 1M89EJVQ8XBM5
        means:      the application may not use this envelope sender: it is not in `senders` of its [[application]]
        fault:      the application, or its [[application]] here
        Gatepost:   has not taken the message: whoever sent it reports it as failed
        you:        add the address to `senders` of the [[application]], if it may write as that; else let it use one of those; gatepost trace 1M89EJVQ8XBM5 says what was seen
        known from: the table of Gatepost's own refusals
        note:       where smarthost.contoso.com is no Gatepost of yours, --via says which next hop gave this, and that way's law is told
        ");
        let (_, json) = told(reply, None, None, true).unwrap();
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert!(value["via"].is_null());
        let (_, other) = told(reply, Some(NextHop::Exchange), None, false).unwrap();
        assert!(!other.contains("Gatepost's own refusals"), "{other}");
    }

    #[test]
    fn text_of_a_peer_is_escaped_and_what_is_no_reply_is_said() {
        let (_, text) = told(b"550 5.1.1 \x1b[31mred\x07", Some(NextHop::Mx), None, false).unwrap();
        assert!(!text.replace('\n', "").contains(|c: char| c.is_control()));
        let problem = told(b"hello\x1b", Some(NextHop::Mx), None, false).unwrap_err();
        assert!(
            problem.contains("no SMTP reply in \"hello\\x1b\""),
            "{problem}"
        );
    }
}
