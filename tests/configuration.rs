//! `gatepost check`: every problem with its key and line, nothing secret in its words.

#![allow(
    missing_docs,
    unreachable_pub,
    dead_code,
    reason = "test code; the harness is shared by several test programs"
)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::or_fun_call,
    clippy::large_futures,
    reason = "test code"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "tests read the clock to bound their waits"
)]

#[path = "scenarios/harness.rs"]
mod harness;

use gatepost::config::{self, Severity};
use harness::{Changes, Surroundings};

/// A change of the configuration, and the key and severity of the problem that it must bring.
const TABLE: &[(&str, &str, &str, Severity)] = &[
    (
        "hostname = \"smarthost.contoso.com\"",
        "hostname = \"nodots\"",
        "hostname",
        Severity::Error,
    ),
    (
        "hostname = \"smarthost.contoso.com\"",
        "",
        "hostname",
        Severity::Error,
    ),
    (
        "chain = \"contoso.pem\"",
        "chain = \"missing.pem\"",
        "certificate.contoso.chain",
        Severity::Error,
    ),
    (
        "key = \"contoso.key\"",
        "key = \"host.key\"",
        "certificate.contoso.key",
        Severity::Error,
    ),
    (
        "name = \"apps\"",
        "name = \"exchange\"",
        "listener.exchange.name",
        Severity::Error,
    ),
    (
        "service = \"connector\"\ntls = \"starttls\"",
        "service = \"connector\"\ntls = \"none\"",
        "listener.exchange.tls",
        Severity::Error,
    ),
    (
        "service = \"connector\"",
        "service = \"telnet\"",
        "listener.exchange.service",
        Severity::Error,
    ),
    (
        "bare_newlines = \"repair\"",
        "bare_newlines = \"guess\"",
        "listener.printers.bare_newlines",
        Severity::Error,
    ),
    (
        "bare_newlines = \"repair\"",
        "auth_without_tls = true",
        "listener.printers.auth_without_tls",
        Severity::Warning,
    ),
    (
        "bare_newlines = \"repair\"",
        "max_message_size = \"150\"",
        "listener.printers.max_message_size",
        Severity::Error,
    ),
    (
        "bare_newlines = \"repair\"",
        "max_connections = 0",
        "listener.printers.max_connections",
        Severity::Error,
    ),
    (
        "bare_newlines = \"repair\"",
        "proxy_protocol_from = [\"x\"]",
        "listener.printers.proxy_protocol_from[0]",
        Severity::Error,
    ),
    (
        "bare_newlines = \"repair\"",
        "ehlo_discard = [\"NONSENSE\"]",
        "listener.printers.ehlo_discard[0]",
        Severity::Warning,
    ),
    (
        "networks = [\"127.0.40.0/24\"]",
        "networks = [\"127.0.40.0/99\"]",
        "exchange_online.networks[0]",
        Severity::Error,
    ),
    (
        "networks = [\"127.0.40.0/24\"]",
        "half_proven = \"maybe\"",
        "exchange_online.half_proven",
        Severity::Error,
    ),
    (
        "networks = [\"127.0.40.0/24\"]",
        "client_certificate_names = [\"*.outlook.com\"]",
        "exchange_online.client_certificate_names[0]",
        Severity::Error,
    ),
    (
        "networks = [\"127.0.40.0/24\"]",
        "endpoints = \"missing.json\"",
        "exchange_online.endpoints",
        Severity::Error,
    ),
    (
        "client_certificate_roots = \"ca.pem\"",
        "client_certificate_roots = \"missing.pem\"",
        "exchange_online.client_certificate_roots",
        Severity::Error,
    ),
    (
        "accepted_domains = [\"fabrikam.com\"]",
        "accepted_domains = [\"contoso.com\"]",
        "tenant.fabrikam.accepted_domains[0]",
        Severity::Error,
    ),
    (
        "accepted_domains = [\"fabrikam.com\"]",
        "accepted_domains = [\"*.com\"]",
        "tenant.fabrikam.accepted_domains[0]",
        Severity::Error,
    ),
    (
        "tenant_id = \"b7e0a4d3-2c51-4f86-8a9e-d01c6b3e7f25\"",
        "tenant_id = \"11111111-2222-3333-4444-555555555555\"",
        "tenant.fabrikam.tenant_id",
        Severity::Error,
    ),
    (
        "tenant_id = \"b7e0a4d3-2c51-4f86-8a9e-d01c6b3e7f25\"",
        "tenant_id = \"x\"",
        "tenant.fabrikam.tenant_id",
        Severity::Error,
    ),
    (
        "accepted_domains = [\"fabrikam.com\"]",
        "accepted_domains = [\"fabrikam.com\"]\nproofs = 5",
        "tenant.fabrikam.proofs",
        Severity::Error,
    ),
    (
        "accepted_domains = [\"fabrikam.com\"]",
        "accepted_domains = [\"fabrikam.com\"]\ngate = \"report\"",
        "tenant.fabrikam.gate",
        Severity::Error,
    ),
    (
        "accepted_domains = [\"fabrikam.com\"]",
        "accepted_domains = [\"fabrikam.com\"]\ngate = \"report\"\ngate_report_until = \"2020-01-01\"",
        "tenant.fabrikam.gate_report_until",
        Severity::Warning,
    ),
    (
        "accepted_domains = [\"fabrikam.com\"]",
        "accepted_domains = [\"fabrikam.com\"]\nforwarded_senders = \"x\"",
        "tenant.fabrikam.forwarded_senders",
        Severity::Error,
    ),
    (
        "accepted_domains = [\"fabrikam.com\"]",
        "accepted_domains = [\"fabrikam.com\"]\noriginator_orgs = [\"a b\"]",
        "tenant.fabrikam.originator_orgs[0]",
        Severity::Error,
    ),
    (
        "name = \"X-fabrikam-Gate\"",
        "name = \"Subject\"",
        "tenant.fabrikam.secret_header.name",
        Severity::Error,
    ),
    (
        "value = \"fabrikam-secret\"",
        "value = \"${UNSET_VARIABLE_OF_A_TEST}\"",
        "tenant.fabrikam.secret_header.value",
        Severity::Error,
    ),
    (
        "value = \"fabrikam-loop\"",
        "value = \"${file:missing}\"",
        "tenant.fabrikam.loop_header.value",
        Severity::Error,
    ),
    (
        "certificate = \"fabrikam\"\ncloud",
        "certificate = \"contoso\"\ncloud",
        "tenant.fabrikam.inbound_connector.certificate",
        Severity::Error,
    ),
    (
        "certificate = \"fabrikam\"\ncloud_services_mail_enabled = true",
        "certificate = \"fabrikam\"\ncloud_services_mail_enabled = false",
        "tenant.fabrikam.inbound_connector.cloud_services_mail_enabled",
        Severity::Warning,
    ),
    (
        "tenant = \"contoso\"\nusername",
        "tenant = \"nobody\"\nusername",
        "application.erp.tenant",
        Severity::Error,
    ),
    (
        "senders = [\"erp@contoso.com\"]",
        "senders = [\"erp@elsewhere.example\"]",
        "application.erp.senders[0]",
        Severity::Error,
    ),
    (
        "senders = [\"erp@contoso.com\"]",
        "senders = [\"erp@contoso.com\"]\nrate = \"many\"",
        "application.erp.rate",
        Severity::Error,
    ),
    (
        "senders = [\"erp@contoso.com\"]",
        "senders = [\"erp@contoso.com\"]\nbounces_to = \"x\"",
        "application.erp.bounces_to",
        Severity::Error,
    ),
    (
        "networks = [\"127.0.7.7/32\"]",
        "",
        "application.scanner",
        Severity::Error,
    ),
    (
        "networks = [\"127.0.7.7/32\"]",
        "networks = [\"10.0.0.0/8\"]",
        "application.scanner.networks[0]",
        Severity::Warning,
    ),
    (
        "via = \"exchange\"",
        "via = \"mx\"",
        "route[0].via",
        Severity::Error,
    ),
    (
        "via = \"exchange\"",
        "via = \"relay:nowhere\"",
        "route[0].via",
        Severity::Error,
    ),
    (
        "recipients = \"any\"",
        "recipients = \"some\"",
        "route[0].recipients",
        Severity::Error,
    ),
    (
        "recipients = \"any\"\nvia = \"exchange\"",
        "recipients = \"any\"\nvia = \"exchange\"\n[[route]]\nrecipients = \"accepted\"\nvia = \"exchange\"",
        "route[1]",
        Severity::Warning,
    ),
    (
        "retry = [\"1s\"]",
        "retry = [\"soon\"]",
        "delivery.exchange.retry[0]",
        Severity::Error,
    ),
    (
        "expire = \"1h\"",
        "expire = \"0s\"",
        "delivery.exchange.expire",
        Severity::Error,
    ),
    (
        "expire = \"1h\"",
        "hold_on_connector_fault = \"1w\"",
        "delivery.exchange.hold_on_connector_fault",
        Severity::Error,
    ),
    (
        "expire = \"1h\"",
        "delay_notice = 4",
        "delivery.exchange.delay_notice",
        Severity::Error,
    ),
    (
        "[admin]\naddress = \"127.0.0.1:0\"",
        "[admin]\naddress = \"here\"",
        "admin.address",
        Severity::Error,
    ),
    (
        "[admin]\naddress = \"127.0.0.1:0\"",
        "[admin]\ntoken = \"short\"",
        "admin.token",
        Severity::Error,
    ),
    (
        "[admin]",
        "[store]\nengine = \"postgres\"\n[admin]",
        "store.engine",
        Severity::Error,
    ),
    (
        "[admin]",
        "[dns]\nservers = \"nearest\"\n[admin]",
        "dns.servers",
        Severity::Error,
    ),
    (
        "[admin]",
        "[trace]\nkeep = \"0d\"\n[admin]",
        "trace.keep",
        Severity::Error,
    ),
    (
        "[admin]",
        "[log]\nlevel = \"loud\"\n[admin]",
        "log.level",
        Severity::Error,
    ),
    (
        "[admin]",
        "[log]\nformat = \"xml\"\n[admin]",
        "log.format",
        Severity::Error,
    ),
    (
        "[admin]",
        "[delivery.mx]\nsource_addresses = { bulk = [\"x\"] }\n[admin]",
        "delivery.mx.source_addresses.bulk[0]",
        Severity::Error,
    ),
    (
        "[admin]",
        "[[relay]]\nname = \"up\"\nhost = \"relay.example.net\"\nusername = \"u\"\n[admin]",
        "relay.up.password",
        Severity::Error,
    ),
];

#[tokio::test]
async fn every_problem_is_told_with_its_key_and_line() {
    let around = Surroundings::new().await;
    for (from, to, key, severity) in TABLE {
        let path = around.configuration([0; 3], &Changes::replace(from, to));
        let loaded = config::load(&path).unwrap_or_else(|error| panic!("{to}: {error}"));
        let text = std::fs::read_to_string(&path).unwrap();
        let found = loaded
            .problems
            .iter()
            .find(|problem| problem.key == *key && problem.severity == *severity);
        let found = found
            .unwrap_or_else(|| panic!("{to}: no {severity:?} at {key}: {:#?}", loaded.problems));
        assert!(
            (1..=text.lines().count()).contains(&found.line),
            "{to}: line {}",
            found.line
        );
        assert_eq!(
            loaded.settings.is_none(),
            loaded
                .problems
                .iter()
                .any(|problem| problem.severity == Severity::Error)
        );
        for problem in &loaded.problems {
            let shown = problem.to_string();
            assert!(
                !shown.contains("-secret") && !shown.contains("argon2"),
                "a secret is never printed: {shown}"
            );
        }
    }
}

#[tokio::test]
async fn an_unknown_key_names_key_file_and_line_and_no_secret() {
    let around = Surroundings::new().await;
    let change = Changes::replace(
        "value = \"contoso-secret\"",
        "value = \"contoso-secret\", colour = \"blue\"",
    );
    let path = around.configuration([0; 3], &change);
    let line = std::fs::read_to_string(&path)
        .unwrap()
        .lines()
        .position(|line| line.contains("colour"))
        .unwrap()
        + 1;
    let error = config::load(&path).unwrap_err().to_string();
    assert!(
        error.contains("colour") && error.contains(&format!("gatepost.toml:{line}")),
        "{error}"
    );
    assert!(!error.contains("contoso-secret"), "{error}");
}

#[tokio::test]
async fn the_usual_configuration_and_files_with_secrets_load() {
    let around = Surroundings::new().await;
    std::fs::write(
        around.folder.path().join("gate.txt"),
        "from-a-file-of-its-own\n",
    )
    .unwrap();
    let change = Changes::replace(
        "value = \"contoso-secret\"",
        "value = \"${file:gate.txt}\", previous = \"contoso-secret\"",
    );
    let settings = around.settings(&change);
    let tenant = settings.tenants.named("contoso").unwrap();
    let secret = tenant.secret_header.as_ref().unwrap();
    assert!(
        secret.values[0].matches(b"from-a-file-of-its-own"),
        "one final newline dropped"
    );
    assert!(secret.values[1].matches(b"contoso-secret"));
    assert_eq!(
        (
            tenant.proofs,
            settings.listeners.len(),
            settings.accounts.len()
        ),
        (2, 3, 2)
    );
    assert_eq!(
        settings.exchange_law.hold_on_connector_fault.as_secs(),
        24 * 3600
    );
    assert_eq!(settings.trace_keep.as_secs(), 30 * 86_400);
    assert_eq!(settings.listeners[0].max_message_size, 150 * 1024 * 1024);
}

#[test]
fn the_development_configuration_lacks_nothing_but_its_certificates() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/dev.toml");
    let loaded = config::load(&path).unwrap();
    for problem in loaded
        .problems
        .iter()
        .filter(|problem| problem.severity == Severity::Error)
    {
        let missing =
            problem.key.starts_with("certificate.") || problem.key.starts_with("exchange_online.");
        assert!(missing, "{problem}");
    }
}
