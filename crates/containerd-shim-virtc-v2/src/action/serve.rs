use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::Duration;

use containerd_shim_protos::ttrpc::asynchronous::Server;
use containerd_shim_protos::ttrpc::asynchronous::transport::Listener;
use rustix::fs::{Mode, OFlags};
use virtcontainers::{HostNamespaces, keeper};

use super::bundle;
use crate::bundle::{annotations_of, sandbox_of, spec_if_any};
use crate::cli::Flags;
use crate::error::{Error, Result};
use crate::options::Options;
use crate::pod::{OpenRuntime, Pod};
use crate::publisher::Publisher;
use crate::socket::ShimSocket;
use crate::{log, service, surroundings};

/// How long containerd may take for the last events.
const FLUSH_LIMIT: Duration = Duration::from_secs(5);

/// How long the removal of what was given up may take before the end.
const UNDO_LIMIT: Duration = Duration::from_secs(10);

/// Serves the tasks of a sandbox at the socket that is our stdin, until containerd says that we may
/// end.
pub(super) fn serve(flags: &Flags) -> Result<()> {
    let failed = |source| Error::System {
        attempt: "take the socket that is to be served".into(),
        source,
    };
    let bundle = bundle(flags)?;
    log::start(&bundle, flags.debug);
    let listener = inherited().map_err(failed)?;
    let spec = spec_if_any(&bundle)?;
    let annotations = annotations_of(&spec);
    // Before there are threads: those that come have them too.
    let entered = HostNamespaces::enter(&spec, is_of_cri(&annotations))?;
    let options = Options::of_bundle(&bundle)?;
    let runtime = surroundings::runtime(
        &flags.namespace,
        &options,
        &annotations,
        Some(Arc::clone(&entered.host_network)),
    )?;
    let sandbox = sandbox_of(&spec, &flags.id)?;
    let socket = ShimSocket::of(&flags.address, &flags.namespace, &sandbox);
    let served = keeper::block_on(async |waiting| {
        let events = std::env::var("TTRPC_ADDRESS").ok();
        let events = Publisher::start(events.filter(|text| !text.is_empty()), &flags.namespace);
        let pod = Pod::new(
            flags.namespace.clone(),
            OpenRuntime {
                options,
                annotations,
                runtime,
            },
            entered,
            events,
        );
        let pod = Arc::new(pod);
        let mut server = Server::new()
            .add_listener(Listener::try_from(listener).map_err(failed)?)
            .register_service(service::services(&pod));
        server.start().await?;
        waiting.begin();
        pod.shut_down.notified().await;
        pod.undoing.ended(UNDO_LIMIT).await;
        pod.events.flush(FLUSH_LIMIT).await;
        // The name goes first: nobody finds a socket at which nobody answers.
        socket.remove();
        server.shutdown().await?;
        Ok(())
    });
    served.map_err(failed)?
}

/// Takes the socket from stdin, which becomes what nothing is read from.
fn inherited() -> std::io::Result<UnixListener> {
    let listener: OwnedFd = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    let nothing = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    rustix::stdio::dup2_stdin(&nothing)?;
    let listener = UnixListener::from(listener);
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Whether the sandbox is one of Kubernetes': port-forward dials the loopback of its network
/// namespace then.
fn is_of_cri(annotations: &BTreeMap<String, String>) -> bool {
    annotations.contains_key("io.kubernetes.cri.container-type")
}
