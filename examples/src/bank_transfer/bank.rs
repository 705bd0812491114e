//! A bank: two routes, `/out` and `/in`, for every mode and every op. The barrier is in all of them.

use super::books::{self, Books, Change, Side};
use crate::serving::Role;
use anyhow::bail;
use axum::Router;
use axum::extract::{RawQuery, State};
use axum::response::IntoResponse;
use axum::routing::post;
use rushline::barrier::{BranchBarrier, xa};
use rushline::client::{BranchCall, BranchError, Client, answer};
use serde::{Deserialize, Serialize};
use sqlx::{MySql, Pool, Postgres};
use std::sync::Arc;

/// What a bank is told to do with one account.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Order {
    pub account: i32,
    pub amount: i64,
}

impl Order {
    pub fn new(account: i32, amount: i64) -> Self {
        Self { account, amount }
    }
}

struct Bank<DB: Books> {
    pool: Pool<DB>,
    client: Client,
    role: Role,
}

pub async fn serve(role: &Role) -> anyhow::Result<()> {
    let client = Client::http(&role.coordinator)?;
    let role = role.clone();
    match role.role.as_str() {
        "bank-a" => serve_bank(Bank { pool: books::connect::<MySql>(&role.store).await?, client, role }).await,
        "bank-b" => serve_bank(Bank { pool: books::connect::<Postgres>(&role.store).await?, client, role }).await,
        other => bail!("there is no {other}; bank-a or bank-b"),
    }
}

async fn serve_bank<DB: Books>(bank: Bank<DB>) -> anyhow::Result<()> {
    let bank = Arc::new(bank);
    let routes = Router::new().route("/out", post(take_out::<DB>)).route("/in", post(take_in::<DB>));
    bank.role.serve(routes.with_state(bank.clone())).await
}

async fn take_out<DB: Books>(
    State(bank): State<Arc<Bank<DB>>>,
    RawQuery(query): RawQuery,
    order: String,
) -> impl IntoResponse {
    answer(bank.book(Side::Out, &query.unwrap_or_default(), &order).await)
}

async fn take_in<DB: Books>(
    State(bank): State<Arc<Bank<DB>>>,
    RawQuery(query): RawQuery,
    order: String,
) -> impl IntoResponse {
    answer(bank.book(Side::In, &query.unwrap_or_default(), &order).await)
}

impl<DB: Books> Bank<DB> {
    async fn book(&self, side: Side, query: &str, order: &str) -> Result<(), BranchError> {
        let call = BranchCall::from_query(query)?;
        let book = async |connection: &mut DB::Connection| {
            let Order { account, amount } = serde_json::from_str(order)?;
            DB::book(connection, &call.gid, account, Change::of(side, &call.op, amount)?).await
        };
        if call.trans_type == "xa" {
            // Its second phase is the database's, and comes without an order.
            let register = async || Ok(self.client.register_xa_branch(&call).await?);
            xa::branch(&self.pool, &call, book, register).await?;
        } else {
            BranchBarrier::new(call.clone()).call(&self.pool, book).await?;
        }
        // The worst moment: it is committed, and nobody has heard so.
        self.role.may_die_at(&format!("{} {}", call.trans_type, call.op));
        Ok(())
    }
}
