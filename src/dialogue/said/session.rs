//! Which reply decided a session that somebody recorded: swaks, `curl -v`, telnet, sendmail `-v`, Exchange's protocol log?

use super::super::replies::Phase;
use super::reply_code;
use std::collections::VecDeque;

/// What one side said.
enum Line<'a> {
    Client(&'a str),
    Server(&'a str),
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
pub(super) fn decided(whole: &str) -> Option<(Phase, String)> {
    let sendmail = whole.lines().any(|line| line.starts_with(">>> "));
    let all = replies(whole)?;
    let step = |own: &Answered| match own.asked {
        Asked::Step(phase) => Some((phase, own.text.clone())),
        Asked::Aside => None,
    };
    let mut refusals = all.iter().filter(|own| own.code >= 400).filter_map(step);
    let refusal = if sendmail {
        refusals.next_back()
    } else {
        refusals.next()
    };
    let consent = || {
        let taken = all.iter().filter(|own| own.code < 300);
        taken.filter_map(step).next_back()
    };
    refusal.or_else(consent)
}

/// Every reply of the session; `None` where there is no command of SMTP, or no reply.
fn replies(whole: &str) -> Option<Vec<Answered>> {
    let is_marked = whole
        .lines()
        .any(|line| matches!(marked(line), Some(Line::Server(said)) if begins_reply(said)));
    let mut all: Vec<Answered> = Vec::new();
    let mut asked: VecDeque<Asked> = VecDeque::new();
    // What replies answer that nobody has asked for in one command: the greeting, steps of a login, the end of content.
    let mut last = Asked::Step(Phase::Greeting);
    let (mut commands, mut more, mut content) = (false, false, false);
    for line in whole.lines() {
        let own = if is_marked {
            marked(line)
        } else {
            Some(bare(line))
        };
        match own {
            Some(Line::Server(said)) if begins_reply(said) => {
                let goes_on = said.as_bytes().get(3) == Some(&b'-');
                if let (true, Some(open)) = (more, all.last_mut()) {
                    open.text.push('\n');
                    open.text.push_str(said);
                } else {
                    last = asked.pop_front().unwrap_or(last);
                    let code = said.get(..3).and_then(|code| code.parse().ok())?;
                    all.push(Answered {
                        code,
                        text: said.to_owned(),
                        asked: last,
                    });
                    content = code == 354;
                    if content {
                        last = Asked::Step(Phase::End);
                    }
                }
                more = goes_on;
            }
            // A window has wrapped it.
            Some(Line::Server(said)) if !is_marked && line.starts_with([' ', '\t']) => {
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

/// A line with the mark of whoever said it: `<-` `<~` `<**` `<~*` and `->` `~>` (swaks), `<` and `>` (curl), `<<<` and `>>>`
/// (sendmail), `,<,` and `,>,` (Exchange).
fn marked(line: &str) -> Option<Line<'_>> {
    if let Some((_, said)) = line.split_once(",<,") {
        return Some(Line::Server(column(said)));
    }
    if let Some((_, said)) = line.split_once(",>,") {
        return Some(Line::Client(column(said)));
    }
    let line = line.trim_start();
    if line.starts_with('<') {
        return Some(Line::Server(
            line.trim_start_matches(['<', '-', '~', '*', ' ']),
        ));
    }
    let client = line.strip_prefix(['-', '~']).unwrap_or(line);
    client
        .starts_with('>')
        .then(|| Line::Client(client.trim_start_matches(['>', ' '])))
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
        _ if begins("ehlo ") || begins("helo ") => Phase::Hello,
        _ if begins("auth ") => Phase::Login,
        _ if begins("mail from:") => Phase::Mail,
        _ if begins("rcpt to:") => Phase::Recipient,
        _ if begins("bdat ") => Phase::End,
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
