use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::shim::oci::ProcessDetails;
use serde_json::json;
use virtcontainers::GuestProcess;

use crate::error::Result;

/// A type that containerd's clients know: one that they do not makes them fail.
const TYPE: &str = "containerd.runc.v1.ProcessDetails";

/// Bytes of a process's arguments that are told.
const ARGUMENTS_BYTES_MAX: usize = 256;

/// What a process is in the guest, as JSON where such a message has a name:
///
/// ```json
/// {"guest_pid": 7, "guest_ppid": 1, "uid": 0, "state": "S", "command": "sleep", "args": "sleep 1000"}
/// ```
pub(super) fn info(process: &GuestProcess) -> Result<Any> {
    let text = json!({
        "guest_pid": process.pid,
        "guest_ppid": process.parent,
        "uid": process.uid,
        "state": bounded(&process.state),
        "command": bounded(&process.command),
        "args": bounded(&process.args.join(" ")),
    });
    let details = ProcessDetails {
        exec_id: text.to_string(),
        ..ProcessDetails::default()
    };
    Ok(Any {
        type_url: TYPE.to_owned(),
        value: details.write_to_bytes()?,
        ..Any::default()
    })
}

/// The beginning of a text, which a guest may have made as long as it likes.
fn bounded(text: &str) -> &str {
    let mut end = text.len().min(ARGUMENTS_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_guest_says_is_bounded() {
        let process = GuestProcess {
            pid: 7,
            parent: 1,
            uid: 1000,
            state: "S".into(),
            command: "ä".repeat(1000),
            args: vec!["x".repeat(100_000); 100],
        };
        let any = info(&process).unwrap();
        assert!(any.value.len() < 2048);
        let details = ProcessDetails::parse_from_bytes(&any.value).unwrap();
        let told: serde_json::Value = serde_json::from_str(&details.exec_id).unwrap();
        assert_eq!(
            (&told["guest_pid"], &told["uid"]),
            (&json!(7), &json!(1000))
        );
        assert_eq!(told["command"], "ä".repeat(128));
    }
}
