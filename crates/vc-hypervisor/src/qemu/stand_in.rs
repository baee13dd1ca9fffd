//! What answers QEMU in place of the processes that serve devices, while a template is made.
//!
//! A template's guest finds these devices and waits for no answer of theirs. So a stand-in tells what the device
//! has, and takes everything else without a look at it: it maps no memory and touches no ring. The
//! messages are those of vhost-user (QEMU's `docs/interop/vhost-user.rst`).

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::task::JoinSet;
use vc_types::guest;

use super::args::Served;
use super::launch::stream_pair;
use super::template::async_stream;
use crate::Share;

/// Bytes of a message after its header. The longest have a configuration, or the regions of the memory.
const PAYLOAD_BYTES_MAX: usize = 4096;

/// The first version of the protocol, the only one; and that a message answers one.
const VERSION: u32 = 0x1;
const REPLY: u32 = 0x4;

/// What every device has that processes of ours serve: rings with indirect descriptors and event indexes,
/// by version 1 of virtio. QEMU saves no device whose process cannot note what it writes to the memory.
const FEATURES: u64 = 1 << 26 | 1 << 28 | 1 << 29 | 1 << 30 | 1 << 32;

/// Several queues, those notes, and a configuration.
const PROTOCOL_FEATURES: u64 = 1 | 1 << 1 | 1 << 9;

/// Queues, at most.
const QUEUES_MAX: u64 = 8;

/// Bytes before the content of a configuration: its offset, its length and flags.
const CONFIG_HEADER_BYTES: usize = 12;

/// Bytes of a tag in a file system's configuration.
const TAG_BYTES: usize = 36;

/// The messages that are answered.
mod request {
    pub(super) const GET_FEATURES: u32 = 1;
    pub(super) const SET_LOG_BASE: u32 = 6;
    pub(super) const GET_VRING_BASE: u32 = 11;
    pub(super) const GET_PROTOCOL_FEATURES: u32 = 15;
    pub(super) const GET_QUEUE_NUM: u32 = 17;
    pub(super) const GET_CONFIG: u32 = 24;
}

/// Those that stand in for the devices of one template. Dropping them ends them.
#[derive(Debug)]
pub(super) struct StandIns(#[expect(dead_code, reason = "it ends what it holds")] JoinSet<()>);

impl StandIns {
    /// Begins to answer for the vsock device and for shares with these tags.
    pub(super) fn begin<'a>(tags: impl Iterator<Item = &'a str>) -> io::Result<(Self, Served)> {
        let mut answering = JoinSet::new();
        let mut stand_in = |config: Vec<u8>| -> io::Result<OwnedFd> {
            let (own, qemus) = stream_pair()?;
            let own = async_stream(own)?;
            // It ends with QEMU, which says what is wrong.
            answering.spawn(async move {
                if let Err(error) = answer(own, &config).await {
                    tracing::debug!(%error, "QEMU's connection to a stand-in ended");
                }
            });
            Ok(qemus)
        };
        let vsock = stand_in(u64::from(guest::GUEST_CID).to_le_bytes().into())?;
        let shares = tags.map(|tag| {
            let socket = stand_in(file_system(tag))?;
            let tag = tag.to_owned();
            Ok(Share { tag, socket })
        });
        let shares = shares.collect::<io::Result<_>>()?;
        Ok((Self(answering), Served { vsock, shares }))
    }
}

/// The configuration of a file system with this tag and one queue for requests.
fn file_system(tag: &str) -> Vec<u8> {
    let mut config = tag.as_bytes().to_vec();
    config.resize(TAG_BYTES, 0);
    config.extend(1u32.to_le_bytes());
    config
}

/// Answers until the connection is closed. Descriptors that come with messages are not taken, so they
/// are closed.
async fn answer(mut connection: UnixStream, config: &[u8]) -> io::Result<()> {
    loop {
        let mut header = [0; 12];
        match connection.read_exact(&mut header).await {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        }
        let request = word(&header, 0);
        let size = word(&header, 8) as usize;
        if size > PAYLOAD_BYTES_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut payload = vec![0; size];
        connection.read_exact(&mut payload).await?;
        if let Some(answer) = answer_to(request, &payload, config) {
            let size = u32::try_from(answer.len()).unwrap_or(u32::MAX);
            let mut message: Vec<u8> = [request, VERSION | REPLY, size]
                .into_iter()
                .flat_map(u32::to_le_bytes)
                .collect();
            message.extend(answer);
            connection.write_all(&message).await?;
        }
    }
}

/// What a message is answered with, where it is.
fn answer_to(request: u32, payload: &[u8], config: &[u8]) -> Option<Vec<u8>> {
    let number = |number: u64| Some(number.to_le_bytes().to_vec());
    match request {
        request::GET_FEATURES => number(FEATURES),
        request::GET_PROTOCOL_FEATURES => number(PROTOCOL_FEATURES),
        request::GET_QUEUE_NUM => number(QUEUES_MAX),
        // That it is done. QEMU asks for it only while a device runs, which none does as it is saved.
        request::SET_LOG_BASE => number(0),
        // Its number, and that nothing was taken from it.
        request::GET_VRING_BASE => number(word(payload, 0).into()),
        request::GET_CONFIG => {
            let (offset, size) = (word(payload, 0) as usize, word(payload, 4) as usize);
            let content = config.iter().copied().chain(std::iter::repeat(0));
            let content = content.skip(offset.min(PAYLOAD_BYTES_MAX));
            let head = payload.iter().copied().take(CONFIG_HEADER_BYTES);
            Some(
                head.chain(content.take(size.min(PAYLOAD_BYTES_MAX)))
                    .collect(),
            )
        }
        _ => None,
    }
}

/// The number at this place, or 0 where there is none.
fn word(bytes: &[u8], at: usize) -> u32 {
    let word = bytes.get(at..at + 4).and_then(|word| word.try_into().ok());
    word.map_or(0, u32::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_has_what_is_asked_for_of_it() {
        let config = file_system("virtc-user");
        let asked = |offset: u32, size: u32| {
            let payload: Vec<u8> = [offset, size, 0]
                .into_iter()
                .flat_map(u32::to_le_bytes)
                .collect();
            let answer = answer_to(request::GET_CONFIG, &payload, &config).unwrap();
            assert_eq!(answer[..CONFIG_HEADER_BYTES], payload);
            answer[CONFIG_HEADER_BYTES..].to_vec()
        };
        let all = asked(0, 60);
        assert_eq!(all.len(), 60);
        assert_eq!(&all[..12], b"virtc-user\0\0");
        assert_eq!(&all[TAG_BYTES..TAG_BYTES + 5], [1, 0, 0, 0, 0]);
        assert_eq!(asked(36, 4), [1, 0, 0, 0]);
        assert_eq!(asked(u32::MAX, 2), [0, 0]);
    }

    #[test]
    fn nothing_was_taken_from_any_queue_and_most_messages_are_not_answered() {
        let base = answer_to(request::GET_VRING_BASE, &[2, 0, 0, 0, 7, 0, 0, 0], &[]);
        assert_eq!(base.unwrap(), [2, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(
            answer_to(request::SET_LOG_BASE, &[0; 16], &[]),
            Some(vec![0; 8])
        );
        const SET_MEM_TABLE: u32 = 5;
        assert_eq!(answer_to(SET_MEM_TABLE, &[0; 40], &[]), None);
    }

    #[tokio::test]
    async fn messages_are_answered_until_the_connection_is_closed() {
        let (_stand_ins, served) = StandIns::begin(["a", "b"].into_iter()).unwrap();
        assert_eq!(served.shares.len(), 2);
        let mut qemu = async_stream(served.vsock).unwrap();
        // SET_OWNER, which is not answered, and GET_FEATURES.
        let messages = [[3u32, VERSION, 0], [1, VERSION, 0]];
        let bytes = messages.concat().into_iter().flat_map(u32::to_le_bytes);
        qemu.write_all(&bytes.collect::<Vec<_>>()).await.unwrap();
        let mut answer = [0; 20];
        qemu.read_exact(&mut answer).await.unwrap();
        assert_eq!(word(&answer, 0), request::GET_FEATURES);
        assert_eq!(word(&answer, 4), VERSION | REPLY);
        assert_eq!(answer[12..], FEATURES.to_le_bytes());
        // One that cannot be ends it.
        qemu.write_all(&[0xff; 12]).await.unwrap();
        assert_eq!(qemu.read(&mut answer).await.unwrap(), 0);
    }
}
