//! `virtc check` and the other commands without a machine.

use super::host;

#[test]
fn this_host_can_run_machines_and_check_says_how() {
    let host = host();
    let outcome = host.virtc(["check"]).expect_code(0);
    for what in [
        "accelerator",
        "transport",
        "qemu",
        "guest kernel",
        "cgroups",
        "memory",
    ] {
        assert!(outcome.out().contains(what), "{what} in {}", outcome.out());
    }
    let json = host.virtc(["check", "-f", "json"]).expect_code(0).out();
    assert!(json.contains("\"status\": \"ok\""), "{json}");
}

#[test]
fn what_is_missing_is_named_with_the_command_that_mends_it() {
    let mut host = host();
    host.env("VIRTC_GUEST_ASSETS", "/nonexistent");
    let outcome = host.virtc(["check"]).expect_code(1);
    assert!(outcome.out().contains("missing") && outcome.out().contains("make guest"));
}

#[test]
fn the_configuration_says_where_each_value_comes_from() {
    let host = host();
    let outcome = host.virtc(["config"]).expect_code(0);
    let root = outcome
        .out()
        .lines()
        .find(|l| l.starts_with("runtime.root "))
        .unwrap()
        .to_owned();
    assert!(root.contains("VIRTC_RUNTIME_ROOT"), "{root}");
}

#[test]
fn an_empty_list_is_empty_in_every_form() {
    let host = host();
    assert_eq!(host.virtc(["list", "-q"]).expect_code(0).out(), "");
    assert_eq!(
        host.virtc(["list", "-f", "json"]).expect_code(0).out(),
        "[]\n"
    );
}

#[test]
fn completions_and_man_pages_come_from_the_same_definition() {
    let host = host();
    for shell in ["bash", "zsh", "fish"] {
        assert!(
            host.virtc(["completions", shell])
                .expect_code(0)
                .out()
                .contains("--rootfs")
        );
    }
    assert!(
        host.virtc(["man"])
            .expect_code(0)
            .out()
            .contains(".TH virtc")
    );
    let pages = host.dir("man");
    host.virtc(["man", "--dir", pages.to_str().unwrap()])
        .expect_code(0);
    assert!(pages.join("virtc-run.1").exists());
}

#[test]
fn a_first_config_is_written_once() {
    let host = host();
    let bundle = host.dir("bundle");
    let args = ["spec", "--bundle", bundle.to_str().unwrap()];
    host.virtc(args).expect_code(0);
    let config = std::fs::read(bundle.join("config.json")).unwrap();
    let config: serde_json::Value = serde_json::from_slice(&config).unwrap();
    assert_eq!(config["process"]["terminal"], true);
    host.virtc(args)
        .expect_code(1)
        .expect_err(&["File config.json exists. Remove it first"]);
    // A flag of this name is the engine's where it is before the command.
    host.virtc(["--rootless", "auto", "spec"]).expect_code(0);
    assert!(host.cwd().join("config.json").exists());
    host.virtc(["spec", "--rootless"])
        .expect_code(1)
        .expect_err(&["--rootless is not supported"]);
}

#[test]
fn features_are_one_document() {
    let features = host().virtc(["features"]).expect_code(0).out();
    let features: serde_json::Value = serde_json::from_str(&features).unwrap();
    assert_eq!(features["ociVersionMin"], "1.0.0");
    assert_eq!(features["linux"]["apparmor"]["enabled"], false);
}

#[test]
fn an_engine_reads_in_its_log_that_there_are_no_checkpoints() {
    let host = host();
    let log = host.dir("log").join("log.json");
    let global = ["--log", log.to_str().unwrap(), "--log-format", "json"];
    for command in [
        &["checkpoint", "--leave-running", "c1"],
        &["restore", "-d", "c1"],
    ] {
        host.virtc(global.iter().chain(command))
            .expect_code(1)
            .expect_err(&["is not supported"]);
        let text = std::fs::read_to_string(&log).unwrap();
        let last: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        assert_eq!(last["level"], "error");
        let said = last["msg"].as_str().unwrap();
        assert!(
            said.contains("container c1") && said.contains("CRIU"),
            "{said}"
        );
    }
}

#[test]
fn a_help_whose_reader_leaves_is_no_fault() {
    host().virtc(["run", "--help"]).expect_code(0);
}
