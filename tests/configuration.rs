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
use gatepost::lab::certificates::{Above, Leaf};
use gatepost::trust::certificate::Roots;
use harness::{Changes, Surroundings};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use std::sync::Arc;

/// A change of the configuration, and the key and severity of the problem that it must bring.
const TABLE: &[(&str, &str, &str, Severity)] = &[
    (
        "hostname = \"smarthost.contoso.com\"",
        "hostname = \"nodots\"",
        "hostname",
        Severity::Warning,
    ),
    (
        "hostname = \"smarthost.contoso.com\"",
        "hostname = \"[192.0.2.1]\"",
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
        "proxy_protocol_from = [\"10.0.0.0/8\"]",
        "listener.printers.proxy_protocol_from[0]",
        Severity::Warning,
    ),
    (
        "bare_newlines = \"repair\"",
        "proxy_protocol_from = [\"10.0.0.7/32\", \"192.0.2.0/24\"]",
        "listener.printers.proxy_protocol_from[1]",
        Severity::Warning,
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
        "accepted_domains = [\"fabrikam.com\"]\nproofs = 6",
        "tenant.fabrikam.proofs",
        Severity::Error,
    ),
    // Three stamps and a signature: the fifth item would be the secret header.
    (
        "accepted_domains = [\"fabrikam.com\"]\nsecret_header = { name = \"X-fabrikam-Gate\", value = \"fabrikam-secret\" }",
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
        Severity::Warning,
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
        Severity::Warning,
    ),
    (
        "[admin]",
        "[store]\nengine = \"postgres\"\n[admin]",
        "store.engine",
        Severity::Error,
    ),
    (
        "[admin]",
        "[store]\nurl = \"postgres://db.contoso.com/gatepost\"\n[admin]",
        "store.url",
        Severity::Warning,
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
    (
        "[admin]",
        "[[relay]]\nname = \"up\"\nhost = \"relay.example.net\"\n[admin]",
        "relay.up.name",
        Severity::Warning,
    ),
    (
        "[admin]",
        "[[relay]]\nname = \"up\"\nhost = \"smarthost.contoso.com\"\nport = 25\n[admin]",
        "relay.up.host",
        Severity::Error,
    ),
    (
        "[admin]",
        "[[relay]]\nname = \"up\"\nhost = \"relay.example.net\"\nserver_certificate_roots = \"gone.pem\"\n[admin]",
        "relay.up.server_certificate_roots",
        Severity::Error,
    ),
    (
        "[admin]",
        "[[relay]]\nname = \"up\"\nhost = \"relay.example.net\"\ntls = \"opportunistic\"\nusername = \"u\"\npassword = \"p\"\n[admin]",
        "relay.up.tls",
        Severity::Warning,
    ),
    (
        "accepted_domains = [\"fabrikam.com\"]",
        "accepted_domains = [\"*.org\"]",
        "tenant.fabrikam.accepted_domains[0]",
        Severity::Error,
    ),
    (
        "accepted_domains = [\"fabrikam.com\"]",
        "accepted_domains = [\"fabrikam.com\"]\noriginator_orgs = [\"contoso.com\"]",
        "tenant.fabrikam.originator_orgs[0]",
        Severity::Error,
    ),
    (
        "accepted_domains = [\"contoso.com\"]",
        "accepted_domains = [\"contoso.com\"]\noriginator_orgs = [\"fabrikam.com\"]",
        "tenant.fabrikam.accepted_domains[0]",
        Severity::Error,
    ),
    (
        "name = \"X-fabrikam-Gate\", value = \"fabrikam-secret\"",
        "name = \"x-contoso-gate\", value = \"contoso-secret\"",
        "tenant.fabrikam.secret_header.name",
        Severity::Error,
    ),
    (
        "value = \"fabrikam-loop\"",
        "value = \"new-fabrikam-loop\", previous = \"contoso-loop\"",
        "tenant.fabrikam.loop_header.name",
        Severity::Error,
    ),
    (
        "name = \"X-fabrikam-Gate\"",
        "name = \"X-Gatepost-Processed\"",
        "tenant.fabrikam.secret_header.name",
        Severity::Error,
    ),
    (
        "senders = [\"erp@contoso.com\"]",
        "senders = [\"*.contoso.com\"]",
        "application.erp.senders[0]",
        Severity::Warning,
    ),
    (
        "networks = [\"127.0.7.7/32\"]",
        "networks = [\"8.0.0.0/6\"]",
        "application.scanner.networks[0]",
        Severity::Warning,
    ),
    (
        "client_certificate_roots = \"ca.pem\"",
        "client_certificate_roots = \"missing/system\"",
        "exchange_online.client_certificate_roots",
        Severity::Error,
    ),
    (
        "recipients = \"any\"\nvia = \"exchange\"",
        "recipients = \"accepted\"\nvia = \"exchange\"\n[[route]]\nrecipients = [\"x@contoso.com\", \"fabrikam.com\"]\ntenant = \"contoso\"\nvia = \"exchange\"\n[[route]]\ntenant = \"contoso\"\nrecipients = [\"x@contoso.com\"]\nvia = \"exchange\"",
        "route[2]",
        Severity::Warning,
    ),
    (
        "recipients = \"any\"\nvia = \"exchange\"",
        "recipients = \"any\"\nfrom = \"connector\"\nvia = \"exchange\"\n[[route]]\nrecipients = \"any\"\nfrom = \"submission\"\nvia = \"exchange\"\n[[route]]\nrecipients = \"any\"\nvia = \"exchange\"",
        "route[2]",
        Severity::Warning,
    ),
    (
        "certificate = \"contoso\"\ncloud",
        "certificate = \"missing\"\ncloud",
        "tenant.contoso.inbound_connector.certificate",
        Severity::Error,
    ),
    (
        "certificate = \"contoso\"\ncloud",
        "certificate = \"host\"\ncloud",
        "tenant.contoso.inbound_connector.certificate",
        Severity::Warning,
    ),
];

/// XOORG counts where a connector listener offers it.
#[tokio::test]
async fn proofs_beyond_what_the_listeners_offer_are_told() {
    let around = Surroundings::new().await;
    let other = "[[listener]]\nname = \"other\"\naddress = \"127.0.0.1:0\"\nservice = \"connector\"\ntls = \"starttls\"\ncertificate = \"host\"\n";
    for (discard, other, proofs, expected) in [
        ("ehlo_discard = [\"XOORG\"]\n", "", 4, None),
        (
            "ehlo_discard = [\"XOORG\"]\n",
            "",
            5,
            Some((Severity::Error, "only 4 items can name this tenant (no")),
        ),
        (
            "ehlo_discard = [\"xoorg\"]\n",
            other,
            5,
            Some((
                Severity::Warning,
                "whose ehlo_discard has XOORG: only 4 items",
            )),
        ),
        ("", "", 5, None),
    ] {
        let mut changes = Changes::replace(
            "accepted_domains = [\"fabrikam.com\"]",
            &format!("accepted_domains = [\"fabrikam.com\"]\nproofs = {proofs}"),
        );
        changes.replace.push((
            "service = \"connector\"\n",
            format!("service = \"connector\"\n{discard}"),
        ));
        changes.append = other.to_owned();
        let path = around.configuration([0; 3], &changes);
        let loaded = config::load(&path).unwrap();
        let found = loaded
            .problems
            .iter()
            .find(|problem| problem.key == "tenant.fabrikam.proofs");
        match (found, expected) {
            (None, None) => {}
            (Some(problem), Some((severity, text))) => {
                assert_eq!(problem.severity, severity, "{problem}");
                assert!(problem.to_string().contains(text), "{problem}");
            }
            (found, expected) => panic!("{discard} {proofs}: {found:?}, not {expected:?}"),
        }
    }
}

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
    let loaded = config::load(&path).unwrap();
    assert!(loaded.has_unknown_key && loaded.is_refused());
    let told: String = loaded
        .problems
        .iter()
        .map(|own| format!("{own}\n"))
        .collect();
    let place = format!(
        "gatepost.toml:{line}: tenant.contoso.secret_header.colour: unknown key; known here:"
    );
    assert!(told.contains(&place), "{told}");
    assert!(!told.contains("contoso-secret"), "{told}");
}

/// An unknown key hides none of the other problems, and no other unknown key, wherever they stand.
#[tokio::test]
async fn unknown_keys_are_told_all_at_once_with_everything_else() {
    let around = Surroundings::new().await;
    let mut change = Changes::replace(
        "accepted_domains = [\"contoso.com\"]",
        "accepted_domains = [\"contoso.com\"]\nproofs = 0\nproofz = 1",
    );
    change.replace.push((
        "value = \"contoso-secret\"",
        "value = \"contoso-secret\", colour = \"blue\"".to_owned(),
    ));
    change.append =
        "\n[[route]]\nrecipents = [\"*\"]\nvia = \"relay:nowhere\"\n\n[nonsense]\na = 1\n"
            .to_owned();
    let path = around.configuration([0; 3], &change);
    let loaded = config::load(&path).unwrap();
    assert!(loaded.has_unknown_key && loaded.is_refused());
    let told = |end: &str, text: &str| {
        let mut problems = loaded.problems.iter();
        problems.any(|own| own.key.ends_with(end) && own.text.contains(text))
    };
    for (end, text) in [
        ("tenant.contoso.proofz", "unknown key"),
        ("secret_header.colour", "unknown key"),
        (".recipents", "unknown key"),
        ("nonsense", "unknown key"),
        ("tenant.contoso.proofs", ""),
        (".via", "nowhere"),
    ] {
        assert!(told(end, text), "{end}: {:#?}", loaded.problems);
    }
    let lines: Vec<usize> = loaded.problems.iter().map(|own| own.line).collect();
    assert!(lines.is_sorted(), "{lines:?}");
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

/// The names that README's cmdlets give to Exchange, and the set-up that it tells to start from, are two halves of one.
#[tokio::test]
async fn the_set_up_to_start_from_is_well_and_the_pages_connect_it() {
    let around = Surroundings::new().await;
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let source = std::fs::read_to_string(root.join("deploy/gatepost.toml")).unwrap();
    let folder = around.folder.path().join("etc");
    for name in ["certs", "secrets"] {
        std::fs::create_dir_all(folder.join(name)).unwrap();
    }
    // As the README makes it (`install -d -g gatepost -m 750`): then the files in it may say what they like.
    let mode = <std::fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o750);
    std::fs::set_permissions(&folder, mode).unwrap();
    let leaf = Leaf::named("smarthost.contoso.com");
    let issued = around.authority.issue(&leaf).unwrap();
    harness::write_identity(&folder.join("certs"), "smarthost", &issued);
    for (name, value) in [
        ("gate", "0123456789abcdef0123456789abcdef\n"),
        ("loop", "fedcba9876543210fedcba9876543210\n"),
        (
            "erp",
            "$argon2id$v=19$m=19456,t=2,p=1$Nq7uJYlX/baVo2WnMx0kSA$10Hj9mxdmu4V27hvzejlt96CxeoRRCcEe2v4xtddtBo\n",
        ),
    ] {
        std::fs::write(folder.join("secrets").join(name), value).unwrap();
    }
    let file = folder.join("gatepost.toml");
    std::fs::write(&file, source).unwrap();
    let loaded = config::load(&file).unwrap();
    let keys: Vec<_> = loaded
        .problems
        .iter()
        .map(|problem| problem.key.as_str())
        .collect();
    // The authority of the test is no public one; that of a device in clear text is what it says.
    assert_eq!(
        keys,
        ["certificate.smarthost.chain", "listener.printers.tls"],
        "{:?}",
        loaded.problems
    );
    let settings = loaded.settings.unwrap();
    assert_eq!(settings.listeners.len(), 3);
    let by_hand = include_str!("../docs/connectors.md");
    let example = include_str!("../deploy/gatepost.toml");
    for (cmdlet, key) in [
        (
            "TlsSenderCertificateName = 'smarthost.contoso.com'",
            "\"smarthost.contoso.com\"]",
        ),
        (
            "TlsDomain = 'smarthost.contoso.com'",
            "hostname = \"smarthost.contoso.com\"",
        ),
        (
            "SetHeaderName = 'X-Contoso-Gate'",
            "secret_header = { name = \"X-Contoso-Gate\"",
        ),
        (
            "ExceptIfHeaderContainsMessageHeader = 'X-Gatepost-Processed'",
            "loop_header = { name = \"X-Gatepost-Processed\"",
        ),
        ("RemoveHeader = 'X-Gatepost-Processed'", "loop_header"),
    ] {
        assert!(by_hand.contains(cmdlet), "{cmdlet}");
        assert!(example.contains(key), "{key}");
    }
}

/// The text of each problem at a key after a change.
fn texts_at(around: &Surroundings, change: &Changes, key: &str) -> Vec<String> {
    let loaded = config::load(&around.configuration([0; 3], change)).unwrap();
    let at_key = loaded
        .problems
        .into_iter()
        .filter(|problem| problem.key == key);
    at_key.map(|problem| problem.text).collect()
}

#[tokio::test]
async fn one_leaf_under_two_names_serves_one_tenant_only() {
    let around = Surroundings::new().await;
    let change = Changes::replace(
        "chain = \"fabrikam.pem\"\nkey = \"fabrikam.key\"",
        "chain = \"contoso.pem\"\nkey = \"contoso.key\"",
    );
    let told = texts_at(
        &around,
        &change,
        "tenant.fabrikam.inbound_connector.certificate",
    );
    assert!(
        told.iter()
            .any(|text| text.contains("a second tenant that presents this")),
        "{told:?}"
    );
}

#[tokio::test]
async fn what_is_above_a_leaf_deserves_a_look_and_may_have_lapsed() {
    const DAY: u64 = 24 * 60 * 60;
    let around = Surroundings::new().await;
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let which = "certificate 2 of the chain (CN=scenario Issuing CA)";
    let leaf = Leaf::named("contoso.com");
    for (above, told) in [
        (
            Above::Until(now + 3 * DAY + 60),
            format!("{which} expires in 3 days"),
        ),
        (
            Above::ForEmail,
            format!("the extended key usage of {which} allows neither"),
        ),
        (Above::Until(now - 60), format!("{which} has expired")),
        (
            Above::From(now + 2 * DAY),
            format!("{which} is not valid yet, but in 2 days"),
        ),
    ] {
        let issued = around.authority.issue_below(&leaf, above).unwrap();
        harness::write_identity(around.folder.path(), "contoso", &issued);
        let texts = texts_at(&around, &Changes::default(), "certificate.contoso.chain");
        assert!(
            texts.iter().any(|text| text.starts_with(&told)),
            "{texts:?}"
        );
        assert_eq!(texts.len(), 2, "the root is unknown: {texts:?}");
    }
    // What ends with the leaf is told of the leaf.
    let leaf = leaf.until(now + 2 * DAY);
    let above = Above::Until(now + 3 * DAY);
    let issued = around.authority.issue_below(&leaf, above).unwrap();
    harness::write_identity(around.folder.path(), "contoso", &issued);
    let texts = texts_at(&around, &Changes::default(), "certificate.contoso.chain");
    assert!(!texts.iter().any(|text| text.contains(which)), "{texts:?}");
}

/// As a public authority sends it for clients that know only the older root: its own root, signed by that one.
#[tokio::test]
async fn a_known_root_that_an_unknown_one_has_signed_ends_a_chain_as_well() {
    let around = Surroundings::new().await;
    let chain = around.folder.path().join("contoso.pem");
    let chain = CertificateDer::pem_file_iter(chain).unwrap();
    let chain: Vec<_> = chain.collect::<Result<_, _>>().unwrap();
    let path = around.configuration([0; 3], &Changes::default());
    for (known, expected) in [(&chain[1..2], 0), (&[], 1)] {
        let (roots, _) = Roots::from_certificates(known);
        let roots = Arc::new(roots);
        let surroundings = config::Surroundings {
            environment: &|name| std::env::var_os(name),
            system_roots: &|| Arc::clone(&roots),
            unix_seconds: std::time::UNIX_EPOCH.elapsed().unwrap().as_secs(),
            endpoints_in_force: None,
            candidate: None,
        };
        let loaded = config::load_in(&path, &surroundings).unwrap();
        let told = loaded.problems.iter().filter(|problem| {
            problem.key == "certificate.contoso.chain" && problem.text.contains("no known root")
        });
        assert_eq!(told.count(), expected, "{:?}", loaded.problems);
    }
}

#[tokio::test]
async fn a_listener_wants_a_certificate_of_a_server() {
    let around = Surroundings::new().await;
    let keys = ["exchange", "apps", "printers"].map(|name| format!("listener.{name}.certificate"));
    for (leaf, told) in [
        (
            Leaf::named(harness::HOSTNAME).client_auth_only(),
            &["its extended key usage allows client authentication alone"][..],
        ),
        (
            Leaf::named(harness::HOSTNAME).without_alternative_names(),
            &["its name stands in the subject CN alone"],
        ),
        (Leaf::named(harness::HOSTNAME).server_auth_only(), &[]),
        // Told of the certificate itself.
        (Leaf::named(harness::HOSTNAME).code_signing_only(), &[]),
    ] {
        let issued = around.authority.issue(&leaf).unwrap();
        harness::write_identity(around.folder.path(), "host", &issued);
        for key in &keys {
            let texts = texts_at(&around, &Changes::default(), key);
            assert_eq!(texts.len(), told.len(), "{texts:?}");
            assert!(
                texts
                    .iter()
                    .zip(told)
                    .all(|(text, told)| text.starts_with(told))
            );
        }
    }
}

#[tokio::test]
async fn a_connector_route_with_a_stream_takes_no_mail() {
    let around = Surroundings::new().await;
    let change = Changes::replace(
        "via = \"exchange\"",
        "via = \"exchange\"\nfrom = \"connector\"\nstream = \"bulk\"",
    );
    let told = texts_at(&around, &change, "route[0].stream");
    assert!(
        told.iter().any(|text| text.contains("takes no mail")),
        "{told:?}"
    );
}

#[tokio::test]
async fn a_wildcard_certificate_is_below_its_domain_and_a_covered_sub_domain_deserves_a_look() {
    let around = Surroundings::new().await;
    let key = "tenant.contoso.inbound_connector.certificate";
    let issued = around
        .authority
        .issue(&Leaf::named("*.contoso.com"))
        .unwrap();
    harness::write_identity(around.folder.path(), "contoso", &issued);
    let told = texts_at(&around, &Changes::default(), key);
    assert!(
        told.iter()
            .any(|text| text.contains("*.contoso.com is below")),
        "{told:?}"
    );
    let issued = around
        .authority
        .issue(&Leaf::named("gate.contoso.com"))
        .unwrap();
    harness::write_identity(around.folder.path(), "contoso", &issued);
    let told = texts_at(&around, &Changes::default(), key);
    assert!(
        told.iter()
            .any(|text| text.contains("add gate.contoso.com")),
        "{told:?}"
    );
    let change = Changes::replace(
        "accepted_domains = [\"contoso.com\"]",
        "accepted_domains = [\"*.contoso.com\"]",
    );
    let told = texts_at(&around, &change, key);
    assert!(
        told.len() == 1 && told[0].contains("by *.contoso.com alone"),
        "{told:?}"
    );
    let change = Changes::replace(
        "accepted_domains = [\"contoso.com\"]",
        "accepted_domains = [\"*.contoso.com\", \"gate.contoso.com\"]",
    );
    assert_eq!(texts_at(&around, &change, key), Vec::<String>::new());
}

/// Surroundings of a check that depend on nothing of this machine.
fn checked(path: &std::path::Path, source: &str) -> Result<config::Loaded, config::Unreadable> {
    let surroundings = config::Surroundings {
        environment: &|name| match name {
            "GATE" => Some("secret-of-the-gate-rule".into()),
            "LOOP" => Some("secret-of-the-loop-field".into()),
            "HASH" => Some(hash().into()),
            "RELAY" => Some("secret-of-the-relay".into()),
            "TOKEN" => Some("secret-of-the-admin-api".into()),
            _ => None,
        },
        system_roots: &std::sync::Arc::default,
        unix_seconds: std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap()
            .as_secs(),
        endpoints_in_force: None,
        candidate: None,
    };
    config::parse(path, source, &surroundings)
}

fn hash() -> &'static str {
    static HASH: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    HASH.get_or_init(|| password_auth::generate_hash("secret"))
}

const EVERY_KEY: &str = include_str!("data/every-key.toml");

/// The folder of `data/every-key.toml`, with what it names.
async fn every_key_folder() -> (Surroundings, std::path::PathBuf) {
    let around = Surroundings::new().await;
    let folder = around.folder.path();
    std::fs::write(folder.join("old-gate.txt"), "the-gate-value-before\n").unwrap();
    std::fs::write(
        folder.join("endpoints.json"),
        r#"{"version": "2026110100", "endpoints": [{"id": 10, "serviceArea": "Exchange", "ips": ["40.92.0.0/15"], "tcpPorts": "25"}]}"#,
    )
    .unwrap();
    let path = folder.join("every-key.toml");
    (around, path)
}

#[tokio::test]
async fn every_key_of_the_contract_is_read_into_its_setting() {
    let (_around, path) = every_key_folder().await;
    let loaded = checked(&path, EVERY_KEY).unwrap();
    let s = loaded
        .settings
        .unwrap_or_else(|| panic!("{:#?}", loaded.problems));
    let seconds = std::time::Duration::from_secs;
    assert_eq!(s.hostname.as_str(), "smarthost.contoso.com");
    assert_eq!(s.data_directory, path.with_file_name("spool"));
    assert_eq!(&*s.identities[0].name, "contoso");
    let acme = s.acme.as_ref().unwrap();
    assert_eq!(acme.directory, "https://acme.example/directory");
    assert_eq!(acme.contact, ["mailto:ops@contoso.com"]);
    assert_eq!(acme.challenge_address.to_string(), "192.0.2.80:8080");
    assert_eq!(acme.roots.anchors.len(), 1);
    assert_eq!(acme.folder, path.with_file_name("spool"));
    assert_eq!(
        s.renewed.iter().map(|name| &**name).collect::<Vec<_>>(),
        ["contoso"]
    );
    assert_eq!(loaded.certificates[0].acme_names, ["contoso.com"]);

    use gatepost::receive::{BareNewlines, Service, TlsMode};
    let [exchange, apps, printers] = &s.listeners[..] else {
        panic!("{:?}", s.listeners)
    };
    assert_eq!(exchange.address.to_string(), "0.0.0.0:25");
    assert_eq!(
        (exchange.service, exchange.tls),
        (Service::Connector, TlsMode::StartTls)
    );
    let proxies: Vec<_> = exchange
        .proxy_protocol_from
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(proxies, ["192.0.2.0/24", "2001:db8::5/128"]);
    assert_eq!(exchange.max_message_size, 2 << 30);
    assert_eq!(exchange.max_connections, 7);
    assert_eq!(exchange.ehlo_discard, ["XOORG"]);
    assert!(!exchange.auth_without_tls);
    assert_eq!(exchange.bare_newlines, BareNewlines::Refuse);
    assert_eq!(
        (apps.service, apps.tls),
        (Service::Submission, TlsMode::Implicit)
    );
    assert_eq!(printers.tls, TlsMode::Optional);
    assert_eq!(printers.bare_newlines, BareNewlines::Repair);
    assert!(printers.auth_without_tls);

    use gatepost::trust::{Forwarded, Gate, HalfProven};
    let online = &s.exchange_online;
    assert_eq!(
        online.client_certificate_names[0].as_str(),
        "mail.protection.outlook.com"
    );
    assert_eq!(online.client_certificate_roots.anchors.len(), 1);
    assert_eq!(online.half_proven, HalfProven::Refuse);
    for (address, held) in [
        ("40.92.0.1", true),
        ("198.51.100.9", true),
        ("40.107.0.1", false),
    ] {
        assert_eq!(
            online.networks.contains(address.parse().unwrap()),
            held,
            "{address}"
        );
    }
    assert_eq!(s.endpoints_made, Some(1_793_491_200), "2026-11-01");
    assert_eq!(s.server_trust.names, ["*.mx.microsoft"]);
    assert_eq!(s.server_trust.roots.anchors.len(), 1);

    let tenant = s.tenants.named("contoso").unwrap();
    assert_eq!(tenant.id.to_string(), harness::CONTOSO);
    assert!(
        tenant
            .accepted_domains
            .contains(&"xn--bcher-kva.example".parse().unwrap())
    );
    assert!(
        !tenant
            .originator_orgs
            .contains(&"contoso.com".parse().unwrap())
    );
    assert_eq!(
        tenant.gate,
        Gate::Report {
            until: 4_102_444_800
        }
    );
    assert_eq!(tenant.proofs, 4);
    let secret = tenant.secret_header.as_ref().unwrap();
    assert_eq!((&*secret.name, secret.required), ("X-Contoso-Gate", true));
    assert!(secret.values[0].matches(b"secret-of-the-gate-rule"));
    assert!(secret.values[1].matches(b"the-gate-value-before"));
    assert_eq!(tenant.forwarded_senders, Forwarded::Allow);
    let looped = tenant.loop_header.as_ref().unwrap();
    assert_eq!(&*looped.name, "X-Gatepost-Processed");
    for value in [
        "secret-of-the-loop-field",
        "the-loop-value-before",
        "and-the-one-before-that",
    ] {
        assert!(looped.matches(value.as_bytes()), "{value}");
    }

    let connector = &s.inbound_connectors[0];
    assert_eq!(&*connector.host, "contoso-com.mail.protection.outlook.com");
    assert_eq!(
        (connector.port, &*connector.identity.name),
        (2525, "contoso")
    );
    assert!(!connector.cloud_services_mail_enabled);
    assert_eq!(
        (
            connector.max_connections,
            connector.max_messages_per_connection
        ),
        (3, 50)
    );

    let account = &s.accounts[0];
    let application = &account.application;
    assert_eq!(
        (&*application.name, &*application.tenant.name),
        ("erp", "contoso")
    );
    assert_eq!(account.application.username.as_deref(), Some("erp"));
    assert!(
        account
            .password_hash
            .as_ref()
            .unwrap()
            .matches(hash().as_bytes())
    );
    assert_eq!(application.senders.len(), 3);
    assert_eq!(account.networks[0].to_string(), "10.0.0.0/8");
    assert!(application.internal);
    assert_eq!(
        application.bounces_to.as_ref().unwrap().as_str(),
        "erp-owner@contoso.com"
    );
    assert_eq!(application.stream.as_deref(), Some("transactional"));
    let rate = account.rate.unwrap();
    assert_eq!((rate.messages, rate.per), (600, seconds(3600)));

    use gatepost::route::{From, Recipients};
    let routes: Vec<_> = s.routes.iter().collect();
    assert_eq!(routes[0].tenant.as_deref(), Some("contoso"));
    assert_eq!(routes[0].recipients, Recipients::Accepted);
    assert_eq!(routes[1].stream.as_deref(), Some("transactional"));
    assert!(matches!(&routes[1].recipients, Recipients::Listed(list) if list.len() == 2));
    assert_eq!(
        (routes[2].from, &routes[2].recipients),
        (Some(From::Connector), &Recipients::Any)
    );

    use gatepost::route::Via;
    let ways: Vec<_> = routes.iter().map(|route| route.via.to_string()).collect();
    assert_eq!(ways, ["exchange", "mx", "exchange", "relay:upstream"]);
    assert_eq!(routes[3].via, Via::Relay("upstream".into()));

    let relay = &s.relays[0];
    assert_eq!(
        (&*relay.name, &*relay.host, relay.port),
        ("upstream", "relay.example.net", 2587)
    );
    assert_eq!(relay.tls, gatepost::deliver::RelayTls::Encrypt);
    assert_eq!(relay.roots.anchors.len(), 1);
    let (username, password) = relay.credentials.as_ref().unwrap();
    assert_eq!(username, "gatepost");
    assert!(password.matches(b"secret-of-the-relay"));

    assert_eq!(s.exchange_law.retry, [seconds(10), seconds(120)]);
    assert_eq!(s.exchange_law.expire, seconds(3 * 86_400));
    assert_eq!(s.exchange_law.hold_on_connector_fault, seconds(5 * 3600));
    assert_eq!(s.exchange_law.delay_notice, Some(seconds(6 * 3600)));
    assert_eq!(s.mx_law.retry, [seconds(420)]);
    assert_eq!(s.mx_law.expire, seconds(8 * 3600));
    assert_eq!(s.mx_law.delay_notice, None);
    let (stream, addresses) = &s.mx_source_addresses[0];
    assert_eq!((&**stream, addresses.len()), ("transactional", 2));
    let servers: Vec<_> = s
        .dns_servers
        .unwrap()
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(servers, ["127.0.0.1:5353", "192.0.2.53:53"]);
    assert_eq!(s.trace_keep, seconds(9 * 86_400));
    assert_eq!(s.admin.address.to_string(), "127.0.0.2:8026");
    assert_eq!(s.admin.hosts, ["gatepost.contoso.com"]);
    assert!(s.admin.token.unwrap().matches(b"secret-of-the-admin-api"));
    assert_eq!((s.log.json, s.log.level), (true, tracing::Level::DEBUG));
}

#[tokio::test]
async fn no_key_of_the_contract_is_a_problem_and_no_secret_is_told() {
    let (_around, path) = every_key_folder().await;
    let loaded = checked(&path, EVERY_KEY).unwrap();
    for problem in &loaded.problems {
        let shown = problem.to_string();
        assert!(
            !shown.contains("secret-of-") && !shown.contains("argon2"),
            "{shown}"
        );
        assert!(problem.severity != Severity::Error, "{shown}");
    }
}

#[tokio::test]
async fn a_value_of_the_wrong_type_is_told_at_every_key_and_reading_goes_on() {
    let (_around, path) = every_key_folder().await;
    let lines: Vec<&str> = EVERY_KEY.lines().collect();
    let mut seen = 0;
    for (index, line) in lines.iter().enumerate() {
        let Some((key, value)) = line.split_once(" = ").filter(|_| !line.starts_with('#')) else {
            continue;
        };
        // No key takes a number with a fraction.
        let mut changed = lines.clone();
        let wrong = format!("{key} = 1.5");
        changed[index] = &wrong;
        let loaded = checked(&path, &changed.join("\n"))
            .unwrap_or_else(|error| panic!("{wrong} for {value}: {error}"));
        let told = loaded.problems.iter().any(|problem| {
            problem.severity == Severity::Error
                && problem.line == index + 1
                && problem.key.rsplit('.').next() == Some(key)
                && problem.text.contains("not a number with a fraction")
                    | problem.text.contains("not a number")
        });
        assert!(told, "line {}: {wrong}: {:#?}", index + 1, loaded.problems);
        assert!(loaded.settings.is_none(), "{wrong}");
        // And each is known: the same key misspelt is not.
        let unknown = format!("{key}x = 1.5");
        changed[index] = &unknown;
        let loaded = checked(&path, &changed.join("\n")).unwrap();
        let is_told = |own: &config::Problem| {
            let named = own.key.rsplit('.').next();
            own.line == index + 1
                && named == Some(format!("{key}x").as_str())
                && own.text.starts_with("unknown key")
        };
        assert!(
            loaded.problems.iter().any(is_told),
            "{:#?}",
            loaded.problems
        );
        assert!(loaded.has_unknown_key && loaded.is_refused());
        seen += 1;
    }
    assert!(seen > 80, "only {seen} keys");
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 300, failure_persistence: None, ..Default::default() })]

    /// Pieces of a real file, cut and joined anywhere, with odd values between.
    #[test]
    fn no_text_makes_the_check_panic(
        pieces in proptest::collection::vec((0..4096usize, 0..200usize, "[\\PC\n\\[\\]=\"${}:/.0-9]{0,12}"), 0..12),
    ) {
        let mut source = String::new();
        for (start, length, odd) in pieces {
            source.extend(EVERY_KEY.chars().skip(start).take(length));
            source.push_str(&odd);
        }
        match checked(std::path::Path::new("none/gatepost.toml"), &source) {
            Ok(loaded) => proptest::prop_assert_eq!(
                loaded.settings.is_none(),
                loaded.problems.iter().any(|problem| problem.severity == Severity::Error),
            ),
            Err(unreadable) => proptest::prop_assert!(!unreadable.text.contains("secret-of-")),
        }
    }

    /// One line of a good file replaced by any value.
    #[test]
    fn no_value_makes_the_check_panic(line in 0..140usize, value in "\\PC{0,40}") {
        let source: Vec<String> = EVERY_KEY.lines().enumerate().map(|(index, text)| match text.split_once(" = ") {
            Some((key, _)) if index == line => format!("{key} = {}", toml_string(&value)),
            _ => text.to_owned(),
        }).collect();
        if let Ok(loaded) = checked(std::path::Path::new("none/gatepost.toml"), &source.join("\n")) {
            for problem in &loaded.problems {
                proptest::prop_assert!(!problem.to_string().contains("secret-of-"));
                proptest::prop_assert!(problem.line >= 1 && problem.line <= source.len());
            }
        }
    }
}

fn toml_string(text: &str) -> String {
    serde_json::to_string(text).unwrap()
}

/// The keys of a file, the last word of each.
fn keys_of(value: &toml::Value, keys: &mut std::collections::BTreeSet<String>) {
    match value {
        toml::Value::Table(table) => {
            for (key, value) in table {
                let inner = matches!(value, toml::Value::Table(_));
                let tables = matches!(value, toml::Value::Array(all) if all.iter().any(toml::Value::is_table));
                let by_label = key == "source_addresses";
                if !(inner || tables) || by_label || key.ends_with("_header") {
                    keys.insert(key.clone());
                }
                if !by_label {
                    keys_of(value, keys);
                }
            }
        }
        toml::Value::Array(all) => all.iter().for_each(|value| keys_of(value, keys)),
        _ => {}
    }
}

#[test]
fn the_page_of_the_configuration_names_every_key_and_no_other() {
    let mut keys = std::collections::BTreeSet::from(["url".to_owned()]);
    keys_of(&toml::from_str(EVERY_KEY).unwrap(), &mut keys);
    let page = include_str!("../docs/configuration.md");
    for key in &keys {
        assert!(
            page.contains(&format!("`{key}`")) || page.contains(&format!(".{key}`")),
            "{key} is not explained"
        );
    }
    for line in page.lines().filter(|line| line.starts_with("| `")) {
        let named = line.split('`').nth(1).unwrap();
        let word = named.rsplit('.').next().unwrap();
        assert!(keys.contains(word), "{named} is no key");
    }
}

/// The keys of a file with the way to each, tables of one kind as one.
fn places_of(value: &toml::Value, at: &str, places: &mut std::collections::BTreeSet<String>) {
    match value {
        toml::Value::Table(table) if !at.ends_with(".source_addresses") => {
            for (key, value) in table {
                let place = [at, key].join(".");
                places_of(value, place.trim_start_matches('.'), places);
            }
        }
        toml::Value::Array(all) if all.iter().any(toml::Value::is_table) => {
            all.iter().for_each(|value| places_of(value, at, places));
        }
        _ => {
            places.insert(at.to_owned());
        }
    }
}

fn sources(folder: &std::path::Path, text: &mut String) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, text);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&std::fs::read_to_string(path).unwrap());
        }
    }
}

#[test]
fn every_key_has_a_test_that_fails_without_its_meaning() {
    // What only an engine that is not built would read is not in the file.
    let mut places = std::collections::BTreeSet::from(["store.url".to_owned()]);
    places_of(&toml::from_str(EVERY_KEY).unwrap(), "", &mut places);
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut code = String::new();
    sources(&root.join("src"), &mut code);
    sources(&root.join("tests"), &mut code);
    let page = include_str!("keys.md");
    let (keys, rules) = page.split_once("Rules beside the keys").unwrap();
    let rows = |part: &'static str| {
        let rows = part.lines().filter(|line| line.starts_with("| "));
        rows.filter(|line| !line.starts_with("| ---")).skip(1)
    };
    let named = |row: &str| {
        let last = row.trim_end_matches(" |").rsplit("| ").next().unwrap();
        let tests: Vec<&str> = last.split('`').skip(1).step_by(2).collect();
        assert!(!tests.is_empty(), "no test: {row}");
        for test in tests {
            assert!(
                code.contains(&format!("fn {test}(")),
                "{test} is no test: {row}"
            );
        }
    };
    for row in rows(keys) {
        let key = row.split('`').nth(1).unwrap();
        assert!(places.remove(key), "{key} is no key, or stands twice");
        named(row);
    }
    assert!(places.is_empty(), "without a row: {places:?}");
    assert!(rows(rules).count() > 0);
    rows(rules).for_each(named);
}
