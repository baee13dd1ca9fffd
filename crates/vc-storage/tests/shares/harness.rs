//! One share for one test, with the client that talks to it.

use std::fs::File;
use std::io::{Read, Seek};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use vc_launch::{Launcher, User};
use vc_storage::{Access, Rights, Share, SharePlan, Source, Virtiofsd};

use crate::fuse::Client;

pub(crate) const ROOT_USER: User = User {
    uid: 0,
    gid: 0,
    groups: Vec::new(),
};

/// Where distributions and the project's own set-up put the program.
const USUAL_PLACES: &[&str] = &[
    "/usr/local/libexec/virtcontainers/virtiofsd",
    "/var/cache/virtcontainers/tools/virtiofsd",
    "/usr/local/bin/virtiofsd",
    "/usr/libexec/virtiofsd",
];

fn virtiofsd() -> Option<PathBuf> {
    std::env::var_os("VIRTC_TEST_VIRTIOFSD")
        .map(PathBuf::from)
        .or_else(|| {
            let usual = USUAL_PLACES.iter().map(PathBuf::from);
            usual.into_iter().find(|path| path.exists())
        })
}

/// What these tests need and do not have here.
pub(crate) fn unmet() -> Option<&'static str> {
    if std::fs::File::open("/etc/shadow").is_err() {
        return Some("shares make namespaces, which needs root");
    }
    virtiofsd()
        .is_none()
        .then_some("there is no virtiofsd; set VIRTC_TEST_VIRTIOFSD to its path")
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
    let program = Virtiofsd::open(&virtiofsd().unwrap()).unwrap();
    let log = tempfile::tempfile().unwrap();
    let share = Share::start_blocking(
        &launcher,
        &program,
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
