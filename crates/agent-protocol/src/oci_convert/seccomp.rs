//! The filter of system calls.

use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompArg, LinuxSeccompArgBuilder, LinuxSeccompOperator, LinuxSyscall,
};

use super::{convert_all, convert_list, number, parse, parse_all, refuse, refuse_if_set};
use crate::oci::linux_syscall::ErrnoRet;
use crate::{Result, oci};

pub(super) fn seccomp_to_message(seccomp: &LinuxSeccomp) -> Result<oci::LinuxSeccomp> {
    refuse_if_set("linux.seccomp.listenerPath", seccomp.listener_path())?;
    refuse_if_set(
        "linux.seccomp.listenerMetadata",
        seccomp.listener_metadata(),
    )?;
    Ok(oci::LinuxSeccomp {
        DefaultAction: seccomp.default_action().to_string(),
        DefaultErrnoRet: seccomp.default_errno_ret(),
        Architectures: convert_list(seccomp.architectures().as_ref(), |a| Ok(a.to_string()))?,
        Flags: convert_list(seccomp.flags().as_ref(), |flag| Ok(flag.to_string()))?,
        Syscalls: convert_list(seccomp.syscalls().as_ref(), syscall_to_message)?,
        ..oci::LinuxSeccomp::default()
    })
}

pub(super) fn seccomp_from_message(message: &oci::LinuxSeccomp) -> Result<LinuxSeccomp> {
    let flags = parse_all("linux.seccomp.flags", &message.Flags)?;
    let architectures = parse_all("linux.seccomp.architectures", &message.Architectures)?;
    let mut seccomp = LinuxSeccomp::default();
    seccomp
        .set_default_action(parse(
            "linux.seccomp.defaultAction",
            &message.DefaultAction,
        )?)
        .set_default_errno_ret(message.DefaultErrnoRet)
        .set_architectures((!architectures.is_empty()).then_some(architectures))
        .set_flags((!flags.is_empty()).then_some(flags))
        .set_syscalls(convert_all(&message.Syscalls, syscall_from_message)?);
    Ok(seccomp)
}

fn syscall_to_message(syscall: &LinuxSyscall) -> Result<oci::LinuxSyscall> {
    Ok(oci::LinuxSyscall {
        Names: syscall.names().clone(),
        Action: syscall.action().to_string(),
        ErrnoRet: syscall.errno_ret().map(ErrnoRet::Errnoret),
        Args: convert_list(syscall.args().as_ref(), argument_to_message)?,
        ..oci::LinuxSyscall::default()
    })
}

fn syscall_from_message(message: &oci::LinuxSyscall) -> Result<LinuxSyscall> {
    let errno = message
        .ErrnoRet
        .as_ref()
        .map(|ErrnoRet::Errnoret(errno)| *errno);
    let mut syscall = LinuxSyscall::default();
    syscall
        .set_names(message.Names.clone())
        .set_action(parse("linux.seccomp.syscalls.action", &message.Action)?)
        .set_errno_ret(errno)
        .set_args(convert_all(&message.Args, argument_from_message)?);
    Ok(syscall)
}

fn argument_to_message(argument: &LinuxSeccompArg) -> Result<oci::LinuxSeccompArg> {
    Ok(oci::LinuxSeccompArg {
        Index: number("linux.seccomp.syscalls.args.index", argument.index())?,
        Value: argument.value(),
        ValueTwo: argument.value_two().unwrap_or_default(),
        Op: argument.op().to_string(),
        ..oci::LinuxSeccompArg::default()
    })
}

fn argument_from_message(message: &oci::LinuxSeccompArg) -> Result<LinuxSeccompArg> {
    const FIELD: &str = "linux.seccomp.syscalls.args";
    let mut argument = LinuxSeccompArgBuilder::default()
        .index(number::<_, usize>(FIELD, message.Index)?)
        .value(message.Value)
        .op(parse::<LinuxSeccompOperator>(FIELD, &message.Op)?);
    if message.ValueTwo != 0 {
        argument = argument.value_two(message.ValueTwo);
    }
    argument.build().map_err(|error| refuse(FIELD, error))
}
