//! What does a reply mean, for who reads it in a log or a bounce, and what does Gatepost do about it?
//!
//! The same table and the same law as delivery: [`Answer::judge`] says what is done, the entry of the table says why. What
//! the table does not know is read by the registry of RFC 3463, class, subject and detail.

use super::outcome::{Answer, NextHop, Outcome, Pace, Reach};
use super::replies::{Alarm, Entry, Phase, Whose};
use super::said::Said;
use super::status;
use crate::mail::{Domain, QueueId};
use crate::smtp::reply::Reply;
use std::fmt;

/// Where the meaning comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// The table that delivery uses.
    Table,
    /// RFC 3463 and its registry.
    Registry,
    /// The reply code alone.
    Code,
    /// The form of our own refusals.
    Own,
    /// The table of our own refusals.
    Refusals,
}

impl fmt::Display for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Table => "the table that delivery uses",
            Self::Registry => "RFC 3463 and its registry: the table does not know it",
            Self::Code => "RFC 5321, the reply code alone: the table does not know it",
            Self::Own => "the form of Gatepost's own refusals: its host name first, an id last",
            Self::Refusals => "the table of Gatepost's own refusals",
        })
    }
}

/// A reply, explained.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// The reply as it was judged.
    pub reply: Reply,
    /// What it means.
    pub meaning: String,
    /// Whose fault, in words; `None` where there is none.
    pub whose: Option<&'static str>,
    /// What becomes of the recipient.
    pub outcome: Outcome,
    /// That, in words.
    pub does: &'static str,
    /// When an administrator is told.
    pub alarm: Alarm,
    /// What the administrator should do.
    pub advice: String,
    /// Where this is known from.
    pub known: Known,
    /// What was taken for granted.
    pub notes: Vec<String>,
}

impl Explanation {
    /// Whether somebody has to do something, or has lost something: a bounce, a hold, an alarm at once.
    #[must_use]
    pub fn is_bad_news(&self) -> bool {
        self.alarm == Alarm::AtOnce || matches!(self.outcome, Outcome::Failed | Outcome::Held(_))
    }
}

/// Why something is not a reply that can be explained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unheard(u16);

impl fmt::Display for Unheard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(code) = self;
        write!(
            f,
            "{code} is a step of the dialogue and decides nothing: which reply came behind it?"
        )
    }
}

/// Explains what came from `next_hop` in answer to `phase` (by default what the text says, else RCPT). Where nobody says who
/// gave it, that is Exchange, or Gatepost itself, if it has the form of our refusals.
///
/// # Errors
/// It is an intermediate reply (3xx).
pub fn explain(
    said: &Said,
    next_hop: Option<NextHop>,
    phase: Option<Phase>,
) -> Result<Explanation, Unheard> {
    let mut notes = Vec::new();
    let code = said.code.unwrap_or_else(|| {
        let class = said.enhanced.map_or(5, |(class, ..)| u16::from(class));
        let code = class * 100 + 50;
        notes.push(format!(
            "no reply code was given: taken as {code}, as its class says"
        ));
        code
    });
    if code / 100 == 3 {
        return Err(Unheard(code));
    }
    let phase = phase.or(said.phase).unwrap_or_else(|| {
        notes.push("taken as an answer to RCPT (--phase says otherwise)".to_owned());
        Phase::Recipient
    });
    let reply = Reply {
        code,
        enhanced: said.enhanced,
        lines: vec![said.text.clone().into()],
    };
    if code / 100 == 2 {
        // Nothing hangs on the phase of what was granted.
        notes.retain(|note| !note.contains("--phase"));
        return Ok(taken(reply, notes));
    }
    if next_hop.is_none()
        && let Some((host, id)) = own_refusal(&said.text)
    {
        let (host, id) = (host.to_owned(), id.to_owned());
        return Ok(refused_by_us(&host, &id, reply, notes));
    }
    let next_hop = next_hop.unwrap_or(NextHop::Exchange);
    let answer = Answer::Refused { phase, reply };
    let judged = answer.judge(next_hop);
    // What a stranger's Exchange Online means is what ours means; only the law is another.
    let entry = judged
        .entry
        .or_else(|| answer.judge(NextHop::Exchange).entry);
    let Answer::Refused { reply, .. } = answer else {
        return Err(Unheard(code));
    };
    let mut told = match entry.filter(|entry| entry.is_of_table() && tells(entry, next_hop)) {
        Some(entry) => Told::of_table(entry, &reply, next_hop),
        None => Told::of_registry(&reply, phase, entry),
    };
    if next_hop == NextHop::Relay && reply.code == 530 {
        told.whose = Whose::Operator;
        "set username and password of the [[relay]], and tls".clone_into(&mut told.advice);
    }
    Ok(Explanation {
        meaning: told.meaning,
        whose: Some(whose(told.whose, next_hop)),
        outcome: judged.outcome,
        does: does(judged.outcome, next_hop),
        alarm: judged.alarm,
        advice: told.advice,
        known: told.known,
        notes,
        reply,
    })
}

/// The host name and the id of a refusal that has the form of ours: one first, the other last (so that nobody looks for the
/// fault in Exchange's connector).
fn own_refusal(text: &str) -> Option<(&str, &str)> {
    let (host, rest) = text.split_once(' ')?;
    let id = rest.rsplit(' ').next()?;
    let is_host = host.contains('.') && host.parse::<Domain>().is_ok();
    (is_host && id.parse::<QueueId>().is_ok()).then_some((host, id))
}

fn refused_by_us(host: &str, id: &str, reply: Reply, mut notes: Vec<String>) -> Explanation {
    notes.retain(|note| !note.contains("--phase"));
    notes.push(format!(
        "where {host} is no Gatepost of yours, --via says which next hop gave this, and that way's law is told"
    ));
    let for_now = reply.code / 100 == 4;
    Explanation {
        meaning: format!(
            "{host} did not take this from whoever sent it: where that is Gatepost's host name, no reply of Exchange or of another next hop"
        ),
        whose: Some("the sending side's, or Gatepost's configuration"),
        outcome: if for_now {
            Outcome::Deferred(Pace::Law)
        } else {
            Outcome::Failed
        },
        does: if for_now {
            "has not taken the message: whoever sent it keeps it and tries again"
        } else {
            "has not taken the message: whoever sent it reports it as failed"
        },
        alarm: Alarm::Never,
        advice: format!(
            "gatepost trace {id} says what was seen and judged; gatepost explain trust judges a message again"
        ),
        known: Known::Own,
        notes,
        reply,
    }
}

fn taken(reply: Reply, mut notes: Vec<String>) -> Explanation {
    let text = reply.lines.join(" ");
    let queued = text.contains("InternalId=") || text.contains("Queued mail for delivery");
    let (meaning, advice) = if queued {
        notes.push(
            "a report may still follow: a restricted recipient, for one, is mostly refused behind this reply".to_owned(),
        );
        (
            "Exchange Online has the message: the responsibility is its own from here on",
            "nothing; look on in Exchange's message trace, by Message-ID; InternalId and Hostname of this reply are what Microsoft's support asks for",
        )
    } else {
        ("the other side has done what was asked", "nothing")
    };
    Explanation {
        meaning: meaning.to_owned(),
        whose: None,
        outcome: Outcome::Delivered,
        does: "at the end of content: settled as delivered, with this reply in the trace",
        alarm: Alarm::Never,
        advice: advice.to_owned(),
        known: if queued { Known::Table } else { Known::Code },
        notes,
        reply,
    }
}

/// Whether an entry about our own connector says anything where the answer came from somebody else.
fn tells(entry: &Entry, next_hop: NextHop) -> bool {
    match next_hop {
        NextHop::Exchange => true,
        NextHop::Mx | NextHop::Relay => match entry.whose {
            Whose::Connector | Whose::Tenant | Whose::Gatepost => false,
            Whose::Exchange
            | Whose::Recipient
            | Whose::Sender
            | Whose::Message
            | Whose::Operator => !entry.is_about_promotion(),
        },
    }
}

struct Told {
    meaning: String,
    whose: Whose,
    advice: String,
    known: Known,
}

impl Told {
    fn of_table(entry: &Entry, reply: &Reply, next_hop: NextHop) -> Self {
        let general = reply.enhanced.and_then(status::detail);
        let meaning = match (next_hop, general) {
            (NextHop::Exchange, _) | (_, None) => entry.meaning.to_owned(),
            (NextHop::Mx | NextHop::Relay, Some(general)) => {
                format!("{general}; from Exchange Online: {}", entry.meaning)
            }
        };
        Self {
            meaning,
            whose: entry.whose,
            advice: entry.advice.to_owned(),
            known: Known::Table,
        }
    }

    fn of_registry(reply: &Reply, phase: Phase, entry: Option<&Entry>) -> Self {
        let class = status::class(u8::try_from(reply.class()).unwrap_or(5));
        let enhanced = reply.enhanced.filter(|enhanced| *enhanced != (5, 0, 0));
        let subject = enhanced.and_then(status::subject);
        let base = status::code(reply.code);
        let (meaning, known) = match (enhanced, subject) {
            (Some(enhanced), Some(subject)) => {
                let meaning = status::detail(enhanced).map_or_else(
                    || {
                        format!(
                            "about {}, detail {} that no registry knows",
                            subject.speaks_of, enhanced.2
                        )
                    },
                    str::to_owned,
                );
                (meaning, Known::Registry)
            }
            (Some((_, subject, _)), None) => (
                format!("about a subject ({subject}) that no registry knows"),
                Known::Registry,
            ),
            (None, _) => (
                base.unwrap_or("a code that no standard knows").to_owned(),
                Known::Code,
            ),
        };
        // Before MAIL it is not about a message, whatever the subject says.
        let before = entry.filter(|_| phase.is_before_mail());
        let (whose, advice) = match (before, subject) {
            (Some(entry), _) => (entry.whose, entry.advice.to_owned()),
            (None, Some(subject)) => (subject.whose, subject.advice.to_owned()),
            (None, None) => (
                Whose::Exchange,
                "read the text of the reply, and ask who runs that system".to_owned(),
            ),
        };
        Self {
            meaning: format!("{meaning} ({class})"),
            whose,
            advice,
            known,
        }
    }
}

fn whose(whose: Whose, next_hop: NextHop) -> &'static str {
    match (whose, next_hop) {
        (Whose::Exchange, NextHop::Mx) => "the other side",
        (Whose::Exchange, NextHop::Relay) => "the relay, or what is behind it",
        (whose, _) => whose.words(),
    }
}

fn does(outcome: Outcome, next_hop: NextHop) -> &'static str {
    let exchange = next_hop == NextHop::Exchange;
    match outcome {
        Outcome::Delivered => "settled as delivered",
        Outcome::Failed => "given up and reported to the sender",
        Outcome::Deferred(Pace::Law) if exchange => {
            "retried at the times of [delivery.exchange] retry, until expire"
        }
        Outcome::Deferred(Pace::Law) => "retried at the times of [delivery.mx] retry, until expire",
        Outcome::Deferred(Pace::Hourly) => "retried once an hour, until [delivery.exchange] expire",
        Outcome::Deferred(Pace::BackOff) if exchange => {
            "retried; the tenant's queue pauses, longer each time, up to an hour"
        }
        Outcome::Deferred(Pace::BackOff) => {
            "retried; the queue of this next hop pauses, by the steps of its `retry`, at most an hour each time"
        }
        Outcome::Deferred(Pace::AtOnce) => {
            "the remaining recipients go at once in a new transaction"
        }
        Outcome::Held(Reach::Tenant) => {
            "held, not bounced; three such replies to different messages park the tenant's queue until a probe succeeds"
        }
        Outcome::Held(Reach::Recipient) => "held for an hour with an alarm, then given up",
    }
}

#[cfg(test)]
mod tests;
