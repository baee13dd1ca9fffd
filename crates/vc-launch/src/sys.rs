//! The few system calls that no crate offers in a safe form.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use crate::mount_tree::Propagation;

/// The first descriptor after standard input, output and error.
const FIRST_OWN: u32 = 3;

/// Attributes and propagation of a mount, see mount_setattr(2).
#[repr(C)]
struct MountAttributes {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

/// Sets attributes on the mount at `fd`, and what becomes of mounts below it.
pub(crate) fn set_mount_attributes(
    fd: BorrowedFd<'_>,
    attributes: u64,
    recursive: bool,
    propagation: Propagation,
) -> io::Result<()> {
    let attributes = MountAttributes {
        set: attributes,
        clear: 0,
        propagation: match propagation {
            Propagation::Private => libc::MS_PRIVATE,
            Propagation::Slave => libc::MS_SLAVE,
        },
        user_namespace: 0,
    };
    change_mount(fd, &attributes, recursive)
}

/// Lets the mount at `fd` be written.
pub(crate) fn make_writable(fd: BorrowedFd<'_>) -> io::Result<()> {
    let attributes = MountAttributes {
        set: 0,
        clear: libc::MOUNT_ATTR_RDONLY,
        propagation: 0,
        user_namespace: 0,
    };
    change_mount(fd, &attributes, false)
}

fn change_mount(
    fd: BorrowedFd<'_>,
    attributes: &MountAttributes,
    recursive: bool,
) -> io::Result<()> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    let empty: &CStr = c"";
    // SAFETY: the path is a C string and the structure is the kernel's of the size that is
    // passed; both outlive the call, which keeps neither.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd.as_raw_fd(),
            empty.as_ptr(),
            flags,
            std::ptr::from_ref(attributes),
            size_of::<MountAttributes>(),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Closes every descriptor from `first` on when a program is executed.
pub(crate) fn close_at_exec_from(first: u32) -> io::Result<()> {
    // SAFETY: it only sets a flag on descriptors and takes no pointer.
    let result = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            first,
            u32::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Closes every descriptor but standard input, output and error: what a program that outlives its
/// caller was started with and does not know of. To be called before anything in this process has
/// opened one.
///
/// # Errors
///
/// What the system says.
pub fn close_inherited() -> io::Result<()> {
    // SAFETY: it takes no pointer. Descriptors from 3 on that are open at a program's start belong to
    // nobody in it.
    let result = unsafe { libc::syscall(libc::SYS_close_range, FIRST_OWN, u32::MAX, 0) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Makes `number` a copy of `fd` that stays open over exec.
pub(crate) fn place(fd: BorrowedFd<'_>, number: RawFd) -> io::Result<()> {
    // SAFETY: the step keeps none of its own descriptors below the numbers it places, so nothing
    // that a safe type owns is replaced.
    let result = unsafe { libc::dup2(fd.as_raw_fd(), number) };
    if result == number {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Every signal gets its default disposition.
pub(crate) fn default_signals() {
    for signal in 1..=64 {
        // SAFETY: the default disposition runs no code of ours. It is refused for SIGKILL,
        // SIGSTOP and what the C library keeps for itself, which never have another.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

/// Ends this process by a signal, as if it had none of its handlers, and without a core dump. It
/// returns for a signal that ends nobody.
pub fn end_by_signal(signal: rustix::process::Signal) {
    let none = rustix::process::Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    // Where that is not allowed, there may be a dump.
    let _ = rustix::process::setrlimit(rustix::process::Resource::Core, none);
    let number = signal.as_raw();
    // SAFETY: the default disposition runs no code of ours.
    unsafe { libc::signal(number, libc::SIG_DFL) };
    let _ = rustix::process::kill_process(rustix::process::getpid(), signal);
}

/// The descriptor that the launching process placed at `number`, for a program that was started
/// by a launcher. To be called once for a number, before anything else opens descriptors.
///
/// # Errors
///
/// When there is no such descriptor.
pub fn inherited_descriptor(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: F_GETFD only reads a flag, and takes any number.
    if unsafe { libc::fcntl(number, libc::F_GETFD) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open, and belongs to nobody in this process: descriptors from 3 on that are
    // open at its start were placed by the launcher for the program to take, each once.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}
