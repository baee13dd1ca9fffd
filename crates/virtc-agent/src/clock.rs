//! The guest's clocks.

use rustix::time::{ClockId, Timespec, clock_gettime, clock_settime};

use crate::error::{Attempt as _, Result};

const NS_PER_SECOND: i64 = 1_000_000_000;

/// Microseconds since the kernel started: what every time stamp of the protocol is.
pub(crate) fn uptime_us() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    u64::try_from(now.tv_sec * 1_000_000 + now.tv_nsec / 1_000).unwrap_or_default()
}

/// Sets the wall clock.
pub(crate) fn set_realtime_ns(realtime_ns: i64) -> Result<()> {
    let time = Timespec {
        tv_sec: realtime_ns.div_euclid(NS_PER_SECOND),
        tv_nsec: realtime_ns.rem_euclid(NS_PER_SECOND),
    };
    clock_settime(ClockId::Realtime, time).attempt(|| format!("set the clock to {realtime_ns} ns"))
}
