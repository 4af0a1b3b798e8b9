//! Whole-server scenarios over loopback with real TLS: each reads as a story.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::or_fun_call,
    clippy::large_futures,
    reason = "test code"
)]
#![allow(
    missing_docs,
    unreachable_pub,
    dead_code,
    reason = "test code; the harness is shared by two test programs"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "tests read the clock to bound their waits"
)]

mod acme;
#[path = "../support/acme.rs"]
mod acme_authority;
mod admin;
mod bounces;
mod calls;
mod certificates;
mod commands;
mod connector;
mod connector_round;
mod crash;
mod exact;
mod explain;
#[path = "../support/false_ends.rs"]
mod false_ends;
mod gates;
mod hammers;
mod harness;
#[path = "../powershell/host.rs"]
mod host;
mod house;
mod injected;
mod journeys;
mod kept_store;
mod keys;
mod lapse;
mod ledger;
mod listeners;
mod load;
mod logs;
#[path = "../support/mail.rs"]
mod mail;
mod notices;
mod operations;
mod outside;
mod pebble;
mod proofs;
mod reload;
mod resolver;
mod secrets;
mod seen;
mod siege;
#[path = "../support/store_1.rs"]
mod store_1;
#[path = "../support/store_2.rs"]
mod store_2;
mod tenant_gate;
mod under_load;
mod ways;
