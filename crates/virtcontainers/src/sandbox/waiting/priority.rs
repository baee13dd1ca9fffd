//! Making a machine gives way to everything else; one that was made does not.

use std::io;

use rustix::process::{Pid, getpriority_process, nice, setpriority_process};
use rustix::thread::CapabilitySet;
use vc_types::ProcessIdentity;

/// What is added to the niceness while a machine is made: as much as there is.
const GIVES_WAY: i32 = 19;

/// The niceness that this process had; nothing where it could not be had again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Priority(Option<i32>);

impl Priority {
    /// From now on this thread, and all that it starts, runs when nobody else wants to. Without the
    /// right to take that back, they run as others do.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub(super) fn give_way() -> io::Result<Self> {
        let rights = rustix::thread::capabilities(None)?;
        if !rights.effective.contains(CapabilitySet::SYS_NICE) {
            return Ok(Self(None));
        }
        let before = getpriority_process(None)?;
        nice(GIVES_WAY)?;
        Ok(Self(Some(before)))
    }

    /// Gives every thread of these processes the priority that this one had.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub(super) fn restore<'a>(
        self,
        processes: impl IntoIterator<Item = &'a ProcessIdentity>,
    ) -> io::Result<()> {
        let Some(before) = self.0 else {
            return Ok(());
        };
        for process in processes {
            for thread in std::fs::read_dir(format!("/proc/{}/task", process.pid()))? {
                let name = thread?.file_name();
                let number = name.to_str().and_then(|name| name.parse().ok());
                // The system call takes threads, of which each has its own.
                match setpriority_process(number.and_then(Pid::from_raw), before) {
                    Err(rustix::io::Errno::SRCH) => {}
                    set => set?,
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_gave_way_is_as_it_was_again() {
        let own = ProcessIdentity::current().unwrap();
        let given = std::thread::spawn(|| Priority::give_way().unwrap());
        let before = given.join().unwrap();
        assert_eq!(before.0, Some(getpriority_process(None).unwrap()));
        before.restore([&own]).unwrap();
        let threads = std::fs::read_dir("/proc/self/task").unwrap();
        for thread in threads {
            let number = thread.unwrap().file_name().to_str().unwrap().parse();
            let pid = Pid::from_raw(number.unwrap());
            if let Ok(niceness) = getpriority_process(pid) {
                assert_eq!(Some(niceness), before.0);
            }
        }
    }
}
