//! The few system calls that no crate wraps safely.

#![allow(unsafe_code, reason = "this is the one place for it")]

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

use rustix::process::Pid;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Bytes of randomness that one call adds.
pub(crate) const SEED_BYTES_MAX: usize = 512;

/// `RNDADDENTROPY`, from linux/random.h: `_IOW('R', 0x03, int[2])`.
const RNDADDENTROPY: libc::c_ulong = 0x4008_5203;

/// `RNDRESEEDCRNG`, from linux/random.h: `_IO('R', 0x07)`.
const RNDRESEEDCRNG: libc::c_ulong = 0x5207;

#[repr(C)]
struct PoolInfo {
    entropy_bits: libc::c_int,
    bytes: libc::c_int,
    seed: [u8; SEED_BYTES_MAX],
}

/// Mixes `seed` into the kernel's pool and credits it in full. Bytes over
/// [`SEED_BYTES_MAX`] are left out.
pub(crate) fn add_entropy(random: impl AsFd, seed: &[u8]) -> io::Result<()> {
    let bytes = seed.len().min(SEED_BYTES_MAX);
    let mut pool = PoolInfo {
        entropy_bits: bytes as i32 * 8,
        bytes: bytes as i32,
        seed: [0; SEED_BYTES_MAX],
    };
    pool.seed[..bytes].copy_from_slice(&seed[..bytes]);
    // SAFETY: the request reads the two counts and then `bytes` bytes, which are in `pool`.
    let result = unsafe { libc::ioctl(random.as_fd().as_raw_fd(), RNDADDENTROPY, &raw const pool) };
    check(result)
}

/// Makes the kernel's generators begin anew from the pool, with all that was mixed into it. What
/// processors drew in advance is thrown away.
pub(crate) fn reseed(random: impl AsFd) -> io::Result<()> {
    // SAFETY: the request passes no memory.
    check(unsafe { libc::ioctl(random.as_fd().as_raw_fd(), RNDRESEEDCRNG) })
}

/// Sends any signal, the real-time ones included, to one process.
pub(crate) fn kill(pid: Pid, signal: i32) -> io::Result<()> {
    // SAFETY: no memory is passed, and a `Pid` is positive: one process, never a group or all.
    check(unsafe { libc::kill(pid.as_raw_pid(), signal) })
}

/// Lets a process run only when nothing else wants to.
pub(crate) fn run_when_idle(pid: Pid) -> io::Result<()> {
    set_policy(pid, libc::SCHED_IDLE)
}

/// Lets a process run as every other one.
pub(crate) fn run_normally(pid: Pid) -> io::Result<()> {
    set_policy(pid, libc::SCHED_OTHER)
}

fn set_policy(pid: Pid, policy: i32) -> io::Result<()> {
    let priority = libc::sched_param { sched_priority: 0 };
    // SAFETY: the call reads the one parameter, and a `Pid` is one process.
    check(unsafe { libc::sched_setscheduler(pid.as_raw_pid(), policy, &raw const priority) })
}

/// Gives this process the handling and the mask of signals that a program expects to start with.
pub(crate) fn reset_signals() -> io::Result<()> {
    // SAFETY: the set is initialised by sigemptyset before it is read, and the default action is
    // no function of ours.
    unsafe {
        let mut empty = std::mem::zeroed();
        libc::sigemptyset(&raw mut empty);
        check(libc::sigprocmask(
            libc::SIG_SETMASK,
            &raw const empty,
            std::ptr::null_mut(),
        ))?;
        match libc::signal(libc::SIGPIPE, libc::SIG_DFL) {
            libc::SIG_ERR => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    }
}

/// Closes every descriptor from `first` to `last`, for a process that will never return to where
/// they are owned.
pub(crate) fn close_range(first: u32, last: u32) -> io::Result<()> {
    if first > last {
        return Ok(());
    }
    // SAFETY: no memory is passed. The caller ends without using or dropping what owns them.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } as i32)
}

/// Replaces this process by a program. Returns only when that failed.
pub(crate) fn execve(path: &CStr, arguments: &[CString], environment: &[CString]) -> io::Error {
    let pointers = |texts: &[CString]| -> Vec<*const libc::c_char> {
        texts
            .iter()
            .map(|text| text.as_ptr())
            .chain([std::ptr::null()])
            .collect()
    };
    let (arguments, environment) = (pointers(arguments), pointers(environment));
    // SAFETY: both lists end with a null pointer, and they and the texts that they point to live
    // until the call returns.
    unsafe { libc::execve(path.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
    io::Error::last_os_error()
}

/// Lets the runtime watch a descriptor.
pub(crate) fn watch(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is open until it is dropped, and is the same number all the time.
    Ok(unsafe { AsyncFd::register_with_interest(fd, interest) }?)
}

/// Lets the wall clock run faster or slower until it has made up for so many microseconds.
pub(crate) fn slew_clock(microseconds: i64) -> io::Result<()> {
    // SAFETY: all members are numbers, for which zero is a value.
    let mut change: libc::timex = unsafe { std::mem::zeroed() };
    change.modes = libc::ADJ_OFFSET_SINGLESHOT;
    change.offset = microseconds;
    // SAFETY: the kernel reads and writes `change` alone, which has the size it expects.
    check(unsafe { libc::clock_adjtime(libc::CLOCK_REALTIME, &raw mut change) })
}

/// Applies a filter of classic BPF, in the machine's own byte order, to this thread.
pub(crate) fn load_filter(flags: u32, program: &[u8]) -> io::Result<()> {
    let (instructions, rest) = program.as_chunks::<8>();
    if !rest.is_empty() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut filter: Vec<libc::sock_filter> = instructions
        .iter()
        .map(|&[c0, c1, jt, jf, k0, k1, k2, k3]| libc::sock_filter {
            code: u16::from_ne_bytes([c0, c1]),
            jt,
            jf,
            k: u32::from_ne_bytes([k0, k1, k2, k3]),
        })
        .collect();
    let argument = libc::sock_fprog {
        len: u16::try_from(filter.len()).map_err(io::Error::other)?,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: the argument points to as many instructions as it says, and the kernel, which checks
    // them, only reads both.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            &raw const argument,
        )
    };
    match result {
        0 => Ok(()),
        // With TSYNC, the thread that could not follow.
        1.. => Err(io::ErrorKind::ResourceBusy.into()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The next child of this process is the first one of a new pid namespace.
pub(crate) fn unshare_pid_namespace() -> io::Result<()> {
    // SAFETY: no memory is passed, and this process itself stays where it is.
    check(unsafe { libc::unshare(libc::CLONE_NEWPID) })
}

/// This process gets a copy of its mounts.
pub(crate) fn unshare_mount_namespace() -> io::Result<()> {
    // SAFETY: no memory is passed, and this process has one thread.
    check(unsafe { libc::unshare(libc::CLONE_NEWNS) })
}

/// The kernel collects the children of this process.
pub(crate) fn ignore_children() -> io::Result<()> {
    // SAFETY: ignoring a signal runs no function of ours.
    match unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) } {
        libc::SIG_ERR => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// `bpf(2)` and its numbers, from linux/bpf.h.
const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_ATTACH: libc::c_int = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 1 << 1;
const BPF_F_REPLACE: u32 = 1 << 2;

/// The part of `union bpf_attr` that loading a program has at least.
#[repr(C)]
struct BpfLoad {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    licence: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
}

/// The part of `union bpf_attr` that attaching a program has.
#[repr(C)]
struct BpfAttach {
    target: u32,
    program: u32,
    attach_type: u32,
    flags: u32,
    replaced: u32,
}

/// Loads a BPF program that decides about the use of devices.
pub(crate) fn load_device_program(instructions: &[[u8; 8]]) -> io::Result<OwnedFd> {
    let load = BpfLoad {
        program_type: BPF_PROG_TYPE_CGROUP_DEVICE,
        instruction_count: u32::try_from(instructions.len()).map_err(io::Error::other)?,
        instructions: instructions.as_ptr() as u64,
        // It calls nothing of the kernel that asks for another.
        licence: c"Apache-2.0".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
    };
    // SAFETY: the attribute points to as many instructions as it says and to a text that ends, and
    // the kernel, which checks them, only reads all three.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_PROG_LOAD,
            &raw const load,
            size_of::<BpfLoad>(),
        )
    };
    let number = libc::c_int::try_from(result).map_err(io::Error::other)?;
    check(number)?;
    // SAFETY: the call gave us this descriptor, and nothing else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Attaches a program to a cgroup, in the place of one that was attached before or beside those of
/// others.
pub(crate) fn attach_device_program(
    cgroup: impl AsFd,
    program: impl AsFd,
    replaced: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    // Open descriptors are not negative.
    let number = |fd: BorrowedFd<'_>| fd.as_raw_fd().unsigned_abs();
    let attach = BpfAttach {
        target: number(cgroup.as_fd()),
        program: number(program.as_fd()),
        attach_type: BPF_CGROUP_DEVICE,
        flags: match replaced {
            None => BPF_F_ALLOW_MULTI,
            Some(_) => BPF_F_ALLOW_MULTI | BPF_F_REPLACE,
        },
        replaced: replaced.map_or(0, number),
    };
    // SAFETY: the kernel only reads the attribute, which has no pointers.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_PROG_ATTACH,
            &raw const attach,
            size_of::<BpfAttach>(),
        )
    };
    check(libc::c_int::try_from(result).map_err(io::Error::other)?)
}

/// Sleeps until a signal was handled.
pub(crate) fn pause() {
    // SAFETY: it only sleeps.
    unsafe { libc::pause() };
}

/// Empties the effective, permitted and inheritable sets of capabilities.
pub(crate) fn drop_all_capabilities() -> io::Result<()> {
    const VERSION_3: u32 = 0x2008_0522;
    let header = [VERSION_3, 0];
    // Three sets of 32 bits, twice.
    let none = [0u32; 6];
    // SAFETY: both have the size and layout that version 3 has, and are only read.
    let result = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), none.as_ptr()) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
