use crate::id::SandboxId;

/// The first id: above those that distributions give to people, services, and containers of their
/// own (systemd's end at 0x6fff_ffff), and far below 2³¹.
const FIRST: u32 = 0x7000_0000;

/// Ids of one sandbox.
const EACH: u32 = 4;

/// Sandboxes with ids of their own; two names that meet share them, which costs them no more than
/// the protection from each other that they would have had without.
const SANDBOXES: u64 = 1 << 24;

/// The users and groups, of the same numbers, that the processes of one sandbox run as. Nothing on
/// the host belongs to them, so a process that a guest has taken over can reach neither the host's
/// files nor another sandbox's processes.
///
/// ```
/// use vc_types::{SandboxId, SandboxUsers};
///
/// let users = SandboxUsers::of(&SandboxId::new("web-1")?);
/// assert_ne!(users.vmm(), users.vsock());
/// # Ok::<(), vc_types::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SandboxUsers(u32);

impl SandboxUsers {
    /// The users of the sandbox `id`: the same for the same name.
    pub fn of(id: &SandboxId) -> Self {
        // FNV-1a: stable, and good enough to spread names.
        let hash = id
            .as_str()
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
            });
        let number = u32::try_from(hash % SANDBOXES).unwrap_or_default();
        Self(FIRST + number * EACH)
    }

    /// The VMM's.
    pub const fn vmm(self) -> u32 {
        self.0
    }

    /// The vsock device process's.
    pub const fn vsock(self) -> u32 {
        self.0 + 1
    }

    /// That of the share of the host's system.
    pub const fn system_share(self) -> u32 {
        self.0 + 2
    }

    /// That of the process which makes its connections.
    pub const fn network(self) -> u32 {
        self.0 + 3
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_users_of_their_own() {
        let mut seen = std::collections::BTreeSet::new();
        for number in 0..1000 {
            let users = SandboxUsers::of(&SandboxId::new(format!("sandbox-{number}")).unwrap());
            assert!(users.vmm() >= FIRST && users.network() < 1 << 31);
            seen.extend([users.vmm(), users.vsock()]);
            seen.extend([users.system_share(), users.network()]);
        }
        assert_eq!(seen.len(), 4000);
    }
}
