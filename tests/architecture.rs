//! Who may import whom, and which package lives where: a new arrow is one visible line here.
//!
//! Read from top to bottom it is the way of a message: words, judgement, memory, shells, the house.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::or_fun_call,
    clippy::large_futures,
    reason = "test code"
)]
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// A room and the rooms whose paths may stand in its files.
const ARROWS: &[(&str, &[&str])] = &[
    // words
    ("mail", &[]),
    ("smtp", &["mail"]),
    // judgement. `trust::tenant` reads the header section that `header` has split; `header::rendition` asks for the
    // verdict that `trust` has given; `route` sees tenants and verdicts. `session` is where they meet: it is handed the
    // spool's proof of storage, without which it cannot say 250, and tells the trace what happened.
    ("header", &["mail", "route", "trust"]),
    ("trust", &["header", "mail", "route"]),
    ("route", &["mail", "trust"]),
    (
        "session",
        &[
            "header",
            "mail",
            "message_trace",
            "route",
            "smtp",
            "spool",
            "trust",
        ],
    ),
    ("schedule", &["mail", "smtp"]),
    ("dialogue", &["mail", "schedule", "smtp"]),
    ("dsn", &["header", "mail", "smtp"]),
    // the other side of a tenant's connectors; beside the way of a message
    ("connector", &["mail", "trust"]),
    // Exchange's side, to explain it: nothing that judges mail in hand asks it.
    ("exchange", &["header", "mail", "trust"]),
    // memory
    ("metrics", &[]),
    ("journal", &["mail", "metrics"]),
    ("index", &["mail"]),
    (
        "spool",
        &["header", "journal", "mail", "metrics", "route", "smtp"],
    ),
    ("message_trace", &["index", "mail", "metrics", "trust"]),
    ("credentials", &["mail", "session", "smtp", "trust"]),
    // shells: `receive` and `deliver` never see each other; they meet in the spool
    ("clock", &["session"]),
    ("dns", &["mail"]),
    ("mailauth", &["dns", "trust"]),
    (
        "receive",
        &[
            "clock",
            "credentials",
            "mail",
            "mailauth",
            "message_trace",
            "metrics",
            "session",
            "smtp",
            "spool",
            "trust",
        ],
    ),
    (
        "deliver",
        &[
            "clock",
            "dialogue",
            "dns",
            "dsn",
            "header",
            "mail",
            "message_trace",
            "metrics",
            "route",
            "schedule",
            "smtp",
            "spool",
            "trust",
        ],
    ),
    ("acme", &["dns", "mail", "trust"]),
    ("admin", &["mail", "message_trace", "metrics", "spool"]),
    // an oracle with our parser would share our mistakes: never `header` or `trust`
    ("lab", &["mail", "smtp"]),
    // settings are made here, of the types of every room
    (
        "config",
        &[
            "acme",
            "credentials",
            "deliver",
            "dns",
            "mail",
            "receive",
            "route",
            "schedule",
            "session",
            "smtp",
            "trust",
        ],
    ),
];

/// The house sees everything; nothing imports it.
const HOUSE: &[&str] = &["app", "cli", "config"];

/// A package and the rooms that may name it.
const HOMES: &[(&str, &[&str])] = &[
    ("sled", &["index"]),
    ("clap", &["cli"]),
    ("clap_complete", &["cli"]),
    (
        "prometheus",
        &[
            "metrics",
            "receive",
            "spool",
            "deliver",
            "message_trace",
            "cli",
        ],
    ),
    ("mail_parser", &["header"]),
    ("mail_auth", &["mailauth"]),
    ("x509_parser", &["trust", "lab", "config"]),
    ("axum", &["admin"]),
    ("ureq", &["admin"]),
    ("toml", &["config", "cli"]),
    // `certificate request` makes keys and requests.
    ("rcgen", &["lab", "cli", "acme"]),
    ("ppp", &["receive"]),
    ("tls_parser", &["receive"]),
    ("webpki", &["trust", "receive", "deliver", "config", "lab"]),
    // `config` asks the provider whether a key belongs to its certificate.
    (
        "rustls",
        &["receive", "deliver", "lab", "config", "acme", "cli"],
    ),
    ("tokio_rustls", &["receive", "deliver", "lab", "acme"]),
    ("instant_acme", &["acme"]),
    ("hyper", &["acme"]),
    ("argon2", &["credentials"]),
    ("password_auth", &["credentials", "cli", "config", "lab"]),
    (
        "tokio",
        &[
            "acme",
            "app",
            "admin",
            "cli",
            "clock",
            "deliver",
            "dns",
            "lab",
            "mailauth",
            "receive",
            "spool",
            "journal",
            "message_trace",
        ],
    ),
];

/// What the pure rooms never do.
const PURE: &[&str] = &[
    "mail",
    "smtp",
    "header",
    "trust",
    "route",
    "session",
    "schedule",
    "dialogue",
    "dsn",
    "connector",
    "exchange",
];

struct Source {
    room: String,
    path: PathBuf,
    /// Without comments and without the tests at the foot.
    code: String,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![root.clone()];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let relative = path.strip_prefix(&root).unwrap();
                let is_test = relative.components().any(|part| {
                    let name = part.as_os_str().to_string_lossy();
                    matches!(
                        &*name,
                        "tests" | "tests.rs" | "tenant_tests.rs" | "fixtures.rs"
                    )
                });
                if is_test {
                    continue;
                }
                let first = relative
                    .components()
                    .next()
                    .unwrap()
                    .as_os_str()
                    .to_str()
                    .unwrap();
                let room = first.trim_end_matches(".rs").to_owned();
                let text = std::fs::read_to_string(&path).unwrap();
                let text = text
                    .split("\n#[cfg(test)]\nmod ")
                    .next()
                    .unwrap()
                    .to_owned();
                let code = text
                    .lines()
                    .map(|line| line.split("//").next().unwrap())
                    .collect::<Vec<_>>()
                    .join("\n");
                found.push(Source { room, path, code });
            }
        }
    }
    assert!(found.len() > 30, "the sources were not found");
    found
}

/// Rooms named by `crate::room` and `crate::{room...` paths.
fn rooms_named(code: &str) -> BTreeSet<String> {
    let word = |text: &str| {
        text.chars()
            .take_while(|letter| letter.is_alphanumeric() || *letter == '_')
            .collect::<String>()
    };
    let mut named = BTreeSet::new();
    for (position, _) in code.match_indices("crate::") {
        let rest = &code[position + "crate::".len()..];
        match rest.strip_prefix('{') {
            None => {
                named.insert(word(rest));
            }
            Some(group) => {
                let mut depth = 0;
                let mut start = true;
                for (at, letter) in group.char_indices() {
                    match letter {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => start = true,
                        letter if start && !letter.is_whitespace() => {
                            named.insert(word(&group[at..]));
                            start = false;
                        }
                        _ => {}
                    }
                }
            }
        }
    }
    named
}

/// Whether the code names the package as a path or in a `use`.
fn names_package(code: &str, package: &str) -> bool {
    code.match_indices(package).any(|(position, _)| {
        let before = code[..position].chars().next_back();
        let after = &code[position + package.len()..];
        let free = before
            .is_none_or(|letter| !(letter.is_alphanumeric() || letter == '_' || letter == ':'));
        free && (after.starts_with("::") || after.starts_with(';'))
    })
}

#[test]
fn rooms_import_only_what_the_table_allows() {
    for source in sources() {
        if matches!(source.room.as_str(), "lib" | "main" | "app" | "cli") {
            continue;
        }
        let (_, allowed) = ARROWS
            .iter()
            .find(|(room, _)| *room == source.room)
            .unwrap_or_else(|| panic!("{} is in no row of the table", source.path.display()));
        for room in rooms_named(&source.code) {
            let fine = room == source.room || allowed.contains(&room.as_str());
            assert!(
                fine,
                "{}: {} may not import {room}",
                source.path.display(),
                source.room
            );
        }
    }
}

#[test]
fn nothing_imports_the_house() {
    for (room, allowed) in ARROWS {
        for house in HOUSE {
            assert!(!allowed.contains(house), "{room} may not import {house}");
        }
    }
}

#[test]
fn receive_and_deliver_meet_only_in_the_spool() {
    let allowed = |room| ARROWS.iter().find(|(own, _)| *own == room).unwrap().1;
    assert!(!allowed("receive").contains(&"deliver"));
    assert!(!allowed("deliver").contains(&"receive"));
    assert!(!allowed("lab").contains(&"header") && !allowed("lab").contains(&"trust"));
}

#[test]
fn every_package_has_its_home() {
    for source in sources() {
        for (package, homes) in HOMES {
            if names_package(&source.code, package) {
                assert!(
                    homes.contains(&source.room.as_str()),
                    "{}: {package} is not at home in {}",
                    source.path.display(),
                    source.room
                );
            }
        }
    }
}

#[test]
fn words_and_judgement_read_no_clock_and_open_no_socket() {
    for source in sources() {
        if !PURE.contains(&source.room.as_str()) {
            continue;
        }
        for word in [
            "Instant::now",
            "SystemTime::now",
            "std::net::Tcp",
            "std::fs::",
            "tokio::",
        ] {
            assert!(
                !source.code.contains(word),
                "{}: {word}",
                source.path.display()
            );
        }
    }
}

#[test]
fn the_table_catches_what_it_must() {
    let rooms = rooms_named(
        "use crate::{mail::Domain, trust::{self, Peer}, route};\nlet x = crate::spool::Due;",
    );
    assert_eq!(
        rooms.into_iter().collect::<Vec<_>>(),
        ["mail", "route", "spool", "trust"]
    );
    assert!(names_package("use sled::Db;", "sled"));
    assert!(!names_package("crate::sled::x", "sled") && !names_package("unsled::x", "sled"));
}
