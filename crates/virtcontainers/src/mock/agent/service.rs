//! The services of a played agent, as far as this library asks for them.

use std::io;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use agent_protocol::Empty;
use agent_protocol::agent::{
    CgroupStats, CopyFileRequest, CreateContainerRequest, CreateSandboxRequest,
    DestroySandboxRequest, ExecProcessRequest, GetOOMEventRequest, OOMEvent, PauseContainerRequest,
    PidsStats, RemoveContainerRequest, ResumeContainerRequest, SignalProcessRequest,
    StartContainerRequest, StartContainerResponse, StatsContainerRequest, StatsContainerResponse,
    TtyWinResizeRequest, UpdateContainerRequest,
};
use agent_protocol::agent_ttrpc::{AgentService, create_agent_service};
use agent_protocol::oci_convert::{
    process_from_message, resources_from_message, spec_from_message,
};
use agent_protocol::virtc::{
    self, ClockRequest, ClockResponse, GrowRequest, HelloRequest, HelloResponse,
    ListProcessesRequest, ListProcessesResponse, ProcessEntry, WaitRequest, WaitResponse,
};
use agent_protocol::virtc_ttrpc::{GuestService, create_guest_service};
use async_trait::async_trait;
use protobuf::MessageField;
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use ttrpc::Code;
use ttrpc::r#async::{Server, TtrpcContext};
use ttrpc::asynchronous::transport::Listener;
use vc_types::{ExitStatus, Signal};

use super::super::calls::{Call, refusal};
use super::guest::Guest;

type Answer<T> = ttrpc::Result<T>;

/// Serves the connections that come, until the server is dropped.
pub(super) async fn serve(
    guest: &Arc<Guest>,
    connections: mpsc::Receiver<DuplexStream>,
) -> io::Result<Server> {
    let incoming = futures_util::stream::unfold(connections, |mut connections| async {
        let connection = connections.recv().await?;
        Some((Ok(connection), connections))
    });
    let agent = Arc::new(AgentCalls(Arc::clone(guest)));
    let mut server = Server::new()
        .add_listener(Listener::new(incoming))
        .register_service(create_agent_service(Arc::clone(&agent) as _))
        .register_service(create_guest_service(agent));
    server.start().await.map_err(io::Error::other)?;
    Ok(server)
}

struct AgentCalls(Arc<Guest>);

#[async_trait]
impl AgentService for AgentCalls {
    async fn create_sandbox(&self, _: &TtrpcContext, _: CreateSandboxRequest) -> Answer<Empty> {
        let done = async || Ok(Empty::new());
        self.0.answer(Call::CreateSandbox, done).await
    }

    async fn destroy_sandbox(&self, _: &TtrpcContext, _: DestroySandboxRequest) -> Answer<Empty> {
        let done = async || Ok(Empty::new());
        self.0.answer(Call::DestroySandbox, done).await
    }

    async fn copy_file(&self, _: &TtrpcContext, _: CopyFileRequest) -> Answer<Empty> {
        let done = async || Ok(Empty::new());
        self.0.answer(Call::CopyFile, done).await
    }

    async fn create_container(
        &self,
        _: &TtrpcContext,
        request: CreateContainerRequest,
    ) -> Answer<Empty> {
        let create = async || {
            let spec = spec_from_message(&request.OCI).map_err(invalid)?;
            self.0.create(request.container_id, spec)?;
            Ok(Empty::new())
        };
        self.0.answer(Call::CreateContainer, create).await
    }

    async fn start_container(
        &self,
        _: &TtrpcContext,
        request: StartContainerRequest,
    ) -> Answer<StartContainerResponse> {
        let start = async || {
            let process = self.0.find(&request.container_id, "")?;
            process.start()?;
            Ok(StartContainerResponse {
                start_error: process.program.start_error.clone().unwrap_or_default(),
                ..StartContainerResponse::default()
            })
        };
        self.0.answer(Call::StartContainer, start).await
    }

    async fn remove_container(
        &self,
        _: &TtrpcContext,
        request: RemoveContainerRequest,
    ) -> Answer<Empty> {
        let remove = async || {
            self.0.remove(&request.container_id)?;
            Ok(Empty::new())
        };
        self.0.answer(Call::RemoveContainer, remove).await
    }

    async fn exec_process(&self, _: &TtrpcContext, request: ExecProcessRequest) -> Answer<Empty> {
        let exec = async || {
            let process = process_from_message(&request.process).map_err(invalid)?;
            self.0
                .exec(&request.container_id, request.exec_id, &process)?;
            Ok(Empty::new())
        };
        self.0.answer(Call::ExecProcess, exec).await
    }

    async fn signal_process(
        &self,
        _: &TtrpcContext,
        request: SignalProcessRequest,
    ) -> Answer<Empty> {
        let signal = async || {
            let number = u8::try_from(request.signal).unwrap_or_default();
            let signal = Signal::from_number(number).map_err(invalid)?;
            self.0
                .signal(&request.container_id, &request.exec_id, signal)?;
            Ok(Empty::new())
        };
        self.0.answer(Call::SignalProcess, signal).await
    }

    async fn pause_container(
        &self,
        _: &TtrpcContext,
        request: PauseContainerRequest,
    ) -> Answer<Empty> {
        let pause = async || {
            self.0.set_paused(&request.container_id, true)?;
            Ok(Empty::new())
        };
        self.0.answer(Call::PauseContainer, pause).await
    }

    async fn resume_container(
        &self,
        _: &TtrpcContext,
        request: ResumeContainerRequest,
    ) -> Answer<Empty> {
        let resume = async || {
            self.0.set_paused(&request.container_id, false)?;
            Ok(Empty::new())
        };
        self.0.answer(Call::ResumeContainer, resume).await
    }

    async fn update_container(
        &self,
        _: &TtrpcContext,
        request: UpdateContainerRequest,
    ) -> Answer<Empty> {
        let update = async || {
            let resources = resources_from_message(&request.resources).map_err(invalid)?;
            self.0.update(&request.container_id, resources)?;
            Ok(Empty::new())
        };
        self.0.answer(Call::UpdateContainer, update).await
    }

    async fn stats_container(
        &self,
        _: &TtrpcContext,
        request: StatsContainerRequest,
    ) -> Answer<StatsContainerResponse> {
        let stats = async || {
            let living = self.0.living(&request.container_id)?.len();
            let pids = PidsStats {
                current: living as u64,
                ..PidsStats::default()
            };
            let cgroup = CgroupStats {
                pids_stats: MessageField::some(pids),
                ..CgroupStats::default()
            };
            Ok(StatsContainerResponse {
                cgroup_stats: MessageField::some(cgroup),
                ..StatsContainerResponse::default()
            })
        };
        self.0.answer(Call::StatsContainer, stats).await
    }

    async fn tty_win_resize(
        &self,
        _: &TtrpcContext,
        request: TtyWinResizeRequest,
    ) -> Answer<Empty> {
        let resize = async || {
            let process = self.0.find(&request.container_id, &request.exec_id)?;
            match process.terminal {
                true => Ok(Empty::new()),
                false => Err(refusal(Code::FAILED_PRECONDITION, "it has no terminal")),
            }
        };
        self.0.answer(Call::TtyWinResize, resize).await
    }

    async fn get_oom_event(&self, _: &TtrpcContext, _: GetOOMEventRequest) -> Answer<OOMEvent> {
        Ok(OOMEvent {
            container_id: self.0.next_out_of_memory().await,
            ..OOMEvent::default()
        })
    }
}

#[async_trait]
impl GuestService for AgentCalls {
    async fn hello(&self, _: &TtrpcContext, _: HelloRequest) -> Answer<HelloResponse> {
        let hello = async || {
            Ok(HelloResponse {
                agent_version: "mock".into(),
                ..HelloResponse::default()
            })
        };
        self.0.answer(Call::Hello, hello).await
    }

    async fn create_container(
        &self,
        context: &TtrpcContext,
        request: virtc::CreateContainerRequest,
    ) -> Answer<Empty> {
        let request = request.container.unwrap_or_default();
        AgentService::create_container(self, context, request).await
    }

    async fn wait_process(&self, _: &TtrpcContext, request: WaitRequest) -> Answer<WaitResponse> {
        let wait = async || {
            let process = self.0.find(&request.container_id, &request.exec_id)?;
            if request.until_started {
                return Ok(WaitResponse {
                    started_uptime_us: self.0.uptime_us(),
                    start_error: process.program.start_error.clone().unwrap_or_default(),
                    ..WaitResponse::default()
                });
            }
            let exit = process.ended().await;
            let (code, signal, oom_killed) = match exit {
                ExitStatus::Code(code) => (code.into(), 0, false),
                ExitStatus::Signal { signal, oom } => (0, signal.into(), oom),
                ExitStatus::Lost { .. } => (0, Signal::KILL.number().into(), false),
            };
            let start_error = process.program.start_error.clone().unwrap_or_default();
            let now = self.0.uptime_us();
            Ok(WaitResponse {
                code,
                signal,
                oom_killed,
                started_uptime_us: if start_error.is_empty() { now } else { 0 },
                ended_uptime_us: now,
                start_error,
                ..WaitResponse::default()
            })
        };
        self.0.answer(Call::WaitProcess, wait).await
    }

    async fn list_processes(
        &self,
        _: &TtrpcContext,
        request: ListProcessesRequest,
    ) -> Answer<ListProcessesResponse> {
        let list = async || {
            let living = self.0.living(&request.container_id)?;
            let processes = (1..).zip(&living).map(|(pid, process)| ProcessEntry {
                pid,
                args: process.args.clone(),
                command: process.args.first().cloned().unwrap_or_default(),
                state: "S".into(),
                exec_id: process.id.clone(),
                ..ProcessEntry::default()
            });
            Ok(ListProcessesResponse {
                processes: processes.collect(),
                ..ListProcessesResponse::default()
            })
        };
        self.0.answer(Call::ListProcesses, list).await
    }

    async fn grow(&self, _: &TtrpcContext, _: GrowRequest) -> Answer<Empty> {
        let grown = async || Ok(Empty::new());
        self.0.answer(Call::Grow, grown).await
    }

    async fn clock(&self, _: &TtrpcContext, _: ClockRequest) -> Answer<ClockResponse> {
        let clock = async || {
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            let now = now.unwrap_or_default().as_nanos();
            Ok(ClockResponse {
                realtime_ns: i64::try_from(now).unwrap_or(i64::MAX),
                ..ClockResponse::default()
            })
        };
        self.0.answer(Call::Clock, clock).await
    }
}

fn invalid(error: impl std::error::Error) -> ttrpc::Error {
    refusal(Code::INVALID_ARGUMENT, error.to_string())
}
