//! What QEMU and the guest's kernel are told about the accelerator, and which groups QEMU needs
//! for it.

use std::fs;
use std::num::NonZeroU32;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use vc_launch::User;

use super::config::{TcgThreads, VmmUser};
use super::version::QemuVersion;
use crate::{Accelerator, HostDevices};

/// How QEMU emulates processors.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tcg {
    /// Each on a thread of its own.
    pub(super) multi: bool,
    /// The most MiB of translated code that are kept.
    pub(super) buffer_mib: u32,
}

/// How long QEMU may take to say its version. It takes some hundredths.
const VERSION_LIMIT: Duration = Duration::from_secs(1);

/// Whether a machine's processors are emulated on a thread each. Blocks where the program has to
/// say what it is. Nothing where it does not.
pub(super) fn is_multi(
    accelerator: Accelerator,
    vcpus: u32,
    threads: TcgThreads,
    binary: &Path,
) -> Option<bool> {
    if accelerator == Accelerator::Kvm || vcpus == 1 {
        return Some(true);
    }
    match threads {
        TcgThreads::Single => Some(false),
        TcgThreads::Multi => Some(true),
        TcgThreads::Auto => QemuVersion::of(binary, VERSION_LIMIT)
            .ok()
            .map(|version| version >= QemuVersion::REWRITES_SAFELY),
    }
}

/// The arguments for an accelerator and the processor that goes with it.
pub(super) fn args(accelerator: Accelerator, tcg: Tcg) -> [(&'static str, String); 2] {
    match accelerator {
        Accelerator::Kvm => [("-accel", "kvm".into()), ("-cpu", "host".into())],
        Accelerator::Tcg => [
            (
                "-accel",
                format!(
                    "tcg,thread={},tb-size={}",
                    if tcg.multi { "multi" } else { "single" },
                    tcg.buffer_mib
                ),
            ),
            // Without ERMS the guest copies memory by its vector code; with it by `rep movsb`,
            // which is translated to a loop over bytes.
            ("-cpu", "max,-erms".into()),
        ],
    }
}

/// What the distribution's kernel does at every boot and no guest of ours needs: a self-test,
/// certificates of module signatures, block tracing, checksums of disks that we do not have, and a
/// congestion control whose registration takes 70 ms under TCG and that only a network needs. A
/// name that another kernel lacks is ignored.
const UNUSED_INITCALLS: &str = "initcall_blacklist=cubictcp_register,init_blk_tracer,\
    crypto_kdf108_init,crc_t10dif_mod_init,crc64_rocksoft_mod_init,load_system_certificate_list";

/// Saves the calibration of the second processor's delays, 70 ms. It scales busy waits alone; this
/// is the value of a 2.5 GHz counter at 250 ticks a second.
const LOOPS_PER_JIFFY: &str = "lpj=10000000";

/// What a running kernel would rewrite its hottest code for, the allocators, when the first cgroup
/// is made. QEMU before 8.1 can lose such a write while another processor translates the same
/// code: that keeps a breakpoint which is not in memory any more, and the guest hangs for ever.
const FEW_REWRITES: [&str; 2] = ["cgroup.memory=nokmem,nosocket", "cgroup_disable=cpuset"];

/// QEMU 7.2 knows translated code by its virtual address: programs that lie elsewhere each time they are
/// started are translated again each time. With this, our own kernel draws places once a guest.
const PLACES_ONCE: &str = "aslr.once=1";

/// The frequency of QEMU's local timer (`hw/intc/apic.c`: it counts nanoseconds), which our own kernel then
/// does not measure for 100 ms.
const TIMER_RATE: &str = "apic.timer_hz=1000000000";

/// QEMU 7.2 also knows it by whether the stack segment is null, which means nothing in 64-bit mode: with this,
/// our own kernel runs with one that is not, and is translated once.
const ONE_STACK_SEGMENT: &str = "entry.one_ss=1";

/// Under TCG a guest's own precautions against its processor's guesses do nothing: what QEMU makes of them are
/// other instructions. They cost as much all the same.
const NO_MITIGATIONS: &str = "mitigations=off";

/// Our own kernel does not write over its initial code when it frees it: QEMU would forget each piece of it
/// that it has translated, for 40 ms.
const NO_FILL: &str = "initmem.fill=no";

/// It does not tell the processor of each instruction that it rewrites at its start, and rewrites most before they
/// have run: QEMU sees the writes, and forgets what it has translated.
const NO_SYNC: &str = "alternatives.sync=0";

/// Our own kernel accounts for memory when that is first wanted: of 64 bytes for each page, few are written in a guest
/// that uses little, and a boot is spared the writing.
const MEMORY_WHEN_USED: &str = "memmap_init.when=used";

/// Our own kernel asks a file system once whether it can be the writable layer of an overlay: a template has asked,
/// and its clones need not.
const LAYERS_CHECKED_ONCE: &str = "overlay.check_once=1";

/// Root ports are driven by ACPI, which plugs and unplugs their devices. Their own services (hot-plug, power events)
/// would each take a look at each port, and QEMU lays out the machine's memory anew for each interrupt of theirs.
const NO_PORT_SERVICES: &str = "pcie_ports=compat";

/// The kernel parameters of every VM, before those of its [`VmSpec`](crate::VmSpec).
///
/// `tsc_khz` is the rate of the host's time stamp counter where that is known. Under TCG it is the
/// guest's as well, and a guest that measures it on a busy host can be wrong by any factor.
///
/// ```
/// use vc_hypervisor::{Accelerator, HostDevices, qemu};
///
/// let params = qemu::kernel_params(Accelerator::Tcg, &HostDevices::default(), None);
/// assert!(params.iter().any(|param| param == "panic=-1"));
/// ```
pub fn kernel_params(
    accelerator: Accelerator,
    devices: &HostDevices,
    tsc_khz: Option<NonZeroU32>,
) -> Vec<String> {
    let mut params = vec![
        // Every byte of the console costs time; a panic is printed all the same.
        "console=ttyS0",
        "8250.nr_uarts=1",
        "quiet",
        "loglevel=1",
        // A panic resets the machine at once, and the reset ends the VM.
        "panic=-1",
        // Tests of the kernel's own cryptography: a fifth of a second under TCG.
        "cryptomgr.notests",
        // Nobody in the guest reads an audit log or loads a profile.
        "audit=0",
        "lsm=landlock,yama",
        UNUSED_INITCALLS,
        NO_PORT_SERVICES,
        MEMORY_WHEN_USED,
        LAYERS_CHECKED_ONCE,
    ];
    let mut rate = None;
    if accelerator == Accelerator::Tcg {
        // Where the host is busy, a guest's timers are late, and it must neither panic for it nor
        // report its programs as hanging.
        params.extend(["no_timer_check", "nowatchdog", NO_MITIGATIONS]);
        params.extend(FEW_REWRITES);
        // A kernel that does not know them ignores them.
        params.extend([PLACES_ONCE, TIMER_RATE, ONE_STACK_SEGMENT]);
        params.extend([NO_FILL, NO_SYNC]);
        if devices.tsc_is_reliable() {
            params.push("tsc=reliable");
            params.push(LOOPS_PER_JIFFY);
            rate = tsc_khz.map(|khz| format!("tsc_early_khz={khz}"));
        }
    }
    params.into_iter().map(str::to_owned).chain(rate).collect()
}

/// The user that QEMU runs as: its own where that user can open what the accelerator needs.
///
/// `None` means the invoking user, still without any capability.
pub(super) fn user(wanted: VmmUser, accelerator: Accelerator, kvm: &Path) -> Option<User> {
    let VmmUser::Own { uid, gid } = wanted else {
        return None;
    };
    let groups = match accelerator {
        Accelerator::Tcg => Vec::new(),
        Accelerator::Kvm => kvm_groups(kvm)?,
    };
    Some(User { uid, gid, groups })
}

/// The groups by which a user who owns nothing can open KVM, or `None` where only its owner can.
fn kvm_groups(kvm: &Path) -> Option<Vec<u32>> {
    const READ_WRITE: u32 = 0o6;
    let metadata = fs::metadata(kvm).ok()?;
    let allows = |shift: u32| (metadata.mode() >> shift) & READ_WRITE == READ_WRITE;
    if allows(0) {
        Some(Vec::new())
    } else if allows(3) && metadata.gid() != 0 {
        Some(vec![metadata.gid()])
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, chown};

    use super::*;

    const OWN: VmmUser = VmmUser::Own { uid: 7, gid: 8 };

    #[test]
    fn the_group_of_kvm_is_taken_only_where_it_helps() {
        let kvm = tempfile::NamedTempFile::new().unwrap();
        let groups = |mode| {
            kvm.as_file()
                .set_permissions(fs::Permissions::from_mode(mode))
                .unwrap();
            user(OWN, Accelerator::Kvm, kvm.path()).map(|user| user.groups)
        };
        assert_eq!(groups(0o666), Some(vec![]));
        assert_eq!(groups(0o600), None);
        if chown(kvm.path(), None, Some(104)).is_ok() {
            assert_eq!(groups(0o660), Some(vec![104]));
        }
    }

    #[test]
    fn a_busy_host_is_thought_of_only_under_tcg() {
        let clock = tempfile::NamedTempFile::new().unwrap();
        let devices = HostDevices {
            clocksource: clock.path().to_owned(),
            ..HostDevices::default()
        };
        let has = |accelerator, wanted: &str| {
            let params = kernel_params(accelerator, &devices, NonZeroU32::new(2_445_000));
            params.iter().any(|param| param == wanted)
        };
        let rate = "tsc_early_khz=2445000";
        assert!(!has(Accelerator::Tcg, rate));
        fs::write(clock.path(), "tsc\n").unwrap();
        for param in [
            "no_timer_check",
            "tsc=reliable",
            rate,
            FEW_REWRITES[0],
            PLACES_ONCE,
            TIMER_RATE,
            ONE_STACK_SEGMENT,
            NO_MITIGATIONS,
            NO_FILL,
            NO_SYNC,
        ] {
            assert!(has(Accelerator::Tcg, param), "{param}");
            assert!(!has(Accelerator::Kvm, param), "{param}");
        }
        assert!(has(Accelerator::Tcg, NO_PORT_SERVICES));
        assert!(has(Accelerator::Kvm, NO_PORT_SERVICES));
    }

    #[test]
    fn an_old_emulator_lets_processors_take_turns() {
        let directory = tempfile::tempdir().unwrap();
        let says = |version: &str| {
            let path = directory.path().join(version);
            let script = format!("#!/bin/sh\necho QEMU emulator version {version}\n");
            fs::write(&path, script).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            path
        };
        let (old, new) = (says("7.2.22"), says("8.1.0"));
        let auto = |vcpus, binary| is_multi(Accelerator::Tcg, vcpus, TcgThreads::Auto, binary);
        assert_eq!(auto(2, &old), Some(false));
        assert_eq!(auto(2, &new), Some(true));
        assert_eq!(auto(1, &old), Some(true));
        assert_eq!(auto(2, Path::new("/nonexistent")), None);
        for (accelerator, threads, binary, multi) in [
            (Accelerator::Kvm, TcgThreads::Auto, &old, true),
            (Accelerator::Tcg, TcgThreads::Multi, &old, true),
            (Accelerator::Tcg, TcgThreads::Single, &new, false),
        ] {
            assert_eq!(is_multi(accelerator, 2, threads, binary), Some(multi));
        }

        let tcg = |multi| Tcg {
            multi,
            buffer_mib: 64,
        };
        let accel = |multi| args(Accelerator::Tcg, tcg(multi))[0].1.clone();
        assert_eq!(accel(false), "tcg,thread=single,tb-size=64");
        assert_eq!(accel(true), "tcg,thread=multi,tb-size=64");
    }

    #[test]
    fn tcg_needs_no_group() {
        let user = user(OWN, Accelerator::Tcg, Path::new("/nonexistent")).unwrap();
        assert_eq!((user.uid, user.gid, user.groups), (7, 8, vec![]));
        assert!(super::user(VmmUser::Invoking, Accelerator::Tcg, Path::new("/")).is_none());
    }
}
