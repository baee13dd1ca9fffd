//! What is particular to Linux: namespaces, devices, id mappings, paths.

use std::collections::HashMap;

use oci_spec::runtime::{
    Linux, LinuxDevice, LinuxIdMapping, LinuxIdMappingBuilder, LinuxIntelRdt, LinuxNamespace,
    LinuxNamespaceType, LinuxPersonality, LinuxTimeOffset,
};
use protobuf::MessageField;

use super::resources::{resources_from_message, resources_to_message};
use super::seccomp::{seccomp_from_message, seccomp_to_message};
use super::{
    convert_all, convert_list, list, map, optional_path_text, parse, path_text, refuse,
    refuse_if_set, set,
};
use crate::{Result, oci};

pub(super) fn linux_to_message(linux: &Linux) -> Result<oci::Linux> {
    refuse_if_set("linux.netDevices", linux.net_devices())?;
    refuse_if_set("linux.memoryPolicy", linux.memory_policy())?;
    let resources = linux
        .resources()
        .as_ref()
        .map(resources_to_message)
        .transpose()?;
    let seccomp = linux
        .seccomp()
        .as_ref()
        .map(seccomp_to_message)
        .transpose()?;
    let intel_rdt = linux
        .intel_rdt()
        .as_ref()
        .map(intel_rdt_to_message)
        .transpose()?;
    Ok(oci::Linux {
        UIDMappings: convert_list(linux.uid_mappings().as_ref(), |m| {
            Ok(id_mapping_to_message(m))
        })?,
        GIDMappings: convert_list(linux.gid_mappings().as_ref(), |m| {
            Ok(id_mapping_to_message(m))
        })?,
        Sysctl: linux.sysctl().clone().unwrap_or_default(),
        Resources: MessageField::from_option(resources),
        CgroupsPath: optional_path_text("linux.cgroupsPath", linux.cgroups_path().as_ref())?,
        Namespaces: convert_list(linux.namespaces().as_ref(), namespace_to_message)?,
        Devices: convert_list(linux.devices().as_ref(), device_to_message)?,
        Seccomp: MessageField::from_option(seccomp),
        RootfsPropagation: linux.rootfs_propagation().clone().unwrap_or_default(),
        MaskedPaths: linux.masked_paths().clone().unwrap_or_default(),
        ReadonlyPaths: linux.readonly_paths().clone().unwrap_or_default(),
        MountLabel: linux.mount_label().clone().unwrap_or_default(),
        IntelRdt: MessageField::from_option(intel_rdt),
        Personality: linux
            .personality()
            .as_ref()
            .map(personality_to_message)
            .transpose()?
            .into(),
        TimeOffsets: linux
            .time_offsets()
            .iter()
            .flatten()
            .map(|(clock, offset)| (clock.clone(), time_offset_to_message(offset)))
            .collect(),
        ..oci::Linux::default()
    })
}

pub(super) fn linux_from_message(message: &oci::Linux) -> Result<Linux> {
    let mut linux = Linux::default();
    linux
        .set_uid_mappings(convert_all(&message.UIDMappings, id_mapping_from_message)?)
        .set_gid_mappings(convert_all(&message.GIDMappings, id_mapping_from_message)?)
        .set_sysctl(map(&message.Sysctl))
        .set_resources(
            message
                .Resources
                .as_ref()
                .map(resources_from_message)
                .transpose()?,
        )
        .set_cgroups_path(set(message.CgroupsPath.clone()).map(Into::into))
        .set_namespaces(convert_all(&message.Namespaces, namespace_from_message)?)
        .set_devices(convert_all(&message.Devices, device_from_message)?)
        .set_seccomp(
            message
                .Seccomp
                .as_ref()
                .map(seccomp_from_message)
                .transpose()?,
        )
        .set_rootfs_propagation(set(message.RootfsPropagation.clone()))
        .set_masked_paths(list(&message.MaskedPaths))
        .set_readonly_paths(list(&message.ReadonlyPaths))
        .set_mount_label(set(message.MountLabel.clone()))
        .set_intel_rdt(message.IntelRdt.as_ref().map(intel_rdt_from_message))
        .set_personality(
            message
                .Personality
                .as_ref()
                .map(personality_from_message)
                .transpose()?,
        )
        .set_time_offsets(time_offsets_from_message(&message.TimeOffsets));
    Ok(linux)
}

fn personality_to_message(personality: &LinuxPersonality) -> Result<oci::LinuxPersonality> {
    let flags = personality.flags().as_deref().unwrap_or_default();
    if let [flag, ..] = flags {
        // The specification has defined none.
        return Err(refuse("linux.personality.flags", flag));
    }
    Ok(oci::LinuxPersonality {
        Domain: personality.domain().to_string(),
        ..oci::LinuxPersonality::default()
    })
}

fn personality_from_message(message: &oci::LinuxPersonality) -> Result<LinuxPersonality> {
    let mut personality = LinuxPersonality::default();
    personality.set_domain(parse("linux.personality.domain", &message.Domain)?);
    Ok(personality)
}

fn time_offset_to_message(offset: &LinuxTimeOffset) -> oci::LinuxTimeOffset {
    oci::LinuxTimeOffset {
        Secs: offset.secs().unwrap_or_default(),
        Nanosecs: offset.nanosecs().unwrap_or_default(),
        ..oci::LinuxTimeOffset::default()
    }
}

fn time_offsets_from_message(
    message: &HashMap<String, oci::LinuxTimeOffset>,
) -> Option<HashMap<String, LinuxTimeOffset>> {
    let offset = |message: &oci::LinuxTimeOffset| {
        let mut offset = LinuxTimeOffset::default();
        offset
            .set_secs(Some(message.Secs))
            .set_nanosecs(Some(message.Nanosecs));
        offset
    };
    let offsets = message
        .iter()
        .map(|(clock, message)| (clock.clone(), offset(message)));
    set(offsets.collect())
}

fn id_mapping_to_message(mapping: &LinuxIdMapping) -> oci::LinuxIDMapping {
    oci::LinuxIDMapping {
        HostID: mapping.host_id(),
        ContainerID: mapping.container_id(),
        Size: mapping.size(),
        ..oci::LinuxIDMapping::default()
    }
}

fn id_mapping_from_message(message: &oci::LinuxIDMapping) -> Result<LinuxIdMapping> {
    LinuxIdMappingBuilder::default()
        .host_id(message.HostID)
        .container_id(message.ContainerID)
        .size(message.Size)
        .build()
        .map_err(|error| refuse("linux.uidMappings", error))
}

fn namespace_to_message(namespace: &LinuxNamespace) -> Result<oci::LinuxNamespace> {
    let kind = match namespace.typ() {
        LinuxNamespaceType::Mount => "mount",
        LinuxNamespaceType::Cgroup => "cgroup",
        LinuxNamespaceType::Uts => "uts",
        LinuxNamespaceType::Ipc => "ipc",
        LinuxNamespaceType::User => "user",
        LinuxNamespaceType::Pid => "pid",
        LinuxNamespaceType::Network => "network",
        LinuxNamespaceType::Time => "time",
    };
    Ok(oci::LinuxNamespace {
        Type: kind.to_owned(),
        Path: optional_path_text("linux.namespaces.path", namespace.path().as_ref())?,
        ..oci::LinuxNamespace::default()
    })
}

fn namespace_from_message(message: &oci::LinuxNamespace) -> Result<LinuxNamespace> {
    let kind = LinuxNamespaceType::try_from(message.Type.as_str())
        .map_err(|_| refuse("linux.namespaces.type", &message.Type))?;
    let mut namespace = LinuxNamespace::default();
    namespace
        .set_typ(kind)
        .set_path(set(message.Path.clone()).map(Into::into));
    Ok(namespace)
}

fn device_to_message(device: &LinuxDevice) -> Result<oci::LinuxDevice> {
    Ok(oci::LinuxDevice {
        Path: path_text("linux.devices.path", device.path())?,
        Type: device.typ().as_str().to_owned(),
        Major: device.major(),
        Minor: device.minor(),
        FileMode: device.file_mode().unwrap_or_default(),
        UID: device.uid().unwrap_or_default(),
        GID: device.gid().unwrap_or_default(),
        ..oci::LinuxDevice::default()
    })
}

fn device_from_message(message: &oci::LinuxDevice) -> Result<LinuxDevice> {
    let mut device = LinuxDevice::default();
    device
        .set_path(message.Path.clone().into())
        .set_typ(parse("linux.devices.type", &message.Type)?)
        .set_major(message.Major)
        .set_minor(message.Minor)
        .set_file_mode(set(message.FileMode))
        .set_uid(set(message.UID))
        .set_gid(set(message.GID));
    Ok(device)
}

fn intel_rdt_to_message(rdt: &LinuxIntelRdt) -> Result<oci::LinuxIntelRdt> {
    refuse_if_set("linux.intelRdt.closID", rdt.clos_id())?;
    refuse_if_set("linux.intelRdt.schemata", rdt.schemata())?;
    refuse_if_set("linux.intelRdt.memBwSchema", rdt.mem_bw_schema())?;
    Ok(oci::LinuxIntelRdt {
        L3CacheSchema: rdt.l3_cache_schema().clone().unwrap_or_default(),
        ..oci::LinuxIntelRdt::default()
    })
}

fn intel_rdt_from_message(message: &oci::LinuxIntelRdt) -> LinuxIntelRdt {
    let mut rdt = LinuxIntelRdt::default();
    rdt.set_l3_cache_schema(set(message.L3CacheSchema.clone()));
    rdt
}
