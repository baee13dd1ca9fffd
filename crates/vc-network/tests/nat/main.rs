//! Addresses behind a bridge of a namespace that stands for the host.

#![allow(clippy::unwrap_used, reason = "what fails in a test fails the test")]

#[path = "../common/mod.rs"]
mod common;
mod ipv6;
mod reach;
mod refused;
mod setting;
mod undone;
