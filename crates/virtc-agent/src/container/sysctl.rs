//! Kernel parameters of the network that a container's specification sets.
//!
//! The guest's network is the sandbox's, and its containers share it: the container library sees
//! no network namespace of the container's own and would refuse them. In a machine of its own they
//! change nothing but the sandbox.

use std::fs;
use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;

use crate::error::{Attempt as _, Error, Result};

const NETWORK: &str = "net.";
const ROOT: &str = "/proc/sys";

/// Parameters of one container. Docker sets two.
const PARAMETERS_MAX: usize = 256;

/// The network's parameters of one specification, taken out of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct NetworkSysctls(Vec<(PathBuf, String)>);

impl NetworkSysctls {
    /// Takes them out of the specification.
    pub(super) fn take(spec: &mut Spec) -> Result<Self> {
        let Some(linux) = spec.linux_mut().as_mut() else {
            return Ok(Self::default());
        };
        let mut all = linux.sysctl().clone().unwrap_or_default();
        let mut taken: Vec<_> = all
            .extract_if(|name, _| name.starts_with(NETWORK) || name.starts_with("net/"))
            .collect();
        linux.set_sysctl(Some(all));
        if taken.len() > PARAMETERS_MAX {
            return Err(Error::Invalid {
                field: "sysctl",
                value: taken.len().to_string(),
                reason: "are too many",
            });
        }
        taken.sort();
        let path = |(name, value): (String, String)| Ok((path(&name)?, value));
        Ok(Self(taken.into_iter().map(path).collect::<Result<_>>()?))
    }

    /// Sets them in the guest.
    pub(super) fn set(&self) -> Result<()> {
        self.0.iter().try_for_each(|(path, value)| {
            fs::write(path, value).attempt(|| format!("set {} to {value:?}", path.display()))
        })
    }
}

/// The file of a parameter. A name has dots between its parts, or slashes, as sysctl(8) has it.
fn path(name: &str) -> Result<PathBuf> {
    let separator = if name.contains('/') { '/' } else { '.' };
    let mut path = PathBuf::from(ROOT);
    for part in name.split(separator) {
        let plain = !part.is_empty() && part != "." && part != ".." && !part.contains('\0');
        if !plain || Path::new(part).components().count() != 1 {
            return Err(Error::Invalid {
                field: "sysctl",
                value: name.to_owned(),
                reason: "is no name of a parameter",
            });
        }
        path.push(part);
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn those_of_the_network_are_taken_and_others_stay() {
        let mut spec = Spec::default();
        let all = ["net.ipv4.ip_forward", "kernel.msgmax"].map(|name| (name.into(), "1".into()));
        let linux = spec.linux_mut().as_mut().unwrap();
        linux.set_sysctl(Some(HashMap::from(all)));
        let taken = NetworkSysctls::take(&mut spec).unwrap();
        assert_eq!(
            taken.0,
            [(PathBuf::from("/proc/sys/net/ipv4/ip_forward"), "1".into())]
        );
        let left = spec.linux().as_ref().unwrap().sysctl().clone().unwrap();
        assert_eq!(left.len(), 1);
    }

    #[test]
    fn a_name_leads_nowhere_else() {
        for bad in [
            "net.",
            "net..x",
            "net./../x",
            "net.ipv4/../../kernel",
            "net.a\0",
        ] {
            assert!(path(bad).is_err(), "{bad:?}");
        }
        assert_eq!(
            path("net/ipv4/conf/eth0.1/forwarding").unwrap(),
            Path::new("/proc/sys/net/ipv4/conf/eth0.1/forwarding")
        );
    }
}
