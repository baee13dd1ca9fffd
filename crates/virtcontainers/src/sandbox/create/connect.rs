use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use agent_protocol::agent::{CreateSandboxRequest, Storage};
use agent_protocol::storages;
use vc_agent_client::Transport;
use vc_hypervisor::StopLimits;
use vc_types::{ContainerId, Timeline, guest};

use super::super::Sandbox;
use super::super::clock::ClockKeeper;
use super::super::config::{SandboxConfig, Scratch};
use super::super::guest::{EndWatch, Guest};
use super::super::handle::SandboxHandle;
use super::super::lease::Leases;
use super::super::machine::Machine;
use super::super::network::{AttachedNetwork, FollowedNetwork};
use super::super::place::Place;
use super::super::{cgroups, resize};
use super::launch::Launched;
use super::reach::{self, Greeting, Reached, hostname};
use super::{Staged, answered};
use crate::container::filter::{GuestFilters, PendingFilter};
use crate::container::placement::Placement;
use crate::error::{Result, Stage};
use crate::factory::Origin;
use crate::fault;
use crate::runtime::{Shared, blocking};
use crate::stream::Streams;

/// A machine whose guest is prepared and whose containers wait for their start.
pub(super) struct Connected {
    pub(super) runtime: Arc<Shared>,
    pub(super) machine: Machine,
    /// Goes after the machine, which has its taps.
    pub(super) network: Option<AttachedNetwork>,
    pub(super) guest: Guest,
    pub(super) streams: BTreeMap<ContainerId, Streams>,
    pub(super) writable: bool,
    pub(super) throw_away: bool,
    pub(super) origin: Origin,
    /// What the host's monotonic clock shows when the guest's shows 0, in microseconds.
    pub(super) guest_epoch: u64,
}

/// A machine and its network, in the order in which they go where a start is given up.
struct Up {
    machine: Machine,
    network: Option<AttachedNetwork>,
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
        network,
        guest_network,
        ready,
        address,
        scratch,
        shares,
        writable,
        origin,
    } = launched;
    let up = Up { machine, network };
    let (machine, network) = (&up.machine, &up.network);
    let throw_away = config.throw_away;
    let limits = &runtime.config.limits;
    // Not a cell: whoever starts a sandbox may do it on any thread.
    let stage = Mutex::new(Stage::Boot);
    let enter = |next| *stage.lock().unwrap_or_else(PoisonError::into_inner) = next;
    // There is time until the guest answers.
    let filters = pending_filters(&containers, &origin);
    let prepared = async {
        let transport = Transport::new(address, limits.agent_connect_ms.duration());
        let reached = match origin {
            Origin::Cloned(_) => {
                // It is not waited for, and would be told to nobody.
                drop(ready);
                reach::cloned(&transport, &config, limits, timeline).await?
            }
            _ => reach::booted(ready, &transport, limits, timeline).await?,
        };
        answered(&sandbox, &origin);
        fault::point("create.agent-connected")?;
        let Reached {
            agent,
            guest_epoch,
            greeting,
        } = reached;
        let guest = Guest {
            sandbox: sandbox.clone(),
            agent,
            transport,
            attach_limit: limits.agent_create_ms.duration(),
            end: EndWatch::Kept(machine.end().clone()),
        };

        // All at once: an answer of the guest takes long where it is emulated.
        enter(Stage::GuestPreparation);
        let greeted = reach::greet(&guest.agent, &config, guest_epoch, greeting, timeline);
        let sandbox_made = async {
            if let Some(scratch) = scratch {
                blocking(move || Ok(scratch.finish()?)).await?;
            }
            let request = sandbox_request(&config, &shares);
            match greeting {
                Greeting::TimeWithSandbox => {
                    let time = reach::host_time();
                    Ok(guest.agent.create_timed_sandbox(request, time).await?)
                }
                Greeting::Due | Greeting::Again => Ok(guest.agent.create_sandbox(request).await?),
            }
        };
        let network_configured = async {
            let attached = network.as_ref().and_then(AttachedNetwork::for_the_guest);
            if let Some(wanted) = attached.or(guest_network) {
                guest.agent.configure_network(&wanted).await?;
                fault::point("network.configured")?;
            }
            Ok(())
        };
        let grown = resize::grow_new(&**machine.vm(), &guest, config.vm.wanted(), limits);
        tokio::try_join!(greeted, sandbox_made, network_configured, grown)?;
        timeline.step("guest prepared");
        fault::point("create.guest-prepared")?;

        enter(Stage::ContainerCreation);
        let streams = create(&guest, containers, filters, config.shared_pids, timeline).await?;
        Ok((guest, streams, guest_epoch))
    };
    let prepared = machine.end().while_it_runs(&sandbox, prepared).await;
    let (guest, streams, guest_epoch) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => {
            // The console is complete once the machine has ended.
            if let Err(error) = machine.stop(StopLimits::AT_ONCE).await {
                tracing::error!(%error, "the machine of a failed start does not end");
            }
            return Err((
                stage.into_inner().unwrap_or_else(PoisonError::into_inner),
                error,
            ));
        }
    };
    let Up { machine, network } = up;
    Ok(Connected {
        runtime: Arc::clone(runtime),
        machine,
        network,
        guest,
        streams,
        writable,
        throw_away,
        origin,
        guest_epoch,
    })
}

/// The filters of system calls that the host makes for the containers of a guest, in their order.
pub(super) fn pending_filters(
    containers: &[(ContainerId, Placement)],
    origin: &Origin,
) -> Vec<Option<PendingFilter>> {
    let guest = match origin {
        Origin::Booted => GuestFilters::None,
        Origin::Cloned(_) | Origin::Waited => GuestFilters::Usual,
    };
    let begin = |(_, placement): &(_, Placement)| PendingFilter::begin(&placement.spec, guest);
    containers.iter().map(begin).collect()
}

/// Makes containers, each with its filter of system calls, and attaches to their streams.
pub(super) async fn create(
    guest: &Guest,
    containers: Vec<(ContainerId, Placement)>,
    filters: Vec<Option<PendingFilter>>,
    shared_pids: bool,
    timeline: &mut Timeline,
) -> Result<BTreeMap<ContainerId, Streams>> {
    let mut streams = BTreeMap::new();
    let mut filters = filters.into_iter();
    for (id, placement) in containers {
        let filter = filters.next().flatten();
        let made = guest.create(&id, &placement, filter, shared_pids);
        if let Some(attached) = made.await? {
            streams.insert(id, attached);
        }
        timeline.step("container made");
    }
    fault::point("create.container-made")?;
    Ok(streams)
}

impl Connected {
    /// Writes down that the sandbox is ready, and hands it out.
    pub(super) async fn into_sandbox(self, place: Place, timeline: Timeline) -> Result<Sandbox> {
        // In this order: where this is given up, the machine goes before its place.
        let mut place = place;
        let connected = self;
        let written = async {
            place.ready(&connected.machine).await?;
            // It stands for containers only once they are there.
            for entry in place.directory().read()?.containers.values() {
                cgroups::join_container(entry)?;
            }
            fault::point("create.written")
        };
        if let Err(error) = written.await {
            // The machine goes before its place.
            drop(connected);
            return Err(error);
        }
        let interval = connected.runtime.config.limits.clock_ms.duration();
        let clock = ClockKeeper::start(connected.guest.agent.clone(), interval);
        let directory = place.directory().clone();
        let handle = SandboxHandle::new(
            &connected.runtime,
            directory,
            connected.guest,
            connected.streams,
        );
        let leases = match Leases::serve(handle.clone()) {
            Ok(leases) => leases,
            Err(error) => {
                drop(connected.machine);
                return Err(error);
            }
        };
        let mut network = connected.network;
        let network = match FollowedNetwork::begin(handle.clone(), &mut network) {
            Ok(network) => network,
            Err(error) => {
                drop(connected.machine);
                return Err(error);
            }
        };
        Ok(Sandbox {
            clock,
            _leases: leases,
            handle,
            place,
            machine: connected.machine,
            network,
            writable: connected.writable,
            at_rest: Mutex::default(),
            throw_away: connected.throw_away,
            origin: connected.origin,
            timeline: Mutex::new(timeline),
            guest_epoch: connected.guest_epoch,
            refill: Mutex::default(),
        })
    }
}

fn sandbox_request(config: &SandboxConfig, shares: &[&str]) -> CreateSandboxRequest {
    let mut storages: Vec<Storage> = shares.iter().map(|tag| storages::share(tag)).collect();
    storages.push(scratch_storage(config.scratch));
    CreateSandboxRequest {
        hostname: hostname(config),
        sandbox_id: config.id.to_string(),
        storages,
        sandbox_pidns: config.shared_pids,
        ..CreateSandboxRequest::default()
    }
}

fn scratch_storage(scratch: Scratch) -> Storage {
    match scratch {
        Scratch::Disk { .. } => storages::scratch_disk(),
        Scratch::Memory { size } => Storage {
            driver: "ephemeral".into(),
            source: "tmpfs".into(),
            fstype: "tmpfs".into(),
            options: size
                .map(|size| format!("size={}", size.bytes()))
                .into_iter()
                .collect(),
            mount_point: guest::SCRATCH_DIR.into(),
            ..Storage::default()
        },
    }
}
