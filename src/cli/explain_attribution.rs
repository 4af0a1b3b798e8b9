//! `gatepost explain attribution`: for which tenant would Exchange Online take this mail, and why?
//!
//! Offline, from the configuration: the tenants with their accepted domains, connectors and certificates. What Exchange
//! holds beside that (the connector's name and type, RejectDirectSend) is taken to be as our scripts set it, unless said.

use crate::config::{self, Settings};
use crate::deliver::InboundConnector;
use crate::exchange::attribution::{
    self, Answer, By, Connector, ConnectorType, Organization, Question, Verdict, attribute,
};
use crate::mail::{Domain, DomainPattern, ReversePath};
use crate::trust::certificate::Roots;
use crate::trust::presented::Presented;
use crate::trust::{Tenant, sender_name};
use clap::{Args, ValueEnum};
use rustls_pki_types::CertificateDer;
use std::path::{Path, PathBuf};

/// What is asked.
#[derive(Debug, Default, Args)]
pub struct Arguments {
    /// The tenant whose mail it is meant to be; without, the sender's, or each.
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
    /// The certificate that is shown, with its intermediates; without, the one of the tenant's inbound connector.
    #[arg(long, value_name = "FILE.pem", conflicts_with = "no_certificate")]
    certificate: Option<PathBuf>,
    /// As if no certificate were shown.
    #[arg(long)]
    no_certificate: bool,
    /// The envelope sender; empty or `<>` for null; without, one in the tenant's first accepted domain.
    #[arg(long, value_name = "ADDRESS", allow_hyphen_values = true)]
    mail_from: Option<String>,
    /// A recipient; without, one in the tenant's first accepted domain.
    #[arg(long, value_name = "ADDRESS", allow_hyphen_values = true)]
    to: Option<String>,
    /// The host that is delivered to; without, the one of the tenant's inbound connector.
    #[arg(long, value_name = "NAME")]
    host: Option<String>,
    /// TlsSenderCertificateName, as Get-InboundConnector shows it; without, as `connector render` writes it.
    #[arg(long, value_name = "NAME")]
    connector_name: Option<String>,
    /// ConnectorType, as Get-InboundConnector shows it.
    #[arg(long, value_enum, default_value = "on-premises")]
    connector_type: Type,
    /// RejectDirectSend, as Get-OrganizationConfig shows it; without, both are told.
    #[arg(long, value_enum)]
    reject_direct_send: Option<Switch>,
    #[command(flatten)]
    roots: RootsOption,
}

/// Which authorities Exchange is taken to trust.
#[derive(Clone, Debug, Default, Args)]
pub struct RootsOption {
    /// The authorities that Exchange trusts, as PEM; without, those of this system with Microsoft's.
    #[arg(long, value_name = "FILE.pem")]
    roots: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Type {
    #[default]
    OnPremises,
    Partner,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Switch {
    On,
    Off,
}

impl RootsOption {
    /// Reads them.
    ///
    /// # Errors
    /// The file cannot be read or holds none.
    pub fn load(&self) -> Result<Roots, String> {
        let Some(path) = &self.roots else {
            return Ok(config::system_roots());
        };
        let certificates = super::explain_trust::read_chain(path)?;
        match Roots::from_certificates(&certificates) {
            (roots, 0) => Ok(roots),
            (_, bad) => Err(format!(
                "{}: {bad} certificate(s) that cannot be used as roots",
                path.display()
            )),
        }
    }
}

/// One answer with what was asked, as it is printed.
struct Told {
    tenant: Option<String>,
    sender: ReversePath,
    recipient: String,
    host: Option<String>,
    certificate: String,
    connector: Option<(String, bool)>,
    answer: Answer,
}

/// What to print, and whether Exchange would take all of it as the mail of the tenant that is meant.
///
/// # Errors
/// A file that cannot be read, or an argument that is none.
pub fn answer(
    settings: &Settings,
    arguments: &Arguments,
    json: bool,
    now: u64,
) -> Result<(bool, String), String> {
    let told = ask(settings, arguments, now)?;
    let good = told
        .iter()
        .all(|told| told.answer.verdict == Verdict::Attributed);
    let text = if json {
        let rows: Vec<serde_json::Value> = told.iter().map(Told::as_json).collect();
        serde_json::to_string_pretty(&rows).map_err(|error| error.to_string())? + "\n"
    } else {
        let texts: Vec<String> = told.iter().map(Told::as_text).collect();
        texts.join("\n")
    };
    Ok((good, text))
}

fn ask(settings: &Settings, arguments: &Arguments, now: u64) -> Result<Vec<Told>, String> {
    let roots = arguments.roots.load()?;
    let sender = arguments
        .mail_from
        .as_deref()
        .map(|text| reverse_path("--mail-from", text))
        .transpose()?;
    let recipient = arguments
        .to
        .as_deref()
        .map(|text| reverse_path("--to", text))
        .transpose()?;
    if recipient == Some(ReversePath::Null) {
        return Err("--to: a recipient is no null path".to_owned());
    }
    let given = arguments
        .certificate
        .as_deref()
        .map(|path| shown_by_file(path, &roots, now))
        .transpose()?;
    let organizations = organizations(settings, arguments);
    let meant = meant(settings, arguments, sender.as_ref())?;
    let mut told = Vec::new();
    for tenant in meant {
        let connector = tenant.and_then(|tenant| connector_of(settings, &tenant.name));
        let certificate = match (&given, arguments.no_certificate, connector) {
            (_, true, _) => None,
            (Some(given), ..) => Some(given.clone()),
            (None, _, Some(connector)) => Some(
                Presented::read(&connector.identity.chain, &roots, now)
                    .map_err(|why| format!("[[certificate]] {}: {why}", connector.identity.name))?,
            ),
            (None, _, None) => None,
        };
        let home = || -> Result<ReversePath, String> {
            let first = tenant.and_then(home_of);
            let domain = first.ok_or("which addresses? --mail-from and --to")?;
            reverse_path("accepted_domains", &format!("postmaster@{domain}"))
        };
        let sender = sender.clone().map_or_else(home, Ok)?;
        let recipient = recipient.clone().map_or_else(home, Ok)?;
        let Some(to) = recipient.mailbox() else {
            continue;
        };
        let host = arguments
            .host
            .clone()
            .or_else(|| connector.map(|connector| connector.host.to_string()));
        let name = tenant.map(|tenant| tenant.name.to_string());
        let own = organizations
            .iter()
            .find(|own| Some(own.name) == name.as_deref())
            .and_then(|own| own.connector.as_ref());
        let answer = attribute(&Question {
            organizations: &organizations,
            expected: name.as_deref(),
            host: host.as_deref(),
            certificate: certificate.as_ref(),
            sender: sender.mailbox().map(|mailbox| mailbox.domain()),
            recipient: to.domain(),
            reject_direct_send: arguments.reject_direct_send.map(|switch| match switch {
                Switch::On => true,
                Switch::Off => false,
            }),
        });
        told.push(Told {
            tenant: name,
            recipient: to.to_string(),
            host,
            certificate: describe(arguments, connector, certificate.as_ref()),
            connector: own.map(|own| {
                let assumed = arguments.connector_name.is_none();
                (own.certificate_name.clone(), assumed)
            }),
            sender,
            answer,
        });
    }
    Ok(told)
}

/// How Exchange would attribute a tenant's mail from this domain to one of its own: for `explain headers`.
#[must_use]
pub fn of_tenant(
    settings: &Settings,
    roots: &Roots,
    tenant: &Tenant,
    sender: Option<&Domain>,
    now: u64,
) -> Option<Answer> {
    let connector = connector_of(settings, &tenant.name)?;
    let certificate = Presented::read(&connector.identity.chain, roots, now).ok();
    let home = home_of(tenant)?;
    Some(attribute(&Question {
        organizations: &organizations(settings, &Arguments::default()),
        expected: Some(&tenant.name),
        host: Some(&connector.host),
        certificate: certificate.as_ref(),
        sender,
        recipient: &home,
        reject_direct_send: None,
    }))
}

/// `[tenant.inbound_connector]` of a tenant.
#[must_use]
pub fn connector_of<'a>(settings: &'a Settings, tenant: &str) -> Option<&'a InboundConnector> {
    let mut connectors = settings.inbound_connectors.iter();
    connectors
        .find(|connector| *connector.tenant == *tenant)
        .map(|connector| &**connector)
}

fn home_of(tenant: &Tenant) -> Option<Domain> {
    let mut domains = tenant.accepted_domains.iter().map(DomainPattern::domain);
    domains.next().cloned()
}

/// The tenants that are asked about; `None`: nobody in particular.
fn meant<'a>(
    settings: &'a Settings,
    arguments: &Arguments,
    sender: Option<&ReversePath>,
) -> Result<Vec<Option<&'a Tenant>>, String> {
    if let Some(name) = &arguments.tenant {
        let tenant = settings.tenants.named(name);
        let tenant = tenant.ok_or_else(|| {
            let names: Vec<&str> = settings.tenants.iter().map(|own| &*own.name).collect();
            format!("--tenant: no such tenant; there are {}", names.join(", "))
        })?;
        return Ok(vec![Some(tenant)]);
    }
    let of_sender = sender
        .and_then(ReversePath::mailbox)
        .and_then(|mailbox| settings.tenants.accepting(mailbox.domain()));
    if let Some(tenant) = of_sender {
        return Ok(vec![Some(tenant)]);
    }
    let connected: Vec<Option<&Tenant>> = settings
        .tenants
        .iter()
        .filter(|tenant| connector_of(settings, &tenant.name).is_some())
        .map(|tenant| Some(&**tenant))
        .collect();
    if arguments.certificate.is_some() && connected.len() != 1 {
        return Ok(vec![None]);
    }
    match connected.is_empty() {
        true => Err("no tenant has an [tenant.inbound_connector]: nothing is delivered to Exchange; --certificate, --mail-from and --to ask about other mail".to_owned()),
        false => Ok(connected),
    }
}

fn organizations<'a>(settings: &'a Settings, arguments: &Arguments) -> Vec<Organization<'a>> {
    let one = |tenant: &'a std::sync::Arc<Tenant>| {
        let own = connector_of(settings, &tenant.name);
        let named = arguments.tenant.as_deref();
        let meant = named.map_or_else(
            || settings.inbound_connectors.len() < 2,
            |named| named == &*tenant.name,
        );
        let told = arguments.connector_name.clone().filter(|_| meant);
        let name = told.or_else(|| {
            let names = &own?.identity.names;
            sender_name::assumed(names, &tenant.accepted_domains)
        });
        Organization {
            name: &tenant.name,
            accepted: &tenant.accepted_domains,
            connector: name.map(|certificate_name| Connector {
                certificate_name,
                connector_type: match arguments.connector_type {
                    Type::Partner if meant => ConnectorType::Partner,
                    Type::Partner | Type::OnPremises => ConnectorType::OnPremises,
                },
            }),
        }
    };
    settings.tenants.iter().map(one).collect()
}

fn shown_by_file(path: &Path, roots: &Roots, now: u64) -> Result<Presented, String> {
    let chain: Vec<CertificateDer<'static>> = super::explain_trust::read_chain(path)?;
    Presented::read(&chain, roots, now).map_err(|why| format!("{}: {why}", path.display()))
}

fn reverse_path(option: &str, text: &str) -> Result<ReversePath, String> {
    let bare = text
        .strip_prefix('<')
        .and_then(|rest| rest.strip_suffix('>'))
        .unwrap_or(text);
    bare.parse().map_err(|why| format!("{option}: {why}"))
}

fn describe(
    arguments: &Arguments,
    connector: Option<&InboundConnector>,
    presented: Option<&Presented>,
) -> String {
    let Some(presented) = presented else {
        return "none".to_owned();
    };
    let names: Vec<&str> = presented.names().collect();
    let names = crate::mail::shown(names.join(", ").as_bytes());
    match (&arguments.certificate, connector) {
        (Some(path), _) => format!("{} ({names})", path.display()),
        (None, Some(connector)) => format!("[[certificate]] {} ({names})", connector.identity.name),
        (None, None) => names,
    }
}

impl Told {
    fn as_text(&self) -> String {
        let mut text = format!("{:<12} {}\n", "from", address(&self.sender));
        let mut line = |label: &str, value: &str| text += &format!("{label:<12} {value}\n");
        line("to", &self.recipient);
        line("host", self.host.as_deref().unwrap_or("-"));
        line("shows", &self.certificate);
        if let Some((name, assumed)) = &self.connector {
            let how = match assumed {
                true => ", as connector render writes it (--connector-name says otherwise)",
                false => "",
            };
            line(
                "connector",
                &format!("TlsSenderCertificateName {name}{how}"),
            );
        }
        text.push('\n');
        for step in &self.answer.steps {
            text += &format!(
                "{:<16} {:<8} {} [{}]\n",
                step.what,
                step.state.word(),
                step.says,
                step.mark
            );
        }
        text += &format!("\nverdict: {}", self.answer.verdict.word());
        if let (Some(tenant), Some(by)) = (&self.answer.tenant, self.answer.by) {
            text += &format!(": tenant {tenant}, by {by}");
        }
        text += &format!("\nbecause: {}\n", self.answer.because);
        for reply in &self.answer.replies {
            let when = match reply.when {
                "" => String::new(),
                when => format!(" ({when})"),
            };
            text += &format!("answer:  {}{when} [{}]\n", reply.text, reply.mark);
        }
        if let Some(mended_by) = &self.answer.mended_by {
            text += &format!("mended by: {mended_by}\n");
        }
        if self.answer.by == Some(By::Certificate) {
            text += "whether it is also internal is another question: gatepost explain headers\n";
        }
        text
    }

    fn as_json(&self) -> serde_json::Value {
        let answer = &self.answer;
        let steps: Vec<_> = answer
            .steps
            .iter()
            .map(|step| {
                serde_json::json!({
                    "what": step.what, "state": step.state.word(), "says": step.says, "mark": step.mark.word(),
                })
            })
            .collect();
        let replies: Vec<_> = answer
            .replies
            .iter()
            .map(|attribution::Reply { text, when, mark }| {
                serde_json::json!({ "text": text, "when": when, "mark": mark.word() })
            })
            .collect();
        serde_json::json!({
            "meant": self.tenant,
            "mail_from": self.sender.to_string(),
            "to": self.recipient,
            "host": self.host,
            "certificate": self.certificate,
            "connector_name": self.connector.as_ref().map(|(name, _)| name),
            "connector_name_assumed": self.connector.as_ref().map(|(_, assumed)| assumed),
            "verdict": answer.verdict.word(),
            "tenant": answer.tenant,
            "by": answer.by.map(|by| match by {
                By::Certificate => "certificate",
                By::Recipient => "recipient",
            }),
            "because": answer.because,
            "replies": replies,
            "mended_by": answer.mended_by,
            "steps": steps,
        })
    }
}

fn address(path: &ReversePath) -> String {
    let text = path.to_string();
    match text.is_empty() {
        true => "<>".to_owned(),
        false => crate::mail::shown(text.as_bytes()),
    }
}
