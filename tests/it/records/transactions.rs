//! Stories of finished global transactions in the records, on every database.

use super::faults::administer;
use rushline::domain::trans::{
    Branch, BranchStatus, Global, GlobalStatus, Limits, Op, TransGid, TransRequest, TransType,
};
use rushline::reconciler::sink::Sink;
use rushline::store::trans::Filter;
use serde_json::json;

const DAY_MS: u64 = 1_763_800_000_000;

fn finished(gid: &str, trans_type: TransType, status: GlobalStatus, create_ms: u64) -> Global {
    let step = json!({ "action": "http://h/a", "compensate": "http://h/b" });
    let (steps, payloads) = match trans_type {
        TransType::Saga | TransType::Msg => (json!([step, step]), json!(["{\"n\":1}", ""])),
        _ => (json!([]), json!([])),
    };
    let body = json!({ "gid": gid, "trans_type": trans_type.as_str(), "steps": steps, "payloads": payloads });
    let request = TransRequest::from_json(body.to_string().as_bytes()).unwrap();
    let mut global = request.into_global(create_ms, &Limits::default(), &|_| None).unwrap();
    (global.status, global.update_ms) = (status, create_ms + 7);
    if status == GlobalStatus::Succeed {
        global.finish_ms = create_ms + 7;
    } else {
        global.rollback_ms = create_ms + 7;
    }
    global
}

fn saga(gid: &str, create_ms: u64) -> Global {
    finished(gid, TransType::Saga, GlobalStatus::Succeed, create_ms)
}

async fn read(sink: &Sink, gid: &str) -> Option<Global> {
    sink.transaction(&TransGid::parse(gid).unwrap()).await.unwrap()
}

pub async fn tell_all(sink: &Sink, url: &str) {
    a_transaction_reads_as_it_was_written(sink).await;
    writing_again_changes_nothing_and_a_gid_may_have_two_lives(sink).await;
    pages_are_newest_first(sink).await;
    one_refused_transaction_holds_up_no_other(sink, url).await;
    large_ones_are_taken(sink).await;
}

async fn a_transaction_reads_as_it_was_written(sink: &Sink) {
    assert_eq!(sink.write_transactions(&[] as &[Global]).await.unwrap(), []);
    assert_eq!(read(sink, "reads-nothing").await, None);
    let mut odd = finished("{reads}:odd", TransType::Saga, GlobalStatus::Failed, DAY_MS + 1);
    odd.rollback_reason = "'; DROP TABLE rushline_transactions; -- \\ ` $1 ? {} %s \u{0} \u{1F600}\u{FFFF}".into();
    odd.custom_data = "{\"a\":\"\\u0000\"}".into();
    odd.options.branch_headers.insert("X-é".into(), "\"ö\\".into());
    odd.options.timeout_to_fail_s = 77;
    (odd.next_cron_ms, odd.interval_ms, odd.retry_count, odd.failed_passes) = (DAY_MS + 2, 40_000, 3, 9);
    odd.branches[1].status = BranchStatus::Failed;
    odd.branches[1].rollback_ms = DAY_MS + 5;
    let mut bytes = Branch::new("0101", Op::Try, "", bytes::Bytes::from_static(&[0, 0xff, 10]));
    (bytes.status, bytes.finish_ms) = (BranchStatus::Succeed, DAY_MS + 6);
    odd.branches.push(bytes);
    let mut workflow = finished("reads-wf", TransType::Workflow, GlobalStatus::Succeed, DAY_MS + 2);
    workflow.result = "cmVz".into();
    let all = [odd, workflow, finished("reads-xa", TransType::Xa, GlobalStatus::Failed, DAY_MS)];
    assert_eq!(sink.write_transactions(&all).await.unwrap(), []);
    for expected in &all {
        assert_eq!(read(sink, expected.gid.as_str()).await.as_ref(), Some(expected), "{}", sink.kind());
    }
}

async fn writing_again_changes_nothing_and_a_gid_may_have_two_lives(sink: &Sink) {
    let batch: Vec<Global> = (0..700).map(|i| saga(&format!("twice-{i}"), DAY_MS + i / 100)).collect();
    sink.write_transactions(&batch).await.unwrap();
    let mut other = batch.clone();
    other.iter_mut().for_each(|global| global.rollback_reason = "another".into());
    other.push(batch[0].clone());
    assert_eq!(sink.write_transactions(&other).await.unwrap(), []);
    for expected in [&batch[0], &batch[699]] {
        assert_eq!(read(sink, expected.gid.as_str()).await.as_ref(), Some(expected));
    }
    let younger = saga("twice-0", DAY_MS + 1_000);
    sink.write_transactions(std::slice::from_ref(&younger)).await.unwrap();
    assert_eq!(read(sink, "twice-0").await.as_ref(), Some(&younger));
    let key = |global: &Global| (global.create_ms, global.gid.to_string());
    let keys = [key(&batch[0]), key(&younger), key(&batch[5]), (1, "twice-6".to_owned())];
    let mut found = sink.transactions(&keys).await.unwrap();
    found.sort_by_key(|global| global.create_ms);
    assert_eq!(found.len(), 3);
    assert_eq!(found[2], younger);
}

/// By (time, gid), both falling, in byte order; over many of one millisecond too.
async fn pages_are_newest_first(sink: &Sink) {
    let from_ms = DAY_MS + 86_400_000;
    let mut all = Vec::new();
    for i in 0..60_u64 {
        let trans_type = TransType::ALL[(i % 5) as usize];
        let status = if i % 3 == 0 { GlobalStatus::Failed } else { GlobalStatus::Succeed };
        let gid = format!("{}{}", ["page-", "Page_", "page.", "page{"][(i % 4) as usize], i);
        all.push(finished(&gid, trans_type, status, from_ms + i / 9));
    }
    sink.write_transactions(&all).await.unwrap();
    let walk = async |filter: Filter| -> Vec<(u64, String)> {
        let mut found: Vec<(u64, String)> = Vec::new();
        loop {
            let page = Filter { after: found.last().cloned(), ..filter.clone() };
            let page = sink.list_transactions(&page).await.unwrap();
            if page.is_empty() {
                return found;
            }
            found.extend(page);
            assert!(found.len() <= all.len(), "{} goes in circles", sink.kind());
        }
    };
    let expected = |wanted: &dyn Fn(&Global) -> bool| -> Vec<(u64, String)> {
        let mut keys: Vec<_> =
            all.iter().filter(|one| wanted(one)).map(|one| (one.create_ms, one.gid.to_string())).collect();
        keys.sort_by(|a, b| b.cmp(a));
        keys
    };
    let created = (Some(from_ms), Some(from_ms + 1_000)); // other stories have theirs at other times
    for limit in [1, 7, 100] {
        let filter = Filter { created, limit, ..Filter::default() };
        assert_eq!(walk(filter.clone()).await, expected(&|_| true), "{} by {limit}", sink.kind());
        let failed = Filter { status: Some(GlobalStatus::Failed), ..filter.clone() };
        assert_eq!(walk(failed).await, expected(&|one| one.status == GlobalStatus::Failed));
        let sagas = Filter { trans_type: Some(TransType::Saga), ..filter.clone() };
        assert_eq!(walk(sagas).await, expected(&|one| one.trans_type == TransType::Saga));
        let some = Filter { created: (Some(from_ms + 2), Some(from_ms + 3)), ..filter.clone() };
        assert_eq!(walk(some).await, expected(&|one| (from_ms + 2..=from_ms + 3).contains(&one.create_ms)));
        let open = Filter { status: Some(GlobalStatus::Submitted), ..filter };
        assert_eq!(walk(open).await, []);
    }
}

async fn one_refused_transaction_holds_up_no_other(sink: &Sink, url: &str) {
    let mut all: Vec<Global> = (0..300).map(|i| saga(&format!("refused-{i}"), DAY_MS)).collect();
    all[145].result = "nobody".into();
    all[222].result = "nobody".into();
    let [add, drop] = house_rule(url);
    administer(url, add).await;
    let mut refused: Vec<String> =
        sink.write_transactions(&all).await.unwrap().into_iter().map(|unwritten| unwritten.gid).collect();
    refused.sort();
    assert_eq!(refused, ["refused-145", "refused-222"], "{}", sink.kind());
    assert_eq!(read(sink, "refused-145").await, None);
    for i in [0, 144, 146, 299] {
        assert!(read(sink, &format!("refused-{i}")).await.is_some());
    }
    administer(url, drop).await;
    assert_eq!(sink.write_transactions(&all).await.unwrap(), []);
    assert_eq!(read(sink, "refused-145").await.as_ref(), Some(&all[145]));
}

/// Statements that add and drop the rule "the result is not `nobody`".
fn house_rule(url: &str) -> [&'static str; 2] {
    match url.split(':').next().unwrap() {
        "sqlite" => [
            "CREATE TRIGGER trans_rule BEFORE INSERT ON rushline_transactions_stored WHEN new.result = 'nobody' \
                BEGIN SELECT RAISE(ABORT, 'house rule'); END",
            "DROP TRIGGER trans_rule",
        ],
        "mongodb" => [
            r#"{"collMod": "transactions", "validator": {"result": {"$ne": "nobody"}}}"#,
            r#"{"collMod": "transactions", "validator": {}}"#,
        ],
        _ => [
            "ALTER TABLE rushline_transactions ADD CONSTRAINT trans_rule CHECK (result <> 'nobody')",
            "ALTER TABLE rushline_transactions DROP CONSTRAINT trans_rule",
        ],
    }
}

/// The largest body that a door takes has 4 MiB; several of them in one write.
async fn large_ones_are_taken(sink: &Sink) {
    let payload = bytes::Bytes::from("ä\"\\x".repeat(200_000));
    let mut all = Vec::new();
    for i in 0..3 {
        let mut global = saga(&format!("large-{i}"), DAY_MS);
        global.payloads[0] = payload.clone();
        for branch in &mut global.branches {
            branch.payload = if branch.branch_id == "01" { payload.clone() } else { branch.payload.clone() };
        }
        all.push(global);
    }
    assert_eq!(sink.write_transactions(&all).await.unwrap(), []);
    for expected in &all {
        assert!(read(sink, expected.gid.as_str()).await.as_ref() == Some(expected), "{}", sink.kind());
    }
}
