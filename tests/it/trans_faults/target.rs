//! Where clients send their calls: whichever node is there now. A call is repeated until it is answered for good.

use crate::support::app::{Http, Reply};
use serde_json::Value;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Longer than any node is away in these stories.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(40);
const AGAIN_AFTER: Duration = Duration::from_millis(20);

#[derive(Clone, Default)]
pub struct Target {
    nodes: Arc<Mutex<Vec<Http>>>,
    turn: Arc<AtomicUsize>,
}

impl Target {
    /// Those that clients know from now on.
    pub fn set(&self, nodes: &[Http]) {
        *self.nodes.lock().unwrap() = nodes.to_vec();
    }

    fn next(&self) -> Option<Http> {
        let nodes = self.nodes.lock().unwrap();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        (!nodes.is_empty()).then(|| nodes[turn % nodes.len()].clone())
    }

    /// One try, at any node; the error is a broken connection's.
    async fn ask_once(&self, method: http::Method, path: &str, body: Option<&Value>) -> Result<Reply, String> {
        let node = self.next().ok_or("there is no node")?;
        node.ask(method, path, &[], body).await
    }

    /// A call of dtm's interface, repeated while nobody knows what became of it. The answer is 200 or a refusal.
    pub async fn post(&self, route: &str, body: &Value) -> Reply {
        let path = format!("/api/dtmsvr/{route}");
        let deadline = Instant::now() + ANSWER_WAIT_MAX;
        loop {
            let heard = self.ask_once(http::Method::POST, &path, Some(body)).await;
            match heard {
                Ok(reply) if [200, 400, 409, 425].contains(&reply.status) => return reply,
                Ok(reply) => assert!(Instant::now() < deadline, "{route} {body}: {} {}", reply.status, reply.json),
                Err(error) => assert!(Instant::now() < deadline, "{route} {body}: {error}"),
            }
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }

    /// The status that the transaction has; empty when it is unknown.
    pub async fn status(&self, gid: &str) -> String {
        let deadline = Instant::now() + ANSWER_WAIT_MAX;
        loop {
            match self.ask_once(http::Method::GET, &format!("/api/dtmsvr/query?gid={gid}"), None).await {
                Ok(reply) if reply.status == 200 => {
                    return reply.json["transaction"]["status"].as_str().unwrap_or_default().to_owned();
                }
                other => assert!(Instant::now() < deadline, "{gid}: {other:?}"),
            }
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }

    /// Waits for its end, and says which it was.
    pub async fn end_of(&self, gid: &str, within: Duration) -> String {
        let deadline = Instant::now() + within;
        loop {
            let status = self.status(gid).await;
            if status == "succeed" || status == "failed" {
                return status;
            }
            assert!(Instant::now() < deadline, "{gid} is `{status}` after {within:?}: forgotten");
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }
}
