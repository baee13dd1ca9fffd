use async_trait::async_trait;

use super::{Factory, Hypervisor, Obtained, Origin, Result, VmRequest};

/// Launches each VM when it is asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Direct;

#[async_trait]
impl Factory for Direct {
    async fn obtain(&self, driver: &dyn Hypervisor, request: VmRequest) -> Result<Obtained> {
        let VmRequest {
            mut spec,
            size_of_boot,
            scratch,
            ..
        } = request;
        // Beside the boot; whoever has the guest mount it waits for that.
        if let Some(scratch) = scratch {
            scratch.begin()?;
        }
        (spec.vcpus, spec.memory) = (size_of_boot.vcpus, size_of_boot.memory);
        let vm = driver.launch(spec).await?;
        Ok(Obtained::new(vm, Origin::Booted))
    }
}

#[cfg(test)]
mod tests {
    use vc_hypervisor::VmEnd;
    use vc_hypervisor::mock::{self, MockHypervisor, Step};

    use super::*;

    #[tokio::test]
    async fn it_gives_what_the_driver_launches_and_fails_as_it_does() {
        let (driver, script) = MockHypervisor::new();
        let request = || VmRequest::new(mock::spec("web1").unwrap());
        script.fail(Step::Launch, "no memory");
        let error = Direct.obtain(&driver, request()).await.unwrap_err();
        assert!(error.to_string().contains("no memory"), "{error}");
        let obtained = Direct.obtain(&driver, request()).await.unwrap();
        assert_eq!(obtained.origin, Origin::Booted);
        script.end(VmEnd::GuestReset);
        assert_eq!(obtained.vm.wait().await, VmEnd::GuestReset);
    }
}
