//! The files of containerd's settings, and the one that the handler belongs into.

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};

use super::file::SettingsFile;
use super::settings::{Settings, Version};
use crate::error::{FAILED, Failure};

/// Files that settings consist of, many more than anybody has.
const FILES_MAX: usize = 64;

/// A file of the settings.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) file: SettingsFile,
    pub(super) version: Version,
    pub(super) have_plugin: bool,
    pub(super) switch_off_plugin: bool,
}

impl Found {
    /// What the file says.
    ///
    /// # Errors
    ///
    /// As [`Settings::parse`]; names the file.
    pub(super) fn settings(&self) -> Result<Settings<'_>, Failure> {
        let text = self.file.text().unwrap_or_default();
        Settings::parse(text, Some(self.version)).map_err(|failure| of(&self.file, failure))
    }
}

/// The file and those that it imports, in the order in which containerd reads them; none where there is no
/// file.
///
/// # Errors
///
/// When one of them cannot be read; names it.
pub(super) fn files(main: &Path) -> Result<Vec<Found>, Failure> {
    let mut found: Vec<Found> = Vec::new();
    let mut pending = VecDeque::from([(main.to_owned(), None)]);
    let mut seen: Vec<PathBuf> = Vec::new();
    while let Some((path, importer)) = pending.pop_front() {
        if seen.contains(&path) {
            continue;
        }
        if seen.len() == FILES_MAX {
            let message = format!("{} imports more than {FILES_MAX} files", main.display());
            return Err(Failure::new(FAILED, message));
        }
        seen.push(path.clone());
        let file = SettingsFile::open(&path)?;
        let Some(text) = file.text() else {
            continue;
        };
        let settings = Settings::parse(text, importer).map_err(|failure| of(&file, failure))?;
        for name in settings.imports() {
            let imported = imported(&path, name);
            pending.extend(
                imported
                    .into_iter()
                    .map(|path| (path, Some(settings.version()))),
            );
        }
        let (version, have_plugin) = (settings.version(), settings.have_plugin());
        let switch_off_plugin = settings.switch_off_plugin();
        found.push(Found {
            file,
            version,
            have_plugin,
            switch_off_plugin,
        });
    }
    Ok(found)
}

/// The one that the handler belongs into. The last file that has the plug-in's settings replaces them all
/// in containerd 1; containerd 2 puts them together.
pub(super) fn place(files: &[Found]) -> Option<&Found> {
    let last = files.iter().rev().find(|found| found.have_plugin);
    last.or(files.first())
}

/// An error about a file.
pub(super) fn of(file: &SettingsFile, failure: Failure) -> Failure {
    failure.note(format!("in {}", file.path().display()))
}

/// The files that an import names. A star stands for any part of a file's name, as it is used.
fn imported(importer: &Path, name: &str) -> Vec<PathBuf> {
    let path = importer.parent().unwrap_or(Path::new("/")).join(name);
    let pattern = path.file_name().and_then(|name| name.to_str());
    let (Some(pattern), Some(directory)) = (pattern, path.parent()) else {
        return Vec::new();
    };
    if !pattern.contains('*') {
        return vec![path];
    }
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut matching: Vec<_> = entries
        .filter(|entry| {
            let name = entry.file_name();
            name.to_str().is_some_and(|name| matches(pattern, name))
        })
        .map(|entry| entry.path())
        .collect();
    matching.sort();
    matching
}

fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else {
        return false;
    };
    let mut parts: Vec<_> = parts.collect();
    let Some(last) = parts.pop() else {
        return rest.is_empty();
    };
    for part in parts {
        let Some(at) = rest.find(part) else {
            return false;
        };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_file_with_the_plug_in_is_the_place() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let main = at("config.toml");
        assert!(files(&main).unwrap().is_empty());
        let imports = "imports = [\"conf.d/*.toml\", \"config.toml\", \"missing.toml\"]";
        fs::write(&main, format!("version = 2\n{imports}\n")).unwrap();
        let found = files(&main).unwrap();
        assert_eq!(place(&found).unwrap().file.path(), main);
        let cri = "[plugins.\"io.containerd.grpc.v1.cri\"]\n";
        fs::create_dir(at("conf.d")).unwrap();
        for (name, text) in [
            ("a.toml", cri),
            ("b.toml", cri),
            ("c.toml", ""),
            ("d.toml.old", "["),
        ] {
            fs::write(at("conf.d").join(name), text).unwrap();
        }
        let found = files(&main).unwrap();
        assert_eq!(found.len(), 4);
        let place = place(&found).unwrap();
        assert_eq!(place.file.path(), at("conf.d/b.toml"));
        assert_eq!(place.version, Version::Two);
        // One that cannot be read is named.
        fs::write(at("conf.d/b.toml"), "[").unwrap();
        let said = files(&main).unwrap_err().line();
        assert!(said.contains("conf.d/b.toml"), "{said}");
    }

    #[test]
    fn a_star_is_any_part_of_a_name() {
        for (pattern, name, is_so) in [
            ("*.toml", "a.toml", true),
            ("*.toml", "a.toml.old", false),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "axxc", false),
            ("a*", "b", false),
            ("*", "anything", true),
        ] {
            assert_eq!(matches(pattern, name), is_so, "{pattern} {name}");
        }
    }
}
