//! `gatepost certificate`: what a certificate says and who depends on it, what would happen if another took its place, and
//! how one is asked for.

mod facts;
mod handshakes;
pub(super) mod obtain;
mod rehearse;
mod request;
mod show;

use super::{Trouble, unix_millis};
use crate::config::{self, Candidate, Loaded};
use clap::{Args, Subcommand};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Each certificate: chain, names, key, dates, what Exchange compares, who depends on it. Status 1 for bad news.
    Show {
        /// A [[certificate]] of the configuration; absent: all of them.
        name: Option<String>,
        /// Files that are not in their places yet.
        #[command(flatten)]
        files: Files,
    },
    /// Try a certificate in all its uses, with real handshakes against a simulated Exchange Online on loopback.
    Rehearse {
        /// A [[certificate]] of the configuration.
        name: String,
        /// Files that are not in their places yet.
        #[command(flatten)]
        files: Files,
    },
    /// Order a certificate from the authority of [acme] and put it in its place: the first one, or one that is due.
    Obtain {
        /// A [[certificate]] with acme = true.
        name: String,
        /// Even if it is not due.
        #[arg(long)]
        now: bool,
    },
    /// Make a private key and a certificate signing request (PKCS #10).
    Request(request::Arguments),
}

/// A chain and key that are not in their places yet.
#[derive(Debug, Args)]
pub struct Files {
    /// A chain in PEM form that is not in its place yet.
    #[arg(long, value_name = "FILE", requires = "key")]
    chain: Option<PathBuf>,
    /// Its private key.
    #[arg(long, value_name = "FILE", requires = "chain")]
    key: Option<PathBuf>,
}

impl Files {
    fn both(&self) -> Option<(&Path, &Path)> {
        self.chain.as_deref().zip(self.key.as_deref())
    }

    /// The files in the place of those of this certificate.
    fn candidate<'a>(&'a self, name: &'a str) -> Option<Candidate<'a>> {
        let (chain, key) = self.both()?;
        Some(Candidate { name, chain, key })
    }
}

/// Runs the command.
#[must_use]
pub fn run(config: &Path, action: &Action, json: bool) -> ExitCode {
    let done = match action {
        Action::Show { name, files } => show::run(config, name.as_deref(), files, json),
        Action::Rehearse { name, files } => rehearse::run(config, name, files, json),
        Action::Obtain { name, now } => obtain::run(config, name, *now, json),
        Action::Request(arguments) => request::run(arguments, json),
    };
    let (status, problem) = match done {
        Ok((well, text)) => return super::print(text.as_bytes(), ExitCode::from(u8::from(!well))),
        Err(Trouble::NobodyReads) => return ExitCode::SUCCESS,
        Err(Trouble::Use(problem)) => (2, problem),
        Err(Trouble::Server(problem)) => (1, problem),
    };
    eprintln!("gatepost: {problem}");
    ExitCode::from(status)
}

/// Whether the news is good, and the answer.
type Told = Result<(bool, String), Trouble>;

/// The configuration, which may have errors: a certificate that is one of them is what people come to look at.
fn loaded(config: &Path, candidate: Option<Candidate<'_>>) -> Result<Loaded, Trouble> {
    config::load_with(config, candidate).map_err(|error| Trouble::Use(error.to_string()))
}

fn unix_seconds() -> u64 {
    unix_millis() / 1000
}

fn no_such(config: &Path, name: &str, loaded: &Loaded) -> Trouble {
    let known: Vec<&str> = loaded
        .certificates
        .iter()
        .filter_map(|own| own.name.as_deref())
        .collect();
    Trouble::Use(format!(
        "{}: no [[certificate]] is named {name:?}; there is {}",
        config.display(),
        known.join(", ")
    ))
}
