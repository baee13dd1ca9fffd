//! The numbers that bound everything, each with its reason.
//!
//! What comes from a guest is checked against these before memory is set aside for it. Waits that
//! a user may want to change are in the configuration instead; these are not.

/// Bytes of an id. Kubernetes and containerd use up to 64 and 76; a file name holds 255.
pub const ID_BYTES_MAX: usize = 128;

/// Bytes of one protocol message in either direction. Kata's clients and servers use the same.
pub const RPC_MESSAGE_BYTES_MAX: usize = 4 << 20;

/// Bytes of one frame's payload on a stream: one pipe's worth, so that a frame is one read.
pub const STREAM_FRAME_BYTES_MAX: usize = 64 << 10;

/// Bytes of the guest's console that are kept. A start prints some ten thousand.
pub const CONSOLE_LOG_BYTES_MAX: u64 = 1 << 20;

/// Lines of the guest's console that an error message quotes.
pub const CONSOLE_QUOTED_LINES: usize = 10;

/// Bytes of what a process of ours printed (VMM, device process) that are kept.
pub const PROCESS_LOG_BYTES_MAX: u64 = 256 << 10;

/// Bytes of a state file. A sandbox with a thousand containers needs some hundred thousand.
pub const STATE_FILE_BYTES_MAX: u64 = 16 << 20;

/// Bytes of an error text that a guest sent.
pub const GUEST_TEXT_BYTES_MAX: usize = 4 << 10;
