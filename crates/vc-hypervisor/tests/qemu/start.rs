use std::time::{Duration, Instant};

use vc_hypervisor::qemu::{QemuConfig, QemuLimits};
use vc_hypervisor::{
    Error, ForwardProtocol, Hypervisor, Nic, NicBackend, PortForward, StopLimits, VmEnd,
};

use crate::machine::{Guest, link, status_of, test};

pub(crate) fn as_an_unprivileged_user() {
    test(async |host| {
        let vm = host.launch(Guest::Idle).await.unwrap();
        let pid = vm.processes()[0].pid();
        assert_eq!(status_of(pid, "Uid:"), "65532\t65532\t65532\t65532");
        assert_eq!(status_of(pid, "Gid:"), "65532\t65532\t65532\t65532");
        assert_eq!(status_of(pid, "Groups:"), "");
        for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
            assert_eq!(status_of(pid, set), "0000000000000000", "{set}");
        }
        assert_eq!(status_of(pid, "NoNewPrivs:"), "1");
        assert_eq!(status_of(pid, "Seccomp:"), "2");
        let me = i32::try_from(std::process::id()).unwrap();
        for namespace in ["ns/net", "ns/ipc", "ns/uts"] {
            assert_ne!(link(pid, namespace), link(me, namespace));
        }
        vm.stop(StopLimits::AT_ONCE).await.unwrap();
    });
}

/// QEMU takes the arguments, and makes the guest's connections where its caller would.
pub(crate) fn with_its_own_network_stack() {
    test(async |host| {
        let mut spec = host.spec(Guest::Idle);
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let forward = PortForward {
            protocol: ForwardProtocol::Tcp,
            host: port.local_addr().unwrap(),
            guest_port: 80,
        };
        drop(port);
        let nic = |n: u8, forwards| Nic {
            id: format!("net{n}"),
            mac: [2, 0, 0, 0, 0, n],
            queues: 1,
            backend: NicBackend::User {
                ipv6: true,
                forwards,
                filter: None,
            },
        };
        spec.nics = vec![nic(1, vec![forward]), nic(2, Vec::new())];
        let vm = host.driver().launch(spec).await.unwrap();
        let pid = vm.processes()[0].pid();
        let me = i32::try_from(std::process::id()).unwrap();
        assert_eq!(link(pid, "ns/net"), link(me, "ns/net"));
        for namespace in ["ns/ipc", "ns/uts"] {
            assert_ne!(link(pid, namespace), link(me, namespace));
        }
        assert_eq!(status_of(pid, "CapPrm:"), "0000000000000000");
        std::net::TcpStream::connect(forward.host).unwrap();
        vm.stop(StopLimits::AT_ONCE).await.unwrap();
    });
}

/// Prints what a launch costs; the figure is for people, the limit for hangs.
pub(crate) fn is_timed() {
    const RUNS: usize = 10;
    test(async |host| {
        let mut launches = Vec::new();
        let mut stops = Vec::new();
        for _ in 0..RUNS {
            let spec = host.spec(Guest::Idle);
            let started = Instant::now();
            let vm = host.driver().launch(spec).await.unwrap();
            launches.push(started.elapsed());
            let started = Instant::now();
            vm.stop(StopLimits::AT_ONCE).await.unwrap();
            stops.push(started.elapsed());
        }
        launches.sort();
        stops.sort();
        println!(
            "launch: median {:?}, most {:?}; stop: median {:?}, most {:?}",
            launches[RUNS / 2],
            launches[RUNS - 1],
            stops[RUNS / 2],
            stops[RUNS - 1]
        );
        assert!(launches[RUNS / 2] < Duration::from_secs(5));
    });
}

pub(crate) fn with_a_bad_kernel() {
    test(async |host| {
        let mut spec = host.spec(Guest::Idle);
        spec.kernel = host.file("kernel", b"not a kernel").into();
        let error = host.driver().launch(spec).await.err().unwrap();
        let Error::EndedAtStart {
            end: VmEnd::Failed { code: 1, messages },
            ..
        } = &error
        else {
            panic!("{error:?}");
        };
        assert!(!messages.is_empty(), "{error}");
        assert!(!host.read("qemu.log").is_empty());
    });
}

pub(crate) fn without_a_program() {
    test(async |host| {
        let config = QemuConfig {
            binary: Some(host.directory.path().join("kernel")),
            ..QemuConfig::default()
        };
        // The file exists and is no program.
        let spec = host.spec(Guest::Idle);
        let error = host.driver_with(config).launch(spec).await.err().unwrap();
        assert!(matches!(error, Error::Launch { .. }), "{error:?}");

        let config = QemuConfig {
            binary: Some("/nonexistent/qemu".into()),
            ..QemuConfig::default()
        };
        let spec = host.spec(Guest::Idle);
        let error = host.driver_with(config).launch(spec).await.err().unwrap();
        assert!(matches!(error, Error::Missing { .. }), "{error:?}");
    });
}

pub(crate) fn dropped_halfway() {
    test(async |host| {
        for millis in [0, 1, 2, 5, 10, 20] {
            let launch = host.launch(Guest::Idle);
            let limit = Duration::from_millis(millis);
            let _ = tokio::time::timeout(limit, launch).await;
        }
    });
}

pub(crate) fn of_another_program() {
    test(async |host| {
        let program = host.directory.path().join("program");
        std::fs::write(&program, "#!/bin/sh\nexec sleep 30\n").unwrap();
        let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&program, everybody).unwrap();
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o711);
        std::fs::set_permissions(host.directory.path(), open).unwrap();

        let limit = Duration::from_millis(300);
        let config = QemuConfig {
            binary: Some(program),
            limits: QemuLimits {
                start: limit,
                ..QemuLimits::default()
            },
            ..QemuConfig::default()
        };
        let spec = host.spec(Guest::Idle);
        let error = host.driver_with(config).launch(spec).await.err().unwrap();
        assert!(
            matches!(error, Error::NoAnswer { limit: passed, .. } if passed == limit),
            "{error:?}"
        );
    });
}
