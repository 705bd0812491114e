//! The figures of global transactions. As with orders, each ends with its books compared.

use std::time::{Duration, Instant};

use anyhow::ensure;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::Bench;
use super::figures::quantiles;
use super::lab::{Class, Lab, Mode, POLL, WAIT_TIME_MAX};
use super::load::{self, MARK, Template};
use super::summary::{Figure, Goal};

/// Branches of every transaction here.
const STEPS: u64 = 2;
/// How long the service is away before everything that waits for it has to settle.
const OUTAGE: Duration = Duration::from_secs(60);
const OUTAGE_QUICK: Duration = Duration::from_secs(8);
/// Spread of global transactions over slots, as rushline's keys have it.
const PARTITIONS: u16 = 16;

/// What is submitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Two steps without URLs, which is what dtm's own bench measures: nothing is called.
    EmptySaga,
    /// Two steps, four URLs, two calls.
    Saga,
    /// Two branches, two calls.
    Message,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::EmptySaga => "empty_sagas",
            Kind::Saga => "sagas",
            Kind::Message => "messages",
        }
    }

    /// The submit, as an SDK of dtm words it. `more` comes on top.
    fn template(self, lab: &Lab, more: Value) -> Template {
        let url = |name: &str| match self {
            Kind::EmptySaga => String::new(),
            Kind::Saga | Kind::Message => format!("http://{}/branches/{name}", lab.sink.address),
        };
        let step = |name: &str| match self {
            Kind::Message => json!({ "action": url(name) }),
            Kind::EmptySaga | Kind::Saga => json!({ "action": url(name), "compensate": url(&format!("{name}Undo")) }),
        };
        let mut body = json!({
            "gid": format!("bench-{MARK}"),
            "trans_type": if self == Kind::Message { "msg" } else { "saga" },
            "steps": [step("TransOut"), step("TransIn")],
            "payloads": [r#"{"amount":30}"#, r#"{"amount":30}"#],
            "concurrent": false,
            "protocol": "http",
        });
        if let (Value::Object(body), Value::Object(more)) = (&mut body, more) {
            body.extend(more);
        }
        Template::post("/api/dtmsvr/submit", "", &body.to_string())
    }

    /// Calls at the branch service for each transaction.
    fn calls(self) -> u64 {
        if self == Kind::EmptySaga { 0 } else { STEPS }
    }
}

async fn open<'a>(bench: &'a mut Bench, name: &str, transactions: u64) -> anyhow::Result<&'a mut Lab> {
    let lab = bench.open(name, Class::Memory, Mode::Single, transactions, None).await?;
    lab.redis.call(&["CONFIG", "RESETSTAT"]).await?;
    Ok(lab)
}

/// Transactions a second, each with `wait_result`: an answer is a transaction that has succeeded.
pub async fn rate(bench: &mut Bench, kind: Kind) -> anyhow::Result<Figure> {
    let (name, goal, transactions) = match kind {
        Kind::EmptySaga => ("transactions_empty_sagas", Goal::OfFloor(0.33), 200_000),
        Kind::Message => ("transactions_messages", Goal::OfFloor(0.20), 100_000),
        Kind::Saga => ("transactions_sagas", Goal::None, 100_000),
    };
    let (transactions, connections) = (bench.orders(transactions), bench.connections);
    let lab = open(bench, name, transactions).await?;
    let template = kind.template(lab, json!({ "wait_result": true }));
    let measured = load::run(lab.load_of(template, connections)).await?;
    measured.expect(&[200], transactions)?;
    exact(lab, kind).await?;
    drained(lab).await?;
    let detail = format!("{transactions} transactions, {}", quantiles(&measured));
    Ok(Figure::new(name, measured.per_second(), "transactions/s", goal, detail))
}

/// What one transaction costs Redis, the drain to the records included: time and script calls, in its own count.
pub async fn redis(bench: &mut Bench, kind: Kind) -> anyhow::Result<[Figure; 2]> {
    let name = format!("transactions_redis_{}", kind.name());
    let (transactions, connections) = (bench.orders(50_000), bench.connections);
    let lab = open(bench, &name, transactions).await?;
    let template = kind.template(lab, json!({ "wait_result": true }));
    let measured = load::run(lab.load_of(template, connections)).await?;
    measured.expect(&[200], transactions)?;
    drained(lab).await?;
    let (micros, calls) = (lab.redis.command_micros().await?, lab.redis.script_calls().await?);
    exact(lab, kind).await?;
    let each = |number: u64| number as f64 / transactions as f64;
    let largest: Vec<String> =
        micros.iter().take(4).map(|(command, micros)| format!("{command} {:.2}", each(*micros))).collect();
    let all = micros.iter().map(|(_, micros)| micros).sum();
    let detail = format!("of it {}", largest.join(", "));
    Ok([
        Figure::new(format!("{name}_time"), each(all), "µs", Goal::AtMost(25.0), detail),
        Figure::new(format!("{name}_scripts"), each(calls), "calls", Goal::AtMost(2.0), String::new()),
    ])
}

/// What one unfinished saga takes in Redis.
pub async fn bytes(bench: &mut Bench) -> anyhow::Result<Figure> {
    let (name, kind) = ("transactions_redis_bytes", Kind::Saga);
    let (transactions, connections) = (bench.orders(50_000), bench.connections);
    let lab = open(bench, name, transactions).await?;
    lab.hold(true).await?;
    let before = lab.redis.used_memory().await?;
    // An hour: while the service holds its answers, no call may be given up.
    let template = kind.template(lab, json!({ "request_timeout": 3600 }));
    let measured = load::run(lab.load_of(template, connections)).await?;
    measured.expect(&[200], transactions)?;
    let after = lab.redis.used_memory().await?;
    lab.hold(false).await?;
    settled(lab).await?;
    exact(lab, kind).await?;
    let value = after.saturating_sub(before) as f64 / transactions as f64;
    Ok(Figure::new(name, value, "bytes", Goal::AtMost(700.0), format!("{transactions} two-branch sagas")))
}

/// Transactions pile up while their service is away; how long do they take once it is back, and which come first?
pub async fn outage(bench: &mut Bench) -> anyhow::Result<[Figure; 2]> {
    let (name, kind) = ("transactions_outage", Kind::Message);
    let (transactions, connections) = (bench.orders(100_000), bench.connections);
    let outage = if bench.quick() { OUTAGE_QUICK } else { OUTAGE };
    let lab = open(bench, name, transactions).await?;
    let template = kind.template(lab, json!({}));
    let gone = Instant::now();
    lab.stop_sink().await?;
    let measured = load::run(lab.load_of(template, connections)).await?;
    measured.expect(&[200], transactions)?;
    sleep(outage.saturating_sub(gone.elapsed())).await;
    let away = gone.elapsed();
    ensure!(unfinished(lab).await? == transactions, "some have finished without their service");
    lab.start_sink().await?;
    let back = Instant::now();
    settled(lab).await?;
    let took = back.elapsed();
    let books = lab.sink.expect("GET", "/branches/books", None).await?;
    exact(lab, kind).await?;
    let per_s = transactions as f64 / took.as_secs_f64();
    let detail = format!("{transactions} messages, {:.0} s away, {per_s:.0} a second", away.as_secs_f64());
    let displacement = books["displacement"].as_f64().unwrap_or(f64::NAN) * 100.0;
    let meaning = "mean distance from the place by age; 33 % would be any order".to_owned();
    Ok([
        Figure::new("transactions_outage_settled_after", took.as_secs_f64(), "s", Goal::AtMost(30.0), detail),
        Figure::new("transactions_outage_out_of_order", displacement, "%", Goal::AtMost(10.0), meaning),
    ])
}

/// How many are due, now or later: all that have not finished.
async fn unfinished(lab: &mut Lab) -> anyhow::Result<u64> {
    let mut count = 0;
    for partition in 0..PARTITIONS {
        count += lab.redis.number(&["ZCARD", &format!("rl:{{T/{partition}}}:due")]).await?;
    }
    Ok(count)
}

/// Waits until all have finished.
async fn settled(lab: &mut Lab) -> anyhow::Result<()> {
    let deadline = Instant::now() + WAIT_TIME_MAX;
    loop {
        let left = unfinished(lab).await?;
        if left == 0 {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "{left} transactions do not finish");
        sleep(POLL).await;
    }
}

/// Waits until all have finished and are in the records: then they are in no index any more.
async fn drained(lab: &mut Lab) -> anyhow::Result<()> {
    settled(lab).await?;
    let deadline = Instant::now() + WAIT_TIME_MAX;
    loop {
        let mut left = 0;
        for partition in 0..PARTITIONS {
            for kind in ["saga", "msg"] {
                left += lab.redis.number(&["ZCARD", &format!("rl:{{T/{partition}}}:i:succeed:{kind}")]).await?;
            }
        }
        if left == 0 {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "{left} transactions do not reach the records");
        sleep(POLL).await;
    }
}

/// Every transaction has finished, and each of its branches was called, once.
async fn exact(lab: &mut Lab, kind: Kind) -> anyhow::Result<()> {
    settled(lab).await?;
    let books = lab.sink.expect("GET", "/branches/books", None).await?;
    let wanted = lab.orders * kind.calls();
    let (steps, calls) = (books["steps"].as_u64(), books["calls"].as_u64());
    ensure!(steps == Some(wanted) && calls == Some(wanted), "{wanted} branches, called {calls:?} times: {steps:?}");
    Ok(())
}
