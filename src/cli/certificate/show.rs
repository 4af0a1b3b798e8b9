//! `gatepost certificate show`: what each certificate says, and who depends on it.
//!
//! Files that are not in their places yet are judged as `check` would judge them there, where the configuration leaves one
//! place only. Otherwise they are held against every use that there could be.

use super::facts::Facts;
use super::{Files, Told, no_such, unix_seconds};
use crate::config::{
    self, Candidate, Certificate, ConnectorUse, ListenerUse, Loaded, Severity, Surroundings,
};
use crate::session::Service;
use crate::trust::certificate::Role;
use crate::trust::sender_name::SenderName;
use std::path::Path;
use std::sync::Arc;

/// Shows one, all, or one that is in two files.
pub(super) fn run(config: &Path, name: Option<&str>, files: &Files, json: bool) -> Told {
    let now = unix_seconds();
    let facts = match (name, files.both()) {
        (None, Some((chain, key))) => vec![of_files(config, chain, key, now)?],
        (Some(name), Some(_)) => {
            let loaded = super::loaded(config, files.candidate(name))?;
            let facts = of_configuration(config, Some(name), &loaded, now)?;
            let place = format!("{}: as if these files were there", place(config, name));
            let facts = facts.into_iter();
            facts.map(|facts| facts.judged_as(place.clone())).collect()
        }
        (name, None) => {
            let loaded = super::loaded(config, None)?;
            of_configuration(config, name, &loaded, now)?
        }
    };
    let well = facts.iter().all(Facts::is_well);
    if json {
        let text = serde_json::to_string_pretty(&facts).map_err(|error| error.to_string())?;
        return Ok((well, text + "\n"));
    }
    if facts.is_empty() {
        return Ok((well, "no [[certificate]] in the configuration\n".to_owned()));
    }
    let blocks = facts.iter().map(|facts| facts.lines().join("\n") + "\n");
    Ok((well, blocks.collect::<Vec<_>>().join("\n")))
}

fn of_configuration(
    config: &Path,
    name: Option<&str>,
    loaded: &Loaded,
    now: u64,
) -> Result<Vec<Facts>, super::Trouble> {
    let wanted = |own: &&Certificate| name.is_none() || own.name.as_deref() == name;
    let found = loaded.certificates.iter().filter(wanted);
    let facts: Vec<Facts> = found
        .map(|own| Facts::of(own, &loaded.problems, now))
        .collect();
    match name {
        Some(name) if facts.is_empty() => Err(no_such(config, name, loaded)),
        _ => Ok(facts),
    }
}

fn place(config: &Path, name: &str) -> String {
    format!("[[certificate]] {name} of {}", config.display())
}

/// A chain and key that no configuration names.
fn of_files(config: &Path, chain: &Path, key: &Path, now: u64) -> Result<Facts, super::Trouble> {
    let loaded = checked(chain, key, now)?;
    let mut certificate = loaded
        .certificates
        .into_iter()
        .next()
        .filter(|certificate| certificate.key_fits.is_some())
        .ok_or_else(|| {
            let problems = loaded.problems.iter();
            let faults = problems.filter(|problem| {
                problem.severity.is_bad() && problem.key.starts_with("certificate.")
            });
            let faults: Vec<&str> = faults.map(|problem| problem.text.as_str()).collect();
            super::Trouble::Use(faults.join("\n"))
        })?;
    let configuration = match config::load(config) {
        Ok(configuration) => Some(configuration),
        // Without a configuration there is still the certificate itself.
        Err(_) if !config.exists() => None,
        Err(error) => {
            eprintln!("gatepost: {error}");
            None
        }
    };
    let meant = configuration
        .as_ref()
        .map_or_else(Vec::new, |own| meant(own, &certificate, key));
    if let [(name, why)] = meant.as_slice() {
        let tried = super::loaded(config, Some(Candidate { name, chain, key }))?;
        let facts = of_configuration(config, Some(name), &tried, now)?;
        let place = format!(
            "{}, {why}: as if these files were there",
            place(config, name)
        );
        let first = facts.into_iter().next();
        return first
            .map(|facts| facts.judged_as(place))
            .ok_or_else(|| no_such(config, name, &tried));
    }
    let fits = configuration
        .as_ref()
        .map(|own| could_serve(&mut certificate, own));
    let mut facts = Facts::of(&certificate, &loaded.problems, now);
    if let [(first, _), ..] = meant.as_slice() {
        let names: Vec<&str> = meant.iter().map(|(name, _)| *name).collect();
        let names = names.join(", ");
        facts = facts.judged_as(format!(
            "none yet: it could be that of {names}. As `check` would judge it there: `certificate show {first} --chain FILE --key FILE`"
        ));
    }
    match fits {
        Some(Some(false)) => {
            let text = "no tenant has an accepted domain that a name of it is, or is below, and none of its names is hostname: nothing here could use it";
            facts = facts.and(NAME, Severity::Error, text.to_owned());
        }
        Some(None) => {
            let text = "the configuration has errors (`gatepost check`): it was compared with nothing there";
            facts = facts.and(NAME, Severity::Warning, text.to_owned());
        }
        Some(Some(true)) | None => {}
    }
    let chain = certificate.chain.as_ref();
    let as_server = chain.and_then(|chain| chain.forbids(Role::Server));
    if as_server.is_some_and(|(_, link)| link.usage.allows(Role::Client)) {
        let text = "its extended key usage allows client authentication alone: good for an inbound connector, and on a listener whoever looks refuses it";
        facts = facts.and(NAME, Severity::Warning, text.to_owned());
    }
    Ok(facts)
}

/// The `[[certificate]]`s that the files could be for, and why, where it is one: those that have one of its names or its
/// key; where there are none, all.
fn meant<'a>(
    configuration: &'a Loaded,
    own: &Certificate,
    key: &Path,
) -> Vec<(&'a str, &'static str)> {
    let key = key.canonicalize().ok();
    let is_related = |other: &&Certificate| {
        let mut names = other.names.iter().chain(&other.acme_names);
        let is_own = |name: &String| own.names.iter().any(|own| own.eq_ignore_ascii_case(name));
        let file = other.origin.as_ref();
        let file = file.and_then(|files| files.key.canonicalize().ok());
        names.any(is_own) || key.is_some() && file == key
    };
    let named = |other: &'a Certificate| other.name.as_deref();
    let all = configuration.certificates.iter();
    let related: Vec<&str> = all.clone().filter(is_related).filter_map(named).collect();
    let all: Vec<&str> = all.filter_map(named).collect();
    let (places, why) = match (all.as_slice(), related.as_slice()) {
        ([_], _) => (all, "the only one there"),
        (_, []) => (all, ""),
        _ => (
            related,
            "the only one that has one of its names, or its key",
        ),
    };
    places.into_iter().map(|name| (name, why)).collect()
}

/// What files are called that no configuration names.
const NAME: &str = "these-files";

/// The same check, of a configuration with nothing in it but this certificate.
fn checked(chain: &Path, key: &Path, unix_seconds: u64) -> Result<Loaded, super::Trouble> {
    let system_roots = std::cell::OnceCell::new();
    let surroundings = Surroundings {
        environment: &|_| None,
        system_roots: &|| Arc::clone(system_roots.get_or_init(|| Arc::new(config::system_roots()))),
        unix_seconds,
        endpoints_in_force: None,
        candidate: Some(Candidate {
            name: NAME,
            chain,
            key,
        }),
    };
    let source = format!("[[certificate]]\nname = \"{NAME}\"\nchain = \"x\"\nkey = \"x\"\n");
    let here = Path::new(NAME);
    let loaded = config::parse(here, &source, &surroundings);
    loaded.map_err(|error| super::Trouble::Use(error.to_string()))
}

/// Every connector listener and every tenant of the configuration: what it would be compared with there. Whether something
/// could use it, as far as names tell; `None` where the configuration is refused.
fn could_serve(certificate: &mut Certificate, configuration: &Loaded) -> Option<bool> {
    let settings = configuration.settings.as_ref()?;
    let covers = |name: &String| crate::trust::certificate::name_covers(name, &settings.hostname);
    let covers_hostname = Some(certificate.names.iter().any(covers));
    let listeners = settings.listeners.iter();
    let connectors = listeners.filter(|listener| listener.service == Service::Connector);
    certificate.listeners = connectors
        .map(|listener| ListenerUse {
            name: Arc::clone(&listener.name),
            service: listener.service,
            covers_hostname,
        })
        .collect();
    let tenants = settings.tenants.iter().map(|tenant| {
        let mut connectors = settings.inbound_connectors.iter();
        let connector = connectors.find(|connector| connector.tenant == tenant.name);
        ConnectorUse {
            tenant: Arc::clone(&tenant.name),
            host: connector.map_or_else(|| "no connector yet".into(), |one| Arc::clone(&one.host)),
            sender_name: SenderName::of(&certificate.names, &tenant.accepted_domains),
        }
    });
    certificate.connectors = tenants.collect();
    let mut tenants = certificate.connectors.iter();
    let fits = covers_hostname == Some(true);
    Some(fits || tenants.any(|own| own.sender_name != SenderName::None))
}
