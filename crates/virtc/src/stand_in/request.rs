use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::PathBuf;

use oci_spec::runtime::Process as ProcessSpec;
use rustix::fs::{MemfdFlags, memfd_create};
use serde::{Deserialize, Serialize};
use vc_cgroups::CgroupDriver;

use crate::cli::{GlobalArgs, LogFormat};

/// What the stand-in stands for.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Task {
    /// A container that is made, in a sandbox of its own.
    Create {
        /// The directory of its OCI bundle, absolute.
        bundle: PathBuf,
    },
    /// A process that is added to a running container.
    Enter {
        /// The process.
        process: Box<ProcessSpec>,
    },
}

/// What `create` and `exec --detach` tell the stand-in.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    /// The container.
    pub(crate) id: String,
    pub(crate) task: Task,
    /// Who holds the other end of its terminal.
    pub(crate) console_socket: Option<PathBuf>,
    /// Whether its standard streams are a terminal that is its own.
    pub(crate) foreground: bool,
    config: Option<PathBuf>,
    root: Option<PathBuf>,
    log: Option<PathBuf>,
    json_log: bool,
    debug: bool,
    systemd_cgroup: bool,
}

impl Request {
    pub(crate) fn new(
        id: String,
        task: Task,
        console_socket: &Option<PathBuf>,
        global: &GlobalArgs,
    ) -> Self {
        let absolute = |path: &Option<PathBuf>| {
            let path = path.as_ref()?;
            Some(std::path::absolute(path).unwrap_or_else(|_| path.clone()))
        };
        Self {
            id,
            task,
            console_socket: absolute(console_socket),
            foreground: false,
            config: absolute(&global.config),
            root: absolute(&global.root),
            log: absolute(&global.log),
            json_log: global.log_format == LogFormat::Json,
            debug: global.debug,
            systemd_cgroup: global.systemd_cgroup,
        }
    }

    /// The global flags that `create` had.
    pub(crate) fn global(&self) -> GlobalArgs {
        GlobalArgs {
            config: self.config.clone(),
            root: self.root.clone(),
            log: self.log.clone(),
            log_format: match self.json_log {
                true => LogFormat::Json,
                false => LogFormat::Text,
            },
            debug: self.debug,
            systemd_cgroup: self.systemd_cgroup,
            rootless: None,
        }
    }

    /// Which form the paths of cgroups have.
    pub(super) fn cgroup_driver(&self) -> CgroupDriver {
        match self.systemd_cgroup {
            true => CgroupDriver::Systemd,
            false => CgroupDriver::Cgroupfs,
        }
    }

    /// A file without a name that holds it.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub(crate) fn to_file(&self) -> io::Result<File> {
        let mut file = File::from(memfd_create("request", MemfdFlags::CLOEXEC)?);
        serde_json::to_writer(&mut file, self).map_err(io::Error::other)?;
        file.flush()?;
        file.rewind()?;
        Ok(file)
    }

    pub(super) fn read(mut file: File) -> io::Result<Self> {
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        serde_json::from_slice(&text).map_err(io::Error::other)
    }
}
