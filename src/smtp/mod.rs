//! The grammar of SMTP: lines, commands, replies, extensions, content framing, SASL. No policy.

pub mod data;
