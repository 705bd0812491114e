use super::*;

const GOOD: &str = "
    [sale]
    units = 10
    [[arrivals]]
    kind = \"constant\"
    rate = 5
    lasts_s = 2
    [[buyers]]
    name = \"plain\"
";

fn error(text: &str) -> String {
    format!("{:#}", Scenario::parse("t", text, Path::new(".")).unwrap_err())
}

#[test]
fn every_ready_scenario_is_one_and_says_what_it_is_for() {
    for (name, text) in READY {
        let scenario = Scenario::parse(name, text, Path::new(".")).unwrap_or_else(|error| panic!("{name}: {error:#}"));
        assert!(!scenario.about.is_empty(), "{name}");
    }
    assert!(Scenario::load("no-such").unwrap_err().to_string().contains("ready ones: flash, steady"));
}

#[test]
fn what_is_not_said_has_its_default() {
    let scenario = Scenario::parse("t", GOOD, Path::new(".")).unwrap();
    assert_eq!((scenario.seed, scenario.work, scenario.sale.skus), (1, Work::Orders, 1));
    assert_eq!((scenario.buyers[0].clicks, scenario.buyers[0].tries), (1, 20));
    assert_eq!(scenario.order_service.mode, "single");
}

#[test]
fn a_wrong_scenario_is_refused_with_the_name_of_the_field() {
    let with = |more: &str| error(&format!("{GOOD}\n{more}"));
    assert!(with("clikcs = 2").contains("clikcs"));
    assert!(with("tries = 0").starts_with("buyers[0].tries: must be 1 to 100, got 0"));
    assert!(with("sku = \"sku-2\"").starts_with("buyers[0].sku: `sku-2` is neither"));
    assert!(
        with("pay_percent = 60\ncancel_percent = 50")
            .starts_with("buyers[0].cancel_percent: with pay_percent it is 110")
    );
    assert!(with("think_ms = [5, 1]").starts_with("buyers[0].think_ms: goes from 5 to 1"));
    assert!(with("[[events]]\nat_s = 1").starts_with("events[0]: says nothing to do"));
    assert!(with("[[events]]\nat_s = 1\nstatus = \"shut\"").starts_with("events[0].status: must be open"));
    assert!(with("[[arrivals]]\nkind = \"closed\"\nbuyers = 1").starts_with("arrivals: a closed loop"));
    assert!(
        with("[order_service]\nrefuse_percent = 101").starts_with("order_service.refuse_percent: must be at least 0")
    );
    assert!(error(&GOOD.replace("rate = 5", "rate = 0")).starts_with("arrivals[0].rate: must be more than 0"));
    assert!(error(&GOOD.replace("\"constant\"", "\"never\"")).contains("never"));
    assert!(error(&GOOD.replace("units = 10", "")).contains("units"));
}
