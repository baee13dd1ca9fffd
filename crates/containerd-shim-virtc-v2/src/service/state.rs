use std::time::Duration;

use containerd_shim_protos::api::{
    PidsResponse, ProcessInfo, StateRequest, StateResponse, StatsResponse, WaitRequest,
    WaitResponse,
};
use containerd_shim_protos::protobuf::{EnumOrUnknown, MessageField};

use tokio::time::timeout;

use super::{TaskService, guest_process, pid_of};
use crate::error::Result;
use crate::pod::Task;
use crate::process::Phase;
use crate::publisher::timestamp;
use crate::stats;

/// How long the guest may take to say what runs in it.
const PROCESSES_LIMIT: Duration = Duration::from_secs(2);

/// Processes that are told of one task.
const PROCESSES_MAX: usize = 1024;

impl TaskService {
    /// Where a process stands. Nobody is waited for.
    pub(super) fn state_of(&self, request: &StateRequest) -> Result<StateResponse> {
        let task = self.pod.task(&request.id)?;
        let process = task.process(&request.exec_id)?;
        let phase = process.phase();
        let exit = phase.exit();
        Ok(StateResponse {
            id: request.id.clone(),
            exec_id: request.exec_id.clone(),
            bundle: task.bundle.display().to_string(),
            pid: pid_of(&task),
            status: EnumOrUnknown::new(phase.status()),
            stdin: process.stdio.stdin.clone(),
            stdout: process.stdio.stdout.clone(),
            stderr: process.stdio.stderr.clone(),
            terminal: process.stdio.terminal,
            exit_status: exit.map(|exit| exit.code).unwrap_or_default(),
            exited_at: exit.map(|exit| timestamp(exit.at)).into(),
            ..StateResponse::default()
        })
    }

    /// Waits for the end of a process, as many do as want to.
    pub(super) async fn wait_for(&self, request: &WaitRequest) -> Result<WaitResponse> {
        let process = self.pod.task(&request.id)?.process(&request.exec_id)?;
        let exit = process.ended().await;
        Ok(WaitResponse {
            exit_status: exit.code,
            exited_at: MessageField::some(timestamp(exit.at)),
            ..WaitResponse::default()
        })
    }

    /// The processes of a task. On the host one thing stands for all of them; what they are in the
    /// guest is beside it, where the guest says so in time.
    pub(super) async fn pids_of(&self, id: &str) -> Result<PidsResponse> {
        let task = self.pod.task(id)?;
        let processes = match task.first.phase() {
            Phase::Creating | Phase::Stopped(_) => Vec::new(),
            Phase::Created | Phase::Running | Phase::Paused => self.guest_processes(&task).await?,
        };
        Ok(PidsResponse {
            processes,
            ..PidsResponse::default()
        })
    }

    async fn guest_processes(&self, task: &Task) -> Result<Vec<ProcessInfo>> {
        let sandbox = self.pod.handle()?;
        let listed = sandbox.process_list_container(&task.container);
        let listed = match timeout(PROCESSES_LIMIT, listed).await {
            Ok(Ok(listed)) => listed,
            Ok(Err(error)) => {
                tracing::debug!(%error, "the guest does not say what runs");
                Vec::new()
            }
            Err(_) => Vec::new(),
        };
        let mut processes = Vec::new();
        for process in listed.iter().take(PROCESSES_MAX) {
            processes.push(ProcessInfo {
                pid: pid_of(task),
                info: MessageField::some(guest_process::info(process)?),
                ..ProcessInfo::default()
            });
        }
        if processes.is_empty() {
            processes.push(ProcessInfo {
                pid: pid_of(task),
                ..ProcessInfo::default()
            });
        }
        Ok(processes)
    }

    /// What a task has used of the guest.
    pub(super) async fn stats_of(&self, id: &str) -> Result<StatsResponse> {
        let task = self.pod.task(id)?;
        let used = self.pod.handle()?.stats_container(&task.container).await?;
        Ok(StatsResponse {
            stats: MessageField::some(stats::metrics(&used, stats::Version::of_host())?),
            ..StatsResponse::default()
        })
    }
}
