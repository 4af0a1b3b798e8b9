//! Who hears that his mail still waits: once for each recipient, when it has waited long, whether it was tried or not.

use super::*;

fn patience(internal: bool) -> u64 {
    match internal {
        true => EXCHANGE.notice,
        false => OUTSIDE.notice,
    }
}

impl Mail {
    fn untold(&self, internal: bool) -> impl Iterator<Item = &Part> {
        let of_kind = self
            .parts
            .iter()
            .filter(move |part| part.queue.via.is_internal() == internal);
        of_kind.filter(|part| part.open().any(|(_, one)| !one.told))
    }

    /// Whether somebody is to be looked at for a notice by this kind of way.
    fn is_late(&self, internal: bool, now: u64) -> bool {
        let over = now >= self.arrived + patience(internal);
        over && self.is_open() && !self.looked[usize::from(internal)]
    }

    /// Those who wait too long, and of whom no more is known at once.
    fn waiting(&self, now: u64, in_doubt: impl Fn(&Self, &Part) -> bool) -> BTreeSet<usize> {
        let late = self.parts.iter().filter(|part| {
            let over = now >= self.arrived + patience(part.queue.via.is_internal());
            over && !in_doubt(self, part)
        });
        let all = late.flat_map(Part::open).filter(|(_, one)| !one.told);
        all.map(|(at, _)| *at).collect()
    }
}

/// Whether somebody is on his way, or may be about to go for the last time.
fn in_doubt(lanes: &BTreeMap<Destination, Lane>, mail: &Mail, part: &Part, now: u64) -> bool {
    let parked = lanes.get(&part.queue).is_some_and(Lane::is_parked);
    let ends = now >= mail.arrived + rule(&part.queue.via).expire;
    let mut goes = part.open().filter(|(_, one)| !one.operator_hold);
    part.leased || ends && !parked && goes.any(|(_, one)| one.next_try <= now)
}

impl Inner {
    pub(super) fn late(
        &mut self,
        found: &[(u64, BTreeSet<usize>)],
        most: usize,
    ) -> Result<(), String> {
        let now = self.now;
        if now < self.no_notice_before {
            let then = self.no_notice_before;
            return Err(format!(
                "late mail is looked for at {now}, which rests until {then}"
            ));
        }
        let mut expected: BTreeMap<u64, BTreeSet<usize>> = BTreeMap::new();
        let lanes = &self.lanes;
        let in_doubt = |mail: &Mail, part: &Part| in_doubt(lanes, mail, part, now);
        for internal in [true, false] {
            for (id, mail) in &mut self.mails {
                if !mail.is_late(internal, now) {
                    continue;
                }
                if mail.untold(internal).any(|part| in_doubt(mail, part)) {
                    let ends = mail.untold(internal).any(|part| !part.leased);
                    self.tally.at_their_end += usize::from(ends);
                    continue;
                }
                let owed = !mail.own && mail.untold(internal).next().is_some();
                // Where more is late than is taken, the rest is looked at another time.
                let left = found.len() >= most && !found.iter().any(|(other, _)| other == id);
                mail.looked[usize::from(internal)] = !(owed && left);
                if owed && !left {
                    expected
                        .entry(*id)
                        .or_insert_with(|| mail.waiting(now, in_doubt));
                }
            }
        }
        let got: BTreeMap<_, _> = found.iter().cloned().collect();
        if got != expected || got.len() != found.len() {
            return Err(format!(
                "late at {now} are {found:?}, expected {expected:?}"
            ));
        }
        for (id, waiting) in expected {
            let mail = &self.mails[&id];
            let all = mail.parts.iter().flat_map(|part| &part.recipients);
            let wanted = all.filter(|(at, one)| waiting.contains(at) && one.wants_delay());
            let wanted: BTreeSet<_> = wanted.map(|(at, _)| *at).collect();
            if mail.answers && !wanted.is_empty() {
                let stored = false;
                let to_tell = ToTell {
                    waiting,
                    wanted,
                    stored,
                };
                self.to_tell.insert(id, to_tell);
            }
        }
        Ok(())
    }

    pub(super) fn notice(&mut self, id: u64, named: &BTreeSet<usize>) -> Result<(), String> {
        let to_tell = self.to_tell.get_mut(&id);
        let to_tell = to_tell.ok_or_else(|| format!("a notice of {id}, which is not late"))?;
        if to_tell.wanted != *named || to_tell.stored {
            return Err(format!(
                "a notice of {id} on {named:?}, owed is {to_tell:?}"
            ));
        }
        to_tell.stored = true;
        let mail = &self.mails[&id];
        for part in &mail.parts {
            let named = |(at, _): &(&usize, &Recipient)| named.contains(at);
            let mut all = part.recipients.iter().filter(named);
            if let Some((at, one)) = all.find(|(_, one)| part.leased || one.end != End::Open) {
                return Err(format!(
                    "a notice that {at} of {id} waits, who does not: {one:?}"
                ));
            }
        }
        for at in named {
            let times = self.notices.entry((id, *at)).or_default();
            times.is += 1;
            self.tally.notices += 1;
            if times.is > times.may {
                return Err(format!("{at} of {id} is told {times:?}"));
            }
        }
        Ok(())
    }

    /// Asked before a notice is stored.
    pub(super) fn still_waits(&mut self, id: u64, waits: bool) -> Result<(), String> {
        let to_tell = self.to_tell.get(&id);
        let to_tell = to_tell.ok_or_else(|| format!("{id} is asked after, which is not late"))?;
        let mail = &self.mails[&id];
        let open = mail.parts.iter().filter(|part| !part.leased);
        let open: BTreeSet<usize> = open.flat_map(Part::open).map(|(at, _)| *at).collect();
        if waits != to_tell.waiting.is_subset(&open) {
            return Err(format!("{id} still waits: {waits}; {to_tell:?}, {mail:?}"));
        }
        if !waits {
            self.to_tell.remove(&id);
            self.tally.overtaken += 1;
            if let Some(mail) = self.mails.get_mut(&id) {
                mail.looked = [false; 2];
            }
        }
        Ok(())
    }

    pub(super) fn told(&mut self, id: u64) -> Result<(), String> {
        let to_tell = self.to_tell.remove(&id).filter(|to_tell| to_tell.stored);
        let to_tell = to_tell.ok_or_else(|| format!("{id} is told, and no notice is stored"))?;
        let parts = self.mails.get_mut(&id).into_iter();
        for part in parts.flat_map(|mail| &mut mail.parts) {
            for (at, one) in &mut part.recipients {
                one.told |= to_tell.waiting.contains(at) && one.end == End::Open;
            }
        }
        self.write(id);
        Ok(())
    }

    /// A notice could not be kept: it is tried again after a while, as is what was handed out with it.
    pub(super) fn put_back(&mut self, id: u64) {
        self.to_tell.remove(&id);
        self.no_notice_before = self.now + UNREPORTED;
        if let Some(mail) = self.mails.get_mut(&id) {
            mail.looked = [false; 2];
        }
    }

    pub(super) fn notice_is_due(&self) -> Option<String> {
        if let Some((id, to_tell)) = self.to_tell.iter().next() {
            return Some(format!("a notice of {id} is not written: {to_tell:?}"));
        }
        if self.now < self.no_notice_before {
            return None;
        }
        self.mails.iter().find_map(|(id, mail)| {
            let late = [true, false].into_iter().any(|internal| {
                let waits = || mail.untold(internal).next().is_some();
                mail.is_late(internal, self.now)
                    && waits()
                    && !mail
                        .untold(internal)
                        .any(|part| in_doubt(&self.lanes, mail, part, self.now))
            });
            (late && !mail.own)
                .then(|| format!("{id} waits long, and nobody hears of it: {mail:?}"))
        })
    }
}
