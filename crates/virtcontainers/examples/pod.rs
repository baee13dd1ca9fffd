//! A sandbox with two containers, a process that is added with its streams, and its end.
//!
//! It runs on the mock driver. On virtual machines, `Runtime::open(RuntimeOptions::default())` is
//! all that changes.

use std::error::Error;

use oci_spec::runtime::Process as ProcessSpec;
use virtcontainers::mock::{self, Program};
use virtcontainers::stream::GuestWait;

fn main() -> Result<(), Box<dyn Error>> {
    let executor = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    executor.block_on(run())
}

async fn run() -> Result<(), Box<dyn Error>> {
    let root = tempfile::tempdir()?;
    let (runtime, script) = mock::runtime(root.path())?;
    script.program("cat", Program::echoing());

    // Two containers that share a machine.
    let containers = vec![
        mock::container("web", &["server", "--port", "80"])?,
        mock::container("log", &["collector"])?,
    ];
    let web = containers[0].id.clone();
    let pod = runtime
        .run_sandbox(mock::sandbox("pod-1", containers)?)
        .await?;

    // A process more in the first one. Its streams block, so a thread carries them.
    let mut cat = ProcessSpec::default();
    cat.set_args(Some(vec!["cat".into()])).set_cwd("/".into());
    let mut added = pod.enter_container(&web, &cat).await?;
    let streams = added.take_streams().ok_or("no streams")?;
    let printed = tokio::task::spawn_blocking(move || {
        let mut stdin = streams.stdin;
        stdin.send(b"hello");
        stdin.finish()?;
        let mut printed = Vec::new();
        streams
            .stdout
            .copy_to(&mut printed, &GuestWait::default())?;
        Ok::<_, virtcontainers::stream::Error>(printed)
    });
    assert_eq!(printed.await??, b"hello");
    assert!(added.wait().await?.status.is_success());

    // Whoever watches learns why the machine ended, whoever ended it.
    let watched = pod.handle().clone();
    let watcher = tokio::spawn(async move { watched.monitor().await });
    runtime.stop_sandbox(pod.id(), false).await?;
    let reason = watcher.await??;
    assert_eq!(reason, vc_types::EndReason::Requested);
    pod.delete().await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_runs() -> Result<(), Box<dyn std::error::Error>> {
        super::main()
    }
}
