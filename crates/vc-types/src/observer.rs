use crate::process::{BootId, Liveness, ProcessIdentity, pid_namespace};

/// Whoever looks at many processes of this host: what is the same for all of them is read once.
///
/// ```
/// use vc_types::{Observer, ProcessIdentity};
///
/// let me = ProcessIdentity::current()?;
/// assert!(Observer::of_this_process().is_alive(&me));
/// # Ok::<(), vc_types::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Observer {
    boot_id: Option<BootId>,
    /// That of this process, which stays in it.
    pid_namespace: Option<u64>,
}

impl Observer {
    /// An observer in this process. Where `/proc` cannot be read, it knows nothing of any process.
    pub fn of_this_process() -> Self {
        Self {
            boot_id: BootId::current().ok(),
            pid_namespace: pid_namespace().ok(),
        }
    }

    /// The boot that this process runs in, where it can be read.
    pub fn boot_id(&self) -> Option<&BootId> {
        self.boot_id.as_ref()
    }

    /// Whether a process lives now.
    pub fn liveness(&self, process: &ProcessIdentity) -> Liveness {
        match &self.boot_id {
            Some(current) if !process.is_of_boot(current) => return Liveness::Ended,
            Some(_) => {}
            None => return Liveness::Unknown,
        }
        match self.pid_namespace {
            Some(own) => process.liveness_in(own),
            None => Liveness::Unknown,
        }
    }

    /// Whether it is known to live; a zombie does not.
    pub fn is_alive(&self, process: &ProcessIdentity) -> bool {
        self.liveness(process) == Liveness::Alive
    }

    /// Whether it is known to have ended.
    pub fn has_ended(&self, process: &ProcessIdentity) -> bool {
        self.liveness(process) == Liveness::Ended
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn an_observer_sees_each_end_that_comes_after_it() {
        let observer = Observer::of_this_process();
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let process = ProcessIdentity::of(child.id().try_into().unwrap()).unwrap();
        assert!(observer.is_alive(&process) && !observer.has_ended(&process));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(observer.has_ended(&process) && !observer.is_alive(&process));
    }

    #[test]
    fn who_cannot_read_proc_takes_nothing_for_ended() {
        let me = ProcessIdentity::current().unwrap();
        let seeing = Observer::of_this_process();
        for blind in [
            Observer {
                boot_id: None,
                ..seeing.clone()
            },
            Observer {
                pid_namespace: None,
                ..seeing
            },
        ] {
            assert_eq!(blind.liveness(&me), Liveness::Unknown);
        }
    }
}
