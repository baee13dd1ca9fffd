//! `grpc.AgentService`, with the meanings of Kata's.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use agent_protocol::Empty;
use agent_protocol::agent::*;
use agent_protocol::agent_ttrpc::AgentService;
use agent_protocol::csi::VolumeStatsResponse;
use agent_protocol::frame::Stream;
use agent_protocol::oci_convert::resources_from_message;
use agent_protocol::types::Interface;
use async_trait::async_trait;
use protobuf::MessageField;
use ttrpc::r#async::TtrpcContext;

use super::details::guest_details;
use super::streams::{read_output, write_stdin};
use super::{hotplug, network, sandbox};
use crate::clock::set_realtime_ns;
use crate::container::Container;
use crate::error::{Attempt as _, Error, Result};
use crate::files;
use crate::network_stats::network_stats;
use crate::process::{Process, resize};
use crate::randomness::Randomness;
use crate::sandbox::{Sandbox, blocking, uninterrupted};

/// How long the answer to DestroySandbox may take to get out before the guest switches off.
const POWER_OFF_DELAY: Duration = Duration::from_millis(200);

/// What a shell adds to a signal to make it an exit code.
const SIGNAL_STATUS: i32 = 128;

type Answer<T> = ttrpc::Result<T>;

pub(super) struct AgentCalls {
    pub(super) sandbox: Arc<Sandbox>,
}

impl AgentCalls {
    fn container(&self, id: &str) -> Result<Arc<Container>> {
        self.sandbox.containers.get(id)
    }

    fn process(&self, id: &str, exec_id: &str) -> Result<Arc<Process>> {
        self.sandbox.containers.process(id, exec_id)
    }

    /// With an exec id, one process. Without, all of the container, the first one included, as
    /// Kata's agent does it.
    fn signal(&self, request: &SignalProcessRequest) -> Result<()> {
        let signal = i32::try_from(request.signal)
            .ok()
            .filter(|signal| (1..=libc::SIGRTMAX()).contains(signal))
            .ok_or_else(|| Error::Invalid {
                field: "signal",
                value: request.signal.to_string(),
                reason: "is no signal",
            })?;
        if !request.exec_id.is_empty() {
            return self
                .process(&request.container_id, &request.exec_id)?
                .signal(signal);
        }
        let container = self.container(&request.container_id)?;
        for pid in container.cgroup.pids()? {
            if let Some(pid) = rustix::process::Pid::from_raw(pid) {
                // One that has just ended does not need the signal.
                let _ = crate::sys::kill(pid, signal);
            }
        }
        Ok(())
    }
}

fn done(result: Result<()>) -> Answer<Empty> {
    result?;
    Ok(Empty::new())
}

/// Answers the calls that this agent does not have by their name.
macro_rules! unimplemented_calls {
    ($($method:ident($request:ty) -> $response:ty, $name:literal;)*) => {
        $(
            // What `async_trait` makes of an async method; it does not look into macros.
            fn $method<'a, 'b, 'async_trait>(
                &'a self,
                _: &'b TtrpcContext,
                _: $request,
            ) -> Pin<Box<dyn Future<Output = Answer<$response>> + Send + 'async_trait>>
            where
                'a: 'async_trait,
                'b: 'async_trait,
                Self: 'async_trait,
            {
                let error = Error::Unsupported(concat!($name, " is not implemented").to_owned());
                Box::pin(std::future::ready(Err(error.into())))
            }
        )*
    };
}

#[async_trait]
impl AgentService for AgentCalls {
    async fn create_sandbox(&self, _: &TtrpcContext, req: CreateSandboxRequest) -> Answer<Empty> {
        done(sandbox::create(&self.sandbox, req).await)
    }

    async fn destroy_sandbox(&self, _: &TtrpcContext, _: DestroySandboxRequest) -> Answer<Empty> {
        let sandbox = Arc::clone(&self.sandbox);
        uninterrupted(async move { sandbox.destroy().await }).await?;
        tokio::spawn(async {
            tokio::time::sleep(POWER_OFF_DELAY).await;
            crate::init::power_off();
        });
        Ok(Empty::new())
    }

    async fn create_container(
        &self,
        _: &TtrpcContext,
        req: CreateContainerRequest,
    ) -> Answer<Empty> {
        let sandbox = Arc::clone(&self.sandbox);
        done(
            uninterrupted(async move { Container::create(&sandbox, req, None, Vec::new()).await })
                .await,
        )
    }

    async fn start_container(
        &self,
        _: &TtrpcContext,
        req: StartContainerRequest,
    ) -> Answer<StartContainerResponse> {
        let container = self.container(&req.container_id)?;
        let start_error = uninterrupted(async move { container.start().await }).await?;
        Ok(StartContainerResponse {
            start_error,
            ..StartContainerResponse::default()
        })
    }

    async fn remove_container(
        &self,
        _: &TtrpcContext,
        req: RemoveContainerRequest,
    ) -> Answer<Empty> {
        let sandbox = Arc::clone(&self.sandbox);
        done(
            uninterrupted(async move { Container::remove(&sandbox, &req.container_id).await })
                .await,
        )
    }

    async fn exec_process(&self, _: &TtrpcContext, req: ExecProcessRequest) -> Answer<Empty> {
        let sandbox = Arc::clone(&self.sandbox);
        let container = self.container(&req.container_id)?;
        done(uninterrupted(async move { container.exec(&sandbox, req).await }).await)
    }

    async fn signal_process(&self, _: &TtrpcContext, req: SignalProcessRequest) -> Answer<Empty> {
        done(self.signal(&req))
    }

    async fn wait_process(
        &self,
        _: &TtrpcContext,
        req: WaitProcessRequest,
    ) -> Answer<WaitProcessResponse> {
        let ended = self
            .process(&req.container_id, &req.exec_id)?
            .wait()
            .await?;
        let number = |value: u32| i32::try_from(value).unwrap_or(i32::MAX);
        let status = match ended.signal {
            0 => number(ended.code),
            signal => SIGNAL_STATUS + number(signal),
        };
        Ok(WaitProcessResponse {
            status,
            ..WaitProcessResponse::default()
        })
    }

    async fn update_container(
        &self,
        _: &TtrpcContext,
        req: UpdateContainerRequest,
    ) -> Answer<Empty> {
        let container = self.container(&req.container_id)?;
        let resources = resources_from_message(&req.resources).map_err(Error::from)?;
        done(container.cgroup.update(&resources))
    }

    async fn stats_container(
        &self,
        _: &TtrpcContext,
        req: StatsContainerRequest,
    ) -> Answer<StatsContainerResponse> {
        let container = self.container(&req.container_id)?;
        Ok(StatsContainerResponse {
            cgroup_stats: MessageField::some(container.cgroup.stats()),
            network_stats: network_stats(),
            ..StatsContainerResponse::default()
        })
    }

    async fn pause_container(&self, _: &TtrpcContext, req: PauseContainerRequest) -> Answer<Empty> {
        done(self.container(&req.container_id)?.set_paused(true).await)
    }

    async fn resume_container(
        &self,
        _: &TtrpcContext,
        req: ResumeContainerRequest,
    ) -> Answer<Empty> {
        done(self.container(&req.container_id)?.set_paused(false).await)
    }

    async fn write_stdin(
        &self,
        _: &TtrpcContext,
        req: WriteStreamRequest,
    ) -> Answer<WriteStreamResponse> {
        let process = self.process(&req.container_id, &req.exec_id)?;
        let len = write_stdin(&process, &req.data).await?;
        Ok(WriteStreamResponse {
            len,
            ..WriteStreamResponse::default()
        })
    }

    async fn read_stdout(
        &self,
        _: &TtrpcContext,
        req: ReadStreamRequest,
    ) -> Answer<ReadStreamResponse> {
        let process = self.process(&req.container_id, &req.exec_id)?;
        read_output(&process, Stream::Stdout, &req).await
    }

    async fn read_stderr(
        &self,
        _: &TtrpcContext,
        req: ReadStreamRequest,
    ) -> Answer<ReadStreamResponse> {
        let process = self.process(&req.container_id, &req.exec_id)?;
        read_output(&process, Stream::Stderr, &req).await
    }

    async fn close_stdin(&self, _: &TtrpcContext, req: CloseStdinRequest) -> Answer<Empty> {
        done(
            self.process(&req.container_id, &req.exec_id)?
                .io
                .end_stdin()
                .await,
        )
    }

    async fn tty_win_resize(&self, _: &TtrpcContext, req: TtyWinResizeRequest) -> Answer<Empty> {
        let process = self.process(&req.container_id, &req.exec_id)?;
        let terminal = process.io.terminal().ok_or_else(|| Error::State {
            object: process.name(),
            state: "without a terminal",
        })?;
        done(resize(terminal.get_ref(), req.row, req.column))
    }

    async fn online_cpu_mem(&self, _: &TtrpcContext, req: OnlineCPUMemRequest) -> Answer<Empty> {
        let modules = self.sandbox.modules.clone();
        done(blocking(move || hotplug::online(&req, &modules)).await)
    }

    async fn reseed_random_dev(
        &self,
        _: &TtrpcContext,
        req: ReseedRandomDevRequest,
    ) -> Answer<Empty> {
        done(Randomness::open().and_then(|kernels| kernels.add(&req.data)))
    }

    async fn get_guest_details(
        &self,
        _: &TtrpcContext,
        req: GuestDetailsRequest,
    ) -> Answer<GuestDetailsResponse> {
        Ok(guest_details(&req))
    }

    async fn set_guest_date_time(
        &self,
        _: &TtrpcContext,
        req: SetGuestDateTimeRequest,
    ) -> Answer<Empty> {
        let time = req.Sec.checked_mul(1_000_000_000).and_then(|seconds| {
            req.Usec
                .checked_mul(1_000)
                .and_then(|micros| seconds.checked_add(micros))
        });
        let time = time.ok_or_else(|| Error::Invalid {
            field: "time",
            value: format!("{}.{}", req.Sec, req.Usec),
            reason: "is out of range",
        })?;
        done(set_realtime_ns(time))
    }

    async fn copy_file(&self, _: &TtrpcContext, req: CopyFileRequest) -> Answer<Empty> {
        done(blocking(move || files::copy_file(&req)).await)
    }

    async fn get_oom_event(&self, _: &TtrpcContext, _: GetOOMEventRequest) -> Answer<OOMEvent> {
        let container_id = self.sandbox.oom_events.next().await?;
        Ok(OOMEvent {
            container_id,
            ..OOMEvent::default()
        })
    }

    async fn update_ephemeral_mounts(
        &self,
        _: &TtrpcContext,
        req: UpdateEphemeralMountsRequest,
    ) -> Answer<Empty> {
        done(blocking(move || crate::storage::resize_scratch(&req.storages)).await)
    }

    async fn mem_hotplug_by_probe(
        &self,
        _: &TtrpcContext,
        req: MemHotplugByProbeRequest,
    ) -> Answer<Empty> {
        for address in &req.memHotplugProbeAddr {
            std::fs::write("/sys/devices/system/memory/probe", format!("{address:#x}"))
                .attempt(|| format!("probe for memory at {address:#x}"))?;
        }
        Ok(Empty::new())
    }

    async fn update_interface(
        &self,
        _: &TtrpcContext,
        req: UpdateInterfaceRequest,
    ) -> Answer<Interface> {
        Ok(network::update_interface(&self.sandbox, req).await?)
    }

    async fn update_routes(&self, _: &TtrpcContext, req: UpdateRoutesRequest) -> Answer<Routes> {
        Ok(network::update_routes(&self.sandbox, req).await?)
    }

    async fn list_interfaces(
        &self,
        _: &TtrpcContext,
        _: ListInterfacesRequest,
    ) -> Answer<Interfaces> {
        Ok(network::list_interfaces().await?)
    }

    async fn list_routes(&self, _: &TtrpcContext, _: ListRoutesRequest) -> Answer<Routes> {
        Ok(network::list_routes().await?)
    }

    async fn add_arp_neighbors(
        &self,
        _: &TtrpcContext,
        req: AddARPNeighborsRequest,
    ) -> Answer<Empty> {
        done(network::add_neighbours(&self.sandbox, req).await)
    }

    async fn get_ip_tables(
        &self,
        _: &TtrpcContext,
        req: GetIPTablesRequest,
    ) -> Answer<GetIPTablesResponse> {
        Ok(network::get_ip_tables(&self.sandbox, &req).await?)
    }

    async fn set_ip_tables(
        &self,
        _: &TtrpcContext,
        req: SetIPTablesRequest,
    ) -> Answer<SetIPTablesResponse> {
        Ok(network::set_ip_tables(&self.sandbox, req).await?)
    }

    unimplemented_calls! {
        remove_stale_virtiofs_share_mounts(RemoveStaleVirtiofsShareMountsRequest) -> Empty,
            "RemoveStaleVirtiofsShareMounts";
        get_diagnostic_data(GetDiagnosticDataRequest) -> GetDiagnosticDataResponse,
            "GetDiagnosticData";
        get_metrics(GetMetricsRequest) -> Metrics, "GetMetrics";
        mem_agent_memcg_set(MemAgentMemcgConfig) -> Empty, "MemAgentMemcgSet";
        mem_agent_compact_set(MemAgentCompactConfig) -> Empty, "MemAgentCompactSet";
        add_swap(AddSwapRequest) -> Empty, "AddSwap";
        add_swap_path(AddSwapPathRequest) -> Empty, "AddSwapPath";
        get_volume_stats(VolumeStatsRequest) -> VolumeStatsResponse, "GetVolumeStats";
        resize_volume(ResizeVolumeRequest) -> Empty, "ResizeVolume";
        set_policy(SetPolicyRequest) -> Empty, "SetPolicy";
    }
}
