use std::time::{Duration, Instant};

use agent_protocol::Empty;
use agent_protocol::agent::{
    CloseStdinRequest, DestroySandboxRequest, ExecProcessRequest, PauseContainerRequest,
    RemoveContainerRequest, ResumeContainerRequest, SignalProcessRequest, StartContainerRequest,
    TtyWinResizeRequest,
};
use agent_protocol::agent_ttrpc::AgentServiceClient;
use agent_protocol::health::{CheckRequest, VersionCheckResponse};
use agent_protocol::health_ttrpc::HealthClient;
use agent_protocol::oci;
use agent_protocol::virtc::{
    ClockRequest, ForgetPathsRequest, HelloRequest, HelloResponse, ListProcessesRequest,
    ProcessEntry, WaitRequest, WaitResponse,
};
use agent_protocol::virtc_ttrpc::GuestServiceClient;
use protobuf::MessageField;
use tokio::net::UnixStream;
use tokio::time::timeout;
use ttrpc::asynchronous::{Client, transport::Socket};
use ttrpc::context::{self, Context};
use vc_types::{ContainerId, ExecId, Signal, guest};

use crate::error::{Code, Error, Result};
use crate::transport::Transport;

/// How long the agent may take over its calls.
#[derive(Clone, Copy, Debug)]
pub struct CallLimits {
    /// A call that does little: signals, sizes, questions (`limits.agent_call_ms`).
    pub call: Duration,
    /// A call that mounts or makes something (`limits.agent_create_ms`).
    pub create: Duration,
}

/// One connection to the agent, which carries all calls.
///
/// Clones share the connection. A call that is dropped is abandoned; the connection stays usable.
#[derive(Clone)]
pub struct AgentClient {
    pub(crate) agent: AgentServiceClient,
    pub(crate) guest: GuestServiceClient,
    health: HealthClient,
    pub(crate) limits: CallLimits,
}

/// A process of a container: its first one, or one that was added.
fn exec_id(container: &ContainerId, exec: Option<&ExecId>) -> String {
    exec.map_or(container.as_str(), ExecId::as_str).to_owned()
}

impl AgentClient {
    /// Connects to the agent behind `transport`.
    ///
    /// # Errors
    ///
    /// See [`Transport::connect`].
    pub async fn connect(transport: &Transport, limits: CallLimits) -> Result<Self> {
        let stream = transport.connect(guest::AGENT_PORT).await?;
        Ok(Self::over(stream, limits))
    }

    pub(crate) fn over(stream: UnixStream, limits: CallLimits) -> Self {
        let client = Client::new(Socket::new(stream));
        Self {
            agent: AgentServiceClient::new(client.clone()),
            guest: GuestServiceClient::new(client.clone()),
            health: HealthClient::new(client),
            limits,
        }
    }

    /// The agent's version, by the call that every agent has.
    ///
    /// # Errors
    ///
    /// As every call: [`Error::TimedOut`], [`Error::Agent`], [`Error::Broken`].
    pub async fn version(&self) -> Result<VersionCheckResponse> {
        let (context, request) = (self.short(), CheckRequest::new());
        self.little(
            "ask for the version",
            self.health.version(context, &request),
        )
        .await
    }

    /// Greets our own agent: gives it the time, randomness and a name.
    ///
    /// # Errors
    ///
    /// As every call.
    pub async fn hello(&self, request: HelloRequest) -> Result<HelloResponse> {
        self.little("greet the agent", self.guest.hello(self.short(), &request))
            .await
    }

    /// Asks for the guest's wall clock, in nanoseconds since 1970, and corrects it by so many
    /// nanoseconds; 0 only asks.
    ///
    /// # Errors
    ///
    /// As every call.
    pub async fn clock(&self, correction_ns: i64) -> Result<i64> {
        let request = ClockRequest {
            correction_ns,
            ..ClockRequest::default()
        };
        let answer = self
            .little(
                "correct the guest's clock",
                self.guest.clock(self.short(), &request),
            )
            .await?;
        Ok(answer.realtime_ns)
    }

    /// Writes back and takes down what [`Self::create_sandbox`] made.
    ///
    /// # Errors
    ///
    /// As every call.
    pub async fn destroy_sandbox(&self) -> Result<()> {
        let request = DestroySandboxRequest::new();
        let call = self.agent.destroy_sandbox(self.long(), &request);
        self.much("take down the sandbox in the guest", call)
            .await?;
        Ok(())
    }

    /// Starts a container's process. Why it could not be executed, where it could not; the same is
    /// told by [`Self::wait_process`].
    ///
    /// # Errors
    ///
    /// As every call.
    pub async fn start_container(&self, container: &ContainerId) -> Result<Option<String>> {
        let request = StartContainerRequest {
            container_id: container.to_string(),
            ..StartContainerRequest::default()
        };
        let answer = self.agent.start_container(self.long(), &request);
        let error = self.much("start the container", answer).await?.start_error;
        Ok((!error.is_empty()).then(|| vc_types::one_line(&error)))
    }

    /// Lets the guest forget what it knows of paths that were taken out of a share: until then, the
    /// share's process holds each file open that the guest knows. An agent that cannot do so is no
    /// error: its kernel forgets when it needs the memory.
    ///
    /// # Errors
    ///
    /// As every call.
    pub async fn forget_paths(&self, paths: Vec<String>) -> Result<()> {
        let request = ForgetPathsRequest {
            paths,
            ..ForgetPathsRequest::default()
        };
        let forgotten = self.guest.forget_paths(self.short(), &request);
        match self.little("forget paths of a share", forgotten).await {
            Err(error) if matches!(error.code(), Some(Code::NotFound | Code::Unimplemented)) => {
                Ok(())
            }
            forgotten => forgotten.map(drop),
        }
    }

    /// Lets the guest's kernel forget all that it knows of files that nobody has open: what it reads
    /// from now on is as the host has it then.
    ///
    /// # Errors
    ///
    /// As every call.
    pub async fn forget_files(&self) -> Result<()> {
        let request = Empty::new();
        let forgotten = self.guest.forget_files(self.short(), &request);
        self.little("forget all files", forgotten).await.map(drop)
    }

    /// Has a container wait ready-made for the next one that is created.
    ///
    /// # Errors
    ///
    /// As every call.
    pub async fn stand_by(&self) -> Result<()> {
        let request = Empty::new();
        let made = self.guest.stand_by(self.long(), &request);
        self.little("make a container that waits", made)
            .await
            .map(drop)
    }

    /// Removes a container that has ended.
    ///
    /// # Errors
    ///
    /// As every call.
    pub async fn remove_container(&self, container: &ContainerId) -> Result<()> {
        let request = RemoveContainerRequest {
            container_id: container.to_string(),
            ..RemoveContainerRequest::default()
        };
        self.much(
            "remove the container",
            self.agent.remove_container(self.long(), &request),
        )
        .await?;
        Ok(())
    }

    /// Adds a process to a running container.
    ///
    /// # Errors
    ///
    /// As every call.
    pub async fn exec_process(
        &self,
        container: &ContainerId,
        exec: &ExecId,
        process: oci::Process,
    ) -> Result<()> {
        let request = ExecProcessRequest {
            container_id: container.to_string(),
            exec_id: exec.to_string(),
            process: MessageField::some(process),
            ..ExecProcessRequest::default()
        };
        self.much(
            "add the process",
            self.agent.exec_process(self.long(), &request),
        )
        .await?;
        Ok(())
    }

    /// Waits for the end of a process. This call has no limit of its own: the caller races it
    /// with the end of the VM.
    ///
    /// # Errors
    ///
    /// [`Error::Agent`], [`Error::Broken`].
    pub async fn wait_process(
        &self,
        container: &ContainerId,
        exec: Option<&ExecId>,
    ) -> Result<WaitResponse> {
        let request = WaitRequest {
            container_id: container.to_string(),
            exec_id: exec_id(container, exec),
            ..WaitRequest::default()
        };
        let call = "wait for the process";
        let mut response = self
            .guest
            .wait_process(Context::default(), &request)
            .await
            .map_err(Error::from_ttrpc(call, "", Duration::ZERO))?;
        response.start_error = vc_types::one_line(&response.start_error);
        Ok(response)
    }

    /// Waits until the program of a process that was started is executed. Why it cannot be, where it
    /// cannot.
    ///
    /// # Errors
    ///
    /// As every call.
    pub async fn wait_started(
        &self,
        container: &ContainerId,
        exec: Option<&ExecId>,
    ) -> Result<Option<String>> {
        let request = WaitRequest {
            container_id: container.to_string(),
            exec_id: exec_id(container, exec),
            until_started: true,
            ..WaitRequest::default()
        };
        let call = "wait for the start of the process";
        let answer = self.guest.wait_process(self.long(), &request);
        let error = self.much(call, answer).await?.start_error;
        Ok((!error.is_empty()).then(|| vc_types::one_line(&error)))
    }

    /// Sends a signal to a process.
    ///
    /// # Errors
    ///
    /// As every call; [`crate::Error::code`] is `NotFound` for a process that has ended.
    pub async fn signal_process(
        &self,
        container: &ContainerId,
        exec: Option<&ExecId>,
        signal: Signal,
    ) -> Result<()> {
        let request = SignalProcessRequest {
            container_id: container.to_string(),
            exec_id: exec_id(container, exec),
            signal: signal.number().into(),
            ..SignalProcessRequest::default()
        };
        self.little(
            "signal the process",
            self.agent.signal_process(self.short(), &request),
        )
        .await?;
        Ok(())
    }

    /// Sends a signal to every process of a container.
    ///
    /// # Errors
    ///
    /// As every call.
    pub async fn signal_container(&self, container: &ContainerId, signal: Signal) -> Result<()> {
        // No exec id means all of them.
        let request = SignalProcessRequest {
            container_id: container.to_string(),
            signal: signal.number().into(),
            ..SignalProcessRequest::default()
        };
        self.little(
            "signal the container",
            self.agent.signal_process(self.short(), &request),
        )
        .await?;
        Ok(())
    }

    /// Stops all processes of a container where they are.
    ///
    /// # Errors
    ///
    /// As every call.
    pub async fn pause_container(&self, container: &ContainerId) -> Result<()> {
        let request = PauseContainerRequest {
            container_id: container.to_string(),
            ..PauseContainerRequest::default()
        };
        self.little(
            "pause the container",
            self.agent.pause_container(self.short(), &request),
        )
        .await?;
        Ok(())
    }

    /// Lets the processes of a paused container go on.
    ///
    /// # Errors
    ///
    /// As every call.
    pub async fn resume_container(&self, container: &ContainerId) -> Result<()> {
        let request = ResumeContainerRequest {
            container_id: container.to_string(),
            ..ResumeContainerRequest::default()
        };
        self.little(
            "resume the container",
            self.agent.resume_container(self.short(), &request),
        )
        .await?;
        Ok(())
    }

    /// The processes of a container, with the guest's pids.
    ///
    /// # Errors
    ///
    /// As every call.
    pub async fn list_processes(&self, container: &ContainerId) -> Result<Vec<ProcessEntry>> {
        let request = ListProcessesRequest {
            container_id: container.to_string(),
            ..ListProcessesRequest::default()
        };
        let answer = self
            .little(
                "list the processes",
                self.guest.list_processes(self.short(), &request),
            )
            .await?;
        Ok(answer.processes)
    }

    /// Closes a process's stdin, for agents without framed streams.
    ///
    /// # Errors
    ///
    /// As every call.
    pub async fn close_stdin(&self, container: &ContainerId, exec: Option<&ExecId>) -> Result<()> {
        let request = CloseStdinRequest {
            container_id: container.to_string(),
            exec_id: exec_id(container, exec),
            ..CloseStdinRequest::default()
        };
        self.little(
            "close stdin",
            self.agent.close_stdin(self.short(), &request),
        )
        .await?;
        Ok(())
    }

    /// Tells a process's terminal its size, in characters.
    ///
    /// # Errors
    ///
    /// As every call.
    pub async fn resize_terminal(
        &self,
        container: &ContainerId,
        exec: Option<&ExecId>,
        rows: u16,
        columns: u16,
    ) -> Result<()> {
        let request = TtyWinResizeRequest {
            container_id: container.to_string(),
            exec_id: exec_id(container, exec),
            row: rows.into(),
            column: columns.into(),
            ..TtyWinResizeRequest::default()
        };
        self.little(
            "resize the terminal",
            self.agent.tty_win_resize(self.short(), &request),
        )
        .await?;
        Ok(())
    }

    pub(crate) fn short(&self) -> Context {
        context_for(self.limits.call)
    }

    pub(crate) fn long(&self) -> Context {
        context_for(self.limits.create)
    }

    pub(crate) async fn little<T>(
        &self,
        call: &'static str,
        answer: impl Future<Output = ttrpc::Result<T>>,
    ) -> Result<T> {
        limited(call, "agent_call_ms", self.limits.call, answer).await
    }

    pub(crate) async fn much<T>(
        &self,
        call: &'static str,
        answer: impl Future<Output = ttrpc::Result<T>>,
    ) -> Result<T> {
        limited(call, "agent_create_ms", self.limits.create, answer).await
    }
}

impl std::fmt::Debug for AgentClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AgentClient")
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// The agent learns the limit too, so that it gives up what nobody waits for.
pub(crate) fn context_for(limit: Duration) -> Context {
    context::with_duration(limit)
}

pub(crate) async fn limited<T>(
    call: &'static str,
    limit: &'static str,
    after: Duration,
    answer: impl Future<Output = ttrpc::Result<T>>,
) -> Result<T> {
    tracing::debug!(call, "asks the agent");
    let began = Instant::now();
    match timeout(after, answer).await {
        // ttrpc keeps the same limit. Where it is the first to see it pass, its error does not say
        // so.
        Ok(Err(source))
            if began.elapsed() >= after && !matches!(source, ttrpc::Error::RpcStatus(_)) =>
        {
            Err(Error::TimedOut { call, limit, after })
        }
        Ok(answer) => answer.map_err(Error::from_ttrpc(call, limit, after)),
        Err(_) => Err(Error::TimedOut { call, limit, after }),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[tokio::test]
    async fn an_agent_that_is_silent_passes_the_limit_by_its_name_and_is_asked_again() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("v");
        let listener = UnixListener::bind(&socket).unwrap();
        std::thread::spawn(move || {
            use std::io::{Read, Write};
            let (mut stream, _) = listener.accept().unwrap();
            let mut line = [0; 13];
            stream.read_exact(&mut line).unwrap();
            stream.write_all(b"OK 1\n").unwrap();
            // Until the other side leaves; nothing is answered.
            let _ = stream.read_to_end(&mut Vec::new());
        });
        let limits = CallLimits {
            call: Duration::from_millis(50),
            create: Duration::from_millis(80),
        };
        let address = vc_types::AgentAddress::HybridVsock { socket };
        let transport = Transport::new(address, Duration::from_secs(5));
        let agent = AgentClient::connect(&transport, limits).await.unwrap();
        let id = ContainerId::new("c1").unwrap();
        // Which timer is first differs from one time to the next.
        for _ in 0..5 {
            let version = agent.version().await.unwrap_err();
            assert!(version.to_string().contains("agent_call_ms"), "{version}");
            let removed = agent.remove_container(&id).await.unwrap_err();
            assert!(removed.to_string().contains("agent_create_ms"), "{removed}");
        }
    }
}
