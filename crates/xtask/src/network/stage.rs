//! The namespaces and links of the measurement. All of it goes with the stage.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::Way;
use super::client::Client;

/// The guest's address, and that of its neighbour.
pub(super) const GUEST: &str = "10.7.0.2";
pub(super) const NEIGHBOUR: &str = "10.7.0.1";

/// Bits of their network.
pub(super) const PREFIX: u8 = 24;

/// The tap of the bare VM.
pub(super) const TAP: &str = "tap0";

/// A network namespace that is removed with this.
#[derive(Debug)]
pub(super) struct Namespace(String);

impl Namespace {
    fn make(end: &str) -> Result<Self> {
        let name = format!("xtask-{}-{end}", std::process::id());
        ip(&format!("netns add {name}"))?;
        let namespace = Self(name);
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    fn ip(&self, words: &str) -> Result<()> {
        ip(&format!("-n {} {words}", self.0))
    }

    fn address(&self, address: &str, link: &str) -> Result<()> {
        self.ip(&format!("addr add {address}/{PREFIX} dev {link}"))
    }

    /// Where it is.
    pub(super) fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.0)
    }

    /// A program that runs in it.
    pub(super) fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("nsenter");
        let net = format!("--net={}", self.path().display());
        command.arg(net).arg(program.as_ref());
        command
    }

    /// Does something in it, on a thread of its own.
    pub(super) fn inside<T: Send>(&self, act: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let file = File::open(self.path())?;
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
                act()
            });
            let done = thread.join();
            done.map_err(|_| anyhow!("a thread of the measurement panicked"))?
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // What it has goes with it; it is named after this process.
        let _ = ip(&format!("netns del {}", self.0));
    }
}

/// Two namespaces with a pair of veths between them.
#[derive(Debug)]
struct Pair {
    /// Where `eth0` is.
    container: Namespace,
    /// Where its other end is.
    neighbour: Namespace,
}

impl Pair {
    fn make(end: &str) -> Result<Self> {
        let pair = Self {
            container: Namespace::make(end)?,
            neighbour: Namespace::make(&format!("{end}-peer"))?,
        };
        let Self {
            container,
            neighbour,
        } = &pair;
        connect((container, "eth0", GUEST), (neighbour, NEIGHBOUR))?;
        Ok(pair)
    }
}

/// Makes a pair of veths, with an address at each end and a route by the outer one.
fn connect(
    (inside, link, inner): (&Namespace, &str, &str),
    (outside, outer): (&Namespace, &str),
) -> Result<()> {
    let peer = &outside.0;
    inside.ip(&format!(
        "link add {link} type veth peer name end netns {peer}"
    ))?;
    for (namespace, link, address) in [(inside, link, inner), (outside, "end", outer)] {
        namespace.ip(&format!("link set dev {link} up"))?;
        namespace.address(address, link)?;
    }
    inside.ip(&format!("route add default via {outer}"))
}

/// Everything that guests are reached by.
#[derive(Debug)]
pub(super) struct Stage {
    /// What becomes the guest's, by each way of a namespace.
    tcfilter: Pair,
    macvtap: Pair,
    /// Where the bare VM's tap is, and whoever reaches it.
    pub(super) bare: Namespace,
    /// Where its tap is on a bridge with one end of a pair, as ours is beside one.
    pub(super) bridged: Namespace,
    /// The other end of that.
    opposite: Namespace,
    /// Where connections for a guest are made, and beyond.
    user: Namespace,
    beyond: Namespace,
}

impl Stage {
    pub(super) fn make() -> Result<Self> {
        let stage = Self {
            tcfilter: Pair::make("tcfilter")?,
            macvtap: Pair::make("macvtap")?,
            bare: Namespace::make("bare")?,
            bridged: Namespace::make("bridged")?,
            opposite: Namespace::make("opposite")?,
            user: Namespace::make("user")?,
            beyond: Namespace::make("beyond")?,
        };
        let (user, beyond) = (&stage.user, &stage.beyond);
        connect((user, "uplink", "10.8.0.2"), (beyond, "10.8.0.1"))?;
        for namespace in [&stage.bare, &stage.bridged] {
            namespace.ip(&format!("tuntap add mode tap name {TAP} vnet_hdr"))?;
            namespace.ip(&format!("link set dev {TAP} up"))?;
        }
        stage.bare.address(NEIGHBOUR, TAP)?;
        let (bridged, opposite) = (&stage.bridged, &stage.opposite);
        let peer = &opposite.0;
        bridged.ip(&format!(
            "link add wire type veth peer name end netns {peer}"
        ))?;
        bridged.ip("link add bridge type bridge")?;
        for link in ["wire", TAP] {
            bridged.ip(&format!("link set dev {link} master bridge"))?;
        }
        for link in ["wire", "bridge"] {
            bridged.ip(&format!("link set dev {link} up"))?;
        }
        opposite.ip("link set dev end up")?;
        opposite.address(NEIGHBOUR, "end")?;
        Ok(stage)
    }

    /// Whoever reaches a guest of ours.
    pub(super) fn client(&self, way: Way) -> Client<'_> {
        let (namespace, address) = match way {
            Way::Tcfilter => (&self.tcfilter.neighbour, GUEST),
            Way::Macvtap => (&self.macvtap.neighbour, GUEST),
            Way::User => (&self.user, "127.0.0.1"),
        };
        Client { namespace, address }
    }

    /// Where a guest of ours has its network from, or is reached from.
    pub(super) fn namespace(&self, way: Way) -> &Namespace {
        match way {
            Way::Tcfilter => &self.tcfilter.container,
            Way::Macvtap => &self.macvtap.container,
            Way::User => &self.user,
        }
    }

    /// Whoever reaches the bare VM by its tap alone.
    pub(super) fn bare_client(&self) -> Client<'_> {
        Client {
            namespace: &self.bare,
            address: GUEST,
        }
    }

    /// Whoever reaches the one on the bridge.
    pub(super) fn bridged_client(&self) -> Client<'_> {
        Client {
            namespace: &self.opposite,
            address: GUEST,
        }
    }
}

fn ip(words: &str) -> Result<()> {
    let output = Command::new("ip")
        .args(words.split(' '))
        .stdin(Stdio::null())
        .output()
        .context("iproute2 is needed")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "ip {words}: {}", said.trim());
    Ok(())
}
