//! How containerd asks for a start, and in which form it wants the answer. Each version has its own.

use containerd_shim_protos::bootstrap_api::{BootstrapParams, BootstrapResult};
use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::protobuf::well_known_types::any::Any;

use crate::cli::Flags;
use crate::error::Result;
use crate::options::is_options;

/// The highest version of the task service that is served; both have the same messages.
const TASK_VERSION_MAX: i32 = 3;

/// What containerd speaks on the socket.
const PROTOCOL: &str = "ttrpc";

/// How the address is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// The address alone: containerd 1.6 and before.
    Address,
    /// JSON with the version of the task service: from 1.7 to 2.2.
    Json {
        /// At most what containerd says that it knows.
        version: i32,
    },
    /// A message, as the request was one: from 2.3.
    Message,
}

/// How a start was asked for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Asked {
    pub(crate) reply: Reply,
    /// Where containerd takes events.
    pub(crate) events: Option<String>,
    /// What it says about the runtime.
    pub(crate) options: Any,
}

impl Asked {
    /// From what came by stdin, and the variables `MAX_SHIM_VERSION` and `TTRPC_ADDRESS`.
    pub(crate) fn of(
        input: &[u8],
        flags: &Flags,
        version_max: Option<&str>,
        events: Option<String>,
    ) -> Self {
        // Options of the older versions parse as such a message too: only the names tell.
        let message = BootstrapParams::parse_from_bytes(input)
            .ok()
            .filter(|params| params.instance_id == flags.id && params.namespace == flags.namespace)
            .filter(|params| !params.instance_id.is_empty());
        if let Some(params) = message {
            let address = Some(params.containerd_ttrpc_address).filter(|text| !text.is_empty());
            // Other extensions are for others.
            let mut extensions = params.extensions.into_iter();
            let options = extensions.find_map(|one| one.value.into_option().filter(is_options));
            return Self {
                reply: Reply::Message,
                events: address.or(events),
                options: options.unwrap_or_default(),
            };
        }
        let reply = match version_max.and_then(|text| text.parse().ok()) {
            // It takes the whole answer for the address.
            None => Reply::Address,
            Some(max) => Reply::Json {
                version: TASK_VERSION_MAX.min(max),
            },
        };
        Self {
            reply,
            events,
            // Without a type they are refused by nobody, and mean nothing.
            options: Any::parse_from_bytes(input).unwrap_or_default(),
        }
    }

    /// The answer with the address of the socket.
    ///
    /// # Errors
    ///
    /// [`crate::error::Error::Message`], which does not happen.
    pub(crate) fn answer(&self, address: &str) -> Result<Vec<u8>> {
        Ok(match self.reply {
            Reply::Address => address.as_bytes().to_vec(),
            Reply::Json { version } => serde_json::json!({
                "version": version,
                "address": address,
                "protocol": PROTOCOL,
            })
            .to_string()
            .into_bytes(),
            Reply::Message => BootstrapResult {
                version: TASK_VERSION_MAX,
                address: address.to_owned(),
                protocol: PROTOCOL.to_owned(),
                ..BootstrapResult::default()
            }
            .write_to_bytes()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use containerd_shim_protos::bootstrap_api::Extension;
    use containerd_shim_protos::protobuf::MessageField;

    use super::*;

    const ADDRESS: &str = "unix:///run/containerd/s/0123";

    fn flags() -> Flags {
        Flags {
            id: "c1".into(),
            namespace: "default".into(),
            ..Flags::default()
        }
    }

    fn extension(type_url: &str) -> Extension {
        let any = Any {
            type_url: type_url.into(),
            ..Any::default()
        };
        Extension {
            value: MessageField::some(any),
            ..Extension::default()
        }
    }

    fn options() -> Vec<u8> {
        let any = Any {
            type_url: "containerd.runc.v1.Options".into(),
            value: vec![1, 2, 3],
            ..Any::default()
        };
        any.write_to_bytes().unwrap()
    }

    #[test]
    fn version_1_6_gets_the_address_alone() {
        for input in [Vec::new(), options()] {
            let asked = Asked::of(&input, &flags(), None, Some("/e".into()));
            assert_eq!(asked.events.as_deref(), Some("/e"));
            assert_eq!(asked.answer(ADDRESS).unwrap(), ADDRESS.as_bytes());
        }
    }

    #[test]
    fn versions_1_7_to_2_2_get_the_version_that_they_know() {
        for (max, version) in [("2", 2), ("3", 3), ("9", 3)] {
            let asked = Asked::of(&options(), &flags(), Some(max), None);
            let answer: serde_json::Value =
                serde_json::from_slice(&asked.answer(ADDRESS).unwrap()).unwrap();
            assert_eq!(answer["version"], version);
            assert_eq!(answer["address"], ADDRESS);
            assert_eq!(answer["protocol"], "ttrpc");
        }
    }

    #[test]
    fn version_2_3_gets_a_message_for_a_message() {
        let params = BootstrapParams {
            instance_id: "c1".into(),
            namespace: "default".into(),
            containerd_ttrpc_address: "/e2".into(),
            extensions: ["io.example.Other", "containerd.runc.v1.Options"]
                .map(extension)
                .into(),
            ..BootstrapParams::default()
        };
        let input = params.write_to_bytes().unwrap();
        let asked = Asked::of(&input, &flags(), Some("2"), Some("/e".into()));
        assert_eq!(asked.events.as_deref(), Some("/e2"));
        assert_eq!(asked.options.type_url, "containerd.runc.v1.Options");
        let answer = BootstrapResult::parse_from_bytes(&asked.answer(ADDRESS).unwrap()).unwrap();
        assert_eq!((answer.version, answer.address.as_str()), (3, ADDRESS));
    }
}
