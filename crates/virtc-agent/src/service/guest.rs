//! `virtc.v1.GuestService`: what Kata's protocol lacks.

use std::sync::Arc;
use std::time::Duration;

use agent_protocol::Empty;
use agent_protocol::virtc::{
    ClockRequest, ClockResponse, ConfigureNetworkRequest, CreateContainerRequest,
    CreateSandboxRequest, ForgetPathsRequest, GrowRequest, HelloRequest, HelloResponse,
    ListProcessesRequest, ListProcessesResponse, PackPathRequest, SyscallFilter as FilterMessage,
    TimelineStep, UnpackPathRequest, WaitRequest, WaitResponse,
};
use agent_protocol::virtc_ttrpc::GuestService;
use async_trait::async_trait;
use syscall_filter::SyscallFilter;
use ttrpc::r#async::TtrpcContext;

use super::copy::{copy_in, copy_out};
use super::details::set_hostname;
use super::{hotplug, network, sandbox};
use crate::cgroup::memory_total_bytes;
use crate::clock::{correct_realtime_by, set_realtime_ns, uptime_us};
use crate::container::{Container, ReadyMade};
use crate::error::{Error, Result};
use crate::launch::Copy;
use crate::process::{Start, list_processes};
use crate::randomness::Randomness;
use crate::sandbox::{Sandbox, blocking, uninterrupted};
use crate::seccomp::Filter;
use crate::storage::{forget, forget_all};

pub(super) struct GuestCalls {
    pub(super) sandbox: Arc<Sandbox>,
}

#[async_trait]
impl GuestService for GuestCalls {
    async fn hello(&self, _: &TtrpcContext, request: HelloRequest) -> ttrpc::Result<HelloResponse> {
        Ok(self.greet(&request)?)
    }

    async fn create_sandbox(
        &self,
        _: &TtrpcContext,
        request: CreateSandboxRequest,
    ) -> ttrpc::Result<Empty> {
        set_time(request.host_realtime_ns)?;
        sandbox::create(&self.sandbox, request.sandbox.unwrap_or_default()).await?;
        Ok(Empty::new())
    }

    async fn create_container(
        &self,
        _: &TtrpcContext,
        request: CreateContainerRequest,
    ) -> ttrpc::Result<Empty> {
        let filter = request.filter.into_option().map(filter_of).transpose()?;
        let container = request.container.unwrap_or_default();
        let (files, sandbox) = (request.files, Arc::clone(&self.sandbox));
        let create = async move { Container::create(&sandbox, container, filter, files).await };
        uninterrupted(create).await?;
        Ok(Empty::new())
    }

    async fn wait_process(
        &self,
        _: &TtrpcContext,
        request: WaitRequest,
    ) -> ttrpc::Result<WaitResponse> {
        let process = self
            .sandbox
            .containers
            .process(&request.container_id, &request.exec_id)?;
        if request.until_started {
            let start = process.start_outcome().await;
            let never = start == Start::Never;
            let (started_uptime_us, mut start_error) = start.told();
            if never {
                start_error = "it was ended before its start".into();
            }
            return Ok(WaitResponse {
                started_uptime_us,
                start_error,
                ..WaitResponse::default()
            });
        }
        let ended = process.wait().await?;
        let first = request.exec_id.is_empty() || request.exec_id == request.container_id;
        let at_rest = first && self.sandbox.come_to_rest().await;
        Ok(WaitResponse {
            at_rest,
            code: ended.code,
            signal: ended.signal,
            oom_killed: ended.oom_killed,
            started_uptime_us: ended.started_uptime_us,
            ended_uptime_us: ended.ended_uptime_us,
            start_error: ended.start_error,
            start_refused: ended.start_refused,
            ..WaitResponse::default()
        })
    }

    async fn list_processes(
        &self,
        _: &TtrpcContext,
        request: ListProcessesRequest,
    ) -> ttrpc::Result<ListProcessesResponse> {
        let container = self.sandbox.containers.get(&request.container_id)?;
        let mut processes = list_processes(&container.cgroup.pids()?);
        for known in container.exec_processes().iter().chain([&container.init]) {
            let pid = known.pid.as_raw_nonzero().get().unsigned_abs();
            if let Some(entry) = processes.iter_mut().find(|entry| entry.pid == pid) {
                entry.exec_id = known.exec_id.clone();
            }
        }
        Ok(ListProcessesResponse {
            processes,
            ..ListProcessesResponse::default()
        })
    }

    async fn clock(&self, _: &TtrpcContext, request: ClockRequest) -> ttrpc::Result<ClockResponse> {
        let realtime_ns = correct_realtime_by(request.correction_ns)?;
        Ok(ClockResponse {
            realtime_ns,
            ..ClockResponse::default()
        })
    }

    async fn pack_path(&self, _: &TtrpcContext, request: PackPathRequest) -> ttrpc::Result<Empty> {
        let copy = copy_out(&request)?;
        Ok(self
            .copy(request.container_id, request.exec_id, copy)
            .await?)
    }

    async fn unpack_path(
        &self,
        _: &TtrpcContext,
        request: UnpackPathRequest,
    ) -> ttrpc::Result<Empty> {
        let copy = copy_in(&request)?;
        Ok(self
            .copy(request.container_id, request.exec_id, copy)
            .await?)
    }

    async fn configure_network(
        &self,
        _: &TtrpcContext,
        request: ConfigureNetworkRequest,
    ) -> ttrpc::Result<Empty> {
        network::configure(&self.sandbox, request).await?;
        Ok(Empty::new())
    }

    async fn forget_paths(
        &self,
        _: &TtrpcContext,
        request: ForgetPathsRequest,
    ) -> ttrpc::Result<Empty> {
        blocking(move || forget(&request.paths)).await?;
        Ok(Empty::new())
    }

    async fn forget_files(&self, _: &TtrpcContext, _: Empty) -> ttrpc::Result<Empty> {
        blocking(forget_all).await?;
        Ok(Empty::new())
    }

    async fn stand_by(&self, _: &TtrpcContext, _: Empty) -> ttrpc::Result<Empty> {
        let sandbox = Arc::clone(&self.sandbox);
        uninterrupted(async move { ReadyMade::stand_by(&sandbox).await }).await?;
        Ok(Empty::new())
    }

    async fn grow(&self, _: &TtrpcContext, request: GrowRequest) -> ttrpc::Result<Empty> {
        let (modules, memory) = (self.sandbox.modules.clone(), self.sandbox.memory.clone());
        blocking(move || {
            let limit = Duration::from_millis(request.limit_ms.into());
            if request.vcpus > 0 {
                hotplug::bring_processors(request.vcpus, limit)?;
            }
            if request.more_bytes > 0 {
                hotplug::require_memory(&modules)?;
                memory.use_more(request.more_bytes, limit)?;
            }
            Ok(())
        })
        .await?;
        Ok(Empty::new())
    }
}

impl GuestCalls {
    async fn copy(&self, container_id: String, exec_id: String, copy: Copy) -> Result<Empty> {
        let sandbox = Arc::clone(&self.sandbox);
        let container = sandbox.containers.get(&container_id)?;
        uninterrupted(async move { container.copy(&sandbox, &exec_id, copy).await }).await?;
        Ok(Empty::new())
    }

    fn greet(&self, request: &HelloRequest) -> Result<HelloResponse> {
        set_time(request.host_realtime_ns)?;
        Randomness::open()?.add(&request.seed)?;
        if !request.hostname.is_empty() {
            set_hostname(&request.hostname)?;
        }
        let timeline = self.sandbox.timeline();
        let boot = timeline.steps().map(|(name, uptime_us)| TimelineStep {
            name: name.to_owned(),
            uptime_us,
            ..TimelineStep::default()
        });
        Ok(HelloResponse {
            agent_version: super::VERSION.to_owned(),
            features: super::FEATURES.map(str::to_owned).to_vec(),
            kernel_release: rustix::system::uname()
                .release()
                .to_string_lossy()
                .into_owned(),
            mem_total_bytes: memory_total_bytes(),
            boot: boot.collect(),
            uptime_us: uptime_us(),
            ..HelloResponse::default()
        })
    }
}

/// Nanoseconds since 1970 as the host says; 0 leaves the clock alone.
fn set_time(host_realtime_ns: u64) -> Result<()> {
    if host_realtime_ns == 0 {
        return Ok(());
    }
    let time = i64::try_from(host_realtime_ns).map_err(|_| Error::Invalid {
        field: "host_realtime_ns",
        value: host_realtime_ns.to_string(),
        reason: "is no time",
    })?;
    set_realtime_ns(time)
}

fn filter_of(message: FilterMessage) -> Result<Filter> {
    let bytes = message.program.len();
    SyscallFilter::from_parts(message.flags, message.program)
        .map(Filter::from)
        .map_err(|_| Error::Invalid {
            field: "filter",
            value: format!("{bytes} bytes"),
            reason: "is no program that the kernel takes",
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_is_empty_or_cut_is_refused() {
        let with = |bytes| {
            filter_of(FilterMessage {
                program: vec![6; bytes],
                ..FilterMessage::default()
            })
        };
        assert!(with(8).is_ok());
        for refused in [with(0), with(12)] {
            assert!(matches!(refused, Err(Error::Invalid { .. })));
        }
    }

    #[test]
    fn a_time_that_is_none_is_refused_and_0_leaves_the_clock_alone() {
        set_time(0).unwrap();
        assert!(matches!(set_time(u64::MAX), Err(Error::Invalid { .. })));
    }
}
