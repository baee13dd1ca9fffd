//! How a process is scheduled, on processors and for its input and output.

use oci_spec::runtime::{
    IOPriorityClass, LinuxIOPriority, LinuxIOPriorityBuilder, LinuxSchedulerFlag, Scheduler,
};

use super::{convert_all, parse, refuse};
use crate::{Result, oci};

pub(super) fn io_priority_to_message(priority: &LinuxIOPriority) -> oci::LinuxIOPriority {
    oci::LinuxIOPriority {
        Class: priority.class().to_string(),
        Priority: priority.priority(),
        ..oci::LinuxIOPriority::default()
    }
}

pub(super) fn io_priority_from_message(message: &oci::LinuxIOPriority) -> Result<LinuxIOPriority> {
    LinuxIOPriorityBuilder::default()
        .class(parse::<IOPriorityClass>(
            "process.ioPriority.class",
            &message.Class,
        )?)
        .priority(message.Priority)
        .build()
        .map_err(|error| refuse("process.ioPriority", error))
}

pub(super) fn scheduler_to_message(scheduler: &Scheduler) -> oci::Scheduler {
    let flags = scheduler.flags().iter().flatten();
    oci::Scheduler {
        Policy: scheduler.policy().to_string(),
        Nice: *scheduler.nice(),
        Priority: *scheduler.priority(),
        Flags: flags.map(LinuxSchedulerFlag::to_string).collect(),
        Runtime: *scheduler.runtime(),
        Deadline: *scheduler.deadline(),
        Period: *scheduler.period(),
        ..oci::Scheduler::default()
    }
}

pub(super) fn scheduler_from_message(message: &oci::Scheduler) -> Result<Scheduler> {
    let flags = convert_all(&message.Flags, |flag| {
        parse("process.scheduler.flags", flag)
    })?;
    let mut scheduler = Scheduler::default();
    scheduler
        .set_policy(parse("process.scheduler.policy", &message.Policy)?)
        .set_nice(message.Nice)
        .set_priority(message.Priority)
        .set_flags(flags)
        .set_runtime(message.Runtime)
        .set_deadline(message.Deadline)
        .set_period(message.Period);
    Ok(scheduler)
}
