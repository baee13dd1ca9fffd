//! What stands on the host for a container that came to a pod: a thread, whose number is no other
//! container's. Who asks for the namespaces of a process (`/proc/PID/ns/pid`) names one container then.

use std::io;
use std::sync::mpsc::{Sender, channel};

/// Bytes of its stack: it only waits.
const STACK_BYTES: usize = 64 << 10;

/// A thread that waits until this is dropped.
#[derive(Debug)]
pub(crate) struct StandIn {
    id: i32,
    _ends_with_it: Sender<()>,
}

impl StandIn {
    /// Begins to stand for a container.
    ///
    /// # Errors
    ///
    /// When there can be no more threads.
    pub(crate) fn begin() -> io::Result<Self> {
        let (ends_with_it, end) = channel::<()>();
        let (tell, told) = channel();
        std::thread::Builder::new()
            .name("container".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || {
                let own = rustix::thread::gettid();
                if tell.send(own.as_raw_nonzero().get()).is_ok() {
                    let _ = end.recv();
                }
            })?;
        let id = told.recv().map_err(io::Error::other)?;
        Ok(Self {
            id,
            _ends_with_it: ends_with_it,
        })
    }

    /// Its number among the host's processes.
    pub(crate) fn id(&self) -> i32 {
        self.id
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn it_has_a_number_of_its_own_until_it_goes() {
        let (one, other) = (StandIn::begin().unwrap(), StandIn::begin().unwrap());
        assert_ne!(one.id(), other.id());
        let path = format!("/proc/{}/ns/pid", one.id());
        assert!(Path::new(&path).exists());
        drop(one);
        while Path::new(&path).exists() {
            std::thread::yield_now();
        }
    }
}
