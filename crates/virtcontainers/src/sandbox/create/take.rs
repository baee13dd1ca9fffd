//! The short way up: a machine that waits is taken, instead of everything being made.

use std::io;
use std::path::Path;
use std::sync::Arc;

use vc_agent_client::{AgentClient, Transport};
use vc_hypervisor::StopLimits;
use vc_storage::{Access as ShareAccess, RunningShare, Source};
use vc_types::{ClockPoint, ContainerId, ProcessIdentity, Timeline};

use super::super::guest::{EndWatch, Guest};
use super::super::machine::{HOLDER, Machine};
use super::super::place::{Place, remove_commands_socket};
use super::super::surroundings::{SYSTEM_SHARE, USER_SHARE, VSOCK_DEVICE};
use super::super::{cgroups, machine_files, resize, vsock};
use super::connect::{Connected, create, pending_filters};
use super::prepare::Prepared;
use super::reach::hello;
use super::{Staged, answered, at};
use crate::container::placement::{Placement, ShareEntry};
use crate::error::{Error, Result, Stage, chain};
use crate::factory::{Facts, FilesTaken, Kind, Origin, Taken};
use crate::fault;
use crate::runtime::{Shared, blocking};

/// Takes a machine for this sandbox, and makes its containers there. Nothing where none of its kind
/// waits, or what waited does not serve: nothing of it is left then.
///
/// # Errors
///
/// What keeps the containers from being made: another machine would not make them either.
pub(super) async fn take(
    runtime: &Arc<Shared>,
    prepared: &mut Prepared,
    place: &mut Place,
    timeline: &mut Timeline,
) -> Result<Option<Connected>, Staged> {
    if !runtime.factory.has_waiting() {
        return Ok(None);
    }
    let key = prepared.surroundings.waiting_key(runtime, &prepared.config);
    let kind = match key {
        Ok(Some(key)) => Kind::of(&key),
        Ok(None) => return Ok(None),
        Err(error) => {
            tracing::warn!(sandbox = %place.id(), error = chain(&error), "no machine is taken");
            return Ok(None);
        }
    };
    let Some(taken) = runtime.factory.take(&kind).await else {
        return Ok(None);
    };
    timeline.mark(ClockPoint::Spawned);
    let got = match receive(runtime, prepared, place, taken).await {
        Ok(got) => got,
        Err(error) => {
            let error = chain(&error);
            tracing::warn!(sandbox = %place.id(), error, "a machine that waited does not serve");
            remove_commands_socket(place.directory()).map_err(at(Stage::Launch))?;
            return Ok(None);
        }
    };
    timeline.mark(ClockPoint::Ready);
    timeline.step("guest prepared");
    let connected = furnish(runtime, prepared, place, got, timeline).await;
    connected.map(Some).map_err(at(Stage::ContainerCreation))
}

/// A machine that is this process's, with a guest that has its name.
struct Got {
    machine: Machine,
    guest: Guest,
    containers_made: u64,
    guest_epoch: u64,
}

/// Takes what there is of the machine, and tells the guest who it is now.
async fn receive(
    runtime: &Arc<Shared>,
    prepared: &Prepared,
    place: &mut Place,
    taken: Taken,
) -> Result<Got> {
    let Taken {
        facts,
        mut link,
        directory,
    } = taken;
    fault::point("take.answered")?;
    let own = place.path().to_owned();
    blocking(move || move_files(&directory, &own)).await?;
    fault::point("take.moved")?;
    let Facts {
        vm,
        processes,
        containers_made,
        guest_epoch,
    } = facts;
    let devices = processes.iter().map(|process| process.identity.clone());
    let all: Vec<ProcessIdentity> = devices.chain(vm.processes()).collect();
    let directory = place.directory().clone();
    blocking(move || {
        let record = directory.read()?;
        let moved = cgroups::move_into_sandbox(&record, &all);
        // Whoever has given this up may have removed the place before the cgroup was there.
        if directory.read().is_err_and(|error| error.is_not_found()) {
            let left = cgroups::remove_all(&record).join(", ");
            if !left.is_empty() {
                tracing::warn!(sandbox = %record.id(), left, "its place is gone, and this stays");
            }
        }
        moved
    })
    .await?;
    let told = link.send(&FilesTaken).await;
    told.map_err(|source| system("take the files of a machine", source))?;
    let address = vsock::address(place.path());
    let state = vm.moved(place.path(), address.clone());
    let surroundings = runtime.driver.surroundings();
    let vm = surroundings
        .attach(&runtime.config, place.id(), &state)
        .await?;
    let processes = processes.into_iter();
    let processes = processes.filter_map(|process| Some((known(&process.name)?, process.identity)));
    let machine = Machine::held(vm, processes.collect(), link);
    place.describe(&machine).await?;
    fault::point("take.described")?;

    let limits = &runtime.config.limits;
    let transport = Transport::new(address, limits.agent_connect_ms.duration());
    let sandbox = place.id().clone();
    let greeted = async {
        let agent = AgentClient::connect(&transport, Guest::call_limits(limits)).await?;
        agent.hello(hello(&prepared.config)?).await?;
        Ok(agent)
    };
    let agent = machine.end().while_it_runs(&sandbox, greeted).await?;
    answered(&sandbox, &Origin::Waited);
    fault::point("take.greeted")?;
    let guest = Guest {
        sandbox,
        agent,
        transport,
        attach_limit: limits.agent_create_ms.duration(),
        end: EndWatch::Kept(machine.end().clone()),
    };
    let wanted = prepared.config.vm.wanted();
    resize::grow_new(&**machine.vm(), &guest, wanted, limits).await?;
    Ok(Got {
        guest,
        machine,
        containers_made,
        guest_epoch,
    })
}

/// Makes the containers, as those that come later are made.
async fn furnish(
    runtime: &Arc<Shared>,
    prepared: &mut Prepared,
    place: &mut Place,
    got: Got,
    timeline: &mut Timeline,
) -> Result<Connected> {
    let Got {
        machine,
        guest,
        containers_made,
        guest_epoch,
    } = got;
    let made = async {
        let mut containers: Vec<(ContainerId, Placement)> = Vec::new();
        for (number, config) in (containers_made..).zip(&prepared.config.containers) {
            let placement = runtime.placement(config, number)?;
            containers.push((config.id.clone(), placement));
        }
        place.describe_again(|record| {
            record.containers_made = containers_made;
            for (id, placement) in &containers {
                let number = record.next_container();
                if let Some(entry) = record.containers.get_mut(id) {
                    entry.number = number;
                    entry.shared = placement.entries.iter().map(|e| e.name.clone()).collect();
                }
            }
            Ok(())
        })?;
        let filters = pending_filters(&containers, &Origin::Waited);
        let shared = async {
            share(runtime, &machine, &containers).await?;
            fault::point("take.shared")
        };
        machine.end().while_it_runs(place.id(), shared).await?;
        timeline.step("files shared");
        let shared_pids = prepared.config.shared_pids;
        let made = create(&guest, containers, filters, shared_pids, timeline);
        let streams = machine.end().while_it_runs(place.id(), made).await?;
        let network = match prepared.surroundings.take_network() {
            Some(network) => Some(network.make_later(place).await?),
            None => None,
        };
        Ok((streams, network))
    };
    match made.await {
        Ok((streams, network)) => Ok(Connected {
            runtime: Arc::clone(runtime),
            network,
            guest,
            streams,
            writable: prepared.surroundings.is_writable(),
            throw_away: prepared.config.throw_away,
            origin: Origin::Waited,
            guest_epoch,
            machine,
        }),
        Err(error) => {
            // The console is complete once the machine has ended.
            if let Err(error) = machine.stop(StopLimits::AT_ONCE).await {
                tracing::error!(%error, "the machine of a failed start does not end");
            }
            Err(error)
        }
    }
}

/// Binds the containers' files into the share that was empty.
async fn share(
    runtime: &Arc<Shared>,
    machine: &Machine,
    containers: &[(ContainerId, Placement)],
) -> Result<()> {
    let open = |entry: &ShareEntry| -> Result<(String, Source, ShareAccess)> {
        let (source, access) = entry.open()?;
        Ok((entry.name.clone(), source, access))
    };
    let entries = containers
        .iter()
        .flat_map(|(_, placement)| &placement.entries);
    let entries = entries.map(open).collect::<Result<Vec<_>>>()?;
    if entries.is_empty() {
        return Ok(());
    }
    let mut devices = machine.devices().iter();
    let process = devices.find(|(name, _)| *name == USER_SHARE);
    let process: Option<ProcessIdentity> = process.map(|(_, identity)| identity.clone());
    let process = process.ok_or_else(|| Error::Unsupported {
        what: "a directory of the host in a machine without a share for it".into(),
    })?;
    let program = runtime.program.clone();
    blocking(move || {
        let share = RunningShare {
            program: &program,
            process: &process,
        };
        Ok(share.add(entries)?)
    })
    .await
}

/// Moves the sockets and logs of a machine to where its sandbox has them.
fn move_files(from: &Path, to: &Path) -> Result<()> {
    // A machine before, of a sandbox that was stopped, may have left its own.
    match std::fs::remove_dir_all(to.join(vsock::DIRECTORY)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        removed => {
            removed.map_err(|source| system("remove sockets of a machine before", source))?
        }
    }
    for name in machine_files() {
        match std::fs::rename(from.join(name), to.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            moved => moved.map_err(|source| {
                let (from, to) = (from.display(), to.display());
                system(&format!("move {name} from {from} to {to}"), source)
            })?,
        }
    }
    Ok(())
}

/// The name of a process by which the state knows it.
fn known(name: &str) -> Option<&'static str> {
    let names = [VSOCK_DEVICE, SYSTEM_SHARE, USER_SHARE, HOLDER];
    names.into_iter().find(|known| *known == name)
}

fn system(attempt: &str, source: io::Error) -> Error {
    Error::System {
        attempt: attempt.to_owned(),
        source,
    }
}
