//! Barriers, each story told on PostgreSQL, MariaDB, SQLite, MongoDB and Redis.

mod interop;
mod races;
mod sequences;
mod shop;
mod stories;
mod xa;

use crate::support::servers::{MariaDb, Mongod, Postgres, RedisVersion};
use crate::support::shared;
use shop::Shop;

async fn tell_all(shop: &Shop) {
    stories::an_action_and_its_compensation(shop).await;
    stories::an_empty_compensation_keeps_the_late_action_out(shop).await;
    stories::every_undoing_is_empty_without_what_it_undoes(shop).await;
    stories::a_repeat_for_the_last_unit_is_a_repeat(shop).await;
    stories::a_refused_call_leaves_no_mark(shop).await;
    stories::a_message_is_asked_about_after_it_happened(shop).await;
    stories::a_message_is_asked_about_before_it_happened(shop).await;
    stories::the_calls_of_one_handler_are_counted(shop).await;
    sequences::stores_and_model_agree(shop).await;
    races::calls_that_meet_have_one_result(shop).await;
    races::a_check_back_that_meets_its_message_is_final(shop).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn barriers_in_postgresql() {
    let server = Postgres::start().await;
    let pool = sqlx::PgPool::connect(&server.url()).await.unwrap();
    let shop = Shop::postgres(pool.clone()).await;
    tell_all(&shop).await;
    let url = format!("{}?sslmode=disable", server.url());
    interop::go_and_rust_serve_one_branch(&shop, "postgres", &url).await;
    xa::tell_all(&pool).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn barriers_in_mariadb() {
    let server = MariaDb::start().await;
    let pool = sqlx::MySqlPool::connect(&server.url()).await.unwrap();
    let shop = Shop::mariadb(pool.clone()).await;
    tell_all(&shop).await;
    let url = server.url().replace("mysql://", "").replace('@', "@tcp(").replace("/rushline", ")/rushline");
    interop::go_and_rust_serve_one_branch(&shop, "mysql", &url).await;
    xa::tell_all(&pool).await;
    stories::a_gid_that_would_be_cut_is_refused(&pool).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn barriers_in_sqlite() {
    let directory = tempfile::tempdir().unwrap();
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(directory.path().join("shop.db"));
    let options = options.create_if_missing(true).journal_mode(sqlx::sqlite::SqliteJournalMode::Wal);
    let pool = sqlx::SqlitePool::connect_with(options).await.unwrap();
    tell_all(&Shop::sqlite(pool.clone()).await).await;
    stories::another_table_serves_calls_and_check_backs(&pool).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn barriers_in_mongodb() {
    let server = Mongod::start().await;
    let client = mongodb::Client::with_uri_str(server.url()).await.unwrap();
    let shop = Shop::mongodb(client).await;
    tell_all(&shop).await;
    interop::go_and_rust_serve_one_branch(&shop, "mongo", &server.url()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn barriers_in_redis() {
    for version in [RedisVersion::V7, RedisVersion::V8] {
        let server = shared::redis(version).await;
        let client = redis::Client::open(server.url()).unwrap();
        let connection = client.get_multiplexed_async_connection().await.unwrap();
        let shop = Shop::Redis(connection.clone());
        tell_all(&shop).await;
        interop::go_and_rust_serve_one_branch(&shop, "redis", &server.url()).await;
        stories::a_mark_expires_and_a_text_is_no_amount(connection).await;
    }
}
