//! What does a reply mean, for who reads it in a log or a bounce, and what does Gatepost do about it?
//!
//! The same table and the same law as delivery: [`Answer::judge`] says what is done, the entry of the table says why. What
//! the table does not know is read by the registry of RFC 3463, class, subject and detail.

use super::outcome::{Answer, NextHop, Outcome, Pace, Reach};
use super::replies::{Act, Alarm, Entry, Phase, Whose};
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
    if code / 100 == 3 {
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
    if code / 100 == 2 {
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
    let case = Case {
        reply: &reply,
        phase,
        next_hop,
    };
    let (judged, told) = case.judged();
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

/// A refusal, and where in which dialogue it came.
#[derive(Clone, Copy)]
struct Case<'a> {
    reply: &'a Reply,
    phase: Phase,
    next_hop: NextHop,
}

/// What an explanation says of a refusal, but for the verdict.
struct Told {
    meaning: String,
    whose: Whose,
    advice: String,
    known: Known,
    /// What is done, where the outcome does not say it.
    does: Option<&'static str>,
}

/// The verdict of delivery.
struct Verdict {
    outcome: Outcome,
    alarm: Alarm,
}

impl Case<'_> {
    fn judged(self) -> (Verdict, Told) {
        match (self.phase, self.next_hop) {
            (Phase::StartTls, NextHop::Mx) if self.reply.code != 421 => without_tls(),
            (Phase::StartTls, _) if self.reply.class() == 5 => {
                let answer = Answer::starttls_refused(self.reply.clone());
                (self.verdict(&answer).0, self.no_tls())
            }
            (Phase::Login, NextHop::Relay) => {
                let answer = Answer::login_refused(self.reply);
                (self.verdict(&answer).0, self.no_login())
            }
            (Phase::Login, NextHop::Exchange | NextHop::Mx) => self.foreign_login(),
            _ => {
                let answer = self.refused();
                let (verdict, entry) = self.verdict(&answer);
                let told = self.told(verdict.outcome, entry);
                (verdict, told)
            }
        }
    }

    fn refused(self) -> Answer {
        Answer::Refused {
            phase: self.phase,
            reply: self.reply.clone(),
        }
    }

    fn verdict(self, answer: &Answer) -> (Verdict, Option<&'static Entry>) {
        let judged = answer.judge(self.next_hop);
        let verdict = Verdict {
            outcome: judged.outcome,
            alarm: judged.alarm,
        };
        (verdict, judged.entry)
    }

    fn told(self, outcome: Outcome, entry: Option<&'static Entry>) -> Told {
        // What a stranger's Exchange Online means is what ours means; only the law is another.
        let entry = entry.or_else(|| self.refused().judge(NextHop::Exchange).entry);
        let mut told = match entry.filter(|entry| entry.is_of_table() && self.tells(entry)) {
            Some(entry) => self.by_table(entry),
            None => self.by_registry(outcome, entry),
        };
        if self.next_hop == NextHop::Relay && self.reply.code == 530 {
            told.whose = Whose::Operator;
            "set username and password of the [[relay]], and tls".clone_into(&mut told.advice);
        }
        told
    }

    /// Whether an entry about our own connector says anything where the answer came from somebody else.
    fn tells(self, entry: &Entry) -> bool {
        match self.next_hop {
            NextHop::Exchange => true,
            // No sender, recipient or message has been mentioned.
            NextHop::Mx | NextHop::Relay if self.phase.is_before_mail() => {
                matches!(entry.whose, Whose::Exchange | Whose::Operator)
            }
            NextHop::Mx | NextHop::Relay => match entry.whose {
                Whose::Connector | Whose::Tenant | Whose::Gatepost => false,
                // What a sender may send in a day is told by its own Exchange.
                Whose::Sender => entry.act != Act::RetryHourly,
                Whose::Exchange | Whose::Recipient | Whose::Message | Whose::Operator => {
                    !entry.is_about_promotion()
                }
            },
        }
    }

    fn by_table(self, entry: &Entry) -> Told {
        let general = self.reply.enhanced.and_then(status::detail);
        let meaning = match (self.next_hop, general) {
            (NextHop::Exchange, _) | (_, None) => entry.meaning.to_owned(),
            (_, Some(general)) if general == entry.meaning => general.to_owned(),
            // What everybody means by the code comes before what Exchange Online would mean by it.
            (NextHop::Mx | NextHop::Relay, Some(general)) => {
                format!("{general}; from Exchange Online: {}", entry.meaning)
            }
        };
        let subject = self.reply.enhanced.and_then(status::subject);
        let advice = match (self.next_hop, entry.whose) {
            (NextHop::Exchange, _) => entry.advice,
            _ if !speaks_of_our_tenant(entry.advice) => entry.advice,
            (_, Whose::Message) => "let the application send less",
            _ => subject.map_or(ASK, |subject| self.of_subject(subject).1),
        };
        Told {
            meaning,
            whose: entry.whose,
            advice: advice.to_owned(),
            known: Known::Table,
            does: None,
        }
    }

    fn by_registry(self, outcome: Outcome, entry: Option<&Entry>) -> Told {
        let enhanced = self.reply.enhanced.filter(|own| *own != (5, 0, 0));
        let subject = enhanced.and_then(status::subject);
        let (mut meaning, known) = self.meaning();
        if is_greylisting(self.reply) {
            "greylisting: what comes from an unknown sender for the first time is taken when it comes again"
                .clone_into(&mut meaning);
        }
        let (whose, advice) = match subject {
            // Before MAIL it is not about a message, whatever the subject says.
            _ if self.phase.is_before_mail() => self.before_mail(entry),
            _ if is_greylisting(self.reply) => (Whose::Exchange, PASSES),
            // A stranger's group or mailbox for its own people.
            Some(subject) if entry.is_some_and(Entry::is_about_promotion) => {
                (Whose::Recipient, subject.advice)
            }
            Some(subject) => self.of_subject(subject),
            None => (Whose::Exchange, ASK),
        };
        Told {
            meaning: format!("{meaning}{}", self.in_brackets(outcome)),
            whose,
            advice: advice.to_owned(),
            known,
            does: None,
        }
    }

    /// What enhanced code or reply code mean to everybody.
    fn meaning(self) -> (String, Known) {
        let enhanced = self.reply.enhanced.filter(|own| *own != (5, 0, 0));
        let base = status::code(self.reply.code);
        // About a login, the reply code is mostly more exact than what was put beside it.
        let is_login = matches!(self.reply.code, 530 | 534 | 535 | 538)
            && !matches!(enhanced, Some((_, 7, 8..=13)));
        match (enhanced, enhanced.and_then(status::subject), base) {
            (Some(_), _, Some(base)) if is_login => (base.to_owned(), Known::Code),
            (Some(enhanced), Some(subject), _) => {
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
            (Some((_, subject, _)), None, _) => (
                format!("about a subject ({subject}) that no registry knows"),
                Known::Registry,
            ),
            (None, _, base) => (
                base.unwrap_or("a code that no standard knows").to_owned(),
                Known::Code,
            ),
        }
    }

    /// What the class says, unless something else is done.
    fn in_brackets(self, outcome: Outcome) -> String {
        let class = self.reply.class();
        if class == 5 && outcome != Outcome::Failed {
            return String::new();
        }
        format!(" ({})", status::class(u8::try_from(class).unwrap_or(5)))
    }

    fn of_subject(self, subject: status::Subject) -> (Whose, &'static str) {
        // "Not yet", without a reason that the sender's side could mend.
        let is_vague = match self.reply.enhanced {
            Some((4, 7, 0 | 1)) => true,
            Some(own @ (4, 7, _)) => status::detail(own).is_none(),
            _ => false,
        };
        if is_vague {
            return (Whose::Exchange, NOT_YET);
        }
        (subject.whose, subject.advice)
    }

    fn before_mail(self, entry: Option<&Entry>) -> (Whose, &'static str) {
        let for_now = self.reply.class() == 4;
        match (self.next_hop, entry) {
            (NextHop::Exchange, Some(entry)) => (entry.whose, entry.advice),
            (NextHop::Exchange, None) => (Whose::Exchange, ASK),
            (NextHop::Mx | NextHop::Relay, _) if for_now => (Whose::Exchange, NOT_YET),
            (NextHop::Mx, _) => (
                Whose::Exchange,
                "see whether this host's address is on a block list and has a reverse name; else ask who runs that system",
            ),
            (NextHop::Relay, _) => (
                Whose::Operator,
                "check host, port and tls of the [[relay]], and whether it takes mail of this host's address",
            ),
        }
    }

    /// STARTTLS was refused where nothing is sent without TLS.
    fn no_tls(self) -> Told {
        let advice = match self.next_hop {
            NextHop::Exchange => {
                "look for a device between this host and Exchange Online that reads SMTP (a firewall's inspection); check host of the tenant's inbound connector"
            }
            NextHop::Mx | NextHop::Relay => {
                "check host, port and tls of the [[relay]] (tls = \"opportunistic\" goes on in clear text); else ask who runs it"
            }
        };
        Told {
            meaning: "STARTTLS was offered and then refused, and nothing is sent without TLS"
                .to_owned(),
            whose: Whose::Operator,
            advice: advice.to_owned(),
            known: Known::Law,
            does: None,
        }
    }

    /// A relay did not take our login.
    fn no_login(self) -> Told {
        let meaning = match self.submission() {
            Some(entry) => entry.meaning.to_owned(),
            None => self.meaning().0,
        };
        let (whose, advice) = match (self.reply.class(), self.reply.enhanced) {
            (4, _) => (Whose::Exchange, NOT_YET),
            (_, Some((_, 7, 139))) => (
                Whose::Operator,
                "a relay of Exchange Online's client submission: let SMTP AUTH be switched on for that mailbox (Set-CASMailbox -SmtpClientAuthenticationDisabled $false), or take another relay",
            ),
            _ => (
                Whose::Operator,
                "set username and password of the [[relay]]",
            ),
        };
        Told {
            meaning: format!("the relay does not let us log in: {meaning}"),
            whose,
            advice: advice.to_owned(),
            known: Known::Law,
            does: None,
        }
    }

    /// What Exchange Online says to a client that logs in there, where the table knows it.
    fn submission(self) -> Option<&'static Entry> {
        let entry = self.refused().judge(NextHop::Exchange).entry?;
        matches!(entry.pattern.enhanced, Some((7, 30 | 57 | 139, _))).then_some(entry)
    }

    /// Where Gatepost never logs in, somebody else was told so.
    fn foreign_login(self) -> (Verdict, Told) {
        let for_now = self.reply.class() == 4;
        let verdict = Verdict {
            outcome: if for_now {
                Outcome::Deferred(Pace::Law)
            } else {
                Outcome::Failed
            },
            alarm: Alarm::Never,
        };
        let entry = self.submission();
        let (meaning, known) = match entry {
            Some(entry) => (entry.meaning.to_owned(), Known::Table),
            None => self.meaning(),
        };
        let (whose, advice) = match entry {
            Some(entry) if self.next_hop == NextHop::Exchange => (entry.whose, entry.advice),
            _ if for_now => (Whose::Exchange, NOT_YET),
            _ => (
                Whose::Sender,
                "find the client that logs in there, and let it log in at Gatepost; of a [[relay]], --via relay says more",
            ),
        };
        let told = Told {
            meaning,
            whose,
            advice: advice.to_owned(),
            known,
            does: Some(
                "nothing: it logs in at a [[relay]] only, so that this was said to another client",
            ),
        };
        (verdict, told)
    }
}

/// A mail exchanger may have no TLS.
fn without_tls() -> (Verdict, Told) {
    let verdict = Verdict {
        outcome: Outcome::Deferred(Pace::AtOnce),
        alarm: Alarm::Never,
    };
    let told = Told {
        meaning: "STARTTLS was offered and then refused".to_owned(),
        whose: Whose::Exchange,
        advice: NOT_YET.to_owned(),
        known: Known::Law,
        does: Some("goes on without TLS on the same connection (RFC 3207 §4)"),
    };
    (verdict, told)
}

const ASK: &str = "read the text of the reply, and ask who runs that system";
const NOT_YET: &str = "nothing, unless it lasts; then read the text, and ask who runs that system";
const PASSES: &str = "nothing: one of the next attempts is taken";

/// Whether an advice is about our tenant, its connectors or its mailboxes, which no stranger asks for.
fn speaks_of_our_tenant(advice: &str) -> bool {
    ["tenant", "connector", "accepted domain", "Defender"]
        .iter()
        .any(|word| advice.contains(word))
}

fn is_greylisting(reply: &Reply) -> bool {
    let says = |line: &str| {
        let lower = line.to_ascii_lowercase();
        lower.contains("greylist") || lower.contains("graylist")
    };
    reply.class() == 4 && reply.lines.iter().any(|line| says(line))
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
