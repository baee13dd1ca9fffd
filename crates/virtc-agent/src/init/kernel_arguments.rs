//! What the host says by the kernel's command line.

use std::fs;

use tracing::Level;

use crate::error::{Attempt as _, Result};

/// The arguments that are the agent's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KernelArguments {
    /// `virtc.ready_port`: the host's port to dial when the agent serves.
    pub(crate) ready_port: Option<u32>,
    /// `agent.passfd_listener_port`: where the host connects streams in Kata's way.
    pub(crate) passfd_port: Option<u32>,
    /// `agent.log`: error, warn, info, debug or trace.
    pub(crate) log_level: Level,
}

impl KernelArguments {
    /// Reads the running kernel's.
    pub(crate) fn read() -> Result<Self> {
        let text =
            fs::read_to_string("/proc/cmdline").attempt(|| "read the kernel's arguments".into())?;
        Ok(Self::parse(&text))
    }

    /// Other arguments are the kernel's own. A value that makes no sense counts as absent: a guest
    /// that does not start says less than one that does.
    fn parse(text: &str) -> Self {
        let mut arguments = Self {
            ready_port: None,
            passfd_port: None,
            log_level: Level::WARN,
        };
        for (key, value) in text
            .split_whitespace()
            .filter_map(|word| word.split_once('='))
        {
            let port = || value.parse().ok().filter(|port| *port != 0);
            match key {
                "virtc.ready_port" => arguments.ready_port = port(),
                "agent.passfd_listener_port" => arguments.passfd_port = port(),
                "agent.log" => arguments.log_level = value.parse().unwrap_or(Level::WARN),
                _ => {}
            }
        }
        arguments
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_keys_are_read() {
        let arguments = KernelArguments::parse(
            "console=ttyS0 quiet panic=-1 virtc.ready_port=1027 agent.log=debug x.ready_port=3\n",
        );
        assert_eq!(arguments.ready_port, Some(1027));
        assert_eq!(arguments.passfd_port, None);
        assert_eq!(arguments.log_level, Level::DEBUG);
    }

    #[test]
    fn zero_and_nonsense_are_absent() {
        let arguments = KernelArguments::parse("virtc.ready_port=0 agent.log=loud");
        assert_eq!(arguments.ready_port, None);
        assert_eq!(arguments.log_level, Level::WARN);
        assert_eq!(
            KernelArguments::parse("virtc.ready_port=x").ready_port,
            None
        );
    }
}
