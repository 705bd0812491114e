//! A small crowd that does everything buyers do, and notes what it hears. The engine's crowd is for load; this one is for
//! variety: in a few hundred requests every charge has its occasion.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::audit::Audit;
use crate::http::{Api, Connection, write_request};
use crate::ledger::{
    Asked, Basket, Heard, Item, Kind, Ledger, Micros, Outcome, Plan, Recorder, Restock, SalePlan, Shard, Stock,
    buyer_name, key_of, key_text,
};
use crate::oracle::{Aftermath, Tolerance, conclude};

/// Longer than any answer takes here, shorter than a test may hang.
const PATIENCE: Duration = Duration::from_secs(30);
const WAIT_MS: u64 = 10_000;
/// Units that came back are on sale again within this in the shops of these tests.
const RETURNS: Duration = Duration::from_millis(50);
/// The window of [`Story::Window`]. Nothing depends on who comes in time: whatever is answered must be right.
const OPENS_US: i64 = 100_000;
const CLOSES_US: i64 = 250_000;
/// Long enough to confirm in, on a machine that does other things too.
const RESERVE_FOR_US: Micros = 800_000;
const HOUR_US: i64 = 3_600_000_000;
/// Buyers at the counter at once.
const AT_ONCE: usize = 8;

pub const TOLERANCE: Tolerance =
    Tolerance { clock_us: 5_000, returns_us: 50_000, opens_us: 50_000, marks_replays: true };

/// Baskets by their number.
const ONE_A: u32 = 0;
const TWO_A: u32 = 1;
const ONE_B: u32 = 2;
const A_AND_B: u32 = 3;

/// What kind of sale it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Story {
    /// Sells out, is restocked and sells out again; with double clicks, hang-ups, keys used twice, losers who come back.
    Flash,
    /// Opens and closes while buyers ask.
    Window,
    /// Buyers come before the opening, all within the window, or all after the closing.
    Early,
    InTime,
    Late,
    /// Orders are paid, cancelled or forgotten.
    Reservations,
}

pub struct Crowd {
    shop: Api,
    story: Story,
    began: Instant,
    plan: RefCell<Plan>,
    recorder: Recorder,
    shard: RefCell<Shard>,
    restocks: RefCell<Vec<Restock>>,
}

/// One request of a buyer.
#[derive(Debug, Clone, Copy)]
struct Ask {
    buyer: u32,
    nth: u32,
    basket: u32,
    attempt: u16,
    wait: bool,
}

/// What was heard, as far as a buyer acts on it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Word {
    Yes(String),
    No(String),
    Nothing,
}

fn item(sku: &str, quantity: u32) -> Item {
    Item { sku: sku.into(), quantity }
}

impl Crowd {
    /// Sets the sale up. `more` is merged into the body that creates it.
    pub async fn open(shop: Api, service: Api, sale: &str, story: Story, more: Value) -> Rc<Self> {
        let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let began_unix_us = u64::try_from(unix.as_micros()).unwrap();
        let window = match story {
            Story::Window => Some((OPENS_US, CLOSES_US)),
            Story::Early => Some((HOUR_US, 2 * HOUR_US)),
            Story::InTime => Some((-HOUR_US, HOUR_US)),
            Story::Late => Some((-2 * HOUR_US, -HOUR_US)),
            Story::Flash | Story::Reservations => None,
        };
        let reserve_for_us = (story == Story::Reservations).then_some(RESERVE_FOR_US);
        let stock = vec![Stock { sku: "a".into(), units: 60 }, Stock { sku: "b".into(), units: 15 }];
        let at = |us: i64| {
            jiff::Timestamp::from_microsecond(i64::try_from(began_unix_us).unwrap() + us).unwrap().to_string()
        };
        let mut body = json!({
            "sale": sale, "items": stock, "limit_per_buyer": 2,
            "order_endpoint": {"url": format!("http://{}/orders", service.address)},
        });
        let fields = body.as_object_mut().unwrap();
        if let Some((opens, closes)) = window {
            fields.insert("opens_at".into(), at(opens).into());
            fields.insert("closes_at".into(), at(closes).into());
        }
        if let Some(us) = reserve_for_us {
            fields.insert("reserve_for_ms".into(), (us / 1000).into());
        }
        fields.extend(more.as_object().cloned().unwrap_or_default());
        let began = Instant::now();
        shop.expect("POST", "/v1/sales", Some(&body)).await.unwrap();
        let plan = Plan {
            began_unix_us,
            sales: vec![SalePlan {
                name: sale.into(),
                stock,
                limit_per_buyer: Some(2),
                opens_us: window.map(|(opens, _)| opens),
                closes_us: window.map(|(_, closes)| closes),
                reserve_for_us,
                ..SalePlan::default()
            }],
            baskets: [vec![item("a", 1)], vec![item("a", 2)], vec![item("b", 1)], vec![item("a", 1), item("b", 1)]]
                .map(|items| Basket { items })
                .into(),
        };
        let recorder = Recorder::new(100_000);
        let shard = recorder.shard();
        Rc::new(Self {
            shop,
            story,
            began,
            plan: plan.into(),
            recorder,
            shard: shard.into(),
            restocks: RefCell::default(),
        })
    }

    /// The whole story, and then what is left to be asked. Runs inside a `LocalSet`.
    pub async fn run(self: Rc<Self>, service: Api) -> (Ledger, Aftermath) {
        match self.story {
            Story::Flash => self.flash().await,
            Story::Window => self.window().await,
            Story::Early | Story::InTime | Story::Late => {
                sleep(RETURNS).await; // a time before the run counts as its beginning, give or take the clock's tolerance
                self.twenty(1).await;
                self.twenty(2).await;
            }
            Story::Reservations => self.reservations().await,
        }
        let crowd = Rc::into_inner(self).expect("all buyers have gone home");
        drop(crowd.shard);
        let mut plan = crowd.plan.into_inner();
        plan.sales[0].restocks = crowd.restocks.into_inner();
        conclude(crowd.shop, service, &crowd.recorder, plan, PATIENCE).await.unwrap()
    }

    async fn flash(self: &Rc<Self>) {
        self.each(0..60, |crowd, buyer| async move { crowd.visit(buyer).await }).await;
        self.settled().await;
        sleep(RETURNS).await;
        // What came back meanwhile is for those who ask now, until nothing is left.
        self.each(100..160, |crowd, buyer| async move {
            crowd.ask(Ask::new(buyer, 1, ONE_A)).await;
        })
        .await;
        self.settled().await;
        self.restock("a", 8).await;
        sleep(RETURNS).await;
        self.each(200..240, |crowd, buyer| async move { crowd.visit(buyer).await }).await;
        self.settled().await;
        sleep(RETURNS).await;
        // Refused orders free the limit too: everybody tries for what can still be theirs.
        self.restock("b", 30).await;
        sleep(RETURNS).await;
        self.each(0..60, |crowd, buyer| async move {
            crowd.ask(Ask::new(buyer, 9, ONE_B)).await;
        })
        .await;
        self.settled().await;
        // Whoever has heard yes hears it again; who hung up never comes back.
        self.each(0..60, |crowd, buyer| async move {
            if buyer % 10 != 1 {
                crowd.ask(Ask { attempt: 8, ..Ask::first_of(buyer) }).await;
            }
        })
        .await;
    }

    async fn window(self: &Rc<Self>) {
        for (attempt, at_us) in (1..).zip([0, 40_000, 80_000, 110_000, 170_000, 230_000, 260_000]) {
            self.until(at_us).await;
            self.twenty(attempt).await;
        }
    }

    /// Twenty buyers ask, and ask again when they are sent again. Nobody waits for the order service.
    async fn twenty(self: &Rc<Self>, attempt: u16) {
        self.each(0..20, move |crowd, buyer| async move {
            crowd.ask(Ask { attempt, wait: false, ..Ask::new(buyer, 1, ONE_A) }).await;
        })
        .await;
    }

    async fn reservations(self: &Rc<Self>) {
        self.each(0..30, |crowd, buyer| async move {
            let Word::Yes(gid) = crowd.ask(Ask::new(buyer, 1, ONE_A)).await else { return };
            match buyer % 3 {
                0 => crowd.end(buyer, &gid, Kind::Confirm).await,
                1 => crowd.end(buyer, &gid, Kind::Cancel).await,
                _ => crowd.poll(buyer, &gid).await,
            }
        })
        .await;
        self.settled().await;
        self.until(self.now() + RESERVE_FOR_US + 2 * TOLERANCE.returns_us).await;
    }

    /// All that one buyer of a flash sale does.
    async fn visit(self: Rc<Self>, buyer: u32) {
        let ask = Ask::first_of(buyer);
        match buyer % 10 {
            0 => {
                let (first, second) = tokio::join!(self.ask(ask), self.ask(Ask { attempt: 2, ..ask }));
                if let (Word::Yes(gid), Word::Yes(_)) = (first, second) {
                    self.poll(buyer, &gid).await;
                    self.poll(buyer, &gid).await;
                }
            }
            1 => self.hang_up(ask).await,
            2 => {
                self.hang_up(ask).await;
                self.ask(Ask { attempt: 2, ..ask }).await;
            }
            3 | 4 => {
                self.ask(ask).await;
                // The same key for something else: refused, and no harm done.
                self.ask(Ask { attempt: 2, basket: if ask.basket == ONE_B { ONE_A } else { ONE_B }, ..ask }).await;
            }
            5..=7 => {
                self.ask(ask).await;
                self.ask(Ask { attempt: 2, wait: false, ..ask }).await;
                // One more is over the limit, or it is not.
                self.ask(Ask::new(buyer, 2, ONE_A)).await;
                self.ask(Ask::new(buyer, 3, ONE_A)).await;
            }
            _ => _ = self.ask(ask).await,
        }
    }

    /// Runs `visit` for each buyer, some at a time, in order of their numbers.
    async fn each<F: Future<Output = ()> + 'static>(
        self: &Rc<Self>,
        buyers: std::ops::Range<u32>,
        visit: impl Fn(Rc<Self>, u32) -> F,
    ) {
        let mut visits = JoinSet::new();
        for buyer in buyers {
            if visits.len() >= AT_ONCE {
                visits.join_next().await.unwrap().unwrap();
            }
            visits.spawn_local(visit(self.clone(), buyer));
        }
        while let Some(done) = visits.join_next().await {
            done.unwrap();
        }
    }

    fn now(&self) -> Micros {
        u64::try_from(self.began.elapsed().as_micros()).unwrap()
    }

    async fn until(&self, at_us: Micros) {
        sleep(Duration::from_micros(at_us.saturating_sub(self.now()))).await;
    }

    fn request(&self, ask: Ask) -> Vec<u8> {
        let plan = self.plan.borrow();
        let body = json!({"buyer": buyer_name(ask.buyer), "items": plan.baskets[ask.basket as usize].items});
        let wait = if ask.wait { format!("?wait_ms={WAIT_MS}") } else { String::new() };
        let mut request = Vec::new();
        let target = format!("/v1/sales/{}/orders{wait}", plan.sales[0].name);
        let key = format!("idempotency-key: {}\r\n", key_text(key_of(ask.buyer, ask.nth)));
        write_request(&mut request, "POST", &target, &key, body.to_string().as_bytes());
        request
    }

    fn asked(&self, ask: Ask, sent_us: Micros) -> Asked<'static> {
        Asked {
            kind: Kind::Order,
            intended_us: sent_us,
            sent_us,
            buyer: ask.buyer,
            sale: 0,
            key: key_of(ask.buyer, ask.nth),
            basket: ask.basket,
            attempt: ask.attempt,
            about: None,
        }
    }

    async fn ask(&self, ask: Ask) -> Word {
        let asked = self.asked(ask, self.now());
        self.call(asked, &self.request(ask)).await
    }

    /// Sends one request and notes the answer.
    async fn call(&self, asked: Asked<'_>, request: &[u8]) -> Word {
        let mut connection = Connection::open(self.shop.address).await.unwrap();
        let answer = timeout(PATIENCE, connection.call(request)).await.expect("the shop hangs").unwrap();
        let answered_us = self.now();
        let body: Value = serde_json::from_slice(answer.body).unwrap_or(Value::Null);
        let gid = body["gid"].as_str().unwrap_or_default();
        let outcome = match (answer.status, body["status"].as_str(), body["code"].as_str()) {
            (200 | 201, ..) if matches!(asked.kind, Kind::Confirm | Kind::Cancel) => Outcome::Done { gid },
            (200 | 201, Some("succeed" | "confirmed"), _) => Outcome::Created { gid },
            (200 | 201, Some("failed"), _) => Outcome::Refused { reason: "order_refused" },
            (200 | 201, Some("cancelled" | "expired"), _) => Outcome::Refused { reason: "order_ended" },
            (200 | 201, ..) => Outcome::Admitted { gid },
            (400..500, _, Some(reason)) => Outcome::Refused { reason },
            (status, ..) => panic!("an answer that no buyer understands: {status} {body}"),
        };
        self.shard
            .borrow_mut()
            .tell(asked, Heard { answered_us, status: answer.status, replayed: answer.replayed, outcome });
        match outcome {
            Outcome::Refused { reason } => Word::No(reason.into()),
            Outcome::Unknown { .. } => Word::Nothing,
            _ => Word::Yes(gid.into()),
        }
    }

    /// Sends the order and leaves before the answer.
    async fn hang_up(&self, ask: Ask) {
        let asked = self.asked(ask, self.now());
        let mut connection = Connection::open(self.shop.address).await.unwrap();
        connection.send(&self.request(Ask { wait: false, ..ask })).await.unwrap();
        // The answer is under way, so the order is decided; and nobody reads it.
        connection.answer_arrives().await.unwrap();
        drop(connection);
        let heard = Heard {
            answered_us: self.now(),
            status: 0,
            replayed: false,
            outcome: Outcome::Unknown { error: "hung up" },
        };
        self.shard.borrow_mut().tell(asked, heard);
    }

    async fn about(&self, buyer: u32, gid: &str, kind: Kind, method: &str, target: &str) {
        let mut request = Vec::new();
        write_request(&mut request, method, target, "", b"");
        let asked = Asked { kind, about: Some(gid), key: 0, ..self.asked(Ask::new(buyer, 1, ONE_A), self.now()) };
        self.call(asked, &request).await;
    }

    async fn end(&self, buyer: u32, gid: &str, kind: Kind) {
        let op = if kind == Kind::Confirm { "confirm" } else { "cancel" };
        self.about(buyer, gid, kind, "POST", &format!("/v1/orders/{gid}/{op}")).await;
    }

    async fn poll(&self, buyer: u32, gid: &str) {
        self.about(buyer, gid, Kind::Poll, "GET", &format!("/v1/orders/{gid}")).await;
    }

    async fn restock(&self, sku: &str, units: i64) {
        let sent_us = self.now();
        let body = json!({"sku": sku, "units": units, "request_id": format!("more-{sku}")});
        let target = format!("/v1/sales/{}/stock", self.plan.borrow().sales[0].name);
        self.shop.expect("POST", &target, Some(&body)).await.unwrap();
        let answered_us = Some(self.now());
        self.restocks.borrow_mut().push(Restock { sent_us, answered_us, sku: sku.into(), units });
    }

    async fn settled(&self) {
        let sale = self.plan.borrow().sales[0].name.clone();
        Audit::settled(self.shop, &sale, PATIENCE).await.unwrap();
    }
}

impl Ask {
    fn new(buyer: u32, nth: u32, basket: u32) -> Self {
        Self { buyer, nth, basket, attempt: 1, wait: buyer.is_multiple_of(2) }
    }

    /// What a buyer wants first.
    fn first_of(buyer: u32) -> Self {
        let basket = match buyer % 10 {
            3 => ONE_B,
            8 => TWO_A,
            9 => A_AND_B,
            _ => ONE_A,
        };
        Self::new(buyer, 1, basket)
    }
}
