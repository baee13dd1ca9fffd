use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use default_spec::DEFAULT_CAPABILITIES;

use super::invalid;
use crate::error::Error;

const FORM: &str = "a name of capabilities(7), with or without CAP_, or ALL";

/// All of Linux's.
pub const CAPABILITIES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// What `--cap-add` and `--cap-drop` take: a capability, with or without `CAP_`, in any case, or
/// `ALL`.
///
/// ```
/// use vc_config::syntax::Capability;
///
/// assert_eq!("net_admin".parse::<Capability>()?.to_string(), "CAP_NET_ADMIN");
/// assert_eq!("all".parse::<Capability>()?, Capability::All);
/// # Ok::<(), vc_config::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Capability {
    /// All of them.
    All,
    /// One, by its name with the prefix.
    One(&'static str),
}

impl FromStr for Capability {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let upper = text.to_ascii_uppercase();
        if upper == "ALL" {
            return Ok(Self::All);
        }
        let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
        let name = CAPABILITIES
            .iter()
            .find(|name| name.strip_prefix("CAP_") == Some(bare));
        name.map(|name| Self::One(name))
            .ok_or_else(|| invalid("capability", FORM, text, "Linux has none of this name"))
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("ALL"),
            Self::One(name) => f.write_str(name),
        }
    }
}

/// The capabilities of a command: [`DEFAULT_CAPABILITIES`], or all, or none, without what is
/// dropped and with what is added.
///
/// # Errors
///
/// [`Error::Syntax`] when the same is added and dropped.
///
/// ```
/// use vc_config::syntax::{Capability, resolve_capabilities};
///
/// let only = resolve_capabilities(&["KILL".parse()?], &[Capability::All])?;
/// assert_eq!(only.into_iter().collect::<Vec<_>>(), ["CAP_KILL"]);
/// # Ok::<(), vc_config::Error>(())
/// ```
pub fn resolve_capabilities(
    add: &[Capability],
    drop: &[Capability],
) -> Result<BTreeSet<&'static str>, Error> {
    if let Some(both) = add.iter().find(|capability| drop.contains(capability)) {
        let both = both.to_string();
        return Err(invalid(
            "capability",
            FORM,
            &both,
            "it is added and dropped",
        ));
    }
    let mut set: BTreeSet<&'static str> = if add.contains(&Capability::All) {
        CAPABILITIES.into_iter().collect()
    } else if drop.contains(&Capability::All) {
        BTreeSet::new()
    } else {
        DEFAULT_CAPABILITIES.into_iter().collect()
    };
    for capability in drop {
        if let Capability::One(name) = capability {
            set.remove(name);
        }
    }
    for capability in add {
        if let Capability::One(name) = capability {
            set.insert(name);
        }
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn prefix_and_case_do_not_matter() {
        for text in ["sys_admin", "SYS_ADMIN", "cap_sys_admin", "Cap_Sys_Admin"] {
            assert_eq!(
                text.parse::<Capability>().unwrap(),
                Capability::One("CAP_SYS_ADMIN")
            );
        }
        for bad in ["", "CAP_", "CAP_ALL", "CAP_CAP_KILL", "sysadmin", "42"] {
            assert!(bad.parse::<Capability>().is_err(), "{bad}");
        }
    }

    #[test]
    fn adding_and_dropping_as_podman_does() {
        let kill = Capability::One("CAP_KILL");
        let bpf = Capability::One("CAP_BPF");
        let all = Capability::All;
        assert_eq!(resolve_capabilities(&[], &[]).unwrap().len(), 11);
        assert_eq!(resolve_capabilities(&[bpf], &[kill]).unwrap().len(), 11);
        assert_eq!(resolve_capabilities(&[all], &[kill]).unwrap().len(), 40);
        assert_eq!(resolve_capabilities(&[], &[all]).unwrap().len(), 0);
        assert!(resolve_capabilities(&[kill], &[kill]).is_err());
        assert!(resolve_capabilities(&[all], &[all]).is_err());
    }

    proptest! {
        #[test]
        fn what_is_accepted_reads_back(text in "(?i)(cap_)?(kill|all|bpf)|.{0,20}") {
            if let Ok(capability) = text.parse::<Capability>() {
                prop_assert_eq!(capability.to_string().parse::<Capability>().unwrap(), capability);
            }
        }
    }
}
