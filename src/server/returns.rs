//! Returns: units that were sold come back on sale. Over HTTP here; `rpc/` calls [`returned`] too.

use super::App;
use super::deed::Deed;
use super::json;
use super::orders::look_up;
use super::problem::Problem;
use super::reservations::part_of;
use super::wire::{ReturnUnits, ReturnView};
use crate::crash;
use crate::domain::ids::{Gid, Invalid};
use crate::domain::order::{Item, Status};
use crate::domain::reservation::check_part;
use crate::domain::terms::BY_BUYER;
use crate::store::orders::Address;
use crate::store::reservations::items_text;
use crate::store::returns::{Return, ReturnAnswer};
use axum::Json;
use axum::extract::{Path, State};
use bytes::Bytes;
use http::StatusCode;
use std::sync::Arc;

fn invalid(invalid: Invalid) -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_return", invalid.to_string()).field(invalid.field)
}

/// `POST /v1/orders/{gid}/return`
pub async fn place(
    State(app): State<Arc<App>>,
    Path(text): Path<String>,
    deed: Deed,
    body: Bytes,
) -> Result<Json<ReturnView>, Problem> {
    returned(&app, &text, json::parse(&body, "invalid_return")?, &deed).await.map(Json)
}

/// Has the units counted back, each request once.
pub async fn returned(app: &App, text: &str, request: ReturnUnits, deed: &Deed) -> Result<ReturnView, Problem> {
    let (items, request_id) = request.into_items().map_err(invalid)?;
    deed.note(None, Some(&request_id));
    let unknown = || Problem::unknown_order(text);
    let gid: Gid = text.parse().map_err(|_| unknown())?;
    let part = part_of(app, &gid).await?.ok_or_else(unknown)?;
    let view = look_up(app, &gid).await?.ok_or_else(unknown)?;
    if view.status != Status::Succeed {
        return Err(Problem::new(
            StatusCode::CONFLICT,
            "not_sold",
            format!("order {gid} is {}: nothing of it is sold, and nothing was changed", view.status.as_str()),
        ));
    }
    if view.end_told == Some(false) {
        return Err(Problem::new(
            StatusCode::TOO_EARLY,
            "not_told",
            format!("the order service has not heard yet that order {gid} is paid; nothing was changed. Ask again"),
        )
        .retry_after(1));
    }
    // What was sold of an order never changes any more: it may be read before, and from wherever it is.
    let sold = view.confirmed.unwrap_or(view.items);
    check_part(&items, &sold).map_err(invalid)?;
    let terms = part.settings().terms;
    let (mut buyers, mut limits) = (Vec::new(), Vec::new());
    if terms.returns_free_limits {
        buyers.push((view.buyer.clone(), units(&items)));
        // Other keys than the buyer are not in the records, so an order has them no more once it is there.
        for limit in terms.limits.iter().filter(|limit| limit.by == BY_BUYER) {
            let counted: Vec<Item> = items
                .iter()
                .filter(|item| limit.skus.is_empty() || limit.skus.iter().any(|sku| sku == item.sku.as_str()))
                .cloned()
                .collect();
            if !counted.is_empty() {
                limits.push((format!("{}:{}", limit.name(), view.buyer), units(&counted)));
            }
        }
    }
    let what = Return {
        address: Address { entry: gid.entry, index: gid.index },
        request_id: &request_id,
        items: &items,
        sold: &sold,
        buyers: &buyers,
        limits: &limits,
    };
    let answer = app.node.redis.return_units(&part.keys, what).await?;
    crash::point("return.after_script");
    app.node.acknowledge(&part).await?;
    let (all, replayed) = match answer {
        ReturnAnswer::Returned(all) => (all, false),
        ReturnAnswer::Duplicate(all) => (all, true),
        ReturnAnswer::Reused => {
            return Err(Problem::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "request_id_reused",
                format!(
                    "request_id `{request_id}` returned other units of this order before; a new return needs a new one"
                ),
            )
            .field("request_id"));
        }
        ReturnAnswer::TooMany { sku, all } => {
            let back = if all.is_empty() { "nothing".into() } else { items_text(&all) };
            return Err(Problem::new(
                StatusCode::CONFLICT,
                "more_than_sold",
                format!("of {sku} more would come back than was sold; {back} came back earlier. Nothing was changed"),
            )
            .field("quantity"));
        }
    };
    Ok(ReturnView { gid: gid.to_string(), request_id, items, returned: all, replayed })
}

fn units(items: &[Item]) -> u64 {
    items.iter().map(|item| u64::from(item.quantity)).sum()
}
