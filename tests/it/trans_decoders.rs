//! Everything that reads what others wrote: bytes of any kind, and good bodies with a few bytes changed. None panics, and
//! what is accepted is kept: the stored form, read again, is what was written.

use bytes::Bytes;
use http::StatusCode;
use proptest::prelude::*;
use proptest::sample::Index;
use rushline::branch;
use rushline::domain::trans::msg::Delay;
use rushline::domain::trans::saga::Order;
use rushline::domain::trans::workflow::Input;
use rushline::domain::trans::*;
use rushline::store::trans_form::{field_of, read, record_of, row_of};
use serde_json::{Value, json};

const NOW_MS: u64 = 1_795_000_000_000;

/// Texts that a form might stumble over: quotes, its own marks, base64's mark, what is no text in JSON.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        "[a-z]{1,6}",
        "[=\\\\\"\u{1}\u{2}{}:, \n/]{1,8}",
        "\"?http://h/[a-z\"\u{1}]{0,4}",
        any::<String>(),
    ]
}

fn url() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "http://(h|localhost:8081/api|h/\u{e9})/[A-Za-z]{0,6}",
        2 => "http://h/a/[?#]x=http://h/a/[a-z]{0,3}",
        1 => "topic://[a-z]{1,3}",
        1 => text(),
    ]
}

fn custom_data(trans_type: &str) -> BoxedStrategy<String> {
    match trans_type {
        "msg" => prop_oneof![Just(String::new()), "\\{\"delay\":[0-9]{1,3}\\}", text()].boxed(),
        "saga" => {
            let orders = "\\{\"concurrent\":true,\"orders\":\\{\"[12]\":\\[0\\]\\}\\}";
            prop_oneof![Just(String::new()), Just("{\"concurrent\":true}".to_owned()), orders, text()].boxed()
        }
        "workflow" => prop_oneof![Just(String::new()), "\\{\"name\":\"[a-z]{1,3}\",\"data\":\"aGVs\"\\}"].boxed(),
        _ => text().boxed(),
    }
}

/// A body that is mostly good.
fn body() -> impl Strategy<Value = Value> {
    let trans_type = prop_oneof![Just("msg"), Just("saga"), Just("tcc"), Just("xa"), Just("workflow")];
    trans_type.prop_flat_map(|trans_type| {
        let steps = prop::collection::vec((url(), url(), text()), 0..5);
        let options = (any::<bool>(), 0..99u32, 0..99u32, prop::option::of("[a-z]{1,4}"), any::<bool>());
        ("[A-Za-z0-9_.:{}-]{1,20}", steps, custom_data(trans_type), options, url()).prop_map(
            move |(gid, steps, custom_data, (wait, timeout, retry, header, concurrent), query)| {
                let urls: Vec<Value> =
                    steps.iter().map(|(action, undo, _)| json!({ "action": action, "compensate": undo })).collect();
                let payloads: Vec<&String> = steps.iter().map(|(_, _, payload)| payload).collect();
                let headers: serde_json::Map<String, Value> =
                    header.into_iter().map(|name| (name, json!("x"))).collect();
                json!({ "gid": gid, "trans_type": trans_type, "steps": urls, "payloads": payloads,
                    "custom_data": custom_data, "wait_result": wait, "timeout_to_fail": timeout,
                    "retry_interval": retry, "branch_headers": headers, "concurrent": concurrent,
                    "query_prepared": query, "protocol": "http" })
            },
        )
    })
}

/// Bytes that mean something in the forms.
const MARKS: &[u8] = b"{}[]\",:\\0-e\x01\x02 =ps";

/// One byte put in, taken out or put in place of another.
type Change = (Index, u8, u8);

fn changed(mut bytes: Vec<u8>, changes: &[Change]) -> Vec<u8> {
    for (place, how, byte) in changes {
        if bytes.is_empty() {
            break;
        }
        let place = place.index(bytes.len());
        match how % 4 {
            0 => drop(bytes.remove(place)),
            1 => bytes.insert(place, *byte),
            2 => bytes[place] = MARKS[usize::from(*byte) % MARKS.len()],
            _ => bytes[place] = *byte,
        }
    }
    bytes
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    prop::collection::vec(any::<Change>(), 0..4)
}

fn topics(name: &str) -> Option<Vec<String>> {
    Some((0..name.len() % 3).map(|i| format!("http://t/{i}")).collect())
}

fn global_of(body: &[u8]) -> Option<Global> {
    TransRequest::from_json(body).ok()?.into_global(NOW_MS, &Limits::default(), &topics).ok()
}

/// What may have happened to it since: of each row, and of itself.
fn lived(mut global: Global, fates: &[(u8, u32)], ahead: bool, reason: &str) -> Global {
    for (row, (fate, later)) in global.branches.iter_mut().zip(fates.iter().cycle()) {
        let ms = NOW_MS + u64::from(*later);
        match fate % 3 {
            0 => {}
            1 => (row.status, row.finish_ms) = (BranchStatus::Succeed, ms),
            _ => (row.status, row.rollback_ms) = (BranchStatus::Failed, ms),
        }
    }
    let fate = fates.first().map_or(0, |(fate, _)| usize::from(*fate));
    global.status = GlobalStatus::ALL[fate % GlobalStatus::ALL.len()];
    (global.ahead, global.rollback_reason) = (ahead, reason.to_owned());
    (global.retry_count, global.failed_passes) = (fate as u64 % 3, fate as u32 % 4);
    global
}

fn stored(global: &Global, version: u64) -> Vec<u8> {
    record_of(global, version).into_bytes()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300), status in 100..1000u16) {
        let _ = TransRequest::from_json(&bytes);
        let _ = RegisterBranch::from_json(&bytes);
        let _ = read("g", Some(bytes.clone()), Vec::new());
        let text = String::from_utf8_lossy(&bytes);
        let _ = TransRequest::steps_from_json(&text);
        let _ = (Delay::parse(&text), Order::parse(&text, 3), Input::parse(&text));
        let _ = (TransGid::parse(&*text), rushline::http1::Address::parse(&text));
        let answer = || Ok((StatusCode::from_u16(status).unwrap(), Bytes::copy_from_slice(&bytes)));
        let _ = (branch::http::result(answer()), branch::json_rpc::result(answer()));
        let row = vec![("confirm/01".to_owned(), format!("0 {text}")), (text.to_string(), text.to_string())];
        let _ = read("g", Some(b"0000000001 prepared {}".to_vec()), row);
    }

    /// A good body, or one with some bytes changed: what is taken has a stored form that says the same.
    #[test]
    fn what_is_taken_is_kept(
        body in body(),
        changes in changes(),
        fates in prop::collection::vec((any::<u8>(), any::<u32>()), 1..6),
        ahead: bool,
        reason in text(),
    ) {
        let whole = body.to_string().into_bytes();
        for bytes in [whole.clone(), changed(whole, &changes)] {
            let Some(global) = global_of(&bytes) else { continue };
            for global in [global.clone(), lived(global, &fates, ahead, &reason)] {
                let gid = global.gid.as_str();
                let loaded = read(gid, Some(stored(&global, 7)), Vec::new()).unwrap().unwrap();
                prop_assert_eq!(loaded.version, 7);
                prop_assert_eq!(loaded.says_ahead, global.ahead);
                prop_assert_eq!(loaded.global, global);
            }
        }
    }

    /// A record of which a byte was changed is read or refused; so are its answers to the rules.
    #[test]
    fn a_spoilt_record_is_read_or_refused(body in body(), changes in changes(), fates in prop::collection::vec((any::<u8>(), any::<u32>()), 1..6)) {
        let Some(global) = global_of(body.to_string().as_bytes()) else { return Ok(()) };
        let global = lived(global, &fates, true, "because");
        let bytes = changed(stored(&global, 1), &changes);
        if let Ok(Some(loaded)) = read(global.gid.as_str(), Some(bytes), Vec::new()) {
            let (mut global, mut pass, limits) = (loaded.global, Pass::default(), Limits::default());
            for _ in 0..8 {
                match next_step(&global, &mut pass, u64::MAX / 2, &limits) {
                    Step::Call(specs) => for spec in specs {
                        apply(&mut global, &mut pass, spec.called, BranchResult::Success, NOW_MS, &limits);
                    },
                    Step::Move { to, reason } => apply_move(&mut global, to, reason.as_deref(), NOW_MS),
                    Step::Await | Step::Wait { .. } | Step::Done => break,
                }
            }
        }
    }

    #[test]
    fn a_registered_branch_is_kept(
        branch_id in "[!-~]{1,20}",
        url in text(),
        payload in prop::collection::vec(any::<u8>(), 0..40),
        fate in 0..3u8,
        place in 0..1000usize,
        changes in changes(),
    ) {
        let mut branch = Branch::new(branch_id, Op::Cancel, url, Bytes::from(payload));
        match fate {
            1 => (branch.status, branch.finish_ms) = (BranchStatus::Succeed, NOW_MS),
            2 => (branch.status, branch.rollback_ms) = (BranchStatus::Failed, NOW_MS),
            _ => {}
        }
        let tcc = global_of(br#"{"gid":"g","trans_type":"tcc"}"#).unwrap();
        let row = (field_of(&branch), format!("{place} {}", row_of(&branch)));
        let spoilt = changed(row.1.clone().into_bytes(), &changes);
        let loaded = read("g", Some(stored(&tcc, 1)), vec![row.clone()]).unwrap().unwrap();
        prop_assert!(loaded.has_rows);
        prop_assert_eq!(loaded.global.branches, vec![branch]);
        let spoilt = String::from_utf8_lossy(&spoilt).into_owned();
        let _ = read("g", Some(stored(&tcc, 1)), vec![(row.0, spoilt)]);
    }

    #[test]
    fn spoilt_registrations_are_read_or_refused(data in text(), url in url(), changes in changes(), trans_type in "tcc|xa|workflow|odd|") {
        let body = json!({ "gid": "g", "trans_type": trans_type, "branch_id": "01", "data": data, "confirm": url,
            "cancel": url, "url": url, "op": "action", "status": "succeed" });
        let tcc = global_of(br#"{"gid":"g","trans_type":"tcc"}"#);
        for bytes in [body.to_string().into_bytes(), changed(body.to_string().into_bytes(), &changes)] {
            if let Ok(request) = RegisterBranch::from_json(&bytes)
                && let Ok(moves::Change::Append(rows)) = moves::register_branch(tcc.as_ref(), &request, NOW_MS)
            {
                prop_assert!(rows.iter().all(|row| row.payload == request.data));
            }
        }
    }
}

/// So that the properties above mean something: most of the bodies that they begin with are good.
#[test]
fn most_of_the_bodies_are_good() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let good = (0..200)
        .filter(|_| global_of(body().new_tree(&mut runner).unwrap().current().to_string().as_bytes()).is_some());
    assert!(good.count() > 40);
}
