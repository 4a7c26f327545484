//! The Prometheus recorder and its text.

use std::sync::Arc;
use std::time::Duration;

use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{BuildError, PrometheusBuilder, PrometheusHandle};

use super::metric_definitions::{ALL, Kind};

/// Upper bounds of the histograms' buckets, in seconds: from a fast broker to a provider that was away for hours.
const SECONDS: [f64; 16] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 600.0, 7200.0];

/// Gives the text that Prometheus scrapes.
#[derive(Clone)]
pub struct MetricsPage(Arc<PrometheusHandle>);

impl MetricsPage {
    /// Installs the recorder for this process.
    ///
    /// # Errors
    /// When a recorder is installed already.
    pub fn install() -> Result<Self, BuildError> {
        let handle = PrometheusBuilder::new().set_buckets(&SECONDS)?.install_recorder()?;
        describe();
        Ok(Self(Arc::new(handle)))
    }

    /// The text exposition.
    pub fn render(&self) -> String {
        self.0.render()
    }

    /// Folds recorded samples into their buckets, so that memory stays bounded when nobody scrapes.
    pub async fn upkeep(self) {
        let mut interval = tokio::time::interval(Duration::from_secs(5));
        loop {
            interval.tick().await;
            self.0.run_upkeep();
        }
    }
}

fn describe() {
    for metric in ALL {
        match metric.kind {
            Kind::Counter => describe_counter!(metric.name, metric.unit, metric.help),
            Kind::Gauge => describe_gauge!(metric.name, metric.unit, metric.help),
            Kind::Histogram => describe_histogram!(metric.name, metric.unit, metric.help),
        }
    }
}

/// Exposes a series with these labels before its first event: a rate over a series that appears with a jump is wrong.
pub fn expose(name: &'static str, labels: &[(&'static str, String)]) {
    let labels: Vec<metrics::Label> = labels.iter().map(|(k, v)| metrics::Label::new(*k, v.clone())).collect();
    match ALL.iter().find(|d| d.name == name).map(|d| d.kind) {
        Some(Kind::Counter) => counter!(name, labels).increment(0),
        Some(Kind::Gauge) => gauge!(name, labels).increment(0.0),
        // Zero samples: the series exists and counts nothing.
        Some(Kind::Histogram) => histogram!(name, labels).record_many(0.0, 0),
        None => {}
    }
}
