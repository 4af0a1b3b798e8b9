//! A file per command of the contract; prints, never judges. Results go to standard output, everything else to standard
//! error. Exit status: 0 done and well; 1 done, and the answer is bad news; 2 wrong use or unreadable configuration.

pub mod certificate;
pub mod check;
pub mod connector;
pub mod explain_attribution;
pub mod explain_headers;
pub mod explain_reply;
pub mod explain_trust;
pub mod hash_password;
pub mod lab;
mod log;
mod message;
pub mod queue;
pub mod serve;
pub mod trace;

use crate::config::{self, Settings};
use clap::{CommandFactory as _, Parser, Subcommand};
use std::io::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Exchange Online connector smart host.
#[derive(Debug, Parser)]
#[command(name = "gatepost", version)]
struct Arguments {
    /// The configuration file.
    #[arg(
        long,
        global = true,
        env = "GATEPOST_CONFIG",
        default_value = "gatepost.toml",
        value_name = "FILE"
    )]
    config: PathBuf,
    /// Print facts as JSON.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the smart host.
    Serve,
    /// Show the main job on this machine: a simulated Exchange Online on loopback, throw-away certificates, sample mails.
    ///
    /// With --config FILE, a configuration of your own is rehearsed: on loopback, without touching anything. A certificate whose
    /// chain leads to no root fails there, as it would at Exchange Online: with SSL_CERT_FILE=ca.pem in the environment, an
    /// authority of your own counts as a public one. Without the option the lab brings a configuration of its own, whatever
    /// GATEPOST_CONFIG says.
    Lab {
        /// End after the samples; status 1 if one did not go as it must.
        #[arg(long)]
        once: bool,
        /// After the samples, bring this about and show what happens.
        #[arg(long, value_enum)]
        fault: Option<lab::Fault>,
    },
    /// Prove the configuration: every problem at once, each with its key and line.
    Check,
    /// Certificates: what they say, what would happen with another one, and how one is asked for.
    #[command(subcommand)]
    Certificate(certificate::Action),
    /// Read a password from standard input and print its PHC string.
    HashPassword,
    /// Explain a judgement.
    #[command(subcommand)]
    Explain(Explain),
    /// Exchange's side: the scripts that make a tenant's connectors and rules, and what these have become.
    #[command(subcommand)]
    Connector(connector::Action),
    /// The queue of the running server.
    #[command(subcommand)]
    Queue(queue::Action),
    /// The story of messages.
    Trace(trace::Arguments),
    /// Print shell completions.
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Subcommand)]
enum Explain {
    /// The server's own judgement of a message, offline.
    Trust {
        /// The message, as it would arrive; a file whose every line ends in LF is read with CRLF.
        #[arg(long, value_name = "FILE.eml")]
        message: PathBuf,
        /// The source address.
        #[arg(long, value_name = "IP")]
        from: IpAddr,
        /// The client certificate with its intermediates.
        #[arg(long, value_name = "FILE.pem")]
        certificate: Option<PathBuf>,
        /// The envelope sender; empty or `<>` for null.
        #[arg(long, value_name = "ADDRESS", allow_hyphen_values = true)]
        mail_from: String,
        /// XOORG on MAIL.
        #[arg(long, value_name = "DOMAIN")]
        xoorg: Option<String>,
        /// Ask name servers where a DKIM signature decides; without, the answer says that it would.
        #[arg(long)]
        dns: bool,
    },
    /// For which tenant Exchange Online would take mail, and why.
    Attribution(explain_attribution::Arguments),
    /// Whether Exchange Online would treat a message as internal, and if not, because of what.
    Headers(explain_headers::Arguments),
    /// What an SMTP reply means, whose fault it is, what Gatepost does about it and what you should do.
    Reply(explain_reply::Arguments),
}

/// Parses the arguments and runs the command.
#[must_use]
pub fn run() -> ExitCode {
    let arguments = Arguments::parse();
    let (config, json) = (arguments.config.as_path(), arguments.json);
    match arguments.command {
        Command::Serve => serve::run(config),
        Command::Lab { once, fault } => {
            // Without --config, the lab brings a configuration of its own.
            let given = config_is_given();
            lab::run(&lab::LabOptions {
                once,
                fault,
                json: arguments.json,
                config: given.then(|| arguments.config.clone()),
            })
        }
        Command::Check => check::run(config, arguments.json),
        Command::Certificate(action) => certificate::run(config, &action, arguments.json),
        Command::HashPassword => hash_password::run(),
        Command::Explain(Explain::Trust {
            message,
            from,
            certificate,
            mail_from,
            xoorg,
            dns,
        }) => {
            let question = explain_trust::Question {
                message: &message,
                from,
                certificate: certificate.as_deref(),
                mail_from: &mail_from,
                xoorg: xoorg.as_deref(),
                dns,
            };
            with_settings(config, |settings| {
                explain_trust::run(settings, &question, arguments.json, unix_millis() / 1000)
            })
        }
        Command::Connector(action) => answered(load_with_warnings(config).and_then(|loaded| {
            connector::answer(config, loaded, &action, json).map_err(Trouble::told)
        })),
        Command::Explain(Explain::Attribution(question)) => {
            answered(load(config).and_then(|settings| {
                let now = unix_millis() / 1000;
                explain_attribution::answer(&settings, &question, json, now).map_err(use_of)
            }))
        }
        Command::Explain(Explain::Headers(question)) => {
            answered(load_if_there(config).and_then(|settings| {
                let now = unix_millis() / 1000;
                let answer = explain_headers::answer(settings.as_ref(), &question, json, now);
                answer.map_err(|trouble| trouble.told())
            }))
        }
        Command::Explain(Explain::Reply(question)) => {
            answered(explain_reply::answer(&question, json).map_err(use_of))
        }
        Command::Queue(action) => with_settings(config, |settings| {
            queue::run(settings, &action, arguments.json)
        }),
        Command::Trace(query) => with_settings(config, |settings| {
            trace::run(settings, &query, arguments.json)
        }),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "gatepost", &mut script);
            print(&script, ExitCode::SUCCESS)
        }
    }
}

/// Why a command ends without an answer.
#[derive(Debug)]
pub enum Trouble {
    /// It was asked wrongly, or a file that it needs cannot be read: status 2.
    Use(String),
    /// The running server does not answer, or says no: status 1.
    Server(String),
    /// Who read the answer has gone.
    NobodyReads,
}

impl Trouble {
    /// Says it on standard error; the status.
    fn told(self) -> ExitCode {
        let (status, problem) = match self {
            Self::NobodyReads => return ExitCode::SUCCESS,
            Self::Use(problem) => (2, problem),
            Self::Server(problem) => (1, problem),
        };
        eprintln!("gatepost: {problem}");
        ExitCode::from(status)
    }

    fn of_output(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => Self::NobodyReads,
            _ => Self::Server(format!("standard output: {error}")),
        }
    }
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Use(problem) | Self::Server(problem) => f.write_str(problem),
            Self::NobodyReads => f.write_str("nobody reads"),
        }
    }
}

impl From<String> for Trouble {
    fn from(problem: String) -> Self {
        Self::Use(problem)
    }
}

impl From<crate::admin::ClientError> for Trouble {
    fn from(error: crate::admin::ClientError) -> Self {
        Self::Server(error.to_string())
    }
}

/// Prints an answer that is whole, and passes on its status: also where its reader has gone, as `head` goes.
fn print(text: &[u8], status: ExitCode) -> ExitCode {
    let mut out = std::io::stdout().lock();
    let printed = out.write_all(text).and_then(|()| out.flush());
    match printed.map_err(Trouble::of_output) {
        Ok(()) | Err(Trouble::NobodyReads) => status,
        Err(Trouble::Use(problem) | Trouble::Server(problem)) => {
            eprintln!("gatepost: {problem}");
            ExitCode::from(1)
        }
    }
}

/// Prints an answer with its status: good or bad news, or why there is none, which has been told.
fn answered(answer: Result<(bool, String), ExitCode>) -> ExitCode {
    match answer {
        Ok((good, text)) => print(text.as_bytes(), ExitCode::from(u8::from(!good))),
        Err(status) => status,
    }
}

fn use_of(problem: String) -> ExitCode {
    Trouble::Use(problem).told()
}

/// Loads the configuration for a command that needs it; its errors end the command with status 2.
fn with_settings<T: Into<Trouble>>(
    path: &Path,
    command: impl FnOnce(&Settings) -> Result<bool, T>,
) -> ExitCode {
    let settings = match load(path) {
        Ok(settings) => settings,
        Err(status) => return status,
    };
    match command(&settings).map_err(Into::into) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(trouble) => trouble.told(),
    }
}

/// Loads the configuration or prints why it cannot be.
fn load(path: &Path) -> Result<Settings, ExitCode> {
    load_with_warnings(path).map(|(settings, _)| settings)
}

/// [`load`] for a command that can do without: none where nobody named a file and the usual one is not there.
fn load_if_there(path: &Path) -> Result<Option<Settings>, ExitCode> {
    let named = std::env::var_os("GATEPOST_CONFIG").is_some() || config_is_given();
    if !named && !path.exists() {
        return Ok(None);
    }
    load(path).map(Some)
}

/// Whether `--config` stands on the command line.
fn config_is_given() -> bool {
    std::env::args_os().any(|word| {
        word.to_str()
            .is_some_and(|word| word == "--config" || word.starts_with("--config="))
    })
}

/// [`load`], and what is no error: for `check` and the server's log.
fn load_with_warnings(path: &Path) -> Result<(Settings, Vec<config::Problem>), ExitCode> {
    match config::load(path) {
        Ok(loaded) => {
            let is_error = |problem: &config::Problem| problem.severity == config::Severity::Error;
            let (errors, warnings): (Vec<_>, Vec<_>) =
                loaded.problems.into_iter().partition(is_error);
            for problem in errors {
                eprintln!("{problem}");
            }
            let settings = loaded.settings.ok_or_else(|| ExitCode::from(2))?;
            Ok((settings, warnings))
        }
        Err(unreadable) => {
            eprintln!("{unreadable}");
            Err(ExitCode::from(2))
        }
    }
}

/// The admin API of the running server, by the same configuration.
fn client(settings: &Settings) -> Result<crate::admin::Client, Trouble> {
    if settings.admin.address.port() == 0 {
        return Err(Trouble::Server(
            "admin.address has port 0: the system chose one that the server's log alone names (its line ready); give it one of its own".to_owned(),
        ));
    }
    let token = match &settings.admin.token {
        Some(token) => token.clone(),
        None => {
            let path = settings.data_directory.join("admin.token");
            let text = std::fs::read_to_string(&path).map_err(|error| {
                let path = path.display();
                Trouble::Server(format!(
                    "{path}: {error}: a server that runs writes the token there; has it run with this configuration, and may you read its data?"
                ))
            })?;
            crate::mail::Secret::new(text.trim())
        }
    };
    Ok(crate::admin::Client::new(settings.admin.address, token))
}

fn clock(unix_millis: u64) -> String {
    use time::format_description::well_known::Rfc3339;
    let at = time::OffsetDateTime::from_unix_timestamp_nanos(i128::from(unix_millis) * 1_000_000);
    at.ok()
        .and_then(|at| at.format(&Rfc3339).ok())
        .unwrap_or_else(|| unix_millis.to_string())
}

#[expect(clippy::disallowed_methods, reason = "commands are shells")]
fn unix_millis() -> u64 {
    let since_1970 = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGES: [(&str, &str); 7] = [
        ("README.md", include_str!("../../README.md")),
        (
            "docs/configuration.md",
            include_str!("../../docs/configuration.md"),
        ),
        (
            "docs/looking-after.md",
            include_str!("../../docs/looking-after.md"),
        ),
        (
            "docs/connectors.md",
            include_str!("../../docs/connectors.md"),
        ),
        ("docs/metrics.md", include_str!("../../docs/metrics.md")),
        ("deploy/README.md", include_str!("../../deploy/README.md")),
        ("certs/README.md", include_str!("../../certs/README.md")),
    ];

    /// The words of each `gatepost ...` that can be pasted (an indented line, `true`), and of each that is named in a sentence.
    fn commands(page: &str) -> Vec<(bool, Vec<String>)> {
        let mut lines = Vec::new();
        for line in page.lines() {
            match line.strip_prefix("    ") {
                Some(code) => {
                    let code = code.split(" # ").next().unwrap_or(code);
                    lines.extend(code.split(" | ").map(|command| (true, command)));
                }
                None => lines.extend(
                    line.split('`')
                        .skip(1)
                        .step_by(2)
                        .map(|named| (false, named)),
                ),
            }
        }
        let mut found = Vec::new();
        for (whole, line) in lines {
            let line = line.trim_start().replace("sudo -u gatepost ", "");
            let line = line.replace("sudo gatepost ", "gatepost ");
            let line = line.replace("cargo run --release -- ", "gatepost ");
            if line.starts_with("gatepost ") && line != "gatepost ready" {
                let words = line.split_whitespace();
                let words = words.take_while(|word| !word.starts_with(['>', '|']));
                found.push((whole, words.map(str::to_owned).collect()));
            }
        }
        found
    }

    #[test]
    fn every_command_on_the_pages_is_understood() {
        let mut count = 0;
        let steps = crate::connector::fixtures::steps();
        for (name, page) in PAGES.into_iter().chain([("a rendered README.md", &*steps)]) {
            for (whole, words) in commands(page) {
                count += 1;
                use clap::error::ErrorKind::{
                    DisplayHelpOnMissingArgumentOrSubcommand, MissingRequiredArgument,
                };
                if let Err(error) = Arguments::try_parse_from(&words) {
                    // `gatepost queue` and `gatepost explain trust` in a sentence name what exists.
                    let named = matches!(
                        error.kind(),
                        DisplayHelpOnMissingArgumentOrSubcommand | MissingRequiredArgument
                    );
                    assert!(named && !whole, "{name}: {}: {error}", words.join(" "));
                }
            }
        }
        assert!(count > 20, "only {count} commands found");
    }

    #[test]
    fn every_link_on_the_pages_leads_somewhere() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut count = 0;
        for (name, page) in PAGES {
            let folder = root.join(name);
            let folder = folder.parent().unwrap();
            for target in page.split("](").skip(1) {
                let target = target.split(')').next().unwrap();
                if !target.starts_with("http") {
                    count += 1;
                    assert!(folder.join(target).exists(), "{name}: {target}");
                }
            }
        }
        assert!(count >= 5, "only {count} links found");
    }
}
