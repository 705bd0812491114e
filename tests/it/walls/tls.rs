//! TLS to the stores: PostgreSQL with a certificate that is checked. Redis is in `scale/secure.rs`, etcd in `registry/`.

use crate::support::app::{App, AppOptions};
use crate::support::certificates::make_certificates;
use crate::support::servers::Postgres;
use crate::support::shop::Shop;
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn records_go_to_a_postgres_whose_certificate_is_checked() {
    let mut postgres = Postgres::start().await;
    make_certificates(postgres.process());
    let directory = postgres.process().directory().to_owned();
    let path = |name: &str| directory.join(name).to_str().unwrap().to_owned();
    postgres.kill9();
    postgres.with_tls(&path("server.pem"), &path("server.key"));
    postgres.restart().await;
    let url = |ca: &str| format!("{}?sslmode=verify-full&sslrootcert={ca}", postgres.url());
    let doctor = |url: &str| {
        let output =
            std::process::Command::new(env!("CARGO_BIN_EXE_rushline")).args(["doctor", "--records-url", url]).output();
        String::from_utf8_lossy(&output.unwrap().stdout).into_owned()
    };
    // A certificate that somebody else signed is none.
    let stranger = tempfile::tempdir().unwrap();
    let other = stranger.path().join("ca.pem");
    let (key, other) = (stranger.path().join("ca.key"), other.to_str().unwrap());
    let made = std::process::Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=stranger", "-keyout", key.to_str().unwrap(), "-out", other])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let said = doctor(&url(other));
    assert!(said.contains("certificate") || said.contains("UnknownIssuer"), "{said}");

    let app = App::start(AppOptions::default().quick().records(&url(&path("ca.pem")))).await;
    let shop = Shop::start().await;
    app.create_sale(&json!({
        "sale": "s", "items": [{"sku": "sku-1", "units": 1}], "durability": "memory", "order_endpoint": shop.endpoint(),
    }))
    .await;
    let placed = app.order("s", "", &json!({"buyer": "u1", "items": [{"sku": "sku-1", "quantity": 1}]})).await;
    assert_eq!(placed.status, 201, "{}", placed.json);
    let settled = app.wait_until_settled("s").await;
    assert_eq!(settled["drift"], 0, "{settled}");
    let connected = sqlx::query_scalar::<_, i64>(
        "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE ssl AND datname = 'rushline'",
    );
    let mut connection = <sqlx::PgConnection as sqlx::Connection>::connect(&postgres.url()).await.unwrap();
    assert!(connected.fetch_one(&mut connection).await.unwrap() > 0, "the server's connections are encrypted");
}
