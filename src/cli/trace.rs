//! `gatepost trace`: the story of messages, from the running server.

use super::Trouble;
use crate::admin::TraceRequest;
use crate::config::Settings;
use crate::message_trace::{Event, TraceEvent};
use clap::Args;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;

/// What to look for.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Queue id, Message-ID, network message id or address.
    text: Option<String>,
    /// Only from this moment on: `2026-11-25`, `2026-11-25T08:00:00Z`, or `2h` ago.
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only up to this moment.
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
}

/// Prints the stories; false where there is none.
///
/// # Errors
/// A time that is none, or the server cannot be reached.
pub fn run(settings: &Settings, arguments: &Arguments, json: bool) -> Result<bool, Trouble> {
    let now = super::unix_millis();
    let moment = |text: &Option<String>| text.as_deref().map(|text| moment(text, now)).transpose();
    let request = TraceRequest {
        text: arguments.text.clone(),
        since: moment(&arguments.since)?,
        until: moment(&arguments.until)?,
    };
    if request.text.is_none() && request.since.is_none() && request.until.is_none() {
        return Err(Trouble::Use(
            "trace what? A queue id, Message-ID, network message id or address, or --since"
                .to_owned(),
        ));
    }
    let mut parameters = Vec::new();
    parameters.extend(request.text.map(|text| ("text", text)));
    parameters.extend(request.since.map(|at| ("since", at.to_string())));
    parameters.extend(request.until.map(|at| ("until", at.to_string())));
    let events: Vec<TraceEvent> = super::client(settings)?.get("/trace", &parameters)?;
    let text = if json {
        serde_json::to_string_pretty(&events).map_err(|error| error.to_string())? + "\n"
    } else {
        stories(&events)
    };
    let written = std::io::stdout().lock().write_all(text.as_bytes());
    written.map_err(Trouble::of_output)?;
    Ok(!events.is_empty())
}

/// A date, a moment of RFC 3339, or a duration ago; milliseconds since 1970.
fn moment(text: &str, now: u64) -> Result<u64, String> {
    use time::format_description::well_known::Rfc3339;
    let why = || format!("{text:?} is no time: 2026-11-25, 2026-11-25T08:00:00Z, or 2h");
    if let Ok(at) = time::OffsetDateTime::parse(text, &Rfc3339) {
        return u64::try_from(at.unix_timestamp_nanos() / 1_000_000).map_err(|_| why());
    }
    let format = time::macros::format_description!("[year]-[month]-[day]");
    if let Ok(day) = time::Date::parse(text, format) {
        return u64::try_from(day.midnight().assume_utc().unix_timestamp() * 1000)
            .map_err(|_| why());
    }
    let unit = text.chars().last().ok_or_else(why)?;
    let factor = match unit {
        's' => 1000,
        'm' => 60_000,
        'h' => 3_600_000,
        'd' => 86_400_000,
        _ => return Err(why()),
    };
    let number: u64 = text.trim_end_matches(unit).parse().map_err(|_| why())?;
    Ok(now.saturating_sub(number.saturating_mul(factor)))
}

/// A story for each message: what happened, when, and how it stands.
#[must_use]
pub fn stories(events: &[TraceEvent]) -> String {
    let mut out = String::new();
    for story in events.chunk_by(|one, two| one.id == two.id) {
        let id = story.first().map_or("", |event| event.id.as_str());
        // Writing into a String cannot fail.
        let mut line = |text: String| out.write_str(&format!("{text}\n")).is_ok();
        line(format!("{id}  {}", status(story)));
        for event in story {
            line(format!(
                "  {}  {}",
                super::clock(event.at),
                describe(&event.event)
            ));
            for detail in details(&event.event) {
                line(format!("      {detail}"));
            }
        }
        line(String::new());
    }
    if out.is_empty() {
        out.push_str("nothing found\n");
    }
    out
}

/// How the message stands, by each recipient's last result and what an operator did since.
fn status(story: &[TraceEvent]) -> String {
    let mut stands: BTreeMap<&str, &str> = BTreeMap::new();
    let (mut received, mut refused) = (false, false);
    for event in story {
        match &event.event {
            Event::Received { recipients, .. } => {
                received = true;
                for recipient in recipients {
                    stands.entry(recipient).or_insert("queued");
                }
            }
            Event::Attempt { results, .. } => {
                for result in results {
                    let word = match result.outcome.as_str() {
                        "deferred" => "queued",
                        other => other,
                    };
                    stands.insert(&result.recipient, word);
                }
            }
            Event::Operator { action } => {
                let word = match action.as_str() {
                    "hold" => "held",
                    "release" => "queued",
                    "delete" => "deleted",
                    _ => continue,
                };
                let open = stands.values_mut();
                open.filter(|stands| matches!(**stands, "queued" | "held"))
                    .for_each(|stands| *stands = word);
            }
            Event::Refused { .. } => refused = true,
            Event::HandshakeFailed { .. } | Event::Report { .. } | Event::Queue { .. } => {}
        }
    }
    if !received && stands.is_empty() {
        let word = if refused { "refused" } else { "see below" };
        return word.to_owned();
    }
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for word in stands.into_values() {
        *counts.entry(word).or_default() += 1;
    }
    let words: Vec<String> = counts
        .into_iter()
        .map(|(word, count)| match count {
            1 => word.to_owned(),
            count => format!("{word} ({count})"),
        })
        .collect();
    words.join(", ")
}

fn describe(event: &Event) -> String {
    let sender = |sender: &str| {
        if sender.is_empty() {
            "<>".to_owned()
        } else {
            sender.to_owned()
        }
    };
    match event {
        Event::HandshakeFailed {
            listener,
            peer,
            error,
            ..
        } => {
            format!("TLS handshake of {peer} with listener {listener} failed: {error}")
        }
        Event::Refused {
            listener,
            peer,
            reason,
            sender: from,
            ..
        } => {
            let from = from
                .as_deref()
                .map_or_else(String::new, |from| format!(" mail of {}", sender(from)));
            format!("refused{from} from {peer} on listener {listener}: {reason}")
        }
        Event::Received {
            listener,
            tenant,
            application,
            sender: from,
            recipients,
            size,
            verdict,
            transfer,
            ..
        } => {
            if verdict == "own" {
                return format!(
                    "written by the smart host for tenant {tenant} to {}, {size} octets",
                    recipients.join(", ")
                );
            }
            let by = application
                .as_deref()
                .map_or_else(|| listener.clone(), |name| format!("application {name}"));
            format!(
                "received by {by} for tenant {tenant} ({verdict}): {} to {}, {size} octets by {transfer}",
                sender(from),
                recipients.join(", ")
            )
        }
        Event::Attempt {
            via,
            host,
            took,
            results,
            ..
        } if host.is_empty() => {
            // RFC 7505 §4.1: the reply that no host has given.
            let null_mx = results
                .iter()
                .any(|result| result.reply.starts_with("556 5.1.10 "));
            let why = if null_mx {
                "the domain takes no mail (null MX)"
            } else {
                "there is no host to try"
            };
            format!("not tried by {via}: {why}, {took} ms")
        }
        Event::Attempt {
            via,
            host,
            address,
            took,
            reused,
            uncertified,
            ..
        } => {
            let address = address
                .as_deref()
                .map_or_else(String::new, |address| format!(" [{address}]"));
            let reused = if *reused { ", connection reused" } else { "" };
            let bare = if *uncertified {
                ", without our certificate"
            } else {
                ""
            };
            format!("tried by {via} at {host}{address}, {took} ms{reused}{bare}")
        }
        Event::Report {
            class,
            report,
            to,
            recipients,
        } => format!(
            "report {report} ({class}) to {to} about {}",
            recipients.join(", ")
        ),
        Event::Queue {
            tenant,
            via,
            state,
            reason,
        } => format!("queue of {tenant} by {via}: {state}: {reason}"),
        Event::Operator { action } => format!("an operator said {action}"),
    }
}

fn details(event: &Event) -> Vec<String> {
    let evidence = |evidence: &crate::trust::Evidence| -> Vec<String> {
        let rows = evidence.0.iter().map(|item| {
            let word = |value: &dyn erased::Word| value.word();
            let seen = item
                .seen
                .as_deref()
                .map_or_else(String::new, |seen| format!("  {seen}"));
            format!("{:<18} {:<10}{seen}", word(&item.kind), word(&item.state))
        });
        rows.collect()
    };
    match event {
        Event::Refused {
            reply,
            evidence: seen,
            recipients,
            ..
        } => {
            let mut lines = vec![reply.clone()];
            if !recipients.is_empty() {
                lines.push(format!("recipients: {}", recipients.join(", ")));
            }
            lines.extend(evidence(seen));
            lines
        }
        Event::Received {
            legs,
            removed,
            reason,
            evidence: seen,
            ..
        } => {
            let mut lines: Vec<String> = legs
                .iter()
                .map(|leg| {
                    let stamp = if leg.stamped {
                        ", stamped internal"
                    } else {
                        ""
                    };
                    format!("{} to {}{stamp}", leg.via, leg.recipients.join(", "))
                })
                .collect();
            lines.extend(
                reason
                    .as_ref()
                    .map(|reason| format!("would have been refused: {reason}")),
            );
            if !removed.is_empty() {
                lines.push(format!("removed: {}", removed.join(", ")));
            }
            lines.extend(evidence(seen));
            lines
        }
        Event::Attempt { results, tls, .. } => {
            let mut lines: Vec<String> = results
                .iter()
                .map(|result| format!("{} {}: {}", result.recipient, result.outcome, result.reply))
                .collect();
            lines.extend(tls.as_ref().map(|tls| {
                format!(
                    "{} {}, certificate {}",
                    tls.version,
                    tls.cipher,
                    tls.peer_name.as_deref().unwrap_or("not verified")
                )
            }));
            lines
        }
        Event::HandshakeFailed { offered, .. } => offered
            .iter()
            .map(|offered| format!("offered: {offered}"))
            .collect(),
        Event::Report { .. } | Event::Queue { .. } | Event::Operator { .. } => Vec::new(),
    }
}

/// The words that JSON uses for evidence.
mod erased {
    pub(super) trait Word {
        fn word(&self) -> String;
    }

    impl<T: serde::Serialize> Word for T {
        fn word(&self) -> String {
            match serde_json::to_value(self) {
                Ok(serde_json::Value::String(word)) => word,
                Ok(_) | Err(_) => String::new(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message_trace::RecipientResult;

    #[test]
    fn times_are_read_in_three_forms() {
        assert_eq!(moment("1970-01-02", 0), Ok(86_400_000));
        assert_eq!(moment("1970-01-01T00:00:01Z", 0), Ok(1000));
        assert_eq!(moment("2h", 10_000_000), Ok(2_800_000));
        assert!(moment("yesterday", 0).is_err() && moment("", 0).is_err());
    }

    #[test]
    fn an_attempt_that_met_no_host_says_why() {
        let attempt = |host: &str, reply: &str| {
            describe(&Event::Attempt {
                tenant: "contoso".to_owned(),
                via: "mx".to_owned(),
                host: host.to_owned(),
                address: None,
                tls: None,
                reused: false,
                uncertified: false,
                took: 1,
                results: vec![RecipientResult {
                    recipient: "a@null.example".to_owned(),
                    outcome: "failed".to_owned(),
                    reply: reply.to_owned(),
                    next_try: None,
                }],
            })
        };
        assert_eq!(
            attempt(
                "",
                "556 5.1.10 not sent: the domain takes no mail (null MX) (null.example)"
            ),
            "not tried by mx: the domain takes no mail (null MX), 1 ms"
        );
        assert_eq!(
            attempt("", "550 5.1.2 not sent: no such domain (nowhere.example)"),
            "not tried by mx: there is no host to try, 1 ms"
        );
        assert_eq!(
            attempt("mx.null.example", "556 5.1.10 no mail here"),
            "tried by mx at mx.null.example, 1 ms"
        );
    }

    #[test]
    fn a_story_ends_in_how_the_message_stands() {
        let result = |recipient: &str, outcome: &str, reply: &str| RecipientResult {
            recipient: recipient.to_owned(),
            outcome: outcome.to_owned(),
            reply: reply.to_owned(),
            next_try: None,
        };
        let attempt = |at, results| TraceEvent {
            at,
            id: "A".to_owned(),
            event: Event::Attempt {
                tenant: "contoso".to_owned(),
                via: "exchange".to_owned(),
                host: "h".to_owned(),
                address: None,
                tls: None,
                reused: false,
                uncertified: false,
                took: 3,
                results,
            },
        };
        let received = serde_json::json!({ "at": 0, "id": "A", "event": "received", "listener": "apps", "peer": "p",
            "tenant": "contoso", "sender": "", "recipients": ["a@x", "b@x", "c@x"], "size": 3, "transfer": "DATA",
            "verdict": "application", "legs": [] });
        let events = vec![
            serde_json::from_value(received).unwrap(),
            attempt(
                1,
                vec![
                    result("a@x", "deferred", "451 later"),
                    result("b@x", "failed", "550 5.1.10 no"),
                ],
            ),
            attempt(2, vec![result("a@x", "delivered", "250 ok")]),
        ];
        let text = stories(&events);
        assert!(text.starts_with("A  delivered, failed, queued\n"), "{text}");
        assert!(text.contains("b@x failed: 550 5.1.10 no"), "{text}");
        let operator = |at, action: &str| TraceEvent {
            at,
            id: "A".to_owned(),
            event: Event::Operator {
                action: action.to_owned(),
            },
        };
        let mut events = events;
        for (at, action, stands) in [
            (3, "hold", "A  delivered, failed, held\n"),
            (4, "retry", "A  delivered, failed, held\n"),
            (5, "release", "A  delivered, failed, queued\n"),
            (6, "delete", "A  deleted, delivered, failed\n"),
        ] {
            events.push(operator(at, action));
            assert!(stories(&events).starts_with(stands), "{}", stories(&events));
        }
    }
}
