//! What there is: messages, their recipients by queue, what an operator does to them, and what may go at this moment.

use super::*;

impl Mail {
    pub(super) fn of(message: &Message) -> Self {
        let mut parts: Vec<Part> = Vec::new();
        for leg in &message.legs {
            for position in &leg.recipients {
                let mailbox = &message.envelope.recipients[*position].mailbox;
                let queue = Destination {
                    via: leg.via.clone(),
                    tenant: Arc::clone(&message.tenant),
                    domain: (leg.via == Via::Mx).then(|| mailbox.domain().clone()),
                };
                let recipient = Recipient {
                    address: mailbox.as_str().to_owned(),
                    end: End::Open,
                    attempts: 0,
                    next_try: message.arrived,
                    held_since: 0,
                    last: None,
                    operator_hold: false,
                    uncertified: false,
                    notify: message.envelope.recipients[*position].notify,
                    told: false,
                };
                let known = parts.iter().position(|part| part.queue == queue);
                let at = known.unwrap_or_else(|| {
                    parts.push(Part {
                        queue,
                        recipients: BTreeMap::new(),
                        leased: false,
                    });
                    parts.len() - 1
                });
                parts[at].recipients.insert(*position, recipient);
            }
        }
        Self {
            arrived: message.arrived,
            answers: message.envelope.reverse_path.mailbox().is_some(),
            own: message.is_own(),
            parts,
            looked: [false; 2],
            recorded: message.arrived,
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.parts.iter().any(|part| part.open().next().is_some())
    }
}

impl Part {
    pub(super) fn open(&self) -> impl Iterator<Item = (&usize, &Recipient)> {
        let all = self.recipients.iter();
        all.filter(|(_, one)| one.end == End::Open)
    }
}

impl Inner {
    pub(super) fn submit(&mut self, message: &Message) {
        let id = message.id.as_u64();
        self.mails.insert(id, Mail::of(message));
        self.write(id);
    }

    /// What is still to happen at this moment; nothing where all wait for a later one.
    pub(super) fn why_not_quiet(&self) -> Option<String> {
        if let Some(lease) = self.leases.values().next() {
            return Some(format!("on its way: {lease:?}"));
        }
        for (queue, lane) in &self.lanes {
            if !lane.to_release.is_empty() {
                return Some(format!("to be let go in {queue}: {:?}", lane.to_release));
            }
            if lane.is_over(self.now) {
                return Some(format!("the hold of {queue} is over: {lane:?}"));
            }
        }
        if !self.has_begun {
            return Some("the process has not begun".to_owned());
        }
        if let Some(by) = self.clock {
            return Some(format!("the clock was set by {by}, and nobody has seen it"));
        }
        if let Some(why) = self.notice_is_due() {
            return Some(why);
        }
        let parts = self.mails.iter();
        let mut parts = parts.flat_map(|(id, mail)| mail.parts.iter().map(move |part| (id, part)));
        parts.find_map(|(id, part)| {
            let may = self
                .lanes
                .get(&part.queue)
                .map_or(May::Go, |lane| lane.may(self.now));
            let mut open = part.open().filter(|(_, one)| !one.operator_hold);
            let goes = match may {
                May::Go => open.any(|(_, one)| one.next_try <= self.now),
                May::Probe => open.next().is_some(),
                May::Wait => false,
            };
            goes.then(|| format!("{id} waits in {}, and {may:?}: {part:?}", part.queue))
        })
    }

    pub(super) fn act(&mut self, id: u64, action: QueueAction) {
        let now = self.now;
        let Some(mail) = self.mails.get_mut(&id) else {
            return;
        };
        let all = mail.parts.iter_mut();
        let all = all.flat_map(|part| part.recipients.values_mut());
        for one in all.filter(|one| one.end == End::Open) {
            match action {
                QueueAction::Delete => one.end = End::Deleted,
                QueueAction::Hold => one.operator_hold = true,
                QueueAction::Release => {
                    (one.operator_hold, one.held_since, one.next_try) = (false, 0, now);
                }
                QueueAction::Retry if one.operator_hold => {}
                QueueAction::Retry => one.next_try = now,
            }
        }
        self.write(id);
    }

    /// An operator wants it tried now: the queues in which something of it may go do not keep it back.
    pub(super) fn hurry(&mut self, id: u64) {
        let now = self.now;
        let parts = self.mails.get(&id).into_iter();
        for part in parts.flat_map(|mail| &mail.parts) {
            if part.open().any(|(_, one)| !one.operator_hold)
                && let Some(lane) = self.lanes.get_mut(&part.queue)
            {
                lane.hurried(now);
                self.tally.hurried += 1;
            }
        }
    }

    /// Every wait stays as long as it was.
    pub(super) fn clock_was_set(&mut self, by: i64) {
        let shift = |moment: &mut u64| *moment = moment.saturating_add_signed(by);
        for mail in self.mails.values_mut() {
            shift(&mut mail.arrived);
            let parts = mail.parts.iter_mut();
            for one in parts.flat_map(|part| part.recipients.values_mut()) {
                shift(&mut one.next_try);
                if one.held_since > 0 {
                    shift(&mut one.held_since);
                }
            }
        }
        let lanes = self.lanes.values_mut();
        lanes.for_each(|lane| lane.clock_was_set(by));
        shift(&mut self.no_notice_before);
    }
}
