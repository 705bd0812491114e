//! Bodies as clients send them, and as they must not.

use super::story::topics;
use crate::domain::trans::*;
use bytes::Bytes;

fn global(body: &str) -> Result<Global, Refusal> {
    TransRequest::from_json(body.as_bytes())?.into_global(1_000, &Limits::default(), &topics)
}

fn refused(body: &str) -> String {
    global(body).expect_err(body).to_string()
}

#[test]
fn the_python_client_sends_nulls_and_zeros() {
    let saga = global(
        r#"{"gid":"g","trans_type":"saga","custom_data":null,"query_prepared":null,"protocol":null,
            "passthrough_headers":[],"request_timeout":8,"retry_interval":0,"wait_result":null,"branch_headers":null,
            "status":"prepared","steps":[{"action":"http://h/a","compensate":null}],"payloads":["{}"],
            "create_time":"never mind"}"#,
    )
    .unwrap();
    assert_eq!(saga.protocol, Protocol::Http);
    assert_eq!(saga.options, Options { request_timeout_s: 8, ..Options::default() });
    assert_eq!(saga.branches.iter().map(|row| row.op).collect::<Vec<_>>(), [Op::Compensate, Op::Action]);
    assert_eq!(saga.branches[0].url, "");
}

#[test]
fn keys_match_in_any_case_and_the_exact_one_wins() {
    let request = TransRequest::from_json(br#"{"GID":"x","Gid":"y","gid":"g","Trans_Type":"tcc","Wait_Result":true}"#);
    let request = request.unwrap();
    assert_eq!((request.gid.as_str(), request.trans_type.as_str(), request.wait_result), ("g", "tcc", true));
}

#[test]
fn very_old_clients_have_the_payload_in_the_step() {
    let saga = global(
        r#"{"gid":"g","trans_type":"saga","steps":[{"action":"a","data":"{\"n\":1}"},{"action":"b","data":"{}"}]}"#,
    );
    let payloads: Vec<_> = saga.unwrap().branches.iter().map(|row| row.payload.clone()).collect();
    assert_eq!(payloads, [r#"{"n":1}"#, r#"{"n":1}"#, "{}", "{}"]);
}

#[test]
fn grpc_steps_come_as_text() {
    assert_eq!(TransRequest::steps_from_json("null").unwrap().0, []);
    assert_eq!(TransRequest::steps_from_json("").unwrap().0, []);
    let (steps, _) = TransRequest::steps_from_json(r#"[{"action":"h:1/p.S/A","compensate":"h:1/p.S/C"}]"#).unwrap();
    assert_eq!(steps, [StepUrls { action: "h:1/p.S/A".to_owned(), compensate: "h:1/p.S/C".to_owned() }]);
    assert_eq!(TransRequest::steps_from_json("{}").unwrap_err().field, "steps");
}

#[test]
fn what_is_wrong_is_named() {
    for (body, words) in [
        ("", "body: must be a JSON object, is empty"),
        ("[]", "body: must be a JSON object, not a list"),
        (r#"{"gid":7}"#, "gid: must be a string, not a number"),
        (r#"{"gid":"a b","trans_type":"tcc"}"#, "gid: may have A-Z a-z 0-9 _ . : { } - only; not so at position 1"),
        (r#"{"trans_type":"tcc"}"#, "gid: must be 1 to 128 characters, got 0"),
        (
            r#"{"gid":"g","trans_type":"tcc","timeout_to_fail":1.5}"#,
            "timeout_to_fail: must be a whole number of 64 bits",
        ),
        (r#"{"gid":"g","trans_type":"tcc","timeout_to_fail":-1}"#, "timeout_to_fail: must be 0 to 31622400"),
        (r#"{"gid":"g","trans_type":"tcc","retry_limit":10001}"#, "retry_limit: must be 0 to 10000"),
        (r#"{"gid":"g","trans_type":"tcc","wait_result":"yes"}"#, "wait_result: must be true or false, not a string"),
        (r#"{"gid":"g","trans_type":"tcc","protocol":"ftp"}"#, "protocol: must be http, json-rpc or grpc"),
        (
            r#"{"gid":"g","trans_type":"tcc","branch_headers":{"a b":"c"}}"#,
            "branch_headers: has a name that no header can have: \"a b\"",
        ),
        (
            r#"{"gid":"g","trans_type":"msg","steps":[{"action":"a"}]}"#,
            "payloads: must be one for each of the 1 steps, got 0",
        ),
        (r#"{"gid":"g","trans_type":"msg","steps":{}}"#, "steps: must be a list, not an object"),
        (
            r#"{"gid":"g","trans_type":"msg","steps":[{"action":"a b"}],"payloads":[""]}"#,
            "action: may have neither spaces nor control characters",
        ),
        (
            r#"{"gid":"g","trans_type":"msg","protocol":"json-rpc","steps":[{"action":"a"}],"payloads":["[1]"]}"#,
            "payloads: must be a JSON object where the protocol is json-rpc: it becomes the params of the call",
        ),
        (
            r#"{"gid":"g","trans_type":"msg","custom_data":"{"}"#,
            "custom_data: is not JSON: EOF while parsing an object at line 1 column 1",
        ),
        (r#"{"gid":"g","trans_type":"msg","custom_data":"{\"delay\":-1}"}"#, "delay: must be 0 to 31622400"),
        (
            r#"{"gid":"g","trans_type":"workflow","custom_data":"{\"data\":\"?\"}"}"#,
            "custom_data: has data that is not base64: Invalid symbol 63, offset 0.",
        ),
    ] {
        assert_eq!(refused(body), words, "{body}");
    }
}

#[test]
fn orders_that_no_saga_can_follow_are_refused() {
    let saga = |orders: &str| {
        let data = serde_json::json!({"concurrent": true, "orders": serde_json::from_str::<serde_json::Value>(orders).unwrap()});
        let steps = serde_json::json!([{"action": "a"}, {"action": "b"}]);
        serde_json::json!({"gid": "g", "trans_type": "saga", "steps": steps, "payloads": ["", ""], "custom_data": data.to_string()})
            .to_string()
    };
    assert!(global(&saga(r#"{"1":[0],"0":null}"#)).is_ok());
    assert_eq!(
        refused(&saga(r#"{"1":[0],"0":[1]}"#)),
        "orders: go in a circle, so that no step can be first; steps are 0 to 1"
    );
    assert_eq!(
        refused(&saga(r#"{"1":[1]}"#)),
        "orders: go in a circle, so that no step can be first; steps are 0 to 1"
    );
    assert_eq!(refused(&saga(r#"{"2":[0]}"#)), "orders: has a key that is no step; steps are 0 to 1");
    assert_eq!(refused(&saga(r#"{"1":[-1]}"#)), "orders: lists what is no step; steps are 0 to 1");
    assert_eq!(refused(&saga(r#"{"1":0}"#)), "orders: must be an object of lists; steps are 0 to 1");
}

#[test]
fn bounds_hold() {
    let steps = vec![serde_json::json!({"action": "a"}); 257];
    let body = serde_json::json!({"gid": "g", "trans_type": "msg", "steps": steps, "payloads": vec![""; 257]});
    assert_eq!(refused(&body.to_string()), "steps: may be 256 at most, got 257");
    let body =
        serde_json::json!({"gid": "g", "trans_type": "msg", "steps": [{"action": "u".repeat(2049)}], "payloads": [""]});
    assert_eq!(refused(&body.to_string()), "action: may have 2048 bytes at most, got 2049");
}

#[test]
fn a_registration_is_a_flat_map_of_strings() {
    let request =
        RegisterBranch::from_json(br#"{"gid":"g","trans_type":"tcc","branch_id":"01","data":null,"confirm":"u"}"#);
    assert_eq!(request.unwrap().field("confirm"), "u");
    let refusal = RegisterBranch::from_json(br#"{"gid":"g","data":{"n":1}}"#).unwrap_err();
    assert_eq!(refusal.to_string(), "body: must have a string at \"data\", not an object");
    assert!(RegisterBranch::from_json(b"").is_err());
    assert!(RegisterBranch::from_json(b"null").is_err());
}

#[test]
fn a_stored_saga_of_two_steps_is_small() {
    let saga = global(
        r#"{"gid":"KfBkXw6NGhTNmVPqCtzDQz","trans_type":"saga","steps":[
            {"action":"http://127.0.0.1:8081/api/TransOut","compensate":"http://127.0.0.1:8081/api/TransOutRevert"},
            {"action":"http://127.0.0.1:8081/api/TransIn","compensate":"http://127.0.0.1:8081/api/TransInRevert"}],
            "payloads":["{\"amount\":30}","{\"amount\":30}"]}"#,
    );
    let text = serde_json::to_string(&saga.unwrap()).unwrap();
    assert!(text.len() < 400, "{} bytes: {text}", text.len());
}

#[test]
fn bytes_that_are_no_text_are_kept() {
    let mut msg =
        global(r#"{"gid":"g","trans_type":"msg","steps":[{"action":"a"},{"action":"b"}],"payloads":["=x",""]}"#)
            .unwrap();
    let raw = bytes::Bytes::from_static(&[0, 255, 61, 10]);
    (msg.payloads[1], msg.branches[1].payload) = (raw.clone(), raw);
    let text = serde_json::to_string(&msg).unwrap();
    assert_eq!(serde_json::from_str::<Global>(&text).unwrap(), msg);
}

#[test]
fn registered_bodies_are_bounded_together_and_are_params_where_they_have_to_be() {
    let limits = Limits::default();
    let mut stored = global(r#"{"gid":"g","trans_type":"tcc","protocol":"json-rpc"}"#).unwrap();
    let register = |stored: &Global, branch_id: &str, data: &[u8]| {
        let fields = [("confirm", "http://h/c"), ("cancel", "http://h/x")];
        let fields = fields.map(|(name, url)| (name.to_owned(), url.to_owned())).into();
        let (gid, trans_type) = ("g".to_owned(), "tcc".to_owned());
        let data = Bytes::copy_from_slice(data);
        let request = RegisterBranch { gid, trans_type, branch_id: branch_id.to_owned(), data, fields };
        moves::register_branch(Some(stored), &request, limits.request_timeout_ms)
    };
    assert!(matches!(register(&stored, "01", b"{}"), Ok(Change::Append(_))));
    assert!(matches!(register(&stored, "01", b""), Ok(Change::Append(_))));
    let refused = register(&stored, "01", b"7").unwrap_err().to_string();
    assert!(refused.starts_with("data: must be a JSON object"), "{refused}");

    stored.protocol = Protocol::Http;
    let megabyte = vec![b'x'; check::PAYLOAD_BYTES_MAX];
    // Each registration makes two rows.
    for branch_id in 1..=check::REGISTERED_BYTES_MAX / check::PAYLOAD_BYTES_MAX / 2 {
        let Ok(Change::Append(rows)) = register(&stored, &branch_id.to_string(), &megabyte) else {
            panic!("{branch_id}")
        };
        stored.branches.extend(rows);
    }
    let refused = register(&stored, "last", b"x").unwrap_err().to_string();
    assert!(refused.starts_with("data: may have 8388608 bytes at most"), "{refused}");
}
