//! A run is told in full, and can be read back and compared.

use super::*;
use crate::ledger::{
    Asked, Basket, Called, Heard, Item, Kind, Outcome, Plan, Recorder, SalePlan, ServiceAnswer, Stock, StockSample,
    buyer_name, key_of,
};
use crate::oracle::{Aftermath, Charge, Evidence, Tolerance, judge};
use std::time::Duration;

/// Ten seconds of a sale: 100 answers a second, 200 orders, then sold out; `slow` multiplies every latency.
fn example(slow: u64) -> (Ledger, Recorder) {
    let recorder = Recorder::new(10_000);
    let mut shard = recorder.shard();
    let item = || Item { sku: "a".into(), quantity: 1 };
    for n in 0..1000u32 {
        let intended_us = u64::from(n) * 10_000;
        let latency_us = slow * (900 + u64::from(n) * 7919 % 1300 + if n % 100 == 0 { 20_000 } else { 0 });
        let asked = Asked {
            kind: Kind::Order,
            intended_us,
            sent_us: intended_us + 40,
            buyer: n,
            sale: 0,
            key: key_of(n, 1),
            basket: 0,
            attempt: 1,
            about: None,
        };
        let gid = format!("s.0.1-0.{n}");
        let (status, outcome) = match n {
            0..200 => (201, Outcome::Admitted { gid: &gid }),
            _ if n % 250 == 0 => (0, Outcome::Unknown { error: "timeout" }),
            _ => (409, Outcome::Refused { reason: "sold_out" }),
        };
        let answered_us = intended_us + latency_us;
        shard.tell(asked, Heard { answered_us, status, replayed: false, outcome });
        if n < 200 {
            recorder.called([Called {
                at_us: answered_us,
                answered_us: answered_us + 3000,
                gid,
                sale: "s".into(),
                buyer: buyer_name(n),
                items: vec![item()],
                op: "action".into(),
                answer: ServiceAnswer::Made,
            }]);
        }
        if n % 50 == 0 {
            let sold = i64::from(n.min(200));
            recorder.stock(StockSample {
                at_us: intended_us,
                sku: "a".into(),
                available: 200 - sold,
                reserved: 0,
                sold,
            });
        }
    }
    let live = recorder.clone();
    drop(shard);
    let stock = vec![Stock { sku: "a".into(), units: 200 }];
    let sale = SalePlan { name: "s".into(), stock, ..SalePlan::default() };
    let plan = Plan { began_unix_us: 0, sales: vec![sale], baskets: vec![Basket { items: vec![item()] }] };
    (recorder.finish(plan).unwrap(), live)
}

fn about(name: &str) -> About {
    About {
        name: name.into(),
        scenario: "flash".into(),
        about: "everybody in the first moment".into(),
        target: "http://127.0.0.1:36789".into(),
        ..About::default()
    }
}

fn example_run(name: &str, slow: u64) -> (Run, Ledger) {
    let ledger = example(slow).0;
    let after = Aftermath { settled: true, ..Aftermath::default() };
    let verdict = judge(&ledger, &after, Tolerance::default());
    (Run::new(about(name), &ledger, verdict), ledger)
}

#[test]
fn a_run_has_all_that_happened() {
    let (run, ledger) = example_run("one", 1);
    assert_eq!((run.requests, run.orders_told, run.order_service.made), (1000, 200, 200));
    assert_eq!(run.counts.refused["sold_out"], 797);
    assert_eq!(run.latency_of["unanswered"].count, 3);
    assert_eq!(run.slices.iter().map(|slice| slice.counts.answers()).sum::<u64>(), 1000);
    assert_eq!(run.slices.iter().map(|slice| slice.made).sum::<u64>(), 200);
    assert_eq!((run.slice_s, run.slices.len()), (0.1, 100), "a short run is shown by tenths");
    let of_ledger = |second: usize| &ledger.seconds[second].counts;
    let of_slices = |from: f64| {
        let mut sum = crate::ledger::Counts::default();
        run.slices
            .iter()
            .filter(|slice| (from..from + 1.0).contains(&slice.at_s))
            .for_each(|slice| sum.add(&slice.counts));
        sum
    };
    assert_eq!((&of_slices(1.0), &of_slices(7.0)), (of_ledger(1), of_ledger(7)));
    assert_eq!(run.order_made.count, 200);
    assert!(run.order_made.p50 > run.latency.p50 + 2.9, "the order is made after the answer");
    assert!((9.99..10.1).contains(&run.duration_s), "{}", run.duration_s);
    assert!((run.schedule_error.p50 - 0.04).abs() < 0.001, "{}", run.schedule_error.p50);
    let curve = &run.latency.curve;
    assert!(curve.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1), "{curve:?}");
    assert_eq!(curve.last().unwrap().1, run.latency.max);
}

#[test]
fn a_summary_begins_with_the_verdict_and_counts_everything() {
    let (run, _) = example_run("one", 1);
    let text = summary::of(&run);
    let at = |what: &str| text.find(what).unwrap_or_else(|| panic!("no {what} in\n{text}"));
    assert!(at("✓ nothing is wrong") < at("requests ..."));
    for what in ["200 told", "797", "sold out", "p99.9=", "99.99%", "■", "schedule error"] {
        at(what);
    }
    // Every answer is in the histogram, but for the slowest thousandth.
    let histogram = &text[at("Latency histogram")..at("Latency distribution")];
    let counted: u64 = (histogram.lines())
        .filter_map(|line| line.split_once('≤')?.1.split_whitespace().nth(1)?.replace(',', "").parse::<u64>().ok())
        .sum();
    assert!((990..=1000).contains(&counted), "{counted} in\n{histogram}");
}

#[test]
fn results_are_written_and_read_back() {
    let (run, ledger) = example_run("night/run <1>", 1);
    let directory = std::env::temp_dir().join(format!("rushline-report-{}", std::process::id()));
    let output = Output { json: None, html: None, runs: directory.join("runs"), no_runs: false };
    output.publish(&run, &ledger).unwrap();
    output.publish(&run, &ledger).unwrap();
    let written = directory.join("runs").join("night-run--1--2");
    let again = Run::read(&written.join("run.json")).unwrap();
    assert_eq!(summary::of(&again), summary::of(&run));
    assert_eq!((again.slices.len(), again.stock.len()), (run.slices.len(), run.stock.len()));
    let lines = |name: &str| std::fs::read_to_string(written.join(name)).unwrap().lines().count();
    assert_eq!((lines("told.csv"), lines("called.csv")), (1001, 201));
    assert!(written.join("report.html").exists());
    std::fs::write(directory.join("other.json"), r#"{"form":99}"#).unwrap();
    let error = Run::read(&directory.join("other.json")).unwrap_err();
    assert!(error.to_string().contains("form 99"), "{error}");
    assert!(Run::read(&written.join("told.csv")).unwrap_err().to_string().contains("is no run"));
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn a_page_needs_no_network_and_runs_nothing_that_a_server_said() {
    let (mut run, _) = example_run("</script><b>", 1);
    run.counts.refused.insert("</script><script>alert(1)".into(), 1);
    let page = page::of(&[&run]).unwrap();
    assert_eq!(page.matches("</script>").count(), 2, "the data and the plots");
    assert!(page.contains("<title>&lt;/script&gt;&lt;b&gt;"), "the title is text");
    for outside in ["src=", "href=", "url(", "@import", "fetch(", "http://www", "https://"] {
        let known = page.replace("http://www.w3.org/2000/svg", "");
        assert!(!known.contains(outside), "{outside}");
    }
    assert!(!page.contains("{{"), "every mark is filled in");
}

#[test]
fn two_runs_are_compared() {
    let (fast, slow) = (example_run("fast", 1).0, example_run("slow", 3).0);
    let runs = [fast.clone(), slow];
    let text = compare::text(&runs);
    let line = |name: &str| text.lines().find(|line| line.contains(name)).unwrap_or_else(|| panic!("{name}: {text}"));
    assert!(line("latency p50").contains("worse") && line("latency p50").contains("+200"), "{text}");
    assert!(!line("requests/s").contains("worse"), "as many answers in as much time: {text}");
    assert!(!text.contains("not the same"), "{text}");
    let back = compare::text(&[runs[1].clone(), runs[0].clone()]);
    assert!(back.lines().any(|line| line.contains("latency p99 ") && line.contains("better")), "{back}");
    let mut other = fast.clone();
    other.about.settings.insert("connections".into(), "64".into());
    other.verdict.charge(Charge::Lost, Evidence::new(1, "gone"));
    let text = compare::text(&[fast, other]);
    assert!(text.contains("! not the same connections: not set and 64"), "{text}");
    assert!(
        text.contains("✗ violated") && text.lines().any(|line| line.contains("violations") && line.contains("worse"))
    );
}

#[test]
fn where_there_is_no_terminal_a_line_a_second_says_how_it_goes() {
    let recorder = Recorder::new(1000);
    let mut shard = recorder.shard();
    for n in 0..30u64 {
        let at = n * 100_000;
        let outcome = if n < 10 { Outcome::Admitted { gid: "g" } } else { Outcome::Refused { reason: "sold_out" } };
        let asked = Asked {
            kind: Kind::Order,
            intended_us: at,
            sent_us: at,
            buyer: 1,
            sale: 0,
            key: n + 1,
            basket: 0,
            attempt: 1,
            about: None,
        };
        shard.tell(asked, Heard { answered_us: at + 2000, status: 200, replayed: false, outcome });
    }
    let line = live::plain_for_tests(Duration::from_secs(2), &recorder.glance(2), Some(7));
    for part in ["2 s", "10/s", "p99 2.0", "admitted 10", "sold out 10", "left 7"] {
        assert!(line.contains(part), "no {part}: {line}");
    }
}
