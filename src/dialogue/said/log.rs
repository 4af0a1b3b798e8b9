//! What do the logs of Postfix, Exim and sendmail write around a reply, and what does that tell?

use super::reply_code;
use crate::dialogue::outcome::NextHop;
use crate::dialogue::replies::Phase;
use crate::mail::QueueId;

/// What the reply answered: as Postfix (`in reply to`), Exim (`after`), sendmail (`>>>`) and our own trace (`to`) say it.
pub(super) fn phase(whole: &str) -> Option<Phase> {
    const SAYINGS: &[(&str, Phase)] = &[
        ("in reply to end of data", Phase::End),
        ("in reply to data", Phase::Content),
        ("in reply to rcpt", Phase::Recipient),
        ("in reply to mail", Phase::Mail),
        ("in reply to auth", Phase::Login),
        ("in reply to starttls", Phase::StartTls),
        ("in reply to ehlo", Phase::Hello),
        ("in reply to helo", Phase::Hello),
        ("refused to talk to me", Phase::Greeting),
        ("after end of data", Phase::End),
        ("after sending data block", Phase::End),
        ("after data:", Phase::Content),
        ("after rcpt to", Phase::Recipient),
        ("after mail from", Phase::Mail),
        ("after starttls", Phase::StartTls),
        ("after ehlo", Phase::Hello),
        ("after helo", Phase::Hello),
        ("after initial connection", Phase::Greeting),
        (">>> rcpt to", Phase::Recipient),
        (">>> mail from", Phase::Mail),
        (">>> data", Phase::Content),
        ("starttls refused:", Phase::StartTls),
        ("(to connection)", Phase::Greeting),
        ("(to ehlo)", Phase::Hello),
        ("(to starttls)", Phase::StartTls),
        ("(to auth)", Phase::Login),
    ];
    if says_login(whole) {
        return Some(Phase::Login);
    }
    let lower = whole
        .to_ascii_lowercase()
        .replace("after pipelined ", "after ");
    // sendmail shows the dialogue up to the reply: the last step is the one.
    let known = SAYINGS
        .iter()
        .filter_map(|(saying, phase)| Some((lower.rfind(saying)?, *phase)));
    let (shown, said): (Vec<_>, Vec<_>) =
        known.partition(|(at, _)| lower.get(*at..).is_some_and(|rest| rest.starts_with(">>>")));
    let last = shown.into_iter().max_by_key(|(at, _)| *at);
    let known = said.first().copied().or(last).map(|(_, phase)| phase);
    known.or_else(|| {
        // What answered a login, our trace says: these codes come from a server that wants one first.
        let mut told = whole.lines().filter_map(of_trace);
        let wants_login = |told: &str| {
            ["534 ", "535 ", "538 "]
                .iter()
                .any(|code| told.starts_with(code))
        };
        told.any(wants_login).then_some(Phase::Mail)
    })
}

/// Our own trace, of a login. Gatepost logs in at relays only.
const LOGIN: &str = "login: the next hop refuses it:";

/// Who gave the reply, where our own trace or log says so.
pub(super) fn next_hop(attempt: &str) -> Option<NextHop> {
    let named = attempt.lines().next().and_then(way);
    named.or_else(|| says_login(attempt).then_some(NextHop::Relay))
}

/// The attempts of a text: each begins with the line in which our own trace or log names the way.
pub(super) fn attempts(whole: &str) -> Vec<&str> {
    let (mut attempts, mut from, mut at) = (Vec::new(), 0, 0);
    for line in whole.split_inclusive('\n') {
        if at > from && way(line).is_some() {
            attempts.extend(whole.get(from..at));
            from = at;
        }
        at += line.len();
    }
    attempts.extend(whole.get(from..));
    attempts
}

/// The way that a line of ours names: `tried by relay:NAME at ...` (trace), `via="mx"` and `"via":"mx"` (log).
fn way(line: &str) -> Option<NextHop> {
    const MARKS: [&str; 4] = ["tried by ", "via=\"", "\"via\":\"", "\"via\": \""];
    let named = |mark: &&str| Some(line.split_once(*mark)?.1);
    let name = MARKS.iter().find_map(named)?.split([' ', '"', ':']).next();
    match name? {
        "exchange" => Some(NextHop::Exchange),
        "mx" => Some(NextHop::Mx),
        "relay" => Some(NextHop::Relay),
        _ => None,
    }
}

/// `login: 535 ...` as well: our own trace, cut short.
fn says_login(whole: &str) -> bool {
    let is_refused = |told: &str| {
        let code = told
            .trim_start()
            .strip_prefix("login: ")
            .and_then(|rest| rest.get(..3));
        code.and_then(reply_code).is_some_and(|code| code >= 400)
    };
    whole.contains(LOGIN) || is_refused(whole) || whole.lines().filter_map(of_trace).any(is_refused)
}

/// What our own trace says of a recipient, behind `bob@contoso.com deferred: `; whose it is may be cut off.
pub(super) fn of_trace(line: &str) -> Option<&str> {
    let (head, told) = line.split_once(": ")?;
    let mut words = head.split_whitespace().rev();
    let is_outcome = matches!(
        words.next(),
        Some("delivered" | "deferred" | "held" | "failed")
    );
    let is_whose = |word: &str| word.contains('@') || word.parse::<QueueId>().is_ok();
    (is_outcome && words.next().is_none_or(is_whose)).then_some(told)
}

/// What comes before a quotation mark that no backslash escapes.
pub(super) fn up_to_quote(text: &str) -> Option<&str> {
    let mut marks = text.match_indices('"').map(|(at, _)| text.get(..at));
    marks.find_map(|before| before.filter(|before| !before.ends_with('\\')))
}

/// What came last in a dialogue as sendmail shows it: our lines begin with `>>>`, the other side's with `<<<`.
pub(super) fn last_answer(whole: &str) -> Option<&str> {
    let (_, last) = whole.rsplit_once(">>>")?;
    let (_, answer) = last.split_once("<<<")?;
    let next = answer.match_indices('\n').find(|(at, _)| {
        let line = answer.get(at + 1..).unwrap_or_default();
        !line.trim_start().starts_with("<<<")
    });
    answer.get(..next.map_or(answer.len(), |(at, _)| at))
}

/// A line without the mark that sendmail sets before what the other side says.
pub(super) fn without_marks(line: &str) -> &str {
    line.strip_prefix("<<<").map_or(line, str::trim_start)
}

/// Exim writes the line ends of a reply as `\n`; where a code follows, it is one.
pub(super) fn with_line_ends(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for (number, part) in text.split("\\n").enumerate() {
        let code = matches!(
            part.as_bytes(),
            [b'2'..=b'5', b'0'..=b'9', b'0'..=b'9', b'-' | b' ', ..]
        );
        match (number, code) {
            (0, _) => {}
            (_, true) => out.push('\n'),
            (_, false) => out.push_str("\\n"),
        }
        out.push_str(part);
    }
    out
}

/// Whether a line begins with the time of a log: `2026-11-29 ...` or `Nov 29 ...`.
pub(super) fn begins_entry(line: &str) -> bool {
    const MONTHS: [&str; 12] = [
        "Jan ", "Feb ", "Mar ", "Apr ", "May ", "Jun ", "Jul ", "Aug ", "Sep ", "Oct ", "Nov ",
        "Dec ",
    ];
    let line = line.trim_start();
    let digits = |from: usize, to: usize| {
        line.get(from..to)
            .is_some_and(|part| part.bytes().all(|octet| octet.is_ascii_digit()))
    };
    let dashes = line.get(4..5) == Some("-") && line.get(7..8) == Some("-");
    let month = MONTHS.iter().any(|month| line.starts_with(month));
    let clock = line.get(9..10) == Some(":") && line.get(12..13) == Some(":");
    (digits(0, 4) && digits(5, 7) && digits(8, 10) && dashes) || (month && clock)
}

/// The text of a reply without what stands behind it in a log.
pub(super) fn unwrapped(text: &str) -> &str {
    const BEHIND: [&str; 7] = [
        " (in reply to ",
        "(in reply to ",
        ", stat=",
        "(to connection)",
        "(to EHLO)",
        "(to STARTTLS)",
        "(to AUTH)",
    ];
    let text = match text.trim_start().strip_prefix(", stat=") {
        // sendmail knew no more of the reply than this.
        Some(stat) => stat,
        None => text,
    };
    let end = BEHIND.iter().filter_map(|behind| text.find(behind)).min();
    let mut text = text.get(..end.unwrap_or(text.len())).unwrap_or(text);
    // Postfix sets the reply in brackets: the one that nothing opened is its.
    let opened = text.matches('(').count();
    let mut surplus = text.matches(')').count().saturating_sub(opened);
    while surplus > 0
        && let Some(inner) = text.trim_end().strip_suffix(')')
    {
        text = inner;
        surplus -= 1;
    }
    text
}

#[cfg(test)]
mod tests {
    use crate::dialogue::outcome::NextHop;
    use crate::dialogue::replies::Phase;
    use crate::dialogue::said::said;

    #[test]
    fn a_line_of_each_log_gives_the_reply_and_what_it_answered() {
        let relay = "550 5.7.64 TenantAttribution; Relay Access Denied";
        let postfix = "Nov 29 10:15:31 mx postfix/smtp[123]: 4AB: to=<b@contoso.com>, relay=c.outlook.com[52.101.73.1]:25, delay=0.9, dsn=5.7.64, status=bounced (host c.outlook.com[52.101.73.1] ";
        let exim = "2026-11-29 10:15:31 1abcDE-0001-2F ** b@contoso.com R=dns T=smtp H=c.outlook.com [52.101.73.1] X=TLS1.3:X:256: SMTP error from remote mail server after ";
        let sendmail = "Nov 29 10:15:31 mx sm-mta[123]: 3ATAFV: to=<b@contoso.com>, delay=00:00:01, relay=c. [52.101.73.1], ";
        for (line, code, phase, text) in [
            (format!("{postfix}said: {relay} (in reply to RCPT TO command))"), 550, Some(Phase::Recipient), "TenantAttribution; Relay Access Denied"),
            (format!("{postfix}said: {relay} (in reply to end of DATA command))\n{postfix}said: 250 ok"), 550, Some(Phase::End), "TenantAttribution; Relay Access Denied"),
            (format!("{postfix}said: 550 5.7.1 blocked (see https://x.example/1) (in reply to MAIL FROM command))"), 550, Some(Phase::Mail), "blocked (see https://x.example/1)"),
            (format!("{postfix}refused to talk to me: 421 4.3.2 Not now)"), 421, Some(Phase::Greeting), "Not now"),
            ("status=sent (250 2.6.0 <1@x.example> Queued mail for delivery)".to_owned(), 250, None, "<1@x.example> Queued mail for delivery"),
            (format!("{exim}RCPT TO:<b@contoso.com>: {relay}"), 550, Some(Phase::Recipient), "TenantAttribution; Relay Access Denied"),
            (format!("{exim}pipelined MAIL FROM:<a@x.example> SIZE=1806: {relay}"), 550, Some(Phase::Mail), "TenantAttribution; Relay Access Denied"),
            (format!("{exim}pipelined end of data: 550-5.7.1 not\\n550 5.7.1 so\n2026-11-29 10:15:32 1abcDE-0001-2F Completed"), 550, Some(Phase::End), "not so"),
            ("SMTP error from remote mail server after RCPT TO:<b@contoso.com>:\n    550-5.7.1 not\n    550 5.7.1 so".to_owned(), 550, Some(Phase::Recipient), "not so"),
            ("=> b@contoso.com R=dns T=smtp H=c.outlook.com [52.101.73.1] C=\"250 2.6.0 Queued\"".to_owned(), 250, None, "Queued"),
            (format!("{sendmail}dsn=5.7.64, reply={relay}, stat=Service unavailable"), 550, None, "TenantAttribution; Relay Access Denied"),
            (format!("{sendmail}dsn=4.0.0, stat=Deferred: 451 4.7.500 Server busy. (S77719)"), 451, None, "Server busy. (S77719)"),
            (">>> DATA\n<<< 550-5.7.1 not\n<<< 550 5.7.1 so\n554 5.0.0 Service unavailable".to_owned(), 550, Some(Phase::Content), "not so"),
            ("... while talking to c.outlook.com.:\n>>> MAIL From:<a@x.example>\n<<< 250 2.1.0 Sender OK\n>>> RCPT To:<b@contoso.com>\n".to_owned() + "<<< " + relay + "\n550 5.1.1 <b@contoso.com>... User unknown", 550, Some(Phase::Recipient), "TenantAttribution; Relay Access Denied"),
        ] {
            let found = said(line.as_bytes()).unwrap_or_else(|| panic!("{line}"));
            assert_eq!((found.code, found.phase, found.text.as_str()), (Some(code), phase, text), "{line}");
        }
        // A hyphen says that a line follows; without, the reply has ended (RFC 5321 §4.2.1).
        let two = said(b"550 5.1.1 one\n550 5.1.1 two").unwrap();
        assert_eq!(two.text, "one");
        let bare = said(format!("{sendmail}dsn=5.7.64, stat=User unknown").as_bytes()).unwrap();
        assert_eq!((bare.code, bare.enhanced), (None, Some((5, 7, 64))));
        assert_eq!(bare.text, "User unknown");
    }

    fn of(text: &str) -> (Option<Phase>, Option<NextHop>) {
        let found = said(text.as_bytes()).unwrap_or_else(|| panic!("{text}"));
        (found.phase, found.next_hop)
    }

    #[test]
    fn the_way_is_that_of_our_own_trace_or_log() {
        let reply = "550 5.7.64 TenantAttribution; Relay Access Denied";
        for (name, next_hop) in [
            ("relay:out", NextHop::Relay),
            ("mx", NextHop::Mx),
            ("exchange", NextHop::Exchange),
        ] {
            for text in [
                format!(
                    "  2026-11-30T00:02:56.129Z  tried by {name} at c.example [192.0.2.1:25], 91 ms\n      b@partner.example failed: {reply}\n      TLSv1.3 X, certificate c.example\n  2026-11-30T00:02:57.129Z  report 1M89EJVQ8XBM5 (failed) to a@contoso.com\n"
                ),
                format!(
                    "2026-11-30T00:03:23.0Z  WARN a reply that an administrator should see: gatepost explain reply tenant=\"contoso\" via=\"{name}\" id=1M8MW6VAYA08X reply=\"{reply}\""
                ),
                format!(
                    "{{\"timestamp\":\"2026-11-30T00:03:23.0Z\",\"fields\":{{\"tenant\":\"contoso\",\"via\":\"{name}\",\"reply\":\"{reply}\",\"id\":\"1M8MW6VAYA08X\"}}}}"
                ),
            ] {
                assert_eq!(of(&text).1, Some(next_hop), "{text}");
                let found = said(text.as_bytes()).unwrap();
                assert_eq!(
                    found.text, "TenantAttribution; Relay Access Denied",
                    "{text}"
                );
            }
        }
        // Of two attempts each has its own.
        let two = format!(
            "tried by exchange at a.example, 9 ms\n b@x.example delivered: 250 ok\ntried by mx at b.example, 9 ms\n c@x.example failed: {reply}\n"
        );
        assert_eq!(of(&two).1, Some(NextHop::Mx));
        // What was refused for good is the end of the story.
        let end = format!(
            "tried by mx at a.example, 9 ms\n b@x.example deferred: 450 4.7.1 later\ntried by mx at b.example, 9 ms\n b@x.example failed: {reply}\n"
        );
        assert_eq!(said(end.as_bytes()).unwrap().code, Some(550));
        assert_eq!(of(reply).1, None);
        assert_eq!(of(&format!("via=\"gprs\" {reply}")).1, None);
    }

    #[test]
    fn a_login_is_one_only_where_our_trace_says_it() {
        let login = (Some(Phase::Login), Some(NextHop::Relay));
        for (text, wanted) in [
            ("login: 535 5.7.8 bad", login),
            ("b@x.example deferred: login: 454 4.7.0 x", login),
            (
                "deferred: login: the next hop refuses it: 250 2.7.0 x",
                login,
            ),
            ("Bob wrote: please login: 535 5.7.8 x", (None, None)),
            ("user login: 550 5.7.64 TenantAttribution", (None, None)),
            (
                "550 5.7.64 x\nSee the admin center after login: 404",
                (None, None),
            ),
            ("Login: 550 5.1.1 no such user", (None, None)),
            ("550 5.1.1 x\nlogin: 535 5.7.8 bad", (None, None)),
            (
                "b@x.example failed: 535 5.7.8 log in",
                (Some(Phase::Mail), None),
            ),
            ("b@x.example failed: 550 5.7.8 log in", (None, None)),
        ] {
            assert_eq!(of(text), wanted, "{text}");
        }
    }

    #[test]
    fn nothing_of_our_trace_gets_into_the_reply() {
        for text in [
            "b@x.example failed: 554 5.7.1 go away (to connection)\n      c@x.example failed: 554 5.7.1 go away (to connection)",
            "b@x.example held: 554 5.7.1 go away\n      TLSv1.3 X, certificate not verified",
            "b@x.example delivered: 250 2.0.0 go away\n      TLSv1.3 X, certificate c.example",
            "554 5.7.1 go away (to EHLO)\n  2026-11-30T00:02:57.129Z  tried again",
        ] {
            assert_eq!(said(text.as_bytes()).unwrap().text, "go away", "{text}");
        }
    }

    #[test]
    #[expect(
        clippy::disallowed_methods,
        reason = "a time that grows with the square is what fails"
    )]
    fn closed_brackets_are_taken_off_in_linear_time() {
        let text = format!("550 x (y){}", ")".repeat(64_000));
        let began = std::time::Instant::now();
        assert_eq!(said(text.as_bytes()).unwrap().text, "x (y)");
        assert!(began.elapsed() < std::time::Duration::from_secs(5));
    }
}
