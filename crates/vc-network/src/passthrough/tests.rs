use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::{Arc, Mutex};

use tempfile::TempDir;

use super::sysfs::Attributes;
use super::*;
use crate::link::Link;
use crate::namespace::MadeNamespace;
use crate::{LinkAddress, MacAddress, Scan};

const CARD: &str = "0000:03:00.0";
const NEIGHBOUR: &str = "0000:03:00.1";
const BRIDGE: &str = "0000:00:1c.0";

/// A made-up sysfs, with a card of the driver `e1000e` in the IOMMU group 7.
struct Host {
    temp: TempDir,
    devices: HostDevices,
    kernel: Arc<FakeKernel>,
}

/// Does what the kernel does when it is told.
struct FakeKernel {
    root: PathBuf,
    written: Mutex<Vec<String>>,
    /// Drivers that take nothing.
    broken: Mutex<Vec<&'static str>>,
}

impl Attributes for FakeKernel {
    fn write(&self, file: &Path, value: &str) -> io::Result<()> {
        let name = file.file_name().unwrap().to_str().unwrap();
        let file_name = format!("{name}={}", value.trim());
        self.written.lock().unwrap().push(file_name);
        let device = |address: &str| self.root.join("bus/pci/devices").join(address);
        match name {
            "driver_override" => fs::write(file, value),
            "unbind" => fs::remove_file(device(value).join("driver")),
            "drivers_probe" => {
                let chosen = fs::read_to_string(device(value).join("driver_override"))?;
                self.take(&device(value), chosen.trim())
            }
            "bind" => {
                let driver = file.parent().unwrap().file_name().unwrap();
                self.take(&device(value), driver.to_str().unwrap())
            }
            other => panic!("{other} is written"),
        }
    }
}

impl FakeKernel {
    fn take(&self, device: &Path, driver: &str) -> io::Result<()> {
        if driver.is_empty() || self.broken.lock().unwrap().contains(&driver) {
            return Err(io::ErrorKind::NotFound.into());
        }
        symlink(format!("../../drivers/{driver}"), device.join("driver"))
    }
}

impl Host {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().join("sys");
        for driver in ["e1000e", "vfio-pci", "pcieport"] {
            fs::create_dir_all(root.join("bus/pci/drivers").join(driver)).unwrap();
        }
        fs::create_dir_all(root.join("kernel/iommu_groups/7/devices")).unwrap();
        let vfio = temp.path().join("vfio");
        fs::create_dir(&vfio).unwrap();
        fs::write(vfio.join("7"), "").unwrap();
        let kernel = Arc::new(FakeKernel {
            root: root.clone(),
            written: Mutex::default(),
            broken: Mutex::default(),
        });
        let devices = HostDevices::at(&root, vfio).with(kernel.clone());
        let host = Self {
            temp,
            devices,
            kernel,
        };
        host.add(CARD, "0x020000", Some("e1000e"));
        host
    }

    fn path(&self, below: &str) -> PathBuf {
        self.temp.path().join("sys").join(below)
    }

    fn add(&self, address: &str, class: &str, driver: Option<&str>) {
        let device = self.path("bus/pci/devices").join(address);
        fs::create_dir_all(&device).unwrap();
        fs::write(device.join("class"), class).unwrap();
        fs::write(device.join("driver_override"), "(null)\n").unwrap();
        symlink("../../../kernel/iommu_groups/7", device.join("iommu_group")).unwrap();
        let group = self.path("kernel/iommu_groups/7/devices").join(address);
        symlink(format!("../../../../bus/pci/devices/{address}"), group).unwrap();
        if let Some(driver) = driver {
            symlink(format!("../../drivers/{driver}"), device.join("driver")).unwrap();
        }
    }

    fn driver(&self) -> Option<String> {
        self.devices.driver_of(CARD.parse().unwrap()).unwrap()
    }

    fn plan(&self, endpoint: &Endpoint) -> Result<Passthrough> {
        let own = Namespace::open_any("/proc/thread-self/ns/net".into()).unwrap();
        Passthrough::plan(self.devices.clone(), &own, endpoint)
    }

    fn refused(&self, endpoint: &Endpoint) -> String {
        let before = self.driver();
        let error = self.plan(endpoint).unwrap_err().to_string();
        assert_eq!(self.driver(), before);
        assert!(self.kernel.written.lock().unwrap().is_empty(), "{error}");
        error
    }
}

fn link(bus: Option<&str>, device: Option<&str>) -> Link {
    Link {
        index: 7,
        name: "eth7".parse().unwrap(),
        kind: LinkKind::Physical {
            bus: bus.map(str::to_owned),
            device: device.map(str::to_owned),
        },
        mac: Some("02:00:00:00:00:07".parse().unwrap()),
        mtu: 1500,
        up: true,
        no_arp: false,
        queues: 1,
        addresses: Vec::new(),
        link_local: Vec::new(),
    }
}

fn card() -> Endpoint {
    Endpoint::new(link(Some("pci"), Some(CARD))).unwrap()
}

fn own_group() -> u32 {
    rustix::process::getegid().as_raw()
}

#[test]
fn a_card_is_bound_and_given_back_to_its_driver() {
    let host = Host::new();
    let plan = host.plan(&card()).unwrap();
    let devices = host.devices.clone().with_group("7");
    assert_eq!(plan.address().to_string(), CARD);
    let group = plan.bind(own_group()).unwrap();
    assert_eq!(host.driver().as_deref(), Some("vfio-pci"));
    let metadata = fs::metadata(&group).unwrap();
    assert!(group.ends_with("vfio/7"), "{}", group.display());
    assert_eq!(metadata.permissions().mode() & 0o777, 0o660);
    assert_eq!(metadata.gid(), own_group());

    // By what a state file says.
    let text = serde_json::to_string(plan.undo()).unwrap();
    let undo: PassthroughUndo = serde_json::from_str(&text).unwrap();
    assert_eq!(undo, *plan.undo());
    undo.rebind(&devices).unwrap();
    assert_eq!(host.driver().as_deref(), Some("e1000e"));
    let mode = fs::metadata(&group).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let chosen = host.devices.driver_override(CARD.parse().unwrap()).unwrap();
    assert_eq!(chosen, None);
    let written = host.kernel.written.lock().unwrap().clone();
    undo.rebind(&devices).unwrap();
    // Nothing was left to do, but to say again that no driver is chosen.
    assert_eq!(host.kernel.written.lock().unwrap().len(), written.len() + 1);
    let card = format!("={CARD}");
    let expected = [
        "driver_override=vfio-pci".to_owned(),
        format!("unbind{card}"),
        format!("drivers_probe{card}"),
        "driver_override=".to_owned(),
        format!("unbind{card}"),
        format!("bind{card}"),
    ];
    assert_eq!(written, expected);
}

#[test]
fn a_card_is_given_back_from_each_step() {
    type Step = fn(&Host);
    let card: fn() -> PciAddress = || CARD.parse().unwrap();
    let steps: [Step; 4] = [
        |_| {},
        |host| {
            host.devices
                .set_driver_override(CARD.parse().unwrap(), VFIO)
                .unwrap()
        },
        |host| host.devices.unbind(CARD.parse().unwrap()).unwrap(),
        |host| host.devices.probe(CARD.parse().unwrap()).unwrap(),
    ];
    for count in 1..=steps.len() {
        let host = Host::new();
        let plan = host.plan(&self::card()).unwrap();
        for step in &steps[..count] {
            step(&host);
        }
        plan.undo().rebind(&host.devices).unwrap();
        assert_eq!(host.driver().as_deref(), Some("e1000e"), "{count}");
        assert_eq!(host.devices.driver_override(card()).unwrap(), None);
    }
    // A card that is gone is nobody's.
    let host = Host::new();
    let plan = host.plan(&self::card()).unwrap();
    fs::remove_dir_all(host.path("bus/pci/devices")).unwrap();
    plan.undo().rebind(&host.devices).unwrap();
}

#[test]
fn a_card_that_no_driver_had_has_none_again_and_a_choice_stays() {
    let host = Host::new();
    fs::remove_file(host.path("bus/pci/devices/0000:03:00.0/driver")).unwrap();
    fs::write(
        host.path("bus/pci/devices/0000:03:00.0/driver_override"),
        "nobody\n",
    )
    .unwrap();
    let plan = host.plan(&card()).unwrap();
    plan.bind(own_group()).unwrap();
    plan.undo().rebind(&host.devices).unwrap();
    assert_eq!(host.driver(), None);
    let chosen = host.devices.driver_override(CARD.parse().unwrap()).unwrap();
    assert_eq!(chosen.as_deref(), Some("nobody"));
}

#[test]
fn a_card_that_vfio_does_not_take_is_its_drivers_again() {
    let host = Host::new();
    *host.kernel.broken.lock().unwrap() = vec!["vfio-pci"];
    let plan = host.plan(&card()).unwrap();
    assert!(plan.bind(own_group()).is_err());
    assert_eq!(host.driver().as_deref(), Some("e1000e"));
    // One that nobody takes at all is given back later.
    *host.kernel.broken.lock().unwrap() = vec!["vfio-pci", "e1000e"];
    assert!(plan.bind(own_group()).is_err());
    assert_eq!(host.driver(), None);
    host.kernel.broken.lock().unwrap().clear();
    plan.undo().rebind(&host.devices).unwrap();
    assert_eq!(host.driver().as_deref(), Some("e1000e"));
    // And one that nobody takes is an error.
    let host = Host::new();
    let plan = host.plan(&card()).unwrap();
    plan.bind(own_group()).unwrap();
    *host.kernel.broken.lock().unwrap() = vec!["e1000e"];
    let error = plan.undo().rebind(&host.devices).unwrap_err().to_string();
    assert!(error.contains(CARD), "{error}");
}

#[test]
fn a_group_is_free_or_refused_by_the_device_in_the_way() {
    let host = Host::new();
    host.add(BRIDGE, "0x060400", Some("pcieport"));
    host.add(NEIGHBOUR, "0x020000", None);
    host.plan(&card()).unwrap();
    let driver = host.path("bus/pci/devices").join(NEIGHBOUR).join("driver");
    // Also where another machine has it.
    for used in ["vfio-pci", "e1000e"] {
        symlink(format!("../../drivers/{used}"), &driver).unwrap();
        let error = host.refused(&card());
        for named in ["eth7", CARD, NEIGHBOUR, "group 7", used] {
            assert!(error.contains(named), "{named}: {error}");
        }
        fs::remove_file(&driver).unwrap();
    }
}

#[test]
fn a_card_with_another_link_is_refused() {
    let host = Host::new();
    let links = host.path("bus/pci/devices/0000:03:00.0/net");
    let add = |name: &str, mac: &str| {
        fs::create_dir_all(links.join(name)).unwrap();
        fs::write(links.join(name).join("address"), format!("{mac}\n")).unwrap();
    };
    add("eth7", "02:00:00:00:00:07");
    host.plan(&card()).unwrap();
    // One of its name in the host's network.
    add("eth7", "02:00:00:00:00:08");
    assert!(host.refused(&card()).contains("its link eth7"));
    add("eth7", "02:00:00:00:00:07");
    add("eth8", "02:00:00:00:00:08");
    let error = host.refused(&card());
    assert!(error.contains(CARD) && error.contains("eth8"), "{error}");
}

#[test]
fn what_cannot_be_passed_is_refused_with_the_reason() {
    let host = Host::new();
    let on_virtio = Endpoint::new(link(Some("virtio"), Some("virtio0"))).unwrap();
    assert!(host.refused(&on_virtio).contains("the bus virtio"));
    let mut veth = link(None, None);
    veth.kind = LinkKind::Veth;
    assert!(
        host.refused(&Endpoint::new(veth).unwrap())
            .contains("none of a card")
    );
    let strange = Endpoint::new(link(Some("pci"), Some("../x"))).unwrap();
    assert!(
        host.refused(&strange)
            .contains("no address of a PCI device")
    );

    let functions = host.path("bus/pci/devices/0000:03:00.0/sriov_numvfs");
    fs::write(&functions, "2\n").unwrap();
    assert!(host.refused(&card()).contains("2 virtual functions"));
    fs::remove_file(functions).unwrap();
    fs::remove_dir(host.path("bus/pci/drivers/vfio-pci")).unwrap();
    assert!(host.refused(&card()).contains("modprobe vfio-pci"));
    fs::create_dir(host.path("bus/pci/drivers/vfio-pci")).unwrap();
    fs::remove_file(host.path("bus/pci/devices/0000:03:00.0/iommu_group")).unwrap();
    assert!(host.refused(&card()).contains("no IOMMU"));
}

#[test]
fn a_card_is_found_by_sysfs_where_the_kernel_does_not_say_it() {
    let host = Host::new();
    let unknown = Endpoint::new(link(None, None)).unwrap();
    assert!(host.refused(&unknown).contains("knows no PCI device"));
    let class = host.path("class/net/eth7");
    fs::create_dir_all(&class).unwrap();
    symlink(
        format!("../../../bus/pci/devices/{CARD}"),
        class.join("device"),
    )
    .unwrap();
    fs::write(class.join("address"), "02:00:00:00:00:08\n").unwrap();
    assert!(host.refused(&unknown).contains("knows no PCI device"));
    fs::write(class.join("address"), "02:00:00:00:00:07\n").unwrap();
    assert_eq!(host.plan(&unknown).unwrap().address().to_string(), CARD);
}

#[test]
fn its_link_is_given_back_with_its_name_and_addresses() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: network namespaces need root");
        return;
    }
    let host = Host::new();
    let made = |name: &str| MadeNamespace::plan(host.temp.path(), name).unwrap();
    let (first, own) = (made("first"), made("own"));
    let (network, namespace) = (first.make().unwrap(), own.make().unwrap());
    let mut card = link(None, None);
    let mac: MacAddress = card.mac.unwrap();
    card.addresses = ["10.7.0.2/24", "fd07::2/64"]
        .map(|cidr| LinkAddress {
            cidr: cidr.parse().unwrap(),
            peer: None,
            without_route: false,
        })
        .to_vec();
    let plan = Passthrough::plan(host.devices.clone(), &namespace, &self::card()).unwrap();
    *host.kernel.broken.lock().unwrap() = vec!["vfio-pci"];
    assert!(plan.bind(own_group()).is_err());
    assert_eq!(host.driver().as_deref(), Some("e1000e"));
    // What a driver makes when it gets its card again, also where that was never bound.
    let (there, here) = ("there".parse().unwrap(), "made0".parse().unwrap());
    let mut netlink = namespace.netlink().unwrap();
    link::make_veth(&mut netlink, &there, &here, mac, network.as_fd()).unwrap();
    fs::create_dir_all(host.path("bus/pci/devices/0000:03:00.0/net/made0")).unwrap();
    let undo = PassthroughUndo {
        namespace: namespace.id(),
        link: card.clone(),
        ..plan.undo().clone()
    };
    // Another namespace gets nothing.
    undo.give_link_back(&host.devices, &network, Some(&network))
        .unwrap();
    assert!(link::by_name(&mut netlink, &card.name).unwrap().is_none());
    for _ in 0..2 {
        undo.give_link_back(&host.devices, &network, Some(&namespace))
            .unwrap();
        let scan = Scan::of(&namespace).unwrap();
        let [back] = scan.links.as_slice() else {
            panic!("{scan:?}");
        };
        assert_eq!(
            (&back.name, back.mac, back.up),
            (&card.name, card.mac, true)
        );
        assert_eq!(back.addresses, card.addresses);
    }
    for made in [first, own] {
        made.delete().unwrap();
    }
}
