//! A process of a guest, joined with what virtc has of the host: streams, signals, terminal and
//! clock.

mod escape;
mod job;
mod joined;
mod pump;
mod signals;
mod terminal;

pub(crate) use job::{Added, Kept};
pub(crate) use joined::{End, Joined, ending_signal, exit_code, signal_code};
pub(crate) use signals::Signals;
