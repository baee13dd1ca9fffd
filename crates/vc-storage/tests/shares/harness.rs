//! One share for one test, with the client that talks to it.

use std::fs::File;
use std::io::{Read, Seek};
use std::os::unix::net::UnixStream;
use std::path::Path;

use tempfile::TempDir;
use vc_launch::{Launcher, User};
use vc_storage::{Access, Rights, Share, SharePlan, Source};

use crate::fuse::Client;

pub(crate) const ROOT_USER: User = User {
    uid: 0,
    gid: 0,
    groups: Vec::new(),
};

/// What these tests need and do not have here.
pub(crate) fn unmet() -> Option<&'static str> {
    std::fs::File::open("/etc/shadow")
        .is_err()
        .then_some("shares make namespaces, which needs root")
}

pub(crate) struct Served {
    pub(crate) share: Share,
    pub(crate) directory: TempDir,
    log: File,
    // After the share: what it started ends with it.
    _launcher: Launcher,
}

pub(crate) fn serve(plan: SharePlan) -> Served {
    let launcher = Launcher::start(Launcher::OWN_PROGRAM).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let log = tempfile::tempfile().unwrap();
    let share = Share::start_blocking(
        &launcher,
        Launcher::OWN_PROGRAM.as_ref(),
        plan,
        directory.path(),
        Some(log.try_clone().unwrap().into()),
    )
    .unwrap();
    Served {
        share,
        directory,
        log,
        _launcher: launcher,
    }
}

impl Served {
    pub(crate) fn client(&mut self) -> Client {
        let socket = self.share.take_vmm_end().unwrap();
        Client::connect(UnixStream::from(socket))
    }

    pub(crate) fn log(&mut self) -> String {
        let mut text = String::new();
        self.log.rewind().unwrap();
        self.log.read_to_string(&mut text).unwrap();
        text
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("the share printed: {}", self.log());
        }
    }
}

/// A plan with one directory as `shared`.
pub(crate) fn one(rights: Rights, directory: &Path, access: Access) -> SharePlan {
    let mut plan = SharePlan::new("a test's share", rights);
    plan.add("shared", Source::open(directory).unwrap(), access);
    plan
}
