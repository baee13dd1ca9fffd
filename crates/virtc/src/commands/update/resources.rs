//! From the flags of `update` to limits.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxPids, LinuxResources};

use super::{refused, size};
use crate::cli::UpdateArgs;
use crate::error::{FAILED, Failure};

/// Bytes of a document. One with a limit for each of a thousand devices has some hundred thousand.
const DOCUMENT_BYTES_MAX: u64 = 1 << 20;

/// The name that stands for stdin.
const STDIN: &str = "-";

/// The weights of block I/O, both ends included; 0 changes nothing.
const BLKIO_WEIGHT: std::ops::RangeInclusive<u16> = 10..=1000;

/// The limits that the flags name; what stays as it is has no value.
///
/// # Errors
///
/// Wrong usage, a document that cannot be read, and what a machine of its own makes meaningless,
/// by its name.
pub(crate) fn resources(args: &UpdateArgs) -> Result<LinuxResources, Failure> {
    refused::flags(args)?;
    let mut resources = match &args.resources {
        Some(file) => of_document(file)?,
        None => of_flags(args)?,
    };
    settle(&mut resources);
    Ok(resources)
}

fn of_flags(args: &UpdateArgs) -> Result<LinuxResources, Failure> {
    let mut cpu = LinuxCpu::default();
    cpu.set_period(args.cpu_period)
        .set_quota(args.cpu_quota)
        .set_burst(args.cpu_burst)
        .set_shares(args.cpu_share)
        .set_idle(args.cpu_idle);
    let mut memory = LinuxMemory::default();
    memory
        .set_limit(bytes("--memory", args.memory.as_deref())?)
        .set_reservation(bytes(
            "--memory-reservation",
            args.memory_reservation.as_deref(),
        )?)
        .set_swap(bytes("--memory-swap", args.memory_swap.as_deref())?);
    let pids = args.pids_limit.map(|limit| {
        let mut pids = LinuxPids::default();
        pids.set_limit(limit);
        pids
    });
    let block_io = blkio_weight(args)?.map(|weight| {
        let mut block_io = LinuxBlockIo::default();
        block_io.set_weight(Some(weight));
        block_io
    });
    let mut resources = LinuxResources::default();
    resources
        .set_cpu(Some(cpu).filter(|cpu| *cpu != LinuxCpu::default()))
        .set_memory(Some(memory).filter(|memory| *memory != LinuxMemory::default()))
        .set_pids(pids)
        .set_block_io(block_io)
        .set_devices(None);
    Ok(resources)
}

fn blkio_weight(args: &UpdateArgs) -> Result<Option<u16>, Failure> {
    match args.blkio_weight {
        None | Some(0) => Ok(None),
        Some(weight) if BLKIO_WEIGHT.contains(&weight) => Ok(Some(weight)),
        Some(weight) => Err(Failure::usage(format!(
            "--blkio-weight {weight}: it is not in 10 to 1000"
        ))),
    }
}

fn bytes(flag: &str, text: Option<&str>) -> Result<Option<i64>, Failure> {
    // Nothing is given with nothing, as with runc.
    let given = text.filter(|text| !text.is_empty());
    let parse = |text| {
        size::parse(text).map_err(|reason| Failure::usage(format!("{flag} {text:?}: {reason}")))
    };
    given.map(parse).transpose()
}

fn of_document(file: &Path) -> Result<LinuxResources, Failure> {
    let resources = read(file).map_err(|error| {
        Failure::plain(FAILED, &error).note(format!("reading --resources {}", file.display()))
    })?;
    refused::keys(&resources)?;
    Ok(resources)
}

fn read(file: &Path) -> io::Result<LinuxResources> {
    let source: Box<dyn Read> = match file.to_str() {
        Some(STDIN) => Box::new(io::stdin().lock()),
        _ => Box::new(File::open(file)?),
    };
    let mut text = Vec::new();
    source.take(DOCUMENT_BYTES_MAX + 1).read_to_end(&mut text)?;
    if text.len() as u64 > DOCUMENT_BYTES_MAX {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            "it is longer than 1 MiB",
        ));
    }
    serde_json::from_slice(&text).map_err(io::Error::other)
}

/// What one limit says of others, as with runc.
fn settle(resources: &mut LinuxResources) {
    // Rules for devices are not changed in a running container.
    resources.set_devices(None);
    if let Some(mut memory) = *resources.memory()
        && memory.limit() == Some(-1)
        && memory.swap().unwrap_or_default() == 0
    {
        // Swap cannot have a limit where memory has none.
        memory.set_swap(Some(-1));
        resources.set_memory(Some(memory));
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, FromArgMatches, Parser};
    use serde_json::{Value, json};

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: UpdateArgs,
    }

    fn parse(flags: &[&str]) -> Result<UpdateArgs, clap::Error> {
        let line = ["update"].into_iter().chain(flags.iter().copied());
        let matches = Line::command().try_get_matches_from(line.chain(["c1"]))?;
        Ok(Line::from_arg_matches(&matches)?.args)
    }

    fn asked(flags: &[&str]) -> Result<Value, Failure> {
        let resources = resources(&parse(flags).unwrap_or_else(|error| panic!("{error}")))?;
        Ok(serde_json::to_value(resources).unwrap())
    }

    fn refusal(flags: &[&str]) -> String {
        asked(flags).unwrap_err().line()
    }

    /// The answer to a document.
    fn document(text: &Value) -> Result<Value, Failure> {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("resources.json");
        std::fs::write(&file, text.to_string()).unwrap();
        asked(&["--resources", file.to_str().unwrap()])
    }

    #[test]
    fn every_flag_has_its_limit() {
        Line::command().debug_assert();
        let flags = [
            "--blkio-weight=100",
            "--cpu-period=100000",
            "--cpu-quota=50000",
            "--cpu-burst=1000",
            "--cpu-share=512",
            "--cpu-idle=1",
            "--memory=64m",
            "--memory-reservation=1.5g",
            "--memory-swap=128M",
            "--pids-limit=32",
        ];
        let expected = json!({
            "blockIO": {"weight": 100},
            "cpu": {"period": 100_000, "quota": 50_000, "burst": 1000, "shares": 512, "idle": 1},
            "memory": {"limit": 64 << 20, "reservation": 3 << 29, "swap": 128 << 20},
            "pids": {"limit": 32},
        });
        assert_eq!(asked(&flags).unwrap(), expected);
    }

    #[test]
    fn what_is_not_named_stays_as_it_is() {
        assert_eq!(asked(&[]).unwrap(), json!({}));
        assert_eq!(
            asked(&["--cpu-share", "2"]).unwrap(),
            json!({"cpu": {"shares": 2}})
        );
        let nothing = ["--blkio-weight=0", "--memory=", "--cpuset-cpus="];
        assert_eq!(asked(&nothing).unwrap(), json!({}));
    }

    #[test]
    fn no_limit_is_minus_one() {
        let flags = ["--memory", "-1", "--pids-limit", "-1", "--cpu-quota", "-1"];
        let expected = json!({
            "memory": {"limit": -1, "swap": -1}, "pids": {"limit": -1}, "cpu": {"quota": -1},
        });
        assert_eq!(asked(&flags).unwrap(), expected);
        assert_eq!(
            asked(&["--memory-swap=-1"]).unwrap(),
            json!({"memory": {"swap": -1}})
        );
    }

    #[test]
    fn what_means_nothing_in_a_machine_is_refused_by_name() {
        for flag in [
            "--cpuset-cpus",
            "--cpuset-mems",
            "--cpu-rt-period",
            "--cpu-rt-runtime",
            "--kernel-memory",
            "--kernel-memory-tcp",
            "--l3-cache-schema",
            "--mem-bw-schema",
        ] {
            let said = refusal(&[flag, "1"]);
            assert!(
                said.contains(&format!("{flag} is not supported: ")),
                "{said}"
            );
        }
        for (section, key) in [
            ("cpu", "cpus"),
            ("cpu", "mems"),
            ("cpu", "realtimePeriod"),
            ("cpu", "realtimeRuntime"),
            ("memory", "kernel"),
            ("memory", "kernelTCP"),
        ] {
            let (something, nothing) = match key {
                "cpus" | "mems" => (json!("0-1"), json!("")),
                _ => (json!(1), json!(0)),
            };
            let said = document(&json!({section: {key: something}})).unwrap_err();
            assert!(
                said.line().contains(&format!("`{section}.{key}`")),
                "{}",
                said.line()
            );
            document(&json!({section: {key: nothing}})).unwrap();
        }
    }

    #[test]
    fn values_that_cannot_be_are_wrong_usage() {
        for flag in ["--memory", "--memory-reservation", "--memory-swap"] {
            let said = refusal(&[flag, "-5"]);
            assert!(said.contains(flag), "{said}");
        }
        for weight in ["9", "1001"] {
            let said = refusal(&["--blkio-weight", weight]);
            assert!(said.contains("10 to 1000"), "{said}");
        }
        for flags in [
            ["--cpu-period", "-1"],
            ["--cpu-idle", "2"],
            ["--cpu-share", "x"],
        ] {
            assert!(parse(&flags).is_err(), "{flags:?}");
        }
    }

    #[test]
    fn a_document_is_taken_as_it_is_but_for_devices() {
        let taken = json!({
            "memory": {"limit": 1 << 20, "checkBeforeUpdate": true},
            "cpu": {"shares": 2},
            "blockIO": {"weight": 20},
            "pids": {"limit": 5},
            "unified": {"memory.high": "max"},
        });
        let mut given = taken.clone();
        given["devices"] = json!([{"allow": false, "access": "rwm"}]);
        assert_eq!(document(&given).unwrap(), taken);
    }

    #[test]
    fn a_document_that_cannot_be_read_is_named() {
        let said = refusal(&["-r", "/nonexistent"]);
        assert!(said.contains("/nonexistent"), "{said}");
        let said = document(&json!(["memory"])).unwrap_err().line();
        assert!(said.contains("resources.json"), "{said}");
        let long = document(&json!({"unified": {"a": "b".repeat(2 << 20)}}));
        assert!(long.unwrap_err().line().contains("1 MiB"));
    }

    #[test]
    fn a_document_and_a_flag_are_wrong_usage() {
        for flag in ["--memory=1g", "--cpuset-cpus=1", "--pids-limit=1"] {
            assert!(parse(&["--resources", "file", flag]).is_err(), "{flag}");
        }
    }
}
