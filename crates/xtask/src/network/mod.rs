//! `xtask network`: throughput, latency and connections of a machine's network, by each way that it can have
//! one, beside those of the bare VM with a tap.
//!
//! That VM is the floor twice: with nothing but its tap between it and the client, and with a pair of veths
//! too, as a namespace is reached by. The targets are ratios to the second.
//!
//! The namespaces and links are the measurement's own, and each guest has the same root and the same
//! servers. All of them serve at the same time, and each thing is measured of one after the other, so that a
//! host that is faster now and slower then changes all alike.

mod client;
mod guest;
mod metric;
mod stage;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::bench::table::Table;
use crate::bench::target::{Limit, Target, verdicts};
use crate::median::median;
use guest::{Bare, Root, Virtc};
use metric::{Figures, METRICS, Metric};
use stage::Stage;

/// What a machine of ours reaches of the bare VM's throughput.
const THROUGHPUT_MIN: f64 = 0.95;

/// What it takes of the bare VM's latency.
const LATENCY_MAX: f64 = 1.05;

/// What an interface adds to a start, with a kernel that has the driver built in.
const START_MAX_MS: f64 = 25.0;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How often everything is measured, in turns
    #[arg(long, value_name = "N", default_value_t = 5)]
    runs: usize,
    /// How often a start is measured with an interface and without, in turns
    #[arg(long, value_name = "N", default_value_t = 10)]
    starts: usize,
    /// How long each measurement takes
    #[arg(long, value_name = "N", default_value_t = 3)]
    seconds: u64,
    /// The virtc to measure; it finds the guest by itself
    #[arg(long, value_name = "FILE")]
    virtc: PathBuf,
    /// The bare VM's init, in C
    #[arg(long, value_name = "FILE", default_value = "bench/floor/init.c")]
    init: PathBuf,
    /// The servers in the guest, in C
    #[arg(long, value_name = "FILE", default_value = "bench/network/serve.c")]
    serve: PathBuf,
    /// Print the tables for a page
    #[arg(long)]
    markdown: bool,
    /// Fail when a target is missed
    #[arg(long)]
    gate: bool,
}

/// The ways of ours, in the order of the table.
const WAYS: [Way; 3] = [Way::Tcfilter, Way::Macvtap, Way::User];

/// How a machine of ours has its network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Tcfilter,
    Macvtap,
    User,
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Self::Tcfilter => "tcfilter",
            Self::Macvtap => "macvtap",
            Self::User => "user (passt)",
        }
    }

    /// Whether something is measured of it. By an old passt, no flood of datagrams comes to its end.
    fn has(self, metric: Metric) -> bool {
        self != Self::User
            || !matches!(metric, Metric::UdpIn | Metric::UdpOut | Metric::Connections)
    }
}

/// Measures everything; returns the text and the exit code.
pub(crate) fn run(options: &Options) -> Result<(String, ExitCode)> {
    ensure!(
        options.runs > 0 && options.starts > 0 && options.seconds > 0,
        "nothing is to be measured"
    );
    let work = tempfile::tempdir()?;
    let root = Root::make(&work.path().join("shared"), &options.serve)?;
    let stage = Stage::make()?;
    let program = std::fs::canonicalize(&options.virtc);
    let virtc = Virtc {
        program: program.with_context(|| options.virtc.display().to_string())?,
        root: &root,
        stage: &stage,
    };
    let machine = virtc.machine()?;
    let size = machine.size();
    let accelerator = machine.accelerator().to_uppercase();
    let of_tap = |namespace: &stage::Namespace| {
        let path = namespace.path();
        Bare::make(&machine, &options.init, &root, path, work.path())
    };
    let (bare, bridged) = (of_tap(&stage.bare)?, of_tap(&stage.bridged)?);

    let mut ours: Vec<_> = WAYS.map(|way| (way, Figures::default())).into();
    let (mut alone, mut floor) = (Figures::default(), Figures::default());
    let time = Duration::from_secs(options.seconds);
    for _ in 0..options.runs {
        let guests = WAYS.into_iter().map(|way| virtc.serve(way));
        let guests: Vec<_> = guests.collect::<Result<_>>()?;
        let floors = (bare.serve()?, bridged.serve()?);
        for metric in METRICS {
            for (way, figures) in ours.iter_mut().filter(|(way, _)| way.has(metric)) {
                figures.measure(metric, &stage.client(*way), time)?;
            }
            alone.measure(metric, &stage.bare_client(), time)?;
            floor.measure(metric, &stage.bridged_client(), time)?;
        }
        drop(floors);
        for guest in guests {
            guest.end()?;
        }
    }
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for _ in 0..options.starts {
        with.push(virtc.start(true)?);
        without.push(virtc.start(false)?);
    }

    let targets = targets(&ours, &floor);
    let mut text = format!(
        "A host with {} processors, {accelerator}; a machine with {size}.\n\
         {} runs of {} s for each figure, in turns; {} starts each, in turns.\n",
        std::thread::available_parallelism()?,
        options.runs,
        options.seconds,
        options.starts,
    );
    let tables = [
        medians(&ours, &floor, &alone),
        starts(&with, &without),
        verdicts("target", &targets),
    ];
    for table in tables {
        let table = match options.markdown {
            true => table.markdown(),
            false => table.text(),
        };
        // Writing to a string cannot fail.
        let _ = write!(text, "\n{table}");
    }
    let met = targets.iter().all(Target::is_met);
    let code = match options.gate && !met {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    };
    Ok((text, code))
}

fn medians(ours: &[(Way, Figures)], floor: &Figures, alone: &Figures) -> Table {
    let mut headings = vec!["medians", "bare, tap alone", "bare, tap and veth"];
    for (way, _) in ours {
        headings.extend([way.name(), "of bare"]);
    }
    let mut table = Table::new(&headings);
    for metric in METRICS {
        let bare = floor.median(metric);
        let tap = alone.median(metric);
        let mut cells = vec![
            metric.name().to_owned(),
            format!("{tap:.0}"),
            format!("{bare:.0}"),
        ];
        for (way, figures) in ours {
            let own = figures.median(metric);
            cells.extend(match way.has(metric) {
                true => [format!("{own:.0}"), format!("{:.2}", own / bare)],
                false => [String::new(), String::new()],
            });
        }
        table.row(cells);
    }
    table
}

fn starts(with: &[f64], without: &[f64]) -> Table {
    let mut table = Table::new(&["exec to ready, ms", "median"]);
    let (with, without) = (median(with), median(without));
    for (name, figure) in [
        ("without an interface", without),
        ("with one of a namespace", with),
        ("more", with - without),
    ] {
        table.row(vec![name.into(), format!("{figure:.1}")]);
    }
    let limit = format!("≤ {START_MAX_MS:.0}");
    table.row(vec!["more, where virtio_net is built in".into(), limit]);
    table
}

/// What `user` reaches is passt's affair, and only shown.
fn targets(ours: &[(Way, Figures)], floor: &Figures) -> Vec<Target> {
    let promised = ours.iter().filter(|(way, _)| *way != Way::User);
    let of_each = promised.flat_map(|(way, figures)| {
        METRICS.map(|metric| Target {
            name: format!("{}: {}, of the bare VM's", way.name(), metric.name()),
            figure: figures.median(metric) / floor.median(metric),
            limit: match metric {
                Metric::Latency => Limit::AtMost(LATENCY_MAX),
                _ => Limit::AtLeast(THROUGHPUT_MIN),
            },
            unit: "×",
        })
    });
    of_each.collect()
}
