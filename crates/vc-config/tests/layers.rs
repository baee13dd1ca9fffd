//! The layers of the configuration, as a user meets them.

#![allow(clippy::unwrap_used, reason = "what fails in a test fails the test")]

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use vc_config::{Accelerator, Config, Error, Origin, Problem, SandboxCgroup, Sources};
use vc_types::Hint;

fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.toml");
    fs::write(&path, text).unwrap();
    (dir, path)
}

fn problems(text: &str) -> Vec<Problem> {
    let (_dir, path) = file(text);
    let mut sources = Sources::default();
    sources.file(path);
    match sources.load() {
        Err(Error::Invalid { problems }) => problems,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_later_layer_wins_and_is_the_origin() {
    let (_dir, path) = file(
        "[vm]\nvcpus = 1\nmemory = \"1g\"\n\n[runtime]\naccelerator = \"tcg\"\n\
         [hypervisor.qemu]\nroot_ports = 3\n",
    );
    let mut sources = Sources::default();
    sources.file(&path);
    sources.environment([
        ("VIRTC_VM_VCPUS".into(), "2".into()),
        ("VIRTC_VM_MEMORY".into(), "2g".into()),
        ("VIRTC_TEST_ANYTHING".into(), "x".into()),
        ("HOME".into(), "/root".into()),
    ]);
    sources.flag("vm.memory", "--memory", "3g");
    let loaded = sources.load().unwrap();
    assert_eq!(loaded.config.vm.vcpus, Some(2));
    assert_eq!(loaded.config.vm.memory.unwrap().mib(), 3072);
    assert_eq!(loaded.config.runtime.accelerator, Accelerator::Tcg);
    assert_eq!(loaded.config.hypervisor.qemu.root_ports, 3);
    assert_eq!(
        loaded.origin("runtime.accelerator"),
        Origin::File { path, line: 6 }
    );
    assert_eq!(
        loaded.origin("vm.vcpus").to_string(),
        "environment VIRTC_VM_VCPUS"
    );
    assert_eq!(loaded.origin("vm.memory").to_string(), "flag --memory");
    assert_eq!(loaded.origin("scratch.size"), Origin::Default);
}

#[test]
fn an_unknown_key_is_named_with_its_line_and_the_nearest() {
    let found =
        problems("[vm]\nmemroy = \"1g\"\n[vmm]\n[lmits]\nlock_ms = 1\n[runtime]\nvcpus = 2\n");
    let shown: Vec<_> = found
        .iter()
        .map(|problem| {
            let Origin::File { line, .. } = problem.origin else {
                panic!("{problem:?}")
            };
            (problem.key.as_str(), line, problem.nearest.as_deref())
        })
        .collect();
    assert_eq!(
        shown,
        [
            ("vm.memroy", 2, Some("vm.memory")),
            ("vmm", 3, None),
            ("lmits.lock_ms", 5, Some("limits.lock_ms")),
            ("runtime.vcpus", 7, Some("vm.vcpus")),
        ]
    );
    let error = Error::Invalid { problems: found };
    assert!(error.hint().unwrap().contains("vm.memory"));
    assert!(
        error.to_string().contains("config.toml line 2: vm.memroy"),
        "{error}"
    );
}

#[test]
fn all_problems_of_all_layers_are_reported_at_once() {
    let (_dir, path) = file("[vm]\nvcpus = 0\n[runtime]\nroot = \"here\"\naccelerator = \"xen\"\n");
    let mut sources = Sources::default();
    sources.file(path);
    sources.environment([
        ("VIRTC_LIMITS_LOCK_MS".into(), "soon".into()),
        ("VIRTC_VM_VCPU".into(), "2".into()),
    ]);
    sources.flag("scratch.size", "--scratch", "1x");
    let Err(Error::Invalid { problems }) = sources.load() else {
        panic!()
    };
    let keys: Vec<_> = problems
        .iter()
        .map(|problem| problem.key.as_str())
        .collect();
    assert_eq!(
        keys,
        [
            "runtime.accelerator",
            "limits.lock_ms",
            "VIRTC_VM_VCPU",
            "scratch.size",
            "runtime.root",
            "vm.vcpus",
        ]
    );
    assert_eq!(problems[2].nearest.as_deref(), Some("VIRTC_VM_VCPUS"));
}

#[test]
fn a_value_where_a_table_belongs_is_refused() {
    for text in [
        "vm = 3\n",
        "[vm]\nvcpus = {}\n",
        "[vm.vcpus]\nx = 1\n",
        "[vm]\nvcpus = \"2\"\n",
    ] {
        assert_eq!(problems(text).len(), 1, "{text}");
    }
}

#[test]
fn a_file_that_is_no_toml_is_named_with_its_line() {
    let (_dir, path) = file("[vm]\nvcpus = \n");
    let mut sources = Sources::default();
    sources.file(&path);
    let Err(Error::Parse {
        line, path: named, ..
    }) = sources.load()
    else {
        panic!()
    };
    assert_eq!((line, named), (2, path));
}

#[test]
fn only_a_file_that_was_named_must_exist() {
    let mut sources = Sources::default();
    sources.file_if_it_exists("/nowhere/config.toml");
    assert_eq!(sources.load().unwrap().config, Config::default());
    sources.file("/nowhere/config.toml");
    assert!(matches!(sources.load(), Err(Error::Read { .. })));
}

#[test]
fn a_file_without_an_end_is_refused() {
    let mut sources = Sources::default();
    sources.file("/dev/zero");
    assert!(matches!(sources.load(), Err(Error::Read { .. })));
}

#[test]
fn lists_come_from_all_layers() {
    for text in ["quiet,loglevel=3", "[\"quiet\", \"loglevel=3\"]"] {
        let mut sources = Sources::default();
        sources.environment([("VIRTC_GUEST_KERNEL_PARAMS".into(), text.into())]);
        let loaded = sources.load().unwrap();
        assert_eq!(loaded.config.guest.kernel_params, ["quiet", "loglevel=3"]);
    }
    let mut sources = Sources::default();
    sources.flag_list(
        "guest.kernel_params",
        "--kernel-param",
        vec!["a,b".into(), "c".into()],
    );
    assert_eq!(
        sources.load().unwrap().config.guest.kernel_params,
        ["a,b", "c"]
    );
}

#[test]
fn what_is_effective_is_every_key_with_its_origin() {
    let mut sources = Sources::default();
    sources.flag("vm.vcpus", "--cpus", "2");
    let effective = sources.load().unwrap().effective();
    assert_eq!(effective.len(), Config::keys().len());
    let find = |key: &str| effective.iter().find(|e| e.key == key).unwrap();
    assert_eq!(find("vm.vcpus").shown(), "2");
    assert!(
        find("vm.memory").shown().starts_with("(2 GiB"),
        "{}",
        find("vm.memory").shown()
    );
    let json = serde_json::to_value(find("vm.vcpus")).unwrap();
    assert_eq!(
        json,
        serde_json::json!({"key": "vm.vcpus", "value": "2", "origin": "flag", "flag": "--cpus"})
    );
}

#[test]
fn the_page_of_the_documentation_is_what_the_code_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/config.md");
    let page = vc_config::document();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &page).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == page,
        "docs/config.md is out of date: run this test with UPDATE_DOCS=1"
    );
}

#[test]
fn what_the_documentation_says_of_candidates_is_what_is_looked_for() {
    for (key, candidates) in [
        ("hypervisor.qemu.path", vc_config::Qemu::PATH_CANDIDATES),
        (
            "hypervisor.qemu.firmware",
            vc_config::Qemu::FIRMWARE_CANDIDATES,
        ),
        ("guest.assets", vc_config::Guest::ASSETS_CANDIDATES),
    ] {
        let keys = Config::keys();
        let unset = keys
            .iter()
            .find(|k| k.path() == key)
            .unwrap()
            .unset
            .unwrap();
        let listed: Vec<_> = unset.split('`').skip(1).step_by(2).collect();
        assert_eq!(listed, candidates, "{key}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_file_makes_it_panic(text in "(\\[(vm|runtime|x)\\]\n)?(vcpus|root|\"a\\.b\")( = ([0-9]{1,4}|\"[a-z/]{0,4}\"|\\{\\}))?\n|.{0,60}") {
        let (_dir, path) = file(&text);
        let mut sources = Sources::default();
        sources.file(path);
        let _ = sources.load();
    }

    #[test]
    fn what_a_file_sets_reads_back_from_what_is_shown(
        vcpus in 1u32..=255,
        memory in (64u64 << 20)..(1 << 40),
        lock in 10u64..1000,
        params in prop::collection::vec("[a-z=.,]{1,8}", 0..4),
    ) {
        let mut sources = Sources::default();
        sources.flag("vm.vcpus", "-c", vcpus.to_string());
        sources.flag("vm.memory", "-m", memory.to_string());
        sources.flag("limits.lock_ms", "-l", lock.to_string());
        sources.flag_list("guest.kernel_params", "-k", params);
        let first = sources.load().unwrap();
        let mut text = String::new();
        for effective in first.effective() {
            if let Some(value) = effective.value {
                text.push_str(&format!("{} = {value}\n", effective.key));
            }
        }
        let (_dir, path) = file(&text);
        let mut sources = Sources::default();
        sources.file(path);
        prop_assert_eq!(sources.load().unwrap().config, first.config);
    }
}

fn with_annotations(file_text: &str, annotations: &[(&str, &str)]) -> Result<Config, Vec<Problem>> {
    let (_dir, path) = file(file_text);
    let mut sources = Sources::default();
    sources.file(path);
    sources.annotations(annotations.iter().copied());
    match sources.load() {
        Ok(loaded) => Ok(loaded.config),
        Err(Error::Invalid { problems }) => Err(problems),
        Err(other) => panic!("{other:?}"),
    }
}

#[test]
fn an_annotation_is_a_setting_where_the_administrator_allows_its_key() {
    const SEND: &str = "io.virtcontainers.network.send_rate";
    let allowed = "[runtime]\nannotations = [\"network.send_rate\"]\n\
                   [network]\nsend_rate = \"1 Gbit\"\n";
    let config = with_annotations(allowed, &[(SEND, "10 Mbit"), ("com.example", "x")]).unwrap();
    let rate = config.network.send_rate.unwrap();
    assert_eq!(rate.bits_per_second(), 10_000_000);
    // Neither without it, nor by one whose name is only alike.
    for refused in [SEND, "io.virtcontainers.network.receive_rate"] {
        let text = if refused == SEND { "" } else { allowed };
        let problems = with_annotations(text, &[(refused, "10 Mbit")]).unwrap_err();
        let shown = problems[0].to_string();
        assert!(
            shown.starts_with(&format!("annotation {refused}:")),
            "{shown}"
        );
        assert!(shown.contains("runtime.annotations"), "{shown}");
    }
    // What is allowed is checked all the same.
    for text in ["1 bit", "much", "2000 Gbit"] {
        with_annotations(allowed, &[(SEND, text)]).unwrap_err();
    }
    let problems = with_annotations(allowed, &[("io.virtcontainers.network.send_rat", "1")]);
    assert_eq!(
        problems.unwrap_err()[0].nearest.as_deref(),
        Some("network.send_rate")
    );
}

#[test]
fn names_of_kata_containers_are_understood_where_their_key_is_allowed() {
    const MEMORY: &str = "io.katacontainers.config.hypervisor.default_memory";
    const VCPUS: &str = "io.katacontainers.config.hypervisor.default_vcpus";
    let allowed = "[runtime]\nannotations = [\"vm.memory\", \"vm.vcpus\"]\n";
    // Those for what is no key here are notes.
    let other = ("io.katacontainers.config.hypervisor.path", "/tmp/qemu");
    let config = with_annotations(allowed, &[(MEMORY, "512"), (VCPUS, "3"), other]).unwrap();
    assert_eq!(config.vm.memory.map(|size| size.mib()), Some(512));
    assert_eq!(config.vm.vcpus, Some(3));
    let problems = with_annotations("", &[(MEMORY, "512")]).unwrap_err();
    let shown = problems[0].to_string();
    assert!(
        shown.starts_with(&format!("annotation {MEMORY}:")),
        "{shown}"
    );
    assert!(shown.contains("runtime.annotations"), "{shown}");
    with_annotations(allowed, &[(VCPUS, "0")]).unwrap_err();
}

#[test]
fn the_pods_cgroup_is_asked_for_by_its_name_of_kata_containers() {
    const ONLY: &str = "io.katacontainers.config.runtime.sandbox_cgroup_only";
    let allowed = "[runtime]\nannotations = [\"runtime.sandbox_cgroup\"]\n";
    let of = |text: &str, value| {
        let config = with_annotations(text, &[(ONLY, value)]);
        config.map(|config| config.runtime.sandbox_cgroup)
    };
    assert_eq!(of(allowed, "true").unwrap(), SandboxCgroup::Pod);
    let pod = format!("{allowed}sandbox_cgroup = \"pod\"\n");
    assert_eq!(of(&pod, "false").unwrap(), SandboxCgroup::Own);
    let said = of(allowed, "both").unwrap_err()[0].to_string();
    assert!(said.contains(ONLY) && said.contains("pod"), "{said}");
    of("", "true").unwrap_err();
}

#[test]
fn a_key_that_no_annotation_may_set_is_not_allowed_either() {
    let problems = problems("[runtime]\nannotations = [\"hypervisor.qemu.path\"]\n");
    assert!(
        problems[0].message.contains("network.send_rate"),
        "{problems:?}"
    );
    // An annotation allows nothing by itself.
    let itself = [("io.virtcontainers.runtime.annotations", "network.send_rate")];
    with_annotations("", &itself).unwrap_err();
}

#[test]
fn options_of_a_runtime_hold_as_far_as_the_administrator_allows() {
    let load = |text: &str| {
        let (_dir, path) = file("[runtime]\nannotations = [\"vm.vcpus\"]\n[vm]\nvcpus = 1\n");
        let mut sources = Sources::default();
        sources.file(path);
        sources.options_body(text);
        sources.load()
    };
    let loaded = load("\n[vm]\nvcpus = 2\n").unwrap();
    assert_eq!(loaded.config.vm.vcpus, Some(2));
    let origin = loaded.origin("vm.vcpus").to_string();
    assert_eq!(origin, "options of the runtime, line 3");
    for (text, named) in [
        ("[vm]\nmemory = \"1g\"\n", "runtime.annotations"),
        (
            "[runtime]\nannotations = [\"vm.memory\"]\n",
            "runtime.annotations",
        ),
        ("[vm]\nmemroy = 1\n", "vm.memory"),
        ("[vm\n", "options of the runtime, line 1"),
    ] {
        let said = load(text).unwrap_err().to_string();
        assert!(said.contains(named), "{said}");
    }
}

#[test]
fn what_is_right_of_a_broken_configuration_holds_for_cleaning() {
    let (_dir, path) = file("[runtime]\nroot = \"/run/other\"\n[vm]\nmemory = \"lots\"\n");
    let mut sources = Sources::default();
    sources.file(path);
    let (config, wrong) = sources.load_for_cleaning();
    assert_eq!(config.runtime.root, Path::new("/run/other"));
    assert_eq!(config.vm.memory, None);
    assert!(wrong.unwrap().to_string().contains("vm.memory"));
    let (_dir, path) = file("[runtime");
    let mut sources = Sources::default();
    sources.file(path);
    let (config, wrong) = sources.load_for_cleaning();
    assert_eq!(config.runtime.root, Config::default().runtime.root);
    assert!(matches!(wrong, Some(Error::Parse { .. })));
    let (_, wrong) = Sources::default().load_for_cleaning();
    assert!(wrong.is_none());
}
