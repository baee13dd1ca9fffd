//! The step that unpacks an archive which nobody trusts. It is alone, so that it can give up its
//! root and its rights.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::process::{chroot, fchdir, setsid, umask};
use tree_archive::unpack;

use super::descriptors::take_socket;
use super::{AtStep, StepResult, rights};
use crate::confined_unpack::UnpackOrder;
use crate::error::Step;
use crate::spec::Capability;
use crate::wire::{ANSWER_BYTES_MAX, receive};

/// The step that unpacks: what `internal unpack` does, before anything else and with no other
/// thread. Standard input is the socket to whoever asked, who is told of every error.
///
/// # Errors
///
/// What it told.
pub fn internal_unpack() -> io::Result<()> {
    let socket = take_socket()?;
    let unpacked = receive::<UnpackOrder>(&socket)
        .map_err(|error| format!("cannot receive the order: {error}"))
        .and_then(|(order, descriptors)| run(&order, descriptors));
    unpacked.map_err(|reason| {
        let told = reason.as_bytes();
        // Nobody is there to be told when this fails.
        let _ = (&socket).write_all(&told[..told.len().min(ANSWER_BYTES_MAX / 2)]);
        io::Error::other(reason)
    })
}

fn run(order: &UnpackOrder, descriptors: Vec<OwnedFd>) -> Result<(), String> {
    let Ok([archive, directory]) = <[OwnedFd; 2]>::try_from(descriptors) else {
        return Err(format!("cannot use the descriptors: {}", Errno::BADF));
    };
    confine(order, &directory).map_err(|failure| {
        let error = io::Error::from_raw_os_error(failure.errno);
        format!("{}, {}: {error}", failure.step, failure.object)
    })?;
    let (names, rules) = (&order.names, order.rules);
    unpack(File::from(archive), directory.as_fd(), names, rules).map_err(|error| error.chain())
}

/// Nothing but the directory is there from now on, and the rights are those that files take.
fn confine(order: &UnpackOrder, directory: &OwnedFd) -> StepResult<()> {
    let of = || "of an archive".to_owned();
    // The end of whoever asked is the end of the archive: half a file is removed then.
    setsid().at(Step::Session, of)?;
    fchdir(directory).at(Step::WorkingDirectory, || "the destination".to_owned())?;
    chroot(".").at(Step::MountTree, || "the destination as the root".to_owned())?;
    let mut kept = vec![Capability::DacOverride, Capability::Fowner];
    if order.rules.owners {
        kept.push(Capability::Chown);
    }
    rights::keep(&kept)?;
    umask(Mode::empty());
    Ok(())
}
