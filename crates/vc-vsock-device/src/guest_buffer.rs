//! Buffers in guest memory: what a descriptor chain points to, checked.
//!
//! The header is copied out once. Data stays where it is, and goes to a socket or comes from one
//! without a copy; the guest may change it meanwhile, which only changes its own bytes.

use std::io;
use std::mem::zeroed;
use std::os::fd::{AsRawFd, BorrowedFd};

use virtio_queue::DescriptorChain;
use vm_memory::{GuestMemory, GuestMemoryMmap, Permissions, VolatileSlice};

use crate::limits::PACKET_DESCRIPTORS_MAX;
use crate::packet::{HEADER_BYTES, Header};

/// Why a chain of descriptors is no packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) &'static str);

/// Pieces of guest memory that belong together.
#[derive(Debug, Default)]
pub(crate) struct Pieces<'a>(Vec<VolatileSlice<'a>>);

/// A packet that the guest sends.
#[derive(Debug)]
pub(crate) struct GuestPacket<'a> {
    /// Its header, as it was when it was read.
    pub(crate) header: Header,
    /// As many bytes as the header says.
    pub(crate) data: Pieces<'a>,
}

/// A buffer that the guest gives for a packet.
#[derive(Debug)]
pub(crate) struct GuestBuffer<'a> {
    /// The chain's first descriptor.
    pub(crate) head: u16,
    header: VolatileSlice<'a>,
    /// The room for data.
    pub(crate) data: Pieces<'a>,
}

impl<'a> GuestPacket<'a> {
    /// Reads the packet of a chain of the transmit queue.
    ///
    /// # Errors
    ///
    /// [`Malformed`] when it has not the form of a packet or lies outside guest memory.
    pub(crate) fn read(
        memory: &'a GuestMemoryMmap,
        chain: DescriptorChain<&'a GuestMemoryMmap>,
    ) -> Result<Self, Malformed> {
        let (slot, mut data) = split_header(memory, chain, Permissions::Read)?;
        let mut bytes = [0; HEADER_BYTES];
        slot.copy_to(&mut bytes[..]);
        let header = Header::from_bytes(&bytes);
        let len = header.len as usize;
        if len > data.len() {
            return Err(Malformed("less data than the header says"));
        }
        data.truncate(len);
        Ok(Self { header, data })
    }
}

impl<'a> GuestBuffer<'a> {
    /// Looks at a chain of the receive queue.
    ///
    /// # Errors
    ///
    /// [`Malformed`] when it cannot take a packet or lies outside guest memory.
    pub(crate) fn new(
        memory: &'a GuestMemoryMmap,
        chain: DescriptorChain<&'a GuestMemoryMmap>,
    ) -> Result<Self, Malformed> {
        let head = chain.head_index();
        let (header, data) = split_header(memory, chain, Permissions::Write)?;
        Ok(Self { head, header, data })
    }

    /// Writes the header; the data was written before. Returns the packet's length.
    pub(crate) fn finish(&self, header: &Header) -> u32 {
        self.header.copy_from(&header.to_bytes()[..]);
        header.len.saturating_add(HEADER_BYTES as u32)
    }
}

/// The first descriptor's beginning, which holds the header, and all that follows.
fn split_header<'a>(
    memory: &'a GuestMemoryMmap,
    chain: DescriptorChain<&'a GuestMemoryMmap>,
    access: Permissions,
) -> Result<(VolatileSlice<'a>, Pieces<'a>), Malformed> {
    let writable = access == Permissions::Write;
    let mut header = None;
    let mut data = Vec::new();
    for (count, descriptor) in chain.enumerate() {
        if count >= PACKET_DESCRIPTORS_MAX {
            return Err(Malformed("too many descriptors"));
        }
        if descriptor.is_write_only() != writable {
            return Err(Malformed("a descriptor of the wrong direction"));
        }
        if descriptor.len() == 0 {
            continue;
        }
        let slices = memory
            .get_slices(descriptor.addr(), descriptor.len() as usize, access)
            .map_err(|_| Malformed("an address outside guest memory"))?;
        for slice in slices {
            let slice = slice.map_err(|_| Malformed("an address outside guest memory"))?;
            if header.is_some() {
                data.push(slice);
                continue;
            }
            let (start, rest) = slice
                .split_at(HEADER_BYTES)
                .map_err(|_| Malformed("a first descriptor too short for the header"))?;
            header = Some(start);
            if !rest.is_empty() {
                data.push(rest);
            }
        }
    }
    let header = header.ok_or(Malformed("no descriptor"))?;
    Ok((header, Pieces(data)))
}

impl<'a> Pieces<'a> {
    /// Bytes of all pieces. A chain has less than 4 GiB.
    pub(crate) fn len(&self) -> usize {
        self.0.iter().map(VolatileSlice::len).sum()
    }

    /// Keeps the first `len` bytes.
    pub(crate) fn truncate(&mut self, len: usize) {
        let mut left = len;
        self.0.retain_mut(|piece| {
            let keep = piece.len().min(left);
            left -= keep;
            if keep < piece.len()
                && let Ok(shorter) = piece.subslice(0, keep)
            {
                *piece = shorter;
            }
            keep > 0
        });
    }

    /// Adds the pieces of another.
    pub(crate) fn extend(&mut self, other: &Pieces<'a>) {
        self.0.extend_from_slice(&other.0);
    }

    /// Gives the bytes from `start` on, in order, in parts of a few KiB.
    pub(crate) fn copy_from(&self, start: usize, mut take: impl FnMut(&[u8])) {
        let mut part = [0; 4096];
        let mut skip = start;
        for piece in &self.0 {
            let mut at = skip.min(piece.len());
            skip -= at;
            while let Ok(rest) = piece.offset(at)
                && !rest.is_empty()
            {
                let count = rest.copy_to(&mut part[..]);
                take(&part[..count]);
                at += count;
            }
        }
    }

    /// Writes to a socket as much as it takes at once.
    ///
    /// # Errors
    ///
    /// What `sendmsg` says; `WouldBlock` when the socket is full.
    pub(crate) fn send(&self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        let mut parts = self.io_parts();
        let message = message(&mut parts);
        // SAFETY: every part lies in guest memory that is mapped as long as `self` borrows it,
        // and the message and its parts live until the call returns.
        let sent = unsafe {
            libc::sendmsg(
                socket.as_raw_fd(),
                &raw const message,
                libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT,
            )
        };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }

    /// Reads from a socket what it has, as far as there is room; 0 is the end.
    ///
    /// # Errors
    ///
    /// What `recvmsg` says; `WouldBlock` when the socket has nothing.
    pub(crate) fn receive(&self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        let mut parts = self.io_parts();
        let mut message = message(&mut parts);
        // SAFETY: as for `send`; writing is sound since nothing in this process holds a
        // reference to guest memory.
        let received =
            unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) };
        usize::try_from(received).map_err(|_| io::Error::last_os_error())
    }

    fn io_parts(&self) -> Vec<libc::iovec> {
        self.0
            .iter()
            .map(|piece| libc::iovec {
                iov_base: piece.ptr_guard_mut().as_ptr().cast(),
                iov_len: piece.len(),
            })
            .collect()
    }
}

fn message(parts: &mut [libc::iovec]) -> libc::msghdr {
    // SAFETY: all zero is a valid `msghdr`: no name, no parts, no control data.
    let mut message: libc::msghdr = unsafe { zeroed() };
    message.msg_iov = parts.as_mut_ptr();
    message.msg_iovlen = parts.len() as _;
    message
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use proptest::prelude::*;
    use virtio_queue::{Queue, QueueT};
    use vm_memory::{Bytes, GuestAddress};

    use super::*;

    const MEMORY_BYTES: usize = 0x8000;
    const ENTRIES: u16 = 16;

    type Descriptor = (u64, u32, u16, u16);

    /// A queue whose first chain begins at `head`, in memory that counts its bytes.
    fn queue(descriptors: &[Descriptor], head: u16) -> (GuestMemoryMmap, Queue) {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEMORY_BYTES)]).unwrap();
        let bytes: Vec<u8> = (0..MEMORY_BYTES).map(|at| at as u8).collect();
        memory.write_slice(&bytes, GuestAddress(0)).unwrap();
        for (index, &(address, len, flags, next)) in (0u64..).zip(descriptors) {
            let at = index * 16;
            memory.write_obj(address, GuestAddress(at)).unwrap();
            memory.write_obj(len, GuestAddress(at + 8)).unwrap();
            memory.write_obj(flags, GuestAddress(at + 12)).unwrap();
            memory.write_obj(next, GuestAddress(at + 14)).unwrap();
        }
        memory.write_obj(1u16, GuestAddress(0x1002)).unwrap();
        memory.write_obj(head, GuestAddress(0x1004)).unwrap();
        let mut queue = Queue::new(ENTRIES).unwrap();
        queue
            .try_set_avail_ring_address(GuestAddress(0x1000))
            .unwrap();
        queue
            .try_set_used_ring_address(GuestAddress(0x2000))
            .unwrap();
        queue.set_ready(true);
        (memory, queue)
    }

    #[test]
    fn pieces_are_cut_sent_and_received_in_order() {
        let parts: [Descriptor; 4] = [
            (0x4000, 50, 3, 1),
            (0x5000, 0, 3, 2),
            (0x6010, 30, 3, 3),
            (0x7020, 30, 2, 0),
        ];
        let (memory, mut queue) = queue(&parts, 0);
        let chain = queue.pop_descriptor_chain(&memory).unwrap();
        let mut data = GuestBuffer::new(&memory, chain).unwrap().data;
        assert_eq!(data.len(), 66);
        data.truncate(40);
        let expected: Vec<u8> = (44..50).chain(0x10..0x10 + 30).chain(0x20..0x24).collect();
        let mut copied = Vec::new();
        data.copy_from(0, |part| copied.extend_from_slice(part));
        assert_eq!(copied, expected);
        copied.clear();
        data.copy_from(7, |part| copied.extend_from_slice(part));
        assert_eq!(copied, expected[7..]);

        let (here, there) = UnixStream::pair().unwrap();
        assert_eq!(data.send(here.as_fd()).unwrap(), 40);
        memory
            .write_slice(&[0; 0x4000], GuestAddress(0x4000))
            .unwrap();
        assert_eq!(data.receive(there.as_fd()).unwrap(), 40);
        copied.clear();
        data.copy_from(0, |part| copied.extend_from_slice(part));
        assert_eq!(copied, expected);
    }

    proptest! {
        #[test]
        fn any_descriptors_are_a_packet_or_malformed(
            descriptors in prop::collection::vec(
                (
                    prop_oneof![0..0x9000u64, any::<u64>()],
                    prop_oneof![0..200u32, any::<u32>()],
                    0..8u16,
                    0..20u16,
                ),
                ENTRIES as usize,
            ),
            head in 0..20u16,
        ) {
            let (memory, mut queue) = queue(&descriptors, head);
            if let Some(chain) = queue.pop_descriptor_chain(&memory) {
                if let Ok(packet) = GuestPacket::read(&memory, chain.clone()) {
                    prop_assert_eq!(packet.data.len(), packet.header.len as usize);
                }
                if let Ok(buffer) = GuestBuffer::new(&memory, chain) {
                    prop_assert!(buffer.data.0.len() <= PACKET_DESCRIPTORS_MAX);
                }
            }
        }
    }
}
