//! What is promised of starts: ratios, which gate; and goals in milliseconds, which a host as it is decides too.

use super::idle::Idle;
use super::{FLOOR, Origin};
use crate::bench::target::{Limit, Target};
use crate::rows::Rows;

/// The longest that a list of idle machines may take, in milliseconds.
const LIST_MAX_MS: f64 = 20.0;

/// What a slower host changes on both sides alike.
pub(super) fn targets(rows: &Rows) -> Vec<Target> {
    let output = |origin: Origin| rows.median(&origin.output());
    let mut targets = vec![
        at_most(
            "from a template: exec to output, 1.25 × F2 of a bare clone + 60 ms",
            output(Origin::Template),
            1.25 * rows.median(FLOOR) + 60.0,
        ),
        at_most(
            "with a VM that waits: exec to output, half of a template's",
            output(Origin::Cache),
            0.5 * output(Origin::Template),
        ),
    ];
    let distribution = output(Origin::DistributionBoot);
    if distribution > 0.0 {
        targets.push(at_most(
            "with a boot: exec to output, 0.6 × with the distribution's kernel",
            output(Origin::Boot),
            0.6 * distribution,
        ));
    }
    targets
}

/// What a host of two processors of some years ago is to reach, without KVM.
pub(super) fn goals(rows: &Rows, starts_a_second: f64, idle: Option<&Idle>) -> Vec<Target> {
    let mut goals = vec![
        at_most(
            "from a template: exec to exit",
            rows.median(&Origin::Template.exit()),
            250.0,
        ),
        at_most(
            "with a VM that waits: exec to exit",
            rows.median(&Origin::Cache.exit()),
            120.0,
        ),
        at_most(
            "with a boot: exec to exit",
            rows.median(&Origin::Boot.exit()),
            1000.0,
        ),
        Target {
            name: "starts from a template a second".into(),
            figure: starts_a_second,
            limit: Limit::AtLeast(6.0),
            unit: "",
        },
    ];
    if let Some(idle) = idle {
        let ms = |time: std::time::Duration| time.as_secs_f64() * 1000.0;
        let (machines, took) = idle.at_once;
        // As long for each as where twenty answer within four seconds.
        let limit = 200.0 * machines as f64;
        let name = format!("{machines} at once from a template, until all answer");
        goals.push(at_most(&name, ms(took), limit));
        let (listed, took) = idle.list;
        goals.push(at_most(
            &format!("virtc list of {listed}"),
            ms(took),
            LIST_MAX_MS,
        ));
        goals.push(at_most(
            "host's side of a start from a template",
            ms(idle.host),
            30.0,
        ));
    }
    goals
}

fn at_most(name: &str, figure: f64, limit: f64) -> Target {
    Target {
        name: name.into(),
        figure,
        limit: Limit::AtMost(limit),
        unit: "ms",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn rows(figures: &[(String, u64)]) -> Rows {
        let mut rows = Rows::default();
        for (name, ms) in figures {
            rows.add(name, Duration::from_millis(*ms));
        }
        rows
    }

    fn verdicts(targets: &[Target]) -> Vec<&str> {
        targets.iter().map(Target::verdict).collect()
    }

    #[test]
    fn each_start_is_held_to_what_is_measured_beside_it() {
        let mut figures = vec![
            (FLOOR.to_owned(), 200),
            (Origin::Template.output(), 310),
            (Origin::Cache.output(), 156),
            (Origin::Boot.output(), 601),
        ];
        assert_eq!(verdicts(&targets(&rows(&figures))), ["ok", "over"]);
        figures.push((Origin::DistributionBoot.output(), 1000));
        assert_eq!(verdicts(&targets(&rows(&figures))), ["ok", "over", "over"]);
    }

    #[test]
    fn a_goal_of_many_machines_is_as_long_for_each() {
        let idle = Idle {
            text: String::new(),
            at_once: (10, Duration::from_millis(2001)),
            list: (11, Duration::from_millis(20)),
            host: Duration::from_millis(31),
        };
        let goals = goals(&rows(&[]), 5.9, Some(&idle));
        assert_eq!(
            verdicts(&goals),
            ["ok", "ok", "ok", "under", "over", "ok", "over"]
        );
    }
}
