//! (in progress)

pub mod explain_trust;
