//! Archives are unpacked by a process that is confined.

use std::fs;
use std::io::{PipeReader, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use tree_archive::{Destination, Incoming, Pack, Rules};
use vc_launch::{ConfinedUnpack, Error};

/// An archive of one large file called `src`.
fn archive(directory: &Path) -> Vec<u8> {
    let path = directory.join("from");
    fs::write(&path, vec![7; 1_000_000]).unwrap();
    let mut archive = Vec::new();
    let pack = Pack {
        path,
        root: "src".into(),
        follow: false,
    };
    pack.write(&mut archive).unwrap();
    archive
}

fn start(archive: PipeReader, to: &Path, name: &str, rules: Rules) -> ConfinedUnpack {
    let destination = Destination::open(to, &Incoming::Named(name.into())).unwrap();
    let program = Path::new("/proc/self/exe");
    ConfinedUnpack::start(program, "there", archive.into(), destination, rules).unwrap()
}

/// The only child of this process that unpacks.
fn status_of_step() -> (String, std::path::PathBuf) {
    let children = fs::read_to_string("/proc/thread-self/children").unwrap();
    let pid = children.split_whitespace().last().unwrap().to_owned();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let root = fs::read_link(format!("/proc/{pid}/root")).unwrap();
    (status, root)
}

pub(crate) fn an_archive_is_unpacked_by_a_process_that_sees_the_destination_alone() {
    let directory = tempfile::tempdir().unwrap();
    let bytes = archive(directory.path());
    let to = directory.path().join("to");
    fs::create_dir(&to).unwrap();
    let (reader, mut writer) = std::io::pipe().unwrap();
    let unpack = start(reader, &to, "src", Rules::default());
    // More than the pipe holds: it is unpacking when this returns.
    writer.write_all(&bytes[..500_000]).unwrap();
    let (status, root) = status_of_step();
    assert_eq!(root, to.canonicalize().unwrap());
    let line = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().last().unwrap().to_owned()
    };
    // CAP_DAC_OVERRIDE and CAP_FOWNER.
    for set in ["CapPrm:", "CapEff:", "CapBnd:"] {
        assert_eq!(line(set), "000000000000000a", "{set}");
    }
    assert_eq!(line("NoNewPrivs:"), "1");
    writer.write_all(&bytes[500_000..]).unwrap();
    drop(writer);
    unpack.wait().unwrap();
    assert_eq!(fs::metadata(to.join("src")).unwrap().size(), 1_000_000);
}

pub(crate) fn what_cannot_be_unpacked_is_named_and_a_lost_sender_leaves_no_half_file() {
    let directory = tempfile::tempdir().unwrap();
    let bytes = archive(directory.path());
    let to = directory.path().join("to");
    fs::create_dir(&to).unwrap();
    for (name, length, said) in [
        ("src", 500_000, "ends in the middle"),
        ("other", bytes.len(), "\"src\" is not in the tree"),
    ] {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let unpack = start(reader, &to, name, Rules::default());
        // The step may have given up before.
        let _ = writer.write_all(&bytes[..length]);
        drop(writer);
        let error = unpack.wait().unwrap_err();
        assert!(matches!(error, Error::Unpack { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains("there") && text.contains(said), "{text}");
        assert_eq!(fs::read_dir(&to).unwrap().count(), 0);
    }
}
