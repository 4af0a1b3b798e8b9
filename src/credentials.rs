//! Submission accounts: password hashes, permitted networks, rates, and the brake on guessing.

use crate::mail::Secret;
use crate::trust::Application;
use ipnet::IpNet;
use std::sync::Arc;
use std::time::Duration;

/// One `[[application]]`.
#[derive(Clone, Debug)]
pub struct Account {
    /// What judgement sees of it.
    pub application: Arc<Application>,
    /// `username`; without it the address alone is the proof.
    pub username: Option<String>,
    /// `password_hash`, a PHC string.
    pub password_hash: Option<Secret>,
    /// `networks`: where it may connect from; empty means anywhere (only with a username).
    pub networks: Vec<IpNet>,
    /// `rate`.
    pub rate: Option<Rate>,
}

/// `rate = "600/hour"`: so many messages may come at once, and so many in each period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Messages.
    pub messages: u32,
    /// Period.
    pub per: Duration,
}
