//! Callers that go away while a thread still does what they wanted: at every step of every
//! operation, what the thread does comes after everything that the caller's end undoes.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::mpsc;
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::task::spawn_blocking;
use vc_store::View;
use vc_types::{ContainerState, SandboxState};
use virtcontainers::{Result, Sandbox};

use super::{Host, LIMIT, container, id, sandbox, sandbox_id};

/// More steps than any operation has.
const STEPS_MAX: usize = 500;

/// How long what was given up may take to be undone or done behind its caller's back.
const REST_LIMIT: Duration = Duration::from_secs(5);

/// Between two looks at that.
const REST_RETRY: Duration = Duration::from_millis(2);

/// Drives `work` up to its step `last`, and gives it up there. What it left to a thread in that
/// step begins only after its end. None where it was given up.
async fn give_up_at<T>(last: usize, work: impl Future<Output = T>) -> Option<T> {
    let (release, released) = mpsc::channel::<()>();
    let mut released = Some(released);
    let mut step = 0;
    let done = {
        let mut work = pin!(work);
        poll_fn(|context| {
            step += 1;
            if step == last
                && let Some(released) = released.take()
            {
                // The only thread is taken: whatever comes next waits behind this.
                drop(spawn_blocking(move || released.recv()));
            }
            match work.as_mut().poll(context) {
                Poll::Ready(done) => Poll::Ready(Some(done)),
                Poll::Pending if step == last => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    };
    drop(release);
    done
}

/// Waits until nothing is under way and the threads have done what they were given.
async fn rest(host: &Host) {
    let begun = Instant::now();
    loop {
        spawn_blocking(|| ()).await.unwrap();
        let busy = host.runtime.status_sandbox(&sandbox_id("pod"));
        if busy.map_or(true, |record| record.operation().is_none()) {
            return;
        }
        assert!(begun.elapsed() < REST_LIMIT, "an operation does not end");
        tokio::time::sleep(REST_RETRY).await;
    }
}

/// Gives `work` up at each of its steps, on a host of its own that `prepare` has made ready, and
/// looks at what that leaves.
fn at_every_step<P, W, T>(prepare: P, work: W, look: impl Fn(&Host, &View))
where
    P: AsyncFn(&Host) -> Option<Sandbox>,
    W: AsyncFn(&Host, Option<&Sandbox>) -> Result<T>,
{
    for step in 1..STEPS_MAX {
        let host = Host::new();
        let executor = tokio::runtime::Builder::new_current_thread()
            .max_blocking_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let test = async {
            let kept = prepare(&host).await;
            let done = give_up_at(step, work(&host, kept.as_ref())).await;
            let whole = done.is_some();
            drop(done.map(Result::unwrap));
            rest(&host).await;
            if let Ok(record) = host.runtime.status_sandbox(&sandbox_id("pod")) {
                if !whole {
                    look(&host, &View::of(&record));
                }
                drop(kept);
                match host.runtime.delete_sandbox(&sandbox_id("pod"), true) {
                    Err(error) if !error.is_not_found() => panic!("{step}: {error}"),
                    _ => {}
                }
            }
            whole
        };
        let whole = executor.block_on(async { tokio::time::timeout(LIMIT, test).await.unwrap() });
        drop(executor);
        host.assert_nothing_left();
        if whole {
            assert!(step > 1, "it has no step at which it waits");
            return;
        }
    }
    panic!("it has more than {STEPS_MAX} steps");
}

async fn running(host: &Host) -> Option<Sandbox> {
    let config = sandbox("pod", vec![container("c1", &["server"])]);
    Some(host.runtime.run_sandbox(config).await.unwrap())
}

async fn stopped(host: &Host) -> Option<Sandbox> {
    let pod = running(host).await.unwrap();
    pod.stop().await.unwrap();
    drop(pod);
    None
}

#[test]
fn a_sandbox_whose_creation_is_given_up_is_gone() {
    at_every_step(
        async |_| None,
        async |host, _| {
            let config = sandbox("pod", vec![container("c1", &["server"])]);
            host.runtime.create_sandbox(config).await
        },
        |_, view| panic!("{view:?}"),
    );
}

#[test]
fn a_stopped_sandbox_whose_start_is_given_up_is_stopped() {
    at_every_step(
        stopped,
        async |host, _| host.runtime.start_sandbox(&sandbox_id("pod")).await,
        |_, view| {
            assert_eq!(view.state, SandboxState::Stopped);
            assert_eq!(view.containers[&id("c1")].state, ContainerState::Stopped);
        },
    );
}

#[test]
fn a_container_whose_operation_is_given_up_is_known_where_the_guest_has_it() {
    let pod = || sandbox_id("pod");
    let known = |host: &Host, view: &View| {
        for container in host.script.guest(&pod()).containers() {
            assert!(view.containers.contains_key(&id(&container)), "{container}");
        }
    };
    at_every_step(
        running,
        async |host, _| {
            let added = container("c2", &["server"]);
            host.runtime.create_container(&pod(), added).await
        },
        known,
    );
    at_every_step(
        running,
        async |host, _| host.runtime.delete_container(&pod(), &id("c1"), true).await,
        known,
    );
    at_every_step(
        running,
        async |host, _| host.runtime.stop_container(&pod(), &id("c1")).await,
        known,
    );
}

#[test]
fn a_sandbox_whose_pause_or_end_is_given_up_can_be_removed() {
    let lives = |_: &Host, view: &View| {
        let state = view.state;
        let lives = matches!(state, SandboxState::Running | SandboxState::Paused);
        assert!(lives, "{state}");
    };
    at_every_step(running, async |_, pod| pod.unwrap().pause().await, lives);
    at_every_step(
        async |host| {
            let pod = running(host).await;
            pod.as_ref().unwrap().pause().await.unwrap();
            pod
        },
        async |_, pod| pod.unwrap().resume().await,
        lives,
    );
    at_every_step(running, async |_, pod| pod.unwrap().stop().await, |_, _| {});
}
