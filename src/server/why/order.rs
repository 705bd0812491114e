//! `GET /v1/orders/{gid}/why`

use super::{Evidence, items, outcome};
use crate::domain::ids::Gid;
use crate::domain::order::Status;
use crate::server::App;
use crate::server::orders::look_up;
use crate::server::problem::Problem;
use crate::server::wire::OrderView;
use crate::store::orders::Address;
use axum::Json;
use axum::extract::{Path, State};
use serde::Serialize;
use std::sync::Arc;

#[derive(Serialize)]
pub struct OrderWhy {
    pub summary: String,
    pub order: OrderView,
    /// Oldest first; what has no time of its own comes last.
    pub evidence: Vec<Evidence>,
}

pub async fn show(State(app): State<Arc<App>>, Path(text): Path<String>) -> Result<Json<OrderWhy>, Problem> {
    let unknown = || Problem::unknown_order(&text);
    let gid: Gid = text.parse().map_err(|_| unknown())?;
    let order = look_up(&app, &gid).await?.ok_or_else(unknown)?;
    let mut evidence = vec![Evidence::new(
        Some(gid.entry.ms),
        "order_admit",
        format!(
            "admitted (script reply A) in partition {}, batch {}, place {}: {} taken for buyer {}",
            gid.partition,
            gid.entry,
            gid.index,
            items(&order.items),
            order.buyer
        ),
    )];
    in_redis(&app, &gid, &order, &mut evidence).await?;
    if order.attempts > 0 {
        let said = order.last_error.as_deref().map_or_else(String::new, |error| format!("; it said last: {error}"));
        evidence.push(Evidence::new(None, "attempts", format!("{} calls of the order service{said}", order.attempts)));
    }
    if let Some(at) = order.finished_at {
        let what = format!("{}: {}", order.status.as_str(), outcome(&order));
        evidence.push(Evidence::at(Some(at), "records", what));
    }
    if !order.returned.is_empty() {
        evidence.push(Evidence::new(None, "returns", format!("{} came back after the sale", items(&order.returned))));
    }
    if order.end_told == Some(false) {
        evidence.push(Evidence::new(
            None,
            "outcome",
            "the order service has not heard of this end yet; it is told until it has",
        ));
    }
    evidence.sort_by_key(|line| line.at.is_none());
    Ok(Json(OrderWhy { summary: outcome(&order), order, evidence }))
}

/// What only Redis knows: its character, its next try, and who has it.
async fn in_redis(app: &App, gid: &Gid, order: &OrderView, evidence: &mut Vec<Evidence>) -> Result<(), Problem> {
    let part = app.node.open(&gid.sale).await?.and_then(|open| open.part(gid.partition));
    let Some(part) = part else { return Ok(()) };
    let redis = &app.node.redis;
    let Some(Some(outcome)) = redis.outcomes(&part.keys, &[gid.entry]).await?.pop() else {
        evidence.push(Evidence::new(None, "redis", "not in Redis any more: it is over and in the records"));
        return Ok(());
    };
    if let Some(code) = outcome.chars().nth(usize::from(gid.index)) {
        let what = format!("stands in Redis as `{code}`: {}", order.status.as_str());
        evidence.push(Evidence::new(None, "outcome", what));
    }
    let address = Address { entry: gid.entry, index: gid.index };
    let due = redis.details(&part.keys, &[address]).await?.pop().and_then(|(_, due)| due);
    if let Some(due) = due {
        evidence.push(Evidence::new(
            None,
            "retry",
            format!("the order service is called again in {} ms", due.as_millis()),
        ));
    }
    if order.status == Status::Submitted
        && let Some(holder) = redis.holder(&part.keys, gid.entry).await?
    {
        let what = format!(
            "node {} has the batch; heard of {} ms ago, taken up {} times",
            holder.node,
            holder.idle.as_millis(),
            holder.deliveries
        );
        evidence.push(Evidence::new(None, "intake", what));
    }
    Ok(())
}
