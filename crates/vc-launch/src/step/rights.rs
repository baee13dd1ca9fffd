//! Groups, user and capabilities.

use rustix::process::{Gid, Uid, geteuid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set,
    clear_ambient_capability_set, configure_capability_in_ambient_set,
    remove_capability_from_bounding_set, set_capabilities, set_keep_capabilities, set_no_new_privs,
    set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};

use super::{AtStep, StepResult};
use crate::error::Step;
use crate::spec::{Capability, LaunchSpec, User};

/// Capabilities that the kernel may have; it says which are too new for it.
const CAPABILITIES_MAX: u32 = 64;

/// Gives up everything but what the spec keeps.
///
/// Permitted, bounding and, for other users than root, ambient sets are all the same in the end.
/// So exec changes nothing, which also matters for the death signal: an exec that adds a
/// capability would clear it.
pub(super) fn reduce(spec: &LaunchSpec) -> StepResult<()> {
    let kept = spec.capabilities.as_deref().map(set_of);
    if let Some(kept) = kept {
        set_keep_capabilities(true).at(Step::Capabilities, || "keeping them".to_owned())?;
        drop_from_bounding_set(kept)?;
    }
    if let Some(user) = &spec.user {
        become_user(user)?;
    }
    if let Some(kept) = kept {
        keep_only(kept)?;
    }
    if spec.no_new_privs {
        set_no_new_privs(true).at(Step::NoNewPrivileges, || spec.name.clone())?;
    }
    Ok(())
}

/// Keeps these capabilities and no others, for a process that executes nothing.
pub(super) fn keep(capabilities: &[Capability]) -> StepResult<()> {
    let kept = set_of(capabilities);
    drop_from_bounding_set(kept)?;
    keep_only(kept)?;
    set_no_new_privs(true).at(Step::NoNewPrivileges, || "this process".to_owned())
}

fn become_user(user: &User) -> StepResult<()> {
    let groups: Vec<Gid> = user.groups.iter().copied().map(Gid::from_raw).collect();
    set_thread_groups(&groups).at(Step::User, || format!("groups {:?}", user.groups))?;
    let gid = Gid::from_raw(user.gid);
    set_thread_res_gid(gid, gid, gid).at(Step::User, || format!("gid {}", user.gid))?;
    let uid = Uid::from_raw(user.uid);
    set_thread_res_uid(uid, uid, uid).at(Step::User, || format!("uid {}", user.uid))
}

/// What is not in the bounding set cannot be gained by executing a file, not even by root.
fn drop_from_bounding_set(kept: CapabilitySet) -> StepResult<()> {
    let own = capabilities(None).at(Step::Capabilities, || "reading them".to_owned())?;
    if !own.effective.contains(CapabilitySet::SETPCAP) {
        // An ordinary user: there is nothing to gain, since no_new_privs is set.
        return Ok(());
    }
    for number in 0..CAPABILITIES_MAX {
        let one = CapabilitySet::from_bits_retain(1 << number);
        // Numbers that the kernel does not know are an error here, and there is no more then.
        let Ok(bounding) = capability_is_in_bounding_set(one) else {
            break;
        };
        if bounding && !kept.contains(one) {
            remove_capability_from_bounding_set(one).at(Step::Capabilities, || {
                format!("the bounding set's {number}")
            })?;
        }
    }
    Ok(())
}

fn keep_only(kept: CapabilitySet) -> StepResult<()> {
    let own = capabilities(None).at(Step::Capabilities, || "reading them".to_owned())?;
    // Keeping what one does not have is a mistake of the caller, and is said here.
    let sets = CapabilitySets {
        effective: kept,
        permitted: kept,
        inheritable: kept,
    };
    set_capabilities(None, sets).at(Step::Capabilities, || {
        format!("{:?} of {:?}", kept, own.permitted)
    })?;
    clear_ambient_capability_set().at(Step::Capabilities, || "the ambient set".to_owned())?;
    // Root gets the bounding set at exec; others get nothing but the ambient set.
    if !geteuid().is_root() {
        for one in kept.iter() {
            configure_capability_in_ambient_set(one, true)
                .at(Step::Capabilities, || format!("ambient {one:?}"))?;
        }
    }
    set_keep_capabilities(false).at(Step::Capabilities, || "not keeping them".to_owned())
}

fn set_of(capabilities: &[Capability]) -> CapabilitySet {
    capabilities
        .iter()
        .map(|capability| match capability {
            Capability::Chown => CapabilitySet::CHOWN,
            Capability::DacOverride => CapabilitySet::DAC_OVERRIDE,
            Capability::DacReadSearch => CapabilitySet::DAC_READ_SEARCH,
            Capability::Fowner => CapabilitySet::FOWNER,
            Capability::Fsetid => CapabilitySet::FSETID,
            Capability::Setgid => CapabilitySet::SETGID,
            Capability::Setuid => CapabilitySet::SETUID,
            Capability::Setpcap => CapabilitySet::SETPCAP,
            Capability::Mknod => CapabilitySet::MKNOD,
            Capability::Setfcap => CapabilitySet::SETFCAP,
            Capability::NetAdmin => CapabilitySet::NET_ADMIN,
            Capability::NetBindService => CapabilitySet::NET_BIND_SERVICE,
        })
        .collect()
}
