//! Changes of a running container's limits.

mod refused;
mod resources;
mod size;

pub(crate) use resources::resources;
