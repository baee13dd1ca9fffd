//! What the command sees of the host besides its root, and what is made for it.
//!
//! Where the user puts something, virtc puts nothing of its own.

use std::path::{Component, Path, PathBuf};

use oci_spec::runtime::{Mount, MountBuilder};
use vc_config::syntax::{TmpfsSpec, VolumeSpec};
use virtcontainers::{Access, GeneratedFile, Propagation, Volume};

use super::super::cwd::{self, Cwd};
use super::super::user::Accounts;
use super::{Caller, machine_id, usage};
use crate::cli::RunArgs;
use crate::error::{Failure, RUN_FAILED};

/// The files of a run, decided.
#[derive(Clone, Debug, Default)]
pub(super) struct Files {
    pub(super) volumes: Vec<Volume>,
    pub(super) mounts: Vec<Mount>,
    pub(super) generated: Vec<GeneratedFile>,
    pub(super) empty_dirs: Vec<PathBuf>,
    /// What the machine sees of the host.
    pub(super) shown: Vec<PathBuf>,
    /// What the user should know before it starts.
    pub(super) notices: Vec<String>,
    /// Where the command starts when no flag says it.
    pub(super) workdir: PathBuf,
}

impl Files {
    /// Decides about them for a command whose home is `home`; the homes of the host's people are
    /// among `people`. `resolver` is what the machine's resolv.conf says.
    pub(super) fn of(
        args: &RunArgs,
        caller: &Caller,
        people: &Accounts,
        home: &Path,
        hostname: &str,
        resolver: String,
    ) -> Result<Self, Failure> {
        let mut files = Self {
            mounts: tmpfs_mounts(args)?,
            generated: generated_files(hostname, resolver),
            ..Self::default()
        };
        if is_host_root(args) {
            files.generated.push(machine_id::file()?);
        }
        files.add_asked(args, &caller.cwd)?;
        files.decide_cwd(args, caller, people)?;
        // A home in the system's own directories, as of users that are no people, stays as it is.
        if is_host_root(args) && home != Path::new("/") && !is_system(home) {
            files.empty_dirs.push(home.to_owned());
        }
        files.give_way();
        Ok(files)
    }

    /// What flags bring.
    fn add_asked(&mut self, args: &RunArgs, cwd: &Path) -> Result<(), Failure> {
        for path in &args.show {
            let path = normalised(&cwd.join(path));
            self.shown.push(path.clone());
            self.volumes.push(Volume {
                source: path.clone(),
                destination: path,
                access: Access::ReadOnly,
                propagation: Propagation::Private,
            });
        }
        for text in &args.volume {
            let volume: VolumeSpec = text.parse().map_err(usage)?;
            let destination = PathBuf::from(volume.destination.as_str());
            self.shown.push(destination.clone());
            self.volumes.push(Volume {
                source: cwd.join(&volume.source),
                destination,
                access: match volume.read_only {
                    true => Access::ReadOnly,
                    false => Access::ReadWrite,
                },
                propagation: Propagation::Private,
            });
        }
        Ok(())
    }

    fn decide_cwd(
        &mut self,
        args: &RunArgs,
        caller: &Caller,
        people: &Accounts,
    ) -> Result<(), Failure> {
        let mut homes = cwd::homes(people, &caller.env);
        if is_host_root(args) {
            homes.retain(|home| !is_system(home));
        }
        match cwd::decide(args.cwd, &caller.cwd, &homes) {
            Cwd::Shared(path) if path == Path::new("/") => {
                return Err(
                    Failure::usage("/ cannot be shared as the current directory")
                        .hint("use --show for a part of it, or --rootfs / for all of it"),
                );
            }
            Cwd::Shared(path) => {
                if self.is_free(&path) {
                    self.shown.push(path.clone());
                    self.volumes.push(Volume {
                        source: path.clone(),
                        destination: path.clone(),
                        access: match args.writable_cwd {
                            true => Access::ReadWrite,
                            false => Access::Private,
                        },
                        propagation: Propagation::Private,
                    });
                }
                self.workdir = path;
            }
            Cwd::Empty(path, why) => {
                if args.writable_cwd {
                    return Err(Failure::usage(
                        "--writable-cwd needs a current directory that is shared",
                    )
                    .hint("--cwd share shares it whatever it is"));
                }
                if self.is_free(&path) {
                    self.notices.extend(why);
                }
                if path != Path::new("/") {
                    self.empty_dirs.push(path.clone());
                }
                self.workdir = path;
            }
        }
        Ok(())
    }

    /// Whether nothing of the host and no tmpfs is put at `place`.
    fn is_free(&self, place: &Path) -> bool {
        let volumes = self.volumes.iter().map(|v| v.destination.as_path());
        let mounts = self.mounts.iter().map(|m| m.destination().as_path());
        volumes.chain(mounts).all(|taken| taken != place)
    }

    fn give_way(&mut self) {
        let mut empty_dirs = std::mem::take(&mut self.empty_dirs);
        empty_dirs.sort();
        empty_dirs.dedup();
        empty_dirs.retain(|dir| self.is_free(dir));
        self.empty_dirs = empty_dirs;
        let mut generated = std::mem::take(&mut self.generated);
        generated.retain(|file| self.is_free(&file.destination));
        self.generated = generated;
    }
}

/// Whether the root is made of the host's system.
pub(super) fn is_host_root(args: &RunArgs) -> bool {
    args.rootfs == Path::new("host")
}

fn is_system(path: &Path) -> bool {
    let mut directories = virtcontainers::HOST_SYSTEM.iter();
    directories.any(|dir| path.starts_with(dir))
}

/// The path without `..`: what is shown stands at its own name, as the user reads it.
fn normalised(path: &Path) -> PathBuf {
    let mut normalised = PathBuf::new();
    for component in path.components() {
        match component {
            // Above the root is the root.
            Component::ParentDir => _ = normalised.pop(),
            component => normalised.push(component),
        }
    }
    normalised
}

fn tmpfs_mounts(args: &RunArgs) -> Result<Vec<Mount>, Failure> {
    let mut mounts = Vec::new();
    for text in &args.tmpfs {
        let tmpfs: TmpfsSpec = text.parse().map_err(usage)?;
        let mut options = vec!["nosuid".to_owned(), "nodev".to_owned()];
        options.extend(tmpfs.no_exec.then(|| "noexec".to_owned()));
        options.extend(tmpfs.read_only.then(|| "ro".to_owned()));
        options.push(format!("mode={:o}", tmpfs.mode.unwrap_or(0o1777)));
        options.extend(tmpfs.size.map(|size| format!("size={}", size.bytes())));
        let mount = MountBuilder::default()
            .destination(PathBuf::from(tmpfs.destination.as_str()))
            .typ("tmpfs")
            .source("tmpfs")
            .options(options)
            .build()
            .map_err(|error| Failure::plain(RUN_FAILED, &error))?;
        mounts.push(mount);
    }
    Ok(mounts)
}

/// The files that say who the machine is, and whom it asks for others.
fn generated_files(hostname: &str, resolver: String) -> Vec<GeneratedFile> {
    let hosts = format!(
        "127.0.0.1\tlocalhost\n127.0.1.1\t{hostname}\n::1\tlocalhost ip6-localhost ip6-loopback\n"
    );
    [
        ("/etc/hosts", hosts),
        ("/etc/hostname", format!("{hostname}\n")),
        ("/etc/resolv.conf", resolver),
    ]
    .map(|(path, text)| GeneratedFile {
        destination: path.into(),
        contents: text.into_bytes(),
    })
    .into()
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use vc_config::HostFacts;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        run: RunArgs,
    }

    fn files(cwd: &str, home: &str, flags: &[&str]) -> Files {
        let flags = ["run"].iter().chain(flags).chain(&["--", "true"]);
        let args = Cli::parse_from(flags).run;
        let caller = Caller {
            cwd: cwd.into(),
            env: [("HOME".to_owned(), "/srv/people/ann".to_owned())].into(),
            facts: HostFacts::read().unwrap(),
        };
        let people = Accounts::default();
        let home = Path::new(home);
        Files::of(&args, &caller, &people, home, "box", String::new()).unwrap()
    }

    fn volumes(files: &Files) -> Vec<(&str, Access)> {
        let volumes = files.volumes.iter();
        volumes
            .map(|v| (v.destination.to_str().unwrap(), v.access))
            .collect()
    }

    #[test]
    fn a_current_directory_of_the_system_is_shared_like_any_other() {
        let cwd = "/usr/share/doc";
        assert_eq!(volumes(&files(cwd, "/root", &[])), [(cwd, Access::Private)]);
        let empty = files(cwd, "/root", &["--cwd", "empty"]);
        assert_eq!(empty.empty_dirs, [Path::new("/root"), Path::new(cwd)]);
        assert!(empty.volumes.is_empty());
    }

    #[test]
    fn a_home_in_the_system_is_not_hidden() {
        assert!(files("/srv", "/usr/sbin", &[]).empty_dirs.is_empty());
    }

    #[test]
    fn a_home_of_the_callers_is_not_shared() {
        let files = files("/srv/people/ann", "/root", &[]);
        assert!(files.volumes.is_empty() && files.notices.len() == 1);
        assert_eq!(files.workdir, Path::new("/srv/people/ann"));
    }

    #[test]
    fn what_the_user_puts_somewhere_is_alone_there() {
        let flags = [
            "-v",
            "f:/etc/resolv.conf",
            "--tmpfs",
            "/root",
            "--show",
            ".",
        ];
        let files = files("/srv/w", "/root", &flags);
        let made: Vec<_> = files.generated.iter().map(|f| &f.destination).collect();
        let rest = ["/etc/hosts", "/etc/hostname", "/etc/machine-id"];
        assert_eq!(made, rest.map(Path::new).each_ref());
        assert!(files.empty_dirs.is_empty());
        assert_eq!(
            volumes(&files),
            [
                ("/srv/w", Access::ReadOnly),
                ("/etc/resolv.conf", Access::ReadWrite)
            ]
        );
        assert_eq!(files.workdir, Path::new("/srv/w"));
    }

    #[test]
    fn a_root_of_the_users_keeps_its_machine_id() {
        let has = |flags: &[&str]| {
            let generated = files("/srv/w", "/root", flags).generated;
            let mut paths = generated.iter().map(|file| &file.destination);
            paths.any(|path| path == Path::new("/etc/machine-id"))
        };
        assert!(has(&[]) && !has(&["--rootfs", "dir"]));
        assert!(!has(&["-v", "f:/etc/machine-id"]));
    }

    #[test]
    fn what_is_shown_stands_at_its_own_name() {
        let files = files("/srv/w", "/root", &["--show", "../x/./y/"]);
        assert_eq!(files.volumes[0].destination, Path::new("/srv/x/y"));
        assert_eq!(files.volumes[0].source, Path::new("/srv/x/y"));
        assert_eq!(normalised(Path::new("/../../a")), Path::new("/a"));
    }
}
