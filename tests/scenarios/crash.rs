//! kill -9 under load: what was answered 250 arrives, nothing else does, and what arrives again had arrived just before.

use crate::harness::{Changes, Process, Surroundings, free_port};
use crate::ledger::{self, Ledger, WINDOW};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Rounds of kill -9 (issue 8); CI runs them all.
const ROUNDS: usize = 20;
const SENDERS: usize = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_rounds_of_kill_9_lose_nothing_that_was_answered_250() {
    let around = Surroundings::new().await;
    let ports = [free_port(), free_port(), free_port()];
    let admin = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let changes = Changes::replace(
        "address = \"127.0.0.1:0\"",
        &format!("address = \"{admin}\""),
    );
    let config = around.configuration(ports, &changes);
    let listener = SocketAddr::from(([127, 0, 0, 1], ports[0]));
    let ledger = Ledger::new(&around.exchange);
    for round in 0..ROUNDS {
        let server = Process::start(&config);
        let stop = Arc::new(AtomicBool::new(false));
        let senders = ledger.load(&around.exchange_out(listener), round, SENDERS, &stop);
        // Not a wait for something to happen: the moment of the kill, a different one each round; some are so late that most of
        // what arrived must be on disk as settled.
        let late = if round % 5 == 4 {
            2 * WINDOW
        } else {
            Duration::ZERO
        };
        tokio::time::sleep(late + Duration::from_millis(60 + 23 * round as u64)).await;
        server.kill();
        ledger.ended(WINDOW);
        stop.store(true, Ordering::Relaxed);
        ledger::ended(senders).await;
    }
    let count = ledger.acknowledged();
    assert!(count > ROUNDS, "the load was no load: {count} messages");
    let server = Process::start(&config);
    ledger.settled(&around.exchange, admin).await;
    assert!(server.terminate().success(), "SIGTERM ends with status 0");
    // What was settled stays so: after an end in order nothing is left to come again.
    ledger.ended(Duration::ZERO);
    let server = Process::start(&config);
    ledger.settled(&around.exchange, admin).await;
    println!("{:?}", ledger.account());
    assert!(server.terminate().success(), "SIGTERM ends with status 0");
}
