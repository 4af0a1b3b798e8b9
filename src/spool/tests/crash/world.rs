//! A store on a counted disk, beside its model: what is done to one is done to the other, and both must agree.

use super::super::*;
use super::disk::StepDisk;
use super::model::{Leased, Model, Tally, seen};
use super::op::{End, Kind, Op};
use super::platter::{Left, Platter};
use super::post::{body, mail};
use std::path::PathBuf;
use std::pin::pin;

/// Small, so that segments are filled, copied forward and used again all the time.
pub(super) const SEGMENT: u64 = 64 * 1024;

pub(super) const PATIENCE: Patience = Patience {
    exchange: Some(50_000),
    outside: Some(50_000),
    exchange_end: None,
    outside_end: None,
};

pub(super) struct World {
    pub(super) root: PathBuf,
    /// Where `root` is a folder of its own.
    folder: Option<tempfile::TempDir>,
    pub(super) disk: StepDisk,
    pub(super) spool: Spool,
    hands: Option<Hands>,
    pub(super) model: Model,
    /// The model as it was when the disk had counted so many calls.
    pub(super) marks: Vec<(usize, Model)>,
    pub(super) tally: Tally,
    pub(super) now: u64,
    next: u64,
    pub(super) leases: Vec<(Due, Leased)>,
    /// Something was done wrong by the disk: then a refusal is no surprise.
    pub(super) sick: bool,
}

impl World {
    /// A new store in a folder of its own.
    pub(super) fn new(root: &Path, seed: u64) -> Result<Self, String> {
        let disk = StepDisk::new(root, Platter::default(), seed);
        Self::on(root, disk, Model::default(), NOW)
    }

    /// The store that a restart finds of `left`. `platter` is `left` for a power cut, and more for a kill.
    pub(super) fn after(
        root: &Path,
        left: &Left,
        platter: Platter,
        model: Model,
        now: u64,
    ) -> Result<Self, String> {
        Self::on(root, StepDisk::holding(root, left, platter), model, now)
    }

    pub(super) fn on(
        root: &Path,
        disk: StepDisk,
        mut model: Model,
        now: u64,
    ) -> Result<Self, String> {
        let (spool, hands) = open(root, &disk)?;
        let mut tally = Tally::default();
        model.restarted(&seen(&spool), &mut tally)?;
        let next = model.0.last_key_value().map_or(1, |(id, _)| id + 1);
        let mut world = Self {
            root: root.to_owned(),
            folder: None,
            disk,
            spool,
            hands: Some(hands),
            model,
            marks: Vec::new(),
            tally,
            now,
            next,
            leases: Vec::new(),
            sick: false,
        };
        world.mark();
        Ok(world)
    }

    fn hands(&mut self) -> &mut Hands {
        self.hands.as_mut().unwrap()
    }

    pub(super) fn mark(&mut self) {
        self.marks.push((self.disk.count(), self.model.clone()));
    }

    /// The model as it was before a call.
    pub(super) fn known_before(&self, call: usize) -> &Model {
        let later = self.marks.partition_point(|(count, _)| *count <= call);
        &self.marks[later.saturating_sub(1)].1
    }

    /// One step of both; they agree afterwards.
    pub(super) async fn step(&mut self, op: &Op) -> Result<(), String> {
        self.now += 7;
        match op {
            Op::Accept { octets, kind } => self.accept(*octets, *kind).await?,
            Op::Try {
                queue,
                ends,
                counts,
            } => self.attempt(*queue, ends, *counts)?,
            Op::Probe { queue, ends } => self.probe(*queue, ends)?,
            Op::Uncertified { taken } => self.uncertified(*taken)?,
            Op::Lease { queue } => self.lease(*queue)?,
            Op::GiveBack => {
                if !self.leases.is_empty() {
                    let (due, lease) = self.leases.remove(0);
                    self.model.give_back(lease.id, lease.part);
                    drop(due);
                }
            }
            Op::Act { action, which } => self.act(*action, *which),
            Op::Notice { told } => self.notice(*told)?,
            Op::Pass { millis } => self.now += millis,
            Op::Write => self.write(),
            Op::Tidy => self.tidy(),
            Op::Restart => {
                self.write();
                self.reopen()?;
            }
            Op::Kill => self.reopen()?,
        }
        self.mark();
        self.nobody_waits_unseen()?;
        let (seen, expected) = (seen(&self.spool), self.model.states());
        if seen == expected {
            return Ok(());
        }
        let id = seen.keys().chain(expected.keys());
        let mut id = id.filter(|id| seen.get(id) != expected.get(id));
        let id = id.next().unwrap();
        Err(format!(
            "after {op:?}: {id} is {:?}, expected {:?}",
            seen.get(id),
            expected.get(id)
        ))
    }

    /// Who can go now is in a queue that is due; for who can go later, somebody wakes in time.
    fn nobody_waits_unseen(&self) -> Result<(), String> {
        let due = self.spool.due(self.now);
        let wake = self.spool.next_wake();
        for queue in self.model.queues() {
            let is_listed = due.iter().any(|(listed, _)| *listed == queue);
            if self.model.due(&queue, self.now).is_some() && !is_listed {
                return Err(format!("{queue} is due, and nobody is told"));
            }
            let next = self.model.next_try(&queue, self.now);
            if next.is_some_and(|next| wake.is_none_or(|wake| wake > next)) {
                return Err(format!(
                    "{queue} is due at {next:?}, but one wakes at {wake:?}"
                ));
            }
        }
        Ok(())
    }

    /// The journal's thread writes what waits.
    pub(super) fn write(&mut self) {
        let committer = &mut self.hands().committer;
        committer.turn();
        if committer.is_idle() {
            self.model.synced();
        }
    }

    pub(super) fn tidy(&mut self) {
        assert!(self.hands().keeper.round());
    }

    async fn accept(&mut self, octets: usize, kind: Kind) -> Result<(), String> {
        let id = self.next;
        self.next += 1;
        let body = body(id, octets);
        let mut message = mail(id, kind, &body);
        message.arrived = self.now;
        self.model.submit(message.clone(), body.clone());
        self.mark();
        let mut draft = self.spool.draft();
        let mut whole = true;
        for piece in body.chunks(600_000) {
            whole = whole && draft.append(body.slice_ref(piece)).await.is_ok();
        }
        let spool = self.spool.clone();
        let kept = whole && {
            let hands = self.hands();
            let mut accepting = pin!(spool.accept(draft, message));
            let accepted = std::future::poll_fn(|context| {
                let polled = accepting.as_mut().poll(context);
                if polled.is_pending() && hands.committer.is_asked() {
                    hands.committer.turn();
                    context.waker().wake_by_ref();
                }
                polled.map(|stored| stored.is_ok())
            });
            accepted.await
        };
        self.model.answer(id, kept);
        if !kept && !self.sick {
            return Err(format!("{id} was refused by a disk that is well"));
        }
        if self.hands().committer.is_idle() {
            self.model.synced();
        } else {
            // After a second, as a committer does by itself; it may find the disk well again.
            self.write();
        }
        Ok(())
    }

    fn queue(&self, which: usize) -> Option<Destination> {
        let queues = self.model.queues();
        let at = which.checked_rem(queues.len())?;
        Some(queues[at].clone())
    }

    fn agree(
        &mut self,
        due: Option<Due>,
        expected: Option<Leased>,
    ) -> Result<Option<(Due, Leased)>, String> {
        let leased = |due: &Due| Leased {
            id: due.message().id.as_u64(),
            part: expected.as_ref().map_or(0, |expected| expected.part),
            recipients: due.recipients().to_vec(),
            attempts: due.attempts(),
            held_since: due.held_since(),
            last_replies: due
                .recipients()
                .iter()
                .map(|at| due.last_reply(*at).map(str::to_owned))
                .collect(),
        };
        let got = due.as_ref().map(leased);
        if got != expected {
            return Err(format!("leased {got:?}, expected {expected:?}"));
        }
        let both = due.zip(expected);
        if let Some((_, lease)) = &both {
            self.model.lease(lease.id, lease.part);
        }
        Ok(both)
    }

    fn attempt(&mut self, which: usize, ends: &[End; 3], counts: bool) -> Result<(), String> {
        let Some(queue) = self.queue(which) else {
            return Ok(());
        };
        let expected = self.model.due(&queue, self.now);
        let due = self.spool.next_due(&queue, self.now);
        if let Some((due, lease)) = self.agree(due, expected)? {
            self.settle(due, &lease, ends, counts);
        }
        Ok(())
    }

    fn probe(&mut self, which: usize, ends: &[End; 3]) -> Result<(), String> {
        let Some(queue) = self.queue(which) else {
            return Ok(());
        };
        let expected = self.model.oldest(&queue);
        if self.spool.has_open(&queue) != expected.is_some() {
            return Err(format!("has_open of {queue} is wrong"));
        }
        let due = self.spool.oldest(&queue, self.now);
        if let Some((due, lease)) = self.agree(due, expected)? {
            self.settle(due, &lease, ends, true);
        }
        Ok(())
    }

    fn uncertified(&mut self, taken: bool) -> Result<(), String> {
        let expected = self.model.uncertified(&exchange());
        let due = self.spool.next_uncertified(&exchange(), self.now);
        if let Some((due, lease)) = self.agree(due, expected)? {
            if taken {
                self.settle(due, &lease, &[End::Delivered; 3], true);
            } else {
                self.model.give_back(lease.id, lease.part);
                if self.model.mail(lease.id).state().is_some() {
                    self.model.uncertified_is_over(lease.id, lease.part);
                }
                self.spool.keep_uncertified(due);
            }
        }
        Ok(())
    }

    fn lease(&mut self, which: usize) -> Result<(), String> {
        let Some(queue) = self.queue(which) else {
            return Ok(());
        };
        let expected = self.model.due(&queue, self.now);
        let due = self.spool.next_due(&queue, self.now);
        let lease = self.agree(due, expected)?;
        self.leases.extend(lease);
        Ok(())
    }

    fn settle(&mut self, due: Due, lease: &Leased, ends: &[End; 3], counts: bool) {
        let now = self.now;
        let result = |(number, position): (usize, &usize)| {
            let disposition = match ends[number % ends.len()] {
                End::Untried => return None,
                End::Delivered => Disposition::Delivered,
                End::Failed => Disposition::Failed {
                    reply: "550 no".to_owned(),
                },
                End::Deferred(wait) => Disposition::Deferred {
                    next_try: now + wait,
                    reply: format!("451 wait {wait}"),
                },
                End::Held(wait) => Disposition::Held {
                    next_try: now + wait,
                    since: lease.held_since.unwrap_or(now),
                    reply: "550 5.7.64 held".to_owned(),
                },
            };
            Some((*position, disposition))
        };
        let results: Vec<_> = lease
            .recipients
            .iter()
            .enumerate()
            .filter_map(result)
            .collect();
        self.model.settle(lease.id, lease.part, &results, counts);
        self.spool.settle(due, results, counts);
    }

    fn act(&mut self, action: QueueAction, which: usize) {
        let queued = self.model.queued();
        // One in so many is an order for all, but for what would leave nothing.
        let all = which.is_multiple_of(16) && action != QueueAction::Delete;
        let meant = match which.checked_rem(queued.len()) {
            None => return,
            Some(_) if all => queued,
            Some(at) => vec![queued[at]],
        };
        for id in &meant {
            self.model.act(*id, action, self.now);
        }
        let id = (!all).then(|| QueueId::from_u64(meant[0]));
        let tenant = all.then_some("contoso");
        assert_eq!(self.spool.act(id, tenant, action, self.now), meant.len());
    }

    fn notice(&mut self, told: bool) -> Result<(), String> {
        for late in self.spool.late(PATIENCE, self.now, 2) {
            let id = late.work().message().id.as_u64();
            let named: Vec<usize> = late.waiting().iter().map(|waiting| waiting.at).collect();
            let mail = self.model.mail(id);
            let parts = mail.state().as_ref().ok_or("a notice of what is done")?;
            let owed = || parts.iter().flat_map(|part| &part.owed);
            let is_over = mail.message.arrived + 50_000 <= self.now;
            let waits = |at: &usize| owed().any(|owed| owed.position == *at && !owed.told);
            if mail.message.is_own() || !is_over || !named.iter().all(waits) {
                return Err(format!("a notice of {id} to {named:?}, with {parts:?}"));
            }
            if told {
                self.spool.told(&late);
                self.model
                    .each_owed(id, |owed| owed.told |= named.contains(&owed.position));
            } else {
                self.spool.put_back(&late);
            }
        }
        Ok(())
    }

    /// What is not on disk is gone with the process; the disk goes on.
    fn reopen(&mut self) -> Result<(), String> {
        self.leases.clear();
        self.spool.0.journal.stop();
        self.hands = None;
        let mut opened = open(&self.root, &self.disk);
        for _ in 0..20 {
            if opened.is_ok() || !self.sick {
                break;
            }
            // A disk that fails when the server starts: it is started again.
            opened = open(&self.root, &self.disk);
        }
        let (spool, hands) = opened?;
        (self.spool, self.hands) = (spool, Some(hands));
        self.model.restarted(&seen(&self.spool), &mut self.tally)
    }

    /// The power is cut; what is `left` lies on a new disk.
    pub(super) fn power_cut(&mut self, left: &Left) -> Result<(), String> {
        self.leases.clear();
        self.spool.0.journal.stop();
        self.hands = None;
        let folder = tempfile::tempdir().unwrap();
        self.root = folder.path().to_owned();
        self.folder = Some(folder);
        self.disk = StepDisk::holding(&self.root, left, Platter::holding(left));
        self.marks.clear();
        self.reopen()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.leases.clear();
        self.spool.0.journal.stop();
    }
}

fn open(root: &Path, disk: &StepDisk) -> Result<(Spool, Hands), String> {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let metrics = Metrics::new().unwrap();
    Spool::with_hands(&root.join("spool"), disk, SEGMENT, &metrics)
        .map_err(|error| format!("does not open: {error}"))
}
