use std::os::unix::net::UnixStream;
use std::time::Duration;

use vc_hypervisor::qemu::{QemuConfig, QemuLimits};
use vc_hypervisor::{Error, Hypervisor, StopLimits, VmEnd};

use crate::machine::{Guest, Host, test};

/// How long a guest that runs may take to print, on a busy host.
const PRINTS: Duration = Duration::from_secs(10);

/// How long a guest that stands still is looked at.
const SILENCE: Duration = Duration::from_millis(400);

/// Whether the guest prints within `limit` from now.
async fn prints(host: &Host, limit: Duration) -> bool {
    let path = host.directory.path().join("console.log");
    let changed = || std::fs::metadata(&path).unwrap().modified().unwrap();
    let before = changed();
    let change = async {
        while changed() == before {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(limit, change).await.is_ok()
}

pub(crate) fn pause_and_resume() {
    test(async |host| {
        let vm = host.launch(Guest::Prints).await.unwrap();
        assert!(prints(host, PRINTS).await);
        for _ in 0..2 {
            vm.pause().await.unwrap();
        }
        // What was in the pipe is read before the silence.
        tokio::time::sleep(SILENCE).await;
        assert!(!prints(host, SILENCE).await);
        for _ in 0..2 {
            vm.resume().await.unwrap();
        }
        assert!(prints(host, PRINTS).await);
        vm.pause().await.unwrap();
        let end = vm.stop(StopLimits::default()).await.unwrap();
        assert_eq!(end, VmEnd::Stopped { killed: false });
    });
}

pub(crate) fn attached() {
    test(async |host| {
        let vm = host.launch(Guest::Idle).await.unwrap();
        let text = serde_json::to_string(&vm.state()).unwrap();
        let state = serde_json::from_str(&text).unwrap();

        let other = host.driver().attach(&state).await.unwrap();
        other.pause().await.unwrap();
        other.resume().await.unwrap();
        drop(other);
        vm.pause().await.unwrap();

        let other = host.driver().attach(&state).await.unwrap();
        let end = other.stop(StopLimits::default()).await.unwrap();
        assert_eq!(end, VmEnd::Unseen);
        assert_eq!(vm.wait().await, VmEnd::Stopped { killed: false });
        assert_eq!(other.wait().await, VmEnd::Unseen, "it has ended");
        assert!(other.pause().await.is_err());
    });
}

pub(crate) fn one_client() {
    test(async |host| {
        let limit = Duration::from_millis(300);
        let config = QemuConfig {
            limits: QemuLimits {
                command: limit,
                ..QemuLimits::default()
            },
            ..QemuConfig::default()
        };
        let spec = host.spec(Guest::Idle);
        let vm = host.driver_with(config).launch(spec).await.unwrap();
        let first = UnixStream::connect(host.directory.path().join("qmp.sock")).unwrap();
        let error = vm.pause().await.unwrap_err();
        assert!(matches!(error, Error::NoAnswer { .. }), "{error:?}");
        drop(first);
        vm.pause().await.unwrap();
    });
}
