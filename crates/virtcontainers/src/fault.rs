//! Points at which a test stops, kills or fails an operation, so that no test has to guess a
//! moment by sleeping. Without the feature `fault-points` all of this is nothing.

/// Every point, in the order in which a start, a stop and a delete pass them.
pub const POINTS: [&str; 14] = [
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
    "start.container-started",
    "stop.begun",
    "stop.vmm-ended",
    "delete.state-removed",
];

/// Those of a container that is made in a running sandbox.
pub const CONTAINER_POINTS: [&str; 3] = [
    "create-container.reserved",
    "create-container.shared",
    "create-container.made",
];

/// What the environment variable asks for: `POINT:ACTION`, with the actions below.
pub const VARIABLE: &str = "VIRTC_TEST_FAULT";

/// Does what [`VARIABLE`] says when it names `point`: `kill` ends this process by SIGKILL, `stop`
/// stops it until it is killed or continued, `error` makes the operation fail, `panic` panics.
///
/// # Errors
///
/// [`crate::Error::Fault`] for `error`.
#[cfg(feature = "fault-points")]
pub(crate) fn point(point: &'static str) -> crate::Result<()> {
    use rustix::process::{Signal, getpid, kill_process};

    debug_assert!(
        POINTS.contains(&point) || CONTAINER_POINTS.contains(&point),
        "{point} is not listed"
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
#[cfg(not(feature = "fault-points"))]
#[allow(clippy::unnecessary_wraps, reason = "with the feature it fails")]
pub(crate) fn point(_point: &'static str) -> crate::Result<()> {
    Ok(())
}
