//! What the command finds in its file system, and what becomes of changes.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use super::{busybox_root, host};

#[test]
pub(super) fn a_directory_is_a_root_whose_changes_vanish() {
    let host = host();
    let root = busybox_root(&host);
    let script = "cat /etc/marker; echo new > /etc/new; rm /etc/marker; ls /etc";
    let flags = ["--rootfs", root.to_str().unwrap()];
    let outcome = host.run(&flags, &["sh", "-c", script]).expect_code(0);
    assert!(
        outcome.out().starts_with("made by the test\n"),
        "{}",
        outcome.out()
    );
    assert!(outcome.out().contains("new\n") && !outcome.out().contains("marker\n"));
    assert!(root.join("etc/marker").exists() && !root.join("etc/new").exists());
}

#[test]
fn a_writable_root_is_written_through() {
    let host = host();
    let root = busybox_root(&host);
    let flags = ["--rootfs", root.to_str().unwrap(), "--writable"];
    host.run(&flags, &["sh", "-c", "echo new > /etc/new; rm /etc/marker"])
        .expect_code(0);
    assert_eq!(fs::read_to_string(root.join("etc/new")).unwrap(), "new\n");
    assert!(!root.join("etc/marker").exists());
}

#[test]
fn a_read_only_root_refuses_writes() {
    let host = host();
    let root = busybox_root(&host);
    let flags = [
        "--rootfs",
        root.to_str().unwrap(),
        "--read-only",
        "--tmpfs",
        "/tmp:1m",
    ];
    let script = "echo x > /tmp/x && cat /tmp/x; echo x > /etc/x || echo refused";
    let outcome = host.run(&flags, &["sh", "-c", script]).expect_code(0);
    assert_eq!(outcome.out(), "x\nrefused\n");
}

#[test]
pub(super) fn the_current_directory_is_there_and_its_changes_vanish() {
    let host = host();
    fs::write(host.cwd().join("file"), "mine\n").unwrap();
    let outcome = host
        .run(&[], &["sh", "-c", "pwd; cat file; echo x > new; rm file"])
        .expect_code(0);
    assert_eq!(outcome.out(), format!("{}\nmine\n", host.cwd().display()));
    assert!(host.cwd().join("file").exists() && !host.cwd().join("new").exists());
}

#[test]
fn a_writable_current_directory_keeps_its_changes() {
    let host = host();
    host.run(
        &["--writable-cwd"],
        &["sh", "-c", "echo x > new; mkdir d; echo y > d/z"],
    )
    .expect_code(0);
    assert_eq!(fs::read_to_string(host.cwd().join("new")).unwrap(), "x\n");
    assert_eq!(fs::read_to_string(host.cwd().join("d/z")).unwrap(), "y\n");
}

#[test]
pub(super) fn volumes_are_directories_and_files_and_ro_is_the_hosts_word() {
    let host = host();
    let data = host.dir("data");
    fs::write(data.join("file"), "data\n").unwrap();
    symlink(&data, host.dir("links").join("link")).unwrap();
    let link = host.dir("links").join("link");
    let data = data.to_str().unwrap();
    let volumes = [
        format!("{data}:/mnt/rw"),
        format!("{data}:/mnt/ro:ro"),
        format!("{data}/file:/mnt/one"),
        format!("{}:/mnt/link", link.display()),
    ];
    let flags: Vec<&str> = volumes.iter().flat_map(|v| ["-v", v]).collect();
    let script = "cat /mnt/ro/file /mnt/one /mnt/link/file; echo x > /mnt/rw/new; \
                  echo y > /mnt/ro/new2 || echo refused; cat /mnt/link/new";
    let outcome = host.run(&flags, &["sh", "-c", script]).expect_code(0);
    assert_eq!(outcome.out(), "data\ndata\ndata\nrefused\nx\n");
    assert_eq!(fs::read_to_string(format!("{data}/new")).unwrap(), "x\n");
    assert!(!std::path::Path::new(&format!("{data}/new2")).exists());
}

#[test]
fn what_was_written_to_the_memory_of_a_file_is_on_the_host_after_the_end() {
    let host = host();
    let file = host.cwd().join("file");
    fs::write(&file, [0; 3 * 4096]).unwrap();
    // One byte of the page in the middle, by a process that has no time to see to it.
    let script = "import mmap, os\n\
                  file = open('file', 'r+b')\n\
                  memory = mmap.mmap(file.fileno(), 0)\n\
                  file.close()\n\
                  memory[5000] = 42\n\
                  os.kill(os.getpid(), 9)\n";
    host.run(&["--writable-cwd"], &["python3", "-c", script])
        .expect_code(137);
    let content = fs::read(&file).unwrap();
    assert_eq!((content.len(), content[5000]), (3 * 4096, 42));
}

#[test]
fn a_link_inside_a_volume_does_not_lead_out_of_it() {
    let host = host();
    let data = host.dir("data");
    let secret = host.dir("secret").join("file");
    fs::write(&secret, "secret\n").unwrap();
    symlink(&secret, data.join("out")).unwrap();
    let volume = format!("{}:/mnt/v", data.display());
    let outcome = host
        .run(&["-v", &volume], &["cat", "/mnt/v/out"])
        .expect_code(1);
    assert!(!outcome.out().contains("secret"));
}

#[test]
pub(super) fn the_environment_is_small_and_what_was_asked_for() {
    let mut host = host();
    host.env("HIDDEN", "hidden");
    host.env("PASSED", "passed");
    let file = host.dir("files").join("env");
    fs::write(&file, "# comment\nFROM_FILE=1\n").unwrap();
    let file = file.to_str().unwrap().to_owned();
    let flags = ["-e", "GIVEN=a b", "-e", "PASSED", "--env-file", &file];
    let outcome = host.run(&flags, &["env"]).expect_code(0);
    for line in [
        "GIVEN=a b",
        "PASSED=passed",
        "FROM_FILE=1",
        "HOME=/root",
        "USER=root",
    ] {
        assert!(
            outcome.out().lines().any(|l| l == line),
            "{line} in {}",
            outcome.out()
        );
    }
    assert!(!outcome.out().contains("HIDDEN") && !outcome.out().contains("VIRTC"));
}

#[test]
pub(super) fn home_is_empty_and_writable_and_the_files_of_the_guest_are_its_own() {
    let host = host();
    let script = "ls -A ~; echo x > ~/x && cat ~/x; cat /etc/hostname; grep -c box.example /etc/hosts; \
                  wc -c < /etc/resolv.conf; hostname";
    let outcome = host
        .run(&["--hostname", "box.example"], &["sh", "-c", script])
        .expect_code(0);
    assert_eq!(outcome.out(), "x\nbox.example\n1\n0\nbox.example\n");
}

#[test]
fn a_machine_has_an_id_of_its_own_and_a_root_of_the_users_keeps_its_own() {
    let host = host();
    let id = || host.run(&[], &["cat", "/etc/machine-id"]).expect_code(0);
    let (one, other) = (id().out(), id().out());
    for id in [&one, &other] {
        let digits = id.trim_end_matches('\n');
        let is_digit = |c: char| c.is_ascii_hexdigit() && !c.is_ascii_uppercase();
        assert!(digits.len() == 32 && digits.chars().all(is_digit), "{id}");
        assert_ne!(
            fs::read_to_string("/etc/machine-id").ok().as_ref(),
            Some(id)
        );
    }
    assert_ne!(one, other);
    let root = busybox_root(&host);
    fs::write(root.join("etc/machine-id"), "the root's\n").unwrap();
    let flags = ["--rootfs", root.to_str().unwrap()];
    let kept = host.run(&flags, &["cat", "/etc/machine-id"]);
    assert_eq!(kept.expect_code(0).out(), "the root's\n");
}

#[test]
pub(super) fn a_user_by_number_and_by_name() {
    let host = host();
    let outcome = host.run(&["-u", "1234:56"], &["id"]).expect_code(0);
    assert!(
        outcome.out().contains("uid=1234 gid=56"),
        "{}",
        outcome.out()
    );
    let outcome = host
        .run(&["-u", "nobody"], &["sh", "-c", "id -un; echo $HOME"])
        .expect_code(0);
    assert!(outcome.out().starts_with("nobody\n"), "{}", outcome.out());
}

#[test]
fn a_full_scratch_disk_is_no_space_for_the_command_and_no_dead_machine() {
    let host = host();
    let script = "dd if=/dev/zero of=/big bs=1M count=64 2>&1 | tail -1; rm /big; echo alive";
    let outcome = host
        .run(&["--scratch", "32m"], &["sh", "-c", script])
        .expect_code(0);
    assert!(outcome.out().ends_with("alive\n"), "{}", outcome.out());
    let script = "dd if=/dev/zero of=/big bs=1M count=64; echo $?";
    let outcome = host
        .run(&["--scratch", "tmpfs:16m"], &["sh", "-c", script])
        .expect_code(0);
    assert!(outcome.err().contains("No space left"), "{}", outcome.err());
}

#[test]
fn a_host_disk_that_fills_up_below_the_scratch_disk_is_an_error_of_the_command_alone() {
    let host = host();
    let small = host.dir("small");
    let script = format!(
        "mount -t tmpfs -o size=128m tmpfs {dir} && cd {dir} && mkdir scratch && mkfifo in out || exit 9
         VIRTC_SCRATCH_DIR={dir}/scratch \"$0\" --root {dir}/state run --cwd empty --scratch 64m -- \
             sh -c 'echo up; read go; dd if=/dev/zero of=/big bs=1M count=48 conv=fsync; echo \"dd $?\"' \
             <in >out &
         exec 3>in 4<out
         read up <&4 && echo $up || exit 8
         dd if=/dev/zero of=fill bs=1M count=128
         echo go >&3
         cat <&4
         wait $!",
        dir = small.display()
    );
    let mut command = std::process::Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script, env!("CARGO_BIN_EXE_virtc")]);
    command
        .current_dir(host.cwd())
        .env("VIRTC_RUNTIME_FAILURES", host.failures());
    let outcome = host.start_command(command).wait().expect_code(0);
    assert_eq!(outcome.out(), "up\ndd 1\n", "{}", outcome.err());
}

#[test]
fn capabilities_are_taken_and_given() {
    let host = host();
    let capabilities = ["sh", "-c", "grep CapEff /proc/self/status | cut -f2"];
    let none = host
        .run(&["--cap-drop", "ALL"], &capabilities)
        .expect_code(0)
        .out();
    assert_eq!(u64::from_str_radix(none.trim(), 16).unwrap(), 0);
    let flags = ["--cap-drop", "ALL", "--cap-add", "net_admin"];
    let one = host.run(&flags, &capabilities).expect_code(0).out();
    assert_eq!(u64::from_str_radix(one.trim(), 16).unwrap(), 1 << 12);
}

#[test]
fn where_the_current_directory_is_a_home_it_is_not_shared_and_virtc_says_so() {
    let host = host();
    let mut command = host.command(["run", "--", "sh", "-c", "pwd; ls -A | wc -l"]);
    let output = command.current_dir("/root").output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "/root\n0\n");
    assert!(String::from_utf8_lossy(&output.stderr).contains("home directory"));
}

#[test]
fn a_workdir_of_ones_own() {
    let outcome = host().run(&["-w", "/usr/share"], &["pwd"]).expect_code(0);
    assert_eq!(outcome.out(), "/usr/share\n");
}

#[test]
fn files_that_only_root_may_read_are_read_from_what_the_user_named() {
    let host = host();
    let data = host.dir("data");
    fs::write(data.join("private"), "private\n").unwrap();
    fs::set_permissions(data.join("private"), fs::Permissions::from_mode(0o600)).unwrap();
    let show = data.to_str().unwrap();
    let file = format!("{show}/private");
    assert_eq!(
        host.run(&["--show", show], &["cat", &file])
            .expect_code(0)
            .out(),
        "private\n"
    );
}

#[test]
fn a_current_directory_in_the_system_is_shared_with_the_users_rights() {
    let host = host();
    let dir = tempfile::Builder::new()
        .prefix("virtc-test-")
        .tempdir_in("/opt")
        .unwrap();
    let private = dir.path().join("private");
    fs::write(&private, "private\n").unwrap();
    fs::set_permissions(&private, fs::Permissions::from_mode(0o600)).unwrap();
    let run = |flags: &[&str], script: &str| {
        let args = ["run"].iter().chain(flags);
        let mut command = host.command(args.chain(&["--", "sh", "-c", script]));
        command.current_dir(dir.path());
        host.start_command(command).wait().expect_code(0).out()
    };
    assert_eq!(run(&[], "cat private; echo x > private"), "private\n");
    assert_eq!(fs::read_to_string(&private).unwrap(), "private\n");
    let empty = run(&["--cwd", "empty"], "pwd; ls -A");
    assert_eq!(empty, format!("{}\n", dir.path().display()));
}

#[test]
fn the_home_of_who_calls_is_not_shared_whatever_the_root_says() {
    let mut host = host();
    let root = busybox_root(&host);
    fs::write(host.cwd().join("file"), "mine\n").unwrap();
    let cwd = host.cwd().to_owned();
    let link = host.dir("links").join("home");
    symlink(&cwd, &link).unwrap();
    host.env("HOME", &link);
    let flags = ["--rootfs", root.to_str().unwrap()];
    host.run(&flags, &["cat", "file"])
        .expect_code(1)
        .expect_err(&["home directory", "--cwd share"]);
    let flags = ["--rootfs", root.to_str().unwrap(), "--cwd", "share"];
    let shared = host.run(&flags, &["cat", "file"]).expect_code(0);
    assert_eq!(shared.out(), "mine\n");
}

#[test]
fn home_and_an_empty_current_directory_are_the_users_own() {
    let script = "touch ~/x here && stat -c %U ~ . && echo $HOME";
    let outcome = host()
        .run(&["-u", "nobody", "--cwd", "empty"], &["sh", "-c", script])
        .expect_code(0);
    assert!(
        outcome.out().starts_with("nobody\nnobody\n/"),
        "{}",
        outcome.out()
    );
}

#[test]
fn what_the_user_mounts_goes_before_what_virtc_makes() {
    let host = host();
    let data = host.dir("data");
    fs::write(data.join("file"), "mine\n").unwrap();
    let file = data.join("file");
    let mut flags = Vec::new();
    for destination in ["/etc/resolv.conf", "/etc/hosts", "/etc/hostname"] {
        flags.push(format!("-v{}:{destination}:ro", file.display()));
    }
    flags.push(format!("-v{}:{}", data.display(), host.cwd().display()));
    flags.push("--tmpfs=/root:1m".to_owned());
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let script = "cat /etc/resolv.conf /etc/hosts /etc/hostname; pwd; echo x > new; \
                  stat -f -c %T /root";
    let outcome = host.run(&flags, &["sh", "-c", script]).expect_code(0);
    let expected = format!("mine\nmine\nmine\n{}\ntmpfs\n", host.cwd().display());
    assert_eq!(outcome.out(), expected);
    assert_eq!(fs::read_to_string(data.join("new")).unwrap(), "x\n");
}

#[test]
fn a_tmpfs_below_a_volume_or_the_current_directory_is_not_covered() {
    let host = host();
    let data = host.dir("data");
    for dir in [&data, &host.cwd().to_owned()] {
        fs::create_dir(dir.join("t")).unwrap();
        fs::write(dir.join("t/file"), "").unwrap();
    }
    let volume = format!("{}:/mnt/v", data.display());
    let below_cwd = format!("{}/t", host.cwd().display());
    let flags = ["--tmpfs", "/mnt/v/t", "-v", &volume, "--tmpfs", &below_cwd];
    let script = "ls -A /mnt/v/t t; stat -f -c %T /mnt/v/t t; echo x > /mnt/v/t/new";
    let outcome = host.run(&flags, &["sh", "-c", script]).expect_code(0);
    assert_eq!(outcome.out(), "/mnt/v/t:\n\nt:\ntmpfs\ntmpfs\n");
    assert!(!data.join("t/new").exists());

    let twice = ["-v", &volume, "--tmpfs", "/mnt/v"];
    host.run(&twice, &["true"])
        .expect_code(125)
        .expect_err(&["/mnt/v", "two things"]);
}

#[test]
fn a_path_is_shown_at_its_own_name_however_it_is_written() {
    let host = host();
    let data = host.dir("data");
    fs::write(data.join("file"), "data\n").unwrap();
    let file = format!("{}/file", data.display());
    let outcome = host
        .run(&["--show", "../data"], &["cat", &file])
        .expect_code(0);
    assert_eq!(outcome.out(), "data\n");
}

#[test]
fn what_the_host_changes_is_seen_a_second_later() {
    let host = host();
    let shared = host.dir("shared");
    fs::write(shared.join("file"), "before\n").unwrap();
    let volume = format!("{}:/shared", shared.display());
    // That it is asked for again after a second is the subject.
    let script = "cat /shared/file; touch /shared/read; read _; sleep 1.1; cat /shared/file";
    let mut running = host.start(["run", "-v", &volume, "--", "sh", "-c", script]);
    running.wait_until("a file that was read", |_| {
        shared.join("read").exists().then_some(())
    });
    fs::write(shared.join("file"), "behind\n").unwrap();
    running.feed(b"\n".to_vec());
    assert_eq!(running.wait().expect_code(0).out(), "before\nbehind\n");
}
