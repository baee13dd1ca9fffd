//! The guest's receive queue: buffers that the guest gives for packets to it.

use rustix::fd::AsFd;
use tracing::debug;
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::GuestMemoryMmap;

use crate::connection::ForGuest;
use crate::guest_buffer::{GuestBuffer, Pieces};
use crate::limits::{BUFFERS_PER_READ_MAX, PACKETS_PER_TURN_MAX};
use crate::muxer::{Muxer, is_passing};
use crate::packet::{Header, Op};
use crate::table::{SlotId, Stage};
use crate::transmit::{Turn, has_next};

/// The queue with the memory that its buffers lie in.
struct Buffers<'a, 'm> {
    queue: &'a mut Queue,
    memory: &'m GuestMemoryMmap,
    used: usize,
}

/// What became of one connection's turn.
enum Served {
    /// It has nothing for the guest now.
    Idle,
    /// It may have more.
    Again,
    /// The guest gives no buffers; its next notification goes on.
    NoBuffer,
}

/// Fills the guest's buffers with what waits for it, connection by connection, until nothing
/// waits, no buffer is left, or the turn is over.
pub(crate) fn receive(queue: &mut Queue, memory: &GuestMemoryMmap, muxer: &mut Muxer) -> Turn {
    let _ = queue.disable_notification(memory);
    let mut buffers = Buffers {
        queue,
        memory,
        used: 0,
    };
    // A turn without a buffer used is one that found a socket empty: they count too.
    for _ in 0..PACKETS_PER_TURN_MAX {
        if buffers.used >= PACKETS_PER_TURN_MAX {
            break;
        }
        let served = if let Some(answer) = muxer.answers.front() {
            match buffers.take() {
                Some(buffer) => {
                    buffers.finish(&buffer, answer);
                    muxer.answers.pop_front();
                    continue;
                }
                None => Served::NoBuffer,
            }
        } else if let Some(&id) = muxer.work.front() {
            serve(id, &mut buffers, muxer)
        } else {
            return Turn {
                used: buffers.used,
                more: false,
            };
        };
        match served {
            Served::NoBuffer => {
                return Turn {
                    used: buffers.used,
                    more: false,
                };
            }
            Served::Idle | Served::Again => muxer.next_connection(),
        }
    }
    Turn {
        used: buffers.used,
        more: true,
    }
}

/// Sends one packet of a connection, or one read of its socket.
fn serve(id: SlotId, buffers: &mut Buffers<'_, '_>, muxer: &mut Muxer) -> Served {
    let guest_cid = muxer.guest_cid;
    let Some(slot) = muxer.table.get(id) else {
        return Served::Idle;
    };
    let Stage::Stream(ports, connection) = &mut slot.stage else {
        return Served::Idle;
    };
    let (next, ports) = (connection.next_for_guest(), *ports);
    match next {
        None => Served::Idle,
        Some(ForGuest::Control(op, flags)) => {
            let Some(buffer) = buffers.take() else {
                return Served::NoBuffer;
            };
            let mut header = Header::to_guest(guest_cid, ports, op);
            connection.sent_control(op, flags, &mut header);
            buffers.finish(&buffer, &header);
            Served::Again
        }
        Some(ForGuest::Data { max }) => {
            let Some(socket) = &slot.socket else {
                return Served::Idle;
            };
            let batch = buffers.take_room(max as usize);
            if batch.is_empty() {
                return Served::NoBuffer;
            }
            let mut room = Pieces::default();
            batch.iter().for_each(|buffer| room.extend(&buffer.data));
            room.truncate(max as usize);
            let mut left = match room.receive(socket.as_fd()) {
                Ok(count) => count,
                Err(error) if is_passing(&error) => {
                    connection.host_drained();
                    buffers.put_back(batch.len());
                    return Served::Again;
                }
                Err(_) => {
                    connection.host_deaf();
                    0
                }
            };
            if left == 0 {
                connection.host_eof();
                buffers.put_back(batch.len());
                return Served::Again;
            }
            let mut filled = 0;
            for buffer in &batch {
                if left == 0 {
                    break;
                }
                let len = buffer.data.len().min(left);
                left -= len;
                let mut header = Header::to_guest(guest_cid, ports, Op::Data);
                connection.sent_data(u32::try_from(len).unwrap_or(u32::MAX), &mut header);
                buffers.finish(buffer, &header);
                filled += 1;
            }
            buffers.put_back(batch.len() - filled);
            Served::Again
        }
    }
}

impl Muxer {
    /// The first connection in the queue has had its turn.
    fn next_connection(&mut self) {
        if let Some(id) = self.work.pop_front() {
            if let Some(slot) = self.table.get(id) {
                slot.queued = false;
            }
            self.settle(id);
        }
    }

    /// Whether something waits for the guest's buffers.
    pub(crate) fn has_work(&self) -> bool {
        !self.work.is_empty() || !self.answers.is_empty()
    }
}

impl<'m> Buffers<'_, 'm> {
    /// Takes a buffer. When there is none, the guest will notify when it gives one.
    fn take(&mut self) -> Option<GuestBuffer<'m>> {
        // Each useless buffer goes back to the guest; it has no more than the queue's size.
        for _ in 0..=self.queue.size() {
            match self.pop()? {
                Ok(buffer) => return Some(buffer),
                Err(head) => self.give(head, 0),
            }
        }
        None
    }

    /// Takes buffers with room for data, up to `bytes` or as many as one read fills.
    fn take_room(&mut self, bytes: usize) -> Vec<GuestBuffer<'m>> {
        let mut batch = Vec::new();
        let mut room = 0;
        for _ in 0..=self.queue.size() {
            if room >= bytes || batch.len() >= BUFFERS_PER_READ_MAX {
                break;
            }
            match if batch.is_empty() {
                self.pop()
            } else {
                self.pop_quietly()
            } {
                None => break,
                Some(Ok(buffer)) if buffer.data.len() > 0 => {
                    room += buffer.data.len();
                    batch.push(buffer);
                }
                // A useless one is given back only when none before it may still be put back.
                Some(useless) if batch.is_empty() => match useless {
                    Ok(buffer) => self.give(buffer.head, 0),
                    Err(head) => self.give(head, 0),
                },
                Some(_) => {
                    self.put_back(1);
                    break;
                }
            }
        }
        batch
    }

    /// The last `count` buffers that were taken are not needed.
    fn put_back(&mut self, count: usize) {
        for _ in 0..count {
            self.queue.go_to_previous_position();
        }
    }

    /// Gives a buffer with a packet to the guest.
    fn finish(&mut self, buffer: &GuestBuffer<'_>, header: &Header) {
        let len = buffer.finish(header);
        self.give(buffer.head, len);
    }

    fn give(&mut self, head: u16, len: u32) {
        // It fails when the guest put its queue outside its memory: the guest's own loss.
        let _ = self.queue.add_used(self.memory, head, len);
        self.used += 1;
    }

    /// Takes a buffer, and asks for a notification when there is none.
    fn pop(&mut self) -> Option<Result<GuestBuffer<'m>, u16>> {
        self.pop_quietly().or_else(|| {
            let again = matches!(self.queue.enable_notification(self.memory), Ok(true));
            if again && has_next(self.queue, self.memory) {
                self.pop_quietly()
            } else {
                None
            }
        })
    }

    fn pop_quietly(&mut self) -> Option<Result<GuestBuffer<'m>, u16>> {
        let chain = self.queue.pop_descriptor_chain(self.memory)?;
        let head = chain.head_index();
        Some(GuestBuffer::new(self.memory, chain).map_err(|malformed| {
            debug!(
                what = malformed.0,
                "the guest gave a useless receive buffer"
            );
            head
        }))
    }
}
