//! Every scenario runs to its end and its books agree, without a crash and with one.

use std::process::Command;

fn run(scenario: &str, arguments: &[&str]) {
    let program = env!("CARGO_BIN_EXE_rushline-examples");
    let output = Command::new(program).arg("run").arg(scenario).args(arguments).output().unwrap();
    let words = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert!(output.status.success(), "{scenario} {arguments:?}: {}\n{words}", output.status);
}

#[test]
fn every_scenario_is_listed() {
    let output = Command::new(env!("CARGO_BIN_EXE_rushline-examples")).arg("list").output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap().lines().count(), 6);
}

#[test]
fn bank_transfer() {
    run("bank-transfer", &[]);
    run("bank-transfer", &["--crash"]);
}

#[test]
fn travel() {
    run("travel", &[]);
    run("travel", &["--crash"]);
}
