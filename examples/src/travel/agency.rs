//! The travel agency: a trip is a workflow of three bookings. It keeps nothing itself; what a step came to is kept by
//! rushline, which calls `/workflows` when a trip is to go on.

use super::SUPPLIERS;
use crate::serving::Role;
use axum::Router;
use axum::extract::{RawQuery, State};
use axum::response::IntoResponse;
use axum::routing::post;
use rushline::client::{BranchError, Bytes, Client, Error, Payload, StatusCode, Workflow, Workflows};
use std::sync::Arc;

pub async fn serve(role: &Role) -> anyhow::Result<()> {
    let agency = Arc::new(Agency { suppliers: role.store.split(',').map(str::to_owned).collect(), role: role.clone() });
    let workflows = Client::http(&role.coordinator)?
        .workflows(format!("http://127.0.0.1:{}/workflows", role.port))
        // A run that rushline has continued may meet one that was only slow. Then a refusal may be old news: a place came
        // free, and the other run took it. So what refused is cancelled too; the barrier knows if there is anything to cancel.
        .compensate_failed_branch()
        .register("trip", move |workflow, trip| agency.clone().book(workflow, trip))?;
    let routes = Router::new().route("/trip", post(trip)).route("/workflows", post(resume));
    role.serve(routes.with_state(workflows)).await
}

/// What a customer orders; the body is the trip's name, and its gid too: ordered twice, it is one trip.
async fn trip(State(workflows): State<Workflows>, trip: String) -> impl IntoResponse {
    match workflows.execute("trip", trip.clone(), trip).await {
        Ok(_) => (StatusCode::OK, "booked".to_owned()),
        Err(Error::Failure { reason }) => (StatusCode::CONFLICT, reason),
        Err(Error::Interrupted { cause, .. }) => (StatusCode::ACCEPTED, format!("under way: {cause}")),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
    }
}

async fn resume(State(workflows): State<Workflows>, RawQuery(query): RawQuery, body: Bytes) -> impl IntoResponse {
    workflows.resume(&query.unwrap_or_default(), body).await
}

struct Agency {
    role: Role,
    /// Addresses, in the order of [`SUPPLIERS`].
    suppliers: Vec<String>,
}

impl Agency {
    async fn book(self: Arc<Self>, workflow: Workflow, trip: Bytes) -> Result<Bytes, BranchError> {
        for (name, url) in SUPPLIERS.iter().zip(&self.suppliers) {
            let (cancel, order) = (format!("{url}/cancel"), trip.clone());
            workflow
                .branch()?
                .on_rollback(move |step| async move { step.post(cancel, Payload::bytes(order)).await.map(drop) })
                .post(format!("{url}/book"), Payload::bytes(trip.clone()))
                .await?;
            self.role.may_die_at(&format!("{name} is booked"));
        }
        Ok(Bytes::from_static(b"booked"))
    }
}
