//! Limits: also sent alone, to change those of a running container.

use oci_spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxDeviceCgroup, LinuxHugepageLimit, LinuxInterfacePriority,
    LinuxMemory, LinuxNetwork, LinuxPids, LinuxResources, LinuxThrottleDevice,
    LinuxThrottleDeviceBuilder, LinuxWeightDevice, LinuxWeightDeviceBuilder,
};
use protobuf::MessageField;

use super::{convert_all, convert_list, map, number, parse, refuse, refuse_if_set, set};
use crate::{Result, oci};

/// A device number that stands for all of them.
const ANY_DEVICE: i64 = -1;

/// Limits as a message.
///
/// # Errors
///
/// [`Error::Specification`](crate::Error::Specification) for what the message cannot hold.
pub fn resources_to_message(resources: &LinuxResources) -> Result<oci::LinuxResources> {
    refuse_if_set("linux.resources.rdma", resources.rdma())?;
    let block_io = resources
        .block_io()
        .as_ref()
        .map(block_io_to_message)
        .transpose()?;
    Ok(oci::LinuxResources {
        Devices: convert_list(resources.devices().as_ref(), |d| Ok(device_to_message(d)))?,
        Memory: resources.memory().as_ref().map(memory_to_message).into(),
        CPU: resources.cpu().as_ref().map(cpu_to_message).into(),
        Pids: resources
            .pids()
            .as_ref()
            .map(|pids| oci::LinuxPids {
                Limit: pids.limit(),
                ..oci::LinuxPids::default()
            })
            .into(),
        BlockIO: MessageField::from_option(block_io),
        HugepageLimits: convert_list(resources.hugepage_limits().as_ref(), hugepage_to_message)?,
        Network: resources.network().as_ref().map(network_to_message).into(),
        Unified: resources.unified().clone().unwrap_or_default(),
        ..oci::LinuxResources::default()
    })
}

/// A message as limits.
///
/// # Errors
///
/// [`Error::Specification`](crate::Error::Specification) for a number out of range.
pub fn resources_from_message(message: &oci::LinuxResources) -> Result<LinuxResources> {
    let mut resources = LinuxResources::default();
    resources
        .set_devices(convert_all(&message.Devices, device_from_message)?)
        .set_memory(message.Memory.as_ref().map(memory_from_message))
        .set_cpu(message.CPU.as_ref().map(cpu_from_message))
        .set_pids(message.Pids.as_ref().map(|message| {
            let mut pids = LinuxPids::default();
            pids.set_limit(message.Limit);
            pids
        }))
        .set_block_io(
            message
                .BlockIO
                .as_ref()
                .map(block_io_from_message)
                .transpose()?,
        )
        .set_hugepage_limits(convert_all(&message.HugepageLimits, hugepage_from_message)?)
        .set_network(
            message
                .Network
                .as_ref()
                .map(network_from_message)
                .transpose()?,
        )
        .set_unified(map(&message.Unified));
    Ok(resources)
}

fn device_to_message(device: &LinuxDeviceCgroup) -> oci::LinuxDeviceCgroup {
    oci::LinuxDeviceCgroup {
        Allow: device.allow(),
        Type: device
            .typ()
            .map(|kind| kind.as_str().to_owned())
            .unwrap_or_default(),
        Major: device.major().unwrap_or(ANY_DEVICE),
        Minor: device.minor().unwrap_or(ANY_DEVICE),
        Access: device.access().clone().unwrap_or_default(),
        ..oci::LinuxDeviceCgroup::default()
    }
}

fn device_from_message(message: &oci::LinuxDeviceCgroup) -> Result<LinuxDeviceCgroup> {
    let kind = set(message.Type.as_str())
        .map(|kind| parse("linux.resources.devices.type", kind))
        .transpose()?;
    let mut device = LinuxDeviceCgroup::default();
    device
        .set_allow(message.Allow)
        .set_typ(kind)
        .set_major((message.Major != ANY_DEVICE).then_some(message.Major))
        .set_minor((message.Minor != ANY_DEVICE).then_some(message.Minor))
        .set_access(set(message.Access.clone()));
    Ok(device)
}

// `useHierarchy` is always so with the second version of cgroups, and `checkBeforeUpdate` is what
// the guest's kernel does then; neither says anything to an agent.
fn memory_to_message(memory: &LinuxMemory) -> oci::LinuxMemory {
    #[allow(deprecated, reason = "the wire has a field for it")]
    let (kernel, kernel_tcp) = (memory.kernel(), memory.kernel_tcp());
    oci::LinuxMemory {
        Limit: memory.limit().unwrap_or_default(),
        Reservation: memory.reservation().unwrap_or_default(),
        Swap: memory.swap().unwrap_or_default(),
        Kernel: kernel.unwrap_or_default(),
        KernelTCP: kernel_tcp.unwrap_or_default(),
        Swappiness: memory.swappiness().unwrap_or_default(),
        DisableOOMKiller: memory.disable_oom_killer().unwrap_or_default(),
        ..oci::LinuxMemory::default()
    }
}

fn memory_from_message(message: &oci::LinuxMemory) -> LinuxMemory {
    let mut memory = LinuxMemory::default();
    #[allow(deprecated, reason = "the wire has a field for it")]
    memory.set_kernel(set(message.Kernel));
    memory
        .set_limit(set(message.Limit))
        .set_reservation(set(message.Reservation))
        .set_swap(set(message.Swap))
        .set_kernel_tcp(set(message.KernelTCP))
        .set_swappiness(set(message.Swappiness))
        .set_disable_oom_killer(set(message.DisableOOMKiller));
    memory
}

fn cpu_to_message(cpu: &LinuxCpu) -> oci::LinuxCPU {
    oci::LinuxCPU {
        Shares: cpu.shares().unwrap_or_default(),
        Quota: cpu.quota().unwrap_or_default(),
        Period: cpu.period().unwrap_or_default(),
        RealtimeRuntime: cpu.realtime_runtime().unwrap_or_default(),
        RealtimePeriod: cpu.realtime_period().unwrap_or_default(),
        Cpus: cpu.cpus().clone().unwrap_or_default(),
        Mems: cpu.mems().clone().unwrap_or_default(),
        Idle: cpu.idle(),
        Burst: cpu.burst(),
        ..oci::LinuxCPU::default()
    }
}

fn cpu_from_message(message: &oci::LinuxCPU) -> LinuxCpu {
    let mut cpu = LinuxCpu::default();
    cpu.set_shares(set(message.Shares))
        .set_quota(set(message.Quota))
        .set_period(set(message.Period))
        .set_realtime_runtime(set(message.RealtimeRuntime))
        .set_realtime_period(set(message.RealtimePeriod))
        .set_cpus(set(message.Cpus.clone()))
        .set_mems(set(message.Mems.clone()))
        .set_idle(message.Idle)
        .set_burst(message.Burst);
    cpu
}

fn block_io_to_message(block_io: &LinuxBlockIo) -> Result<oci::LinuxBlockIO> {
    let throttle = |devices: &Option<Vec<LinuxThrottleDevice>>| {
        devices.iter().flatten().map(throttle_to_message).collect()
    };
    Ok(oci::LinuxBlockIO {
        Weight: block_io.weight().unwrap_or_default().into(),
        LeafWeight: block_io.leaf_weight().unwrap_or_default().into(),
        WeightDevice: convert_list(block_io.weight_device().as_ref(), |d| {
            Ok(weight_to_message(d))
        })?,
        ThrottleReadBpsDevice: throttle(block_io.throttle_read_bps_device()),
        ThrottleWriteBpsDevice: throttle(block_io.throttle_write_bps_device()),
        ThrottleReadIOPSDevice: throttle(block_io.throttle_read_iops_device()),
        ThrottleWriteIOPSDevice: throttle(block_io.throttle_write_iops_device()),
        ..oci::LinuxBlockIO::default()
    })
}

fn block_io_from_message(message: &oci::LinuxBlockIO) -> Result<LinuxBlockIo> {
    let throttle =
        |devices: &[oci::LinuxThrottleDevice]| convert_all(devices, throttle_from_message);
    let mut block_io = LinuxBlockIo::default();
    block_io
        .set_weight(set(number(
            "linux.resources.blockIO.weight",
            message.Weight,
        )?))
        .set_leaf_weight(set(number(
            "linux.resources.blockIO.leafWeight",
            message.LeafWeight,
        )?))
        .set_weight_device(convert_all(&message.WeightDevice, weight_from_message)?)
        .set_throttle_read_bps_device(throttle(&message.ThrottleReadBpsDevice)?)
        .set_throttle_write_bps_device(throttle(&message.ThrottleWriteBpsDevice)?)
        .set_throttle_read_iops_device(throttle(&message.ThrottleReadIOPSDevice)?)
        .set_throttle_write_iops_device(throttle(&message.ThrottleWriteIOPSDevice)?);
    Ok(block_io)
}

fn weight_to_message(device: &LinuxWeightDevice) -> oci::LinuxWeightDevice {
    oci::LinuxWeightDevice {
        Major: device.major(),
        Minor: device.minor(),
        Weight: device.weight().unwrap_or_default().into(),
        LeafWeight: device.leaf_weight().unwrap_or_default().into(),
        ..oci::LinuxWeightDevice::default()
    }
}

fn weight_from_message(message: &oci::LinuxWeightDevice) -> Result<LinuxWeightDevice> {
    const FIELD: &str = "linux.resources.blockIO.weightDevice";
    let mut device = LinuxWeightDeviceBuilder::default()
        .major(message.Major)
        .minor(message.Minor);
    if message.Weight != 0 {
        device = device.weight(number::<_, u16>(FIELD, message.Weight)?);
    }
    if message.LeafWeight != 0 {
        device = device.leaf_weight(number::<_, u16>(FIELD, message.LeafWeight)?);
    }
    device.build().map_err(|error| refuse(FIELD, error))
}

fn throttle_to_message(device: &LinuxThrottleDevice) -> oci::LinuxThrottleDevice {
    oci::LinuxThrottleDevice {
        Major: device.major(),
        Minor: device.minor(),
        Rate: device.rate(),
        ..oci::LinuxThrottleDevice::default()
    }
}

fn throttle_from_message(message: &oci::LinuxThrottleDevice) -> Result<LinuxThrottleDevice> {
    LinuxThrottleDeviceBuilder::default()
        .major(message.Major)
        .minor(message.Minor)
        .rate(message.Rate)
        .build()
        .map_err(|error| refuse("linux.resources.blockIO.throttleDevice", error))
}

fn hugepage_to_message(limit: &LinuxHugepageLimit) -> Result<oci::LinuxHugepageLimit> {
    Ok(oci::LinuxHugepageLimit {
        Pagesize: limit.page_size().clone(),
        Limit: number("linux.resources.hugepageLimits.limit", limit.limit())?,
        ..oci::LinuxHugepageLimit::default()
    })
}

fn hugepage_from_message(message: &oci::LinuxHugepageLimit) -> Result<LinuxHugepageLimit> {
    let mut limit = LinuxHugepageLimit::default();
    limit
        .set_page_size(message.Pagesize.clone())
        .set_limit(number(
            "linux.resources.hugepageLimits.limit",
            message.Limit,
        )?);
    Ok(limit)
}

fn network_to_message(network: &LinuxNetwork) -> oci::LinuxNetwork {
    let priorities = network
        .priorities()
        .iter()
        .flatten()
        .map(|p| oci::LinuxInterfacePriority {
            Name: p.name().clone(),
            Priority: p.priority(),
            ..oci::LinuxInterfacePriority::default()
        });
    oci::LinuxNetwork {
        ClassID: network.class_id().unwrap_or_default(),
        Priorities: priorities.collect(),
        ..oci::LinuxNetwork::default()
    }
}

fn network_from_message(message: &oci::LinuxNetwork) -> Result<LinuxNetwork> {
    let mut network = LinuxNetwork::default();
    network
        .set_class_id(set(message.ClassID))
        .set_priorities(convert_all(&message.Priorities, |message| {
            let mut priority = LinuxInterfacePriority::default();
            priority
                .set_name(message.Name.clone())
                .set_priority(message.Priority);
            Ok(priority)
        })?);
    Ok(network)
}
