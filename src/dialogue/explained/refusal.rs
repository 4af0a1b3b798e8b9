//! A refusal: what delivery makes of it on each way, what it means there, and who mends it.

use super::Known;
use crate::dialogue::outcome::{Answer, NextHop, Outcome, Pace};
use crate::dialogue::replies::{Act, Alarm, Entry, Phase, Whose};
use crate::dialogue::status;
use crate::smtp::reply::{Enhanced, Reply};

/// A refusal, and where in which dialogue it came.
#[derive(Clone, Copy)]
pub(super) struct Refusal<'a> {
    pub(super) reply: &'a Reply,
    pub(super) phase: Phase,
    pub(super) next_hop: NextHop,
}

/// What an explanation says of a refusal, but for the verdict.
pub(super) struct Told {
    pub(super) meaning: String,
    pub(super) whose: Whose,
    pub(super) advice: String,
    pub(super) known: Known,
    /// What is done, where the outcome does not say it.
    pub(super) does: Option<&'static str>,
}

/// The verdict of delivery.
pub(super) struct Verdict {
    pub(super) outcome: Outcome,
    pub(super) alarm: Alarm,
}

impl Refusal<'_> {
    /// What delivery does, and what there is to say.
    pub(super) fn judged(self) -> (Verdict, Told) {
        match (self.phase, self.next_hop) {
            (Phase::Hello, NextHop::Mx | NextHop::Relay) if self.reply.class() == 5 => goes_on(
                "EHLO is refused, as a server without extensions does",
                "goes on with HELO on the same connection (RFC 5321 §3.2); where that is refused as well, the queue of this next hop pauses",
            ),
            (Phase::StartTls, NextHop::Mx) if self.reply.code != 421 => goes_on(
                "STARTTLS was offered and then refused",
                "goes on without TLS on the same connection (RFC 3207 §4)",
            ),
            (Phase::StartTls, _) if self.reply.class() != 4 => {
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
                // With a stranger any policy may stand behind this one.
                Whose::Recipient if entry.pattern.enhanced == Some((7, 1, 1)) => false,
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

    /// The enhanced code, where it says anything.
    fn enhanced(self) -> Option<Enhanced> {
        self.reply.enhanced.filter(|own| *own != (5, 0, 0))
    }

    fn by_registry(self, outcome: Outcome, entry: Option<&Entry>) -> Told {
        if self.phase.is_before_mail() {
            return self.before_mail(outcome, entry);
        }
        let (meaning, known) = self.meaning();
        let (meaning, whose, advice) = match self.enhanced().and_then(status::subject) {
            _ if self.says(4, &["greylist", "graylist"]) => (
                "greylisting: what comes from an unknown sender for the first time is taken when it comes again".to_owned(),
                Whose::Exchange,
                PASSES,
            ),
            _ if self.says(5, LISTED) => (
                "the address of this host stands on a block list".to_owned(),
                Whose::Operator,
                "ask for removal from the list that the reply names, and see what else this address sends",
            ),
            // A stranger's group or mailbox for its own people.
            Some(subject) if entry.is_some_and(Entry::is_about_promotion) => {
                (meaning, Whose::Recipient, subject.advice)
            }
            Some(subject) => {
                let (whose, advice) = self.of_subject(subject);
                (meaning, whose, advice)
            }
            None => (meaning, Whose::Exchange, ASK),
        };
        Told {
            meaning: format!("{meaning}{}", self.in_brackets(outcome)),
            whose,
            advice: advice.to_owned(),
            known,
            does: None,
        }
    }

    /// Whether a reply of this class has one of these words in it, in small letters.
    fn says(self, class: u16, words: &[&str]) -> bool {
        let lower = self.reply.lines.join(" ").to_ascii_lowercase();
        self.reply.class() == class && words.iter().any(|word| lower.contains(word))
    }

    /// What enhanced code or reply code mean to everybody.
    fn meaning(self) -> (String, Known) {
        let enhanced = self.enhanced();
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
            Some((4, 7, 0 | 1) | (4, 5, 3)) => true,
            Some(own @ (4, 7, _)) => status::detail(own).is_none(),
            _ => false,
        };
        match self.reply.class() {
            4 if is_vague => (Whose::Exchange, NOT_YET),
            4 => (subject.whose, subject.at_first.unwrap_or(subject.advice)),
            _ => (subject.whose, subject.advice),
        }
    }

    /// Before MAIL nothing is about a message, its sender or recipient, whatever the codes say.
    fn before_mail(self, outcome: Outcome, entry: Option<&Entry>) -> Told {
        let for_now = self.reply.class() == 4;
        let of_system = self
            .enhanced()
            .filter(|own| matches!(own.1, 3..=5))
            .and_then(status::detail);
        let meaning = match (outcome, of_system) {
            (Outcome::Failed, _) => "this host takes no mail at all (RFC 5321 §4.2.4.2, RFC 7504)",
            (_, Some(detail)) => detail,
            (_, None) if for_now => "the next hop takes no connection for now",
            (_, None) => "the next hop refuses the connection before it has heard of a message",
        };
        let (whose, advice) = match (self.next_hop, entry) {
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
        };
        Told {
            meaning: meaning.to_owned(),
            whose,
            advice: advice.to_owned(),
            known: Known::Law,
            does: None,
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
            None if self.reply.class() < 4 => {
                "any code but 235 is a refusal (RFC 4954 §6)".to_owned()
            }
            None => self.meaning().0,
        };
        let (whose, advice) = match (self.reply.class(), self.reply.enhanced) {
            (4, _) => (Whose::Exchange, NOT_YET),
            (_, Some((_, 7, 30 | 139))) => (
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

/// What is no refusal yet to who can do without what was asked for.
fn goes_on(meaning: &str, does: &'static str) -> (Verdict, Told) {
    let verdict = Verdict {
        outcome: Outcome::Deferred(Pace::AtOnce),
        alarm: Alarm::Never,
    };
    let told = Told {
        meaning: meaning.to_owned(),
        whose: Whose::Exchange,
        advice: NOT_YET.to_owned(),
        known: Known::Law,
        does: Some(does),
    };
    (verdict, told)
}

const ASK: &str = "read the text of the reply, and ask who runs that system";
const NOT_YET: &str = "nothing, unless it lasts; then read the text, and ask who runs that system";
const PASSES: &str = "nothing: one of the next attempts is taken";

/// Whether an advice is about our tenant, its connectors or its mailboxes, which no stranger asks for.
pub(super) fn speaks_of_our_tenant(advice: &str) -> bool {
    ["tenant", "connector", "accepted domain", "Defender"]
        .iter()
        .any(|word| advice.contains(word))
}

/// What speaks of a block list.
const LISTED: &[&str] = &[
    "blocked using",
    "block list",
    "blocklist",
    "blacklist",
    "spamhaus",
    "dnsbl",
];
