use super::*;
use crate::lab::certificates::Leaf;
use crate::lab::{Inbound, Organization};
use std::path::Path;

/// Plays a prepared stage; the names of the rows that failed.
async fn failures(prepared: Prepared) -> Vec<&'static str> {
    let up = Up::start(prepared).await.unwrap();
    let story = up.play(None, Dress::Plain, |_| ()).await;
    up.server.stop().await;
    assert!(story.len() > 20, "only {} rows", story.len());
    let failed = story.iter().filter(|told| !told.well());
    failed.map(|told| told.name).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_sample_goes_through_the_real_smart_host_as_it_must() {
    let folder = Folder::make().unwrap();
    let prepared = stage::prepare(&folder).unwrap();
    assert_eq!(failures(prepared).await, Vec::<&str>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connector_without_the_flag_is_a_failed_lab() {
    let folder = Folder::make().unwrap();
    let mut prepared = stage::prepare(&folder).unwrap();
    for organization in &mut prepared.exchange.organizations {
        let mut changed = Organization::clone(organization);
        changed.inbound = changed.inbound.map(|inbound| Inbound {
            cloud_services_mail_enabled: false,
            ..inbound
        });
        *organization = Arc::new(changed);
    }
    let failed = failures(prepared).await;
    for row in [
        "printer to a colleague",
        "user to user",
        "automatic reply",
        "mail still flows",
    ] {
        assert!(failed.contains(&row), "{row} passed; failed: {failed:?}");
    }
    // Nobody expects these to be internal, or to arrive.
    for row in [
        "application that is not internal",
        "hostile tenant, XOORG",
        "neither",
    ] {
        assert!(!failed.contains(&row), "{row} failed");
    }
}

/// Plays the lapse alone; what is wrong with each row.
async fn lapse(prepared: Prepared, tenant: &str) -> Vec<(&'static str, bool)> {
    let up = Up::start(prepared).await.unwrap();
    let story = lapse::play(&up, tenant, 1, |_| ()).await;
    up.server.stop().await;
    story.iter().map(|told| (told.name, told.well())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lapsed_certificate_is_told_from_the_first_failure_to_the_release() {
    let folder = Folder::make().unwrap();
    let mut prepared = stage::prepare(&folder).unwrap();
    let tenant = lapse::prepare(&mut prepared).unwrap();
    assert_eq!(tenant, "contoso");
    let rows = lapse(prepared, &tenant).await;
    assert_eq!(rows.len(), 5);
    assert!(rows.iter().all(|(_, well)| *well), "{rows:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_sends_on_as_if_nothing_had_lapsed_fails_the_row() {
    let folder = Folder::make().unwrap();
    // The certificate stays good, so nothing is held: as with a host that does not look.
    let prepared = stage::prepare(&folder).unwrap();
    let rows = lapse(prepared, "contoso").await;
    let failed: Vec<_> = rows.iter().filter(|(_, well)| !well).collect();
    let failed: Vec<_> = failed.iter().map(|(name, _)| *name).collect();
    assert_eq!(
        failed[..2],
        [
            "the certificate lapses",
            "Exchange, a quarter of an hour later"
        ]
    );
}

#[test]
fn a_hold_that_is_over_too_soon_shows_no_lapse() {
    let folder = Folder::make().unwrap();
    let mut prepared = stage::prepare(&folder).unwrap();
    prepared.settings.exchange_law.hold_on_connector_fault = std::time::Duration::from_secs(600);
    assert!(matches!(
        lapse::prepare(&mut prepared),
        Err(Stopped::Unusable(why)) if why.contains("hold_on_connector_fault")
    ));
}

/// An administrator's own configuration, whose certificates and secrets are on another machine.
const OWN: &str = r#"
hostname = "smarthost.tailspin.example"
data_directory = "/var/lib/gatepost"
[[certificate]]
name = "host"
chain = "/etc/elsewhere/host.pem"
key = "/etc/elsewhere/host.key"
[[certificate]]
name = "tailspin"
chain = "/etc/elsewhere/tailspin.pem"
key = "/etc/elsewhere/tailspin.key"
[[listener]]
name = "from-microsoft"
address = "0.0.0.0:25"
service = "connector"
tls = "starttls"
certificate = "host"
proxy_protocol_from = ["10.0.0.0/8"]
[[listener]]
name = "secure"
address = "0.0.0.0:465"
service = "submission"
tls = "implicit"
certificate = "host"
[exchange_online]
half_proven = "refuse"
endpoints = "/etc/elsewhere/endpoints.json"
[[tenant]]
name = "tailspin"
tenant_id = "7c1c2e1e-6f5f-4a66-9d7b-0a5b0c0d0e0f"
accepted_domains = ["*.tailspin.example"]
gate = "report"
gate_report_until = "2099-01-01"
proofs = 3
secret_header = { name = "X-Tailspin-Gate", value = "${GATEPOST_TEST_UNSET_GATE}", required = true }
loop_header = { name = "X-Tailspin-Loop", value = "${GATEPOST_TEST_UNSET_LOOP}" }
[tenant.inbound_connector]
host = "tailspin-example.mail.protection.outlook.com"
certificate = "tailspin"
[[application]]
name = "any"
tenant = "tailspin"
username = "any"
password_hash = "${GATEPOST_TEST_UNSET_HASH}"
senders = ["*@print.tailspin.example"]
networks = ["10.1.0.0/16"]
internal = true
rate = "1/day"
[[route]]
recipients = "accepted"
via = "exchange"
[[route]]
from = "connector"
recipients = ["*.reader.example"]
via = "mx"
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_own_configuration_is_rehearsed_without_touching_the_world() {
    let folder = Folder::make().unwrap();
    let path = folder.write("own.toml", OWN).unwrap();
    let prepared = rehearsal::prepare(&path, &folder).unwrap();
    let remarks = prepared.remarks.join("\n");
    for said in [
        "the lab made one for tailspin.example",
        "${GATEPOST_TEST_UNSET_GATE} is not set",
        "here the gate enforces",
    ] {
        assert!(remarks.contains(said), "{said}: {remarks}");
    }
    assert!(
        !remarks.contains("$argon2"),
        "a made-up secret is shown: {remarks}"
    );
    assert!(!remarks.contains("intermediate missing"), "{remarks}");
    assert!(!remarks.contains("SSL_CERT_FILE"), "{remarks}");
    let settings = &prepared.settings;
    assert!(
        settings
            .listeners
            .iter()
            .all(|listener| listener.address.ip().is_loopback())
    );
    assert!(
        settings
            .listeners
            .iter()
            .all(|listener| listener.proxy_protocol_from.is_empty())
    );
    assert!(settings.data_directory.starts_with(folder.path("")));
    assert!(settings.admin.address.ip().is_loopback());
    assert!(
        settings
            .accounts
            .iter()
            .all(|account| account.rate.is_none())
    );
    assert_eq!(
        prepared.cast.outside.as_deref(),
        Some("scanner@reader.example")
    );
    assert_eq!(failures(prepared).await, Vec::<&str>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chain_without_its_intermediate_fails_the_rehearsal() {
    let folder = Folder::make().unwrap();
    let authority = Authority::new("Own CA").unwrap();
    let issued = authority.issue(&Leaf::named("tailspin.example")).unwrap();
    let end = "-----END CERTIFICATE-----";
    let (leaf, _) = issued.chain_pem().split_once(end).unwrap();
    let chain = folder
        .write("leaf-only.pem", format!("{leaf}{end}\n"))
        .unwrap();
    let key = folder.write("leaf-only.key", issued.key_pem()).unwrap();
    let own = OWN
        .replace("/etc/elsewhere/tailspin.pem", chain.to_str().unwrap())
        .replace("/etc/elsewhere/tailspin.key", key.to_str().unwrap());
    let path = folder.write("own.toml", own).unwrap();
    let prepared = rehearsal::prepare(&path, &folder).unwrap();
    // Told before the rows fail, with the way to rehearse an authority of one's own.
    let notes: Vec<&String> = prepared.remarks.iter().collect();
    let notes: Vec<_> = notes
        .iter()
        .filter(|note| note.contains("SSL_CERT_FILE"))
        .collect();
    assert_eq!(notes.len(), 1, "{:?}", prepared.remarks);
    assert!(
        notes[0].contains(
            "is taken neither here nor by Exchange Online: its chain leads to no authority"
        )
    );
    let failed = failures(prepared).await;
    for row in ["printer to a colleague", "user to user"] {
        assert!(failed.contains(&row), "{row} passed; failed: {failed:?}");
    }
}

#[test]
fn unusable_configurations_end_with_status_two() {
    let folder = Folder::make().unwrap();
    let unusable = |path: &Path| match rehearsal::prepare(path, &folder) {
        Err(Stopped::Unusable(why)) => why,
        Err(Stopped::Broken(why)) => panic!("{why}"),
        Ok(_) => panic!("prepared"),
    };
    assert!(unusable(Path::new("/nowhere/gatepost.toml")).contains("cannot be read"));
    let unknown = folder.write("unknown.toml", "no_such_key = 1\n").unwrap();
    assert!(unusable(&unknown).contains("no_such_key"));
    assert_eq!(
        outcome(rehearsal::prepare(&unknown, &folder).map(|_| true)).0,
        2
    );
    assert_eq!((outcome(Ok(true)).0, outcome(Ok(false)).0), (0, 1));
}
