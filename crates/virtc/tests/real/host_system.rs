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
