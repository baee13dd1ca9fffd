//! Random calls against a small model of what sandboxes and containers can be.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::prelude::*;
use tokio::task::JoinSet;
use vc_store::{Listed, SandboxRecord, View};
use vc_types::{ContainerState, SandboxId, SandboxState, Signal};
use virtcontainers::{Error, Result, Sandbox, Started};

use super::{Host, container, id, on_executor, sandbox, sandbox_id};

const SANDBOXES: [&str; 2] = ["a", "b"];
const CONTAINERS: [&str; 3] = ["c1", "c2", "c3"];

/// Between two looks at whether everything has come to rest.
const REST_RETRY: Duration = Duration::from_millis(2);

/// How long that may take. An operation waits for another one in steps of 20 ms.
const REST_LIMIT: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug)]
enum Act {
    CreateSandbox,
    StartSandbox,
    StopSandbox {
        force: bool,
    },
    DeleteSandbox,
    CreateContainer,
    StartContainer,
    /// Kills its first process, and sees its end.
    KillContainer,
    StopContainer,
    PauseContainer,
    ResumeContainer,
    DeleteContainer {
        force: bool,
    },
}

/// One call: what, on which sandbox and container, and after how many steps of the executor its
/// caller goes away.
#[derive(Clone, Copy, Debug)]
struct Call {
    act: Act,
    sandbox: &'static str,
    container: &'static str,
    given_up: Option<u8>,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        2 => Just(Act::CreateSandbox),
        1 => Just(Act::StartSandbox),
        1 => any::<bool>().prop_map(|force| Act::StopSandbox { force }),
        1 => Just(Act::DeleteSandbox),
        4 => Just(Act::CreateContainer),
        3 => Just(Act::StartContainer),
        2 => Just(Act::KillContainer),
        1 => Just(Act::StopContainer),
        2 => Just(Act::PauseContainer),
        2 => Just(Act::ResumeContainer),
        2 => any::<bool>().prop_map(|force| Act::DeleteContainer { force }),
    ]
}

fn call(given_up: impl Strategy<Value = Option<u8>>) -> impl Strategy<Value = Call> {
    let sandbox = proptest::sample::select(&SANDBOXES[..]);
    let container = proptest::sample::select(&CONTAINERS[..]);
    (act(), sandbox, container, given_up).prop_map(|(act, sandbox, container, given_up)| Call {
        act,
        sandbox,
        container,
        given_up,
    })
}

/// A host, and the sandboxes that this process keeps.
#[derive(Clone)]
struct World {
    host: Arc<Host>,
    kept: Arc<Mutex<Vec<Sandbox>>>,
}

impl World {
    fn new() -> Self {
        Self {
            host: Arc::new(Host::new()),
            kept: Arc::default(),
        }
    }

    fn keep(&self, sandbox: Sandbox) {
        self.kept.lock().unwrap().push(sandbox);
    }

    /// Lets go of those that have no machine.
    fn let_go(&self) {
        let ended = |one: &Sandbox| match one.status() {
            Ok(view) => view.state == SandboxState::Stopped,
            Err(_) => true,
        };
        let mut kept = self.kept.lock().unwrap();
        let (gone, living) = kept.drain(..).partition(ended);
        *kept = living;
        drop(kept);
        drop::<Vec<Sandbox>>(gone);
    }

    async fn make(&self, call: Call) -> Result<()> {
        let runtime = &self.host.runtime;
        let (name, one) = (sandbox_id(call.sandbox), id(call.container));
        match call.act {
            Act::CreateSandbox => {
                let created = runtime.create_sandbox(sandbox(call.sandbox, Vec::new()));
                self.keep(created.await?);
                Ok(())
            }
            Act::StartSandbox => {
                self.let_go();
                if let Started::Kept(started) = runtime.start_sandbox(&name).await? {
                    self.keep(*started);
                }
                Ok(())
            }
            Act::StopSandbox { force } => runtime.stop_sandbox(&name, force).await,
            Act::DeleteSandbox => {
                runtime.delete_sandbox(&name, true)?;
                self.let_go();
                Ok(())
            }
            Act::CreateContainer => {
                let mut config = container(call.container, &["server"]);
                config.attach = false;
                runtime.create_container(&name, config).await.map(|_| ())
            }
            Act::StartContainer => runtime.start_container(&name, &one).await.map(drop),
            Act::KillContainer => {
                let handle = runtime.fetch_sandbox(&name).await?;
                handle.kill_container(&one, Signal::KILL, false).await?;
                handle.wait_process(&one).await.map(|_| ())
            }
            Act::StopContainer => runtime.stop_container(&name, &one).await.map(|_| ()),
            Act::PauseContainer => runtime.pause_container(&name, &one).await,
            Act::ResumeContainer => runtime.resume_container(&name, &one).await,
            Act::DeleteContainer { force } => runtime.delete_container(&name, &one, force).await,
        }
    }

    /// What is on disk.
    fn records(&self) -> BTreeMap<String, SandboxRecord> {
        let listed = self.host.runtime.list_sandbox().unwrap();
        let records = listed.into_iter().map(|one| match one {
            Listed::Sandbox(record) => (record.id().to_string(), record),
            broken => panic!("{broken:?}"),
        });
        records.collect()
    }
}

/// What one sandbox is to be.
#[derive(Clone, Debug, PartialEq)]
struct Model {
    state: SandboxState,
    containers: BTreeMap<String, ContainerState>,
}

impl Model {
    fn of(record: &SandboxRecord) -> Self {
        let view = View::of(record);
        let containers = view.containers.into_iter();
        Self {
            state: view.state,
            containers: containers
                .map(|(id, one)| (id.to_string(), one.state))
                .collect(),
        }
    }
}

/// What a call does to what there is, if it goes well; none where it is refused.
fn next(models: &BTreeMap<String, Model>, call: Call) -> Option<BTreeMap<String, Model>> {
    use ContainerState as Container;
    let mut next = models.clone();
    if let Act::CreateSandbox = call.act {
        let new = Model {
            state: SandboxState::Ready,
            containers: BTreeMap::new(),
        };
        return match next.insert(call.sandbox.to_owned(), new) {
            None => Some(next),
            Some(_) => None,
        };
    }
    let model = next.get_mut(call.sandbox)?;
    let stopped = model.state == SandboxState::Stopped;
    let state = model.containers.get(call.container).copied();
    let mut becomes = |state| {
        model.containers.insert(call.container.to_owned(), state);
    };
    match (call.act, state) {
        (Act::CreateSandbox, _) => return None,
        (Act::DeleteSandbox, _) => _ = next.remove(call.sandbox),
        (Act::StopSandbox { .. }, _) => {
            model.state = SandboxState::Stopped;
            for state in model.containers.values_mut() {
                *state = Container::Stopped;
            }
        }
        (Act::StartSandbox, _) => match model.state {
            SandboxState::Running | SandboxState::Paused => return None,
            SandboxState::Stopped => {
                model.state = SandboxState::Running;
                for state in model.containers.values_mut() {
                    *state = Container::Running;
                }
            }
            SandboxState::Ready => {
                for state in model.containers.values_mut() {
                    if *state == Container::Ready {
                        *state = Container::Running;
                        model.state = SandboxState::Running;
                    }
                }
            }
        },
        (Act::CreateContainer, None) if !stopped => becomes(Container::Ready),
        (Act::DeleteContainer { force }, Some(state)) => match state {
            Container::Running | Container::Paused if !force => return None,
            _ => _ = model.containers.remove(call.container),
        },
        _ if stopped => return None,
        (Act::StartContainer, Some(Container::Ready)) => {
            becomes(Container::Running);
            model.state = SandboxState::Running;
        }
        (Act::KillContainer, Some(state)) if state != Container::Stopped => {
            becomes(Container::Stopped);
        }
        (Act::StopContainer, Some(_)) => becomes(Container::Stopped),
        (Act::PauseContainer, Some(Container::Running)) => becomes(Container::Paused),
        (Act::ResumeContainer, Some(Container::Paused)) => becomes(Container::Running),
        _ => return None,
    }
    Some(next)
}

/// What must be true of a sandbox whenever somebody looks.
fn check(record: &SandboxRecord) {
    let view = View::of(record);
    for (id, one) in &view.containers {
        let good = match view.state {
            SandboxState::Ready => {
                matches!(one.state, ContainerState::Ready | ContainerState::Stopped)
            }
            SandboxState::Running | SandboxState::Paused => true,
            SandboxState::Stopped => one.state == ContainerState::Stopped,
        };
        assert!(good, "{id} is {} in {view:?}", one.state);
        let ran = one.state == ContainerState::Stopped && view.state != SandboxState::Stopped;
        assert!(!ran || one.exit.is_some(), "{id} has no end in {view:?}");
        assert!(
            !one.creating || one.state == ContainerState::Ready,
            "{view:?}"
        );
    }
}

/// Errors that no order of calls explains.
fn check_error(call: Call, error: &Error) {
    let internal = match error {
        Error::Agent(error) => error.code() == Some(vc_agent_client::Code::Internal),
        Error::Hypervisor(_) | Error::Left { .. } | Error::Fault { .. } => true,
        _ => false,
    };
    assert!(!internal, "{call:?}: {error}");
}

/// Whether nothing is under way, and the guests have nothing that the state does not know. A
/// container whose removal lost its caller may be in the state alone, to be removed again; one whose making broke off with its machine is marked, for the next operation.
fn at_rest(world: &World) -> bool {
    world.records().iter().all(|(name, record)| {
        let view = View::of(record);
        let guest = world.host.script.guest(&sandbox_id(name));
        let known: Vec<_> = record.containers.keys().map(ToString::to_string).collect();
        let in_guest = guest.containers();
        record.operation().is_none()
            && (view.state == SandboxState::Stopped
                || in_guest.iter().all(|one| known.contains(one)))
    })
}

/// What the state says, and what is in the guests.
fn difference(world: &World) -> String {
    let of = |(name, record): (&String, &SandboxRecord)| {
        let guest = world.host.script.guest(&sandbox_id(name)).containers();
        let operation = record.operation();
        format!(
            "{name}: {:?}, {operation:?}, guest: {guest:?}",
            View::of(record)
        )
    };
    let records = world.records();
    records.iter().map(of).collect::<Vec<_>>().join("\n")
}

/// Whether a sandbox has no container, by the state and by its guest.
fn is_empty(world: &World, sandbox: &SandboxId) -> bool {
    world.records().get(sandbox.as_str()).is_none_or(|record| {
        let stopped = View::of(record).state == SandboxState::Stopped;
        let guest = world.host.script.guest(sandbox);
        record.containers.is_empty() && (stopped || guest.containers().is_empty())
    })
}

/// Ends and removes everything, and looks whether that was all. A container whose caller gave it
/// up may be made meanwhile, and is removed behind its caller's back.
async fn finish(world: &World) {
    let runtime = &world.host.runtime;
    for (name, record) in world.records() {
        let name = sandbox_id(&name);
        for one in record.containers.keys() {
            match runtime.delete_container(&name, one, true).await {
                Err(error) if !error.is_not_found() => panic!("{name} {one}: {error}"),
                _ => {}
            }
        }
        let begun = std::time::Instant::now();
        while !is_empty(world, &name) {
            assert!(begun.elapsed() < REST_LIMIT, "{}", difference(world));
            tokio::time::sleep(REST_RETRY).await;
        }
    }
    world.kept.lock().unwrap().clear();
    for name in world.records().keys() {
        let begun = std::time::Instant::now();
        loop {
            match runtime.delete_sandbox(&sandbox_id(name), true) {
                Err(Error::Store(vc_store::Error::Busy { .. })) if begun.elapsed() < REST_LIMIT => {
                    tokio::time::sleep(REST_RETRY).await;
                }
                Err(error) if !error.is_not_found() => panic!("{name}: {error}"),
                _ => break,
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..Default::default() })]

    #[test]
    fn one_caller_gets_what_the_model_says(
        calls in proptest::collection::vec(call(Just(None)), 1..40),
    ) {
        let world = World::new();
        on_executor(async {
            let mut models = BTreeMap::new();
            for call in calls {
                let done = world.make(call).await;
                match (next(&models, call), done) {
                    (Some(next), Ok(())) => models = next,
                    (None, Err(error)) => check_error(call, &error),
                    (expected, done) => panic!("{call:?} of {models:?}: {done:?}, and not {expected:?}"),
                }
                let records = world.records();
                records.values().for_each(check);
                let seen: BTreeMap<_, _> = records
                    .iter()
                    .map(|(name, record)| (name.clone(), Model::of(record)))
                    .collect();
                assert_eq!(seen, models, "after {call:?}");
            }
            assert!(at_rest(&world));
            finish(&world).await;
        });
        world.host.assert_nothing_left();
    }

    #[test]
    fn many_callers_that_come_and_go_leave_nothing(
        tasks in proptest::collection::vec(
            proptest::collection::vec(call(proptest::option::weighted(0.3, 0_u8..60)), 1..20),
            2..5,
        ),
    ) {
        let world = World::new();
        on_executor(async {
            let mut running = JoinSet::new();
            for calls in tasks {
                let world = world.clone();
                running.spawn(async move {
                    for call in calls {
                        let steps = async {
                            match call.given_up {
                                Some(steps) => for _ in 0..steps {
                                    tokio::task::yield_now().await;
                                },
                                None => std::future::pending().await,
                            }
                        };
                        tokio::select! {
                            done = world.make(call) => if let Err(error) = done {
                                check_error(call, &error);
                            },
                            () = steps => {}
                        }
                        world.records().values().for_each(check);
                    }
                });
            }
            while let Some(ended) = running.join_next().await {
                ended.unwrap();
            }
            // What was given up is undone or done behind its caller's back.
            let begun = std::time::Instant::now();
            while !at_rest(&world) {
                assert!(begun.elapsed() < REST_LIMIT, "{}", difference(&world));
                tokio::time::sleep(REST_RETRY).await;
            }
            finish(&world).await;
        });
        // The executor has waited for what was on its threads.
        on_executor(finish(&world));
        world.host.assert_nothing_left();
    }
}
