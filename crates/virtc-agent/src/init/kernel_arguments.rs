//! What the host says by the kernel's command line.

use std::fs;

use tracing::Level;

use crate::error::{Attempt as _, Result};

/// The arguments that are the agent's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KernelArguments {
    /// `virtc.ready_port`: the host's port to dial when the agent serves.
    pub(crate) ready_port: Option<u32>,
    /// `virtc.template_port`: this guest becomes a template, which says on this serial port that it
    /// waits.
    pub(crate) template_port: Option<String>,
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
            template_port: None,
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
                "virtc.template_port" => arguments.template_port = serial_port(value),
                "agent.passfd_listener_port" => arguments.passfd_port = port(),
                "agent.log" => arguments.log_level = value.parse().unwrap_or(Level::WARN),
                _ => {}
            }
        }
        arguments
    }
}

/// The name of a serial port of this machine.
fn serial_port(value: &str) -> Option<String> {
    let number = value.strip_prefix("ttyS")?;
    let plain = number.len() == 1 && number.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| value.to_owned())
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
    fn only_a_serial_port_can_be_waited_on() {
        let port = |text: &str| KernelArguments::parse(text).template_port;
        assert_eq!(port("virtc.template_port=ttyS1").as_deref(), Some("ttyS1"));
        for other in ["tty1", "ttyS", "ttyS/../vda", "../ttyS1", "ttyS12"] {
            assert_eq!(
                port(&format!("virtc.template_port={other}")),
                None,
                "{other}"
            );
        }
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
