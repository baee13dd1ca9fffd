//! Room for a guest to write in.

mod disk;
mod tmpfs;

pub use self::disk::{FORMAT_LIMIT, ScratchDisk};
pub use self::tmpfs::ScratchTmpfs;
