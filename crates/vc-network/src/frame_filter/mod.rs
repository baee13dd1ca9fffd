//! What stands between a machine and the process of the host that makes its connections.

mod alias;
mod frame;

use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;

use self::alias::Heard;
use self::frame::Frame;
use crate::error::{Result, io as io_error};

pub use self::alias::AliasNetwork;

/// Bytes of the longest frame that a VMM sends: QEMU's own limit.
const FRAME_BYTES_MAX: usize = 4096 + 65_536;

/// Bytes of the length before each frame, in network order.
const LENGTH_BYTES: usize = 4;

/// Bytes that are moved at once.
const BUFFER_BYTES: usize = 4 * FRAME_BYTES_MAX;

/// Lets frames of a machine through that do not lead to the loopback of the host.
///
/// A process that makes a machine's connections makes them as processes of the host do, and so
/// reaches what listens on the host's loopback alone, which trusts whoever is there. A guest only
/// has to address its packets so. The filter takes such frames out, before that process sees them,
/// and whatever is neither ARP nor IP.
///
/// VMM and process are connected by stream sockets, each frame behind its length in four bytes. The
/// threads of a filter end when an end of a connection is closed, and close the others then.
#[derive(Clone, Debug, Default)]
pub struct FrameFilter {
    aliases: Arc<[AliasNetwork]>,
    heard: Arc<Heard>,
}

impl FrameFilter {
    /// One before a process that takes further addresses for those of its host.
    pub fn with_aliases(aliases: &[AliasNetwork]) -> Self {
        Self {
            aliases: aliases.into(),
            heard: Arc::default(),
        }
    }

    /// Stands between a VMM and a process.
    ///
    /// # Errors
    ///
    /// [`Error::Io`](crate::Error::Io) when the system gives no descriptor or no thread.
    ///
    /// ```
    /// use std::io::{Read, Write};
    /// use std::os::unix::net::UnixStream;
    ///
    /// let (mut vmm, ours) = UnixStream::pair()?;
    /// let (mut process, theirs) = UnixStream::pair()?;
    /// vc_network::FrameFilter::default().between(ours.into(), theirs.into())?;
    /// process.write_all(b"\0\0\0\x02to")?;
    /// let mut seen = [0; 6];
    /// vmm.read_exact(&mut seen)?;
    /// assert_eq!(&seen, b"\0\0\0\x02to");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn between(&self, vmm: OwnedFd, process: OwnedFd) -> Result<()> {
        let copied = "copy the descriptor of";
        let of_vmm = vmm.try_clone().map_err(io_error(copied, "a VMM"))?;
        let of_process = process.try_clone().map_err(io_error(copied, "a stack"))?;
        self.to_guest(of_process, of_vmm)?;
        self.from_guest(vmm, process)
    }

    /// Filters what a guest sends from one socket to another.
    ///
    /// # Errors
    ///
    /// [`Error::Io`](crate::Error::Io) when the system gives no thread.
    pub fn from_guest(&self, from: OwnedFd, to: OwnedFd) -> Result<()> {
        let filter = self.clone();
        start("frames of the guest", from, to, move |frame| {
            filter.may_pass(frame)
        })
    }

    /// Moves what a guest receives, and remembers whom it may answer.
    ///
    /// # Errors
    ///
    /// [`Error::Io`](crate::Error::Io) when the system gives no thread.
    pub fn to_guest(&self, from: OwnedFd, to: OwnedFd) -> Result<()> {
        let filter = self.clone();
        start("frames to the guest", from, to, move |frame| {
            filter.heard.note(frame, &filter.aliases);
            true
        })
    }

    fn may_pass(&self, frame: &[u8]) -> bool {
        let Some(frame) = Frame::parse(frame) else {
            return false;
        };
        let Frame::Packet {
            destination,
            payload,
            ..
        } = frame
        else {
            return true;
        };
        let mut aliases = self.aliases.iter();
        let alias = aliases.find(|alias| alias.network.contains(destination));
        !is_loopback(destination)
            && alias.is_none_or(|alias| alias.may_pass(destination, payload, &self.heard))
    }
}

/// Whether a socket of the host that connects there reaches the host's loopback.
fn is_loopback(destination: IpAddr) -> bool {
    match destination {
        // To connect to no address is to connect to oneself.
        IpAddr::V4(address) => address.is_loopback() || address.octets()[0] == 0,
        // With ::, ::1 and every IPv4 address that is written as one of IPv6.
        IpAddr::V6(address) => address.to_ipv4().is_some(),
    }
}

/// Moves frames in a thread of its own until one side is closed; then both are.
fn start(
    name: &str,
    from: OwnedFd,
    to: OwnedFd,
    passes: impl Fn(&[u8]) -> bool + Send + 'static,
) -> Result<()> {
    let (from, to) = (UnixStream::from(from), UnixStream::from(to));
    let run = move || {
        if let Err(error) = move_frames(&from, &to, passes) {
            tracing::debug!(%error, "the frames of a machine are moved no more");
        }
        for socket in [from, to] {
            // It may be closed already.
            let _ = socket.shutdown(Shutdown::Both);
        }
    };
    let thread = thread::Builder::new().name(name.to_owned());
    let started = thread.spawn(run).map(drop);
    started.map_err(io_error("start a thread for", name))
}

fn move_frames(
    mut from: &UnixStream,
    mut to: &UnixStream,
    passes: impl Fn(&[u8]) -> bool,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut filled = 0;
    loop {
        match read(&mut from, &mut buffer[filled..])? {
            0 => return Ok(()),
            count => filled += count,
        }
        let done = pass(&buffer[..filled], &mut to, &passes)?;
        buffer.copy_within(done..filled, 0);
        filled -= done;
    }
}

/// Writes the frames that may pass, as many at once as follow each other. Returns the bytes that are
/// done with.
fn pass(bytes: &[u8], to: &mut impl Write, passes: impl Fn(&[u8]) -> bool) -> io::Result<usize> {
    let (mut begin, mut at) = (0, 0);
    while let Some((length, rest)) = bytes[at..].split_first_chunk::<LENGTH_BYTES>() {
        let length = u32::from_be_bytes(*length) as usize;
        if length > FRAME_BYTES_MAX {
            to.write_all(&bytes[begin..at])?;
            let reason = format!("a frame of {length} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
        }
        let Some(frame) = rest.get(..length) else {
            break;
        };
        let next = at + LENGTH_BYTES + length;
        if !passes(frame) {
            to.write_all(&bytes[begin..at])?;
            begin = next;
        }
        at = next;
    }
    to.write_all(&bytes[begin..at])?;
    Ok(at)
}

fn read(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match from.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::frame::tests::{ipv4, ipv6, tcp, udp};
    use super::*;

    const SYN: u8 = 2;
    const ACK: u8 = 16;

    fn with_length(frame: &[u8]) -> Vec<u8> {
        let length = u32::try_from(frame.len()).unwrap().to_be_bytes();
        [&length[..], frame].concat()
    }

    #[test]
    fn every_form_of_loopback_is_refused() {
        let filter = FrameFilter::default();
        for there in ["10.0.2.2", "128.0.0.1", "255.255.255.255"] {
            assert!(filter.may_pass(&ipv4(there, 6, &tcp(80, SYN))), "{there}");
        }
        for back in ["127.0.0.1", "127.255.0.9", "0.0.0.0", "0.1.2.3"] {
            assert!(!filter.may_pass(&ipv4(back, 6, &tcp(80, SYN))), "{back}");
        }
        for there in ["2001:db8::1", "fe80::1", "ff02::1"] {
            assert!(filter.may_pass(&ipv6(there, 6, &tcp(80, SYN))), "{there}");
        }
        for back in [
            "::1",
            "::",
            "::ffff:127.0.0.1",
            "::ffff:0.0.0.0",
            "::7f00:1",
        ] {
            assert!(!filter.may_pass(&ipv6(back, 6, &tcp(80, SYN))), "{back}");
        }
    }

    #[test]
    fn an_alias_of_the_host_is_answered_but_not_asked() {
        let filter = FrameFilter::with_aliases(&[AliasNetwork {
            network: "10.0.2.0/24".parse().unwrap(),
            resolver: [10, 0, 2, 3].into(),
        }]);
        let tcp = |to, port, flags| filter.may_pass(&ipv4(to, 6, &tcp(port, flags)));
        assert!(!tcp("10.0.2.2", 22, SYN) && !tcp("10.0.2.77", 22, SYN));
        assert!(tcp("10.0.2.2", 22, SYN | ACK) && tcp("10.0.2.2", 22, ACK));
        assert!(tcp("10.0.2.3", 53, SYN) && !tcp("10.0.2.3", 22, SYN));
        let asked = udp(53, 4000);
        let to_host = || filter.may_pass(&ipv4("10.0.2.2", 17, &asked));
        assert!(!to_host());
        let mut told = ipv4("10.0.2.15", 17, &udp(4000, 53));
        told[26..30].copy_from_slice(&[10, 0, 2, 2]);
        filter.heard.note(&told, &filter.aliases);
        assert!(to_host());
        assert!(filter.may_pass(&ipv4("10.0.2.3", 17, &udp(1, 53))));
        assert!(!filter.may_pass(&ipv4("10.0.2.2", 17, &udp(53, 4001))));
        assert!(!filter.may_pass(&ipv4("10.0.2.2", 132, &[])));
    }

    #[test]
    fn frames_pass_however_they_are_cut() {
        let good = with_length(&ipv4("10.7.1.1", 6, &tcp(80, SYN)));
        let bad = with_length(&ipv4("127.0.0.1", 6, &tcp(80, SYN)));
        let sent = [&good[..], &bad, &bad, &good, &bad, &good].concat();
        for piece in [1, 3, 5, good.len(), 64, sent.len()] {
            let (mut vmm, ours) = UnixStream::pair().unwrap();
            let (mut process, theirs) = UnixStream::pair().unwrap();
            let filter = FrameFilter::default();
            filter.between(ours.into(), theirs.into()).unwrap();
            for piece in sent.chunks(piece) {
                vmm.write_all(piece).unwrap();
            }
            vmm.shutdown(Shutdown::Write).unwrap();
            let mut seen = Vec::new();
            process.read_to_end(&mut seen).unwrap();
            assert_eq!(seen, [&good[..], &good, &good].concat(), "{piece}");
        }
    }

    #[test]
    fn the_longest_frame_passes_and_a_longer_one_ends_it() {
        let (mut vmm, ours) = UnixStream::pair().unwrap();
        let (mut process, theirs) = UnixStream::pair().unwrap();
        let filter = FrameFilter::default();
        filter.from_guest(ours.into(), theirs.into()).unwrap();
        let mut longest = ipv4("10.7.1.1", 6, &tcp(80, SYN));
        longest.resize(FRAME_BYTES_MAX, 7);
        let longest = with_length(&longest);
        let writer = thread::spawn(move || {
            vmm.write_all(&longest).unwrap();
            // The other side may have closed by the second half.
            let _ = vmm.write_all(&u32::MAX.to_be_bytes());
            let mut end = Vec::new();
            vmm.read_to_end(&mut end).map(|_| end)
        });
        let mut seen = Vec::new();
        process.read_to_end(&mut seen).unwrap();
        assert_eq!(seen.len(), LENGTH_BYTES + FRAME_BYTES_MAX);
        assert_eq!(writer.join().unwrap().unwrap(), b"");
    }

    #[test]
    fn the_end_of_either_is_that_of_both() {
        let (vmm, ours) = UnixStream::pair().unwrap();
        let (mut process, theirs) = UnixStream::pair().unwrap();
        let filter = FrameFilter::default();
        filter.between(ours.into(), theirs.into()).unwrap();
        drop(vmm);
        let mut seen = Vec::new();
        process.read_to_end(&mut seen).unwrap();
        assert_eq!(seen, b"");
        let (mut vmm, ours) = UnixStream::pair().unwrap();
        let (process, theirs) = UnixStream::pair().unwrap();
        let filter = FrameFilter::default();
        filter.between(ours.into(), theirs.into()).unwrap();
        drop(process);
        vmm.read_to_end(&mut seen).unwrap();
        assert_eq!(seen, b"");
    }
}
