use super::super::block::{is_made_by_us, made};
use super::*;

const V2: &str = r#"# Ours; do not touch.
version = 2
imports = ["/etc/containerd/conf.d/*.toml", "more.toml"]

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "pause:3.6" # pinned
  [plugins."io.containerd.grpc.v1.cri".containerd]
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = true
"#;

const V3: &str = "version = 3\n\
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.kata]\n\
    runtime_type = 'io.containerd.kata.v2'\n";

#[track_caller]
fn added(text: &str) -> String {
    let after = Settings::parse(text, None).unwrap().with_handler().unwrap();
    assert!(after.starts_with(text), "what was there stays: {after}");
    assert_eq!(without_block(&after).unwrap(), text);
    let settings = Settings::parse(&after, None).unwrap();
    assert!(settings.have_handler());
    assert_eq!(settings.with_handler().unwrap(), after, "twice is once");
    after
}

#[track_caller]
fn refused(text: &str) -> String {
    let settings = Settings::parse(text, None);
    settings
        .and_then(|settings| settings.with_handler())
        .unwrap_err()
        .line()
}

#[test]
fn the_table_is_that_of_the_files_version() {
    let after = added(V2);
    let table = "[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.virtc]";
    assert!(after.contains(table), "{after}");
    assert_eq!(
        Settings::parse(&after, None).unwrap().imports(),
        ["/etc/containerd/conf.d/*.toml", "more.toml"]
    );
    let table = "[plugins.\"io.containerd.cri.v1.runtime\".containerd.runtimes.virtc]";
    for text in [V3, "version = 4\n", "version = 3 # new\n[grpc]\nuid = 0\n"] {
        let after = added(text);
        assert!(after.contains(table), "{after}");
    }
}

#[test]
fn a_runtime_that_is_built_in_stays_beside_the_first_that_is_named() {
    let runc = "containerd.runtimes.runc]\nruntime_type = \"io.containerd.runc.v2\"\n";
    assert!(added("version = 2\n").contains(runc));
    assert!(made(Version::Two).contains(runc));
    // Those that are named are all that there are, and version 3 adds to what is built in.
    assert!(!added(V2).contains(runc));
    assert!(!added("version = 3\n").contains(runc));
}

#[test]
fn last_lines_without_an_end_and_windows_line_ends_stay() {
    added("version = 2\n[debug]\nlevel = \"info\"");
    added("version = 2");
    let windows = V2.replace('\n', "\r\n");
    let after = added(&windows);
    assert_eq!(
        after.matches('\n').count(),
        after.matches("\r\n").count(),
        "one kind of line end"
    );
}

#[test]
fn what_others_add_behind_the_handler_stays() {
    let after = added(V2) + "\n[debug]\nlevel = \"debug\"\n";
    let expected = format!("{V2}\n[debug]\nlevel = \"debug\"\n");
    assert_eq!(without_block(&after).unwrap(), expected);
    // A second installation puts it at the end.
    let again = Settings::parse(&after, None)
        .unwrap()
        .with_handler()
        .unwrap();
    assert_eq!(without_block(&again).unwrap(), expected);
}

#[test]
fn a_handler_that_somebody_else_wrote_is_left_alone() {
    let table = "[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.virtc]\n";
    let ours = format!("version = 2\n{table}runtime_type = \"io.containerd.virtc.v2\"\n");
    let settings = Settings::parse(&ours, None).unwrap();
    assert_eq!(settings.with_handler().unwrap(), ours);
    assert_eq!(without_block(&ours).unwrap(), ours);
    let other = format!("version = 2\n{table}runtime_type = \"io.containerd.runc.v2\"\n");
    let said = refused(&other);
    assert!(said.contains("io.containerd.runc.v2"), "{said}");
}

#[test]
fn an_older_block_becomes_todays() {
    let after = added(V2);
    let older = after.replace("container_annotations", "# container_annotations");
    let again = Settings::parse(&older, None)
        .unwrap()
        .with_handler()
        .unwrap();
    assert_eq!(again, after);
}

#[test]
fn what_cannot_be_changed_safely_is_refused_by_name() {
    for (text, reason) in [
        ("version = 1\n", "version 1"),
        ("disabled_plugins = [\"cri\"]\n", "version 1"),
        ("", "version 1"),
        ("version = 5\n", "version 5"),
        ("version = \"2\"\n", "not known"),
        ("version = 2\n[plugins\n", "cannot be read"),
        (
            "version = 2\nplugins = {\"io.containerd.grpc.v1.cri\" = {}}\n",
            "cannot be added",
        ),
        (
            "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\"]\ncontainerd = {runtimes = {}}\n",
            "cannot be added",
        ),
    ] {
        let said = refused(text);
        assert!(said.contains(reason), "{text:?}: {said}");
    }
    let mark = added("version = 2\n");
    let cut = mark.replace("# END virtc\n", "");
    assert!(without_block(&cut).is_err());
    assert!(without_block(&format!("{mark}# END virtc\n")).is_err());
}

#[test]
fn a_file_that_was_made_from_nothing_is_known_again() {
    for version in [Version::of_containerd(1), Version::of_containerd(2)] {
        let text = made(version);
        assert!(Settings::parse(&text, None).unwrap().have_handler());
        assert!(is_made_by_us(&without_block(&text).unwrap()));
    }
    assert!(!is_made_by_us("version = 2\n"));
}

#[test]
fn imported_files_have_the_version_of_the_one_that_imports_them() {
    let text = "[plugins.\"io.containerd.grpc.v1.cri\"]\n";
    let settings = Settings::parse(text, Some(Version::Two)).unwrap();
    assert!(settings.have_plugin());
    assert!(settings.with_handler().is_ok());
    let settings = Settings::parse(text, Some(Version::Three(3))).unwrap();
    assert!(!settings.have_plugin());
}

#[test]
fn a_plug_in_that_is_switched_off_is_seen() {
    for (text, off) in [
        ("version = 2\n", false),
        (
            "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n",
            true,
        ),
        (
            "version = 3\ndisabled_plugins = [\"io.containerd.cri.v1.runtime\"]\n",
            true,
        ),
        (
            "version = 3\ndisabled_plugins = [\"io.containerd.snapshotter.v1.btrfs\"]\n",
            false,
        ),
    ] {
        assert_eq!(
            Settings::parse(text, None).unwrap().switch_off_plugin(),
            off
        );
    }
}

proptest::proptest! {
    #[test]
    fn no_text_is_a_panic_and_what_is_added_can_be_taken_out(text in "([a-f] = [0-9]\\r?\\n|#[ -~]{0,9}\\n|\\[[g-k]\\]\\n|.|\\n){0,6}") {
        if let Ok(settings) = Settings::parse(&text, Some(Version::Two))
            && !settings.have_handler()
            && let Ok(after) = settings.with_handler()
        {
            proptest::prop_assert_eq!(without_block(&after).ok(), Some(text));
        }
    }
}
