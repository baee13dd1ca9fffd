use std::time::{Duration, Instant};

use rustix::process::{Signal as Rsignal, pidfd_send_signal};
use vc_hypervisor::{Hypervisor, StopLimits, Vm, VmEnd};
use vc_types::Signal;
use vc_types::limits::CONSOLE_LOG_BYTES_MAX;

use crate::machine::{Guest, test};

fn signal(vm: &dyn Vm, signal: Rsignal) {
    let pidfd = vm.processes()[0].open().unwrap().unwrap();
    pidfd_send_signal(pidfd, signal).unwrap();
}

pub(crate) fn asked() {
    test(async |host| {
        let vm = host.launch(Guest::Idle).await.unwrap();
        let end = vm.stop(StopLimits::default()).await.unwrap();
        assert_eq!(end, VmEnd::Stopped { killed: false });
        assert_eq!(vm.stop(StopLimits::default()).await.unwrap(), end);
        assert_eq!(vm.wait().await, end);
    });
}

pub(crate) fn deaf() {
    test(async |host| {
        let vm = host.launch(Guest::Idle).await.unwrap();
        signal(&*vm, Rsignal::STOP);
        let limits = StopLimits {
            quit: Duration::from_millis(200),
            ..StopLimits::default()
        };
        let started = Instant::now();
        let end = vm.stop(limits).await.unwrap();
        assert_eq!(end, VmEnd::Stopped { killed: true });
        assert!(started.elapsed() >= limits.quit);
    });
}

pub(crate) fn at_once() {
    test(async |host| {
        let vm = host.launch(Guest::Prints).await.unwrap();
        let (stopped, waited) = tokio::join!(vm.stop(StopLimits::AT_ONCE), vm.wait());
        assert_eq!(stopped.unwrap(), VmEnd::Stopped { killed: true });
        assert_eq!(waited, VmEnd::Stopped { killed: true });
    });
}

pub(crate) fn killed() {
    test(async |host| {
        let vm = host.launch(Guest::Idle).await.unwrap();
        signal(&*vm, Rsignal::KILL);
        let end = VmEnd::Killed {
            signal: Signal::KILL,
        };
        assert_eq!(vm.wait().await, end);
        assert_eq!(vm.stop(StopLimits::default()).await.unwrap(), end);
    });
}

pub(crate) fn terminated() {
    test(async |host| {
        let vm = host.launch(Guest::Idle).await.unwrap();
        signal(&*vm, Rsignal::TERM);
        let end = VmEnd::Killed {
            signal: Signal::TERM,
        };
        assert_eq!(vm.wait().await, end);
    });
}

pub(crate) fn guest_reset() {
    ends_as(Guest::Resets, VmEnd::GuestReset);
}

pub(crate) fn guest_shutdown() {
    ends_as(Guest::SwitchesOff, VmEnd::GuestShutdown);
}

pub(crate) fn guest_panic() {
    ends_as(Guest::Panics, VmEnd::GuestPanicked);
}

fn ends_as(guest: Guest, end: VmEnd) {
    test(async |host| {
        let vm = host.launch(guest).await.unwrap();
        let log = String::from_utf8_lossy(&host.read("qemu.log")).into_owned();
        assert_eq!(vm.wait().await, end, "{log}");
    });
}

/// A real kernel, where the environment names one, without anything to run.
pub(crate) fn kernel_panic() {
    let Some(kernel) = std::env::var_os("VIRTC_TEST_KERNEL") else {
        println!("skipped: VIRTC_TEST_KERNEL names no kernel");
        return;
    };
    test(async |host| {
        let mut spec = host.spec(Guest::Idle);
        spec.kernel = std::fs::File::open(&kernel).unwrap().into();
        spec.memory = vc_types::ByteSize::from_mib(256);
        spec.vcpus = 2;
        let vm = host.driver().launch(spec).await.unwrap();
        assert_eq!(vm.wait().await, VmEnd::GuestReset);
        let console = String::from_utf8_lossy(&host.read("console.log")).into_owned();
        assert!(console.contains("Kernel panic"), "{console}");
    });
}

pub(crate) fn dropped() {
    test(async |host| {
        let vm = host.launch(Guest::Idle).await.unwrap();
        let process = vm.processes().remove(0);
        drop(vm);
        while process.is_alive() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
}

pub(crate) fn console_flood() {
    test(async |host| {
        let vm = host.launch(Guest::Prints).await.unwrap();
        let mut longest = 0;
        for _ in 0..150 {
            tokio::time::sleep(Duration::from_millis(20)).await;
            longest = longest.max(host.read("console.log").len() as u64);
        }
        assert!(longest > 1_000, "the guest prints: {longest} bytes");
        assert!(longest <= CONSOLE_LOG_BYTES_MAX);
        vm.stop(StopLimits::AT_ONCE).await.unwrap();
        let log = host.read("console.log");
        assert!(
            log.windows(4)
                .any(|text| text == b"x\nx\n" || text == b"\nx\nx")
        );
    });
}
