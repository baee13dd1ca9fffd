use std::collections::BTreeMap;
use std::path::Path;

use containerd_shim_protos::api::DeleteResponse;
use containerd_shim_protos::protobuf::{Message, MessageField};
use vc_types::{ContainerId, SandboxId};
use virtcontainers::Runtime;

use super::{answer, bundle};
use crate::cli::Flags;
use crate::error::Result;
use crate::pod::sandbox_of;
use crate::process::Exit;
use crate::publisher::timestamp;
use crate::rootfs::Rootfs;
use crate::socket::ShimSocket;
use crate::surroundings;

/// Where a bundle's root is mounted.
const ROOTFS: &str = "rootfs";

/// Cleans up after a task whose shim is gone: all of it is known from what is on disk. How it ended
/// is not known, which is never a success.
pub(super) fn delete(flags: &Flags) -> Result<()> {
    let bundle = bundle(flags)?;
    let runtime = surroundings::runtime(&flags.namespace, &BTreeMap::new(), None)?;
    let removed = remove(&runtime, flags, &bundle);
    Rootfs::unmount_left(&bundle.join(ROOTFS));
    removed?;
    let exit = Exit::lost();
    let response = DeleteResponse {
        exit_status: exit.code,
        exited_at: MessageField::some(timestamp(exit.at)),
        ..DeleteResponse::default()
    };
    answer(&response.write_to_bytes()?)
}

fn remove(runtime: &Runtime, flags: &Flags, bundle: &Path) -> Result<()> {
    // A bundle that cannot be read is one whose task was never made.
    let sandbox = sandbox_of(bundle, &flags.id).unwrap_or_else(|_| flags.id.clone());
    let socket = ShimSocket::of(&flags.address, &flags.namespace, &sandbox);
    let served = socket.is_served();
    let removed = if sandbox == flags.id {
        runtime.delete_sandbox(&SandboxId::new(&sandbox)?, true)
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
    if !served {
        socket.remove();
    }
    match removed {
        Err(error) if error.is_not_found() => Ok(()),
        removed => Ok(removed?),
    }
}
