//! Kubernetes' own description of a pod, which containerd gives with a sandbox that it has as such.

use containerd_shim_protos::protobuf::CodedInputStream;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::{Result as Read, rt::WireType};
use vc_cgroups::CgroupPath;

use crate::error::Result;

/// What the description is called, with the version of the runtime interface before it.
const NAME: &str = "PodSandboxConfig";

/// Its field that is about Linux, and the field of that with the pod's cgroup.
const LINUX: u32 = 8;
const CGROUP_PARENT: u32 = 1;

/// The cgroup of the pod, if this describes one and names its cgroup from the root on.
///
/// # Errors
///
/// [`crate::error::Error::Message`] for a description that is broken.
pub(crate) fn pod_cgroup(any: &Any) -> Result<Option<CgroupPath>> {
    let name = any.type_url.rsplit(['/', '.']).next();
    if name != Some(NAME) {
        return Ok(None);
    }
    let Some(linux) = field(&any.value, LINUX)? else {
        return Ok(None);
    };
    let parent = field(&linux, CGROUP_PARENT)?.and_then(|text| String::from_utf8(text).ok());
    let path = parent.and_then(|text| CgroupPath::new(text).ok());
    Ok(path.filter(CgroupPath::is_absolute))
}

/// The last field with this number that is text, bytes or a message; other kinds are passed over.
fn field(message: &[u8], number: u32) -> Read<Option<Vec<u8>>> {
    let mut found = None;
    let mut input = CodedInputStream::from_bytes(message);
    while let Some(tag) = input.read_raw_tag_or_eof()? {
        let kind = WireType::new(tag & 7).unwrap_or(WireType::EndGroup);
        match (tag >> 3, kind) {
            (this, WireType::LengthDelimited) if this == number => {
                found = Some(input.read_bytes()?);
            }
            (_, kind) => input.skip_field(kind)?,
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any(name: &str, value: &[u8]) -> Any {
        Any {
            type_url: name.to_owned(),
            value: value.to_owned(),
            ..Any::default()
        }
    }

    #[test]
    fn a_description_of_a_pod_names_its_cgroup() {
        // A host name, the field `linux` with a parent and another field, and a number.
        let text = b"\x12\x03web\x42\x09\x0a\x05/a/b0\x1a\x00\x50\x01";
        let cgroup = |name: &str, value: &[u8]| pod_cgroup(&any(name, value)).unwrap();
        let found = cgroup("runtime.v1.PodSandboxConfig", text);
        assert_eq!(found.unwrap().as_str(), "/a/b0");
        assert_eq!(cgroup("containerd.runc.v1.Options", text), None);
        // Neither one without it, nor one whose parent is no path from the root on.
        for none in [
            &b""[..],
            b"\x12\x03web",
            b"\x42\x00",
            b"\x42\x03\x0a\x01a",
            b"\x42\x05\x0a\x03/..",
        ] {
            assert_eq!(cgroup("runtime.v1.PodSandboxConfig", none), None);
        }
        for broken in [&b"\x42"[..], b"\x42\x09\x0a", b"\x42\x01\x0a"] {
            pod_cgroup(&any("runtime.v1.PodSandboxConfig", broken)).unwrap_err();
        }
    }
}
