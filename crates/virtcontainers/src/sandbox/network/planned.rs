//! The two ways in which a link reaches a machine, and what undoes each.

use std::path::Path;

use serde::{Deserialize, Serialize};
use vc_network::{Attachment, Namespace, Passthrough, PassthroughUndo, Undo};

/// A link that is to reach the machine: everything looked at, nothing changed.
pub(super) enum Planned {
    /// By a tap.
    Joined(Box<Attachment>),
    /// As the whole card that it is.
    Passed(Box<Passthrough>),
}

impl Planned {
    /// What will undo it, at whichever step it may be interrupted.
    pub(super) fn undo(&self) -> LinkUndo {
        match self {
            Self::Joined(attachment) => LinkUndo::Joined(attachment.undo().clone()),
            Self::Passed(passthrough) => LinkUndo::Passed(passthrough.undo().clone().into()),
        }
    }

    /// Whether its device can be taken out of the running machine.
    pub(super) fn is_movable(&self) -> bool {
        matches!(self, Self::Joined(_))
    }
}

/// What undoes it, as the state has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum LinkUndo {
    Joined(Undo),
    Passed(Box<PassthroughUndo>),
}

impl LinkUndo {
    /// Takes away what was added to the namespace, or gives back what was taken from it.
    pub(super) fn undo(&self, namespace: &Namespace) -> vc_network::Result<()> {
        match self {
            Self::Joined(undo) => undo.undo(namespace),
            Self::Passed(undo) => undo.undo(namespace),
        }
    }

    /// The same, by a path at which the namespace may not be any more.
    pub(super) fn undo_at(&self, path: &Path) -> vc_network::Result<()> {
        match self {
            Self::Joined(undo) => undo.undo_at(path),
            Self::Passed(undo) => undo.undo_at(path),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_state_tells_the_two_apart() {
        let (namespace, mac) = (json!({"device": 4, "inode": 5}), "02:00:00:00:00:07");
        let joined = json!({
            "namespace": namespace, "model": "tcfilter", "link": "eth0", "index": 7, "mac": mac,
            "tap": "vctap7",
        });
        let link = json!({
            "index": 7, "name": "eth0", "mtu": 1500, "mac": mac, "up": true, "no_arp": false,
            "kind": {"physical": {"bus": "pci", "device": "0000:03:00.0"}}, "queues": 1,
            "addresses": [],
        });
        let passed = json!({
            "sysfs": "/sys", "group": "/dev/vfio/7", "address": "0000:03:00.0",
            "driver": "e1000e", "driver_override": null, "namespace": namespace, "link": link,
        });
        let read = |value| serde_json::from_value::<LinkUndo>(value).unwrap();
        assert!(matches!(read(joined), LinkUndo::Joined(_)));
        let passed = read(passed);
        assert!(matches!(passed, LinkUndo::Passed(_)));
        assert_eq!(read(serde_json::to_value(&passed).unwrap()), passed);
    }
}
