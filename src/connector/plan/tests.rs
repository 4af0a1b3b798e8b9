//! The plan and what is found, from made-up certificates.

use super::super::fixtures::{door, facts, identity, tenant};
use super::*;
use crate::mail::Mailbox;

/// The plan and the findings of a configuration with these certificates.
fn made(
    hostname: &str,
    host: &[&str],
    client: &[&str],
    accepted: &[&str],
) -> (Option<Plan>, Vec<String>) {
    let (host, client) = (identity("host", host), identity("client", client));
    let (plan, findings) = Plan::make(&Facts {
        doors: vec![door(Some(&host))],
        ..facts(&hostname.parse().unwrap(), &tenant(accepted), &client)
    });
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

fn tls_domain(plan: &Option<Plan>) -> &str {
    let outward = plan.as_ref().and_then(|plan| plan.outward.as_ref());
    &outward.unwrap().tls_domain
}

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
            (tls_domain(&plan), findings.len()),
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
    assert_eq!(tls_domain(&plan), "mail.example.net");
    assert!(
        findings[0].starts_with(
            "warning listener.exchange.certificate: the certificate does not cover hostname"
        ),
        "{findings:?}"
    );
}

#[test]
fn the_certificate_name_is_the_one_that_lies_best_in_the_accepted_domains() {
    for (names, accepted, name, sub_domain) in [
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
            "*.contoso.com",
            Some("mail.contoso.com"),
        ),
        (
            &["mail.contoso.com"],
            &["*.contoso.com"],
            "mail.contoso.com",
            None,
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
        let Certificate {
            connector_name,
            sub_domain: own,
            ..
        } = plan.unwrap().certificate;
        assert_eq!(
            (connector_name.as_str(), own.map(|own| own.to_string())),
            (name, sub_domain.map(str::to_owned)),
            "{names:?}"
        );
        // A wildcard comes with both remedies.
        let told = findings.iter().filter(|told| {
            told.starts_with("warning tenant.contoso.inbound_connector.certificate: its name ")
                && told.contains("Safer: ")
                && told.contains("set TlsSenderCertificateName to *.contoso.com")
        });
        let expected = usize::from(name.starts_with("*."));
        // And one that an entry with sub-domains alone takes in, with its own.
        let by_pattern = findings
            .iter()
            .filter(|told| told.contains(" alone, and that"));
        let by_pattern = by_pattern.count();
        assert_eq!(by_pattern, usize::from(accepted == ["*.contoso.com"]));
        assert_eq!(
            (told.count(), findings.len()),
            (expected, expected + by_pattern)
        );
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

/// The keys of what is told, with a set for this environment, and Exchange's host and the name of its client certificates.
fn clouded(environment: &str, host: &str, name: &str, shipped: bool) -> Vec<String> {
    let (own, client) = (identity("host", &[HOST]), identity("client", &[HOST]));
    let (hostname, tenant) = (HOST.parse().unwrap(), tenant(&[HOST]));
    let names = [name.parse().unwrap()];
    let mut facts = Facts {
        doors: vec![door(Some(&own))],
        environment: Some(environment),
        client_names: &names,
        has_shipped_networks: shipped,
        ..facts(&hostname, &tenant, &client)
    };
    facts.connector.as_mut().unwrap().host = host;
    let (plan, findings) = Plan::make(&facts);
    assert!(plan.is_some());
    // `diff` does not know which it is.
    facts.environment = None;
    assert_eq!(Plan::make(&facts).1, []);
    facts.environment = Some(environment);
    facts.doors.clear();
    // Nobody's mail is refused where Exchange sends nothing.
    let (_, inward) = Plan::make(&facts);
    assert!(
        inward
            .iter()
            .all(|finding| !finding.key.starts_with("exchange_online"))
    );
    findings.into_iter().map(told).collect()
}

#[test]
fn names_and_networks_of_another_cloud_are_told() {
    const HOSTS: [&str; 3] = [
        "contoso-com.mail.protection.outlook.com",
        "contoso.mail.Protection.partner.outlook.cn.",
        "contoso-com.mail.protection.office365.us",
    ];
    const NAME: &str = "mail.protection.outlook.com";
    let told = clouded("O365China", HOSTS[0], NAME, true);
    let keys: Vec<&str> = told
        .iter()
        .map(|text| text.split_once(": ").unwrap().0)
        .collect();
    assert_eq!(
        keys,
        [
            "warning tenant.contoso.inbound_connector.host",
            "warning exchange_online.client_certificate_names",
            "warning exchange_online.endpoints"
        ]
    );
    assert!(told[0].contains("of the cloud O365Default"), "{told:?}");
    assert!(told[2].contains("endpoints/China"), "{told:?}");
    let own = "mail.protection.partner.outlook.cn";
    assert_eq!(clouded("O365China", HOSTS[1], own, false), [""; 0]);
    // Two clouds share the names of their hosts.
    for (environment, expected) in [
        ("O365USGovGCCHigh", 0),
        ("O365USGovDoD", 0),
        ("O365Default", 1),
    ] {
        let told = clouded(environment, HOSTS[2], own, false);
        assert_eq!(told.len(), expected, "{environment}: {told:?}");
    }
    assert_eq!(clouded("O365Default", HOSTS[0], NAME, true), [""; 0]);
    // Of this one nothing is known: a host of its own is no other's.
    let told = clouded("O365GermanyCloud", "mail.contoso.de", NAME, true);
    assert_eq!(told.len(), 2, "{told:?}");
}

#[test]
fn without_a_connector_listener_the_set_is_the_inbound_connector_alone() {
    let client = identity("client", &["contoso.com"]);
    let mut own = tenant(&["contoso.com"]);
    own.secret_header = None;
    own.loop_header = None;
    let group: Mailbox = "pilot@contoso.com".parse().unwrap();
    // Exchange never asks for it.
    let hostname = "printers.contoso.local".parse().unwrap();
    let mut facts = facts(&hostname, &own, &client);
    let (plan, findings) = Plan::make(&facts);
    let plan = plan.unwrap();
    assert_eq!(
        (findings.len(), plan.is_sent_to(), plan.made().count()),
        (0, false, 0)
    );
    let tokens = plan.tokens();
    let value = |name: &str| {
        tokens
            .iter()
            .find(|(own, _)| *own == name)
            .map(|(_, token)| token)
    };
    assert_eq!(value("SmartHosts"), Some(&Token::List(Vec::new())));
    for name in [
        "TlsDomain",
        "SecretHeaderName",
        "LoopHeaderName",
        "PilotGroup",
    ] {
        assert_eq!(value(name), Some(&Token::Text(String::new())), "{name}");
    }
    let with_loop = tenant(&["contoso.com"]);
    facts.tenant = &with_loop;
    let (plan, findings) = Plan::make(&facts);
    assert!(plan.is_some_and(|plan| !plan.is_sent_to()));
    assert_eq!(
        (findings.len(), findings[0].key.as_str(), findings[0].grade),
        (1, "tenant.contoso.loop_header", Grade::Warning)
    );
    facts.tenant = &own;
    facts.pilot_group = Some(&group);
    let (plan, findings) = Plan::make(&facts);
    assert!(plan.is_some());
    assert!(findings[0].text.ends_with("has no meaning"), "{findings:?}");
    // A listener without a certificate is no listener for Exchange, and no reason to leave its part out.
    facts.doors = vec![door(None)];
    let (plan, findings) = Plan::make(&facts);
    assert!(plan.is_none());
    assert!(
        findings
            .iter()
            .any(|found| found.key == "listener" && found.grade == Grade::Error)
    );
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
    let hostname = HOST.parse().unwrap();
    let mut facts = Facts {
        doors: vec![door(None)],
        connector: None,
        pilot_group: Some(&group),
        ..facts(&hostname, &own, &client)
    };
    let keys = |facts: &Facts<'_>| -> Vec<String> {
        let (_, findings) = Plan::make(facts);
        findings.into_iter().map(|finding| finding.key).collect()
    };
    assert_eq!(
        keys(&facts),
        [
            "tenant.contoso",
            "listener",
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
        door(Some(&host)),
    ];
    let mut fabrikam = tenant(&["fabrikam.com"]);
    fabrikam.name = "fabrikam".into();
    fabrikam.loop_header.as_mut().unwrap().name = headers::GATE.into();
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
            "tenant.contoso.inbound_connector.certificate",
            "listener.inner.certificate",
            "tenant.contoso.secret_header",
            "tenant.contoso.loop_header"
        ]
    );
    let plan = Plan::make(&facts).0.unwrap();
    let outward = plan.outward.as_ref().unwrap();
    assert_eq!(outward.tls_domain, HOST, "the listener on port 25 counts");
    assert_eq!(
        (outward.secret.name.as_str(), outward.looped.name.as_str()),
        ("X-Gatepost-Gate-2", headers::PROCESSED)
    );
    assert!(!plan.cloud && plan.made().count() == 2);
}
