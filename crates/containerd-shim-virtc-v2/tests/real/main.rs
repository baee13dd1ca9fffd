//! The shim under the real containerd, by its client `ctr`.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test speaks by failing"
)]

mod cache;
mod containerd;
mod cri;
mod direct;
mod disks;
mod ends;
mod exec;
mod image;
mod install;
mod kills;
mod options;
mod pod;
mod sandbox_cgroup;
mod soak;
mod streams;
mod task;
mod terminal;
mod uses;

use containerd::Containerd;
