//! The launched program: says what it is and sees, as JSON on its output.

use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::BorrowedFd;
use std::process::ExitCode;

use rustix::process::{Resource, getgid, getgroups, getrlimit, getsid, getuid};
use rustix::thread::{CapabilitySet, capabilities, capability_is_in_bounding_set};
use serde_json::{Value, json};
use vc_launch::{DescriptorUse, LaunchSpec, Launcher, PassedFd, ProcessEnd, Program};

pub(crate) fn own_file() -> File {
    File::open("/proc/self/exe").unwrap()
}

pub(crate) fn launcher() -> Launcher {
    Launcher::start(Launcher::OWN_PROGRAM).unwrap()
}

/// A spec that runs this program as a probe, by its descriptor, with `args`.
pub(crate) fn spec(args: &[&str]) -> (LaunchSpec, Vec<PassedFd>) {
    let program = Program::Descriptor {
        path: "probe".into(),
    };
    let mut spec = LaunchSpec::new("a probe", program);
    spec.args = std::iter::once("probe")
        .chain(args.iter().copied())
        .map(str::to_owned)
        .collect();
    let program = PassedFd::new(DescriptorUse::Program, own_file());
    (spec, vec![program])
}

/// Runs a probe to its end and reads what it says.
pub(crate) fn say(spec: LaunchSpec, mut passed: Vec<PassedFd>) -> Value {
    let mut output = tempfile::tempfile().unwrap();
    passed.push(PassedFd::output(output.try_clone().unwrap()));
    let launcher = launcher();
    let mut process = launcher.launch(spec, passed).wait().unwrap();
    let end = process.wait().unwrap();
    let mut text = String::new();
    output.rewind().unwrap();
    output.read_to_string(&mut text).unwrap();
    assert_eq!(end, ProcessEnd::Code(0), "{text}");
    serde_json::from_str(&text).unwrap()
}

pub(crate) fn run(args: &[&str]) -> ExitCode {
    match args {
        [] => println!("{}", report()),
        // Never reads anything, never ends by itself within a test.
        ["sleep"] => std::thread::sleep(std::time::Duration::from_secs(60)),
        ["exit", code] => return ExitCode::from(code.parse::<u8>().unwrap()),
        ["try", paths @ ..] => {
            let tried: serde_json::Map<_, _> = paths
                .iter()
                .map(|path| ((*path).to_owned(), attempt(path)))
                .collect();
            println!("{}", Value::Object(tried));
        }
        other => panic!("no such probe: {other:?}"),
    }
    ExitCode::SUCCESS
}

/// What this process itself is and sees.
pub(crate) fn say_here() -> Value {
    report()
}

fn report() -> Value {
    let sets = capabilities(None).unwrap();
    let bounding: u64 = (0..64)
        .filter(|number| {
            let one = CapabilitySet::from_bits_retain(1 << number);
            capability_is_in_bounding_set(one).unwrap_or(false)
        })
        .map(|number| 1u64 << number)
        .sum();
    let open: Vec<i32> = (0..1024)
        .filter(|fd| {
            // SAFETY: the number is only asked about; a closed one gives an error.
            let fd = unsafe { BorrowedFd::borrow_raw(*fd) };
            rustix::io::fcntl_getfd(fd).is_ok()
        })
        .collect();
    let groups: Vec<u32> = getgroups().unwrap().iter().map(|g| g.as_raw()).collect();
    let env: Vec<String> = std::env::vars().map(|(k, v)| format!("{k}={v}")).collect();
    let namespaces = ["mnt", "net", "ipc", "uts"].map(|name| {
        let link = std::fs::read_link(format!("/proc/self/ns/{name}"));
        link.map(|link| link.display().to_string()).ok()
    });
    json!({
        "uid": getuid().as_raw(),
        "gid": getgid().as_raw(),
        "groups": groups,
        "permitted": sets.permitted.bits(),
        "effective": sets.effective.bits(),
        "bounding": bounding,
        "no_new_privs": rustix::thread::no_new_privs().unwrap(),
        "death_signal": rustix::process::parent_process_death_signal().unwrap()
            .map(|signal| signal.as_raw()),
        "dumpable": rustix::process::dumpable_behavior().unwrap()
            == rustix::process::DumpableBehavior::Dumpable,
        "leads_session": getsid(None).unwrap() == rustix::process::getpid(),
        "descriptors": open,
        "open_files": getrlimit(Resource::Nofile).maximum,
        "env": env,
        "cwd": std::env::current_dir().map(|dir| dir.display().to_string()).ok(),
        "root": listing("/"),
        "namespaces": namespaces,
    })
}

pub(crate) fn listing(path: &str) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// What reading and writing at `path` gives.
fn attempt(path: &str) -> Value {
    let number = |error: std::io::Error| error.raw_os_error();
    let read = if std::path::Path::new(path).is_dir() {
        json!(listing(path))
    } else {
        match std::fs::read_to_string(path) {
            Ok(text) => json!(text),
            Err(error) => json!(number(error)),
        }
    };
    let write = std::fs::write(format!("{path}/written"), "x")
        .err()
        .map(number);
    json!({ "read": read, "write": write })
}
