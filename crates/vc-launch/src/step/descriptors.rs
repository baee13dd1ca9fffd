//! Which descriptor the program finds where.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::io::fcntl_dupfd_cloexec;
use rustix::stdio::stdin;

use super::{AtStep, StepResult};
use crate::error::Step;
use crate::spec::{DESCRIPTOR_NUMBER_MAX, DescriptorUse};
use crate::sys;

/// The first descriptor after the standard three.
const FIRST_OF_OURS: u32 = 3;

/// The socket to the launcher, moved away from the number that the program's input gets.
pub(super) fn take_socket() -> io::Result<UnixStream> {
    let socket = fcntl_dupfd_cloexec(stdin(), DESCRIPTOR_NUMBER_MAX)?;
    Ok(UnixStream::from(socket))
}

/// The descriptors that the step itself needs; the program's are at their numbers.
pub(super) struct Descriptors {
    pub(super) program: Option<OwnedFd>,
    pub(super) cgroups: Vec<OwnedFd>,
    pub(super) mount_sources: BTreeMap<u32, OwnedFd>,
}

impl Descriptors {
    /// Sorts what was received. What the step keeps is closed at exec, like everything that was
    /// inherited and is not known here.
    pub(super) fn place(uses: &[DescriptorUse], received: Vec<OwnedFd>) -> StepResult<Self> {
        sys::close_at_exec_from(FIRST_OF_OURS)
            .at(Step::Descriptors, || "all descriptors".to_owned())?;
        let mut kept = Self {
            program: None,
            cgroups: Vec::new(),
            mount_sources: BTreeMap::new(),
        };
        let mut numbered = Vec::new();
        for (used_as, fd) in uses.iter().zip(received) {
            // Above every number that is given away, so that none is overwritten.
            let fd = fcntl_dupfd_cloexec(&fd, DESCRIPTOR_NUMBER_MAX)
                .at(Step::Descriptors, || used_as.to_string())?;
            match *used_as {
                DescriptorUse::Number(number) => numbered.push((number, fd)),
                // The launcher has turned it into numbers.
                DescriptorUse::Output => {}
                DescriptorUse::Program => kept.program = Some(fd),
                DescriptorUse::CgroupProcs => kept.cgroups.push(fd),
                DescriptorUse::MountSource(index) => {
                    kept.mount_sources.insert(index, fd);
                }
            }
        }
        for (number, fd) in &numbered {
            sys::place(fd.as_fd(), *number)
                .at(Step::Descriptors, || format!("descriptor {number}"))?;
        }
        Ok(kept)
    }
}
