//! Mail that waits long, and mail of our own beside a parked queue.

use super::*;
use crate::header::internal_stamp;
use crate::mail::ReversePath;

const PATIENCE: Patience = Patience {
    exchange: Some(50),
    outside: Some(50),
    exchange_end: None,
    outside_end: None,
};

/// Those who are handed out as late: id, and the positions of who waits.
fn late(spool: &Spool, patience: Patience, now: u64) -> Vec<(u64, Vec<usize>)> {
    let late = spool.late(patience, now, 100);
    late.iter().map(positions).collect()
}

fn positions(late: &Late<Due>) -> (u64, Vec<usize>) {
    let waiting = late.waiting().iter().map(|waiting| waiting.at);
    (late.work().message().id.as_u64(), waiting.collect())
}

async fn reopened(spool: Spool, folder: &Path) -> Spool {
    spool.close().await;
    drop(spool);
    open(folder)
}

/// The same, where that was while nobody looked.
#[tokio::test]
async fn a_notice_does_not_wait_for_younger_mail_because_the_clock_was_set_back_before_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    keep(&spool, 1000, 1, b"body of a message").await;
    let spool = reopened(spool, folder.path()).await;
    spool.clock_was_set(0, NOW - 10, |_| 1000);
    keep(&spool, 5, 1, b"body of a message").await;
    assert_eq!(late(&spool, PATIENCE, NOW + 40), [(1000, vec![0])]);
    assert_eq!(late(&spool, PATIENCE, NOW + 50), [(5, vec![0])]);
    spool.close().await;
}

/// New mail has smaller ids then than the old.
#[tokio::test]
async fn a_notice_does_not_wait_for_younger_mail_because_the_clock_was_set_back() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    keep(&spool, 1000, 1, b"body of a message").await;
    keep(&spool, 1001, 1, b"body of a message").await;
    spool.clock_was_set(-50, NOW, |_| 1000);
    keep(&spool, 5, 1, b"body of a message").await;
    assert_eq!(spool.next_late(PATIENCE, NOW), Some(NOW));
    let both = [(1000, vec![0]), (1001, vec![0])];
    assert_eq!(late(&spool, PATIENCE, NOW), both);
    assert_eq!(late(&spool, PATIENCE, NOW + 49), []);
    keep(&spool, 6, 1, b"body of a message").await;
    assert_eq!(
        late(&spool, PATIENCE, NOW + 50),
        [(5, vec![0]), (6, vec![0])]
    );
    assert_eq!(spool.next_late(PATIENCE, NOW), None);
    spool.close().await;
}

#[tokio::test]
async fn whose_sender_was_told_is_known_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    keep(&spool, 1, 3, b"body of a message").await;
    keep(&spool, 2, 1, b"body of a message").await;
    let due = spool.next_due(&exchange(), NOW).unwrap();
    let later = |position| {
        let reply = "451 later".to_owned();
        let next_try = NOW + 1000;
        (position, Disposition::Deferred { next_try, reply })
    };
    spool.settle(
        due,
        vec![(0, Disposition::Delivered), later(1), later(2)],
        true,
    );
    assert_eq!(spool.next_late(PATIENCE, NOW), Some(NOW + 50));
    assert!(late(&spool, PATIENCE, NOW + 49).is_empty());
    let handed_out = spool.late(PATIENCE, NOW + 50, 1);
    let [first] = handed_out.as_slice() else {
        panic!("{handed_out:?}");
    };
    assert_eq!(
        positions(first),
        (1, vec![1, 2]),
        "who has it does not wait for it"
    );
    assert_eq!(first.waiting()[0].reply.as_deref(), Some("451 later"));
    assert_eq!(
        whole(&spool, first.work()).await,
        rendered(b"body of a message")
    );
    spool.told(first);
    assert_eq!(late(&spool, PATIENCE, NOW + 50), [(2, vec![0])], "untried");
    assert_eq!(spool.next_late(PATIENCE, NOW), None);
    // The second was handed out, but a crash came before its notice was recorded.
    let spool = reopened(spool, folder.path()).await;
    assert_eq!(late(&spool, PATIENCE, NOW + 60), [(2, vec![0])]);
    let due = spool.next_due(&exchange(), NOW + 1000).unwrap();
    assert_eq!(
        (due.recipients(), due.attempts()),
        (&[1, 2][..], 1),
        "nothing else changed"
    );
    drop(due);
    spool.close().await;
}

#[tokio::test]
async fn a_copy_that_is_made_forward_still_knows_whose_sender_was_told() {
    let folder = tempfile::tempdir().unwrap();
    let metrics = Metrics::new().unwrap();
    let spool = Spool::open_on(folder.path(), Arc::new(RealDisk), 256 * 1024, &metrics).unwrap();
    keep(&spool, 1, 1, b"this one stays for long").await;
    let handed_out = spool.late(PATIENCE, NOW + 50, 1);
    spool.told(&handed_out[0]);
    let stays = spool.next_due(&exchange(), NOW).unwrap();
    let lay = |spool: &Spool| spool.0.shared.memory().queue.entries[&1].location;
    let before = lay(&spool);
    for id in 2..2000 {
        keep(&spool, id, 1, &vec![b'x'; 20_000]).await;
        let due = spool.next_due(&exchange(), NOW).unwrap();
        spool.settle(due, vec![(0, Disposition::Delivered)], true);
        if lay(&spool) != before {
            break;
        }
    }
    assert_ne!(lay(&spool), before, "it was copied forward");
    drop(stays);
    let spool = reopened(spool, folder.path()).await;
    assert!(late(&spool, PATIENCE, NOW + 50).is_empty());
    spool.close().await;
}

/// One recipient by the connector, one by mx.
fn by_both(id: u64) -> Message {
    let mut message = message(id, 2, b"body of a message");
    let mut outside = message.legs[0].clone();
    (outside.via, outside.recipients) = (Via::Mx, vec![1]);
    message.legs[0].recipients = vec![0];
    message.legs.push(outside);
    message
}

/// Whose time is over is told of his end, which the attempt that is due brings; where that leaves him waiting, he is told so.
#[tokio::test]
async fn mail_that_is_about_to_end_is_not_told_of_as_waiting() {
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::open(folder.path(), &Metrics::new().unwrap()).unwrap();
    let ending = Patience {
        exchange_end: Some(100),
        ..PATIENCE
    };
    keep(&spool, 1, 1, b"body").await;
    assert!(late(&spool, ending, NOW + 100).is_empty());
    assert_eq!(spool.next_late(ending, NOW + 100), None);
    // Its queue is parked: nobody tries it.
    spool.parked(&exchange(), Some(NOW + 1000));
    assert_eq!(spool.next_late(ending, NOW + 100), Some(NOW + 50));
    spool.parked(&exchange(), None);
    assert_eq!(spool.next_late(ending, NOW + 100), None);
    // It was tried, and waits all the same.
    let due = spool.next_due(&exchange(), NOW + 100).unwrap();
    assert_eq!(spool.next_late(ending, NOW + 100), None);
    let held = Disposition::Held {
        next_try: NOW + 200,
        since: NOW + 100,
        reply: "550 5.7.64 no".to_owned(),
    };
    spool.settle(due, vec![(0, held)], true);
    assert_eq!(late(&spool, ending, NOW + 150), [(1, vec![0])]);
}

#[tokio::test]
async fn who_falls_due_together_is_told_of_together_and_who_does_not_each_in_time() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    keep_message(&spool, by_both(1)).await;
    let handed_out = spool.late(PATIENCE, NOW + 50, 100);
    assert_eq!(handed_out.len(), 1);
    assert_eq!(positions(&handed_out[0]), (1, vec![0, 1]));
    let vias: Vec<_> = handed_out[0]
        .waiting()
        .iter()
        .map(|waiting| waiting.via.clone())
        .collect();
    assert_eq!(vias, [Via::Exchange, Via::Mx]);
    spool.told(&handed_out[0]);
    assert!(late(&spool, PATIENCE, NOW + 1000).is_empty());

    keep_message(&spool, by_both(2)).await;
    let uneven = Patience {
        exchange: Some(50),
        outside: Some(80),
        ..PATIENCE
    };
    let handed_out = spool.late(uneven, NOW + 50, 100);
    assert_eq!(positions(&handed_out[0]), (2, vec![0]));
    spool.told(&handed_out[0]);
    assert_eq!(spool.next_late(uneven, NOW), Some(NOW + 80));
    assert!(late(&spool, uneven, NOW + 79).is_empty());
    assert_eq!(late(&spool, uneven, NOW + 80), [(2, vec![1])]);

    let never = Patience::default();
    keep_message(&spool, by_both(3)).await;
    assert_eq!(spool.next_late(never, NOW), None);
    assert!(late(&spool, never, u64::MAX).is_empty());
    spool.close().await;
}

#[tokio::test]
async fn what_is_on_its_way_is_looked_at_again_and_what_came_in_late_is_not_missed() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    keep(&spool, 10, 1, b"body of a message").await;
    let due = spool.next_due(&exchange(), NOW).unwrap();
    assert!(late(&spool, PATIENCE, NOW + 50).is_empty());
    assert_eq!(
        spool.next_late(PATIENCE, NOW),
        None,
        "nothing to do before it is back"
    );
    drop(due);
    assert_eq!(spool.next_late(PATIENCE, NOW), Some(NOW + 50));
    let handed_out = spool.late(PATIENCE, NOW + 50, 100);
    assert_eq!(positions(&handed_out[0]), (10, vec![0]));
    assert!(
        late(&spool, PATIENCE, NOW + 50).is_empty(),
        "handed out once"
    );
    spool.put_back(&handed_out[0]);
    assert_eq!(late(&spool, PATIENCE, NOW + 50), [(10, vec![0])]);
    // Its transaction began before that of the other, and took longer.
    keep(&spool, 5, 1, b"body of a message").await;
    assert_eq!(late(&spool, PATIENCE, NOW + 50), [(5, vec![0])]);
    spool.close().await;
}

#[tokio::test]
async fn much_that_falls_due_at_once_is_handed_out_in_portions_each_once() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    for id in 1..=100 {
        keep(&spool, id, 1, b"body of a message").await;
    }
    let mut seen = Vec::new();
    let mut portions = Vec::new();
    while spool
        .next_late(PATIENCE, NOW + 50)
        .is_some_and(|due| due <= NOW + 50)
    {
        let portion = spool.late(PATIENCE, NOW + 50, 32);
        portions.push(portion.len());
        portion.iter().for_each(|late| spool.told(late));
        seen.extend(portion.iter().map(|late| late.work().message().id.as_u64()));
    }
    assert_eq!(seen, (1..=100).collect::<Vec<_>>());
    assert_eq!(portions[..4], [32, 32, 32, 4]);
    spool.close().await;
}

/// A report of ours to one reader, stamped internal.
fn own(id: u64) -> Message {
    let mut report = message(id, 1, b"body");
    report.from = From::Submission;
    report.envelope.reverse_path = ReversePath::Null;
    let org = "contoso.com".parse().unwrap();
    let leg = &mut report.legs[0];
    leg.rendition.prepend = [
        b"Received: x\r\nX-Loop: secret\r\n".to_vec(),
        internal_stamp("h.contoso.com", &org),
    ]
    .concat();
    leg.xoorg = Some(org);
    assert!(report.is_own());
    report
}

#[tokio::test]
async fn our_own_mail_is_handed_out_once_for_the_way_without_certificate_in_the_form_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    keep(&spool, 1, 1, b"body of a message").await;
    assert!(!spool.has_uncertified(&exchange()), "the tenant's own mail");
    keep_message(&spool, own(2)).await;
    keep_message(&spool, own(3)).await;
    let spool = reopened(spool, folder.path()).await;
    assert!(spool.has_uncertified(&exchange()));
    let due = spool.next_uncertified(&exchange(), NOW).unwrap();
    assert_eq!(due.message().id.as_u64(), 2, "the oldest");
    assert_eq!(due.leg().xoorg, None);
    let sent = String::from_utf8(whole(&spool, &due).await).unwrap();
    assert_eq!(sent, "Received: x\r\nX-Loop: secret\r\nby");
    assert_eq!(
        due.leg().rendition.size(due.message().facts.size),
        sent.len() as u64
    );
    spool.keep_uncertified(due);
    let due = spool.next_uncertified(&exchange(), NOW).unwrap();
    assert_eq!(due.message().id.as_u64(), 3);
    spool.settle(due, vec![(0, Disposition::Delivered)], true);
    assert!(spool.next_uncertified(&exchange(), NOW).is_none());
    let spool = reopened(spool, folder.path()).await;
    assert!(
        spool.next_uncertified(&exchange(), NOW).is_none(),
        "once for ever"
    );
    // With its queue it goes as it was meant to, as if nothing had been tried.
    let leases: Vec<Due> = std::iter::from_fn(|| spool.next_due(&exchange(), NOW)).collect();
    let due = &leases[1];
    assert_eq!((due.message().id.as_u64(), due.attempts()), (2, 0));
    assert!(due.leg().xoorg.is_some());
    let sent = String::from_utf8(whole(&spool, due).await).unwrap();
    assert!(sent.contains("X-OriginatorOrg: contoso.com\r\n"), "{sent}");
    drop(leases);
    spool.close().await;
}

#[tokio::test]
async fn our_own_mail_stays_where_an_operator_holds_it_or_it_is_on_its_way() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    keep_message(&spool, own(2)).await;
    let due = spool.next_due(&exchange(), NOW).unwrap();
    assert!(spool.next_uncertified(&exchange(), NOW).is_none());
    drop(due);
    let id = Some(QueueId::from_u64(2));
    assert_eq!(spool.act(id, None, QueueAction::Hold, NOW), 1);
    assert!(spool.next_uncertified(&exchange(), NOW).is_none());
    assert!(
        !spool.has_uncertified(&exchange()),
        "nobody looks for it in vain"
    );
    assert_eq!(spool.act(id, None, QueueAction::Release, NOW), 1);
    let due = spool.next_uncertified(&exchange(), NOW).unwrap();
    drop(due);
    let due = spool.next_uncertified(&exchange(), NOW);
    assert!(due.is_some(), "a dropped lease is given back");
    drop(due);
    assert_eq!(spool.act(id, None, QueueAction::Delete, NOW), 1);
    assert!(spool.next_uncertified(&exchange(), NOW).is_none());
    assert!(!spool.has_uncertified(&exchange()));
    spool.close().await;
}

#[tokio::test]
async fn nobody_is_told_that_a_report_waits() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    keep_message(&spool, own(2)).await;
    assert!(late(&spool, PATIENCE, NOW + 50).is_empty());
    spool.close().await;
}

#[derive(Clone, Debug)]
enum Move {
    /// With an id that may be older than others.
    Accept(u64),
    /// One is leased and comes to this.
    Try {
        delivered: bool,
    },
    Lease,
    GiveBack,
    /// So many are looked at; whether the store takes the notices.
    Look {
        most: usize,
        kept: bool,
    },
    Restart,
}

fn moves() -> impl Strategy<Value = Move> {
    prop_oneof![
        4 => (0u64..6).prop_map(Move::Accept),
        2 => any::<bool>().prop_map(|delivered| Move::Try { delivered }),
        1 => Just(Move::Lease),
        1 => Just(Move::GiveBack),
        4 => (1usize..4, any::<bool>()).prop_map(|(most, kept)| Move::Look { most, kept }),
        1 => Just(Move::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Whatever happens: who was told is not told again, and who waits long enough is handed out, unless it was already
    /// since the start.
    #[test]
    fn nobody_is_told_twice_and_nobody_is_forgotten(steps in proptest::collection::vec(moves(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let mut spool = open(folder.path());
            let mut now = NOW;
            let (mut open_now, mut told) = (BTreeMap::new(), BTreeMap::new());
            let mut leased = Vec::new();
            for (number, step) in steps.into_iter().enumerate() {
                now += 20;
                match step {
                    Move::Accept(older) => {
                        let id = 2000 + 10 * number as u64 - 9 * older;
                        let mut message = message(id, 1, b"body");
                        message.arrived = now;
                        keep_message(&spool, message).await;
                        open_now.insert(id, now);
                    }
                    Move::Try { delivered } => {
                        let Some(due) = spool.next_due(&exchange(), now) else { continue };
                        let reply = "451".to_owned();
                        let result = if delivered {
                            open_now.remove(&due.message().id.as_u64());
                            Disposition::Delivered
                        } else {
                            Disposition::Deferred { next_try: now + 30, reply }
                        };
                        spool.settle(due, vec![(0, result)], true);
                    }
                    Move::Lease => leased.extend(spool.next_due(&exchange(), now)),
                    Move::GiveBack => leased.clear(),
                    Move::Look { most, kept } => {
                        for late in spool.late(PATIENCE, now, most) {
                            let id = late.work().message().id.as_u64();
                            assert!(open_now[&id] + 50 <= now && !told.contains_key(&id), "{id}");
                            if kept {
                                spool.told(&late);
                                told.insert(id, ());
                            } else {
                                spool.put_back(&late);
                            }
                        }
                    }
                    Move::Restart => {
                        leased.clear();
                        spool = reopened(spool, folder.path()).await;
                    }
                }
            }
            leased.clear();
            now += 50;
            let mut rest = BTreeMap::new();
            while spool.next_late(PATIENCE, now).is_some_and(|due| due <= now) {
                rest.extend(spool.late(PATIENCE, now, 3).iter().map(|late| (positions(late).0, ())));
            }
            let expected: Vec<_> = open_now.keys().filter(|id| !told.contains_key(id)).collect();
            assert_eq!(rest.keys().collect::<Vec<_>>(), expected);
            spool.close().await;
        });
    }
}
