//! What Redis lost of a sale, and bringing it back.

use super::App;
use super::orders::wait_of;
use super::problem::Problem;
use super::sales::open;
use crate::reconciler::repair::{self, Gids, Report};
use axum::Json;
use axum::extract::{Path, RawQuery, State};
use http::StatusCode;
use std::sync::Arc;

/// `GET /v1/sales/{sale}/lost`: gids that were acknowledged, that Redis lost, and that are not brought back yet.
pub async fn lost(State(app): State<Arc<App>>, Path(name): Path<String>) -> Result<Json<Gids>, Problem> {
    let open = open(&app, &name).await?;
    Ok(Json(repair::lost(&app.node, &open).await?))
}

/// `POST /v1/sales/{sale}/repair[?wait_ms=&whole=true]`
pub async fn repair(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Json<Report>, Problem> {
    let wait = wait_of(&app, query.as_deref())?;
    let open = open(&app, &name).await?;
    let mut asked = url::form_urlencoded::parse(query.as_deref().unwrap_or_default().as_bytes());
    let whole = match asked.find(|(name, _)| name == "whole").as_ref().map(|(_, value)| value.as_ref()) {
        None | Some("false") => false,
        Some("true") => true,
        Some(other) => {
            let rule = format!("whole: must be true or false, got `{other}`; nothing was repaired");
            return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_query", rule).field("whole"));
        }
    };
    repair::repair(&app.node, &app.records, &open, wait, whole).await.map(Json).map_err(|error| {
        Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "repair_incomplete",
            format!(
                "the repair came to a halt: {error:#}. What it has done is done; run it again, it goes on from there"
            ),
        )
        .retry_after(2)
    })
}
