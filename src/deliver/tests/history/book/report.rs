//! Which reports are owed, and to whom.

use super::*;

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
        let key = self.leases.iter().find(|(_, lease)| {
            lease.id == id && named.iter().all(|(_, at)| lease.recipients.contains(at))
        });
        let key = *key
            .ok_or_else(|| format!("a report on {id}, which nobody tries"))?
            .0;
        self.judge(key)?;
        let judged = self.leases[&key].judged.clone().unwrap();
        let failed = judged.iter().filter(|(_, what)| **what == Expected::Failed);
        let failed: BTreeSet<_> = failed.map(|(at, _)| *at).collect();
        if named.iter().map(|(_, at)| *at).collect::<BTreeSet<_>>() != failed {
            return Err(format!("a report of {id} on {named:?}, and {judged:?}"));
        }
        for who in named {
            let times = self.bounces.entry(who).or_default();
            times.is += 1;
            self.tally.bounces += 1;
            if times.is > times.may {
                return Err(format!("{who:?} is reported {times:?}"));
            }
        }
        Ok(())
    }
}
