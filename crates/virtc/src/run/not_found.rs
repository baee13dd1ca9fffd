//! Says where a command is that the machine does not see.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Where the caller would find `command`, and what would have to be shown, unless it is in what
/// the machine sees.
pub(crate) fn hidden_command(
    command: &str,
    path: Option<&str>,
    shown: &[PathBuf],
    system: &[&str],
) -> Option<String> {
    let found = find(command, path?)?;
    let real = found.canonicalize().ok()?;
    let visible = |path: &Path| {
        shown.iter().any(|dir| path.starts_with(dir))
            || system.iter().any(|dir| path.starts_with(dir))
    };
    if visible(&found) && visible(&real) {
        return None;
    }
    let mut show = Vec::new();
    for hidden in [&found, &real] {
        if let Some(dir) = hidden.parent().filter(|_| !visible(hidden)) {
            let flag = format!("--show {}", dir.display());
            if !show.contains(&flag) {
                show.push(flag);
            }
        }
    }
    Some(format!(
        "{command} is {} on the host, which the machine does not see; `{}` would show it",
        found.display(),
        show.join(" ")
    ))
}

fn find(command: &str, path: &str) -> Option<PathBuf> {
    if command.contains('/') {
        return Some(PathBuf::from(command)).filter(|file| is_executable(file));
    }
    std::env::split_paths(path)
        .map(|dir| dir.join(command))
        .find(|file| is_executable(file))
}

fn is_executable(path: &Path) -> bool {
    path.metadata()
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_command_in_a_hidden_directory_is_named_with_its_show() {
        let dir = tempfile::tempdir().unwrap();
        let tool = dir.path().join("tool");
        fs::write(&tool, "").unwrap();
        fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).unwrap();
        let path = dir.path().to_str().unwrap();
        let said = hidden_command("tool", Some(path), &[], &["/usr"]).unwrap();
        assert!(said.contains(&format!("--show {path}")), "{said}");
        assert!(hidden_command("tool", Some(path), &[dir.path().into()], &[]).is_none());
        assert!(hidden_command("no-such-tool", Some(path), &[], &[]).is_none());
    }
}
