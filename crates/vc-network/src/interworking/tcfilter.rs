//! An ingress qdisc, and a filter on it that redirects every frame.
//!
//! The classifier is u32, since others, such as matchall, are modules that a kernel may lack.

use std::io;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{
    TcAction, TcActionAttribute, TcActionMirror, TcActionMirrorOption, TcActionOption,
    TcActionType, TcAttribute, TcFilterU32, TcFilterU32Option, TcHandle, TcMessage, TcMirror,
    TcMirrorActionType, TcOption, TcU32Key, TcU32Selector, TcU32SelectorFlags,
};

use super::qdisc::{self, of};
use crate::netlink::{Netlink, is_gone};

/// The kind of the qdisc.
const QDISC: &str = "ingress";

/// The handle that every ingress qdisc has.
const INGRESS: TcHandle = TcHandle {
    major: 0xffff,
    minor: 0,
};

/// The rank of the filter: the first.
const PRIORITY: u16 = 1;

/// Whether the link has an ingress qdisc. That of kind `clsact` stands at the same place.
pub(crate) fn has_ingress(netlink: &mut Netlink, index: u32) -> io::Result<bool> {
    Ok(qdisc::at(netlink, index, TcHandle::INGRESS)?.is_some())
}

/// Adds an ingress qdisc to the link, which has none.
pub(crate) fn add_ingress(netlink: &mut Netlink, index: u32) -> io::Result<()> {
    netlink.change(
        RouteNetlinkMessage::NewQueueDiscipline(ingress(index)?),
        NLM_F_CREATE | NLM_F_EXCL,
    )
}

/// Removes the ingress qdisc with its filters, if it is there.
pub(crate) fn remove_ingress(netlink: &mut Netlink, index: u32) -> io::Result<()> {
    let found = qdisc::at(netlink, index, TcHandle::INGRESS)?;
    if found.is_none_or(|found| found.kind != QDISC) {
        return Ok(());
    }
    match netlink.change(RouteNetlinkMessage::DelQueueDiscipline(ingress(index)?), 0) {
        Err(error) if is_gone(&error) => Ok(()),
        other => other,
    }
}

/// Sends out of the link `to` every frame that comes in by the link `from`.
pub(crate) fn redirect(netlink: &mut Netlink, from: u32, to: u32) -> io::Result<()> {
    let mut message = of(from)?;
    message.header.parent = INGRESS;
    let every_protocol = u16::try_from(libc::ETH_P_ALL).map_err(io::Error::other)?;
    message.header.info = TcHandle {
        major: PRIORITY,
        minor: every_protocol.to_be(),
    }
    .into();
    message.attributes = vec![
        TcAttribute::Kind(TcFilterU32::KIND.to_owned()),
        TcAttribute::Options(vec![
            TcOption::U32(TcFilterU32Option::Selector(every_frame())),
            TcOption::U32(TcFilterU32Option::Action(vec![egress(to)])),
        ]),
    ];
    netlink.change(
        RouteNetlinkMessage::NewTrafficFilter(message),
        NLM_F_CREATE | NLM_F_EXCL,
    )
}

/// One key without a bit that matters.
fn every_frame() -> TcU32Selector {
    let mut selector = TcU32Selector::default();
    selector.flags = TcU32SelectorFlags::Terminal;
    selector.nkeys = 1;
    selector.keys = vec![TcU32Key::default()];
    selector
}

/// The action that takes a frame and sends it out of another link.
fn egress(to: u32) -> TcAction {
    let mut mirror = TcMirror::default();
    mirror.generic.action = TcActionType::Stolen;
    mirror.eaction = TcMirrorActionType::EgressRedir;
    mirror.ifindex = to;
    let parameters = TcActionOption::Mirror(TcActionMirrorOption::Parms(mirror));
    let mut action = TcAction::default();
    action.attributes = vec![
        TcActionAttribute::Kind(TcActionMirror::KIND.to_owned()),
        TcActionAttribute::Options(vec![parameters]),
    ];
    action
}

fn ingress(index: u32) -> io::Result<TcMessage> {
    let mut message = of(index)?;
    message.header.parent = TcHandle::INGRESS;
    message.header.handle = INGRESS;
    message.attributes = vec![TcAttribute::Kind(QDISC.to_owned())];
    Ok(message)
}
