//! `GET /v1/sales/{sale}/buyers/{buyer}`: what a buyer got of a sale, and why not more.

use super::{Evidence, items, outcome};
use crate::domain::ids::{Buyer, SaleName};
use crate::domain::order::Status;
use crate::domain::sale::SaleStatus;
use crate::reconciler::search::Wanted;
use crate::sale::Refusal;
use crate::sale::open::Open;
use crate::sale::refusals::Remembered;
use crate::server::App;
use crate::server::problem::Problem;
use crate::server::search::orders;
use crate::server::wire::OrderView;
use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;
use serde::Serialize;
use serde_json::Value;
use std::sync::Arc;

/// Orders of one buyer that are shown.
const ORDERS_MAX: usize = 50;
/// Changes of the sale that are shown.
const CHANGES_MAX: usize = 20;
/// Pages that are looked through for a buyer's orders.
const PAGES_MAX: usize = 50;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Has an order, made or on its way.
    Got,
    /// Had orders, and none of them stands.
    Lost,
    /// Was refused, as this node remembers.
    Refused,
    /// No order, and this node remembers no refusal.
    NoTrace,
}

#[derive(Serialize)]
pub struct BuyerWhy {
    pub sale: String,
    pub buyer: String,
    pub verdict: Verdict,
    pub summary: String,
    /// Units that count against the limit now; null once the ledger of a closed sale is forgotten.
    pub units_held: u64,
    pub limit_per_buyer: Option<u32>,
    pub orders: Vec<OrderView>,
    pub evidence: Vec<Evidence>,
}

pub async fn show(
    State(app): State<Arc<App>>,
    Path((sale, buyer)): Path<(String, String)>,
) -> Result<Json<BuyerWhy>, Problem> {
    let name = SaleName::parse(&sale).map_err(|_| Problem::unknown_sale(&sale))?;
    let buyer = Buyer::parse(buyer).map_err(|invalid| {
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_query", invalid.to_string()).field("buyer")
    })?;
    let open = app.node.open(&name).await?.ok_or_else(|| Problem::unknown_sale(&sale))?;
    app.node.refresh(&open).await?;
    let orders = orders_of(&app, &name, &buyer).await?;
    let mut units_held = 0;
    for part in open.parts() {
        units_held += app.node.redis.units_of(&part.keys, buyer.as_str()).await?;
    }
    let refusal = app.node.refusals.last(&name, buyer.as_str());
    let verdict = verdict(&orders, refusal);
    let mut evidence = Vec::new();
    for order in &orders {
        let what = format!("order {}: {}", order.gid, outcome(order));
        evidence.push(Evidence::at(
            order.admitted_at,
            if order.finished_at.is_some() { "records" } else { "redis" },
            what,
        ));
    }
    if let Some(refusal) = refusal {
        let times = if refusal.times == 1 { String::new() } else { format!(", {} times in all", refusal.times) };
        let what = format!("refused: {} ({}){times}", words(refusal.refusal), refusal.refusal.code());
        evidence.push(Evidence::new(Some(refusal.at_ms), format!("memory of node {}", app.node.name), what));
    }
    of_the_sale(&app, &open, &name, &mut evidence).await?;
    evidence.sort_by_key(|line| (line.at.is_none(), line.at));
    let limit_per_buyer = open.sale.stored.load().settings.limit_per_buyer;
    let summary = summary(&app, &open, verdict, &orders, refusal).await?;
    let (sale, buyer) = (name.to_string(), buyer.to_string());
    Ok(Json(BuyerWhy { sale, buyer, verdict, summary, units_held, limit_per_buyer, orders, evidence }))
}

async fn orders_of(app: &App, sale: &SaleName, buyer: &Buyer) -> Result<Vec<OrderView>, Problem> {
    let mut wanted = Wanted { buyer: Some(buyer.to_string()), ..Wanted::default() };
    let mut found = Vec::new();
    for _ in 0..PAGES_MAX {
        let page = orders::page(app, sale, &wanted, ORDERS_MAX - found.len()).await?;
        found.extend(page.orders);
        match page.next.and_then(|next| next.parse().ok()) {
            Some(next) if found.len() < ORDERS_MAX => wanted.before = Some(next),
            _ => break,
        }
    }
    Ok(found)
}

/// Is it made, or on its way?
fn stands(order: &OrderView) -> bool {
    matches!(order.status, Status::Submitted | Status::Reserved | Status::Succeed)
}

fn verdict(orders: &[OrderView], refusal: Option<Remembered>) -> Verdict {
    match (orders.iter().any(stands), orders.is_empty(), refusal) {
        (true, _, _) => Verdict::Got,
        (false, false, _) => Verdict::Lost,
        (false, true, Some(_)) => Verdict::Refused,
        (false, true, None) => Verdict::NoTrace,
    }
}

async fn summary(
    app: &App,
    open: &Open,
    verdict: Verdict,
    orders: &[OrderView],
    refusal: Option<Remembered>,
) -> Result<String, Problem> {
    let refused = refusal.map(|refusal| words(refusal.refusal)).unwrap_or_default();
    Ok(match verdict {
        Verdict::Got => {
            let got: Vec<String> = orders
                .iter()
                .filter(|order| stands(order))
                .map(|order| format!("{} ({})", items(&order.items), order.status.as_str()))
                .collect();
            format!("got {}", got.join("; "))
        }
        Verdict::Lost => format!("had an order, and it does not stand: {}", outcome(&orders[0])),
        Verdict::Refused => format!("was refused: {refused}"),
        Verdict::NoTrace => {
            let left: u64 = app.node.stock(open).await?.values().map(|counters| counters.stock.available).sum();
            let now = match open.sale.stored.load().settings.status {
                SaleStatus::Open if left == 0 => "The sale has no units left now",
                SaleStatus::Open => "The sale has units left now",
                SaleStatus::Paused => "The sale is paused now",
                SaleStatus::Closed => "The sale is closed now",
            };
            format!(
                "no order, and this node remembers no refusal: nothing came from this buyer, or another node answered, or it \
                 was too long ago. {now}"
            )
        }
    })
}

fn words(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::SoldOut => "not enough units were left",
        Refusal::LimitReached => "it would have exceeded a limit of this sale",
        Refusal::NotOpen => "the sale had not opened yet",
        Refusal::Closed => "the sale was closed",
        Refusal::Paused => "the sale was paused",
        Refusal::UnknownSku => "the sale has no such SKU",
        Refusal::KeyReused => "its Idempotency-Key had come with another order before",
        Refusal::QueueFull => "too many requests waited for this sale at that moment",
        Refusal::BacklogFull => "the order service could not keep up at that moment",
    }
}

/// What held for everybody.
async fn of_the_sale(app: &App, open: &Open, name: &SaleName, evidence: &mut Vec<Evidence>) -> Result<(), Problem> {
    let stored = open.sale.stored.load_full();
    let window = stored.settings.window;
    evidence.push(Evidence::new(Some(stored.created_ms), "sale", "the sale was created"));
    if let Some(opens) = window.opens_ms {
        evidence.push(Evidence::new(Some(opens), "sale", "the sale opens"));
    }
    if let Some(closes) = window.closes_ms {
        evidence.push(Evidence::new(Some(closes), "sale", "the sale closes"));
    }
    for change in app.node.redis.changes(&open.head(), CHANGES_MAX).await? {
        let who = if change.note.who.is_empty() { String::new() } else { format!(" by {}", change.note.who) };
        let why = if change.note.why.is_empty() { String::new() } else { format!(" ({})", change.note.why) };
        let what = format!("{} changed{who}: {}{why}", change.kind, in_words(&change.what));
        evidence.push(Evidence::new(Some(change.at_ms), "log of changes", what));
    }
    if let Some(last) = orders::page(app, name, &Wanted::default(), 1).await?.orders.pop() {
        evidence.push(Evidence::at(last.admitted_at, "orders", "the last order of this sale was admitted"));
    }
    for (sku, counters) in app.node.stock(open).await? {
        let stock = counters.stock;
        let what = format!(
            "{sku}: {} of {} units available, {} reserved, {} sold",
            stock.available, stock.loaded, stock.reserved, stock.sold
        );
        evidence.push(Evidence::new(None, "stock now", what));
    }
    let refused = app.node.redis.refused(&open.head()).await?;
    if !refused.is_empty() {
        let sums: Vec<String> = refused.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
        evidence.push(Evidence::new(None, "refusals of all buyers", sums.join(", ")));
    }
    Ok(())
}

/// `{"status":"paused","limit_per_buyer":3}` as `status paused, limit_per_buyer 3`.
fn in_words(change: &str) -> String {
    let Ok(Value::Object(fields)) = serde_json::from_str(change) else { return change.to_owned() };
    let word = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    fields.iter().map(|(name, value)| format!("{name} {}", word(value))).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_told_in_words() {
        assert_eq!(in_words(r#"{"status":"paused","limit_per_buyer":null}"#), "limit_per_buyer null, status paused");
        assert_eq!(in_words("not JSON"), "not JSON");
    }
}
