//! The device as vhost-user sees it: features, configuration, rings, and the turns of the event
//! loop.
//!
//! One worker thread of the vhost-user crate does all the work here; the thread that talks to the
//! VMM only changes rings, under the same locks. No call waits: what cannot go on now goes on at
//! the next event of a ring or of a socket.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use rustix::event::{EventfdFlags, epoll, eventfd};
use rustix::fd::OwnedFd;
use rustix::time::Timespec;
use vhost::vhost_user::message::{VhostUserProtocolFeatures, VhostUserVirtioFeatures};
use vhost_user_backend::{ShutdownHandle, VhostUserBackend, VringRwLock, VringT};
use virtio_bindings::bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::bindings::virtio_ring::{
    VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC,
};
use virtio_queue::{Queue, QueueT};
use vm_memory::{GuestAddressSpace, GuestMemoryAtomic, GuestMemoryMmap};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::event::{
    EventConsumer, EventFlag, EventNotifier, new_event_consumer_and_notifier,
};

use crate::error::Error;
use crate::limits::{DRAIN_TIMEOUT, HOST_EVENTS_MAX, QUEUE_ENTRIES_MAX, TURNS_MAX};
use crate::muxer::Muxer;
use crate::receive::receive;
use crate::transmit::{Turn, transmit};

/// The receive queue's number.
const RECEIVE: usize = 0;
/// The transmit queue's number.
const TRANSMIT: usize = 1;
/// Queues, the event queue included. QEMU keeps that one where it knows the device, and tells the guest itself
/// when its connections are gone after a migration; where the guest knows the device by its class, and with
/// another VMM, it comes here and stays unused.
const QUEUES: usize = 3;

/// The event number of the muxer's epoll; the vhost-user crate keeps those up to [`QUEUES`].
pub(crate) const HOST_EVENT: u64 = QUEUES as u64 + 1;

/// What the muxer's epoll carries when a turn was left unfinished.
const UNFINISHED: u64 = u64::MAX - 1;

type Ring = VringRwLock<GuestMemoryAtomic<GuestMemoryMmap>>;

/// The device behind its lock.
pub(crate) struct Device {
    state: Mutex<State>,
    guest_cid: u64,
    /// Ends the connection to the VMM, and so the process, when the worker cannot go on.
    end: OnceLock<ShutdownHandle>,
    failure: OnceLock<Error>,
}

#[derive(Debug)]
struct State {
    muxer: Muxer,
    memory: Option<GuestMemoryAtomic<GuestMemoryMmap>>,
    /// How far receive and transmit queue were, and whether the VMM stopped them there.
    rings: [RingState; 2],
    unfinished: OwnedFd,
}

#[derive(Debug, Clone, Copy, Default)]
struct RingState {
    next_avail: u16,
    stopped: bool,
}

impl Device {
    /// The device of a muxer whose guest has not started.
    ///
    /// # Errors
    ///
    /// What `eventfd` or `epoll_ctl` say.
    pub(crate) fn new(muxer: Muxer) -> rustix::io::Result<Self> {
        let unfinished = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let data = epoll::EventData::new_u64(UNFINISHED);
        epoll::add(muxer.epoll(), &unfinished, data, epoll::EventFlags::IN)?;
        let guest_cid = muxer.guest_cid;
        let rings = [RingState::default(); 2];
        let state = Mutex::new(State {
            muxer,
            memory: None,
            rings,
            unfinished,
        });
        Ok(Self {
            state,
            guest_cid,
            end: OnceLock::new(),
            failure: OnceLock::new(),
        })
    }

    /// Says how to end when the worker fails.
    pub(crate) fn set_end(&self, end: Option<ShutdownHandle>) {
        if let Some(end) = end {
            let _ = self.end.set(end.clone());
            if self.failure.get().is_some() {
                end.shutdown();
            }
        }
    }

    /// Why the worker failed, after it has ended.
    pub(crate) fn into_failure(self: Arc<Self>) -> Option<Error> {
        Arc::into_inner(self).and_then(|device| device.failure.into_inner())
    }

    fn fail(&self, error: Error) {
        let _ = self.failure.set(error);
        if let Some(end) = self.end.get() {
            end.shutdown();
        }
    }

    /// The VMM has gone: gives host programs that are slow a last chance to read what the guest
    /// sent.
    pub(crate) fn drain(&self) {
        let mut state = self.state();
        state.muxer.guest_restarted();
        let end = Instant::now() + DRAIN_TIMEOUT;
        while state.muxer.holds_data() {
            let left = end.saturating_duration_since(Instant::now());
            let Ok(left) = Timespec::try_from(left) else {
                return;
            };
            if (left.tv_sec, left.tv_nsec) == (0, 0) || state.host_events(left).is_err() {
                return;
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic under this lock ends the worker; what the VMM's thread does then is harmless.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Takes turns between the queues until neither gets further.
    fn run(&mut self, rings: &[Ring]) {
        let (Some(receive_ring), Some(transmit_ring)) = (rings.get(RECEIVE), rings.get(TRANSMIT))
        else {
            return;
        };
        if !self.rings_run([receive_ring, transmit_ring]) {
            return;
        }
        for _ in 0..TURNS_MAX {
            let sent = self.turn(transmit_ring, TRANSMIT, transmit);
            let received = if self.muxer.has_work() {
                self.turn(receive_ring, RECEIVE, receive)
            } else {
                Turn::default()
            };
            // Answers that were taken make room for packets that waited for it.
            if !sent.more && !received.more && received.used == 0 {
                return;
            }
        }
        let _ = rustix::io::write(&self.unfinished, &1u64.to_ne_bytes());
    }

    fn turn(
        &mut self,
        ring: &Ring,
        number: usize,
        queue_turn: fn(&mut Queue, &GuestMemoryMmap, &mut Muxer) -> Turn,
    ) -> Turn {
        let Some(memory) = &self.memory else {
            return Turn::default();
        };
        let memory = memory.memory();
        let mut ring = ring.get_mut();
        if !ring.is_enabled() || !ring.get_queue().ready() {
            return Turn::default();
        }
        let queue = ring.get_queue_mut();
        let turn = queue_turn(queue, &memory, &mut self.muxer);
        self.rings[number].next_avail = queue.next_avail();
        if turn.used > 0 && queue.needs_notification(&*memory).unwrap_or(true) {
            // An eventfd cannot fail but by being full, and then the guest is notified already.
            let _ = ring.signal_used_queue();
        }
        turn
    }

    /// Whether both rings run. A VMM stops them when it pauses the guest and when the guest
    /// resets the device; only after a pause they go on where they were.
    fn rings_run(&mut self, rings: [&Ring; 2]) -> bool {
        let mut restarted = false;
        for (state, ring) in self.rings.iter().zip(rings) {
            let ring = ring.get_ref();
            if !ring.is_enabled() || !ring.get_queue().ready() {
                return false;
            }
            restarted |= state.stopped && ring.get_queue().next_avail() != state.next_avail;
        }
        for state in &mut self.rings {
            state.stopped = false;
        }
        if restarted {
            tracing::info!("the guest's driver started anew");
            self.muxer.guest_restarted();
        }
        true
    }

    /// Handles the events of the host's side, waiting for the first up to `limit`.
    fn host_events(&mut self, limit: Timespec) -> rustix::io::Result<()> {
        let mut events = Vec::with_capacity(HOST_EVENTS_MAX);
        let epoll = self.muxer.epoll();
        match epoll::wait(
            epoll,
            rustix::buffer::spare_capacity(&mut events),
            Some(&limit),
        ) {
            Err(rustix::io::Errno::INTR) => return Ok(()),
            other => other?,
        };
        for event in events {
            match event.data.u64() {
                UNFINISHED => {
                    let _ = rustix::io::read(&self.unfinished, &mut [0; 8]);
                }
                token => self.muxer.host_event(token, event.flags),
            }
        }
        Ok(())
    }
}

impl VhostUserBackend for Device {
    type Bitmap = ();
    type Vring = Ring;

    fn num_queues(&self) -> usize {
        QUEUES
    }

    fn max_queue_size(&self) -> usize {
        QUEUE_ENTRIES_MAX
    }

    fn features(&self) -> u64 {
        1 << VIRTIO_F_VERSION_1
            | 1 << VIRTIO_RING_F_EVENT_IDX
            | 1 << VIRTIO_RING_F_INDIRECT_DESC
            | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits()
    }

    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        VhostUserProtocolFeatures::CONFIG
            | VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::REPLY_ACK
    }

    fn set_event_idx(&self, _enabled: bool) {
        // The rings know it themselves.
    }

    fn get_config(&self, offset: u32, size: u32) -> Vec<u8> {
        configuration(self.guest_cid, offset, size)
    }

    fn update_memory(&self, memory: GuestMemoryAtomic<GuestMemoryMmap>) -> io::Result<()> {
        self.state().memory = Some(memory);
        Ok(())
    }

    fn exit_event(&self, _thread_index: usize) -> Option<(EventConsumer, EventNotifier)> {
        new_event_consumer_and_notifier(EventFlag::CLOEXEC | EventFlag::NONBLOCK).ok()
    }

    fn stop_vring(&self, queue_index: u32) -> io::Result<()> {
        // No request is ever under way outside the lock.
        if let Some(ring) = self.state().rings.get_mut(queue_index as usize) {
            ring.stopped = true;
        }
        Ok(())
    }

    fn handle_event(
        &self,
        event: u16,
        _events: EventSet,
        rings: &[Ring],
        _thread: usize,
    ) -> io::Result<()> {
        let _end = EndOnPanic(self);
        let mut state = self.state();
        if u64::from(event) == HOST_EVENT
            && let Err(error) = state.host_events(Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            })
        {
            self.fail(Error::system("wait for the host's events")(error));
        }
        state.run(rings);
        Ok(())
    }
}

/// As many bytes of the configuration as are asked for: QEMU may take the device for a disk, which has more.
fn configuration(guest_cid: u64, offset: u32, size: u32) -> Vec<u8> {
    let own = guest_cid.to_le_bytes().into_iter().skip(offset as usize);
    let padded = own.chain(std::iter::repeat(0));
    padded.take(size as usize).collect()
}

/// Ends the device when its worker panics: half a device must not look like a whole one.
struct EndOnPanic<'a>(&'a Device);

impl Drop for EndOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail(Error::Worker);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_is_as_long_as_it_is_asked_for() {
        assert_eq!(configuration(3, 0, 8), 3u64.to_le_bytes());
        let long = configuration(3, 0, 60);
        assert_eq!(
            (long.len(), &long[..9]),
            (60, &[3, 0, 0, 0, 0, 0, 0, 0, 0][..])
        );
        assert_eq!(configuration(0x0102, 1, 2), [1, 0]);
        assert_eq!(configuration(3, u32::MAX, 1), [0]);
    }
}
