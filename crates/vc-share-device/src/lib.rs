//! The file system of a share, as a process of our own: the library of `virtiofsd`, with another
//! cache policy than its program offers.
//!
//! That program either lets the guest forget a file's content whenever the file is opened, so that
//! each start of a program reads it again, or lets it believe everything for good, whatever the host
//! changes. With [`Cache::Checked`], the guest keeps content as long as size and time of change of
//! the file stay what they were, and believes names and attributes for [`CHECKED_FOR`]: what the
//! host changes is seen after that at the latest, and what it does not change is read once.
//!
//! Whoever starts it has made its world before: a root with nothing but what is shared, no network,
//! the user and the capabilities that it serves with. It opens nothing outside of the shared
//! directory, allows itself only the system calls that `virtiofsd` lists, and ends with its
//! connection to the VMM.

mod error;
mod log_lines;
mod options;
mod run;
mod served;
mod slave;

pub use error::{Error, Result};
pub use options::{CHECKED_FOR, Cache, Options};
pub use run::run;
pub use slave::Slave;
