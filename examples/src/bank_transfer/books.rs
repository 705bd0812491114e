//! The books of a bank: what a booking is in MySQL and in PostgreSQL.
//!
//! An account has `balance`, which its owner may spend; `held`, which has left the balance and not the bank; `coming`,
//! which is announced and not there. A journal has a line for whatever came into the bank or left it, with its gid.

use anyhow::Context;
use rushline::barrier::{sql, xa};
use rushline::client::{BranchError, op};
use sqlx::{MySql, MySqlConnection, PgConnection, Pool, Postgres, raw_sql};
use std::collections::BTreeMap;

/// An account that takes no money any more.
pub const CLOSED: i32 = 9;
pub const OPENED_WITH: i64 = 1000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Out,
    In,
}

/// What a call does to an account.
#[derive(Debug, Clone, Copy, Default)]
pub struct Change {
    balance: i64,
    held: i64,
    coming: i64,
    /// Whether the account may say no. What undoes or completes may not be refused.
    may_refuse: bool,
}

impl Change {
    /// The whole business, for all three modes: a saga and XA have actions, TCC tries first.
    pub fn of(side: Side, op: &str, amount: i64) -> Result<Self, BranchError> {
        let none = Self::default();
        Ok(match (side, op) {
            (Side::Out, op::ACTION) => Self { balance: -amount, may_refuse: true, ..none },
            (Side::Out, op::COMPENSATE) => Self { balance: amount, ..none },
            (Side::Out, op::TRY) => Self { balance: -amount, held: amount, may_refuse: true, ..none },
            (Side::Out, op::CONFIRM) => Self { held: -amount, ..none },
            (Side::Out, op::CANCEL) => Self { balance: amount, held: -amount, ..none },
            (Side::In, op::ACTION) => Self { balance: amount, may_refuse: true, ..none },
            (Side::In, op::COMPENSATE) => Self { balance: -amount, ..none },
            (Side::In, op::TRY) => Self { coming: amount, may_refuse: true, ..none },
            (Side::In, op::CONFIRM) => Self { balance: amount, coming: -amount, ..none },
            (Side::In, op::CANCEL) => Self { coming: -amount, ..none },
            (_, other) => return Err(BranchError::other(format!("`{other}` is nothing that a bank is asked"))),
        })
    }

    /// What comes into the bank (or leaves it, below 0).
    fn moved(&self) -> i64 {
        self.balance + self.held
    }
}

/// What is found in a bank's books.
#[derive(Debug, Default)]
pub struct Found {
    pub money: i64,
    /// Held or coming: of transfers that are not over.
    pub pending: i64,
    /// What came in or left, by gid.
    pub journal: BTreeMap<String, i64>,
    /// XA transactions that wait for their second phase.
    pub prepared: i64,
}

/// A database with a bank's books in it.
pub trait Books: xa::Xa {
    /// The tables, and the customers 1 to 4 with [`OPENED_WITH`] each, if they are not there.
    fn open_accounts(pool: &Pool<Self>) -> impl Future<Output = sqlx::Result<()>> + Send;

    fn read(pool: &Pool<Self>) -> impl Future<Output = sqlx::Result<Found>> + Send;

    /// Books it, or says why not. In the caller's local transaction, beside the barrier.
    fn book(
        connection: &mut Self::Connection,
        gid: &str,
        account: i32,
        change: Change,
    ) -> impl Future<Output = Result<(), BranchError>> + Send;
}

/// The same words in both.
const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS account (id INT PRIMARY KEY, balance BIGINT NOT NULL, held BIGINT NOT NULL DEFAULT 0,
        coming BIGINT NOT NULL DEFAULT 0, open BOOLEAN NOT NULL);
    CREATE TABLE IF NOT EXISTS journal (gid VARCHAR(128) NOT NULL, account INT NOT NULL, amount BIGINT NOT NULL)";

/// A new bank. Not for a bank's every start: a row that a prepared XA transaction holds would keep it from coming up, and
/// only the bank itself can end that transaction.
pub async fn found<DB: Books>(url: &str) -> anyhow::Result<Pool<DB>> {
    let pool = connect(url).await?;
    sql::create_table(&pool).await?;
    DB::open_accounts(&pool).await?;
    Ok(pool)
}

pub async fn connect<DB: Books>(url: &str) -> anyhow::Result<Pool<DB>> {
    Pool::connect(url).await.context("a bank does not reach its database")
}

impl Books for MySql {
    async fn open_accounts(pool: &Pool<Self>) -> sqlx::Result<()> {
        raw_sql(TABLES).execute(pool).await?;
        let accounts = "
            INSERT IGNORE INTO account (id, balance, open)
                VALUES (1, 1000, TRUE), (2, 1000, TRUE), (3, 1000, TRUE), (4, 1000, TRUE), (9, 1000, FALSE)";
        raw_sql(accounts).execute(pool).await.map(|_| ())
    }

    async fn book(
        connection: &mut MySqlConnection,
        gid: &str,
        account: i32,
        change: Change,
    ) -> Result<(), BranchError> {
        let update = sqlx::query(
            "UPDATE account SET balance = balance + ?, held = held + ?, coming = coming + ? \
             WHERE id = ? AND (NOT ? OR (open AND balance >= -?))",
        );
        let update = update.bind(change.balance).bind(change.held).bind(change.coming).bind(account);
        let updated = update.bind(change.may_refuse).bind(change.balance).execute(&mut *connection).await?;
        expect_booked(account, updated.rows_affected())?;
        if change.moved() != 0 {
            let line = sqlx::query("INSERT INTO journal (gid, account, amount) VALUES (?, ?, ?)");
            line.bind(gid).bind(account).bind(change.moved()).execute(connection).await?;
        }
        Ok(())
    }

    async fn read(pool: &Pool<Self>) -> sqlx::Result<Found> {
        let accounts = sqlx::query_as("SELECT balance, held, coming FROM account").fetch_all(pool).await?;
        let journal = sqlx::query_as("SELECT gid, amount FROM journal").fetch_all(pool).await?;
        let prepared = raw_sql("XA RECOVER").fetch_all(pool).await?.len();
        Ok(Found::sum(accounts, journal, prepared as i64))
    }
}

impl Books for Postgres {
    async fn open_accounts(pool: &Pool<Self>) -> sqlx::Result<()> {
        raw_sql(TABLES).execute(pool).await?;
        let accounts = "
            INSERT INTO account (id, balance, open)
                VALUES (1, 1000, TRUE), (2, 1000, TRUE), (3, 1000, TRUE), (4, 1000, TRUE), (9, 1000, FALSE)
                ON CONFLICT DO NOTHING";
        raw_sql(accounts).execute(pool).await.map(|_| ())
    }

    async fn book(connection: &mut PgConnection, gid: &str, account: i32, change: Change) -> Result<(), BranchError> {
        let update = sqlx::query(
            "UPDATE account SET balance = balance + $1, held = held + $2, coming = coming + $3 \
             WHERE id = $4 AND (NOT $5 OR (open AND balance >= -$1))",
        );
        let update = update.bind(change.balance).bind(change.held).bind(change.coming).bind(account);
        let updated = update.bind(change.may_refuse).execute(&mut *connection).await?;
        expect_booked(account, updated.rows_affected())?;
        if change.moved() != 0 {
            let line = sqlx::query("INSERT INTO journal (gid, account, amount) VALUES ($1, $2, $3)");
            line.bind(gid).bind(account).bind(change.moved()).execute(connection).await?;
        }
        Ok(())
    }

    async fn read(pool: &Pool<Self>) -> sqlx::Result<Found> {
        let accounts = sqlx::query_as("SELECT balance, held, coming FROM account").fetch_all(pool).await?;
        let journal = sqlx::query_as("SELECT gid, amount FROM journal").fetch_all(pool).await?;
        let prepared = sqlx::query_scalar("SELECT count(*) FROM pg_prepared_xacts").fetch_one(pool).await?;
        Ok(Found::sum(accounts, journal, prepared))
    }
}

fn expect_booked(account: i32, rows: u64) -> Result<(), BranchError> {
    match rows {
        1 => Ok(()),
        _ => Err(BranchError::failure(format!("account {account} has too little, or is closed"))),
    }
}

impl Found {
    fn sum(accounts: Vec<(i64, i64, i64)>, journal: Vec<(String, i64)>, prepared: i64) -> Self {
        let mut found = Self { prepared, ..Self::default() };
        for (balance, held, coming) in accounts {
            found.money += balance + held;
            found.pending += held.abs() + coming.abs();
        }
        for (gid, amount) in journal {
            *found.journal.entry(gid).or_default() += amount;
        }
        // A transfer that was booked and booked back again.
        found.journal.retain(|_, amount| *amount != 0);
        found
    }
}
