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
        let (id, action, named) = read(content)?;
        let sender = format!("s.m{id}@");
        let to = message.envelope.recipients[0].mailbox.as_str();
        if !to.starts_with(&sender) {
            return Err(format!("a report to {to} on {named:?} of {id}"));
        }
        match &*action {
            "failed" => self.report_of_an_end(id, named, true),
            "relayed" => self.report_of_an_end(id, named, false),
            "delayed" => self.notice(id, &named),
            other => Err(format!("a report of {id} on {named:?} says {other:?}")),
        }
    }

    /// The store did not take that report. Who would be given up stays, and as he was where he is held: then he fails again.
    pub(super) fn unreported(&mut self, content: &[u8]) -> Result<(), String> {
        let (id, action, named) = read(content)?;
        let (all, tally) = match &*action {
            "failed" => (&mut self.bounces, &mut self.tally.bounces),
            "relayed" => (&mut self.relays, &mut self.tally.relayed),
            _ => (&mut self.notices, &mut self.tally.notices),
        };
        for at in &named {
            let times = all.entry((id, *at)).or_default();
            times.is = times.is.saturating_sub(1);
            *tally = tally.saturating_sub(1);
        }
        self.tally.unreported += 1;
        if action == "delayed" {
            self.to_tell.get_mut(&id).unwrap().stored = false;
            return Ok(());
        }
        let named_by = |lease: &&mut Lease| {
            lease.id == id && named.iter().all(|at| lease.recipients.contains(at))
        };
        let lease = self.leases.values_mut().find(named_by).unwrap();
        if action == "relayed" {
            lease.handed_on.clear();
            return Ok(());
        }
        let recipients = &self.mails[&id].parts[lease.part].recipients;
        let next = self.now + UNREPORTED;
        for (at, expected) in lease.judged.iter_mut().flatten() {
            let one = &recipients[at];
            let is_held = lease.said[at] == Said::Restricted && one.held_since > 0;
            let is_held = is_held && one.last == Some(Said::Restricted);
            if *expected == Expected::Failed {
                *expected = Expected::At(next, is_held.then_some(one.held_since));
            }
        }
        Ok(())
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

/// On whom a report is, and what it says of them.
fn read(content: &[u8]) -> Result<(u64, String, BTreeSet<usize>), String> {
    let text = String::from_utf8_lossy(content);
    let all = |name: &str| -> BTreeSet<String> {
        let values = text.lines().filter_map(|line| line.strip_prefix(name));
        values.map(str::to_owned).collect()
    };
    let named = all("Final-Recipient: rfc822; ");
    let named: Vec<_> = named.iter().filter_map(|one| address_of(one)).collect();
    let (id, _) = *named.first().ok_or("a report on nobody")?;
    if named.iter().any(|(other, _)| *other != id) {
        return Err(format!("a report on {named:?}"));
    }
    let actions = all("Action: ")
        .into_iter()
        .collect::<Vec<_>>()
        .join(" and ");
    Ok((id, actions, named.into_iter().map(|(_, at)| at).collect()))
}
