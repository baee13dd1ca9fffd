//! What machines from a template cost that wait: the host's memory, and the processor time of their
//! starts; and how long a list of them takes.

use std::collections::BTreeMap;
use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use vc_config::HostFacts;

use super::Origin;
use super::stage::Stage;
use super::waiting::Waiting;
use crate::bench::table::Table;
use crate::rows::Rows;

/// How long nothing is done before memory is looked at. A keeper gives memory back after a second.
const SETTLED: Duration = Duration::from_secs(3);

/// How many start at once. More would wait for processors longer than a start may take.
const AT_ONCE: usize = 20;

/// How often the list is asked for.
const LISTS: usize = 10;

/// What idle machines cost.
pub(super) struct Idle {
    /// Its tables.
    pub(super) text: String,
    /// Until all of the first that started at once had answered.
    pub(super) at_once: (usize, Duration),
    /// How long a list of them takes, and how many there are.
    pub(super) list: (usize, Duration),
    /// The processor time that the host's side of a start takes.
    pub(super) host: Duration,
}

/// Starts one machine, so many more at once, and describes them.
pub(super) fn measure(stage: &Stage, count: usize) -> Result<Idle> {
    let first = Waiting::start(stage, Origin::Template)?;
    let mut host = BTreeMap::new();
    for process in first.processes()? {
        let (own, guests) = processor_time(process.pid)?;
        host.insert(process.title(), (own, guests));
    }
    std::thread::sleep(SETTLED);
    let before = available()?;
    let mut rows = Rows::default();
    let mut machines = Vec::new();
    let mut at_once = None;
    while machines.len() < count {
        let batch = AT_ONCE.min(count - machines.len());
        let began = Instant::now();
        let begin = |_| Waiting::begin(stage, Origin::Template);
        let begun: Result<Vec<_>> = (0..batch).map(begin).collect();
        for machine in begun? {
            machines.push(machine.answered()?);
        }
        let name = format!("{batch} at once from a template, until all answer");
        let took = began.elapsed();
        rows.add(&name, took);
        at_once.get_or_insert((batch, took));
    }
    std::thread::sleep(SETTLED);
    let more = before.saturating_sub(available()?) / count.max(1) as u64;

    let mut shares: BTreeMap<String, u64> = BTreeMap::new();
    for machine in &machines {
        for process in machine.processes()? {
            *shares.entry(process.title()).or_default() += process.pss_kib;
        }
    }
    let list = format!("virtc list, {} idle", count + 1);
    for _ in 0..LISTS {
        let began = Instant::now();
        let status = stage
            .virtc(Origin::Template)
            .arg("list")
            .stdout(Stdio::null())
            .status()?;
        ensure!(status.success(), "virtc list: {status}");
        rows.add(&list, began.elapsed());
    }
    let mut memory = Table::new(&["MB of memory, for each further idle machine", "PSS"]);
    memory.row(vec!["all of it, by MemAvailable".into(), megabytes(more)]);
    for (title, sum) in shares {
        memory.row(vec![title, megabytes((sum << 10) / count.max(1) as u64)]);
    }
    let mut time = Table::new(&["processor time of a start, ms", "host's", "guest's"]);
    let host_side = host.values().map(|(own, _)| *own).sum();
    for (title, (own, guests)) in host {
        let ms = |time: Duration| format!("{:.1}", time.as_secs_f64() * 1000.0);
        time.row(vec![title, ms(own), ms(guests)]);
    }
    let list = Duration::from_secs_f64(rows.median(&list) / 1000.0);
    Ok(Idle {
        text: format!(
            "{}\n{}\n{}",
            rows.text(),
            memory.markdown(),
            time.markdown()
        ),
        at_once: at_once.context("no machine was started")?,
        list: (count + 1, list),
        host: host_side,
    })
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / 1e6)
}

/// What the threads of a process that live have taken: the host's, and those that run a guest's
/// processors.
fn processor_time(pid: u32) -> Result<(Duration, Duration)> {
    let (mut own, mut guests) = (Duration::ZERO, Duration::ZERO);
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let task = task?.path();
        // It may have ended.
        let Ok(schedstat) = fs::read_to_string(task.join("schedstat")) else {
            continue;
        };
        let taken = schedstat.split_ascii_whitespace().next();
        let taken = Duration::from_nanos(taken.context("schedstat is empty")?.parse()?);
        let name = fs::read_to_string(task.join("comm")).unwrap_or_default();
        match name.contains("CPU") {
            true => guests += taken,
            false => own += taken,
        }
    }
    Ok((own, guests))
}

/// Bytes of memory that the host has for new processes.
fn available() -> Result<u64> {
    Ok(HostFacts::read()?.memory_available.bytes())
}
