//! What does an answer from outside mean: of a mail exchanger, or of a relay?
//!
//! Nobody outside knows our tenants, so nothing here is ever held: 5xx fails, 4xx waits, as RFC 5321 §4.2.1 has it. What is
//! said before MAIL is not about the message; it makes the queue wait, and fails it only where an exchanger says that it
//! takes no mail at all. What is wrong between a relay and us is our administrator's to mend, and no reason to bounce.

use super::outcome::{Answer, Broken, Outcome, Pace};
use super::replies::Phase;
use crate::smtp::reply::Reply;

const LAW: Outcome = Outcome::Deferred(Pace::Law);
const PAUSE: Outcome = Outcome::Deferred(Pace::BackOff);

/// The verdict, and whether an administrator should hear of it at once.
pub(super) fn judge(answer: &Answer, relay: bool) -> (Outcome, bool) {
    match answer {
        Answer::Taken(_) => (Outcome::Delivered, false),
        Answer::Refused { phase, reply } => refusal(*phase, reply, relay),
        Answer::Unfit(_) | Answer::NoWay(_) => (Outcome::Failed, false),
        Answer::Broken { phase, why } => {
            let silent = phase.is_before_mail() && !matches!(why, Broken::Unexpected(_));
            (if silent { PAUSE } else { LAW }, false)
        }
        Answer::Unreachable(_) => (PAUSE, false),
        Answer::NoTls(_) | Answer::NoLogin(_) => (PAUSE, relay),
        // Never shown outside; were it, waiting is safe.
        Answer::OwnCertificate(_) | Answer::Unreadable(_) => (LAW, false),
    }
}

fn refusal(phase: Phase, reply: &Reply, relay: bool) -> (Outcome, bool) {
    let too_many = || {
        let text = reply.lines.join(" ").to_ascii_lowercase();
        matches!(reply.enhanced, Some((4, 5, 3))) || text.contains("too many recipients")
    };
    match (reply.class(), phase) {
        // RFC 7504 §3, RFC 5321 §4.2.4.2: no mail is taken here.
        (5, Phase::Greeting) if matches!(reply.code, 521 | 554) && !relay => {
            (Outcome::Failed, false)
        }
        (5, phase) if phase.is_before_mail() => (PAUSE, true),
        (_, phase) if phase.is_before_mail() => (PAUSE, false),
        // RFC 5321 §4.5.3.1.10: 552 is an older way to say 452 here.
        (_, Phase::Recipient) if matches!(reply.code, 452 | 552) && too_many() => {
            (Outcome::Deferred(Pace::AtOnce), false)
        }
        (4, _) if reply.code == 421 => (PAUSE, false),
        // It wants a login that is missing or does not count: ours to mend.
        (5, Phase::Mail | Phase::Recipient) if reply.code == 530 && relay => (PAUSE, true),
        (5, _) => (Outcome::Failed, false),
        _ => (LAW, false),
    }
}

#[cfg(test)]
mod tests {
    use super::super::outcome::{NextHop, Unfit};
    use super::*;
    use crate::dialogue::Alarm;

    #[test]
    fn strangers_are_never_held_for() {
        use Phase::{Content, End, Greeting, Hello, Mail, Recipient, StartTls};
        for (wire, phase, outcome) in [
            (
                "550 5.7.64 TenantAttribution; Relay Access Denied",
                Recipient,
                Outcome::Failed,
            ),
            ("550 5.7.1 Unable to relay", Recipient, Outcome::Failed),
            ("550 5.1.1 no such user", Recipient, Outcome::Failed),
            (
                "552 too many recipients",
                Recipient,
                Outcome::Deferred(Pace::AtOnce),
            ),
            ("452 4.5.3 x", Recipient, Outcome::Deferred(Pace::AtOnce)),
            ("452 4.3.1 no space", Recipient, LAW),
            ("552 5.2.2 mailbox full", Recipient, Outcome::Failed),
            ("451 4.7.1 greylisted", Recipient, LAW),
            ("450 4.4.317 x", Mail, LAW),
            ("554 5.7.1 spam", End, Outcome::Failed),
            ("451 4.3.0 x", Content, LAW),
            ("421 4.7.0 slow down", Mail, PAUSE),
            ("554 no mail here", Greeting, Outcome::Failed),
            ("521 no mail here", Greeting, Outcome::Failed),
            ("550 5.7.1 your address is listed", Greeting, PAUSE),
            ("421 4.3.2 too busy", Greeting, PAUSE),
            ("550 5.7.1 bad HELO", Hello, PAUSE),
            ("454 4.7.0 x", StartTls, PAUSE),
        ] {
            let line = format!("{wire}\r\n");
            let (reply, _) = crate::smtp::reply::parse(line.as_bytes()).unwrap().unwrap();
            let answer = Answer::Refused { phase, reply };
            assert_eq!(answer.judge(NextHop::Mx).outcome, outcome, "{wire}");
        }
    }

    #[test]
    fn a_fault_between_a_relay_and_us_waits_with_an_alarm() {
        let refused = |wire: &str, phase| {
            let line = format!("{wire}\r\n");
            let (reply, _) = crate::smtp::reply::parse(line.as_bytes()).unwrap().unwrap();
            Answer::Refused { phase, reply }
        };
        for answer in [
            refused("554 no mail here", Phase::Greeting),
            refused("530 5.7.0 authentication required", Phase::Mail),
            Answer::NoLogin("refused".to_owned()),
            Answer::NoTls("unknown issuer".to_owned()),
        ] {
            let judged = answer.judge(NextHop::Relay);
            assert_eq!(
                (judged.outcome, judged.alarm),
                (PAUSE, Alarm::AtOnce),
                "{answer:?}"
            );
        }
        let user = refused("550 5.1.1 no such user", Phase::Recipient).judge(NextHop::Relay);
        assert_eq!((user.outcome, user.alarm), (Outcome::Failed, Alarm::Never));
    }

    #[test]
    fn what_has_no_way_fails_and_what_is_not_there_waits() {
        let lost = |phase| Answer::Broken {
            phase,
            why: Broken::Closed,
        };
        for (answer, outcome) in [
            (Answer::NoWay("556 5.1.10 x".to_owned()), Outcome::Failed),
            (Answer::Unfit(Unfit::SmtpUtf8), Outcome::Failed),
            (Answer::Unreachable("refused".to_owned()), PAUSE),
            (lost(Phase::Greeting), PAUSE),
            (lost(Phase::End), LAW),
            (Answer::Unreadable("disk".to_owned()), LAW),
        ] {
            assert_eq!(answer.judge(NextHop::Mx).outcome, outcome, "{answer:?}");
        }
    }
}
