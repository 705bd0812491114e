//! A service process of a scenario: what it is started with, and how it serves.

use crate::scenario::Scenario;
use axum::Router;
use axum::routing::get;
use clap::Args;

#[derive(Args, Clone)]
pub struct Role {
    pub scenario: Scenario,
    /// Which of the scenario's services.
    pub role: String,
    #[arg(long)]
    pub port: u16,
    /// The coordinator, for services that start transactions.
    #[arg(long, default_value = "")]
    pub coordinator: String,
    /// Where it keeps its data.
    #[arg(long, default_value = "")]
    pub store: String,
    /// A Redis beside it.
    #[arg(long, default_value = "")]
    pub cache: String,
    /// Dies by its own hand (as `kill -9`) the first time it comes to the place of this name; may be given several
    /// times. A file beside its log keeps it from dying there again after its restart.
    #[arg(long)]
    pub die_at: Vec<String>,
}

impl Role {
    /// Serves until it is killed.
    pub async fn serve(&self, router: Router) -> anyhow::Result<()> {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", self.port)).await?;
        axum::serve(listener, router.route("/ready", get(|| async {}))).await?;
        Ok(())
    }

    /// A place where the story may want it to die.
    pub fn may_die_at(&self, place: &str) {
        if !self.die_at.iter().any(|named| named == place) {
            return;
        }
        let mark = format!("died at {place}");
        if std::fs::File::options().write(true).create_new(true).open(mark).is_ok() {
            std::process::abort();
        }
    }
}
