//! The scenarios around stores run to their end and their books agree, without a crash and with one.

use std::process::Command;

#[track_caller]
fn books_agree(scenario: &str) {
    for arguments in [&["run", scenario][..], &["run", scenario, "--crash"]] {
        let output = Command::new(env!("CARGO_BIN_EXE_rushline-examples")).args(arguments).output().unwrap();
        let words = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
        assert!(output.status.success(), "{arguments:?}: {}\n{words}", output.status);
    }
}

#[test]
fn an_order_and_its_stock_are_both_or_neither() {
    books_agree("order-system");
}

#[test]
fn no_stale_price_stays_in_the_cache() {
    books_agree("cache");
}

#[test]
fn units_sold_are_orders_of_the_service_that_was_there_before() {
    books_agree("flash-sale");
}

#[test]
fn three_kinds_of_stores_change_together() {
    books_agree("several-stores");
}
