//! The part for people: what failed, what was said, what to do.

use super::status::{host_name, status};
use super::{Fate, Kind, Report, Returned, Source, clean};
use crate::header::rfc5322_date;
use crate::smtp::reply::Enhanced;

pub(super) fn human(report: &Report<'_>) -> String {
    let mut lines = vec![format!("This is the mail gateway {}.", report.hostname)];
    lines.push(String::new());
    lines.extend(opening(report).into_iter().map(str::to_owned));
    for fate in report.fates {
        lines.push(String::new());
        recipient(report.kind, fate, &mut lines);
    }
    lines.push(String::new());
    lines.push(format!(
        "Your administrator finds the whole story with: gatepost trace {}",
        report.original
    ));
    let shown = match report.returned {
        Returned::Nothing => "The message itself could not be read back, so none of it is shown.",
        Returned::Header(_) => "The header of your message is attached.",
        Returned::Whole(_) => "Your message is attached.",
    };
    lines.push(shown.to_owned());
    lines.join("\r\n") + "\r\n"
}

fn opening(report: &Report<'_>) -> [&'static str; 2] {
    match report.kind {
        Kind::Failed => [
            "Your message could not be delivered to the recipients below. It has been",
            "given up for them; for recipients that are not named nothing changes.",
        ],
        Kind::Delayed => [
            "Your message has not been delivered to the recipients below yet. It is",
            "still being tried; there is no need to send it again.",
        ],
        Kind::Relayed => [
            "Your message was handed on for the recipients below, to a mail server that",
            "does not report delivery. You asked to be told of it; no more will follow.",
        ],
    }
}

fn recipient(kind: Kind, fate: &Fate<'_>, lines: &mut Vec<String>) {
    // In brackets, so that no recipient makes a line that means something: `--boundary@…` is an address, too.
    lines.push(format!("<{}>", fate.recipient.mailbox));
    let host = match fate.source {
        Source::NextHop(Some(host)) => Some(host_name(host)),
        Source::NextHop(None) => Some("The next mail server".to_owned()),
        Source::Ours => None,
    };
    lines.push(match (kind, host) {
        (Kind::Relayed, Some(host)) => format!("  {host} took it:"),
        (Kind::Failed, Some(host)) if fate.expired => {
            format!("  It could not be delivered in time. {host} said last:")
        }
        (Kind::Failed, None) if fate.expired => {
            "  It could not be delivered in time. What stood in the way last:".to_owned()
        }
        (Kind::Failed, Some(host)) => format!("  {host} refused it:"),
        (Kind::Delayed, Some(host)) => format!("  {host} did not take it:"),
        (Kind::Delayed, None) => "  It could not be handed on yet:".to_owned(),
        (_, None) => "  It could not be handed on:".to_owned(),
    });
    lines.push(format!("  {}", clean(fate.reply)));
    match (kind, fate.retry_until) {
        (Kind::Relayed, _) => {}
        (Kind::Delayed, Some(until)) => {
            lines.push(format!("  It is tried until {}.", rfc5322_date(until)));
        }
        (Kind::Failed | Kind::Delayed, _) => {
            let advice = advice(status(kind, fate));
            lines.extend(advice.map(|line| format!("  {line}")));
        }
    }
}

/// What to do, by subject and detail of the code (RFC 3463 §3).
fn advice(status: Enhanced) -> [&'static str; 2] {
    match status {
        (_, 1, _) | (5, 4, 1) => [
            "What to do: check the address for typing errors. If it is right, the",
            "mailbox does not exist or takes no mail; ask the recipient in another way.",
        ],
        (_, 2, 2) => [
            "What to do: the mailbox is full or at its limit. Tell the recipient, and",
            "send the message again later.",
        ],
        (_, 2, 3) | (_, 3, 4) => [
            "What to do: the message is too large. Send it again with smaller",
            "attachments, or share them in another way.",
        ],
        (_, 4, 6 | 14) => [
            "What to do: the message went round in circles. Tell your administrator: a",
            "route or forwarding points back to where it came from.",
        ],
        (4, 4, 7) => [
            "What to do: send it again later; if it fails again, tell your administrator",
            "what was said above.",
        ],
        (_, 6, 7) => [
            "What to do: the recipient's mail server does not take addresses with such",
            "letters. Use another address of the recipient, or of yours.",
        ],
        (_, 6, _) => [
            "What to do: the form of the message was not accepted. Send it again in",
            "another form, for example as plain text without attachments.",
        ],
        (_, 7, 12 | 13 | 124 | 129 | 133..=137 | 193) => [
            "What to do: this recipient takes mail from certain senders only. Ask its",
            "owner, or your administrator, to be let in.",
        ],
        (_, 7, _) => [
            "What to do: the message was not permitted. Tell your administrator what",
            "was said above.",
        ],
        _ => [
            "What to do: if what was said above does not tell you, ask your",
            "administrator.",
        ],
    }
}
