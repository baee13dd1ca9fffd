//! Networks of CNI's plug-ins, which the distribution has: this is their engine. A namespace stands for the
//! host.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::str::Split;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use test_vm::{Host, Outcome};

use super::host;
use super::host_side::wait_until;
use super::network::{create, sh};
use super::oci::bundle;

/// Where Debian puts the plug-ins.
const PLUGINS: &str = "/usr/lib/cni";

/// How long a link may take to come to its carrier, and to an address that it makes for itself.
const SETTLE_LIMIT: Duration = Duration::from_secs(10);

/// Between two looks at them.
const SETTLE_RETRY: Duration = Duration::from_millis(50);

/// A namespace of the test's, removed with this.
struct Namespace(String);

impl Namespace {
    fn new(end: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("virtc-cni-{}-{number}-{end}", std::process::id());
        sh("ip", &["netns", "add", &name]);
        sh("ip", &["-n", &name, "link", "set", "lo", "up"]);
        Self(name)
    }

    fn path(&self) -> String {
        format!("/run/netns/{}", self.0)
    }

    fn ip(&self, words: &str) -> String {
        let words: Vec<_> = words.split(' ').collect();
        sh("ip", &[&["-n", &self.0], &words[..]].concat())
    }

    /// A command inside it, that sees all else of the host.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path())).arg(program);
        command
    }

    fn run(&self, program: &str, args: &[&str]) -> String {
        let output = self.command(program).args(args).output().unwrap();
        assert!(output.status.success(), "{program} {args:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Links, addresses, routes, qdiscs, filters and rules.
    fn seen(&self) -> String {
        let begun = Instant::now();
        while !is_settled(&self.ip("addr")) {
            assert!(begun.elapsed() < SETTLE_LIMIT);
            std::thread::sleep(SETTLE_RETRY);
        }
        let mut seen = String::new();
        for words in ["addr", "route show table all", "-6 route show table all"] {
            seen += &self.ip(words);
        }
        for words in ["rule", "-6 rule", "neigh show nud permanent"] {
            seen += &self.ip(words);
        }
        seen += &sh("tc", &["-n", &self.0, "qdisc"]);
        seen + &self.run("nft", &["-s", "list", "ruleset"])
    }

    /// The numbers that stand for all of it.
    fn counts(&self) -> [usize; 5] {
        let lines = |text: String| text.lines().count();
        [
            lines(self.ip("-o link")),
            lines(self.ip("-o addr")),
            lines(self.ip("route")) + lines(self.ip("-6 route")),
            lines(sh("tc", &["-n", &self.0, "qdisc"])),
            lines(self.ip("rule")) + lines(self.ip("-6 rule")),
        ]
    }
}

/// Whether the addresses of `ip addr` are in use, and each link that is up has come to its carrier or to
/// none: the kernel looks a moment after what it depends on has come or gone.
fn is_settled(addresses: &str) -> bool {
    let links = addresses.lines().filter_map(|line| line.split_once('<'));
    let mut flags = links.filter_map(|(_, rest)| Some(rest.split_once('>')?.0.split(',')));
    let settled = |flags: Split<'_, char>| {
        let has = |wanted: &str| flags.clone().any(|flag| flag == wanted);
        !has("UP") || has("LOWER_UP") != has("NO-CARRIER")
    };
    !addresses.contains("tentative") && flags.all(settled)
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

/// A network of plug-ins, the later with the result of the earlier.
struct Network {
    host: Namespace,
    name: String,
    plugins: Vec<Value>,
    /// Where host-local keeps who has which address.
    leases: PathBuf,
}

impl Network {
    fn new(vm: &Host, plugins: &[Value]) -> Self {
        let host = Namespace::new("host");
        let leases = vm.dir("leases");
        let mut plugins = plugins.to_vec();
        for plugin in &mut plugins {
            if plugin["ipam"].is_object() {
                plugin["ipam"]["dataDir"] = json!(leases);
            }
        }
        Self {
            name: format!("test{}", host.0.replace('-', "")),
            host,
            plugins,
            leases,
        }
    }

    /// Runs one plug-in in the host's place.
    fn call(&self, command: &str, plugin: &Value, container: &Container, result: &Value) -> Value {
        let mut config = plugin.clone();
        config["cniVersion"] = json!("1.0.0");
        config["name"] = json!(self.name);
        if !result.is_null() {
            config["prevResult"] = result.clone();
        }
        if plugin["capabilities"]["portMappings"] == json!(true) {
            config["runtimeConfig"] = json!({"portMappings": container.ports});
        }
        let kind = plugin["type"].as_str().unwrap();
        let program = Path::new(PLUGINS).join(kind);
        let mut process = self.host.command(program.to_str().unwrap());
        process
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", &container.id)
            .env("CNI_NETNS", container.namespace.path())
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", PLUGINS)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut process = process.spawn().unwrap();
        let mut stdin = process.stdin.take().unwrap();
        stdin.write_all(config.to_string().as_bytes()).unwrap();
        drop(stdin);
        let output = process.wait_with_output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{kind} {command}: {text}");
        serde_json::from_str(&text).unwrap_or_default()
    }

    fn add(&self, container: &Container) -> Value {
        let results = self.plugins.iter();
        results.fold(Value::Null, |result, plugin| {
            self.call("ADD", plugin, container, &result)
        })
    }

    fn del(&self, container: &Container, result: &Value) {
        for plugin in self.plugins.iter().rev() {
            self.call("DEL", plugin, container, result);
        }
    }

    fn is_leased(&self) -> bool {
        let directory = self.leases.join(&self.name);
        let files = std::fs::read_dir(directory).unwrap();
        let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        // The names of addresses, beside the lock and what was given last.
        names
            .into_iter()
            .any(|name| name != "lock" && !name.starts_with("last_reserved"))
    }

    /// Fetches a page in the host's place, or says that it is not there.
    fn fetched(&self, url: &str) -> String {
        let args = ["20", "busybox", "wget", "-q", "-O", "-", url];
        self.host.run("timeout", &args)
    }
}

/// A container of a network.
struct Container {
    id: String,
    namespace: Namespace,
    ports: Value,
}

impl Container {
    fn new(id: &str) -> Self {
        Self {
            id: id.to_owned(),
            namespace: Namespace::new(id),
            ports: json!([]),
        }
    }

    /// Creates and starts it; it serves a page that names it.
    fn start(&self, vm: &Host) {
        let path = self.namespace.path();
        let script = format!(
            "mkdir /dev/www; echo 'page of {}' > /dev/www/page; exec httpd -f -p 8080 -h /dev/www",
            self.id
        );
        let directory = bundle(vm, &["/bin/sh", "-c", &script], |config| {
            let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
            namespaces.retain(|one| one["type"] != "network");
            namespaces.push(json!({"type": "network", "path": path}));
        });
        assert!(create(vm, directory.to_str().unwrap(), None, &self.id));
        vm.virtc(["start", &self.id]).expect_code(0);
    }

    fn page(&self) -> String {
        format!("page of {}\n", self.id)
    }

    /// Asks for a page from inside.
    fn fetch(&self, vm: &Host, url: &str) -> Outcome {
        let script = format!("timeout 20 wget -q -O - {url}");
        vm.virtc(["exec", &self.id, "sh", "-c", &script])
    }

    /// A page, got from inside.
    fn fetched(&self, vm: &Host, url: &str) -> String {
        self.fetch(vm, url).expect_code(0).out()
    }
}

/// The addresses of a result, as a URL has them.
fn addresses(result: &Value) -> Vec<String> {
    let ips = result["ips"].as_array().unwrap().iter();
    let addresses = ips.map(|ip| {
        let address = ip["address"].as_str().unwrap();
        let (address, _) = address.split_once('/').unwrap();
        match address.contains(':') {
            true => format!("[{address}]"),
            false => address.to_owned(),
        }
    });
    addresses.collect()
}

/// Addresses of both families, and default routes.
fn both_families(number: u8) -> Value {
    json!({
        "type": "host-local",
        "ranges": [
            [{"subnet": format!("10.21.{number}.0/24")}],
            [{"subnet": format!("fd21:{number}::/64")}],
        ],
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
    })
}

/// Waits until a server serves.
fn wait_for(network: &Network, url: &str) {
    let begun = Instant::now();
    let args = ["5", "busybox", "wget", "-q", "-O", "/dev/null", url];
    while !network
        .host
        .command("timeout")
        .args(args)
        .stderr(Stdio::null())
        .status()
        .unwrap()
        .success()
    {
        assert!(begun.elapsed() < SETTLE_LIMIT, "{url}");
        std::thread::sleep(SETTLE_RETRY);
    }
}

/// Two containers of the network reach each other and, where `by_host`, the host reaches them and they
/// it. `DEL` leaves what was there before the first `ADD`, but for what the plug-ins keep.
fn containers_reach_each_other(plugins: &[Value], by_host: bool, prepare: impl FnOnce(&Namespace)) {
    let mut vm = host();
    let network = Network::new(&vm, plugins);
    prepare(&network.host);
    let containers = [Container::new("c1"), Container::new("c2")];
    let empty: Vec<_> = containers.iter().map(|c| c.namespace.seen()).collect();
    // The first use makes what they all use, such as a bridge; what stays of that is the plug-ins'.
    let result = network.add(&containers[0]);
    network.del(&containers[0], &result);
    let (before, counts) = (network.host.seen(), network.host.counts());

    let results = containers.each_ref().map(|container| {
        let result = network.add(container);
        container.start(&vm);
        result
    });
    let [first, second] = &containers;
    for (from, to, result) in [(first, second, &results[1]), (second, first, &results[0])] {
        for address in addresses(result) {
            let url = format!("http://{address}:8080/page");
            if by_host {
                wait_for(&network, &url);
                assert_eq!(network.fetched(&url), to.page(), "{url}");
            }
            // Somebody may have to wait until it serves.
            wait_until(&url, || from.fetch(&vm, &url).code() == 0);
            assert_eq!(from.fetched(&vm, &url), to.page(), "{url}");
        }
    }
    for (container, result) in containers.iter().zip(&results) {
        vm.virtc(["delete", "--force", &container.id])
            .expect_code(0);
        network.del(container, result);
    }
    assert!(!network.is_leased());
    assert_eq!(network.host.counts(), counts);
    assert_eq!(network.host.seen(), before);
    for (container, empty) in containers.iter().zip(empty) {
        assert_eq!(container.namespace.seen(), empty);
    }
    vm.expect_nothing_left();
}

#[test]
fn containers_on_a_bridge_reach_each_other_and_the_host() {
    let bridge = json!({
        "type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true,
        "hairpinMode": true, "ipam": both_families(1),
    });
    containers_reach_each_other(&[bridge], true, |_| {});
}

#[test]
fn containers_of_ptp_reach_each_other_by_the_host() {
    let ptp = json!({"type": "ptp", "ipMasq": true, "ipam": both_families(2)});
    containers_reach_each_other(&[ptp], true, |host| {
        for key in ["net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"] {
            host.run("sysctl", &["-q", "-w", key]);
        }
    });
}

#[test]
fn containers_with_macvlans_reach_each_other() {
    let macvlan = json!({
        "type": "macvlan", "master": "uplink", "mode": "bridge", "ipam": both_families(3),
    });
    // A host does not reach the macvlans on its own link.
    containers_reach_each_other(&[macvlan], false, |host| {
        host.ip("link add uplink type veth peer name end");
        for link in ["uplink", "end"] {
            host.ip(&format!("link set {link} up"));
        }
    });
}

#[test]
fn a_port_that_portmap_publishes_is_reached() {
    let mut vm = host();
    let bridge = json!({
        "type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true,
        "ipam": both_families(4),
    });
    let portmap = json!({"type": "portmap", "capabilities": {"portMappings": true}, "snat": true});
    let network = Network::new(&vm, &[bridge, portmap]);
    // Somebody who is not on the host.
    let client = Namespace::new("client");
    let veth = format!("link add out type veth peer name uplink netns {}", client.0);
    network.host.ip(&veth);
    network.host.ip("link set out up");
    client.ip("link set uplink up");
    for (namespace, link, number) in [(&network.host, "out", 1), (&client, "uplink", 2)] {
        namespace.ip(&format!("addr add 10.22.0.{number}/24 dev {link}"));
        namespace.ip(&format!("addr add fd22::{number}/64 dev {link} nodad"));
    }
    let mut container = Container::new("c1");
    container.ports = json!([{"hostPort": 9090, "containerPort": 8080, "protocol": "tcp"}]);
    let result = network.add(&container);
    network.del(&container, &result);
    let (before, counts) = (network.host.seen(), network.host.counts());

    let result = network.add(&container);
    container.start(&vm);
    for address in addresses(&result) {
        wait_for(&network, &format!("http://{address}:8080/page"));
    }
    for host in ["10.22.0.1", "[fd22::1]"] {
        let url = format!("http://{host}:9090/page");
        let args = ["20", "busybox", "wget", "-q", "-O", "-", &url];
        assert_eq!(client.run("timeout", &args), container.page(), "{url}");
    }
    vm.virtc(["delete", "--force", "c1"]).expect_code(0);
    network.del(&container, &result);
    assert_eq!(network.host.counts(), counts);
    assert_eq!(network.host.seen(), before);
    vm.expect_nothing_left();
}
