//! The root file system of a container, mounted as containerd's snapshotter describes it.

use std::io;
use std::path::{Path, PathBuf};

use containerd_shim_protos::types::mount::Mount;
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount,
};

use crate::error::{Error, Result};

/// Mounts of one root: overlays have one, with a lot of directories.
const MOUNTS_MAX: usize = 64;

/// Bytes of the options that the kernel takes: a page.
const OPTIONS_BYTES_MAX: usize = 4095;

/// A mounted root; it is unmounted with this.
#[derive(Debug)]
pub(crate) struct Rootfs {
    target: PathBuf,
    mounted: usize,
}

impl Rootfs {
    /// Mounts each on top of the one before.
    ///
    /// # Errors
    ///
    /// [`Error::Mount`] with the reason; nothing stays mounted.
    pub(crate) fn mount(mounts: &[Mount], target: &Path) -> Result<Self> {
        if mounts.len() > MOUNTS_MAX {
            return Err(Error::Invalid(format!(
                "the root has more than {MOUNTS_MAX} mounts"
            )));
        }
        let mut rootfs = Self {
            target: target.to_owned(),
            mounted: 0,
        };
        for one in mounts {
            let failed = |source| Error::Mount {
                attempt: "mount the root of a container at",
                path: target.to_owned(),
                source,
            };
            std::fs::create_dir_all(target).map_err(failed)?;
            mount_one(one, target).map_err(failed)?;
            rootfs.mounted += 1;
        }
        Ok(rootfs)
    }

    /// Unmounts what a shim that was killed has mounted at `target`.
    pub(crate) fn unmount_left(target: &Path) {
        for _ in 0..MOUNTS_MAX {
            if unmount(target, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH).is_err() {
                break;
            }
        }
    }
}

impl Drop for Rootfs {
    fn drop(&mut self) {
        for _ in 0..self.mounted {
            let flags = UnmountFlags::NOFOLLOW | UnmountFlags::DETACH;
            if let Err(error) = unmount(&self.target, flags) {
                tracing::warn!(target = %self.target.display(), %error, "a root stays mounted");
                break;
            }
        }
    }
}

/// What a list of options says, as mount(8) has them.
#[derive(Debug, PartialEq, Eq)]
struct Options {
    flags: MountFlags,
    recursive: bool,
    propagation: Option<MountPropagationFlags>,
    data: Vec<String>,
}

impl Options {
    fn of(list: &[String]) -> Self {
        use MountPropagationFlags as P;
        let mut options = Self {
            flags: MountFlags::empty(),
            recursive: false,
            propagation: None,
            data: Vec::new(),
        };
        for option in list {
            let (flag, on) = match option.as_str() {
                "ro" => (MountFlags::RDONLY, true),
                "rw" => (MountFlags::RDONLY, false),
                "nosuid" => (MountFlags::NOSUID, true),
                "suid" => (MountFlags::NOSUID, false),
                "nodev" => (MountFlags::NODEV, true),
                "dev" => (MountFlags::NODEV, false),
                "noexec" => (MountFlags::NOEXEC, true),
                "exec" => (MountFlags::NOEXEC, false),
                "noatime" => (MountFlags::NOATIME, true),
                "nodiratime" => (MountFlags::NODIRATIME, true),
                "relatime" => (MountFlags::RELATIME, true),
                "strictatime" => (MountFlags::STRICTATIME, true),
                "sync" => (MountFlags::SYNCHRONOUS, true),
                "dirsync" => (MountFlags::DIRSYNC, true),
                "bind" => (MountFlags::BIND, true),
                "rbind" => {
                    options.recursive = true;
                    (MountFlags::BIND, true)
                }
                "defaults" | "async" | "loop" => continue,
                "private" => {
                    options.propagation = Some(P::PRIVATE);
                    continue;
                }
                "rprivate" => {
                    options.propagation = Some(P::PRIVATE | P::REC);
                    continue;
                }
                data => {
                    options.data.push(data.to_owned());
                    continue;
                }
            };
            options.flags.set(flag, on);
        }
        options
    }
}

fn mount_one(one: &Mount, target: &Path) -> io::Result<()> {
    let options = Options::of(&one.options);
    let source = Path::new(&one.source);
    if options.flags.contains(MountFlags::BIND) {
        return bind(source, target, &options);
    }
    let data = options.data.join(",");
    if data.len() <= OPTIONS_BYTES_MAX {
        let data = std::ffi::CString::new(data)?;
        mount(
            source,
            target,
            one.type_.as_str(),
            options.flags,
            data.as_c_str(),
        )?;
    } else {
        mount_many_layers(one, target, &options)?;
    }
    if let Some(propagation) = options.propagation {
        mount_change(target, propagation)?;
    }
    Ok(())
}

/// Flags of a bind mount take a second call.
fn bind(source: &Path, target: &Path, options: &Options) -> io::Result<()> {
    match options.recursive {
        true => rustix::mount::mount_bind_recursive(source, target)?,
        false => rustix::mount::mount_bind(source, target)?,
    }
    let further = options.flags.difference(MountFlags::BIND);
    let done = if further.is_empty() {
        Ok(())
    } else {
        rustix::mount::mount_remount(target, further | MountFlags::BIND, c"")
    };
    let done = done.and_then(|()| {
        mount_change(
            target,
            options
                .propagation
                .unwrap_or(MountPropagationFlags::PRIVATE),
        )
    });
    if let Err(error) = done {
        let _ = unmount(target, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH);
        return Err(error.into());
    }
    Ok(())
}

/// Mounts an overlay whose layers' paths do not fit into one page: by paths below the directory that
/// they have in common, on a thread which is there.
fn mount_many_layers(one: &Mount, target: &Path, options: &Options) -> io::Result<()> {
    let (directory, data) = shortened(&options.data).ok_or(io::ErrorKind::ArgumentListTooLong)?;
    let data = std::ffi::CString::new(data)?;
    let (source, target) = (PathBuf::from(&one.source), target.to_owned());
    let (kind, flags) = (one.type_.clone(), options.flags);
    let mounting = std::thread::Builder::new()
        .name("overlay".to_owned())
        .spawn(move || {
            // The other threads stay where they are.
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_FS)?;
            rustix::process::chdir(&directory)?;
            mount(source, target, kind.as_str(), flags, data.as_c_str())?;
            Ok(())
        })?;
    let panicked = |_| Err(io::Error::other("the thread that mounts has panicked"));
    mounting.join().unwrap_or_else(panicked)
}

/// The directory that the lower layers have in common, and the options with paths below it; nothing
/// where they do not get short enough.
fn shortened(data: &[String]) -> Option<(PathBuf, String)> {
    const LOWER: &str = "lowerdir=";
    let lower = data.iter().find_map(|option| option.strip_prefix(LOWER))?;
    let layers: Vec<&Path> = lower.split(':').map(Path::new).collect();
    let mut common = layers.first()?.parent()?.to_owned();
    while !layers.iter().all(|layer| layer.starts_with(&common)) {
        common = common.parent()?.to_owned();
    }
    let below: Option<Vec<&str>> = layers
        .iter()
        .map(|layer| layer.strip_prefix(&common).ok()?.to_str())
        .collect();
    let lower = format!("{LOWER}{}", below?.join(":"));
    let options: Vec<&str> = data
        .iter()
        .map(|option| match option.starts_with(LOWER) {
            true => lower.as_str(),
            false => option.as_str(),
        })
        .collect();
    let text = options.join(",");
    (text.len() <= OPTIONS_BYTES_MAX).then_some((common, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(options: &[&str]) -> Vec<String> {
        options.iter().map(|&option| option.to_owned()).collect()
    }

    #[test]
    fn flags_and_data_are_told_apart() {
        let options = Options::of(&list(&["ro", "rbind", "index=off", "rw", "nodev"]));
        assert_eq!(options.flags, MountFlags::BIND | MountFlags::NODEV);
        assert!(options.recursive);
        assert_eq!(options.data, ["index=off"]);
    }

    #[test]
    fn many_layers_become_short_paths() {
        let layers: Vec<_> = (0..100)
            .map(|n| {
                format!(
                    "/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots/{n}/fs"
                )
            })
            .collect();
        let data = list(&[
            "workdir=/w",
            &format!("lowerdir={}", layers.join(":")),
            "upperdir=/u",
        ]);
        assert!(data.join(",").len() > OPTIONS_BYTES_MAX);
        let (directory, text) = shortened(&data).unwrap();
        assert!(directory.ends_with("snapshots"));
        assert!(text.starts_with("workdir=/w,lowerdir=0/fs:1/fs:"), "{text}");
        assert!(text.ends_with(":99/fs,upperdir=/u"));
        assert_eq!(shortened(&list(&["upperdir=/u"])), None);
    }
}
