//! The library on the mock driver: everything that it does but for the machines.

#![allow(clippy::unwrap_used, reason = "what fails in a test fails the test")]

mod concurrent;
mod devices;
mod failures;
mod given_up;
mod kills;
mod life;
mod model;
mod resize;
mod speed;

use std::future::Future;
use std::time::Duration;

use oci_spec::runtime::Process as ProcessSpec;
use tempfile::TempDir;
use vc_config::Millis;
use vc_types::{ContainerId, SandboxId};
use virtcontainers::mock::{self, Script};
use virtcontainers::stream::{GuestWait, Streams};
use virtcontainers::{ContainerConfig, Runtime, SandboxConfig};

/// How long anything in these tests may take that is to happen.
const LIMIT: Duration = Duration::from_secs(20);

/// A state root with its runtime, and the script of the guests.
struct Host {
    root: TempDir,
    runtime: Runtime,
    script: Script,
}

impl Host {
    fn new() -> Self {
        // In memory where that is possible: a state is synced at each change.
        let root = match std::path::Path::new("/dev/shm").is_dir() {
            true => tempfile::tempdir_in("/dev/shm"),
            false => tempfile::tempdir(),
        };
        let root = root.unwrap();
        let script = Script::default();
        let mut options = mock::options(root.path(), &script);
        options.config.limits.stop_container_ms = Millis(20);
        let runtime = Runtime::open(options).unwrap();
        Self {
            root,
            runtime,
            script,
        }
    }

    /// Fails where something of a sandbox is left.
    fn assert_nothing_left(&self) {
        let state = self.root.path().join("state");
        let left: Vec<_> = match std::fs::read_dir(&state) {
            Ok(entries) => entries.map(|entry| entry.unwrap().file_name()).collect(),
            Err(_) => Vec::new(),
        };
        assert!(left.is_empty(), "{left:?}");
    }
}

fn sandbox_id(name: &str) -> SandboxId {
    SandboxId::new(name).unwrap()
}

fn id(name: &str) -> ContainerId {
    ContainerId::new(name).unwrap()
}

fn container(name: &str, args: &[&str]) -> ContainerConfig {
    mock::container(name, args).unwrap()
}

fn sandbox(name: &str, containers: Vec<ContainerConfig>) -> SandboxConfig {
    mock::sandbox(name, containers).unwrap()
}

fn exec(args: &[&str]) -> ProcessSpec {
    let mut process = ProcessSpec::default();
    process.set_args(Some(args.iter().map(|&arg| arg.to_owned()).collect()));
    process.set_cwd("/".into());
    process
}

/// What a process prints until its end, when it is given `input`.
async fn talk(mut streams: Streams, input: &'static [u8]) -> (String, String) {
    let talked = tokio::task::spawn_blocking(move || {
        streams.stdin.send(input);
        streams.stdin.finish().unwrap();
        let read = |stream: virtcontainers::stream::Incoming| {
            let mut text = Vec::new();
            stream.copy_to(&mut text, &GuestWait::default()).unwrap();
            String::from_utf8(text).unwrap()
        };
        (
            read(streams.stdout),
            streams.stderr.map(read).unwrap_or_default(),
        )
    });
    talked.await.unwrap()
}

fn on_executor(test: impl Future<Output = ()>) {
    let executor = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    executor.block_on(async {
        tokio::time::timeout(LIMIT, test).await.unwrap();
    });
}
