//! What an administrator exports from Exchange, and the file of secrets beside the scripts.
//!
//! ```text
//!  octet 0      bits 0 to 2 which export it is, 3 to 5 in which encoding the others are
//!  the rest     the export
//! ```

use super::world::world;
use gatepost::connector::{
    Delivery, Door, Exported, Exports, Facts, Mend, NotAnExport, Plan, Report, SCRIPTS,
    SECRETS_FILE, diff, read_secrets, render,
};
use gatepost::mail::{Domain, DomainSet, Secret};
use gatepost::trust::certificate::Identity;
use gatepost::trust::{LoopHeader, SecretHeader, Tenant};
use rustls_pki_types::PrivateKeyDer;
use serde_json::Value;
use std::sync::OnceLock;

const SECRET: &str = "q7Rz-kW2_vX9pLm4";
const LOOPED: &str = "Jt5bN8cYh3fG6dSa";
const HOST: &str = "smarthost.contoso.com";

/// A tenant that is as the plan wants it, as PowerShell 7 exports it: inbound, outbound, rules, domains.
const GOOD: [&str; 4] = [
    r#"[{"Name": "From Gatepost", "Comment": "Managed by Gatepost (schema 1). Do not edit by hand.", "Enabled": true, "ConnectorType": "OnPremises",
    "SenderDomains": ["smtp:*;1"], "TlsSenderCertificateName": "smarthost.contoso.com", "RequireTls": true, "RestrictDomainsToCertificate": true,
    "RestrictDomainsToIPAddresses": false, "CloudServicesMailEnabled": true, "TreatMessagesAsInternal": false, "AssociatedAcceptedDomains": [],
    "TrustedOrganizations": [], "ConnectorSource": "Default", "EFSkipLastIP": false, "EFSkipIPs": []}]"#,
    r#"[{"Name": "To Gatepost", "Comment": "Managed by Gatepost (schema 1). Do not edit by hand.", "Enabled": true, "TestMode": false,
    "ConnectorType": "OnPremises", "IsTransportRuleScoped": true, "UseMXRecord": false, "SmartHosts": ["smarthost.contoso.com"],
    "TlsSettings": "DomainValidation", "TlsDomain": "smarthost.contoso.com", "CloudServicesMailEnabled": true, "RouteAllMessagesViaOnPremises": false,
    "AllAcceptedDomains": false, "RecipientDomains": [], "SmtpDaneMode": "Opportunistic", "IsValidated": true}]"#,
    r#"[{"Name": "Route to Gatepost", "Comments": "Managed by Gatepost (schema 1). Do not edit by hand.", "State": "Enabled", "Mode": "Enforce", "Priority": 0,
    "FromScope": "InOrganization", "FromMemberOf": null, "RouteMessageOutboundConnector": "To Gatepost", "SetHeaderName": "X-Contoso-Gate",
    "SetHeaderValue": "q7Rz-kW2_vX9pLm4", "StopRuleProcessing": true, "ExceptIfHeaderContainsMessageHeader": "X-Gatepost-Processed",
    "ExceptIfHeaderContainsWords": ["Jt5bN8cYh3fG6dSa"], "RuleErrorAction": "Ignore", "SetAuditSeverity": "Low"},
    {"Name": "Back from Gatepost", "Comments": "Managed by Gatepost (schema 1). Do not edit by hand.", "State": "Enabled", "Mode": "Enforce", "Priority": 1,
    "HeaderContainsMessageHeader": "X-Gatepost-Processed", "HeaderContainsWords": ["Jt5bN8cYh3fG6dSa"], "RemoveHeader": "X-Gatepost-Processed",
    "StopRuleProcessing": false, "SetAuditSeverity": "Low"}]"#,
    r#"[{"DomainName": "contoso.com", "DomainType": "Authoritative", "MatchSubDomains": false},
    {"DomainName": "contoso.onmicrosoft.com", "DomainType": "Authoritative", "MatchSubDomains": false},
    {"DomainName": "smarthost.contoso.com", "DomainType": "Authoritative", "MatchSubDomains": false}]"#,
];

/// Any octets as one of the exports of a tenant whose others are in order. They read alike in every encoding that PowerShell
/// writes; as many objects as a plain reading of the JSON counts, by their names; the comparison with the plan is
/// fit for a terminal and repeats no secret, nor eight octets of one. The tenant as planned has no drift.
///
/// Not held: which drift is found (the tests of `connector` go through each property), and what stands in the scripts.
pub fn export(octets: &[u8]) {
    let Some((&how, bytes)) = octets.split_first() else {
        return;
    };
    let read = Exported::read(bytes);
    reads_alike_in_every_encoding(bytes, &read);
    secrets_file(bytes);
    let slot = how & 7;
    let mut exports = planned(how >> 3 & 7);
    let clean = diff(plan(), &exports);
    assert!(clean.drift.is_empty(), "{:?}", clean.drift);
    let objects = match read {
        Ok(objects) => objects,
        Err(why) => {
            assert!(!why.to_string().contains(char::is_control));
            return;
        }
    };
    match slot {
        0 | 7 => exports.inbound = Some(objects),
        1 => exports.outbound = Some(objects),
        2 => exports.rules = Some(objects),
        3 => exports.domains = Some(objects),
        4 => exports.arc = Some(objects),
        5 => exports.organization = Some(objects),
        _ => exports = one_alone(objects),
    }
    is_fit(&diff(plan(), &exports));
}

fn one_alone(objects: Vec<Exported>) -> Exports {
    Exports {
        rules: Some(objects.clone()),
        outbound: Some(objects),
        ..Exports::default()
    }
}

/// A text in the encodings that are known by a mark, then in those without one.
fn encodings(text: &str) -> [Vec<u8>; 6] {
    let wide = |mark: &str, big: bool| -> Vec<u8> {
        let marked = format!("{mark}{text}");
        let octets = |unit: u16| {
            if big {
                unit.to_be_bytes()
            } else {
                unit.to_le_bytes()
            }
        };
        marked.encode_utf16().flat_map(octets).collect()
    };
    let mark = "\u{feff}";
    [
        format!("{mark}{text}").into_bytes(),
        wide(mark, false),
        wide(mark, true),
        text.as_bytes().to_vec(),
        wide("", false),
        wide("", true),
    ]
}

fn reads_alike_in_every_encoding(bytes: &[u8], read: &Result<Vec<Exported>, NotAnExport>) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        assert!(
            bytes.contains(&0)
                || bytes.starts_with(b"\xff\xfe")
                || bytes.starts_with(b"\xfe\xff")
                || *read == Err(NotAnExport::Encoding)
        );
        return;
    };
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let marked = Exported::read(&encodings(text)[0]);
    for (number, encoded) in encodings(text).iter().enumerate() {
        // Without a mark an encoding is known by its first letter; JSON begins with one of ASCII, and there is no NUL in it.
        let is_known = text.starts_with(|first: char| first.is_ascii()) && !text.contains('\0');
        if number < 3 || is_known {
            assert_eq!(Exported::read(encoded), marked, "encoding {number}");
        }
    }
    if let Ok(objects) = &marked {
        let names: Vec<Option<String>> = named(text);
        assert_eq!(objects.len(), names.len());
        for (object, name) in objects.iter().zip(names) {
            // What -Depth has cut is written otherwise.
            if let Some(name) = name.filter(|name| !name.starts_with("@{")) {
                assert_eq!(object.text("Name"), name);
            }
        }
    }
}

/// The objects of a text, with their names where these are text.
fn named(text: &str) -> Vec<Option<String>> {
    let value: Value = serde_json::from_str(text).unwrap_or_default();
    let name = |object: &Value| object["Name"].as_str().map(str::to_owned);
    let items = match (&value, value.get("value"), value.get("Count")) {
        (Value::Object(map), Some(Value::Array(items)), Some(_)) if map.len() == 2 => items.clone(),
        (Value::Array(items), ..) => items.clone(),
        _ => vec![value],
    };
    items
        .iter()
        .filter(|item| !item.is_null())
        .map(name)
        .collect()
}

fn is_fit(report: &Report) {
    let mut texts: Vec<&str> = Vec::new();
    for drift in &report.drift {
        let (Mend::Line(mend) | Mend::Step(mend)) = &drift.mend;
        texts.extend([&drift.object, &drift.name, &drift.property, &drift.is].map(String::as_str));
        texts.extend([&drift.should, &drift.breaks, mend].map(String::as_str));
    }
    for note in &report.notes {
        texts.extend([note.object.as_str(), note.text.as_str()]);
    }
    for text in texts {
        assert!(!text.contains(|c: char| c.is_control()), "{text:?}");
        for secret in [SECRET, LOOPED] {
            let mut parts = secret.as_bytes().windows(8).map(String::from_utf8_lossy);
            assert!(!parts.any(|part| text.contains(&*part)), "{text}");
        }
    }
}

/// A file of secrets is one with the tenant's id; what it keeps is told to nobody.
fn secrets_file(bytes: &[u8]) {
    let value: Option<Value> = serde_json::from_slice(bytes).ok();
    let id = value.as_ref().and_then(|value| value["TenantId"].as_str());
    let kept = read_secrets(bytes);
    assert_eq!(kept.as_ref().map(|kept| kept.tenant_id.as_str()), id);
    let (Some(kept), Some(value)) = (kept, &value) else {
        return;
    };
    for (own, key) in [
        (&kept.secret, "SecretHeaderValue"),
        (&kept.looped, "LoopHeaderValue"),
    ] {
        let text = value[key].as_str().filter(|text| !text.is_empty());
        assert_eq!(own.as_ref().map(Secret::expose_str), text);
        let debug = format!("{own:?}");
        assert!(text.is_none_or(|text| text.len() < 8 || !debug.contains(text)));
    }
}

/// The exports of a tenant as it is planned, in one of the encodings.
fn planned(encoding: u8) -> Exports {
    let read = |slot: usize| {
        let encoded = &encodings(GOOD[slot])[usize::from(encoding) % 6];
        Some(Exported::read(encoded).expect("an export"))
    };
    Exports {
        inbound: read(0),
        outbound: read(1),
        rules: read(2),
        domains: read(3),
        ..Exports::default()
    }
}

fn plan() -> &'static Plan {
    static PLAN: OnceLock<Plan> = OnceLock::new();
    PLAN.get_or_init(|| {
        let domains = ["contoso.com", "contoso.onmicrosoft.com", HOST];
        let domains = domains.map(|domain| domain.parse().expect("a domain"));
        let domains = DomainSet::new(domains.to_vec());
        let contoso = world().settings.tenants.named("contoso").expect("contoso");
        let tenant = Tenant {
            accepted_domains: domains.clone(),
            originator_orgs: domains,
            secret_header: Some(SecretHeader {
                name: "X-Contoso-Gate".into(),
                values: vec![Secret::new(SECRET)],
                required: false,
            }),
            loop_header: Some(LoopHeader {
                name: "X-Gatepost-Processed".into(),
                value: Secret::new(LOOPED),
                previous: Vec::new(),
            }),
            ..Tenant::clone(contoso)
        };
        let identity = Identity {
            name: "host".into(),
            chain: Vec::new(),
            key: PrivateKeyDer::Pkcs8(vec![0].into()),
            names: vec![HOST.to_owned()],
            not_before: 0,
            not_after: u64::MAX,
            known_root: true,
            origin: None,
        };
        let hostname: Domain = HOST.parse().expect("a name");
        let (plan, findings) = Plan::make(&Facts {
            hostname: &hostname,
            tenant: &tenant,
            others: Vec::new(),
            doors: vec![Door {
                name: "exchange",
                port: 25,
                identity: Some(&identity),
            }],
            connector: Some(Delivery {
                host: "contoso-com.mail.protection.outlook.com",
                port: 25,
                identity: &identity,
                cloud: true,
            }),
            pilot_group: None,
            environment: None,
            client_names: &[],
            has_shipped_networks: true,
            spare: None,
        });
        let plan = plan.unwrap_or_else(|| panic!("{findings:?}"));
        let rendered = render(&plan, SCRIPTS).expect("a rendering");
        let own = rendered.files.iter().find(|file| file.name == SECRETS_FILE);
        let kept = read_secrets(&own.expect("the secrets").bytes).expect("what was written");
        assert_eq!(kept.secret, Some(Secret::new(SECRET)));
        assert_eq!(kept.looped, Some(Secret::new(LOOPED)));
        plan
    })
}
