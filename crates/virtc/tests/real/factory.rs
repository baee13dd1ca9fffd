//! A host whose machines come from templates of its own.

use std::path::PathBuf;

use serde_json::Value;
use tempfile::TempDir;
use test_vm::Host;

use super::host;

/// How many machines of one template are compared; `make soak` compares more.
pub(super) fn compared(usual: usize) -> usize {
    let set = std::env::var("VIRTC_TEST_CLONES").ok();
    set.map_or(usual, |set| set.parse().unwrap())
}

pub(super) struct Factory {
    pub(super) host: Host,
    /// In memory, where templates lie by default.
    pub(super) dir: TempDir,
}

impl Factory {
    pub(super) fn new() -> Self {
        let mut factory = Self {
            host: host(),
            dir: TempDir::new_in("/dev/shm").unwrap(),
        };
        factory.set_env();
        factory
    }

    /// The environment of its commands, and nothing that was added to it.
    pub(super) fn set_env(&mut self) {
        self.host.clear_env();
        self.host.env("VIRTC_FACTORY_AUTO", "true");
        self.host.env("VIRTC_FACTORY_DIR", self.library());
    }

    /// Where its templates lie.
    pub(super) fn library(&self) -> PathBuf {
        self.dir.path().join("templates")
    }

    /// The ids of what `virtc factory status` calls `what`; of those that are being made, none.
    pub(super) fn ids(&self, what: &str) -> Vec<String> {
        let listed = self.host.virtc(["factory", "status", "-f", "json"]);
        let listed: Vec<Value> = serde_json::from_str(&listed.expect_code(0).out()).unwrap();
        let wanted = listed
            .iter()
            .filter(|one| one["what"] == what && one["used"].is_string());
        wanted
            .map(|one| one["id"].as_str().unwrap().to_owned())
            .collect()
    }
}
