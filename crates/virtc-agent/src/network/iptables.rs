//! `GetIPTables` and `SetIPTables`, by the programs of a guest that has them. Ours has none.

use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::timeout;

use crate::error::{Attempt as _, Error, Result};
use crate::reaper::Reaper;

/// Where distributions have the programs.
const PROGRAM_DIRS: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];

/// How long a program may take. It waits for its lock, which containers can hold, not at all.
const RUN_LIMIT: Duration = Duration::from_secs(20);

/// Bytes of rules: what fits into a message with room to spare.
const RULES_BYTES_MAX: u64 = 2 << 20;

/// Bytes of what a program says about its failure.
const ERROR_BYTES_MAX: u64 = 2 << 10;

/// The guest's rules, as `iptables-save` prints them.
pub(crate) async fn save(reaper: &Reaper, ipv6: bool) -> Result<Vec<u8>> {
    let name = if ipv6 {
        "ip6tables-save"
    } else {
        "iptables-save"
    };
    run(reaper, name, &[]).await
}

/// Sets the guest's rules, as `iptables-restore` reads them. Returns what it prints.
pub(crate) async fn restore(reaper: &Reaper, ipv6: bool, rules: &[u8]) -> Result<Vec<u8>> {
    let name = if ipv6 {
        "ip6tables-restore"
    } else {
        "iptables-restore"
    };
    run(reaper, name, rules).await
}

async fn run(reaper: &Reaper, name: &'static str, input: &[u8]) -> Result<Vec<u8>> {
    let program = find(&PROGRAM_DIRS, name)
        .ok_or_else(|| Error::Unsupported(format!("this guest has no {name}")))?;
    let attempt = || format!("run {name}");
    // Files, not pipes: a program that reads late cannot wait for one that writes early.
    let mut stdin = memory_file().attempt(attempt)?;
    stdin.write_all(input).attempt(attempt)?;
    stdin.rewind().attempt(attempt)?;
    let (stdout, stderr) = (
        memory_file().attempt(attempt)?,
        memory_file().attempt(attempt)?,
    );
    let copy = |file: &File| file.try_clone().map(Stdio::from).attempt(attempt);

    let expectation = reaper.expect();
    let child = Command::new(program)
        .env_clear()
        .stdin(Stdio::from(stdin))
        .stdout(copy(&stdout)?)
        .stderr(copy(&stderr)?)
        .spawn()
        .attempt(attempt)?;
    let pid = Pid::from_child(&child);
    let mut ended = expectation.claim(pid);
    drop(expectation);
    let exit = match timeout(RUN_LIMIT, ended.wait_for(Option::is_some)).await {
        Ok(exit) => exit.ok().and_then(|exit| *exit),
        Err(_) => {
            // The pid is its own until the reaper has told its end.
            let _ = kill_process(pid, Signal::KILL);
            return Err(Error::Timeout {
                what: name.to_owned(),
                limit: RUN_LIMIT,
            });
        }
    };
    if exit.is_some_and(|exit| exit.code == 0 && exit.signal == 0) {
        return read(stdout, RULES_BYTES_MAX).attempt(attempt);
    }
    let text = read(stderr, ERROR_BYTES_MAX).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).trim().to_owned();
    Err(std::io::Error::other(text)).attempt(attempt)
}

fn find(directories: &[&str], name: &str) -> Option<PathBuf> {
    let mut paths = directories.iter().map(|dir| Path::new(dir).join(name));
    paths.find(|path| path.is_file())
}

fn memory_file() -> std::io::Result<File> {
    Ok(memfd_create("iptables", MemfdFlags::CLOEXEC)?.into())
}

/// All of a file from its beginning; more than `max` is an error.
fn read(mut file: File, max: u64) -> std::io::Result<Vec<u8>> {
    file.rewind()?;
    let mut bytes = Vec::new();
    file.take(max + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > max {
        true => Err(std::io::ErrorKind::FileTooLarge.into()),
        false => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_guest_without_the_programs_says_which_it_lacks() {
        let reaper = Reaper::default();
        let error = run(&reaper, "no-such-tables-save", &[]).await.unwrap_err();
        assert!(matches!(error, Error::Unsupported(_)));
        assert_eq!(error.to_string(), "this guest has no no-such-tables-save");
    }

    #[test]
    fn what_a_program_prints_has_a_largest_size() {
        let mut file = memory_file().unwrap();
        file.write_all(&[1; 10]).unwrap();
        let copy = || file.try_clone().unwrap();
        assert_eq!(read(copy(), 10).unwrap().len(), 10);
        assert!(read(copy(), 9).is_err());
    }
}
