//! Standard streams: every byte, in order, each on its own, and their ends.

use std::io::{Read, Write};
use std::process::Stdio;
use std::time::{Duration, Instant};

use oci_spec::runtime::Process as ProcessSpec;
use virtcontainers::stream::{GuestWait, Incoming, Outgoing};
use virtcontainers::{Process, Sandbox};

use super::library::{container, exec, id, on_executor, runtime, sandbox};
use super::{busybox_root, host};

/// Bytes that repeat at no power of two.
fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes as u64)
        .map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8)
        .collect()
}

/// Bytes through each stream; the soak sends more.
fn volume() -> usize {
    std::env::var("VIRTC_TEST_STREAM_MB")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(64)
        * 1_000_000
}

#[test]
fn all_of_stdin_arrives_and_all_of_stdout_comes_back() {
    let host = host();
    let root = busybox_root(&host);
    let sent = pattern(volume());
    let mut running = host.start(["run", "--rootfs", root.to_str().unwrap(), "--", "cat"]);
    running.feed(sent.clone());
    let outcome = running.wait().expect_code(0);
    assert_eq!(outcome.stdout.len(), sent.len());
    assert!(outcome.stdout == sent, "the bytes differ");
}

#[test]
pub(super) fn stdout_and_stderr_are_separate_and_exact() {
    let script = "printf 'a\\000\\377\\n'; printf 'e\\r\\n' >&2; printf b";
    let outcome = host().run(&["-q"], &["sh", "-c", script]).expect_code(0);
    assert_eq!(outcome.stdout, b"a\0\xff\nb");
    assert_eq!(outcome.stderr, b"e\r\n");
}

#[test]
pub(super) fn a_closed_stdin_is_the_end_of_file() {
    let host = host();
    let mut command = host.command(["run", "--", "sh", "-c", "cat; echo ended"]);
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.stdout, b"ended\n");
}

#[test]
pub(super) fn output_after_the_end_of_stdin_arrives() {
    let host = host();
    let mut running = host.start(["run", "--", "sh", "-c", "cat >/dev/null; seq 1 1000"]);
    running.feed(b"x".to_vec());
    let outcome = running.wait().expect_code(0);
    assert_eq!(outcome.out().lines().count(), 1000);
}

#[test]
pub(super) fn a_reader_that_leaves_ends_the_command() {
    let host = host();
    let mut command = host.command(["run", "-q", "--", "yes"]);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut first = [0; 2];
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"y\n");
    drop(stdout);
    // SIGPIPE in the guest, as it would be on the host.
    assert_eq!(child.wait().unwrap().code(), Some(128 + 13));
}

#[test]
fn a_slow_reader_loses_nothing_and_virtc_ends_soon_after_it() {
    let host = host();
    let mut command = host.command(["run", "-q", "--", "seq", "1", "2000000"]);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut all = Vec::new();
    // The first byte says that the command runs; then the reader sleeps on everything else.
    let mut first = [0];
    stdout.read_exact(&mut first).unwrap();
    all.extend(first);
    std::thread::sleep(Duration::from_secs(pause_seconds()));
    stdout.read_to_end(&mut all).unwrap();
    let read = Instant::now();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let after = read.elapsed();
    let lines = all.iter().filter(|b| **b == b'\n').count();
    assert_eq!((lines, all.len()), (2_000_000, 14_888_896));
    assert!(after < Duration::from_millis(100) * slowness(), "{after:?}");
}

/// The sleep is the test's subject: a reader that does not read.
fn pause_seconds() -> u64 {
    std::env::var("VIRTC_TEST_PAUSE_S")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(8)
}

/// Tests run beside each other; what is measured alone is measured by the bench.
fn slowness() -> u32 {
    5
}

#[test]
pub(super) fn a_command_that_does_not_read_its_stdin_is_no_trouble() {
    let host = host();
    let mut running = host.start(["run", "--", "true"]);
    running.feed(pattern(1_000_000));
    running.wait().expect_code(0);
}

#[test]
pub(super) fn what_a_child_still_writes_when_the_command_has_ended_is_not_waited_for_for_ever() {
    // The machine ends with its command, and with it what the command left running.
    let script = "sleep 1000 & echo done";
    let outcome = host().run(&[], &["sh", "-c", script]).expect_code(0);
    assert_eq!(outcome.out(), "done\n");
}

#[test]
pub(super) fn stdin_is_passed_on_while_it_comes() {
    let host = host();
    let mut command = host.command(["run", "-q", "--", "cat"]);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    for word in [b"one\n", b"two\n"] {
        stdin.write_all(word).unwrap();
        let mut back = [0; 4];
        stdout.read_exact(&mut back).unwrap();
        assert_eq!(&back, word);
    }
    drop(stdin);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

/// Which of a process's streams the host holds; the others it closes before the process uses them.
#[derive(Clone, Copy, Debug)]
struct Held {
    stdin: bool,
    stdout: bool,
    stderr: bool,
}

impl Held {
    fn all_eight() -> impl Iterator<Item = Self> {
        (0..8).map(|bits| Self {
            stdin: bits & 1 != 0,
            stdout: bits & 2 != 0,
            stderr: bits & 4 != 0,
        })
    }
}

/// Reads a stream to its end on a thread of its own, or closes it now.
fn read(stream: Option<Incoming>, held: bool) -> tokio::task::JoinHandle<String> {
    tokio::task::spawn_blocking(move || {
        let mut text = Vec::new();
        if let (Some(stream), true) = (stream, held) {
            stream.copy_to(&mut text, &GuestWait::default()).unwrap();
        }
        String::from_utf8(text).unwrap()
    })
}

/// Sends a line and then the end, or the end alone.
fn write(mut stream: Outgoing, held: bool) -> tokio::task::JoinHandle<()> {
    tokio::task::spawn_blocking(move || {
        if held {
            stream.send(b"line\n");
        }
        stream.finish().unwrap();
    })
}

/// What came out of both outputs, and the code.
async fn used(mut process: Process, held: Held) -> (String, String, i32) {
    let streams = process.take_streams().unwrap();
    let stdout = read(Some(streams.stdout), held.stdout);
    let stderr = read(streams.stderr, held.stderr);
    let stdin = write(streams.stdin, held.stdin);
    let code = process.wait().await.unwrap().status.shell_code();
    stdin.await.unwrap();
    (stdout.await.unwrap(), stderr.await.unwrap(), code.into())
}

/// A container that only others are added to.
async fn idle(host: &test_vm::Host, root: &std::path::Path) -> Sandbox {
    let sandbox = runtime(host)
        .create_sandbox(sandbox(
            "pod",
            vec![container("c1", root, &["sleep", "1000"])],
        ))
        .await
        .unwrap();
    sandbox.start_container(&id("c1")).await.unwrap();
    sandbox
}

#[test]
fn each_stream_is_closed_on_its_own() {
    let host = host();
    let root = busybox_root(&host);
    let script = "trap '' PIPE; read line; echo out$line 2>/dev/null; echo err$line >&2; exit 7";
    on_executor(async {
        let sandbox = idle(&host, &root).await;
        for held in Held::all_eight() {
            let process = exec(&["sh", "-c", script]);
            let process = sandbox.enter_container(&id("c1"), &process).await.unwrap();
            let line = if held.stdin { "line" } else { "" };
            let wanted = |held, name: &str| match held {
                true => format!("{name}{line}\n"),
                false => String::new(),
            };
            let (out, err) = (wanted(held.stdout, "out"), wanted(held.stderr, "err"));
            assert_eq!(used(process, held).await, (out, err, 7), "{held:?}");
        }
        for held in Held::all_eight() {
            // A terminal whose output nobody takes is hung up.
            let script = match held.stdout {
                true => script,
                false => "read line; exec sleep 1000",
            };
            let mut process: ProcessSpec = exec(&["sh", "-c", script]);
            process.set_terminal(Some(true));
            let process = sandbox.enter_container(&id("c1"), &process).await.unwrap();
            let (out, err, code) = used(process, held).await;
            assert_eq!(err, "", "{held:?}");
            if !held.stdout {
                assert_eq!(code, 128 + 1, "{held:?}");
                continue;
            }
            // One stream of output, whoever writes to it.
            let line = if held.stdin { "line" } else { "" };
            assert_eq!(code, 7, "{held:?}");
            assert!(
                out.contains(&format!("out{line}\r\nerr{line}\r\n")),
                "{held:?}: {out:?}"
            );
        }
        sandbox.stop().await.unwrap();
        sandbox.delete().await.unwrap();
    });
}
