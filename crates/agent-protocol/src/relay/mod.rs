//! Connections between a guest's loopback addresses and the network namespace that it stands for.
//!
//! The host dials [`RELAY_PORT`](crate::guest::RELAY_PORT) for each, and says in a line what it is
//! for ([`Request`]); the agent answers with a line: `ok`, or `error` and why. What follows are
//! frames (see [`frame`](crate::frame)), both ways:
//!
//! - after [`Request::Dial`], the bytes of one connection to a program of the guest: data and its
//!   end, of each direction for itself, acknowledged. [`carry`] does it, on either side.
//! - after [`Request::Resolve`], messages of DNS. The agent takes queries at that address of the
//!   guest, and sends each as a [`Message`]; the host answers with one of the same number.

mod carry;
mod message;
mod request;

pub use carry::carry;
pub use message::{DNS_BYTES_MAX, Message, Transport};
pub use request::{Answer, LINE_BYTES_MAX, Request, read_line};
