//! The whole round in a PowerShell: rendered, installed into a stand-in for Exchange Online, exported, compared, mended.

use crate::harness::{CONTOSO, Changes, Surroundings, gatepost, write_identity};
use crate::host;
use gatepost::lab::certificates::Leaf;
use std::path::Path;

/// Each property that a rendering decides is drifted once; `diff` names exactly that, and the line that it gives mends it.
#[tokio::test]
async fn what_render_writes_diff_finds_and_each_line_mends_its_drift() {
    round(
        "what_render_writes_diff_finds_and_each_line_mends_its_drift",
        Surroundings::new().await,
        &Changes::default(),
        &[],
    )
    .await;
}

/// The same for applications alone, with a certificate below the accepted domain: nothing of the way out is made or missed.
#[tokio::test]
async fn the_round_of_an_inbound_connector_alone_by_a_wildcard() {
    let around = Surroundings::new().await;
    let issued = around.authority.issue(&Leaf::named("mail.contoso.com"));
    write_identity(around.folder.path(), "contoso", &issued.unwrap());
    round(
        "the_round_of_an_inbound_connector_alone_by_a_wildcard",
        around,
        &Changes::replace("service = \"connector\"", "service = \"submission\""),
        &["-Alone"],
    )
    .await;
}

/// Objects absent, drifted and made by hand under other names, together: the lines that `diff` prints run from top to bottom,
/// and leave nothing to say.
#[tokio::test]
async fn the_lines_of_diff_run_as_printed_in_every_state_of_any_three_objects() {
    let states = std::env::var("GATEPOST_STATES").unwrap_or_else(|_| "Covering".to_owned());
    round(
        "the_lines_of_diff_run_as_printed_in_every_state_of_any_three_objects",
        Surroundings::new().await,
        &Changes::default(),
        &["-States", &states],
    )
    .await;
}

async fn round(name: &str, around: Surroundings, changes: &Changes, further: &[&str]) {
    let pwsh = match host::powershell() {
        Ok(pwsh) => pwsh,
        Err(why) => return host::skipped(name, why),
    };
    let config = around.configuration([0; 3], changes);
    let (kit, work) = (
        around.folder.path().join("kit"),
        around.folder.path().join("work"),
    );
    std::fs::create_dir(&work).unwrap();
    let output = kit.to_str().unwrap();
    let said = gatepost(
        &config,
        &[
            "connector",
            "render",
            "--tenant",
            "contoso",
            "--output",
            output,
        ],
    )
    .await;
    assert_eq!(said.status, 0, "{said:?}");
    let home = around.folder.path().join("home");
    std::fs::create_dir(&home).unwrap();
    let arguments = [
        "-Kit",
        output,
        "-Work",
        work.to_str().unwrap(),
        "-Gatepost",
        env!("CARGO_BIN_EXE_gatepost"),
        "-Config",
        config.to_str().unwrap(),
        "-TenantId",
        CONTOSO,
        "-AcceptedDomains",
        "contoso.com",
    ];
    let arguments = arguments.iter().chain(further);
    let arguments: Vec<String> = arguments.map(|word| (*word).to_owned()).collect();
    let done = tokio::task::spawn_blocking(move || {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/powershell/round.ps1");
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        host::run(pwsh, &home, &script, &arguments)
    })
    .await
    .unwrap();
    let out = done.text;
    assert!(
        done.code == Some(0) && out.contains(" steps, 0 wrong"),
        "{out}"
    );
    assert!(
        !out.contains("contoso-secret") && !out.contains("contoso-loop"),
        "{out}"
    );
}
