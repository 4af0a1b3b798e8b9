//! The PowerShell that runs the scripts: where it is found, and how it is run, with an end to the wait.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

/// No run takes longer, even on two busy cores; one that does is stopped.
const LONGEST: Duration = Duration::from_secs(540);

/// The PowerShell of this machine, or why there is none.
pub(crate) fn powershell() -> &'static Result<PathBuf, String> {
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    FOUND.get_or_init(find)
}

/// GATEPOST_PWSH, then `pwsh` on the PATH, then the one beside the repository (unpacked once, under target/).
fn find() -> Result<PathBuf, String> {
    if let Some(named) = std::env::var_os("GATEPOST_PWSH").filter(|path| !path.is_empty()) {
        let path = PathBuf::from(named);
        assert!(
            path.is_file(),
            "GATEPOST_PWSH names no file: {}",
            path.display()
        );
        return Ok(path);
    }
    let paths = std::env::var_os("PATH").unwrap_or_default();
    if let Some(found) = std::env::split_paths(&paths)
        .map(|folder| folder.join("pwsh"))
        .find(|path| path.is_file())
    {
        return Ok(found);
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let Some(unpack) = ["../shared/pwsh/unpack", "../../shared/pwsh/unpack"]
        .into_iter()
        .map(|path| root.join(path))
        .find(|path| path.is_file())
    else {
        return Err("no pwsh: GATEPOST_PWSH is not set, and none is on the PATH".to_owned());
    };
    let done = Command::new(&unpack)
        .arg(root.join("target/pwsh"))
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{}: {error}", unpack.display()))?;
    if !done.status.success() {
        return Err(format!(
            "no pwsh: {} failed: {}",
            unpack.display(),
            String::from_utf8_lossy(&done.stderr).trim()
        ));
    }
    Ok(PathBuf::from(
        String::from_utf8_lossy(&done.stdout).trim().to_owned(),
    ))
}

/// What a run left behind.
pub(crate) struct Done {
    /// Exit code; none when it was stopped.
    pub(crate) code: Option<i32>,
    /// Both streams, as they came.
    pub(crate) text: String,
}

/// Runs a script with its arguments; its home is `home`, its time zone far from UTC, so that a date in the wrong zone shows.
pub(crate) fn run(pwsh: &Path, home: &Path, script: &Path, arguments: &[&str]) -> Done {
    let log = home.join(format!(
        "{}.log",
        script
            .file_name()
            .map_or_else(|| "run".into(), |name| name.to_string_lossy())
    ));
    let output = std::fs::File::create(&log).unwrap();
    let mut child = Command::new(pwsh)
        .args(["-NoProfile", "-NonInteractive", "-File"])
        .arg(script)
        .args(arguments)
        .env("HOME", home)
        .env("TMPDIR", home)
        .env("TZ", "Pacific/Auckland")
        .env("NO_COLOR", "1")
        .env("POWERSHELL_TELEMETRY_OPTOUT", "1")
        .env("POWERSHELL_UPDATECHECK", "Off")
        // Measured code made for long runs costs more than it gains in one of a minute.
        .env("DOTNET_TieredPGO", "0")
        .stdin(Stdio::null())
        .stdout(output.try_clone().unwrap())
        .stderr(output)
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}", pwsh.display()));
    let id = rustix::process::Pid::from_child(&child);
    let (said, heard) = std::sync::mpsc::channel();
    let waiter = std::thread::spawn(move || {
        let ended = child.wait();
        let _gone = said.send(());
        ended
    });
    let in_time = heard.recv_timeout(LONGEST).is_ok();
    if !in_time {
        rustix::process::kill_process(id, rustix::process::Signal::KILL).unwrap();
    }
    let ended = waiter.join().unwrap().unwrap();
    let mut text = String::from_utf8_lossy(&std::fs::read(&log).unwrap()).into_owned();
    if !in_time {
        text.push_str(&format!("\nstopped after {} s\n", LONGEST.as_secs()));
    }
    Done {
        code: if in_time { ended.code() } else { None },
        text,
    }
}

/// Says on the terminal, past the capture of a passing test, that a test did not run.
pub(crate) fn skipped(test: &str, why: &str) {
    use std::io::Write;
    let line = format!("SKIPPED {test}: {why}\n");
    let _unseen = std::io::stderr().write_all(line.as_bytes());
}
