//! A namespace that stands for the host of an engine, for the tests of engines' networks.

use std::process::Command;
use std::time::{Duration, Instant};

/// How long something that was started may take to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// Between two looks.
const RETRY: Duration = Duration::from_millis(100);

/// A network namespace in which an engine makes its bridges.
pub(super) struct Namespace(pub(super) String);

impl Namespace {
    pub(super) fn new(engine: &str) -> Self {
        let name = format!("virtc-test-{}-{engine}", std::process::id());
        let namespace = Self(name);
        assert!(namespace.ip(&["netns", "add", &namespace.0]));
        assert!(namespace.ip(&["-n", &namespace.0, "link", "set", "lo", "up"]));
        namespace
    }

    fn ip(&self, args: &[&str]) -> bool {
        Command::new("ip").args(args).status().unwrap().success()
    }

    /// What a program of the namespace gets from an address.
    pub(super) fn fetched(&self, url: &str) -> String {
        let net = format!("--net=/run/netns/{}", self.0);
        let output = Command::new("nsenter")
            .args([
                net.as_str(),
                "timeout",
                "5",
                "busybox",
                "wget",
                "-q",
                "-O",
                "-",
                url,
            ])
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.ip(&["netns", "del", &self.0]);
    }
}

/// Looks until it is so: what brings it is another process.
#[track_caller]
pub(super) fn wait_until(what: &str, mut look: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !look() {
        assert!(begun.elapsed() < ANSWER_LIMIT, "{what}");
        std::thread::sleep(RETRY);
    }
}

/// A web server with one page.
pub(super) const SERVE: &str = "echo page > /page; exec busybox httpd -f -p 8080 -h /";
