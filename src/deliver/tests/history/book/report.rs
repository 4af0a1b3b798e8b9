//! Which reports are owed, and to whom.

use super::*;

impl Recipient {
    /// RFC 3461 §4.1; who asks for nothing hears of failures and delays.
    fn wants(&self, of: fn(bool, bool, bool) -> bool) -> bool {
        match self.notify {
            None => of(false, true, true),
            Some(Notify::Never) => false,
            Some(Notify::On {
                success,
                failure,
                delay,
            }) => of(success, failure, delay),
        }
    }

    pub(super) fn wants_success(&self) -> bool {
        self.wants(|success, _, _| success)
    }

    pub(super) fn wants_failure(&self) -> bool {
        self.wants(|_, failure, _| failure)
    }

    pub(super) fn wants_delay(&self) -> bool {
        self.wants(|_, _, delay| delay)
    }
}

impl Inner {
    pub(super) fn report(&mut self, message: &Message, content: &[u8]) -> Result<(), String> {
        let text = String::from_utf8_lossy(content);
        let named = text.lines();
        let named = named.filter_map(|line| line.strip_prefix("Final-Recipient: rfc822; "));
        let named: Vec<_> = named.filter_map(address_of).collect();
        let (id, _) = *named.first().ok_or("a report on nobody")?;
        let sender = format!("s.m{id}@");
        let to = message.envelope.recipients[0].mailbox.as_str();
        if named.iter().any(|(other, _)| *other != id) || !to.starts_with(&sender) {
            return Err(format!("a report to {to} on {named:?}"));
        }
        let actions = text
            .lines()
            .filter_map(|line| line.strip_prefix("Action: "));
        let actions: BTreeSet<_> = actions.collect();
        let named: BTreeSet<_> = named.into_iter().map(|(_, at)| at).collect();
        match actions.into_iter().collect::<Vec<_>>()[..] {
            ["failed"] => self.report_of_an_end(id, named, true),
            ["relayed"] => self.report_of_an_end(id, named, false),
            ["delayed"] => self.notice(id, &named),
            ref other => Err(format!("a report of {id} on {named:?} says {other:?}")),
        }
    }

    fn report_of_an_end(
        &mut self,
        id: u64,
        named: BTreeSet<usize>,
        failed: bool,
    ) -> Result<(), String> {
        let key = self.leases.iter().find(|(_, lease)| {
            lease.id == id && named.iter().all(|at| lease.recipients.contains(at))
        });
        let key = *key
            .ok_or_else(|| format!("a report on {id}, which nobody tries"))?
            .0;
        self.judge(key)?;
        let lease = &self.leases[&key];
        let all = &self.mails[&id].parts[lease.part].recipients;
        let judged = lease.judged.clone().unwrap();
        let owed: BTreeSet<_> = match failed {
            true => {
                let failed = judged.iter().filter(|(_, what)| **what == Expected::Failed);
                failed
                    .map(|(at, _)| *at)
                    .filter(|at| all[at].wants_failure())
                    .collect()
            }
            false => lease.handed_on.clone(),
        };
        if named != owed {
            return Err(format!(
                "a report of {id} on {named:?}, owed is one on {owed:?}: {judged:?}"
            ));
        }
        for at in named {
            let (all, tally) = match failed {
                true => (&mut self.bounces, &mut self.tally.bounces),
                false => (&mut self.relays, &mut self.tally.relayed),
            };
            let times = all.entry((id, at)).or_default();
            times.is += 1;
            *tally += 1;
            if times.is > times.may {
                return Err(format!("{at} of {id} is reported {times:?}"));
            }
        }
        Ok(())
    }
}
