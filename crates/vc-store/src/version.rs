//! From the bytes of a state file to a record, through the versions.

use serde::Deserialize;
use vc_types::SandboxId;
use vc_types::limits::STATE_FILE_BYTES_MAX;

use crate::error::{Error, Result, Unreadable};
use crate::record::SandboxRecord;

/// The version of the state file that this program writes.
pub const STATE_VERSION: u32 = 2;

type Migration = fn(serde_json::Value) -> Result<serde_json::Value, serde_json::Error>;

/// The steps from each version to the next: the first one leads from version 1 to 2.
const MIGRATIONS: [Migration; STATE_VERSION as usize - 1] = [from_1];

/// Version 2 has containers that come and go, and annotations.
fn from_1(value: serde_json::Value) -> Result<serde_json::Value, serde_json::Error> {
    use serde_json::{Map, Value, from_value, json};
    use std::collections::BTreeMap;
    let mut record: Map<String, Value> = from_value(value)?;
    let containers = record.remove("containers").unwrap_or_default();
    let mut containers: BTreeMap<String, Map<String, Value>> = from_value(containers)?;
    for (number, container) in containers.values_mut().enumerate() {
        container.insert("number".into(), json!(number));
        container.insert("creating".into(), json!(false));
        container.insert("shared".into(), json!([]));
        container.insert("annotations".into(), json!({}));
        container.insert("cgroup".into(), Value::Null);
    }
    record.insert("version".into(), json!(2));
    record.insert("annotations".into(), json!({}));
    record.insert("cgroup".into(), Value::Null);
    record.insert("containers_made".into(), json!(containers.len()));
    record.insert("containers".into(), json!(containers));
    Ok(record.into())
}

/// All that is read before the version is known.
#[derive(Deserialize)]
struct Header {
    version: u32,
}

/// Reads a state file's bytes.
pub(crate) fn decode(bytes: &[u8]) -> Result<SandboxRecord, Unreadable> {
    let current = serde_json::from_slice::<SandboxRecord>(bytes);
    if let Ok(record) = current
        && record.version == STATE_VERSION
    {
        return Ok(record);
    }
    // Another version, or what cannot be read.
    let header: Header = serde_json::from_slice(bytes).map_err(Unreadable::Json)?;
    let version = header.version;
    if version > STATE_VERSION {
        return Err(Unreadable::Newer {
            version,
            known: STATE_VERSION,
        });
    }
    if version == STATE_VERSION {
        return serde_json::from_slice(bytes).map_err(Unreadable::Json);
    }
    let older = usize::try_from(version)
        .ok()
        .and_then(|version| version.checked_sub(1));
    let steps = older.and_then(|older| MIGRATIONS.get(older..));
    let Some(steps) = steps else {
        return Err(Unreadable::NoVersion { version });
    };
    let mut value = serde_json::from_slice(bytes).map_err(Unreadable::Json)?;
    for step in steps {
        value = step(value).map_err(Unreadable::Json)?;
    }
    serde_json::from_value(value).map_err(Unreadable::Json)
}

/// Makes a state file's bytes, as long as they can be read again.
pub(crate) fn encode(id: &SandboxId, record: &SandboxRecord) -> Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(record).map_err(|source| Error::Encode {
        id: id.clone(),
        source,
    })?;
    bytes.push(b'\n');
    let size = bytes.len() as u64;
    if size > STATE_FILE_BYTES_MAX {
        return Err(Error::TooLarge {
            id: id.clone(),
            bytes: size,
            max: STATE_FILE_BYTES_MAX,
        });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record() -> SandboxRecord {
        SandboxRecord::new("a".parse().unwrap()).unwrap()
    }

    #[test]
    fn a_record_reads_back() {
        let record = record();
        assert_eq!(
            decode(&encode(record.id(), &record).unwrap()).unwrap(),
            record
        );
    }

    #[test]
    fn a_state_of_version_1_is_read() {
        let mut record = record();
        for name in ["a", "b"] {
            let container = crate::record::ContainerRecord::new(vec!["sh".into()]);
            record.containers.insert(name.parse().unwrap(), container);
        }
        let mut value = serde_json::to_value(&record).unwrap();
        value["version"] = 1.into();
        let added = ["annotations", "containers_made", "cgroup"];
        value
            .as_object_mut()
            .unwrap()
            .retain(|key, _| !added.contains(&key.as_str()));
        for container in value["containers"].as_object_mut().unwrap().values_mut() {
            let added = ["number", "creating", "shared", "annotations", "cgroup"];
            container
                .as_object_mut()
                .unwrap()
                .retain(|key, _| !added.contains(&key.as_str()));
        }
        let read = decode(&serde_json::to_vec(&value).unwrap()).unwrap();
        assert_eq!(read.containers_made, 2);
        assert_eq!(read.containers[&"b".parse().unwrap()].number, 1);
        assert_eq!(read.version, STATE_VERSION);
    }

    #[test]
    fn a_state_that_only_says_that_it_is_old_is_refused() {
        for text in [
            "{\"version\":1}",
            "{\"version\":1,\"containers\":{\"a\":7}}",
        ] {
            let bad = std::panic::catch_unwind(|| decode(text.as_bytes()));
            assert!(matches!(bad, Ok(Err(Unreadable::Json(_)))), "{text}");
        }
    }

    #[test]
    fn a_newer_version_is_refused_by_its_number_whatever_else_it_holds() {
        let error = decode(br#"{"future": [], "version": 7}"#).unwrap_err();
        assert!(matches!(
            error,
            Unreadable::Newer {
                version: 7,
                known: STATE_VERSION
            }
        ));
        assert!(error.to_string().contains("version 7"), "{error}");
    }

    #[test]
    fn what_is_no_state_is_refused() {
        assert!(matches!(
            decode(br#"{"version": 0}"#),
            Err(Unreadable::NoVersion { version: 0 })
        ));
        let text = String::from_utf8(encode(&"a".parse().unwrap(), &record()).unwrap()).unwrap();
        let extra = text.replacen('{', "{\"colour\":1,", 1);
        for bad in [
            "",
            "{}",
            "[]",
            "{\"version\":\"1\"}",
            "{\"version\":1}",
            &extra,
            &text[1..],
        ] {
            assert!(
                matches!(decode(bad.as_bytes()), Err(Unreadable::Json(_))),
                "{bad}"
            );
        }
    }

    #[test]
    fn a_record_that_could_not_be_read_again_is_not_written() {
        let mut record = record();
        record
            .assets
            .insert("x".into(), "y".repeat(STATE_FILE_BYTES_MAX as usize));
        assert!(matches!(
            encode(&record.id, &record),
            Err(Error::TooLarge { .. })
        ));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, cut in 0usize..400, flip in 0usize..400) {
            let _ = decode(&bytes);
            let mut state = encode(&"a".parse().unwrap(), &record()).unwrap();
            let flip = flip % state.len();
            state[flip] ^= 1 << (cut % 8);
            let _ = decode(&state);
            state.truncate(cut.min(state.len()));
            let _ = decode(&state);
        }
    }
}
