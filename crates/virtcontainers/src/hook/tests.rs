use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::time::{Duration, Instant};

use oci_spec::runtime::{ContainerState, HookBuilder, StateBuilder};
use vc_types::Hint;

use super::*;

/// For hooks that end by themselves.
const LIMIT: Duration = Duration::from_secs(30);

fn state(bundle: &Path) -> State {
    StateBuilder::default()
        .version("1.1.0")
        .id("c1")
        .status(ContainerState::Created)
        .pid(4711)
        .bundle(bundle)
        .annotations([("a".to_owned(), "b".to_owned())])
        .build()
        .unwrap()
}

fn shell(script: &str) -> Hook {
    HookBuilder::default()
        .path("/bin/sh")
        .args(["sh", "-c", script].map(str::to_owned))
        .build()
        .unwrap()
}

fn run_all(kind: HookKind, hooks: &[Hook], bundle: &Path, limit: Duration) -> Result<()> {
    let executor = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    executor.block_on(run_hooks(kind, hooks, &state(bundle), limit))
}

/// Runs one in a directory of its own, and gives its error as a user reads it.
fn failure(hook: Hook) -> (Error, String) {
    let directory = tempfile::tempdir().unwrap();
    let error = run_all(HookKind::CreateRuntime, &[hook], directory.path(), LIMIT).unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    let text = format!("{error}: {cause}");
    (error, text)
}

/// Its end of file comes when the last process that has it open for writing has ended.
fn make_fifo(path: &Path) {
    let status = std::process::Command::new("mkfifo").arg(path).status();
    assert!(status.unwrap().success());
}

#[test]
fn a_hook_gets_what_its_description_has_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let bundle = fs::canonicalize(directory.path()).unwrap();
    let mut hook = shell("echo \"$0 $1\" > args; /usr/bin/env > env; pwd > cwd; cat > state");
    let args = hook.args().clone().unwrap();
    hook.set_args(Some([args, vec!["zero".into(), "one".into()]].concat()))
        .set_env(Some(vec!["A=b=c".into(), "EMPTY=".into()]));
    run_all(HookKind::Prestart, &[hook], &bundle, LIMIT).unwrap();

    let file = |name: &str| fs::read_to_string(bundle.join(name)).unwrap();
    assert_eq!(file("args"), "zero one\n");
    // The shell adds these of itself.
    let env = file("env");
    let own: Vec<_> = env
        .lines()
        .filter(|line| !line.starts_with("PWD=") && !line.starts_with('_'))
        .collect();
    assert_eq!(own, ["A=b=c", "EMPTY="]);
    assert_eq!(Path::new(file("cwd").trim()), bundle);
    let given: serde_json::Value = serde_json::from_str(&file("state")).unwrap();
    let expected = serde_json::json!({
        "ociVersion": "1.1.0", "id": "c1", "status": "created", "pid": 4711,
        "bundle": bundle, "annotations": {"a": "b"},
    });
    assert_eq!(given, expected);
}

#[test]
fn the_first_argument_is_the_programs_name_and_can_be_anything() {
    let directory = tempfile::tempdir().unwrap();
    let name = |args: Option<Vec<String>>| {
        let mut hook = shell("");
        let script = "tr '\\0' '\\n' < /proc/$$/cmdline | head -n 1 > name";
        hook.set_args(args.map(|args| [args, vec!["-c".into(), script.into()]].concat()));
        run_all(HookKind::Prestart, &[hook], directory.path(), LIMIT).unwrap();
        fs::read_to_string(directory.path().join("name")).unwrap()
    };
    assert_eq!(name(Some(vec!["my name".into()])), "my name\n");

    // Without arguments it is the path, as with other runtimes: a shell that reads the state.
    let mut hook = shell("");
    hook.set_args(None);
    let (error, _) = failure(hook);
    let Error::Hook { source, .. } = error else {
        panic!("{error}");
    };
    assert!(matches!(*source, HookFailure::ExitCode { .. }), "{source}");
}

#[test]
fn hooks_are_run_in_their_order_until_one_fails() {
    let directory = tempfile::tempdir().unwrap();
    let hooks = [
        shell("echo 0 >> said"),
        shell("echo 1 >> said; echo out; echo why >&2; exit 7"),
        shell("echo 2 >> said"),
    ];
    let said = directory.path().join("said");
    let error = run_all(HookKind::StartContainer, &hooks, directory.path(), LIMIT).unwrap_err();
    assert_eq!(error.to_string(), "startContainer hook 1 (/bin/sh) failed");
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!(cause, "it ended with exit code 7: why");
    assert_eq!(fs::read_to_string(&said).unwrap(), "0\n1\n");

    // Those that come after are only warned about, and the others are run.
    for kind in [HookKind::Poststart, HookKind::Poststop] {
        fs::remove_file(&said).unwrap();
        run_all(kind, &hooks, directory.path(), LIMIT).unwrap();
        assert_eq!(fs::read_to_string(&said).unwrap(), "0\n1\n2\n");
    }
}

#[test]
fn a_failure_is_told_with_the_last_line_that_was_said() {
    let told = |script: &str| failure(shell(script)).1;
    let head = "createRuntime hook 0 (/bin/sh) failed";
    assert_eq!(told("exit 3"), format!("{head}: it ended with exit code 3"));
    assert_eq!(
        told("echo out; exit 3"),
        format!("{head}: it ended with exit code 3: out")
    );
    assert_eq!(
        told("echo first >&2; echo last >&2; kill -9 $$"),
        format!("{head}: signal 9 ended it: last")
    );
}

#[test]
fn what_cannot_be_run_is_refused_with_its_reason() {
    let with = |change: &dyn Fn(&mut Hook)| {
        let mut hook = shell("true");
        change(&mut hook);
        failure(hook).1
    };
    let relative = with(&|hook| _ = hook.set_path("bin/sh".into()));
    assert!(relative.contains("not absolute"), "{relative}");
    let missing = with(&|hook| _ = hook.set_path("/nonexistent".into()));
    assert!(missing.contains("hook 0 (/nonexistent)"), "{missing}");
    for seconds in [0, -1] {
        let timeout = with(&|hook| _ = hook.set_timeout(Some(seconds)));
        assert!(timeout.contains(&format!("{seconds} s")), "{timeout}");
    }
    for entry in ["NAME", "=value", ""] {
        let env = with(&|hook| _ = hook.set_env(Some(vec![entry.into()])));
        assert!(env.contains(&format!("{entry:?}")), "{env}");
    }
}

#[test]
fn a_hook_that_takes_too_long_is_killed_with_all_that_it_started() {
    let directory = tempfile::tempdir().unwrap();
    let fifo = directory.path().join("fifo");
    make_fifo(&fifo);
    // Reading it ends when the shell and its child have.
    let reader = std::thread::spawn({
        let fifo = fifo.clone();
        move || fs::read_to_string(&fifo).unwrap()
    });
    let mut hook = shell("exec 9> fifo; sleep 1000 & echo begun >&2; wait");
    hook.set_env(Some(vec!["PATH=/usr/bin:/bin".into()]))
        .set_timeout(Some(1));
    let error = run_all(HookKind::Prestart, &[hook], directory.path(), LIMIT).unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!(
        cause,
        "it did not end within 1000 ms (its timeout) and was killed: begun"
    );
    assert!(error.hint().unwrap().contains("config.json"));
    assert_eq!(reader.join().unwrap(), "");
}

#[test]
fn a_hook_without_a_timeout_has_the_runtimes() {
    let directory = tempfile::tempdir().unwrap();
    let hook = shell("exec sleep 1000");
    let limit = Duration::from_millis(50);
    let error = run_all(HookKind::Prestart, &[hook], directory.path(), limit).unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("50 ms (limits.hook_ms)"), "{cause}");
    assert!(error.hint().unwrap().contains("limits.hook_ms"));
}

#[test]
fn a_dropped_run_kills_the_hook() {
    let directory = tempfile::tempdir().unwrap();
    let fifo = directory.path().join("fifo");
    make_fifo(&fifo);
    let executor = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let hooks = [shell("exec 9> fifo; echo begun >&9; sleep 1000 & wait")];
    let state = state(directory.path());
    let (begun, mut reader) = executor.block_on(async {
        let run = run_hooks(HookKind::Prestart, &hooks, &state, LIMIT);
        let begun = tokio::task::spawn_blocking({
            let fifo = fifo.clone();
            move || {
                let mut reader = BufReader::new(fs::File::open(fifo).unwrap());
                let mut line = String::new();
                reader.read_line(&mut line).unwrap();
                (line, reader)
            }
        });
        tokio::select! {
            done = run => panic!("{done:?}"),
            begun = begun => begun.unwrap(),
        }
    });
    assert_eq!(begun, "begun\n");
    let mut rest = String::new();
    reader.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "");
}

#[test]
fn what_is_left_in_the_background_is_not_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let fifo = directory.path().join("fifo");
    make_fifo(&fifo);
    // It keeps the hook's outputs, and lives until the fifo is opened and closed.
    let mut hook = shell("cat fifo > read & echo done >&2; exit 4");
    hook.set_env(Some(vec!["PATH=/usr/bin:/bin".into()]));
    let begun = Instant::now();
    let error = run_all(HookKind::Prestart, &[hook], directory.path(), LIMIT).unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!(cause, "it ended with exit code 4: done");
    assert!(begun.elapsed() < LIMIT);
    // Opening it for writing waits for its reader, which so still lives.
    fs::write(&fifo, "still here").unwrap();
}

#[test]
fn neither_much_output_nor_an_unread_state_stops_a_hook() {
    let directory = tempfile::tempdir().unwrap();
    let executor = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    // Both are more than a pipe holds.
    let mut state = state(directory.path());
    state.set_annotations(Some(
        [("a".to_owned(), "b".repeat(1 << 20))]
            .into_iter()
            .collect(),
    ));
    let mut hook = shell("head -c 3000000 /dev/zero; echo; echo end; exit 5");
    hook.set_env(Some(vec!["PATH=/usr/bin:/bin".into()]));
    let hooks = [hook];
    let run = run_hooks(HookKind::Prestart, &hooks, &state, LIMIT);
    let error = executor.block_on(run).unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!(cause, "it ended with exit code 5: end");
}
