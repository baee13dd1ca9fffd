//! The kernel's random numbers, and what the host adds to them.

use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags, open};

use crate::error::{Attempt as _, Result};
use crate::sys::{self, SEED_BYTES_MAX};

const DEVICE: &str = "/dev/urandom";

/// The kernel's generators, opened.
#[derive(Debug)]
pub(crate) struct Randomness(OwnedFd);

impl Randomness {
    pub(crate) fn open() -> Result<Self> {
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let opened = open(DEVICE, flags, Mode::empty());
        Ok(Self(opened.attempt(|| format!("open {DEVICE}"))?))
    }

    /// Mixes a seed in and credits it; the generators begin anew with it.
    pub(crate) fn add(&self, seed: &[u8]) -> Result<()> {
        let attempt = || "add randomness".to_owned();
        if seed.is_empty() {
            return Ok(());
        }
        for part in seed.chunks(SEED_BYTES_MAX) {
            sys::add_entropy(&self.0, part).attempt(attempt)?;
        }
        // From the next byte on: a clone has the generators of its template.
        match sys::reseed(&self.0) {
            // A pool that never had enough gives nothing yet.
            Err(error) if error.raw_os_error() == Some(libc::ENODATA) => Ok(()),
            done => done.attempt(attempt),
        }
    }
}
