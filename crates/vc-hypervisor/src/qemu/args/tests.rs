use vc_types::{ByteSize, VmSize};

use super::*;
use crate::mock;
use crate::spec::SHARES_BY_CLASS_MAX;

/// Bytes that a kernel for x86 takes.
const KERNEL_COMMAND_LINE_BYTES_MAX: usize = 2_047;

/// What the driver shares with QEMU.
fn driver() -> DriverFds {
    let null = || mock::null().unwrap();
    DriverFds {
        events: null(),
        commands: null(),
        console: null(),
    }
}

/// What a template and its clones share with it besides.
fn of_template() -> TemplateFds {
    TemplateFds {
        memory: mock::null().unwrap(),
        port: mock::null().unwrap(),
    }
}

fn host(kernel_params: &[String]) -> HostPart<'_> {
    HostPart {
        firmware: Path::new("/usr/share/qemu/qboot.rom"),
        tcg: accel::Tcg {
            multi: true,
            buffer_mib: 128,
        },
        kernel_params,
    }
}

pub(in crate::qemu) fn line(change: impl FnOnce(&mut VmSpec)) -> String {
    line_with(None, change)
}

fn line_with(of_template: Option<TemplateFds>, change: impl FnOnce(&mut VmSpec)) -> String {
    let mut spec = mock::spec("web1").unwrap();
    change(&mut spec);
    let params = ["console=ttyS0".into(), "quiet".into()];
    let line = command_line(spec, driver(), host(&params), of_template);
    let numbers: Vec<_> = line.fds.iter().map(|fd| fd.used_as).collect();
    let expected: Vec<_> = (FIRST_DESCRIPTOR..)
        .take(numbers.len())
        .map(vc_launch::DescriptorUse::Number)
        .collect();
    assert_eq!(numbers, expected, "each descriptor has the next number");
    line.args.join(" ").replace(" -", "\n-")
}

fn share(tag: &str) -> Share {
    Share {
        tag: tag.into(),
        socket: mock::null().unwrap(),
    }
}

#[test]
fn tcg_with_everything_of_a_throw_away_vm() {
    insta::assert_snapshot!(line(|spec| {
        spec.vcpus = 2;
        spec.root_ports = 4;
        spec.shares = vec![share("virtc-system"), share("virtc-user")];
        spec.disks = vec![Disk {
            image: mock::null().unwrap(),
            serial: "virtc-scratch".into(),
            read_only: false,
            scratch: true,
        }];
        spec.kernel_params = vec!["virtc.ready_port=1027".into()];
    }));
}

#[test]
fn a_clone_has_what_processes_serve_later_and_its_links_to_them_at_once() {
    insta::assert_snapshot!(line_with(Some(of_template()), |spec| {
        spec.root_ports = 1;
        spec.shares = vec![share("virtc-system")];
    }));
}

#[test]
fn a_clone_has_its_templates_scratch_disk_where_that_has_it_and_others_later() {
    let disk = |serial: &str, scratch| Disk {
        image: mock::null().unwrap(),
        serial: serial.into(),
        read_only: false,
        scratch,
    };
    let mut spec = mock::spec("web1").unwrap();
    spec.disks = vec![disk("virtc-scratch", true), disk("root", false)];
    let devices = |line: CommandLine| {
        let late = line.late.unwrap_or_default();
        let commands = late.commands();
        let plugged = commands.iter().map(|c| serde_json::to_string(c).unwrap());
        let early = line.args.into_iter();
        let early = early.filter(|arg| arg.starts_with("virtio-blk"));
        let plugged = plugged.filter(|command| command.contains("virtio-blk"));
        early.chain(plugged).collect::<Vec<_>>()
    };
    spec.scratch_of_template = true;
    let image = Some(mock::null().unwrap());
    let template = Machine::template_for(&spec, of_template(), image, None).unwrap();
    let of_the_template = devices(CommandLine::of(template, driver(), host(&[])));
    let of_a_clone = devices(command_line(spec, driver(), host(&[]), Some(of_template())));
    assert_eq!(of_the_template, of_a_clone[..1]);
    assert!(of_a_clone[0].ends_with("bus=pcie.0,addr=0x03"));
    assert_eq!(of_a_clone.len(), 2);
    assert!(of_a_clone[1].contains("disk1"), "{}", of_a_clone[1]);
}

#[test]
fn what_the_guest_knows_by_its_class_is_the_same_in_a_template_and_its_clones() {
    let mut spec = mock::spec("web1").unwrap();
    spec.served_types = ServedTypes::ByClass;
    spec.shares = vec![share("virtc-system"), share("virtc-user")];
    let served = Served {
        vsock: mock::null().unwrap(),
        shares: vec![share("virtc-system"), share("virtc-user")],
    };
    let template = Machine::template_for(&spec, of_template(), None, Some(served)).unwrap();
    let mut template = CommandLine::of(template, driver(), host(&[])).args;
    let clone = command_line(spec, driver(), host(&[]), Some(of_template()));
    template.extend(["-incoming", "defer", "-S"].map(str::to_owned));
    assert_eq!(clone.args, template);
    assert!(clone.late.unwrap().commands().is_empty());
    let shown = template.iter().filter(|arg| {
        arg.contains("vhost-user") || arg.contains("=share") || arg.contains("type_by_class")
    });
    insta::assert_snapshot!(shown.cloned().collect::<Vec<_>>().join("\n"));
}

fn growth(vcpus: u32, mib: u32) -> Growth {
    let size = VmSize {
        vcpus,
        memory: ByteSize::from_mib(mib),
    };
    Growth {
        first: size,
        largest: size,
    }
}

#[test]
fn what_it_can_grow_to_is_known_from_its_start() {
    let sized = |accelerator| {
        let line = line(|spec| {
            spec.accelerator = accelerator;
            spec.largest = Some(growth(4, 8192).first);
        });
        let told = ["-smp", "-m ", "-append"];
        let told = line
            .lines()
            .filter(|line| told.iter().any(|option| line.starts_with(option)));
        told.collect::<Vec<_>>().join("\n")
    };
    let sizes = "-smp 1,maxcpus=4\n-m 512M,slots=1,maxmem=8192M\n-append console=ttyS0 quiet \
                 memhp_default_state=online_movable swiotlb=1024";
    assert_eq!(sized(Accelerator::Kvm), sizes);
    let told = format!("{sizes} acpi.hotplug_cpus=1");
    assert_eq!(sized(Accelerator::Tcg), told);
}

#[test]
fn kvm_with_the_kernels_vsock_and_many_ports() {
    insta::assert_snapshot!(line(|spec| {
        spec.accelerator = Accelerator::Kvm;
        spec.root_ports = 16;
        spec.vsock = Vsock::Vhost {
            device: mock::null().unwrap(),
            cid: 4711,
        };
    }));
}

#[test]
fn a_disk_that_is_kept_and_one_for_reading() {
    let disk = |serial: &str, read_only| Disk {
        image: mock::null().unwrap(),
        serial: serial.into(),
        read_only,
        scratch: false,
    };
    let line = line(|spec| spec.disks = vec![disk("data", false), disk("image", true)]);
    let disks: Vec<_> = line.lines().filter(|line| line.contains("disk")).collect();
    insta::assert_snapshot!(disks.join("\n"));
}

#[test]
fn the_longest_kernel_command_line_fits() {
    for accelerator in [Accelerator::Kvm, Accelerator::Tcg] {
        let own = accel::kernel_params(
            accelerator,
            &crate::HostDevices::default(),
            std::num::NonZeroU32::new(u32::MAX),
        );
        let growth = Growth {
            first: growth(1, 128).first,
            largest: growth(240, 4096).first,
        };
        let of_template = TEMPLATE_PARAMS.map(str::to_owned).into_iter();
        let of_template = of_template.chain([type_by_class()]).collect();
        let growing = resize::kernel_params(growth, accelerator);
        let own: Vec<_> = [own, growing, of_template].concat();
        let all = own.join(" ").len() + crate::qemu::CAPABILITIES.kernel_params_bytes_max;
        assert!(all <= KERNEL_COMMAND_LINE_BYTES_MAX);
    }
}

#[test]
fn the_largest_vm_has_a_place_for_each_device() {
    const {
        let max = &crate::qemu::CAPABILITIES;
        assert!(slot::FIRST_DISK + max.disks_max <= slot::FIRST_SHARE);
        assert!(slot::FIRST_SHARE + max.shares_max <= slot::FIRST_NIC);
        assert!(slot::FIRST_SHARE_BY_CLASS + SHARES_BY_CLASS_MAX <= slot::FIRST_NIC);
        let nics = max.nics_max.div_ceil(FUNCTIONS_PER_SLOT);
        assert!(slot::FIRST_NIC + nics <= slot::FIRST_ROOT_PORT);
        let ports = (max.root_ports_max as usize).div_ceil(FUNCTIONS_PER_SLOT);
        assert!(slot::FIRST_ROOT_PORT + ports <= 31);
    }
}
