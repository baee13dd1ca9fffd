use crate::error::{Error, Result};

/// Bytes of an instruction: `struct sock_filter`.
const INSTRUCTION_BYTES: usize = 8;

/// Instructions that the kernel takes (`BPF_MAXINSNS`).
pub(crate) const INSTRUCTIONS_MAX: usize = 4096;

/// A filter of system calls, as seccomp(2) takes it.
///
/// ```
/// use oci_spec::runtime::{LinuxSeccompAction, LinuxSeccompBuilder};
/// use syscall_filter::SyscallFilter;
///
/// let seccomp = LinuxSeccompBuilder::default()
///     .default_action(LinuxSeccompAction::ScmpActAllow)
///     .build()?;
/// let filter = SyscallFilter::compile(&seccomp)?;
/// let sent = SyscallFilter::from_parts(filter.flags(), filter.program().to_vec())?;
/// assert_eq!(sent, filter);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyscallFilter {
    flags: u32,
    program: Vec<u8>,
}

impl SyscallFilter {
    /// The most bytes that a program has. They fit into a pipe at once.
    pub const PROGRAM_BYTES_MAX: usize = INSTRUCTIONS_MAX * INSTRUCTION_BYTES;

    /// A filter that somebody else has made.
    ///
    /// # Errors
    ///
    /// [`Error::BadProgram`] for what no kernel would take by its length. Whether it makes sense is
    /// the kernel's to say.
    pub fn from_parts(flags: u32, program: Vec<u8>) -> Result<Self> {
        let bytes = program.len();
        let is_program = bytes != 0
            && bytes.is_multiple_of(INSTRUCTION_BYTES)
            && bytes <= Self::PROGRAM_BYTES_MAX;
        match is_program {
            true => Ok(Self { flags, program }),
            false => Err(Error::BadProgram { bytes }),
        }
    }

    /// What seccomp(2) is called with: `SECCOMP_FILTER_FLAG_*`.
    pub fn flags(&self) -> u32 {
        self.flags
    }

    /// Instructions of classic BPF (`struct sock_filter`), in this machine's byte order.
    pub fn program(&self) -> &[u8] {
        &self.program
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_an_instruction_none_and_too_many_are_no_program() {
        for bytes in [0, 7, 12, SyscallFilter::PROGRAM_BYTES_MAX + 8] {
            let refused = SyscallFilter::from_parts(0, vec![0; bytes]);
            assert!(
                matches!(refused, Err(Error::BadProgram { bytes: said }) if said == bytes),
                "{bytes}"
            );
        }
        for bytes in [8, SyscallFilter::PROGRAM_BYTES_MAX] {
            SyscallFilter::from_parts(0, vec![0; bytes]).unwrap();
        }
    }
}
