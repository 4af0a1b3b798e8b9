//! The queue in its plainest form: what each message still owes, how it came there, and how far that is known to be on disk.

use super::super::*;
use crate::spool::queue::LegState;
use std::sync::Arc;

/// A recipient that is still owed the message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owed {
    pub(super) position: usize,
    pub(super) attempts: u32,
    pub(super) next_try: u64,
    pub(super) held_since: u64,
    pub(super) reply: Option<String>,
    pub(super) operator_hold: bool,
    pub(super) told: bool,
    pub(super) uncertified: bool,
}

/// The recipients of a message that wait in one queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) queue: Destination,
    pub(super) owed: Vec<Owed>,
}

/// What is left to do for a message; nothing once it is done.
pub(super) type State = Option<Vec<Part>>;

#[derive(Clone, Debug)]
pub(super) struct Mail {
    pub(super) message: Message,
    pub(super) body: Bytes,
    /// What the client was told; nothing yet.
    pub(super) answer: Option<bool>,
    /// All states so far, the present one last.
    states: Vec<State>,
    /// The last of them that is known to be on disk.
    durable: usize,
    /// Parts that are on their way.
    leased: Vec<bool>,
}

/// The queue.
#[derive(Clone, Debug, Default)]
pub(super) struct Model(pub(super) BTreeMap<u64, Arc<Mail>>);

/// A lease, as the model sees it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Leased {
    pub(super) id: u64,
    pub(super) part: usize,
    pub(super) recipients: Vec<usize>,
    pub(super) attempts: u32,
    pub(super) held_since: Option<u64>,
    /// Of each recipient.
    pub(super) last_replies: Vec<Option<String>>,
}

fn first_state(message: &Message) -> State {
    let mut parts: Vec<Part> = Vec::new();
    for (row, leg) in message.legs.iter().enumerate() {
        for position in &leg.recipients {
            let domain = message.envelope.recipients[*position].mailbox.domain();
            let queue = Destination {
                via: leg.via.clone(),
                tenant: Arc::clone(&message.tenant),
                domain: (leg.via == Via::Mx).then(|| domain.clone()),
            };
            let owed = Owed {
                position: *position,
                attempts: 0,
                next_try: message.arrived,
                held_since: 0,
                reply: None,
                operator_hold: false,
                told: false,
                uncertified: false,
            };
            // No test has two legs by the same way.
            match parts.iter_mut().find(|part| part.queue == queue) {
                Some(part) => part.owed.push(owed),
                None => parts.push(Part {
                    queue,
                    owed: vec![owed],
                }),
            }
        }
        assert!(row < 2);
    }
    Some(parts)
}

impl Mail {
    pub(super) fn state(&self) -> &State {
        self.states.last().unwrap()
    }

    /// The states that a restart may find.
    pub(super) fn possible(&self) -> &[State] {
        &self.states[self.durable..]
    }

    fn change(&mut self, change: impl FnOnce(&mut Vec<Part>)) {
        let mut state = self.state().clone().unwrap();
        change(&mut state);
        let is_done = state.iter().all(|part| part.owed.is_empty());
        self.states.push((!is_done).then_some(state));
    }
}

impl Model {
    pub(super) fn mail(&self, id: u64) -> &Mail {
        &self.0[&id]
    }

    fn mail_mut(&mut self, id: u64) -> &mut Mail {
        Arc::make_mut(self.0.get_mut(&id).unwrap())
    }

    /// Handed to the store.
    pub(super) fn submit(&mut self, message: Message, body: Bytes) {
        let state = first_state(&message);
        let mail = Mail {
            leased: vec![false; state.as_ref().unwrap().len()],
            states: vec![None, state],
            durable: 0,
            answer: None,
            body,
            message: message.clone(),
        };
        self.0.insert(message.id.as_u64(), Arc::new(mail));
    }

    /// The store has said whether it keeps it.
    pub(super) fn answer(&mut self, id: u64, kept: bool) {
        let mail = self.mail_mut(id);
        mail.answer = Some(kept);
        if kept {
            mail.durable = mail.durable.max(1);
        }
    }

    /// All that was told so far is on disk.
    pub(super) fn synced(&mut self) {
        for mail in self.0.values_mut() {
            if mail.answer == Some(true) && mail.durable + 1 < mail.states.len() {
                let mail = Arc::make_mut(mail);
                mail.durable = mail.states.len() - 1;
            }
        }
    }

    /// The ids that are queued now. What was refused is not, whatever a restart may find of it.
    pub(super) fn queued(&self) -> Vec<u64> {
        let queued = self.0.iter();
        queued
            .filter(|(_, mail)| mail.answer == Some(true) && mail.state().is_some())
            .map(|(id, _)| *id)
            .collect()
    }

    /// What the queue should be.
    pub(super) fn states(&self) -> BTreeMap<u64, Vec<Part>> {
        let queued = self.queued().into_iter();
        queued
            .map(|id| (id, self.mail(id).state().clone().unwrap()))
            .collect()
    }

    /// All queues that were ever used.
    pub(super) fn queues(&self) -> Vec<Destination> {
        let parts = self.0.values().filter_map(|mail| mail.states[1].as_ref());
        let queues: std::collections::BTreeSet<_> =
            parts.flatten().map(|part| part.queue.clone()).collect();
        queues.into_iter().collect()
    }

    /// What a lease should bring: the oldest message of the queue with somebody who may go, and those who are like the first
    /// of them.
    fn expected(
        &self,
        queue: &Destination,
        may_go: impl Fn(&Owed) -> bool,
        meant: impl Fn(&Mail) -> bool,
    ) -> Option<Leased> {
        self.queued().into_iter().find_map(|id| {
            let mail = self.mail(id);
            if !meant(mail) {
                return None;
            }
            let parts = mail.state().as_ref()?.iter().enumerate();
            let mut parts = parts.filter(|(at, part)| part.queue == *queue && !mail.leased[*at]);
            parts.find_map(|(part, own)| {
                let first = own.owed.iter().find(|owed| may_go(owed))?;
                let alike = |owed: &&Owed| {
                    may_go(owed)
                        && owed.attempts == first.attempts
                        && owed.held_since == first.held_since
                };
                let recipients = own.owed.iter().filter(alike).take(100);
                let recipients = recipients.map(|owed| (owed.position, owed.reply.clone()));
                let (recipients, last_replies) = recipients.unzip();
                Some(Leased {
                    id,
                    part,
                    recipients,
                    attempts: first.attempts,
                    held_since: Some(first.held_since).filter(|since| *since > 0),
                    last_replies,
                })
            })
        })
    }

    pub(super) fn due(&self, queue: &Destination, now: u64) -> Option<Leased> {
        let is_due = |owed: &Owed| !owed.operator_hold && owed.next_try <= now;
        self.expected(queue, is_due, |_| true)
    }

    /// When the next recipient of a queue is due who is not yet.
    pub(super) fn next_try(&self, queue: &Destination, now: u64) -> Option<u64> {
        let next = self.queued().into_iter().filter_map(|id| {
            let mail = self.mail(id);
            let parts = mail.state().as_ref()?.iter().enumerate();
            let parts = parts.filter(|(at, part)| part.queue == *queue && !mail.leased[*at]);
            let owed = parts.flat_map(|(_, part)| &part.owed);
            let next = owed
                .filter(|owed| !owed.operator_hold)
                .map(|owed| owed.next_try);
            next.min().filter(|next| *next > now)
        });
        next.min()
    }

    pub(super) fn oldest(&self, queue: &Destination) -> Option<Leased> {
        self.expected(queue, |owed| !owed.operator_hold, |_| true)
    }

    pub(super) fn uncertified(&self, queue: &Destination) -> Option<Leased> {
        if queue.via != Via::Exchange {
            return None;
        }
        let may_go = |owed: &Owed| !owed.operator_hold && !owed.uncertified;
        self.expected(queue, may_go, |mail| mail.message.is_own())
    }

    pub(super) fn lease(&mut self, id: u64, part: usize) {
        self.mail_mut(id).leased[part] = true;
    }

    pub(super) fn give_back(&mut self, id: u64, part: usize) {
        self.mail_mut(id).leased[part] = false;
    }

    pub(super) fn settle(
        &mut self,
        id: u64,
        part: usize,
        results: &[(usize, Disposition)],
        counts: bool,
    ) {
        self.give_back(id, part);
        // An operator may have deleted it meanwhile.
        if results.is_empty() || self.mail(id).state().is_none() {
            return;
        }
        self.mail_mut(id).change(|parts| {
            for (position, disposition) in results {
                let owed = &mut parts[part].owed;
                let at = owed.iter().position(|owed| owed.position == *position);
                let at = at.unwrap();
                let (next_try, since, reply) = match disposition {
                    Disposition::Delivered | Disposition::Failed { .. } => {
                        owed.remove(at);
                        continue;
                    }
                    Disposition::Deferred { next_try, reply } => (*next_try, 0, reply),
                    Disposition::Held {
                        next_try,
                        since,
                        reply,
                    } => (*next_try, *since, reply),
                };
                let owed = &mut owed[at];
                owed.next_try = next_try;
                owed.held_since = since;
                owed.reply = Some(reply.clone());
                owed.attempts += u32::from(counts);
            }
        });
    }

    pub(super) fn uncertified_is_over(&mut self, id: u64, part: usize) {
        self.mail_mut(id).change(|parts| {
            let all = parts[part].owed.iter_mut();
            all.for_each(|owed| owed.uncertified = true);
        });
    }

    pub(super) fn each_owed(&mut self, id: u64, change: impl Fn(&mut Owed)) {
        self.mail_mut(id).change(|parts| {
            let all = parts.iter_mut().flat_map(|part| &mut part.owed);
            all.for_each(change);
        });
    }

    pub(super) fn act(&mut self, id: u64, action: QueueAction, now: u64) {
        match action {
            QueueAction::Delete => self.mail_mut(id).change(Vec::clear),
            QueueAction::Hold => self.each_owed(id, |owed| owed.operator_hold = true),
            QueueAction::Release => self.each_owed(id, |owed| {
                (owed.operator_hold, owed.held_since, owed.next_try) = (false, 0, now);
            }),
            QueueAction::Retry => self.each_owed(id, |owed| {
                if !owed.operator_hold {
                    owed.next_try = now;
                }
            }),
        }
    }

    /// Takes over what a restart has found, which is right if it is one of the states that each message may be in.
    ///
    /// # Errors
    /// What is lost, invented, or otherwise than it was.
    pub(super) fn restarted(
        &mut self,
        found: &BTreeMap<u64, Vec<Part>>,
        tally: &mut Tally,
    ) -> Result<(), String> {
        if let Some(id) = found.keys().find(|id| !self.0.contains_key(id)) {
            return Err(format!("invented: {id}"));
        }
        for (id, mail) in &mut self.0 {
            let found = found.get(id).cloned();
            let possible = mail.possible();
            if !possible.contains(&found) {
                let kind = match (&found, mail.answer) {
                    (None, Some(true)) => "lost",
                    (Some(_), _) if possible == [None] => "come back",
                    _ => "otherwise",
                };
                return Err(format!(
                    "{kind}: {id}: found {found:?}, possible {possible:?}"
                ));
            }
            tally.count(mail, found.as_ref());
            let mail = Arc::make_mut(mail);
            mail.leased.fill(false);
            // In doubt until here: from now on it is a message as any other, or was never there.
            match (&found, mail.answer) {
                (_, Some(true)) => {}
                (Some(_), _) => mail.answer = Some(true),
                (None, _) => mail.answer = Some(false),
            }
            let first = mail.states[1].clone();
            mail.states = vec![None, first, found];
            mail.durable = 2;
        }
        Ok(())
    }
}

/// What was seen at restarts.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    /// Restarts.
    pub(super) restarts: usize,
    /// Power cuts, of those.
    pub(super) cuts: usize,
    /// Recipients owed a message that was answered 250: all were found.
    pub(super) owed: usize,
    /// Recipients that were settled, but not yet on disk, and are owed once more: duplicates.
    pub(super) again: usize,
    /// Messages that were answered 250 and done with on disk: none was found.
    pub(super) done: usize,
    /// Messages that were found though nobody was answered.
    pub(super) in_doubt: usize,
    /// Messages that were found though the answer was 451.
    pub(super) refused: usize,
}

impl Tally {
    /// A run in which nothing was cut, owed, settled, or in doubt compares nothing.
    ///
    /// # Panics
    /// It was such a run.
    pub(super) fn has_seen_all(&self) {
        let all = [self.cuts, self.owed, self.again, self.done, self.in_doubt];
        assert!(all.iter().all(|seen| *seen > 0), "{self:?}");
        assert!(self.cuts > self.restarts / 4, "{self:?}");
        assert!(self.owed > self.restarts, "{self:?}");
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.restarts += other.restarts;
        self.cuts += other.cuts;
        self.done += other.done;
        self.owed += other.owed;
        self.again += other.again;
        self.in_doubt += other.in_doubt;
        self.refused += other.refused;
    }

    fn count(&mut self, mail: &Mail, found: Option<&Vec<Part>>) {
        let owed = |state: Option<&Vec<Part>>| {
            state.map_or(0, |parts| {
                parts.iter().map(|part| part.owed.len()).sum::<usize>()
            })
        };
        match mail.answer {
            Some(true) => {
                let known = owed(mail.state().as_ref());
                self.owed += known;
                self.again += owed(found) - known;
                self.done += usize::from(known == 0 && found.is_none());
            }
            Some(false) => self.refused += usize::from(found.is_some()),
            None => self.in_doubt += usize::from(found.is_some()),
        }
    }
}

/// What the store says.
pub(super) fn seen(spool: &Spool) -> BTreeMap<u64, Vec<Part>> {
    let memory = spool.0.shared.memory();
    let part = |leg: &LegState| Part {
        queue: Destination::clone(&leg.destination),
        owed: leg
            .open()
            .into_iter()
            .map(|tried| Owed {
                position: tried.position as usize,
                attempts: tried.attempts,
                next_try: tried.next_try,
                held_since: tried.held_since,
                reply: tried.reply.map(|reply| reply.to_string()),
                operator_hold: tried.operator_hold,
                told: tried.told,
                uncertified: tried.uncertified,
            })
            .collect(),
    };
    let entries = memory.queue.entries.iter();
    entries
        .map(|(id, entry)| (*id, entry.legs.iter().map(part).collect()))
        .collect()
}
