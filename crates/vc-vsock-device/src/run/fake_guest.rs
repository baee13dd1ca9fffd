//! A VMM and a guest's driver in one: the vhost-user frontend, memory that both sides map, and
//! two queues that are driven by hand.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use vhost::vhost_user::message::VhostUserProtocolFeatures;
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use virtio_bindings::bindings::virtio_config::VIRTIO_F_VERSION_1;
use vm_memory::{
    Bytes, FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion,
    MemoryRegionAddress,
};
use vmm_sys_util::eventfd::EventFd;

use crate::packet::{HEADER_BYTES, HOST_CID, Header, Op, Ports, TYPE_STREAM};
use crate::{Options, Result, run};

pub(super) const GUEST_CID: u64 = 3;
pub(super) const LIMIT: Duration = Duration::from_secs(10);
const MEMORY_BYTES: usize = 4 << 20;
const ENTRIES: u16 = 64;
/// Where a queue's parts lie: descriptors, available ring, used ring, buffers.
const QUEUE_BYTES: u64 = 1 << 20;
const AVAILABLE: u64 = 0x1000;
const USED: u64 = 0x2000;
const BUFFERS: u64 = 0x4000;
const BUFFER_BYTES: u64 = 8192;
const NEXT: u16 = 1;
const WRITE: u16 = 2;

pub(super) struct FakeGuest {
    pub(super) dir: TempDir,
    frontend: Frontend,
    memory: GuestMemoryMmap,
    queues: [FakeQueue; 2],
    device: JoinHandle<Result<()>>,
    pub(super) buf_alloc: u32,
    pub(super) fwd_cnt: u32,
}

struct FakeQueue {
    base: u64,
    available: u16,
    used: u16,
    kick: EventFd,
    call: EventFd,
}

impl FakeQueue {
    fn new(number: u64) -> Self {
        Self {
            base: number * QUEUE_BYTES,
            available: 0,
            used: 0,
            kick: EventFd::new(0).unwrap(),
            call: EventFd::new(0).unwrap(),
        }
    }
}

impl FakeGuest {
    pub(super) fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = Options {
            vhost_socket: UnixListener::bind(dir.path().join("vhost")).unwrap().into(),
            host_socket: UnixListener::bind(dir.path().join("vsock.sock"))
                .unwrap()
                .into(),
            guest_cid: GUEST_CID,
            upcall_dir: File::open(dir.path()).unwrap().into(),
        };
        let mut frontend = Frontend::connect(dir.path().join("vhost"), 3).unwrap();
        let device = std::thread::spawn(|| run(options));

        let file = tempfile::tempfile().unwrap();
        file.set_len(MEMORY_BYTES as u64).unwrap();
        let range = (
            GuestAddress(0),
            MEMORY_BYTES,
            Some(FileOffset::new(file, 0)),
        );
        let memory = GuestMemoryMmap::from_ranges_with_files([range]).unwrap();

        frontend.set_owner().unwrap();
        let features = frontend.get_features().unwrap();
        let wanted = 1 << VIRTIO_F_VERSION_1 | 1 << 30;
        assert_eq!(features & wanted, wanted);
        frontend.get_protocol_features().unwrap();
        let protocol = VhostUserProtocolFeatures::CONFIG | VhostUserProtocolFeatures::MQ;
        frontend.set_protocol_features(protocol).unwrap();
        frontend.set_features(wanted).unwrap();
        let region = memory.iter().next().unwrap();
        let region = VhostUserMemoryRegionInfo::from_guest_region(region).unwrap();
        frontend.set_mem_table(&[region]).unwrap();

        let queues = [FakeQueue::new(0), FakeQueue::new(1)];
        let mut guest = Self {
            dir,
            frontend,
            memory,
            queues,
            device,
            buf_alloc: 1 << 20,
            fwd_cnt: 0,
        };
        guest.start_queues();
        guest
    }

    fn start_queues(&mut self) {
        let host = self
            .memory
            .iter()
            .next()
            .unwrap()
            .get_host_address(MemoryRegionAddress(0))
            .unwrap() as u64;
        for (number, queue) in self.queues.iter().enumerate() {
            let config = VringConfigData {
                queue_max_size: ENTRIES,
                queue_size: ENTRIES,
                flags: 0,
                desc_table_addr: host + queue.base,
                used_ring_addr: host + queue.base + USED,
                avail_ring_addr: host + queue.base + AVAILABLE,
                log_addr: None,
            };
            self.frontend.set_vring_num(number, ENTRIES).unwrap();
            self.frontend
                .set_vring_base(number, queue.available.min(queue.used))
                .unwrap();
            self.frontend.set_vring_addr(number, &config).unwrap();
            self.frontend.set_vring_call(number, &queue.call).unwrap();
            self.frontend.set_vring_kick(number, &queue.kick).unwrap();
        }
        for number in 0..self.queues.len() {
            self.frontend.set_vring_enable(number, true).unwrap();
        }
    }

    fn stop_queues(&mut self) {
        for number in 0..self.queues.len() {
            self.frontend.set_vring_enable(number, false).unwrap();
            self.frontend.get_vring_base(number).unwrap();
        }
    }

    /// What a VMM does when it pauses a guest and lets it go on.
    pub(super) fn pause(&mut self) {
        self.stop_queues();
        self.start_queues();
    }

    /// What a VMM does when a guest's driver starts anew.
    pub(super) fn restart(&mut self) {
        self.stop_queues();
        for (number, queue) in (0..).zip(&mut self.queues) {
            *queue = FakeQueue::new(number);
            self.memory
                .write_slice(&[0; BUFFERS as usize], GuestAddress(queue.base))
                .unwrap();
        }
        self.start_queues();
    }

    fn put<T: vm_memory::ByteValued>(&self, value: T, at: u64) {
        self.memory.write_obj(value, GuestAddress(at)).unwrap();
    }

    fn offer(&mut self, number: usize, head: u16) {
        let queue = &mut self.queues[number];
        let slot = queue.base + AVAILABLE + 4 + u64::from(queue.available % ENTRIES) * 2;
        queue.available = queue.available.wrapping_add(1);
        let (index, at) = (queue.available, queue.base + AVAILABLE + 2);
        self.put(head, slot);
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        self.put(index, at);
        self.queues[number].kick.write(1).unwrap();
    }

    fn descriptor(&self, queue: u64, index: u16, address: u64, len: u32, flags: u16) {
        let at = queue + u64::from(index) * 16;
        self.put(address, at);
        self.put(len, at + 8);
        self.put(flags, at + 12);
        self.put(index + 1, at + 14);
    }

    /// Gives `count` receive buffers with room for `room` bytes of data.
    pub(super) fn give(&mut self, count: u16, room: u32) {
        for _ in 0..count {
            let base = self.queues[0].base;
            let head = self.queues[0].available % ENTRIES;
            let address = base + BUFFERS + u64::from(head) * BUFFER_BYTES;
            self.descriptor(base, head, address, HEADER_BYTES as u32 + room, WRITE);
            self.offer(0, head);
        }
    }

    /// The next packet for the guest, or none when the device has sent none for `limit`.
    pub(super) fn receive_within(&mut self, limit: Duration) -> Option<(Header, Vec<u8>)> {
        let (head, len) = self.used(0, limit)?;
        let address = self.queues[0].base + BUFFERS + u64::from(head) * BUFFER_BYTES;
        let mut bytes = vec![0; len as usize];
        self.memory
            .read_slice(&mut bytes, GuestAddress(address))
            .unwrap();
        let header = Header::from_bytes(bytes[..HEADER_BYTES].try_into().unwrap());
        let data = bytes.split_off(HEADER_BYTES);
        assert_eq!((header.src_cid, header.dst_cid), (HOST_CID, GUEST_CID));
        assert_eq!(header.len as usize, data.len());
        Some((header, data))
    }

    pub(super) fn receive(&mut self) -> (Header, Vec<u8>) {
        self.receive_within(LIMIT).expect("a packet in time")
    }

    /// The next packet, which must be `op`.
    pub(super) fn expect(&mut self, op: Op) -> Header {
        let (header, _) = self.receive();
        assert_eq!(header.op, Some(op));
        header
    }

    fn used(&mut self, number: usize, limit: Duration) -> Option<(u16, u32)> {
        let queue = &self.queues[number];
        let end = Instant::now() + limit;
        loop {
            let index: u16 = self
                .memory
                .read_obj(GuestAddress(queue.base + USED + 2))
                .unwrap();
            if index != queue.used {
                break;
            }
            if Instant::now() > end {
                return None;
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        let at = queue.base + USED + 4 + u64::from(queue.used % ENTRIES) * 8;
        let head: u32 = self.memory.read_obj(GuestAddress(at)).unwrap();
        let len: u32 = self.memory.read_obj(GuestAddress(at + 4)).unwrap();
        self.queues[number].used = queue.used.wrapping_add(1);
        Some((u16::try_from(head).unwrap(), len))
    }

    /// Sends a packet and waits until the device has taken it. Data lies in two descriptors.
    pub(super) fn send(&mut self, ports: Ports, op: Op, flags: u32, data: &[u8]) {
        assert!(
            self.send_within(ports, op, flags, data, LIMIT),
            "the device took no packet"
        );
    }

    pub(super) fn send_within(
        &mut self,
        ports: Ports,
        op: Op,
        flags: u32,
        data: &[u8],
        limit: Duration,
    ) -> bool {
        let header = Header {
            src_cid: GUEST_CID,
            dst_cid: HOST_CID,
            src_port: ports.guest,
            dst_port: ports.host,
            len: u32::try_from(data.len()).unwrap(),
            kind: TYPE_STREAM,
            op: Some(op),
            flags,
            buf_alloc: self.buf_alloc,
            fwd_cnt: self.fwd_cnt,
        };
        self.put_packet(&header.to_bytes(), data);
        self.used(1, limit).is_some()
    }

    /// Sends a packet with any header and waits until the device has taken it.
    pub(super) fn send_raw(&mut self, header: &[u8], data: &[u8]) {
        self.put_packet(header, data);
        self.used(1, LIMIT).expect("a packet is taken");
    }

    fn put_packet(&mut self, header: &[u8], data: &[u8]) {
        let base = self.queues[1].base;
        let address = base + BUFFERS;
        self.memory
            .write_slice(header, GuestAddress(address))
            .unwrap();
        self.memory
            .write_slice(data, GuestAddress(address + 0x1000))
            .unwrap();
        let half = u32::try_from(data.len() / 2).unwrap();
        let rest = u32::try_from(data.len()).unwrap() - half;
        let len = u32::try_from(header.len()).unwrap();
        self.descriptor(
            base,
            0,
            address,
            len,
            if data.is_empty() { 0 } else { NEXT },
        );
        self.descriptor(base, 1, address + 0x1000, half, NEXT);
        self.descriptor(base, 2, address + 0x1000 + u64::from(half), rest, 0);
        self.offer(1, 0);
    }

    /// Puts a chain of any descriptors `(address, len, flags)` into a queue.
    pub(super) fn offer_raw(&mut self, number: usize, descriptors: &[(u64, u32, u16)]) {
        let base = self.queues[number].base;
        for (index, &(address, len, flags)) in (0..).zip(descriptors) {
            self.descriptor(base, index, address, len, flags);
        }
        self.offer(number, 0);
        self.used(number, LIMIT).expect("a chain comes back");
    }

    pub(super) fn path(&self, name: &str) -> std::path::PathBuf {
        Path::new(self.dir.path()).join(name)
    }

    /// A host program that has asked for a port and not read the answer.
    pub(super) fn connect(&self, port: u32) -> UnixStream {
        let mut stream = UnixStream::connect(self.path("vsock.sock")).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        writeln!(stream, "CONNECT {port}").unwrap();
        stream
    }

    /// A connection that the guest accepted.
    pub(super) fn connected(&mut self, port: u32) -> (UnixStream, Ports) {
        let mut stream = self.connect(port);
        let request = self.expect(Op::Request);
        assert_eq!(request.dst_port, port);
        let ports = Ports {
            host: request.src_port,
            guest: port,
        };
        self.send(ports, Op::Response, 0, &[]);
        let mut line = vec![0; format!("OK {}\n", ports.host).len()];
        stream.read_exact(&mut line).unwrap();
        assert_eq!(line, format!("OK {}\n", ports.host).as_bytes());
        (stream, ports)
    }

    /// The VMM ends; gives what the device says.
    pub(super) fn end(self) -> Result<()> {
        drop(self.frontend);
        self.device.join().unwrap()
    }
}
