//! What goes into the folder: the scripts filled in, the steps, the sums, and the secrets apart.

use super::plan::Plan;
use super::templates::{SCRIPTS, fill, is_for};
use super::{readme, secrets};
use sha2::{Digest as _, Sha256};
use std::fmt;

/// The sums of everything that is no secret, as `sha256sum -c` reads them.
pub const SUMS_FILE: &str = "SHA256SUMS";

/// The steps.
const README: &str = "README.md";

/// The keys of the configuration for which a value may be made.
pub const VALUES: [&str; 2] = ["secret_header", "loop_header"];

/// One file of a rendering.
#[derive(Clone)]
pub struct File {
    /// Its name in the folder.
    pub name: String,
    /// Its content.
    pub bytes: Vec<u8>,
    /// Holds a secret: for its owner alone, and in no sum.
    pub secret: bool,
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("File")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// A whole folder; `SHA256SUMS` comes last.
#[derive(Clone, Debug)]
pub struct Rendering {
    /// In the order in which they are written.
    pub files: Vec<File>,
}

/// A script asks for a value that this version does not know: a fault of the build, not of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RenderError {
    /// The script.
    pub script: String,
    /// The token.
    pub token: String,
}

impl fmt::Display for RenderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: no value for @{}@", self.script, self.token)
    }
}

impl std::error::Error for RenderError {}

/// Fills `scripts` in for the plan.
///
/// # Errors
/// A script holds a token that has no value.
pub fn render(plan: &Plan, scripts: &[(&str, &str)]) -> Result<Rendering, RenderError> {
    let tokens = plan.tokens();
    let mut files = Vec::with_capacity(scripts.len() + 5);
    let secret = |name: String, content: String| File {
        name,
        bytes: content.into_bytes(),
        secret: true,
    };
    files.push(secret(
        secrets::SECRETS_FILE.to_owned(),
        secrets::write(plan),
    ));
    for (key, header) in plan.made() {
        files.push(secret(
            value_file(key),
            format!("{}\n", header.value.expose_str()),
        ));
    }
    let own = scripts.iter().filter(|(name, _)| is_for(name, plan));
    for (name, template) in own {
        let text = fill(template, &tokens).map_err(|unknown| RenderError {
            script: (*name).to_owned(),
            token: unknown.0,
        })?;
        files.push(File {
            name: (*name).to_owned(),
            bytes: text.into_bytes(),
            secret: false,
        });
    }
    files.push(File {
        name: README.to_owned(),
        bytes: readme::write(plan).into_bytes(),
        secret: false,
    });
    let sums = sums(&files);
    files.push(File {
        name: SUMS_FILE.to_owned(),
        bytes: sums.into_bytes(),
        secret: false,
    });
    Ok(Rendering { files })
}

/// Whether a rendering of this version, or of one before it, wrote a file of this name: a script that goes is added here.
#[must_use]
pub fn is_ours(name: &str) -> bool {
    SCRIPTS.iter().any(|(own, _)| *own == name)
        || [README, SUMS_FILE, secrets::SECRETS_FILE].contains(&name)
        || VALUES.iter().any(|key| value_file(key) == name)
}

/// The file that holds a value which the configuration does not have yet, by the key that it lacks.
#[must_use]
pub fn value_file(key: &str) -> String {
    format!("{key}.value")
}

fn sums(files: &[File]) -> String {
    files
        .iter()
        .filter(|file| !file.secret)
        .map(|file| format!("{}  {}\n", sum(&file.bytes), file.name))
        .collect()
}

/// SHA-256 in hexadecimal.
#[must_use]
pub fn sum(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|octet| format!("{octet:02x}")).collect()
}

/// The names and sums that a `SHA256SUMS` of ours lists; `None` where a line is none of its kind.
#[must_use]
pub fn read_sums(text: &str) -> Option<Vec<(String, String)>> {
    text.lines()
        .map(|line| {
            let (sum, name) = line.split_once("  ")?;
            let good = sum.len() == 64 && sum.bytes().all(|octet| octet.is_ascii_hexdigit());
            good.then(|| (name.to_owned(), sum.to_ascii_lowercase()))
        })
        .collect()
}
