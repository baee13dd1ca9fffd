//! What virtc starts itself as: the launcher step, the device processes, stand-ins and holders. It is
//! dispatched before arguments are parsed, a runtime is made or a log is begun: these processes
//! are many, and small.

use std::ffi::OsString;
use std::process::ExitCode;

use virtcontainers::{DIRECTORY_FD, HOST_FD, VHOST_FD};

use crate::error::FAILED;
use crate::output;

/// Does what an internal command line says; nothing when it is an ordinary one.
pub(crate) fn dispatch() -> Option<ExitCode> {
    let mut args = std::env::args_os().skip(1);
    if args.next()? != "internal" {
        return None;
    }
    let done: Result<(), Box<dyn std::error::Error>> = match args.next()?.to_str()? {
        "launch" => match vc_launch::internal_launch() {
            Err(error) => Err(error.into()),
        },
        "change-tree" => vc_launch::internal_change_tree().map_err(Into::into),
        "unpack" => vc_launch::internal_unpack().map_err(Into::into),
        "stand-in" => {
            let mut number = || args.next()?.to_str()?.parse().ok();
            match crate::stand_in::run(number()?, number()?) {
                Ok(code) => return Some(code),
                Err(error) => Err(error),
            }
        }
        "hold" => virtcontainers::hold().map_err(Into::into),
        "vsock-device" => vsock_device(args.next()?.to_str()?.parse().ok()?),
        "share-device" => share_device(args),
        _ => return None,
    };
    Some(match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::error(&error.to_string());
            ExitCode::from(FAILED)
        }
    })
}

fn vsock_device(guest_cid: u64) -> Result<(), Box<dyn std::error::Error>> {
    let options = vc_vsock_device::Options {
        vhost_socket: vc_launch::inherited_descriptor(VHOST_FD)?,
        host_socket: vc_launch::inherited_descriptor(HOST_FD)?,
        upcall_dir: vc_launch::inherited_descriptor(DIRECTORY_FD)?,
        guest_cid,
    };
    Ok(vc_vsock_device::run(options)?)
}

fn share_device(args: impl Iterator<Item = OsString>) -> Result<(), Box<dyn std::error::Error>> {
    let args = args.map(|arg| arg.to_string_lossy().into_owned());
    let options = vc_share_device::Options::parse(args)?;
    let listener = vc_launch::inherited_descriptor(options.listener)?;
    Ok(vc_share_device::run(&options, listener)?)
}
