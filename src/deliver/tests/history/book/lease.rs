//! Who may go, with whom, and how often content is read for him.

use super::*;

impl Inner {
    pub(super) fn lease(
        &mut self,
        queue: &Destination,
        id: u64,
        recipients: &[usize],
        kind: Kind,
    ) -> Result<(), String> {
        let (now, most, mark) = (self.now, self.most, self.count);
        let other = |lease: &&Lease| {
            let mail = self.mails.get(&lease.id);
            lease.kind != Kind::Uncertified
                && mail.is_some_and(|mail| mail.parts[lease.part].queue == *queue)
        };
        let others = self.leases.values().filter(other).count();
        let lane = self.lanes.entry(queue.clone()).or_default();
        let fits = match kind {
            Kind::Due => lane.may(now) == May::Go,
            // That it was due was seen when it was asked for.
            Kind::Probe => lane.is_parked(),
            Kind::Uncertified => lane.is_parked(),
        };
        if !fits {
            return Err(format!(
                "{id} goes as {kind:?} at {now}, and its queue is {lane:?}"
            ));
        }
        // How many there are outside is not for the configuration to say.
        let most = match queue.via.is_internal() {
            true => most,
            false => usize::MAX,
        };
        let most = lane.most(now, most);
        if kind != Kind::Uncertified && others + 1 > most {
            return Err(format!(
                "{id} is number {} on its way of {most}: {lane:?} at {now}",
                others + 1
            ));
        }
        let mail = self.mails.get_mut(&id).ok_or("mail that nobody sent")?;
        let has_them =
            |part: &Part| part.queue == *queue && part.recipients.contains_key(&recipients[0]);
        let at = mail.parts.iter().position(has_them);
        let at = at.ok_or_else(|| format!("{id} in {queue}, which is not its way"))?;
        let part = &mut mail.parts[at];
        if part.leased {
            return Err(format!("{id} is leased twice"));
        }
        let first = part.recipients[&recipients[0]].clone();
        for position in recipients {
            let one = part.recipients.get(position);
            let alike = |one: &&Recipient| {
                one.end == End::Open
                    && !one.operator_hold
                    && (kind != Kind::Due || one.next_try <= now)
                    && (kind != Kind::Uncertified || mail.own && !one.uncertified)
                    && (one.attempts, one.held_since) == (first.attempts, first.held_since)
            };
            if one.filter(alike).is_none() {
                return Err(format!(
                    "{position} of {id} goes as {kind:?} at {now}: {one:?}"
                ));
            }
        }
        part.leased = true;
        for position in recipients {
            self.granted.remove(&part.recipients[position].address);
        }
        self.tally.leases += 1;
        self.tally.probes += usize::from(kind == Kind::Probe);
        self.tally.uncertified += usize::from(kind == Kind::Uncertified);
        let lease = Lease {
            id,
            part: at,
            recipients: recipients.to_vec(),
            kind,
            mark,
            reads: 0,
            judged: None,
            said: BTreeMap::new(),
            handed_on: BTreeSet::new(),
        };
        self.leases.insert(mark, lease);
        Ok(())
    }

    /// Content is read once for each time that the next hop asked for it; what is read beyond is for a report.
    pub(super) fn read_from_the_start(&mut self, key: u64) {
        let Some(lease) = self.leases.get_mut(&key) else {
            return;
        };
        lease.reads += 1;
        let (reads, id, part) = (lease.reads, lease.id, lease.part);
        let positions = lease.recipients.clone();
        let own = self.mails[&id].own;
        let all = &self.mails[&id].parts[part].recipients;
        let granted = positions
            .iter()
            .filter_map(|at| self.granted.get(&all[at].address));
        if !own
            && reads > granted.sum()
            && let Err(error) = self.judge(key)
        {
            self.note(error);
        }
    }
}
