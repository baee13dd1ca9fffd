//! The guest's transmit queue: packets that the guest sends.

use tracing::debug;
use virtio_queue::{Queue, QueueT};
use vm_memory::GuestMemoryMmap;

use crate::guest_buffer::GuestPacket;
use crate::limits::PACKETS_PER_TURN_MAX;
use crate::muxer::Muxer;

/// What a turn of a queue did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Turn {
    /// Buffers that were given back to the guest.
    pub(crate) used: usize,
    /// There is more to do now.
    pub(crate) more: bool,
}

/// Handles packets until none is left, the turn is over, or the answers to the guest wait for
/// its receive buffers; in the last case the receive queue's next event goes on here.
pub(crate) fn transmit(queue: &mut Queue, memory: &GuestMemoryMmap, muxer: &mut Muxer) -> Turn {
    let mut turn = Turn::default();
    // A queue outside guest memory, or whose index jumps, stays as it is: the guest's own loss.
    let _ = queue.disable_notification(memory);
    while turn.used < PACKETS_PER_TURN_MAX {
        if !muxer.takes_packets() {
            return turn;
        }
        let Some(chain) = queue.pop_descriptor_chain(memory) else {
            match queue.enable_notification(memory) {
                // One came between the two looks, unless the index is nonsense.
                Ok(true) if has_next(queue, memory) => continue,
                _ => return turn,
            }
        };
        let head = chain.head_index();
        match GuestPacket::read(memory, chain) {
            Ok(packet) => muxer.guest_packet(&packet),
            Err(malformed) => debug!(what = malformed.0, "the guest sent no packet"),
        }
        if queue.add_used(memory, head, 0).is_err() {
            return turn;
        }
        turn.used += 1;
    }
    turn.more = true;
    turn
}

/// Whether the queue has a chain that can be taken.
pub(crate) fn has_next(queue: &Queue, memory: &GuestMemoryMmap) -> bool {
    queue
        .avail_idx(memory, std::sync::atomic::Ordering::Acquire)
        .is_ok_and(|index| (1..=queue.size()).contains(&(index.0.wrapping_sub(queue.next_avail()))))
}
