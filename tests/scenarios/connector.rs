//! Exchange's side of a tenant: rendered into a folder, and compared with what the tenant exports.

use crate::harness::{CONTOSO, Changes, Said, Surroundings, gatepost};
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

const SECRETS: [&str; 2] = ["contoso-secret", "contoso-loop"];

struct Stage {
    around: Surroundings,
    config: PathBuf,
}

impl Stage {
    async fn with(changes: Changes) -> Self {
        let around = Surroundings::new().await;
        let config = around.configuration([0; 3], &changes);
        Self { around, config }
    }

    async fn new() -> Self {
        Self::with(Changes::default()).await
    }

    fn path(&self, name: &str) -> PathBuf {
        self.around.folder.path().join(name)
    }

    /// `gatepost connector` with these words; no secret is ever said.
    async fn connector(&self, words: &str) -> Said {
        let folder = self.around.folder.path().to_str().unwrap();
        let words = format!("connector {words}").replace("HERE", folder);
        let words: Vec<&str> = words.split(' ').collect();
        let said = gatepost(&self.config, &words).await;
        for secret in SECRETS {
            assert!(
                !said.out.contains(secret) && !said.err.contains(secret),
                "{said:?}"
            );
        }
        said
    }

    async fn render(&self, further: &str) -> Said {
        self.connector(&format!(
            "render --tenant contoso --output HERE/kit{further}"
        ))
        .await
    }
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// Every file with its content, its mode and the moment of its last change.
fn listing(folder: &Path) -> Vec<(String, Vec<u8>, u32, std::time::SystemTime)> {
    let mut all: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            let changed = std::fs::metadata(&path).unwrap().modified().unwrap();
            (name, std::fs::read(&path).unwrap(), mode(&path), changed)
        })
        .collect();
    all.sort();
    all
}

#[tokio::test]
async fn a_rendering_is_for_its_owner_and_a_second_one_changes_nothing() {
    let stage = Stage::new().await;
    let kit = stage.path("kit");
    let said = stage.render(" --pilot-group pilot@contoso.com").await;
    assert_eq!(said.status, 0, "{said:?}");
    assert_eq!(
        (mode(&kit), mode(&kit.join("gatepost-secrets.json"))),
        (0o700, 0o600)
    );
    let secrets: Value =
        serde_json::from_slice(&std::fs::read(kit.join("gatepost-secrets.json")).unwrap()).unwrap();
    let expected = json!({
        "TenantId": CONTOSO,
        "SecretHeaderValue": "contoso-secret",
        "SecretHeaderPrevious": [],
        "LoopHeaderValue": "contoso-loop",
        "LoopHeaderPrevious": [],
    });
    assert_eq!(secrets, expected);
    let sums = std::process::Command::new("sha256sum")
        .args(["-c", "--strict", "SHA256SUMS"])
        .current_dir(&kit)
        .output()
        .unwrap();
    assert!(sums.status.success(), "{sums:?}");
    let before = listing(&kit);
    for (name, content, _, _) in &before {
        let text = String::from_utf8(content.clone()).unwrap();
        let is_secret = name == "gatepost-secrets.json";
        for secret in SECRETS {
            assert_eq!(text.contains(secret), is_secret, "{name}");
        }
        assert!(text.is_ascii(), "{name}");
        if name.ends_with(".ps1") {
            assert_eq!(
                text.matches('\n').count(),
                text.matches("\r\n").count(),
                "{name}"
            );
            assert!(!text.contains("'@TlsDomain@'"), "{name}");
        }
    }
    let said = stage
        .render(" --pilot-group pilot@contoso.com --json")
        .await;
    assert_eq!(listing(&kit), before);
    let facts = said.json();
    assert_eq!(facts["values"]["TlsDomain"], "smarthost.contoso.com");
    assert_eq!(facts["values"]["TlsSenderCertificateName"], "contoso.com");
    assert_eq!(facts["values"]["PilotGroup"], "pilot@contoso.com");
    assert!(
        facts["files"]
            .as_array()
            .unwrap()
            .iter()
            .all(|file| file["state"] == "unchanged"),
        "{facts}"
    );
    // Another group is another rendering; what does not depend on it stays as it was.
    let said = stage.render(" --json").await;
    let facts = said.json();
    let state = |name: &str| {
        let files = facts["files"].as_array().unwrap();
        let file = files.iter().find(|file| file["name"] == name).unwrap();
        file["state"].as_str().unwrap().to_owned()
    };
    assert_eq!(state("README.md"), "written");
    assert_eq!(state("gatepost-secrets.json"), "unchanged");
}

#[tokio::test]
async fn a_folder_of_somebody_elses_is_left_alone() {
    let stage = Stage::new().await;
    let kit = stage.path("kit");
    std::fs::create_dir(&kit).unwrap();
    std::fs::write(kit.join("mine.txt"), "mine").unwrap();
    let said = stage.render("").await;
    assert_eq!(
        (said.status, std::fs::read_dir(&kit).unwrap().count()),
        (2, 1),
        "{said:?}"
    );
    assert!(said.err.contains("--force"), "{said:?}");
    let before = mode(&kit);
    assert_eq!(stage.render(" --force").await.status, 0);
    assert_eq!(
        mode(&kit),
        before,
        "a folder of somebody else's keeps its mode"
    );
    assert_eq!(std::fs::read(kit.join("mine.txt")).unwrap(), b"mine");
    // A file that was changed by hand since is not written over.
    std::fs::write(kit.join("README.md"), "my own notes").unwrap();
    let said = stage.render("").await;
    assert_eq!(said.status, 2, "{said:?}");
    assert!(
        said.err
            .contains("changed since it was rendered: README.md"),
        "{said:?}"
    );
    assert_eq!(stage.render(" --force").await.status, 0);
    // Nor is another tenant's rendering.
    let other = "render --tenant fabrikam --output HERE/kit";
    let said = stage.connector(other).await;
    assert!(
        said.status == 2 && said.err.contains("another tenant"),
        "{said:?}"
    );
    // A folder whose parent is not there, and a file in its place.
    for output in ["HERE/no/such/kit", "HERE/gatepost.toml"] {
        let said = stage
            .connector(&format!("render --tenant contoso --output {output}"))
            .await;
        assert_eq!(said.status, 2, "{said:?}");
    }
    let left: Vec<String> = listing_names(stage.around.folder.path());
    assert!(left.iter().all(|name| !name.starts_with('.')), "{left:?}");
}

fn listing_names(folder: &Path) -> Vec<String> {
    let names = std::fs::read_dir(folder).unwrap();
    names
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[tokio::test]
async fn a_tenant_without_secret_and_loop_header_is_given_both() {
    let stage = Stage::with(without_headers()).await;
    let kit = stage.path("kit");
    let said = stage.render("").await;
    assert_eq!(said.status, 0, "{said:?}");
    let value = |key: &str| std::fs::read_to_string(kit.join(format!("{key}.value"))).unwrap();
    let (secret, looped) = (value("secret_header"), value("loop_header"));
    for made in [&secret, &looped] {
        assert!(made.len() == 33 && made.trim().bytes().all(|octet| octet.is_ascii_hexdigit()));
        assert!(
            !said.out.contains(made.trim()) && !said.err.contains(made.trim()),
            "{said:?}"
        );
    }
    assert_ne!(secret, looped);
    assert_eq!(mode(&kit.join("secret_header.value")), 0o600);
    assert!(
        !std::fs::read_to_string(kit.join("SHA256SUMS"))
            .unwrap()
            .contains(".value")
    );
    assert!(
        said.err
            .contains("tenant.contoso.loop_header: warning: missing: made one"),
        "{said:?}"
    );
    let before = listing(&kit);
    assert_eq!(stage.render("").await.status, 0);
    assert_eq!(listing(&kit), before, "the values made first are kept");
    // What it prints is what the configuration then takes.
    std::fs::create_dir(stage.path("secrets")).unwrap();
    for key in ["secret_header", "loop_header"] {
        std::fs::copy(
            kit.join(format!("{key}.value")),
            stage.path(&format!("secrets/contoso.{key}")),
        )
        .unwrap();
    }
    let printed: Vec<&str> = said
        .out
        .lines()
        .map(str::trim)
        .filter(|line| line.contains("${file:"))
        .collect();
    assert_eq!(printed.len(), 2, "{said:?}");
    let text = std::fs::read_to_string(&stage.config).unwrap();
    let place = format!("tenant_id = \"{CONTOSO}\"\n");
    let text = text.replace(&place, &format!("{place}{}\n{}\n", printed[0], printed[1]));
    std::fs::write(&stage.config, text).unwrap();
    let said = stage.render(" --json").await;
    assert_eq!(said.status, 0, "{said:?}");
    assert!(!said.err.contains("missing: made one"), "{said:?}");
    let names = listing_names(&kit);
    assert!(
        !names.iter().any(|name| name.ends_with(".value")),
        "{names:?}"
    );
    let secrets: Value =
        serde_json::from_slice(&std::fs::read(kit.join("gatepost-secrets.json")).unwrap()).unwrap();
    assert_eq!(
        (
            secrets["SecretHeaderValue"].as_str(),
            secrets["LoopHeaderValue"].as_str()
        ),
        (Some(secret.trim()), Some(looped.trim()))
    );
}

/// The lines of the configuration's tenant that give it its headers, taken out.
fn without_headers() -> Changes {
    let lines = [
        "secret_header = { name = \"X-contoso-Gate\", value = \"contoso-secret\" }\n",
        "loop_header = { name = \"X-Gatepost-Processed\", value = \"contoso-loop\" }\n",
    ];
    Changes {
        replace: lines.iter().map(|line| (*line, String::new())).collect(),
        append: String::new(),
    }
}

#[tokio::test]
async fn values_are_not_taken_from_a_folder_that_others_could_have_prepared() {
    let stage = Stage::with(without_headers()).await;
    let (kit, values) = (
        stage.path("kit"),
        stage.path("kit").join("gatepost-secrets.json"),
    );
    assert_eq!(stage.render("").await.status, 0);
    let set = |path: &Path, mode: u32| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    // Others may come as far as this.
    for above in kit.ancestors().skip(1) {
        if mode(above) & 0o1 == 0 {
            set(above, 0o755);
        }
    }
    let refused = async |why: &str| {
        let before = listing(&kit);
        for force in ["", " --force"] {
            let said = stage.render(force).await;
            let named = format!("{}: not taken", values.display());
            assert!(
                said.status == 2 && said.err.contains(&named) && said.err.contains(why),
                "{said:?}"
            );
        }
        assert_eq!(listing(&kit), before, "nothing is written");
    };
    set(&kit, 0o777);
    refused("may change").await;
    set(&kit, 0o755);
    set(&values, 0o644);
    refused("may read").await;
    set(&values, 0o600);
    // Only root can give a folder away.
    if rustix::process::geteuid().is_root() {
        for path in [&values, &kit] {
            std::os::unix::fs::chown(path, Some(65534), None).unwrap();
            refused("another user (uid 65534)").await;
            std::os::unix::fs::chown(path, Some(0), None).unwrap();
        }
    }
    let away = stage.path("away.json");
    std::fs::rename(&values, &away).unwrap();
    std::os::unix::fs::symlink(&away, &values).unwrap();
    refused("is a link").await;
    std::fs::remove_file(&values).unwrap();
    std::fs::rename(&away, &values).unwrap();
    assert_eq!(stage.render("").await.status, 0);
    // Where the configuration has both, nothing is taken.
    stage.around.configuration([0; 3], &Changes::default());
    set(&kit, 0o777);
    assert_eq!(stage.render("").await.status, 0);
}

#[tokio::test]
async fn a_link_is_no_folder_and_only_files_of_ours_go() {
    let stage = Stage::new().await;
    let (kit, link) = (stage.path("kit"), stage.path("link"));
    std::os::unix::fs::symlink(&kit, &link).unwrap();
    for there in [false, true] {
        for output in ["HERE/link", "HERE/link/", "HERE/link --force"] {
            let words = format!("render --tenant contoso --output {output}");
            let said = stage.connector(&words).await;
            let told = said.err.contains(&format!("leads to, {}", kit.display()));
            assert!(said.status == 2 && told, "{said:?}");
        }
        assert_eq!(kit.exists(), there);
        assert_eq!(stage.render("").await.status, 0);
    }
    // A list of sums that somebody has written further, a file outside, and a link by the name of a script of ours.
    let outside = stage.path("outside.txt");
    std::fs::write(&outside, "keep").unwrap();
    std::fs::write(kit.join("mine.txt"), "mine").unwrap();
    std::fs::remove_file(kit.join("Update-GatepostSecret.ps1")).unwrap();
    std::os::unix::fs::symlink(&outside, kit.join("Update-GatepostSecret.ps1")).unwrap();
    let sums = std::fs::read_to_string(kit.join("SHA256SUMS")).unwrap();
    let zeros = "0".repeat(64);
    let mut written = sums.replace(
        sums.lines()
            .find(|line| line.ends_with("Update-GatepostSecret.ps1"))
            .unwrap(),
        &format!("{zeros}  Update-GatepostSecret.ps1"),
    );
    for name in ["mine.txt", "../outside.txt", "..\\outside.txt"] {
        written.push_str(&format!("{zeros}  {name}\n"));
    }
    std::fs::write(kit.join("SHA256SUMS"), written).unwrap();
    let alone = Changes::replace("service = \"connector\"", "service = \"submission\"");
    stage.around.configuration([0; 3], &alone);
    let said = stage.render("").await;
    assert!(
        said.status == 2
            && said
                .err
                .contains("changed since it was rendered: Update-GatepostSecret.ps1;"),
        "{said:?}"
    );
    assert_eq!(stage.render(" --force").await.status, 0);
    let names = listing_names(&kit);
    let is_there = |wanted: &str| names.iter().any(|name| name == wanted);
    assert!(!is_there("Set-GatepostRollout.ps1"), "{names:?}");
    assert!(
        is_there("mine.txt") && is_there("Update-GatepostSecret.ps1"),
        "{names:?}"
    );
    assert_eq!(std::fs::read(&outside).unwrap(), b"keep");
}

#[tokio::test]
async fn what_makes_the_set_wrong_is_told_with_its_line_and_nothing_is_written() {
    let table = [(
        "hostname = \"smarthost.contoso.com\"",
        "hostname = \"mx.contoso.local\"",
        "gatepost.toml:2: hostname: mx.contoso.local ends in .local",
    )];
    for (from, to, told) in table {
        let stage = Stage::with(Changes::replace(from, to)).await;
        let said = stage.render("").await;
        assert_eq!(said.status, 1, "{said:?}");
        assert!(said.err.contains(told), "{said:?}");
        assert!(!stage.path("kit").exists());
        let said = stage
            .connector("diff --tenant contoso --exports HERE")
            .await;
        assert_eq!(said.status, 2, "{said:?}");
    }
    // What only deserves a look is told, and rendered.
    let stage = Stage::with(Changes::replace(
        "cloud_services_mail_enabled = true\n\n[[tenant]]",
        "cloud_services_mail_enabled = false\n\n[[tenant]]",
    ))
    .await;
    let said = stage.render(" --json").await;
    assert_eq!(
        (
            said.status,
            said.json()["values"]["CloudServicesMailEnabled"].as_str()
        ),
        (0, Some("False"))
    );
    assert!(
        said.err
            .contains("tenant.contoso.inbound_connector.cloud_services_mail_enabled: warning: "),
        "{said:?}"
    );
    assert!(
        said.err
            .contains("listener.exchange.address: warning: port 0"),
        "{said:?}"
    );
    assert!(
        !said.err.contains("fabrikam"),
        "another tenant's is not told: {said:?}"
    );
}

#[tokio::test]
async fn wrong_use_is_status_2() {
    let stage = Stage::new().await;
    for words in [
        "render --output HERE/kit",
        "render --tenant nobody --output HERE/kit",
        "render --tenant contoso",
        "render --tenant contoso --output HERE/kit --pilot-group nonsense",
        "render --tenant contoso --output HERE/kit --environment Moon",
        "diff --tenant contoso",
        "diff --tenant contoso --exports HERE/none",
        "diff --tenant contoso --rules HERE/gatepost.toml",
        "diff --exports HERE",
    ] {
        let said = stage.connector(words).await;
        assert_eq!(said.status, 2, "{words}: {said:?}");
        assert!(!said.err.contains("panicked"), "{said:?}");
    }
}

/// The tenant's objects as the scripts make them.
fn exported() -> [(&'static str, Value); 4] {
    let mark = "Managed by Gatepost (schema 1). See gatepost connector.";
    let inbound = json!({
        "Name": "From Gatepost", "Comment": mark, "Enabled": true, "ConnectorType": "OnPremises", "ConnectorSource": "Default",
        "SenderDomains": ["smtp:*;1"], "TlsSenderCertificateName": "contoso.com", "RequireTls": true, "RestrictDomainsToCertificate": true,
        "RestrictDomainsToIPAddresses": false, "CloudServicesMailEnabled": true, "TreatMessagesAsInternal": false,
        "AssociatedAcceptedDomains": [], "EFSkipLastIP": false,
    });
    let outbound = json!({
        "Name": "To Gatepost", "Comment": mark, "Enabled": true, "TestMode": false, "ConnectorType": "OnPremises",
        "IsTransportRuleScoped": true, "UseMXRecord": false, "SmartHosts": ["smarthost.contoso.com"], "TlsSettings": "DomainValidation",
        "TlsDomain": "smarthost.contoso.com", "CloudServicesMailEnabled": true, "RouteAllMessagesViaOnPremises": false,
        "AllAcceptedDomains": false, "RecipientDomains": [], "IsValidated": true,
    });
    let rules = json!([
        {
            "Name": "Route to Gatepost", "Comments": mark, "Priority": 0, "State": "Disabled", "Mode": "Enforce", "FromScope": "InOrganization",
            "RouteMessageOutboundConnector": "To Gatepost", "SetHeaderName": "X-contoso-Gate", "SetHeaderValue": "contoso-secret",
            "RuleErrorAction": "Ignore", "SetAuditSeverity": "Low",
            "StopRuleProcessing": true, "ExceptIfHeaderContainsMessageHeader": "X-Gatepost-Processed",
            "ExceptIfHeaderContainsWords": ["contoso-loop"], "Description": "contoso-secret contoso-loop",
        },
        {
            "Name": "Back from Gatepost", "Comments": mark, "Priority": 1, "State": "Enabled", "Mode": "Enforce",
            "HeaderContainsMessageHeader": "X-Gatepost-Processed", "HeaderContainsWords": ["contoso-loop"],
            "RemoveHeader": "X-Gatepost-Processed", "StopRuleProcessing": false, "SetAuditSeverity": "Low",
        },
    ]);
    let domains = json!({ "DomainName": "contoso.com", "DomainType": "Authoritative" });
    [
        ("InboundConnector.json", inbound),
        ("OutboundConnector.json", outbound),
        ("TransportRule.json", rules),
        ("AcceptedDomain.json", domains),
    ]
}

/// As Windows PowerShell 5.1 writes behind `>`.
fn utf16(text: &str) -> Vec<u8> {
    format!("\u{feff}{text}\r\n")
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect()
}

#[tokio::test]
async fn a_tenant_that_agrees_is_status_0_and_each_drift_is_told_with_what_mends_it() {
    let stage = Stage::new().await;
    let exports = stage.path("state");
    std::fs::create_dir(&exports).unwrap();
    for (name, value) in exported() {
        std::fs::write(exports.join(name), utf16(&value.to_string())).unwrap();
    }
    let diff = "diff --tenant contoso --exports HERE/state";
    let said = stage.connector(diff).await;
    assert_eq!(said.status, 0, "{said:?}");
    assert!(said.out.contains("tenant contoso: 0 drift(s)"), "{said:?}");
    assert!(
        said.out.contains("the routing rule is disabled"),
        "{said:?}"
    );

    let mut rules = exported()[2].1.clone();
    rules[0]["SetHeaderValue"] = json!("a guess");
    rules[1]["HeaderContainsWords"] = json!(["an old value"]);
    std::fs::write(exports.join("TransportRule.json"), rules.to_string()).unwrap();
    let said = stage.connector(diff).await;
    assert_eq!(said.status, 1, "{said:?}");
    assert!(
        !said.out.contains("guess") && !said.out.contains("old value"),
        "{said:?}"
    );
    let said = stage.connector(&format!("{diff} --json")).await;
    let facts = said.json();
    assert_eq!(
        (
            said.status,
            facts["tenant"].as_str(),
            facts["stage"].as_str()
        ),
        (1, Some("contoso"), Some("Stop"))
    );
    let drifts: Vec<(&str, &str, &str)> = facts["drift"]
        .as_array()
        .unwrap()
        .iter()
        .map(|drift| {
            let text = |key: &str| drift[key].as_str().unwrap();
            (text("name"), text("property"), text("is"))
        })
        .collect();
    assert_eq!(
        drifts,
        [
            ("Route to Gatepost", "SetHeaderValue", "differs"),
            (
                "Back from Gatepost",
                "HeaderContainsWords",
                "one outdated value, not the present one"
            ),
        ]
    );
    // Single files; a file that is named must be there.
    let said = stage.connector("diff --tenant contoso --inbound HERE/state/InboundConnector.json --outbound HERE/state/OutboundConnector.json").await;
    assert_eq!(said.status, 0, "{said:?}");
    assert!(
        said.out
            .ends_with("in InboundConnector, OutboundConnector\n"),
        "{said:?}"
    );
    let said = stage
        .connector(&format!("{diff} --arc HERE/none.json"))
        .await;
    assert_eq!(said.status, 2, "{said:?}");
    // An export of nothing is an empty file.
    std::fs::write(exports.join("OutboundConnector.json"), "").unwrap();
    let said = stage.connector(diff).await;
    assert!(
        said.status == 1 && said.out.contains(".\\Install-GatepostConnector.ps1"),
        "{said:?}"
    );
    for broken in [
        &b"Name : To Gatepost"[..],
        b"[{\"Name\": \"\xfc\"}]",
        b"[1]",
    ] {
        std::fs::write(exports.join("OutboundConnector.json"), broken).unwrap();
        let said = stage.connector(diff).await;
        assert!(
            said.status == 2 && said.err.contains("OutboundConnector.json: "),
            "{said:?}"
        );
    }
    std::fs::remove_file(exports.join("TransportRule.json")).unwrap();
    assert_eq!(stage.connector(diff).await.status, 2);
}

#[tokio::test]
async fn applications_alone_get_the_inbound_connector_without_the_way_out() {
    let change = Changes::replace("service = \"connector\"", "service = \"submission\"");
    let stage = Stage::with(change).await;
    let said = stage.render("").await;
    assert_eq!(said.status, 0, "{said:?}");
    assert!(
        said.out.contains("the set is the inbound connector alone"),
        "{said:?}"
    );
    let kit = stage.path("kit");
    let names = listing_names(&kit);
    for left_out in ["Set-GatepostRollout.ps1", "Update-GatepostSecret.ps1"] {
        assert!(!names.iter().any(|name| name == left_out), "{names:?}");
    }
    let secrets = std::fs::read(kit.join("gatepost-secrets.json")).unwrap();
    let secrets: Value = serde_json::from_slice(&secrets).unwrap();
    assert_eq!(secrets, json!({ "TenantId": CONTOSO }));
    let install = std::fs::read_to_string(kit.join("Install-GatepostConnector.ps1")).unwrap();
    assert!(install.contains("[string[]]$SmartHosts = @(),"));
    let exports = stage.path("state");
    std::fs::create_dir(&exports).unwrap();
    for (name, value) in exported() {
        let outward = matches!(name, "OutboundConnector.json" | "TransportRule.json");
        let value = if outward { json!([]) } else { value };
        std::fs::write(exports.join(name), value.to_string()).unwrap();
    }
    let said = stage
        .connector("diff --tenant contoso --exports HERE/state")
        .await;
    assert_eq!(said.status, 0, "{said:?}");
    assert!(said.out.contains("not part of the set"), "{said:?}");
    // A listener for Exchange, and the same folder holds the rest.
    let config = stage.around.configuration([0; 3], &Changes::default());
    assert_eq!(config, stage.config);
    let said = stage.render("").await;
    assert_eq!(said.status, 0, "{said:?}");
    let names = listing_names(&kit);
    assert!(
        names.iter().any(|name| name == "Set-GatepostRollout.ps1"),
        "{names:?}"
    );
    assert_eq!(
        stage
            .connector("diff --tenant contoso --exports HERE/state")
            .await
            .status,
        1
    );
}

#[tokio::test]
async fn a_tenant_for_applications_alone_beside_one_that_exchange_sends_to_gets_its_own_set() {
    // Fabrikam's are from applications only; the last one is everybody's, and so is it.
    let routes = "[[route]]\ntenant = \"contoso\"\nrecipients = \"any\"\nvia = \"exchange\"\n\n\
        [[route]]\ntenant = \"fabrikam\"\nfrom = \"submission\"\nrecipients = \"accepted\"\nvia = \"exchange\"\n\n\
        [[route]]\nfrom = \"submission\"\nrecipients = \"any\"\nvia = \"exchange\"\n";
    let usual = "[[route]]\nrecipients = \"any\"\nvia = \"exchange\"\n";
    let stage = Stage::with(Changes::replace(usual, routes)).await;
    for (tenant, alone) in [("contoso", false), ("fabrikam", true)] {
        let words = format!("render --tenant {tenant} --output HERE/{tenant}-kit --json");
        let said = stage.connector(&words).await;
        assert_eq!(said.status, 0, "{said:?}");
        assert_eq!(said.json()["inbound_alone"], alone, "{tenant}");
        let names = listing_names(&stage.path(&format!("{tenant}-kit")));
        let rollout = names.iter().any(|name| name == "Set-GatepostRollout.ps1");
        assert_eq!(rollout, !alone, "{tenant} {names:?}");
    }
}

#[tokio::test]
async fn an_export_tells_how_old_it_is_and_whose() {
    let stage = Stage::new().await;
    let exports = stage.path("state");
    std::fs::create_dir(&exports).unwrap();
    for (name, value) in exported() {
        std::fs::write(exports.join(name), value.to_string()).unwrap();
    }
    let diff = "diff --tenant contoso --exports HERE/state";
    let said = stage.connector(diff).await;
    assert!(
        said.out.contains("note: export: exported at ")
            && said.out.contains("by the time of its oldest file")
            && !said.err.contains("export again"),
        "{said:?}"
    );
    let own = |tenant: &str| json!([{ "Time": "2026-01-02T03:04:05Z", "TenantId": tenant }]);
    std::fs::write(exports.join("Export.json"), own(CONTOSO).to_string()).unwrap();
    let said = stage.connector(&format!("{diff} --json")).await;
    assert_eq!(said.status, 0, "{said:?}");
    assert!(said.err.contains("export again before you act"), "{said:?}");
    let report = said.json();
    assert_eq!(report["exported_at"], "2026-01-02T03:04:05Z");
    assert!(report["export_age_seconds"].as_u64() > Some(86_400));
    // A clock that is wrong is told as it is, with a warning: ahead of ours, and far behind.
    for (time, told) in [
        ("2999-01-02T03:04:05Z", "which is in the future by "),
        (
            "1900-01-02T03:04:05Z",
            " day(s) ago: what was changed since",
        ),
    ] {
        let said = json!([{ "Time": time, "TenantId": CONTOSO }]);
        std::fs::write(exports.join("Export.json"), said.to_string()).unwrap();
        let said = stage.connector(&format!("{diff} --json")).await;
        assert!(
            said.err.contains(told) && said.err.contains(time),
            "{said:?}"
        );
        let report = said.json();
        assert_eq!(report["exported_at"], time);
        assert_eq!(
            report["export_age_seconds"].as_i64().unwrap() < 0,
            time.starts_with('2')
        );
    }
    let said = json!([{ "Time": "yesterday", "TenantId": CONTOSO }]);
    std::fs::write(exports.join("Export.json"), said.to_string()).unwrap();
    let said = stage.connector(diff).await;
    assert!(said.err.contains("Time of Export.json is none"), "{said:?}");
    let theirs = own("99999999-8888-7777-6666-555555555555");
    std::fs::write(exports.join("Export.json"), theirs.to_string()).unwrap();
    let said = stage.connector(diff).await;
    assert_eq!(said.status, 2, "{said:?}");
    assert!(
        said.err.contains("an export of tenant 99999999"),
        "{said:?}"
    );
}
