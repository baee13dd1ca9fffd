use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;
use std::time::Instant;

use vc_launch::Launcher;
use vc_storage::{Error, Formatter, ScratchDisk};
use vc_types::ByteSize;

/// Where an ext4's magic number is.
const MAGIC_AT: u64 = 1024 + 56;
const MAGIC: [u8; 2] = [0x53, 0xef];

pub(crate) fn a_scratch_disk_has_a_file_system() {
    let launcher = Arc::new(Launcher::start(Launcher::OWN_PROGRAM).unwrap());
    let directory = tempfile::tempdir().unwrap();
    let size = ByteSize::from_mib(10 << 10);
    let start = Instant::now();
    let formatter = Formatter::new(launcher, "/sbin/mkfs.ext4".into());
    let disk = ScratchDisk::create(formatter, directory.path(), size).unwrap();
    disk.begin().unwrap();
    let begun = start.elapsed();
    disk.finish().unwrap();
    let formatted = start.elapsed();
    let file = File::from(disk.descriptor().unwrap());
    let mut magic = [0; 2];
    file.read_exact_at(&mut magic, MAGIC_AT).unwrap();
    assert_eq!(magic, MAGIC);
    let stored = file.metadata().unwrap().blocks() * 512;
    println!("begun after {begun:?}, formatted after {formatted:?}, {stored} bytes stored");
    assert!(stored < 8 << 20, "it is not sparse");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

pub(crate) fn a_failed_format_says_why() {
    let launcher = Arc::new(Launcher::start(Launcher::OWN_PROGRAM).unwrap());
    let directory = tempfile::tempdir().unwrap();
    let size = ByteSize::from_mib(64);
    let disk = |mkfs: &str| {
        let formatter = Formatter::new(Arc::clone(&launcher), mkfs.into());
        ScratchDisk::create(formatter, directory.path(), size).unwrap()
    };
    let error = disk("/bin/ls").finish().unwrap_err();
    assert!(matches!(error, Error::Format { .. }));
    assert!(error.to_string().contains("ls"), "{error}");
    let error = disk("/no/mkfs").finish().unwrap_err();
    assert!(matches!(error, Error::Launch(_)));
}

pub(crate) fn a_scratch_disk_is_filled_instead_or_stays_empty() {
    let launcher = Arc::new(Launcher::start(Launcher::OWN_PROGRAM).unwrap());
    let directory = tempfile::tempdir().unwrap();
    let size = ByteSize::from_mib(64);
    // What is filled in is not formatted.
    let formatter = Formatter::new(launcher, "/no/mkfs".into());
    let disk = ScratchDisk::create(formatter, directory.path(), size).unwrap();
    assert!(disk.is_whole());
    let file = File::from(disk.descriptor().unwrap());
    let broken = |file: &File| {
        file.write_all_at(&MAGIC, MAGIC_AT)?;
        Err(ErrorKind::StorageFull.into())
    };
    let error = disk.fill(broken).unwrap_err();
    assert!(matches!(error, Error::ScratchContent { .. }), "{error}");
    let found = file.metadata().unwrap();
    assert_eq!((found.len(), found.blocks()), (size.bytes(), 0));
    assert!(matches!(disk.finish().unwrap_err(), Error::Launch(_)));
    disk.fill(|file| file.write_all_at(&MAGIC, MAGIC_AT))
        .unwrap();
    disk.finish().unwrap();
    let mut magic = [0; 2];
    file.read_exact_at(&mut magic, MAGIC_AT).unwrap();
    assert_eq!(magic, MAGIC);
}
