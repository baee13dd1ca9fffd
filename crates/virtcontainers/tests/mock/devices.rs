//! Devices that come to a running sandbox, and every way in which that fails.

use std::path::PathBuf;
use std::time::Duration;

use vc_hypervisor::mock::Step;
use virtcontainers::mock;
use virtcontainers::{Device, DeviceConfig, Error, PlugPhase, Runtime, Sandbox};

use super::{Host, on_executor, sandbox, sandbox_id};

/// A sandbox with places for two devices.
async fn pod(host: &Host) -> Sandbox {
    let mut config = sandbox("pod", Vec::new());
    config.vm.root_ports = 2;
    host.runtime.create_sandbox(config).await.unwrap()
}

fn image(host: &Host, name: &str) -> DeviceConfig {
    let path = host.root.path().join(name);
    std::fs::write(&path, [0; 512]).unwrap();
    block(path)
}

fn block(path: impl Into<PathBuf>) -> DeviceConfig {
    DeviceConfig::Block {
        path: path.into(),
        read_only: false,
    }
}

/// Waits until some device of the sandbox is that far.
async fn wait_for(runtime: &Runtime, phase: PlugPhase) -> Device {
    let sandbox = runtime.fetch_sandbox(&sandbox_id("pod")).await;
    let sandbox = sandbox.unwrap();
    loop {
        let devices = sandbox.devices().unwrap();
        match devices.into_iter().find(|device| device.phase == phase) {
            Some(device) => return device,
            None => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    }
}

/// The files in the sandbox's directory that say what its devices are.
fn kept(host: &Host) -> usize {
    let directory = host.root.path().join("state/pod");
    let entries = std::fs::read_dir(directory).unwrap();
    entries
        .filter(|entry| {
            let name = entry.as_ref().unwrap().file_name();
            name.to_string_lossy().starts_with("device:")
        })
        .count()
}

#[test]
fn a_device_is_known_to_whoever_comes_later_and_goes_with_the_sandbox() {
    let host = Host::new();
    on_executor(async {
        let pod = pod(&host).await;
        let config = image(&host, "image");
        let device = pod.add_device(&config).await.unwrap();
        assert_eq!(device.pci_path, "1b.0/00");
        assert_eq!(device.phase, PlugPhase::Present);

        let fetched = host.runtime.fetch_sandbox(pod.id()).await.unwrap();
        assert_eq!(fetched.devices().unwrap(), std::slice::from_ref(&device));
        assert_eq!(device.config, Some(config.clone()));
        let other = image(&host, "other");
        let second = host.runtime.add_device(pod.id(), &other).await.unwrap();
        assert_eq!(second.pci_path, "1b.1/00");

        host.runtime
            .remove_device(pod.id(), &device.id)
            .await
            .unwrap();
        assert_eq!(pod.devices().unwrap(), [second]);
        assert_eq!(kept(&host), 1);
        let again = pod.add_device(&config).await.unwrap();
        assert_eq!(again.pci_path, device.pci_path);
        assert_ne!(again.id, device.id, "no name is used twice");
        pod.delete().await.unwrap();
    });
    host.assert_nothing_left();
}

#[test]
fn what_cannot_be_plugged_changes_nothing() {
    let host = Host::new();
    on_executor(async {
        let pod = pod(&host).await;
        for name in ["a", "b"] {
            pod.add_device(&image(&host, name)).await.unwrap();
        }
        let before = pod.devices().unwrap();
        let full = pod.add_device(&image(&host, "c")).await.unwrap_err();
        assert!(
            matches!(
                full,
                Error::Hypervisor(vc_hypervisor::Error::NoFreePort { ports: 2, .. })
            ),
            "{full}"
        );
        let missing = pod.add_device(&block("/nonexistent")).await.unwrap_err();
        assert!(matches!(missing, Error::System { .. }), "{missing}");
        let no_disk = pod.add_device(&block("/dev/null")).await.unwrap_err();
        assert!(matches!(no_disk, Error::Device { .. }), "{no_disk}");
        let unknown = pod.remove_device("dev-0").await.unwrap_err();
        assert!(
            matches!(
                unknown,
                Error::Hypervisor(vc_hypervisor::Error::NoDevice { .. })
            ),
            "{unknown}"
        );
        assert_eq!(pod.devices().unwrap(), before);
        assert_eq!(kept(&host), 2);
        pod.delete().await.unwrap();
    });
    host.assert_nothing_left();
}

#[test]
fn a_device_that_the_machine_does_not_take_is_not_there() {
    let host = Host::new();
    on_executor(async {
        let pod = pod(&host).await;
        let machine = host.script.guest(pod.id()).machine().clone();
        machine.fail(Step::Plug, "not this one");
        let config = image(&host, "image");
        let error = pod.add_device(&config).await.unwrap_err();
        assert!(error.to_string().contains("not this one"), "{error}");
        assert!(pod.devices().unwrap().is_empty());
        assert_eq!(kept(&host), 0);
        // Nothing holds the image either.
        pod.add_device(&config).await.unwrap();
        pod.delete().await.unwrap();
    });
    host.assert_nothing_left();
}

#[test]
fn a_device_that_the_guest_keeps_is_leaving_and_can_be_removed_again() {
    let host = Host::new();
    on_executor(async {
        let pod = pod(&host).await;
        let device = pod.add_device(&image(&host, "image")).await.unwrap();
        let machine = host.script.guest(pod.id()).machine().clone();
        machine.fail(Step::Unplug, "the guest keeps it");
        assert!(pod.remove_device(&device.id).await.is_err());
        let fetched = host.runtime.fetch_sandbox(pod.id()).await.unwrap();
        assert_eq!(fetched.devices().unwrap()[0].phase, PlugPhase::Leaving);
        let next = fetched.add_device(&image(&host, "next")).await.unwrap();
        assert_eq!(next.pci_path, "1b.1/00", "the first place is not free");
        fetched.remove_device(&device.id).await.unwrap();
        assert_eq!(pod.devices().unwrap(), [next]);
        pod.delete().await.unwrap();
    });
    host.assert_nothing_left();
}

#[test]
fn a_device_that_was_given_up_is_removed() {
    let host = Host::new();
    on_executor(async {
        let pod = pod(&host).await;
        let machine = host.script.guest(pod.id()).machine().clone();
        machine.hang(Step::Plug);
        let config = image(&host, "image");
        tokio::select! {
            _ = pod.add_device(&config) => unreachable!("it hangs"),
            _ = wait_for(&host.runtime, PlugPhase::Coming) => {}
        }
        machine.release(Step::Plug);
        while !pod.devices().unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        pod.add_device(&config).await.unwrap();
        pod.delete().await.unwrap();
    });
    host.assert_nothing_left();
}

#[test]
fn a_removal_that_was_given_up_is_written_down() {
    let host = Host::new();
    on_executor(async {
        let pod = pod(&host).await;
        let machine = host.script.guest(pod.id()).machine().clone();
        let device = pod.add_device(&image(&host, "image")).await.unwrap();
        machine.hang(Step::Unplug);
        let begun = async {
            while pod.status().unwrap().activity.is_none() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::select! {
            _ = pod.remove_device(&device.id) => unreachable!("it hangs"),
            () = begun => {}
        }
        machine.release(Step::Unplug);
        while !pod.devices().unwrap().is_empty() || kept(&host) > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        pod.delete().await.unwrap();
    });
    host.assert_nothing_left();
}

#[test]
fn what_an_interrupted_caller_left_goes_with_the_next_operation() {
    let host = Host::new();
    on_executor(async {
        let pod = pod(&host).await;
        let machine = host.script.guest(pod.id()).machine().clone();
        machine.hang(Step::Plug);
        let options = mock::options(host.root.path(), &host.script);
        let config = image(&host, "image");
        // Its executor ends in the middle, and everything of it is dropped.
        let caller = tokio::task::spawn_blocking(move || {
            on_executor(async {
                let runtime = Runtime::open(options).unwrap();
                let pod = runtime.fetch_sandbox(&sandbox_id("pod")).await.unwrap();
                tokio::select! {
                    _ = pod.add_device(&config) => unreachable!("it hangs"),
                    _ = wait_for(&runtime, PlugPhase::Coming) => {}
                }
            });
        });
        caller.await.unwrap();
        let left = pod.devices().unwrap();
        assert_eq!(left[0].phase, PlugPhase::Coming);
        machine.release(Step::Plug);
        let next = pod.add_device(&image(&host, "next")).await.unwrap();
        assert_eq!(next.pci_path, left[0].pci_path);
        assert_eq!(pod.devices().unwrap(), [next]);
        assert_eq!(kept(&host), 1);
        pod.delete().await.unwrap();
    });
    host.assert_nothing_left();
}
