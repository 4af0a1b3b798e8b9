//! What became of a recipient? The one place where a remote reply, a broken dialogue or a failed connect becomes
//! delivered, deferred, failed or held, with its reach.

use super::outside;
use super::replies::{Act, Alarm, Entry, Phase, judge_reply};
use crate::mail::shown;
use crate::smtp::reply::{Reply, ReplyFault};
use std::fmt;

/// What was learnt about one recipient, as it was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The next hop has taken the message.
    Taken(Reply),
    /// It refused.
    Refused {
        /// What it answered to.
        phase: Phase,
        /// Its reply.
        reply: Reply,
    },
    /// It would not be able to take the message, so it was not asked.
    Unfit(Unfit),
    /// The dialogue broke.
    Broken {
        /// How far it was.
        phase: Phase,
        /// How.
        why: Broken,
    },
    /// No connection: DNS, routing, refused, no answer. For people.
    Unreachable(String),
    /// No TLS, or not with the right peer. For people.
    NoTls(String),
    /// The relay does not let us log in, or there is no way to do it safely. For people.
    NoLogin(String),
    /// Mail for this domain has nowhere to go, for good: a reply of our own, with its codes.
    NoWay(String),
    /// Our own certificate must not be shown: lapsed, not valid yet, or in a name that is not the tenant's. For people.
    OwnCertificate(String),
    /// Our own store could not give the message. For people.
    Unreadable(String),
}

/// Why a message does not fit a next hop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// Larger than its SIZE (RFC 1870 §6.1).
    TooLarge {
        /// Octets of the rendition.
        size: u64,
        /// What SIZE said.
        limit: u64,
    },
    /// Bare CR, bare LF or NUL, and no CHUNKING: DATA cannot carry them.
    BareNewlines,
    /// Internationalised addresses or header, and no SMTPUTF8 (RFC 6531 §3.4).
    SmtpUtf8,
    /// 8-bit content, and no 8BITMIME (RFC 6152 §3); content is never re-encoded.
    EightBit,
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { size, limit } => write!(
                f,
                "552 5.3.4 not sent: {size} octets, the next hop takes {limit}"
            ),
            Self::BareNewlines => f.write_str(
                "554 5.6.11 not sent: bare CR, LF or NUL in the content, and the next hop does not offer CHUNKING",
            ),
            Self::SmtpUtf8 => {
                f.write_str("553 5.6.7 not sent: the next hop does not offer SMTPUTF8")
            }
            Self::EightBit => {
                f.write_str("554 5.6.3 not sent: 8-bit content, and the next hop does not offer 8BITMIME")
            }
        }
    }
}

/// How a dialogue broke.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Broken {
    /// The peer closed, or the connection failed.
    Closed,
    /// It did not answer, or did not take content, in time.
    Deadline,
    /// What it said is no reply.
    Nonsense(ReplyFault),
    /// A reply that does not fit what was asked.
    Unexpected(Reply),
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("connection lost"),
            Self::Deadline => f.write_str("no answer in time"),
            Self::Nonsense(fault) => write!(f, "{fault}"),
            Self::Unexpected(reply) => write!(f, "unexpected reply {reply}"),
        }
    }
}

/// When a deferred recipient is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// At the times of the law.
    Law,
    /// At those, but at least an hour later.
    Hourly,
    /// At those, while the tenant's queue pauses.
    BackOff,
    /// At once, in a new transaction.
    AtOnce,
}

/// How far a hold reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// This recipient.
    Recipient,
    /// The tenant's connector, hence its whole queue.
    Tenant,
}

/// The verdict on one recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The next hop has it.
    Delivered,
    /// To be tried again.
    Deferred(Pace),
    /// Given up.
    Failed,
    /// Kept back because of a fault that is not the message's.
    Held(Reach),
}

/// Who answered: the same reply means another thing from the tenant's own Exchange than from a stranger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextHop {
    /// The tenant's inbound connector.
    Exchange,
    /// A mail exchanger.
    Mx,
    /// A configured relay.
    Relay,
}

/// An outcome with what is shown for it.
#[derive(Clone, Debug)]
pub struct Judged {
    /// The verdict.
    pub outcome: Outcome,
    /// The reply or reason, escaped and cut.
    pub reply: String,
    /// The entry of the table, where a reply of Exchange was judged.
    pub entry: Option<&'static Entry>,
    /// When an administrator should hear of it.
    pub alarm: Alarm,
}

impl Answer {
    /// STARTTLS was answered otherwise than by 220 where nothing is sent without TLS. A 5xx is no refusal of a message, however
    /// it is worded: there is no TLS.
    #[must_use]
    pub fn starttls_refused(reply: Reply) -> Self {
        if reply.class() == 4 {
            Self::Refused {
                phase: Phase::StartTls,
                reply,
            }
        } else {
            Self::NoTls(format!("STARTTLS refused: {}", reply.summary()))
        }
    }

    /// A login was answered otherwise than by 235.
    #[must_use]
    pub fn login_refused(reply: &Reply) -> Self {
        Self::NoLogin(format!("the next hop refuses it: {}", reply.summary()))
    }

    /// The verdict on this answer.
    #[must_use]
    pub fn judge(&self, next_hop: NextHop) -> Judged {
        match next_hop {
            NextHop::Exchange => self.judge_exchange(),
            NextHop::Mx | NextHop::Relay => {
                let (outcome, alarm) = outside::judge(self, next_hop == NextHop::Relay);
                Judged {
                    outcome,
                    reply: self.summary(),
                    entry: None,
                    alarm: if alarm { Alarm::AtOnce } else { Alarm::Never },
                }
            }
        }
    }

    fn judge_exchange(&self) -> Judged {
        let (outcome, entry) = match self {
            Self::Taken(_) => (Outcome::Delivered, None),
            Self::Refused { phase, reply } => {
                let text = reply.lines.join(" ");
                let entry = judge_reply(reply.code, reply.enhanced, &text, *phase);
                (of_act(entry.act), Some(entry))
            }
            Self::Unfit(_) | Self::NoWay(_) => (Outcome::Failed, None),
            Self::Broken { .. } | Self::Unreachable(_) | Self::NoLogin(_) | Self::Unreadable(_) => {
                (Outcome::Deferred(Pace::Law), None)
            }
            Self::NoTls(_) | Self::OwnCertificate(_) => (Outcome::Held(Reach::Tenant), None),
        };
        Judged {
            outcome,
            reply: self.summary(),
            entry,
            alarm: entry.map_or(Alarm::Never, |entry| entry.alarm),
        }
    }

    /// The reply or reason for people, escaped and cut.
    #[must_use]
    pub fn summary(&self) -> String {
        match self {
            Self::Taken(reply) => reply.summary(),
            Self::Refused { phase, reply } if phase.is_before_mail() => {
                shown(format!("{} (to {})", reply.summary(), phase.name()).as_bytes())
            }
            Self::Refused { reply, .. } => reply.summary(),
            Self::Unfit(why) => why.to_string(),
            Self::Broken { phase, why } => {
                shown(format!("{why} (after {})", phase.name()).as_bytes())
            }
            Self::NoTls(why) => shown(format!("{NO_TLS}{why}").as_bytes()),
            Self::OwnCertificate(why) => shown(format!("{OWN_CERTIFICATE}{why}").as_bytes()),
            Self::NoLogin(why) => shown(format!("login: {why}").as_bytes()),
            Self::Unreachable(why) | Self::Unreadable(why) | Self::NoWay(why) => {
                shown(why.as_bytes())
            }
        }
    }

    /// Whether the next hop has heard of a message and answered for it, or for one of its recipients: so far it lets our mail
    /// in. What is said before MAIL is not about a message, and 421 ends a connection whatever was asked. A message that cannot
    /// be read has a fault of its own as well: it would ask for others in vain.
    #[must_use]
    pub fn is_about_the_message(&self) -> bool {
        match self {
            Self::Taken(_) | Self::Unreadable(_) => true,
            Self::Refused { phase, reply } => !phase.is_before_mail() && reply.code != 421,
            Self::Broken { .. }
            | Self::Unfit(_)
            | Self::Unreachable(_)
            | Self::NoTls(_)
            | Self::NoLogin(_)
            | Self::NoWay(_)
            | Self::OwnCertificate(_) => false,
        }
    }

    /// Whether the peer had closed the connection when this message met it, before anything was handed over: on a reused
    /// connection that is no attempt (product.md 6).
    #[must_use]
    pub fn met_closed_connection(&self) -> bool {
        match self {
            Self::Broken { phase, why } => {
                matches!(phase, Phase::Mail | Phase::Recipient) && *why == Broken::Closed
            }
            Self::Refused { phase, reply } => {
                matches!(phase, Phase::Mail | Phase::Recipient) && reply.code == 421
            }
            Self::Taken(_)
            | Self::Unfit(_)
            | Self::Unreachable(_)
            | Self::NoTls(_)
            | Self::NoLogin(_)
            | Self::NoWay(_)
            | Self::OwnCertificate(_)
            | Self::Unreadable(_) => false,
        }
    }
}

fn of_act(act: Act) -> Outcome {
    match act {
        Act::Retry => Outcome::Deferred(Pace::Law),
        Act::RetryHourly => Outcome::Deferred(Pace::Hourly),
        Act::BackOff => Outcome::Deferred(Pace::BackOff),
        Act::Split => Outcome::Deferred(Pace::AtOnce),
        Act::Bounce => Outcome::Failed,
        Act::HoldTenant => Outcome::Held(Reach::Tenant),
        Act::HoldRecipient => Outcome::Held(Reach::Recipient),
    }
}

const NO_TLS: &str = "TLS: ";
const OWN_CERTIFICATE: &str = "our certificate: ";

/// Whether a reply that was shown for a held recipient meant a hold of this reach: the time of a hold counts from the
/// first reply of the same kind, not from an older fault.
#[must_use]
pub fn shown_reach(summary: &str) -> Option<Reach> {
    if summary.starts_with(NO_TLS) || summary.starts_with(OWN_CERTIFICATE) {
        return Some(Reach::Tenant);
    }
    let line = format!("{summary}\r\n");
    let (reply, _) = crate::smtp::reply::parse(line.as_bytes()).ok()??;
    let text = reply.lines.join(" ");
    match judge_reply(reply.code, reply.enhanced, &text, Phase::End).act {
        Act::HoldTenant => Some(Reach::Tenant),
        Act::HoldRecipient => Some(Reach::Recipient),
        Act::Retry | Act::RetryHourly | Act::BackOff | Act::Bounce | Act::Split => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: u16, text: &'static str, phase: Phase) -> Answer {
        let line = format!("{code} {text}\r\n");
        let (reply, _) = crate::smtp::reply::parse(line.as_bytes()).unwrap().unwrap();
        Answer::Refused { phase, reply }
    }

    #[test]
    fn every_answer_has_one_outcome() {
        let law = Outcome::Deferred(Pace::Law);
        for (answer, outcome) in [
            (
                Answer::Taken(Reply::new(250, (2, 6, 0), "Queued")),
                Outcome::Delivered,
            ),
            (refused(550, "5.1.1 x", Phase::Recipient), Outcome::Failed),
            (
                refused(452, "4.5.3 x", Phase::Recipient),
                Outcome::Deferred(Pace::AtOnce),
            ),
            (
                refused(550, "5.7.64 x", Phase::Recipient),
                Outcome::Held(Reach::Tenant),
            ),
            (
                refused(550, "5.7.133 x", Phase::End),
                Outcome::Held(Reach::Recipient),
            ),
            (refused(554, "go away", Phase::Greeting), law),
            (Answer::Unfit(Unfit::SmtpUtf8), Outcome::Failed),
            (
                Answer::Broken {
                    phase: Phase::End,
                    why: Broken::Deadline,
                },
                law,
            ),
            (Answer::Unreachable("refused".to_owned()), law),
            (
                Answer::NoTls("expired".to_owned()),
                Outcome::Held(Reach::Tenant),
            ),
            (
                Answer::OwnCertificate("lapsed".to_owned()),
                Outcome::Held(Reach::Tenant),
            ),
        ] {
            assert_eq!(
                answer.judge(NextHop::Exchange).outcome,
                outcome,
                "{answer:?}"
            );
        }
    }

    #[test]
    fn only_a_close_before_the_content_is_no_attempt() {
        let closed = |phase| Answer::Broken {
            phase,
            why: Broken::Closed,
        };
        assert!(closed(Phase::Mail).met_closed_connection());
        assert!(refused(421, "4.4.2 idle too long", Phase::Mail).met_closed_connection());
        assert!(!closed(Phase::End).met_closed_connection());
        assert!(!refused(451, "4.7.0 x", Phase::Mail).met_closed_connection());
    }

    #[test]
    fn what_is_said_of_a_message_is_told_from_what_is_said_of_a_connection() {
        for (answer, expected) in [
            (refused(450, "4.2.1 mailbox busy", Phase::Recipient), true),
            (refused(550, "5.1.8 bad sender", Phase::Mail), true),
            (refused(451, "4.7.0 x", Phase::End), true),
            (refused(421, "4.3.2 shutting down", Phase::Mail), false),
            (refused(421, "4.3.2 shutting down", Phase::End), false),
            (refused(550, "5.1.1 x", Phase::Hello), false),
            (refused(554, "no mail here", Phase::Greeting), false),
            (Answer::Unfit(Unfit::SmtpUtf8), false),
            (Answer::NoTls("expired".to_owned()), false),
            (Answer::Unreachable("refused".to_owned()), false),
            (Answer::Unreadable("damaged".to_owned()), true),
        ] {
            assert_eq!(answer.is_about_the_message(), expected, "{answer:?}");
        }
        let lost = Answer::Broken {
            phase: Phase::End,
            why: Broken::Closed,
        };
        assert!(!lost.is_about_the_message());
    }

    #[test]
    fn a_shown_reply_tells_the_reach_of_its_hold() {
        let reply = refused(
            550,
            "5.7.133 RESOLVER.RST.SenderNotAuthenticatedForGroup",
            Phase::End,
        );
        assert_eq!(shown_reach(&reply.summary()), Some(Reach::Recipient));
        assert_eq!(
            shown_reach("550 5.7.64 TenantAttribution"),
            Some(Reach::Tenant)
        );
        assert_eq!(shown_reach("no answer in time (after MAIL)"), None);
        for answer in [
            Answer::NoTls("x".to_owned()),
            Answer::OwnCertificate("y".to_owned()),
        ] {
            assert_eq!(shown_reach(&answer.summary()), Some(Reach::Tenant));
        }
    }

    #[test]
    fn peer_text_is_escaped() {
        let text = refused(550, "5.1.1 \u{1b}[31mred", Phase::Recipient).summary();
        assert!(!text.contains('\u{1b}'), "{text}");
    }
}
