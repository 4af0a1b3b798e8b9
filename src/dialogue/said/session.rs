//! Which reply decided a session that somebody recorded: swaks, `curl -v`, telnet, a mail server with `-v`, Exchange's protocol logs?

use super::super::replies::Phase;
use super::reply_code;
use std::collections::VecDeque;

/// What one side said.
enum Line<'a> {
    Client(&'a str),
    Server(&'a str),
}

/// Which way a mark points. The logs of a server set `>` before its replies, those of a client before its commands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    In,
    Out,
}

/// A command whose reply is awaited.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// One that an explanation knows.
    Step(Phase),
    /// RSET, NOOP, QUIT and their like: nothing hangs on them.
    Aside,
}

/// A reply with all its lines, and what it answered.
struct Answered {
    code: u16,
    text: String,
    asked: Asked,
}

/// The reply that decided it and what that answered: a refusal, else the last consent before QUIT. `None` where the text is no
/// session.
///
/// Of several refusals it is the first; of a bounce of sendmail's (`>>>`), which shows the dialogue up to the one, the last.
/// None of them is one that was overcome: a step before MAIL that was granted later in the same connection, or after which that
/// came to a consent at the end of content. What was said of a message stays said: a later one is another.
pub(super) fn decided(whole: &str) -> Option<(Phase, String)> {
    let sendmail = whole.lines().any(|line| line.starts_with(">>> "));
    let all = replies(whole)?;
    let (mut granted, mut refusals, mut consent) = (Vec::new(), Vec::new(), None);
    for own in all.iter().rev() {
        let Asked::Step(phase) = own.asked else {
            continue;
        };
        let told = || (phase, own.text.clone());
        if own.code >= 400 {
            if !phase.is_before_mail()
                || !(granted.contains(&phase) || granted.contains(&Phase::End))
            {
                refusals.push(told());
            }
            if phase == Phase::Greeting {
                granted.clear();
            }
            continue;
        }
        // A further connection, without a message, says nothing of the last one.
        let says_more = |(last, _): &(Phase, _)| last.is_before_mail() && !phase.is_before_mail();
        if own.code < 300 && consent.as_ref().is_none_or(says_more) {
            consent = Some(told());
        }
        // What comes before a greeting is another connection.
        if phase == Phase::Greeting {
            granted.clear();
        } else if (own.code < 300 || own.code == 354) && !granted.contains(&phase) {
            granted.push(phase);
        }
    }
    let refusal = if sendmail {
        refusals.into_iter().next()
    } else {
        refusals.pop()
    };
    refusal.or(consent)
}

/// Every reply of the session; `None` where there is no command of SMTP, or no reply.
fn replies(whole: &str) -> Option<Vec<Answered>> {
    let server = server_way(whole);
    // Where no line is marked, content ends with its dot; some tools show neither.
    let dots = whole.lines().enumerate();
    let last_dot = dots
        .filter(|(_, line)| server.is_none() && is_dot(line))
        .map(|(at, _)| at)
        .last();
    let mut all: Vec<Answered> = Vec::new();
    let mut asked: VecDeque<Asked> = VecDeque::new();
    // What replies answer that nobody has asked for in one command: the greeting, steps of a login, the end of content.
    let mut last = Asked::Step(Phase::Greeting);
    let (mut commands, mut more, mut content) = (false, false, false);
    let mut closed = false;
    for (at, line) in whole.lines().enumerate() {
        let own = match server {
            None if content && last_dot.is_some_and(|dot| at <= dot) => {
                content = !is_dot(line);
                continue;
            }
            None => Some(bare(line)),
            // Some tools mark the first line of a reply only.
            Some(_) if more && begins_reply(line.trim()) => Some(Line::Server(line.trim())),
            Some(server) => marked(line).map(|(way, said)| {
                if way == server {
                    Line::Server(said)
                } else {
                    Line::Client(said)
                }
            }),
        };
        match own {
            Some(Line::Server(said)) if begins_reply(said) => {
                let goes_on = said.as_bytes().get(3) == Some(&b'-');
                if let (true, Some(open)) = (more, all.last_mut()) {
                    open.text.push('\n');
                    open.text.push_str(said);
                } else {
                    let unasked = if closed {
                        Asked::Step(Phase::Greeting)
                    } else {
                        last
                    };
                    last = asked.pop_front().unwrap_or(unasked);
                    let code = said.get(..3).and_then(|code| code.parse().ok())?;
                    closed = code == 221;
                    all.push(Answered {
                        code,
                        text: said.to_owned(),
                        asked: last,
                    });
                    content = code == 354;
                    if content {
                        last = Asked::Step(Phase::End);
                    } else if last == Asked::Step(Phase::End) {
                        // The message is settled: what comes unasked is about the connection.
                        last = Asked::Aside;
                    }
                }
                more = goes_on;
            }
            // A window has wrapped it.
            Some(Line::Server(said)) if server.is_none() && line.starts_with([' ', '\t']) => {
                if let Some(open) = all.last_mut() {
                    open.text.push('\n');
                    open.text.push_str(said);
                }
            }
            Some(Line::Client(said)) if !content => {
                if let Some(command) = command(said) {
                    asked.push_back(command);
                    commands = true;
                }
                more = false;
            }
            Some(Line::Client(_) | Line::Server(_)) | None => {}
        }
    }
    (commands && !all.is_empty()).then_some(all)
}

fn is_dot(line: &str) -> bool {
    line.trim() == "."
}

/// Which way the marks of the server point: replies stand behind it, and commands behind the other. `None` where lines are not
/// marked.
fn server_way(whole: &str) -> Option<Way> {
    let mut server = None;
    let (mut replies, mut commands) = (false, false);
    for (way, said) in whole.lines().filter_map(marked) {
        if begins_reply(said) {
            replies |= *server.get_or_insert(way) == way;
        } else if command(said).is_some() {
            let other = match way {
                Way::In => Way::Out,
                Way::Out => Way::In,
            };
            commands |= *server.get_or_insert(other) == other;
        }
    }
    server.filter(|_| replies && commands)
}

/// Marks within a line: Exchange's protocol logs, PHPMailer, `exim -v`, Python's smtplib, `postfix -v`.
const MARKS: &[(&str, Way)] = &[
    (",<,", Way::In),
    (",>,", Way::Out),
    ("SERVER -> CLIENT: ", Way::In),
    ("CLIENT -> SERVER: ", Way::Out),
    ("SMTP<< ", Way::In),
    ("SMTP>> ", Way::Out),
    ("reply: b'", Way::In),
    ("send: '", Way::Out),
    ("]: < ", Way::In),
    ("]: > ", Way::Out),
];

/// A line with the mark of whoever said it: those above; `<-` `<~` `<**` `<~*` and `->` `~>` (swaks), `<` and `>` (curl), `<--`
/// and `-->` (msmtp), `<<<` and `>>>` (sendmail), `S:` and `C:`, `In:` and `Out:` (Postfix's transcripts).
fn marked(line: &str) -> Option<(Way, &str)> {
    for (mark, way) in MARKS {
        if let Some((_, said)) = line.split_once(mark) {
            let said = match *mark {
                ",<," | ",>," => column(said),
                // The host comes first: `mx.example[192.0.2.1]:25: `.
                "]: < " | "]: > " => {
                    let behind = said
                        .split_once(']')
                        .and_then(|(_, rest)| rest.split_once(": "));
                    behind.map_or(said, |(_, said)| said)
                }
                _ => said.strip_suffix("\\r\\n'").unwrap_or(said),
            };
            return Some((*way, said));
        }
    }
    let line = line.trim_start();
    if line.starts_with('<') {
        return Some((Way::In, line.trim_start_matches(['<', '-', '~', '*', ' '])));
    }
    let client = line.trim_start_matches(['-', '~']);
    if client.starts_with('>') {
        return Some((Way::Out, client.trim_start_matches(['>', ' '])));
    }
    let heads = [
        ("S: ", Way::In),
        ("C: ", Way::Out),
        ("In: ", Way::In),
        ("Out: ", Way::Out),
    ];
    let said = |(head, way): (&str, Way)| Some((way, line.strip_prefix(head)?.trim_start()));
    heads.into_iter().find_map(said)
}

/// A column of Exchange's log; an empty one follows it.
fn column(said: &str) -> &str {
    said.strip_suffix(',').unwrap_or(said).trim_matches('"')
}

/// A line without marks: replies begin with a code, which no command does.
fn bare(line: &str) -> Line<'_> {
    let line = line.trim();
    if command(line).is_some() {
        Line::Client(line)
    } else {
        Line::Server(line)
    }
}

fn begins_reply(said: &str) -> bool {
    let (code, rest) = said.split_at_checked(3).unwrap_or((said, ""));
    reply_code(code).is_some() && (rest.is_empty() || rest.starts_with([' ', '-']))
}

/// What a command asks for; `None` where it is none.
fn command(said: &str) -> Option<Asked> {
    let said = said.trim().to_ascii_lowercase();
    let begins = |start: &str| said.starts_with(start);
    let step = match said.as_str() {
        "starttls" => Phase::StartTls,
        "data" => Phase::Content,
        "quit" | "rset" | "noop" | "help" => return Some(Asked::Aside),
        "ehlo" | "helo" => Phase::Hello,
        _ if begins("ehlo ") || begins("helo ") => Phase::Hello,
        _ if begins("auth ") => Phase::Login,
        _ if begins("mail from:") => Phase::Mail,
        _ if begins("rcpt to:") => Phase::Recipient,
        _ if begins("bdat ") && said.ends_with(" last") => Phase::End,
        _ if begins("bdat ") => Phase::Content,
        _ if begins("vrfy ") || begins("expn ") => return Some(Asked::Aside),
        _ => return None,
    };
    Some(Asked::Step(step))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialogue::said::said;

    const RELAY: &str = "550 5.7.64 TenantAttribution; Relay Access Denied";

    /// One dialogue as every tool shows it: the lines of the client begin with `C`.
    const DIALOGUE: &str = "220 am1.example Microsoft ESMTP\nCEHLO a.example\n250-am1.example\n250 STARTTLS\nCSTARTTLS\n220 2.0.0 SMTP server ready\nCEHLO a.example\n\
        250-am1.example\n250 SIZE\nCMAIL FROM:<a@contoso.com> SIZE=7\n250 2.1.0 Sender OK\nCRCPT TO:<b@x.example>\nREPLY\nCQUIT\n221 2.0.0 closing\n";

    fn shown(tool: &str, reply: &str) -> String {
        let text = DIALOGUE.replace("REPLY", reply);
        let lines = text.lines().map(|line| {
            let refused = line.starts_with(['4', '5']);
            match (tool, line.strip_prefix('C')) {
                ("swaks", Some(said)) => format!(" -> {said}"),
                ("swaks", None) if refused => format!("<** {line}"),
                ("swaks", None) => format!("<-  {line}"),
                ("swaks tls", Some(said)) => format!(" ~> {said}"),
                ("swaks tls", None) if refused => format!("<~* {line}"),
                ("swaks tls", None) => format!("<~  {line}"),
                ("curl", Some(said)) => format!("> {said}\n}} [5 bytes data]"),
                ("curl", None) => format!("{{ [9 bytes data]\n< {line}"),
                ("exchange", Some(said)) => {
                    format!(
                        "2026-11-25T08:15:31.123Z,c,08DD,12,192.0.2.1:25,192.0.2.2:25,>,{said},"
                    )
                }
                ("exchange", None) => {
                    format!(
                        "2026-11-25T08:15:31.123Z,c,08DD,12,192.0.2.1:25,192.0.2.2:25,<,{line},"
                    )
                }
                ("sendmail", Some(said)) => format!(">>> {said}"),
                ("sendmail", None) => format!("<<< {line}"),
                (_, Some(said)) => said.to_owned(),
                (_, None) => line.to_owned(),
            }
        });
        let lines: Vec<String> = lines.collect();
        "=== Connected to c.example.\n* Connected to c.example\nEscape character is '^]'.\n"
            .to_owned()
            + &lines.join("\n")
            + "\n=== Connection closed with remote host.\n"
    }

    const TOOLS: [&str; 6] = [
        "telnet",
        "swaks",
        "swaks tls",
        "curl",
        "exchange",
        "sendmail",
    ];

    #[test]
    fn the_refusal_of_a_session_is_told_and_what_it_answered() {
        for tool in TOOLS {
            for reply in [RELAY, "550 Relay denied", "450 4.7.1 later"] {
                let text = shown(tool, reply);
                let found = said(text.as_bytes()).unwrap_or_else(|| panic!("{text}"));
                assert!(
                    reply.starts_with(&found.code.unwrap().to_string()),
                    "{text}"
                );
                assert_eq!(found.phase, Some(Phase::Recipient), "{text}");
                assert!(reply.ends_with(&found.text), "{found:?}");
            }
            // Of several lines.
            let text = shown(tool, "550-5.7.1 not\n550 5.7.1 so");
            let found = said(text.as_bytes()).unwrap();
            assert_eq!(found.text, "not so", "{text}");
        }
    }

    #[test]
    fn a_session_that_went_well_is_told_by_its_last_consent() {
        for tool in TOOLS {
            let text = shown(
                tool,
                "250 2.1.5 Recipient OK\nCDATA\n354 go on\n250 2.6.0 Queued",
            );
            let text = text.replace("CDATA", "DATA");
            let found = said(text.as_bytes()).unwrap();
            assert_eq!(found.code, Some(250), "{tool}: {text}");
            assert_eq!(found.enhanced, Some((2, 6, 0)), "{tool}: {text}");
        }
    }

    const TO_DATA: &str = "220 mx\nEHLO a\n250 mx\nMAIL FROM:<a@b.c>\n250 2.1.0 ok\nRCPT TO:<d@e.f>\n250 2.1.5 ok\nDATA\n354 go\n";

    fn told(text: &str) -> (Option<u16>, Option<Phase>) {
        let found = said(text.as_bytes()).unwrap_or_else(|| panic!("{text}"));
        (found.code, found.phase)
    }

    #[test]
    fn nothing_of_the_content_is_a_command_or_a_reply() {
        for line in [
            "550 5.7.64 is what I saw",
            "450 euros are due",
            "RCPT TO:<x@y>",
            " 554 x",
        ] {
            let text =
                format!("{TO_DATA}Subject: s\n\n{line}\n.\n250 2.6.0 Queued\nQUIT\n221 bye\n");
            assert_eq!(told(&text), (Some(250), Some(Phase::End)), "{text}");
            let refused = text.replace("250 2.6.0 Queued", "554 5.6.0 no");
            assert_eq!(told(&refused), (Some(554), Some(Phase::End)), "{refused}");
        }
    }

    #[test]
    fn a_refusal_that_was_overcome_is_none() {
        let end = "hi\n.\n250 queued\nQUIT\n221 bye\n";
        let good = format!("{TO_DATA}{end}");
        for (step, overcome) in [
            ("EHLO a\n", "EHLO a\n502 5.5.1 no\nHELO a\n"),
            (
                "MAIL",
                "AUTH LOGIN\n334 VXNlcm5hbWU6\nYQ==\n535 5.7.8 bad\nAUTH LOGIN\n334 VXNlcm5hbWU6\nYQ==\n235 ok\nMAIL",
            ),
            ("MAIL", "STARTTLS\n454 4.7.0 later\nMAIL"),
            ("MAIL", "XCLIENT NAME=a\n550 5.7.0 no\nMAIL"),
            ("QUIT\n221 bye", "421 4.4.2 idle"),
            (
                "221 bye\n",
                "221 bye\n220 mx\nEHLO a\n250 mx\nQUIT\n221 bye\n",
            ),
        ] {
            let text = good.replacen(step, overcome, 1);
            assert_eq!(told(&text), (Some(250), Some(Phase::End)), "{text}");
        }
        // A later message is another, and so is a later connection.
        let (mail, bad) = ("MAIL FROM:<", "MAIL FROM:<z@b>\n550 5.1.8 no\nMAIL FROM:<");
        let other = good.replacen(mail, bad, 1);
        assert_eq!(told(&other), (Some(550), Some(Phase::Mail)), "{other}");
        let data = good.replacen("DATA", "DATA\n550 5.7.64 no\nRSET\n250 ok\nMAIL FROM:<a@b>\n250 ok\nRCPT TO:<c@d>\n250 ok\nDATA", 1);
        assert_eq!(told(&data), (Some(550), Some(Phase::Content)), "{data}");
        let banned = format!("{good}550 5.7.606 banned\n");
        assert_eq!(told(&banned), (Some(550), Some(Phase::Greeting)));
        let first = format!("220 x\nEHLO a\n250 x\nAUTH PLAIN YQ==\n535 no\nQUIT\n221 x\n{good}");
        assert_eq!(told(&first), (Some(535), Some(Phase::Login)), "{first}");
        let one = good.replace("DATA", "RCPT TO:<z@e.f>\n550 5.1.1 no\nDATA");
        assert_eq!(told(&one), (Some(550), Some(Phase::Recipient)));
        // What was not overcome is told in its place.
        let later = "220 x\nEHLO a\n502 no\nHELO a\n250 x\nMAIL FROM:<a@b>\n250 ok\nRCPT TO:<c@d>\n550 no\n";
        assert_eq!(told(later), (Some(550), Some(Phase::Recipient)));
        let login = "220 x\nEHLO a\n250 x\nAUTH PLAIN YQ==\n535 no\nQUIT\n221 x\n";
        assert_eq!(told(login), (Some(535), Some(Phase::Login)));
    }

    #[test]
    fn a_session_that_was_cut_off_has_no_consent_to_a_message() {
        let tls = "220 mx\nEHLO a\n250 STARTTLS\nSTARTTLS\n220 go\n*** TLS startup failed\n";
        let lost = "*** Remote host closed connection unexpectedly.\n";
        for (text, phase) in [
            (tls.to_owned(), Phase::StartTls),
            (format!("{TO_DATA}hi\n{lost}"), Phase::Recipient),
            (format!("{TO_DATA}hi\n.\n{lost}"), Phase::Recipient),
            (
                format!("220 x\nEHLO a\n250 x\nMAIL FROM:<a@b>\n{lost}"),
                Phase::Hello,
            ),
            ("220 x\nBDAT 7\n250 ok\n".to_owned(), Phase::Content),
        ] {
            assert_eq!(told(&text).1, Some(phase), "{text}");
        }
    }

    #[test]
    fn the_refusal_is_found_whatever_marks_the_sides() {
        for [server, client, end] in [
            [
                "2026-11-25T08:15:31.123Z,EX\\Default,08DD,1,192.0.2.1:25,192.0.2.2:9,>,",
                "2026-11-25T08:15:31.123Z,EX\\Default,08DD,1,192.0.2.1:25,192.0.2.2:9,<,",
                ",",
            ],
            ["SERVER -> CLIENT: ", "CLIENT -> SERVER: ", ""],
            ["  SMTP<< ", "  SMTP>> ", ""],
            ["reply: b'", "send: '", "\\r\\n'"],
            [
                "postfix/smtp[1]: < mx[192.0.2.1]:25: ",
                "postfix/smtp[1]: > mx[192.0.2.1]:25: ",
                "",
            ],
            [
                "postfix/smtpd[1]: > unknown[2001:db8::1]: ",
                "postfix/smtpd[1]: < unknown[2001:db8::1]: ",
                "",
            ],
            ["<-- ", "--> ", ""],
            ["S: ", "C: ", ""],
            [" Out: ", " In:  ", ""],
        ] {
            let lines = DIALOGUE.replace("REPLY", "550-Relay\n550 denied");
            let lines = lines.lines().map(|line| match line.strip_prefix('C') {
                Some(said) => format!("{client}{said}{end}\n"),
                // Some tools mark the first line of a reply only.
                None if server.contains("SMTP<<") && line == "550 denied" => {
                    format!("         {line}\n")
                }
                None => format!("{server}{line}{end}\n"),
            });
            let text: String = lines.collect();
            let found = said(text.as_bytes()).unwrap_or_else(|| panic!("{text}"));
            let found = (found.code, found.phase, found.text.as_str());
            assert_eq!(
                found,
                (Some(550), Some(Phase::Recipient), "Relay denied"),
                "{text}"
            );
        }
    }

    #[test]
    fn the_phase_goes_with_the_commands() {
        let phase = |text: &str| decided(text).map(|(phase, _)| phase);
        for (text, wanted) in [
            ("554 no mail\nQUIT\n221 x", Phase::Greeting),
            ("220 x\nEHLO y\n502 5.5.1 x", Phase::Hello),
            (
                "220 x\nehlo y\n250 x\nstarttls\n454 4.7.0 x",
                Phase::StartTls,
            ),
            (
                "220 x\nEHLO y\n250 x\nAUTH LOGIN\n334 VXNlcm5hbWU6\nZXJw\n334 UGFzc3dvcmQ6\nd3Jvbmc=\n535 5.7.8 x",
                Phase::Login,
            ),
            // Pipelined: the replies come in the order of the commands.
            (
                "MAIL FROM:<a@b>\nRCPT TO:<c@d>\nDATA\n250 ok\n550 5.1.1 no\n503 5.5.1 x",
                Phase::Recipient,
            ),
            (
                "220 x\nDATA\n354 x\nMAIL FROM: no command\n.\n554 5.6.0 x",
                Phase::End,
            ),
            ("220 x\nBDAT 7 LAST\n552 5.3.4 x", Phase::End),
        ] {
            assert_eq!(phase(text), Some(wanted), "{text}");
        }
        // Neither commands nor replies alone make one.
        for text in ["550 5.1.1 x", "MAIL FROM:<a@b>", "> 550 5.1.1 x", ""] {
            assert_eq!(phase(text), None, "{text}");
        }
    }
}
