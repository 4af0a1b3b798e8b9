//! Every Prometheus family in one struct; rooms are handed clones and use the handles they need.
//!
//! Label sets are bounded: names from the configuration and fixed words, never an address or a free domain.

mod foreseen;

pub use foreseen::Foreseen;

use prometheus::core::{Collector, Desc};
use prometheus::{
    Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec,
    IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};
use std::sync::Arc;

/// What every name begins with.
const PREFIX: &str = "gatepost";

/// Handles of all families; each is a cheap reference to the same value.
#[derive(Clone, Debug)]
#[expect(
    missing_docs,
    reason = "each field is described by its help text below, which users read at /metrics"
)]
pub struct Metrics {
    registry: Registry,
    families: Arc<[Family]>,
    pub connections: IntCounterVec,
    pub connections_open: IntGaugeVec,
    pub tls_handshakes: IntCounterVec,
    pub trust_verdicts: IntCounterVec,
    pub half_proven: IntCounterVec,
    pub messages_received: IntCounterVec,
    pub messages_refused: IntCounterVec,
    pub fields_removed: IntCounterVec,
    pub authentications: IntCounterVec,
    pub deliveries: IntCounterVec,
    pub delivery_duration: HistogramVec,
    pub queue_messages: IntGaugeVec,
    pub queue_oldest: GaugeVec,
    pub queue_parked: IntGaugeVec,
    pub bounces: IntCounterVec,
    pub certificate_expiry: GaugeVec,
    pub acme_orders: IntCounterVec,
    pub endpoints_age: Gauge,
    pub endpoints_rejected: IntCounter,
    pub store_sync_duration: Histogram,
    pub store_failures: IntCounterVec,
    pub store_bytes: IntGauge,
    pub trace_lost: IntCounter,
    pub log_lost: IntCounter,
    pub reloads: IntCounterVec,
    pub build_info: IntGaugeVec,
}

/// What a family is called and what its series are told apart by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Family {
    /// With the prefix.
    pub name: String,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// In their order.
    pub labels: Vec<String>,
}

impl Metrics {
    /// All families, in a registry of their own.
    ///
    /// # Errors
    /// Two families share a name, which a test rules out.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new_custom(Some(PREFIX.to_owned()), None)?;
        let mut families = Families {
            registry: &registry,
            list: Vec::new(),
        };
        let fast = vec![
            0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0,
        ];
        let slow = vec![
            0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0, 86400.0,
        ];
        let mut metrics = Self {
            families: Arc::default(),
            connections: families.counters("connections_total", "Connections accepted or turned away", &["listener", "result"])?,
            connections_open: families.gauges("connections_open", "Connections open now", &["listener"])?,
            tls_handshakes: families.counters("tls_handshakes_total", "TLS handshakes on listeners: full, resumed, or failed_ and why (version, suite, alert, certificate, not_tls, protocol, closed, timeout)", &["listener", "result"])?,
            trust_verdicts: families.counters("trust_verdicts_total", "Verdicts of the trust gates", &["tenant", "verdict", "reason"])?,
            half_proven: families.counters("half_proven_total", "MAIL from peers of which only one of network and certificate holds: plausibly Microsoft after a change", &["listener", "holds"])?,
            messages_received: families.counters("messages_received_total", "Messages answered 250", &["listener", "tenant"])?,
            messages_refused: families.counters("messages_refused_total", "Transactions refused", &["listener", "reason"])?,
            fields_removed: families.counters("fields_removed_total", "Messages from which protected header fields were removed because their source may not set them", &["listener", "tenant"])?,
            authentications: families.counters("authentications_total", "SMTP AUTH attempts", &["listener", "result"])?,
            deliveries: families.counters("deliveries_total", "Results of delivery attempts, one per recipient", &["via", "tenant", "stream", "outcome"])?,
            delivery_duration: families.histograms("delivery_duration_seconds", "From 250 given to 250 got", slow, &["via", "tenant"])?,
            queue_messages: families.gauges("queue_messages", "Messages not yet settled, one per message and via", &["via", "tenant", "state"])?,
            queue_oldest: families.float_gauges("queue_oldest_seconds", "Age of the oldest message not yet settled", &["via", "tenant"])?,
            queue_parked: families.gauges("queue_parked", "1 while the tenant's queue is parked because of a connector fault", &["via", "tenant"])?,
            bounces: families.counters("bounces_total", "Recipients that a report named, by what it said (failure, delay, relayed), or given up and told to nobody (untold)", &["tenant", "class"])?,
            certificate_expiry: families.float_gauges("certificate_expiry_seconds", "Seconds until the certificate expires", &["name"])?,
            acme_orders: families.counters("acme_orders_total", "Certificates ordered from the authority, by what came of it (ok, failed, refused)", &["name", "result"])?,
            endpoints_age: families.register("gauge", Gauge::new("endpoints_age_seconds", "Age of the Microsoft 365 endpoint data in use")?)?,
            endpoints_rejected: families.register("counter", IntCounter::new("endpoints_rejected_total", "Endpoint data that was implausible and not taken")?)?,
            store_sync_duration: families.register("histogram", Histogram::with_opts(HistogramOpts::new("store_sync_duration_seconds", "Duration of fdatasync of the journal").buckets(fast))?)?,
            store_failures: families.counters("store_failures_total", "Failures of the store", &["operation"])?,
            store_bytes: families.register("gauge", IntGauge::new("store_bytes", "Bytes that journal segments and bodies take on disk")?)?,
            trace_lost: families.register("counter", IntCounter::new("trace_lost_total", "Trace events that could not be written")?)?,
            log_lost: families.register("counter", IntCounter::new("log_lost_total", "Log lines that were lost because nobody read them")?)?,
            reloads: families.counters("reloads_total", "Reloads of the configuration", &["result"])?,
            build_info: families.gauges("build_info", "1, labelled with the version", &["version"])?,
            registry: registry.clone(),
        };
        metrics.families = families.list.into();
        metrics
            .build_info
            .with_label_values(&[env!("CARGO_PKG_VERSION")])
            .set(1);
        Ok(metrics)
    }

    /// Every family there is, also those that have no series yet.
    #[must_use]
    pub fn families(&self) -> &[Family] {
        &self.families
    }

    /// The exposition in Prometheus' text format.
    ///
    /// # Errors
    /// A family could not be encoded.
    pub fn text(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}

struct Families<'a> {
    registry: &'a Registry,
    list: Vec<Family>,
}

impl Families<'_> {
    fn register<C: Collector + Clone + 'static>(
        &mut self,
        kind: &'static str,
        family: C,
    ) -> Result<C, prometheus::Error> {
        self.registry.register(Box::new(family.clone()))?;
        let told = |desc: &Desc| Family {
            name: format!("{PREFIX}_{}", desc.fq_name),
            kind,
            labels: desc.variable_labels.clone(),
        };
        self.list.extend(family.desc().into_iter().map(told));
        Ok(family)
    }

    fn counters(
        &mut self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntCounterVec, prometheus::Error> {
        self.register(
            "counter",
            IntCounterVec::new(Opts::new(name, help), labels)?,
        )
    }

    fn gauges(
        &mut self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntGaugeVec, prometheus::Error> {
        self.register("gauge", IntGaugeVec::new(Opts::new(name, help), labels)?)
    }

    fn float_gauges(
        &mut self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<GaugeVec, prometheus::Error> {
        self.register("gauge", GaugeVec::new(Opts::new(name, help), labels)?)
    }

    fn histograms(
        &mut self,
        name: &str,
        help: &str,
        buckets: Vec<f64>,
        labels: &[&str],
    ) -> Result<HistogramVec, prometheus::Error> {
        self.register(
            "histogram",
            HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets), labels)?,
        )
    }
}

#[cfg(test)]
mod tests;
