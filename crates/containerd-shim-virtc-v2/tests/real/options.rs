//! Options of the runtime, as containerd's configuration and its clients give them.

use std::fs;

use super::Containerd;

#[test]
fn a_runtime_has_the_configuration_that_its_options_name() {
    let Some(mut containerd) = Containerd::new() else {
        return;
    };
    let allowed = containerd.dir("allowed");
    containerd.restart_with_variable("VIRTC_RUNTIME_OPTION_PATHS", allowed.to_str().unwrap());
    let other = containerd.dir("other").join("small.toml");
    let small = allowed.join("small.toml");
    for path in [&other, &small] {
        fs::write(path, "[vm]\nmemory = \"200m\"\n").unwrap();
    }
    let named = |path: &str| ["--runtime-config-path".to_owned(), path.to_owned()];
    let run = |path: &str, command: &[&str]| {
        let flags = named(path);
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        containerd.run(&flags, "c1", command)
    };
    let output = run(
        small.to_str().unwrap(),
        &["head", "-n", "1", "/proc/meminfo"],
    );
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let total = said
        .split_whitespace()
        .nth(1)
        .and_then(|kib| kib.parse::<u64>().ok());
    let total = total.unwrap_or_else(|| panic!("{said}{}", containerd.log()));
    assert!(total < 200 << 10, "{total} KiB");
    // What the administrator does not allow is named.
    let output = run(other.to_str().unwrap(), &["true"]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    for word in [
        "ConfigPath",
        other.to_str().unwrap(),
        "runtime.option_paths",
    ] {
        assert!(error.contains(word), "{error}");
    }
    // What it had is removed as it was made, also when the file is not there any more.
    let flags = named(small.to_str().unwrap());
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    containerd.begin(&flags, "c1", &["sleep", "1000"]);
    fs::remove_file(&small).unwrap();
    let shim = containerd.shim("c1");
    rustix::process::kill_process(shim, rustix::process::Signal::KILL).unwrap();
    containerd.wait_for("the end of the task", || {
        containerd
            .state("c1")
            .is_none_or(|state| state == "STOPPED")
    });
    containerd.ctr(&["task", "rm", "c1"]);
    containerd.done(&["container", "rm", "c1"]);
    containerd.wait_for("the end of what it had", || containerd.left().is_empty());
}
