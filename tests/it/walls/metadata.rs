//! A cloud's metadata address, with somebody listening there: whatever anybody submits, nobody may come.
//!
//! The story runs in a network of its own, where the address is this machine's and names are resolved by a server that says
//! what an attacker's would: another address each time that it is asked.

use super::SOON;
use super::reach::SPELLINGS;
use crate::support::app::{App, AppOptions, eventually};
use crate::support::hazard::is_missing;
use crate::support::services::Service;
use axum::response::Redirect;
use serde_json::{Value, json};
use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

const INSIDE: &str = "RUSHLINE_TEST_INSIDE";
const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
const NAME: &str = "walls::metadata::nobody_comes_to_the_metadata_address";

/// Begins once more, inside.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_comes_to_the_metadata_address() {
    if std::env::var_os(INSIDE).is_some() {
        return inside().await;
    }
    let directory = tempfile::tempdir().unwrap();
    let (resolver, names) = (directory.path().join("resolv.conf"), directory.path().join("nsswitch.conf"));
    std::fs::write(&resolver, "nameserver 127.0.0.1\noptions timeout:1 attempts:2\n").unwrap();
    std::fs::write(&names, "hosts: files dns\n").unwrap();
    let script = format!(
        "set -e; ip link set lo up; ip addr add {METADATA}/32 dev lo; ip addr add fe80::1/64 dev lo nodad; \
         mount --bind {} /etc/resolv.conf; mount --bind {} /etc/nsswitch.conf; touch {}; \
         exec \"$0\" --exact {NAME} --nocapture",
        resolver.display(),
        names.display(),
        directory.path().join("made").display(),
    );
    let program = std::env::current_exe().unwrap();
    let output = Command::new("unshare")
        .args(["--net", "--mount", "sh", "-c", &script])
        .arg(program)
        .env(INSIDE, "1")
        .output()
        .map_err(|error| format!("unshare: {error}"));
    let made = output.and_then(|output| match directory.path().join("made").exists() {
        true => Ok(output),
        false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
    });
    if is_missing("a network namespace (root, iproute2)", &made) {
        return;
    }
    let output = made.unwrap();
    let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).join("\n");
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

/// Counts who comes to the address, whatever is spoken.
async fn stand_guard(ports: &[u16]) -> Arc<AtomicUsize> {
    let came = Arc::new(AtomicUsize::new(0));
    for port in ports {
        let (listener, came) = (TcpListener::bind((METADATA, *port)).await.unwrap(), came.clone());
        tokio::spawn(async move {
            while let Ok((_stream, from)) = listener.accept().await {
                println!("{from} came");
                came.fetch_add(1, Ordering::SeqCst);
            }
        });
    }
    came
}

/// A name server: `rebind-….test` is 127.0.0.1 when it is asked first and the metadata address from then on, `meta.test` is
/// the latter always, `both.test` is both.
async fn resolve_names() -> Arc<AtomicUsize> {
    let socket = UdpSocket::bind("127.0.0.1:53").await.unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    tokio::spawn(async move {
        let mut earlier: Vec<String> = Vec::new();
        let mut query = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut query).await {
            let question = &query[12..length];
            let mut name = String::new();
            let mut at = 0;
            while question[at] != 0 {
                let label = usize::from(question[at]);
                name.push_str(&String::from_utf8_lossy(&question[at + 1..at + 1 + label]));
                name.push('.');
                at += 1 + label;
            }
            let end = at + 5;
            let is_a = question[at + 1..at + 3] == [0, 1];
            let again = earlier.contains(&name);
            let addresses: Vec<Ipv4Addr> = match name.as_str() {
                _ if !is_a => Vec::new(),
                "meta.test." => vec![METADATA],
                "both.test." => vec![METADATA, Ipv4Addr::LOCALHOST],
                _ if name.starts_with("rebind") && again => vec![METADATA],
                _ if name.starts_with("rebind") => vec![Ipv4Addr::LOCALHOST],
                _ => Vec::new(),
            };
            if is_a {
                counted.fetch_add(1, Ordering::SeqCst);
                earlier.push(name);
            }
            let mut answer = query[..2].to_vec();
            answer.extend([0x81, 0x80, 0, 1, 0, addresses.len() as u8, 0, 0, 0, 0]);
            answer.extend(&question[..end]);
            for address in addresses {
                answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4]);
                answer.extend(address.octets());
            }
            socket.send_to(&answer, from).await.unwrap();
        }
    });
    asked
}

/// A service that sends everybody on to the metadata, and one that breaks each connection after an answer of "not yet".
async fn lead_astray() -> (u16, u16) {
    let redirecting = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closing = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let ports = (redirecting.local_addr().unwrap().port(), closing.local_addr().unwrap().port());
    let router = axum::Router::new().fallback(async || Redirect::temporary("http://169.254.169.254/latest"));
    tokio::spawn(async move { axum::serve(redirecting, router).await });
    let not_yet =
        axum::Router::new().fallback(async || (http::StatusCode::TOO_EARLY, [("connection", "close")], "ONGOING"));
    tokio::spawn(async move { axum::serve(closing, not_yet).await });
    ports
}

async fn inside() {
    let came = stand_guard(&[80, 443, 2379]).await;
    let asked = resolve_names().await;
    let (redirecting, closing) = lead_astray().await;
    let service = Service::start().await;
    let proxy = "http://169.254.169.254:80";
    let options = AppOptions::default().quick_trans().quick().setting("calls.redirects_max", 5);
    let options =
        options.environment("http_proxy", proxy).environment("HTTP_PROXY", proxy).environment("ALL_PROXY", proxy);
    let app = App::start(options).await;
    let step = |url: &str| json!([{ "action": url, "compensate": "" }]);
    let saga = |gid: &str, url: &str, protocol: &str| json!({ "gid": gid, "trans_type": "saga", "protocol": protocol, "steps": step(url), "payloads": ["{}"] });
    let submit = async |body: Value| app.post("/api/dtmsvr/submit", &[], &body).await;
    // What `GET /v1/transactions/{gid}` says went wrong.
    let trouble = async |gid: &str| {
        let shown = app.get(&format!("/v1/transactions/{gid}")).await.json;
        shown["last_error"]["error"].as_str().unwrap_or_default().to_owned()
    };
    for (n, host) in SPELLINGS.iter().enumerate() {
        assert_eq!(submit(saga(&format!("l{n}"), &format!("http://{host}/latest"), "")).await.status, 400, "{host}");
    }
    // What only a look at the address tells: taken, and refused when it is called, in words.
    let rebound = format!("http://rebind-a.test:{closing}/");
    let redirected = format!("http://127.0.0.1:{redirecting}/");
    for (gid, url, protocol) in [
        ("meta", "http://meta.test/latest", ""),
        ("meta-tls", "https://meta.test/latest", ""),
        ("grpc", "meta.test:80/p.S/M", "grpc"),
        ("grpcs", "grpcs://meta.test:443/p.S/M", "grpc"),
        ("direct", "direct:///meta.test:80/p.S/M", "grpc"),
        ("etcd", "etcd://169.254.169.254:2379/shop/p.S/M", "grpc"),
        ("etcd-name", "etcd://meta.test:2379/shop/p.S/M", "grpc"),
        ("rebound", rebound.as_str(), ""),
        ("redirected", redirected.as_str(), ""),
    ] {
        let reply = submit(saga(gid, url, protocol)).await;
        assert_eq!(reply.status, 200, "{gid}: {}", reply.json);
        eventually(gid, SOON, async || trouble(gid).await.contains("may not be called")).await;
    }
    // Of several addresses the one that may be called is.
    let port = service.address().rsplit_once(':').unwrap().1;
    assert_eq!(submit(saga("both", &format!("http://both.test:{port}/a"), "")).await.status, 200);
    service.wait_for_calls("both", 1).await;
    // A check-back, and an order endpoint.
    let message = json!({ "gid": "back", "trans_type": "msg", "query_prepared": "http://meta.test/back" });
    assert_eq!(app.post("/api/dtmsvr/prepare", &[], &message).await.status, 200);
    eventually("the check-back", SOON, async || trouble("back").await.contains("may not be called")).await;
    app.create_sale(&json!({
        "sale": "s", "items": [{"sku": "sku-1", "units": 1}], "durability": "memory",
        "order_endpoint": { "url": "http://meta.test/orders" },
    }))
    .await;
    let placed = app.order("s", "", &json!({"buyer": "u1", "items": [{"sku": "sku-1", "quantity": 1}]})).await;
    let gid = placed.gid().unwrap().to_owned();
    eventually("the order", SOON, async || {
        let shown = app.get(&format!("/v1/orders/{gid}")).await.json;
        shown["last_error"].as_str().is_some_and(|error| error.contains("may not be called"))
    })
    .await;
    assert!(asked.load(Ordering::SeqCst) > 8, "names were resolved here");
    assert_eq!(came.load(Ordering::SeqCst), 0, "somebody came");
    // And the guard was awake.
    drop(TcpStream::connect((METADATA, 80)).await.unwrap());
    eventually("the guard sees who comes", SOON, async || came.load(Ordering::SeqCst) == 1).await;
}
