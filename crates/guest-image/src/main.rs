//! `guest-image`: builds the guest's assets, and checks those that are there.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use guest_image::build::list::ModuleList;
use guest_image::build::package::Package;
use guest_image::build::{Inputs, build};
use guest_image::{GuestAssets, Result};
use vc_types::Hint;

/// Builds the guest's kernel and initrd.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build a set of assets, and print its directory
    Build(BuildArgs),
    /// Compute the digests of a set, and note that they were right
    Verify {
        /// The set's directory, or a link to it
        dir: PathBuf,
        /// Only check, leave no note for the next start
        #[arg(long)]
        no_stamp: bool,
    },
}

#[derive(Debug, Args)]
struct BuildArgs {
    #[command(flatten)]
    source: Source,
    /// The kernel's modules: a directory that is named as its release
    #[arg(long, value_name = "DIR", requires = "vmlinuz")]
    modules: Option<PathBuf>,
    /// The statically linked agent
    #[arg(long, value_name = "FILE")]
    agent: PathBuf,
    /// The module list
    #[arg(long, value_name = "FILE", default_value = "guest/modules.toml")]
    list: PathBuf,
    /// Take the modules that the list does not name along, for the kernel to ask for
    #[arg(long)]
    archive: bool,
    /// Where the sets are kept
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Source {
    /// A Debian package that brings a kernel
    #[arg(long, value_name = "FILE")]
    kernel_package: Option<PathBuf>,
    /// A kernel, packed or unpacked
    #[arg(long, value_name = "FILE", requires = "modules")]
    vmlinuz: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Cli::parse().command) {
        Ok(text) => match io::stdout().write_all(text.as_bytes()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        Err(error) => {
            report(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(command: &Command) -> Result<String> {
    match command {
        Command::Build(args) => build_set(args),
        Command::Verify {
            dir,
            no_stamp: true,
        } => {
            let assets = GuestAssets::open(dir)?;
            assets.verify()?;
            Ok(summary(&assets))
        }
        Command::Verify {
            dir,
            no_stamp: false,
        } => Ok(summary(&GuestAssets::stamp(dir)?)),
    }
}

fn build_set(args: &BuildArgs) -> Result<String> {
    let list = ModuleList::read(&args.list)?;
    let package = args
        .source
        .kernel_package
        .as_deref()
        .map(Package::unpack)
        .transpose()?;
    let (kernel, modules) = match (&package, &args.source.vmlinuz, &args.modules) {
        (Some(package), _, _) => (&package.kernel, &package.modules),
        (None, Some(kernel), Some(modules)) => (kernel, modules),
        // The parser requires one of the two.
        (None, _, _) => return Ok(String::new()),
    };
    let dir = build(
        &Inputs {
            kernel,
            modules,
            list: &list,
            agent: &args.agent,
            archive: args.archive,
        },
        &args.out,
    )?;
    Ok(format!("{}\n", dir.display()))
}

fn summary(assets: &GuestAssets) -> String {
    let m = assets.manifest();
    format!(
        "{}: kernel {}, vmlinux {} bytes, initrd {} bytes\n",
        assets.id(),
        m.kernel_release,
        m.vmlinux.size,
        m.initrd.size
    )
}

/// One cause a line, and what to do at the end.
fn report(error: &guest_image::Error) {
    let mut text = format!("guest-image: {error}\n");
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text += &format!("  cause: {error}\n");
        cause = error.source();
    }
    if let Some(hint) = error.hint() {
        text += &format!("  hint: {hint}\n");
    }
    // Nobody is left to tell when standard error is gone.
    let _ = io::stderr().write_all(text.as_bytes());
}
