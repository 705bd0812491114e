//! rushline's own HTTP interface, and anything that speaks it.

use std::borrow::Cow;
use std::fmt::Write;
use std::net::SocketAddr;
use std::time::Duration;

use serde::Deserialize;

use super::Reply;
use crate::bench::PAYLOAD;
use crate::engine::crowd::Verdict;
use crate::engine::line::Wire;
use crate::engine::queue::Step;
use crate::http::Answer;
use crate::ledger::{Basket, Kind, key_of};

pub struct Rushline {
    pub address: SocketAddr,
    sale: String,
    /// The part of an order's body after the buyer's name, by basket.
    rests: Vec<String>,
    /// By manner.
    waits_ms: Vec<u64>,
}

impl Rushline {
    pub fn new(address: SocketAddr, sale: &str, baskets: &[Basket], waits_ms: Vec<u64>) -> Self {
        let rest = |basket: &Basket| {
            let items = serde_json::to_string(&basket.items).expect("items are plain data");
            format!(r#"","items":{items},"payload":{PAYLOAD}}}"#)
        };
        Self { address, sale: sale.into(), rests: baskets.iter().map(rest).collect(), waits_ms }
    }

    pub fn write(&self, wire: &mut Wire, step: &Step) {
        let gid = step.gid.as_deref().unwrap_or_default();
        // Writing to a String cannot fail.
        let _ = match step.kind {
            Kind::Order => {
                let wait_ms = self.waits_ms[usize::from(step.manner)];
                let _ = write!(wire.target, "/v1/sales/{}/orders", self.sale);
                if wait_ms > 0 {
                    let _ = write!(wire.target, "?wait_ms={wait_ms}");
                }
                wire.body.extend_from_slice(br#"{"buyer":"buyer-"#);
                wire.body.extend_from_slice(Digits::of(step.buyer.into()).text());
                wire.body.extend_from_slice(self.rests[step.basket as usize].as_bytes());
                write!(wire.headers, "idempotency-key: k{}\r\n", key_of(step.buyer, step.nth))
            }
            Kind::Confirm => write!(wire.target, "/v1/orders/{gid}/confirm"),
            Kind::Cancel => write!(wire.target, "/v1/orders/{gid}/cancel"),
            Kind::Poll => {
                wire.method = "GET";
                write!(wire.target, "/v1/orders/{gid}")
            }
        };
    }
}

/// A number as text, without the machinery of `write!`.
struct Digits {
    bytes: [u8; 20],
    from: usize,
}

impl Digits {
    fn of(mut number: u64) -> Self {
        let (mut bytes, mut from) = ([b'0'; 20], 20);
        loop {
            from -= 1;
            bytes[from] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                return Self { bytes, from };
            }
        }
    }

    fn text(&self) -> &[u8] {
        &self.bytes[self.from..]
    }
}

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    gid: Option<Cow<'a, str>>,
    /// Of an order: `submitted`, `succeed` …; of a problem: the HTTP status once more.
    status: Option<serde_json::Value>,
    #[serde(borrow)]
    code: Option<Cow<'a, str>>,
}

pub fn read(answer: &Answer<'_>, kind: Kind, text: &mut String) -> Reply {
    text.clear();
    let reply = |verdict| Reply {
        verdict,
        status: answer.status,
        replayed: answer.replayed,
        retry_after: answer.retry_after_s.map(Duration::from_secs),
    };
    let Ok(body) = serde_json::from_slice::<Body>(answer.body) else {
        let _ = write!(text, "status {} without JSON", answer.status);
        return reply(Verdict::Unknown);
    };
    let status = body.status.as_ref().and_then(|status| status.as_str()).unwrap_or_default();
    match (answer.status, body.gid, body.code) {
        (200..300, Some(gid), _) => {
            if status == "failed" {
                text.push_str("order_refused");
                return reply(Verdict::Refused);
            }
            text.push_str(&gid);
            reply(match (kind, status) {
                (Kind::Confirm | Kind::Cancel, _) => Verdict::Done,
                (_, "succeed") => Verdict::Created,
                _ => Verdict::Admitted,
            })
        }
        (429 | 500.., _, code) | (408 | 425, _, code) => {
            text.push_str(code.as_deref().unwrap_or("server error"));
            reply(Verdict::Unknown)
        }
        (400..500, _, Some(code)) => {
            text.push_str(&code);
            reply(Verdict::Refused)
        }
        (status, ..) => {
            let _ = write!(text, "status {status} that says nothing");
            reply(Verdict::Unknown)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Item;

    fn step(kind: Kind) -> Step {
        Step {
            due: 0,
            kind,
            leads: true,
            manner: 0,
            buyer: 1204,
            nth: 2,
            basket: 0,
            attempt: 1,
            returns: 0,
            bought: 0,
            gid: Some("g-1".into()),
        }
    }

    #[test]
    fn an_order_names_buyer_key_and_items() {
        let basket = Basket { items: vec![Item { sku: "sku-1".into(), quantity: 2 }] };
        let target = Rushline::new(([127, 0, 0, 1], 1).into(), "s", &[basket], vec![250]);
        let mut wire = Wire::default();
        wire.clear();
        target.write(&mut wire, &step(Kind::Order));
        assert_eq!(wire.target, "/v1/sales/s/orders?wait_ms=250");
        assert_eq!(wire.headers, format!("idempotency-key: {}\r\n", crate::ledger::key_text(key_of(1204, 2))));
        let body: serde_json::Value = serde_json::from_slice(&wire.body).unwrap();
        assert_eq!(body["buyer"], crate::ledger::buyer_name(1204));
        assert_eq!(body["items"], serde_json::json!([{"sku": "sku-1", "quantity": 2}]));
        wire.clear();
        target.write(&mut wire, &step(Kind::Poll));
        assert_eq!((wire.method, &*wire.target), ("GET", "/v1/orders/g-1"));
    }

    #[test]
    fn an_answer_is_read_as_a_buyer_would() {
        let heard = |kind, status, body: &str| {
            let mut text = String::new();
            let answer = Answer { status, replayed: false, retry_after_s: None, body: body.as_bytes() };
            (read(&answer, kind, &mut text).verdict, text)
        };
        let order = |status, body| heard(Kind::Order, status, body);
        assert_eq!(order(201, r#"{"gid":"g","status":"submitted"}"#), (Verdict::Admitted, "g".into()));
        assert_eq!(order(201, r#"{"gid":"g","status":"succeed"}"#), (Verdict::Created, "g".into()));
        assert_eq!(order(409, r#"{"status":409,"code":"sold_out"}"#), (Verdict::Refused, "sold_out".into()));
        assert_eq!(order(503, r#"{"status":503,"code":"away"}"#), (Verdict::Unknown, "away".into()));
        assert_eq!(order(502, "<html>"), (Verdict::Unknown, "status 502 without JSON".into()));
        assert_eq!(heard(Kind::Poll, 200, r#"{"gid":"g","status":"failed"}"#).0, Verdict::Refused);
        assert_eq!(heard(Kind::Confirm, 200, r#"{"gid":"g","status":"succeed"}"#).0, Verdict::Done);
    }
}
