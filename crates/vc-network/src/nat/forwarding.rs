//! Whether the host hands on packets that are for others.

use std::fs;

use crate::error::{Result, io};
use crate::link;
use crate::namespace::Namespace;
use crate::netlink::Netlink;
use crate::nft::{self, BaseChain};

/// Settings of each link of IPv6, in the namespace of the thread that opens them.
const LINKS6: &str = "/proc/sys/net/ipv6/conf";

/// The protocol that is forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    Ipv4,
    Ipv6,
}

impl Family {
    /// That of the namespace of the thread that opens it.
    fn file(self) -> &'static str {
        match self {
            Self::Ipv4 => "/proc/sys/net/ipv4/ip_forward",
            Self::Ipv6 => "/proc/sys/net/ipv6/conf/all/forwarding",
        }
    }

    /// As logs have it.
    fn name(self) -> &'static str {
        match self {
            Self::Ipv4 => "IPv4",
            Self::Ipv6 => "IPv6",
        }
    }

    /// Whether a table of nftables sees it.
    fn is_in(self, table: &str) -> bool {
        match self {
            Self::Ipv4 => matches!(table, "ip" | "inet"),
            Self::Ipv6 => matches!(table, "ip6" | "inet"),
        }
    }
}

pub(super) fn is_on(host: &Namespace, family: Family) -> Result<bool> {
    let file = family.file();
    let text = host
        .run_io(|| fs::read_to_string(file))
        .map_err(io("read", file))?;
    Ok(text.trim() != "0")
}

/// Writes nothing where it is on: the file may be read-only then.
pub(super) fn turn_on(host: &Namespace, family: Family) -> Result<()> {
    if is_on(host, family)? {
        return Ok(());
    }
    write(host, family.file(), "1")
}

/// Unless somebody else than `table` has rules for such packets, and so may need it. Whether it was
/// turned off.
pub(super) fn turn_off(host: &Namespace, family: Family, table: &str) -> Result<bool> {
    let chains = nft::base_chains(host)?;
    if chains
        .iter()
        .any(|chain| is_of_another(chain, family, table))
    {
        tracing::info!(
            "{} forwarding stays on: others have rules for it",
            family.name()
        );
        return Ok(false);
    }
    write(host, family.file(), "0")?;
    Ok(true)
}

/// The links that forward IPv6 by themselves, though the host does not; the switch of the host sets
/// those of all links. `default` is among them, which is that of links to come.
pub(super) fn links6(host: &Namespace) -> Result<Vec<String>> {
    let read = || {
        let mut links = Vec::new();
        for entry in fs::read_dir(LINKS6)? {
            let entry = entry?;
            let name = entry.file_name().into_string();
            // A link may vanish meanwhile.
            let on = fs::read_to_string(entry.path().join("forwarding"));
            if let (Ok(name), Ok(on)) = (name, on)
                && name != "all"
                && on.trim() != "0"
            {
                links.push(name);
            }
        }
        links.sort();
        Ok(links)
    };
    host.run_io(read).map_err(io("list", LINKS6))
}

/// Lets these links forward by themselves again.
pub(super) fn restore_links6(host: &Namespace, links: &[String]) {
    for link in links {
        if let Err(error) = write(host, &format!("{LINKS6}/{link}/forwarding"), "1") {
            tracing::debug!(%error, "a link that has vanished meanwhile");
        }
    }
}

/// Whether the kernel would not do so any more if it forwarded.
pub(super) fn listens_to_routers(
    host: &Namespace,
    link: u32,
    netlink: &mut Netlink,
) -> Result<bool> {
    let found = link::by_index(netlink, link).map_err(io("look at the link", link))?;
    let Some(found) = found else {
        return Ok(false);
    };
    let file = format!("{LINKS6}/{}/accept_ra", found.name);
    let text = host
        .run_io(|| fs::read_to_string(&file))
        .map_err(io("read", &file))?;
    Ok(text.trim() == "1")
}

/// The tables of others that drop forwarded packets unless a rule of theirs lets them through.
pub(super) fn dropped_by(
    host: &Namespace,
    families: &[Family],
    table: &str,
) -> Result<Vec<String>> {
    let drops = |chain: &BaseChain| {
        families
            .iter()
            .any(|family| is_of_another(chain, *family, table))
            && chain.hook.as_deref() == Some("forward")
            && chain.policy.as_deref() == Some("drop")
    };
    let chains = nft::base_chains(host)?.into_iter().filter(drops);
    Ok(chains
        .map(|chain| format!("{} {}", chain.family, chain.table))
        .collect())
}

fn write(host: &Namespace, file: &str, value: &str) -> Result<()> {
    host.run_io(|| fs::write(file, value))
        .map_err(io("write", file))
}

fn is_of_another(chain: &BaseChain, family: Family, table: &str) -> bool {
    let forwards = match chain.hook.as_deref() {
        Some("forward") => true,
        Some("postrouting") => chain.kind.as_deref() == Some("nat"),
        _ => false,
    };
    family.is_in(&chain.family) && forwards && chain.table != table
}
