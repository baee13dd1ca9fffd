//! A token bucket in place of a link's queue, which limits what leaves by the link.

use std::io;

use netlink_packet_core::{DefaultNla, NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{TcAttribute, TcHandle, TcOption};

use super::qdisc;
use crate::limits::{BUCKET_TIME, QUEUE_TIME};
use crate::netlink::{Netlink, is_gone};
use crate::rate::BitRate;

const KIND: &str = "tbf";

/// By this, ours is told from others'.
const HANDLE: TcHandle = TcHandle {
    major: 0x7663,
    minor: 0,
};

/// `TCA_TBF_*` and `TC_LINKLAYER_ETHERNET`, which no crate has.
const PARAMETERS: u16 = 1;
const RATE64: u16 = 4;
const BURST: u16 = 6;
const ETHERNET: u8 = 1;

/// Bytes of a frame beside the packet in it: addresses, type, and tags of VLANs.
const FRAME_BYTES: u64 = 64;

/// Whether somebody has set a qdisc for what leaves by the link. The kernel's own has no handle.
pub(crate) fn has_root(netlink: &mut Netlink, index: u32) -> io::Result<bool> {
    let root = qdisc::at(netlink, index, TcHandle::ROOT)?;
    Ok(root.is_some_and(|root| root.handle.major != 0))
}

/// Limits what leaves by the link.
pub(crate) fn limit(netlink: &mut Netlink, index: u32, mtu: u32, rate: BitRate) -> io::Result<()> {
    let bytes = rate.bytes_per_second();
    let within = |time: std::time::Duration| {
        u64::try_from(u128::from(bytes) * time.as_micros() / 1_000_000).unwrap_or(u64::MAX)
    };
    // A frame that is larger than the bucket would never leave.
    let bucket = within(BUCKET_TIME).max(u64::from(mtu) + FRAME_BYTES);
    let queue = bucket.saturating_add(within(QUEUE_TIME));
    let number = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);

    // `struct tc_tbf_qopt`: the rate, a peak rate that is none, the queue's bytes, and two numbers
    // for which there are attributes.
    let mut parameters = vec![0, ETHERNET, 0, 0, 0, 0, 0, 0];
    parameters.extend(number(bytes).to_ne_bytes());
    parameters.extend([0; 12]);
    parameters.extend(number(queue).to_ne_bytes());
    parameters.extend([0; 8]);
    let mut options = vec![
        TcOption::Other(DefaultNla::new(PARAMETERS, parameters)),
        TcOption::Other(DefaultNla::new(
            BURST,
            number(bucket).to_ne_bytes().to_vec(),
        )),
    ];
    if bytes > u64::from(u32::MAX) {
        let nla = DefaultNla::new(RATE64, bytes.to_ne_bytes().to_vec());
        options.push(TcOption::Other(nla));
    }
    let mut message = qdisc::of(index)?;
    message.header.parent = TcHandle::ROOT;
    message.header.handle = HANDLE;
    message.attributes = vec![
        TcAttribute::Kind(KIND.to_owned()),
        TcAttribute::Options(options),
    ];
    netlink.change(
        RouteNetlinkMessage::NewQueueDiscipline(message),
        NLM_F_CREATE | NLM_F_EXCL,
    )
}

/// Takes our limit away, if it is there. The kernel puts its own queue in the place.
pub(crate) fn unlimit(netlink: &mut Netlink, index: u32) -> io::Result<()> {
    let root = qdisc::at(netlink, index, TcHandle::ROOT)?;
    if root.is_none_or(|root| root.kind != KIND || root.handle != HANDLE) {
        return Ok(());
    }
    let mut message = qdisc::of(index)?;
    message.header.parent = TcHandle::ROOT;
    message.header.handle = HANDLE;
    match netlink.change(RouteNetlinkMessage::DelQueueDiscipline(message), 0) {
        Err(error) if is_gone(&error) => Ok(()),
        other => other,
    }
}
