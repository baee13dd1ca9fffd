//! The host's own system as a root: all of its tools, and nothing else of the host.

use super::host;

#[test]
fn tools_of_the_host_work() {
    let script = "python3 -c 'print(6*7)'; git --version | cut -d' ' -f1-2; perl -e 'print 1'; awk 'BEGIN{print 2}'";
    let outcome = host().run(&[], &["sh", "-c", script]).expect_code(0);
    assert_eq!(outcome.out(), "42\ngit version\n12\n");
}

#[test]
fn nothing_else_of_the_host_is_there() {
    let host = host();
    let secret = host.dir("secret").join("file");
    std::fs::write(&secret, "secret").unwrap();
    let script = format!(
        "ls /run/virtcontainers /var/log/apt /boot/* /home/* /root/.cargo {} 2>/dev/null | wc -l; \
         cat /etc/shadow 2>&1 >/dev/null | grep -c 'Permission denied'; cat /etc/gshadow",
        secret.display()
    );
    let outcome = host.run(&[], &["sh", "-c", &script]);
    assert_eq!(outcome.out(), "0\n1\n", "{}", outcome.err());
    assert_ne!(outcome.code(), 0);
}

#[test]
fn a_new_file_beside_the_systems_own_is_possible_and_vanishes() {
    let script = "echo x > /usr/bin/new-tool && cat /usr/bin/new-tool";
    assert_eq!(
        host().run(&[], &["sh", "-c", script]).expect_code(0).out(),
        "x\n"
    );
    assert!(!std::path::Path::new("/usr/bin/new-tool").exists());
}

#[test]
fn a_command_is_filtered_and_has_no_more_rights_than_in_a_container() {
    // clone(2), 56, with CLONE_NEWUSER and with none; socket(2), 41, of AF_VSOCK; unshare(2), 272,
    // of the user namespace.
    let script = r#"
        $| = 1;
        my $pid = syscall(56, 0x10000000 | 17, 0, 0, 0, 0);
        exit 0 if $pid == 0;
        print "clone: ", $!+0, "\n" if $pid < 0;
        my $child = fork // die;
        exit 5 if $child == 0;
        waitpid $child, 0;
        print "fork: ", $? >> 8, "\n";
        print "vsock: ", syscall(41, 40, 1, 0) < 0 ? $!+0 : "open", "\n";
        print "vsock, another way: ", syscall(41, 0x100000028, 1, 0) < 0 ? $!+0 : "open", "\n";
        print "unshare: ", syscall(272, 0x10000000) < 0 ? $!+0 : "done", "\n";
        open my $status, "<", "/proc/self/status";
        print grep /^(Seccomp|CapEff|CapPrm|CapBnd|CapAmb|NoNewPrivs):/, <$status>;
    "#;
    let host = host();
    let outcome = host.run(&[], &["perl", "-e", script]).expect_code(0);
    let text = outcome.out();
    assert!(
        text.starts_with("clone: 1\nfork: 5\nvsock: 1\nvsock, another way: 1\nunshare: 1\n"),
        "{text}"
    );
    let field = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name))
            .map(|value| value.trim().to_owned())
            .unwrap_or_else(|| panic!("{name} in {text}"))
    };
    assert_eq!(field("Seccomp:"), "2");
    assert_eq!(field("NoNewPrivs:"), "0");
    // The capability that loads the filter is gone.
    let effective = u64::from_str_radix(&field("CapEff:"), 16).unwrap();
    assert_eq!(effective & (1 << 21), 0, "CAP_SYS_ADMIN in {text}");
    assert_eq!(field("CapPrm:"), field("CapBnd:"));

    let outcome = host.run(&["-u", "65534:65534"], &["perl", "-e", script]);
    let text = outcome.expect_code(0).out();
    assert!(text.contains("CapEff:\t0000000000000000\n"), "{text}");
    assert!(text.contains("CapPrm:\t0000000000000000\n"), "{text}");
    assert!(text.contains("Seccomp:\t2\n"), "{text}");
}
