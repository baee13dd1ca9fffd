//! Machines that wait before anybody asks for them: their making, and their life with a holder.
//!
//! ```text
//! whoever has time ── starts ──▶ holder: lock ─▶ an empty sandbox ─▶ rehearse ─▶ stand still ─▶ door
//!                                   ▲                                                       │
//!                                   └─ a report, for whoever waits for it        taker ─────┘
//! ```
//!
//! What a holder makes is a sandbox like any other, in the state root of those that wait, and its
//! keeper is the holder. When the holder is killed, the kernel ends its processes, and what is left
//! on disk is removed as that of any sandbox.

mod gc;
mod hold;
mod priority;
mod rehearsal;
mod request;
mod stillness;

use vc_config::Config;

use crate::factory::Pool;

pub(super) use gc::gc;
pub use hold::hold;
pub(crate) use request::refill;
pub use request::{WaitingConfig, WaitingReport};

/// The configuration of the machines that wait for sandboxes of this one.
fn below(config: &Config) -> Config {
    let mut below = config.clone();
    below.runtime.root = Pool::root_of(config);
    below
}
