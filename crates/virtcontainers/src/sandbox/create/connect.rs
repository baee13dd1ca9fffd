use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use agent_protocol::agent::{CreateSandboxRequest, Storage};
use agent_protocol::oci_convert;
use agent_protocol::virtc::HelloRequest;
use vc_agent_client::{AgentClient, Transport};
use vc_hypervisor::StopLimits;
use vc_types::{ClockPoint, ContainerId, Timeline, guest};

use super::super::Sandbox;
use super::super::clock::{ClockKeeper, host_realtime_ns};
use super::super::config::{SandboxConfig, Scratch};
use super::super::guest::{EndWatch, Guest};
use super::super::machine::Machine;
use super::super::place::Place;
use super::Staged;
use super::launch::Launched;
use crate::container::placement::Placement;
use crate::error::{Error, Result, Stage};
use crate::fault;
use crate::runtime::{Shared, blocking};
use crate::stream::{Streams, made_and_attached};

/// Bytes of randomness that the guest gets at its start.
const SEED_BYTES: usize = 64;

/// A machine whose guest is prepared and whose containers wait for their start.
pub(super) struct Connected {
    runtime: Arc<Shared>,
    machine: Arc<Machine>,
    guest: Guest,
    streams: BTreeMap<ContainerId, Streams>,
    writable: bool,
    /// What the host's monotonic clock shows when the guest's shows 0, in microseconds.
    guest_epoch: u64,
}

/// Waits for the guest and prepares it. Whatever is waited for, the end of the machine ends it.
pub(super) async fn connect(
    runtime: &Arc<Shared>,
    launched: Launched,
    timeline: &mut Timeline,
) -> Result<Connected, Staged> {
    let sandbox = launched.config.id.clone();
    let Launched {
        config,
        containers,
        machine,
        ready,
        address,
        scratch,
        shares,
        writable,
    } = launched;
    let limits = &runtime.config.limits;
    let stage = Cell::new(Stage::Boot);
    let prepared = async {
        let report = ready.wait(limits.agent_ready_ms.duration()).await?;
        let guest_epoch = Timeline::now().saturating_sub(report.uptime_us);
        timeline.step_at("guest kernel began", guest_epoch);
        fault::point("create.agent-ready")?;
        let transport = Transport::new(address, limits.agent_connect_ms.duration());
        let agent = AgentClient::connect(&transport, Guest::call_limits(limits)).await?;
        fault::point("create.agent-connected")?;

        // All at once: an answer of the guest takes long where it is emulated.
        stage.set(Stage::GuestPreparation);
        let greeted = greet(&agent, &config, guest_epoch, timeline);
        let sandbox_made = async {
            if let Some(mut scratch) = scratch {
                blocking(move || Ok(scratch.formatted()?)).await?;
            }
            Ok(agent
                .create_sandbox(sandbox_request(&config, &shares))
                .await?)
        };
        tokio::try_join!(greeted, sandbox_made, write_files(&agent, &containers))?;
        timeline.step("guest prepared");
        fault::point("create.guest-prepared")?;

        stage.set(Stage::ContainerCreation);
        let mut streams = BTreeMap::new();
        for (id, placement) in containers {
            let attached = async {
                let limit = limits.agent_create_ms.duration();
                let attached =
                    Streams::attach(&transport, limit, &id, None, placement.has_terminal());
                match placement.attach {
                    true => Ok(Some(attached.await?)),
                    false => Ok(None),
                }
            };
            let made = create_container(&agent, &id, &placement, config.shared_pids);
            if let Some(attached) = made_and_attached(made, attached).await? {
                streams.insert(id, attached);
            }
            timeline.step("container made");
        }
        fault::point("create.container-made")?;
        Ok((agent, transport, streams, guest_epoch))
    };
    let prepared = machine.while_it_runs(&sandbox, prepared).await;
    let (agent, transport, streams, guest_epoch) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => {
            // The console is complete once the machine has ended.
            if let Err(error) = machine.stop(StopLimits::AT_ONCE).await {
                tracing::error!(%error, "the machine of a failed start does not end");
            }
            return Err((stage.get(), error));
        }
    };
    let machine = Arc::new(machine);
    let guest = Guest {
        sandbox,
        agent,
        transport,
        attach_limit: limits.agent_create_ms.duration(),
        end: EndWatch::Kept(Arc::clone(&machine)),
    };
    Ok(Connected {
        runtime: Arc::clone(runtime),
        machine,
        guest,
        streams,
        writable,
        guest_epoch,
    })
}

impl Connected {
    /// Writes down that the sandbox is ready, and hands it out.
    pub(super) async fn into_sandbox(
        self,
        mut place: Place,
        timeline: Timeline,
    ) -> Result<Sandbox> {
        if let Err(error) = place.ready().await {
            // The machine goes before its place.
            drop(self);
            return Err(error);
        }
        let interval = self.runtime.config.limits.clock_ms.duration();
        Ok(Sandbox {
            _clock: ClockKeeper::start(self.guest.agent.clone(), interval),
            runtime: self.runtime,
            place,
            machine: self.machine,
            guest: self.guest,
            streams: Mutex::new(self.streams),
            writable: self.writable,
            timeline: Mutex::new(timeline),
            guest_epoch: self.guest_epoch,
        })
    }
}

/// Gives the guest its clock, its name and randomness, and learns how its start went.
async fn greet(
    agent: &AgentClient,
    config: &SandboxConfig,
    guest_epoch: u64,
    timeline: &mut Timeline,
) -> Result<()> {
    let hello = agent.hello(hello(config)?).await?;
    timeline.mark(ClockPoint::Ready);
    for step in &hello.boot {
        let name = vc_types::one_line(&step.name);
        let at = guest_epoch.saturating_add(step.uptime_us);
        timeline.step_at(format!("guest: {name}"), at);
    }
    Ok(())
}

fn hello(config: &SandboxConfig) -> Result<HelloRequest> {
    let mut seed = vec![0; SEED_BYTES];
    getrandom(&mut seed)?;
    Ok(HelloRequest {
        // A host before 1970 leaves the guest's clock alone.
        host_realtime_ns: u64::try_from(host_realtime_ns()).unwrap_or_default(),
        seed,
        hostname: hostname(config),
        ..HelloRequest::default()
    })
}

/// The guest's name: the sandbox's where none was asked for.
fn hostname(config: &SandboxConfig) -> String {
    config
        .hostname
        .clone()
        .unwrap_or_else(|| config.id.to_string())
}

fn getrandom(seed: &mut [u8]) -> Result<()> {
    let failed = |source| Error::System {
        attempt: "get random bytes".into(),
        source,
    };
    let got = rustix::rand::getrandom(&mut *seed, rustix::rand::GetRandomFlags::empty())
        .map_err(|errno| failed(errno.into()))?;
    // Up to 256 bytes come at once.
    if got == seed.len() {
        Ok(())
    } else {
        Err(failed(std::io::ErrorKind::UnexpectedEof.into()))
    }
}

fn sandbox_request(config: &SandboxConfig, shares: &[&str]) -> CreateSandboxRequest {
    let mut storages: Vec<Storage> = shares.iter().map(|tag| share_storage(tag)).collect();
    storages.push(scratch_storage(config.scratch));
    CreateSandboxRequest {
        hostname: hostname(config),
        sandbox_id: config.id.to_string(),
        storages,
        sandbox_pidns: config.shared_pids,
        ..CreateSandboxRequest::default()
    }
}

fn share_storage(tag: &str) -> Storage {
    Storage {
        driver: "virtio-fs".into(),
        source: tag.into(),
        fstype: "virtiofs".into(),
        options: vec!["nodev".into()],
        mount_point: format!("{}/{tag}", guest::SHARES_DIR),
        ..Storage::default()
    }
}

fn scratch_storage(scratch: Scratch) -> Storage {
    let mount_point = guest::SCRATCH_DIR.to_owned();
    match scratch {
        Scratch::Disk { .. } => Storage {
            driver: "blk".into(),
            source: format!("serial={}", guest::SCRATCH_SERIAL),
            fstype: "ext4".into(),
            options: vec!["noatime".into(), "nodev".into()],
            mount_point,
            ..Storage::default()
        },
        Scratch::Memory { size } => Storage {
            driver: "ephemeral".into(),
            source: "tmpfs".into(),
            fstype: "tmpfs".into(),
            options: size
                .map(|size| format!("size={}", size.bytes()))
                .into_iter()
                .collect(),
            mount_point,
            ..Storage::default()
        },
    }
}

async fn write_files(agent: &AgentClient, containers: &[(ContainerId, Placement)]) -> Result<()> {
    for (path, contents) in containers
        .iter()
        .flat_map(|(_, placement)| &placement.files)
    {
        agent.write_file(path, 0o644, contents.clone()).await?;
    }
    Ok(())
}

async fn create_container(
    agent: &AgentClient,
    id: &ContainerId,
    placement: &Placement,
    shared_pids: bool,
) -> Result<()> {
    let spec = oci_convert::spec_to_message(&placement.spec).map_err(|source| Error::Protocol {
        container: id.clone(),
        source,
    })?;
    Ok(agent
        .create_container(id, spec, placement.storages.clone(), shared_pids)
        .await?)
}
