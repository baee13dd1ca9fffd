use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, io};
use crate::interface_name::InterfaceName;
use crate::interworking::{InterworkingModel, TapFlags, remove_ingress, restore_tap, tbf};
use crate::link::{self, Link, LinkKind};
use crate::mac::MacAddress;
use crate::namespace::{Namespace, NamespaceId};
use crate::netlink::Netlink;

/// What an attachment adds to a namespace, and so what is to be taken away again.
///
/// It is plain data for a state file: whoever reads it can undo what a killed process did, at
/// whichever step that was. Undoing does nothing where there is nothing left to undo.
///
/// ```
/// use vc_network::Undo;
///
/// fn clean_up(state: &str) -> Result<(), Box<dyn std::error::Error>> {
///     let undo: Undo = serde_json::from_str(state)?;
///     Ok(undo.undo_at("/run/netns/web")?)
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Undo {
    pub(crate) namespace: NamespaceId,
    pub(crate) model: InterworkingModel,
    /// The link that was attached.
    pub(crate) link: InterfaceName,
    pub(crate) index: u32,
    pub(crate) mac: MacAddress,
    /// The tap or macvtap that is made for it; the link itself where that is the tap.
    pub(crate) tap: InterfaceName,
    /// How the link was made, where that is the tap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) found: Option<TapFlags>,
    /// Whether what leaves by the link is limited.
    #[serde(default)]
    pub(crate) limited: bool,
}

impl Undo {
    /// Takes away what was added: the tap or macvtap, and the ingress qdisc of the link with its
    /// filters and its rate limit. A link that is itself the tap stays, with the kind of header that it had; a machine
    /// must not have it open any more; the offloads that it has set stay.
    ///
    /// Another namespace than the one that was changed is left alone: that one, and all in it, is
    /// gone.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when something stays. What can be taken away is, all the same.
    pub fn undo(&self, namespace: &Namespace) -> Result<()> {
        if namespace.id() != self.namespace {
            return Ok(());
        }
        let mut netlink = namespace.netlink()?;
        let limit = self.remove_limit(&mut netlink);
        let limit = limit.map_err(io("remove the rate limit of", &self.link));
        if self.model == InterworkingModel::None {
            let restored = self.restore(namespace, &mut netlink);
            restored.map_err(io("make as it was the tap", &self.link))?;
            return limit;
        }
        let tap = self.remove_tap(&mut netlink);
        let filters = match self.model {
            InterworkingModel::Tcfilter => self.remove_filters(&mut netlink),
            _ => Ok(()),
        };
        tap.map_err(io("remove the tap", &self.tap))?;
        filters.map_err(io("remove the filters of the link", &self.link))?;
        limit
    }

    /// The same, by a path at which the namespace may not be any more.
    ///
    /// # Errors
    ///
    /// Those of [`Undo::undo`], and [`Error::Io`] when what is at `path` cannot be looked at.
    pub fn undo_at(&self, path: impl AsRef<Path>) -> Result<()> {
        match Namespace::open_any(path.as_ref().to_owned()) {
            Ok(namespace) => self.undo(&namespace),
            Err(Error::NamespaceGone { .. } | Error::NotANetworkNamespace { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// By its name, since its index is known only after it was made.
    pub(crate) fn remove_tap(&self, netlink: &mut Netlink) -> io::Result<()> {
        let made = match self.model {
            InterworkingModel::Tcfilter => LinkKind::Tap,
            InterworkingModel::Macvtap => LinkKind::Macvtap,
            InterworkingModel::None => return Ok(()),
        };
        match link::by_name(netlink, &self.tap)? {
            Some(tap) if tap.kind == made => link::delete(netlink, tap.index),
            _ => Ok(()),
        }
    }

    pub(crate) fn remove_filters(&self, netlink: &mut Netlink) -> io::Result<()> {
        match link::by_index(netlink, self.index)? {
            Some(link) if self.is_of(&link) => remove_ingress(netlink, link.index),
            _ => Ok(()),
        }
    }

    pub(crate) fn remove_limit(&self, netlink: &mut Netlink) -> io::Result<()> {
        match link::by_index(netlink, self.index)? {
            Some(link) if self.limited && self.is_of(&link) => tbf::unlimit(netlink, link.index),
            _ => Ok(()),
        }
    }

    /// By its name now, which may be another one by then.
    pub(crate) fn restore(&self, namespace: &Namespace, netlink: &mut Netlink) -> io::Result<()> {
        let (Some(found), Some(link)) = (self.found, link::by_index(netlink, self.index)?) else {
            return Ok(());
        };
        if !self.is_of(&link)
            || link::tap_flags(netlink, self.index)?.is_none_or(|now| now == found)
        {
            return Ok(());
        }
        restore_tap(namespace, &link.name, found)
    }

    /// Whether it is still the link that was attached. A link may get another name or another
    /// address while its index stays; after it has vanished, another one may get its index.
    pub(crate) fn is_of(&self, link: &Link) -> bool {
        link.index == self.index && (link.name == self.link || link.mac == Some(self.mac))
    }
}
