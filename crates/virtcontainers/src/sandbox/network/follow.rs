//! A network that goes with its namespace: what changes there while the sandbox runs comes to the
//! guest. Nothing polls: the kernel tells of each change.

use std::os::fd::AsFd;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use vc_hypervisor::watched_fd::WatchedFd;
use vc_network::Watch;

use super::super::handle::SandboxHandle;
use super::attached::AttachedNetwork;
use super::relay::Relay;
use super::resolver::Resolvers;
use crate::error::{Error, Result, chain};
use crate::runtime::blocking;

/// After a change, before it is looked at: whoever makes a link gives it an address in the next
/// moment.
const SETTLE: Duration = Duration::from_millis(20);

/// The network of a running sandbox, in the hands of its keeper. Dropping it takes it away; the
/// machine is to have ended.
pub(crate) struct FollowedNetwork {
    sandbox: SandboxHandle,
    network: Arc<Mutex<Option<AttachedNetwork>>>,
    resolvers: Arc<Mutex<Option<Resolvers>>>,
    relay: std::sync::Mutex<Option<Relay>>,
    follower: Option<JoinHandle<()>>,
}

impl FollowedNetwork {
    /// Follows the namespace from now on.
    ///
    /// # Errors
    ///
    /// [`Error::System`] when the executor does not take its socket: the network is its caller's then,
    /// to go after the machine.
    pub(crate) fn begin(
        sandbox: SandboxHandle,
        network: &mut Option<AttachedNetwork>,
    ) -> Result<Self> {
        let watch = network.as_mut().and_then(AttachedNetwork::take_watch);
        let listeners = network.as_mut().and_then(AttachedNetwork::take_listeners);
        let relay = listeners.map(|listeners| Relay::begin(listeners, &sandbox.0.guest));
        let relay = relay.transpose()?;
        let told = watch.as_ref().map(|watch| {
            let told = watch.as_fd().try_clone_to_owned();
            told.and_then(WatchedFd::new)
        });
        let told = told.transpose().map_err(|source| Error::System {
            attempt: "watch a network namespace".into(),
            source,
        })?;
        // It is this value's where nothing can fail any more.
        let namespace = network.as_ref().map(AttachedNetwork::namespace);
        let resolvers =
            namespace.map(|namespace| Resolvers::new(sandbox.clone(), Arc::clone(namespace)));
        let network = Arc::new(Mutex::new(network.take()));
        let resolvers = Arc::new(Mutex::new(resolvers));
        let follower = told.zip(watch).map(|(told, watch)| {
            let (sandbox, network) = (sandbox.clone(), Arc::clone(&network));
            let resolvers = Arc::clone(&resolvers);
            tokio::spawn(follow(told, watch, sandbox, network, resolvers))
        });
        Ok(Self {
            sandbox,
            follower,
            resolvers,
            relay: std::sync::Mutex::new(relay),
            network,
        })
    }

    /// Brings the guest what is in the namespace now, before anybody tells of it.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Network`] when the namespace cannot be looked at, [`crate::Error::Agent`] when
    /// the guest does not take it.
    pub(crate) async fn update(&self) -> Result<()> {
        match &mut *self.network.lock().await {
            Some(network) => network.update(&self.sandbox).await?,
            None => return Ok(()),
        }
        self.find_resolvers().await;
        Ok(())
    }

    /// Lets the guest ask the resolvers that live in the namespace. To be called when its containers
    /// are known.
    pub(crate) async fn find_resolvers(&self) {
        if let Some(resolvers) = &mut *self.resolvers.lock().await {
            resolvers.update().await;
        }
    }

    /// Takes away what was added to the namespace, once.
    ///
    /// # Errors
    ///
    /// Those of [`AttachedNetwork::undo`].
    pub(crate) async fn undo(&self) -> Result<()> {
        // What it is at is done first, within the limits of each call: a step that is given up half-way
        // could add something behind our back.
        let mut network = Arc::clone(&self.network).lock_owned().await;
        *self.resolvers.lock().await = None;
        *self.relay.lock().unwrap_or_else(PoisonError::into_inner) = None;
        if let Some(follower) = &self.follower {
            follower.abort();
        }
        // Whoever comes next waits for it, also where this is given up.
        blocking(move || network.take().map_or(Ok(()), AttachedNetwork::undo)).await
    }
}

impl Drop for FollowedNetwork {
    fn drop(&mut self) {
        if let Some(follower) = &self.follower {
            follower.abort();
        }
    }
}

async fn follow(
    told: WatchedFd,
    mut watch: Watch,
    sandbox: SandboxHandle,
    network: Arc<Mutex<Option<AttachedNetwork>>>,
    resolvers: Arc<Mutex<Option<Resolvers>>>,
) {
    loop {
        let Ok(mut ready) = told.readable().await else {
            return;
        };
        // First: what comes while it is read wakes again.
        ready.clear_ready();
        loop {
            match watch.has_changed() {
                Ok(true) => tokio::time::sleep(SETTLE).await,
                Ok(false) => break,
                Err(error) => {
                    tracing::warn!(error = chain(&error), "a network is not followed any more");
                    return;
                }
            }
            let updated = match &mut *network.lock().await {
                Some(network) => network.update(&sandbox).await,
                None => return,
            };
            if let Err(error) = updated {
                tracing::warn!(
                    error = chain(&error),
                    "a change of the network is not the guest's"
                );
            }
            // Who changes a network may bring its resolver.
            if let Some(resolvers) = &mut *resolvers.lock().await {
                resolvers.update().await;
            }
        }
    }
}
