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
    /// `[tenant.inbound_connector]`.
    pub connector: Option<Delivery<'a>>,
    /// Who is in the pilot; without, everyone from the start.
    pub pilot_group: Option<&'a Mailbox>,
    /// One of [`ENVIRONMENTS`].
    pub environment: &'a str,
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
    /// Exchange's host and port, where we deliver.
    pub(super) exchange: (String, u16),
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
        let delivery = facts.connector;
        let secret = secret_header(facts, &mut findings);
        let looped = loop_header(facts, &mut findings);
        if let Some(looped) = &looped {
            judge_words(facts, looped, &mut findings);
        }
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
        let plan = match (tls_domain, certificate, delivery, secret, looped) {
            (
                Some(tls_domain),
                Some((certificate_name, alternative)),
                Some(delivery),
                Some(secret),
                Some(looped),
            ) => Some(Self {
                tenant: TenantName::clone(&facts.tenant.name),
                tenant_id: facts.tenant.id.to_string(),
                hostname: facts.hostname.clone(),
                exchange: (delivery.host.to_owned(), delivery.port),
                tls_domain,
                certificate_name,
                certificate_alternative: alternative,
                accepted: facts.tenant.accepted_domains.iter().cloned().collect(),
                cloud: delivery.cloud,
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
            "no [[listener]] with service = \"connector\": Exchange's outbound connector has nowhere to go (for applications alone, make the inbound connector by hand: docs/connectors.md)",
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
    let Some(Delivery { identity, .. }) = facts.connector else {
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

/// The longest word that a condition of a transport rule takes, in characters.
const LONGEST_WORD: usize = 128;

fn judge_words(facts: &Facts<'_>, looped: &Header, findings: &mut Findings) {
    let mut all = std::iter::once(&looped.value).chain(&looped.previous);
    if all.any(|value| value.expose().len() > LONGEST_WORD) {
        findings.error(
            format!("tenant.{}.loop_header", facts.tenant.name),
            format!("a value of more than {LONGEST_WORD} characters, which no word list of a transport rule takes"),
        );
    }
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

#[cfg(test)]
mod tests {
    use super::super::fixtures::{identity, plan, tenant};
    use super::*;

    /// The plan and the findings of a configuration with these certificates.
    fn made(
        hostname: &str,
        host: &[&str],
        client: &[&str],
        accepted: &[&str],
    ) -> (Option<Plan>, Vec<String>) {
        let (host, client) = (identity("host", host), identity("client", client));
        let facts = Facts {
            hostname: &hostname.parse().unwrap(),
            tenant: &tenant(accepted),
            others: Vec::new(),
            doors: vec![Door {
                name: "exchange",
                port: 25,
                identity: Some(&host),
            }],
            connector: Some(Delivery {
                host: "contoso-com.mail.protection.outlook.com",
                port: 25,
                identity: &client,
                cloud: true,
            }),
            pilot_group: None,
            environment: ENVIRONMENTS[0],
            spare: None,
        };
        let (plan, findings) = Plan::make(&facts);
        (plan, findings.into_iter().map(told).collect())
    }

    fn told(finding: Finding) -> String {
        let mark = match finding.grade {
            Grade::Error => "error",
            Grade::Warning => "warning",
        };
        format!("{mark} {}: {}", finding.key, finding.text)
    }

    const HOST: &str = "smarthost.contoso.com";

    #[test]
    fn tls_domain_is_the_name_that_covers_the_host() {
        for (names, expected) in [
            (&[HOST][..], HOST),
            (&["*.contoso.com", HOST], HOST),
            (&["mail.example.net", "*.contoso.com"], "*.contoso.com"),
            (&["SMARTHOST.contoso.com"], HOST),
        ] {
            let (plan, findings) = made(HOST, names, &["contoso.com"], &["contoso.com"]);
            assert_eq!(
                (plan.unwrap().tls_domain.as_str(), findings.len()),
                (expected, 0),
                "{names:?}"
            );
        }
        let (plan, findings) = made(
            HOST,
            &["*.example.net", "mail.example.net"],
            &["contoso.com"],
            &["contoso.com"],
        );
        assert_eq!(plan.unwrap().tls_domain, "mail.example.net");
        assert!(
            findings[0].starts_with(
                "warning listener.exchange.certificate: the certificate does not cover hostname"
            ),
            "{findings:?}"
        );
    }

    #[test]
    fn the_certificate_name_is_the_one_that_lies_best_in_the_accepted_domains() {
        for (names, accepted, name, alternative) in [
            (
                &["other.example", "contoso.com"][..],
                &["contoso.com"][..],
                "contoso.com",
                None,
            ),
            (
                &["*.contoso.com", "mail.contoso.com", "contoso.com"],
                &["contoso.com"],
                "contoso.com",
                None,
            ),
            (
                &["*.contoso.com", "mail.contoso.com"],
                &["contoso.com"],
                "mail.contoso.com",
                Some("*.contoso.com"),
            ),
            (
                &["mail.contoso.com"],
                &["*.contoso.com"],
                "mail.contoso.com",
                Some("*.contoso.com"),
            ),
            (
                &["a.contoso.com", "b.contoso.com"],
                &["contoso.com", "b.contoso.com"],
                "b.contoso.com",
                None,
            ),
            (&["*.contoso.com"], &["contoso.com"], "*.contoso.com", None),
        ] {
            let (plan, findings) = made(HOST, &[HOST], names, accepted);
            let plan = plan.unwrap();
            assert_eq!(
                (
                    plan.certificate_name.as_str(),
                    plan.certificate_alternative.as_deref()
                ),
                (name, alternative),
                "{names:?}"
            );
            assert!(findings.is_empty());
        }
        let (plan, findings) = made(
            HOST,
            &[HOST],
            &["contoso.com.evil.example"],
            &["contoso.com"],
        );
        assert!(plan.is_none());
        assert!(findings[0].starts_with("error tenant.contoso.inbound_connector.certificate: no name of the certificate (contoso.com.evil.example) lies in"), "{findings:?}");
    }

    #[test]
    fn a_host_name_that_only_the_inside_knows_is_an_error() {
        for name in [
            "mx.contoso.local",
            "mx.home.arpa",
            "mx.corp",
            "a.b.internal",
        ] {
            let (plan, findings) = made(name, &[name], &["contoso.com"], &["contoso.com"]);
            assert!(plan.is_none());
            assert!(findings[0].starts_with("error hostname: "), "{findings:?}");
        }
        assert!(
            made(
                "mx.local.example.com",
                &["mx.local.example.com"],
                &["contoso.com"],
                &["contoso.com"]
            )
            .1
            .is_empty()
        );
    }

    #[test]
    fn what_the_set_needs_and_is_not_there_is_told_by_its_key() {
        let client = identity("client", &["contoso.com"]);
        let host = identity("host", &[HOST]);
        let mut own = tenant(&["contoso.com"]);
        own.secret_header = None;
        own.loop_header = None;
        let group: Mailbox = "pilot@elsewhere.example".parse().unwrap();
        let mut facts = Facts {
            hostname: &HOST.parse().unwrap(),
            tenant: &own,
            others: Vec::new(),
            doors: Vec::new(),
            connector: None,
            pilot_group: Some(&group),
            environment: ENVIRONMENTS[0],
            spare: None,
        };
        let keys = |facts: &Facts<'_>| -> Vec<String> {
            let (_, findings) = Plan::make(facts);
            findings.into_iter().map(|finding| finding.key).collect()
        };
        assert_eq!(
            keys(&facts),
            [
                "listener",
                "tenant.contoso",
                "tenant.contoso.secret_header",
                "tenant.contoso.loop_header",
                "tenant.contoso.accepted_domains"
            ]
        );
        let other_host = identity("inner", &["inner.contoso.com"]);
        facts.doors = vec![
            Door {
                name: "inner",
                port: 2525,
                identity: Some(&other_host),
            },
            Door {
                name: "exchange",
                port: 25,
                identity: Some(&host),
            },
        ];
        let mut fabrikam = tenant(&["fabrikam.com"]);
        fabrikam.name = "fabrikam".into();
        fabrikam.loop_header.as_mut().unwrap().name = GATE.into();
        facts.others = vec![(&fabrikam, Some(&client))];
        facts.connector = Some(Delivery {
            host: "mx.example",
            port: 25,
            identity: &client,
            cloud: false,
        });
        facts.pilot_group = None;
        let spare = Spare {
            secret: Secret::new("s"),
            looped: Secret::new("l"),
        };
        facts.spare = Some(&spare);
        assert_eq!(
            keys(&facts),
            [
                "listener.inner.certificate",
                "tenant.contoso.inbound_connector.certificate",
                "tenant.contoso.secret_header",
                "tenant.contoso.loop_header"
            ]
        );
        let plan = Plan::make(&facts).0.unwrap();
        assert_eq!(plan.tls_domain, HOST, "the listener on port 25 counts");
        assert_eq!(
            (plan.secret.name.as_str(), plan.looped.name.as_str()),
            ("X-Gatepost-Gate-2", PROCESSED)
        );
        assert!(!plan.cloud && plan.made().count() == 2);
    }

    #[test]
    fn no_token_is_a_secret() {
        let tokens = format!("{:?}", plan().tokens());
        assert!(
            !tokens.contains(super::super::fixtures::SECRET)
                && !tokens.contains(super::super::fixtures::LOOPED)
        );
    }
}
