//! The server dies, at every step of an order and at any moment; nothing acknowledged is lost, nothing happens twice.

use crate::support::app::{App, AppOptions, Http, eventually};
use crate::support::crowd::{self, Crowd, assert_exact, assert_only_ledger_left};
use crate::support::process::free_port;
use crate::support::shop::Shop;
use futures_util::StreamExt;
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

const BUYERS: usize = 6;
/// Stories at a time: each has a server, a Redis and a crowd.
const AT_A_TIME: usize = 3;
const SIGABRT: i32 = 6;

/// Who goes on after the crash.
#[derive(Debug, Clone, Copy)]
enum Then {
    /// The same server, started again.
    Restart,
    /// Another node on the same Redis; the dead one stays dead.
    TakeOver,
}

/// Every crash point, at its first and at a later pass.
#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_any_step_loses_and_doubles_nothing() {
    let cases = rushline::crash::POINTS
        .into_iter()
        .flat_map(|point| [(point.to_owned(), Then::TakeOver), (format!("{point}:3"), Then::Restart)]);
    futures_util::stream::iter(cases)
        .map(|(point, then)| tokio::spawn(crash_and_go_on(point, then)))
        .buffer_unordered(AT_A_TIME)
        .for_each(|ended| async { ended.unwrap() })
        .await;
}

async fn crash_and_go_on(point: String, then: Then) {
    let case = format!("{point}, {then:?}");
    let shop = Shop::start().await;
    crowd::trying_shop(&shop);
    let ports = [free_port(), free_port()];
    let targets = ports.map(|port| Http::new(format!("http://127.0.0.1:{port}")));
    let mut app = App::start(AppOptions::default().quick().on_port(ports[0]).crash_at(&point)).await;
    app.create_sale(&crowd::sale(shop.endpoint())).await;
    let buyers = Crowd::start(&targets, BUYERS);
    let status = app.wait_for_end(Duration::from_secs(30)).await;
    assert_eq!(status.signal(), Some(SIGABRT), "{case}: {status}");
    let other = match then {
        Then::Restart => {
            app.restart(AppOptions::without_crash).await;
            None
        }
        Then::TakeOver => {
            let records = format!("sqlite:{}", app.data_dir().join("orders.db").display());
            let options = AppOptions::default().quick().on_port(ports[1]).redis(&app.redis_url()).records(&records);
            Some(App::start(options).await)
        }
    };
    buyers.wait_for_more(20, Duration::from_secs(30)).await;
    let heard = buyers.stop().await;
    let alive = other.as_ref().unwrap_or(&app);
    assert_exact(alive, &shop, &heard).await;
    assert_only_ledger_left(&app.redis_url()).await;
}

/// Every crash point again, as a bug that shows there once: the server goes on, and so does everybody else in it.
#[tokio::test(flavor = "multi_thread")]
async fn a_panic_at_any_step_loses_nothing_and_takes_nobody_along() {
    futures_util::stream::iter(rushline::crash::POINTS)
        .map(|point| tokio::spawn(panic_and_go_on(point)))
        .buffer_unordered(AT_A_TIME)
        .for_each(|ended| async { ended.unwrap() })
        .await;
}

async fn panic_and_go_on(point: &'static str) {
    let shop = Shop::start().await;
    crowd::trying_shop(&shop);
    let port = free_port();
    let target = Http::new(format!("http://127.0.0.1:{port}"));
    let app = App::start(AppOptions::default().quick().on_port(port).panic_at(&format!("{point}:3"))).await;
    app.create_sale(&crowd::sale(shop.endpoint())).await;
    let buyers = Crowd::start(&[target], BUYERS);
    let panics = async || app.metric("rushline_panics_total").await == 1.0;
    eventually(&format!("a bug shows at {point}"), Duration::from_secs(30), panics).await;
    buyers.wait_for_more(20, Duration::from_secs(30)).await;
    let heard = buyers.stop().await;
    assert_exact(&app, &shop, &heard).await;
    assert_only_ledger_left(&app.redis_url()).await;
}

/// kill -9 five times in one sale, whenever it happens to come.
#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_moment_nothing_is_lost_or_doubled() {
    let shop = Shop::start().await;
    crowd::trying_shop(&shop);
    let port = free_port();
    let target = Http::new(format!("http://127.0.0.1:{port}"));
    let mut app = App::start(AppOptions::default().quick().on_port(port)).await;
    app.create_sale(&crowd::sale(shop.endpoint())).await;
    let buyers = Crowd::start(&[target], BUYERS);
    for _ in 0..5 {
        buyers.wait_for_more(fastrand::usize(1..60), Duration::from_secs(30)).await;
        app.restart(|options| options).await;
    }
    buyers.wait_for_more(20, Duration::from_secs(30)).await;
    let heard = buyers.stop().await;
    assert_exact(&app, &shop, &heard).await;
    assert_only_ledger_left(&app.redis_url()).await;
}
