use std::time::Duration;

use clap::Args;

/// Show what a container has used, and that it ran out of memory, one JSON object a line.
#[derive(Clone, Debug, Args)]
pub(crate) struct EventsArgs {
    /// From one line of statistics to the next, as 5s or 500ms
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = interval)]
    pub(crate) interval: Duration,

    /// Show the statistics once
    #[arg(long)]
    pub(crate) stats: bool,

    /// The container's name
    #[arg(value_name = "ID")]
    pub(crate) id: String,
}

/// Shorter ones would keep a guest busy with nothing else.
const INTERVAL_MIN: Duration = Duration::from_millis(100);

/// A whole number and its unit, as runc has it.
fn interval(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u32 = digits.parse().map_err(|_| format!("{text:?} is no time"))?;
    let unit = match &text[digits.len()..] {
        "ms" => Duration::from_millis(1),
        "s" => Duration::from_secs(1),
        "m" => Duration::from_secs(60),
        "h" => Duration::from_secs(3600),
        "" => return Err(format!("{number} of what: ms, s, m or h?")),
        unit => return Err(format!("{unit:?} is no unit of time: ms, s, m or h")),
    };
    match unit * number {
        interval if interval >= INTERVAL_MIN => Ok(interval),
        _ => Err("the interval is at least 100ms".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_has_a_unit_and_is_not_too_short() {
        assert_eq!(interval("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(interval("5s"), Ok(Duration::from_secs(5)));
        assert_eq!(interval("2m"), Ok(Duration::from_secs(120)));
        for bad in ["", "5", "s", "-1s", "1.5s", "99ms", "0s", "5 s", "5d"] {
            assert!(interval(bad).is_err(), "{bad}");
        }
    }
}
