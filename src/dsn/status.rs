//! The part for machines: one group of fields on the message, one on each recipient (RFC 3464 §2.2, §2.3).

use super::{Fate, Kind, Report, Source, address, clean};
use crate::header::rfc5322_date;
use crate::smtp::reply::Enhanced;
use std::net::IpAddr;

pub(super) fn machine(report: &Report<'_>, utf8: bool) -> String {
    let mut out = Vec::new();
    // RFC 3464 §2.2.1: printable text, decoded.
    let envid = report.envid.and_then(address::line);
    out.extend(envid.map(|id| format!("Original-Envelope-Id: {id}")));
    out.push(format!("Reporting-MTA: dns; {}", report.hostname));
    out.push(format!("Arrival-Date: {}", rfc5322_date(report.arrived)));
    out.push(format!("X-Gatepost-Queue-Id: {}", report.original));
    for fate in report.fates {
        out.push(String::new());
        recipient(report, fate, utf8, &mut out);
    }
    out.join("\r\n") + "\r\n"
}

fn recipient(report: &Report<'_>, fate: &Fate<'_>, utf8: bool, out: &mut Vec<String>) {
    let orcpt = fate.recipient.orcpt.as_deref();
    let original = orcpt.and_then(|orcpt| address::original(orcpt, utf8));
    out.extend(original.map(|original| format!("Original-Recipient: {original}")));
    let mailbox = &fate.recipient.mailbox;
    out.push(format!("Final-Recipient: {}", address::of(mailbox, utf8)));
    out.push(format!("Action: {}", report.kind.action()));
    let (class, subject, detail) = status(report.kind, fate);
    out.push(format!("Status: {class}.{subject}.{detail}"));
    let reply = clean(fate.reply);
    match fate.source {
        Source::NextHop(host) => {
            out.extend(host.map(|host| format!("Remote-MTA: dns; {}", host_name(host))));
            out.push(format!("Diagnostic-Code: smtp; {reply}"));
        }
        Source::Ours => out.push(format!("Diagnostic-Code: X-Gatepost; {reply}")),
    }
    match report.kind {
        Kind::Failed | Kind::Relayed => {
            out.push(format!("Last-Attempt-Date: {}", rfc5322_date(report.now)));
        }
        // No attempt brought it about, and when the last one was is not known: then nothing is said (RFC 3464 §2.3.7).
        Kind::Delayed => {}
    }
    let until = fate.retry_until;
    out.extend(until.map(|until| format!("Will-Retry-Until: {}", rfc5322_date(until))));
}

/// A failure is permanent, or a temporary one that lasted (4.4.7 where time ran out); a delay is never permanent.
pub(super) fn status(kind: Kind, fate: &Fate<'_>) -> Enhanced {
    let (class, subject, detail) = fate.status;
    match kind {
        Kind::Failed if fate.expired => (4, 4, 7),
        Kind::Failed if class == 4 => (4, subject, detail),
        Kind::Failed => (5, subject, detail),
        Kind::Delayed => (4, subject, detail),
        Kind::Relayed => (2, subject, detail),
    }
}

/// An address stands in brackets, as elsewhere in mail (RFC 5321 §4.1.3).
pub(super) fn host_name(host: &str) -> String {
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) => format!("[{address}]"),
        Ok(IpAddr::V6(address)) => format!("[IPv6:{address}]"),
        Err(_) => clean(host),
    }
}
