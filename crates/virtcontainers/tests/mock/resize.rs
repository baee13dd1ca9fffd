//! Machines that grow with limits, and every way in which that fails.

use oci_spec::runtime::LinuxResources;
use serde_json::json;
use vc_hypervisor::mock::Step;
use vc_types::{ByteSize, VmSize};
use virtcontainers::mock::Call;
use virtcontainers::{Error, Sandbox, Started};

use super::{Host, container, id, on_executor, sandbox};

fn size(vcpus: u32, mib: u32) -> VmSize {
    VmSize {
        vcpus,
        memory: ByteSize::from_mib(mib),
    }
}

fn resources(mib: u64, quota: u64) -> LinuxResources {
    let resources = json!({
        "memory": { "limit": mib << 20 }, "cpu": { "quota": quota, "period": 100_000 },
    });
    serde_json::from_value(resources).unwrap()
}

/// A sandbox of two containers whose machine can grow, but for its processors.
async fn pod(host: &Host) -> Sandbox {
    let containers = vec![container("c1", &["sleep"]), container("c2", &["sleep"])];
    let mut config = sandbox("pod", containers);
    config.vm.root_ports = 1;
    config.vm.largest = Some(size(1, 1024));
    let pod = host.runtime.create_sandbox(config).await.unwrap();
    pod.start().await.unwrap();
    pod
}

#[test]
fn a_machine_is_as_large_as_the_limits_of_all_its_containers() {
    let host = Host::new();
    on_executor(async {
        let pod = pod(&host).await;
        assert_eq!(pod.machine_size().await.unwrap(), size(1, 256));
        // What it has already is enough for these, with what the guest takes itself.
        let update = async |name: &str, mib| {
            let fetched = host.runtime.fetch_sandbox(pod.id()).await.unwrap();
            let limits = resources(mib, 100_000);
            fetched.update_container(&id(name), &limits).await.unwrap();
            pod.machine_size().await.unwrap()
        };
        assert_eq!(update("c1", 200).await, size(1, 512));
        assert_eq!(update("c2", 200).await, size(1, 768));
        assert_eq!(update("c2", 4000).await, size(1, 1024), "its largest size");
        assert_eq!(update("c2", 100).await, size(1, 768));
        pod.delete_container(&id("c2"), true).await.unwrap();
        assert_eq!(pod.machine_size().await.unwrap(), size(1, 512));

        // One that comes with limits has room.
        let mut later = container("c3", &["sleep"]);
        let mut linux = later.spec.linux().clone().unwrap();
        linux.set_resources(Some(resources(300, 100_000)));
        later.spec.set_linux(Some(linux));
        pod.create_container(later).await.unwrap();
        assert_eq!(pod.machine_size().await.unwrap(), size(1, 768));

        // What they may use is what they were asked to be, from now on.
        pod.stop().await.unwrap();
        let Started::Kept(again) = host.runtime.start_sandbox(pod.id()).await.unwrap() else {
            panic!("its machine is there");
        };
        assert_eq!(again.machine_size().await.unwrap(), size(2, 768));
    });
}

#[test]
fn where_a_machine_does_not_grow_a_container_keeps_its_limits() {
    let host = Host::new();
    on_executor(async {
        let pod = pod(&host).await;
        let guest = host.script.guest(pod.id());
        let refused = async |mib| {
            let limits = resources(500, 100_000);
            let updated = pod.update_container(&id("c1"), &limits).await;
            let error = updated.unwrap_err();
            assert!(guest.resources(&id("c1")).is_none(), "{error}");
            assert_eq!(pod.machine_size().await.unwrap(), size(1, mib));
            error
        };
        guest.machine().fail(Step::Plug, "no memory");
        assert!(matches!(refused(256).await, Error::Hypervisor(_)));
        guest.machine().fail(Step::Resize, "no memory");
        assert!(matches!(refused(256).await, Error::Hypervisor(_)));
        guest.fail(Call::Grow, "it does not come");
        assert!(matches!(refused(256).await, Error::Agent(_)));
        guest.fail(Call::UpdateContainer, "not so");
        // The other one has no limit, and may be using what has come.
        assert!(matches!(refused(768).await, Error::Agent(_)));
        pod.update_container(&id("c1"), &resources(500, 100_000))
            .await
            .unwrap();
        assert_eq!(pod.machine_size().await.unwrap(), size(1, 768));
    });
}
