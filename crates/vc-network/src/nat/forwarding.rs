//! Whether the host hands on packets that are for others.

use std::fs;

use crate::error::{Result, io};
use crate::namespace::Namespace;
use crate::nft::{self, BaseChain};

/// That of the namespace of the thread that opens it.
const FILE: &str = "/proc/sys/net/ipv4/ip_forward";

pub(super) fn is_on(host: &Namespace) -> Result<bool> {
    let text = host
        .run_io(|| fs::read_to_string(FILE))
        .map_err(io("read", FILE))?;
    Ok(text.trim() != "0")
}

/// Writes nothing where it is on: the file may be read-only then.
pub(super) fn turn_on(host: &Namespace) -> Result<()> {
    if is_on(host)? {
        return Ok(());
    }
    write(host, "1")
}

/// Unless somebody else than `table` has rules for such packets, and so may need it.
pub(super) fn turn_off(host: &Namespace, table: &str) -> Result<()> {
    let chains = nft::base_chains(host)?;
    if chains.iter().any(|chain| is_of_another(chain, table)) {
        tracing::info!("IPv4 forwarding stays on: others have rules for it");
        return Ok(());
    }
    write(host, "0")
}

/// The tables of others that drop forwarded packets unless a rule of theirs lets them through.
pub(super) fn dropped_by(host: &Namespace, table: &str) -> Result<Vec<String>> {
    let drops = |chain: &BaseChain| {
        is_of_another(chain, table)
            && chain.hook.as_deref() == Some("forward")
            && chain.policy.as_deref() == Some("drop")
    };
    let chains = nft::base_chains(host)?.into_iter().filter(drops);
    Ok(chains
        .map(|chain| format!("{} {}", chain.family, chain.table))
        .collect())
}

fn write(host: &Namespace, value: &str) -> Result<()> {
    host.run_io(|| fs::write(FILE, value))
        .map_err(io("write", FILE))
}

fn is_of_another(chain: &BaseChain, table: &str) -> bool {
    let ipv4 = matches!(chain.family.as_str(), "ip" | "inet");
    let forwards = match chain.hook.as_deref() {
        Some("forward") => true,
        Some("postrouting") => chain.kind.as_deref() == Some("nat"),
        _ => false,
    };
    ipv4 && forwards && chain.table != table
}
