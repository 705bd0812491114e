use super::orders_file::{Comparison, OrdersFile};
use super::terminal::{exit_code, grouped, rendered};
use super::*;
use crate::fault::Fault;
use anyhow::Context;
use clap::CommandFactory;

#[test]
fn the_command_tree_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn every_visible_command_has_an_example() {
    fn check(command: &clap::Command, path: &str) {
        let path = format!("{path} {}", command.get_name());
        for inner in command.get_subcommands().filter(|inner| !inner.is_hide_set()) {
            check(inner, &path);
        }
        if command.get_subcommands().next().is_none() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("Example"), "{path} has no example");
        }
    }
    for command in Cli::command().get_subcommands().filter(|command| !command.is_hide_set()) {
        check(command, "rushline");
    }
}

#[test]
fn usage_errors_are_exit_code_2() {
    for line in [
        "rushline sale show a.b",
        "rushline sale create",
        "rushline sale create x --item a",
        "rushline nothing",
        "rushline order show x",
    ] {
        let error = Cli::try_parse_from(line.split(' ')).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{line}");
    }
    for line in [
        "rushline sale restock s sku-1 -5",
        "rushline sale create --file x.json",
        "rushline serve --redis-url redis://h",
        "rushline dev",
    ] {
        Cli::try_parse_from(line.split(' ')).unwrap();
    }
}

#[test]
fn an_error_shows_its_causes_once_and_its_hints_last() {
    let cause = std::io::Error::other("disk on fire");
    let error = anyhow::Error::new(Fault::unreachable("no Redis").because(cause).hint("apt install redis-server"))
        .context("cannot start");
    assert_eq!(
        rendered(&error, false),
        "error: cannot start\n  because: no Redis\n  because: disk on fire\nhint: apt install redis-server"
    );
    assert_eq!(exit_code(&error), 4);
    let error = Err::<(), _>(std::io::Error::other("x")).context(Fault::unreachable("as context")).unwrap_err();
    assert_eq!(exit_code(&error), 4);
    assert_eq!(exit_code(&anyhow::anyhow!("plain")), 1);
}

#[test]
fn a_wrong_configuration_is_exit_code_3_with_a_hint_per_problem() {
    let sources = crate::config::Sources { flags: vec![("log.level", "wrn".into())], ..Default::default() };
    let error = anyhow::Error::new(crate::config::resolve(sources).unwrap_err());
    assert_eq!(exit_code(&error), 3);
    assert!(rendered(&error, false).contains("\nhint: did you mean `warn`?"));
}

#[test]
fn numbers_are_grouped_by_thousands() {
    assert_eq!([0, 999, 1_000, -1_234_567].map(grouped), ["0", "999", "1 000", "-1 234 567"]);
}

fn file(text: &str) -> anyhow::Result<OrdersFile> {
    OrdersFile::parse("orders", text.as_bytes())
}

#[test]
fn an_orders_file_is_lines_or_csv_or_ndjson() {
    for text in [
        "s.0.1-1.0\ns.0.1-1.1\n",
        "\u{feff}gid,total\r\ns.0.1-1.1,5\r\n\r\ns.0.1-1.0,7",
        "\"s.0.1-1.0\";x\n\"s.0.1-1.1\";y",
        "{\"gid\":\"s.0.1-1.1\",\"total\":5}\n{\"total\":1,\"gid\":\"s.0.1-1.0\"}\n",
    ] {
        assert_eq!(file(text).unwrap().of_sale("s"), ["s.0.1-1.0", "s.0.1-1.1"], "{text}");
    }
    let error = file("s.0.1-1.0\nwhat\n").unwrap_err();
    assert_eq!(error.to_string(), "orders:2: has no gid");
    assert!(file("{\"id\":1}\n").is_err());
    assert!(file("").unwrap().of_sale("s").is_empty());
}

#[test]
fn a_gid_that_is_listed_twice_is_named() {
    let twice = file("s.0.1-1.0\ns.0.1-1.1\ns.0.1-1.0\n").unwrap().twice;
    assert_eq!((twice.count, twice.first), (1, vec!["s.0.1-1.0".to_owned()]));
}

#[test]
fn a_sale_gets_its_own_orders_and_those_of_no_sale_are_named() {
    let file = file("a.0.1-1.0\na-b.0.1-1.0\naa.0.1-1.0\nb.0.1-1.0\n").unwrap();
    assert_eq!(file.of_sale("a"), ["a.0.1-1.0"]);
    assert_eq!(file.of_sale("a-b"), ["a-b.0.1-1.0"]);
    assert_eq!(file.of_other_sales(&["a".into(), "aa".into()]).first, ["a-b.0.1-1.0", "b.0.1-1.0"]);
}

#[test]
fn a_comparison_names_what_is_missing_and_what_is_extra() {
    let file = file("s.0.1-1.0\ns.0.1-1.10\ns.0.1-1.3\ns.0.1-1.4\ns.0.9-1.0\n").unwrap();
    let mut comparison = Comparison::new(file.of_sale("s"));
    // Byte order, as the records are paged: .10 before .2.
    for (gid, made) in
        [("s.0.1-1.0", true), ("s.0.1-1.10", true), ("s.0.1-1.2", true), ("s.0.1-1.4", false), ("s.0.1-1.5", false)]
    {
        comparison.record(gid, made).unwrap();
    }
    let found = comparison.finish();
    assert_eq!(found.matched, 2);
    assert_eq!(found.missing.first, ["s.0.1-1.2"]);
    // Not in the records, refused in the records, and after the last record.
    assert_eq!(found.extra.first, ["s.0.1-1.3", "s.0.1-1.4", "s.0.9-1.0"]);
}

#[test]
fn twenty_are_named_and_the_rest_counted() {
    let mut comparison = Comparison::new(&[]);
    for n in 10..60 {
        comparison.record(&format!("s.0.1-1.{n}"), true).unwrap();
    }
    let found = comparison.finish();
    assert_eq!((found.missing.count, found.missing.first.len()), (50, 20));
}

#[test]
fn records_out_of_order_are_an_error_and_not_a_wrong_result() {
    let mut comparison = Comparison::new(&[]);
    comparison.record("s.0.1-1.2", true).unwrap();
    assert!(comparison.record("s.0.1-1.10", true).is_err());
    assert!(comparison.record("s.0.1-1.2", true).is_err());
}
