//! What `virtc run --timeline` prints.

use anyhow::{Context, Result};

use crate::median::median;

/// One line of a timeline.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row {
    pub(crate) name: String,
    /// Whether it is a clock point and not a step between two.
    pub(crate) is_point: bool,
    /// Since *exec*, in milliseconds.
    pub(crate) at: f64,
    /// Since the line before, in milliseconds.
    pub(crate) took: f64,
}

/// The lines in `text` that are of a timeline.
pub(crate) fn parse(text: &str) -> Vec<Row> {
    text.lines().filter_map(row).collect()
}

/// The form is `AT ms  +TOOK  NAME`, with two more spaces before the name of a step.
fn row(line: &str) -> Option<Row> {
    let (at, rest) = line.split_once(" ms ")?;
    let (took, name) = rest.trim_start().split_once("  ")?;
    Some(Row {
        at: at.trim().parse().ok()?,
        took: took.parse().ok()?,
        is_point: !name.starts_with("  "),
        name: name.trim_start().to_owned(),
    })
}

/// When a clock point was reached.
pub(crate) fn point(rows: &[Row], name: &str) -> Result<f64> {
    rows.iter()
        .find(|row| row.is_point && row.name == name)
        .map(|row| row.at)
        .with_context(|| format!("the timeline has no {name}"))
}

/// The medians of each line over all timelines, in the order of time.
pub(crate) fn medians(timelines: &[&[Row]]) -> Vec<Row> {
    let first = timelines.first().copied().unwrap_or_default();
    let mut rows: Vec<_> = first
        .iter()
        .map(|row| {
            let same: Vec<_> = timelines
                .iter()
                .filter_map(|rows| rows.iter().find(|other| other.name == row.name))
                .collect();
            let of =
                |get: fn(&Row) -> f64| median(&same.iter().map(|row| get(row)).collect::<Vec<_>>());
            Row {
                at: of(|row| row.at),
                took: of(|row| row.took),
                ..row.clone()
            }
        })
        .collect();
    rows.sort_by(|a, b| a.at.total_cmp(&b.at));
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_and_steps_are_told_apart() {
        let text = "warning: slow\n      0.0 ms       +0.0  exec\n    117.8 ms     +104.8  spawned\n    539.7 ms     +421.9    guest kernel began\n";
        let rows = parse(text);
        let names: Vec<_> = rows.iter().map(|r| (r.name.as_str(), r.is_point)).collect();
        assert_eq!(
            names,
            [
                ("exec", true),
                ("spawned", true),
                ("guest kernel began", false)
            ]
        );
        assert_eq!((rows[2].at, rows[2].took), (539.7, 421.9));
        assert!(point(&rows, "guest kernel began").is_err());
    }

    #[test]
    fn each_line_has_its_own_median() {
        let runs: Vec<_> = ["1.0", "5.0", "2.0"]
            .iter()
            .map(|at| parse(&format!("      {at} ms       +{at}  ready\n")))
            .collect();
        let medians = medians(&runs.iter().map(Vec::as_slice).collect::<Vec<_>>());
        assert_eq!((medians[0].at, medians[0].took), (2.0, 2.0));
    }
}
