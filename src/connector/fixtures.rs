//! A plan, and a tenant that holds exactly what it says: for tests of this room and of the command line.

use super::MARK;
use super::desired::{Want, desired};
use super::diff::Exports;
use super::export::Exported;
use super::objects::Kind;
use super::plan::{Delivery, Door, ENVIRONMENTS, Facts, Finding, Plan};
use crate::mail::{Domain, DomainSet, Secret};
use crate::trust::certificate::Identity;
use crate::trust::{Forwarded, Gate, LoopHeader, SecretHeader, Tenant};
use rustls_pki_types::PrivateKeyDer;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;

pub(crate) const SECRET: &str = "gate value, secret";
pub(crate) const LOOPED: &str = "loop-value-secret";

/// When an export is compared.
pub(super) const NOW: OffsetDateTime = time::macros::datetime!(2026-11-29 12:00 UTC);

pub(super) const KINDS: [Kind; 4] = [Kind::Inbound, Kind::Outbound, Kind::Route, Kind::CleanUp];

/// A certificate as far as the plan looks at it.
pub(crate) fn identity(name: &str, names: &[&str]) -> Identity {
    Identity {
        name: name.into(),
        chain: Vec::new(),
        key: PrivateKeyDer::Pkcs8(vec![0].into()),
        names: names.iter().map(|name| (*name).to_owned()).collect(),
        not_before: 0,
        not_after: u64::MAX,
        known_root: true,
        origin: None,
    }
}

pub(crate) fn tenant(accepted: &[&str]) -> Tenant {
    let accepted = DomainSet::new(
        accepted
            .iter()
            .map(|domain| domain.parse().unwrap())
            .collect(),
    );
    Tenant {
        name: "contoso".into(),
        id: "11111111-2222-3333-4444-555555555555".parse().unwrap(),
        originator_orgs: accepted.clone(),
        accepted_domains: accepted,
        gate: Gate::Enforce,
        proofs: 2,
        secret_header: Some(SecretHeader {
            name: "X-Contoso-Gate".into(),
            values: vec![Secret::new(SECRET)],
            required: false,
        }),
        forwarded_senders: Forwarded::Refuse,
        loop_header: Some(LoopHeader {
            name: "X-Gatepost-Processed".into(),
            value: Secret::new(LOOPED),
            previous: Vec::new(),
        }),
    }
}

/// The plan of a usual configuration, changed.
pub(crate) fn plan_with(change: impl FnOnce(&mut Tenant)) -> Plan {
    let mut tenant = tenant(&[
        "contoso.com",
        "contoso.onmicrosoft.com",
        "smarthost.contoso.com",
    ]);
    change(&mut tenant);
    let (plan, findings) = made(&identity("client", &["smarthost.contoso.com"]), &tenant);
    assert_eq!(findings, []);
    plan.unwrap()
}

/// The plan with another certificate and other domains.
pub(crate) fn plan_for(client: &Identity, accepted: &[&str]) -> Plan {
    made(client, &tenant(accepted)).0.unwrap()
}

/// What a tenant alone, without a listener for Exchange, makes a plan of; `client` is shown to its connector.
pub(super) fn facts<'a>(
    hostname: &'a Domain,
    tenant: &'a Tenant,
    client: &'a Identity,
) -> Facts<'a> {
    Facts {
        hostname,
        tenant,
        others: Vec::new(),
        doors: Vec::new(),
        connector: Some(Delivery {
            host: "contoso-com.mail.protection.outlook.com",
            port: 25,
            identity: client,
            cloud: true,
        }),
        pilot_group: None,
        environment: Some(ENVIRONMENTS[0]),
        client_names: &[],
        has_shipped_networks: true,
        spare: None,
    }
}

/// The listener for Exchange.
pub(super) fn door(identity: Option<&Identity>) -> Door<'_> {
    Door {
        name: "exchange",
        port: 25,
        identity,
    }
}

fn made(client: &Identity, tenant: &Tenant) -> (Option<Plan>, Vec<Finding>) {
    let host = identity("host", &["smarthost.contoso.com"]);
    Plan::make(&Facts {
        doors: vec![door(Some(&host))],
        ..facts(&"smarthost.contoso.com".parse().unwrap(), tenant, client)
    })
}

pub(crate) fn plan() -> Plan {
    plan_with(|_| {})
}

/// The plan of a configuration for applications alone.
pub(crate) fn inward() -> Plan {
    let client = identity("client", &["smarthost.contoso.com"]);
    let (plan, findings) = Plan::make(&facts(
        &"smarthost.contoso.com".parse().unwrap(),
        &tenant(&["contoso.com", "smarthost.contoso.com"]),
        &client,
    ));
    // It has a loop header, so that the tests see that its value stands nowhere.
    let keys: Vec<&str> = findings
        .iter()
        .map(|finding| finding.key.as_str())
        .collect();
    assert_eq!(keys, ["tenant.contoso.loop_header"]);
    plan.unwrap()
}

/// A tenant's objects, as PowerShell 7 exports them.
pub(crate) struct Tenancy {
    pub(crate) inbound: Vec<Value>,
    pub(crate) outbound: Vec<Value>,
    pub(crate) rules: Vec<Value>,
    pub(crate) domains: Vec<Value>,
}

impl Tenancy {
    /// What the plan says, everyone's mail routed.
    pub(crate) fn of(plan: &Plan) -> Self {
        let object = |kind: Kind, further: Value| {
            let mut map = Map::new();
            map.insert("Name".to_owned(), json!(kind.name()));
            for property in desired(kind, plan) {
                map.insert(property.name.to_owned(), right(&property.want));
            }
            if let Value::Object(further) = further {
                map.extend(further);
            }
            Value::Object(map)
        };
        let (outbound, rules) = match plan.is_sent_to() {
            true => (
                vec![object(Kind::Outbound, json!({ "IsValidated": true }))],
                vec![
                    object(
                        Kind::Route,
                        json!({ "State": "Enabled", "Mode": "Enforce", "Priority": 0, "FromMemberOf": null }),
                    ),
                    object(Kind::CleanUp, json!({ "Priority": 1 })),
                ],
            ),
            false => (Vec::new(), Vec::new()),
        };
        Self {
            inbound: vec![object(Kind::Inbound, json!({ "ConnectorSource": "Default", "EFSkipLastIP": false, "EFSkipIPs": [] }))],
            outbound,
            rules,
            domains: plan
                .accepted
                .iter()
                .map(|own| json!({ "DomainName": own.domain().to_string(), "DomainType": "Authoritative", "MatchSubDomains": false }))
                .collect(),
        }
    }

    /// The object of a kind.
    pub(super) fn object(&mut self, kind: Kind) -> &mut Value {
        match kind {
            Kind::Inbound => &mut self.inbound[0],
            Kind::Outbound => &mut self.outbound[0],
            Kind::Route => &mut self.rules[0],
            Kind::CleanUp => &mut self.rules[1],
        }
    }

    pub(crate) fn exports(&self) -> Exports {
        let read = |values: &[Value]| {
            let bytes = serde_json::to_vec(values).unwrap();
            Some(Exported::read(&bytes).unwrap())
        };
        Exports {
            inbound: read(&self.inbound),
            outbound: read(&self.outbound),
            rules: read(&self.rules),
            domains: read(&self.domains),
            arc: None,
            organization: None,
            now: Some(NOW),
        }
    }
}

fn right(want: &Want) -> Value {
    match want {
        Want::Mark => json!(format!("{MARK}. Do not edit by hand.")),
        Want::Flag(flag) => json!(flag),
        Want::Word(word) => json!(word),
        Want::Text(text) => json!(text),
        Want::OneOf(words, _) => json!(words.first()),
        Want::CertificateName(wanted) => json!(wanted.connector_name),
        Want::Hosts(hosts) => json!(
            hosts
                .iter()
                .map(|host| if host == "*" { "smtp:*;1" } else { host })
                .collect::<Vec<_>>()
        ),
        Want::Unset => json!([]),
        Want::OutboundConnector => json!("To Gatepost"),
        Want::Secret(header) => json!(header.value.expose_str()),
        Want::Words(header) => {
            let all = std::iter::once(&header.value).chain(&header.previous);
            json!(all.map(Secret::expose_str).collect::<Vec<_>>())
        }
    }
}

/// The steps of a rendered folder.
pub(crate) fn steps() -> String {
    super::readme::write(&plan())
}
