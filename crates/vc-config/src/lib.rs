//! The configuration of virtcontainers, and the small syntaxes of its command line.
//!
//! [`Sources`] says where values come from, [`Sources::load`] reads and checks all of them and
//! makes a [`Config`]; behind it nobody checks a value again. Each section is defined once, with
//! the words and the range of every key, so that reading, errors, `virtc config` and the
//! documentation cannot differ. [`syntax`] reads what flags such as `--volume` take, and
//! [`HostFacts`] what the defaults depend on. Nothing here changes anything on the host.

#![forbid(unsafe_code)]

pub mod syntax;

mod annotation;
mod config;
mod document;
mod effective;
mod error;
mod host;
mod load;
mod name;
mod nearest;
mod rate;
mod sections;
mod setting;
mod tree;

pub use annotation::{ANNOTATION_KEYS, ANNOTATION_PREFIX, AllowedKeys};
pub use config::{Config, Hypervisor};
pub use document::document;
pub use effective::Effective;
pub use error::{Error, Problem, Result};
pub use host::HostFacts;
pub use load::{CONFIG_FILE, Loaded, Origin, Sources};
pub use name::random_name;
pub use rate::Rate;
pub use sections::{
    Accelerator, Demand, Factory, Guest, Interworking, Limits, Millis, Network, Physical, Qemu,
    Runtime, SandboxCgroup, Scratch, ScratchKind, Share, ShareCache, TcgThreads, UserBackend,
    Vhost, Vm,
};
pub use setting::{Key, Kind, Section};
