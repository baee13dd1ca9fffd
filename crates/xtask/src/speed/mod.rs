//! `xtask speed`: starts of `virtc run`, and of containers until a process that is added has succeeded:
//! with a VM that waits, in turns with those from a template, those of a bare clone and those that boot,
//! one at a time and several at once; and a picture of where the time of each goes.

mod detached;
mod idle;
mod picture;
mod stage;
mod targets;
mod waiting;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};
use clap::Args;

use crate::bench::PROGRAM;
use crate::bench::target::{Target, verdicts};
use crate::floor::Template;
use crate::rows::Rows;
use detached::Detached;
use stage::Stage;

/// How the floor is called in the table.
const FLOOR: &str = "a bare clone: exec to output (F2)";

/// What every row but those of idle machines runs.
const PROGRAM_RUN: &str = "The root is a directory with a static `busybox`, and the program its `echo`, in the bare clone too.\n\n";

/// How many starts follow each other, beside others that do the same, where starts a second are counted.
const SUSTAINED_EACH: usize = 8;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How often each start is measured, in turns
    #[arg(long, value_name = "N", default_value_t = 20)]
    runs: usize,
    /// How many start at once
    #[arg(long, value_name = "N", default_value_t = 8)]
    at_once: usize,
    /// How often so many do
    #[arg(long, value_name = "N", default_value_t = 3)]
    rounds: usize,
    /// How many machines wait beside one another at the end
    #[arg(long, value_name = "N", default_value_t = 20)]
    idle: usize,
    /// Where pictures of the timelines are put, one for each kind of start
    #[arg(long, value_name = "DIR")]
    pictures: Option<PathBuf>,
    /// The virtc to measure; it finds the guest by itself
    #[arg(long, value_name = "FILE")]
    virtc: PathBuf,
    /// The guest with the distribution's kernel, whose boots are measured in turns with the others
    #[arg(long, value_name = "DIR")]
    distribution_guest: Option<PathBuf>,
    /// The floor's init, in C
    #[arg(long, value_name = "FILE", default_value = "bench/floor/init.c")]
    init: PathBuf,
    /// Fail when a target is missed
    #[arg(long)]
    gate: bool,
}

/// Measures everything; returns the tables and the exit code.
pub(crate) fn run(options: &Options) -> Result<(String, ExitCode)> {
    ensure!(
        options.runs > 0 && options.at_once > 0,
        "nothing is to be measured"
    );
    if let Some(directory) = &options.pictures {
        // Before an hour of measuring.
        std::fs::create_dir_all(directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
    }
    let stage = Stage::make(&options.virtc, options.distribution_guest.as_deref())?;
    let mut rows = Rows::default();
    rows.add("the first run, which makes the template", stage.at_once(1)?);
    let floor = stage.floor(&options.init)?;
    let booted = stage.machine(Origin::Boot)?;
    let bare = Template::make(&floor, &booted, &PROGRAM)?;
    let detached = Detached::make(&stage, stage.work())?;
    for _ in 0..options.runs {
        for origin in ORIGINS {
            stage.measure(origin, &mut rows)?;
            detached.measure(origin, &mut rows)?;
            // Next to what it is the floor of.
            if origin == Origin::Template {
                rows.add(FLOOR, bare.program()?);
            }
        }
        if options.distribution_guest.is_some() {
            stage.measure(Origin::DistributionBoot, &mut rows)?;
        }
    }
    let targets = targets::targets(&rows);
    if let Some(directory) = &options.pictures {
        for (origin, file) in PICTURES {
            stage.draw(origin, options.runs, &directory.join(file))?;
        }
    }
    let at_once = format!(
        "{} at once from a template, to the last exit",
        options.at_once
    );
    for _ in 0..options.rounds {
        rows.add(&at_once, stage.at_once(options.at_once)?);
    }
    // Before others end.
    let a_second = stage.sustained(options.at_once, SUSTAINED_EACH)?;
    let idle = match options.idle {
        0 => None,
        count => Some(idle::measure(&stage, count)?),
    };
    let goals = targets::goals(&rows, a_second, idle.as_ref());
    let verdicts = format!(
        "{}\n{}",
        verdicts("target", &targets).markdown(),
        verdicts("goal", &goals).markdown()
    );
    let met = targets.iter().all(Target::is_met);
    let code = match options.gate && !met {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    };
    let rows = rows.text();
    let idle = idle.map_or_else(String::new, |idle| format!("\n{}", idle.text));
    Ok((format!("{PROGRAM_RUN}{rows}\n{verdicts}{idle}"), code))
}

/// Where the machine of a start comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    Cache,
    Template,
    Boot,
    /// With the distribution's kernel, where our own is what others boot.
    DistributionBoot,
}

/// What is measured each time, in the order in which they take turns.
const ORIGINS: [Origin; 3] = [Origin::Cache, Origin::Template, Origin::Boot];

/// Of what pictures are drawn, and the names of their files.
const PICTURES: [(Origin, &str); 3] = [
    (Origin::Cache, "cache.svg"),
    (Origin::Template, "template.svg"),
    (Origin::Boot, "boot.svg"),
];

impl Origin {
    const fn name(self) -> &'static str {
        match self {
            Self::Cache => "with a VM that waits",
            Self::Template => "from a template",
            Self::Boot => "with a boot",
            Self::DistributionBoot => "with a boot of the distribution's kernel",
        }
    }

    /// The row of its time to the first output.
    fn output(self) -> String {
        format!("{}: exec to output", self.name())
    }

    /// The row of its time to its end.
    fn exit(self) -> String {
        format!("{}: exec to exit", self.name())
    }

    /// The row of a container's start until a process that is added has succeeded.
    fn first_exec(self) -> String {
        format!("{}: run --detach to a successful exec", self.name())
    }
}
