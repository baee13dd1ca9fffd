//! The holder: the process that makes a machine, waits with it, and stays for its life.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::setsid;
use tokio::time::timeout;
use vc_hypervisor::StopLimits;
use vc_store::{DeviceProcess, UnixMillis};
use vc_types::{ProcessIdentity, SandboxId, Timeline};

use super::below;
use super::priority::Priority;
use super::rehearsal::rehearse;
use super::request::{WaitingConfig, WaitingReport, refill};
use super::stillness::{go_on, stand_still};
use crate::error::{Error, Result, chain};
use crate::factory::{
    Door, Ended, FORM, FORM_OF, Facts, FilesTaken, HAND_OVER_LIMIT, KIND, Kind, Link, MakersLock,
    Pool, TEMPLATE, Template, WAITS,
};
use crate::fault;
use crate::keeper;
use crate::runtime::{Runtime, RuntimeOptions, blocking};
use crate::sandbox::Sandbox;
use crate::sandbox::machine::{HOLDER, Machine};
use crate::sandbox::place::Place;

/// How long another maker may be waited for. One machine takes some seconds.
const LOCK_LIMIT: Duration = Duration::from_secs(60);

/// How long a rehearsal may take. It takes half a second.
const REHEARSAL_LIMIT: Duration = Duration::from_secs(60);

/// Random bytes of a name.
const NAME_BYTES: usize = 4;

/// Digits of a kind that a name shows.
const KIND_DIGITS: usize = 12;

/// A machine that stands still, with nobody's work in its guest.
struct Held {
    machine: Machine,
    place: Place,
    containers_made: u64,
    /// What the host's monotonic clock showed when the guest's showed 0, had it not stood still.
    guest_epoch: u64,
    /// Since when it stands still.
    paused: u64,
}

/// Does what `internal hold` is for: reads a [`WaitingConfig`] from standard input, makes the machine,
/// reports on standard output, and stays until the machine has ended. Call it before there is
/// another thread.
///
/// # Errors
///
/// When nothing can be read or reported. What keeps the machine from being made is in the report.
///
/// ```no_run
/// let is_holder = std::env::args().skip(1).eq(["internal", "hold"]);
/// if is_holder {
///     virtcontainers::hold()?;
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn hold() -> io::Result<()> {
    vc_launch::close_inherited()?;
    // Neither a terminal nor a job control of whoever started it reaches it.
    let _ = setsid();
    let waiting = WaitingConfig::read(&mut io::stdin())?;
    let priority = Priority::give_way()?;
    keeper::block_on(async |quiet| {
        let made = Box::pin(make(&waiting, priority)).await;
        let (report, held) = match made {
            Ok((report, held)) => (report, held),
            Err(error) => (WaitingReport::Failed(chain(&error)), None),
        };
        report.send(io::stdout())?;
        // Whoever waits for the report reads to its end.
        let null = std::fs::File::options().write(true).open("/dev/null")?;
        rustix::stdio::dup2_stdout(null)?;
        quiet.begin();
        if let Some((held, door)) = held {
            Box::pin(held.stay(door)).await;
        }
        Ok(())
    })?
}

/// Makes the machine, unless there are enough.
async fn make(
    waiting: &WaitingConfig,
    priority: Priority,
) -> Result<(WaitingReport, Option<(Held, Door)>)> {
    let pool = Pool::of(&waiting.config);
    let (locking, patient) = (pool.clone(), waiting.patient);
    let locking = blocking(move || locking.lock(patient));
    // One that makes a machine for longer is not waited for.
    let lock = timeout(LOCK_LIMIT, locking).await.unwrap_or(Ok(None))?;
    let Some(lock) = lock else {
        return Ok((WaitingReport::Busy, None));
    };
    let runtime = Runtime::open(RuntimeOptions {
        factory: Arc::new(Template::new(&waiting.config)),
        config: below(&waiting.config),
        program: waiting.program.clone(),
        ..RuntimeOptions::default()
    })?;
    sweep(&runtime);
    let (id, kind) = name(waiting, &runtime)?;
    if of_kind(&pool, &kind)? >= waiting.enough {
        return Ok((WaitingReport::Enough, None));
    }
    if !waiting.patient {
        pool.make_room(&kind, waiting.enough)?;
    }
    fault::point("hold.begun")?;
    let held = prepare(waiting, &runtime, id.clone(), &kind).await?;
    let door = held.announce(priority).await?;
    fault::point("hold.announced")?;
    drop::<MakersLock>(lock);
    // Whoever is patient counts by itself.
    let left = waiting.left.saturating_sub(1);
    if !waiting.patient && left > 0 && of_kind(&pool, &kind)? < waiting.enough {
        let next = WaitingConfig {
            left,
            ..waiting.clone()
        };
        refill(&next, held.place.directory());
    }
    Ok((WaitingReport::Waits(id), Some((held, door))))
}

/// Removes what holders that were killed have left. It is no reason to make none.
fn sweep(runtime: &Runtime) {
    match runtime.gc(false) {
        Ok(report) => {
            for left in report.left {
                tracing::warn!(left, "could not be removed");
            }
        }
        Err(error) => tracing::warn!(error = chain(&error), "nothing is swept"),
    }
}

/// How many of a kind wait, those included that are being made.
fn of_kind(pool: &Pool, kind: &Kind) -> Result<u32> {
    let all = pool.list()?.into_iter();
    let number = all.filter(|one| one.kind == kind.as_str()).count();
    Ok(u32::try_from(number).unwrap_or(u32::MAX))
}

/// A name that nobody has, and what the machine is.
fn name(waiting: &WaitingConfig, runtime: &Runtime) -> Result<(SandboxId, Kind)> {
    let mut random = [0; NAME_BYTES];
    let got = rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty());
    got.map_err(|errno| Error::System {
        attempt: "get random bytes".into(),
        source: errno.into(),
    })?;
    let number = u32::from_ne_bytes(random);
    let config = waiting.sandbox(SandboxId::new("waiting")?)?;
    let shared = runtime.shared();
    let surroundings = shared.driver.surroundings();
    surroundings.check(&config)?;
    let planned = surroundings.plan(shared, &config, &[])?;
    let key = planned.waiting_key(shared, &config)?;
    let key = key.ok_or_else(|| Error::Unsupported {
        what: format!("a machine that waits ({waiting})"),
    })?;
    let kind = Kind::of(&key);
    let shown = &kind.as_str()[..KIND_DIGITS];
    Ok((SandboxId::new(format!("{shown}-{number:08x}"))?, kind))
}

/// Makes the sandbox, has it rehearse, and stops its processors.
async fn prepare(
    waiting: &WaitingConfig,
    runtime: &Runtime,
    id: SandboxId,
    kind: &Kind,
) -> Result<Held> {
    let mut config = waiting.sandbox(id)?;
    let noted = [(KIND, kind.to_string()), (FORM_OF, FORM.to_owned())];
    config.annotations = noted.map(|(key, value)| (key.to_owned(), value)).into();
    let sandbox = runtime.create_sandbox(config).await?;
    fault::point("hold.made")?;
    if let Some(template) = sandbox.template() {
        let noted = [(TEMPLATE.to_owned(), template.to_string())];
        sandbox.set_annotations(noted.into()).await?;
    }
    let shown = runtime.sandbox_directory(sandbox.id())?.join("rehearsal");
    let system = |source| Error::System {
        attempt: format!("make {}", shown.display()),
        source,
    };
    std::fs::create_dir(&shown).map_err(system)?;
    match timeout(REHEARSAL_LIMIT, rehearse(&sandbox, &shown, waiting)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return Err(error),
        Err(_) => return Err(system(io::ErrorKind::TimedOut.into())),
    }
    fault::point("hold.rehearsed")?;
    Held::of(sandbox).await
}

impl Held {
    /// Lets go of what acts on a running sandbox, and stops the processors.
    async fn of(sandbox: Sandbox) -> Result<Self> {
        let Sandbox {
            clock,
            _leases: leases,
            handle,
            machine,
            network,
            place,
            guest_epoch,
            ..
        } = sandbox;
        drop((clock, leases, network, handle));
        let containers_made = place.directory().read()?.containers_made;
        stand_still(machine.vm().as_ref()).await?;
        Ok(Self {
            machine,
            place,
            containers_made,
            guest_epoch,
            paused: Timeline::now(),
        })
    }

    /// From here on it can be taken.
    async fn announce(&self, priority: Priority) -> Result<Door> {
        let own = ProcessIdentity::current()?;
        let system = |attempt: &'static str| {
            move |source| Error::System {
                attempt: attempt.into(),
                source,
            }
        };
        // It costs nothing while it stands still, and is not to lag behind when it is taken.
        let vmm = self.machine.vm().processes();
        let devices = self.machine.devices().iter().map(|(_, identity)| identity);
        priority
            .restore(vmm.iter().chain(devices).chain([&own]))
            .map_err(system("restore the priority of a machine"))?;
        let directory = self.place.directory().clone();
        blocking(move || {
            directory.update(|record| {
                let now = UnixMillis::now().0.to_string();
                record.annotations.insert(WAITS.into(), now);
            })?;
            Ok(())
        })
        .await?;
        Door::open(self.place.path()).map_err(system("listen for whoever takes a machine"))
    }

    /// Waits for a taker, and stays until the machine has ended. Everything is gone then.
    async fn stay(self, door: Door) {
        let taker = tokio::select! {
            taker = door.taker() => taker,
            reason = self.machine.end().reason() => {
                tracing::warn!(%reason, "the machine ended while it waited");
                return;
            }
            // Also where it cannot be watched: one that nobody finds would wait for ever.
            _ = door.removed() => {
                tracing::warn!("the place where the machine waited is gone");
                let Self { machine, place, .. } = self;
                end(machine).await;
                if let Err(error) = place.give_up_lost().await {
                    tracing::warn!(%error, "the cgroup of a machine that waited stays");
                }
                return;
            }
        };
        // Whoever comes second finds nobody.
        drop(door);
        let Self { machine, place, .. } = &self;
        let (vm, sandbox) = (machine.vm(), place.id().clone());
        let mut link = match taker {
            Ok(link) => link,
            Err(error) => {
                tracing::warn!(%sandbox, %error, "nobody can take the machine");
                return self.end().await;
            }
        };
        let handed_over = async {
            go_on(vm.as_ref()).await?;
            let stood = Timeline::now().saturating_sub(self.paused);
            link.send(&self.facts(self.guest_epoch + stood)?).await?;
            fault::point("hold.answered")?;
            link.expect::<FilesTaken>().await?;
            Ok::<_, Box<dyn std::error::Error>>(())
        };
        if let Err(error) = handed_over.await {
            tracing::info!(%sandbox, %error, "the machine was not taken after all");
            return self.end().await;
        }
        let Self { machine, place, .. } = self;
        follow(machine, place, link).await;
    }

    fn facts(&self, guest_epoch: u64) -> Result<Facts> {
        let devices = self.machine.devices().iter();
        let devices = devices.map(|(name, identity)| ((*name).to_owned(), identity.clone()));
        let own = (HOLDER.to_owned(), ProcessIdentity::current()?);
        let processes = devices.chain([own]);
        Ok(Facts {
            vm: self.machine.vm().state(),
            processes: processes
                .map(|(name, identity)| DeviceProcess { name, identity })
                .collect(),
            containers_made: self.containers_made,
            guest_epoch,
        })
    }

    /// Ends the machine, and removes what is left of its place.
    async fn end(self) {
        end(self.machine).await;
    }
}

async fn end(machine: Machine) {
    if let Err(error) = machine.stop(StopLimits::AT_ONCE).await {
        tracing::error!(%error, "a machine that nobody took does not end");
    }
}

/// Stays with a machine that somebody took until it has ended, or the taker is gone.
async fn follow(machine: Machine, place: Place, mut link: Link) {
    if let Err(error) = place.remove().await {
        tracing::warn!(%error, "the place where a machine waited stays");
    }
    let reason = tokio::select! {
        reason = machine.end().reason() => reason,
        () = link.closed() => {
            if let Err(error) = machine.stop(StopLimits::AT_ONCE).await {
                tracing::error!(%error, "the machine of a taker that is gone does not end");
            }
            return;
        }
    };
    let said = timeout(HAND_OVER_LIMIT, link.send(&Ended { reason })).await;
    if !matches!(said, Ok(Ok(()))) {
        tracing::debug!("the taker is gone too");
    }
}
