//! `gatepost serve`: the smart host.

use super::log::Log;
use crate::app::Server;
use crate::config::{Settings, Severity};
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Runs until SIGTERM or SIGINT.
#[must_use]
pub fn run(path: &Path) -> ExitCode {
    let (settings, warnings) = match super::load_with_warnings(path) {
        Ok(loaded) => loaded,
        Err(status) => return status,
    };
    let log = Log::start(&settings.log);
    for problem in warnings {
        tracing::warn!(%problem, "configuration");
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "cannot start: runtime");
            return ExitCode::from(1);
        }
    };
    let ended = runtime.block_on(serve(settings, path, &log));
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            tracing::error!(%problem, "cannot start");
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
            () = signalled(&mut hangup) => reload(&server, path, log).await,
        }
    }
    tracing::info!("stopping");
    server.stop().await;
    tracing::info!("stopped");
    Ok(())
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

async fn reload(server: &Server, path: &Path, log: &Log) {
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
            let words = settings.log.clone();
            server.reload(settings).map(|()| log.reload(&words))
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
