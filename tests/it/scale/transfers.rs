//! The three steps of a transfer in any order, repeated, late, and by whomever: after each step no unit is lost or doubled.

use crate::support::servers::{Redis as Server, RedisVersion};
use rushline::domain::ids::{SaleName, Sku};
use rushline::domain::sale::{Durability, Endpoint, NewSale, SaleStatus, Settings, Window};
use rushline::store::keys::Keys;
use rushline::store::redis::{self, Redis};
use rushline::store::transfer::{Debited, Transit};
use std::sync::Arc;
use std::time::Duration;

const PARTS: u16 = 4;
const UNITS: u64 = 97;

struct Books {
    redis: Arc<Redis>,
    parts: Vec<Keys>,
    sku: Sku,
}

impl Books {
    async fn open(server: &Server) -> Self {
        let settings = redis::Settings {
            url: server.url(),
            tls: Default::default(),
            prefix: "rl:".into(),
            connections: 1,
            timeout: Duration::from_secs(5),
            rewrite_after_load: false,
        };
        let redis = Redis::connect(settings).await.unwrap();
        let (name, sku) = (SaleName::parse("t").unwrap(), Sku::parse("a").unwrap());
        let settings = Settings {
            status: SaleStatus::Open,
            window: Window::default(),
            limit_per_buyer: None,
            endpoint: Endpoint::at("http://127.0.0.1/orders"),
            durability: Durability::Memory,
            webhook: None,
            terms: Default::default(),
        };
        let new = NewSale { sale: name.clone(), items: vec![(sku.clone(), UNITS)], settings };
        redis.create_sale(&new, "{}").await.unwrap();
        let parts: Vec<Keys> = (0..PARTS).map(|number| Keys::new("rl:", &name, number)).collect();
        redis.grow_sale(&parts[0], PARTS).await.unwrap();
        let fields = redis.sale_fields(&parts[0]).await.unwrap();
        for part in &parts[1..] {
            redis.spread_sale(part, &fields).await.unwrap();
            redis.spread_sale(part, &fields).await.unwrap();
        }
        Self { redis, parts, sku }
    }

    /// Units in all partitions and on their way; each partition's own books must agree at any moment.
    async fn count(&self) -> u64 {
        let mut sum = 0;
        for (number, part) in self.parts.iter().enumerate() {
            for counters in self.redis.stock(part).await.unwrap().values() {
                assert_eq!(counters.stock.difference(), 0, "partition {number}");
                sum += counters.stock.available;
            }
            for transit in self.redis.transits(part).await.unwrap() {
                let to = &self.parts[usize::from(transit.to)];
                if self.redis.last_credited(to, number as u16).await.unwrap() < transit.transfer {
                    sum += transit.units;
                }
            }
        }
        sum
    }
}

#[tokio::test]
async fn in_any_order_and_repeated_no_unit_is_lost_or_doubled() {
    let server = Server::start(RedisVersion::V7, &[]).await;
    let books = Books::open(&server).await;
    let mut random = fastrand::Rng::with_seed(7);
    // Everything that was ever sent: a slow carrier may come back with it at any time.
    let mut seen: Vec<(u16, Transit)> = Vec::new();
    let (mut sent, mut busy) = (0, 0);
    for step in 0..600 {
        let from = random.u16(0..PARTS);
        match random.u8(0..4) {
            0 | 1 => {
                let to = (from + random.u16(1..PARTS)) % PARTS;
                let place = &books.parts[usize::from(from)];
                match books.redis.debit(place, to, &books.sku, random.u64(1..20), random.u64(1..4)).await.unwrap() {
                    Debited::Sent(transit) => {
                        sent += 1;
                        seen.push((from, transit));
                    }
                    Debited::Busy => busy += 1,
                    Debited::Dry => {}
                }
            }
            kind if !seen.is_empty() => {
                let (from, transit) = &seen[random.usize(0..seen.len())];
                let (place, to) = (&books.parts[usize::from(*from)], &books.parts[usize::from(transit.to)]);
                books.redis.credit(to, *from, transit).await.unwrap();
                if kind == 3 {
                    books.redis.arrived(place, transit).await.unwrap();
                }
            }
            _ => {}
        }
        assert_eq!(books.count().await, UNITS, "step {step}");
    }
    assert!(sent > 30 && busy > 10, "{sent} sent, {busy} busy");
}

/// What was sent must have arrived before it is forgotten, and a later transfer is not taken for an earlier one.
#[tokio::test]
async fn a_late_carrier_does_nothing() {
    let server = Server::start(RedisVersion::V7, &[]).await;
    let books = Books::open(&server).await;
    let [a, b] = [&books.parts[0], &books.parts[1]];
    let Debited::Sent(first) = books.redis.debit(a, 1, &books.sku, 5, 1 << 40).await.unwrap() else { panic!() };
    assert_eq!(books.redis.debit(a, 1, &books.sku, 5, 1 << 40).await.unwrap(), Debited::Busy);
    books.redis.credit(b, 0, &first).await.unwrap();
    books.redis.arrived(a, &first).await.unwrap();
    let Debited::Sent(second) = books.redis.debit(a, 1, &books.sku, 6, 1 << 40).await.unwrap() else { panic!() };
    assert_eq!((first.transfer, second.transfer), (1, 2));
    books.redis.credit(b, 0, &first).await.unwrap();
    books.redis.arrived(a, &first).await.unwrap();
    assert_eq!(books.redis.transits(a).await.unwrap(), [second]);
    assert_eq!(books.count().await, UNITS);
}
