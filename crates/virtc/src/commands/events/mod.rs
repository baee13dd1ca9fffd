//! What containers have used, as lines in the form of runc's `events`.

mod shape;

pub(crate) use shape::{Event, Stats};
