//! `gatepost check`: proves the configuration, every problem at once.

use crate::config;
use std::path::Path;
use std::process::ExitCode;

/// Prints `FILE:LINE: KEY: problem` for each problem. Status 2 where the file cannot be read, is not TOML or has an unknown
/// key; 1 where another error was found; 0 otherwise, warnings or not.
#[must_use]
pub fn run(path: &Path, json: bool) -> ExitCode {
    let loaded = match config::load(path) {
        Ok(loaded) => loaded,
        Err(unreadable) => {
            if json {
                let row = serde_json::json!([{ "file": path.display().to_string(), "line": unreadable.line,
                    "key": null, "severity": "error", "text": unreadable.text }]);
                return super::print(format!("{row}\n").as_bytes(), ExitCode::from(2));
            }
            return super::print(format!("{unreadable}\n").as_bytes(), ExitCode::from(2));
        }
    };
    let errors = loaded
        .problems
        .iter()
        .filter(|problem| problem.severity.is_bad())
        .count();
    let text = if json {
        let row = |problem: &config::Problem| {
            serde_json::json!({
                "file": problem.file.display().to_string(),
                "line": problem.line,
                "key": problem.key,
                "severity": if problem.severity.is_bad() { "error" } else { "warning" },
                "text": problem.text,
            })
        };
        let rows: Vec<serde_json::Value> = loaded.problems.iter().map(row).collect();
        format!("{}\n", serde_json::Value::from(rows))
    } else {
        let lines: String = loaded
            .problems
            .iter()
            .map(|problem| format!("{problem}\n"))
            .collect();
        let warnings = loaded.problems.len() - errors;
        let verdict = if errors == 0 { "ok" } else { "refused" };
        let path = path.display();
        format!("{lines}{path}: {verdict}, {errors} error(s), {warnings} warning(s)\n")
    };
    let status = match errors {
        0 => 0,
        _ if loaded.has_unknown_key => 2,
        _ => 1,
    };
    super::print(text.as_bytes(), ExitCode::from(status))
}
