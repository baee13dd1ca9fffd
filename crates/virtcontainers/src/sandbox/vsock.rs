//! The vsock device process of a sandbox, and the directory of its sockets.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, chown};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use vc_agent_client::ReadyListener;
use vc_launch::{
    DescriptorUse, LaunchSpec, LaunchedProcess, Launcher, MountTree, Namespaces, PassedFd, Program,
    SocketPair, TreeNode, User,
};
use vc_types::{AgentAddress, SocketPath, guest};

use crate::error::{Error, Result};

/// Sockets of the sandbox that belong to its vsock device process.
pub(super) const DIRECTORY: &str = "vsock";

/// The hybrid vsock socket. What the guest dials arrives at this name, `_` and the port.
const SOCKET: &str = "vsock.sock";

/// The numbers at which the device process finds its descriptors.
pub const VHOST_FD: i32 = 3;
/// See [`VHOST_FD`].
pub const HOST_FD: i32 = 4;
/// See [`VHOST_FD`].
pub const DIRECTORY_FD: i32 = 5;

/// Where the agent of the sandbox in this directory is reached.
pub(super) fn address(sandbox: &Path) -> AgentAddress {
    AgentAddress::HybridVsock {
        socket: sandbox.join(DIRECTORY).join(SOCKET),
    }
}

/// Makes the directory for the sockets below `sandbox`, a directory of root's alone, in the place
/// of that of a machine before, and gives the name of the hybrid vsock socket in it.
///
/// # Errors
///
/// [`Error::System`].
pub(crate) fn make_directory(sandbox: &Path) -> Result<PathBuf> {
    let directory = sandbox.join(DIRECTORY);
    let make = || -> io::Result<()> {
        match std::fs::remove_dir_all(&directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        DirBuilder::new()
            // Entered by the device process, and written by root alone: what root dials there is
            // what root made. The directory above is closed to everybody else.
            .mode(0o711)
            .create(&directory)
    };
    make().map_err(|source| Error::System {
        attempt: format!("make {}", directory.display()),
        source,
    })?;
    Ok(directory.join(SOCKET))
}

/// Everything of a vsock device before its process is started.
#[derive(Debug)]
pub(crate) struct VsockSockets {
    directory: PathBuf,
    host: UnixListener,
    vhost: OwnedFd,
    /// The device process's user.
    user: u32,
    /// The VMM's end.
    pub(crate) vmm_end: OwnedFd,
    /// Where the guest will say that it is ready.
    pub(crate) ready: ReadyListener,
    /// Where the agent is reached.
    pub(crate) address: AgentAddress,
}

impl VsockSockets {
    /// Makes the sockets below `sandbox`, a directory of root's alone.
    ///
    /// # Errors
    ///
    /// [`Error::System`] when one of them cannot be made.
    pub(crate) fn create(sandbox: &Path, user: u32) -> Result<Self> {
        let directory = sandbox.join(DIRECTORY);
        let failed = |source: io::Error| Error::System {
            attempt: format!(
                "make the sockets of the vsock device in {}",
                directory.display()
            ),
            source,
        };
        let socket = make_directory(sandbox)?;
        let short = SocketPath::new(&socket).map_err(failed)?;
        let host = UnixListener::bind(short.as_path()).map_err(failed)?;
        let vhost = SocketPair::new(&directory).map_err(failed)?;
        let address = AgentAddress::HybridVsock { socket };
        let ready = ReadyListener::bind(&address)?;
        // The one socket that the device process dials. The one above stays root's: nobody else
        // talks to the guest.
        chown(ready.path(), Some(user), Some(user)).map_err(failed)?;
        Ok(Self {
            directory,
            host,
            vhost: vhost.listener,
            user,
            vmm_end: vhost.connected,
            ready,
            address,
        })
    }

    /// Starts the device process from `program`, this project's own, and gives what is left.
    ///
    /// # Errors
    ///
    /// [`Error::Launch`].
    pub(crate) async fn launch(
        self,
        launcher: &Launcher,
        program: &Path,
        log: OwnedFd,
    ) -> Result<(LaunchedProcess, OwnedFd, ReadyListener)> {
        let failed = |what: &Path| {
            let attempt = format!("open {}", what.display());
            move |source| Error::System { attempt, source }
        };
        let own = File::open(program).map_err(failed(program))?;
        let directory = File::open(&self.directory).map_err(failed(&self.directory))?;
        let name = "vsock device process";
        let path = program.display().to_string();
        let mut spec = LaunchSpec::new(name, Program::Descriptor { path });
        spec.arg0 = Some("virtc".into());
        spec.args = ["internal", "vsock-device"].map(str::to_owned).into();
        spec.args.push(guest::GUEST_CID.to_string());
        spec.user = Some(User {
            uid: self.user,
            gid: self.user,
            groups: Vec::new(),
        });
        spec.capabilities = Some(Vec::new());
        spec.namespaces = Namespaces {
            mount: true,
            net: true,
            ipc: true,
            uts: true,
        };
        // It dials the guest's calls by the directory's descriptor, and has no other file.
        spec.root = Some(MountTree::new().with("proc/self/fd", TreeNode::OwnDescriptors));
        let passed = vec![
            PassedFd::new(DescriptorUse::Program, own),
            PassedFd::at(VHOST_FD, self.vhost),
            PassedFd::at(HOST_FD, self.host),
            PassedFd::at(DIRECTORY_FD, directory),
            PassedFd::output(log),
        ];
        let process = launcher.launch(spec, passed).await?;
        Ok((process, self.vmm_end, self.ready))
    }
}
