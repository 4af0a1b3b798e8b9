//! `gatepost check`: proves the configuration, every problem at once.

use crate::config;
use std::path::Path;
use std::process::ExitCode;

/// Prints `FILE:LINE: KEY: problem` for each problem. Status 2 where the file cannot be read, is not TOML or has an unknown
/// key; 1 where an error was found; 0 otherwise, warnings or not.
#[must_use]
pub fn run(path: &Path, json: bool) -> ExitCode {
    let loaded = match config::load(path) {
        Ok(loaded) => loaded,
        Err(unreadable) => {
            if json {
                let row = serde_json::json!([{ "file": path.display().to_string(), "severity": "error",
                    "text": unreadable.to_string() }]);
                println!("{row}");
            } else {
                println!("{unreadable}");
            }
            return ExitCode::from(2);
        }
    };
    let errors = loaded
        .problems
        .iter()
        .filter(|problem| problem.severity.is_bad())
        .count();
    if json {
        let rows: Vec<serde_json::Value> = loaded
            .problems
            .iter()
            .map(|problem| {
                serde_json::json!({
                    "file": problem.file.display().to_string(),
                    "line": problem.line,
                    "key": problem.key,
                    "severity": if problem.severity.is_bad() { "error" } else { "warning" },
                    "text": problem.text,
                })
            })
            .collect();
        println!("{}", serde_json::Value::from(rows));
    } else {
        for problem in &loaded.problems {
            println!("{problem}");
        }
        let warnings = loaded.problems.len() - errors;
        let verdict = if errors == 0 { "ok" } else { "refused" };
        println!(
            "{}: {verdict}, {errors} error(s), {warnings} warning(s)",
            path.display()
        );
    }
    if errors == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(1)
    }
}
