//! `gatepost serve`: the smart host.

mod renew;

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
    keep_private();
    let descriptors = raise_descriptors();
    let log = match Log::start(&settings.log) {
        Ok(log) => log,
        Err(error) => {
            eprintln!("gatepost: log: {error}");
            return ExitCode::from(1);
        }
    };
    for problem in warnings {
        tracing::warn!(%problem, "configuration");
    }
    let wanted = wanted_descriptors(&settings);
    if descriptors.is_some_and(|limit| limit < wanted) {
        tracing::warn!(limit = ?descriptors, wanted, "the limit of open files is lower than all max_connections may need: raise it (LimitNOFILE), or a flood of connections keeps the queue from its files");
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
    log.count_lost_in(server.metrics().log_lost.clone());
    let listeners: Vec<String> = server
        .listeners()
        .map(|(name, address)| format!("{name}={address}"))
        .collect();
    tracing::info!(listeners = %listeners.join(" "), admin = %server.admin_address(), "ready");
    say_ready();
    {
        let (renewed, mut renewals) = tokio::sync::mpsc::channel(1);
        let mut keeper = std::pin::pin!(renew::keep(&server, path, renewed));
        loop {
            tokio::select! {
                () = signalled(&mut terminate) => break,
                () = signalled(&mut interrupt) => break,
                () = signalled(&mut hangup) => reload(&server, path, log).await,
                Some(()) = renewals.recv() => reload(&server, path, log).await,
                () = &mut keeper => break,
            }
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

/// Uses all file descriptors that the system grants: the usual soft limit of 1024 is there for programs with `select`.
/// Tells the limit; nothing where there is none.
fn raise_descriptors() -> Option<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let most = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    match setrlimit(Resource::Nofile, most) {
        Ok(()) => limit.maximum,
        // As it was: what it is too low for is told with the log.
        Err(_) => limit.current,
    }
}

/// File descriptors that a configuration may need at the worst: a socket and a body file for each connection, and a
/// balancer's that are not known yet; strangers; next hops; what the queue, its index, trace and the admin API have open.
fn wanted_descriptors(settings: &Settings) -> u64 {
    const REST: u64 = 1024;
    let of_one = |listener: &crate::receive::ListenerSettings| {
        let balanced = !listener.proxy_protocol_from.is_empty();
        let most = listener.max_connections as u64;
        most * if balanced { 3 } else { 2 } + 100
    };
    settings.listeners.iter().map(of_one).sum::<u64>() + REST
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
