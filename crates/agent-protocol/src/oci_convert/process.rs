//! A process: user, arguments, capabilities and limits.

use oci_spec::runtime::{
    BoxBuilder, Capabilities, Capability, LinuxCapabilities, PosixRlimit, PosixRlimitBuilder,
    Process, User,
};
use protobuf::MessageField;

use super::scheduling::{
    io_priority_from_message, io_priority_to_message, scheduler_from_message, scheduler_to_message,
};
use super::{
    convert_all, convert_list, list, number, parse, path_text, refuse, refuse_if_set, set,
};
use crate::{Result, oci};

/// A process as a message; for an exec it travels alone.
///
/// # Errors
///
/// [`Error::Specification`](crate::Error::Specification) for what the message cannot hold.
pub fn process_to_message(process: &Process) -> Result<oci::Process> {
    refuse_if_set("process.commandLine", process.command_line())?;
    refuse_if_set("process.execCPUAffinity", process.exec_cpu_affinity())?;
    let console_size = process
        .console_size()
        .map(|size| {
            Ok(oci::Box {
                Height: number("process.consoleSize.height", size.height())?,
                Width: number("process.consoleSize.width", size.width())?,
                ..oci::Box::default()
            })
        })
        .transpose()?;
    Ok(oci::Process {
        Terminal: process.terminal().unwrap_or_default(),
        ConsoleSize: MessageField::from_option(console_size),
        User: MessageField::some(user_to_message(process.user())),
        Args: process.args().clone().unwrap_or_default(),
        Env: process.env().clone().unwrap_or_default(),
        Cwd: path_text("process.cwd", process.cwd())?,
        Capabilities: MessageField::from_option(
            process.capabilities().as_ref().map(capabilities_to_message),
        ),
        Rlimits: convert_list(process.rlimits().as_ref(), |limit| {
            Ok(rlimit_to_message(limit))
        })?,
        NoNewPrivileges: process.no_new_privileges().unwrap_or_default(),
        ApparmorProfile: process.apparmor_profile().clone().unwrap_or_default(),
        OOMScoreAdj: process.oom_score_adj().unwrap_or_default().into(),
        SelinuxLabel: process.selinux_label().clone().unwrap_or_default(),
        IOPriority: process
            .io_priority()
            .as_ref()
            .map(io_priority_to_message)
            .into(),
        Scheduler: process
            .scheduler()
            .as_ref()
            .map(scheduler_to_message)
            .into(),
        ..oci::Process::default()
    })
}

/// A message as a process.
///
/// # Errors
///
/// [`Error::Specification`](crate::Error::Specification) for a capability or limit that is not
/// known, or a number that is out of range.
pub fn process_from_message(message: &oci::Process) -> Result<Process> {
    let console_size = message
        .ConsoleSize
        .as_ref()
        .map(|size| {
            BoxBuilder::default()
                .height(u64::from(size.Height))
                .width(u64::from(size.Width))
                .build()
                .map_err(|error| refuse("process.consoleSize", error))
        })
        .transpose()?;
    let mut process = Process::default();
    process
        .set_terminal(Some(message.Terminal))
        .set_console_size(console_size)
        .set_user(
            message
                .User
                .as_ref()
                .map(user_from_message)
                .unwrap_or_default(),
        )
        .set_args(list(&message.Args))
        .set_env(list(&message.Env))
        .set_cwd(message.Cwd.clone().into())
        .set_capabilities(
            message
                .Capabilities
                .as_ref()
                .map(capabilities_from_message)
                .transpose()?,
        )
        .set_rlimits(convert_all(&message.Rlimits, rlimit_from_message)?)
        .set_no_new_privileges(Some(message.NoNewPrivileges))
        .set_apparmor_profile(set(message.ApparmorProfile.clone()))
        .set_oom_score_adj(Some(number("process.oomScoreAdj", message.OOMScoreAdj)?))
        .set_selinux_label(set(message.SelinuxLabel.clone()))
        .set_io_priority(
            message
                .IOPriority
                .as_ref()
                .map(io_priority_from_message)
                .transpose()?,
        )
        .set_scheduler(
            message
                .Scheduler
                .as_ref()
                .map(scheduler_from_message)
                .transpose()?,
        );
    Ok(process)
}

fn user_to_message(user: &User) -> oci::User {
    oci::User {
        UID: user.uid(),
        GID: user.gid(),
        AdditionalGids: user.additional_gids().clone().unwrap_or_default(),
        Username: user.username().clone().unwrap_or_default(),
        Umask: user.umask(),
        ..oci::User::default()
    }
}

fn user_from_message(message: &oci::User) -> User {
    let mut user = User::default();
    user.set_uid(message.UID)
        .set_gid(message.GID)
        .set_additional_gids(list(&message.AdditionalGids))
        .set_username(set(message.Username.clone()))
        .set_umask(message.Umask);
    user
}

fn capabilities_to_message(capabilities: &LinuxCapabilities) -> oci::LinuxCapabilities {
    let names = |set: &Option<Capabilities>| {
        let mut names: Vec<String> = set
            .iter()
            .flatten()
            .map(|capability| format!("CAP_{capability}"))
            .collect();
        names.sort_unstable();
        names
    };
    oci::LinuxCapabilities {
        Bounding: names(capabilities.bounding()),
        Effective: names(capabilities.effective()),
        Inheritable: names(capabilities.inheritable()),
        Permitted: names(capabilities.permitted()),
        Ambient: names(capabilities.ambient()),
        ..oci::LinuxCapabilities::default()
    }
}

fn capabilities_from_message(message: &oci::LinuxCapabilities) -> Result<LinuxCapabilities> {
    let set = |names: &[String]| -> Result<Option<Capabilities>> {
        names
            .iter()
            .map(|name| capability(name))
            .collect::<Result<_>>()
            .map(Some)
    };
    let mut capabilities = LinuxCapabilities::default();
    capabilities
        .set_bounding(set(&message.Bounding)?)
        .set_effective(set(&message.Effective)?)
        .set_inheritable(set(&message.Inheritable)?)
        .set_permitted(set(&message.Permitted)?)
        .set_ambient(set(&message.Ambient)?);
    Ok(capabilities)
}

fn capability(name: &str) -> Result<Capability> {
    const FIELD: &str = "process.capabilities";
    let bare = name
        .strip_prefix("CAP_")
        .ok_or_else(|| refuse(FIELD, name))?;
    bare.parse().map_err(|_| refuse(FIELD, name))
}

fn rlimit_to_message(limit: &PosixRlimit) -> oci::POSIXRlimit {
    oci::POSIXRlimit {
        Type: limit.typ().to_string(),
        Hard: limit.hard(),
        Soft: limit.soft(),
        ..oci::POSIXRlimit::default()
    }
}

fn rlimit_from_message(message: &oci::POSIXRlimit) -> Result<PosixRlimit> {
    PosixRlimitBuilder::default()
        .typ(parse::<oci_spec::runtime::PosixRlimitType>(
            "process.rlimits.type",
            &message.Type,
        )?)
        .hard(message.Hard)
        .soft(message.Soft)
        .build()
        .map_err(|error| refuse("process.rlimits", error))
}
