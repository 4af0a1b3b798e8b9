//! `gatepost lab`: does the main job work, here and now? A smart host and a simulated Exchange Online on loopback.
//!
//! Without `--config` everything is made up in a temporary folder ([`stage`]); with it, an administrator's own
//! configuration is rehearsed ([`rehearsal`]). Either gives settings and a cast; the rest is the same: start the real
//! server, play the samples, tell the story, and without `--once` stay up for mail sent by hand.

mod cast;
mod folder;
mod missing;
mod rehearsal;
mod stage;

use crate::app::Server;
use crate::config::Settings;
use crate::lab::certificates::{Authority, Leaf};
use crate::lab::scene::{Cast, Door, Scene, Wardrobe};
use crate::lab::story::{self, Dress};
use crate::lab::{ExchangeIn, ExchangeOptions, LabError, Security, play, samples};
use crate::message_trace::{Event, Query, TraceEvent};
use folder::Folder;
use std::collections::HashSet;
use std::io::{IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

/// `gatepost lab`.
#[derive(Clone, Debug, Default)]
pub struct LabOptions {
    /// `--once`: end after the samples.
    pub once: bool,
    /// `--config FILE`: rehearse this configuration.
    pub config: Option<PathBuf>,
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
    /// The host name by which the connector listener's certificate is checked.
    server_name: String,
    roots_of_host: ExchangeRoots,
    /// The certificate name that Exchange shows as a client.
    client_name: String,
    /// Lines that tell what was replaced.
    remarks: Vec<String>,
    /// Pasteable files are there: the folder holds `ca.pem` and `mail.eml`.
    paste: bool,
}

/// What proves the smart host's own certificates to the lab's clients.
struct ExchangeRoots(
    Vec<Vec<rustls_pki_types::CertificateDer<'static>>>,
    Vec<rustls_pki_types::TrustAnchor<'static>>,
);

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
    match runtime.block_on(lab(options, dress)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(Stopped::Broken(why)) => {
            complain(&why);
            ExitCode::from(1)
        }
        Err(Stopped::Unusable(why)) => {
            complain(&why);
            ExitCode::from(2)
        }
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

/// True where every sample went as it must.
async fn lab(options: &LabOptions, dress: Dress) -> Result<bool, Stopped> {
    let folder =
        Folder::make().map_err(|error| Stopped::Broken(format!("temporary folder: {error}")))?;
    let mut prepared = match &options.config {
        None => stage::prepare(&folder)?,
        Some(path) => rehearsal::prepare(path, &folder)?,
    };
    let exchange = Arc::new(ExchangeIn::start(prepared.exchange.clone()).await?);
    cast::deliver_to(&mut prepared.settings, exchange.address());
    let server = Box::pin(Server::start(prepared.settings.clone()))
        .await
        .map_err(Stopped::Broken)?;
    let told = with_server(options, dress, &folder, &prepared, &server, exchange).await;
    server.stop().await;
    told
}

async fn with_server(
    options: &LabOptions,
    dress: Dress,
    folder: &Folder,
    prepared: &Prepared,
    server: &Server,
    exchange: Arc<ExchangeIn>,
) -> Result<bool, Stopped> {
    let address = |name: &str| {
        server
            .listener_address(name)
            .ok_or_else(|| Stopped::Broken(format!("listener {name} is not up")))
    };
    let connector = address(cast::connector_name(&prepared.settings)?)?;
    let mut cast = prepared.cast.clone();
    for actor in &mut cast.actors {
        actor.door.address = address(&actor.door.name)?;
    }
    let chains: Vec<&[_]> = prepared.roots_of_host.0.iter().map(Vec::as_slice).collect();
    let scene = Scene {
        cast,
        connector,
        server_name: prepared.server_name.clone(),
        roots: prepared
            .authority
            .roots_and(&prepared.roots_of_host.1, &chains)?,
        wardrobe: Wardrobe::for_name(&prepared.authority, &prepared.client_name)?,
        exchange: Arc::clone(&exchange),
    };
    for remark in &prepared.remarks {
        say(remark);
    }
    say(&story::head(dress));
    let rows = samples::rows(&scene.cast);
    let story = play::play(&scene, &rows, |told| say(&story::row(told, dress))).await;
    for fault in play::afterwards(&story) {
        say(&fault);
    }
    say(&story::sum(&story, dress));
    let well = story.iter().all(play::Told::well);
    if options.once {
        return Ok(well);
    }
    say(&invitation(folder, prepared, &scene, server));
    watch(dress, server, &exchange).await;
    Ok(well)
}

/// What can be done now, in lines that can be pasted.
fn invitation(folder: &Folder, prepared: &Prepared, scene: &Scene, server: &Server) -> String {
    let mut lines = vec![
        String::new(),
        "The smart host stays up until Ctrl-C.".to_owned(),
        String::new(),
    ];
    for listener in &prepared.settings.listeners {
        if let Some(address) = server.listener_address(&listener.name) {
            lines.push(format!(
                "  {:12} {address}   {:?}, TLS {:?}",
                listener.name, listener.service, listener.tls
            ));
        }
    }
    lines.push(format!(
        "  {:12} http://{}/metrics",
        "metrics",
        server.admin_address()
    ));
    for actor in &scene.cast.actors {
        let Some(organization) = scene
            .cast
            .organizations
            .get(actor.tenant)
            .filter(|_| prepared.paste)
        else {
            continue;
        };
        let to = organization.address("bob");
        let kind = if actor.internal {
            "lands internal"
        } else {
            "lands external"
        };
        lines.extend([String::new(), format!("Send as {} ({kind}):", actor.name)]);
        lines.extend(pasteable(
            folder,
            actor.door.address,
            &actor.door,
            actor,
            &to,
        ));
    }
    lines.push(String::new());
    lines.join("\n")
}

fn pasteable(
    folder: &Folder,
    address: SocketAddr,
    door: &Door,
    actor: &crate::lab::scene::Actor,
    to: &str,
) -> Vec<String> {
    let ca = folder.path("ca.pem");
    let (ca, mail) = (ca.display(), folder.path(&format!("{}.eml", actor.name)));
    let from = &actor.sender;
    let mut curl = format!(
        "  curl --url smtp://{address} --mail-from {from} --mail-rcpt {to} -T {}",
        mail.display()
    );
    let mut swaks = format!("  swaks --server {address} --from {from} --to {to}");
    if door.security == Security::StartTls {
        curl += &format!(" --ssl-reqd --cacert {ca}");
        swaks += &format!(" --tls --tls-verify --tls-ca-path {ca}");
    }
    if let Some((name, password)) = &actor.login {
        // Made up for this run of the lab, and printed so that it can be used.
        let password = password.expose_str();
        curl += &format!(" --user {name}:{password}");
        swaks += &format!(" --auth LOGIN --auth-user {name} --auth-password {password}");
    }
    if let Some(source) = actor.source {
        curl += &format!(" --interface {source}");
        swaks += &format!(" --local-interface {source}");
    }
    vec![curl, swaks]
}

/// Prints each message's journey as it happens: what Exchange received, and what the smart host refused.
async fn watch(dress: Dress, server: &Server, exchange: &ExchangeIn) {
    let mut arrivals = exchange.watch();
    let mut looks = tokio::time::interval(Duration::from_secs(1));
    let mut told: HashSet<String> = refusals(server)
        .await
        .into_iter()
        .map(|event| event.id)
        .collect();
    loop {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => return,
            message = arrivals.recv() => match message {
                Ok(message) => say(&story::journey(&message, dress)),
                Err(tokio::sync::broadcast::error::RecvError::Lagged(missed)) => say(&format!("({missed} messages not shown)")),
                Err(tokio::sync::broadcast::error::RecvError::Closed) => return,
            },
            _ = looks.tick() => {
                for event in refusals(server).await {
                    if told.insert(event.id.clone()) {
                        say(&refusal(&event));
                    }
                }
            }
        }
    }
}

async fn refusals(server: &Server) -> Vec<TraceEvent> {
    let found = server
        .tracer()
        .find(Query::default())
        .await
        .unwrap_or_default();
    found
        .into_iter()
        .filter(|event| matches!(event.event, Event::Refused { .. }))
        .collect()
}

fn refusal(event: &TraceEvent) -> String {
    let Event::Refused {
        listener,
        peer,
        sender,
        recipients,
        reply,
        reason,
        ..
    } = &event.event
    else {
        return String::new();
    };
    let sender = sender.as_deref().unwrap_or("-");
    format!(
        "Refused on {listener} from {peer}: <{sender}> to <{}>\n  reason   {reason}\n  answer   {reply}",
        recipients.join(">, <")
    )
}

/// A certificate for Exchange in the lab: the configured name, or the one that Exchange really shows.
fn exchange_leaf(name: &str) -> Leaf {
    Leaf::named(name)
}
