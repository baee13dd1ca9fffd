//! Network namespaces for tests, connected to nothing but each other. They need root.

#![allow(
    clippy::unwrap_used,
    dead_code,
    reason = "what fails in a test fails the test, and not every test uses all"
)]

pub(crate) mod guest;

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use vc_network::{Attachment, Endpoint, InterworkingModel, Namespace, Scan};

/// How long the kernel may take for what it does a moment later.
const SETTLED_LIMIT: Duration = Duration::from_secs(10);

/// Ends the calling test where it cannot be done, and says why.
macro_rules! need_root {
    () => {
        if !$crate::common::is_root() {
            println!("skipped: network namespaces need root");
            return;
        }
    };
}
pub(crate) use need_root;

pub(crate) fn is_root() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    status.lines().any(|line| line.starts_with("Uid:\t0\t0"))
}

/// A namespace of `ip netns`, which is deleted at the end of the test, also of one that fails.
pub(crate) struct TestNamespace {
    name: String,
}

impl TestNamespace {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("vc-network-test-{}-{number}", std::process::id());
        let this = Self { name };
        run("ip", &["netns", "add", &this.name]);
        this
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }

    pub(crate) fn open(&self) -> Namespace {
        Namespace::open(self.path()).unwrap()
    }

    /// `ip` inside, by the words of `command`.
    pub(crate) fn ip(&self, command: &str) -> String {
        self.tool("ip", command)
    }

    /// `tc` inside.
    pub(crate) fn tc(&self, command: &str) -> String {
        self.tool("tc", command)
    }

    fn tool(&self, tool: &str, command: &str) -> String {
        let words = command.split_whitespace();
        let words: Vec<_> = ["-n", &self.name].into_iter().chain(words).collect();
        run(tool, &words)
    }

    pub(crate) fn scan(&self) -> Scan {
        Scan::of(&self.open()).unwrap()
    }

    /// `nft` inside, by the words of `command`.
    pub(crate) fn nft(&self, command: &str) -> String {
        let words = ["netns", "exec", &self.name, "nft"].into_iter();
        let words: Vec<_> = words.chain(command.split_whitespace()).collect();
        run("ip", &words)
    }

    /// The endpoint of this name.
    pub(crate) fn endpoint(&self, name: &str) -> Endpoint {
        let links = self.scan().links;
        let mut found = links.into_iter().filter(|link| link.name.as_str() == name);
        Endpoint::new(found.next().unwrap()).unwrap()
    }

    /// A plan for `eth0`.
    pub(crate) fn plan(&self) -> Attachment {
        let endpoint = self.endpoint("eth0");
        Attachment::plan(&self.open(), &endpoint, InterworkingModel::Tcfilter, 1).unwrap()
    }

    /// All that can be seen in it, without what the kernel changes by itself a moment later.
    pub(crate) fn snapshot(&self) -> String {
        let mut text = String::new();
        for command in [
            "-d link",
            "addr",
            "-4 route show table all",
            "-6 route show table all",
            "neigh show nud permanent",
        ] {
            text += &self.ip(command);
        }
        text += &self.tc("qdisc show");
        for index in self.scan().links {
            text += &self.tc(&format!("filter show dev {} ingress", index.name));
        }
        for state in [
            "state UP",
            "state DOWN",
            "state UNKNOWN",
            "state LOWERLAYERDOWN",
        ] {
            text = text.replace(state, "state");
        }
        let text = text.replace(" linkdown", "");
        // Timers of bridges run, and stand between words: `gc_timer  299.34`.
        let mut words = text.split(' ').peekable();
        let mut without = Vec::new();
        while let Some(word) = words.next() {
            without.push(word);
            if word.ends_with("_timer") {
                while words
                    .next_if(|next| next.parse::<f64>().is_ok() || next.is_empty())
                    .is_some()
                {}
            }
        }
        without.join(" ")
    }

    /// Deletes it before the test ends.
    pub(crate) fn delete(&self) {
        run("ip", &["netns", "del", &self.name]);
    }
}

impl Drop for TestNamespace {
    fn drop(&mut self) {
        let _ = Command::new("ip")
            .args(["netns", "del", &self.name])
            .output();
    }
}

/// Asks until it is so, because nothing tells.
#[track_caller]
pub(crate) fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let end = Instant::now() + SETTLED_LIMIT;
    while !is_so() {
        assert!(Instant::now() < end, "{what}: not within {SETTLED_LIMIT:?}");
    }
}

/// As `assert_eq`, but says no more than the lines that differ.
#[track_caller]
pub(crate) fn assert_same(now: &str, before: &str, when: &str) {
    let only = |these: &str, those: &str| -> Vec<String> {
        let lines = these
            .lines()
            .filter(|line| !those.lines().any(|other| other == *line));
        lines.map(str::to_owned).collect()
    };
    let (new, gone) = (only(now, before), only(before, now));
    assert!(now == before, "{when}: new: {new:#?}, gone: {gone:#?}");
}

fn run(tool: &str, words: &[&str]) -> String {
    let output = Command::new(tool).args(words).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{tool} {words:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

/// A pod's namespace, and that of the host at the other end of its veth.
pub(crate) struct Pod {
    pub(crate) inside: TestNamespace,
    pub(crate) outside: TestNamespace,
}

/// `eth0` has 10.9.0.2/24, fd09::2/64 and fe80::5/64, the other end 10.9.0.1/24.
pub(crate) fn pod() -> Pod {
    let (inside, outside) = (TestNamespace::new(), TestNamespace::new());
    let peer = format!(
        "peer name peer0 address 02:00:00:00:00:0b netns {}",
        outside.name()
    );
    inside.ip(&format!(
        "link add eth0 address 02:00:00:00:00:0a mtu 1400 type veth {peer}"
    ));
    // Addresses that the kernel adds when it likes would make snapshots differ.
    inside.ip("link set eth0 addrgenmode none");
    outside.ip("link set peer0 addrgenmode none");
    outside.ip("link set peer0 up");
    outside.ip("addr add 10.9.0.1/24 dev peer0");
    inside.ip("link set lo up");
    inside.ip("link set eth0 up");
    inside.ip("addr add 10.9.0.2/24 dev eth0");
    inside.ip("-6 addr add fd09::2/64 dev eth0 nodad");
    inside.ip("-6 addr add fe80::5/64 dev eth0 nodad");
    // The kernel adds the routes to these a moment after the carrier is there.
    for address in ["fd09::2", "fe80::5"] {
        wait_until(address, || {
            inside.ip("-6 route show table local").contains(address)
        });
    }
    Pod { inside, outside }
}
