//! The spool against a real journal in a folder of its own.

mod clock;
mod crash;
mod races;
pub(crate) mod stepped;
mod waiting;

use super::memory::{FRESH, STALE};
use super::orders::PORTION;
use super::queue::{Entry, LegState, Queue};
use super::*;
use crate::header::Rendition;
use crate::mail::{Envelope, QueueId, Recipient};
use crate::route::{From, Via};
use crate::smtp::data::Scanner;
use bytes::Bytes;
use proptest::prelude::*;
use std::collections::BTreeMap;

const NOW: u64 = 1_000_000;

fn message(id: u64, recipients: usize, body: &[u8]) -> Message {
    let mut scanner = Scanner::default();
    scanner.push(body);
    let recipient = |number| Recipient {
        mailbox: format!("r{number}@contoso.com").parse().unwrap(),
        notify: None,
        orcpt: None,
    };
    Message {
        id: QueueId::from_u64(id),
        arrived: NOW,
        tenant: "contoso".into(),
        from: From::Connector,
        application: None,
        stream: None,
        bounces_to: None,
        envelope: Envelope {
            reverse_path: "ada@contoso.com".parse().unwrap(),
            recipients: (0..recipients).map(recipient).collect(),
            body: None,
            smtputf8: false,
            ret: None,
            envid: None,
            xoorg: None,
        },
        facts: scanner.facts(),
        legs: vec![Leg {
            via: Via::Exchange,
            rendition: Rendition {
                prepend: b"Top: 1\r\n".to_vec(),
                omit: std::iter::once(1..3).collect(),
            },
            xoorg: None,
            recipients: (0..recipients).collect(),
        }],
        message_id: None,
        network_message_id: None,
    }
}

fn exchange() -> Destination {
    Destination {
        via: Via::Exchange,
        tenant: "contoso".into(),
        domain: None,
    }
}

fn open(folder: &Path) -> Spool {
    Spool::open(folder, &Metrics::new().unwrap()).unwrap()
}

async fn keep(spool: &Spool, id: u64, recipients: usize, body: &[u8]) {
    let mut draft = spool.draft();
    for piece in body.chunks(300_000) {
        draft.append(Bytes::copy_from_slice(piece)).await.unwrap();
    }
    let stored = spool
        .accept(draft, message(id, recipients, body))
        .await
        .unwrap();
    assert_eq!(stored.id().as_u64(), id);
}

async fn whole(spool: &Spool, due: &Due) -> Vec<u8> {
    let mut out = Vec::new();
    loop {
        let piece = spool.read(due, out.len() as u64).await.unwrap();
        if piece.is_empty() {
            return out;
        }
        out.extend_from_slice(&piece);
    }
}

fn rendered(body: &[u8]) -> Vec<u8> {
    [b"Top: 1\r\n", &body[..1], &body[3..]].concat()
}

#[tokio::test]
async fn what_was_accepted_is_there_after_a_restart_and_gone_once_settled() {
    let folder = tempfile::tempdir().unwrap();
    let bodies = [b"small body".to_vec(), vec![b'x'; 3_000_000]];
    let spool = open(folder.path());
    for (id, body) in bodies.iter().enumerate() {
        keep(&spool, id as u64 + 1, 2, body).await;
    }
    spool.close().await;
    drop(spool);
    let spool = open(folder.path());
    for body in &bodies {
        let due = spool.next_due(&exchange(), NOW).unwrap();
        assert_eq!(due.recipients(), [0, 1]);
        assert!(whole(&spool, &due).await == rendered(body));
        assert_eq!(
            due.leg().rendition.size(body.len() as u64),
            rendered(body).len() as u64
        );
        spool.settle(
            due,
            vec![(0, Disposition::Delivered), (1, Disposition::Delivered)],
            true,
        );
    }
    assert!(spool.next_due(&exchange(), NOW).is_none());
    spool.close().await;
    drop(spool);
    let spool = open(folder.path());
    assert!(spool.next_due(&exchange(), u64::MAX - 1).is_none());
    assert_eq!(
        std::fs::read_dir(folder.path().join("bodies"))
            .unwrap()
            .count(),
        0,
        "the large body is gone"
    );
    spool.close().await;
}

#[tokio::test]
async fn what_cannot_be_read_for_a_moment_is_tried_again_soon_and_less_and_less_often() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    keep(&spool, 1, 1, b"body").await;
    spool.close().await;
    drop(spool);
    let metrics = Metrics::new().unwrap();
    let spool = Spool::open(folder.path(), &metrics).unwrap();
    let moved = |from: &str, to: &str| {
        for entry in std::fs::read_dir(folder.path()).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|own| own == from) {
                std::fs::rename(&path, path.with_extension(to)).unwrap();
            }
        }
    };
    let second = NOW + 1_000;
    moved("log", "away");
    // As long again as it has waited; ten seconds at the least, an hour at most.
    for (tried, again) in [
        (second, second + 10_000),
        (second + 10_000, NOW + 22_000),
        (NOW + 7_200_000, NOW + 10_800_000),
    ] {
        assert!(spool.next_due(&exchange(), tried).is_none());
        assert_eq!(spool.next_wake(), Some(again), "{tried}");
    }
    assert_eq!(metrics.store_failures.with_label_values(&["read"]).get(), 3);
    moved("away", "log");
    assert!(spool.next_due(&exchange(), NOW + 10_799_999).is_none());
    let due = spool.next_due(&exchange(), NOW + 10_800_000).unwrap();
    assert_eq!(whole(&spool, &due).await, rendered(b"body"));
    assert_eq!(due.attempts(), 0, "nobody was asked");
    spool.settle(due, vec![(0, Disposition::Delivered)], true);
    spool.close().await;
}

#[tokio::test]
async fn results_of_recipients_survive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    keep(&spool, 1, 3, b"body of a message").await;
    let due = spool.next_due(&exchange(), NOW).unwrap();
    assert!(spool.next_due(&exchange(), NOW).is_none(), "leased");
    let later = Disposition::Deferred {
        next_try: NOW + 60,
        reply: "451 later".to_owned(),
    };
    let held = Disposition::Held {
        next_try: NOW + 90,
        since: NOW,
        reply: "550 5.7.64 no".to_owned(),
    };
    spool.settle(
        due,
        vec![(0, Disposition::Delivered), (1, later), (2, held)],
        true,
    );
    assert_eq!(spool.next_wake(), Some(NOW + 60), "the earliest");
    spool.close().await;
    drop(spool);
    let spool = open(folder.path());
    assert!(spool.next_due(&exchange(), NOW + 59).is_none());
    let due = spool.next_due(&exchange(), NOW + 60).unwrap();
    assert_eq!(
        (due.recipients(), due.attempts(), due.last_reply(1)),
        (&[1][..], 1, Some("451 later"))
    );
    spool.settle(
        due,
        vec![(
            1,
            Disposition::Failed {
                reply: "550 no".to_owned(),
            },
        )],
        true,
    );
    let due = spool.next_due(&exchange(), NOW + 90).unwrap();
    assert_eq!((due.recipients(), due.held_since()), (&[2][..], Some(NOW)));
    drop(due);
    let due = spool
        .next_due(&exchange(), NOW + 90)
        .expect("a dropped lease is given back");
    spool.settle(due, vec![(2, Disposition::Delivered)], true);
    assert!(spool.scan(10, NOW).is_empty());
    spool.close().await;
}

#[tokio::test]
async fn more_than_a_hundred_recipients_go_in_several_transactions() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    keep(&spool, 1, 250, b"body of a message").await;
    let mut seen = Vec::new();
    while let Some(due) = spool.next_due(&exchange(), NOW) {
        assert!(due.recipients().len() <= 100);
        let positions = due.recipients().to_vec();
        seen.extend_from_slice(&positions);
        spool.settle(
            due,
            positions
                .into_iter()
                .map(|position| (position, Disposition::Delivered))
                .collect(),
            true,
        );
    }
    assert_eq!(seen, (0..250).collect::<Vec<_>>());
    spool.close().await;
}

#[tokio::test]
async fn the_queue_is_walked_in_pages_and_one_message_is_found_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    for id in 1..=7 {
        keep(&spool, id, 1, b"body of a message").await;
    }
    let (mut after, mut pages) = (None, Vec::new());
    loop {
        let page = spool.page(after, 3, NOW);
        let Some(last) = page.last() else { break };
        after = Some(last.id.parse().unwrap());
        let ids = page.iter().map(|row| row.id.parse::<QueueId>().unwrap());
        pages.push(ids.map(QueueId::as_u64).collect::<Vec<_>>());
    }
    assert_eq!(pages, [vec![1, 2, 3], vec![4, 5, 6], vec![7]]);
    let found = spool.find(QueueId::from_u64(5), NOW);
    assert_eq!((found.len(), &found[0]), (1, &spool.page(None, 9, NOW)[4]));
    assert!(spool.find(QueueId::from_u64(8), NOW).is_empty());
    spool.close().await;
}

#[tokio::test]
async fn an_order_for_a_long_queue_reaches_each_message_of_the_tenant_once() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    let many = PORTION as u64 + 10;
    let keeping = (1..=many).map(|id| keep(&spool, id, 1, b"body of a message"));
    all_at_once(keeping).await;
    let mut told = Vec::new();
    let hold = |told: &mut Vec<u64>, tenant: &str| {
        spool
            .act_on_each(None, Some(tenant), QueueAction::Hold, NOW, |id| {
                // No lock is held: whoever is told may look.
                assert_eq!(spool.find(id, NOW)[0].state, "held");
                told.push(id.as_u64());
            })
            .messages
    };
    assert_eq!(hold(&mut told, "fabrikam"), 0);
    assert_eq!(hold(&mut told, "contoso"), usize::try_from(many).unwrap());
    assert_eq!(told, (1..=many).collect::<Vec<_>>());
    assert!(spool.next_due(&exchange(), NOW).is_none());
    spool.close().await;
}

/// All at once, so that they share what syncs there are.
async fn all_at_once<F: std::future::Future<Output = ()>>(all: impl Iterator<Item = F>) {
    let mut all: Vec<_> = all.map(Box::pin).collect();
    std::future::poll_fn(|context| {
        all.retain_mut(|one| one.as_mut().poll(context).is_pending());
        if all.is_empty() {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
}

#[tokio::test]
async fn an_operator_holds_releases_retries_and_deletes() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    keep(&spool, 1, 1, b"body of a message").await;
    let id = Some(QueueId::from_u64(1));
    assert_eq!(spool.act(id, None, QueueAction::Hold, NOW), 1);
    assert!(spool.next_due(&exchange(), NOW + 1_000_000).is_none());
    assert_eq!(spool.scan(10, NOW)[0].state, "held");
    let retry = |id, tenant| {
        let mut told = 0;
        let acted = spool.act_on_each(id, tenant, QueueAction::Retry, NOW, |_| told += 1);
        assert_eq!(acted.messages, told);
        (acted.messages, acted.held)
    };
    assert_eq!(retry(id, None), (0, 1));
    assert_eq!(retry(None, Some("contoso")), (0, 1));
    assert_eq!(retry(None, Some("fabrikam")), (0, 0));
    assert_eq!(
        spool.act(None, Some("contoso"), QueueAction::Release, NOW),
        1
    );
    let due = spool.next_due(&exchange(), NOW).unwrap();
    let later = Disposition::Deferred {
        next_try: NOW + 1000,
        reply: "451".to_owned(),
    };
    spool.settle(due, vec![(0, later)], true);
    assert!(spool.next_due(&exchange(), NOW).is_none());
    assert_eq!(
        spool.act(None, Some("fabrikam"), QueueAction::Retry, NOW),
        0
    );
    assert_eq!(spool.act(id, None, QueueAction::Retry, NOW), 1);
    assert!(spool.next_due(&exchange(), NOW).is_some());
    assert_eq!(spool.act(id, None, QueueAction::Delete, NOW), 1);
    assert!(spool.scan(10, NOW).is_empty());
    spool.close().await;
}

#[tokio::test]
async fn a_second_process_is_locked_out() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    assert_eq!(
        Spool::open(folder.path(), &Metrics::new().unwrap()).unwrap_err(),
        SpoolError::Locked
    );
    spool.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn space_is_given_back_and_old_segments_are_copied_forward() {
    let folder = tempfile::tempdir().unwrap();
    let metrics = Metrics::new().unwrap();
    let spool = Spool::open_on(folder.path(), Arc::new(RealDisk), 256 * 1024, &metrics).unwrap();
    keep(&spool, 1, 1, b"this one stays for long").await;
    let stays = spool.next_due(&exchange(), NOW).unwrap();
    for id in 2..200 {
        keep(&spool, id, 1, &vec![b'x'; 20_000]).await;
        let due = spool.next_due(&exchange(), NOW).unwrap();
        spool.settle(due, vec![(0, Disposition::Delivered)], true);
    }
    let mut octets = u64::MAX;
    for _ in 0..200 {
        octets = spool.0.journal.disk_bytes();
        if octets <= 4 * 256 * 1024 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert!(octets <= 4 * 256 * 1024, "{octets} octets are still taken");
    assert_eq!(
        whole(&spool, &stays).await,
        rendered(b"this one stays for long")
    );
    drop(stays);
    spool.close().await;
    drop(spool);
    let spool = Spool::open_on(folder.path(), Arc::new(RealDisk), 256 * 1024, &metrics).unwrap();
    let due = spool.next_due(&exchange(), NOW).unwrap();
    assert_eq!(
        whole(&spool, &due).await,
        rendered(b"this one stays for long")
    );
    drop(due);
    spool.close().await;
}

/// What an engine of any kind must do, in its plainest form.
#[derive(Debug, Default)]
struct Model(BTreeMap<u64, BTreeMap<usize, u64>>);

#[derive(Clone, Debug)]
enum Step {
    Accept(usize),
    Settle { delivered: usize, later: u64 },
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1usize..4).prop_map(Step::Accept),
        5 => (0usize..4, 0u64..30).prop_map(|(delivered, later)| Step::Settle { delivered, later }),
        1 => Just(Step::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn it_behaves_as_the_plain_model(steps in proptest::collection::vec(step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let mut spool = open(folder.path());
            let (mut model, mut now, mut next) = (Model::default(), NOW, 1);
            for step in steps {
                now += 7;
                match step {
                    Step::Accept(recipients) => {
                        keep(&spool, next, recipients, b"body of a message").await;
                        model.0.insert(next, (0..recipients).map(|position| (position, NOW)).collect());
                        next += 1;
                    }
                    Step::Settle { delivered, later } => {
                        let Some(due) = spool.next_due(&exchange(), now) else {
                            assert!(model.0.values().flat_map(BTreeMap::values).all(|next| *next > now));
                            continue;
                        };
                        let open = model.0.get_mut(&due.message().id.as_u64()).unwrap();
                        let expected: Vec<usize> = open.iter().filter(|(_, next)| **next <= now).map(|(position, _)| *position).collect();
                        assert_eq!(due.recipients(), expected);
                        let mut results = Vec::new();
                        for (at, position) in expected.into_iter().enumerate() {
                            if at < delivered {
                                open.remove(&position);
                                results.push((position, Disposition::Delivered));
                            } else {
                                open.insert(position, now + later);
                                results.push((position, Disposition::Deferred { next_try: now + later, reply: "451".to_owned() }));
                            }
                        }
                        let id = due.message().id.as_u64();
                        if open.is_empty() {
                            model.0.remove(&id);
                        }
                        spool.settle(due, results, true);
                    }
                    Step::Restart => {
                        spool.close().await;
                        drop(spool);
                        spool = open(folder.path());
                    }
                }
                let listed: Vec<String> = spool.scan(1000, now).into_iter().map(|row| row.id).collect();
                let expected: Vec<String> = model.0.keys().map(|id| QueueId::from_u64(*id).to_string()).collect();
                assert_eq!(listed, expected);
            }
            spool.close().await;
        });
    }
}

#[tokio::test]
async fn a_sick_disk_refuses_and_a_healed_one_takes_mail_again() {
    use crate::journal::disk::faulty::{Fault, FaultyDisk};
    let folder = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let metrics = Metrics::new().unwrap();
    let spool =
        Spool::open_on(folder.path(), Arc::new(disk.clone()), 1024 * 1024, &metrics).unwrap();
    keep(&spool, 1, 1, b"body of a message").await;
    disk.next(&[Fault::Sync]);
    let mut draft = spool.draft();
    draft
        .append(Bytes::from_static(b"body of a message"))
        .await
        .unwrap();
    let refused = spool
        .accept(draft, message(2, 1, b"body of a message"))
        .await;
    assert!(refused.is_err(), "no 250 without fdatasync");
    disk.heal();
    for round in 0..400 {
        if spool.ready().is_ok() {
            break;
        }
        assert!(round < 399, "never well again: {:?}", spool.ready());
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    keep(&spool, 3, 1, b"body of a message").await;
    assert!(!disk.log().is_empty());
    spool.close().await;
    drop(spool);
    let spool = open(folder.path());
    let ids: Vec<String> = spool.scan(10, NOW).into_iter().map(|row| row.id).collect();
    for kept in [1, 3] {
        assert!(
            ids.contains(&QueueId::from_u64(kept).to_string()),
            "{ids:?}"
        );
    }
    spool.close().await;
}

#[tokio::test]
async fn a_full_disk_refuses_and_mail_is_taken_again_once_there_is_space() {
    use crate::journal::disk::faulty::{Fault, FaultyDisk};
    let folder = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let metrics = Metrics::new().unwrap();
    disk.next(&[Fault::Allocate, Fault::Allocate]);
    let spool =
        Spool::open_on(folder.path(), Arc::new(disk.clone()), 1024 * 1024, &metrics).unwrap();
    let full = || metrics.store_failures.with_label_values(&["full"]).get();
    assert!(full() >= 1, "counted, though nobody has asked for anything");
    let mut refused = spool.ready();
    for _ in 0..400 {
        if refused.is_ok() {
            break;
        }
        assert_eq!(refused, Err(SpoolError::Full));
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        refused = spool.ready();
    }
    assert!(refused.is_ok(), "{refused:?}");
    assert_eq!(full(), 2, "with each look for space");
    keep(&spool, 1, 1, b"body of a message").await;
    spool.close().await;
}

#[tokio::test]
async fn a_large_message_that_was_refused_for_a_failed_write_leaves_no_body_and_does_not_come_back()
{
    use crate::journal::disk::faulty::{Fault, FaultyDisk};
    let folder = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let metrics = Metrics::new().unwrap();
    let spool =
        Spool::open_on(folder.path(), Arc::new(disk.clone()), 1024 * 1024, &metrics).unwrap();
    keep(&spool, 1, 1, b"body of a message").await;
    let body = vec![b'x'; 1_100_000];
    let mut draft = spool.draft();
    draft.append(Bytes::from(body.clone())).await.unwrap();
    // The body has a sync of its own; the next is the journal's.
    let bodies = folder.path().join("bodies");
    let left = || std::fs::read_dir(&bodies).unwrap().count();
    disk.next(&[Fault::Write]);
    assert!(spool.accept(draft, message(2, 1, &body)).await.is_err());
    assert_eq!(
        left(),
        1,
        "its record may be readable: not before it is known to be done"
    );
    for round in 0..600 {
        if left() == 0 {
            break;
        }
        assert!(round < 599, "the body stays");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    spool.close().await;
    drop(spool);
    let spool = open(folder.path());
    let ids: Vec<String> = spool.scan(10, NOW).into_iter().map(|row| row.id).collect();
    assert_eq!(ids, [QueueId::from_u64(1).to_string()]);
    spool.close().await;
}

/// A message by mx to recipients of these domains.
fn by_mx(id: u64, domains: &[&str]) -> Message {
    let mut message = message(id, domains.len(), b"body");
    message.legs[0].via = Via::Mx;
    for (number, domain) in domains.iter().enumerate() {
        message.envelope.recipients[number].mailbox =
            format!("r{number}@{domain}").parse().unwrap();
    }
    message
}

fn mx(domain: &str) -> Destination {
    Destination {
        via: Via::Mx,
        tenant: "contoso".into(),
        domain: Some(domain.parse().unwrap()),
    }
}

async fn keep_message(spool: &Spool, message: Message) {
    let mut draft = spool.draft();
    draft.append(Bytes::from_static(b"body")).await.unwrap();
    spool.accept(draft, message).await.unwrap();
}

#[tokio::test]
async fn by_mx_each_domain_is_a_queue_of_its_own_and_stays_so_over_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    keep_message(
        &spool,
        by_mx(1, &["a.example", "B.example", "A.example", "c.example"]),
    )
    .await;
    let due: Vec<_> = spool.due(NOW).into_iter().map(|(queue, _)| queue).collect();
    assert_eq!(due, [mx("a.example"), mx("b.example"), mx("c.example")]);
    let a = spool.next_due(&mx("a.example"), NOW).unwrap();
    assert_eq!(a.recipients(), [0, 2]);
    assert_eq!(a.leg().via, Via::Mx);
    let deferred = |next_try| Disposition::Deferred {
        next_try,
        reply: "450 later".to_owned(),
    };
    spool.settle(
        a,
        vec![(0, Disposition::Delivered), (2, deferred(NOW + 50))],
        true,
    );
    let b = spool.next_due(&mx("b.example"), NOW).unwrap();
    assert_eq!(b.recipients(), [1]);
    spool.settle(b, vec![(1, Disposition::Delivered)], true);
    spool.close().await;
    drop(spool);

    let spool = open(folder.path());
    assert_eq!(spool.due(NOW), [(mx("c.example"), 1)]);
    assert!(spool.next_due(&mx("b.example"), NOW + 99).is_none());
    let a = spool.next_due(&mx("a.example"), NOW + 50).unwrap();
    assert_eq!((a.recipients(), a.attempts()), ([2].as_slice(), 1));
    assert_eq!(a.last_reply(2), Some("450 later"));
    spool.settle(a, vec![(2, Disposition::Delivered)], true);
    let c = spool.next_due(&mx("c.example"), NOW).unwrap();
    spool.settle(c, vec![(3, Disposition::Delivered)], true);
    spool.close().await;
    drop(spool);
    assert!(open(folder.path()).due(u64::MAX - 1).is_empty());
}

#[tokio::test]
async fn what_waits_for_a_next_hop_makes_room_in_memory_for_mail_that_goes_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    let body = vec![b'x'; 1_000_000];
    for id in 1..=10 {
        keep(&spool, id, 1, &body).await;
    }
    let is_fresh = |id: u64| spool.0.shared.memory().fresh.contains_key(&id);
    let fresh = (1..=10).filter(|id| is_fresh(*id)).count();
    assert!((1..10).contains(&fresh) && is_fresh(1), "bounded: {fresh}");
    let mut later = message(11, 1, &body);
    later.arrived = NOW + STALE;
    let mut draft = spool.draft();
    draft.append(Bytes::from(body)).await.unwrap();
    spool.accept(draft, later).await.unwrap();
    assert!(is_fresh(11) && !is_fresh(1) && is_fresh(2));
    assert!(spool.0.shared.memory().fresh_octets <= FRESH);
}

#[tokio::test]
async fn a_message_to_many_domains_counts_once_for_its_way() {
    let folder = tempfile::tempdir().unwrap();
    let metrics = Metrics::new().unwrap();
    let spool = Spool::open(folder.path(), &metrics).unwrap();
    keep_message(&spool, by_mx(1, &["a.example", "b.example"])).await;
    keep_message(&spool, by_mx(2, &["b.example", "c.example"])).await;
    spool.refresh_metrics(NOW);
    let text = String::from_utf8(metrics.text().unwrap()).unwrap();
    let line = "gatepost_queue_messages{state=\"ready\",tenant=\"contoso\",via=\"mx\"} 2";
    assert!(text.contains(line), "{text}");
    assert!(
        !text.contains("example"),
        "a free domain is no label: {text}"
    );
}

#[tokio::test]
async fn what_waits_in_a_parked_queue_is_told_as_held_until_the_queue_asks_again() {
    let folder = tempfile::tempdir().unwrap();
    let metrics = Metrics::new().unwrap();
    let spool = Spool::open(folder.path(), &metrics).unwrap();
    for id in 1..=4 {
        keep(&spool, id, 1, b"body of a message").await;
    }
    let reply = || "451 4.4.0 later".to_owned();
    let settle = |disposition| {
        let due = spool.next_due(&exchange(), NOW).unwrap();
        spool.settle(due, vec![(0, disposition)], true);
    };
    settle(Disposition::Deferred {
        next_try: NOW + 9_000,
        reply: reply(),
    });
    settle(Disposition::Held {
        next_try: NOW + 10,
        since: NOW,
        reply: reply(),
    });
    let on_its_way = spool.next_due(&exchange(), NOW).unwrap();
    let told = || -> Vec<(String, Option<u64>)> {
        let rows = spool.page(None, 10, NOW).into_iter();
        rows.map(|row| (row.state, row.next_try)).collect()
    };
    let counted = || {
        spool.refresh_metrics(NOW);
        let count = |state| {
            let labels = ["exchange", "contoso", state];
            metrics.queue_messages.with_label_values(&labels).get()
        };
        ["ready", "active", "deferred", "held"].map(count)
    };
    let before = told();
    let states: Vec<&str> = before.iter().map(|(state, _)| state.as_str()).collect();
    assert_eq!(states, ["deferred", "held", "active", "ready"]);
    assert_eq!(counted(), [1, 1, 1, 1]);
    spool.parked(&exchange(), Some(NOW + 60));
    let held = |at| ("held".to_owned(), Some(at));
    let parked = told();
    assert_eq!(
        (&parked[0], &parked[1], &parked[3]),
        (&held(NOW + 9_000), &held(NOW + 60), &held(NOW + 60))
    );
    assert_eq!(parked[2].0, "active", "the probe");
    assert_eq!(counted(), [0, 1, 0, 3]);
    spool.clock_was_set(1_000, NOW + 1_000, |_| 10_000);
    assert_eq!(told()[3], held(NOW + 1_060), "as the lane's own moment");
    spool.clock_was_set(-1_000, NOW, |_| 10_000);
    assert_eq!(told(), parked);
    spool.parked(&exchange(), None);
    assert_eq!((told(), counted()), (before, [1, 1, 1, 1]));
    drop(on_its_way);
}

#[tokio::test]
async fn what_waits_in_a_queue_that_pauses_is_told_as_deferred_until_the_pause_ends() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    for id in 1..=4 {
        keep(&spool, id, 1, b"body of a message").await;
    }
    for next_try in [NOW + 9_000, NOW + 10] {
        let due = spool.next_due(&exchange(), NOW).unwrap();
        let reply = "451 4.7.500 Server busy".to_owned();
        let later = Disposition::Deferred { next_try, reply };
        spool.settle(due, vec![(0, later)], true);
    }
    let on_its_way = spool.next_due(&exchange(), NOW).unwrap();
    let told = |now| -> Vec<(String, Option<u64>)> {
        let rows = spool.page(None, 10, now).into_iter();
        rows.map(|row| (row.state, row.next_try)).collect()
    };
    let before = told(NOW + 20);
    spool.paused(&exchange(), Some(NOW + 60));
    spool.paused(&mx("other.example"), Some(NOW + 90));
    let deferred = |at| ("deferred".to_owned(), Some(at));
    for now in [NOW, NOW + 20, NOW + 59] {
        let told = told(now);
        assert_eq!(told[0], deferred(NOW + 9_000));
        assert_eq!(
            (&told[1], &told[3]),
            (&deferred(NOW + 60), &deferred(NOW + 60))
        );
        assert_eq!(told[2].0, "active");
    }
    assert_eq!(told(NOW + 60)[3].0, "ready", "it is over");
    spool.clock_was_set(1_000, NOW + 1_000, |_| 10_000);
    assert_eq!(told(NOW + 1_059)[3], deferred(NOW + 1_060));
    spool.clock_was_set(-1_000, NOW, |_| 10_000);
    let parked = Some(NOW + 30);
    spool.parked(&exchange(), parked);
    assert_eq!(told(NOW)[3], ("held".to_owned(), parked), "goes before");
    spool.parked(&exchange(), None);
    spool.paused(&exchange(), None);
    assert_eq!(told(NOW + 20), before);
    drop(on_its_way);
}

#[tokio::test]
async fn an_operator_hurries_the_queues_of_what_he_wants_tried() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    for id in 1..=2 {
        keep(&spool, id, 1, b"body of a message").await;
    }
    let [first, second] = [1, 2].map(QueueId::from_u64);
    let act = |id, action| spool.act(Some(id), None, action, NOW);
    for (action, hurried) in [
        (QueueAction::Retry, vec![exchange()]),
        (QueueAction::Hold, vec![]),
        // What an operator holds stays as it is, and so does its queue.
        (QueueAction::Retry, vec![]),
        (QueueAction::Release, vec![exchange()]),
    ] {
        assert_eq!(act(first, action), 1);
        assert_eq!(spool.hurried(), hurried, "{action:?}");
        assert!(spool.hurried().is_empty(), "told once");
    }
    // A queue that is released lets go of what it kept, and is hurried by nobody.
    assert!(spool.release(second, NOW) && spool.hurried().is_empty());
    assert!(!spool.release(QueueId::from_u64(3), NOW));
    assert_eq!(
        spool.act(None, Some("fabrikam"), QueueAction::Retry, NOW),
        0
    );
    assert!(spool.hurried().is_empty());
    assert_eq!(spool.act(None, Some("contoso"), QueueAction::Retry, NOW), 2);
    assert_eq!(spool.hurried(), [exchange()]);
    assert_eq!(act(second, QueueAction::Delete), 1);
    assert!(spool.hurried().is_empty());
}

#[test]
fn names_of_queues_that_nobody_uses_are_forgotten() {
    let mut queue = Queue::default();
    let kept = queue.destination(mx("kept.example"));
    for number in 0..10_000 {
        queue.destination(mx(&format!("d{number}.example")));
    }
    assert!(queue.destinations().count() <= 2048);
    assert!(Arc::ptr_eq(&kept, &queue.destination(mx("kept.example"))));
    // And with them that they pause.
    for number in 0..10_000 {
        let name = queue.destination(mx(&format!("d{number}.example")));
        queue.pause(&name, Some(NOW + 60));
    }
    queue.pause(&kept, Some(NOW + 60));
    let paused = |number| queue.paused(&mx(&format!("d{number}.example")), NOW);
    assert!((0..10_000).filter_map(paused).count() <= 4096);
    assert_eq!(queue.paused(&kept, NOW), Some(NOW + 60));
}

#[test]
fn a_leg_in_memory_stays_small() {
    // Under 300 octets a message (product.md 9): the leg, one recipient, its entry and two places in lists.
    assert!(size_of::<LegState>() <= 48 && size_of::<Entry>() <= 64);
}

#[tokio::test]
async fn the_oldest_is_found_due_or_not_but_never_what_is_under_way_or_held_by_an_operator() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    for id in 1..=3 {
        keep(&spool, id, 1, b"body of a message").await;
    }
    let first = spool.next_due(&exchange(), NOW).unwrap();
    let later = Disposition::Held {
        next_try: NOW + 1_000_000,
        since: NOW,
        reply: "550 5.7.64".to_owned(),
    };
    spool.settle(first, vec![(0, later)], true);
    let probe = spool.oldest(&exchange(), NOW).unwrap();
    assert_eq!(probe.message().id.as_u64(), 1, "held, and not due for long");
    assert_eq!((probe.attempts(), probe.held_since()), (1, Some(NOW)));
    let second = QueueId::from_u64(2);
    assert_eq!(spool.act(Some(second), None, QueueAction::Hold, NOW), 1);
    let next = spool.oldest(&exchange(), NOW).unwrap();
    assert_eq!(next.message().id.as_u64(), 3, "1 is leased, 2 is held");
    assert!(spool.oldest(&exchange(), NOW).is_none() && !spool.has_open(&exchange()));
    assert!(
        spool.next_due(&exchange(), NOW + 2_000_000).is_none(),
        "a leased message is not leased again"
    );
    drop((probe, next));
    assert!(spool.has_open(&exchange()));
    spool.close().await;
}

#[tokio::test]
async fn what_was_held_for_a_reply_that_counts_is_found_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    let held = |since, reply: &str| Disposition::Held {
        next_try: NOW * 2,
        since,
        reply: reply.to_owned(),
    };
    let results = [
        held(NOW + 7, "counts"),
        held(NOW + 5, "counts"),
        held(NOW + 1, "does not"),
        Disposition::Deferred {
            next_try: NOW * 2,
            reply: "counts".to_owned(),
        },
    ];
    for (id, disposition) in (1..).zip(results) {
        keep(&spool, id, 1, b"X: body").await;
        let due = spool.next_due(&exchange(), NOW).unwrap();
        assert_eq!(due.message().id.as_u64(), id);
        spool.settle(due, vec![(0, disposition)], true);
    }
    keep(&spool, 5, 1, b"X: fresh").await;
    spool.close().await;
    drop(spool);
    let spool = open(folder.path());
    let counts = |reply: &str| reply == "counts";
    let expected = |ids: &[u64]| HeldBefore {
        destination: exchange(),
        since: NOW + 5,
        reply: "counts".to_owned(),
        ids: ids.iter().copied().map(QueueId::from_u64).collect(),
    };
    assert_eq!(spool.held(counts, 10), [expected(&[1, 2])]);
    assert_eq!(spool.held(counts, 1), [expected(&[1])], "bounded");
    assert_eq!(spool.held(|_| false, 10), []);
    spool.close().await;
}
