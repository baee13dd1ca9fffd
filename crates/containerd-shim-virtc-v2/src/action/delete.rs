use std::path::Path;
use std::time::Duration;

use containerd_shim_protos::TaskClient;
use containerd_shim_protos::api::{DeleteResponse, ShutdownRequest};
use containerd_shim_protos::protobuf::{Message, MessageField};
use containerd_shim_protos::ttrpc::{Client, context};
use vc_types::{ContainerId, SandboxId};
use virtcontainers::Runtime;

use super::{answer, bundle};
use crate::bundle::{root_of, sandbox_of, spec_of};
use crate::cli::Flags;
use crate::error::Result;
use crate::process::Exit;
use crate::publisher::timestamp;
use crate::rootfs::Rootfs;
use crate::socket::ShimSocket;
use crate::surroundings;

/// How long a shim may take to answer, and to end.
const SHUT_DOWN_LIMIT: Duration = Duration::from_secs(5);

/// Cleans up after a task whose shim is gone: all of it is known from what is on disk. How it ended
/// is not known, which is never a success.
pub(super) fn delete(flags: &Flags) -> Result<()> {
    let bundle = bundle(flags)?;
    let runtime = surroundings::runtime_for_cleaning(&flags.namespace, &bundle)?;
    let removed = remove(&runtime, flags, &bundle);
    Rootfs::unmount_left(&root_of(&bundle));
    removed?;
    let exit = Exit::lost();
    let response = DeleteResponse {
        exit_status: exit.code,
        exited_at: MessageField::some(timestamp(exit.at)),
        ..DeleteResponse::default()
    };
    answer(&response.write_to_bytes()?)
}

/// Lets a shim end, with its machine.
fn shut_down(socket: &ShimSocket, id: &str) {
    let request = ShutdownRequest {
        id: id.to_owned(),
        now: true,
        ..ShutdownRequest::default()
    };
    if let Ok(client) = Client::connect(&socket.address()) {
        let limit = context::with_duration(SHUT_DOWN_LIMIT);
        // It may be gone before it answers.
        let _ = TaskClient::new(client).shutdown(limit, &request);
    }
    socket.wait_for_end(SHUT_DOWN_LIMIT);
}

fn remove(runtime: &Runtime, flags: &Flags, bundle: &Path) -> Result<()> {
    // A bundle that cannot be read is one whose task was never made.
    let sandbox = spec_of(bundle).and_then(|spec| sandbox_of(&spec, &flags.id));
    let sandbox = sandbox.unwrap_or_else(|_| flags.id.clone());
    let socket = ShimSocket::of(&flags.address, &flags.namespace, &sandbox);
    let served = socket.is_served();
    let removed = if sandbox == flags.id {
        if served {
            // containerd holds it for dead: it has no task, or does not answer.
            shut_down(&socket, &flags.id);
        }
        runtime
            .delete_sandbox(&SandboxId::new(&sandbox)?, true)
            .map(drop)
    } else if served {
        // Its pod lives: the container goes, and the pod stays.
        let container = ContainerId::new(&flags.id)?;
        let executor = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let executor = executor.map_err(|source| crate::error::Error::System {
            attempt: "make an event queue".into(),
            source,
        })?;
        executor.block_on(runtime.delete_container(&SandboxId::new(&sandbox)?, &container, true))
    } else {
        // The pod's first task takes all of it along.
        Ok(())
    };
    if sandbox == flags.id || !served {
        socket.remove();
    }
    match removed {
        Err(error) if error.is_not_found() => Ok(()),
        removed => Ok(removed?),
    }
}
