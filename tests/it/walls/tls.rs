//! TLS to the stores of records, with certificates that are checked. Redis is in `scale/secure.rs`, etcd in `registry/`.

use crate::support::app::{App, AppOptions};
use crate::support::certificates::make_certificates;
use crate::support::process::Process;
use crate::support::servers::{MariaDb, Mongod, Postgres};
use crate::support::shop::Shop;
use serde_json::json;
use std::path::Path;
use std::process::Command;

/// Made for this server: who signed, its certificate, its key.
fn certificates(server: &Process) -> [String; 3] {
    make_certificates(server);
    ["ca.pem", "server.pem", "server.key"].map(|name| server.directory().join(name).to_str().unwrap().to_owned())
}

/// The certificate of somebody else, in this directory.
fn strangers(directory: &Path) -> String {
    let (key, certificate) = (directory.join("ca.key"), directory.join("ca.pem"));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=stranger", "-keyout", key.to_str().unwrap(), "-out", certificate.to_str().unwrap()])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    certificate.to_str().unwrap().to_owned()
}

/// An order goes to the records at the URL that belongs to the right certificate of an authority, and with another one the
/// doctor says why it would not.
async fn an_order_is_recorded(url: impl Fn(&str) -> String, ca: &str) {
    // A certificate that somebody else signed is none.
    let elsewhere = tempfile::tempdir().unwrap();
    let wrong = url(&strangers(elsewhere.path()));
    let doctor = Command::new(env!("CARGO_BIN_EXE_rushline")).args(["doctor", "--records-url", &wrong]).output();
    let said = String::from_utf8_lossy(&doctor.unwrap().stdout).into_owned();
    assert!(said.contains("certificate") || said.contains("UnknownIssuer"), "{said}");

    let app = App::start(AppOptions::default().quick().records(&url(ca))).await;
    let shop = Shop::start().await;
    app.create_sale(&json!({
        "sale": "s", "items": [{"sku": "sku-1", "units": 1}], "durability": "memory", "order_endpoint": shop.endpoint(),
    }))
    .await;
    let placed = app.order("s", "", &json!({"buyer": "u1", "items": [{"sku": "sku-1", "quantity": 1}]})).await;
    assert_eq!(placed.status, 201, "{}", placed.json);
    let settled = app.wait_until_settled("s").await;
    assert_eq!((&settled["drift"], &settled["records"]["succeed"]), (&json!(0), &json!(1)), "{settled}");
}

#[tokio::test(flavor = "multi_thread")]
async fn records_go_to_a_postgres_whose_certificate_is_checked() {
    let mut postgres = Postgres::start().await;
    let [ca, certificate, key] = certificates(postgres.process());
    postgres.kill9();
    postgres.with_tls(&certificate, &key);
    postgres.restart().await;
    an_order_is_recorded(|ca| format!("{}?sslmode=verify-full&sslrootcert={ca}", postgres.url()), &ca).await;
}

/// It takes no connection that is not encrypted.
#[tokio::test(flavor = "multi_thread")]
async fn records_go_to_a_mariadb_whose_certificate_is_checked() {
    let mut mariadb = MariaDb::start().await;
    let [ca, certificate, key] = certificates(mariadb.process());
    mariadb.kill9();
    mariadb.with_tls(&certificate, &key);
    mariadb.restart().await;
    an_order_is_recorded(|ca| format!("{}?ssl-mode=VERIFY_IDENTITY&ssl-ca={ca}", mariadb.url()), &ca).await;
}

/// It takes no connection that is not encrypted.
#[tokio::test(flavor = "multi_thread")]
async fn records_go_to_a_mongodb_whose_certificate_is_checked() {
    let mut mongod = Mongod::start().await;
    let [ca, ..] = certificates(mongod.process());
    mongod.kill9();
    mongod.with_tls();
    mongod.restart().await;
    an_order_is_recorded(|ca| format!("{}&tls=true&tlsCAFile={ca}", mongod.url()), &ca).await;
}
