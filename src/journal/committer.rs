//! One write and one fdatasync for all who wait, then all are answered.
//!
//! No artificial delay: a batch is what arrived during the last sync. Outcomes do not ask for a sync of their own; they
//! ride with the next batch or go after [`LAZY`] (results are on disk within a second).
//!
//! After a failed write or fdatasync the kernel may have dropped the pages and marked them clean, so a second fdatasync
//! that succeeds proves nothing. The segment is therefore never written or synced again: tickets are answered with the
//! error, outcomes wait for the next segment, whose first record says how far the failed one is good.

use super::disk::{LogFile, write_all_at};
use super::reclaim::Accounts;
use super::replay::Replayed;
use super::segment::{HEAD, Kind, Location, Name, Readers, write_head};
use super::{JournalError, locked};
use crate::metrics::Metrics;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long an outcome waits for company.
pub(super) const LAZY: Duration = Duration::from_millis(200);
/// Between attempts to get well again.
const PROBE: Duration = Duration::from_secs(1);
/// A sync that takes longer makes the store unready: sessions are told 4xx and do not queue up behind a dead disk.
const STUCK: Duration = Duration::from_secs(20);
const BATCH_RECORDS: usize = 512;
const BATCH_OCTETS: u64 = 8 * 1024 * 1024;
/// Ids in one record of done messages.
const DONE_IDS: usize = 4096;

/// A record to be written.
#[derive(Debug)]
pub struct Job<T> {
    /// What it is about.
    pub kind: Kind,
    /// Its description.
    pub meta: Vec<u8>,
    /// Bytes of a message.
    pub body: bytes::Bytes,
    /// Given back with the answer; without one the record is tried until it is written.
    pub ticket: Option<T>,
    /// May use the space that is reserved for outcomes.
    pub may_use_reserve: bool,
}

/// A ticket with its answer.
pub type Ticketed<T> = (T, Result<Location, JournalError>);

/// What goes on between the committer and everyone else.
pub(super) struct Shared<T> {
    pending: Mutex<Pending<T>>,
    wake: Condvar,
}

struct Pending<T> {
    jobs: VecDeque<Job<T>>,
    /// Ids that are done, and which of them have a large body. Written behind the jobs: nothing follows the end.
    done: VecDeque<(u64, bool)>,
    removals: Vec<u64>,
    urgent: usize,
    lazy_since: Option<Instant>,
    busy_since: Option<Instant>,
    fault: Option<JournalError>,
    closing: bool,
    asleep: bool,
}

#[expect(
    clippy::disallowed_methods,
    reason = "the committer's own deadlines; no decision about mail hangs on them"
)]
fn now() -> Instant {
    Instant::now()
}

impl<T> Shared<T> {
    pub(super) fn new() -> Self {
        Self {
            pending: Mutex::new(Pending {
                jobs: VecDeque::new(),
                done: VecDeque::new(),
                removals: Vec::new(),
                urgent: 0,
                lazy_since: None,
                busy_since: None,
                fault: None,
                closing: false,
                asleep: false,
            }),
            wake: Condvar::new(),
        }
    }

    pub(super) fn push(&self, job: Job<T>) {
        let mut pending = locked(&self.pending);
        let urgent = job.ticket.is_some();
        pending.jobs.push_back(job);
        if urgent {
            pending.urgent += 1;
        }
        self.wake(&mut pending, urgent);
    }

    pub(super) fn done(&self, id: u64, body: bool) {
        let mut pending = locked(&self.pending);
        pending.done.push_back((id, body));
        self.wake(&mut pending, false);
    }

    /// Wakes the committer where it sleeps and this changes until when.
    fn wake(&self, pending: &mut Pending<T>, urgent: bool) {
        let first = pending.lazy_since.is_none() && !urgent;
        if first {
            pending.lazy_since = Some(now());
        }
        if pending.asleep && (urgent || first) {
            pending.asleep = false;
            self.wake.notify_one();
        }
    }

    pub(super) fn fault(&self) -> Option<JournalError> {
        let pending = locked(&self.pending);
        let stuck = pending
            .busy_since
            .is_some_and(|since| now().duration_since(since) > STUCK);
        let stuck = stuck.then(|| JournalError::Failing("a write has not ended".to_owned()));
        pending
            .fault
            .clone()
            .or(stuck)
            .or_else(|| pending.closing.then_some(JournalError::Closed))
    }

    pub(super) fn take_removals(&self) -> Vec<u64> {
        std::mem::take(&mut locked(&self.pending).removals)
    }

    pub(super) fn close(&self) {
        let mut pending = locked(&self.pending);
        pending.closing = true;
        pending.asleep = false;
        self.wake.notify_one();
    }
}

/// What one turn of the committer has to do.
struct Batch<T> {
    jobs: VecDeque<Job<T>>,
    done: VecDeque<(u64, bool)>,
    last: bool,
}

/// Meta of [`Kind::Start`].
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Start {
    /// The segment before, if any.
    pub(super) previous: Option<u32>,
    /// Octets of it that hold; what lies behind was never acknowledged.
    pub(super) previous_end: u64,
    /// What could not be read in these when it was the last one, bodies and all, and stays unread: a body is not looked at
    /// again, and a torn one would come back as a message, or in the place of its whole copy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) previous_damaged: Vec<(u64, u64)>,
}

/// The segment that the next one follows, how far it holds, and where it does not.
#[derive(Clone, Debug, Default)]
struct Seal {
    number: Option<u32>,
    end: u64,
    damaged: Vec<(u64, u64)>,
}

impl Seal {
    fn whole(number: u32, end: u64) -> Self {
        Self {
            number: Some(number),
            end,
            damaged: Vec::new(),
        }
    }
}

struct Active {
    name: Name,
    file: Box<dyn LogFile>,
    end: u64,
    /// Nothing was synced into it yet, so that its first record and its name are still to be made durable.
    fresh: bool,
}

type Answer<T> = Box<dyn FnMut(Vec<Ticketed<T>>) + Send>;

/// Writes, syncs and answers. Whoever has it decides when: a thread of its own runs it, or a test turns it step by step.
pub struct Committer<T> {
    shared: Arc<Shared<T>>,
    accounts: Arc<Accounts>,
    readers: Arc<Readers>,
    metrics: Metrics,
    answer: Answer<T>,
    active: Option<Active>,
    last_number: u32,
    sequence: u64,
    /// What the next one follows.
    seal: Seal,
    buffer: Vec<u8>,
}

impl<T> Committer<T> {
    pub(super) fn new(
        shared: Arc<Shared<T>>,
        accounts: Arc<Accounts>,
        readers: Arc<Readers>,
        replayed: Replayed,
        metrics: Metrics,
        answer: Answer<T>,
    ) -> Result<Self, JournalError> {
        if let Err(error) = accounts.make_reserve() {
            count(&metrics, &error);
            tracing::warn!(%error, "no space for the store's reserve: mail is not accepted until there is");
        }
        let last = replayed.segments.last();
        let mut committer = Self {
            shared,
            readers,
            metrics,
            answer,
            active: None,
            last_number: last.map_or(0, |segment| segment.name.number),
            sequence: replayed.last_sequence + 1,
            seal: last.map_or_else(Seal::default, |segment| Seal {
                number: Some(segment.name.number),
                end: segment.end,
                damaged: segment.damaged.clone(),
            }),
            buffer: Vec::new(),
            accounts,
        };
        // The last segment is written on where it ends cleanly: a restart does not cost a segment.
        if let Some(segment) = last.filter(|segment| segment.clean && segment.end > 0) {
            let path = segment.name.path(committer.accounts.directory());
            match committer.accounts.disk().open(&path) {
                Ok(file) => {
                    committer.active = Some(Active {
                        name: segment.name,
                        file,
                        end: segment.end,
                        fresh: false,
                    });
                    committer.accounts.active(segment.name.number);
                    let room = committer
                        .accounts
                        .segment_bytes()
                        .saturating_sub(segment.end);
                    committer.accounts.has_room(room);
                }
                Err(error) => {
                    return Err(JournalError::of(
                        &format!("opening {}", path.display()),
                        &error,
                    ));
                }
            }
        }
        Ok(committer)
    }

    /// One turn after another, each as soon as there is something to do, until the journal is stopped.
    pub fn run(mut self) {
        loop {
            self.wait();
            let last = self.turn();
            let pending = locked(&self.shared.pending);
            if last
                && (pending.fault.is_some() || (pending.jobs.is_empty() && pending.done.is_empty()))
            {
                break;
            }
        }
        let mut pending = locked(&self.shared.pending);
        let refused: Vec<_> = pending
            .jobs
            .drain(..)
            .filter_map(|job| job.ticket)
            .collect();
        drop(pending);
        (self.answer)(
            refused
                .into_iter()
                .map(|ticket| (ticket, Err(JournalError::Closed)))
                .collect(),
        );
    }

    /// Does what waits; whether the journal is being stopped.
    pub fn turn(&mut self) -> bool {
        let batch = self.next_batch();
        let last = batch.last;
        self.commit(batch);
        locked(&self.shared.pending).busy_since = None;
        last
    }

    /// Whether somebody waits for an answer.
    #[cfg(test)]
    pub(crate) fn is_asked(&self) -> bool {
        locked(&self.shared.pending).urgent > 0
    }

    /// Whether all that was handed in is written.
    #[cfg(test)]
    pub(crate) fn is_idle(&self) -> bool {
        let pending = locked(&self.shared.pending);
        pending.jobs.is_empty() && pending.done.is_empty() && pending.fault.is_none()
    }

    /// Sleeps until there is something to do.
    fn wait(&self) {
        let mut pending = locked(&self.shared.pending);
        loop {
            let waited = pending.lazy_since.map(|since| now().duration_since(since));
            let patience = if pending.fault.is_some() { PROBE } else { LAZY };
            let due = waited.is_some_and(|waited| waited >= patience);
            if pending.closing || pending.urgent > 0 || due {
                break;
            }
            pending.asleep = true;
            let wake = &self.shared.wake;
            pending = match waited {
                Some(waited) => {
                    wake.wait_timeout(pending, patience - waited)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0
                }
                None => wake.wait(pending).unwrap_or_else(PoisonError::into_inner),
            };
        }
        pending.asleep = false;
    }

    fn next_batch(&self) -> Batch<T> {
        let mut pending = locked(&self.shared.pending);
        pending.urgent = 0;
        pending.lazy_since = None;
        pending.busy_since = Some(now());
        Batch {
            jobs: std::mem::take(&mut pending.jobs),
            done: std::mem::take(&mut pending.done),
            last: pending.closing,
        }
    }

    fn commit(&mut self, batch: Batch<T>) {
        let Batch {
            mut jobs, mut done, ..
        } = batch;
        if !self.accounts.has_reserve() && self.accounts.make_reserve().is_err() {
            self.refuse_for_space(&mut jobs);
        }
        loop {
            let first = match (jobs.front(), done.is_empty()) {
                (Some(job), _) => octets(job),
                (None, false) => (HEAD + 8) as u64,
                // A probe after a fault: the first record of a segment is something to sync.
                (None, true) if self.active.is_none() && self.is_faulty() => 0,
                (None, true) => return,
            };
            if let Err(error) = self.open_for(first) {
                return self.fail(jobs, done, error);
            }
            if jobs.is_empty() && done.is_empty() {
                // The probe went well: the new segment's own record was written and synced.
                return;
            }
            let (now_jobs, now_done) = self.portion(&mut jobs, &mut done);
            match self.write(&now_jobs, &now_done) {
                Ok(locations) => self.succeed(now_jobs, &now_done, locations),
                Err(error) => {
                    self.abandon();
                    let mut all = now_jobs;
                    all.append(&mut jobs);
                    let mut ids = now_done;
                    ids.append(&mut done);
                    return self.fail(all, ids, error);
                }
            }
        }
    }

    fn is_faulty(&self) -> bool {
        locked(&self.shared.pending).fault.is_some()
    }

    /// Only the reserve is left: what would add to the queue is answered, outcomes go on.
    fn refuse_for_space(&mut self, jobs: &mut VecDeque<Job<T>>) {
        let (pass, refuse): (VecDeque<_>, VecDeque<_>) =
            jobs.drain(..).partition(|job| job.may_use_reserve);
        *jobs = pass;
        let refused: Vec<_> = refuse
            .into_iter()
            .filter_map(|job| job.ticket)
            .map(|ticket| (ticket, Err(JournalError::Full)))
            .collect();
        if !refused.is_empty() {
            self.metrics
                .store_failures
                .with_label_values(&["full"])
                .inc_by(refused.len() as u64);
            (self.answer)(refused);
        }
    }

    /// What fits into the segment and into one write.
    fn portion(
        &self,
        jobs: &mut VecDeque<Job<T>>,
        done: &mut VecDeque<(u64, bool)>,
    ) -> (VecDeque<Job<T>>, VecDeque<(u64, bool)>) {
        let room = self.active.as_ref().map_or(0, |active| {
            self.accounts.segment_bytes().saturating_sub(active.end)
        });
        let mut taken = 0;
        let mut count = 0;
        for job in jobs.iter().take(BATCH_RECORDS) {
            let size = octets(job);
            if taken + size > room || (count > 0 && taken + size > BATCH_OCTETS) {
                break;
            }
            taken += size;
            count += 1;
        }
        let rest = jobs.split_off(count);
        let now_jobs = std::mem::replace(jobs, rest);
        let ids = if jobs.is_empty() {
            (room - taken).saturating_sub(HEAD as u64) / 8
        } else {
            0
        };
        let ids = usize::try_from(ids)
            .unwrap_or(DONE_IDS)
            .min(DONE_IDS)
            .min(done.len());
        let rest = done.split_off(ids);
        let now_done = std::mem::replace(done, rest);
        (now_jobs, now_done)
    }

    fn write(
        &mut self,
        jobs: &VecDeque<Job<T>>,
        done: &VecDeque<(u64, bool)>,
    ) -> Result<Vec<Location>, JournalError> {
        let Some(active) = self.active.as_mut() else {
            return Err(JournalError::Closed);
        };
        let mut heads = std::mem::take(&mut self.buffer);
        heads.clear();
        let mut cuts = Vec::with_capacity(jobs.len());
        let mut locations = Vec::with_capacity(jobs.len());
        let mut end = active.end;
        for job in jobs {
            write_head(
                &mut heads,
                active.name.salt,
                job.kind,
                self.sequence,
                &job.meta,
                &job.body,
            );
            self.sequence += 1;
            cuts.push(heads.len());
            let small = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
            locations.push(Location {
                segment: active.name.number,
                offset: u32::try_from(end).unwrap_or(u32::MAX),
                meta: small(job.meta.len()),
                body: small(job.body.len()),
            });
            end += octets(job);
        }
        if !done.is_empty() {
            let ids: Vec<u8> = done.iter().flat_map(|(id, _)| id.to_le_bytes()).collect();
            write_head(
                &mut heads,
                active.name.salt,
                Kind::Done,
                self.sequence,
                &ids,
                &[],
            );
            self.sequence += 1;
            end += (HEAD + ids.len()) as u64;
        }
        let mut slices = Vec::with_capacity(jobs.len() * 2 + 1);
        let mut from = 0;
        for (job, cut) in jobs.iter().zip(cuts) {
            if !job.body.is_empty() {
                slices.push(IoSlice::new(heads.get(from..cut).unwrap_or_default()));
                slices.push(IoSlice::new(&job.body));
                from = cut;
            }
        }
        slices.push(IoSlice::new(heads.get(from..).unwrap_or_default()));
        let written = write_all_at(active.file.as_mut(), &mut slices, active.end);
        let synced = written
            .map_err(|error| JournalError::of("writing the journal", &error))
            .and_then(|()| {
                let began = now();
                let synced = active
                    .file
                    .sync()
                    .map_err(|error| JournalError::of("syncing the journal", &error));
                self.metrics
                    .store_sync_duration
                    .observe(now().duration_since(began).as_secs_f64());
                synced
            });
        drop(slices);
        self.buffer = heads;
        synced?;
        active.end = end;
        active.fresh = false;
        let room = self.accounts.segment_bytes().saturating_sub(end);
        self.accounts.has_room(room);
        Ok(locations)
    }

    fn succeed(
        &mut self,
        jobs: VecDeque<Job<T>>,
        done: &VecDeque<(u64, bool)>,
        locations: Vec<Location>,
    ) {
        let well_again = {
            let mut pending = locked(&self.shared.pending);
            pending
                .removals
                .extend(done.iter().filter(|(_, body)| *body).map(|(id, _)| *id));
            pending.busy_since = Some(now());
            pending.fault.take().is_some()
        };
        if well_again {
            tracing::info!("the store works again");
        }
        let mut answers = Vec::with_capacity(jobs.len());
        for (job, location) in jobs.into_iter().zip(locations) {
            if let Some(ticket) = job.ticket {
                self.accounts.keep(location);
                answers.push((ticket, Ok(location)));
            }
        }
        if !answers.is_empty() {
            (self.answer)(answers);
        }
    }

    /// Tickets are answered; what has none waits at the head of the queue for better times.
    fn fail(&mut self, jobs: VecDeque<Job<T>>, done: VecDeque<(u64, bool)>, error: JournalError) {
        count(&self.metrics, &error);
        tracing::error!(%error, "the store cannot write");
        let (answered, kept): (VecDeque<_>, VecDeque<_>) =
            jobs.into_iter().partition(|job| job.ticket.is_some());
        {
            let mut pending = locked(&self.shared.pending);
            for job in kept.into_iter().rev() {
                pending.jobs.push_front(job);
            }
            for id in done.into_iter().rev() {
                pending.done.push_front(id);
            }
            pending.fault = Some(error.clone());
            pending.lazy_since = Some(now());
        }
        let tickets = answered.into_iter().filter_map(|job| job.ticket);
        (self.answer)(tickets.map(|ticket| (ticket, Err(error.clone()))).collect());
    }

    /// Never writes to the active segment again.
    fn abandon(&mut self) {
        let Some(mut active) = self.active.take() else {
            return;
        };
        if active.fresh {
            // Nothing in it was ever acknowledged.
            self.accounts.closed(active.name);
            self.readers.forget(active.name.number);
            let path = active.name.path(self.accounts.directory());
            if let Err(error) = self.accounts.disk().remove(&path) {
                tracing::warn!(%error, path = %path.display(), "cannot remove a failed segment");
            }
            return;
        }
        self.seal = Seal::whole(active.name.number, active.end);
        // The torn tail goes, and with it blocks that were allocated for more.
        if let Err(error) = active.file.truncate(active.end) {
            tracing::warn!(%error, "cannot cut a failed segment");
        }
    }

    /// Makes sure that the active segment has room for a record of `size`.
    fn open_for(&mut self, size: u64) -> Result<(), JournalError> {
        let limit = self.accounts.segment_bytes();
        match &self.active {
            Some(active) if active.end + size <= limit => return Ok(()),
            Some(active) => self.seal = Seal::whole(active.name.number, active.end),
            None => {}
        }
        self.active = None;
        let start = Start {
            previous: self.seal.number,
            previous_end: self.seal.end,
            previous_damaged: self.seal.damaged.clone(),
        };
        let meta =
            serde_json::to_vec(&start).map_err(|error| JournalError::Failing(error.to_string()))?;
        let first = (HEAD + meta.len()) as u64;
        if first + size > limit {
            return Err(JournalError::Failing(format!(
                "a record of {size} octets is larger than a segment"
            )));
        }
        let name = Name {
            number: self.last_number + 1,
            salt: random()?,
        };
        // Used up also where this fails: no two segments have one number.
        self.last_number += 1;
        let file = self.accounts.take_reserve(name)?;
        self.readers.add(name, self.accounts.directory());
        self.active = Some(Active {
            name,
            file,
            end: first,
            fresh: true,
        });
        let mut head = Vec::new();
        write_head(&mut head, name.salt, Kind::Start, self.sequence, &meta, &[]);
        self.sequence += 1;
        let began = self.active.as_mut().map(|active| {
            write_all_at(active.file.as_mut(), &mut [IoSlice::new(&head)], 0)
                .map_err(|error| JournalError::of("starting a segment", &error))?;
            // Its own sync: a record behind the first is only found by way of the first, and an abandoned segment
            // before this one is only cut where this one says so.
            active
                .file
                .sync()
                .map_err(|error| JournalError::of("syncing a new segment", &error))
        });
        if let Some(Err(error)) = began {
            self.abandon();
            return Err(error);
        }
        if let Err(error) = self.accounts.make_reserve() {
            // Whoever would bring mail is told so at MAIL: from here on no job comes that could be counted.
            count(&self.metrics, &error);
            tracing::warn!("no space for the next segment: mail is not accepted until there is");
        }
        if size == 0 {
            locked(&self.shared.pending).fault = None;
            tracing::info!("the store works again");
        }
        Ok(())
    }
}

fn count(metrics: &Metrics, error: &JournalError) {
    let operation = if *error == JournalError::Full {
        "full"
    } else {
        "write"
    };
    let failures = &metrics.store_failures;
    failures.with_label_values(&[operation]).inc();
}

fn octets<T>(job: &Job<T>) -> u64 {
    (HEAD + job.meta.len() + job.body.len()) as u64
}

fn random() -> Result<u64, JournalError> {
    let mut octets = [0; 8];
    getrandom::fill(&mut octets)
        .map_err(|error| JournalError::Failing(format!("no randomness: {error}")))?;
    Ok(u64::from_le_bytes(octets))
}
