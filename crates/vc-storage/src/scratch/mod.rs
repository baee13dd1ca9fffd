//! Room for a guest to write in.

mod disk;
mod format;
mod tmpfs;

pub use self::disk::ScratchDisk;
pub use self::format::{FORMAT_LIMIT, Formatter, Formatting};
pub use self::tmpfs::ScratchTmpfs;
