//! The system calls that a container may make when its specification names no others.
//!
//! An allow-list: what is not here fails with EPERM, as users of container engines know it. The
//! guest's kernel is the container's own, so what the list guards is the agent beside it.

use oci_spec::OciSpecError;
use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArgBuilder, LinuxSeccompBuilder,
    LinuxSeccompOperator, LinuxSyscallBuilder,
};

/// What every program may need.
const ALWAYS: &str = "
accept accept4 access adjtimex alarm arch_prctl bind brk cachestat capget capset chdir chmod chown
clock_adjtime clock_getres clock_gettime clock_nanosleep close close_range connect copy_file_range
creat dup dup2 dup3 epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2
epoll_wait epoll_wait_old eventfd eventfd2 execve execveat exit exit_group faccessat faccessat2
fadvise64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchownat fcntl fdatasync
fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat fstatfs fsync ftruncate futex
futex_requeue futex_wait futex_waitv futex_wake futimesat get_robust_list get_thread_area getcpu
getcwd getdents getdents64 getegid geteuid getgid getgroups getitimer getpeername getpgid getpgrp
getpid getppid getpriority getrandom getresgid getresuid getrlimit getrusage getsid getsockname
getsockopt gettid gettimeofday getuid getxattr getxattrat inotify_add_watch inotify_init
inotify_init1 inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents io_setup io_submit
ioctl ioprio_get ioprio_set kill landlock_add_rule landlock_create_ruleset landlock_restrict_self
lchown lgetxattr link linkat listen listmount listxattr listxattrat llistxattr lremovexattr lseek
lsetxattr lstat madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mkdir mkdirat
mknod mknodat mlock mlock2 mlockall mmap modify_ldt mprotect mq_getsetattr mq_notify mq_open
mq_timedreceive mq_timedsend mq_unlink mremap mseal msgctl msgget msgrcv msgsnd msync munlock
munlockall munmap name_to_handle_at nanosleep newfstatat open openat openat2 pause pidfd_open
pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll prctl pread64 preadv
preadv2 prlimit64 process_mrelease process_vm_readv process_vm_writev pselect6 ptrace pwrite64
pwritev pwritev2 read readahead readlink readlinkat readv recvfrom recvmmsg recvmsg
remap_file_pages removexattr removexattrat rename renameat renameat2 restart_syscall rmdir rseq
rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend
rt_sigtimedwait rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min sched_getaffinity
sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval sched_setaffinity
sched_setattr sched_setparam sched_setscheduler sched_yield seccomp select semctl semget semop
semtimedop sendfile sendmmsg sendmsg sendto set_robust_list set_thread_area set_tid_address
setfsgid setfsuid setgid setgroups setitimer setpgid setpriority setregid setresgid setresuid
setreuid setrlimit setsid setsockopt setuid setxattr setxattrat shmat shmctl shmdt shmget shutdown
sigaltstack signalfd signalfd4 socketpair splice stat statfs statmount statx symlink symlinkat sync
sync_file_range syncfs sysinfo tee tgkill time timer_create timer_delete timer_getoverrun
timer_gettime timer_settime timerfd_create timerfd_gettime timerfd_settime times tkill truncate
umask uname unlink unlinkat uretprobe utime utimensat utimes vfork vmsplice wait4 waitid write
writev
";

/// What a capability opens: its name and the calls that go with it.
const WITH_CAPABILITY: [(&str, &str); 10] = [
    ("CAP_DAC_READ_SEARCH", "open_by_handle_at"),
    (
        "CAP_SYS_ADMIN",
        "bpf clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie mount
         mount_setattr move_mount open_tree perf_event_open quotactl quotactl_fd setdomainname
         sethostname setns syslog umount umount2 unshare",
    ),
    ("CAP_SYS_BOOT", "reboot"),
    ("CAP_SYS_CHROOT", "chroot"),
    ("CAP_SYS_MODULE", "delete_module init_module finit_module"),
    ("CAP_SYS_PACCT", "acct"),
    ("CAP_SYS_PTRACE", "kcmp pidfd_getfd process_madvise"),
    ("CAP_SYS_RAWIO", "iopl ioperm"),
    ("CAP_SYS_TIME", "settimeofday clock_settime"),
    ("CAP_SYS_TTY_CONFIG", "vhangup"),
];

/// `CLONE_NEW*` of clone(2): new namespaces need CAP_SYS_ADMIN.
const CLONE_NAMESPACES: u64 = 0x7E02_0000;

/// clone3 takes its flags by pointer, which a filter cannot read. With ENOSYS the C library falls
/// back to clone.
const ENOSYS: u32 = 38;

const EPERM: u32 = 1;

/// AF_VSOCK. A workload has no business with the agent's transport.
const AF_VSOCK: u64 = 40;

/// One more than the largest address family of today's kernels.
const AF_MAX: u64 = 46;

/// The default profile for a container with the bounding set `capabilities` (names with `CAP_`).
///
/// # Errors
///
/// Never in practice: the values are constants.
pub(super) fn default_profile(capabilities: &[String]) -> Result<LinuxSeccomp, OciSpecError> {
    let mut calls: Vec<String> = words(ALWAYS).collect();
    for (capability, names) in WITH_CAPABILITY {
        if capabilities.iter().any(|c| c == capability) {
            calls.extend(words(names));
        }
    }
    let mut rules = vec![allow(calls).build()?];
    // The filter sees 64 bits, and the kernel uses 32: what is allowed is said, or the same family
    // with another bit would be let through.
    let families = [(AF_VSOCK, LinuxSeccompOperator::ScmpCmpLt)]
        .into_iter()
        .chain((AF_VSOCK + 1..AF_MAX).map(|family| (family, LinuxSeccompOperator::ScmpCmpEq)));
    for (family, op) in families {
        rules.push(
            allow(vec!["socket".into()])
                .args(vec![compare(0, family, None, op)?])
                .build()?,
        );
    }
    // personality(2): Linux, 32-bit, no randomisation, and the question (0xffffffff).
    for persona in [0x0, 0x0008, 0x2_0000, 0x2_0008, 0x4_0000, 0xffff_ffff] {
        rules.push(
            allow(vec!["personality".into()])
                .args(vec![compare(
                    0,
                    persona,
                    None,
                    LinuxSeccompOperator::ScmpCmpEq,
                )?])
                .build()?,
        );
    }
    if capabilities.iter().any(|c| c == "CAP_SYS_ADMIN") {
        rules.push(allow(vec!["clone".into()]).build()?);
    } else {
        let masked = LinuxSeccompOperator::ScmpCmpMaskedEq;
        rules.push(
            allow(vec!["clone".into()])
                .args(vec![compare(0, CLONE_NAMESPACES, Some(0), masked)?])
                .build()?,
        );
        rules.push(
            LinuxSyscallBuilder::default()
                .names(vec!["clone3".to_owned()])
                .action(LinuxSeccompAction::ScmpActErrno)
                .errno_ret(ENOSYS)
                .build()?,
        );
    }
    LinuxSeccompBuilder::default()
        .default_action(LinuxSeccompAction::ScmpActErrno)
        .default_errno_ret(EPERM)
        .architectures(architectures())
        .syscalls(rules)
        .build()
}

fn words(list: &str) -> impl Iterator<Item = String> {
    list.split_ascii_whitespace().map(str::to_owned)
}

fn allow(names: Vec<String>) -> LinuxSyscallBuilder {
    LinuxSyscallBuilder::default()
        .names(names)
        .action(LinuxSeccompAction::ScmpActAllow)
}

fn compare(
    index: usize,
    value: u64,
    second: Option<u64>,
    op: LinuxSeccompOperator,
) -> Result<oci_spec::runtime::LinuxSeccompArg, OciSpecError> {
    let mut arg = LinuxSeccompArgBuilder::default()
        .index(index)
        .value(value)
        .op(op);
    if let Some(second) = second {
        arg = arg.value_two(second);
    }
    arg.build()
}

/// The guest's own architecture, and the 32-bit one that its kernel also runs.
fn architectures() -> Vec<Arch> {
    if cfg!(target_arch = "aarch64") {
        vec![Arch::ScmpArchAarch64, Arch::ScmpArchArm]
    } else {
        vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86]
    }
}

/// Whether `syscall` is in the profile without a condition; for tests and for `docs`.
#[cfg(test)]
fn allows(profile: &LinuxSeccomp, name: &str) -> bool {
    let unconditional = |rule: &&oci_spec::runtime::LinuxSyscall| {
        rule.action() == LinuxSeccompAction::ScmpActAllow
            && rule.args().as_ref().is_none_or(|args| args.is_empty())
    };
    profile
        .syscalls()
        .iter()
        .flatten()
        .filter(unconditional)
        .any(|rule| rule.names().iter().any(|n| n == name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_capability_opens_is_closed_without_it() {
        let without = default_profile(&[]).unwrap();
        let with = default_profile(&["CAP_SYS_ADMIN".to_owned()]).unwrap();
        for name in ["mount", "unshare", "setns", "bpf", "clone"] {
            assert!(!allows(&without, name), "{name}");
            assert!(allows(&with, name), "{name}");
        }
        for name in [
            "kexec_load",
            "init_module",
            "keyctl",
            "userfaultfd",
            "io_uring_setup",
        ] {
            assert!(!allows(&with, name), "{name}");
        }
        assert!(allows(&without, "execve"));
    }

    #[test]
    fn no_call_is_named_twice() {
        let mut names: Vec<_> = words(ALWAYS).collect();
        let all = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
