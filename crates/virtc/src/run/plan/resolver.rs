//! Whom a machine asks for names: what the host has, as far as the machine reaches it.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

/// The host's own.
const RESOLV_CONF: &str = "etc/resolv.conf";

/// What systemd-resolved asks itself, where the host's file names its listener on loopback.
const BEHIND_LOOPBACK: &str = "run/systemd/resolve/resolv.conf";

/// Where network namespaces have their names.
const NAMED: [&str; 2] = ["/run/netns", "/var/run/netns"];

/// A machine's resolv.conf.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Resolver {
    pub(super) text: String,
    /// Why names will not be found.
    pub(super) notice: Option<String>,
}

impl Resolver {
    /// That of a machine in the network namespace at `path`: the one that `ip netns exec` shows for
    /// a namespace with a name, or the host's. `root` is the host's.
    pub(super) fn of_namespace(root: &Path, path: &Path) -> Self {
        let own = NAMED
            .iter()
            .find_map(|directory| path.strip_prefix(directory).ok())
            .map(|name| root.join("etc/netns").join(name).join("resolv.conf"));
        match own.filter(|own| own.is_file()) {
            Some(own) => Self::reached(&own, None),
            None => Self::of_host(root),
        }
    }

    /// That of a machine which reaches what the host reaches, but not the host's loopback.
    pub(super) fn of_host(root: &Path) -> Self {
        let behind = root.join(BEHIND_LOOPBACK);
        Self::reached(&root.join(RESOLV_CONF), Some(behind))
    }

    /// That of a machine which has one at `address`; the rest is the host's.
    pub(super) fn at(address: Ipv4Addr, root: &Path) -> Self {
        let of_host = read(&root.join(RESOLV_CONF));
        let kept = of_host.lines().filter(|line| resolver(line).is_none());
        let kept = kept.flat_map(|line| [line, "\n"]).collect::<String>();
        Self {
            text: format!("{kept}nameserver {address}\n"),
            notice: None,
        }
    }

    /// What `file` says without its resolvers on loopback, or what `behind` says where it has no
    /// others.
    fn reached(file: &Path, behind: Option<PathBuf>) -> Self {
        let files = std::iter::once(file).chain(behind.as_deref());
        let found = files
            .map(|file| without_loopback(&read(file)))
            .find(|text| resolvers(text).next().is_some());
        match found {
            Some(text) => Self { text, notice: None },
            None => Self {
                text: read(file),
                notice: Some(format!(
                    "{} names no resolver that the machine reaches: none but addresses will work",
                    file.display()
                )),
            },
        }
    }
}

/// A file that is missing says nothing.
fn read(file: &Path) -> String {
    let bytes = std::fs::read(file).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The resolver that a line names.
fn resolver(line: &str) -> Option<IpAddr> {
    let mut words = line.split_whitespace();
    let address = words.next().filter(|word| *word == "nameserver");
    let address = address.and_then(|_| words.next())?;
    address.split('%').next()?.parse().ok()
}

fn resolvers(text: &str) -> impl Iterator<Item = IpAddr> + '_ {
    text.lines().filter_map(resolver)
}

fn without_loopback(text: &str) -> String {
    let reached = |line: &&str| resolver(line).is_none_or(|address| !address.is_loopback());
    let lines = text.lines().filter(reached);
    lines.flat_map(|line| [line, "\n"]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, file: &str, text: &str) {
        let path = root.join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    #[test]
    fn a_namespace_with_a_name_can_have_its_own_resolver() {
        let root = tempfile::tempdir().unwrap();
        let of = |path: &str| Resolver::of_namespace(root.path(), Path::new(path));
        write(root.path(), RESOLV_CONF, "nameserver 10.0.0.1\n");
        write(
            root.path(),
            "etc/netns/web/resolv.conf",
            "nameserver 10.0.0.2\n",
        );
        assert_eq!(of("/run/netns/web").text, "nameserver 10.0.0.2\n");
        assert_eq!(of("/var/run/netns/web").text, "nameserver 10.0.0.2\n");
        assert_eq!(of("/run/netns/other").text, "nameserver 10.0.0.1\n");
        assert_eq!(of("/proc/1/ns/net").text, "nameserver 10.0.0.1\n");
    }

    #[test]
    fn a_resolver_of_the_network_takes_the_place_of_the_hosts() {
        let root = tempfile::tempdir().unwrap();
        let own = "search a\nnameserver 127.0.0.53\nnameserver ::1\n";
        write(root.path(), RESOLV_CONF, own);
        let resolver = Resolver::at(Ipv4Addr::new(10, 0, 2, 3), root.path());
        assert_eq!(resolver.text, "search a\nnameserver 10.0.2.3\n");
    }

    #[test]
    fn a_resolver_on_loopback_gives_way_to_those_that_it_asks() {
        let root = tempfile::tempdir().unwrap();
        let of = || Resolver::of_host(root.path());
        assert!(of().notice.is_some());
        let stub = "# stub\nnameserver 127.0.0.53\noptions edns0\n";
        write(root.path(), RESOLV_CONF, stub);
        let alone = of();
        assert!(alone.notice.is_some() && alone.text == stub);
        write(root.path(), BEHIND_LOOPBACK, "nameserver fe80::1%eth0\n");
        assert_eq!(of().text, "nameserver fe80::1%eth0\n");
        let two = "nameserver ::1\nnameserver 10.0.0.1\nsearch a\n";
        write(root.path(), RESOLV_CONF, two);
        let two = of();
        assert_eq!(two.text, "nameserver 10.0.0.1\nsearch a\n");
        assert_eq!(two.notice, None);
    }
}
