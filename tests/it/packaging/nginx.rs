//! A real nginx with the shipped configuration in front of real nodes.

use super::{read, root, tool};
use crate::rolling::balancer::Balancer;
use crate::rolling::load::{BUYERS, Load};
use crate::rolling::{SOON, plenty};
use crate::support::app::{App, AppOptions, Http, eventually};
use crate::support::crowd::{SALE, assert_exact, order_of};
use crate::support::process::{Process, free_port, is_root};
use crate::support::servers::{Redis, RedisVersion};
use crate::support::services::Service;
use crate::support::shop::{Answer, Shop};
use http::Method;
use http_body_util::BodyExt;
use serde_json::json;
use std::path::PathBuf;

struct Nginx {
    port: u16,
    process: Process,
    program: PathBuf,
}

impl Nginx {
    /// In front of these two, with the configuration of compose.yaml; `rate` orders a second for one address.
    async fn start(program: PathBuf, nodes: [u16; 2], rate: u32) -> Self {
        let port = free_port();
        let mut process = Process::new("nginx", program.clone(), None);
        let directory = process.directory().to_str().unwrap().to_owned();
        let mut around = read("deploy/nginx/compose.conf");
        let mut put = |old: &str, new: String| {
            assert!(around.contains(old), "{old} is no longer in compose.conf");
            around = around.replace(old, &new);
        };
        put("rushline-1:36789", format!("127.0.0.1:{}", nodes[0]));
        put("rushline-2:36789", format!("127.0.0.1:{}", nodes[1]));
        put("listen 8080;", format!("listen 127.0.0.1:{port};"));
        put("/etc/nginx/rushline.conf", root().join("deploy/nginx/rushline.conf").display().to_string());
        put("rate=20r/s", format!("rate={rate}r/s"));
        let user = if is_root() { "user root;\n" } else { "" };
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {directory}/{kind};\n"))
            .concat();
        let whole = format!(
            "{user}daemon off;\nworker_processes 1;\npid {directory}/nginx.pid;\nerror_log stderr warn;\n\
             events {{ worker_connections 1024; }}\nhttp {{\naccess_log off;\n{temporary}{around}}}\n"
        );
        std::fs::write(process.directory().join("nginx.conf"), whole).unwrap();
        process.arguments(["-p", &directory, "-e", "stderr", "-c", &format!("{directory}/nginx.conf")]);
        let mut nginx = Self { port, process, program };
        nginx.check();
        nginx.process.start(|| async { tokio::net::TcpStream::connect(("127.0.0.1", port)).await.map(|_| ()) }).await;
        nginx
    }

    /// `nginx -t`
    fn check(&self) {
        let directory = self.process.directory().to_str().unwrap();
        self.process.run(
            &self.program,
            &["-t", "-q", "-p", directory, "-e", "stderr", "-c", &format!("{directory}/nginx.conf")],
        );
    }

    fn http(&self) -> Http {
        Http::new(format!("http://127.0.0.1:{}", self.port))
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Its master ends the worker; killed, it would leave it behind.
        if !self.process.has_ended() {
            self.process.signal("TERM");
            let deadline = std::time::Instant::now() + SOON;
            while !self.process.has_ended() && std::time::Instant::now() < deadline {
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_buyer_reaches_orders_through_nginx_and_nothing_else() {
    let Some(program) = tool("nginx") else { return };
    let shop = Shop::start().await;
    let app = App::start(AppOptions::default()).await;
    app.create_sale(&plenty(&shop)).await;
    let port: u16 = app.base().rsplit(':').next().unwrap().parse().unwrap();
    let nginx = Nginx::start(program, [port, free_port()], 20).await; // and a node that is away
    let http = nginx.http();

    let order = http.try_order(SALE, "k-0", &order_of("k-0")).await.unwrap();
    assert_eq!(order.status, 201, "{}", order.json);
    let path = format!("/v1/sales/{SALE}/orders?wait_ms=10000");
    let headers = [("idempotency-key", "k-10")];
    let waited = http.ask(Method::POST, &path, &headers, Some(&order_of("k-10"))).await.unwrap();
    assert_eq!((waited.status, &waited.json["status"]), (201, &json!("succeed")));
    let shown = http.ask(Method::GET, &format!("/v1/orders/{}", order.gid().unwrap()), &[], None).await.unwrap();
    assert_eq!((shown.status, &shown.json["buyer"]), (200, &json!("buyer-of-k-0")));

    for (method, path, status) in [
        (Method::GET, format!("/v1/sales/{SALE}/orders"), 403),
        (Method::POST, format!("/v1/orders/{}/cancel", order.gid().unwrap()), 404),
        (Method::POST, "/v1/sales".into(), 404),
        (Method::PATCH, format!("/v1/sales/{SALE}"), 404),
        (Method::GET, "/".into(), 404),
        (Method::GET, "/metrics".into(), 404),
        (Method::POST, "/api/dtmsvr/submit".into(), 404),
    ] {
        let reply = http.ask(method.clone(), &path, &[], None).await.unwrap();
        assert_eq!(reply.status, status, "{method} {path}");
    }
    let large = json!({ "buyer": "b", "items": [{"sku": "few", "quantity": 1}], "payload": "x".repeat(80_000) });
    let refused = http.ask(Method::POST, &format!("/v1/sales/{SALE}/orders"), &[], Some(&large)).await.unwrap();
    assert_eq!(refused.status, 413);
}

/// An event is there when it happens, not when a buffer is full.
#[tokio::test(flavor = "multi_thread")]
async fn events_come_through_nginx_one_by_one() {
    let Some(program) = tool("nginx") else { return };
    let shop = Shop::start().await;
    shop.always(Answer::Hang);
    let app = App::start(AppOptions::default()).await;
    app.create_sale(&plenty(&shop)).await;
    let port: u16 = app.base().rsplit(':').next().unwrap().parse().unwrap();
    let nginx = Nginx::start(program, [port, free_port()], 20).await;
    let order = nginx.http().try_order(SALE, "k-0", &order_of("k-0")).await.unwrap();

    let client = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new())
        .build_http::<http_body_util::Empty<bytes::Bytes>>();
    let uri = format!("http://127.0.0.1:{}/v1/orders/{}/events", nginx.port, order.gid().unwrap());
    let mut events = client.get(uri.parse().unwrap()).await.unwrap().into_body();
    let mut heard = String::new();
    let read = async |heard: &mut String, events: &mut hyper::body::Incoming, until: &str| {
        while !heard.contains(until) {
            let frame = tokio::time::timeout(SOON, events.frame()).await.expect("it comes at once");
            let frame = frame.unwrap_or_else(|| panic!("the stream ended: {heard}")).unwrap();
            heard.push_str(&String::from_utf8_lossy(&frame.into_data().unwrap()));
        }
    };
    read(&mut heard, &mut events, "id: submitted").await;
    assert!(!heard.contains("succeed"), "the order service has not answered yet");
    shop.always(Answer::Created);
    shop.release();
    read(&mut heard, &mut events, "id: succeed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_cannot_have_all_of_it() {
    let Some(program) = tool("nginx") else { return };
    let shop = Shop::start().await;
    let app = App::start(AppOptions::default()).await;
    app.create_sale(&plenty(&shop)).await;
    let port: u16 = app.base().rsplit(':').next().unwrap().parse().unwrap();
    let nginx = Nginx::start(program, [port, free_port()], 1).await;
    let http = nginx.http();
    let keys: Vec<String> = (0..100).map(|number| format!("k-{number}0")).collect();
    let replies = keys.iter().map(async |key| http.try_order(SALE, key, &order_of(key)).await.unwrap().status);
    let replies = futures_util::future::join_all(replies).await;
    let count = |status: u16| replies.iter().filter(|reply| **reply == status).count();
    assert_eq!(count(201) + count(429), replies.len(), "{replies:?}");
    // The burst and one, and however many seconds it takes.
    assert!(count(201) >= 41 && count(429) >= 10, "{replies:?}");
}

/// nginx asks nobody if he is ready: it goes on at the other node when a connection is refused, and keeps connections
/// for as long as it may.
#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_behind_nginx_fails_no_request() {
    let Some(program) = tool("nginx") else { return };
    let redis = Redis::start(RedisVersion::V8, &[]).await;
    let records = tempfile::tempdir().unwrap();
    let shop = Shop::start().await;
    let ports = [free_port(), free_port()];
    let options = |port| {
        AppOptions::default()
            .quick()
            .redis(&redis.url())
            .records(&format!("sqlite:{}", records.path().join("orders.db").display()))
            .on_port(port)
            .setting("shutdown.pause_ms", 200)
    };
    let mut nodes = [App::start(options(ports[0])).await, App::start(options(ports[1])).await];
    nodes[0].create_sale(&plenty(&shop)).await;
    let nginx = Nginx::start(program, ports, 100_000).await;
    let balancer = Balancer::new([nginx.port; 2]);
    let load = Load::start(BUYERS, &balancer, &Service::start().await);
    for node in &mut nodes {
        load.wait_for_more(80).await;
        assert!(node.terminate().await.success(), "{}", node.log());
        load.wait_for_more(40).await;
        node.restart(|options| options).await;
        eventually("it is ready", SOON, || async { node.get("/readyz").await.status == 200 }).await;
    }
    load.wait_for_more(80).await;
    let begun = load.stop().await;
    assert_eq!(balancer.failed(), [""; 0]);
    assert_exact(&nodes[0], &shop, &begun.orders).await;
}
