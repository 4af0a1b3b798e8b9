//! `gatepost certificate show`: what each certificate says, and who depends on it.

use super::facts::Facts;
use super::{Files, Told, no_such, unix_seconds};
use crate::config::{
    self, Candidate, Certificate, ConnectorUse, ListenerUse, Loaded, Surroundings,
};
use crate::session::Service;
use crate::trust::sender_name::SenderName;
use std::path::Path;
use std::sync::Arc;

/// Shows one, all, or one that is in two files.
pub(super) fn run(config: &Path, name: Option<&str>, files: &Files, json: bool) -> Told {
    let now = unix_seconds();
    let facts = match (name, files.both()) {
        (None, Some((chain, key))) => vec![of_files(config, chain, key, now)?],
        (name, _) => {
            let candidate = name.and_then(|name| files.candidate(name));
            let loaded = super::loaded(config, candidate)?;
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

/// A chain and key that no configuration names: judged as `check` would, and held against every use that there could be.
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
    match config::load(config) {
        Ok(configuration) => could_serve(&mut certificate, &configuration),
        // Without a configuration there is still the certificate itself.
        Err(_) if !config.exists() => {}
        Err(error) => eprintln!("gatepost: {error}"),
    }
    Ok(Facts::of(&certificate, &loaded.problems, now))
}

/// The same check, of a configuration with nothing in it but this certificate.
fn checked(chain: &Path, key: &Path, unix_seconds: u64) -> Result<Loaded, super::Trouble> {
    const NAME: &str = "these-files";
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

/// Every connector listener and every tenant of the configuration: what it would be compared with there.
fn could_serve(certificate: &mut Certificate, configuration: &Loaded) {
    let Some(settings) = &configuration.settings else {
        eprintln!("gatepost: the configuration has errors: it is not compared with");
        return;
    };
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
}
