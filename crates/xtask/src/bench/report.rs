//! What is printed.

use std::fmt::Write as _;

use anyhow::Result;

use super::measure::{Measured, megabytes, milliseconds};
use super::record::Record;
use super::table::Table;
use super::target::{Target, verdicts};
use super::timeline;
use super::virtc::Start;
use crate::median::median;
use crate::stream::Rates;

/// Times, steps, streams, memory and targets, for a terminal or for a page.
pub(super) fn text(
    measured: &Measured,
    targets: &[Target],
    record: &Record,
    markdown: bool,
) -> Result<String> {
    let mut text = String::new();
    let (starts, streams) = (measured.starts.len(), measured.virtc_rates.len());
    let cpus = std::thread::available_parallelism()?;
    let accelerator = &measured.accelerator;
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "{}, a host with {cpus} processors, {accelerator}; a machine with {}.\n\
         Starts and floors: {starts} each, in turns; streams: {streams} each, in turns.\n\
         The root is a directory with a static `busybox`, and the program its `echo`.",
        record.day, measured.machine,
    );
    let sections = [
        times(measured),
        steps(measured),
        streams_table(measured),
        memory(measured),
        verdicts("target", targets),
    ];
    for table in sections {
        text.push('\n');
        text.push_str(&if markdown {
            table.markdown()
        } else {
            table.text()
        });
    }
    if !markdown {
        let _ = writeln!(text, "\neach measurement: {}", record.path.display());
    }
    Ok(text)
}

fn times(measured: &Measured) -> Table {
    let output = |start: &Start| start.output;
    let exit = |start: &Start| start.exit;
    let starts = &measured.starts;
    let mut table = Table::new(&["as seen from outside, ms", "median", "least", "most"]);
    for (name, times) in [
        ("F1: the bare VM to ready", measured.f1.clone()),
        ("F2: F1, root, program's first byte", measured.f2.clone()),
        ("virtc run: first byte", starts.iter().map(output).collect()),
        ("virtc run: exit", starts.iter().map(exit).collect()),
        (
            "the bare VMM, killed and reaped",
            measured.bare_ends.clone(),
        ),
    ] {
        let times: Vec<_> = times.into_iter().map(milliseconds).collect();
        table.row(spread(name, &times));
    }
    table
}

fn steps(measured: &Measured) -> Table {
    let timelines: Vec<_> = measured.starts.iter().map(|s| s.rows.as_slice()).collect();
    let mut table = Table::new(&["clock points and steps, ms", "since exec", "took"]);
    for row in timeline::medians(&timelines) {
        // Seen on a page too, where spaces are not.
        let indent = if row.is_point { "" } else { "· " };
        table.row(vec![
            format!("{indent}{}", row.name),
            figure(row.at),
            figure(row.took),
        ]);
    }
    table
}

fn streams_table(measured: &Measured) -> Table {
    let mut table = Table::new(&["streams, MB/s", "median", "least", "most"]);
    let of = |rates: &[Rates], get: fn(&Rates) -> f64| rates.iter().map(get).collect::<Vec<_>>();
    for (name, rates) in [
        ("out: virtc run", of(&measured.virtc_rates, |r| r.out)),
        (
            "out: bare VM, one connection",
            of(&measured.bare_rates, |r| r.out),
        ),
        ("in: virtc run", of(&measured.virtc_rates, |r| r.into)),
        (
            "in: bare VM, one connection",
            of(&measured.bare_rates, |r| r.into),
        ),
    ] {
        table.row(spread(name, &rates));
    }
    table
}

fn memory(measured: &Measured) -> Table {
    let headings = ["memory besides the VMM, MB", "PSS", "guest's pages in it"];
    let mut table = Table::new(&headings);
    for process in &measured.processes {
        let mb = |kib: u64| figure(megabytes(kib << 10));
        let (pss, shared) = (mb(process.pss_kib), mb(process.shared_kib));
        table.row(vec![process.title(), pss, shared]);
    }
    table
}

fn spread(name: &str, figures: &[f64]) -> Vec<String> {
    let least = figures.iter().copied().min_by(f64::total_cmp);
    let most = figures.iter().copied().max_by(f64::total_cmp);
    vec![
        name.to_owned(),
        figure(median(figures)),
        figure(least.unwrap_or_default()),
        figure(most.unwrap_or_default()),
    ]
}

fn figure(value: f64) -> String {
    format!("{value:.1}")
}
