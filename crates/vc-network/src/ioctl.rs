//! The ioctls that no crate offers in a safe form.
#![allow(
    unsafe_code,
    reason = "an ioctl takes a pointer of which the compiler knows nothing"
)]

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::interface_name::InterfaceName;

/// The type of a namespace, one of `CLONE_NEW*`; `ENOTTY` for another file.
pub(crate) fn namespace_type(fd: BorrowedFd<'_>) -> io::Result<c_int> {
    // SAFETY: the request takes no argument and answers with its result alone.
    let answer = unsafe { libc::ioctl(fd.as_raw_fd(), libc::NS_GET_NSTYPE) };
    if answer < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(answer)
    }
}

/// `VHOST_GET_FEATURES` of linux/vhost.h, which `libc` does not have.
const VHOST_GET_FEATURES: libc::Ioctl = libc::_IOR::<u64>(0xaf, 0);

/// What an open vhost device can do, a bit each; `ENOTTY` for another file.
pub(crate) fn vhost_features(device: BorrowedFd<'_>) -> io::Result<u64> {
    let mut features = 0_u64;
    // SAFETY: the request writes one `u64`, which outlives the call.
    let answer = unsafe {
        libc::ioctl(
            device.as_raw_fd(),
            VHOST_GET_FEATURES,
            std::ptr::from_mut(&mut features),
        )
    };
    if answer < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(features)
    }
}

/// Makes an open `/dev/net/tun` one queue of the interface of this name, with these `IFF_*`.
pub(crate) fn set_interface(
    tun: BorrowedFd<'_>,
    name: &InterfaceName,
    flags: c_int,
) -> io::Result<()> {
    let mut request = libc::ifreq {
        ifr_name: [0; libc::IFNAMSIZ],
        ifr_ifru: libc::__c_anonymous_ifr_ifru {
            // The flags are the 16 bits of this field; the highest of them is its sign.
            ifru_flags: (flags as u16).cast_signed(),
        },
    };
    // A name has at most IFNAMSIZ - 1 bytes, so that a zero stays.
    for (to, from) in request.ifr_name.iter_mut().zip(name.as_str().bytes()) {
        *to = from.cast_signed();
    }
    // SAFETY: the request reads and writes one `ifreq`, which outlives the call.
    let answer = unsafe {
        libc::ioctl(
            tun.as_raw_fd(),
            libc::TUNSETIFF,
            std::ptr::from_mut(&mut request),
        )
    };
    if answer < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
