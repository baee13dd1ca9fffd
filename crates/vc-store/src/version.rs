//! From the bytes of a state file to a record, through the versions.

use serde::Deserialize;
use vc_types::SandboxId;
use vc_types::limits::STATE_FILE_BYTES_MAX;

use crate::error::{Error, Result, Unreadable};
use crate::record::SandboxRecord;

/// The version of the state file that this program writes.
pub const STATE_VERSION: u32 = 1;

type Migration = fn(serde_json::Value) -> Result<serde_json::Value, serde_json::Error>;

/// The steps from each version to the next: the first one leads from version 1 to 2.
const MIGRATIONS: [Migration; STATE_VERSION as usize - 1] = [];

/// All that is read before the version is known.
#[derive(Deserialize)]
struct Header {
    version: u32,
}

/// Reads a state file's bytes.
pub(crate) fn decode(bytes: &[u8]) -> Result<SandboxRecord, Unreadable> {
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
