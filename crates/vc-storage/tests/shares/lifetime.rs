use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use vc_launch::ProcessEnd;
use vc_storage::{Access, Rights, host_system};

use vc_types::ProcessIdentity;

use crate::fuse::ROOT;
use crate::harness::{ROOT_USER, one, serve};

/// How long a share may take to end when its VMM has gone.
const END_LIMIT: Duration = Duration::from_secs(2);

pub(crate) fn a_share_ends_with_its_vmm() {
    let directory = tempfile::tempdir().unwrap();
    // Both before it was ever used and after.
    for used in [false, true] {
        let mut served = serve(one(Rights::Nothing, directory.path(), Access::ReadOnly));
        if used {
            let mut client = served.client();
            client.names(ROOT).unwrap();
            drop(client);
        } else {
            drop(served.share.take_vmm_end());
        }
        let end = served.share.process_mut().wait_timeout(END_LIMIT).unwrap();
        assert!(end.is_some(), "used: {used}");
        if used {
            assert_eq!(end, Some(ProcessEnd::Code(0)), "{}", served.log());
        }
    }
}

/// The process that is killed: starts a share of each kind, says their pids, and waits.
pub(crate) fn keeper(directory: &Path) -> ExitCode {
    let shares = [Rights::Nothing, Rights::Invoker(ROOT_USER)].map(|rights| {
        let mut served = serve(one(rights, directory, Access::ReadWrite));
        let mut client = served.client();
        client.names(ROOT).unwrap();
        println!("{}", served.share.process().pid());
        (served, client)
    });
    std::thread::sleep(Duration::from_secs(60));
    drop(shares);
    ExitCode::SUCCESS
}

pub(crate) fn a_killed_keeper_takes_its_shares_along() {
    let directory = tempfile::tempdir().unwrap();
    let mut keeper = Command::new("/proc/self/exe")
        .arg("keeper")
        .arg(directory.path())
        .env("TMPDIR", directory.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(keeper.stdout.take().unwrap()).lines();
    let shares: Vec<_> = lines
        .take(2)
        .map(|line| ProcessIdentity::of(line.unwrap().parse().unwrap()).unwrap())
        .collect();
    assert!(shares.iter().all(ProcessIdentity::is_alive));
    keeper.kill().unwrap();
    keeper.wait().unwrap();
    let deadline = Instant::now() + END_LIMIT;
    while shares.iter().any(ProcessIdentity::is_alive) {
        assert!(Instant::now() < deadline, "a share lives on");
        std::thread::sleep(Duration::from_millis(1));
    }
}

pub(crate) fn a_dropped_share_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let name = directory.path().file_name().unwrap().to_str().unwrap();
    let mut served = serve(one(Rights::Nothing, directory.path(), Access::ReadOnly));
    let mut client = served.client();
    client.names(ROOT).unwrap();
    let pid = served.share.process().pid();
    let mounts = |who: &str| std::fs::read_to_string(format!("/proc/{who}/mountinfo")).unwrap();
    assert!(mounts(&pid.to_string()).contains(name));
    assert!(!mounts("self").contains(name));
    assert_eq!(
        std::fs::read_dir(served.directory.path()).unwrap().count(),
        0
    );
    drop(served);
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    std::fs::remove_dir(directory.path()).unwrap();
}

pub(crate) fn a_share_has_few_rights_and_descriptors() {
    let directory = tempfile::tempdir().unwrap();
    let plans = [
        (host_system::plan("/".as_ref()).unwrap(), 65534, 0),
        (
            one(
                Rights::Invoker(ROOT_USER),
                directory.path(),
                Access::ReadOnly,
            ),
            0,
            1 << 1,
        ),
        (
            one(
                Rights::Invoker(ROOT_USER),
                directory.path(),
                Access::ReadWrite,
            ),
            0,
            0x8000_00db,
        ),
    ];
    for (plan, uid, capabilities) in plans {
        let name = plan.name.clone();
        let mut served = serve(plan);
        let mut client = served.client();
        client.names(ROOT).unwrap();
        let pid = served.share.process().pid();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let field = |field: &str| {
            let line = status.lines().find(|line| line.starts_with(field)).unwrap();
            line.split_whitespace().nth(1).unwrap().to_owned()
        };
        assert_eq!(field("Uid:"), uid.to_string());
        assert_eq!(field("NoNewPrivs:"), "1");
        assert_eq!(field("Seccomp:"), "2");
        let set = |name: &str| u64::from_str_radix(&field(name), 16).unwrap();
        assert_eq!(set("CapPrm:"), capabilities);
        assert_eq!(set("CapEff:"), capabilities);
        // What it executed, which it cannot any more, would get no more than it has.
        assert_eq!(set("CapBnd:"), capabilities);
        assert_eq!(set("CapAmb:"), 0);
        let mounts = std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
        let below = |line: &&str| line.split(' ').nth(4) != Some("/");
        assert!(
            mounts.lines().filter(below).all(|line| {
                let at = line.split(' ').nth(4).unwrap();
                at.starts_with("/share/") || at == "/proc/self/fd"
            }),
            "{mounts}"
        );
        let memory = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
        let pss = memory
            .lines()
            .find(|line| line.starts_with("Pss:"))
            .unwrap();
        println!(
            "{name}: {}",
            pss.split_whitespace().collect::<Vec<_>>().join(" ")
        );
    }
}
