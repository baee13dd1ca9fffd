//! What only the guest's own kernel has: modules that come when the kernel itself asks for one, and places of
//! mappings that an emulator knows again.

use std::fs;
use std::path::Path;

use test_vm::Host;

use super::factory::Factory;
use super::host;
use super::library::{on_executor, runtime, sandbox};

/// The end of the own kernel's release (`CONFIG_LOCALVERSION` in `guest/kernel/builtin.config`).
pub(super) const RELEASE_END: &str = "-virtcontainers";

/// Runs a script as an administrator of the guest's network; nothing where the guest has another kernel.
fn in_own_kernel(script: &str) -> Option<String> {
    let script =
        format!("uname -r; case $(uname -r) in *{RELEASE_END}) ;; *) exit 0 ;; esac; {script}");
    let host = host();
    let flags = ["--cap-add", "NET_ADMIN", "--cap-add", "NET_RAW"];
    let outcome = host.run(&flags, &["sh", "-c", &script]).expect_code(0);
    let out = outcome.out();
    let (release, rest) = out.split_once('\n').unwrap();
    if !release.ends_with(RELEASE_END) {
        eprintln!("skipped: the guest's kernel is {release} (make guest-kernel)");
        return None;
    }
    Some(rest.to_owned())
}

#[test]
fn a_module_comes_when_the_kernel_asks_for_it() {
    let script = "grep -c '^veth ' /proc/modules; ip link add left type veth peer name right; \
                  grep -c '^veth ' /proc/modules; ip -o link show left | cut -d: -f2; \
                  ip link add other type nothing 2>/dev/null; echo $?";
    if let Some(out) = in_own_kernel(script) {
        assert_eq!(out, "0\n1\n left@right\n2\n");
    }
}

#[test]
fn a_packet_filter_comes_with_all_that_its_rules_need() {
    let script = "nft add table ip t && \
                  nft add chain ip t c '{ type nat hook postrouting priority 100; }' && \
                  nft add rule ip t c ip daddr 10.0.0.0/8 ct state new masquerade && \
                  nft list ruleset && nft delete table ip t && \
                  iptables-legacy -t nat -A POSTROUTING -m addrtype --src-type LOCAL -j MASQUERADE && \
                  iptables-legacy -t nat -S POSTROUTING";
    if let Some(out) = in_own_kernel(script) {
        assert!(out.contains("ct state new masquerade"), "{out}");
        let rule = "-A POSTROUTING -m addrtype --src-type LOCAL -j MASQUERADE";
        assert!(out.contains(rule), "{out}");
    }
}

/// Where a program has its C library and its stack, twice.
const PLACES: &str = "for i in 1 2; do \
    awk '/libc.so/ && !seen++ || /\\[stack\\]/ { print $1 }' /proc/self/maps; done";

#[test]
fn without_kvm_a_guest_draws_the_places_of_mappings_once_and_each_clone_draws_its_own() {
    let factory = Factory::new();
    let script = format!("uname -r; cat /proc/cmdline; {PLACES}");
    let mut libraries = Vec::new();
    // The first one makes the template, and goes on from it too.
    for _ in 0..3 {
        let outcome = factory.host.run(&[], &["sh", "-c", &script]).expect_code(0);
        let out = outcome.out();
        let lines: Vec<_> = out.lines().collect();
        let [
            release,
            parameters,
            library,
            stack,
            same_library,
            other_stack,
        ] = lines[..]
        else {
            panic!("{out}");
        };
        if !release.ends_with(RELEASE_END) || !parameters.contains("aslr.once=1") {
            eprintln!("skipped: {release} draws for each program ({parameters})");
            return;
        }
        assert_eq!(library, same_library);
        assert_ne!(stack, other_stack);
        libraries.push(library.to_owned());
    }
    libraries.sort_unstable();
    libraries.dedup();
    assert_eq!(libraries.len(), 3, "{libraries:?}");
}

/// What the consoles of the machines of a host have said so far.
fn consoles(directory: &Path) -> String {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let said = entries.map(|entry| match entry.file_name().to_str() {
        // Whatever a guest writes is text here.
        Some("console.log") => fs::read_to_string(entry.path()).unwrap(),
        _ if entry.file_type().is_ok_and(|kind| kind.is_dir()) => consoles(&entry.path()),
        _ => String::new(),
    });
    said.collect()
}

/// What the console has said when a command runs whose guest says more than usual, and the guest's kernel.
pub(super) fn detailed_console(host: &mut Host) -> (String, String) {
    host.env("VIRTC_GUEST_KERNEL_PARAMS", "agent.log=debug");
    let mut running = host.start(["run", "--", "sh", "-c", "uname -r; read line"]);
    let stdin = running.stdin();
    let console = running.wait_until("a running container", |_| {
        let listed = host.virtc(["list", "-f", "json"]).out();
        let runs = listed.contains("\"status\": \"running\"");
        runs.then(|| consoles(&host.root()))
    });
    // The end of its input is what it waits for.
    drop(stdin);
    (
        console,
        running.wait().expect_code(1).out().trim_end().to_owned(),
    )
}

#[test]
fn a_clone_has_the_shares_that_were_mounted_in_its_template() {
    // The first one makes the template, and goes on from it too.
    let (console, release) = detailed_console(&mut Factory::new().host);
    if !release.ends_with(RELEASE_END) {
        eprintln!("skipped: a template with {release} has no shares (make guest-kernel)");
        return;
    }
    let told = "mounted before they were asked for";
    let line = console.lines().find(|line| line.contains(told));
    let line = line.unwrap_or_else(|| panic!("{console}"));
    assert!(line.contains("/run/virtc/shares/virtc-system"), "{line}");
}

/// MiB that are free in the lists from which pages are taken.
const LISTED: &str = "awk '{ for (i = 5; i <= NF; i++) n += $i * 2 ^ (i - 5) } END { print int(n / 256) }' \
    /proc/buddyinfo";

/// MiB in all, and free.
const TOTAL_AND_FREE: &str = "awk '/^MemTotal|^MemFree/ { print int($2 / 1024) }' /proc/meminfo";

/// Two programs at the same time use most of the memory, and say how many bytes.
const USED: &str = "use() { dd if=/dev/zero of=/dev/null bs=700M count=1 2>&1 | sed -n 's/ bytes .*//p'; }; \
    use & use; wait";

#[test]
fn a_guest_accounts_for_memory_when_it_is_used_and_has_all_of_it() {
    let host = host();
    let look = format!("{TOTAL_AND_FREE}; {LISTED}");
    let script = format!("uname -r; {look}; {USED}; {look}");
    let outcome = host.run(&["-m", "2G", "--cpus", "2"], &["sh", "-c", &script]);
    let out = outcome.expect_code(0).out();
    let (release, numbers) = out.split_once('\n').unwrap();
    let numbers: Vec<u64> = numbers.lines().map(|line| line.parse().unwrap()).collect();
    let [
        total,
        free,
        listed,
        used,
        used_too,
        total_after,
        free_after,
        listed_after,
    ] = numbers[..]
    else {
        panic!("{out}");
    };
    assert_eq!([used, used_too], [700 << 20; 2]);
    assert!(total > 1900 && total_after == total, "{out}");
    assert!(free > 1700 && free_after > 1700, "{out}");
    assert!(listed_after > 800, "{out}");
    if !release.ends_with(RELEASE_END) {
        eprintln!("skipped: the guest's kernel is {release} (make guest-kernel)");
        return;
    }
    assert!(listed < 400, "{out}");

    let switched_off = ["-m", "2G", "--kernel-param", "memmap_init.when=boot"];
    let outcome = host.run(&switched_off, &["sh", "-c", LISTED]);
    let listed: u64 = outcome.expect_code(0).out().trim().parse().unwrap();
    assert!(listed > 1700, "{listed}");
}

#[test]
fn a_page_of_1_gib_is_had_at_run_time_though_memory_is_not_accounted_for() {
    let host = host();
    let pages = "/sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages";
    let script =
        format!("uname -r; mount -o remount,rw /sys && echo 1 > {pages} && cat {pages}; {LISTED}");
    let flags = ["-m", "2560M", "--cap-add", "ALL"];
    let out = host.run(&flags, &["sh", "-c", &script]);
    let out = out.expect_code(0).out();
    let lines: Vec<_> = out.lines().collect();
    let [release, had, listed] = lines[..] else {
        panic!("{out}");
    };
    if !release.ends_with(RELEASE_END) {
        eprintln!("skipped: the guest's kernel is {release} (make guest-kernel)");
        return;
    }
    assert_eq!(had, "1");
    // All of it is in the lists then, but for that page.
    assert!(listed.parse::<u64>().unwrap() > 1200, "{out}");
}

/// Three writable layers on one file system, and how many inodes each has taken: those of the kernel's own checks,
/// and the same for what is written.
const LAYERS: &str =
    "mount -t tmpfs t /mnt && cd /mnt && mkdir lower m && echo x >lower/file || exit
    layer() {
        mkdir -p $1/upper $1/work && touch $1/before || exit
        mount -t overlay o -o lowerdir=lower,upperdir=$1/upper,workdir=$1/work$2 m || exit
        rm m/file && mkdir m/new && [ ! -e m/file ] || exit
        umount m && touch $1/after && [ -c $1/upper/file ] || exit
        echo $(($(stat -c %i $1/after) - $(stat -c %i $1/before)))
    }
    uname -r; layer first; layer second; layer third ,userxattr";

#[test]
fn what_a_file_system_can_do_is_asked_once_and_layers_on_it_are_whole() {
    let host = host();
    let taken = |flags: &[&str]| {
        let flags = [&["--cap-add", "ALL"], flags].concat();
        let out = host.run(&flags, &["sh", "-c", LAYERS]);
        let out = out.expect_code(0).out();
        let (release, numbers) = out.split_once('\n').unwrap();
        let numbers: Vec<u64> = numbers.lines().map(|line| line.parse().unwrap()).collect();
        assert_eq!(numbers.len(), 3, "{out}");
        (release.to_owned(), numbers)
    };
    let (release, asked) = taken(&["--kernel-param", "overlay.check_once=0"]);
    assert_eq!(asked[0], asked[1]);
    let (_, once) = taken(&[]);
    if !release.ends_with(RELEASE_END) {
        eprintln!("skipped: the guest's kernel is {release} (make guest-kernel)");
        return;
    }
    assert_eq!(once[0], asked[0]);
    assert!(once[1] < once[0], "{once:?}");
    // Whose attributes are others is asked anew.
    assert_eq!(once[2], asked[2]);
}

#[test]
fn a_kernel_is_whole_however_it_rewrites_its_code() {
    let host = host();
    let said = |flags: &[&str]| {
        let script = "uname -r; cat /sys/devices/system/cpu/vulnerabilities/spectre_v2; dmesg";
        let flags = [&["--cap-add", "ALL"], flags].concat();
        let out = host.run(&flags, &["sh", "-c", script]);
        let out = out.expect_code(0).out();
        let mut lines = out.splitn(3, '\n').map(str::to_owned);
        [(); 3].map(|()| lines.next().unwrap())
    };
    let [release, ..] = said(&[]);
    if !release.ends_with(RELEASE_END) {
        eprintln!("skipped: the guest's kernel is {release} (make guest-kernel)");
        return;
    }
    for param in [
        "alternatives.sync=0",
        "alternatives.sync=1",
        "mitigations=auto",
    ] {
        let [_, spectre, log] = said(&["--kernel-param", param]);
        assert!(log.contains("Freeing SMP alternatives memory"), "{log}");
        // A return that still goes through a thunk is told of once it runs.
        for wrong in ["cut here", "Unpatched", "missing return thunk"] {
            assert!(!log.contains(wrong), "{param}: {log}");
        }
        if param == "mitigations=auto" {
            assert!(!spectre.starts_with("Vulnerable"), "{spectre}");
        }
    }
}

#[test]
fn a_kernel_that_has_taken_its_thunks_out_does_not_go_on_with_mitigations() {
    let Some(parameters) = in_own_kernel("cat /proc/cmdline") else {
        return;
    };
    if !parameters.contains("alternatives.sync=0") {
        eprintln!("skipped: nothing is rewritten early ({parameters})");
        return;
    }
    let host = host();
    on_executor(async {
        let mut config = sandbox("pod", Vec::new());
        // What looks at the line early reads beyond the end of the kernel's part.
        config.vm.kernel_params = ["mitigations=auto", "--", "mitigations=off"]
            .map(str::to_owned)
            .into();
        let refused = runtime(&host).create_sandbox(config).await.unwrap_err();
        let console = consoles(&host.failures());
        assert!(
            console.contains("mitigations are asked for after the thunks were taken out"),
            "{refused}: {console}"
        );
    });
}
