//! When the guest reached which point of its start.

use crate::clock::uptime_us;

/// The steps so far, each with the time at which it was done.
#[derive(Debug, Clone, Default)]
pub(crate) struct BootTimeline {
    steps: Vec<(&'static str, u64)>,
}

impl BootTimeline {
    /// Begins with a first point: now.
    pub(super) fn begin(name: &'static str) -> Self {
        let mut timeline = Self::default();
        timeline.step(name);
        timeline
    }

    /// Another point: now.
    pub(crate) fn step(&mut self, name: &'static str) {
        self.steps.push((name, uptime_us()));
    }

    /// All points in order.
    pub(crate) fn steps(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.steps.iter().copied()
    }
}
