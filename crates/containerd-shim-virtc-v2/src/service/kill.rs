use containerd_shim_protos::api::KillRequest;
use containerd_shim_protos::events::task::{TaskPaused, TaskResumed};
use vc_types::Signal;

use super::TaskService;
use crate::error::{Error, Result};
use crate::process::{Exit, Phase};

impl TaskService {
    /// Sends a signal. One that ends a task which is still being made gives its making up.
    pub(super) async fn kill_process(&self, request: &KillRequest) -> Result<()> {
        let task = self.pod.task(&request.id)?;
        let process = task.process(&request.exec_id)?;
        let number = u8::try_from(request.signal).unwrap_or_default();
        let signal = Signal::from_number(number)?;
        let finished = || Error::Finished {
            what: process.name().to_owned(),
        };
        if !request.exec_id.is_empty() && process.phase() == Phase::Created {
            // One that is just being started is waited for, so that it is not missed.
            let _changing = process.changing.lock().await;
            if process.phase() == Phase::Created {
                process.enter(Phase::Stopped(Exit::lost()));
                return Ok(());
            }
        }
        let sent = match process.phase() {
            Phase::Stopped(_) => return Err(finished()),
            Phase::Creating if matches!(signal, Signal::KILL | Signal::TERM) => {
                task.given_up.notify_one();
                return Ok(());
            }
            Phase::Creating => return process.expect(Phase::Running, "signalled"),
            Phase::Created | Phase::Running | Phase::Paused => match request.exec_id.as_str() {
                "" => {
                    let sandbox = self.pod.handle()?;
                    sandbox
                        .kill_container(&task.container, signal, request.all)
                        .await
                }
                _ => process.guest("signalled")?.signal(signal).await,
            },
        };
        match sent {
            // It ended just now.
            Err(_) if process.phase().exit().is_some() => Err(finished()),
            Err(error) if error.is_of_an_end() => Err(finished()),
            sent => Ok(sent?),
        }
    }

    pub(super) async fn pause_task(&self, id: &str) -> Result<()> {
        let task = self.pod.task(id)?;
        let _changing = task.first.changing.lock().await;
        task.first.expect(Phase::Running, "paused")?;
        self.pod.handle()?.pause_container(&task.container).await?;
        if !task.first.enter(Phase::Paused) {
            return Ok(());
        }
        self.pod.events.publish(&TaskPaused {
            container_id: id.to_owned(),
            ..TaskPaused::default()
        });
        Ok(())
    }

    pub(super) async fn resume_task(&self, id: &str) -> Result<()> {
        let task = self.pod.task(id)?;
        let _changing = task.first.changing.lock().await;
        task.first.expect(Phase::Paused, "resumed")?;
        self.pod.handle()?.resume_container(&task.container).await?;
        if !task.first.enter(Phase::Running) {
            return Ok(());
        }
        self.pod.events.publish(&TaskResumed {
            container_id: id.to_owned(),
            ..TaskResumed::default()
        });
        Ok(())
    }
}
