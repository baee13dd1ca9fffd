//! The connections, found by slot (host events) and by ports (guest packets).

use std::collections::HashMap;

use crate::connection::Connection;
use crate::handshake::Handshake;
use crate::host_socket::HostSocket;
use crate::limits::{NARROW_WINDOW_BYTES, WIDE_WINDOWS_MAX, WINDOW_BYTES};
use crate::packet::Ports;

/// Host ports for connections that host programs make. Below are the ports that guests dial.
const HOST_PORTS: std::ops::Range<u32> = 1 << 30..1 << 31;

/// A place in the table. One that was freed is never mistaken for its successor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SlotId {
    index: u32,
    generation: u32,
}

impl SlotId {
    /// The id as what an event carries. The generation never reaches `u32::MAX`, so that the
    /// numbers above are free for other things.
    pub(crate) fn token(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    /// The id that an event carried.
    pub(crate) fn from_token(token: u64) -> Self {
        Self {
            index: token as u32,
            generation: (token >> 32) as u32,
        }
    }
}

/// How far a connection is.
#[derive(Debug)]
pub(crate) enum Stage {
    /// A host program has not said yet which port it wants.
    Handshake(Handshake),
    /// The connection has ports.
    Stream(Ports, Box<Connection>),
}

/// One connection with its socket.
#[derive(Debug)]
pub(crate) struct Slot {
    /// The host's socket; none while only the guest's last word is missing.
    pub(crate) socket: Option<HostSocket>,
    /// How far it is.
    pub(crate) stage: Stage,
    /// Whether it stands in the queue of those with a packet for the guest.
    pub(crate) queued: bool,
}

#[derive(Debug)]
struct Place {
    generation: u32,
    slot: Option<Slot>,
}

/// All connections of the device.
#[derive(Debug)]
pub(crate) struct Table {
    places: Vec<Place>,
    free: Vec<u32>,
    by_ports: HashMap<Ports, SlotId>,
    limit: usize,
    next_port: u32,
}

impl Table {
    /// An empty table for at most `limit` connections.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            places: Vec::new(),
            free: Vec::new(),
            by_ports: HashMap::new(),
            limit,
            next_port: HOST_PORTS.start,
        }
    }

    /// Connections in the table.
    pub(crate) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// The place that the next connection will get, none when the table is full. It is taken by
    /// [`Self::insert`].
    pub(crate) fn vacancy(&self) -> Option<SlotId> {
        match self.free.last() {
            Some(&index) => {
                let generation = self.places.get(index as usize)?.generation;
                Some(SlotId { index, generation })
            }
            None if self.places.len() < self.limit => Some(SlotId {
                index: u32::try_from(self.places.len()).ok()?,
                generation: 0,
            }),
            None => None,
        }
    }

    /// Puts a connection into the place that [`Self::vacancy`] named.
    pub(crate) fn insert(&mut self, id: SlotId, socket: HostSocket, stage: Stage) {
        if let Stage::Stream(ports, _) = stage {
            self.by_ports.insert(ports, id);
        }
        let slot = Some(Slot {
            socket: Some(socket),
            stage,
            queued: false,
        });
        if self.free.last() == Some(&id.index) {
            self.free.pop();
        }
        match self.places.get_mut(id.index as usize) {
            Some(place) => place.slot = slot,
            None => self.places.push(Place {
                generation: id.generation,
                slot,
            }),
        }
    }

    /// A connection, unless it has ended.
    pub(crate) fn get(&mut self, id: SlotId) -> Option<&mut Slot> {
        let place = self.places.get_mut(id.index as usize)?;
        if place.generation == id.generation {
            place.slot.as_mut()
        } else {
            None
        }
    }

    /// The connection that owns two ports.
    pub(crate) fn find(&self, ports: Ports) -> Option<SlotId> {
        self.by_ports.get(&ports).copied()
    }

    /// A host port that is free for a connection to the guest's port `guest`. Ports are used in
    /// turn, so that a late packet of an old connection meets no new one.
    pub(crate) fn free_host_port(&mut self, guest: u32) -> Option<u32> {
        for _ in 0..=self.limit {
            let host = self.next_port;
            self.next_port = if host + 1 == HOST_PORTS.end {
                HOST_PORTS.start
            } else {
                host + 1
            };
            if !self.by_ports.contains_key(&Ports { host, guest }) {
                return Some(host);
            }
        }
        None
    }

    /// Gives a connection that finished its handshake its ports.
    pub(crate) fn assign(&mut self, id: SlotId, ports: Ports, connection: Box<Connection>) {
        if let Some(slot) = self.get(id) {
            slot.stage = Stage::Stream(ports, connection);
            self.by_ports.insert(ports, id);
        }
    }

    /// Frees the ports of a connection that the guest knows nothing of any more.
    pub(crate) fn release_ports(&mut self, id: SlotId, ports: Ports) {
        if self.by_ports.get(&ports) == Some(&id) {
            self.by_ports.remove(&ports);
        }
    }

    /// Removes a connection.
    pub(crate) fn remove(&mut self, id: SlotId) -> Option<Slot> {
        let place = self.places.get_mut(id.index as usize)?;
        if place.generation != id.generation {
            return None;
        }
        let slot = place.slot.take()?;
        place.generation = (place.generation + 1) % u32::MAX;
        self.free.push(id.index);
        if let Stage::Stream(ports, _) = slot.stage {
            self.release_ports(id, ports);
        }
        Some(slot)
    }

    /// All connections, in no order.
    pub(crate) fn ids(&self) -> Vec<SlotId> {
        (0u32..)
            .zip(&self.places)
            .filter(|(_, place)| place.slot.is_some())
            .map(|(index, place)| SlotId {
                index,
                generation: place.generation,
            })
            .collect()
    }

    /// The window for one more connection: see [`WIDE_WINDOWS_MAX`].
    pub(crate) fn window(&self) -> u32 {
        if self.len() < WIDE_WINDOWS_MAX {
            WINDOW_BYTES
        } else {
            NARROW_WINDOW_BYTES
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    fn socket(epoll: &std::os::fd::OwnedFd, id: SlotId) -> HostSocket {
        let (ours, _) = std::os::unix::net::UnixStream::pair().unwrap();
        HostSocket::register(ours.into(), epoll.as_fd(), id.token()).unwrap()
    }

    #[test]
    fn a_freed_place_has_another_id_and_the_limit_holds() {
        let flags = rustix::event::epoll::CreateFlags::CLOEXEC;
        let epoll = rustix::event::epoll::create(flags).unwrap();
        let mut table = Table::new(2);
        let first = table.vacancy().unwrap();
        table.insert(
            first,
            socket(&epoll, first),
            Stage::Handshake(Handshake::default()),
        );
        let second = table.vacancy().unwrap();
        table.insert(
            second,
            socket(&epoll, second),
            Stage::Handshake(Handshake::default()),
        );
        assert_eq!(table.vacancy(), None);

        table.remove(first).unwrap();
        assert!(table.get(first).is_none() && table.remove(first).is_none());
        let third = table.vacancy().unwrap();
        assert_ne!(third, first);
        assert_eq!(SlotId::from_token(third.token()), third);
        table.insert(
            third,
            socket(&epoll, third),
            Stage::Handshake(Handshake::default()),
        );
        assert_eq!((table.len(), table.vacancy()), (2, None));
    }

    #[test]
    fn ports_belong_to_the_newest_owner() {
        let flags = rustix::event::epoll::CreateFlags::CLOEXEC;
        let epoll = rustix::event::epoll::create(flags).unwrap();
        let mut table = Table::new(4);
        let ports = Ports { host: 7, guest: 8 };
        let stage = || Stage::Stream(ports, Box::new(Connection::from_host(WINDOW_BYTES)));
        let old = table.vacancy().unwrap();
        table.insert(old, socket(&epoll, old), stage());
        table.release_ports(old, ports);
        let new = table.vacancy().unwrap();
        table.insert(new, socket(&epoll, new), stage());
        table.release_ports(old, ports);
        table.remove(old).unwrap();
        assert_eq!(table.find(ports), Some(new));
    }

    #[test]
    fn host_ports_are_used_in_turn() {
        let mut table = Table::new(4);
        table.next_port = HOST_PORTS.end - 1;
        assert_eq!(table.free_host_port(1), Some(HOST_PORTS.end - 1));
        assert_eq!(table.free_host_port(1), Some(HOST_PORTS.start));
    }
}
