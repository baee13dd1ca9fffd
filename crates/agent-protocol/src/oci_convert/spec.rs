//! The specification itself, its root, mounts and hooks.

use oci_spec::runtime::{Hook, Hooks, Mount, Root, Spec};
use protobuf::MessageField;

use super::linux::{linux_from_message, linux_to_message};
use super::process::{process_from_message, process_to_message};
use super::{
    convert_all, convert_list, list, map, optional_path_text, path_text, refuse_if_set, set,
};
use crate::{Result, oci};

/// A specification as a message.
///
/// # Errors
///
/// [`Error::Specification`](crate::Error::Specification) for what the message cannot hold.
pub fn spec_to_message(spec: &Spec) -> Result<oci::Spec> {
    refuse_if_set("solaris", spec.solaris())?;
    refuse_if_set("windows", spec.windows())?;
    refuse_if_set("vm", spec.vm())?;
    refuse_if_set("zos", spec.zos())?;
    Ok(oci::Spec {
        Version: spec.version().clone(),
        Process: MessageField::from_option(
            spec.process()
                .as_ref()
                .map(process_to_message)
                .transpose()?,
        ),
        Root: MessageField::from_option(spec.root().as_ref().map(root_to_message).transpose()?),
        Hostname: spec.hostname().clone().unwrap_or_default(),
        Domainname: spec.domainname().clone().unwrap_or_default(),
        Mounts: convert_list(spec.mounts().as_ref(), mount_to_message)?,
        Hooks: MessageField::from_option(spec.hooks().as_ref().map(hooks_to_message).transpose()?),
        Annotations: spec.annotations().clone().unwrap_or_default(),
        Linux: MessageField::from_option(spec.linux().as_ref().map(linux_to_message).transpose()?),
        ..oci::Spec::default()
    })
}

/// A message as a specification.
///
/// # Errors
///
/// [`Error::Specification`](crate::Error::Specification) for a word or number that the
/// specification does not know.
pub fn spec_from_message(message: &oci::Spec) -> Result<Spec> {
    let mut spec = Spec::default();
    spec.set_version(message.Version.clone())
        .set_process(
            message
                .Process
                .as_ref()
                .map(process_from_message)
                .transpose()?,
        )
        .set_root(message.Root.as_ref().map(root_from_message))
        .set_hostname(set(message.Hostname.clone()))
        .set_domainname(set(message.Domainname.clone()))
        .set_mounts(convert_all(&message.Mounts, |mount| {
            Ok(mount_from_message(mount))
        })?)
        .set_hooks(message.Hooks.as_ref().map(hooks_from_message).transpose()?)
        .set_annotations(map(&message.Annotations))
        .set_linux(message.Linux.as_ref().map(linux_from_message).transpose()?);
    Ok(spec)
}

fn root_to_message(root: &Root) -> Result<oci::Root> {
    Ok(oci::Root {
        Path: path_text("root.path", root.path())?,
        Readonly: root.readonly().unwrap_or_default(),
        ..oci::Root::default()
    })
}

fn root_from_message(message: &oci::Root) -> Root {
    let mut root = Root::default();
    root.set_path(message.Path.clone().into())
        .set_readonly(Some(message.Readonly));
    root
}

fn mount_to_message(mount: &Mount) -> Result<oci::Mount> {
    refuse_if_set("mounts.uidMappings", mount.uid_mappings())?;
    refuse_if_set("mounts.gidMappings", mount.gid_mappings())?;
    Ok(oci::Mount {
        destination: path_text("mounts.destination", mount.destination())?,
        source: optional_path_text("mounts.source", mount.source().as_ref())?,
        type_: mount.typ().clone().unwrap_or_default(),
        options: mount.options().clone().unwrap_or_default(),
        ..oci::Mount::default()
    })
}

fn mount_from_message(message: &oci::Mount) -> Mount {
    let mut mount = Mount::default();
    mount
        .set_destination(message.destination.clone().into())
        .set_typ(set(message.type_.clone()))
        .set_source(set(message.source.clone()).map(Into::into))
        .set_options(list(&message.options));
    mount
}

#[allow(deprecated, reason = "the wire has the deprecated kind of hook too")]
fn hooks_to_message(hooks: &Hooks) -> Result<oci::Hooks> {
    Ok(oci::Hooks {
        Prestart: convert_list(hooks.prestart().as_ref(), hook_to_message)?,
        Poststart: convert_list(hooks.poststart().as_ref(), hook_to_message)?,
        Poststop: convert_list(hooks.poststop().as_ref(), hook_to_message)?,
        CreateRuntime: convert_list(hooks.create_runtime().as_ref(), hook_to_message)?,
        CreateContainer: convert_list(hooks.create_container().as_ref(), hook_to_message)?,
        StartContainer: convert_list(hooks.start_container().as_ref(), hook_to_message)?,
        ..oci::Hooks::default()
    })
}

#[allow(deprecated, reason = "the wire has the deprecated kind of hook too")]
fn hooks_from_message(message: &oci::Hooks) -> Result<Hooks> {
    let convert = |hooks: &[oci::Hook]| convert_all(hooks, |hook| Ok(hook_from_message(hook)));
    let mut hooks = Hooks::default();
    hooks
        .set_prestart(convert(&message.Prestart)?)
        .set_poststart(convert(&message.Poststart)?)
        .set_poststop(convert(&message.Poststop)?)
        .set_create_runtime(convert(&message.CreateRuntime)?)
        .set_create_container(convert(&message.CreateContainer)?)
        .set_start_container(convert(&message.StartContainer)?);
    Ok(hooks)
}

fn hook_to_message(hook: &Hook) -> Result<oci::Hook> {
    Ok(oci::Hook {
        Path: path_text("hooks.path", hook.path())?,
        Args: hook.args().clone().unwrap_or_default(),
        Env: hook.env().clone().unwrap_or_default(),
        Timeout: hook.timeout().unwrap_or_default(),
        ..oci::Hook::default()
    })
}

fn hook_from_message(message: &oci::Hook) -> Hook {
    let mut hook = Hook::default();
    hook.set_path(message.Path.clone().into())
        .set_args(list(&message.Args))
        .set_env(list(&message.Env))
        .set_timeout(set(message.Timeout));
    hook
}
