//! Archives of an enemy: nothing is written outside of the destination, whatever they say.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test speaks by failing"
)]

use std::fs;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use tar::{EntryType, Header};
use tempfile::TempDir;
use tree_archive::{Destination, Error, Incoming, Rules, unpack};

/// One entry, with names as they are written.
fn entry(kind: EntryType, name: &[u8], link: &[u8], contents: &[u8]) -> Vec<u8> {
    let mut header = Header::new_ustar();
    let old = header.as_old_mut();
    old.name[..name.len()].copy_from_slice(name);
    old.linkname[..link.len()].copy_from_slice(link);
    header.set_entry_type(kind);
    header.set_mode(0o6755);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1);
    header.set_size(contents.len() as u64);
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend_from_slice(contents);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn file(name: &str) -> Vec<u8> {
    entry(EntryType::Regular, name.as_bytes(), b"", b"evil")
}

fn directory(name: &str) -> Vec<u8> {
    entry(EntryType::Directory, name.as_bytes(), b"", b"")
}

fn link(name: &str, to: &str) -> Vec<u8> {
    entry(EntryType::Symlink, name.as_bytes(), to.as_bytes(), b"")
}

fn hard_link(name: &str, to: &str) -> Vec<u8> {
    entry(EntryType::Link, name.as_bytes(), to.as_bytes(), b"")
}

/// A destination beside a file that nobody may touch.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        fs::create_dir(place.destination()).unwrap();
        fs::write(place.outside(), "mine").unwrap();
        place
    }

    fn destination(&self) -> PathBuf {
        self.0.path().join("destination")
    }

    fn outside(&self) -> PathBuf {
        self.0.path().join("outside")
    }

    fn unpack(&self, entries: &[Vec<u8>]) -> Result<(), Error> {
        let mut archive = entries.concat();
        archive.resize(archive.len() + 1024, 0);
        self.unpack_bytes(&archive[..])
    }

    fn unpack_bytes(&self, archive: impl Read) -> Result<(), Error> {
        let incoming = Incoming::Named("src".into());
        let destination = Destination::open(&self.destination(), &incoming).unwrap();
        let directory = destination.directory.as_fd();
        let unpacked = unpack(archive, directory, &destination.names, Rules::default());
        assert_eq!(fs::read_to_string(self.outside()).unwrap(), "mine");
        assert_eq!(fs::metadata(self.outside()).unwrap().nlink(), 1);
        assert_eq!(fs::read_dir(self.0.path()).unwrap().count(), 2);
        unpacked
    }

    /// What is below the destination's own name for the tree.
    fn at(&self, name: &str) -> PathBuf {
        self.destination().join("src").join(name)
    }
}

#[test]
fn names_that_lead_out_are_refused_and_named() {
    for name in [
        "src/../../outside",
        "../outside",
        "src/a/../../../outside",
        "/outside",
        "outside",
        ".",
    ] {
        let error = Place::new()
            .unpack(&[directory("src"), file(name)])
            .unwrap_err();
        assert!(error.chain().contains(&format!("{name:?}")), "{error}");
    }
    let place = Place::new();
    let absolute = place.outside();
    let name = absolute.to_str().unwrap();
    assert!(place.unpack(&[directory("src"), file(name)]).is_err());
    assert!(place.unpack(&[file(&format!("src{name}"))]).is_ok());
}

#[test]
fn nothing_is_written_through_a_link() {
    for to in ["../..", "../../outside", "/", ".."] {
        let place = Place::new();
        let error = place
            .unpack(&[directory("src"), link("src/l", to), file("src/l/outside")])
            .unwrap_err();
        assert!(error.chain().contains("Not a directory"), "{error}");
        // The link itself is a file as any other.
        assert_eq!(fs::read_link(place.at("l")).unwrap(), Path::new(to));
        let place = Place::new();
        place
            .unpack(&[directory("src"), link("src/l", to), file("src/l")])
            .unwrap();
        assert!(fs::symlink_metadata(place.at("l")).unwrap().is_file());
        let place = Place::new();
        assert!(
            place
                .unpack(&[directory("src"), link("src/l", to), directory("src/l")])
                .is_err()
        );
    }
    // One that was there before, too, in the place of the tree as well as in it.
    let place = Place::new();
    symlink("..", place.destination().join("src")).unwrap();
    assert!(
        place
            .unpack(&[directory("src"), file("src/outside")])
            .is_err()
    );
    let place = Place::new();
    fs::create_dir(place.at("")).unwrap();
    symlink("../../outside", place.at("l")).unwrap();
    place.unpack(&[directory("src"), file("src/l")]).unwrap();
    assert_eq!(fs::read_to_string(place.at("l")).unwrap(), "evil");
}

#[test]
fn no_name_is_given_to_a_file_outside() {
    for to in [
        "../outside",
        "src/../../outside",
        "/outside",
        "outside",
        "src/l",
    ] {
        let place = Place::new();
        assert!(
            place
                .unpack(&[directory("src"), hard_link("src/l", to)])
                .is_err(),
            "{to}"
        );
    }
    let place = Place::new();
    let through = [
        directory("src"),
        link("src/up", "../.."),
        hard_link("src/l", "src/up/outside"),
    ];
    assert!(place.unpack(&through).is_err());
    // A link to a link is another name of that, and writing to it replaces it.
    let place = Place::new();
    let twice = [
        directory("src"),
        link("src/l", "../../outside"),
        hard_link("src/m", "src/l"),
        file("src/m"),
    ];
    place.unpack(&twice).unwrap();
}

#[test]
fn devices_are_refused_and_programs_get_nobodys_rights() {
    for kind in [EntryType::Char, EntryType::Block] {
        let device = entry(kind, b"src/d", b"", b"");
        let error = Place::new()
            .unpack(&[directory("src"), device])
            .unwrap_err();
        assert!(
            error.to_string().contains("\"src/d\" is a device"),
            "{error}"
        );
    }
    let place = Place::new();
    place.unpack(&[directory("src"), file("src/su")]).unwrap();
    for name in ["", "su"] {
        let mode = fs::metadata(place.at(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o755, "{name}");
    }
}

#[test]
fn descriptions_without_an_end_are_refused_before_they_are_read() {
    let endless = |kind: EntryType, size: u64| {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(size);
        header.set_cksum();
        header.as_bytes().to_vec()
    };
    for kind in [
        EntryType::GNULongName,
        EntryType::GNULongLink,
        EntryType::XHeader,
        EntryType::XGlobalHeader,
    ] {
        for size in [1 << 20, 1 << 40, u64::MAX] {
            let archive = endless(kind, size);
            let error = Place::new()
                .unpack_bytes(archive.chain(std::io::repeat(b'a')))
                .unwrap_err();
            assert!(error.to_string().contains("too long"), "{error}");
        }
    }
    // A file that is larger than anything ends with its archive.
    let mut huge = endless(EntryType::Regular, u64::MAX);
    huge[..3].copy_from_slice(b"src");
    let mut header = Header::new_gnu();
    header.as_mut_bytes().copy_from_slice(&huge);
    header.set_cksum();
    let place = Place::new();
    let error = place.unpack_bytes(&header.as_bytes()[..]).unwrap_err();
    assert!(error.to_string().contains("middle of a file"), "{error}");
    assert!(!place.at("").exists());
    // What comes behind the end is not waited for without an end.
    let mut archive = file("src");
    archive.resize(archive.len() + 1024, 0);
    assert!(
        Place::new()
            .unpack_bytes(archive.chain(std::io::repeat(0)))
            .is_err()
    );
}

#[test]
fn what_is_no_archive_or_half_of_one_is_an_error() {
    let place = Place::new();
    let whole = [directory("src"), file("src/a")].concat();
    for length in [0, 100, 512, 600, 1024, 1030, 1536] {
        let error = place.unpack_bytes(&whole[..length]).unwrap_err();
        assert!(
            error.to_string().contains("complete tar archive"),
            "{length}: {error}"
        );
    }
    let mut broken = whole.clone();
    broken[0] = b'x';
    assert!(place.unpack_bytes(&broken[..]).is_err());
    let long = "a".repeat(5000);
    let record = format!("{} path={long}\n", 5000 + 11);
    let pax = entry(EntryType::XHeader, b"pax", b"", record.as_bytes());
    assert!(
        place
            .unpack(&[pax, file("src")])
            .unwrap_err()
            .to_string()
            .contains("too long")
    );
    let malformed = entry(EntryType::XHeader, b"pax", b"", b"99 path");
    assert!(place.unpack(&[malformed, file("src")]).is_err());
}

#[test]
fn a_long_name_of_either_form_is_checked_too() {
    let place = Place::new();
    let gnu = entry(
        EntryType::GNULongName,
        b"././@LongLink",
        b"",
        b"src/../../outside\0",
    );
    assert!(
        place
            .unpack(&[directory("src"), gnu, file("src/a")])
            .is_err()
    );
    let pax = entry(
        EntryType::XHeader,
        b"pax",
        b"",
        b"26 path=src/../../outside\n",
    );
    assert!(
        place
            .unpack(&[directory("src"), pax, file("src/a")])
            .is_err()
    );
}

#[test]
fn a_directory_and_something_else_do_not_replace_each_other() {
    let place = Place::new();
    fs::create_dir_all(place.at("d/full")).unwrap();
    fs::write(place.at("f"), "").unwrap();
    assert!(place.unpack(&[directory("src"), file("src/d")]).is_err());
    assert!(
        place
            .unpack(&[directory("src"), link("src/d", "/")])
            .is_err()
    );
    assert!(
        place
            .unpack(&[directory("src"), directory("src/f")])
            .is_err()
    );
    assert!(place.at("d/full").is_dir() && place.at("f").is_file());
}
