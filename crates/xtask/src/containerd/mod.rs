//! `xtask containerd`: what a task costs under the real containerd, beside one of runc's shim and a
//! `virtc run` in the same turns.

mod daemon;

use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;

use self::daemon::Daemon;
use crate::commands::bundle;
use crate::process::Process;
use crate::rows::Rows;

/// The shims that are measured, with what the rows call them.
const SHIMS: [(&str, &str); 2] = [
    ("virtc", "io.containerd.virtc.v2"),
    ("runc", "io.containerd.runc.v2"),
];

/// After which a shim has given back what it does not need.
const REST: Duration = Duration::from_secs(3);

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How many tasks are run and removed
    #[arg(long, value_name = "N", default_value_t = 10)]
    runs: usize,
    /// How many processes are added to a task
    #[arg(long, value_name = "N", default_value_t = 50)]
    execs: usize,
    /// The virtc to measure; the shim lies beside it
    #[arg(long, value_name = "FILE")]
    virtc: PathBuf,
}

/// Measures everything; returns the table.
pub(crate) fn run(options: &Options) -> Result<(String, ExitCode)> {
    ensure!(
        options.runs > 0 && options.execs > 0,
        "nothing is to be measured"
    );
    let virtc = std::fs::canonicalize(&options.virtc)
        .with_context(|| options.virtc.display().to_string())?;
    let work = tempfile::tempdir_in("/dev/shm")?;
    let root = work.path().join("root");
    bundle::make_root(&root)?;
    let root = root.display().to_string();
    let programs = virtc.parent().context("virtc has a directory")?;
    let daemon = Daemon::start(work.path(), programs)?;
    let mut rows = Rows::default();
    let echo = ["/bin/busybox", "echo", "x"];
    for run in 0..options.runs {
        let mut direct = Command::new(&virtc);
        direct
            // As the shim's VMs do by default, it boots.
            .env("VIRTC_FACTORY_AUTO", "false")
            .args(["run", "--rootfs", &root, "--cwd", "empty", "--"])
            .args(echo);
        rows.add("virtc run to first output", first_output(&mut direct)?);
        for (name, runtime) in SHIMS {
            let id = format!("{name}-{run}");
            let flags = ["run", "--rm", "--runtime", runtime, "--rootfs", &root, &id];
            let mut command = daemon.ctr(&flags);
            command.args(echo);
            rows.add(
                &format!("{name} ctr run to first output"),
                first_output(&mut command)?,
            );
        }
    }
    let mut shims = Vec::new();
    for (name, runtime) in SHIMS {
        let flags = [
            "run",
            "--detach",
            "--runtime",
            runtime,
            "--rootfs",
            &root,
            name,
        ];
        timed(daemon.ctr(&flags).args(["/bin/busybox", "sleep", "100000"]))?;
    }
    for exec in 0..options.execs {
        for (name, _) in SHIMS {
            let id = format!("e{exec}");
            let mut command = daemon.ctr(&["task", "exec", "--exec-id", &id, name]);
            let took = timed(command.args(["/bin/busybox", "true"]))?;
            rows.add(&format!("{name} ctr task exec true"), took);
        }
    }
    sleep(REST);
    for (name, _) in SHIMS {
        let shim = daemon.shim(name)?;
        shims.push(format!("{name}'s shim: PSS {} KiB", shim.pss_kib));
        timed(&mut daemon.ctr(&["task", "kill", "--signal", "KILL", name]))?;
        daemon.wait_for_end(name)?;
        // Its code says how the task ended.
        let began = Instant::now();
        daemon.ctr(&["task", "rm", name]).status()?;
        rows.add(&format!("{name} ctr task rm"), began.elapsed());
        timed(&mut daemon.ctr(&["container", "rm", name]))?;
    }
    let text = format!("{}\n{}\n", rows.text(), shims.join("; "));
    Ok((text, ExitCode::SUCCESS))
}

/// Runs a command to its end, and says how long it took.
fn timed(command: &mut Command) -> Result<Duration> {
    let began = Instant::now();
    let output = command.stdin(Stdio::null()).output()?;
    let took = began.elapsed();
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {said}");
    Ok(took)
}

/// Runs a command to its end, and says when its first byte came.
fn first_output(command: &mut Command) -> Result<Duration> {
    let began = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut stdout = child.stdout.take().context("it was asked for")?;
    let read = stdout.read(&mut [0])?;
    let took = began.elapsed();
    std::io::copy(&mut stdout, &mut std::io::sink())?;
    let status = child.wait()?;
    ensure!(read == 1 && status.success(), "{command:?}: {status}");
    Ok(took)
}

/// The process of a shim.
fn process(pid: u32) -> Result<Process> {
    let tree = Process::tree(pid)?;
    tree.into_iter().next().context("the shim has ended")
}
