//! Where does the log go, and what is in it? To standard error, whatever its format; our own words by `log.level`, those
//! of the libraries only where they warn: at `trace` they would tell what they carry, and that can be a password.

mod lines;

use crate::config::LogSettings;
use lines::Lines;
use std::time::Duration;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, Registry, fmt, reload};

/// How long the end waits for who reads the log.
const PATIENCE: Duration = Duration::from_secs(1);

/// The log of this process. When it is dropped, what was told is written.
#[derive(Debug)]
pub(super) struct Log {
    filter: reload::Handle<Targets, Registry>,
    lines: Lines,
    json: bool,
}

impl Log {
    /// Starts it; also a panic is told there, in its format.
    ///
    /// # Errors
    /// There can be no thread for it.
    pub(super) fn start(settings: &LogSettings) -> std::io::Result<Self> {
        let (filter, handle) = reload::Layer::new(targets(settings.level));
        let lines = Lines::to(std::io::stderr())?;
        let writer = lines.clone();
        let layer = fmt::layer()
            .with_writer(move || writer.clone())
            .with_target(false)
            .with_ansi(false);
        let layer = if settings.json {
            layer.json().flatten_event(true).boxed()
        } else {
            layer.boxed()
        };
        let started = tracing_subscriber::registry()
            .with(filter)
            .with(layer)
            .try_init();
        if let Err(error) = started {
            eprintln!("gatepost: log: {error}");
        }
        std::panic::set_hook(Box::new(|panic| {
            let place = panic.location().map(ToString::to_string);
            let why = panic.payload_as_str().unwrap_or("no words");
            let place = place.as_deref().unwrap_or("somewhere");
            tracing::error!(place, why, "a fault of the program: a task ended");
        }));
        Ok(Self {
            filter: handle,
            lines,
            json: settings.json,
        })
    }

    /// Lines that are lost because nobody reads the log are counted here.
    pub(super) fn count_lost_in(&self, counter: prometheus::IntCounter) {
        self.lines.count_in(counter);
    }

    /// Takes up another level.
    pub(super) fn reload(&self, settings: &LogSettings) {
        if let Err(error) = self.filter.reload(targets(settings.level)) {
            tracing::warn!(%error, "log.level stays as it was");
        }
        if settings.json != self.json {
            tracing::warn!("log.format changed: that needs a restart");
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.lines.flush(PATIENCE);
    }
}

fn targets(level: tracing::Level) -> Targets {
    let own = LevelFilter::from_level(level);
    Targets::new()
        .with_default(own.min(LevelFilter::WARN))
        .with_target(env!("CARGO_PKG_NAME"), own)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing::Level;

    #[test]
    fn libraries_only_warn_whatever_the_level() {
        let trace = targets(Level::TRACE);
        assert!(trace.would_enable("gatepost::deliver", &Level::TRACE));
        assert!(!trace.would_enable("hickory_proto::xfer", &Level::INFO));
        assert!(trace.would_enable("hickory_proto::xfer", &Level::WARN));
        let error = targets(Level::ERROR);
        assert!(!error.would_enable("gatepost", &Level::WARN));
        assert!(!error.would_enable("hickory_proto", &Level::WARN));
    }
}
