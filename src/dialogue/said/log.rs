//! What do the logs of Postfix, Exim and sendmail write around a reply, and what does that tell?

use super::reply_code;
use crate::dialogue::outcome::NextHop;
use crate::dialogue::replies::Phase;

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
        (LOGIN, Phase::Login),
        ("(to connection)", Phase::Greeting),
        ("(to ehlo)", Phase::Hello),
        ("(to starttls)", Phase::StartTls),
        ("(to auth)", Phase::Login),
    ];
    let lower = whole
        .to_ascii_lowercase()
        .replace("after pipelined ", "after ");
    // sendmail shows the dialogue up to the reply: the last step is the one.
    if says_login(&lower) {
        return Some(Phase::Login);
    }
    let known = SAYINGS
        .iter()
        .filter_map(|(saying, phase)| Some((lower.rfind(saying)?, *phase)));
    let (shown, said): (Vec<_>, Vec<_>) =
        known.partition(|(at, _)| lower.get(*at..).is_some_and(|rest| rest.starts_with(">>>")));
    let last = shown.into_iter().max_by_key(|(at, _)| *at);
    said.first().copied().or(last).map(|(_, phase)| phase)
}

/// Our own trace, of a login. Gatepost logs in at relays only.
const LOGIN: &str = "login: the next hop refuses it:";

/// Who gave the reply, where our own trace says so.
pub(super) fn next_hop(whole: &str) -> Option<NextHop> {
    let lower = whole.to_ascii_lowercase();
    lower.contains(LOGIN).then_some(NextHop::Relay)
}

/// `login: 535 ...`: our own trace, cut short.
fn says_login(lower: &str) -> bool {
    lower.match_indices("login: ").any(|(at, word)| {
        let before = lower.get(..at).unwrap_or_default();
        let code = lower.get(at + word.len()..).and_then(|rest| rest.get(..3));
        let is_refusal = code.and_then(reply_code).is_some_and(|code| code >= 400);
        is_refusal && (before.is_empty() || before.ends_with([' ', '\n']))
    })
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
    const BEHIND: [&str; 3] = [" (in reply to ", "(in reply to ", ", stat="];
    let text = match text.trim_start().strip_prefix(", stat=") {
        // sendmail knew no more of the reply than this.
        Some(stat) => stat,
        None => text,
    };
    let end = BEHIND.iter().filter_map(|behind| text.find(behind)).min();
    let mut text = text.get(..end.unwrap_or(text.len())).unwrap_or(text);
    // Postfix sets the reply in brackets: the one that nothing opened is its.
    let count = |text: &str, bracket| text.matches(bracket).count();
    while let Some(inner) = text.trim_end().strip_suffix(')')
        && count(text, ')') > count(text, '(')
    {
        text = inner;
    }
    text
}

#[cfg(test)]
mod tests {
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
}
