//! The device behind which a machine's memory grows: it comes when that is first asked for, and stays.

use vc_hypervisor::{HotDevice, HotDeviceKind, PlugPhase, Vm};
use vc_store::OperationGuard;
use vc_types::VmSize;

use super::{plug_reserved, written};
use crate::error::Result;

/// Whether a VM has it.
pub(in crate::sandbox) fn is_there(vm: &dyn Vm) -> bool {
    let is_it = |kind, phase| kind == HotDeviceKind::Memory && phase == PlugPhase::Present;
    let plugged = vm.plugged();
    plugged
        .iter()
        .any(|device| is_it(device.kind, device.phase))
}

/// The device that a VM lacks to be so large.
pub(in crate::sandbox) fn missing(vm: &dyn Vm, size: VmSize) -> Option<HotDevice> {
    let growth = vm.growth()?;
    if is_there(vm) || size.memory <= growth.first.memory {
        return None;
    }
    let room = growth.room();
    (room.bytes() > 0).then_some(HotDevice::Memory(room))
}

/// Plugs it in, within an operation.
pub(in crate::sandbox) async fn plug(
    operation: &OperationGuard,
    vm: &dyn Vm,
    device: HotDevice,
) -> Result<()> {
    vm.reserve(&device)?;
    let plugged = plug_reserved(operation, vm, device).await;
    let state = vm.state();
    let stored = operation.update(|record| record.set_driver_state(Some(&state)));
    plugged?;
    written(stored?)
}
