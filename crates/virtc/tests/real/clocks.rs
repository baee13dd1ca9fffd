//! Guests have the host's clock, however they came to be and whatever was done to them.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write, pipe};
use std::process::Stdio;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use test_vm::Host;
use vc_config::{Config, Millis};
use virtcontainers::stream::GuestWait;

use super::library::{container, exec, id, on_executor, runtime_with, sandbox};
use super::{busybox_root, host};

/// How far a guest's clock may be from the host's, in seconds.
const APART_MAX: f64 = 0.05;

/// Questions until that is known.
const QUESTIONS_MAX: usize = 400;

/// How often the host looks at a guest's clock: late in the shortest pause.
const LOOKED_AT: Millis = Millis(2000);

/// Answers each line with the time, until there are no more.
const TELLS_TIME: &str = "while read -r line; do echo $EPOCHREALTIME; done";

/// Asks for the time until it is known well enough: each answer was given after its question and before its arrival.
#[track_caller]
fn expect_the_hosts_time(ask: &mut impl Write, answers: &mut impl BufRead) {
    let now = || {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        since.as_secs_f64()
    };
    let (mut least, mut most) = (f64::MIN, f64::MAX);
    for _ in 0..QUESTIONS_MAX {
        let asked = now();
        ask.write_all(b"\n").unwrap();
        let mut line = String::new();
        answers.read_line(&mut line).unwrap();
        let answered = now();
        let clock: f64 = line.trim().parse().unwrap();
        least = least.max(clock - answered);
        most = most.min(clock - asked);
        // Each answer counts: a clock that becomes right was wrong.
        let told = format!("its clock is {least} to {most} s before the host's");
        assert!(least <= APART_MAX && most >= -APART_MAX, "{told}");
        if -APART_MAX <= least && most <= APART_MAX {
            return;
        }
    }
    panic!("its clock is {least} to {most} s before the host's: no answer came fast enough");
}

/// Runs a script of the host's system whose clock is looked at first; what it printed, and virtc.
#[track_caller]
pub(super) fn run_in_time(host: &Host, flags: &[&str], script: &str) -> (String, String) {
    let script = format!("{TELLS_TIME}; {script}");
    let command = ["--", "bash", "-c", script.as_str()];
    let args = ["run"].iter().chain(flags).chain(&command);
    let err = host.dir("clock").join("err");
    let mut child = host
        .command(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(fs::File::create(&err).unwrap())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    expect_the_hosts_time(&mut stdin, &mut stdout);
    drop(stdin);
    let mut out = String::new();
    stdout.read_to_string(&mut out).unwrap();
    let status = child.wait().unwrap();
    let err = fs::read_to_string(err).unwrap();
    assert!(status.success(), "{err}");
    (out, err)
}

#[test]
fn a_guest_that_has_booted_has_the_hosts_clock() {
    run_in_time(&host(), &[], "true");
}

#[test]
fn a_sandbox_that_was_paused_has_the_right_clock_when_it_goes_on() {
    let host = host();
    let root = busybox_root(&host);
    on_executor(async {
        // It is looked at while the guest stands still, too: two that see the difference correct it once.
        let keeps = |config: &mut Config| config.limits.clock_ms = LOOKED_AT;
        let runtime = runtime_with(&host, keeps);
        let config = sandbox("pod", vec![container("c1", &root, &["cat"])]);
        let sandbox = runtime.create_sandbox(config).await.unwrap();
        sandbox.start().await.unwrap();
        let mut telling = sandbox
            .enter_container(&id("c1"), &exec(&["sh", "-c", TELLS_TIME]))
            .await
            .unwrap();
        let streams = telling.take_streams().unwrap();
        let ((mut questions, mut ask), (answers, mut told)) = (pipe().unwrap(), pipe().unwrap());
        let asking = std::thread::spawn(move || streams.stdin.copy_from(&mut questions));
        let telling =
            std::thread::spawn(move || streams.stdout.copy_to(&mut told, &GuestWait::default()));
        let mut answers = BufReader::new(answers);
        expect_the_hosts_time(&mut ask, &mut answers);
        sandbox.pause().await.unwrap();
        tokio::time::sleep(pause()).await;
        sandbox.resume().await.unwrap();
        expect_the_hosts_time(&mut ask, &mut answers);
        drop(ask);
        asking.join().unwrap().unwrap();
        telling.join().unwrap().unwrap();
        sandbox.stop().await.unwrap();
        sandbox.delete().await.unwrap();
    });
}

/// How long a sandbox is paused; `make soak` pauses longer.
fn pause() -> Duration {
    let set = std::env::var("VIRTC_TEST_PAUSED_S").ok();
    Duration::from_secs(set.map_or(3, |set| set.parse().unwrap()))
}
