//! A sandbox that containerd has as such: one whose machine no task is for.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use containerd_shim_protos::sandbox_api::CreateSandboxRequest;
use tokio::sync::watch;

use crate::error::{Error, Result};
use crate::process::Exit;

/// Where the sandbox stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Life {
    pub(crate) started: Option<SystemTime>,
    pub(crate) ended: Option<Exit>,
}

/// Whether there is one, and where it stands.
#[derive(Debug, Default)]
pub(crate) struct PodSandbox {
    /// As it was asked for.
    asked: Mutex<Option<CreateSandboxRequest>>,
    life: watch::Sender<Life>,
}

impl PodSandbox {
    /// Notes what is asked for; it is made when it is started.
    ///
    /// # Errors
    ///
    /// [`Error::Exists`], [`Error::Unsupported`].
    pub(crate) fn ask(&self, request: CreateSandboxRequest) -> Result<()> {
        if !request.rootfs.is_empty() {
            return Err(Error::Unsupported("a root of a sandbox itself".into()));
        }
        let mut asked = self.asked();
        if asked.is_some() {
            return Err(Error::Exists {
                what: format!("sandbox {}", request.sandbox_id),
            });
        }
        *asked = Some(request);
        Ok(())
    }

    /// Whether tasks are members of it, whatever they say of themselves.
    pub(crate) fn is_there(&self) -> bool {
        self.asked().is_some()
    }

    /// As it was asked for.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] for another one.
    pub(crate) fn find(&self, id: &str) -> Result<CreateSandboxRequest> {
        let asked = self.asked().clone();
        let asked = asked.filter(|asked| asked.sandbox_id == id);
        asked.ok_or_else(|| Error::NotFound {
            what: format!("sandbox {id}"),
        })
    }

    /// Its machine runs.
    pub(crate) fn started(&self) {
        self.life.send_modify(|life| {
            life.started = Some(SystemTime::now());
        });
    }

    /// Its machine has ended.
    pub(crate) fn ended(&self, exit: Exit) {
        self.life.send_modify(|life| {
            life.ended.get_or_insert(exit);
        });
    }

    pub(crate) fn life(&self) -> Life {
        *self.life.borrow()
    }

    /// Waits for the end of its machine.
    pub(crate) async fn wait(&self) -> Exit {
        let mut life = self.life.subscribe();
        let ended = life.wait_for(|life| life.ended.is_some()).await;
        // The sender is this value's own.
        ended
            .ok()
            .and_then(|life| life.ended)
            .unwrap_or_else(Exit::lost)
    }

    fn asked(&self) -> MutexGuard<'_, Option<CreateSandboxRequest>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The network namespace that it is to have, if it names one.
pub(crate) fn network_of(request: &CreateSandboxRequest) -> Option<PathBuf> {
    Some(PathBuf::from(&request.netns_path)).filter(|path| !path.as_os_str().is_empty())
}
