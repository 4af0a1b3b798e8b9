//! Which certificates are due, and what becomes of them? The part of the running server that orders them.

use crate::acme::{Fault, schedule};
use crate::app::Server;
use crate::cli::certificate::obtain::{Obtained, obtain};
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// How often it is looked.
const LOOK: Duration = Duration::from_secs(60);
/// After a success the next order is not made earlier, whatever becomes of the reload.
const QUIET: u64 = 3600;

/// What was tried for a certificate.
#[derive(Clone, Copy, Debug, Default)]
struct Tries {
    failures: u32,
    not_before: u64,
}

/// Orders what is due as long as it is polled; says so where a new certificate is in its place.
pub(super) async fn keep(server: &Server, config: &Path, renewed: mpsc::Sender<()>) {
    let mut octets = [0; 8];
    if let Err(error) = getrandom::fill(&mut octets) {
        tracing::warn!(%error, "no random numbers: renewals come to the second");
    }
    let random = u64::from_be_bytes(octets);
    let mut tries: HashMap<Arc<str>, Tries> = HashMap::new();
    loop {
        let settings = server.settings();
        tries.retain(|name, _| settings.renewed.contains(name));
        for name in &settings.renewed {
            let orders = &server.metrics().acme_orders;
            let count = |result: &str| orders.with_label_values(&[&**name, result]);
            let mut identities = settings.identities.iter();
            let Some(identity) = identities.find(|own| own.name == *name) else {
                continue;
            };
            let before = tries.get(name).copied().unwrap_or_default();
            let due = schedule::due(identity.not_before, identity.not_after, random);
            let now = super::super::unix_millis() / 1000;
            if now < due.max(before.not_before) {
                continue;
            }
            tracing::info!(certificate = %name, "due: ordered from the authority");
            let failures = before.failures.saturating_add(1);
            let fault = match obtain(config, name, Some(&settings)).await {
                Ok(Obtained::InPlace(path)) => {
                    count("ok").inc();
                    tracing::info!(certificate = %name, file = %path.display(), "renewed");
                    let quiet = Tries {
                        failures: 0,
                        not_before: now + QUIET,
                    };
                    tries.insert(Arc::clone(name), quiet);
                    if renewed.send(()).await.is_err() {
                        tracing::debug!("the server ends");
                    }
                    continue;
                }
                Ok(Obtained::Refused(path, why)) => {
                    count("refused").inc();
                    Fault::Refused(format!("{}: {}", path.display(), why.join("; ")))
                }
                Err(fault) => {
                    count("failed").inc();
                    fault
                }
            };
            let wait = schedule::back_off(failures, &fault, random);
            tracing::error!(certificate = %name, problem = %fault, again_in_seconds = wait, "not renewed, the old certificate stays");
            let waiting = Tries {
                failures,
                not_before: now + wait,
            };
            tries.insert(Arc::clone(name), waiting);
        }
        tokio::time::sleep(LOOK).await;
    }
}
