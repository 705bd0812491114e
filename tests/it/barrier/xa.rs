//! The branch's side of XA, on MariaDB and PostgreSQL.

use crate::support::shared::unique;
use rushline::barrier::xa::{self, Xa};
use rushline::branch_call::BranchCall;
use rushline::branch_error::BranchError;
use sqlx::{MySql, Pool, Postgres};
use std::sync::atomic::{AtomicBool, Ordering};

/// What differs between the two in these tests.
pub trait Bank: Xa {
    /// Gives the account one unit.
    async fn pay(connection: &mut Self::Connection, account: &str) -> Result<(), BranchError>;
    async fn open(pool: &Pool<Self>, account: &str);
    async fn balance(pool: &Pool<Self>, account: &str) -> i64;
    /// The names of all prepared transactions.
    async fn prepared(pool: &Pool<Self>) -> Vec<String>;
}

impl Bank for Postgres {
    async fn pay(connection: &mut Self::Connection, account: &str) -> Result<(), BranchError> {
        let pay = "UPDATE account SET balance = balance + 1 WHERE id = $1";
        sqlx::query(pay).bind(account).execute(connection).await?;
        Ok(())
    }
    async fn open(pool: &Pool<Self>, account: &str) {
        sqlx::query("INSERT INTO account VALUES ($1, 0)").bind(account).execute(pool).await.unwrap();
    }
    async fn balance(pool: &Pool<Self>, account: &str) -> i64 {
        sqlx::query_scalar("SELECT balance FROM account WHERE id = $1").bind(account).fetch_one(pool).await.unwrap()
    }
    async fn prepared(pool: &Pool<Self>) -> Vec<String> {
        sqlx::query_scalar("SELECT gid FROM pg_prepared_xacts").fetch_all(pool).await.unwrap()
    }
}

impl Bank for MySql {
    async fn pay(connection: &mut Self::Connection, account: &str) -> Result<(), BranchError> {
        let pay = "UPDATE account SET balance = balance + 1 WHERE id = ?";
        sqlx::query(pay).bind(account).execute(connection).await?;
        Ok(())
    }
    async fn open(pool: &Pool<Self>, account: &str) {
        sqlx::query("INSERT INTO account VALUES (?, 0)").bind(account).execute(pool).await.unwrap();
    }
    async fn balance(pool: &Pool<Self>, account: &str) -> i64 {
        sqlx::query_scalar("SELECT balance FROM account WHERE id = ?").bind(account).fetch_one(pool).await.unwrap()
    }
    async fn prepared(pool: &Pool<Self>) -> Vec<String> {
        let rows: Vec<(i64, i64, i64, Vec<u8>)> =
            sqlx::query_as("XA RECOVER").fetch_all(pool).await.expect("XA RECOVER");
        rows.into_iter().map(|(_, _, _, name)| String::from_utf8(name).unwrap()).collect()
    }
}

pub async fn tell_all<DB: Bank>(pool: &Pool<DB>)
where
    for<'c> &'c mut DB::Connection: sqlx::Executor<'c, Database = DB>,
{
    a_branch_is_prepared_and_committed_once(pool).await;
    a_branch_is_prepared_and_rolled_back(pool).await;
    a_roll_back_that_comes_first_keeps_the_branch_out(pool).await;
    a_refused_branch_leaves_nothing(pool).await;
    a_commit_of_nothing_is_no_success(pool).await;
    a_name_that_is_too_long_is_refused(pool).await;
}

fn call(gid: &str, op: &str) -> BranchCall {
    BranchCall::new("xa", gid, "01", op).unwrap()
}

async fn first_phase<DB: Bank>(pool: &Pool<DB>, gid: &str) -> Result<Option<()>, BranchError> {
    xa::branch(pool, &call(gid, "action"), async |connection| DB::pay(connection, gid).await, async || Ok(())).await
}

/// The second phase; again while the database still holds the first one's connection.
async fn second_phase<DB: Bank>(pool: &Pool<DB>, gid: &str, op: &str) -> Result<Option<()>, BranchError> {
    let mut tries = 0;
    loop {
        let never = async |_: &mut DB::Connection| -> Result<(), BranchError> { panic!("{op} runs no business") };
        match xa::branch(pool, &call(gid, op), never, async || panic!("{op} registers nothing")).await {
            Err(BranchError::Other(_)) if tries < 200 => tries += 1,
            decided => return decided,
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

async fn a_branch_is_prepared_and_committed_once<DB: Bank>(pool: &Pool<DB>) {
    let gid = unique("xa's \\ \"c\"");
    DB::open(pool, &gid).await;
    assert_eq!(first_phase(pool, &gid).await.unwrap(), Some(()));
    assert_eq!(DB::prepared(pool).await, [format!("{gid}-01")], "dtm's name for it");
    assert_eq!(DB::balance(pool, &gid).await, 0);
    for _ in 0..3 {
        assert_eq!(second_phase(pool, &gid, "commit").await.unwrap(), None);
        assert_eq!(DB::balance(pool, &gid).await, 1);
    }
    assert!(first_phase(pool, &gid).await.unwrap_err().is_failure(), "it has run before");
    assert_eq!(DB::balance(pool, &gid).await, 1);
    assert_eq!(DB::prepared(pool).await, Vec::<String>::new());
}

async fn a_branch_is_prepared_and_rolled_back<DB: Bank>(pool: &Pool<DB>) {
    let gid = unique("xa-r");
    DB::open(pool, &gid).await;
    first_phase(pool, &gid).await.unwrap();
    for _ in 0..3 {
        assert_eq!(second_phase(pool, &gid, "rollback").await.unwrap(), None);
    }
    assert_eq!(DB::balance(pool, &gid).await, 0);
    assert_eq!(DB::prepared(pool).await, Vec::<String>::new());
}

async fn a_roll_back_that_comes_first_keeps_the_branch_out<DB: Bank>(pool: &Pool<DB>) {
    let gid = unique("xa-early");
    DB::open(pool, &gid).await;
    second_phase(pool, &gid, "rollback").await.unwrap();
    let error = first_phase(pool, &gid).await.unwrap_err();
    assert!(error.is_failure(), "{error}");
    assert_eq!(DB::balance(pool, &gid).await, 0);
    let mut connection = pool.acquire().await.unwrap();
    DB::execute(&mut connection, format!("DELETE FROM {} WHERE gid = '{gid}' AND reason = 'rollback'", DB::TABLE))
        .await
        .unwrap();
    drop(connection);
    first_phase(pool, &gid).await.expect("it was the row that kept it out");
    second_phase(pool, &gid, "rollback").await.unwrap();
}

async fn a_refused_branch_leaves_nothing<DB: Bank>(pool: &Pool<DB>) {
    let gid = unique("xa-no");
    DB::open(pool, &gid).await;
    let registered = AtomicBool::new(false);
    let business = async |connection: &mut DB::Connection| {
        DB::pay(connection, &gid).await?;
        Err::<(), _>(BranchError::failure("no money"))
    };
    let register = async || {
        registered.store(true, Ordering::Relaxed);
        Ok(())
    };
    let error = xa::branch(pool, &call(&gid, "action"), business, register).await.unwrap_err();
    assert_eq!(error.to_string(), "no money FAILURE");
    assert!(!registered.into_inner(), "it is not registered");
    let pay = async |connection: &mut DB::Connection| DB::pay(connection, &gid).await;
    let refused = async || Err(BranchError::failure("timed out"));
    let error = xa::branch(pool, &call(&gid, "action"), pay, refused).await.unwrap_err();
    assert_eq!(error.to_string(), "timed out FAILURE", "the coordinator has given it up");
    assert_eq!((DB::balance(pool, &gid).await, DB::prepared(pool).await), (0, vec![]));
}

/// dtm would take a transaction that is not known yet for one that is done.
async fn a_commit_of_nothing_is_no_success<DB: Bank>(pool: &Pool<DB>) {
    let gid = unique("xa-none");
    let pay = async |connection: &mut DB::Connection| DB::pay(connection, "nobody").await;
    let error = xa::branch(pool, &call(&gid, "commit"), pay, async || Ok(())).await.unwrap_err();
    assert!(matches!(error, BranchError::Other(_)), "{error}");
}

async fn a_name_that_is_too_long_is_refused<DB: Bank>(pool: &Pool<DB>) {
    let gid = "g".repeat(DB::XID_BYTES_MAX - 2);
    let error = first_phase(pool, &gid).await.unwrap_err().to_string();
    assert!(error.ends_with("nothing was done"), "{error}");
}
