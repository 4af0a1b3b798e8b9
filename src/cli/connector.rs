//! `gatepost connector`: the scripts for Exchange's side of a tenant, and what that side has become.

mod age;
mod diff;
mod folder;
mod render;

use super::Trouble;
use crate::config::{self, Problem, Settings, Severity};
use crate::connector::{Delivery, Door, Facts, Finding, Grade, Plan, Spare};
use crate::mail::Mailbox;
use crate::receive::Service;
use crate::trust::{Tenant, endpoints};
use clap::Subcommand;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Write the PowerShell scripts that make a tenant's connectors and rules, filled in, with the steps in order.
    Render(render::Arguments),
    /// Compare exports of the tenant with what `render` would set: every drift, what it breaks, what mends it.
    Diff(diff::Arguments),
}

/// Does it: whether all is well, and what to print. Bad news is a configuration that makes no set, and drift.
pub(super) fn answer(
    path: &Path,
    (settings, warnings): (Settings, Vec<Problem>),
    action: &Action,
    json: bool,
) -> Result<(bool, String), Trouble> {
    let loaded = Configuration {
        path: path.to_owned(),
        settings,
        warnings,
    };
    match action {
        Action::Render(arguments) => render::answer(&loaded, arguments, json),
        Action::Diff(arguments) => diff::answer(&loaded, arguments, json),
    }
}

/// The configuration, as far as it was read, and where.
struct Configuration {
    path: PathBuf,
    settings: Settings,
    warnings: Vec<Problem>,
}

/// What a command is asked for beside the configuration.
struct Wishes<'a> {
    pilot_group: Option<&'a Mailbox>,
    environment: Option<&'a str>,
    spare: Option<&'a Spare>,
}

impl Configuration {
    /// The tenant of this name, or the only one.
    fn tenant(&self, name: Option<&str>) -> Result<&Arc<Tenant>, Trouble> {
        let names: Vec<&str> = self
            .settings
            .tenants
            .iter()
            .map(|tenant| &*tenant.name)
            .collect();
        match name {
            Some(name) => self.settings.tenants.named(name).ok_or_else(|| {
                Trouble::Use(format!("no tenant {name}: there is {}", names.join(", ")))
            }),
            None if names.len() == 1 => self
                .settings
                .tenants
                .iter()
                .next()
                .ok_or_else(|| Trouble::Use("no tenant".to_owned())),
            None if names.is_empty() => Err(Trouble::Use(format!(
                "{}: no [[tenant]]",
                self.path.display()
            ))),
            None => Err(Trouble::Use(format!(
                "--tenant NAME: one of {}",
                names.join(", ")
            ))),
        }
    }

    /// The desired state; every finding and every warning of the check about it goes to standard error.
    fn plan(&self, tenant: &Tenant, wishes: &Wishes<'_>) -> Option<Plan> {
        let settings = &self.settings;
        let connector = |tenant: &Tenant| {
            let mut all = settings.inbound_connectors.iter();
            all.find(|connector| connector.tenant == tenant.name)
        };
        // A listener is every tenant's: by the routes one of them may be for applications alone.
        let is_sent_to = settings.routes.take_from_exchange(tenant);
        let doors: Vec<Door<'_>> = settings
            .listeners
            .iter()
            .filter(|listener| is_sent_to && listener.service == Service::Connector)
            .map(|listener| Door {
                name: &listener.name,
                port: listener.address.port(),
                identity: listener.identity.as_deref(),
            })
            .collect();
        let facts = Facts {
            hostname: &settings.hostname,
            tenant,
            others: settings
                .tenants
                .iter()
                .filter(|other| other.name != tenant.name)
                .map(|other| {
                    (
                        &**other,
                        connector(other).map(|connector| &*connector.identity),
                    )
                })
                .collect(),
            doors,
            connector: connector(tenant).map(|connector| Delivery {
                host: &connector.host,
                port: connector.port,
                identity: &connector.identity,
                cloud: connector.cloud_services_mail_enabled,
            }),
            pilot_group: wishes.pilot_group,
            environment: wishes.environment,
            client_names: &settings.exchange_online.client_certificate_names,
            has_shipped_networks: settings.endpoints_made.is_some()
                && settings.endpoints == endpoints::shipped(),
            spare: wishes.spare,
        };
        let (plan, findings) = Plan::make(&facts);
        let (told, lapsed) = self.told(&facts, &findings);
        for problem in told {
            eprintln!("{problem}");
        }
        plan.filter(|_| !lapsed)
    }

    /// What concerns the set, in the order of the lines, and whether a certificate of it has lapsed.
    fn told(&self, facts: &Facts<'_>, findings: &[Finding]) -> (Vec<Problem>, bool) {
        let mut keys = vec![format!("tenant.{}.", facts.tenant.name)];
        let identities = facts.doors.iter().filter_map(|door| door.identity);
        let identities = identities.chain(facts.connector.map(|delivery| delivery.identity));
        keys.extend(identities.map(|identity| format!("certificate.{}.", identity.name)));
        keys.extend(
            facts
                .doors
                .iter()
                .map(|door| format!("listener.{}.", door.name)),
        );
        let mut told: Vec<Problem> = self
            .warnings
            .iter()
            .filter(|problem| {
                problem.key == "hostname" || keys.iter().any(|key| problem.key.starts_with(key))
            })
            // The plan says more about these, or the same.
            .filter(|problem| {
                findings.iter().all(|finding| {
                    finding.key != problem.key
                        || !problem.key.starts_with("listener.") && finding.text != problem.text
                })
            })
            .cloned()
            .collect();
        let lapsed = told
            .iter()
            .any(|problem| problem.severity == Severity::Lapsed);
        told.extend(findings.iter().map(|finding| Problem {
            file: self.path.clone(),
            line: config::line_of_key(&self.path, &finding.key),
            key: finding.key.clone(),
            severity: match finding.grade {
                Grade::Error => Severity::Error,
                Grade::Warning => Severity::Warning,
            },
            text: finding.text.clone(),
        }));
        told.sort_by_key(|problem| problem.line);
        (told, lapsed)
    }
}
