//! What follows from what was said: how each lease must end.

use super::*;

/// When the hold for the same reason began that a recipient was in, if any.
type Past = Option<Option<u64>>;
/// Until when he is held and since when; nothing where that is over.
type Kept = Option<(u64, u64)>;

impl Inner {
    pub(super) fn judge(&mut self, key: u64) -> Result<(), String> {
        let now = self.now;
        let lease = self.leases.get(&key).ok_or("results without a lease")?;
        if lease.judged.is_some() {
            return Ok(());
        }
        let (id, kind) = (lease.id, lease.kind);
        let mail = &self.mails[&id];
        let part = &mail.parts[lease.part];
        // Where nobody was asked somebody came to a closed door.
        let which = door_of(&part.queue);
        let door = self.doors[which].unwrap_or(Door::Open);
        let turned = door.says(&part.queue.via);
        let turned = turned.filter(|_| self.knocks[which] > 0);
        let mut said = Vec::new();
        for at in &lease.recipients {
            let heard = self.heard(id, &part.recipients[at]);
            let heard = heard.filter(|(when, _)| *when > lease.mark);
            // On a new connection: that was the attempt.
            let broke = self.broke.get(&id).filter(|when| **when > lease.mark);
            match (heard, broke) {
                (Some((when, _)), Some(broke)) if when > *broke => {
                    return Err(format!(
                        "{at} of {id} was asked for again after a new connection broke"
                    ));
                }
                (Some((_, Said::TooMany)) | None, Some(_)) => said.push((*at, Said::Broke)),
                (Some((_, said_of)), _) => said.push((*at, said_of)),
                (None, None) => match turned {
                    Some(turned) => said.push((*at, turned)),
                    None => {
                        return Err(format!("{at} of {id} has a result, and nobody was asked"));
                    }
                },
            }
        }
        let first = &part.recipients[&lease.recipients[0]];
        let attempts = first.attempts + 1;
        // Recipients on one lease may have been held at one moment for different reasons.
        let before = |at: &usize, said| {
            let one = &part.recipients[at];
            let since = Some(one.held_since).filter(|since| *since > 0);
            (one.last == Some(said)).then_some(since)
        };
        let asked = |at: &usize| {
            let heard = self.heard(id, &part.recipients[at]);
            heard.is_some_and(|(when, _)| when > lease.mark)
                || self.broke.get(&id).is_some_and(|when| *when > lease.mark)
        };
        if !lease.recipients.iter().all(asked) {
            self.knocks[which] -= 1;
            self.tally.turned += 1;
        }
        let internal = part.queue.via.is_internal();
        let rule = rule(&part.queue.via);
        let alone = kind == Kind::Probe
            && self
                .leases
                .values()
                .filter(|other| other.id != id)
                .all(|other| self.mails[&other.id].parts[other.part].queue != part.queue);
        let any = |what| said.iter().any(|(_, said)| *said == what);
        let mut held: Vec<(Past, Kept)> = Vec::new();
        if internal {
            let lane = self.lanes.entry(part.queue.clone()).or_default();
            let parked = lane.is_parked();
            let own = [Said::Never, Said::Later, Said::Restricted, Said::TooMany];
            let answered = kind == Kind::Probe
                && own.into_iter().any(any)
                && ![Said::Taken, Said::Fault, Said::Busy].into_iter().any(any);
            if answered {
                lane.answered(id, now, alone);
                self.tally.answered += usize::from(parked);
            } else if kind == Kind::Probe && !any(Said::Taken) {
                lane.probe_failed(now);
            }
            for (at, _) in said.iter().filter(|(_, said)| *said == Said::Fault) {
                let past = before(at, Said::Fault);
                if held.iter().any(|(other, _)| *other == past) {
                    continue;
                }
                let met = Met {
                    id,
                    attempts,
                    held_since: past.flatten(),
                    spent: past == Some(None),
                };
                held.push((past, lane.fault(now, &met)));
            }
            if any(Said::Unreached) {
                lane.unreached(now);
            }
            if any(Said::Busy) {
                lane.busy(now);
            }
            if any(Said::Taken) {
                lane.delivered(now, alone);
            }
            self.tally.parked += usize::from(!parked && lane.is_parked());
            self.tally.ramps += usize::from(parked && lane.ramp_from_one);
        } else {
            let lane = self.lanes.entry(part.queue.clone()).or_default();
            if any(Said::Unreached) || any(Said::Turned) {
                lane.rest(now);
            }
            if any(Said::Taken) {
                lane.delivered(now, false);
            }
        }
        let by_the_rule = if now >= mail.arrived + rule.expire {
            Expected::Failed
        } else {
            Expected::At(
                (now + rule.wait(attempts)).min(mail.arrived + rule.expire),
                None,
            )
        };
        let expected = said.into_iter().map(|(at, said)| {
            let expected = match said {
                Said::Taken => Expected::Delivered,
                Said::Never => Expected::Failed,
                Said::Restricted => {
                    let since = before(&at, said).flatten().unwrap_or(now);
                    if now >= since + HOUR {
                        Expected::Failed
                    } else {
                        Expected::At((now + rule.wait(attempts)).min(since + HOUR), Some(since))
                    }
                }
                Said::Fault => {
                    let past = before(&at, said);
                    let kept = held.iter().find(|(other, _)| *other == past);
                    let kept = kept.and_then(|(_, kept)| *kept);
                    kept.map_or(by_the_rule, |(next, since)| Expected::At(next, Some(since)))
                }
                Said::Unsaid
                | Said::Later
                | Said::Busy
                | Said::TooMany
                | Said::Broke
                | Said::Unreached
                | Said::Turned => by_the_rule,
            };
            (at, (said, expected))
        });
        let expected: Vec<_> = expected.collect();
        let old = |(_, (said, expected)): &&(usize, (Said, Expected))| {
            *expected == Expected::Failed && !matches!(said, Said::Never | Said::Restricted)
        };
        self.tally.expired += expected.iter().filter(old).count();
        let handed_on = expected.iter().filter(|(at, (said, _))| {
            let one = &part.recipients[at];
            let silent = self.reports.get(&one.address) == Some(&false);
            *said == Said::Taken && mail.answers && one.wants_success() && silent
        });
        let handed_on = handed_on.map(|(at, _)| *at).collect();
        let lease = self.leases.get_mut(&key).unwrap();
        lease.handed_on = handed_on;
        let judged = expected.iter().map(|(at, (_, expected))| (*at, *expected));
        lease.judged = Some(judged.collect());
        lease.said = expected
            .iter()
            .map(|(at, (said, _))| (*at, *said))
            .collect();
        Ok(())
    }

    pub(super) fn settle(
        &mut self,
        key: u64,
        results: &[(usize, Disposition)],
        counts: bool,
    ) -> Result<(), String> {
        let kind = self.leases.get(&key).map(|lease| lease.kind);
        if kind == Some(Kind::Uncertified) {
            return self.settle_uncertified(key, results);
        }
        let judged = self.judge(key);
        judged.map_err(|error| format!("{error}: {results:?}"))?;
        let lease = self.leases.remove(&key).unwrap();
        let (id, judged) = (lease.id, lease.judged.clone().unwrap());
        let got: BTreeMap<usize, Expected> = results
            .iter()
            .map(|(at, disposition)| {
                let got = match disposition {
                    Disposition::Delivered => Expected::Delivered,
                    Disposition::Failed { .. } => Expected::Failed,
                    Disposition::Deferred { next_try, .. } => Expected::At(*next_try, None),
                    Disposition::Held {
                        next_try, since, ..
                    } => Expected::At(*next_try, Some(*since)),
                };
                (*at, got)
            })
            .collect();
        if got != judged || !counts {
            return Err(format!("{id} came to {results:?}, expected {judged:?}"));
        }
        let answers = self.mails[&id].answers;
        for (at, expected) in judged {
            let bounces = self.bounces.entry((id, at)).or_default();
            let told = bounces.is == bounces.may;
            let copies = self.copies.entry((id, at)).or_default();
            if expected == Expected::Delivered && copies.is != copies.may {
                return Err(format!("{at} of {id} is delivered, and has {copies:?}"));
            }
            let wanted =
                answers && self.mails[&id].parts[lease.part].recipients[&at].wants_failure();
            let relays = self.relays.entry((id, at)).or_default();
            if lease.handed_on.contains(&at) != (relays.is == relays.may) {
                return Err(format!(
                    "{at} of {id} is handed on, and reported {relays:?}"
                ));
            }
            if (expected == Expected::Failed && wanted) != told {
                return Err(format!(
                    "{at} of {id} is {expected:?}, and reported {bounces:?}"
                ));
            }
            self.count_end(expected);
            let part = self.part(id, lease.part).unwrap();
            part.leased = false;
            let one = part.recipients.get_mut(&at).unwrap();
            one.last = Some(lease.said[&at]);
            match expected {
                Expected::Delivered => one.end = End::Delivered,
                Expected::Failed => one.end = End::Failed,
                Expected::At(next_try, since) => {
                    one.next_try = next_try;
                    one.held_since = since.unwrap_or_default();
                    one.attempts += 1;
                }
            }
        }
        self.write(id);
        Ok(())
    }

    pub(super) fn count_end(&mut self, expected: Expected) {
        let tally = &mut self.tally;
        match expected {
            Expected::Delivered => tally.delivered += 1,
            Expected::Failed => tally.failed += 1,
            Expected::At(_, None) => tally.deferred += 1,
            Expected::At(_, Some(_)) => tally.held += 1,
        }
    }

    /// Mail of our own that went as anyone's: taken, or as if nothing had been.
    pub(super) fn settle_uncertified(
        &mut self,
        key: u64,
        results: &[(usize, Disposition)],
    ) -> Result<(), String> {
        let lease = self.leases.remove(&key).unwrap();
        let part = self.part(lease.id, lease.part).unwrap();
        part.leased = false;
        let one = part.recipients[&0].clone();
        let taken = matches!(results, [(0, Disposition::Delivered)]);
        let said = self
            .heard(lease.id, &one)
            .filter(|(when, _)| *when > lease.mark);
        if !taken || said.is_none_or(|(_, said)| said != Said::Taken) {
            return Err(format!("{} came to {results:?} after {said:?}", lease.id));
        }
        let part = self.part(lease.id, lease.part).unwrap();
        part.recipients.get_mut(&0).unwrap().end = End::Delivered;
        self.write(lease.id);
        Ok(())
    }

    pub(super) fn keep_uncertified(&mut self, key: u64) -> Result<(), String> {
        let lease = self.leases.remove(&key).ok_or("kept without a lease")?;
        let part = self.part(lease.id, lease.part).unwrap();
        part.leased = false;
        let all = part.recipients.values_mut();
        all.for_each(|one| one.uncertified = true);
        let one = part.recipients[&0].clone();
        let said = self
            .heard(lease.id, &one)
            .filter(|(when, _)| *when > lease.mark);
        if said.is_some_and(|(_, said)| said == Said::Taken) {
            return Err(format!("{} was taken and is kept", lease.id));
        }
        self.write(lease.id);
        Ok(())
    }
}
