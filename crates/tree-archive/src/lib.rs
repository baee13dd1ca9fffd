//! Trees of files as tar archives: [`Pack`] writes one, [`unpack`] makes one below a directory.
//!
//! An archive may come from a guest, so nothing of it is believed: no name leads out of the
//! directory, no link is followed on the way to a name, devices are not made, and headers have
//! a largest size. Files are streamed, and what is kept in memory is bounded by the longest path;
//! only packing remembers the files that have several names.
//!
//! ```
//! use std::os::fd::AsFd;
//! use tree_archive::{Destination, Incoming, Pack, Rules, unpack};
//!
//! # let directory = tempfile::tempdir()?;
//! # let (from, to) = (directory.path().join("from"), directory.path().join("to"));
//! std::fs::write(&from, "hello")?;
//! let mut archive = Vec::new();
//! let pack = Pack { path: from, root: "from".into(), follow: false };
//! pack.write(&mut archive)?;
//! let destination = Destination::open(&to, &Incoming::Named("from".into()))?;
//! unpack(&archive[..], destination.directory.as_fd(), &destination.names, Rules::default())?;
//! assert_eq!(std::fs::read_to_string(&to)?, "hello");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![forbid(unsafe_code)]

mod destination;
mod entry;
mod error;
mod names;
mod pack;
mod place;
mod reader;
mod unpack;
mod writer;

pub use destination::{Destination, Incoming};
pub use error::{Error, Result};
pub use names::Names;
pub use pack::Pack;
pub use unpack::{Rules, unpack};

/// Bytes that are moved at once.
const BUFFER_BYTES: usize = 128 << 10;
