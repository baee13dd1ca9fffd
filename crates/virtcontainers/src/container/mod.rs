//! Containers: how they are asked for, and where they stand in the guest.

mod bundle;
mod bundle_mounts;
mod config;
mod config_json;
mod demand;
pub(crate) mod filter;
mod host_namespaces;
pub(crate) mod placement;
pub(crate) mod pod;
pub(crate) mod saved;
mod status;
mod update;

pub use bundle::Bundle;
pub use config::{
    Access, ContainerConfig, GeneratedFile, Propagation, Root, RootDisk, RootSource, Volume,
};
pub use demand::demand_of_pod;
pub(crate) use demand::{Limits, demand_of};
pub use host_namespaces::HostNamespaces;
pub use pod::{Neighbours, PodRole};
pub use status::ContainerStatus;
pub(crate) use update::update;
