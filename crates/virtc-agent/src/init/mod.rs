//! The guest's first process: mounts, modules, console, and what happens when it cannot go on.

mod beside;
pub(crate) mod console;
mod kernel_arguments;
mod loopback;
mod mounts;
mod timeline;

use crate::cgroup::MemoryOfContainers;
use crate::error::{Attempt as _, Result};
use crate::modules::Modules;
use beside::Beside;

pub(crate) use kernel_arguments::KernelArguments;
pub(crate) use timeline::BootTimeline;

/// Files that the agent may have open at once: three streams a process and some.
const AGENT_FILES_MAX: u64 = 65_536;

/// What the start leaves for the agent.
pub(crate) struct Booted {
    pub(crate) modules: Modules,
    pub(crate) arguments: KernelArguments,
    pub(crate) timeline: BootTimeline,
    pub(crate) memory: MemoryOfContainers,
}

/// Turns the bare kernel into a system that containers can run on.
pub(crate) fn boot() -> Result<Booted> {
    let mut timeline = BootTimeline::begin("init");
    let initramfs = mounts::leave_initramfs()?;
    console::attach()?;
    mounts::finish()?;
    timeline.step("mounts");

    let arguments = KernelArguments::read()?;
    crate::log::LineLog {
        level: arguments.log_level,
        prefix: "virtc-agent: ",
        sink: crate::log::Sink::Console,
    }
    .install();
    let modules = Modules::open(initramfs)?;
    let beside = Beside::start(&modules)?;
    modules.load_boot()?;
    timeline.step("modules");
    let memory = beside.finish()?;

    protect_agent()?;
    Ok(Booted {
        modules,
        arguments,
        timeline,
        memory,
    })
}

/// The agent is the last that may run out of anything.
fn protect_agent() -> Result<()> {
    std::fs::write("/proc/self/oom_score_adj", "-1000")
        .attempt(|| "protect the agent from the OOM killer".into())?;
    let limit = rustix::process::Rlimit {
        current: Some(AGENT_FILES_MAX),
        maximum: Some(crate::container::CONTAINER_FILES_MAX),
    };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, limit)
        .attempt(|| "raise the agent's limit of open files".into())?;
    // What containers begin with when their specification does not say.
    rustix::process::umask(rustix::fs::Mode::WGRP | rustix::fs::Mode::WOTH);
    Ok(())
}

/// Switches the guest off.
pub(crate) fn power_off() {
    rustix::fs::sync();
    if let Err(error) = rustix::system::reboot(rustix::system::RebootCommand::PowerOff) {
        console::fatal(&format!("cannot switch off: {error}"));
    }
}
