use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::json;

/// A static program under many names.
const BUSYBOX: &str = "/bin/busybox";

/// Makes the root of a container, with one program.
pub(crate) fn make_root(root: &Path) -> Result<()> {
    for directory in ["bin", "proc", "dev", "sys", "run"] {
        fs::create_dir_all(root.join(directory))?;
    }
    fs::copy(BUSYBOX, root.join("bin/busybox")).context("busybox-static is needed")?;
    Ok(())
}

/// Makes a bundle whose container sleeps.
pub(crate) fn make(work: &Path) -> Result<PathBuf> {
    let bundle = work.join("bundle");
    make_root(&bundle.join("root"))?;
    let namespaces = ["pid", "ipc", "uts", "mount", "network"].map(|kind| json!({"type": kind}));
    let config = json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": ["/bin/busybox", "sleep", "100000"],
            "env": ["PATH=/bin"],
            "cwd": "/",
        },
        "root": {"path": "root"},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
             "options": ["nosuid", "mode=755", "size=65536k"]},
        ],
        "linux": {"namespaces": namespaces},
    });
    fs::write(bundle.join("config.json"), config.to_string())?;
    Ok(bundle)
}
