//! Stories of the demo order service, against a real SQLite file and a real socket.

use super::*;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

struct TestShop {
    address: SocketAddr,
    settings: Settings,
    _directory: tempfile::TempDir,
}

async fn shop(refuse_percent: u8, lose_replies_percent: u8) -> TestShop {
    let directory = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let db = directory.path().join("orders.db");
    let settings = Settings { listen: address, db, refuse_percent, delay_ms: 0, lose_replies_percent };
    let book = OrderBook::open(&settings.db).await.unwrap();
    tokio::spawn(serve(listener, book, settings.clone()));
    TestShop { address, settings, _directory: directory }
}

impl TestShop {
    /// One call on its own connection; `None` if the connection was cut without an answer.
    async fn call(&self, method: &str, target: &str, body: &str) -> Option<(u16, Value)> {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!(
            "{method} {target} HTTP/1.1\r\nhost: shop\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        // A cut may arrive as a reset; either way there is no answer.
        let _ = stream.read_to_string(&mut answer).await;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head[9..12].parse().unwrap(), serde_json::from_str(body).unwrap()))
    }

    async fn order(&self, gid: &str) -> Option<(u16, Value)> {
        self.call("POST", &format!("/orders?gid={gid}&op=action"), &order(gid)).await
    }

    async fn count(&self) -> Value {
        self.call("GET", "/count?sale=s", "").await.unwrap().1
    }
}

fn order(gid: &str) -> String {
    json!({"gid": gid, "sale": "s", "buyer": "Zoë \"Z\"", "payload": {"note": "ün\n"}, "admitted_at": 1,
           "items": [{"sku": "a", "quantity": 2}, {"sku": "b", "quantity": 1}]})
    .to_string()
}

#[tokio::test]
async fn a_repeat_of_the_gid_makes_no_second_row() {
    let shop = shop(0, 0).await;
    assert_eq!(shop.order("s.0.1-0.0").await.unwrap().0, 201);
    assert_eq!(shop.order("s.0.1-0.0").await.unwrap().0, 200);
    assert_eq!(shop.count().await, json!({"orders": 1, "units": {"a": 2, "b": 1}}));
}

#[tokio::test]
async fn the_same_gid_at_once_from_many_callers_is_one_new_row() {
    let shop = shop(0, 0).await;
    let calls = (0..32).map(|i| {
        let gid = format!("s.0.1-0.{}", i % 4);
        let shop = &shop;
        async move { shop.order(&gid).await.unwrap().0 }
    });
    let statuses = futures_util::future::join_all(calls).await;
    assert_eq!(statuses.iter().filter(|&&status| status == 201).count(), 4);
    assert_eq!(statuses.iter().filter(|&&status| status == 200).count(), 28);
    assert_eq!(shop.count().await["orders"], 4);
}

#[tokio::test]
async fn a_lost_reply_has_committed_and_the_repeat_is_answered() {
    let shop = shop(0, 100).await;
    assert!(shop.order("s.0.1-0.0").await.is_none(), "the reply was to be lost");
    assert_eq!(shop.count().await["orders"], 1);
    assert_eq!(shop.order("s.0.1-0.0").await.unwrap().0, 200);
}

#[tokio::test]
async fn a_refusal_stays_a_refusal() {
    let shop = shop(100, 100).await;
    for _ in 0..2 {
        let (status, body) = shop.order("s.0.1-0.0").await.unwrap();
        assert_eq!((status, &body["dtm_result"], &body["message"]), (409, &json!("FAILURE"), &json!("card declined")));
    }
    assert_eq!(shop.count().await["orders"], 0);
}

#[tokio::test]
async fn the_share_of_refusals_is_about_what_was_asked() {
    let refused = (0..10_000)
        .filter(|i| hash_percent(&format!("s.0.1763800000000-{}.{}", i / 32, i % 32), SALT_REFUSE) < 5)
        .count();
    assert!((400..600).contains(&refused), "{refused} of 10000 at 5 percent");
}

#[tokio::test]
async fn a_bulk_call_answers_for_each_order() {
    let shop = shop(50, 0).await;
    let gids: Vec<String> = (0..20).map(|i| format!("s.0.1-0.{i}")).collect();
    let body = format!("{{\"orders\":[{}]}}", gids.iter().map(|gid| order(gid)).collect::<Vec<_>>().join(","));
    let (status, first) = shop.call("POST", "/orders", &body).await.unwrap();
    assert_eq!(status, 200);
    let made = first["results"].as_array().unwrap().iter().filter(|result| result["result"] == "SUCCESS").count();
    assert!(made > 0 && made < 20, "{made} of 20 made");
    for (gid, result) in gids.iter().zip(first["results"].as_array().unwrap()) {
        assert_eq!(result["gid"], *gid);
        assert_eq!(result.get("message").is_some(), result["result"] == "FAILURE");
    }
    assert_eq!(shop.call("POST", "/orders", &body).await.unwrap().1, first);
    assert_eq!(shop.count().await["orders"], made);
}

#[tokio::test]
async fn gids_come_in_byte_order_page_by_page_and_survive_a_restart() {
    let shop = shop(0, 0).await;
    for gid in ["s.0.1-0.9", "s.0.1-0.10", "s.0.1-0.1"] {
        shop.order(gid).await.unwrap();
    }
    let first = shop.call("GET", "/gids?sale=s&limit=2", "").await.unwrap().1;
    assert_eq!(first, json!({"gids": ["s.0.1-0.1", "s.0.1-0.10"]}));
    let book = OrderBook::open(&shop.settings.db).await.unwrap();
    assert_eq!(book.gids("s", "s.0.1-0.10", 2).await.unwrap(), ["s.0.1-0.9"]);
    assert!(book.gids("other", "", 2).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_body_that_is_no_order_is_named_and_makes_nothing() {
    let shop = shop(0, 0).await;
    for body in ["", "{", "[]", "{\"gid\":\"g\"}", "{\"orders\":[{\"gid\":1}]}"] {
        assert_eq!(shop.call("POST", "/orders", body).await.unwrap().0, 400, "{body}");
    }
    assert_eq!(shop.count().await["orders"], 0);
}
