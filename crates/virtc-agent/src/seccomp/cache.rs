//! The filters that were compiled last.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use oci_spec::runtime::LinuxSeccomp;
use syscall_filter::SyscallFilter;

use super::{Filter, PendingFilter};
use crate::error::Error;

/// How many are kept. Containers of a pod mostly ask for the same, and a guest has one pod.
const KEPT_MAX: usize = 4;

/// Compiles filters, each once while it is kept.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filters {
    kept: Arc<Mutex<Kept>>,
}

/// Each with what it was made of, the oldest first.
type Kept = VecDeque<(LinuxSeccomp, Arc<Filter>)>;

impl Filters {
    /// Gives the filter of what a specification says, or begins to compile it on a thread of its
    /// own.
    pub(crate) fn compile(&self, seccomp: LinuxSeccomp) -> PendingFilter {
        if let Some(filter) = self.find(&seccomp) {
            return PendingFilter::Compiled(filter);
        }
        let filters = self.clone();
        PendingFilter::Compiling(tokio::task::spawn_blocking(move || {
            let filter =
                SyscallFilter::compile(&seccomp).map_err(|source| Error::Seccomp { source })?;
            let filter = Arc::new(Filter::from(filter));
            filters.keep(seccomp, &filter);
            Ok(filter)
        }))
    }

    fn find(&self, seccomp: &LinuxSeccomp) -> Option<Arc<Filter>> {
        let kept = self.kept();
        let found = kept.iter().find(|(of, _)| of == seccomp);
        found.map(|(_, filter)| Arc::clone(filter))
    }

    fn keep(&self, seccomp: LinuxSeccomp, filter: &Arc<Filter>) {
        let mut kept = self.kept();
        // Another container asked for it at the same time.
        if kept.iter().any(|(of, _)| *of == seccomp) {
            return;
        }
        if kept.len() == KEPT_MAX {
            kept.pop_front();
        }
        kept.push_back((seccomp, Arc::clone(filter)));
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::{LinuxSeccompAction, LinuxSeccompBuilder};

    use super::*;

    fn returning(errno: u32) -> LinuxSeccomp {
        LinuxSeccompBuilder::default()
            .default_action(LinuxSeccompAction::ScmpActErrno)
            .default_errno_ret(errno)
            .build()
            .unwrap()
    }

    #[tokio::test]
    async fn the_same_filter_is_compiled_once_and_another_is_another() {
        let filters = Filters::default();
        let first = filters.compile(returning(1)).compiled().await.unwrap();
        let again = filters.compile(returning(1));
        assert!(matches!(again, PendingFilter::Compiled(_)));
        assert!(Arc::ptr_eq(&again.compiled().await.unwrap(), &first));
        let other = filters.compile(returning(2)).compiled().await.unwrap();
        assert_ne!(other, first);
    }

    #[tokio::test]
    async fn only_some_are_kept() {
        let filters = Filters::default();
        for errno in 1..=KEPT_MAX as u32 + 1 {
            filters.compile(returning(errno)).compiled().await.unwrap();
        }
        assert_eq!(filters.kept().len(), KEPT_MAX);
        assert!(filters.find(&returning(1)).is_none());
        assert!(filters.find(&returning(2)).is_some());
    }
}
