//! `gatepost certificate`: shown, rehearsed, asked for. The scenario's authority stands among the public ones.

use crate::harness::{Changes, HOSTNAME, Said, Surroundings, gatepost, write_identity};
use gatepost::lab::certificates::{Above, Issued, Leaf};
use std::path::Path;
use std::process::Command;

/// Runs `gatepost certificate` where the scenario's authority is a public one, as the system's set has it.
async fn certificate(around: &Surroundings, config: &Path, arguments: &[&str]) -> Said {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gatepost"));
    command
        .arg("certificate")
        .args(arguments)
        .arg("--config")
        .arg(config)
        .env("SSL_CERT_FILE", around.folder.path().join("ca.pem"));
    let output = tokio::task::spawn_blocking(move || command.output().unwrap());
    let output = output.await.unwrap();
    Said {
        status: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Each part of a text that must be in it.
fn assert_says(said: &Said, parts: &[&str]) {
    for part in parts {
        assert!(said.out.contains(part), "{part}: {said:?}");
    }
}

/// Chain and key in files of their own, as they come back from an authority.
fn candidate(around: &Surroundings, leaf: &Leaf) -> [String; 2] {
    written(around, &around.authority.issue(leaf).unwrap())
}

fn written(around: &Surroundings, issued: &Issued) -> [String; 2] {
    write_identity(around.folder.path(), "new", issued);
    let path = |file: &str| around.folder.path().join(file).display().to_string();
    [path("new.pem"), path("new.key")]
}

#[tokio::test]
async fn show_tells_what_a_certificate_says_and_who_depends_on_it() {
    let around = Surroundings::new().await;
    let config = around.configuration([0; 3], &Changes::default());
    let leaf = Leaf::named("mail.contoso.com").and("contoso.com");
    let issued = around.authority.issue(&leaf.server_auth_only()).unwrap();
    write_identity(around.folder.path(), "contoso", &issued);
    let said = certificate(&around, &config, &["show", "contoso"]).await;
    assert_eq!(said.status, 0, "{said:?}");
    assert_says(
        &said,
        &[
            "certificate contoso\n",
            "contoso.key: ECDSA P-256, belongs to the certificate",
            "names     mail.contoso.com, contoso.com",
            "serverAuth alone: enough",
            "1       CN=mail.contoso.com, until 2044-01-01",
            "signed by 2, verified",
            "signed by CN=scenario Root; the chain leads to a known root",
            "tenant    contoso, by 127.0.0.1: TlsSenderCertificateName contoso.com: an accepted domain",
        ],
    );
    assert!(!said.out.contains("fabrikam"), "{said:?}");
    let said = certificate(&around, &config, &["show", "--json"]).await;
    let json = said.json();
    assert_eq!(json.as_array().unwrap().len(), 3);
    let host = &json[0];
    assert_eq!(host["name"], "host");
    assert_eq!(host["listeners"][0]["name"], "exchange");
    assert_eq!(host["listeners"][0]["covers_hostname"], true);
    assert_eq!(host["tenants"].as_array().unwrap().len(), 0);
    assert_eq!(json[1]["chain"][0]["signer"], "next");
    assert_eq!(json[1]["chain"][1]["signer"], "beyond");
    assert_eq!(json[1]["tenants"][0]["stands"], "exact");
    assert_eq!(json[1]["known_root"], true);
    assert!(json[1]["days_left"].as_i64().unwrap() > 6000);
}

#[tokio::test]
async fn show_is_for_bad_certificates_most_of_all() {
    let around = Surroundings::new().await;
    let config = around.configuration([0; 3], &Changes::default());
    let folder = around.folder.path();
    let issue = |leaf: &Leaf| around.authority.issue(leaf).unwrap();
    let named = |name: &str| issue(&Leaf::named(name));
    // The configuration is refused for each of these, and is shown all the same.
    for (issued, parts) in [
        (
            issue(&Leaf::named("contoso.com").expired()),
            &[
                "expired ",
                "days ago",
                "error     certificate.contoso.chain: the certificate has expired",
            ][..],
        ),
        (
            named("elsewhere.example"),
            &[
                "no name is at or below an accepted domain",
                "error     tenant.contoso.inbound_connector.certificate: no name of the certificate",
            ],
        ),
    ] {
        write_identity(folder, "contoso", &issued);
        let said = certificate(&around, &config, &["show", "contoso"]).await;
        assert_eq!(said.status, 1, "{said:?}");
        assert_says(&said, parts);
        assert_says(&said, &["not well"]);
    }
    write_identity(folder, "contoso", &named("contoso.com"));
    std::fs::copy(folder.join("fabrikam.key"), folder.join("contoso.key")).unwrap();
    let said = certificate(&around, &config, &["show", "contoso"]).await;
    assert_eq!(said.status, 1);
    assert_says(&said, &["does not belong to the certificate (ECDSA P-256)"]);
    // Two warnings: of the order of things nothing is wrong.
    write_identity(
        folder,
        "contoso",
        &named("mail.contoso.com").without_intermediate(),
    );
    let said = certificate(&around, &config, &["show", "contoso"]).await;
    assert_eq!(said.status, 0, "{said:?}");
    assert_says(
        &said,
        &[
            "signed by CN=scenario Issuing CA, which is neither here nor a known root",
            "TlsSenderCertificateName *.contoso.com: mail.contoso.com is below the accepted domain contoso.com",
        ],
    );
    let said = certificate(&around, &config, &["show", "nobody"]).await;
    assert_eq!(said.status, 2, "{said:?}");
    assert!(
        said.err.contains("there is host, contoso, fabrikam"),
        "{said:?}"
    );
}

#[tokio::test]
async fn show_holds_files_that_are_in_no_configuration_against_every_tenant() {
    let around = Surroundings::new().await;
    let config = around.configuration([0; 3], &Changes::default());
    let [chain, key] = candidate(&around, &Leaf::named("fabrikam.com").and(HOSTNAME));
    let files = ["show", "--chain", &chain, "--key", &key];
    let said = certificate(&around, &config, &files).await;
    assert_eq!(said.status, 0, "{said:?}");
    assert_says(
        &said,
        &[
            "listener  exchange (connector): covers hostname",
            "tenant    contoso, by 127.0.0.1: TlsSenderCertificateName *.contoso.com: smarthost.contoso.com is below",
            "tenant    fabrikam, by 127.0.0.1: TlsSenderCertificateName fabrikam.com: an accepted domain",
        ],
    );
    // Without a configuration there is still the certificate itself.
    let nowhere = around.folder.path().join("none.toml");
    let said = certificate(&around, &nowhere, &files).await;
    assert_eq!(said.status, 0, "{said:?}");
    assert!(!said.out.contains("tenant"), "{said:?}");
    let missing = ["show", "--chain", &chain, "--key", "none.key"];
    let said = certificate(&around, &config, &missing).await;
    assert_eq!(said.status, 2, "{said:?}");
    assert!(
        said.err.contains("none.key") && !said.err.contains("intermediate"),
        "{said:?}"
    );
    let half = certificate(&around, &config, &["show", "--chain", &chain]).await;
    assert_eq!(half.status, 2, "{half:?}");
}

#[tokio::test]
async fn show_judges_files_in_the_only_place_that_they_could_be_for() {
    let around = Surroundings::new().await;
    let config = around.configuration([0; 3], &Changes::default());
    let folder = around.folder.path();
    let show = async |chain: &str, key: &str| {
        certificate(&around, &config, &["show", "--chain", chain, "--key", key]).await
    };
    // By its names it is for the listeners.
    let [chain, key] = candidate(&around, &Leaf::named(HOSTNAME).client_auth_only());
    let said = show(&chain, &key).await;
    assert_eq!(said.status, 0, "{said:?}");
    let place = format!(
        "place     [[certificate]] host of {}, the only one that has one of its names, or its key: as if these files were there",
        config.display()
    );
    assert_says(
        &said,
        &[
            &place,
            "warning   listener.exchange.certificate: its extended key usage allows client authentication alone: here whoever looks refuses it",
            "no error; read the warnings",
        ],
    );
    // By its key it is for contoso, which has no use for that name.
    let [chain, key] = candidate(&around, &Leaf::named("elsewhere.example"));
    std::fs::copy(&key, folder.join("contoso.key")).unwrap();
    let own = folder.join("contoso.key").display().to_string();
    let said = show(&chain, &own).await;
    assert_eq!(said.status, 1, "{said:?}");
    assert_says(
        &said,
        &[
            "place     [[certificate]] contoso of ",
            "error     tenant.contoso.inbound_connector.certificate: no name of the certificate (elsewhere.example)",
            "not well",
        ],
    );
    // It could be for each of them, and is good for none.
    let said = show(&chain, &key).await;
    let told = "warning   these-files: the configuration has errors (`gatepost check`): it was compared with nothing there";
    assert_says(&said, &[told]);
    let good = around.authority.issue(&Leaf::named("contoso.com")).unwrap();
    write_identity(folder, "contoso", &good);
    let said = show(&chain, &key).await;
    assert_eq!(said.status, 1, "{said:?}");
    assert_says(
        &said,
        &[
            "place     none yet: it could be that of host, contoso, fabrikam",
            "error     these-files: no tenant has an accepted domain",
        ],
    );
    let named = ["show", "host", "--chain", &chain, "--key", &key, "--json"];
    let said = certificate(&around, &config, &named).await;
    let place = format!(
        "[[certificate]] host of {}: as if these files were there",
        config.display()
    );
    assert_eq!(said.json()[0]["place"], *place, "{said:?}");
    // No configuration to look into.
    let [chain, key] = candidate(&around, &Leaf::named(HOSTNAME).client_auth_only());
    let nowhere = folder.join("none.toml");
    let files = ["show", "--chain", &chain, "--key", &key];
    let said = certificate(&around, &nowhere, &files).await;
    assert_says(
        &said,
        &["warning   these-files: its extended key usage allows client authentication alone"],
    );
    // A configuration with one certificate has one place, also before that one is there.
    let first = folder.join("first.toml");
    let text = "hostname = \"smarthost.contoso.com\"\n[[certificate]]\nname = \"first\"\nchain = \"none.pem\"\nkey = \"none.key\"\n\
        [[listener]]\nname = \"exchange\"\naddress = \"127.0.0.1:0\"\nservice = \"connector\"\ncertificate = \"first\"\n";
    std::fs::write(&first, text).unwrap();
    let said = certificate(&around, &first, &files).await;
    assert_says(
        &said,
        &[
            "first.toml, the only one there: as if these files were there",
            "listener  exchange (connector): covers hostname",
            "warning   listener.exchange.certificate: its extended key usage allows client",
        ],
    );
}

/// As Notepad writes a file.
#[tokio::test]
async fn a_byte_order_mark_hides_no_certificate_from_any_command() {
    let around = Surroundings::new().await;
    let config = around.configuration([0; 3], &Changes::default());
    let folder = around.folder.path();
    for file in ["contoso.pem", "contoso.key"] {
        let pem = std::fs::read_to_string(folder.join(file)).unwrap();
        std::fs::write(folder.join(file), format!("\u{feff}{pem}")).unwrap();
    }
    let said = certificate(&around, &config, &["show", "contoso"]).await;
    assert_eq!(said.status, 0, "{said:?}");
    assert_says(
        &said,
        &["1       CN=contoso.com", "belongs to the certificate"],
    );
    let (chain, roots) = (folder.join("contoso.pem"), folder.join("ca.pem"));
    let words = [
        "explain",
        "attribution",
        "--tenant",
        "contoso",
        "--certificate",
    ];
    let files = [chain.to_str().unwrap(), "--roots", roots.to_str().unwrap()];
    let said = gatepost(&config, &[&words[..], &files].concat()).await;
    assert!(
        said.out.contains("issued by CN=scenario Issuing CA"),
        "{said:?}"
    );
}

/// The sentence about a reload and what the handshakes say are two ways to one judgement.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rehearsal_fails_for_nothing_that_a_reload_would_take() {
    let around = Surroundings::new().await;
    let changes = Changes::replace("certificate = \"host\"", "certificate = \"contoso\"");
    let config = around.configuration([0; 3], &changes);
    let leaf = || Leaf::named("contoso.com").and(HOSTNAME);
    let own = around.authority.issue(&leaf()).unwrap();
    write_identity(around.folder.path(), "contoso", &own);
    let issue = |leaf: &Leaf| around.authority.issue(leaf).unwrap();
    let below = |above: Above| around.authority.issue_below(&leaf(), above).unwrap();
    for (issued, is_well) in [
        (issue(&leaf().server_auth_only()), true),
        (below(Above::Until(2_335_219_199)), true),
        (issue(&leaf().client_auth_only()), false),
        (issue(&leaf().code_signing_only()), false),
        (issue(&Leaf::named("contoso.com")), false),
        (issue(&leaf().without_alternative_names()), false),
        (below(Above::ForEmail), false),
        (below(Above::ForElsewhere), false),
        (below(Above::Until(1_704_067_201)), false),
    ] {
        let [chain, key] = written(&around, &issued);
        let files = ["rehearse", "contoso", "--chain", &chain, "--key", &key];
        let said = certificate(&around, &config, &files).await;
        assert_eq!(said.status, i32::from(!is_well), "{said:?}");
        assert_eq!(
            said.out.contains("reload    would take it"),
            is_well,
            "{said:?}"
        );
        assert_eq!(said.out.contains("  FAILED  "), !is_well, "{said:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_of_a_certificate_do_not_act_on_a_terminal() {
    let around = Surroundings::new().await;
    let config = around.configuration([0; 3], &Changes::default());
    let evil = "\u{1b}[31mred.example";
    let hostile = Leaf::named("contoso.com").and(evil).and(&"x".repeat(400));
    let [chain, key] = candidate(&around, &hostile);
    let files = ["rehearse", "contoso", "--chain", &chain, "--key", &key];
    let said = certificate(&around, &config, &files).await;
    assert_eq!(said.status, 0, "{said:?}");
    assert_says(
        &said,
        &["Exchange saw certificate contoso.com, \\u{1b}[31mred.example, xxx"],
    );
    // Lost names and findings of the check.
    for name in ["host", "fabrikam"] {
        let files = ["rehearse", name, "--chain", &chain, "--key", &key];
        let refused = certificate(&around, &config, &files).await;
        assert_eq!(refused.status, 1, "{refused:?}");
        assert_says(&refused, &["\\u{1b}[31mred.example"]);
        assert!(!refused.out.contains('\u{1b}'), "{refused:?}");
    }
    assert!(!said.out.contains('\u{1b}'), "{said:?}");
    let line = said.out.lines().find(|line| line.contains("Exchange saw"));
    assert!(line.unwrap().len() < 400, "{said:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rehearsal_shakes_hands_both_ways_as_exchange_would() {
    let around = Surroundings::new().await;
    // One certificate for everything of contoso, as a small organisation has.
    let changes = Changes::replace("certificate = \"host\"", "certificate = \"contoso\"");
    let config = around.configuration([0; 3], &changes);
    let both = Leaf::named("contoso.com").and(HOSTNAME).server_auth_only();
    write_identity(
        around.folder.path(),
        "contoso",
        &around.authority.issue(&both).unwrap(),
    );
    let said = certificate(&around, &config, &["rehearse", "contoso"]).await;
    assert_eq!(said.status, 0, "{said:?}");
    assert_says(
        &said,
        &[
            "ok        Exchange connects to listener exchange with TlsDomain smarthost.contoso.com: TLSv1_3",
            "ok        an application connects to listener apps as smarthost.contoso.com: TLSv1_3",
            "ok        an application connects to listener printers as smarthost.contoso.com: TLSv1_3",
            "ok        mail of tenant contoso goes to Exchange: Exchange saw certificate contoso.com, smarthost.contoso.com, and took the mail as contoso's by it, internal",
            "it can be used\n",
        ],
    );
    assert!(
        !said.out.contains("reload") && !said.out.contains("fabrikam"),
        "{said:?}"
    );
    // What Exchange does not promote is well as external mail.
    let mut flagless = Changes::replace("certificate = \"host\"", "certificate = \"contoso\"");
    flagless.replace.push((
        "cloud_services_mail_enabled = true\n\n[[tenant]]",
        "cloud_services_mail_enabled = false\n\n[[tenant]]".to_owned(),
    ));
    let config_without = around.configuration([0; 3], &flagless);
    let said = certificate(&around, &config_without, &["rehearse", "contoso"]).await;
    assert_eq!(said.status, 0, "{said:?}");
    assert_says(
        &said,
        &[
            "took the mail as contoso's by it, external, as cloud_services_mail_enabled = false has it",
        ],
    );
    let config = around.configuration([0; 3], &changes);
    // A renewal that is as good.
    let [chain, key] = candidate(&around, &Leaf::named("contoso.com").and("*.contoso.com"));
    let files = [
        "rehearse", "contoso", "--json", "--chain", &chain, "--key", &key,
    ];
    let said = certificate(&around, &config, &files).await;
    assert_eq!(said.status, 0, "{said:?}");
    let json = said.json();
    assert_eq!(json["reload_refuses"], serde_json::json!([]));
    assert_eq!(json["handshakes"].as_array().unwrap().len(), 4);
    assert_eq!(
        json["changes"][0],
        "without the names smarthost.contoso.com"
    );
    assert_eq!(json["certificate"]["chain_file"], *chain);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rehearsal_says_what_a_new_certificate_would_break() {
    let around = Surroundings::new().await;
    let config = around.configuration([0; 3], &Changes::default());
    // Exchange's connector is set to contoso.com today.
    let [chain, key] = candidate(&around, &Leaf::named("mail.contoso.com"));
    let files = ["rehearse", "contoso", "--chain", &chain, "--key", &key];
    let said = certificate(&around, &config, &files).await;
    assert_eq!(said.status, 1, "{said:?}");
    assert_says(
        &said,
        &[
            "reload    would refuse it: certificate.contoso.chain:",
            "new.pem: tenant contoso: Exchange takes the tenant's mail by contoso.com",
            "FAILED    mail of tenant contoso goes to Exchange: Exchange saw certificate mail.contoso.com, and did not know the tenant by it",
            "do not use it so\n",
        ],
    );
    // An intermediate is missing: Exchange trusts it in neither direction.
    for (name, leaf, seen) in [
        (
            "contoso",
            "contoso.com",
            "FAILED    mail of tenant contoso goes to Exchange: Exchange saw certificate contoso.com (not trusted: its chain leads to no authority that is trusted: an intermediate is missing",
        ),
        (
            "host",
            HOSTNAME,
            "FAILED    Exchange connects to listener exchange with TlsDomain smarthost.contoso.com: TLS: its chain leads to no authority that is trusted",
        ),
    ] {
        let torn = around
            .authority
            .issue(&Leaf::named(leaf))
            .unwrap()
            .without_intermediate();
        write_identity(around.folder.path(), "new", &torn);
        let said = certificate(
            &around,
            &config,
            &["rehearse", name, "--chain", &chain, "--key", &key],
        )
        .await;
        assert_eq!(said.status, 1, "{said:?}");
        assert_says(&said, &[seen, "would refuse it"]);
    }
    // Another tenant's: the configuration itself would be refused, and nothing is played.
    let [chain, key] = candidate(&around, &Leaf::named("fabrikam.com"));
    let said = certificate(
        &around,
        &config,
        &["rehearse", "contoso", "--chain", &chain, "--key", &key],
    )
    .await;
    assert_eq!(said.status, 1, "{said:?}");
    assert_says(
        &said,
        &["not rehearsed: with it the configuration would be refused: see the errors above"],
    );
}

#[tokio::test]
async fn a_request_is_made_once() {
    let around = Surroundings::new().await;
    let config = around.folder.path().join("none.toml");
    let out = around.folder.path().display().to_string();
    let request = [
        "request",
        "gate.contoso.com",
        HOSTNAME,
        "--out",
        &out,
        "--json",
    ];
    let said = certificate(&around, &config, &request).await;
    assert_eq!(said.status, 0, "{said:?}");
    let json = said.json();
    assert_eq!(json["names"][1], HOSTNAME);
    let key = std::fs::read(json["key"].as_str().unwrap()).unwrap();
    let again = certificate(&around, &config, &request).await;
    assert_eq!(again.status, 2, "{again:?}");
    assert!(again.err.contains("is there already"), "{again:?}");
    assert_eq!(std::fs::read(json["key"].as_str().unwrap()).unwrap(), key);
}
