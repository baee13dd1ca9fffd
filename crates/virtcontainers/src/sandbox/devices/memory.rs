//! The device behind which a machine's memory grows: it comes when that is first asked for, and stays.

use vc_hypervisor::{HotDevice, HotDeviceKind, PlugPhase, Vm};
use vc_types::VmSize;

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
