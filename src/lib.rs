//! Gatepost: a smart host that Exchange Online trusts by certificate, and that trusts Exchange Online by certificate,
//! source address *and* tenant.
//!
//! ```text
//!  Exchange Online ──outbound connector──▶ ┌──────────── Gatepost ────────────┐ ──inbound connector──▶ Exchange Online
//!  (or an application, SMTP AUTH) ───────▶ │ trust · headers · route · spool  │ ──MX / relay─────────▶ the outside
//!                                          └──────────────────────────────────┘
//! ```
//!
//! One message, stage by stage; each arrow is a function from one type to the next, and no stage can be skipped:
//!
//! ```text
//!  receive    session      header      trust                 route + header         spool     schedule  deliver    message_trace
//!  bytes ──▶ Envelope ──▶ Examined ──▶ Verdict ──▶ Routed { Path → Rendition } ──▶ Stored ──▶ Due ──▶ Outcome ──▶ TraceEvent
//!  accept     receive      examine     judge          plan                           keep      pick     deliver    account
//! ```
//!
//! The rooms, in the order in which a message meets them. Who may import whom is held by `tests/architecture.rs`.

// words: nouns and grammar; no policy, no tokio, no clock
pub mod mail;
pub mod smtp;
// judgement: pure functions and state machines; bytes and `now` in, decisions out
pub mod connector;
pub mod dialogue;
pub mod dsn;
pub mod exchange;
pub mod header;
pub mod route;
pub mod schedule;
pub mod session;
pub mod trust;
// memory: what survives a restart
pub mod credentials;
pub mod index;
pub mod journal;
pub mod message_trace;
pub mod metrics;
pub mod spool;
// shells: the only place with sockets, timers and the clock
pub mod acme;
pub mod admin;
pub mod clock;
pub mod deliver;
pub mod dns;
pub mod lab;
pub mod mailauth;
pub mod receive;
// the house
pub mod app;
pub mod cli;
pub mod config;
