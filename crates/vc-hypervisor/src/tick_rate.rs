//! How fast the processor's time stamp counter counts.
//!
//! Under TCG it is the guest's counter too. A guest's kernel measures it against an emulated timer,
//! and where the host is busy, the two readings of one moment can be many milliseconds apart: one
//! boot of sixty took 85 MHz for 2,445, its clock ran 29 times too fast, and whatever had a limit
//! in it gave up.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

/// Between two readings of both clocks. The kernel wants a hundredth, and gets a thousandth.
const SPAN: Duration = Duration::from_millis(1);

/// How long reading both clocks may take for a reading to count.
const MOMENT: Duration = Duration::from_micros(1);

/// How often they are read for it. On a busy host, most are quick all the same.
const READINGS_MAX: usize = 100;

/// What both clocks showed at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading {
    ticks: u64,
    at: Instant,
}

impl Reading {
    /// Reads both, or `None` where that cannot be done in one moment, or the processor has no such
    /// counter.
    pub(crate) fn take() -> Option<Self> {
        for _ in 0..READINGS_MAX {
            let at = Instant::now();
            let ticks = ticks()?;
            if at.elapsed() <= MOMENT {
                return Some(Self { ticks, at });
            }
        }
        None
    }

    /// How long it takes until a later reading can count.
    pub(crate) fn rest_of_span(self) -> Duration {
        SPAN.saturating_sub(self.at.elapsed())
    }

    /// Ticks in a millisecond, by a later reading. `None` where it is not [`SPAN`] later, or the
    /// counter has not gone on as one does.
    pub(crate) fn khz_until(self, later: Self) -> Option<NonZeroU32> {
        let ticks = later.ticks.checked_sub(self.ticks)?;
        let time = later.at.checked_duration_since(self.at)?;
        if time < SPAN {
            return None;
        }
        let khz = u128::from(ticks) * 1_000_000 / time.as_nanos();
        NonZeroU32::new(u32::try_from(khz).ok()?)
    }
}

#[cfg(target_arch = "x86_64")]
#[expect(
    clippy::unnecessary_wraps,
    reason = "other processors have no such counter"
)]
fn ticks() -> Option<u64> {
    #[allow(unsafe_code, reason = "nothing safe reads this counter")]
    // SAFETY: every x86-64 processor has the instruction, and it touches no memory.
    let ticks = unsafe { std::arch::x86_64::_rdtsc() };
    Some(ticks)
}

#[cfg(not(target_arch = "x86_64"))]
fn ticks() -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(first: Reading, ticks: u64, time: Duration) -> Reading {
        Reading {
            ticks: first.ticks + ticks,
            at: first.at + time,
        }
    }

    #[test]
    fn a_rate_is_ticks_by_milliseconds() {
        let first = Reading {
            ticks: 7,
            at: Instant::now(),
        };
        let khz = |ticks, time| first.khz_until(after(first, ticks, time));
        let two_ms = Duration::from_millis(2);
        assert_eq!(khz(4_890_000, two_ms), NonZeroU32::new(2_445_000));
        // Less than this is too little to measure by.
        assert_eq!(khz(2_445, Duration::from_micros(1)), None);
        assert_eq!(khz(0, two_ms), None);
        assert_eq!(after(first, 9, two_ms).khz_until(first), None);
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn two_measurements_of_this_processor_agree() {
        // A busy machine may let a moment pass between the two; not each time.
        let measure = || {
            let first = Reading::take()?;
            std::thread::sleep(SPAN);
            first.khz_until(Reading::take()?)
        };
        let agree = (0..20).any(|_| {
            let (Some(one), Some(other)) = (measure(), measure()) else {
                return false;
            };
            one.get().abs_diff(other.get()) < one.get() / 100
        });
        assert!(agree);
    }
}
