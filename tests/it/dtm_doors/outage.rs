//! A service of gRPC branches that goes and comes back, and one that does not answer at all.

use super::{Door, Over, everywhere};
use crate::dtm_http::{waiting, with};
use crate::support::services::Service;
use serde_json::json;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_comes_back_is_connected_to_again() {
    everywhere(&[(Door::Http, Over::Grpc), (Door::Grpc, Over::Grpc)], async |mut stage| {
        stage.must("submit", &waiting(stage.saga(&stage.gid("before"), &["a"]))).await;
        let address = stage.service.address().to_owned();
        stage.service.stop();
        let gid = stage.gid("during");
        let body = stage.saga(&gid, &["a", "b"]);
        let nobody = "wait result not return success: FAILURE";
        stage.must_fail("submit", &waiting(body), nobody).await;
        stage.service = Service::start_at(&address).await;
        stage.wait_for(&gid, "succeed").await;
        assert_eq!(stage.steps(&gid), ["action/01", "action/02"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_that_takes_too_long_is_called_again() {
    everywhere(&[(Door::Http, Over::Grpc), (Door::Grpc, Over::Grpc)], async |stage| {
        let gid = stage.gid("slow");
        stage.service.slow("/slow", Duration::from_secs(60));
        let body = with(stage.saga(&gid, &["slow"]), "request_timeout", json!(1));
        stage.must_fail("submit", &waiting(body), "wait result not return success: FAILURE").await;
        // More often than a connection may be silent before it is made anew.
        stage.service.wait_for_calls(&gid, 5).await;
        stage.service.answers("/slow", &[(200, "")]);
        stage.wait_for(&gid, "succeed").await;
    })
    .await;
}
