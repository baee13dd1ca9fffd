//! How every process of a sandbox is started: by one small, single-threaded step.
//!
//! A [`Launcher`] owns one thread that lives as long as the sandbox, because the death signal of a
//! child fires when the *thread* that made it ends. For each [`LaunchSpec`] the thread starts the
//! program of this project again as `internal launch` and sends it the spec and the descriptors
//! over a socket. That step ([`internal_launch`]) does in order:
//!
//! 1. a session of its own; descriptors at their numbers, all others closed at exec;
//! 2. cgroups, namespaces, and the [`MountTree`] as its root;
//! 3. resource limits, groups, user, capabilities, `no_new_privs`;
//! 4. the death signal, and the check that the launching process still lives;
//! 5. exec.
//!
//! A step that fails is reported with its name, the object and the system's error; the answer
//! comes back as a [`LaunchedProcess`], a guard that kills and reaps what it holds.
//!
//! What a running process sees is changed by [`TreeChange`], in a step of the same kind
//! ([`internal_change_tree`]). An archive of a guest is unpacked by another one,
//! [`ConfinedUnpack`] ([`internal_unpack`]).
//!
//! One that has begun and waits gives back what it does not need ([`Footprint`]).
//!
//! What is deliberately not here: what a sandbox, a VMM or a share is, and any retry.

mod confined_unpack;
mod error;
mod footprint;
mod launcher;
mod mount_tree;
mod pending;
mod process;
mod socket_pair;
mod spec;
mod step;
mod sys;
mod tree_change;
mod wire;

pub use confined_unpack::ConfinedUnpack;
pub use error::{Error, Result, Step};
pub use footprint::Footprint;
pub use launcher::{LAUNCH_LIMIT, Launcher};
pub use mount_tree::{BindSource, MountTree, Propagation, TreeEntry, TreeNode};
pub use pending::Pending;
pub use process::{LaunchedProcess, ProcessEnd};
pub use socket_pair::SocketPair;
pub use spec::{
    Capability, DescriptorUse, LaunchSpec, Namespaces, PassedFd, Program, ResourceLimit, User,
};
pub use step::{internal_change_tree, internal_launch, internal_unpack};
pub use sys::{close_inherited, end_by_signal, inherited_descriptor};
pub use tree_change::{Addition, TREE_CHANGE_LIMIT, TreeChange};
