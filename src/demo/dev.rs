//! `rushline dev`: a demo sale and an order service for it, each in its own process, for a first look.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use http::Method;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::access::Guard;
use crate::cli::client::Server;
use crate::config::Config;

/// The demo sale; an earlier `dev` in the same directory may have opened it already.
const SALE: &str = "demo";
const UNITS: u64 = 1000;

/// The order service of the demo, running.
pub struct Shop {
    service: Child,
}

/// Starts the order service and opens the sale `demo`: 1,000 of sku-1, two a buyer.
pub async fn open_shop(config: &Config, server: SocketAddr, guard: &Guard) -> anyhow::Result<Shop> {
    let program = std::env::current_exe().context("this program's own file is not to be found")?;
    let mut service = Command::new(program)
        .arg("order-service")
        .arg("--db")
        .arg(config.data_dir.join("demo-orders.db"))
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .process_group(0) // Ctrl-C is for us; the shop closes when the last order is delivered
        .spawn()
        .context("the demo's order service did not start")?;
    let stdout = service.stdout.take().context("the order service has no output")?;
    let mut first_line = String::new();
    let mut stdout = BufReader::new(stdout);
    tokio::time::timeout(Duration::from_secs(10), stdout.read_line(&mut first_line))
        .await
        .context("the demo's order service is not ready in time")??;
    let address =
        first_line.trim().strip_prefix("listening on ").context("the order service said something else first")?;
    let endpoint = serde_json::json!({
        "url": format!("http://{address}/orders"),
        "count_url": format!("http://{address}/count"),
        "list_url": format!("http://{address}/gids"),
    });
    let sale = serde_json::json!({
        "sale": SALE,
        "items": [{ "sku": "sku-1", "units": UNITS }],
        "limit_per_buyer": 2,
        "order_endpoint": endpoint,
    });
    let token = guard.is_on().then(|| guard.lend("dev")).transpose().map_err(anyhow::Error::msg)?;
    let client = match &config.tls.cert {
        None => Server::new(&format!("http://{server}"), token.as_deref(), None)?,
        // The server's own certificate is the only one that must do here.
        Some(own) => Server::new(&format!("https://{server}"), token.as_deref(), Some(own))?,
    };
    // The service has a new port each time: an earlier demo sale follows it.
    if client.send(Method::POST, "/v1/sales", Some(&sale), Duration::ZERO).await.is_err() {
        let change = serde_json::json!({ "order_endpoint": endpoint });
        client.send(Method::PATCH, &format!("/v1/sales/{SALE}"), Some(&change), Duration::ZERO).await?;
    }
    println!();
    println!("Development mode, not for production. The sale `{SALE}` is open: {UNITS} of sku-1, two a buyer. Try:");
    println!("  curl -X POST http://{server}/v1/sales/{SALE}/orders -H 'Idempotency-Key: first' \\");
    println!("       -d '{{\"buyer\":\"u1\",\"items\":[{{\"sku\":\"sku-1\",\"quantity\":1}}]}}'");
    // Clients look at the default address unless they are told otherwise.
    let elsewhere =
        if server == Config::default().http.listen { String::new() } else { format!(" --server http://{server}") };
    println!("  rushline audit {SALE}{elsewhere}");
    Ok(Shop { service })
}

impl Shop {
    pub async fn close(mut self) {
        let _ = self.service.start_kill(); // its orders are on disk; there is nothing to finish
        let _ = self.service.wait().await;
    }
}
