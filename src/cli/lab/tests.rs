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

/// Two tenants, two doors, three applications; changed line by line below.
const HOUSE: &str = r#"
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
[[certificate]]
name = "adatum"
chain = "/etc/elsewhere/adatum.pem"
key = "/etc/elsewhere/adatum.key"
[[listener]]
name = "exchange"
address = "0.0.0.0:25"
service = "connector"
tls = "starttls"
certificate = "host"
[[listener]]
name = "apps"
address = "0.0.0.0:587"
service = "submission"
tls = "starttls"
certificate = "host"
[[listener]]
name = "devices"
address = "0.0.0.0:465"
service = "submission"
tls = "optional"
certificate = "host"
bare_newlines = "repair"
[exchange_online]
half_proven = "defer"
[[tenant]]
name = "tailspin"
tenant_id = "7c1c2e1e-6f5f-4a66-9d7b-0a5b0c0d0e0f"
accepted_domains = ["tailspin.example", "tailspin.onmicrosoft.example"]
secret_header = { name = "X-Gate", value = "tailspin-gate" }
loop_header = { name = "X-Loop", value = "tailspin-loop" }
[tenant.inbound_connector]
host = "tailspin-example.mail.protection.outlook.com"
certificate = "tailspin"
[[tenant]]
name = "adatum"
tenant_id = "0f2c8d58-90b0-4a0d-8c55-3b1fd42ab8c4"
accepted_domains = ["adatum.example"]
secret_header = { name = "X-Gate", value = "adatum-gate" }
loop_header = { name = "X-Loop", value = "adatum-loop" }
[tenant.inbound_connector]
host = "adatum-example.mail.protection.outlook.com"
certificate = "adatum"
[[application]]
name = "erp"
tenant = "tailspin"
username = "erp"
password_hash = "${GATEPOST_TEST_UNSET_HASH}"
senders = ["erp@tailspin.example"]
internal = true
stream = "erp"
[[application]]
name = "scanner"
tenant = "tailspin"
senders = ["scanner@tailspin.example"]
networks = ["10.1.0.0/28"]
[[application]]
name = "crm"
tenant = "adatum"
username = "crm"
password_hash = "${GATEPOST_TEST_UNSET_HASH}"
senders = ["crm@adatum.example"]
[[route]]
recipients = "accepted"
via = "exchange"
[[route]]
recipients = ["*.reader.example"]
via = "mx"
[[route]]
from = "connector"
recipients = "any"
via = "exchange"
"#;

/// Rehearses a configuration: what failed, and the names of what was left out.
async fn rehearsed(own: &str) -> (Vec<String>, Vec<&'static str>) {
    let folder = Folder::make().unwrap();
    folder.write("old-gate.txt", "the-gate-before").unwrap();
    let path = folder.write("own.toml", own).unwrap();
    let prepared = match rehearsal::prepare(&path, &folder) {
        Ok(prepared) => prepared,
        Err(Stopped::Unusable(why) | Stopped::Broken(why)) => panic!("{why}\n{own}"),
    };
    let up = Up::start(prepared).await.unwrap();
    let story = up.play(None, Dress::Plain, |_| ()).await;
    let waiting = samples::waiting(&up.scene.cast);
    up.server.stop().await;
    let failed = story.iter().filter(|told| !told.well());
    let failed = failed.map(|told| story::row(told, Dress::Plain));
    let left_out = waiting.iter().map(|waiting| waiting.name);
    (failed.collect(), left_out.collect())
}

/// The text from `start` up to `end`.
fn cut(text: &str, start: &str, end: &str) -> String {
    let from = text.find(start).unwrap();
    let to = from + text[from..].find(end).unwrap();
    format!("{}{}", &text[..from], &text[to..])
}

/// Nothing is wrong with any of these configurations, so no sample may fail; what makes no sense is left out.
#[test]
fn every_legal_configuration_is_rehearsed_without_a_failure() {
    const ALL: &[&str] = &[];
    const EXCHANGE: &[&str] = &[
        OVER_MX,
        "user to user",
        "group post, four recipients",
        "meeting request",
        "automatic reply",
        "non-delivery report",
        BINARY,
        DOTS,
        TOGETHER,
        XOORG,
        "hostile tenant, no XOORG",
        "hostile tenant without stamps",
        NEIGHBOUR,
        "X-OriginatorOrg twice",
        "wrong secret header",
        "mail that went round already",
        "right name, self-made authority",
        "right certificate, wrong network",
        "neither",
        "no TLS",
        "bare line feed in the header",
        "smuggling over the connector",
        "command injected behind STARTTLS",
        "mail still flows",
    ];
    const BINARY: &str = "bare line feeds, NUL, every octet";
    const OVER_MX: &str = "user to outside over mx, nothing leaked";
    const DOTS: &str = "dots, 8 bit, 20 KB of References";
    const TOGETHER: &str = "several tenants on one connection";
    const XOORG: &str = "hostile tenant, XOORG";
    const NEIGHBOUR: &str = "one customer as another";
    const PRINTER: &str = "printer to a colleague";
    const DEVICE: &str = "old device without login or TLS";
    const NOT_INTERNAL: &str = "application that is not internal";
    const FORGED: &str = "forged application";
    const STRICT: &str = "smuggling by an application";
    let house = |changes: &[(&str, &str)]| {
        let mut own = HOUSE.to_owned();
        for (old, new) in changes {
            assert!(own.contains(old), "{old}");
            own = own.replacen(old, new, 1);
        }
        own
    };
    let (connector, apps) = (
        "tls = \"starttls\"",
        "service = \"submission\"\ntls = \"starttls\"",
    );
    let domains = "accepted_domains = [\"tailspin.example\", \"tailspin.onmicrosoft.example\"]";
    let tailspin = |keys: &str| format!("{domains}\n{keys}");
    let adatum = "accepted_domains = [\"adatum.example\"]";
    let secret = "secret_header = { name = \"X-Gate\", value = \"tailspin-gate\" }\n";
    let outside = "[[route]]\nrecipients = [\"*.reader.example\"]\nvia = \"mx\"\n";
    let one_tenant = cut(
        &cut(HOUSE, "[[tenant]]\nname = \"adatum\"", "[[application]]"),
        "[[application]]\nname = \"crm\"",
        "[[route]]",
    );
    let no_applications = cut(HOUSE, "[[application]]", "[[route]]");
    let applications_alone = cut(HOUSE, "[[listener]]", "[[listener]]\nname = \"apps\"");
    let most: &[&str] = &[
        "DSN",
        "SIZE",
        "8BITMIME",
        "PIPELINING",
        "SMTPUTF8",
        "LIMITS",
        "ENHANCEDSTATUSCODES",
    ];
    let discard = |words: &[&str]| format!("tls = \"starttls\"\nehlo_discard = {words:?}");
    let cases: Vec<(&str, String, &[&str])> = vec![
        ("as it is", house(&[]), ALL),
        (
            "originator_orgs",
            house(&[(
                domains,
                &tailspin("originator_orgs = [\"tailspin.onmicrosoft.example\"]"),
            )]),
            ALL,
        ),
        (
            "originator_orgs that is no accepted domain",
            house(&[(
                domains,
                &tailspin("originator_orgs = [\"*.tailspin.test\"]"),
            )]),
            ALL,
        ),
        (
            "proofs = 5",
            house(&[
                (domains, &tailspin("proofs = 5")),
                (adatum, &format!("{adatum}\nproofs = 5")),
            ]),
            &[BINARY],
        ),
        (
            "proofs = 3, no secret",
            house(&[(domains, &tailspin("proofs = 3")), (secret, "")]),
            &["wrong secret header"],
        ),
        (
            "proofs = 4, XOORG hidden, secret required",
            house(&[
                (domains, &tailspin("proofs = 4")),
                (
                    "value = \"tailspin-gate\"",
                    "value = \"tailspin-gate\", required = true",
                ),
                (connector, &discard(&["XOORG"])),
            ]),
            &[BINARY, XOORG],
        ),
        (
            "XOORG and CHUNKING hidden",
            house(&[(connector, &discard(&["xoorg", "CHUNKING"]))]),
            &[BINARY, XOORG],
        ),
        (
            "most hidden on either side",
            house(&[
                (connector, &discard(most)),
                (
                    apps,
                    &format!("service = \"submission\"\n{}", discard(most)),
                ),
            ]),
            ALL,
        ),
        (
            "a neighbour that forwards",
            house(&[(
                adatum,
                &format!("{adatum}\nproofs = 1\nforwarded_senders = \"allow\""),
            )]),
            ALL,
        ),
        (
            "a neighbour that forwards, without a route for it",
            house(&[
                (adatum, &format!("{adatum}\nforwarded_senders = \"allow\"")),
                (
                    "from = \"connector\"\nrecipients = \"any\"",
                    "from = \"connector\"\nrecipients = [\"*.nobody.example\"]",
                ),
            ]),
            ALL,
        ),
        (
            "AUTH hidden on the first submission listener",
            house(&[(
                apps,
                "service = \"submission\"\nehlo_discard = [\"AUTH\"]\ntls = \"starttls\"",
            )]),
            &[STRICT],
        ),
        (
            "AUTH hidden everywhere",
            house(&[
                (
                    apps,
                    "service = \"submission\"\nehlo_discard = [\"AUTH\"]\ntls = \"starttls\"",
                ),
                (
                    "tls = \"optional\"",
                    "tls = \"optional\"\nehlo_discard = [\"auth\"]",
                ),
            ]),
            &[
                PRINTER,
                NOT_INTERNAL,
                FORGED,
                "application as someone else",
                "application with another From:",
                "wrong password",
                "no password",
                STRICT,
            ],
        ),
        (
            "applications in clear text",
            house(&[
                (
                    apps,
                    "service = \"submission\"\nauth_without_tls = true\ntls = \"none\"",
                ),
                ("tls = \"optional\"", "tls = \"none\""),
            ]),
            ALL,
        ),
        (
            "little room, few connections",
            house(&[
                (
                    connector,
                    "tls = \"starttls\"\nmax_message_size = \"12KiB\"\nmax_connections = 1",
                ),
                (
                    apps,
                    "service = \"submission\"\nmax_message_size = \"1KiB\"\nmax_connections = 1\ntls = \"starttls\"",
                ),
                ("internal = true", "internal = true\nrate = \"1/day\""),
            ]),
            &[OVER_MX, DOTS],
        ),
        (
            "the first tenant's mail takes another way",
            house(&[(
                "[[route]]",
                "[[route]]\ntenant = \"tailspin\"\nrecipients = \"any\"\nvia = \"mx\"\n[[route]]",
            )]),
            &[PRINTER, DEVICE, TOGETHER],
        ),
        (
            "one tenant, no mx",
            one_tenant.replace(outside, ""),
            &[OVER_MX, NOT_INTERNAL, TOGETHER, NEIGHBOUR, FORGED],
        ),
        (
            "no applications",
            no_applications,
            &[
                PRINTER,
                DEVICE,
                NOT_INTERNAL,
                FORGED,
                "application as someone else",
                "application with another From:",
                "wrong password",
                "no password",
                STRICT,
            ],
        ),
        ("no connector listener", applications_alone, EXCHANGE),
        (
            "implicit TLS for Exchange, flags off, half_proven refuses",
            house(&[
                (connector, "tls = \"implicit\""),
                (
                    "certificate = \"tailspin\"",
                    "certificate = \"tailspin\"\ncloud_services_mail_enabled = false",
                ),
                ("\"defer\"", "\"refuse\""),
            ]),
            EXCHANGE,
        ),
        (
            "names with umlauts, secrets in files that are not at hand",
            house(&[
                (
                    domains,
                    "accepted_domains = [\"bücher.example\", \"*.tailspin.example\", \"tailspin.example\"]",
                ),
                ("\"tailspin-gate\"", "\"${file:/etc/elsewhere/gate}\""),
                ("${GATEPOST_TEST_UNSET_HASH}", "${file:/etc/elsewhere/erp}"),
            ]),
            ALL,
        ),
        (
            "one proof, forwarding, one message for each connection",
            house(&[
                (
                    domains,
                    &tailspin("proofs = 1\nforwarded_senders = \"allow\""),
                ),
                (secret, ""),
                (
                    "loop_header = { name = \"X-Loop\", value = \"tailspin-loop\" }\n",
                    "",
                ),
                (
                    "certificate = \"tailspin\"",
                    "certificate = \"tailspin\"\nmax_connections = 1\nmax_messages_per_connection = 1",
                ),
            ]),
            &["wrong secret header", "mail that went round already"],
        ),
        (
            "a second tenant that leaves by a relay, a listener of implicit TLS before the other",
            house(&[
                (
                    "[[listener]]",
                    "[[listener]]\nname = \"old\"\naddress = \"0.0.0.0:24\"\nservice = \"connector\"\ntls = \"implicit\"\ncertificate = \"host\"\n[[listener]]",
                ),
                (
                    "[[route]]\nrecipients = \"accepted\"",
                    "[[route]]\ntenant = \"tailspin\"\nrecipients = \"accepted\"",
                ),
                (
                    "[[route]]\nfrom = \"connector\"",
                    "[[route]]\ntenant = \"tailspin\"\nfrom = \"connector\"",
                ),
                (
                    "[tenant.inbound_connector]\nhost = \"adatum-example.mail.protection.outlook.com\"\ncertificate = \"adatum\"\n",
                    "",
                ),
                (
                    "[[route]]",
                    "[[relay]]\nname = \"up\"\nhost = \"relay.example.net\"\n[[route]]\ntenant = \"adatum\"\nrecipients = \"any\"\nvia = \"relay:up\"\n[[route]]",
                ),
            ]),
            &[NOT_INTERNAL, TOGETHER, FORGED],
        ),
        (
            "every key",
            include_str!("../../../tests/data/every-key.toml").to_owned(),
            &[
                OVER_MX,
                DEVICE,
                NOT_INTERNAL,
                BINARY,
                TOGETHER,
                XOORG,
                NEIGHBOUR,
                FORGED,
            ],
        ),
    ];
    // A thread for each half: a rehearsal waits more than it works.
    let halves = cases.len().div_ceil(2);
    std::thread::scope(|scope| {
        for half in cases.chunks(halves) {
            scope.spawn(move || {
                let mut runtime = tokio::runtime::Builder::new_multi_thread();
                let runtime = runtime.worker_threads(1).enable_all().build().unwrap();
                for (case, own, wanted) in half {
                    let (failed, left_out) = runtime.block_on(rehearsed(own));
                    assert!(failed.is_empty(), "{case}:\n{}", failed.join("\n"));
                    assert_eq!(left_out, *wanted, "{case}");
                }
            });
        }
    });
}

#[test]
fn what_a_rehearsal_cannot_show_is_said_before_it() {
    let remarks = |name: &str, own: &str| {
        let folder = Folder::make().unwrap();
        folder.write("old-gate.txt", "the-gate-before").unwrap();
        let path = folder.write(name, own).unwrap();
        match rehearsal::prepare(&path, &folder) {
            Ok(prepared) => prepared.remarks.join("\n"),
            Err(Stopped::Unusable(why) | Stopped::Broken(why)) => panic!("{why}"),
        }
    };
    let plain = remarks("plain.toml", HOUSE);
    assert!(
        !plain.contains("proofs") && !plain.contains("not played"),
        "{plain}"
    );
    let domains = "accepted_domains = [\"adatum.example\"]";
    let signed = HOUSE.replace(domains, &format!("{domains}\nproofs = 5"));
    let signed = remarks(
        "signed.toml",
        &signed.replace("[\"crm@adatum.example\"]", "[\"<>\"]"),
    );
    for said in [
        "tenant adatum has proofs = 5, and stamps and secret are 4 items on listener exchange, so every message needs a DKIM signature",
        "no sender fits: crm",
    ] {
        assert!(signed.contains(said), "{said}: {signed}");
    }
    // Where another listener offers XOORG, the configuration is legal.
    let apps = "[[listener]]\nname = \"apps\"";
    let other = "[[listener]]\nname = \"other\"\naddress = \"0.0.0.0:26\"\nservice = \"connector\"\ntls = \"starttls\"\ncertificate = \"contoso\"\n\n";
    let every = include_str!("../../../tests/data/every-key.toml");
    let every = every.replace("proofs = 4", "proofs = 5");
    let every = remarks(
        "every.toml",
        &every.replacen(apps, &format!("{other}{apps}"), 1),
    );
    assert!(
        every.contains(
            "are 3 items on listener exchange, so with a DKIM signature too it is out of reach"
        ),
        "{every}"
    );
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
