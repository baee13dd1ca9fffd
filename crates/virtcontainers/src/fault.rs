//! Points at which a test stops, kills or fails an operation, so that no test has to guess a
//! moment by sleeping. Without the feature `fault-points` all of this is nothing.

/// A process that passes points, by what it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Walk {
    /// `virtc run -- COMMAND`: a throw-away machine, from its making to its end.
    Run,
    /// What it passes besides where it makes the template that its machine goes on from.
    Template,
    /// The holder of a machine that waits: it makes that, and hands it over.
    Hold,
    /// What `virtc run` passes where it takes a machine that waits, instead of making one.
    Take,
    /// `virtc create` and `virtc exec --detach`, which start a stand-in and wait for its report.
    Caller,
    /// The stand-in of a container with a sandbox of its own: it makes and keeps that.
    Keeper,
    /// What a keeper passes besides, where its sandbox has a network with relayed connections.
    Network,
    /// The same, where an address of the private network is leased for it.
    Nat,
    /// The stand-in of a container that joins the sandbox of another one.
    Member,
    /// `virtc start`.
    Start,
    /// `virtc exec`, and the stand-in of `virtc exec --detach`.
    Exec,
    /// `virtc kill`.
    Kill,
    /// `virtc delete` of a container with a sandbox of its own.
    Delete,
    /// `virtc delete` of a container that joined the sandbox of another one.
    DeleteContainer,
    /// A shim of containerd's that adds a process to a task.
    TaskExec,
    /// A shim of containerd's that deletes a task with a sandbox of its own, which has ended.
    TaskDelete,
    /// A shim of containerd's that deletes a task which joined the sandbox of another one.
    TaskDeleteContainer,
}

impl Walk {
    /// All of them.
    pub const ALL: [Self; 17] = [
        Self::Run,
        Self::Template,
        Self::Hold,
        Self::Take,
        Self::Caller,
        Self::Keeper,
        Self::Network,
        Self::Nat,
        Self::Member,
        Self::Start,
        Self::Exec,
        Self::Kill,
        Self::Delete,
        Self::DeleteContainer,
        Self::TaskExec,
        Self::TaskDelete,
        Self::TaskDeleteContainer,
    ];

    /// Its points, in the order in which they are passed.
    pub const fn points(self) -> &'static [&'static str] {
        match self {
            Self::Run => &[
                "create.reserved",
                "create.sockets",
                "create.vsock-launched",
                "create.shares-launched",
                "create.scratch-made",
                "create.vmm-launched",
                "create.agent-ready",
                "create.agent-connected",
                "create.guest-prepared",
                "create.container-made",
                "create.written",
                "start.begun",
                "start.process-started",
                "start.written",
                "stop.begun",
                "stop.vmm-ended",
                "delete.cgroups-removed",
                "delete.state-removed",
            ],
            Self::Template => &[
                "template.begun",
                "template.formatted",
                "template.saved",
                "template.written",
                "template.made",
                "template.copying",
                "template.memory-copied",
                "template.answered",
            ],
            Self::Hold => &[
                "hold.begun",
                "hold.made",
                "hold.rehearsed",
                "hold.announced",
                "hold.answered",
            ],
            Self::Take => &[
                "take.answered",
                "take.moved",
                "take.described",
                "take.greeted",
                "take.shared",
            ],
            Self::Caller => &["caller.spawned", "caller.reported", "caller.pid-written"],
            Self::Keeper => &[
                "create.reserved",
                "create.sockets",
                "create.vsock-launched",
                "create.shares-launched",
                "create.scratch-made",
                "create.vmm-launched",
                "create.agent-ready",
                "create.agent-connected",
                "create.guest-prepared",
                "create.container-made",
                "create.written",
                "stand-in.made",
                "stand-in.hooks-run",
                "stand-in.reported",
                "stop.begun",
                "stop.vmm-ended",
                "stop.written",
            ],
            Self::Network => &[
                "network.noted",
                "network.attached",
                "network.relayed",
                "network.configured",
                "network.undone",
            ],
            Self::Nat => &[
                "network.lease-noted",
                "network.leased",
                "network.noted",
                "network.attached",
                "network.configured",
                "network.undone",
            ],
            Self::Member => &[
                "create-container.reserved",
                "create-container.shared",
                "create-container.made",
                "create-container.written",
                "stand-in.made",
                "stand-in.hooks-run",
                "stand-in.reported",
            ],
            Self::Start => &[
                "start.begun",
                "start.process-started",
                "start.written",
                "start.hooks-run",
            ],
            Self::Exec => &["exec.begun", "exec.leased", "exec.made", "exec.ended"],
            Self::Kill => &["kill.begun", "kill.sent"],
            Self::Delete => &[
                "delete.begun",
                "delete.processes-ended",
                "delete.network-undone",
                "delete.cgroups-removed",
                "delete.state-removed",
                "delete.hooks-run",
            ],
            Self::DeleteContainer => &[
                "delete-container.seen",
                "delete-container.begun",
                "delete-container.guest-removed",
                "delete-container.share-changed",
                "delete-container.stand-in-ended",
                "delete-container.cgroup-removed",
                "delete-container.files-removed",
                "delete-container.written",
                "delete.hooks-run",
            ],
            Self::TaskExec => &["exec.begun", "exec.made", "exec.carried", "exec.ended"],
            Self::TaskDelete => &[
                "task-delete.begun",
                "delete.cgroups-removed",
                "delete.state-removed",
                "delete.hooks-run",
                "task-delete.unmounted",
            ],
            Self::TaskDeleteContainer => &[
                "task-delete.begun",
                "delete-container.begun",
                "delete-container.guest-removed",
                "delete-container.share-changed",
                "delete-container.stand-in-ended",
                "delete-container.cgroup-removed",
                "delete-container.files-removed",
                "delete-container.written",
                "delete.hooks-run",
                "task-delete.unmounted",
            ],
        }
    }
}

/// What the environment variable asks for: `POINT:ACTION`, with the actions below.
pub const VARIABLE: &str = "VIRTC_TEST_FAULT";

/// Does what [`VARIABLE`] says when it names `point`: `kill` ends this process by SIGKILL, `stop`
/// stops it until it is killed or continued, `error` makes the operation fail, `panic` panics.
///
/// # Errors
///
/// [`crate::Error::Fault`] for `error`.
#[cfg(feature = "fault-points")]
pub fn point(point: &'static str) -> crate::Result<()> {
    use rustix::process::{Signal, getpid, kill_process};

    let listed = |walk: Walk| walk.points().contains(&point);
    assert!(
        Walk::ALL.into_iter().any(listed),
        "the fault point {point} is not in the table"
    );
    let Ok(asked) = std::env::var(VARIABLE) else {
        return Ok(());
    };
    let action = asked
        .split_once(':')
        .filter(|(name, _)| *name == point)
        .map(|(_, a)| a);
    match action {
        Some("kill") => _ = kill_process(getpid(), Signal::KILL),
        Some("stop") => _ = kill_process(getpid(), Signal::STOP),
        Some("error") => return Err(crate::Error::Fault { point }),
        #[allow(clippy::panic, reason = "this is what the test asks for")]
        Some("panic") => panic!("fault point {point}"),
        _ => {}
    }
    Ok(())
}

/// Nothing.
///
/// # Errors
///
/// None.
#[cfg(not(feature = "fault-points"))]
#[allow(clippy::unnecessary_wraps, reason = "with the feature it fails")]
pub fn point(_point: &'static str) -> crate::Result<()> {
    Ok(())
}
