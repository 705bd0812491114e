//! `POST /v1/orders/{gid}/retry`: an order that waits for its next call is called now, by whichever node has it.

use super::changes::Done;
use super::deed::Deed;
use super::problem::Problem;
use super::{App, changes, orders};
use crate::domain::ids::Gid;
use crate::domain::order::Status;
use crate::store::orders::Address;
use axum::Json;
use axum::extract::{Path, State};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use std::sync::Arc;

pub async fn retry(
    State(app): State<Arc<App>>,
    Path(text): Path<String>,
    headers: HeaderMap,
    deed: Deed,
    body: Bytes,
) -> Result<Json<Done>, Problem> {
    let unknown = || Problem::unknown_order(&text);
    let gid: Gid = text.parse().map_err(|_| unknown())?;
    let note = changes::by_hand(&headers, &deed, &body)?;
    let view = orders::look_up(&app, &gid).await?.ok_or_else(unknown)?;
    let open = app.node.open(&gid.sale).await?;
    let part = open.and_then(|open| open.part(gid.partition)).ok_or_else(unknown)?;
    if view.status != Status::Submitted {
        return Err(Problem::new(
            StatusCode::CONFLICT,
            "over",
            format!("the order service has answered for {gid}: {}. Nothing was changed", view.status.as_str()),
        ));
    }
    app.node.redis.ask_again(&part.keys, Address { entry: gid.entry, index: gid.index }).await?;
    tracing::info!(%gid, who = note.who, why = note.why, "an order is to be tried again now");
    Ok(Json(Done { gid: gid.to_string(), status: view.status.as_str() }))
}
