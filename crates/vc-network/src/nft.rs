//! The program `nft`, which sets the kernel's packet filter.
//!
//! Its messages to the kernel are many and its library is C's: every container engine that uses
//! nftables runs the program.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::process::{Child, Command};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::Deserialize;

use crate::error::{Error, Result, io, limited};
use crate::limits::{NFT_LIMIT, NFT_OUTPUT_MAX};
use crate::namespace::Namespace;

/// The program, where the caller's `PATH` has it, and where ordinary users' `PATH` has it not.
const PLACES: [&str; 3] = ["nft", "/usr/sbin/nft", "/sbin/nft"];

/// A chain of the packet filter to which the kernel hands packets.
#[derive(Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct BaseChain {
    pub(crate) family: String,
    pub(crate) table: String,
    /// `filter`, `nat` or `route`; none for a chain that others call.
    #[serde(rename = "type")]
    pub(crate) kind: Option<String>,
    pub(crate) hook: Option<String>,
    /// What happens to packets that no rule decides about: `accept` or `drop`.
    pub(crate) policy: Option<String>,
}

/// Does what a script says, all or nothing.
pub(crate) fn apply(namespace: &Namespace, script: &str) -> Result<()> {
    run(namespace, &["-f", "-"], script).map(|_| ())
}

/// Whether the kernel would take a script; nothing of it is done.
pub(crate) fn try_out(namespace: &Namespace, script: &str) -> Result<()> {
    run(namespace, &["-c", "-f", "-"], script).map(|_| ())
}

/// Deletes a table, if it is there.
pub(crate) fn delete_table(namespace: &Namespace, table: &str) -> Result<()> {
    // Adding one that is there does nothing, and what is not there cannot be deleted.
    apply(
        namespace,
        &format!("add table {table}\ndelete table {table}\n"),
    )
}

/// Whether a table, given as `FAMILY NAME`, is there.
pub(crate) fn has_table(namespace: &Namespace, table: &str) -> Result<bool> {
    let tables = run(namespace, &["list", "tables"], "")?;
    Ok(tables.lines().any(|line| line == format!("table {table}")))
}

/// Checks that the program is there.
pub(crate) fn check(namespace: &Namespace) -> Result<()> {
    run(namespace, &["--version"], "").map(|_| ())
}

/// All base chains.
pub(crate) fn base_chains(namespace: &Namespace) -> Result<Vec<BaseChain>> {
    #[derive(Deserialize)]
    struct Listing {
        nftables: Vec<Entry>,
    }
    #[derive(Deserialize)]
    struct Entry {
        chain: Option<BaseChain>,
    }
    let text = run(namespace, &["-j", "list", "chains"], "")?;
    let listing: Listing = serde_json::from_str(&text)
        .map_err(|error| io("understand the list of chains of", "nft")(io::Error::from(error)))?;
    let chains = listing.nftables.into_iter().filter_map(|entry| entry.chain);
    Ok(chains.filter(|chain| chain.hook.is_some()).collect())
}

fn run(namespace: &Namespace, arguments: &[&str], input: &str) -> Result<String> {
    let outcome = namespace.run_io(|| run_here(arguments, input));
    match outcome.map_err(io("run", "nft"))? {
        Outcome::Done(output) => Ok(output),
        Outcome::Missing => Err(Error::NoProgram {
            program: "nft",
            package: "nftables",
        }),
        Outcome::Failed(said) => Err(Error::Program {
            program: "nft",
            said: limited(&said),
        }),
    }
}

enum Outcome {
    Done(String),
    Missing,
    Failed(String),
}

/// In the calling thread's namespace. Files in memory stand for pipes, which could fill up.
fn run_here(arguments: &[&str], input: &str) -> io::Result<Outcome> {
    let file = |name| memfd_create(name, MemfdFlags::CLOEXEC).map(File::from);
    let (mut script, mut output, mut errors) = (
        file("nft-script")?,
        file("nft-output")?,
        file("nft-errors")?,
    );
    script.write_all(input.as_bytes())?;
    script.rewind()?;
    for place in PLACES {
        let spawned = Command::new(place)
            .args(arguments)
            .env("LC_ALL", "C")
            .stdin(script.try_clone()?)
            .stdout(output.try_clone()?)
            .stderr(errors.try_clone()?)
            .spawn();
        let mut child = match spawned {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        };
        let success = wait(&mut child)?;
        return Ok(if success {
            Outcome::Done(read(&mut output)?)
        } else {
            Outcome::Failed(read(&mut errors)?)
        });
    }
    Ok(Outcome::Missing)
}

/// Waits for its end, and ends it after the limit.
fn wait(child: &mut Child) -> io::Result<bool> {
    let ended = ends_in_time(child);
    if !matches!(ended, Ok(true)) {
        child.kill()?;
    }
    let status = child.wait()?;
    if !ended? {
        let text = format!("it did not end within {NFT_LIMIT:?}");
        return Err(io::Error::new(io::ErrorKind::TimedOut, text));
    }
    Ok(status.success())
}

fn ends_in_time(child: &Child) -> io::Result<bool> {
    let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
    let pid = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidData)?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
    let limit = Timespec::try_from(NFT_LIMIT).map_err(io::Error::other)?;
    let mut polled = [PollFd::new(&pidfd, PollFlags::IN)];
    Ok(poll(&mut polled, Some(&limit))? == 1)
}

fn read(file: &mut File) -> io::Result<String> {
    file.rewind()?;
    let mut bytes = Vec::new();
    file.take(NFT_OUTPUT_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
