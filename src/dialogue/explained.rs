//! What does a reply mean, for who reads it in a log or a bounce, and what does Gatepost do about it?
//!
//! The same table and the same law as delivery: [`Answer::judge`] says what is done, the entry of the table says why. What
//! the table does not know is read by the registry of RFC 3463, class, subject and detail.

mod refusal;

use self::refusal::Refusal;
use super::outcome::{NextHop, Outcome, Pace, Reach};
use super::replies::{Alarm, Phase, Whose};
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
    /// The law of delivery for what is refused before a message is mentioned.
    Law,
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
            Self::Law => "the law that delivery goes by before a message is mentioned",
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
    /// By which way's law; `None` for a refusal of our own.
    pub via: Option<NextHop>,
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
    /// The same, where Exchange, which sent the message, has given it up with this reply as its last.
    #[must_use]
    pub fn given_up(self) -> Self {
        let for_now = format!(" ({})", status::class(4));
        Self {
            meaning: self.meaning.replace(&for_now, ""),
            advice: if self.advice.starts_with("nothing") {
                "find out why that lasted until the message expired, and let the sender send it again".to_owned()
            } else {
                self.advice
            },
            alarm: Alarm::Never,
            outcome: Outcome::Failed,
            does: "nothing more: Exchange Online sent this message, has given it up (expired) and reported it to the sender; this was the last answer that it had",
            ..self
        }
    }

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

/// Explains what came from `next_hop` in answer to `phase` (by default what the text says, else RCPT). Where nobody says who gave
/// it, that is Exchange, or Gatepost itself, if it has the form of our refusals.
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
    // A step may be granted by one code alone: delivery takes any other for a no.
    let is_no = said.is_no_consent_to(phase.or(said.phase));
    if code / 100 == 3 && !is_no {
        return Err(Unheard(code));
    }
    let phase = phase.or(said.phase).unwrap_or_else(|| {
        let usual = match code {
            // RFC 4954 §6: these answer nothing else.
            534 | 535 | 538 => Phase::Login,
            _ => Phase::Recipient,
        };
        notes.push(format!(
            "taken as an answer to {} (--phase says otherwise)",
            usual.name()
        ));
        usual
    });
    let reply = Reply {
        code,
        enhanced: said.enhanced,
        lines: vec![said.text.clone().into()],
    };
    if code / 100 == 2 && !is_no {
        // Nothing hangs on the phase of what was granted.
        notes.retain(|note| !note.contains("--phase"));
        return Ok(taken(reply, next_hop.unwrap_or(NextHop::Exchange), notes));
    }
    let next_hop = next_hop.or(said.next_hop);
    if next_hop.is_none()
        && let Some((host, id)) = own_refusal(&said.text)
    {
        let (host, id) = (host.to_owned(), id.to_owned());
        return Ok(refused_by_us(&host, &id, reply, notes));
    }
    let next_hop = next_hop.unwrap_or(NextHop::Exchange);
    let refusal = Refusal {
        reply: &reply,
        phase,
        next_hop,
    };
    let (judged, told) = refusal.judged();
    Ok(Explanation {
        meaning: told.meaning,
        whose: Some(whose(told.whose, next_hop)),
        via: Some(next_hop),
        outcome: judged.outcome,
        does: told.does.unwrap_or_else(|| does(judged.outcome, next_hop)),
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
        via: None,
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

fn taken(reply: Reply, via: NextHop, mut notes: Vec<String>) -> Explanation {
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
        via: Some(via),
        outcome: Outcome::Delivered,
        does: "at the end of content: settled as delivered, with this reply in the trace",
        alarm: Alarm::Never,
        advice: advice.to_owned(),
        known: if queued { Known::Table } else { Known::Code },
        notes,
        reply,
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
