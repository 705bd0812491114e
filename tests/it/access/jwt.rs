//! JWTs of a login service: signed by a real RSA key, its public half in a JWK set, in a file and at a URL.

use super::{SOON, ask_as};
use crate::support::app::{App, AppOptions, eventually};
use crate::support::servers::program;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// Whoever signs.
struct Issuer {
    directory: TempDir,
    id: &'static str,
}

impl Issuer {
    fn new(id: &'static str) -> Self {
        let issuer = Self { directory: tempfile::tempdir().unwrap(), id };
        issuer.openssl(&["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", "key.pem"]);
        issuer
    }

    fn openssl(&self, arguments: &[&str]) -> Vec<u8> {
        let openssl = program("openssl", &[]);
        let output = Command::new(openssl).args(arguments).current_dir(self.directory.path()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    fn jwk(&self) -> Value {
        let modulus = String::from_utf8(self.openssl(&["rsa", "-in", "key.pem", "-noout", "-modulus"])).unwrap();
        let hex = modulus.trim().strip_prefix("Modulus=").unwrap();
        let bytes: Vec<u8> =
            (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
        json!({"kty": "RSA", "use": "sig", "alg": "RS256", "kid": self.id, "n": URL_SAFE_NO_PAD.encode(bytes), "e": "AQAB"})
    }

    fn token(&self, roles: &[&str], more: Value) -> String {
        let mut claims = json!({"sub": "anna", "iss": "https://login", "aud": ["rushline"], "roles": roles,
            "exp": jiff::Timestamp::now().as_second() + 600});
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let header = json!({"alg": "RS256", "typ": "JWT", "kid": self.id});
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&header), part(&claims));
        std::fs::write(self.directory.path().join("signed"), &signed).unwrap();
        let signature = self.openssl(&["dgst", "-sha256", "-sign", "key.pem", "signed"]);
        format!("Bearer {signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

fn set(issuers: &[&Issuer]) -> String {
    json!({"keys": issuers.iter().map(|issuer| issuer.jwk()).collect::<Vec<_>>()}).to_string()
}

fn options(keys: &str) -> AppOptions {
    AppOptions::default()
        .setting("jwt.keys", keys)
        .setting("jwt.issuer", "https://login")
        .setting("jwt.audience", "rushline")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_service_says_who_may() {
    let (login, other) = (Issuer::new("k1"), Issuer::new("k2"));
    let keys = login.directory.path().join("jwks.json");
    std::fs::write(&keys, set(&[&login])).unwrap();
    let app = App::start(options(&keys.display().to_string())).await;
    let status = async |token: &str| ask_as(&app, token, "GET", "/v1/sales", None).await.status;
    let reader = login.token(&["reader", "bookkeeper"], json!({}));
    for _ in 0..2 {
        let who = ask_as(&app, &reader, "GET", "/v1/whoami", None).await; // the second time from memory
        assert_eq!(who.json, json!({"tokens": true, "name": "anna", "roles": ["reader"]}));
    }
    assert_eq!(status(&login.token(&["bookkeeper"], json!({}))).await, 403);
    let over = login.token(&["reader"], json!({"exp": 1_700_000_000}));
    let refused = ask_as(&app, &over, "GET", "/v1/sales", None).await;
    assert_eq!(refused.status, 401);
    assert!(refused.json["detail"].as_str().unwrap().contains("(exp)"), "{}", refused.json);
    assert_eq!(status(&login.token(&["reader"], json!({"aud": "shop"}))).await, 401);
    assert_eq!(status(&login.token(&["reader"], json!({"iss": "https://other"}))).await, 401);
    let stranger = other.token(&["reader"], json!({}));
    assert_eq!(status(&stranger).await, 401);
    let mut forged = reader.clone();
    let last = forged.pop().unwrap();
    forged.insert(forged.len() - 5, last);
    assert_eq!(status(&forged).await, 401);

    // A key is exchanged: tokens of the old one are over, also those that were looked at before.
    std::fs::write(&keys, set(&[&other])).unwrap();
    eventually("the new key counts", SOON, async || status(&stranger).await == 200).await;
    assert_eq!(status(&reader).await, 401);
}

/// Answers every request with this body, until it is dropped.
async fn serve(address: &str, body: String) -> (tokio::task::JoinHandle<()>, String) {
    let listener = TcpListener::bind(address).await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let task = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 4096]).await;
            let answer =
                format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    (task, address)
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_come_by_url_and_one_that_is_away_is_waited_for() {
    let login = Issuer::new("k1");
    let reserved = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = reserved.local_addr().unwrap().to_string();
    drop(reserved);
    let app = App::start(options(&format!("http://{address}/jwks.json"))).await;
    let reader = login.token(&["reader"], json!({}));
    assert_eq!(ask_as(&app, &reader, "GET", "/v1/sales", None).await.status, 401, "nobody is let in meanwhile");
    assert!(app.log().contains("JWTs are refused until they can be had"), "{}", app.log());
    let (task, _) = serve(&address, set(&[&login])).await;
    app.signal("HUP");
    eventually("its keys are here", SOON, async || ask_as(&app, &reader, "GET", "/v1/sales", None).await.status == 200)
        .await;
    task.abort();
}

#[tokio::test]
async fn keys_that_cannot_be_read_stop_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let keys = directory.path().join("jwks.json");
    std::fs::write(&keys, r#"{"keys":[]}"#).unwrap();
    let run = async |keys: &Path| {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_rushline"));
        command.args(["serve", "--http-listen", "127.0.0.1:0", "--jwt-issuer", "i", "--jwt-audience", "a"]);
        command.arg("--jwt-keys").arg(keys).current_dir(directory.path()).kill_on_drop(true);
        let output = tokio::time::timeout(SOON, command.output()).await.expect("it ends").unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for path in [keys.as_path(), Path::new("nothing.json")] {
        let (code, said) = run(path).await;
        assert!(code == Some(3) && said.contains("(jwt.keys) cannot be used"), "{said}");
    }
}
