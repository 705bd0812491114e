//! The shop's side that a dtm coordinator calls: "you prepared this message and went silent; did you take the units?"
//!
//! The mark answers. If there is none, one is left that rules the taking out for ever, in the same step.

use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::Request;
use hyper::body::Incoming;
use tokio::net::TcpListener;
use tokio::sync::Mutex;

use super::{MARK_TTL_S, mark_key};
use crate::floor::{json_bytes, serve};
use crate::resp::{Place, Redis};

const CHECK_BACK: &str = "\
local mark = redis.call('GET', KEYS[1])
if mark and mark ~= 'rollback' then return 'TAKEN' end
redis.call('SET', KEYS[1], 'rollback', 'EX', ARGV[1])
return 'RULED_OUT'";

struct Service {
    stock: Place,
    /// Check-backs are rare; one connection will do.
    redis: Mutex<Option<Redis>>,
}

/// Serves on a free port until the process ends; says where.
pub async fn start(stock: Place) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let service: &'static Service = Box::leak(Box::new(Service { stock, redis: Mutex::default() }));
    tokio::spawn(serve(listener, move |request: Request<Incoming>| async move {
        let query = request.uri().query().unwrap_or_default().to_owned();
        // A body that breaks off ends the connection; there is nobody to tell.
        let _ = request.into_body().collect().await;
        let gid = query.split('&').find_map(|pair| pair.strip_prefix("gid=")).map(unescape);
        let Some(gid) = gid else { return json_bytes(400, Bytes::from_static(b"{\"message\":\"no gid\"}")) };
        match service.taken(&gid).await {
            Ok(true) => json_bytes(200, Bytes::from_static(b"{\"dtm_result\":\"SUCCESS\"}")),
            Ok(false) => json_bytes(409, Bytes::from_static(b"{\"dtm_result\":\"FAILURE\"}")),
            Err(error) => json_bytes(500, format!("{error:#}").into()),
        }
    }));
    Ok(address)
}

impl Service {
    async fn taken(&self, gid: &str) -> anyhow::Result<bool> {
        let mut redis = self.redis.lock().await;
        let mut open = match redis.take() {
            Some(open) => open,
            None => Redis::at(&self.stock).await?,
        };
        let said = open.call(&["EVAL", CHECK_BACK, "1", &mark_key(gid), &MARK_TTL_S.to_string()]).await?;
        *redis = Some(open);
        Ok(said.as_deref() == Some("TAKEN"))
    }
}

fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = tail.get(..2).and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        match (first, hex) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            _ => {
                bytes.push(if *first == b'+' { b' ' } else { *first });
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gid_is_read_from_a_query() {
        assert_eq!(unescape("%7Bs%7D-k1"), "{s}-k1");
        assert_eq!(unescape("a%2"), "a%2");
    }
}
