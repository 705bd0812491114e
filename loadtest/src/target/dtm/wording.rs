//! What a dtm coordinator is sent, worded as its SDKs word it. Bodies are made once for each basket; a request fills in its
//! gid and buyer.

use std::fmt::Write;

use serde_json::json;

use super::{Parts, stock_key};
use crate::bench::PAYLOAD;
use crate::engine::line::Wire;
use crate::engine::queue::Step;
use crate::ledger::{Basket, key_of};
use crate::scenario::Work;

/// Stand for what differs from request to request; no JSON escapes them.
const GID: &str = "@GID@";
const BUYER: &str = "@BUYER@";

pub struct Wording {
    sale: String,
    /// By basket.
    baskets: Vec<Worded>,
    saga: Vec<Part>,
    /// By manner: submit is to answer when all is done.
    waits: Vec<bool>,
}

struct Worded {
    stock_key: String,
    units: String,
    message: Vec<Part>,
    message_waits: Vec<Part>,
}

enum Part {
    Text(String),
    Gid,
    Buyer,
}

impl Wording {
    pub fn new(parts: &Parts, sale: &str, work: Work, baskets: &[Basket], waits: Vec<bool>) -> Self {
        let baskets = baskets
            .iter()
            .map(|basket| Worded {
                // One SKU an order, as in the recipe.
                stock_key: stock_key(sale, &basket.items[0].sku),
                units: basket.items[0].quantity.to_string(),
                message: cut(&message(parts, sale, basket, false)),
                message_waits: cut(&message(parts, sale, basket, true)),
            })
            .collect();
        Self { sale: sale.into(), baskets, saga: cut(&saga(parts, work)), waits }
    }

    pub fn gid(&self, step: &Step) -> String {
        format!("{{{}}}-k{}", self.sale, key_of(step.buyer, step.nth))
    }

    pub fn waits(&self, step: &Step) -> bool {
        self.waits[usize::from(step.manner)]
    }

    /// The stock's key and the units that an order takes.
    pub fn stock_of(&self, step: &Step) -> (&str, &str) {
        let worded = &self.baskets[step.basket as usize];
        (&worded.stock_key, &worded.units)
    }

    pub fn message(&self, wire: &mut Wire, operation: &str, step: &Step) {
        let worded = &self.baskets[step.basket as usize];
        let parts = if self.waits(step) { &worded.message_waits } else { &worded.message };
        let _ = write!(wire.target, "/api/dtmsvr/{operation}");
        self.fill(wire, parts, step);
    }

    pub fn saga(&self, wire: &mut Wire, step: &Step) {
        wire.target.push_str("/api/dtmsvr/submit");
        self.fill(wire, &self.saga, step);
    }

    pub fn query(&self, wire: &mut Wire, gid: &str) {
        wire.method = "GET";
        wire.target.push_str("/api/dtmsvr/query?gid=");
        for byte in gid.bytes() {
            let _ = match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' => wire.target.write_char(byte.into()),
                _ => write!(wire.target, "%{byte:02X}"),
            };
        }
    }

    fn fill(&self, wire: &mut Wire, parts: &[Part], step: &Step) {
        use std::io::Write;
        for part in parts {
            let _ = match part {
                Part::Text(text) => wire.body.write_all(text.as_bytes()),
                Part::Gid => write!(wire.body, "{{{}}}-k{}", self.sale, key_of(step.buyer, step.nth)),
                Part::Buyer => write!(wire.body, "buyer-{}", step.buyer),
            };
        }
    }
}

fn message(parts: &Parts, sale: &str, basket: &Basket, wait_result: bool) -> String {
    let payload: serde_json::Value = serde_json::from_str(PAYLOAD).expect("it is JSON");
    let order = json!({"gid": GID, "sale": sale, "buyer": BUYER, "items": basket.items, "payload": payload});
    let body = json!({
        "gid": GID,
        "trans_type": "msg",
        "steps": [{"action": format!("http://{}/dtm/orders", parts.branches)}],
        "payloads": [order.to_string()],
        "query_prepared": format!("http://{}/query-prepared", parts.service),
        "wait_result": wait_result,
        "concurrent": false,
        "protocol": "http",
    });
    body.to_string()
}

fn saga(parts: &Parts, work: Work) -> String {
    let url = |name: &str| match work {
        Work::Sagas => format!("http://{}/branches/{name}", parts.branches),
        Work::EmptySagas | Work::Orders => String::new(),
    };
    let step = |name: &str| json!({"action": url(name), "compensate": url(&format!("{name}Undo"))});
    let body = json!({
        "gid": GID,
        "trans_type": "saga",
        "steps": [step("TransOut"), step("TransIn")],
        "payloads": [r#"{"amount":30}"#, r#"{"amount":30}"#],
        "wait_result": true,
        "concurrent": false,
        "protocol": "http",
    });
    body.to_string()
}

fn cut(text: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut rest = text;
    loop {
        let found = [(GID, Part::Gid), (BUYER, Part::Buyer)];
        let next = found.into_iter().filter_map(|(mark, part)| Some((rest.find(mark)?, mark.len(), part)));
        let Some((at, len, part)) = next.min_by_key(|(at, ..)| *at) else {
            parts.push(Part::Text(rest.into()));
            return parts;
        };
        parts.extend([Part::Text(rest[..at].into()), part]);
        rest = &rest[at + len..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Item, Kind};

    #[test]
    fn a_message_is_json_with_the_order_as_its_payload() {
        let address = ([127, 0, 0, 1], 1).into();
        let parts = Parts { coordinator: address, stock: None, service: address, branches: address };
        let basket = Basket { items: vec![Item { sku: "sku-1".into(), quantity: 2 }] };
        let wording = Wording::new(&parts, "s", Work::Orders, &[basket], vec![true]);
        let (kind, leads, gid) = (Kind::Order, true, None);
        let step = Step {
            due: 0,
            kind,
            leads,
            manner: 0,
            buyer: 7,
            nth: 1,
            basket: 0,
            attempt: 1,
            returns: 0,
            bought: 0,
            gid,
        };
        let mut wire = Wire::default();
        wire.clear();
        wording.message(&mut wire, "prepare", &step);
        let body: serde_json::Value = serde_json::from_slice(&wire.body).unwrap();
        let gid = wording.gid(&step);
        assert_eq!((&body["gid"], &body["wait_result"]), (&json!(gid), &json!(true)));
        let order: serde_json::Value = serde_json::from_str(body["payloads"][0].as_str().unwrap()).unwrap();
        assert_eq!((&order["gid"], &order["buyer"]), (&json!(gid), &json!("buyer-7")));
        wire.clear();
        wording.query(&mut wire, &gid);
        assert_eq!(wire.target, format!("/api/dtmsvr/query?gid=%7Bs%7D-k{}", key_of(7, 1)));
    }
}
