//! The connector scripts: what their text may hold, and what they do in a real PowerShell (README.md in this folder).
//!
//! Without a PowerShell the tests that need one say so and pass; those of the text always run.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::or_fun_call,
    clippy::large_futures,
    reason = "test code"
)]

mod host;
mod splat;
mod text;
mod version;

use std::path::{Path, PathBuf};

/// The folder of this test.
fn here() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/powershell")
}

/// The scripts that the repository ships.
fn templates() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("connector-templates")
}

#[test]
fn suite_in_a_real_powershell() {
    let pwsh = match host::powershell() {
        Ok(pwsh) => pwsh,
        Err(why) => return host::skipped("suite_in_a_real_powershell", why),
    };
    let home = tempfile::tempdir().unwrap();
    let report = home.path().join("report.jsonl");
    let done = host::run(
        pwsh,
        home.path(),
        &here().join("run.ps1"),
        &[
            "-Templates",
            &templates().to_string_lossy(),
            "-Report",
            &report.to_string_lossy(),
            "-Work",
            &home.path().join("work").to_string_lossy(),
        ],
    );
    let lines = std::fs::read_to_string(&report)
        .unwrap_or_else(|_| panic!("the suite wrote no report:\n{}", done.text));
    let cases: Vec<serde_json::Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let failed: Vec<String> = cases
        .iter()
        .filter(|case| !case["failed"].as_str().unwrap().is_empty())
        .map(|case| {
            format!(
                "- {}\n  {}",
                case["case"].as_str().unwrap(),
                case["failed"].as_str().unwrap().replace('\n', "\n  ")
            )
        })
        .collect();
    assert!(
        failed.is_empty(),
        "{} of {} cases failed:\n{}",
        failed.len(),
        cases.len(),
        failed.join("\n")
    );
    assert_eq!(
        done.code,
        Some(0),
        "the suite ended badly after {} cases:\n{}",
        cases.len(),
        done.text
    );
    assert!(
        cases.len() > 100,
        "only {} cases ran:\n{}",
        cases.len(),
        done.text
    );
}
