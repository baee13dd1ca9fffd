use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::time::Instant;

use vc_launch::Launcher;
use vc_storage::{Error, ScratchDisk};
use vc_types::ByteSize;

/// Where an ext4's magic number is.
const MAGIC_AT: u64 = 1024 + 56;
const MAGIC: [u8; 2] = [0x53, 0xef];

pub(crate) fn a_scratch_disk_has_a_file_system() {
    let launcher = Launcher::start(Launcher::OWN_PROGRAM).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let size = ByteSize::from_mib(10 << 10);
    let start = Instant::now();
    let mut disk = ScratchDisk::create(
        &launcher,
        "/sbin/mkfs.ext4".as_ref(),
        directory.path(),
        size,
    )
    .unwrap();
    let begun = start.elapsed();
    disk.formatted().unwrap();
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
    let launcher = Launcher::start(Launcher::OWN_PROGRAM).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let size = ByteSize::from_mib(64);
    let mut disk =
        ScratchDisk::create(&launcher, "/bin/ls".as_ref(), directory.path(), size).unwrap();
    let error = disk.formatted().unwrap_err();
    assert!(matches!(error, Error::Format { .. }));
    assert!(error.to_string().contains("ls"), "{error}");
    let mut disk =
        ScratchDisk::create(&launcher, "/no/mkfs".as_ref(), directory.path(), size).unwrap();
    assert!(matches!(disk.formatted().unwrap_err(), Error::Launch(_)));
}
