//! `gatepost lab`: does the main job work, here and now? A smart host and a simulated Exchange Online on loopback.
//!
//! Without `--config` everything is made up in a temporary folder ([`stage`]); with it, an administrator's own
//! configuration is rehearsed ([`rehearsal`]). Either gives settings and a cast; the rest is the same: start the real
//! server, play the samples, tell the story, and without `--once` stay up for mail sent by hand ([`standby`]).

pub(super) mod cast;
mod facts;
pub(super) mod folder;
mod lapse;
mod missing;
mod rehearsal;
mod stage;
mod standby;

use crate::app::Server;
use crate::config::Settings;
use crate::lab::certificates::{Authority, Leaf};
use crate::lab::play::{self, Told};
use crate::lab::scene::{Cast, Scene, Wardrobe};
use crate::lab::story::{self, Dress};
use crate::lab::{ExchangeIn, ExchangeOptions, LabError, Outside, OutsideOptions, samples};
use folder::Folder;
use rustls_pki_types::{CertificateDer, TrustAnchor};
use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// `gatepost lab`.
#[derive(Clone, Debug, Default)]
pub struct LabOptions {
    /// `--once`: end after the samples.
    pub once: bool,
    /// `--json`: the rows as one JSON array, once all are played; what is for people goes to standard error.
    pub json: bool,
    /// `--config FILE`: rehearse this configuration.
    pub config: Option<PathBuf>,
    /// `--fault NAME`: then bring this about.
    pub fault: Option<Fault>,
}

/// What can be brought about after the samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Fault {
    /// The certificate that a tenant's inbound connector knows us by runs out, and is renewed.
    Certificate,
}

/// Why there is no story: wrong use or unreadable configuration (2), or the smart host or the lab did not come up (1).
#[derive(Debug)]
enum Stopped {
    Unusable(String),
    Broken(String),
}

impl From<LabError> for Stopped {
    fn from(error: LabError) -> Self {
        Self::Broken(error.to_string())
    }
}

/// What [`stage`] and [`rehearsal`] prepare: settings whose host and ports are not known before Exchange listens.
struct Prepared {
    authority: Authority,
    cast: Cast,
    settings: Settings,
    exchange: ExchangeOptions,
    /// The host name by which the connector listener's certificate is checked, where there is such a listener.
    server_name: Option<String>,
    roots_of_host: HostRoots,
    /// The certificate name that Exchange shows as a client.
    client_name: String,
    /// Lines that tell what was replaced.
    remarks: Vec<String>,
    /// The certificate of the smart host can be verified with the folder's `ca.pem`.
    own_authority: bool,
}

/// What proves the smart host's own certificates to the lab's clients, beside the lab's authority.
#[derive(Default)]
struct HostRoots {
    chains: Vec<Vec<CertificateDer<'static>>>,
    anchors: Vec<TrustAnchor<'static>>,
}

/// Runs the lab to its end.
#[must_use]
pub fn run(options: &LabOptions) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&format!("no runtime: {error}"));
            return ExitCode::from(1);
        }
    };
    let dress = if std::io::stdout().is_terminal() {
        Dress::Colours
    } else {
        Dress::Plain
    };
    let (status, complaint) = outcome(runtime.block_on(lab(options, dress)));
    if let Some(why) = complaint {
        complain(&why);
    }
    ExitCode::from(status)
}

/// 0 where every sample went as it must, 1 where one did not or nothing came up, 2 for a configuration that cannot be used.
fn outcome(told: Result<bool, Stopped>) -> (u8, Option<String>) {
    match told {
        Ok(well) => (u8::from(!well), None),
        Err(Stopped::Broken(why)) => (1, Some(why)),
        Err(Stopped::Unusable(why)) => (2, Some(why)),
    }
}

fn complain(why: &str) {
    // Nothing is left to do where standard error is closed.
    drop(writeln!(std::io::stderr(), "gatepost lab: {why}"));
}

/// Prints a line; a reader that has gone away ends nothing but the printing.
fn say(text: &str) {
    drop(writeln!(std::io::stdout(), "{text}"));
}

/// The same beside a JSON answer, which has standard output to itself.
fn whisper(text: &str) {
    drop(writeln!(std::io::stderr(), "{text}"));
}

/// True where every sample went as it must.
async fn lab(options: &LabOptions, dress: Dress) -> Result<bool, Stopped> {
    let broken = |error: std::io::Error| Stopped::Broken(error.to_string());
    let mut stop = Stop::listen().map_err(broken)?;
    let folder = Folder::make().map_err(broken)?;
    let mut prepared = match &options.config {
        None => stage::prepare(&folder)?,
        Some(path) => rehearsal::prepare(path, &folder)?,
    };
    let tell = if options.json { whisper } else { say };
    for remark in &prepared.remarks {
        tell(remark);
    }
    let tenant = match options.fault {
        Some(Fault::Certificate) => Some(lapse::prepare(&mut prepared)?),
        None => None,
    };
    let up = Box::pin(Up::start(prepared)).await?;
    let played = tokio::select! {
        story = up.play(tenant.as_deref(), dress, tell) => Some(story),
        () = stop.wanted() => None,
    };
    let Some(story) = played else {
        up.server.stop().await;
        return Err(Stopped::Broken("interrupted".to_owned()));
    };
    if options.json {
        let waiting = samples::waiting(&up.scene.cast);
        say(&facts::array(&story, &waiting).to_string());
    }
    if !options.once {
        let invitation = standby::invitation(&folder, &up);
        tell(&invitation.map_err(broken)?);
        standby::watch(dress, &up, &mut stop, tell).await;
    }
    up.server.stop().await;
    Ok(story.iter().all(Told::well))
}

/// The smart host and the simulated Exchange, running.
struct Up {
    server: Server,
    settings: Settings,
    scene: Scene,
    authority: Authority,
    own_authority: bool,
}

impl Up {
    async fn start(mut prepared: Prepared) -> Result<Self, Stopped> {
        let exchange = Arc::new(ExchangeIn::start(prepared.exchange).await?);
        cast::deliver_to(&mut prepared.settings, exchange.address());
        let stranger = Authority::new("Outside")?;
        let outside = OutsideOptions {
            identity: Some(stranger.issue(&Leaf::named("mx.outside.example"))?),
            ..OutsideOptions::default()
        };
        let outside = Arc::new(Outside::start(outside).await?);
        cast::leave_to(&mut prepared.settings, outside.address(), &prepared.cast);
        let connector = cast::connector_listener(&prepared.settings);
        let connector = connector.map(|listener| listener.name.to_string());
        let host = &prepared.roots_of_host;
        let chains: Vec<&[_]> = host.chains.iter().map(Vec::as_slice).collect();
        let roots = prepared.authority.roots_and(&host.anchors, &chains)?;
        let wardrobe = Wardrobe::for_name(&prepared.authority, &prepared.client_name)?;
        let server = Server::start(prepared.settings.clone())
            .await
            .map_err(Stopped::Broken)?;
        let address = |name: &str| {
            let address = server.listener_address(name);
            address.ok_or_else(|| Stopped::Broken(format!("listener {name} is not up")))
        };
        let mut cast = prepared.cast;
        for actor in &mut cast.actors {
            actor.door.address = address(&actor.door.name)?;
        }
        let scene = Scene {
            cast,
            connector: connector.as_deref().map(address).transpose()?,
            server_name: prepared.server_name.unwrap_or_default(),
            roots,
            wardrobe,
            exchange,
            outside,
        };
        Ok(Self {
            server,
            settings: prepared.settings,
            scene,
            authority: prepared.authority,
            own_authority: prepared.own_authority,
        })
    }

    /// Plays all samples, then the lapse of this tenant's certificate, and tells the story as it happens.
    async fn play(
        &self,
        lapsing: Option<&str>,
        dress: Dress,
        mut tell: impl FnMut(&str),
    ) -> Vec<Told> {
        tell(&story::head(dress));
        let rows = samples::rows(&self.scene.cast);
        let mut story = play::play(&self.scene, &rows, |told| tell(&story::row(told, dress))).await;
        if let Some(tenant) = lapsing {
            let number = story.len() + 1;
            let tell = |told: &Told| tell(&story::row(told, dress));
            story.extend(lapse::play(self, tenant, number, tell).await);
        }
        for fault in play::afterwards(&story) {
            tell(&fault);
        }
        let waiting = samples::waiting(&self.scene.cast);
        tell(&story::sum(&story, &waiting, dress));
        story
    }
}

/// Ctrl-C or SIGTERM: the lab takes its folder with it.
struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

impl Stop {
    fn listen() -> std::io::Result<Self> {
        let interrupt = signal(SignalKind::interrupt())?;
        Ok(Self {
            interrupt,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn wanted(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests;
