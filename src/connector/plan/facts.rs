//! What is the plan made of? What the configuration says, and what its certificates carry.

use crate::connector::secrets::Kept;
use crate::mail::{Domain, Mailbox, Secret};
use crate::trust::Tenant;
use crate::trust::certificate::Identity;

/// What Connect-ExchangeOnline knows as `-ExchangeEnvironmentName`; the first is the default.
pub const ENVIRONMENTS: [&str; 5] = [
    "O365Default",
    "O365GermanyCloud",
    "O365China",
    "O365USGovGCCHigh",
    "O365USGovDoD",
];

/// What the plan is made of.
#[derive(Debug)]
pub struct Facts<'a> {
    /// `hostname`: what Exchange connects to.
    pub hostname: &'a Domain,
    /// Whose connectors.
    pub tenant: &'a Tenant,
    /// Every other tenant with the certificate that it shows Exchange.
    pub others: Vec<(&'a Tenant, Option<&'a Identity>)>,
    /// The connector listeners, in the order of the configuration; none where no route takes the tenant's mail from there.
    pub doors: Vec<Door<'a>>,
    /// `[tenant.inbound_connector]`.
    pub connector: Option<Delivery<'a>>,
    /// Who is in the pilot; without, everyone from the start.
    pub pilot_group: Option<&'a Mailbox>,
    /// One of [`ENVIRONMENTS`], where it is said.
    pub environment: Option<&'a str>,
    /// `client_certificate_names`.
    pub client_names: &'a [Domain],
    /// The published networks are in use, as this version ships them.
    pub has_shipped_networks: bool,
    /// Values for header fields that the configuration does not have yet; without, such a field is an error.
    pub spare: Option<&'a Spare>,
}

/// Where and as whom we deliver to the tenant.
#[derive(Clone, Copy, Debug)]
pub struct Delivery<'a> {
    /// `host`.
    pub host: &'a str,
    /// `port`.
    pub port: u16,
    /// `certificate`.
    pub identity: &'a Identity,
    /// `cloud_services_mail_enabled`.
    pub cloud: bool,
}

/// A connector listener.
#[derive(Debug)]
pub struct Door<'a> {
    /// `name`.
    pub name: &'a str,
    /// The port that it listens on.
    pub port: u16,
    /// What it shows.
    pub identity: Option<&'a Identity>,
}

/// Values for fields that are missing: hard to guess, or those of an earlier rendering.
#[derive(Clone, Debug)]
pub struct Spare {
    /// For the secret header.
    pub secret: Secret,
    /// For the loop header.
    pub looped: Secret,
}

impl Spare {
    /// What an earlier rendering of the same tenant made, else these.
    #[must_use]
    pub fn kept_or(kept: Option<&Kept>, fresh: Self) -> Self {
        match kept {
            Some(kept) => Self {
                secret: kept.secret.clone().unwrap_or(fresh.secret),
                looped: kept.looped.clone().unwrap_or(fresh.looped),
            },
            None => fresh,
        }
    }
}
