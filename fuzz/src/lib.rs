//! What must hold for any octets at all? One function for each parser of outside bytes and for both state machines; it
//! panics where an invariant does not hold.
//!
//! The fuzz targets in `fuzz_targets/` call these functions, and so does `tests/corpora.rs`, which includes this file: a
//! crash found by the one is a failing test of the other once its input lies in `corpus/`.

mod content;
mod dialogue;
mod header;
mod naive;
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
    ("command", words::command),
    ("config", settings::config),
    ("data", content::data),
    ("dialogue", dialogue::dialogue),
    ("dsn", words::dsn),
    ("endpoints", settings::endpoints),
    ("explain", settings::explain),
    ("header", header::examine),
    ("hello", shell::hello),
    ("journal", store::journal),
    ("pasted", header::pasted),
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
