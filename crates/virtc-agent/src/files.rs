//! Small files of the host, which come with a container or by `CopyFile`.

use std::fs::{self, File, OpenOptions, Permissions};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _, chown, lchown, symlink};
use std::path::{Path, PathBuf};

use agent_protocol::agent::CopyFileRequest;
use rustix::fs::FileType;

use crate::error::{Attempt as _, Error, Result};
use crate::storage::checked_path;

/// Ends the name of a file that is not complete.
const PARTIAL_SUFFIX: &str = ".partial";

/// Writes one piece of a file, or makes a directory or a symbolic link.
pub(crate) fn copy_file(request: &CopyFileRequest) -> Result<()> {
    let path = checked_path("file", &request.path)?;
    let attempt = || format!("copy {}", path.display());
    let (uid, gid) = match (u32::try_from(request.uid), u32::try_from(request.gid)) {
        (Ok(uid), Ok(gid)) => (Some(uid), Some(gid)),
        _ => return Err(refuse("owner", format!("{}:{}", request.uid, request.gid))),
    };
    if let Some(parent) = path.parent()
        && !parent.exists()
    {
        fs::create_dir_all(parent).attempt(attempt)?;
        set_mode(parent, request.dir_mode).attempt(attempt)?;
    }
    match FileType::from_raw_mode(request.file_mode) {
        FileType::Directory => {
            fs::create_dir_all(path).attempt(attempt)?;
            set_mode(path, request.file_mode).attempt(attempt)?;
            chown(path, uid, gid).attempt(attempt)
        }
        FileType::Symlink => {
            let target = std::str::from_utf8(&request.data)
                .map_err(|_| refuse("link", "not text".to_owned()))?;
            if path.is_symlink() {
                fs::remove_file(path).attempt(attempt)?;
            }
            symlink(target, path).attempt(attempt)?;
            lchown(path, uid, gid).attempt(attempt)
        }
        _ => write_piece(request, path, uid, gid),
    }
}

/// Pieces come in any order as long as the last byte comes last; only a complete file gets its
/// name.
fn write_piece(
    request: &CopyFileRequest,
    path: &Path,
    uid: Option<u32>,
    gid: Option<u32>,
) -> Result<()> {
    let attempt = || format!("copy {}", path.display());
    let end = u64::try_from(request.offset)
        .ok()
        .and_then(|offset| offset.checked_add(request.data.len() as u64));
    let size = u64::try_from(request.file_size).ok();
    let (Some(end), Some(size)) = (end, size) else {
        return Err(refuse(
            "offset or size",
            format!("{} {}", request.offset, request.file_size),
        ));
    };
    if end > size {
        return Err(refuse("end", format!("{end} of {size}")));
    }
    let mut partial = path.as_os_str().to_owned();
    partial.push(PARTIAL_SUFFIX);
    let partial = PathBuf::from(partial);
    let file: File = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(request.offset == 0)
        .open(&partial)
        .attempt(attempt)?;
    file.write_all_at(&request.data, end - request.data.len() as u64)
        .attempt(attempt)?;
    if end < size {
        return Ok(());
    }
    file.set_permissions(permissions(request.file_mode))
        .attempt(attempt)?;
    chown(&partial, uid, gid).attempt(attempt)?;
    fs::rename(&partial, path).attempt(attempt)
}

fn set_mode(path: &Path, mode: u32) -> std::io::Result<()> {
    fs::set_permissions(path, permissions(mode))
}

fn permissions(mode: u32) -> Permissions {
    Permissions::from_mode(mode & 0o7777)
}

fn refuse(field: &'static str, value: String) -> Error {
    Error::Invalid {
        field,
        value,
        reason: "cannot be used for a copied file",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(path: &Path) -> CopyFileRequest {
        let uid = i32::try_from(rustix::process::getuid().as_raw()).unwrap();
        let gid = i32::try_from(rustix::process::getgid().as_raw()).unwrap();
        CopyFileRequest {
            path: path.to_str().unwrap().to_owned(),
            file_mode: 0o100_640,
            dir_mode: 0o755,
            uid,
            gid,
            ..CopyFileRequest::default()
        }
    }

    #[test]
    fn a_file_appears_when_it_is_complete() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a/b");
        let mut piece = CopyFileRequest {
            file_size: 6,
            data: b"abc".to_vec(),
            ..request(&path)
        };
        copy_file(&piece).unwrap();
        assert!(!path.exists());
        piece.offset = 3;
        copy_file(&piece).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"abcabc");
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o7777,
            0o640
        );
    }

    #[test]
    fn pieces_beyond_the_end_and_other_paths_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        let piece = CopyFileRequest {
            file_size: 2,
            data: b"abc".to_vec(),
            ..request(&path)
        };
        assert!(copy_file(&piece).is_err());
        assert!(copy_file(&request(&directory.path().join("../a"))).is_err());
        let negative = CopyFileRequest {
            offset: -1,
            file_size: 2,
            ..request(&path)
        };
        assert!(copy_file(&negative).is_err());
    }

    #[test]
    fn links_and_directories_are_made() {
        let directory = tempfile::tempdir().unwrap();
        let link = directory.path().join("link");
        let piece = CopyFileRequest {
            file_mode: 0o120_777,
            data: b"/target".to_vec(),
            ..request(&link)
        };
        copy_file(&piece).unwrap();
        copy_file(&piece).unwrap();
        assert_eq!(fs::read_link(&link).unwrap(), Path::new("/target"));
        let made = directory.path().join("d");
        copy_file(&CopyFileRequest {
            file_mode: 0o040_700,
            ..request(&made)
        })
        .unwrap();
        assert!(made.is_dir());
    }
}
