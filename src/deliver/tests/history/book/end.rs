//! What a new process finds, what the store has to have, and whether everything came to its end.

use super::*;

impl Inner {
    /// By queue: since when, and which messages.
    pub(super) fn held(&self) -> Vec<(Destination, u64, Vec<u64>)> {
        let mut found: BTreeMap<Destination, (u64, Vec<u64>)> = BTreeMap::new();
        for (id, mail) in &self.mails {
            for part in &mail.parts {
                let mut open = part.open();
                let held =
                    open.find(|(_, one)| one.held_since > 0 && one.last == Some(Said::Fault));
                if let Some((_, one)) = held {
                    let (since, ids) = found
                        .entry(part.queue.clone())
                        .or_insert((one.held_since, Vec::new()));
                    *since = (*since).min(one.held_since);
                    ids.push(*id);
                }
            }
        }
        found
            .into_iter()
            .map(|(queue, (since, ids))| (queue, since, ids))
            .collect()
    }

    pub(super) fn restarted(&mut self) {
        self.tally.kills += usize::from(self.dying);
        self.dying = false;
        self.mails = self.durable.clone();
        self.written = self.durable.clone();
        (self.clock, self.no_notice_before, self.has_begun) = (None, 0, false);
        let now = self.now;
        self.lanes.clear();
        self.leases.clear();
        self.to_tell.clear();
        self.knocks = [0; 5];
        for (id, mail) in &mut self.mails {
            mail.looked = [false; 2];
            // The clock may have been set since: nobody comes from the future, and nobody waits longer than any wait.
            mail.arrived = mail.recorded.min(now);
            for part in &mut mail.parts {
                for one in part.recipients.values_mut() {
                    let never_tried = one.last.is_none();
                    let latest = if never_tried { now } else { now + HOUR };
                    one.next_try = one.next_try.min(latest);
                    one.held_since = one.held_since.min(now);
                }
            }
            for part in &mut mail.parts {
                part.leased = false;
                for (at, one) in part.open() {
                    let notices = self.notices.entry((*id, *at)).or_default();
                    notices.may = notices.is + usize::from(!one.told);
                    let copies = self.copies.entry((*id, *at)).or_default();
                    copies.may = copies.is + 1;
                    let bounces = self.bounces.entry((*id, *at)).or_default();
                    bounces.may = bounces.is + 1;
                    let relays = self.relays.entry((*id, *at)).or_default();
                    relays.may = relays.is + 1;
                }
            }
        }
    }

    pub(super) fn compare(&self, owed: &[Owed]) -> Result<(), String> {
        let mut expected = Vec::new();
        for (id, mail) in &self.mails {
            for part in &mail.parts {
                expected.extend(part.open().map(|(at, one)| Owed {
                    id: *id,
                    position: *at,
                    attempts: one.attempts,
                    next_try: one.next_try,
                    held_since: one.held_since,
                    operator_hold: one.operator_hold,
                    uncertified: one.uncertified,
                    leased: part.leased,
                    told: one.told,
                }));
            }
        }
        expected.sort_by_key(|owed| (owed.id, owed.position));
        let differs = |(own, other): &(&Owed, &Owed)| own != other;
        match owed.iter().zip(&expected).find(differs) {
            Some((is, should)) => Err(format!("the store has {is:?}, expected {should:?}")),
            None if owed.len() != expected.len() => {
                Err(format!("the store owes {owed:?}, expected {expected:?}"))
            }
            None => Ok(()),
        }
    }

    pub(super) fn all_is_over(&self) -> Result<(), String> {
        for (id, mail) in &self.mails {
            let all = mail.parts.iter().flat_map(|part| &part.recipients);
            for (at, one) in all {
                let copies = self.copies.get(&(*id, *at)).copied().unwrap_or_default();
                let bounces = self.bounces.get(&(*id, *at)).copied().unwrap_or_default();
                let well = match one.end {
                    End::Open => false,
                    End::Delivered => copies.is >= 1 && copies.is == copies.may,
                    End::Failed => {
                        !(mail.answers && one.wants_failure()) || bounces.is == bounces.may
                    }
                    End::Deleted => true,
                };
                if !well {
                    return Err(format!("{at} of {id}: {one:?}, {copies:?}, {bounces:?}"));
                }
            }
        }
        Ok(())
    }
}
