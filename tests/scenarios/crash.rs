//! kill -9 under load: what was answered 250 arrives.

use crate::harness::{Changes, Process, Surroundings, free_port};
use gatepost::lab::{ExchangeOut, Mail, Outbound, Transfer};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::Mutex;

/// Rounds of kill -9 (issue 8); CI runs them all.
const ROUNDS: usize = 20;
const SENDERS: usize = 4;

/// Sends until told to stop; notes what was answered 250.
async fn load(
    out: ExchangeOut,
    sender: usize,
    round: usize,
    stop: Arc<AtomicBool>,
    acknowledged: Arc<Mutex<Vec<String>>>,
) {
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        let Ok(mut connection) = out.connect().await else {
            return;
        };
        while !stop.load(Ordering::Relaxed) {
            number += 1;
            let id = format!("{round}-{sender}-{number}");
            let body = "payload ".repeat(number % 60);
            let content = format!(
                "From: ada@contoso.com\r\nX-Load: {id}\r\nX-OriginatorOrg: contoso.com\r\n\
                 X-MS-Exchange-CrossTenant-Id: 11111111-2222-3333-4444-555555555555\r\n\r\n{body}\r\n"
            );
            let mail = Mail::new("ada@contoso.com", "bob@contoso.com", content).by(Transfer::Best);
            match connection.send(&Outbound::bare(mail)).await {
                Ok(answer) if answer.accepted() => acknowledged.lock().await.push(id),
                Ok(_) => {}
                Err(_) => break,
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_rounds_of_kill_9_lose_nothing_that_was_answered_250() {
    let around = Surroundings::new().await;
    let ports = [free_port(), free_port(), free_port()];
    let config = around.configuration(ports, &Changes::default());
    let listener = SocketAddr::from(([127, 0, 0, 1], ports[0]));
    let acknowledged = Arc::new(Mutex::new(Vec::new()));
    for round in 0..ROUNDS {
        let server = Process::start(&config);
        let stop = Arc::new(AtomicBool::new(false));
        let senders: Vec<_> = (0..SENDERS)
            .map(|sender| {
                let out = around.exchange_out(listener);
                tokio::spawn(load(
                    out,
                    sender,
                    round,
                    Arc::clone(&stop),
                    Arc::clone(&acknowledged),
                ))
            })
            .collect();
        // Not a wait for something to happen: the moment of the kill, a different one each round.
        tokio::time::sleep(Duration::from_millis(60 + 23 * round as u64)).await;
        server.kill();
        stop.store(true, Ordering::Relaxed);
        for sender in senders {
            tokio::time::timeout(Duration::from_secs(30), sender)
                .await
                .expect("a sender hangs")
                .unwrap();
        }
    }
    let server = Process::start(&config);
    let mut missing: HashMap<String, usize> = acknowledged
        .lock()
        .await
        .iter()
        .map(|id| (id.clone(), 0))
        .collect();
    let count = missing.len();
    assert!(count > ROUNDS, "the load was no load: {count} messages");
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    let (mut arrived, mut without_answer) = (0, 0);
    while missing.values().any(|times| *times == 0) {
        assert!(
            tokio::time::Instant::now() < deadline,
            "lost: {:?}",
            lost(&missing)
        );
        let Ok(received) = around.exchange.received().await else {
            panic!("lost: {:?}", lost(&missing))
        };
        match received
            .header("X-Load")
            .and_then(|id| missing.get_mut(&id))
        {
            Some(times) => {
                arrived += 1;
                *times += 1;
            }
            None => without_answer += 1,
        }
    }
    let duplicates = arrived - count;
    println!(
        "{count} answered 250, all arrived; {duplicates} duplicates; {without_answer} arrived without a 250"
    );
    assert!(server.terminate().success(), "SIGTERM ends with status 0");
}

fn lost(missing: &HashMap<String, usize>) -> Vec<&String> {
    missing
        .iter()
        .filter(|(_, times)| **times == 0)
        .map(|(id, _)| id)
        .take(5)
        .collect()
}
