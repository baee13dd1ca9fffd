//! A small VM: a guest program of a few bytes, and device processes that are threads.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{WaitId, WaitIdOptions, waitid};
use vc_hypervisor::qemu::{QemuConfig, QemuHypervisor};
use vc_hypervisor::{Accelerator, Disk, Hypervisor, Result, Share, Vm, VmSpec, Vsock};
use vc_launch::Launcher;
use vc_types::{ByteSize, SandboxId};

/// How long one test may take.
const TEST_LIMIT: Duration = Duration::from_secs(60);

/// What every guest prints first.
const BEGUN: u8 = b'.';

/// How often it is looked whether a guest has begun.
const BEGUN_LOOK: Duration = Duration::from_millis(2);

/// Why these tests cannot run here.
pub(crate) fn unmet_need() -> Option<String> {
    let config = QemuConfig::default();
    if !rustix::process::geteuid().is_root() {
        return Some("these tests change users and make namespaces, which needs root".into());
    }
    let missing = config
        .find_binary()
        .and_then(|_| config.find_firmware())
        .err();
    missing.map(|error| error.to_string())
}

/// What the guest does, in 32-bit code, once it has said [`BEGUN`].
#[derive(Clone, Copy, Debug)]
pub(crate) enum Guest {
    /// Nothing, for ever.
    Idle,
    /// Lets go of each device as soon as it is asked to, through ACPI's ports.
    LetsGo,
    /// Prints without an end.
    Prints,
    /// Resets the machine through the chip set.
    Resets,
    /// Switches the machine off through ACPI.
    SwitchesOff,
    /// Says that it panicked, through pvpanic.
    Panics,
}

/// Waits for half a second of the ACPI timer, which counts 3,579,545 a second in 24 bits.
const WAIT: &[u8] = &[
    // mov dx, 0x608; in eax, dx; mov ebx, eax
    0x66, 0xba, 0x08, 0x06, 0xed, 0x89, 0xc3,
    // loop: in eax, dx; sub eax, ebx; and eax, 0xffffff; cmp eax, 1789772; jb loop
    0xed, 0x29, 0xd8, 0x25, 0xff, 0xff, 0xff, 0x00, 0x3d, 0x4c, 0x4f, 0x1b, 0x00, 0x72, 0xf1,
];

impl Guest {
    fn code(self) -> Vec<u8> {
        let deeds: &[u8] = match self {
            // hlt; jmp back
            Self::Idle => &[0xf4, 0xeb, 0xfd],
            // xor ebx, ebx; loop: mov dx, 0xcd0; mov eax, ebx; out dx, eax: choose a bus
            // mov dx, 0xcc4; in eax, dx: what is to go; mov dx, 0xcc8; out dx, eax: it may
            // mov ecx, 8192; loop here: QEMU's other threads want its lock too
            // pause: QEMU frees what is gone only when the processor leaves its loop
            // inc ebx; and ebx, 63; jmp loop
            Self::LetsGo => &[
                0x31, 0xdb, 0x66, 0xba, 0xd0, 0x0c, 0x89, 0xd8, 0xef, 0x66, 0xba, 0xc4, 0x0c, 0xed,
                0x66, 0xba, 0xc8, 0x0c, 0xef, 0xb9, 0x00, 0x20, 0x00, 0x00, 0xe2, 0xfe, 0xf3, 0x90,
                0x43, 0x83, 0xe3, 0x3f, 0xeb, 0xe0,
            ],
            // mov dx, 0x3f8; loop: mov al, 'x'; out dx, al; mov al, '\n'; out dx, al; jmp loop
            Self::Prints => &[
                0x66, 0xba, 0xf8, 0x03, 0xb0, b'x', 0xee, 0xb0, b'\n', 0xee, 0xeb, 0xf8,
            ],
            // mov dx, 0xcf9; mov al, 6; out dx, al; hlt
            Self::Resets => &[0x66, 0xba, 0xf9, 0x0c, 0xb0, 0x06, 0xee, 0xf4],
            // mov dx, 0x604; mov ax, 0x2000; out dx, ax; hlt
            Self::SwitchesOff => &[
                0x66, 0xba, 0x04, 0x06, 0x66, 0xb8, 0x00, 0x20, 0x66, 0xef, 0xf4,
            ],
            // mov dx, 0x505; mov al, 1; out dx, al; hlt
            Self::Panics => &[0x66, 0xba, 0x05, 0x05, 0xb0, 0x01, 0xee, 0xf4],
        };
        // mov dx, 0x3f8; mov al, BEGUN; out dx, al
        let begins = &[0x66, 0xba, 0xf8, 0x03, 0xb0, BEGUN, 0xee];
        // QEMU tells nobody what its guest does before its monitor was greeted, which a busy host may come to late.
        let waits = match self {
            Self::Resets | Self::SwitchesOff | Self::Panics => WAIT,
            _ => &[],
        };
        [begins, waits, deeds].concat()
    }

    /// A kernel as the PVH protocol has it: an ELF file with a note that names the entry.
    fn kernel(self) -> Vec<u8> {
        const LOAD_ADDRESS: u64 = 0x10_0000;
        const CODE_AT: usize = 0x1000;
        const NOTE_AT: usize = 0x200;
        let mut elf = vec![0u8; 0x4000];
        let mut put = |at: usize, bytes: &[u8]| elf[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, b"\x7fELF\x02\x01\x01");
        put(0x10, &2u16.to_le_bytes()); // an executable
        put(0x12, &62u16.to_le_bytes()); // for x86-64
        put(0x14, &1u32.to_le_bytes());
        put(0x18, &LOAD_ADDRESS.to_le_bytes());
        put(0x20, &64u64.to_le_bytes()); // program headers
        put(0x34, &64u16.to_le_bytes());
        put(0x36, &56u16.to_le_bytes());
        put(0x38, &2u16.to_le_bytes());
        let mut segment = |index: usize, kind: u32, at: usize, len: u64, align: u64| {
            let header = 64 + index * 56;
            put(header, &kind.to_le_bytes());
            put(header + 4, &7u32.to_le_bytes());
            put(header + 8, &(at as u64).to_le_bytes());
            put(header + 16, &LOAD_ADDRESS.to_le_bytes());
            put(header + 24, &LOAD_ADDRESS.to_le_bytes());
            put(header + 32, &len.to_le_bytes());
            put(header + 40, &len.to_le_bytes());
            put(header + 48, &align.to_le_bytes());
        };
        segment(0, 1, CODE_AT, 0x1000, 0x1000);
        segment(1, 4, NOTE_AT, 24, 4);
        put(NOTE_AT, &4u32.to_le_bytes());
        put(NOTE_AT + 4, &8u32.to_le_bytes());
        put(NOTE_AT + 8, &18u32.to_le_bytes()); // the 32-bit entry
        put(NOTE_AT + 12, b"Xen\0");
        put(NOTE_AT + 16, &LOAD_ADDRESS.to_le_bytes());
        put(CODE_AT, &self.code());
        elf
    }
}

/// Where a test's VM lives, and what starts it.
pub(crate) struct Host {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) launcher: Arc<Launcher>,
}

impl Host {
    pub(crate) fn driver(&self) -> QemuHypervisor {
        self.driver_with(QemuConfig::default())
    }

    pub(crate) fn driver_with(&self, config: QemuConfig) -> QemuHypervisor {
        QemuHypervisor::new(config, Arc::clone(&self.launcher))
    }

    /// A VM with one device of every kind.
    pub(crate) fn spec(&self, guest: Guest) -> VmSpec {
        VmSpec {
            sandbox: SandboxId::new("test").unwrap(),
            directory: self.directory.path().to_owned(),
            largest: None,
            vcpus: 1,
            memory: ByteSize::from_mib(128),
            accelerator: Accelerator::Tcg,
            kernel: self.file("kernel", &guest.kernel()).into(),
            initrd: self.file("initrd", b"nothing").into(),
            kernel_params: Vec::new(),
            shares: vec![Share {
                tag: "share".into(),
                socket: vhost_user_device(),
            }],
            vsock: Vsock::VhostUser {
                socket: vhost_user_device(),
                host_socket: self.directory.path().join("vsock.sock"),
            },
            nics: Vec::new(),
            disks: vec![Disk {
                image: self.file("disk", &[0; 1 << 16]).into(),
                serial: "disk".into(),
                read_only: false,
                scratch: true,
            }],
            served_types: vc_hypervisor::ServedTypes::ByNumber,
            scratch_of_template: false,
            root_ports: 4,
            console_log: self.file("console.log", b""),
            vmm_log: self.file("qemu.log", b""),
            template: None,
        }
    }

    pub(crate) async fn launch(&self, guest: Guest) -> Result<Box<dyn Vm>> {
        self.driver().launch(self.spec(guest)).await
    }

    /// A VM whose guest runs: the firmware has given the buses their numbers, and QEMU's account of
    /// what is behind them changes with a test's own doings alone.
    pub(crate) async fn launch_begun(&self, guest: Guest) -> Result<Box<dyn Vm>> {
        let vm = self.launch(guest).await?;
        self.begun().await;
        Ok(vm)
    }

    /// Waits for the guest's first word, as long as the test may take.
    pub(crate) async fn begun(&self) {
        while !self.read("console.log").contains(&BEGUN) {
            tokio::time::sleep(BEGUN_LOOK).await;
        }
    }

    pub(crate) fn file(&self, name: &str, content: &[u8]) -> File {
        let path = self.directory.path().join(name);
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)
            .unwrap();
        file.write_all(content).unwrap();
        file
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.directory.path().join(name)).unwrap()
    }
}

/// Runs a test and then looks for what it left: a process or a socket.
pub(crate) fn test(body: impl AsyncFnOnce(&Host)) {
    let host = Host {
        directory: tempfile::tempdir().unwrap(),
        launcher: Arc::new(Launcher::start(Launcher::OWN_PROGRAM).unwrap()),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        tokio::time::timeout(TEST_LIMIT, body(&host))
            .await
            .expect("the test's time limit passed");
        // A dropped VM is ended in the background.
        let nothing_left = async {
            while has_children() || host.directory.path().join("qmp.sock").exists() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(5), nothing_left)
            .await
            .expect("a process or a socket is left");
    });
}

fn has_children() -> bool {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    !matches!(waitid(WaitId::All, options), Err(rustix::io::Errno::CHILD))
}

/// The first line of a process's status that begins with `key`.
pub(crate) fn status_of(pid: i32, key: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(key));
    line.unwrap().trim().to_owned()
}

pub(crate) fn link(pid: i32, name: &str) -> std::path::PathBuf {
    fs::read_link(Path::new("/proc").join(pid.to_string()).join(name)).unwrap()
}

/// The other end of a device that a thread serves: it says what QEMU must know before the guest
/// comes to use it.
fn vhost_user_device() -> std::os::fd::OwnedFd {
    let (qemus, mut ours) = UnixStream::pair().unwrap();
    std::thread::spawn(move || while serve(&mut ours).is_ok() {});
    qemus.into()
}

fn serve(socket: &mut UnixStream) -> std::io::Result<()> {
    const GET_FEATURES: u32 = 1;
    const GET_PROTOCOL_FEATURES: u32 = 15;
    const GET_CONFIG: u32 = 24;
    const VERSION_1_AND_PROTOCOL_FEATURES: u64 = 1 << 32 | 1 << 30;
    const CONFIG: u64 = 1 << 9;

    let mut header = [0; 12];
    socket.read_exact(&mut header)?;
    let number = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().unwrap());
    let (request, length) = (number(0), number(8));
    let mut payload = vec![0; length as usize];
    socket.read_exact(&mut payload)?;
    let answer = match request {
        GET_FEATURES => VERSION_1_AND_PROTOCOL_FEATURES.to_le_bytes().to_vec(),
        GET_PROTOCOL_FEATURES => CONFIG.to_le_bytes().to_vec(),
        GET_CONFIG => payload,
        _ => return Ok(()),
    };
    let length = u32::try_from(answer.len()).unwrap();
    let words = [request, 0x5, length].map(u32::to_le_bytes);
    socket.write_all(&[words.concat(), answer].concat())
}
