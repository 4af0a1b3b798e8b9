//! What must hold for any octets at all? One function for each parser of outside bytes and for both state machines; it
//! panics where an invariant does not hold.
//!
//! The fuzz targets in `fuzz_targets/` call these functions, and so does `tests/corpora.rs`, which includes this file: a
//! crash found by the one is a failing test of the other once its input lies in `corpus/`.

mod challenge;
mod client;
mod content;
mod dialogue;
mod dkim;
mod export;
mod header;
mod kept;
mod naive;
mod pem;
mod rfc6376;
mod session;
mod settings;
mod shell;
mod store;
mod words;
mod world;

pub use world::leave;

/// Takes any octets.
pub type Entry = fn(&[u8]);

/// Every target with its entry, by name: the folder of its corpus, and its file in `fuzz_targets/`.
pub const TARGETS: &[(&str, Entry)] = &[
    ("address", words::address),
    ("certificate", shell::certificate),
    ("challenge", challenge::challenge),
    ("command", words::command),
    ("config", settings::config),
    ("data", content::data),
    ("dialogue", dialogue::dialogue),
    ("dkim", dkim::dkim),
    ("dsn", words::dsn),
    ("endpoints", settings::endpoints),
    ("explain", settings::explain),
    ("export", export::export),
    ("header", header::examine),
    ("hello", shell::hello),
    ("journal", store::journal),
    ("pasted", header::pasted),
    ("pem", pem::pem),
    ("proxy", shell::proxy),
    ("record", store::record),
    ("rendition", header::rendition),
    ("reply", words::reply),
    ("said", words::said),
    ("sasl", words::sasl),
    ("session", session::session),
];

/// The entry of a target.
///
/// # Panics
/// There is no such target.
pub fn entry(name: &str) -> Entry {
    let found = TARGETS.iter().find(|(own, _)| *own == name);
    found.unwrap_or_else(|| panic!("no target {name}")).1
}
