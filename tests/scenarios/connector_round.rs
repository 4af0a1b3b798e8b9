//! The whole round in a PowerShell: rendered, installed into a stand-in for Exchange Online, exported, compared, mended.

use crate::harness::{CONTOSO, Changes, Surroundings, gatepost};
use crate::host;
use std::path::Path;

/// Each property that a rendering decides is drifted once; `diff` names exactly that, and the line that it gives mends it.
#[tokio::test]
async fn what_render_writes_diff_finds_and_each_line_mends_its_drift() {
    let pwsh = match host::powershell() {
        Ok(pwsh) => pwsh,
        Err(why) => {
            return host::skipped(
                "what_render_writes_diff_finds_and_each_line_mends_its_drift",
                why,
            );
        }
    };
    let around = Surroundings::new().await;
    let config = around.configuration([0; 3], &Changes::default());
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
    ]
    .map(str::to_owned);
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
