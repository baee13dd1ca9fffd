//! Each measurement as a line of JSON, in a file named after the time.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::measure::milliseconds;
use super::target::Target;
use super::virtc::Start;
use crate::stream::Rates;

#[derive(Debug)]
pub(super) struct Record {
    file: File,
    pub(super) path: PathBuf,
    /// The day in UTC.
    pub(super) day: String,
}

impl Record {
    pub(super) fn create(directory: &Path) -> Result<Self> {
        let now = now()?;
        fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
        let path = directory.join(format!("{now}.jsonl"));
        let file = File::create(&path).with_context(|| path.display().to_string())?;
        let day = now.split('T').next().unwrap_or_default().to_owned();
        Ok(Self { file, path, day })
    }

    pub(super) fn line(&mut self, value: &Value) -> Result<()> {
        writeln!(self.file, "{value}")
            .with_context(|| format!("cannot write {}", self.path.display()))
    }

    pub(super) fn start(&mut self, run: usize, start: &Start) -> Result<()> {
        let rows: Vec<_> = start
            .rows
            .iter()
            .map(|row| json!({"name": row.name, "point": row.is_point, "at_ms": row.at}))
            .collect();
        self.line(&json!({
            "what": "start",
            "run": run,
            "output_ms": milliseconds(start.output),
            "exit_ms": milliseconds(start.exit),
            "timeline": rows,
        }))
    }

    pub(super) fn rates(&mut self, what: &str, run: usize, rates: Rates) -> Result<()> {
        let (out, into) = (rates.out, rates.into);
        self.line(&json!({"what": what, "run": run, "out_mb_s": out, "in_mb_s": into}))
    }

    pub(super) fn targets(&mut self, targets: &[Target]) -> Result<()> {
        for target in targets {
            self.line(&json!({
                "what": "target",
                "name": target.name,
                "figure": target.figure,
                "limit": target.limit.value(),
                "unit": target.unit,
                "verdict": target.verdict(),
            }))?;
        }
        Ok(())
    }
}

fn now() -> Result<String> {
    let output = Command::new("date")
        .args(["-u", "+%Y-%m-%dT%H%M%SZ"])
        .output()
        .context("date")?;
    ensure!(output.status.success(), "date: {}", output.status);
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}
