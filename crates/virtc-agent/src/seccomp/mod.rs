//! Filters of system calls.
//!
//! Our own host side makes them. To make one takes a guest without KVM a hundred milliseconds: the agent does it for
//! others beside the making of the container, and keeps the program for other containers that ask for the same
//! ([`Filters`]). It passes a filter to each process by a pipe; the process loads it last of all, right before
//! its `execve`.

mod cache;

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use syscall_filter::SyscallFilter;
use tokio::task::JoinHandle;

use crate::error::{Error, Result};

pub(crate) use cache::Filters;

/// A filter on its way to a process.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Filter(SyscallFilter);

impl From<SyscallFilter> for Filter {
    fn from(filter: SyscallFilter) -> Self {
        Self(filter)
    }
}

impl Filter {
    /// Puts the filter into a pipe, which takes it at once, and closes that.
    pub(crate) fn send(&self, pipe: OwnedFd) -> io::Result<()> {
        let mut message = self.0.flags().to_ne_bytes().to_vec();
        message.extend_from_slice(self.0.program());
        File::from(pipe).write_all(&message)
    }

    /// Waits for the filter that comes through a pipe. One that does not come whole is an error,
    /// so that no process runs without its filter.
    pub(crate) fn receive(pipe: &OwnedFd) -> io::Result<Self> {
        let mut message = Vec::new();
        let limit = size_of::<u32>() + SyscallFilter::PROGRAM_BYTES_MAX;
        File::from(pipe.try_clone()?)
            .take(limit as u64)
            .read_to_end(&mut message)?;
        let (flags, program) = message
            .split_first_chunk()
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        SyscallFilter::from_parts(u32::from_ne_bytes(*flags), program.to_vec())
            .map(Self)
            .map_err(|error| io::Error::new(io::ErrorKind::UnexpectedEof, error))
    }

    /// Applies the filter to this thread for good. Without "no new privileges" that takes
    /// `CAP_SYS_ADMIN`.
    pub(crate) fn load(&self) -> io::Result<()> {
        crate::sys::load_filter(self.0.flags(), self.0.program())
    }
}

/// A filter that a process will get.
#[derive(Debug)]
pub(crate) enum PendingFilter {
    /// It is there.
    Compiled(Arc<Filter>),
    /// It is being compiled.
    Compiling(JoinHandle<Result<Arc<Filter>>>),
}

impl From<Filter> for PendingFilter {
    fn from(filter: Filter) -> Self {
        Self::Compiled(Arc::new(filter))
    }
}

impl PendingFilter {
    /// Waits for the filter.
    pub(crate) async fn compiled(self) -> Result<Arc<Filter>> {
        match self {
            Self::Compiled(filter) => Ok(filter),
            Self::Compiling(task) => task
                .await
                .map_err(|_| Error::Unsupported("the filter cannot be compiled".into()))?,
        }
    }
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::{
        Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompBuilder, LinuxSeccompOperator,
        LinuxSyscallBuilder,
    };
    use rustix::io::Errno;
    use rustix::pipe::pipe;
    use rustix::thread::set_no_new_privs;

    use super::*;

    fn builder(default: LinuxSeccompAction) -> LinuxSeccompBuilder {
        LinuxSeccompBuilder::default()
            .default_action(default)
            .architectures(vec![Arch::ScmpArchNative])
    }

    fn refusing(names: &[&str], errno: Errno) -> oci_spec::runtime::LinuxSyscall {
        LinuxSyscallBuilder::default()
            .names(names.iter().map(|&name| name.into()).collect::<Vec<_>>())
            .action(LinuxSeccompAction::ScmpActErrno)
            .errno_ret(errno.raw_os_error() as u32)
            .build()
            .unwrap()
    }

    /// What `call` says in a thread with the filter of `seccomp`.
    fn filtered<T: Send + 'static>(
        seccomp: &LinuxSeccomp,
        call: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        let (reading, writing) = pipe().unwrap();
        let filter = Filter::from(SyscallFilter::compile(seccomp).unwrap());
        filter.send(writing).unwrap();
        let filtered = std::thread::spawn(move || {
            set_no_new_privs(true).unwrap();
            Filter::receive(&reading).unwrap().load().unwrap();
            call()
        });
        filtered.join().unwrap()
    }

    #[test]
    fn a_filter_refuses_what_it_names_and_nothing_else() {
        let rules = vec![refusing(&["getcwd", "no_such_call"], Errno::DEADLK)];
        let seccomp = builder(LinuxSeccompAction::ScmpActAllow)
            .syscalls(rules)
            .build()
            .unwrap();
        let (directory, parent) = filtered(&seccomp, || {
            let directory = rustix::process::getcwd(Vec::new()).map_err(drop);
            (directory, rustix::process::getppid())
        });
        assert!(directory.is_err());
        assert!(parent.is_some());
        assert!(rustix::process::getcwd(Vec::new()).is_ok());
    }

    #[test]
    fn arguments_are_compared() {
        use oci_spec::runtime::LinuxSeccompArgBuilder;
        let is = |value| {
            LinuxSeccompArgBuilder::default()
                .index(0usize)
                .value(value)
                .op(LinuxSeccompOperator::ScmpCmpEq)
                .build()
                .unwrap()
        };
        // Two conditions on one argument are alternatives, as for other runtimes.
        let mut rule = refusing(&["getpgid"], Errno::DEADLK);
        rule.set_args(Some(vec![is(1u64), is(0u64)]));
        let seccomp = builder(LinuxSeccompAction::ScmpActAllow)
            .syscalls(vec![rule])
            .build()
            .unwrap();
        let (own, other) = filtered(&seccomp, || {
            let me = rustix::process::getpid();
            (
                rustix::process::getpgid(None),
                rustix::process::getpgid(Some(me)),
            )
        });
        assert_eq!(own.unwrap_err(), Errno::DEADLK);
        assert!(other.is_ok());
    }

    #[test]
    fn a_mask_selects_the_bits_that_are_compared() {
        use oci_spec::runtime::LinuxSeccompArgBuilder;
        let odd = LinuxSeccompArgBuilder::default()
            .index(0usize)
            .value(1u64)
            .value_two(1u64)
            .op(LinuxSeccompOperator::ScmpCmpMaskedEq)
            .build()
            .unwrap();
        let mut rule = refusing(&["getpgid"], Errno::DEADLK);
        rule.set_args(Some(vec![odd]));
        let seccomp = builder(LinuxSeccompAction::ScmpActAllow)
            .syscalls(vec![rule])
            .build()
            .unwrap();
        let [one, two] = [1, 2].map(|pid| {
            let pid = rustix::process::Pid::from_raw(pid);
            filtered(&seccomp, move || rustix::process::getpgid(pid))
        });
        assert_eq!(one.unwrap_err(), Errno::DEADLK);
        assert_ne!(two.err(), Some(Errno::DEADLK));
    }

    #[test]
    fn a_filter_that_asks_somebody_is_refused() {
        let mut rule = refusing(&["getcwd"], Errno::PERM);
        rule.set_action(LinuxSeccompAction::ScmpActNotify);
        let seccomp = builder(LinuxSeccompAction::ScmpActAllow)
            .syscalls(vec![rule])
            .build()
            .unwrap();
        let error = SyscallFilter::compile(&seccomp).unwrap_err();
        assert!(matches!(error, syscall_filter::Error::Notify), "{error}");
    }

    #[test]
    fn half_a_filter_is_none() {
        for message in [&b""[..], &[0; 4], &[0; 11]] {
            let (reading, writing) = pipe().unwrap();
            File::from(writing).write_all(message).unwrap();
            assert!(Filter::receive(&reading).is_err(), "{message:?}");
        }
    }
}
