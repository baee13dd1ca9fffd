//! Templates: the first run's boot is saved, and the next ones go on from there.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::process::Signal;
use serde_json::Value;
use test_vm::Outcome;

use super::clocks::run_in_time;
use super::factory::{Factory, compared};
use super::network::Wire;

#[test]
fn the_first_run_makes_a_template_and_the_next_ones_go_on_from_it() {
    let factory = Factory::new();
    let (first, cloned) = factory.run("echo first");
    assert_eq!(first.out(), "first\n");
    assert!(
        cloned,
        "the boot of the first run is the template's\n{}",
        first.err()
    );
    assert!(!first.err().contains("rehearse"), "{}", first.err());
    let template = factory.only_template();
    let made = fs::metadata(template.join("memory"))
        .unwrap()
        .modified()
        .unwrap();
    let (second, cloned) =
        factory.run("echo second; cat /proc/sys/kernel/hostname; ls /sys/class/net");
    assert!(cloned);
    let out = second.out();
    let lines: Vec<_> = out.lines().collect();
    assert_eq!((lines[0], lines[2]), ("second", "lo"));
    assert_eq!(factory.only_template(), template);
    let now = fs::metadata(template.join("memory"))
        .unwrap()
        .modified()
        .unwrap();
    assert_eq!(made, now, "a clone changes nothing of its template");
    // Another size is another template.
    let outcome = factory.host.run(&["-m", "512m", "--cpus", "1"], &["nproc"]);
    assert_eq!(outcome.expect_code(0).out(), "1\n");
    assert_eq!(factory.templates().len(), 2);
    let id = template.file_name().unwrap().to_str().unwrap();
    factory
        .host
        .virtc(["factory", "destroy", id])
        .expect_code(0);
    assert_eq!(factory.templates().len(), 1);
    let again = factory
        .host
        .virtc(["factory", "destroy", id])
        .expect_code(1);
    again.expect_err(&[id, "does not exist"]);
    factory.host.virtc(["factory", "destroy"]).expect_code(0);
    assert!(factory.templates().is_empty());
    factory.expect_clean();
}

/// What is to be each machine's own, a word each: its ids, and every source of random numbers that a
/// process has.
pub(super) const DRAW: &str = "cat /etc/machine-id
    cat /proc/sys/kernel/random/boot_id /proc/sys/kernel/random/uuid
    head -c 16 /dev/urandom | base64
    head -c 16 /dev/random | base64
    python3 -c 'import ctypes, os, random, socket
ports = [socket.create_server((\"127.0.0.1\", 0)) for _ in range(3)]
auxv = ctypes.CDLL(None).getauxval
auxv.restype, auxv.argtypes = ctypes.c_ulong, [ctypes.c_ulong]
print(os.getrandom(16).hex(), random.random(), hash(\"x\"), ctypes.string_at(auxv(25), 16).hex())
print(*[port.getsockname()[1] for port in ports], sep=\"-\")'
    hostname
    grep stack /proc/self/maps | cut -d' ' -f1";

/// The words of that.
const DRAWN: usize = 12;

/// What no machine may have of it: the host's.
pub(super) fn of_the_host() -> BTreeSet<String> {
    let ids = ["/etc/machine-id", "/proc/sys/kernel/random/boot_id"];
    let ids = ids.into_iter().flat_map(fs::read_to_string);
    ids.map(|id| id.trim().to_owned()).collect()
}

#[test]
fn one_template_serves_runs_with_files_and_without_and_can_be_made_beforehand() {
    let factory = Factory::new();
    factory.host.virtc(["factory", "init"]).expect_code(0);
    let template = factory.only_template();
    factory.run("true");
    let files = factory.host.dir("files");
    fs::write(files.join("named"), "by a flag").unwrap();
    let volume = format!("{}:/mnt", files.display());
    let outcome = factory
        .host
        .run(&["--timeline", "-v", &volume], &["cat", "/mnt/named"]);
    let outcome = outcome.expect_code(0);
    assert_eq!(outcome.out(), "by a flag");
    expect_clone(&outcome);
    assert_eq!(factory.only_template(), template);
}

#[test]
fn clones_share_no_random_number_and_have_the_hosts_clock() {
    let factory = Factory::new();
    let mut seen = of_the_host();
    for _ in 0..compared(4) {
        let (out, err) = run_in_time(&factory.host, &["--timeline"], DRAW);
        assert!(err.contains("guest: handed over"), "{err}");
        expect_new(&mut seen, &out);
    }
}

/// All words that a machine has drawn are new.
#[track_caller]
pub(super) fn expect_new(seen: &mut BTreeSet<String>, out: &str) {
    let drawn: Vec<_> = out.split_whitespace().collect();
    assert_eq!(drawn.len(), DRAWN, "{out}");
    for word in drawn {
        assert!(seen.insert(word.to_owned()), "{word} was drawn twice");
    }
}

/// What is wrong with a template before a run.
type Damage = fn(&Path);

fn truncate(path: &Path, bytes: u64) {
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_len(bytes).unwrap();
}

#[test]
fn a_template_that_is_not_whole_is_made_again() {
    let damages: [(&str, Damage); 8] = [
        ("no memory", |dir| {
            fs::remove_file(dir.join("memory")).unwrap();
        }),
        ("no scratch disk", |dir| {
            fs::remove_file(dir.join("scratch")).unwrap();
        }),
        ("a short scratch disk", |dir| {
            truncate(&dir.join("scratch"), 1 << 20);
        }),
        ("a scratch disk with holes", |dir| {
            let size = fs::metadata(dir.join("scratch")).unwrap().len();
            truncate(&dir.join("scratch"), 0);
            truncate(&dir.join("scratch"), size);
        }),
        ("a short memory", |dir| {
            truncate(&dir.join("memory"), 1 << 20)
        }),
        ("a memory with holes", |dir| {
            let size = fs::metadata(dir.join("memory")).unwrap().len();
            truncate(&dir.join("memory"), 0);
            truncate(&dir.join("memory"), size);
        }),
        ("another state", |dir| {
            fs::write(dir.join("state"), "no state").unwrap();
        }),
        ("another version", |dir| {
            fs::write(dir.join("template.json"), r#"{"form": 2}"#).unwrap();
        }),
    ];
    let factory = Factory::new();
    factory.run("true");
    for (what, damage) in damages {
        let template = factory.only_template();
        damage(&template);
        let (outcome, cloned) = factory.run("echo whole");
        assert_eq!(
            (outcome.out().as_str(), cloned),
            ("whole\n", true),
            "{what}"
        );
        assert_eq!(factory.only_template(), template, "{what}");
        let size = fs::metadata(template.join("memory")).unwrap().len();
        assert!(size > 1 << 20, "{what}");
        factory.expect_clean();
    }
}

#[test]
fn a_state_that_cannot_be_loaded_is_removed_and_the_vm_boots() {
    let factory = Factory::new();
    factory.run("true");
    let template = factory.only_template();
    // As if another QEMU had written it: whole, by its description.
    fs::write(template.join("state"), "no state").unwrap();
    let path = template.join("template.json");
    let mut description: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let digest = std::process::Command::new("sha256sum")
        .arg(template.join("state"))
        .output();
    let digest = String::from_utf8(digest.unwrap().stdout).unwrap();
    description["state_digest"] = digest.split_whitespace().next().unwrap().into();
    fs::write(&path, description.to_string()).unwrap();
    let log = factory.dir.path().join("log");
    let log_flag = log.to_str().unwrap();
    let run = ["--log", log_flag, "run", "--", "echo", "booted"];
    let outcome = factory.host.virtc(run).expect_code(0);
    assert_eq!(outcome.out(), "booted\n");
    let log = fs::read_to_string(log).unwrap();
    for text in ["does not serve was removed", "it boots by itself now"] {
        assert!(log.contains(text), "{log}");
    }
    assert!(factory.templates().is_empty());
    factory.expect_clean();
}

#[test]
fn a_clone_does_not_need_its_template_any_more() {
    let factory = Factory::new();
    factory.run("true");
    let script = "echo up; read x; find /usr/bin | wc -l";
    let mut running = factory
        .host
        .start(["run", "--timeline", "--", "sh", "-c", script]);
    let stdin = running.stdin();
    running.wait_until("a running container", |_| {
        let listed = factory.host.virtc(["list", "-f", "json"]).out();
        listed.contains("\"status\": \"running\"").then_some(())
    });
    factory.host.virtc(["factory", "destroy"]).expect_code(0);
    // The end of its input is what it waits for.
    drop(stdin);
    let outcome = running.wait().expect_code(0);
    expect_clone(&outcome);
    let files: u32 = outcome
        .out()
        .lines()
        .last()
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    assert!(files > 100, "{}", outcome.out());
}

#[test]
fn an_interrupt_while_a_clone_comes_up_ends_it_at_once() {
    let factory = Factory::new();
    factory.run("true");
    let mut running = factory.host.start(["run", "--", "true"]);
    running.wait_for_process("-incoming defer");
    running.signal(Signal::INT);
    running.wait().expect_code(130);
    factory.only_template();
}

#[test]
fn a_bundle_comes_from_a_template_where_that_is_enabled() {
    let mut factory = Factory::new();
    factory.host.env("VIRTC_FACTORY_ENABLE_TEMPLATE", "true");
    let init = factory
        .host
        .virtc(["factory", "init", "--containers"])
        .expect_code(0);
    let template = factory.only_template();
    assert!(template.ends_with(init.out().trim()), "{}", init.out());
    let bundle = super::oci::bundle(
        &factory.host,
        &["/bin/sh", "-c", "echo in a bundle"],
        |_| {},
    );
    let bundle = bundle.to_str().unwrap();
    let log = factory.dir.path().join("log");
    let run = [
        "--debug",
        "--log",
        log.to_str().unwrap(),
        "run",
        "--bundle",
        bundle,
        "c1",
    ];
    let outcome = factory.host.virtc(run).expect_code(0);
    assert_eq!(outcome.out(), "in a bundle\n");
    let log = fs::read_to_string(log).unwrap();
    assert!(log.contains("the clone goes on"), "{log}");
    assert_eq!(factory.only_template(), template);
}

/// What the guest of a clone says of its start.
#[track_caller]
fn expect_clone(outcome: &Outcome) {
    let err = outcome.err();
    assert!(err.contains("guest: handed over"), "{err}");
}

#[test]
fn each_clone_writes_to_a_copy_of_its_templates_scratch_disk() {
    let factory = Factory::new();
    factory.run("true");
    let image = factory.only_template().join("scratch");
    let look = || fs::metadata(&image).unwrap();
    let made = look();
    assert_eq!(made.mode() & 0o777, 0o600);
    assert_eq!(made.len(), 10 << 30);
    assert!(made.blocks() * 512 < 8 << 20, "it is not sparse");
    // What is in it counts.
    let files = fs::read_dir(factory.only_template()).unwrap();
    let taken: u64 = files
        .map(|file| file.unwrap().metadata().unwrap().blocks() * 512)
        .sum();
    let listed = factory.host.virtc(["factory", "status", "-f", "json"]);
    let listed: Value = serde_json::from_str(&listed.expect_code(0).out()).unwrap();
    assert_eq!(listed[0]["bytes"], taken);
    let script = "df --output=fstype,size / | tail -1; ls -A /root
                  head -c 48M /dev/urandom >/root/much && sync && cksum </root/much >/root/sum
                  [ \"$(cksum </root/much)\" = \"$(cat /root/sum)\" ] && rm /root/much && ls /root";
    for _ in 0..2 {
        let (outcome, cloned) = factory.run(script);
        assert!(cloned);
        let out = outcome.out();
        let lines: Vec<_> = out.lines().collect();
        assert!(lines[0].starts_with("overlay"), "{out}");
        // Nothing of the clone before.
        assert_eq!(lines[1..], ["sum"], "{out}");
    }
    let now = look();
    assert_eq!(made.modified().unwrap(), now.modified().unwrap());
    assert_eq!(made.blocks(), now.blocks());
}

#[test]
fn a_template_is_of_the_scratch_space_that_its_clones_have() {
    let factory = Factory::new();
    for flag in ["64m", "96m", "tmpfs"] {
        for _ in 0..2 {
            let run = ["--scratch", flag, "--timeline"];
            expect_clone(&factory.host.run(&run, &["true"]).expect_code(0));
        }
    }
    let sizes = factory.templates().into_iter().map(|id| {
        let image = fs::metadata(factory.library().join(id).join("scratch"));
        image.map_or(0, |image| image.len() >> 20)
    });
    assert_eq!(sizes.collect::<BTreeSet<_>>(), [0, 64, 96].into());
}

/// It is of a size that no other one has, so it is none of a template's.
#[test]
fn a_disk_that_the_host_has_no_room_for_is_made_for_its_clone_alone() {
    let factory = Factory::new();
    let small = factory.host.dir("small");
    let script = format!(
        "mount -t tmpfs -o size=256m tmpfs {dir} || exit 9
         export VIRTC_SCRATCH_DIR={dir}
         for run in 1 2; do
             \"$0\" --root {dir}/state run --cwd empty --timeline -- \
                 sh -c 'df --output=fstype,size -m / | tail -1; echo x >/root/x && cat /root/x' || exit 8
         done",
        dir = small.display()
    );
    let mut command = std::process::Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script, env!("CARGO_BIN_EXE_virtc")]);
    command
        .current_dir(factory.host.cwd())
        .env("VIRTC_RUNTIME_FAILURES", factory.host.failures())
        .env("VIRTC_FACTORY_AUTO", "true")
        .env("VIRTC_FACTORY_DIR", factory.library());
    let outcome = factory.host.start_command(command).wait().expect_code(0);
    assert_eq!(outcome.err().matches("guest: handed over").count(), 2);
    let out = outcome.out();
    let words: Vec<_> = out.split_whitespace().collect();
    assert_eq!((words[0], words[2]), ("overlay", "x"), "{out}");
    assert!(words[1].parse::<u32>().unwrap() < 256, "{out}");
    assert!(!factory.only_template().join("scratch").exists());
}

#[test]
fn a_clone_has_a_network_and_a_scratch_disk() {
    let factory = Factory::new();
    factory.run("true");
    let script =
        "ls /sys/class/net; df --output=fstype / | tail -1; echo x >/root/x && cat /root/x";
    let outcome = factory.host.run(
        &["--net", "user", "--scratch", "64m", "--timeline"],
        &["sh", "-c", script],
    );
    let outcome = outcome.expect_code(0);
    expect_clone(&outcome);
    assert!(outcome.out().contains("eth0"), "{}", outcome.out());
    assert!(outcome.out().ends_with("overlay\nx\n"), "{}", outcome.out());
}

#[test]
fn a_clone_has_the_links_of_a_network_namespace() {
    let factory = Factory::new();
    factory.run("true");
    let wire = Wire::new();
    let net = format!("ns:/run/netns/{}", wire.container);
    // Nobody listens there: a refusal comes from the neighbour.
    let script = "import errno, socket; s = socket.socket(); s.settimeout(10); \
                  print(errno.errorcode[s.connect_ex(('10.7.0.1', 9))], \
                  open('/sys/class/net/eth0/mtu').read())";
    let outcome = factory
        .host
        .run(&["--net", &net, "--timeline"], &["python3", "-c", script]);
    let outcome = outcome.expect_code(0);
    expect_clone(&outcome);
    assert_eq!(outcome.out(), "ECONNREFUSED 1420\n\n");
}
