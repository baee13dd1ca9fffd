//! What is promised: ratios to the floors, and budgets.

use super::table::Table;

/// One promise and what came of it.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) name: String,
    pub(crate) figure: f64,
    pub(crate) limit: Limit,
    pub(crate) unit: &'static str,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Limit {
    AtMost(f64),
    AtLeast(f64),
}

impl Limit {
    pub(crate) fn value(self) -> f64 {
        match self {
            Self::AtMost(limit) | Self::AtLeast(limit) => limit,
        }
    }
}

/// The figures that promises are made about.
#[derive(Debug)]
pub(crate) struct Figures {
    pub(crate) f2_ms: f64,
    /// From before virtc's process to its first byte, as F2 is measured.
    pub(crate) output_ms: f64,
    /// From the command's end, as virtc learnt of it, to virtc's own.
    pub(crate) end_to_exit_ms: f64,
    pub(crate) pss_mb: f64,
    pub(crate) initrd_mb: f64,
    /// What the sandbox's stream reaches of the bare VM's.
    pub(crate) ratio_out: f64,
    pub(crate) ratio_into: f64,
}

pub(crate) fn targets(figures: &Figures) -> Vec<Target> {
    let target = |name: &str, figure, limit, unit| Target {
        name: name.into(),
        figure,
        limit,
        unit,
    };
    let output_max = 1.10 * figures.f2_ms + 80.0;
    vec![
        target(
            "exec to output: 1.10 × F2 + 80 ms",
            figures.output_ms,
            Limit::AtMost(output_max),
            "ms",
        ),
        target(
            "command's end to exit",
            figures.end_to_exit_ms,
            Limit::AtMost(60.0),
            "ms",
        ),
        target(
            "memory besides the VMM (PSS)",
            figures.pss_mb,
            Limit::AtMost(12.0),
            "MB",
        ),
        target("initrd", figures.initrd_mb, Limit::AtMost(12.0), "MB"),
        target(
            "stream out, of the bare VM's",
            figures.ratio_out,
            Limit::AtLeast(0.8),
            "×",
        ),
        target(
            "stream in, of the bare VM's",
            figures.ratio_into,
            Limit::AtLeast(0.8),
            "×",
        ),
    ]
}

impl Target {
    pub(crate) fn is_met(&self) -> bool {
        match self.limit {
            Limit::AtMost(limit) => self.figure <= limit,
            Limit::AtLeast(limit) => self.figure >= limit,
        }
    }

    pub(crate) fn verdict(&self) -> &'static str {
        match (self.is_met(), self.limit) {
            (true, _) => "ok",
            (false, Limit::AtMost(_)) => "over",
            (false, Limit::AtLeast(_)) => "under",
        }
    }
}

/// What came of each.
pub(crate) fn verdicts(heading: &str, targets: &[Target]) -> Table {
    let mut table = Table::new(&[heading, "figure", "limit", "verdict"]);
    for target in targets {
        let side = match target.limit {
            Limit::AtMost(_) => "≤",
            Limit::AtLeast(_) => "≥",
        };
        let value = |figure: f64| match target.unit {
            "×" => format!("{figure:.2}"),
            unit => format!("{figure:.1} {unit}"),
        };
        table.row(vec![
            target.name.clone(),
            value(target.figure),
            format!("{side} {}", value(target.limit.value())),
            target.verdict().to_owned(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_target_has_its_side() {
        let figures = Figures {
            f2_ms: 1_000.0,
            output_ms: 1_180.0,
            end_to_exit_ms: 60.1,
            pss_mb: 12.0,
            initrd_mb: 11.0,
            ratio_out: 0.79,
            ratio_into: 0.8,
        };
        let verdicts: Vec<_> = targets(&figures).iter().map(Target::verdict).collect();
        assert_eq!(verdicts, ["ok", "over", "ok", "ok", "under", "ok"]);
    }
}
