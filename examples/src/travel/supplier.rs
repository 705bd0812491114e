//! A third party: an airline, a hotel, a hirer of cars. Each has a file of its own with its places and bookings, and two
//! routes, `/book` and `/cancel`, with the barrier in both.

use crate::serving::Role;
use axum::Router;
use axum::extract::{RawQuery, State};
use axum::response::IntoResponse;
use axum::routing::post;
use rushline::barrier::{BranchBarrier, sql};
use rushline::client::{BranchCall, BranchError, answer};
use sqlx::{Pool, Sqlite, raw_sql};
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long the hotel's desk takes to say yes or no.
const DESK_TAKES: Duration = Duration::from_millis(300);

struct Supplier {
    pool: Pool<Sqlite>,
    role: Role,
    /// Since when the desk has had a request. In memory: after a restart it is asked anew.
    asked: Mutex<HashMap<String, Instant>>,
}

/// A new supplier with so many places.
pub async fn found(store: &str, places: i64) -> anyhow::Result<Pool<Sqlite>> {
    let pool = Pool::connect(&format!("{store}?mode=rwc")).await?;
    sql::create_table(&pool).await?;
    let tables = "CREATE TABLE free (places INTEGER NOT NULL CHECK (places >= 0));
                  CREATE TABLE booking (trip TEXT PRIMARY KEY)";
    raw_sql(tables).execute(&pool).await?;
    sqlx::query("INSERT INTO free VALUES (?)").bind(places).execute(&pool).await?;
    Ok(pool)
}

pub struct Found {
    pub free: i64,
    pub trips: BTreeSet<String>,
}

pub async fn read(pool: &Pool<Sqlite>) -> sqlx::Result<Found> {
    let free = sqlx::query_scalar("SELECT places FROM free").fetch_one(pool).await?;
    let trips: Vec<String> = sqlx::query_scalar("SELECT trip FROM booking").fetch_all(pool).await?;
    Ok(Found { free, trips: trips.into_iter().collect() })
}

pub async fn serve(role: &Role) -> anyhow::Result<()> {
    let pool = Pool::connect(&role.store).await?;
    let supplier = Arc::new(Supplier { pool, role: role.clone(), asked: Mutex::default() });
    let routes = Router::new().route("/book", post(book)).route("/cancel", post(cancel));
    role.serve(routes.with_state(supplier)).await
}

async fn book(State(supplier): State<Arc<Supplier>>, RawQuery(query): RawQuery, trip: String) -> impl IntoResponse {
    answer(supplier.book(&query.unwrap_or_default(), &trip).await)
}

async fn cancel(State(supplier): State<Arc<Supplier>>, RawQuery(query): RawQuery, trip: String) -> impl IntoResponse {
    answer(supplier.cancel(&query.unwrap_or_default(), &trip).await)
}

impl Supplier {
    async fn book(&self, query: &str, trip: &str) -> Result<(), BranchError> {
        let call = BranchCall::from_query(query)?;
        if self.role.role == "hotel" {
            self.ask_the_desk(trip)?;
        }
        let book = async |connection: &mut sqlx::SqliteConnection| {
            let take = "UPDATE free SET places = places - 1 WHERE places > 0";
            if sqlx::query(take).execute(&mut *connection).await?.rows_affected() == 0 {
                return Err(BranchError::failure(format!("{} is full", self.role.role)));
            }
            sqlx::query("INSERT INTO booking VALUES (?)").bind(trip).execute(connection).await?;
            Ok(())
        };
        BranchBarrier::new(call).call(&self.pool, book).await?;
        self.role.may_die_at("booked");
        Ok(())
    }

    async fn cancel(&self, query: &str, trip: &str) -> Result<(), BranchError> {
        let call = BranchCall::from_query(query)?;
        let cancel = async |connection: &mut sqlx::SqliteConnection| {
            sqlx::query("UPDATE free SET places = places + 1").execute(&mut *connection).await?;
            sqlx::query("DELETE FROM booking WHERE trip = ?").bind(trip).execute(connection).await?;
            Ok(())
        };
        BranchBarrier::new(call).call(&self.pool, cancel).await?;
        self.role.may_die_at("cancelled");
        Ok(())
    }

    /// Slow, but no one has to wait on the line: "ongoing" means ask again.
    fn ask_the_desk(&self, trip: &str) -> Result<(), BranchError> {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let since = *asked.entry(trip.to_owned()).or_insert_with(Instant::now);
        if since.elapsed() < DESK_TAKES {
            return Err(BranchError::ongoing("the desk has not answered yet"));
        }
        Ok(())
    }
}
