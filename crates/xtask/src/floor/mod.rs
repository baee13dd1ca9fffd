//! The floors: F1, a bare VM with our kernel and initrd until its modules are loaded; F2, the same
//! and then a root of a share and an overlay, and the first byte of a static program in it.
//!
//! In place of the agent runs `bench/floor/init.c`, which is added to the same initrd. What it
//! writes comes over the serial line.

mod vm;

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use guest_image::GuestAssets;
use guest_image::build::cpio::{Archive, Entry};

use crate::median::median;
use vm::{Share, Vm};

/// The floor's init in the initrd.
const INIT: &str = "floor";

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How often each floor is measured; the two take turns
    #[arg(long, default_value_t = 10)]
    runs: usize,
    /// The guest assets
    #[arg(long, value_name = "DIR")]
    guest: PathBuf,
    /// The virtiofsd
    #[arg(long, value_name = "FILE")]
    virtiofsd: PathBuf,
    /// The floor's init, in C
    #[arg(long, value_name = "FILE", default_value = "bench/floor/init.c")]
    init: PathBuf,
    /// A static program that is run with the arguments behind it
    #[arg(last = true, default_values = ["/bin/busybox", "echo", "hello"])]
    program: Vec<String>,
}

/// Measures both floors; returns the table.
pub(crate) fn run(options: &Options) -> Result<String> {
    ensure!(options.runs > 0, "--runs 0 measures nothing");
    let assets = GuestAssets::open(&options.guest)?;
    let work = tempfile::tempdir()?;
    let initrd = add_init(&assets, &options.init, work.path())?;
    let root = work.path().join("root");
    make_root(&root, Path::new(&options.program[0]))?;

    let ready = Vm {
        assets: &assets,
        initrd: &initrd,
        arguments: "ready".into(),
        share: None,
    };
    let share = Share {
        virtiofsd: &options.virtiofsd,
        root: &root,
        work: work.path(),
    };
    let arguments = format!("run {} {}", vm::TAG, options.program.join(" "));
    let program = Vm {
        assets: &assets,
        initrd: &initrd,
        arguments,
        share: Some(share),
    };
    let (mut f1, mut f2) = (Vec::new(), Vec::new());
    for _ in 0..options.runs {
        f1.push(ready.time_to_first_byte().context("F1")?);
        f2.push(program.time_to_first_byte().context("F2")?);
    }
    Ok(table(&f1, &f2))
}

fn table(f1: &[Duration], f2: &[Duration]) -> String {
    let mut text = format!(
        "{:<34} {:>8} {:>8} {:>8}\n",
        "floor (seconds)", "median", "min", "max"
    );
    for (name, times) in [
        ("F1: a bare VM to ready", f1),
        ("F2: F1, root, program's first byte", f2),
    ] {
        let seconds = |t: Option<&Duration>| t.map_or(0.0, Duration::as_secs_f64);
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{name:<34} {:>8.3} {:>8.3} {:>8.3}",
            median(times).as_secs_f64(),
            seconds(times.iter().min()),
            seconds(times.iter().max()),
        );
    }
    text
}

/// The assets' initrd with the floor's init behind it: the kernel unpacks both archives.
fn add_init(assets: &GuestAssets, source: &Path, work: &Path) -> Result<PathBuf> {
    let program = work.join("init");
    let status = Command::new("gcc")
        .args(["-O2", "-Wall", "-static", "-s", "-o"])
        .args([program.as_path(), source])
        .status()
        .context("gcc")?;
    ensure!(
        status.success(),
        "gcc failed on {}: {status}",
        source.display()
    );
    let mut archive = Archive::default();
    archive.add(
        INIT,
        Entry::File {
            content: &fs::read(&program)?,
            executable: true,
        },
    );
    let path = work.join("initrd");
    fs::write(
        &path,
        [fs::read(assets.initrd())?, archive.finish()].concat(),
    )?;
    Ok(path)
}

/// A root with one program in it, at the program's own path.
fn make_root(root: &Path, program: &Path) -> Result<()> {
    let inside = root.join(
        program
            .strip_prefix("/")
            .context("the program's path is relative")?,
    );
    fs::create_dir_all(inside.parent().unwrap_or(root))?;
    fs::copy(program, &inside).with_context(|| format!("cannot copy {}", program.display()))?;
    fs::set_permissions(&inside, fs::Permissions::from_mode(0o755))?;
    Ok(())
}
