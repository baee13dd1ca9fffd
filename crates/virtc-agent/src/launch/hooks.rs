//! The hooks that run in the container right before its program (`startContainer`).
//!
//! They are run here and not by `libcontainer`, whose errors do not say which one failed, and come
//! when nobody reads them any more.

use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use oci_spec::runtime::{ContainerState, Hook, Spec, State};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::MemfdFlags;
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};

use crate::error::{self, Error};

/// Hooks of one container.
const HOOKS_MAX: usize = 64;

/// How long a hook may take that has no timeout of its own.
const HOOK_LIMIT: Duration = Duration::from_secs(60);

/// The longest timeout that is kept: the longest that the host waits for any call.
const TIMEOUT_MAX: Duration = Duration::from_secs(3600);

/// Bytes of what a hook prints that its failure quotes. The rest is thrown away.
const QUOTED_BYTES_MAX: usize = 1024;

/// The hooks of a container, with what they are told.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct StartHooks {
    hooks: Vec<Hook>,
    state: State,
}

impl StartHooks {
    /// Takes the hooks out of the specification of container `id`.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] for hooks of other kinds: they are the host's. [`Error::Invalid`] for
    /// a hook that is none.
    pub(crate) fn take(spec: &mut Spec, id: &str, bundle: PathBuf) -> error::Result<Self> {
        let Some(hooks) = spec.hooks().clone() else {
            return Ok(Self::default());
        };
        spec.set_hooks(None);
        #[allow(deprecated, reason = "the deprecated kind is refused too")]
        let others = [
            ("prestart", hooks.prestart()),
            ("createRuntime", hooks.create_runtime()),
            ("createContainer", hooks.create_container()),
            ("poststart", hooks.poststart()),
            ("poststop", hooks.poststop()),
        ];
        for (kind, hooks) in others {
            if hooks.as_ref().is_some_and(|hooks| !hooks.is_empty()) {
                let text = format!("hooks.{kind} is not supported in the guest");
                return Err(Error::Unsupported(text));
            }
        }
        let hooks = hooks.start_container().clone().unwrap_or_default();
        if hooks.len() > HOOKS_MAX {
            return Err(invalid(&hooks.len().to_string(), "are too many"));
        }
        hooks.iter().try_for_each(check)?;
        let mut state = State::default();
        state
            .set_version(spec.version().clone())
            .set_id(id.to_owned())
            .set_status(ContainerState::Created)
            .set_bundle(bundle)
            .set_annotations(spec.annotations().clone());
        Ok(Self { hooks, state })
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.hooks.is_empty()
    }

    /// How long all of them may take.
    pub(crate) fn limit(&self) -> Duration {
        self.hooks.iter().map(limit).sum()
    }

    /// The file that each gets as its stdin. No hook has to read it.
    pub(super) fn input(&self) -> std::io::Result<File> {
        let mut state = self.state.clone();
        // As it is seen in the container.
        state.set_pid(i32::try_from(std::process::id()).ok());
        let file = rustix::fs::memfd_create("state", MemfdFlags::CLOEXEC)?;
        let mut file = File::from(file);
        file.write_all(&serde_json::to_vec(&state)?)?;
        Ok(file)
    }

    /// Runs them one after the other, with `environment` where they have none of their own. Says
    /// which one failed and how.
    pub(super) fn run(&self, mut input: File, environment: &[String]) -> Result<(), String> {
        for hook in &self.hooks {
            run(hook, &mut input, environment)
                .map_err(|reason| format!("startContainer hook {:?} {reason}", hook.path()))?;
        }
        Ok(())
    }
}

fn check(hook: &Hook) -> error::Result<()> {
    let path = hook.path().display().to_string();
    if !hook.path().is_absolute() {
        return Err(invalid(&path, "is not an absolute path"));
    }
    if hook.timeout().is_some_and(|seconds| seconds <= 0) {
        return Err(invalid(&path, "has a timeout that is not positive"));
    }
    let environment = hook.env().as_deref().unwrap_or_default();
    if !environment.iter().all(|entry| entry.contains('=')) {
        return Err(invalid(&path, "has a variable without a value"));
    }
    Ok(())
}

fn invalid(value: &str, reason: &'static str) -> Error {
    Error::Invalid {
        field: "hooks.startContainer",
        value: value.to_owned(),
        reason,
    }
}

fn limit(hook: &Hook) -> Duration {
    let timeout = hook
        .timeout()
        .and_then(|seconds| u64::try_from(seconds).ok());
    timeout.map_or(HOOK_LIMIT, |seconds| {
        Duration::from_secs(seconds).min(TIMEOUT_MAX)
    })
}

fn run(hook: &Hook, input: &mut File, environment: &[String]) -> Result<(), String> {
    let cannot = |what: &str, error: std::io::Error| format!("cannot be {what}: {error}");
    let started = |error| cannot("started", error);
    let (output, writer) = pipe_with(PipeFlags::CLOEXEC).map_err(|error| started(error.into()))?;
    input.rewind().map_err(started)?;
    let mut child = {
        let stdin = input.try_clone().map_err(started)?;
        let stdout = writer.try_clone().map_err(started)?;
        // It goes before the wait: it holds the pipe.
        command(hook, environment)
            .stdin(stdin)
            .stdout(stdout)
            .stderr(writer)
            .spawn()
            .map_err(started)?
    };
    let limit = limit(hook);
    let mut printed = Vec::new();
    let ended = wait(&mut child, output, limit, &mut printed)
        .map_err(|error| cannot("waited for", error.into()))?;
    let Some(status) = ended else {
        return Err(format!("took longer than {limit:?}"));
    };
    if status.success() {
        return Ok(());
    }
    let printed = String::from_utf8_lossy(&printed);
    let printed = printed.trim();
    let colon = if printed.is_empty() { "" } else { ": " };
    Err(format!("failed ({status}){colon}{printed}"))
}

fn command(hook: &Hook, environment: &[String]) -> Command {
    let mut command = Command::new(hook.path());
    if let Some((name, arguments)) = hook.args().as_deref().and_then(<[_]>::split_first) {
        command.arg0(name).args(arguments);
    }
    let own = hook.env().as_deref().unwrap_or(environment);
    command
        .env_clear()
        .envs(own.iter().filter_map(|entry| entry.split_once('=')));
    command
}

/// Waits for the end of a hook, and for that of its time: then it is killed, and there is no
/// status.
fn wait(
    child: &mut Child,
    output: OwnedFd,
    limit: Duration,
    printed: &mut Vec<u8>,
) -> Result<Option<ExitStatus>, Errno> {
    let result = wait_within(child, output, limit, printed);
    if !matches!(result, Ok(true)) {
        // Not collected yet, so the pid is still its own.
        let _ = child.kill();
    }
    let status = child
        .wait()
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::CHILD))?;
    result.map(|in_time| in_time.then_some(status))
}

fn wait_within(
    child: &Child,
    output: OwnedFd,
    limit: Duration,
    printed: &mut Vec<u8>,
) -> Result<bool, Errno> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let end = pidfd_open(pid.ok_or(Errno::SRCH)?, PidfdFlags::empty())?;
    rustix::io::ioctl_fionbio(&output, true)?;
    let mut output = Some(File::from(output));
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut watched = vec![PollFd::new(&end, PollFlags::IN)];
        watched.extend(
            output
                .iter()
                .map(|output| PollFd::new(output, PollFlags::IN)),
        );
        let left_at_all = Timespec::try_from(left).map_err(|_| Errno::INVAL)?;
        match poll(&mut watched, Some(&left_at_all)) {
            Ok(0) => return Ok(false),
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error),
        }
        let has_ended = !watched[0].revents().is_empty();
        drop(watched);
        if output.as_mut().is_some_and(|output| !take(output, printed)) {
            output = None;
        }
        if has_ended {
            return Ok(true);
        }
    }
}

/// Reads what is there; false when no more can come.
fn take(output: &mut File, printed: &mut Vec<u8>) -> bool {
    let mut buffer = [0; 4096];
    match output.read(&mut buffer) {
        Ok(0) => false,
        Ok(bytes) => {
            let room = QUOTED_BYTES_MAX - printed.len();
            printed.extend_from_slice(&buffer[..bytes.min(room)]);
            true
        }
        Err(error) => matches!(
            error.kind(),
            std::io::ErrorKind::WouldBlock | std::io::ErrorKind::Interrupted
        ),
    }
}

/// Reads what the agent wrote for the process that runs the hooks.
pub(super) fn read(path: &Path) -> std::io::Result<StartHooks> {
    Ok(serde_json::from_slice(&std::fs::read(path)?)?)
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::{HookBuilder, HooksBuilder};

    use super::*;

    fn shell(script: &str) -> Hook {
        let args = ["sh", "-c", script].map(str::to_owned).to_vec();
        HookBuilder::default()
            .path("/bin/sh")
            .args(args)
            .build()
            .unwrap()
    }

    fn taken(hooks: Vec<Hook>) -> error::Result<StartHooks> {
        let mut spec = Spec::default();
        let hooks = HooksBuilder::default().start_container(hooks).build();
        spec.set_hooks(Some(hooks.unwrap()));
        let taken = StartHooks::take(&mut spec, "c1", "/bundle".into())?;
        assert_eq!(spec.hooks(), &None);
        Ok(taken)
    }

    fn run_all(hooks: Vec<Hook>) -> Result<(), String> {
        let hooks = taken(hooks).unwrap();
        let environment = [
            "A=of the process".to_owned(),
            "PATH=/bin:/usr/bin".to_owned(),
        ];
        hooks.run(hooks.input().unwrap(), &environment)
    }

    #[test]
    fn each_gets_the_state_and_its_own_environment() {
        let directory = tempfile::tempdir().unwrap();
        let out = directory.path().join("out");
        let script = format!("cat >>{0}; echo \" $A $0\" >>{0}", out.display());
        let mut own = shell(&script);
        own.set_env(Some(vec!["A=own".into(), "PATH=/bin:/usr/bin".into()]));
        run_all(vec![shell(&script), own]).unwrap();
        let text = std::fs::read_to_string(out).unwrap();
        let lines: Vec<_> = text.lines().collect();
        let (state, rest) = lines[0].rsplit_once('}').unwrap();
        let state: State = serde_json::from_str(&format!("{state}}}")).unwrap();
        assert_eq!(
            (state.id().as_str(), *state.status()),
            ("c1", ContainerState::Created)
        );
        assert_eq!(*state.pid(), i32::try_from(std::process::id()).ok());
        assert_eq!(rest, " of the process sh");
        assert!(
            lines[1].starts_with('{') && lines[1].ends_with("} own sh"),
            "{text}"
        );
    }

    #[test]
    fn the_first_that_fails_is_named_with_what_it_said() {
        let failed = run_all(vec![
            shell("exit 0"),
            shell("echo why >&2; exit 3"),
            shell("exit 4"),
        ]);
        let error = failed.unwrap_err();
        assert!(error.contains("\"/bin/sh\"") && error.contains("3") && error.ends_with(": why"));
        let nowhere = HookBuilder::default().path("/no/where").build().unwrap();
        let error = run_all(vec![nowhere]).unwrap_err();
        assert!(error.contains("\"/no/where\" cannot be started"), "{error}");
    }

    #[test]
    fn one_that_takes_too_long_is_ended() {
        let mut slow = shell("exec sleep 1000");
        slow.set_timeout(Some(1));
        let error = run_all(vec![slow]).unwrap_err();
        assert!(error.contains("took longer than 1s"), "{error}");
    }

    #[test]
    fn one_that_prints_without_end_holds_nobody_up() {
        run_all(vec![shell("head -c 1000000 /dev/zero")]).unwrap();
        // What it leaves behind holds the pipe, and is not waited for.
        let began = Instant::now();
        run_all(vec![shell("sleep 30 &")]).unwrap();
        assert!(began.elapsed() < Duration::from_secs(20));
    }

    #[test]
    fn what_cannot_run_here_is_refused_by_name() {
        let mut spec = Spec::default();
        let poststop = HooksBuilder::default()
            .poststop(vec![shell("true")])
            .build();
        spec.set_hooks(Some(poststop.unwrap()));
        let error = StartHooks::take(&mut spec, "c1", PathBuf::new()).unwrap_err();
        assert!(error.to_string().contains("hooks.poststop"), "{error}");

        let mut relative = shell("true");
        relative.set_path("bin/sh".into());
        let mut never = shell("true");
        never.set_timeout(Some(0));
        let mut odd = shell("true");
        odd.set_env(Some(vec!["A".into()]));
        for hooks in [
            vec![relative],
            vec![never],
            vec![odd],
            vec![shell(""); HOOKS_MAX + 1],
        ] {
            let error = taken(hooks).unwrap_err();
            assert!(
                error.to_string().contains("hooks.startContainer"),
                "{error}"
            );
        }
    }

    #[test]
    fn all_of_them_together_have_a_limit() {
        let mut long = shell("");
        long.set_timeout(Some(i64::MAX));
        let hooks = taken(vec![shell(""), long]).unwrap();
        assert_eq!(hooks.limit(), HOOK_LIMIT + TIMEOUT_MAX);
        assert!(taken(vec![]).unwrap().is_empty());
    }
}
