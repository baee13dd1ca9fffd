//! The guest's assets: the kernel that a VM boots and the initrd with the agent and its modules.
//!
//! Assets are one directory with three files: `vmlinux` (an ELF kernel that QEMU starts directly
//! by its PVH entry), `initrd` (a newc archive) and `manifest.json`, which names the sizes and
//! digests of the other two and what they were made of. The directory's name is the beginning of
//! the manifest's digest, so a set of assets is never overwritten, and a sandbox keeps the set
//! that it started with while newer ones appear beside it. A link `current` names the newest.
//!
//! - [`manifest`]: what `manifest.json` says; parsing and checking it
//! - [`assets`]: opening a set and refusing one that does not match its manifest
//! - [`digest`]: SHA-256 of bytes and files
//! - `build` (feature `build`): making a set from a kernel package, an agent and a module list
//!
//! Readers need the first three alone, which bring no dependency beyond serde and SHA-256.
//!
//! Deliberately absent: time stamps, host names and paths in the assets. The same inputs give the
//! same bytes.
#![forbid(unsafe_code)]

pub mod assets;
#[cfg(feature = "build")]
pub mod build;
pub mod digest;
mod error;
pub mod manifest;

pub use assets::GuestAssets;
pub use digest::Digest;
pub use error::{Error, Result};
pub use manifest::Manifest;
