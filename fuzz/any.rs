//! All targets in one binary, for a machine that builds once and runs each for a short while: `GATEPOST_FUZZ_TARGET` names it.

#![no_main]

use std::sync::OnceLock;

static ENTRY: OnceLock<gatepost_fuzz::Entry> = OnceLock::new();

fn entry() -> gatepost_fuzz::Entry {
    let name = std::env::var("GATEPOST_FUZZ_TARGET").expect("GATEPOST_FUZZ_TARGET names a target");
    gatepost_fuzz::entry(&name)
}

libfuzzer_sys::fuzz_target!(|octets: &[u8]| ENTRY.get_or_init(entry)(octets));
