//! `gatepost certificate rehearse`: what happens when this certificate is used, before it is.
//!
//! What `show` says of it, what changes against the one in force, what a reload would say, and then real handshakes
//! ([`super::handshakes`]).

use super::facts::Facts;
use super::handshakes::{self, Step};
use super::{Files, Told, Trouble, no_such, unix_seconds};
use crate::config::{Certificate, Loaded, Settings};
use crate::mail::{plain, shown};
use serde::Serialize;
use std::path::Path;

/// What is told.
#[derive(Debug, Serialize)]
struct Rehearsal {
    certificate: Facts,
    /// Against the one in force; empty where that is the one.
    changes: Vec<String>,
    /// Why a reload would refuse it; `None` where it is the one in force.
    reload_refuses: Option<Vec<String>>,
    handshakes: Vec<Step>,
    /// Why there are none.
    not_rehearsed: Option<String>,
}

/// Rehearses a certificate in all its uses.
pub(super) fn run(config: &Path, name: &str, files: &Files, json: bool) -> Told {
    let now = unix_seconds();
    let candidate = files.candidate(name);
    let tried = super::loaded(config, candidate)?;
    let own = named(&tried, name).ok_or_else(|| no_such(config, name, &tried))?;
    let present = match candidate {
        Some(_) => Some(super::loaded(config, None)?),
        None => None,
    };
    let changes = present
        .as_ref()
        .and_then(|present| named(present, name))
        .map_or_else(Vec::new, |old| changes(old, own));
    let in_force = present.as_ref().and_then(|loaded| loaded.settings.as_ref());
    let reload_refuses = match (in_force, &tried.settings) {
        (Some(before), Some(after)) => Some(crate::app::losses(before, after, now)),
        _ => None,
    };
    let mut rehearsal = Rehearsal {
        certificate: Facts::of(own, &tried.problems, now),
        changes,
        reload_refuses,
        handshakes: Vec::new(),
        not_rehearsed: None,
    };
    match &tried.settings {
        None => {
            let told = if rehearsal.certificate.is_well() {
                "the configuration is refused for something else: see `gatepost check`"
            } else {
                "with it the configuration would be refused: see the errors above"
            };
            rehearsal.not_rehearsed = Some(told.to_owned());
        }
        Some(_) if own.listeners.is_empty() && own.connectors.is_empty() => {
            rehearsal.not_rehearsed = Some("nothing depends on it".to_owned());
        }
        Some(settings) => {
            rehearsal.handshakes = play(in_force.unwrap_or(settings), settings, name)?;
        }
    }
    let text = if json {
        serde_json::to_string_pretty(&rehearsal).map_err(|error| error.to_string())? + "\n"
    } else {
        rehearsal.text()
    };
    Ok((rehearsal.is_well(), text))
}

fn play(in_force: &Settings, settings: &Settings, name: &str) -> Result<Vec<Step>, Trouble> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Trouble::Server(format!("no runtime: {error}")))?;
    let played = runtime.block_on(handshakes::play(in_force, settings, name));
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    played.map_err(Trouble::Server)
}

fn named<'a>(loaded: &'a Loaded, name: &str) -> Option<&'a Certificate> {
    let mut all = loaded.certificates.iter();
    all.find(|own| own.name.as_deref() == Some(name))
}

/// What is different, in words.
fn changes(old: &Certificate, new: &Certificate) -> Vec<String> {
    let mut changes = Vec::new();
    let missing = |from: &Certificate, of: &Certificate| {
        let missing = of.names.iter().filter(|name| !from.names.contains(name));
        let shown: Vec<String> = missing.map(|name| shown(name.as_bytes())).collect();
        (!shown.is_empty()).then(|| shown.join(", "))
    };
    changes.extend(missing(new, old).map(|names| format!("without the names {names}")));
    changes.extend(missing(old, new).map(|names| format!("with the new names {names}")));
    let leaf = |own: &Certificate| own.chain.as_ref()?.links.first().cloned();
    let (Some(old), Some(new)) = (leaf(old), leaf(new)) else {
        return changes;
    };
    if old.sha256 == new.sha256 {
        changes.push("it is the same certificate".to_owned());
        return changes;
    }
    if old.issuer != new.issuer {
        let (old, new) = (&old.issuer, &new.issuer);
        changes.push(format!("another issuer: {new} instead of {old}"));
    }
    if old.key != new.key {
        changes.push(format!(
            "another kind of key: {} instead of {}",
            new.key, old.key
        ));
    }
    if new.not_after <= old.not_after {
        changes.push("it ends no later than the one in force".to_owned());
    }
    changes
}

impl Rehearsal {
    fn is_well(&self) -> bool {
        let refused = self
            .reload_refuses
            .as_ref()
            .is_some_and(|why| !why.is_empty());
        let failed = self.handshakes.iter().any(|step| !step.well);
        self.certificate.is_well() && !refused && !failed && self.not_rehearsed.is_none()
    }

    fn text(&self) -> String {
        let mut lines = self.certificate.lines();
        let mut say = |key: &str, text: &str| lines.push(format!("  {key:<9} {}", plain(text)));
        for change in &self.changes {
            say("change", change);
        }
        match self.reload_refuses.as_deref() {
            Some([]) => say("reload", "would take it"),
            Some(why) => why
                .iter()
                .for_each(|why| say("reload", &format!("would refuse it: {why}"))),
            None => {}
        }
        for step in &self.handshakes {
            let mark = if step.well { "ok" } else { "FAILED" };
            say(mark, &format!("{}: {}", step.what, step.seen));
        }
        if let Some(why) = &self.not_rehearsed {
            say("", &format!("not rehearsed: {why}"));
        }
        let verdict = if self.is_well() {
            "it can be used"
        } else {
            "do not use it so"
        };
        lines.push(verdict.to_owned());
        lines.join("\n") + "\n"
    }
}
