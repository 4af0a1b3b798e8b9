//! A clock that is set, before the start or while mail waits.

use super::*;

const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

fn deferred(next_try: u64) -> Disposition {
    Disposition::Deferred {
        next_try,
        reply: "451 4.4.0 later".to_owned(),
    }
}

fn longest(_: &Via) -> u64 {
    2 * HOUR
}

/// A message that was tried and waits until then, and one that was not tried.
async fn waiting(folder: &Path, next_try: u64) -> Spool {
    let spool = open(folder);
    keep(&spool, 1, 1, b"From: a@contoso.com\r\n\r\n").await;
    let due = spool.next_due(&exchange(), NOW).unwrap();
    spool.settle(due, vec![(0, deferred(next_try))], true);
    keep(&spool, 2, 1, b"From: a@contoso.com\r\n\r\n").await;
    spool
}

/// Which message is due at that time.
fn due_at(spool: &Spool, now: u64) -> Option<(u64, u64)> {
    let due = spool.next_due(&exchange(), now)?;
    Some((due.message().id.as_u64(), due.arrived()))
}

#[tokio::test]
async fn whoever_waits_goes_on_waiting_as_long_as_he_would_have() {
    let by = [-300_000, 300_000, -400 * 86_400_000_i64, 400 * 86_400_000];
    for by in by {
        let start = 500 * DAY;
        let folder = tempfile::tempdir().unwrap();
        let spool = waiting(folder.path(), NOW + 10 * MINUTE).await;
        // As if all of it had been in a later year.
        spool.clock_was_set(i64::try_from(start).unwrap(), NOW + start, longest);
        let moved = |moment: u64| (moment + start).saturating_add_signed(by);
        spool.clock_was_set(by, moved(NOW), longest);
        let second = due_at(&spool, moved(NOW));
        assert_eq!(
            second,
            Some((2, moved(NOW))),
            "{by}: new mail does not wait"
        );
        let due = spool.next_due(&exchange(), moved(NOW)).unwrap();
        spool.settle(due, vec![(0, Disposition::Delivered)], true);
        assert_eq!(due_at(&spool, moved(NOW + 10 * MINUTE) - 1), None, "{by}");
        let first = due_at(&spool, moved(NOW + 10 * MINUTE));
        assert_eq!(first, Some((1, moved(NOW))), "{by}: and is no older");
        spool.close().await;
    }
}

#[tokio::test]
async fn a_store_that_was_written_in_the_future_does_not_wait_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let future = 400 * DAY;
    let spool = waiting(folder.path(), NOW + 10 * MINUTE).await;
    spool.clock_was_set(i64::try_from(future).unwrap(), NOW + future, longest);
    let due = spool.next_due(&exchange(), NOW + future).unwrap();
    let held = Disposition::Held {
        next_try: NOW + future + HOUR,
        since: NOW + future,
        reply: "550 5.7.64 x".to_owned(),
    };
    spool.settle(due, vec![(0, held)], true);
    spool.close().await;
    drop(spool);
    let spool = open(folder.path());
    spool.clock_was_set(0, NOW, longest);
    let listed = spool.scan(10, NOW);
    assert!(!listed.is_empty());
    for row in &listed {
        assert!(row.next_try.unwrap() <= NOW + 2 * HOUR, "{row:?}");
    }
    let due = spool.next_due(&exchange(), NOW + 2 * HOUR).unwrap();
    assert!(due.arrived() <= NOW && due.held_since().is_none_or(|since| since <= NOW));
    drop(due);
    spool.close().await;
}

#[tokio::test]
async fn new_mail_is_due_though_the_clock_was_set_back_while_it_came() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    keep(&spool, 1, 150, b"From: a@contoso.com\r\n\r\n").await;
    let due = spool.next_due(&exchange(), NOW - 10 * MINUTE).unwrap();
    assert_eq!(due.recipients().len(), 100);
    drop(due);
    spool.close().await;
}

#[tokio::test]
async fn who_was_never_tried_does_not_wait_though_the_clock_was_set_back_before_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    keep_message(&spool, by_mx(1, &["a.example", "b.example"])).await;
    let due = spool.next_due(&mx("a.example"), NOW).unwrap();
    spool.settle(due, vec![(0, deferred(NOW + 10 * MINUTE))], true);
    spool.close().await;
    drop(spool);
    let spool = open(folder.path());
    let now = NOW / 2;
    spool.clock_was_set(0, now, longest);
    assert!(spool.next_due(&mx("b.example"), now).is_some());
    assert!(spool.next_due(&mx("a.example"), now).is_none());
    spool.close().await;
}
