use std::io::{Read, Write};
use std::process::{Child, ChildStdin};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::outcome::Outcome;
use crate::processes::{Process, descendants};

/// How often a condition is looked at that nothing announces.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// A virtc that runs, with threads that take what it prints.
#[derive(Debug)]
pub struct Running {
    pub(crate) child: Child,
    pub(crate) stdout: Option<JoinHandle<Vec<u8>>>,
    pub(crate) stderr: Option<JoinHandle<Vec<u8>>>,
    pub(crate) began: Instant,
    pub(crate) limit: Duration,
}

/// Reads everything on a thread.
pub(crate) fn collect(mut from: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut all = Vec::new();
        // A pipe whose writer was killed ends like any other.
        let _ = from.read_to_end(&mut all);
        all
    })
}

impl Running {
    /// Its pid.
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    /// Its stdin; it closes when this is dropped.
    pub fn stdin(&mut self) -> ChildStdin {
        self.child
            .stdin
            .take()
            .expect("stdin was piped and is taken once")
    }

    /// Writes all of stdin and closes it, on a thread.
    pub fn feed(&mut self, bytes: Vec<u8>) {
        let mut stdin = self.stdin();
        std::thread::spawn(move || {
            // A reader that leaves early is what some tests want.
            let _ = stdin.write_all(&bytes);
        });
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.pid()).unwrap(), signal).unwrap();
    }

    /// The processes below it.
    pub fn processes(&self) -> Vec<Process> {
        descendants(self.pid())
    }

    /// Waits until a process below it has `text` in its command line and runs its own program.
    #[track_caller]
    pub fn wait_for_process(&mut self, text: &str) -> Process {
        self.wait_until(&format!("a process with {text:?}"), |running| {
            running
                .processes()
                .into_iter()
                .find(|p| p.command.contains(text))
        })
    }

    /// Waits until `condition` gives something, or fails the test after the limit or its end.
    #[track_caller]
    pub fn wait_until<T>(
        &mut self,
        what: &str,
        mut condition: impl FnMut(&Self) -> Option<T>,
    ) -> T {
        loop {
            if let Some(found) = condition(self) {
                return found;
            }
            if let Some(status) = self.child.try_wait().unwrap() {
                let stderr = self
                    .stderr
                    .take()
                    .map(|t| t.join().unwrap())
                    .unwrap_or_default();
                let stderr = String::from_utf8_lossy(&stderr);
                panic!("virtc ended ({status}) before there was {what}:\n{stderr}");
            }
            assert!(self.began.elapsed() < self.limit, "no {what} in time");
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Waits for its end; it is killed after the limit, which fails the test.
    #[track_caller]
    pub fn wait(mut self) -> Outcome {
        drop(self.child.stdin.take());
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if self.began.elapsed() > self.limit {
                let _ = self.child.kill();
                let _ = self.child.wait();
                let stderr = self
                    .stderr
                    .take()
                    .map(|t| t.join().unwrap())
                    .unwrap_or_default();
                panic!(
                    "virtc did not end in {} s:\n{}",
                    self.limit.as_secs(),
                    String::from_utf8_lossy(&stderr)
                );
            }
            std::thread::sleep(LOOK_EVERY);
        };
        let took = self.began.elapsed();
        let join = |thread: Option<JoinHandle<Vec<u8>>>| {
            thread.map(|t| t.join().unwrap()).unwrap_or_default()
        };
        Outcome {
            status,
            stdout: join(self.stdout.take()),
            stderr: join(self.stderr.take()),
            took,
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Only when the test fails: a virtc that was waited for has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
