//! What must the tenant's objects hold? The desired state, from the configuration and the certificates that it names.

use super::secrets::Kept;
use crate::mail::{Domain, DomainPattern, Mailbox, Secret, TenantName};
use crate::trust::Tenant;
use crate::trust::certificate::{Identity, name_covers};

/// What Connect-ExchangeOnline knows as `-ExchangeEnvironmentName`; the first is the default.
pub const ENVIRONMENTS: [&str; 5] = [
    "O365Default",
    "O365GermanyCloud",
    "O365China",
    "O365USGovGCCHigh",
    "O365USGovDoD",
];

/// Field names for a tenant that has none yet.
const GATE: &str = "X-Gatepost-Gate";
const PROCESSED: &str = "X-Gatepost-Processed";

/// Ends of names that no public DNS knows: RFC 6761, RFC 6762 with its appendix G, RFC 8375, and ICANN's `internal`.
const INSIDE: [&str; 13] = [
    "local",
    "localhost",
    "localdomain",
    "internal",
    "intranet",
    "private",
    "corp",
    "home",
    "lan",
    "home.arpa",
    "test",
    "example",
    "invalid",
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
    /// The connector listeners, in the order of the configuration.
    pub doors: Vec<Door<'a>>,
    /// `inbound_connector`: its certificate and `cloud_services_mail_enabled`.
    pub connector: Option<(&'a Identity, bool)>,
    /// Who is in the pilot; without, everyone from the start.
    pub pilot_group: Option<&'a Mailbox>,
    /// One of [`ENVIRONMENTS`].
    pub environment: &'a str,
    /// Values for header fields that the configuration does not have yet; without, such a field is an error.
    pub spare: Option<&'a Spare>,
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

/// How bad a [`Finding`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grade {
    /// No working set can come of it.
    Error,
    /// It deserves a look before the scripts run.
    Warning,
}

/// Something in the configuration that makes the set wrong or doubtful.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The key, dotted as `gatepost check` writes it.
    pub key: String,
    /// How bad.
    pub grade: Grade,
    /// What, and what to do.
    pub text: String,
}

/// A header field whose value is a secret.
#[derive(Clone, Debug)]
pub struct Header {
    /// Field name.
    pub name: String,
    /// The value in force.
    pub value: Secret,
    /// Values that are still recognised (rotation).
    pub previous: Vec<Secret>,
    /// Not in the configuration yet: the value was made here.
    pub made: bool,
}

/// The value of a token in a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Token {
    /// One text.
    Text(String),
    /// A list of texts.
    List(Vec<String>),
}

/// The desired state of one tenant.
#[derive(Clone, Debug)]
pub struct Plan {
    pub(super) tenant: TenantName,
    pub(super) tenant_id: String,
    pub(super) hostname: Domain,
    pub(super) tls_domain: String,
    pub(super) certificate_name: String,
    /// `*.parent`, which Exchange takes for the certificate's name as well where that lies below an accepted domain.
    pub(super) certificate_alternative: Option<String>,
    pub(super) accepted: Vec<DomainPattern>,
    pub(super) cloud: bool,
    pub(super) secret: Header,
    pub(super) looped: Header,
    pub(super) pilot_group: Option<String>,
    pub(super) environment: String,
}

impl Plan {
    /// The plan where no finding is an error, and everything that was found.
    #[must_use]
    pub fn make(facts: &Facts<'_>) -> (Option<Self>, Vec<Finding>) {
        let mut findings = Findings(Vec::new());
        judge_hostname(facts, &mut findings);
        let tls_domain = tls_domain(facts, &mut findings);
        let certificate = certificate_name(facts, &mut findings);
        let secret = secret_header(facts, &mut findings);
        let looped = loop_header(facts, &mut findings);
        if let Some(group) = facts.pilot_group
            && !facts.tenant.accepted_domains.contains(group.domain())
        {
            findings.warn(
                format!("tenant.{}.accepted_domains", facts.tenant.name),
                format!(
                    "the pilot group's domain {} is none of them: is it a group of this tenant?",
                    group.domain()
                ),
            );
        }
        let refused = findings
            .0
            .iter()
            .any(|finding| finding.grade == Grade::Error);
        let plan = match (tls_domain, certificate, secret, looped) {
            (
                Some(tls_domain),
                Some((certificate_name, alternative)),
                Some(secret),
                Some(looped),
            ) => Some(Self {
                tenant: TenantName::clone(&facts.tenant.name),
                tenant_id: facts.tenant.id.to_string(),
                hostname: facts.hostname.clone(),
                tls_domain,
                certificate_name,
                certificate_alternative: alternative,
                accepted: facts.tenant.accepted_domains.iter().cloned().collect(),
                cloud: facts.connector.is_none_or(|(_, cloud)| cloud),
                secret,
                looped,
                pilot_group: facts.pilot_group.map(ToString::to_string),
                environment: facts.environment.to_owned(),
            }),
            _ => None,
        };
        (plan.filter(|_| !refused), findings.0)
    }

    /// The tokens of the scripts with their values; no secret is among them.
    #[must_use]
    pub fn tokens(&self) -> Vec<(&'static str, Token)> {
        let text = |text: &str| Token::Text(text.to_owned());
        let flag = if self.cloud { "True" } else { "False" };
        vec![
            ("TenantId", text(&self.tenant_id)),
            ("SmartHosts", Token::List(vec![self.hostname.to_string()])),
            ("TlsDomain", text(&self.tls_domain)),
            ("TlsSenderCertificateName", text(&self.certificate_name)),
            (
                "AcceptedDomains",
                Token::List(self.accepted.iter().map(ToString::to_string).collect()),
            ),
            ("CloudServicesMailEnabled", text(flag)),
            ("SecretHeaderName", text(&self.secret.name)),
            ("LoopHeaderName", text(&self.looped.name)),
            (
                "PilotGroup",
                text(self.pilot_group.as_deref().unwrap_or_default()),
            ),
            ("ExchangeEnvironmentName", text(&self.environment)),
        ]
    }

    /// The tenant's name in the configuration.
    #[must_use]
    pub fn tenant(&self) -> &str {
        &self.tenant
    }

    /// The tenant's GUID.
    #[must_use]
    pub fn tenant_id(&self) -> &str {
        &self.tenant_id
    }

    /// Header fields that the configuration lacks, by their key.
    pub fn made(&self) -> impl Iterator<Item = (&'static str, &Header)> {
        [
            ("secret_header", &self.secret),
            ("loop_header", &self.looped),
        ]
        .into_iter()
        .filter(|(_, header)| header.made)
    }
}

struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, grade: Grade, key: impl Into<String>, text: impl Into<String>) {
        self.0.push(Finding {
            key: key.into(),
            grade,
            text: text.into(),
        });
    }

    fn error(&mut self, key: impl Into<String>, text: impl Into<String>) {
        self.add(Grade::Error, key, text);
    }

    fn warn(&mut self, key: impl Into<String>, text: impl Into<String>) {
        self.add(Grade::Warning, key, text);
    }
}

fn judge_hostname(facts: &Facts<'_>, findings: &mut Findings) {
    let name = facts.hostname.as_str();
    let inside = INSIDE.iter().find(|end| {
        name.strip_suffix(**end)
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    });
    if let Some(end) = inside {
        findings.error(
            "hostname",
            format!("{name} ends in .{end}, which no public DNS knows: Exchange's outbound connector could not find it (5.4.310); give the name that the Internet has for this machine"),
        );
    }
}

/// The name in the listener's certificate that Exchange is told to look for.
fn tls_domain(facts: &Facts<'_>, findings: &mut Findings) -> Option<String> {
    let usable: Vec<(&Door<'_>, &Identity)> = facts
        .doors
        .iter()
        .filter_map(|door| Some((door, door.identity?)))
        .collect();
    let standard = usable.iter().find(|(door, _)| door.port == 25);
    let Some((door, identity)) = standard.or_else(|| usable.first()).copied() else {
        findings.error(
            "listener",
            "no [[listener]] with service = \"connector\": Exchange's outbound connector has nowhere to go",
        );
        return None;
    };
    if door.port != 25 {
        findings.warn(
            format!("listener.{}.address", door.name),
            format!(
                "port {}: Exchange connects to port 25 only; something in front must pass it on",
                door.port
            ),
        );
    }
    let key = format!("listener.{}.certificate", door.name);
    let names = dns_names(identity);
    let covering: Vec<&String> = names
        .iter()
        .filter(|name| name_covers(name, facts.hostname))
        .collect();
    let exact = covering.iter().find(|name| !name.starts_with("*."));
    let chosen = match exact.or_else(|| covering.first()) {
        Some(name) => (*name).clone(),
        None => {
            let first = names.iter().find(|name| !name.starts_with("*."));
            let Some(name) = first.or_else(|| names.first()) else {
                findings.error(
                    key,
                    "its certificate carries no name that TlsDomain could hold",
                );
                return None;
            };
            findings.warn(
                key.clone(),
                format!("the certificate does not cover hostname {}: TlsDomain is {name} instead, which Exchange takes; a certificate with the host's own name is clearer", facts.hostname),
            );
            name.clone()
        }
    };
    for (other, identity) in &usable {
        let covers = dns_names(identity).iter().any(|name| {
            name == &chosen
                || chosen
                    .parse()
                    .is_ok_and(|wanted| name_covers(name, &wanted))
        });
        if !covers {
            findings.warn(
                format!("listener.{}.certificate", other.name),
                format!("does not carry {chosen}, which TlsDomain asks for: mail that Exchange brings to this listener stays in its queue (450 4.4.317)"),
            );
        }
    }
    Some(chosen)
}

/// The names of a certificate in the form of DNS.
fn dns_names(identity: &Identity) -> Vec<String> {
    identity
        .names
        .iter()
        .map(|name| name.to_ascii_lowercase())
        .filter(|name| name.parse::<DomainPattern>().is_ok())
        .collect()
}

/// How well a name of the certificate lies in the accepted domains; the least is the best.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    /// It is one of them.
    Itself,
    /// It is meant by an entry `*.parent`.
    ByPattern,
    /// It lies below one.
    Below,
    /// It is a wildcard at or below one.
    Wildcard,
}

/// What TlsSenderCertificateName must hold, and what it may hold as well (exchange-online.md 2.2, 2.3).
fn certificate_name(
    facts: &Facts<'_>,
    findings: &mut Findings,
) -> Option<(String, Option<String>)> {
    let tenant = facts.tenant;
    let Some((identity, _)) = facts.connector else {
        findings.error(
            format!("tenant.{}", tenant.name),
            "no [tenant.inbound_connector]: Gatepost delivers nothing to this tenant, so it needs no connectors",
        );
        return None;
    };
    let key = format!("tenant.{}.inbound_connector.certificate", tenant.name);
    let names = dns_names(identity);
    let best = names
        .iter()
        .filter_map(|name| Some((place(name, tenant)?, name)))
        .min_by_key(|(place, _)| *place);
    let Some((place, name)) = best else {
        findings.error(
            key,
            format!("no name of the certificate ({}) lies in the tenant's accepted_domains: Exchange would take its mail for nobody's (550 5.7.64)", identity.names.join(", ")),
        );
        return None;
    };
    for (other, theirs) in &facts.others {
        if theirs.is_some_and(|theirs| dns_names(theirs).contains(name)) {
            findings.warn(
                key.clone(),
                format!("tenant {} shows a certificate with the name {name} as well: Exchange tells tenants apart by it", other.name),
            );
        }
    }
    let alternative = match place {
        Place::Itself | Place::Wildcard => None,
        Place::ByPattern | Place::Below => parent(name, tenant).map(|parent| format!("*.{parent}")),
    };
    Some((name.clone(), alternative))
}

fn place(name: &str, tenant: &Tenant) -> Option<Place> {
    match name.parse::<DomainPattern>().ok()? {
        DomainPattern::Exact(domain) => {
            let itself = DomainPattern::Exact(domain.clone());
            if tenant.accepted_domains.iter().any(|own| *own == itself) {
                Some(Place::Itself)
            } else if tenant.accepted_domains.contains(&domain) {
                Some(Place::ByPattern)
            } else {
                parent(name, tenant).map(|_| Place::Below)
            }
        }
        DomainPattern::AtOrBelow(_) => parent(name, tenant).map(|_| Place::Wildcard),
    }
}

/// The accepted domain that the name lies at or below.
fn parent(name: &str, tenant: &Tenant) -> Option<Domain> {
    let pattern: DomainPattern = name.parse().ok()?;
    let mut accepted = tenant.accepted_domains.iter().map(DomainPattern::domain);
    accepted
        .find(|parent| pattern.domain().is_at_or_below(parent))
        .cloned()
}

fn secret_header(facts: &Facts<'_>, findings: &mut Findings) -> Option<Header> {
    let tenant = facts.tenant;
    if let Some(header) = &tenant.secret_header
        && let Some((value, previous)) = header.values.split_first()
    {
        return Some(Header {
            name: header.name.to_string(),
            value: value.clone(),
            previous: previous.to_vec(),
            made: false,
        });
    }
    let key = format!("tenant.{}.secret_header", tenant.name);
    let Some(spare) = facts.spare else {
        findings.error(key, "missing: `gatepost connector render` makes one");
        return None;
    };
    findings.warn(
        key,
        "missing: made one; its lines must stand in the configuration before the scripts run",
    );
    let own = tenant.loop_header.iter().map(|header| &*header.name);
    let others = facts.others.iter().filter_map(|(other, _)| {
        let header = other.loop_header.as_ref()?;
        Some(&*header.name)
    });
    Some(Header {
        name: free_name(GATE, own.chain(others)),
        value: spare.secret.clone(),
        previous: Vec::new(),
        made: true,
    })
}

fn loop_header(facts: &Facts<'_>, findings: &mut Findings) -> Option<Header> {
    let tenant = facts.tenant;
    if let Some(header) = &tenant.loop_header {
        return Some(Header {
            name: header.name.to_string(),
            value: header.value.clone(),
            previous: header.previous.clone(),
            made: false,
        });
    }
    let key = format!("tenant.{}.loop_header", tenant.name);
    let Some(spare) = facts.spare else {
        findings.error(key, "missing: `gatepost connector render` makes one");
        return None;
    };
    findings.warn(
        key,
        "missing: made one; until its lines stand in the configuration, mail that the routing rule sends goes round until Exchange breaks the loop (554 5.4.14)",
    );
    let own = tenant.secret_header.iter().map(|header| &*header.name);
    let others = facts.others.iter().filter_map(|(other, _)| {
        let header = other.secret_header.as_ref()?;
        Some(&*header.name)
    });
    Some(Header {
        name: free_name(PROCESSED, own.chain(others)),
        value: spare.looped.clone(),
        previous: Vec::new(),
        made: true,
    })
}

/// `wanted`, with a number where the name has another fate already.
fn free_name<'a>(wanted: &str, taken: impl Iterator<Item = &'a str>) -> String {
    let taken: Vec<String> = taken.map(str::to_ascii_lowercase).collect();
    let mut name = wanted.to_owned();
    let mut number = 2;
    while taken.contains(&name.to_ascii_lowercase()) {
        name = format!("{wanted}-{number}");
        number += 1;
    }
    name
}
