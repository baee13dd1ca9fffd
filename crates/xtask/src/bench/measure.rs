//! The measurements, one after the other.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;

use super::Options;
use super::record::Record;
use super::target::Figures;
use super::timeline;
use super::virtc::{BUSYBOX, PROGRAM, Start, Virtc};
use crate::floor::{Floor, Machine};
use crate::median::median;
use crate::process::Process;
use crate::stream::Rates;

/// The root's name in what the floors share. In a sandbox it lies as deep.
const ROOT: &str = "root";

/// What was measured, in the order of the measurements.
#[derive(Debug)]
pub(super) struct Measured {
    /// Processors and memory of the machine.
    pub(super) machine: String,
    /// What QEMU was told, without its details: `tcg` or `kvm`.
    pub(super) accelerator: String,
    pub(super) initrd_bytes: u64,
    /// The host's processes of a sandbox besides the VMM.
    pub(super) processes: Vec<Process>,
    pub(super) starts: Vec<Start>,
    pub(super) f1: Vec<Duration>,
    pub(super) f2: Vec<Duration>,
    /// How long the bare VMM took to end.
    pub(super) bare_ends: Vec<Duration>,
    pub(super) virtc_rates: Vec<Rates>,
    pub(super) bare_rates: Vec<Rates>,
}

/// Measures everything, and keeps each measurement in `record`.
pub(super) fn measure(options: &Options, record: &mut Record) -> Result<Measured> {
    let work = tempfile::tempdir()?;
    let shared = work.path().join("shared");
    make_root(&shared.join(ROOT))?;
    let virtc = Virtc {
        program: fs::canonicalize(&options.virtc)
            .with_context(|| options.virtc.display().to_string())?,
        root: shared.join(ROOT),
    };
    // While its guest waits, a sandbox shows its memory and how its machine is made.
    let (machine, processes) = virtc.waiting(|processes| {
        let machine = Machine::of(processes)?;
        let besides = processes.iter().filter(|p| !Machine::is_vmm(p));
        Ok((machine, besides.cloned().collect::<Vec<_>>()))
    })?;
    let mut measured = Measured {
        machine: machine.size(),
        accelerator: machine.accelerator().to_uppercase(),
        initrd_bytes: fs::metadata(&machine.initrd)?.len(),
        processes,
        starts: Vec::new(),
        f1: Vec::new(),
        f2: Vec::new(),
        bare_ends: Vec::new(),
        virtc_rates: Vec::new(),
        bare_rates: Vec::new(),
    };
    for process in &measured.processes {
        record.line(&json!({
            "what": "memory",
            "process": process.title(),
            "pss_kib": process.pss_kib,
            "guest_kib": process.shared_kib,
        }))?;
    }
    record.line(&json!({"what": "initrd", "bytes": measured.initrd_bytes}))?;
    let floor = Floor::make(machine, &options.init, &shared, ROOT, work.path())?;
    measured.starts(options.runs, &virtc, &floor, record)?;
    measured.streams(options, &virtc, &floor, record)?;
    Ok(measured)
}

impl Measured {
    fn starts(
        &mut self,
        runs: usize,
        virtc: &Virtc,
        floor: &Floor,
        record: &mut Record,
    ) -> Result<()> {
        for run in 0..runs {
            let start = virtc.start()?;
            record.start(run, &start)?;
            self.starts.push(start);
            let (f1, end) = floor.ready()?;
            let (ms, end_ms) = (milliseconds(f1), milliseconds(end));
            record.line(&json!({"what": "F1", "run": run, "ms": ms, "end_ms": end_ms}))?;
            self.f1.push(f1);
            self.bare_ends.push(end);
            let f2 = floor.program(&PROGRAM)?;
            record.line(&json!({"what": "F2", "run": run, "ms": milliseconds(f2)}))?;
            self.f2.push(f2);
        }
        Ok(())
    }

    fn streams(
        &mut self,
        options: &Options,
        virtc: &Virtc,
        floor: &Floor,
        record: &mut Record,
    ) -> Result<()> {
        let bytes = options.stream_mib << 20;
        for run in 0..options.stream_runs {
            let rates = virtc.stream(bytes)?;
            record.rates("stream", run, rates)?;
            self.virtc_rates.push(rates);
            let rates = floor.stream(bytes)?;
            record.rates("stream of the bare VM", run, rates)?;
            self.bare_rates.push(rates);
        }
        Ok(())
    }

    /// What the targets are about.
    pub(super) fn figures(&self) -> Result<Figures> {
        let ends: Result<Vec<_>> = self
            .starts
            .iter()
            .map(|start| {
                let at = |name| timeline::point(&start.rows, name);
                Ok(at("exit")? - at("ended")?)
            })
            .collect();
        let outputs: Vec<_> = self.starts.iter().map(|s| milliseconds(s.output)).collect();
        let f2: Vec<_> = self.f2.iter().copied().map(milliseconds).collect();
        let pss_kib: u64 = self.processes.iter().map(|p| p.pss_kib).sum();
        let ratio = |get: fn(&Rates) -> f64| {
            let of = |rates: &[Rates]| median(&rates.iter().map(get).collect::<Vec<_>>());
            of(&self.virtc_rates) / of(&self.bare_rates)
        };
        Ok(Figures {
            f2_ms: median(&f2),
            output_ms: median(&outputs),
            end_to_exit_ms: median(&ends?),
            pss_mb: megabytes(pss_kib << 10),
            initrd_mb: megabytes(self.initrd_bytes),
            ratio_out: ratio(|rates| rates.out),
            ratio_into: ratio(|rates| rates.into),
        })
    }
}

pub(super) fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

pub(super) fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

/// A root with nothing but one static program.
pub(crate) fn make_root(root: &Path) -> Result<()> {
    let inside = root.join(BUSYBOX.trim_start_matches('/'));
    fs::create_dir_all(inside.parent().unwrap_or(root))?;
    fs::copy(BUSYBOX, &inside).with_context(|| format!("cannot copy {BUSYBOX}"))?;
    fs::set_permissions(&inside, fs::Permissions::from_mode(0o755))?;
    Ok(())
}
