//! One request over HTTP: what a browser would send to a service of a scenario.

use anyhow::Context;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const TIMEOUT: Duration = Duration::from_secs(10);
const ANSWER_BYTES_MAX: u64 = 1 << 20;

/// The status and the body of the answer.
pub async fn request(method: &str, url: &str, body: &str) -> anyhow::Result<(u16, String)> {
    let work = tokio::time::timeout(TIMEOUT, exchange(method, url, body));
    work.await.with_context(|| format!("{url} did not answer within {} s", TIMEOUT.as_secs()))?
}

async fn exchange(method: &str, url: &str, body: &str) -> anyhow::Result<(u16, String)> {
    let address = url.strip_prefix("http://").with_context(|| format!("{url} is no HTTP URL"))?;
    let (host, path) = address.split_once('/').unwrap_or((address, ""));
    let mut connection = tokio::net::TcpStream::connect(host).await.with_context(|| url.to_owned())?;
    // HTTP/1.0: the answer ends where the connection does.
    let head = format!("{method} /{path} HTTP/1.0\r\nHost: {host}\r\nContent-Type: application/json\r\n");
    connection.write_all(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes()).await?;
    let mut answer = String::new();
    connection.take(ANSWER_BYTES_MAX).read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").with_context(|| format!("{url} broke off"))?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok((status.with_context(|| format!("{url} answered no HTTP"))?, body.to_owned()))
}
