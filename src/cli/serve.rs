//! `gatepost serve`: the smart host.

use crate::app::Server;
use crate::config::{LogSettings, Settings, Severity};
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Registry, fmt, reload};

/// Runs until SIGTERM or SIGINT.
#[must_use]
pub fn run(path: &Path) -> ExitCode {
    let settings = match super::load(path) {
        Ok(settings) => settings,
        Err(status) => return status,
    };
    keep_private();
    let log = Log::start(&settings.log);
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("gatepost: runtime: {error}");
            return ExitCode::from(2);
        }
    };
    let ended = runtime.block_on(serve(settings, path, &log));
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("gatepost: {problem}");
            ExitCode::from(1)
        }
    }
}

async fn serve(settings: Settings, path: &Path, log: &Log) -> Result<(), String> {
    let listen = |kind| signal(kind).map_err(|error| format!("signals: {error}"));
    let (mut terminate, mut interrupt, mut hangup) = (
        listen(SignalKind::terminate())?,
        listen(SignalKind::interrupt())?,
        listen(SignalKind::hangup())?,
    );
    let server = Server::start(settings).await?;
    let listeners: Vec<String> = server
        .listeners()
        .map(|(name, address)| format!("{name}={address}"))
        .collect();
    tracing::info!(listeners = %listeners.join(" "), admin = %server.admin_address(), "ready");
    say_ready();
    loop {
        tokio::select! {
            () = signalled(&mut terminate) => break,
            () = signalled(&mut interrupt) => break,
            () = signalled(&mut hangup) => read_again(&server, path, log).await,
        }
    }
    tracing::info!("stopping");
    server.stop().await;
    tracing::info!("stopped");
    Ok(())
}

/// What a library of ours makes in the data directory (the index does) is nobody else's business either (product.md 10).
fn keep_private() {
    rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
}

async fn signalled(signal: &mut Signal) {
    if signal.recv().await.is_none() {
        std::future::pending::<()>().await;
    }
}

/// The one line that scripts wait for.
fn say_ready() {
    let mut out = std::io::stdout().lock();
    if let Err(error) = writeln!(out, "gatepost ready").and_then(|()| out.flush()) {
        tracing::debug!(%error, "standard output");
    }
}

async fn read_again(server: &Server, path: &Path, log: &Log) {
    let (owned, endpoints) = (path.to_owned(), server.endpoints_in_force());
    let loaded =
        tokio::task::spawn_blocking(move || crate::config::reload(&owned, &endpoints)).await;
    let result = match loaded {
        Ok(Ok(loaded)) => {
            for problem in &loaded.problems {
                match problem.severity {
                    Severity::Warning => tracing::warn!(%problem, "configuration"),
                    Severity::Error | Severity::Lapsed => {
                        tracing::error!(%problem, "configuration");
                    }
                }
            }
            let errors = loaded
                .problems
                .iter()
                .filter(|problem| problem.severity == Severity::Error)
                .count();
            loaded
                .settings
                .ok_or_else(|| format!("the configuration has errors: {errors}, told above"))
        }
        Ok(Err(unreadable)) => Err(unreadable.to_string()),
        Err(error) => Err(error.to_string()),
    };
    let result = match result {
        Ok(settings) => {
            let wanted = settings.log.clone();
            server.reload(settings).map(|()| log.follow(&wanted))
        }
        Err(problem) => {
            server.reload_refused();
            Err(problem)
        }
    };
    match result {
        Ok(()) => tracing::info!("reloaded"),
        Err(problem) => tracing::error!(%problem, "not reloaded, the old configuration stays"),
    }
}

/// The log goes to standard error, whatever its format. Its level follows a reload.
struct Log {
    json: bool,
    level: Option<reload::Handle<LevelFilter, Registry>>,
}

impl Log {
    fn start(settings: &LogSettings) -> Self {
        let (filter, level) = reload::Layer::new(LevelFilter::from_level(settings.level));
        let lines = fmt::layer()
            .with_writer(std::io::stderr)
            .with_target(false)
            .with_ansi(false);
        let registry = tracing_subscriber::registry().with(filter);
        let started = if settings.json {
            registry.with(lines.json().flatten_event(true)).try_init()
        } else {
            registry.with(lines).try_init()
        };
        if let Err(error) = &started {
            eprintln!("gatepost: log: {error}");
        }
        Self {
            json: settings.json,
            level: started.is_ok().then_some(level),
        }
    }

    fn follow(&self, settings: &LogSettings) {
        let wanted = LevelFilter::from_level(settings.level);
        if let Some(level) = &self.level
            && let Err(error) = level.reload(wanted)
        {
            tracing::warn!(%error, "log.level");
        }
        if settings.json != self.json {
            tracing::warn!("log.format changed: that needs a restart");
        }
    }
}
