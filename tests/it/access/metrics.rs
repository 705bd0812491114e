//! Metrics are a reader's, and what anybody asks for makes no new series.

use super::{Tokens, ask, ask_as};
use crate::support::app::App;
use rushline::access::Role;
use serde_json::json;
use std::collections::BTreeSet;

/// All series with labels; those without are as many as the program has names for.
async fn series(app: &App, token: &str) -> BTreeSet<String> {
    let text = ask_as(app, token, "GET", "/metrics", None).await.body;
    let text = String::from_utf8_lossy(&text).into_owned();
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let series = lines.filter_map(|line| line.rsplit_once(' ')).map(|(series, _)| series.to_owned());
    series.filter(|series| series.contains('{')).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_gids_buyers_and_paths_make_no_series() {
    let tokens = Tokens::new();
    let app = App::start(tokens.options()).await;
    let (reader, operator, client) =
        (tokens.bearer(Role::Reader), tokens.bearer(Role::Operator), tokens.bearer(Role::Client));
    let round = async |from: usize, to: usize| {
        for n in from..to {
            let buy = json!({"buyer": format!("u{n}"), "items": [{"sku": "a", "quantity": 1}]});
            ask_as(&app, &operator, "POST", &format!("/v1/sales/s{n}/orders"), Some(&buy)).await;
            ask_as(&app, &operator, "GET", &format!("/v1/orders/s{n}.0.1-0.0?x={n}"), None).await;
            ask_as(&app, &client, "GET", &format!("/api/dtmsvr/query?gid=g{n}"), None).await;
            ask_as(&app, &operator, "GET", &format!("/path{n}?q={n}"), None).await;
            ask(&app, "GET", &format!("/v1/transactions/g{n}"), &[], None).await;
            ask_as(&app, &format!("Bearer t{n}"), "GET", "/v1/sales", None).await;
            let branch = json!({"gid": format!("g{n}"), "trans_type": format!("t{n}"), "branch_id": format!("{n}")});
            ask_as(&app, &client, "POST", "/api/dtmsvr/registerBranch", Some(&branch)).await;
        }
    };
    round(0, 20).await; // each kind of answer once, and a little more
    let before = series(&app, &reader).await;
    round(20, 520).await;
    let after = series(&app, &reader).await;
    let new: Vec<_> = after.difference(&before).collect();
    assert!(new.is_empty(), "{new:?}");
    assert!(before.iter().any(|series| series.starts_with("rushline_denied_total")), "{before:?}");
    let said: String = after.into_iter().collect();
    assert!(!said.contains("rl_") && !said.contains("g519"), "{said}");
}
