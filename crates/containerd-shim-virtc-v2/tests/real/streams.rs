//! Where the standard streams of a task go.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use sha2::{Digest, Sha256};

use super::Containerd;

/// Bytes through each kind of stream.
const BYTES: usize = 100 << 20;

/// Writes that many zeros.
const WRITE: [&str; 5] = ["dd", "if=/dev/zero", "bs=1M", "count=100", "status=none"];

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[test]
fn a_hundred_megabytes_go_through_pipes_both_ways() {
    let Some(containerd) = Containerd::new() else {
        return;
    };
    containerd.begin(&[], "c1", &["sleep", "1000"]);
    let output = containerd.exec("c1", "out", &WRITE);
    assert_eq!(output.stdout.len(), BYTES);
    let input: Vec<u8> = (0..BYTES).map(|n| (n % 251) as u8).collect();
    let path = containerd.dir("in").join("bytes");
    fs::write(&path, &input).unwrap();
    let summed = containerd
        .command(&["task", "exec", "--exec-id", "in", "c1", "sha256sum"])
        .stdin(fs::File::open(path).unwrap())
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    let summed = String::from_utf8(summed.stdout).unwrap();
    assert_eq!(summed.split_whitespace().next().unwrap(), digest(&input));
    containerd.remove("c1");
}

#[test]
fn output_goes_to_files_and_to_programs() {
    let Some(containerd) = Containerd::new() else {
        return;
    };
    let directory = containerd.dir("logs");
    let file = directory.join("file");
    let uri = format!("file://{}", file.display());
    containerd.begin(&["--log-uri", &uri], "c1", &WRITE);
    containerd.wait_for("the end of the task", || {
        containerd.state("c1").as_deref() == Some("STOPPED")
    });
    containerd.remove("c1");
    assert_eq!(fs::metadata(&file).unwrap().len(), BYTES as u64);

    let program = directory.join("logger");
    let taken = directory.join("taken");
    // It is ready when it closes descriptor 5.
    let script = format!(
        "#!/bin/sh\nexec 5>&-\n{{ cat <&3; echo \"$CONTAINER_ID $*\"; cat <&4; }} > {0}.part\nmv {0}.part {0}\n",
        taken.display()
    );
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let uri = format!("binary://{}?tag=a+b", program.display());
    let command = ["sh", "-c", "echo out; echo err >&2"];
    containerd.begin(&["--log-uri", &uri], "c2", &command);
    containerd.wait_for("what the logger took", || taken.exists());
    assert_eq!(
        fs::read_to_string(&taken).unwrap(),
        "out\nc2 tag a b\nerr\n"
    );
    containerd.remove("c2");
}
