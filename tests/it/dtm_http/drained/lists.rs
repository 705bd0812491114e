//! Lists over the border between Redis and the records.

use super::super::{ask, must, saga, start, wait_for, waiting, with};
use super::{begin, hold, let_drain, wait_until_drained};
use crate::support::app::App;
use serde_json::{Value, json};

/// Every page of a list, one after the other.
async fn walk(app: &App, filters: &str, limit: usize) -> Vec<String> {
    let (mut gids, mut position) = (Vec::new(), String::new());
    loop {
        let reply = app.get(&format!("/api/dtmsvr/all?{filters}&limit={limit}&position={position}")).await;
        assert_eq!(reply.status, 200, "{}", reply.json);
        let page: Vec<&Value> = reply.json["transactions"].as_array().unwrap().iter().collect();
        assert!(page.len() <= limit);
        gids.extend(page.iter().map(|one| one["gid"].as_str().unwrap().to_owned()));
        position = reply.json["next_position"].as_str().unwrap().to_owned();
        if position.is_empty() {
            return gids;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_has_each_once_while_they_drain() {
    let (app, service) = start().await;
    service.answers("/no", &[(409, "no")]);
    let submit = async |from: usize, to: usize| {
        for i in from..to {
            let name = if i % 5 == 0 { "no" } else { "a" };
            let reply = ask(&app, "submit", &waiting(saga(&service, &format!("l{i:03}"), &[name]))).await;
            assert!([200, 409].contains(&reply.status), "{}", reply.json);
            wait_for(&app, &format!("l{i:03}"), if i % 5 == 0 { "failed" } else { "succeed" }).await;
        }
    };
    submit(0, 40).await;
    wait_until_drained(&app).await;
    hold(&app).await;
    submit(40, 80).await;
    must(&app, "prepare", &with(begin("undecided", "tcc"), "timeout_to_fail", json!(3600))).await;
    let newest_first = |wanted: &dyn Fn(usize) -> bool| -> Vec<String> {
        (0..80).rev().filter(|i| wanted(*i)).map(|i| format!("l{i:03}")).collect()
    };
    let check = async || {
        let mut all = newest_first(&|_| true);
        all.insert(0, "undecided".into());
        for limit in [1, 7, 27, 1000] {
            assert_eq!(sorted(walk(&app, "", limit).await), sorted(all.clone()), "pages of {limit}");
        }
        assert_eq!(walk(&app, "status=failed", 3).await, newest_first(&|i| i % 5 == 0));
        assert_eq!(walk(&app, "transType=saga&status=succeed", 9).await, newest_first(&|i| i % 5 != 0));
        assert_eq!(walk(&app, "transType=msg", 9).await, [""; 0]);
        assert_eq!(walk(&app, "status=prepared", 9).await, ["undecided"]);
    };
    check().await;
    let_drain(&app).await;
    check().await; // while they drain, if the machine is quick enough to see it
    wait_until_drained(&app).await;
    check().await;
    let times: Vec<Value> = app.get("/api/dtmsvr/all?limit=100").await.json["transactions"].as_array().unwrap().clone();
    let created: Vec<jiff::Timestamp> =
        times.iter().map(|one| one["create_time"].as_str().unwrap().parse().unwrap()).collect();
    assert!(created.is_sorted_by(|a, b| a >= b), "newest first: {created:?}");
}

fn sorted(mut gids: Vec<String>) -> Vec<String> {
    gids.sort();
    gids
}
