use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::types::introspection::{RuntimeInfo, RuntimeVersion};

use super::answer;
use crate::error::Result;

/// As containerd's configuration has it.
const NAME: &str = "io.containerd.virtc.v2";

/// `-info`: what this runtime is, as a message.
pub(super) fn info() -> Result<()> {
    let info = RuntimeInfo {
        name: NAME.to_owned(),
        version: Some(RuntimeVersion {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..RuntimeVersion::default()
        })
        .into(),
        ..RuntimeInfo::default()
    };
    answer(&info.write_to_bytes()?)
}

/// `-v`: the version, in the form of containerd's own shims.
pub(super) fn version() -> Result<()> {
    let (name, version) = (env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
    answer(format!("{name}:\n  Version: {version}\n").as_bytes())
}
