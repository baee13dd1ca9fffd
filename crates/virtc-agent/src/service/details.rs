//! What the guest is and is told to be: name, randomness, name servers.

use std::fs;

use agent_protocol::agent::{AgentDetails, GuestDetailsRequest, GuestDetailsResponse};
use protobuf::MessageField;

use crate::error::{Attempt as _, Error, Result};
use crate::storage;

const MEMORY_DIR: &str = "/sys/devices/system/memory";

/// Bytes of a host name, as the kernel has it.
const HOSTNAME_BYTES_MAX: usize = 64;

/// Names the guest.
pub(super) fn set_hostname(hostname: &str) -> Result<()> {
    if hostname.len() > HOSTNAME_BYTES_MAX {
        return Err(Error::Invalid {
            field: "host name",
            value: hostname.to_owned(),
            reason: "is too long",
        });
    }
    rustix::system::sethostname(hostname.as_bytes())
        .attempt(|| format!("set the host name to {hostname:?}"))
}

/// Writes the guest's name servers, for containers that use its file.
pub(super) fn write_dns(lines: &[String]) -> Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    let mut text = lines.join("\n");
    text.push('\n');
    fs::write("/etc/resolv.conf", text).attempt(|| "write /etc/resolv.conf".into())
}

/// Answers `GetGuestDetails`.
pub(super) fn guest_details(request: &GuestDetailsRequest) -> GuestDetailsResponse {
    let memory_file = |name: &str| fs::read_to_string(format!("{MEMORY_DIR}/{name}")).ok();
    let mut details = GuestDetailsResponse {
        agent_details: MessageField::some(AgentDetails {
            version: super::VERSION.to_owned(),
            init_daemon: true,
            storage_handlers: storage::DRIVERS.map(str::to_owned).to_vec(),
            supports_seccomp: true,
            extra_features: super::FEATURES.map(str::to_owned).to_vec(),
            ..AgentDetails::default()
        }),
        ..GuestDetailsResponse::default()
    };
    if request.mem_block_size {
        details.mem_block_size_bytes = memory_file("block_size_bytes")
            .and_then(|text| u64::from_str_radix(text.trim(), 16).ok())
            .unwrap_or(0);
    }
    if request.mem_hotplug_probe {
        details.support_mem_hotplug_probe =
            fs::exists(format!("{MEMORY_DIR}/probe")).unwrap_or(false);
    }
    details
}
