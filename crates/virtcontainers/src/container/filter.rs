//! The filters of system calls that the host makes for its guests.
//!
//! An emulated processor takes more than a hundred milliseconds for the usual one, the host's own some seven,
//! which it has while a machine comes up.

use std::io;
use std::time::Duration;

use oci_spec::runtime::{LinuxSeccomp, Spec};
use syscall_filter::SyscallFilter;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;
use vc_types::ContainerId;

use crate::error::{Error, Result};

/// The filters that a guest has made before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GuestFilters {
    /// None: it has booted, or nobody knows.
    None,
    /// That of the usual container: its template has rehearsed one.
    Usual,
}

impl GuestFilters {
    fn have(self, seccomp: &LinuxSeccomp) -> bool {
        match self {
            Self::None => false,
            Self::Usual => default_spec::usual_seccomp().is_ok_and(|usual| usual == *seccomp),
        }
    }
}

/// A filter that is being made on a thread of its own.
#[derive(Debug)]
pub(crate) struct PendingFilter(JoinHandle<syscall_filter::Result<SyscallFilter>>);

impl PendingFilter {
    /// Begins to make the filter of a container. Nothing where it has none, or where its guest has it.
    pub(crate) fn begin(spec: &Spec, guest: GuestFilters) -> Option<Self> {
        let linux = spec.linux().as_ref()?;
        let seccomp = linux.seccomp().as_ref()?;
        if guest.have(seccomp) {
            return None;
        }
        let seccomp = seccomp.clone();
        let made = spawn_blocking(move || SyscallFilter::compile(&seccomp));
        Some(Self(made))
    }

    /// Waits until it is made, for as long as `limit` (`limits.agent_create_ms`). Nothing where only the guest
    /// can say whether there is such a filter: libseccomp asks the kernel below it what that knows.
    ///
    /// # Errors
    ///
    /// [`Error::Filter`] where it cannot be made, and that the limit has passed.
    pub(crate) async fn made(
        self,
        container: &ContainerId,
        limit: Duration,
    ) -> Result<Option<SyscallFilter>> {
        let made = timeout(limit, self.0).await;
        let made = made.map_err(|_| vc_agent_client::Error::TimedOut {
            call: "make the filter of system calls",
            limit: "limits.agent_create_ms",
            after: limit,
        })?;
        let made = made.map_err(|error| Error::System {
            attempt: format!("make the filter of system calls of container {container}"),
            source: io::Error::other(error),
        })?;
        match made {
            Ok(filter) => Ok(Some(filter)),
            Err(syscall_filter::Error::Library { source }) => {
                tracing::debug!(%container, %source, "the guest makes the filter of system calls");
                Ok(None)
            }
            Err(source) => Err(Error::Filter {
                container: container.clone(),
                source,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::LinuxSeccompAction;

    use super::*;

    fn spec(seccomp: Option<LinuxSeccomp>) -> Spec {
        let mut spec = Spec::default();
        let linux = spec.linux_mut().as_mut().unwrap();
        linux.set_seccomp(seccomp);
        spec
    }

    fn doing(action: LinuxSeccompAction) -> LinuxSeccomp {
        let mut seccomp = LinuxSeccomp::default();
        seccomp.set_default_action(action);
        seccomp
    }

    #[tokio::test]
    async fn a_filter_is_made_where_the_guest_has_not_made_it_before() {
        let begins = |seccomp: &Option<LinuxSeccomp>, guest| {
            PendingFilter::begin(&spec(seccomp.clone()), guest).is_some()
        };
        let usual = default_spec::usual_seccomp().unwrap();
        let allowing = doing(LinuxSeccompAction::ScmpActAllow);
        for (seccomp, booted, cloned) in [
            (None, false, false),
            (Some(usual), true, false),
            (Some(allowing), true, true),
        ] {
            assert_eq!(begins(&seccomp, GuestFilters::None), booted);
            assert_eq!(begins(&seccomp, GuestFilters::Usual), cloned);
        }
    }

    #[tokio::test]
    async fn what_cannot_be_made_is_an_error_of_its_container() {
        let asking = spec(Some(doing(LinuxSeccompAction::ScmpActNotify)));
        let filter = PendingFilter::begin(&asking, GuestFilters::None).unwrap();
        let container = ContainerId::new("c1").unwrap();
        let limit = Duration::from_secs(10);
        let error = filter.made(&container, limit).await.unwrap_err();
        assert!(error.to_string().contains("c1"), "{error}");
        assert!(matches!(error, Error::Filter { .. }));
    }
}
