//! `rushline-loadtest offer`: what the generator itself can do, and how exact it is.
//!
//! Sends the bench's order to a bare server (its own, unless one is named) at a rate, or as fast as answers come, and says
//! what that cost. A load harness that is the bottleneck measures itself.

use std::path::Path;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use crate::bench::Template;
use crate::engine::open_loop::{Measured, OpenLoop, open_loop};
use crate::processes::{Process, sibling};
use crate::run::{address_of, fault};

#[derive(Debug, Args)]
pub struct Settings {
    /// Whom to ask, as `http://HOST:PORT`; a bare server is started if nobody is named.
    url: Option<String>,
    /// Requests a second; as fast as answers come if absent.
    #[arg(long)]
    rate: Option<f64>,
    /// Independent arrivals instead of even ones.
    #[arg(long, requires = "rate")]
    poisson: bool,
    /// For how long.
    #[arg(long = "for", default_value = "5s", value_parser = fault::time)]
    lasts: Duration,
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    connections: u32,
    /// Threads of the generator.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=64))]
    threads: u8,
    /// Speak HTTP/2, with this many requests at once on each connection.
    #[arg(long, value_name = "STREAMS", num_args = 0..=1, default_missing_value = "100")]
    http2: Option<usize>,
    /// Name of the sale in the order.
    #[arg(long, default_value = "floor")]
    sale: String,
}

/// Prints the figures as JSON.
pub async fn run(settings: Settings) -> anyhow::Result<()> {
    let (floor, address) = match &settings.url {
        Some(url) => (None, address_of(url)?),
        None => {
            let log = std::env::temp_dir().join(format!("rushline-loadtest-floor-{}.log", std::process::id()));
            let (process, address) =
                Process::start_listening("floor server", &sibling("rushline-loadtest")?, &["floor-server"], &log)
                    .await?;
            // Whoever has the file open goes on writing; nobody looks for it.
            std::fs::remove_file(&log)?;
            (Some(process), address)
        }
    };
    let before = processor_time();
    let load = OpenLoop {
        address,
        template: Template::order(&settings.sale),
        rate: settings.rate,
        lasts: settings.lasts,
        poisson: settings.poisson,
        connections: settings.connections as usize,
        streams: settings.http2.unwrap_or(0),
        threads: settings.threads.into(),
        first: 0,
    };
    let measured = open_loop(load).await?;
    let took = processor_time().zip(before).map(|(after, before)| after.saturating_sub(before));
    if let Some(process) = floor {
        process.stop().await?;
    }
    println!("{:#}", to_json(&measured, took));
    Ok(())
}

fn to_json(measured: &Measured, took: Option<Duration>) -> serde_json::Value {
    let ms = |histogram: &hdrhistogram::Histogram<u64>| {
        let at = |q| histogram.value_at_quantile(q) as f64 / 1000.0;
        json!({"p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "p99.9": at(0.999), "max": histogram.max() as f64 / 1000.0})
    };
    let micros = took.map(|took| took.as_secs_f64() * 1e6 / measured.effort.requests as f64);
    json!({
        "requests": measured.effort.requests,
        "requests_per_s": measured.per_second(),
        "refused": measured.counts.refused,
        "unknown": measured.counts.unknown,
        "latency_ms": ms(&measured.latency),
        "schedule_error_ms": ms(&measured.effort.schedule_error),
        "waited_for_a_connection": measured.effort.waited,
        "processor_micros_per_request": micros,
        "requests_per_s_of_one_core": micros.map(|micros| 1e6 / micros),
    })
}

/// Processor time of this process so far, where the system tells.
fn processor_time() -> Option<Duration> {
    /// Linux counts in hundredths of a second towards programs, whatever it counts in itself.
    const TICKS_PER_S: u64 = 100;
    let stat = std::fs::read_to_string(Path::new("/proc/self/stat")).ok()?;
    // The name in parentheses may hold spaces; user and system time are the 12th and 13th after it.
    let mut numbers = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let ticks: u64 = numbers.next()?.parse::<u64>().ok()? + numbers.next()?.parse::<u64>().ok()?;
    Some(Duration::from_millis(ticks * 1000 / TICKS_PER_S))
}
