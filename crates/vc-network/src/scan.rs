use std::collections::{BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, io};
use crate::interface_name::InterfaceName;
use crate::link::{self, Link, LinkKind};
use crate::mac::MacAddress;
use crate::namespace::Namespace;
use crate::neighbour::{self, Neighbour};
use crate::route::{self, Route};
use crate::tap;

/// What is in a network namespace, as far as a machine can have it.
///
/// ```no_run
/// use vc_network::{Namespace, Scan};
///
/// let scan = Scan::of(&Namespace::open("/run/netns/web")?)?;
/// println!("{} links, {} routes", scan.links.len(), scan.routes.len());
/// for left_out in &scan.left_out {
///     println!("without {}: {}", left_out.what, left_out.reason);
/// }
/// # Ok::<(), vc_network::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scan {
    /// The links that have an address, in the order of their indexes, without loopback.
    pub links: Vec<Link>,
    /// The routes by these links that somebody has set, so ordered that each can be added when those
    /// before it are there.
    pub routes: Vec<Route>,
    /// The permanent neighbours on these links.
    pub neighbours: Vec<Neighbour>,
    /// What is there and does not reach the machine.
    pub left_out: Vec<LeftOut>,
    /// Of that, the links that have no address: it may have gone a moment ago, or come in the next.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub without_address: Vec<Link>,
}

/// Something in a namespace that does not reach the machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// The link or the route.
    pub what: String,
    /// Why.
    pub reason: String,
}

impl Scan {
    /// Looks at a namespace, and changes nothing. The taps of attachments are not among its links.
    ///
    /// A link without an address is left out, and so is one whose only addresses are IPv6's
    /// link-local ones: every link that is up has those, also one that nobody has set up.
    ///
    /// # Errors
    ///
    /// [`Error::SameMac`] when two of the links have one MAC address, [`Error::Io`] when the kernel
    /// does not answer or its answer is not understood.
    pub fn of(namespace: &Namespace) -> Result<Self> {
        let failed = |attempt| io(attempt, namespace.path().display());
        let mut netlink = namespace.netlink()?;
        let all = link::list(&mut netlink).map_err(failed("list the links of"))?;
        let mut addresses =
            link::addresses_of(&mut netlink).map_err(failed("list the addresses of"))?;
        let routes = route::list(&mut netlink).map_err(failed("list the routes of"))?;
        let neighbours = neighbour::list(&mut netlink).map_err(failed("list the neighbours of"))?;

        let mut scan = Self::default();
        for mut link in all {
            let ours = matches!(link.kind, LinkKind::Tap | LinkKind::Macvtap)
                && tap::is_name_of_ours(link.name.as_str());
            if link.kind == LinkKind::Loopback || ours {
                continue;
            }
            let own = addresses.remove(&link.index).unwrap_or_default();
            (link.link_local, link.addresses) =
                own.into_iter().partition(|address| address.is_link_local());
            // A link that is down has no routes yet.
            for address in link.addresses.iter_mut().filter(|_| link.up) {
                let network = (link.index, address.cidr.network());
                address.without_route = address.peer.is_none()
                    && !address.cidr.is_host()
                    && !routes.connected.contains(&network);
            }
            if link.addresses.is_empty() {
                scan.leave_out(format!("the link {}", link.name), "it has no address");
                scan.without_address.push(link);
            } else {
                scan.links.push(link);
            }
        }
        check_macs(&scan.links)?;
        let kept: BTreeSet<_> = scan.links.iter().map(|link| link.index).collect();
        for route in routes.set {
            match route {
                Ok(route) if kept.contains(&route.link) => scan.routes.push(route),
                Ok(route) => {
                    let what = format!("the route to {}", route.destination);
                    scan.leave_out(what, "it leads by a link that is left out");
                }
                Err((what, reason)) => scan.leave_out(what, reason),
            }
        }
        scan.order_routes();
        scan.neighbours = neighbours;
        scan.neighbours
            .retain(|neighbour| kept.contains(&neighbour.link));
        Ok(scan)
    }

    /// A gateway must be reachable when its route is added. The order is otherwise kept.
    pub(crate) fn order_routes(&mut self) {
        self.routes
            .sort_by_key(|route| (route.gateway.is_some(), route.destination.prefix() == 0));
    }

    fn leave_out(&mut self, what: String, reason: &str) {
        let reason = reason.to_owned();
        self.left_out.push(LeftOut { what, reason });
    }
}

/// Frames for one of two links with the same address would reach either.
fn check_macs(links: &[Link]) -> Result<()> {
    let mut seen: HashMap<MacAddress, &InterfaceName> = HashMap::new();
    for link in links {
        if let Some(mac) = link.mac
            && let Some(first) = seen.insert(mac, &link.name)
        {
            return Err(Error::SameMac {
                mac,
                first: first.clone(),
                second: link.name.clone(),
            });
        }
    }
    Ok(())
}
