//! Every Prometheus family in one struct; rooms are handed clones and use the handles they need.
//!
//! Label sets are bounded: names from the configuration and fixed words, never an address or a free domain.

use prometheus::{
    Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec,
    IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

/// Handles of all families; each is a cheap reference to the same value.
#[derive(Clone, Debug)]
#[expect(
    missing_docs,
    reason = "each field is described by its help text below, which users read at /metrics"
)]
pub struct Metrics {
    registry: Registry,
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
    pub endpoints_age: Gauge,
    pub endpoints_rejected: IntCounter,
    pub store_sync_duration: Histogram,
    pub store_failures: IntCounterVec,
    pub store_bytes: IntGauge,
    pub trace_lost: IntCounter,
    pub reloads: IntCounterVec,
    pub build_info: IntGaugeVec,
}

impl Metrics {
    /// All families, in a registry of their own.
    ///
    /// # Errors
    /// Two families share a name, which a test rules out.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new_custom(Some("gatepost".to_owned()), None)?;
        let families = Families(&registry);
        let fast = vec![
            0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0,
        ];
        let slow = vec![
            0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0, 86400.0,
        ];
        let metrics = Self {
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
            endpoints_age: families.register(Gauge::new("endpoints_age_seconds", "Age of the Microsoft 365 endpoint data in use")?)?,
            endpoints_rejected: families.register(IntCounter::new("endpoints_rejected_total", "Endpoint data that was implausible and not taken")?)?,
            store_sync_duration: families.register(Histogram::with_opts(HistogramOpts::new("store_sync_duration_seconds", "Duration of fdatasync of the journal").buckets(fast))?)?,
            store_failures: families.counters("store_failures_total", "Failures of the store", &["operation"])?,
            store_bytes: families.register(IntGauge::new("store_bytes", "Bytes that journal segments and bodies take on disk")?)?,
            trace_lost: families.register(IntCounter::new("trace_lost_total", "Trace events that could not be written")?)?,
            reloads: families.counters("reloads_total", "Reloads of the configuration", &["result"])?,
            build_info: families.gauges("build_info", "1, labelled with the version", &["version"])?,
            registry: registry.clone(),
        };
        metrics
            .build_info
            .with_label_values(&[env!("CARGO_PKG_VERSION")])
            .set(1);
        Ok(metrics)
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

struct Families<'a>(&'a Registry);

impl Families<'_> {
    fn register<C: prometheus::core::Collector + Clone + 'static>(
        &self,
        family: C,
    ) -> Result<C, prometheus::Error> {
        self.0.register(Box::new(family.clone()))?;
        Ok(family)
    }

    fn counters(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntCounterVec, prometheus::Error> {
        self.register(IntCounterVec::new(Opts::new(name, help), labels)?)
    }

    fn gauges(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntGaugeVec, prometheus::Error> {
        self.register(IntGaugeVec::new(Opts::new(name, help), labels)?)
    }

    fn float_gauges(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<GaugeVec, prometheus::Error> {
        self.register(GaugeVec::new(Opts::new(name, help), labels)?)
    }

    fn histograms(
        &self,
        name: &str,
        help: &str,
        buckets: Vec<f64>,
        labels: &[&str],
    ) -> Result<HistogramVec, prometheus::Error> {
        self.register(HistogramVec::new(
            HistogramOpts::new(name, help).buckets(buckets),
            labels,
        )?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_family_has_a_name_of_its_own() {
        let metrics = Metrics::new().unwrap();
        metrics
            .connections
            .with_label_values(&["exchange", "accepted"])
            .inc();
        let text = String::from_utf8(metrics.text().unwrap()).unwrap();
        assert!(
            text.contains(
                "gatepost_connections_total{listener=\"exchange\",result=\"accepted\"} 1"
            ),
            "{text}"
        );
        assert!(text.contains("gatepost_build_info{"));
    }
}
