//! The guest's init and agent: one static program, the only one in the initrd.
//!
//! As the first process it makes the guest a system ([`init`]), serves the host's calls
//! ([`service`]) and streams ([`streams`]) and collects every child ([`reaper`]). Containers are
//! made by a second, short-lived process of the same program ([`launch`]). Nothing here polls: the
//! agent sleeps until the host, a child, a pipe or the kernel has something.
//!
//! The host is trusted, within bounds; what containers can see or write is not.

#![deny(unsafe_code)]

mod aslr;
mod cgroup;
mod clock;
mod container;
mod error;
mod files;
mod init;
mod launch;
mod log;
mod modules;
mod network;
mod network_stats;
mod pid_namespace;
mod process;
mod randomness;
mod ready;
mod reaper;
mod relay;
mod sandbox;
mod seccomp;
mod service;
mod storage;
mod streams;
mod sys;
mod template;
mod uevents;

use std::process::ExitCode;
use std::sync::Arc;

use agent_protocol::guest::{AGENT_PORT, RELAY_PORT, STREAM_PORT};

use crate::cgroup::OomEvents;
use crate::error::{Attempt as _, Result};
use crate::init::Booted;
use crate::reaper::Reaper;
use crate::sandbox::Sandbox;

fn main() -> ExitCode {
    // The kernel passes on what a container names, which need not be text.
    let arguments = std::env::args_os().map(|argument| argument.to_string_lossy().into_owned());
    let arguments: Vec<String> = arguments.collect();
    if let [_, first] = arguments.as_slice()
        && first == launch::CHILD_ARGUMENT
    {
        launch::run_child();
    }
    pid_namespace::dispatch(&arguments);
    if let Some(code) = modules::archive::dispatch(&arguments) {
        return code;
    }
    if !rustix::process::getpid().is_init() {
        return ExitCode::FAILURE;
    }
    let Err(error) = run();
    init::console::fatal(&error.chain());
}

fn run() -> Result<std::convert::Infallible> {
    let booted = init::boot()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .attempt(|| "start the agent's runtime".into())?;
    runtime.block_on(serve(booted))
}

async fn serve(booted: Booted) -> Result<std::convert::Infallible> {
    let Booted {
        modules,
        arguments,
        timeline,
        memory,
    } = booted;
    let reaper = Reaper::default();
    reaper.start()?;
    let oom_events = OomEvents::start()?;
    let sandbox = Sandbox::new(modules.clone(), timeline, reaper, oom_events, memory);
    let sandbox = Arc::new(sandbox);
    let mut server = service::listen(&sandbox, AGENT_PORT)?;
    streams::listen(&sandbox, STREAM_PORT)?;
    relay::listen(RELAY_PORT)?;
    if let Some(port) = arguments.passfd_port {
        sandbox.passfd.listen(port)?;
    }
    sandbox.step("listening");
    let _used_port;
    if let Some(port) = &arguments.template_port {
        // What any clone may need is in the kernel before it is saved.
        let all = modules.clone();
        sandbox::blocking(move || {
            all.load_all(Some(network::DRIVER_MODULE));
            Ok(())
        })
        .await?;
        sandbox.mount_own_scratch().await;
        let rehearsed = container::rehearse(&sandbox).await?;
        let hand_over = template::HandOver::prepare(port)?;
        sandbox.mount_own_shares().await;
        let handed_over = hand_over.wait(rehearsed).await;
        // Told before anything is dropped: a share that nobody serves cannot be unmounted.
        _used_port = handed_over.unwrap_or_else(|error| init::console::fatal(&error.chain()));
        sandbox.step(agent_protocol::guest::HANDED_OVER);
        // Not before: the host calls a clone at once, and is not to find another one's random numbers.
        server.start().await?;
    } else {
        modules.load_background(network::has_device().then_some(network::DRIVER_MODULE))?;
        server.start().await?;
        if let Some(port) = arguments.ready_port {
            tokio::spawn(ready::tell_host(port));
        }
    }
    std::future::pending().await
}
