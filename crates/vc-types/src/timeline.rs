use std::fmt;

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// A point of a start that code, timeline and benchmarks name alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClockPoint {
    /// The kernel executed the command line's program.
    Exec,
    /// The VMM runs.
    Spawned,
    /// The agent answers.
    Ready,
    /// The container's `execve` returned in the guest, by the agent's time stamp.
    Started,
    /// The first byte came out.
    Output,
    /// The container's process ended.
    Ended,
    /// The VMM is reaped, the share is gone, the state is removed.
    Exit,
}

impl ClockPoint {
    /// The point as users read it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Exec => "exec",
            Self::Spawned => "spawned",
            Self::Ready => "ready",
            Self::Started => "started",
            Self::Output => "output",
            Self::Ended => "ended",
            Self::Exit => "exit",
        }
    }
}

/// When a start came to which point, and what it did between, in microseconds of the host's
/// monotonic clock.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timeline {
    points: Vec<(ClockPoint, u64)>,
    /// Finer steps between the points: a name and its time.
    steps: Vec<(String, u64)>,
}

/// Finer steps that one timeline keeps.
const STEPS_MAX: usize = 256;

impl Timeline {
    /// Microseconds of the monotonic clock, now.
    pub fn now() -> u64 {
        let now = clock_gettime(ClockId::Monotonic);
        let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
        seconds * 1_000_000 + u64::try_from(now.tv_nsec).unwrap_or_default() / 1_000
    }

    /// Notes that `point` is reached now. Only the first time counts.
    pub fn mark(&mut self, point: ClockPoint) {
        self.mark_at(point, Self::now());
    }

    /// Notes that `point` was reached at `micros`. Only the first time counts.
    pub fn mark_at(&mut self, point: ClockPoint, micros: u64) {
        if self.at(point).is_none() {
            self.points.push((point, micros));
        }
    }

    /// Notes a finer step, now.
    pub fn step(&mut self, name: impl Into<String>) {
        self.step_at(name, Self::now());
    }

    /// Notes a finer step that happened at `micros`.
    pub fn step_at(&mut self, name: impl Into<String>, micros: u64) {
        if self.steps.len() < STEPS_MAX {
            self.steps.push((name.into(), micros));
        }
    }

    /// When `point` was reached, in microseconds.
    pub fn at(&self, point: ClockPoint) -> Option<u64> {
        self.points
            .iter()
            .find(|(p, _)| *p == point)
            .map(|(_, micros)| *micros)
    }

    /// Everything in the order of time: name, time in microseconds, and whether it is a clock
    /// point.
    pub fn rows(&self) -> Vec<(&str, u64, bool)> {
        let points = self
            .points
            .iter()
            .map(|(point, micros)| (point.name(), *micros, true));
        let steps = self
            .steps
            .iter()
            .map(|(name, micros)| (name.as_str(), *micros, false));
        let mut rows: Vec<_> = points.chain(steps).collect();
        rows.sort_by_key(|(_, micros, _)| *micros);
        rows
    }
}

impl fmt::Display for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = self.rows();
        let Some((_, first, _)) = rows.first().copied() else {
            return Ok(());
        };
        let mut last = first;
        for (name, micros, is_point) in rows {
            let indent = if is_point { "" } else { "  " };
            let ms = |from: u64| (micros - from) as f64 / 1_000.0;
            writeln!(f, "{:9.1} ms  {:+9.1}  {indent}{name}", ms(first), ms(last))?;
            last = micros;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_mark_of_a_point_counts() {
        let mut timeline = Timeline::default();
        timeline.mark_at(ClockPoint::Ready, 5);
        timeline.mark_at(ClockPoint::Ready, 9);
        assert_eq!(timeline.at(ClockPoint::Ready), Some(5));
    }

    #[test]
    fn rows_are_in_the_order_of_time() {
        let mut timeline = Timeline::default();
        timeline.mark_at(ClockPoint::Ready, 2_000);
        timeline.mark_at(ClockPoint::Exec, 1_000);
        timeline.step_at("share", 1_500);
        let names: Vec<_> = timeline.rows().into_iter().map(|(name, ..)| name).collect();
        assert_eq!(names, ["exec", "share", "ready"]);
        assert!(timeline.to_string().contains("1.0 ms"));
    }
}
