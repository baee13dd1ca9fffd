//! How often a start asks the agent: each question goes through all of an emulated guest.

use std::fs;

use serde_json::Value;
use test_vm::Host;

use super::factory::Factory;
use super::host;

/// What a start may ask, for the sandbox and its container together.
const ASKED_MAX: usize = 4;

/// What a run asks until its container was started.
#[track_caller]
fn expect_few(host: &Host) {
    let log = host.dir("log").join("log.json");
    let flags = ["--debug", "--log-format", "json", "--log"];
    let flags = flags.into_iter().chain(log.to_str());
    host.virtc(flags.chain(["run", "--", "true"]))
        .expect_code(0);
    let log = fs::read_to_string(log).unwrap();
    let lines = log.lines().map(|line| serde_json::from_str(line).unwrap());
    let questions = lines.filter_map(|line: Value| {
        let asks = line["msg"].as_str()?.contains("asks the agent");
        asks.then(|| line["call"].as_str().unwrap().to_owned())
    });
    let asked: Vec<_> = questions.collect();
    let started = asked.iter().position(|call| call == "start the container");
    let started = started.unwrap_or_else(|| panic!("{log}"));
    assert!(started < ASKED_MAX, "{asked:#?}");
}

#[test]
fn a_sandbox_that_boots_and_its_container_are_four_questions() {
    expect_few(&host());
}

#[test]
fn a_clone_and_its_container_are_four_questions() {
    let factory = Factory::new();
    factory.host.run(&[], &["true"]).expect_code(0);
    expect_few(&factory.host);
}
