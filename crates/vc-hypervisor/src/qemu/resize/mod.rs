//! A running VM that gets larger, or gives memory back.

mod commands;

use qapi::qmp::{self, HotpluggableCPU, MemoryDeviceInfo, VirtioMEMDeviceInfo};
use vc_types::{ByteSize, VmSize};

use super::args::behind;
use super::vm::Running;
use crate::{Accelerator, CurrentSize, Error, Growth, Result};

/// The guest puts what it takes to use at once, for what can be moved, so that it can give it back.
const PUT_TO_USE: &str = "memhp_default_state=online_movable";

/// A guest that may have memory above 4 GiB sets 64 MiB aside, through which devices write that
/// cannot reach so far, and clears them at its boot. None of ours is such a device; one of the host
/// that is has 2 MiB.
const FEW_BOUNCES: &str = "swiotlb=1024";

/// An emulated guest knows no hypervisor, and without one our own kernel believes in processors that
/// come later only when it is told to. One of the distribution's does not.
const MORE_PROCESSORS: &str = "acpi.hotplug_cpus=1";

/// The kernel parameters of a VM that can grow.
pub(super) fn kernel_params(growth: Growth, accelerator: Accelerator) -> Vec<String> {
    let Growth { first, largest } = growth;
    let mut params = Vec::new();
    if largest.memory > first.memory {
        params.extend([PUT_TO_USE, FEW_BOUNCES]);
    }
    if largest.vcpus > first.vcpus && accelerator == Accelerator::Tcg {
        params.push(MORE_PROCESSORS);
    }
    params.into_iter().map(str::to_owned).collect()
}

impl Running {
    pub(super) async fn size(&self) -> Result<CurrentSize> {
        let growth = self.known_growth()?;
        let limit = self.limits().command;
        let mut qmp = self.connect().await?;
        let cpus = qmp.execute(qmp::query_hotpluggable_cpus {}, limit).await?;
        let devices = qmp.execute(qmp::query_memory_devices {}, limit).await?;
        let port = self.hot_plug().memory_port();
        let plugged = port.and_then(|port| device(&devices, port));
        let (offered, taken) =
            plugged.map_or((0, 0), |device| (device.requested_size, device.size));
        let with = |more| ByteSize::from_bytes(growth.first.memory.bytes().saturating_add(more));
        let there = cpus.iter().filter(|cpu| cpu.qom_path.is_some()).count();
        Ok(CurrentSize {
            offered: VmSize {
                vcpus: u32::try_from(there).unwrap_or(u32::MAX),
                memory: with(offered),
            },
            taken: with(taken),
        })
    }

    pub(super) async fn resize(&self, size: VmSize) -> Result<()> {
        let growth = self.known_growth()?;
        if size.max(growth.largest) != growth.largest {
            let reason = format!(
                "{size} is more than {}, what it can grow to",
                growth.largest
            );
            return Err(refused(reason));
        }
        let _one_at_a_time = self.plugging.lock().await;
        let limit = self.limits().command;
        let mut qmp = self.connect().await?;
        let cpus = qmp.execute(qmp::query_hotpluggable_cpus {}, limit).await?;
        for cpu in missing(&cpus, size.vcpus) {
            qmp.execute(commands::cpu(cpu), limit).await?;
        }
        let port = self.hot_plug().memory_port();
        match (port, growth.more(size.memory).bytes()) {
            (Some(port), bytes) => {
                qmp.execute(commands::request(port, bytes), limit).await?;
            }
            (None, 0) => {}
            (None, _) => return Err(refused("it has no memory device".into())),
        }
        Ok(())
    }

    fn known_growth(&self) -> Result<Growth> {
        let growth = self.hot_plug().growth();
        growth.ok_or_else(|| refused("an older version has started it".into()))
    }
}

fn refused(reason: String) -> Error {
    Error::Spec {
        what: "sizes",
        reason,
    }
}

/// The memory device behind a port.
pub(super) fn device(devices: &[MemoryDeviceInfo], port: u8) -> Option<&VirtioMEMDeviceInfo> {
    let name = behind(port);
    devices.iter().find_map(|device| match device {
        MemoryDeviceInfo::virtio_mem(device) if device.data.id.as_ref() == Some(&name) => {
            Some(&device.data)
        }
        _ => None,
    })
}

/// The places of the processors that are to come, the first ones first: QEMU lists the last one
/// first.
fn missing(cpus: &[HotpluggableCPU], wanted: u32) -> impl Iterator<Item = &HotpluggableCPU> {
    let there = cpus.iter().filter(|cpu| cpu.qom_path.is_some()).count();
    let more = (wanted as usize).saturating_sub(there);
    let free = cpus.iter().rev().filter(|cpu| cpu.qom_path.is_none());
    free.take(more)
}

#[cfg(test)]
mod tests;
