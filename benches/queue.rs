//! How much memory does a queued message take, and how long does a start with a full queue take?
//!
//! `cargo bench --bench queue -- 1000000` keeps that many messages of 2 KiB durably (32 at once), closes the store, opens
//! it again and hands everything out, in a folder of its own below the current one. See benches/README.md.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::expect_used,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    missing_docs,
    reason = "a benchmark measures, and stops at the first thing that goes wrong"
)]

#[path = "../tests/support/mail.rs"]
mod mail;

use bytes::Bytes;
use gatepost::header::Rendition;
use gatepost::metrics::Metrics;
use gatepost::spool::{Disposition, Message, Spool};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

const AT_ONCE: usize = 32;
const BODY: usize = 2048;
const ARRIVED: u64 = 1_790_000_000_000;

fn main() {
    let wanted = std::env::args().skip(1).find_map(|word| word.parse().ok());
    let count: u64 = wanted.unwrap_or(200_000);
    let folder = tempfile::tempdir_in(".").expect("a folder to write in");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        println!("messages {count} of {BODY} octets");
        let metrics = Metrics::new().unwrap();
        let before = resident();
        let spool = Spool::open(folder.path(), &metrics).unwrap();
        let began = Instant::now();
        keep_all(&spool, count).await;
        let took = began.elapsed().as_secs_f64();
        println!(
            "kept durably, {AT_ONCE} at once: {took:.1} s, {:.0} a second",
            count as f64 / took
        );
        println!(
            "resident memory after it: {} MiB more than before",
            (resident() - before) >> 20
        );
        spool.close().await;
        drop(spool);

        let before = resident();
        let began = Instant::now();
        let spool = Spool::open(folder.path(), &metrics).unwrap();
        println!(
            "opened with a full queue: {:.2} s",
            began.elapsed().as_secs_f64()
        );
        let more = resident().saturating_sub(before);
        println!(
            "resident memory after that: {} MiB more, {} octets a message",
            more >> 20,
            more / count.max(1)
        );

        let began = Instant::now();
        let got = hand_out(&spool).await;
        let took = began.elapsed().as_secs_f64();
        println!(
            "handed out, read and settled {got}: {took:.1} s, {:.0} a second",
            got as f64 / took
        );
        assert_eq!(got, count, "every message, once");
        spool.close().await;
    });
}

async fn keep_all(spool: &Spool, count: u64) {
    let next = Arc::new(AtomicU64::new(1));
    let body = Bytes::from(vec![b'x'; BODY]);
    let mut tasks = Vec::new();
    for _ in 0..AT_ONCE {
        let (spool, next, body) = (spool.clone(), Arc::clone(&next), body.clone());
        tasks.push(tokio::spawn(async move {
            loop {
                let id = next.fetch_add(1, Ordering::Relaxed);
                if id > count {
                    break;
                }
                let mut draft = spool.draft();
                draft.append(body.clone()).await.unwrap();
                spool.accept(draft, message(id, &body)).await.unwrap();
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
}

async fn hand_out(spool: &Spool) -> u64 {
    let queue = mail::exchange();
    let mut got = 0;
    while let Some(due) = spool.next_due(&queue, ARRIVED + 1) {
        let mut read = 0;
        loop {
            let piece = spool.read(&due, read).await.unwrap();
            if piece.is_empty() {
                break;
            }
            read += piece.len() as u64;
        }
        assert!(read > BODY as u64);
        spool.settle(due, vec![(0, Disposition::Delivered)], true);
        got += 1;
    }
    got
}

fn message(id: u64, body: &[u8]) -> Message {
    let mut message = mail::message(id, ARRIVED, 1, body);
    message.envelope.reverse_path = "ada.lovelace@contoso.com".parse().unwrap();
    message.envelope.recipients = vec![mail::recipient(&format!("recipient{id}@contoso.com"))];
    message.legs[0].rendition = Rendition {
        prepend: vec![b'R'; 200],
        omit: std::iter::once(0..100).collect(),
    };
    message.message_id = Some(format!("<{id}.0123456789@contoso.com>"));
    message
}

/// Octets of resident memory of this process.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages: u64 = statm
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse().ok())
        .expect("pages");
    pages * 4096
}
