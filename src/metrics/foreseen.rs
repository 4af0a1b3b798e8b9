//! Which series exist before anything has happened?
//!
//! A counter that appears with its first event has no rate: an alert on its increase misses just that event. So the series
//! that a configuration can foresee, and alerts look at, stand at 0 from the start.

use super::Metrics;

/// Names out of the configuration.
#[derive(Clone, Debug, Default)]
pub struct Foreseen {
    /// All listeners.
    pub listeners: Vec<String>,
    /// Those for mail from Exchange.
    pub connectors: Vec<String>,
    /// Tenants.
    pub tenants: Vec<String>,
    /// The ways of each tenant's mail: `via`, tenant.
    pub ways: Vec<(String, String)>,
    /// Streams of each tenant: tenant, stream; without one it is empty.
    pub streams: Vec<(String, String)>,
    /// Certificates that are ordered by ACME.
    pub renewed: Vec<String>,
}

impl Metrics {
    /// Sets up what is foreseen; what counts already stays as it is.
    pub fn foresee(&self, foreseen: &Foreseen) {
        for listener in &foreseen.listeners {
            for result in ["accepted", "turned_away", "no_proxy_header"] {
                let _zero = self
                    .connections
                    .with_label_values(&[listener.as_str(), result]);
            }
            let _zero = self.connections_open.with_label_values(&[listener]);
            let _zero = self
                .tls_handshakes
                .with_label_values(&[listener.as_str(), "full"]);
            let _zero = self
                .messages_refused
                .with_label_values(&[listener.as_str(), "store"]);
            for tenant in &foreseen.tenants {
                let _zero = self
                    .messages_received
                    .with_label_values(&[listener, tenant]);
                let _zero = self.fields_removed.with_label_values(&[listener, tenant]);
            }
            for result in ["accepted", "rejected"] {
                if !foreseen.connectors.contains(listener) {
                    let _zero = self
                        .authentications
                        .with_label_values(&[listener.as_str(), result]);
                }
            }
        }
        for listener in &foreseen.connectors {
            for holds in ["network", "certificate"] {
                let _zero = self
                    .half_proven
                    .with_label_values(&[listener.as_str(), holds]);
            }
            let held = [listener.as_str(), "connector_held"];
            let _zero = self.messages_refused.with_label_values(&held);
        }
        for tenant in &foreseen.tenants {
            let proven = [tenant.as_str(), "proven", ""];
            let _zero = self.trust_verdicts.with_label_values(&proven);
            for class in ["failure", "delay", "relayed", "untold"] {
                let _zero = self.bounces.with_label_values(&[tenant.as_str(), class]);
            }
        }
        for (via, tenant) in &foreseen.ways {
            for state in ["active", "ready", "deferred", "held"] {
                let way = [via.as_str(), tenant, state];
                let _zero = self.queue_messages.with_label_values(&way);
            }
            let _zero = self.queue_oldest.with_label_values(&[via, tenant]);
            let _zero = self.queue_parked.with_label_values(&[via, tenant]);
            let _zero = self.delivery_duration.with_label_values(&[via, tenant]);
            for (_, stream) in foreseen.streams.iter().filter(|(own, _)| own == tenant) {
                for outcome in ["delivered", "deferred", "held", "failed"] {
                    let result = [via.as_str(), tenant, stream, outcome];
                    let _zero = self.deliveries.with_label_values(&result);
                }
            }
        }
        for name in &foreseen.renewed {
            for result in ["ok", "failed", "refused"] {
                let _zero = self.acme_orders.with_label_values(&[name.as_str(), result]);
            }
        }
        for operation in ["accept", "full", "read", "reclaim", "replay", "write"] {
            let _zero = self.store_failures.with_label_values(&[operation]);
        }
        for result in ["ok", "failed"] {
            let _zero = self.reloads.with_label_values(&[result]);
        }
    }
}
