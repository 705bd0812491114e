//! What a server says of itself: logs to standard error, metrics to memory, traces to a collector ([`trace`]).

pub mod export;
mod otlp;
pub mod trace;

use crate::config::{LogFormat, LogLevel};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// Installs the log for this process. `RUST_LOG`-style refinement is left out on purpose: one setting, one meaning.
/// What operators do is logged at every level.
pub fn install_log(level: LogLevel, format: LogFormat) {
    let filter = EnvFilter::new(format!("warn,rushline={},rushline::operator=info", level.as_str()));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    let pretty = match format {
        LogFormat::Pretty => true,
        LogFormat::Json => false,
        LogFormat::Auto => std::io::stderr().is_terminal(),
    };
    // A second server in one process (a test) keeps the first one's log.
    let _ = if pretty { builder.try_init() } else { builder.json().try_init() };
}

/// Has panics counted and told of in the log. A panic is a bug: it ends what it happened in, and nothing else.
pub fn install_panics() {
    std::panic::set_hook(Box::new(|panic| {
        metrics::counter!("rushline_panics_total").increment(1);
        let at = panic.location().map(ToString::to_string).unwrap_or_default();
        let what = panic.payload_as_str().unwrap_or_default();
        tracing::error!(at, what, "a bug: what was under way here is given up, and taken up again where that is safe");
    }));
}

/// Installs the metrics of this process and answers their handle.
pub fn install_metrics() -> anyhow::Result<PrometheusHandle> {
    const SECONDS: [f64; 14] =
        [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];
    const SIZES: [f64; 10] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 1024.0];
    Ok(PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS)?
        .set_buckets_for_metric(Matcher::Suffix("_size".into()), &SIZES)?
        .install_recorder()?)
}
