//! A host whose machines come from templates of its own.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;
use tempfile::TempDir;
use test_vm::{Host, Outcome};

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

    /// The ids of the templates.
    pub(super) fn templates(&self) -> Vec<String> {
        self.ids("template")
    }

    pub(super) fn only_template(&self) -> PathBuf {
        let templates = self.templates();
        assert_eq!(templates.len(), 1, "{templates:?}");
        self.library().join(&templates[0])
    }

    /// Runs a command of the host's system and says whether its VM went on from a template.
    #[track_caller]
    pub(super) fn run(&self, script: &str) -> (Outcome, bool) {
        let outcome = self.host.run(&["--timeline"], &["sh", "-c", script]);
        let outcome = outcome.expect_code(0);
        let cloned = outcome.err().contains("guest: handed over");
        assert_ne!(cloned, outcome.err().contains("guest kernel began"));
        (outcome, cloned)
    }

    /// Nothing but whole templates and the makers' lock.
    #[track_caller]
    pub(super) fn expect_clean(&self) {
        for entry in fs::read_dir(self.library()).unwrap() {
            let path = entry.unwrap().path();
            let whole = path.join("template.json").is_file();
            assert!(whole || path.ends_with("lock"), "{path:?}");
        }
    }
}
