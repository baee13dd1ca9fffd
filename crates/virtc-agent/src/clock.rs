//! The guest's clocks.

use rustix::time::{ClockId, Timespec, clock_gettime, clock_settime};

use crate::error::{Attempt as _, Result};

const NS_PER_SECOND: i64 = 1_000_000_000;

/// What is corrected by letting the clock run faster or slower. More is stepped: at the kernel's
/// rate of 1 : 2000 it would take many minutes.
const SLEWED_NS_MAX: i64 = 200_000_000;

/// Microseconds since the kernel started: what every time stamp of the protocol is.
pub(crate) fn uptime_us() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    u64::try_from(now.tv_sec * 1_000_000 + now.tv_nsec / 1_000).unwrap_or_default()
}

/// How a clock is corrected.
#[derive(Debug, PartialEq, Eq)]
enum Correction {
    Nothing,
    Slew { microseconds: i64 },
    Step,
}

impl Correction {
    fn of(offset_ns: i64) -> Self {
        match offset_ns.unsigned_abs() {
            0 => Self::Nothing,
            offset if offset <= SLEWED_NS_MAX.unsigned_abs() => Self::Slew {
                microseconds: offset_ns / 1000,
            },
            _ => Self::Step,
        }
    }
}

/// Corrects the wall clock by so many nanoseconds, without going back by a little at once. Gives
/// what it showed before.
pub(crate) fn correct_realtime_by(offset_ns: i64) -> Result<i64> {
    let now = clock_gettime(ClockId::Realtime);
    let now_ns = now
        .tv_sec
        .saturating_mul(NS_PER_SECOND)
        .saturating_add(now.tv_nsec);
    match Correction::of(offset_ns) {
        Correction::Nothing => {}
        Correction::Slew { microseconds } => crate::sys::slew_clock(microseconds)
            .attempt(|| format!("correct the clock by {microseconds} us"))?,
        Correction::Step => set_realtime_ns(now_ns.saturating_add(offset_ns))?,
    }
    Ok(now_ns)
}

/// Sets the wall clock.
pub(crate) fn set_realtime_ns(realtime_ns: i64) -> Result<()> {
    let time = Timespec {
        tv_sec: realtime_ns.div_euclid(NS_PER_SECOND),
        tv_nsec: realtime_ns.rem_euclid(NS_PER_SECOND),
    };
    clock_settime(ClockId::Realtime, time).attempt(|| format!("set the clock to {realtime_ns} ns"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_little_is_slewed_and_much_is_stepped() {
        let ms = |ms: i64| Correction::of(ms * 1_000_000);
        assert_eq!(ms(0), Correction::Nothing);
        assert_eq!(
            ms(-51),
            Correction::Slew {
                microseconds: -51_000
            }
        );
        assert_eq!(
            ms(200),
            Correction::Slew {
                microseconds: 200_000
            }
        );
        assert_eq!(ms(201), Correction::Step);
        assert_eq!(Correction::of(i64::MIN), Correction::Step);
    }
}
