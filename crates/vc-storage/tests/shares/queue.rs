//! A guest of one page of code: vhost-user, and one virtqueue that is driven by hand.

use std::fs::File;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use vhost::vhost_user::{Frontend, VhostUserFrontend, VhostUserProtocolFeatures};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};
use vmm_sys_util::eventfd::EventFd;

/// How long an answer may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

const MEMORY_BYTES: usize = 4 << 20;
const QUEUE_SIZE: u16 = 16;
/// Queue 0 is for what must not wait behind requests.
const REQUESTS: usize = 1;

const DESCRIPTORS: GuestAddress = GuestAddress(0x1000);
const AVAILABLE: GuestAddress = GuestAddress(0x2000);
const USED: GuestAddress = GuestAddress(0x3000);
const REQUEST: GuestAddress = GuestAddress(0x10_0000);
const ANSWER: GuestAddress = GuestAddress(0x20_0000);
const ANSWER_BYTES: u32 = 1 << 20;

const F_VERSION_1: u64 = 1 << 32;
const F_PROTOCOL_FEATURES: u64 = 1 << 30;
const DESCRIPTOR_NEXT: u16 = 1;
const DESCRIPTOR_WRITE: u16 = 2;

pub(crate) struct Queue {
    _frontend: Frontend,
    memory: GuestMemoryMmap,
    /// Of each queue, how it is told of requests and how it tells of answers.
    bells: Vec<(EventFd, EventFd)>,
    sent: u16,
}

impl Queue {
    pub(crate) fn connect(socket: UnixStream) -> Self {
        let file: File = tempfile::tempfile().unwrap();
        file.set_len(MEMORY_BYTES as u64).unwrap();
        let backing = Some(FileOffset::new(file, 0));
        let range = (GuestAddress(0), MEMORY_BYTES, backing);
        let memory = GuestMemoryMmap::<()>::from_ranges_with_files([range]).unwrap();

        let mut frontend = Frontend::from_stream(socket, 2);
        frontend.set_owner().unwrap();
        let features = frontend.get_features().unwrap();
        frontend
            .set_features(features & (F_VERSION_1 | F_PROTOCOL_FEATURES))
            .unwrap();
        let protocol = frontend.get_protocol_features().unwrap();
        frontend
            .set_protocol_features(protocol & VhostUserProtocolFeatures::MQ)
            .unwrap();
        let regions: Vec<_> = memory
            .iter()
            .map(|region| VhostUserMemoryRegionInfo::from_guest_region(region).unwrap())
            .collect();
        frontend.set_mem_table(&regions).unwrap();

        let host = |at| memory.get_host_address(at).unwrap() as u64;
        let mut bells = Vec::new();
        for queue in [0, REQUESTS] {
            let (kick, call) = (EventFd::new(0).unwrap(), EventFd::new(0).unwrap());
            frontend.set_vring_num(queue, QUEUE_SIZE).unwrap();
            frontend.set_vring_base(queue, 0).unwrap();
            let offset = if queue == REQUESTS { 0 } else { 0x8000 };
            let rings = VringConfigData {
                queue_max_size: QUEUE_SIZE,
                queue_size: QUEUE_SIZE,
                flags: 0,
                desc_table_addr: host(DESCRIPTORS) + offset,
                used_ring_addr: host(USED) + offset,
                avail_ring_addr: host(AVAILABLE) + offset,
                log_addr: None,
            };
            frontend.set_vring_addr(queue, &rings).unwrap();
            frontend.set_vring_call(queue, &call).unwrap();
            frontend.set_vring_kick(queue, &kick).unwrap();
            frontend.set_vring_enable(queue, true).unwrap();
            bells.push((kick, call));
        }
        Self {
            _frontend: frontend,
            memory,
            bells,
            sent: 0,
        }
    }

    /// Sends one request and gives the bytes of its answer.
    pub(crate) fn ask(&mut self, request: &[u8]) -> Vec<u8> {
        self.memory.write_slice(request, REQUEST).unwrap();
        self.descriptor(0, REQUEST, request.len() as u32, DESCRIPTOR_NEXT);
        self.descriptor(1, ANSWER, ANSWER_BYTES, DESCRIPTOR_WRITE);
        let slot = u64::from(self.sent % QUEUE_SIZE);
        self.write(AVAILABLE.0 + 4 + slot * 2, 0u16);
        self.sent = self.sent.wrapping_add(1);
        self.write(AVAILABLE.0 + 2, self.sent);
        self.bells[REQUESTS].0.write(1).unwrap();

        let deadline = Instant::now() + ANSWER_LIMIT;
        while self.read::<u16>(USED.0 + 2) != self.sent {
            assert!(Instant::now() < deadline, "the share does not answer");
            std::thread::sleep(Duration::from_micros(50));
        }
        let length = self.read::<u32>(USED.0 + 4 + slot * 8 + 4);
        let mut answer = vec![0; length as usize];
        self.memory.read_slice(&mut answer, ANSWER).unwrap();
        answer
    }

    fn descriptor(&self, index: u64, at: GuestAddress, length: u32, flags: u16) {
        let base = DESCRIPTORS.0 + index * 16;
        self.write(base, at.0);
        self.write(base + 8, length);
        self.write(base + 12, flags);
        self.write(base + 14, 1u16);
    }

    fn write<T: vm_memory::ByteValued>(&self, at: u64, value: T) {
        self.memory.write_obj(value, GuestAddress(at)).unwrap();
    }

    fn read<T: vm_memory::ByteValued>(&self, at: u64) -> T {
        self.memory.read_obj(GuestAddress(at)).unwrap()
    }
}
