//! The whole round in a PowerShell: rendered, installed into a stand-in for Exchange Online, exported, compared, mended.

use crate::harness::{CONTOSO, Changes, Surroundings, gatepost};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A PowerShell: on the PATH, or the one that lies beside this project.
fn powershell() -> Option<PathBuf> {
    let works = |program: &Path| {
        let version = Command::new(program).arg("-Version").output();
        version.is_ok_and(|output| output.status.success())
    };
    let usual = PathBuf::from("pwsh");
    if works(&usual) {
        return Some(usual);
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let unpack = ["../shared/pwsh/unpack", "../../shared/pwsh/unpack"]
        .into_iter()
        .map(|path| root.join(path))
        .find(|path| path.exists())?;
    let said = Command::new(unpack)
        .arg(root.join("target/pwsh"))
        .output()
        .ok()?;
    let program = PathBuf::from(String::from_utf8(said.stdout).ok()?.trim());
    works(&program).then_some(program)
}

/// Each property that a rendering decides is drifted once; `diff` names exactly that, and the line that it gives mends it.
#[tokio::test]
async fn what_render_writes_diff_finds_and_each_line_mends_its_drift() {
    let Some(powershell) = powershell() else {
        eprintln!("skipped: no pwsh on the PATH");
        return;
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
    let mut command = Command::new(powershell);
    command
        .args(["-NoProfile", "-NonInteractive", "-File"])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/powershell/round.ps1"))
        .args(["-Kit", output, "-Work", work.to_str().unwrap()])
        .args([
            "-Gatepost",
            env!("CARGO_BIN_EXE_gatepost"),
            "-Config",
            config.to_str().unwrap(),
        ])
        .args(["-TenantId", CONTOSO, "-AcceptedDomains", "contoso.com"]);
    let said = tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap();
    let (out, err) = (
        String::from_utf8_lossy(&said.stdout),
        String::from_utf8_lossy(&said.stderr),
    );
    assert!(
        said.status.success() && out.contains(" steps, 0 wrong"),
        "{out}{err}"
    );
    assert!(
        !out.contains("contoso-secret") && !out.contains("contoso-loop"),
        "{out}"
    );
}
