//! What must stand on Exchange's side of a tenant, how is it set up, and what does it differ in?
//!
//! [`Plan`] is the desired state, taken from the configuration and the certificates that it names. [`render`] fills the
//! PowerShell scripts of `connector-templates/` in from it; [`diff`] compares it with what an administrator exported from
//! the tenant. No socket, no file and no clock: the command line reads and writes.
//!
//! Exchange names connectors from its own side: its inbound connector is where we deliver.

#[cfg(test)]
pub(crate) mod fixtures;
#[cfg(test)]
mod tests;

mod certificate_name;
mod desired;
mod diff;
mod export;
mod found;
mod further;
mod judge;
mod lifetime;
mod literal;
mod objects;
mod plan;
mod readme;
mod render;
mod rules;
mod secrets;
mod templates;
mod tenancy;
mod told;
mod turn;

pub use diff::{Drift, Exports, Mend, Note, Report, diff};
pub use export::{Exported, NotAnExport};
pub use literal::{literal, literals};
pub use plan::{Delivery, Door, ENVIRONMENTS, Facts, Finding, Grade, Header, Plan, Spare, Token};
pub use render::{
    File, RenderError, Rendering, SUMS_FILE, VALUES, is_ours, read_sums, render, sum, value_file,
};
pub use secrets::{Kept, SECRETS_FILE, read as read_secrets};
pub use templates::SCRIPTS;

/// With this the comment of every object of ours begins; what has it not is never touched.
pub const MARK: &str = "Managed by Gatepost (schema 1)";
