//! What the boot of the guest's own kernel costs, counted in instructions instead of a clock's time.
//!
//! QEMU's `-icount shift=0` makes each instruction of the guest a nanosecond of its time, whatever the
//! host does besides. So the time that the kernel prints with its last message is the same in each run
//! to some microseconds, and a limit of five per cent means something. The last message is that there is
//! no root: the kernel has neither an initrd nor a disk, and has done all it does before `/init`.
#![allow(clippy::unwrap_used, reason = "a test may fail where it likes")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// How much more than recorded a boot may cost.
const LIMIT: f64 = 1.05;

const QEMU: &str = "qemu-system-x86_64";

/// The parameters that every VM of ours has (`vc_hypervisor::qemu::kernel_params`) and that matter to the
/// kernel before `/init`; the counter's rate is that of the counted time.
const KERNEL_PARAMS: &str = "console=ttyS0 8250.nr_uarts=1 quiet loglevel=1 panic=-1 audit=0 \
    lsm=landlock,yama no_timer_check nowatchdog mitigations=off apic.timer_hz=1000000000 \
    alternatives.sync=0 memmap_init.when=used tsc=reliable tsc_early_khz=1000000 lpj=10000000";

fn tree() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The kernel of today's lists, where the cache has it.
fn own_kernel() -> Option<PathBuf> {
    let output = Command::new(tree().join("scripts/guest-kernel.sh"))
        .arg("--find")
        .output()
        .unwrap();
    let dir = String::from_utf8(output.stdout).unwrap();
    output
        .status
        .success()
        .then(|| Path::new(dir.trim()).join("vmlinux"))
}

/// `7.2` of the version's first line.
fn qemu_version() -> String {
    let output = Command::new(QEMU).arg("--version").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let version = text.split_whitespace().nth(3).unwrap();
    version.split('.').take(2).collect::<Vec<_>>().join(".")
}

/// Milliseconds of the guest's time, a million instructions each, until there is no root.
fn boot_cost(kernel: &Path) -> f64 {
    let output = Command::new(QEMU)
        .args(["-nodefaults", "-no-user-config", "-display", "none"])
        .args([
            "-machine",
            "q35,graphics=off,usb=off,sata=off,smbus=off,i8042=off,hpet=off,smm=off,vmport=off",
        ])
        .args([
            "-accel",
            "tcg,thread=single",
            "-icount",
            "shift=0,sleep=off",
        ])
        .args(["-rtc", "base=2026-01-01T00:00:00,clock=vm"])
        .args(["-cpu", "max,-erms", "-smp", "1", "-m", "512M"])
        .args(["-bios", "/usr/share/qemu/qboot.rom"])
        .args([
            "-no-reboot",
            "-action",
            "reboot=shutdown",
            "-serial",
            "stdio",
        ])
        .arg("-kernel")
        .arg(kernel)
        .args(["-append", KERNEL_PARAMS])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let end = text
        .lines()
        .find(|line| line.contains("Kernel panic - not syncing: VFS: Unable to mount root fs"))
        .unwrap_or_else(|| panic!("the kernel came to no end: {text}, {output:?}"));
    let seconds = end.trim_start_matches('[').split(']').next().unwrap();
    seconds.trim().parse::<f64>().unwrap() * 1e3
}

/// The value behind a word in `guest/kernel/boot-cost`.
fn recorded(key: &str) -> String {
    let text = fs::read_to_string(tree().join("guest/kernel/boot-cost")).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| line.split_once(' '))
        .find(|(name, _)| *name == key)
        .unwrap()
        .1
        .trim()
        .to_owned()
}

#[test]
fn the_boot_of_our_own_kernel_costs_no_more_than_it_did() {
    let Some(kernel) = own_kernel() else {
        eprintln!("skipped: the cache has no kernel of these lists (make guest-kernel)");
        return;
    };
    let version = qemu_version();
    if version != recorded("qemu") {
        eprintln!("skipped: QEMU is {version}, and another one's processor has other features");
        return;
    }
    let before: f64 = recorded("ms").parse().unwrap();
    let cost = boot_cost(&kernel);
    println!("{cost:.1} ms of counted time, recorded are {before:.1}");
    assert!(
        cost <= before * LIMIT,
        "a boot costs {cost:.1} ms of counted time, and {before:.1} is recorded in guest/kernel/boot-cost: \
         what was added to builtin.config belongs into modules.config, or is worth it and recorded"
    );
}
