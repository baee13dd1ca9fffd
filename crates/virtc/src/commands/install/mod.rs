//! Making containerd use this runtime, and undoing it.

mod block;
mod diff;
mod file;
mod place;
mod programs;
mod settings;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use virtcontainers::CheckStatus;

use self::block::HANDLER;
use self::file::SettingsFile;
use self::place::{files, of, place};
use self::programs::{Link, Programs};
use self::settings::Version;
use super::{Done, load, runtime};
use crate::cli::{
    ContainerdArgs, GlobalArgs, InstallArgs, InstallTarget, UninstallArgs, UninstallTarget,
};
use crate::error::{FAILED, Failure};
use crate::output;

/// What the state root of the shim's sandboxes is called after the configured one.
const SHIM_ROOT_SUFFIX: &str = "-containerd";

/// The service of containerd's.
const SERVICE: &str = "containerd";

/// A file of settings that is to become another one; nothing: it is to go.
struct Edit<'a> {
    file: &'a SettingsFile,
    after: Option<String>,
}

impl Edit<'_> {
    fn before(&self) -> &str {
        self.file.text().unwrap_or_default()
    }

    fn after(&self) -> &str {
        self.after.as_deref().unwrap_or_default()
    }

    fn show(&self) -> Result<(), Failure> {
        let name = self.file.path().display().to_string();
        Ok(output::lines(diff::unified(
            &name,
            self.before(),
            self.after(),
        ))?)
    }
}

pub(crate) fn install(global: &GlobalArgs, args: &InstallArgs) -> Done {
    let InstallTarget::Containerd(args) = &args.what;
    let args = &args.containerd;
    check_host(global)?;
    let links = Programs::of_this()?.missing(&args.bin_dir)?;
    let found = files(&args.containerd_config)?;
    if found.iter().any(|found| found.switch_off_plugin) {
        output::notice("the settings switch off Kubernetes' plug-in: see disabled_plugins");
    }
    let made;
    let edit = match place(&found) {
        Some(found) => Edit {
            file: &found.file,
            after: Some(
                found
                    .settings()?
                    .with_handler()
                    .map_err(|failure| of(&found.file, failure))?,
            ),
        },
        None => {
            made = SettingsFile::open(&args.containerd_config)?;
            Edit {
                file: &made,
                after: Some(block::made(installed_version())),
            }
        }
    };
    let changes = edit.before() != edit.after();
    if changes {
        edit.file.check_writable()?;
    }
    if args.dry_run {
        for link in &links {
            say_link("would link", link)?;
        }
        edit.show()?;
        return Ok(ExitCode::SUCCESS);
    }
    for link in &links {
        link.make()?;
        say_link("linked", link)?;
    }
    let path = edit.file.path().display();
    if !changes {
        output::line(&format!("{path} has the handler {HANDLER}"))?;
        return Ok(ExitCode::SUCCESS);
    }
    if edit.file.keep_copy()? {
        let copy = edit.file.copy_path();
        output::line(&format!("kept a copy of it: {}", copy.display()))?;
    }
    edit.file.replace(edit.after())?;
    output::line(&format!("{path}: added the handler {HANDLER}"))?;
    restart(args)
}

pub(crate) fn uninstall(global: &GlobalArgs, args: &UninstallArgs) -> Done {
    let UninstallTarget::Containerd(args) = &args.what;
    if !args.force {
        check_unused(global)?;
    }
    let args = &args.containerd;
    let links = Programs::of_this()?.linked(&args.bin_dir);
    let found = files(&args.containerd_config)?;
    let mut edits = Vec::new();
    for found in &found {
        let text = found.file.text().unwrap_or_default();
        let rest = block::without_block(text).map_err(|failure| of(&found.file, failure))?;
        if rest == text {
            if found.settings()?.have_handler() {
                let path = found.file.path().display();
                output::notice(&format!(
                    "{path}: the handler {HANDLER} stays, somebody else wrote it"
                ));
            }
            continue;
        }
        found.file.check_writable()?;
        let after = (!block::is_made_by_us(&rest)).then_some(rest);
        let file = &found.file;
        edits.push(Edit { file, after });
    }
    if args.dry_run {
        for link in &links {
            say_link("would remove the link", link)?;
        }
        for edit in &edits {
            edit.show()?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    for edit in &edits {
        let path = edit.file.path().display();
        match &edit.after {
            Some(after) => edit.file.replace(after)?,
            None => edit.file.remove()?,
        }
        output::line(&format!("{path}: took out the handler {HANDLER}"))?;
        if let Some(copy) = edit.file.drop_copy(edit.after())? {
            let copy = copy.display();
            output::notice(&format!("{path} has changed since {copy} was kept"));
        }
    }
    for link in &links {
        link.remove()?;
        say_link("removed the link", link)?;
    }
    match edits.is_empty() {
        true => Ok(ExitCode::SUCCESS),
        false => restart(args),
    }
}

fn say_link(what: &str, link: &Link) -> Result<(), Failure> {
    let (path, target) = (link.path.display(), link.target.display());
    Ok(output::line(&format!("{what} {path} -> {target}"))?)
}

/// Refuses a host on which no pod would start.
fn check_host(global: &GlobalArgs) -> Result<(), Failure> {
    let items = runtime(global)?.check();
    let mut missing = items
        .iter()
        .filter(|item| item.status == CheckStatus::Missing)
        .peekable();
    if missing.peek().is_none() {
        return Ok(());
    }
    let failure = Failure::new(FAILED, "this host cannot run virtual machines");
    let told = missing.fold(failure, |failure, item| {
        failure.note(format!("{}: {}", item.name, item.found))
    });
    Err(told.hint("mend what `virtc check` says"))
}

/// Refuses while sandboxes of containerd's are there: it could not end them any more.
fn check_unused(global: &GlobalArgs) -> Result<(), Failure> {
    let mut root = load(global, &[])?.config.runtime.root.into_os_string();
    root.push(SHIM_ROOT_SUFFIX);
    let below = |path: &Path| std::fs::read_dir(path).into_iter().flatten().flatten();
    let mut sandboxes = below(&PathBuf::from(root))
        .flat_map(|namespace| below(&namespace.path()).collect::<Vec<_>>())
        .filter(|entry| entry.path().is_dir());
    match sandboxes.next() {
        None => Ok(()),
        Some(one) => {
            let message = format!(
                "there are sandboxes of containerd's, {}",
                one.path().display()
            );
            Err(Failure::new(FAILED, message)
                .hint("remove their pods first, or give --force to leave them without a runtime"))
        }
    }
}

/// That of the containerd which is installed; where there is none, one that every containerd reads.
fn installed_version() -> Version {
    let said = Command::new(SERVICE).arg("--version").output();
    let said = said.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let major = said.as_deref().map_or(1, major_version);
    Version::of_containerd(major)
}

/// The first number of what `containerd --version` says: `containerd NAME v2.0.1 COMMIT`.
fn major_version(said: &str) -> u32 {
    let words = said.split_whitespace().skip(2);
    let mut numbers = words.filter_map(|word| {
        let (major, _) = word.trim_start_matches('v').split_once('.')?;
        major.parse().ok()
    });
    numbers.next().unwrap_or(1)
}

/// Makes containerd read its settings again, or says how.
fn restart(args: &ContainerdArgs) -> Done {
    if !args.restart {
        output::line(&format!(
            "it counts once containerd is restarted: systemctl restart {SERVICE}"
        ))?;
        return Ok(ExitCode::SUCCESS);
    }
    let restarted = Command::new("systemctl")
        .args(["restart", SERVICE])
        .status();
    let reason = match restarted {
        Ok(status) if status.success() => return Ok(ExitCode::SUCCESS),
        Ok(status) => status.to_string(),
        Err(error) => error.to_string(),
    };
    let message = format!("the settings are changed, but systemctl restart {SERVICE} failed");
    Err(Failure::new(FAILED, message).note(reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_containerd_is_read_of_what_it_says() {
        for (said, major) in [
            (
                "containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1",
                1,
            ),
            (
                "containerd github.com/containerd/containerd/v2 v2.0.1 88aa2f5\n",
                2,
            ),
            ("containerd containerd.io 1.7.27 05044ec0a9a7", 1),
            ("", 1),
        ] {
            assert_eq!(major_version(said), major, "{said}");
        }
    }
}
