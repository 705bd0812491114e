//! Sagas: forward, backward, in orders, in time.

use super::{ALL, Outcome, Over, everywhere};
use crate::dtm_http::{waiting, with};
use serde_json::json;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn all_steps_succeed_in_order() {
    everywhere(ALL, async |stage| {
        let gid = stage.gid("s1");
        let body = with(stage.saga(&gid, &["a", "b"]), "branch_headers", json!({ "X-Tenant": "7" }));
        stage.must("submit", &waiting(body)).await;
        assert_eq!(stage.steps(&gid), ["action/01", "action/02"]);
        assert_eq!(stage.branches(&gid).await, ["prepared", "succeed", "prepared", "succeed"]);
        let call = &stage.calls(&gid)[1];
        assert_eq!((call.method.as_str(), call.path.as_str(), &call.body[..]), ("POST", "/b", &b"{\"step\":1}"[..]));
        assert_eq!(call.headers["x-tenant"], "7");
        match stage.over {
            Over::Http => {
                assert_eq!(
                    (call.param("trans_type"), &call.headers["content-type"]),
                    ("saga", &"application/json".parse().unwrap())
                );
            }
            Over::JsonRpc => assert_eq!(call.query.len(), 5, "nothing is added to the URL: {:?}", call.query),
            Over::Grpc => {
                assert_eq!((call.param("trans_type"), call.param("dtm")), ("saga", ""));
                assert!(call.headers.contains_key("grpc-timeout"), "{:?}", call.headers);
                assert!(!call.headers.contains_key("accept"), "what is HTTP's stays with HTTP");
            }
        }
        let found = stage.query(&gid).await;
        assert_eq!(found["transaction"]["id"], 0);
        assert!(found["transaction"]["finish_time"].is_string() && found["transaction"]["create_time"].is_string());
        assert_eq!(found["branches"][0]["op"], "compensate");
        assert_eq!(found["branches"][1]["bin_data"], "eyJzdGVwIjowfQ==");
        // Not waiting is the default; an empty URL is a success without a call, an empty payload is one with a call.
        let gid = stage.gid("s2");
        let mut body = stage.saga(&gid, &["a", "b"]);
        body["payloads"] = json!(["", "{}"]);
        body["steps"][1]["action"] = json!("");
        stage.must("submit", &body).await;
        stage.wait_for(&gid, "succeed").await;
        assert_eq!(stage.steps(&gid), ["action/01"]);
        let (method, body) = match stage.over {
            Over::Http => ("GET", ""),
            Over::JsonRpc => ("POST", "{}"),
            Over::Grpc => ("POST", ""),
        };
        let call = &stage.calls(&gid)[0];
        assert_eq!((call.method.as_str(), &call.body[..]), (method, body.as_bytes()));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_step_undoes_those_before_it_and_itself() {
    everywhere(ALL, async |stage| {
        let gid = stage.gid("f1");
        stage.service.answers("/no", &[(409, "Insufficient balance")]);
        let reason = format!("url:{} return failed: Insufficient balance FAILURE", stage.url("/no"));
        stage.must_fail("submit", &waiting(stage.saga(&gid, &["a", "no", "c"])), &reason).await;
        stage.wait_for(&gid, "failed").await;
        assert_eq!(stage.steps(&gid), ["action/01", "action/02", "compensate/02", "compensate/01"]);
        assert_eq!(
            stage.branches(&gid).await,
            ["succeed", "succeed", "succeed", "failed", "prepared", "prepared"],
            "per step compensation, action"
        );
        let found = stage.query(&gid).await;
        assert_eq!(found["transaction"]["rollback_reason"], reason.as_str());
        assert!(found["transaction"]["rollback_time"].is_string());
        let again = stage.saga(&gid, &["a", "no", "c"]);
        stage.must_fail("submit", &again, "current status 'failed', cannot sumbmit. FAILURE").await;
        // A compensation that does not work is tried until it does.
        let gid = stage.gid("f2");
        stage.service.answers("/a-undo", &[(500, "not now"), (409, "never"), (200, "")]);
        stage.must("submit", &stage.saga(&gid, &["a", "no"])).await;
        stage.wait_for(&gid, "failed").await;
        assert_eq!(stage.steps(&gid).iter().filter(|step| *step == "compensate/01").count(), 3);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unclear_answers_are_asked_again() {
    everywhere(ALL, async |stage| {
        let gid = stage.gid("u1");
        stage.service.answers("/b", &[(425, ""), (500, "oops"), (204, ""), (200, "")]);
        let body = stage.saga(&gid, &["a", "b"]);
        stage.must_fail("submit", &waiting(body.clone()), "wait result not return success: FAILURE").await;
        stage.must("submit", &body).await; // a repeat is no second run
        stage.wait_for(&gid, "succeed").await;
        assert_eq!(stage.steps(&gid), ["action/01", "action/02", "action/02", "action/02", "action/02"]);
        stage.must("submit", &waiting(body)).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retry_limit_and_timeout_turn_it_back() {
    everywhere(ALL, async |stage| {
        let gid = stage.gid("l1");
        stage.service.answers("/b", &[(500, "oops")]);
        let body = with(stage.saga(&gid, &["a", "b"]), "retry_limit", json!(1));
        let reason = "RetryCount is greater than RetryLimit, RetryLimit: 1 FAILURE";
        stage.must_fail("submit", &waiting(body), reason).await;
        stage.wait_for(&gid, "failed").await;
        let found = stage.query(&gid).await;
        assert_eq!(found["transaction"]["rollback_reason"], reason.trim_end_matches(" FAILURE"));
        let gid = stage.gid("t1");
        stage.service.answers("/b", &[(425, "")]);
        stage.must("submit", &with(stage.saga(&gid, &["a", "b"]), "timeout_to_fail", json!(1))).await;
        stage.wait_for(&gid, "failed").await;
        assert_eq!(stage.query(&gid).await["transaction"]["rollback_reason"], "Timeout after 1 seconds");
        assert!(stage.steps(&gid).contains(&"compensate/01".to_owned()));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_steps_keep_their_orders() {
    everywhere(ALL, async |stage| {
        let gid = stage.gid("c1");
        stage.service.slow("/a", Duration::from_millis(500));
        stage.service.slow("/b", Duration::from_millis(500));
        let custom = json!({ "concurrent": true, "orders": { "2": [0, 1] } }).to_string();
        stage.must("submit", &waiting(with(stage.saga(&gid, &["a", "b", "c"]), "custom_data", json!(custom)))).await;
        assert_eq!(stage.service.at_once(&gid), 2, "the first two at once");
        let steps = stage.steps(&gid);
        assert_eq!(steps.len(), 3);
        assert_eq!(steps[2], "action/03", "it waits for both: {steps:?}");
        // Backwards they keep the reverse of it.
        let gid = stage.gid("c2");
        stage.service.answers("/c", &[(409, "no")]);
        stage.must("submit", &with(stage.saga(&gid, &["a", "b", "c"]), "custom_data", json!(custom))).await;
        stage.wait_for(&gid, "failed").await;
        let steps = stage.steps(&gid);
        assert_eq!(steps[3], "compensate/03", "{steps:?}");
        assert_eq!(steps.len(), 6);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_words_of_old_services_count() {
    everywhere(ALL, async |stage| {
        let (no, later) = (stage.gid("w1"), stage.gid("w2"));
        // From before the statuses and codes had a meaning: the word alone, in what would be a success or unclear.
        match stage.over {
            Over::Http => {
                stage.service.answers("/no", &[(200, "FAILURE of an old kind")]);
                stage.service.answers("/later", &[(500, "ONGOING"), (200, "")]);
            }
            Over::JsonRpc => {
                stage.service.answers("/no", &[(500, "FAILURE of an old kind")]);
                stage.service.answers("/later", &[(500, "ONGOING"), (200, "")]);
            }
            Over::Grpc => {
                stage.service.answers("/no", &[(409, "FAILURE of an old kind")]);
                stage.service.answers("/later", &[(409, "ONGOING"), (200, "")]);
            }
        }
        stage.must("submit", &stage.saga(&no, &["a", "no"])).await;
        stage.wait_for(&no, "failed").await;
        stage.must("submit", &stage.saga(&later, &["a", "later"])).await;
        stage.wait_for(&later, "succeed").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_malformed_is_told_from_what_fails() {
    everywhere(ALL, async |stage| {
        let gid = stage.gid("m1");
        let good = stage.saga(&gid, &["a"]);
        for (field, value) in [
            ("gid", json!("")),
            ("gid", json!("a b")),
            ("trans_type", json!("")),
            ("trans_type", json!("odd")),
            ("payloads", json!([])),
            ("steps", json!([{ "action": "http://", "compensate": "" }])),
            ("custom_data", json!("{")),
            ("timeout_to_fail", json!(-5)),
            ("branch_headers", json!({ "a b": "c" })),
        ] {
            let answer = stage.ask("submit", &with(good.clone(), field, value.clone())).await;
            assert_eq!(answer.outcome, Outcome::Invalid, "{field} {value}: {answer:?}");
            assert!(!answer.message.is_empty(), "{field} {value}");
        }
        stage.must_err("abort", &good, &format!("no TransGlobal with gid: {gid} found")).await;
        assert_eq!(stage.status(&gid).await, "");
    })
    .await;
}
