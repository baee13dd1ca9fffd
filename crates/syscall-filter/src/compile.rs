//! From the words of the OCI specification to a program, by libseccomp.

use std::fs::File;
use std::io::{Read as _, Seek as _};

use libseccomp::error::SeccompError;
use libseccomp::{
    ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall,
};
use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFilterFlag,
    LinuxSeccompOperator, LinuxSyscall,
};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::filter::SyscallFilter;

impl SyscallFilter {
    /// Makes the filter that a specification asks for. Calls of names that libseccomp does not know get
    /// the default action.
    ///
    /// # Errors
    ///
    /// Any of [`Error`].
    pub fn compile(seccomp: &LinuxSeccomp) -> Result<Self> {
        let program = program(seccomp)?;
        let flags = seccomp.flags().iter().flatten();
        Self::from_parts(flags.fold(0, |flags, &flag| flags | bit(flag)), program)
    }

    /// Whether [`SyscallFilter::compile`] can make what a specification asks for, as far as its words say. It takes no
    /// time.
    ///
    /// # Errors
    ///
    /// [`Error::ErrnoOutOfRange`] and [`Error::Notify`].
    ///
    /// ```
    /// use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction};
    /// use syscall_filter::{Error, SyscallFilter};
    ///
    /// let mut seccomp = LinuxSeccomp::default();
    /// seccomp.set_default_action(LinuxSeccompAction::ScmpActNotify);
    /// assert!(matches!(SyscallFilter::check(&seccomp), Err(Error::Notify)));
    /// ```
    pub fn check(seccomp: &LinuxSeccomp) -> Result<()> {
        action(seccomp.default_action(), seccomp.default_errno_ret())?;
        let mut rules = seccomp.syscalls().iter().flatten();
        rules.try_for_each(|rule| action(rule.action(), rule.errno_ret()).map(drop))
    }
}

fn program(seccomp: &LinuxSeccomp) -> Result<Vec<u8>> {
    let failed = |source| Error::Library { source };
    let default = action(seccomp.default_action(), seccomp.default_errno_ret())?;
    let mut context = ScmpFilterContext::new(default).map_err(failed)?;
    for &architecture in seccomp.architectures().iter().flatten() {
        context.add_arch(arch(architecture)).map_err(failed)?;
    }
    for rule in seccomp.syscalls().iter().flatten() {
        let action = action(rule.action(), rule.errno_ret())?;
        // libseccomp refuses rules that say what is the case anyway.
        if action != default {
            add_rule(&mut context, rule, action).map_err(failed)?;
        }
    }

    let unread = |source| Error::Read { source };
    let file = memfd_create("filter", MemfdFlags::CLOEXEC).map_err(|errno| unread(errno.into()))?;
    let mut file = File::from(file);
    context.export_bpf(&file).map_err(failed)?;
    let mut program = Vec::new();
    file.rewind().map_err(unread)?;
    file.read_to_end(&mut program).map_err(unread)?;
    Ok(program)
}

fn add_rule(
    context: &mut ScmpFilterContext,
    rule: &LinuxSyscall,
    action: ScmpAction,
) -> std::result::Result<(), SeccompError> {
    let conditions: Vec<_> = rule.args().iter().flatten().collect();
    let comparisons: Vec<_> = conditions
        .iter()
        .map(|condition| compare(condition))
        .collect();
    for name in rule.names() {
        // A call that libseccomp does not know gets the default action, like any it was not told.
        let Ok(call) = ScmpSyscall::from_name(name) else {
            continue;
        };
        if has_repeated_argument(&conditions) {
            // libseccomp compares an argument once a rule; other runtimes make several rules.
            for comparison in &comparisons {
                let comparison = std::slice::from_ref(comparison);
                context.add_rule_conditional(action, call, comparison)?;
            }
        } else {
            context.add_rule_conditional(action, call, &comparisons)?;
        }
    }
    Ok(())
}

fn has_repeated_argument(conditions: &[&LinuxSeccompArg]) -> bool {
    let mut indices: Vec<_> = conditions.iter().map(|arg| arg.index()).collect();
    indices.sort_unstable();
    indices.windows(2).any(|pair| pair[0] == pair[1])
}

fn compare(condition: &LinuxSeccompArg) -> ScmpArgCompare {
    let operator = match condition.op() {
        LinuxSeccompOperator::ScmpCmpNe => ScmpCompareOp::NotEqual,
        LinuxSeccompOperator::ScmpCmpLt => ScmpCompareOp::Less,
        LinuxSeccompOperator::ScmpCmpLe => ScmpCompareOp::LessOrEqual,
        LinuxSeccompOperator::ScmpCmpEq => ScmpCompareOp::Equal,
        LinuxSeccompOperator::ScmpCmpGe => ScmpCompareOp::GreaterEqual,
        LinuxSeccompOperator::ScmpCmpGt => ScmpCompareOp::Greater,
        // The specification's first value is the mask, its second one what must remain.
        LinuxSeccompOperator::ScmpCmpMaskedEq => ScmpCompareOp::MaskedEqual(condition.value()),
    };
    let datum = match condition.op() {
        LinuxSeccompOperator::ScmpCmpMaskedEq => condition.value_two().unwrap_or(0),
        _ => condition.value(),
    };
    // An index over 5 is libseccomp's error.
    let index = u32::try_from(condition.index()).unwrap_or(u32::MAX);
    ScmpArgCompare::new(index, operator, datum)
}

fn action(action: LinuxSeccompAction, errno: Option<u32>) -> Result<ScmpAction> {
    let errno = errno.unwrap_or(Errno::PERM.raw_os_error().unsigned_abs());
    // The kernel has 16 bits for it.
    let number = || u16::try_from(errno).map_err(|_| Error::ErrnoOutOfRange { number: errno });
    Ok(match action {
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => {
            ScmpAction::KillThread
        }
        LinuxSeccompAction::ScmpActKillProcess => ScmpAction::KillProcess,
        LinuxSeccompAction::ScmpActTrap => ScmpAction::Trap,
        LinuxSeccompAction::ScmpActErrno => ScmpAction::Errno(number()?.into()),
        LinuxSeccompAction::ScmpActTrace => ScmpAction::Trace(number()?),
        LinuxSeccompAction::ScmpActAllow => ScmpAction::Allow,
        LinuxSeccompAction::ScmpActLog => ScmpAction::Log,
        LinuxSeccompAction::ScmpActNotify => return Err(Error::Notify),
    })
}

/// The flag of seccomp(2).
fn bit(flag: LinuxSeccompFilterFlag) -> u32 {
    let bit = match flag {
        LinuxSeccompFilterFlag::SeccompFilterFlagTsync => libc::SECCOMP_FILTER_FLAG_TSYNC,
        LinuxSeccompFilterFlag::SeccompFilterFlagLog => libc::SECCOMP_FILTER_FLAG_LOG,
        LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW,
        // The kernel takes it only with SCMP_ACT_NOTIFY.
        LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => 0,
    };
    u32::try_from(bit).unwrap_or(0)
}

fn arch(arch: Arch) -> ScmpArch {
    match arch {
        Arch::ScmpArchNative => ScmpArch::Native,
        Arch::ScmpArchX86 => ScmpArch::X86,
        Arch::ScmpArchX86_64 => ScmpArch::X8664,
        Arch::ScmpArchX32 => ScmpArch::X32,
        Arch::ScmpArchArm => ScmpArch::Arm,
        Arch::ScmpArchAarch64 => ScmpArch::Aarch64,
        Arch::ScmpArchMips => ScmpArch::Mips,
        Arch::ScmpArchMips64 => ScmpArch::Mips64,
        Arch::ScmpArchMips64n32 => ScmpArch::Mips64N32,
        Arch::ScmpArchMipsel => ScmpArch::Mipsel,
        Arch::ScmpArchMipsel64 => ScmpArch::Mipsel64,
        Arch::ScmpArchMipsel64n32 => ScmpArch::Mipsel64N32,
        Arch::ScmpArchPpc => ScmpArch::Ppc,
        Arch::ScmpArchPpc64 => ScmpArch::Ppc64,
        Arch::ScmpArchPpc64le => ScmpArch::Ppc64Le,
        Arch::ScmpArchS390 => ScmpArch::S390,
        Arch::ScmpArchS390x => ScmpArch::S390X,
        Arch::ScmpArchRiscv64 => ScmpArch::Riscv64,
        Arch::ScmpArchParisc => ScmpArch::Parisc,
        Arch::ScmpArchParisc64 => ScmpArch::Parisc64,
        Arch::ScmpArchLoongarch64 => ScmpArch::Loongarch64,
        Arch::ScmpArchM68k => ScmpArch::M68k,
        Arch::ScmpArchSh => ScmpArch::Sh,
        Arch::ScmpArchSheb => ScmpArch::Sheb,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compiled(change: impl FnOnce(&mut LinuxSeccomp)) -> Result<SyscallFilter> {
        let mut seccomp = LinuxSeccomp::default();
        seccomp.set_default_action(LinuxSeccompAction::ScmpActAllow);
        change(&mut seccomp);
        SyscallFilter::compile(&seccomp)
    }

    #[test]
    fn numbers_have_16_bits_and_nobody_is_asked() {
        for (number, fits) in [(65_535, true), (65_536, false)] {
            let made = compiled(|seccomp| {
                seccomp
                    .set_default_action(LinuxSeccompAction::ScmpActTrace)
                    .set_default_errno_ret(Some(number));
            });
            match fits {
                true => assert!(made.is_ok(), "{made:?}"),
                false => {
                    assert!(
                        matches!(made, Err(Error::ErrnoOutOfRange { number: said }) if said == number)
                    );
                }
            }
        }
        let asking = compiled(|seccomp| {
            seccomp.set_default_action(LinuxSeccompAction::ScmpActNotify);
        });
        assert!(matches!(asking, Err(Error::Notify)));
    }
}
