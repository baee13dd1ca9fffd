//! The one harness for tests on real virtual machines.
//!
//! A [`Host`] is this machine as one test sees it: a state root of its own, and the duty to leave
//! nothing. It starts virtc, bounds its time, and fails the test when a process, a mount, a
//! cgroup, a socket or a file is left when the test is over.
//!
//! Every test is a process of its own (nextest), and a [`Host`] makes it the reaper of orphans: a
//! process that outlives virtc becomes a child of the test, so nothing can be left unseen.

#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a harness speaks by failing the test"
)]

mod cgroups;
mod host;
mod leftovers;
mod origin;
mod outcome;
mod processes;
mod running;

pub use host::Host;
pub use origin::Origin;
pub use outcome::Outcome;
pub use processes::{Process, descendants};
pub use running::Running;
