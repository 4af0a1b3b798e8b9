//! `gatepost certificate obtain`, and what the running server does when a certificate is due: ordered from the authority of
//! `[acme]`, judged as a reload would, and only then put in its place.

use super::{Told, Trouble, facts, no_such, unix_seconds};
use crate::acme::{self, Fault, schedule};
use crate::config::{self, Candidate, Certificate, Loaded, Settings};
use crate::dns::Dns;
use crate::journal::disk::{RealDisk, make_directory};
use crate::trust::certificate::Origin;
use rcgen::KeyPair;
use rustls_pki_types::PrivateKeyDer;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What came of an order that the authority has signed.
#[derive(Debug)]
pub(in crate::cli) enum Obtained {
    /// It is in its place, at this path.
    InPlace(PathBuf),
    /// It lies beside, and would break what works: why.
    Refused(PathBuf, Vec<String>),
}

/// Orders one by hand: the first one, or one that is due.
pub(super) fn run(config: &Path, name: &str, now: bool, json: bool) -> Told {
    let loaded = super::loaded(config, None)?;
    let own = named(&loaded, name).ok_or_else(|| no_such(config, name, &loaded))?;
    if own.acme_names.is_empty() {
        let why = format!("certificate {name} has no acme = true: nobody is asked for it");
        return Err(Trouble::Use(why));
    }
    let leaf = own.chain.as_ref().and_then(|chain| chain.links.first());
    let due = leaf.map(|leaf| schedule::due(leaf.not_before, leaf.not_after, 0));
    if let Some(due) = due.filter(|&due| due > unix_seconds() && !now) {
        let due = super::super::clock(due * 1000);
        let text =
            format!("certificate {name} is not due before {due}; --now orders it all the same\n");
        return Ok((true, told(json, name, "not_due", &text)));
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Trouble::Server(format!("no runtime: {error}")))?;
    match runtime.block_on(obtain(config, name, loaded.settings.as_ref())) {
        Ok(Obtained::InPlace(path)) => {
            let text = format!(
                "{}: in its place; a running server takes it with SIGHUP\n",
                path.display()
            );
            Ok((true, told(json, name, "in_place", &text)))
        }
        Ok(Obtained::Refused(path, why)) => {
            let text = format!(
                "{}: signed, and not put in its place: {}\n",
                path.display(),
                why.join("; ")
            );
            Ok((false, told(json, name, "refused", &text)))
        }
        Err(fault) => Err(Trouble::Server(format!("certificate {name}: {fault}"))),
    }
}

fn told(json: bool, name: &str, result: &str, text: &str) -> String {
    if json {
        let text = text.trim_end();
        let facts = serde_json::json!({ "name": name, "result": result, "text": text });
        format!("{facts:#}\n")
    } else {
        text.to_owned()
    }
}

fn named<'a>(loaded: &'a Loaded, name: &str) -> Option<&'a Certificate> {
    let mut all = loaded.certificates.iter();
    all.find(|own| own.name.as_deref() == Some(name))
}

/// Orders a certificate as the configuration file says, judges it against what is in force, and puts it in its place.
///
/// # Errors
/// There is none: what the authority or the configuration says.
pub(in crate::cli) async fn obtain(
    config: &Path,
    name: &str,
    in_force: Option<&Settings>,
) -> Result<Obtained, Fault> {
    let failed = |why: String| Fault::Failed(why);
    let loaded = config::load(config).map_err(|error| failed(error.to_string()))?;
    let own = named(&loaded, name);
    let own = own.ok_or_else(|| failed("is not in the configuration any more".to_owned()))?;
    let (Some(authority), Some(files)) = (&loaded.acme, &own.origin) else {
        let why = "the configuration names no [acme] authority, or no chain and key";
        return Err(failed(why.to_owned()));
    };
    let servers = loaded
        .settings
        .as_ref()
        .and_then(|own| own.dns_servers.as_deref());
    let resolver = Dns::new(servers).map_err(|error| failed(format!("dns: {error}")))?;
    make_directory(&RealDisk, &authority.folder).map_err(|error| failed(error.to_string()))?;
    let key = key(&files.key).map_err(failed)?;
    let chain = acme::obtain(authority, Arc::new(resolver), &own.acme_names, &key).await?;
    let beside = beside(&files.chain);
    write(&beside, chain.as_bytes()).map_err(failed)?;
    let candidate = Candidate {
        name,
        chain: &beside,
        key: &files.key,
    };
    let refusals = refusals(config, candidate, in_force).map_err(failed)?;
    if !refusals.is_empty() {
        return Ok(Obtained::Refused(beside, refusals));
    }
    put(&beside, files).map_err(failed)?;
    Ok(Obtained::InPlace(files.chain.clone()))
}

/// The key that is there, or a new one where there is none.
fn key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    if !path.exists() {
        let key = KeyPair::generate().map_err(|error| error.to_string())?;
        super::request::write_new(path, key.serialize_pem().as_bytes(), 0o600)
            .map_err(|trouble| trouble.to_string())?;
    }
    let pem = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    config::pem::key(&pem)
        .ok_or_else(|| format!("{} holds no private key in PEM form", path.display()))
}

/// Why the candidate must not be used: what `check` has against it, and what would be lost by it.
fn refusals(
    config: &Path,
    candidate: Candidate<'_>,
    in_force: Option<&Settings>,
) -> Result<Vec<String>, String> {
    let loaded = match in_force {
        Some(settings) => config::reload_with(config, &settings.endpoints, candidate),
        None => config::load_with(config, Some(candidate)),
    };
    let loaded = loaded.map_err(|error| error.to_string())?;
    let keys = named(&loaded, candidate.name).map_or_else(Vec::new, facts::keys);
    let of_its_own = |problem: &&config::Problem| {
        problem.severity.is_bad() && (in_force.is_some() || keys.contains(&problem.key))
    };
    let problems = loaded.problems.iter().filter(of_its_own);
    let bad: Vec<String> = problems.map(ToString::to_string).collect();
    match (in_force, &loaded.settings) {
        (Some(before), Some(after)) => {
            // What is bad but usable was so before, too; what matters is what would be lost.
            Ok(crate::app::losses(before, after, unix_seconds()))
        }
        _ => Ok(bad),
    }
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

fn write(path: &Path, content: &[u8]) -> Result<(), String> {
    let written = || -> std::io::Result<()> {
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o644);
        let mut file = options.open(path)?;
        file.write_all(content)?;
        file.sync_all()
    };
    written().map_err(|error| format!("{}: {error}", path.display()))
}

/// In one step, so that whoever reads sees the old chain or the new one; the key is the same for both.
fn put(new: &Path, files: &Origin) -> Result<(), String> {
    let moved = || -> std::io::Result<()> {
        std::fs::rename(new, &files.chain)?;
        let folder = files
            .chain
            .parent()
            .filter(|own| !own.as_os_str().is_empty());
        std::fs::File::open(folder.unwrap_or_else(|| Path::new(".")))?.sync_all()
    };
    moved().map_err(|error| format!("{}: {error}", files.chain.display()))
}
