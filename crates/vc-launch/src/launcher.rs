use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use crate::error::{Error, Result};
use crate::pending::{Pending, Promise, pending};
use crate::process::LaunchedProcess;
use crate::spec::{DescriptorUse, LaunchSpec, PassedFd, standard_descriptors};
use crate::wire::{ANSWER_BYTES_MAX, Answer, Order, read_answer, send_order};

/// How long a launch may take from its turn until the program runs. A busy machine needs some
/// tens of milliseconds.
pub const LAUNCH_LIMIT: Duration = Duration::from_secs(10);

/// Launches that may wait for their turn.
const QUEUE_MAX: usize = 64;

/// The one thread that starts processes.
///
/// Everything it started dies with it: keep it as long as the processes are needed, in the
/// keeper. Several launches run side by side.
///
/// ```no_run
/// use vc_launch::{LaunchSpec, Launcher, Program};
///
/// let launcher = Launcher::start("/proc/self/exe")?;
/// let spec = LaunchSpec::new("a pause", Program::Path("/bin/sleep".into()));
/// let mut process = launcher.launch(spec, Vec::new()).wait()?;
/// process.kill()?;
/// process.wait()?;
/// # Ok::<(), vc_launch::Error>(())
/// ```
#[derive(Debug)]
pub struct Launcher {
    queue: Option<SyncSender<Request>>,
    wake: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Request {
    spec: LaunchSpec,
    passed: Vec<PassedFd>,
    promise: Promise,
}

impl Launcher {
    /// The program of this process, whatever its file is called now.
    pub const OWN_PROGRAM: &'static str = "/proc/self/exe";

    /// Starts the thread. `program` is what runs [`internal_launch`](crate::internal_launch) when
    /// its arguments are `internal launch`; [`Self::OWN_PROGRAM`] outside of tests.
    ///
    /// # Errors
    ///
    /// [`Error::Launcher`] when the system gives no thread or descriptor.
    pub fn start(program: impl Into<PathBuf>) -> Result<Self> {
        Self::start_in(program, Vec::new())
    }

    /// The same, and everything it starts joins the control groups with these `cgroup.procs`.
    ///
    /// # Errors
    ///
    /// As [`Launcher::start`].
    pub fn start_in(program: impl Into<PathBuf>, cgroups: Vec<OwnedFd>) -> Result<Self> {
        let failed = |source| Error::Launcher { source };
        let program = program.into();
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|errno| failed(errno.into()))?;
        let wake = Arc::new(wake);
        let null = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/null")
            .map_err(failed)?;
        let (queue, requests) = sync_channel(QUEUE_MAX);
        let worker = Worker {
            program,
            null: null.into(),
            cgroups,
            wake: Arc::clone(&wake),
            requests,
            under_way: Vec::new(),
        };
        let thread = std::thread::Builder::new()
            .name("launcher".into())
            .stack_size(256 << 10)
            .spawn(move || worker.run())
            .map_err(failed)?;
        Ok(Self {
            queue: Some(queue),
            wake,
            thread: Some(thread),
        })
    }

    /// Starts a process. Returns at once; the answer is to be awaited or waited for.
    pub fn launch(&self, spec: LaunchSpec, passed: Vec<PassedFd>) -> Pending {
        let (promise, pending) = pending(&spec.name);
        if let Err(error) = spec.check(&passed) {
            promise.keep(Err(error));
            return pending;
        }
        let request = Request {
            spec,
            passed,
            promise,
        };
        // A request that is not taken is dropped, and its promise with it.
        if let Some(queue) = &self.queue
            && queue.try_send(request).is_ok()
        {
            self.wake();
        }
        pending
    }

    fn wake(&self) {
        // It fails only when the counter is full, and then the thread is awake already.
        let _ = rustix::io::write(&*self.wake, &1u64.to_ne_bytes());
    }
}

impl Drop for Launcher {
    /// Ends the thread, after the launches under way, and with it every process it started.
    fn drop(&mut self) {
        self.queue = None;
        self.wake();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::warn!("the launcher's thread panicked");
        }
    }
}

/// The thread's side.
struct Worker {
    program: PathBuf,
    null: OwnedFd,
    /// The `cgroup.procs` that everything joins.
    cgroups: Vec<OwnedFd>,
    wake: Arc<OwnedFd>,
    requests: Receiver<Request>,
    under_way: Vec<UnderWay>,
}

/// A launch whose step has its order and has not answered yet.
struct UnderWay {
    socket: UnixStream,
    answer: Vec<u8>,
    process: LaunchedProcess,
    promise: Promise,
    deadline: Instant,
}

impl Worker {
    fn run(mut self) {
        loop {
            let open = self.take_requests();
            if !open && self.under_way.is_empty() {
                return;
            }
            self.wait();
            self.collect();
        }
    }

    /// Starts what was asked for; false when nobody can ask any more.
    fn take_requests(&mut self) -> bool {
        loop {
            match self.requests.try_recv() {
                Ok(request) => {
                    let Request {
                        spec,
                        passed,
                        promise,
                    } = request;
                    match self.begin(spec, &passed) {
                        Ok((socket, process)) => self.under_way.push(UnderWay {
                            socket,
                            answer: Vec::new(),
                            process,
                            promise,
                            deadline: Instant::now() + LAUNCH_LIMIT,
                        }),
                        Err(error) => promise.keep(Err(error)),
                    }
                }
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    fn begin(
        &self,
        spec: LaunchSpec,
        passed: &[PassedFd],
    ) -> Result<(UnixStream, LaunchedProcess)> {
        let name = spec.name.clone();
        let transfer = |source| Error::Transfer {
            name: name.clone(),
            source,
        };
        let (ours, theirs) = UnixStream::pair().map_err(transfer)?;
        // An order fits into the socket's buffer; where that is made small, this is the bound.
        ours.set_write_timeout(Some(LAUNCH_LIMIT))
            .map_err(transfer)?;
        let process = spawn_step(&self.program, "launch", &name, theirs)?;

        let mut uses: Vec<_> = passed.iter().map(|p| p.used_as).collect();
        let mut descriptors: Vec<BorrowedFd<'_>> = passed.iter().map(|p| p.fd.as_fd()).collect();
        for cgroup in &self.cgroups {
            uses.push(DescriptorUse::CgroupProcs);
            descriptors.push(cgroup.as_fd());
        }
        for (used_as, fd) in standard_descriptors(passed, self.null.as_fd()) {
            uses.push(used_as);
            descriptors.push(fd);
        }
        let order = Order {
            spec,
            uses,
            parent: std::process::id(),
        };
        // A step that ended at once is found by its answer, which says more.
        match send_order(&ours, &order, &descriptors) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(transfer(error)),
            _ => {}
        }
        ours.set_nonblocking(true).map_err(transfer)?;
        Ok((ours, process))
    }

    /// Waits until a request or an answer comes, or a limit passes.
    fn wait(&self) {
        let mut watched = vec![PollFd::new(&*self.wake, PollFlags::IN)];
        watched.extend(
            self.under_way
                .iter()
                .map(|launch| PollFd::new(&launch.socket, PollFlags::IN)),
        );
        let now = Instant::now();
        let limit = self
            .under_way
            .iter()
            .map(|launch| launch.deadline.saturating_duration_since(now))
            .min()
            .map(timespec);
        if let Err(errno) = poll(&mut watched, limit.as_ref())
            && errno != rustix::io::Errno::INTR
        {
            tracing::warn!(%errno, "the launcher cannot wait");
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = rustix::io::read(&*self.wake, &mut [0; 8]);
    }

    /// Gives answers to the launches that have one.
    fn collect(&mut self) {
        let now = Instant::now();
        let mut waiting = Vec::with_capacity(self.under_way.len());
        for mut launch in self.under_way.drain(..) {
            match launch.read() {
                Ok(false) if now < launch.deadline => waiting.push(launch),
                Ok(false) => launch.time_out(),
                Ok(true) => launch.finish(),
                Err(source) => launch.fail(source),
            }
        }
        self.under_way = waiting;
    }
}

impl UnderWay {
    /// Reads what there is; true at the end of the stream.
    fn read(&mut self) -> io::Result<bool> {
        let mut buffer = [0; 1024];
        loop {
            match self.socket.read(&mut buffer) {
                Ok(0) => return Ok(true),
                Ok(length) if self.answer.len() + length > ANSWER_BYTES_MAX => {
                    return Err(io::ErrorKind::InvalidData.into());
                }
                Ok(length) => self.answer.extend_from_slice(&buffer[..length]),
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return Ok(false),
                    io::ErrorKind::Interrupted => {}
                    // The step ended without reading its order.
                    io::ErrorKind::ConnectionReset => return Ok(true),
                    _ => return Err(error),
                },
            }
        }
    }

    fn finish(mut self) {
        let name = self.process.name().to_owned();
        let answer = match read_answer(&self.answer) {
            Ok(Answer::Executed) => Ok(self.process),
            Ok(Answer::Failed(failure)) => Err(Error::Step {
                name,
                step: failure.step,
                object: failure.object,
                source: io::Error::from_raw_os_error(failure.errno),
            }),
            Ok(Answer::Silent) => {
                let end = self.process.wait_timeout(Duration::from_secs(1));
                let end = match end {
                    Ok(Some(end)) => end.to_string(),
                    _ => "it still runs".to_owned(),
                };
                Err(Error::EndedEarly { name, end })
            }
            Err(source) => Err(Error::Transfer { name, source }),
        };
        self.promise.keep(answer);
    }

    fn time_out(self) {
        let name = self.process.name().to_owned();
        drop(self.process);
        self.promise.keep(Err(Error::TimedOut {
            name,
            limit: LAUNCH_LIMIT,
        }));
    }

    fn fail(self, source: io::Error) {
        let name = self.process.name().to_owned();
        drop(self.process);
        self.promise.keep(Err(Error::Transfer { name, source }));
    }
}

/// Starts `internal STEP` with one end of the socket as its standard input.
pub(crate) fn spawn_step(
    program: &Path,
    step: &str,
    name: &str,
    socket: UnixStream,
) -> Result<LaunchedProcess> {
    let child = Command::new(program)
        .args(["internal", step])
        .env_clear()
        .stdin(OwnedFd::from(socket))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|source| Error::Spawn {
            name: name.into(),
            program: program.into(),
            source,
        })?;
    // The pid is the child's own: only the guard made here ever reaps it.
    LaunchedProcess::adopt(name, i32::try_from(child.id()).unwrap_or_default())
}

pub(crate) fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}
