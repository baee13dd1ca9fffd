use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::link::Link;
use crate::neighbour::Neighbour;
use crate::route::Route;
use crate::scan::Scan;

/// What two scans of one namespace differ in.
///
/// ```
/// use vc_network::Scan;
///
/// let (before, now) = (Scan::default(), Scan::default());
/// assert!(before.difference(&now).is_empty());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// Links that were not there before, in the order of their indexes.
    pub added_links: Vec<Link>,
    /// Links that are not there any more, as they were.
    pub vanished_links: Vec<Link>,
    /// Links that are still there, and whose name, addresses, MTU or flags are others.
    pub changed_links: Vec<ChangedLink>,
    /// Routes that were not there before, so ordered that each can be added when those before it
    /// are there.
    pub added_routes: Vec<Route>,
    /// Routes that are not there any more. They make place for those that were added.
    pub vanished_routes: Vec<Route>,
    /// Neighbours that were not there before.
    pub added_neighbours: Vec<Neighbour>,
    /// Neighbours that are not there any more.
    pub vanished_neighbours: Vec<Neighbour>,
}

/// A link that is still there and not as it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangedLink {
    /// As it was.
    pub before: Link,
    /// As it is now.
    pub now: Link,
}

impl Difference {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Scan {
    /// What is other in a newer scan of the same namespace.
    ///
    /// A link of the same index is the same one if it has kept its kind, and its name or its MAC
    /// address: after a link has vanished, another one may get its index. What the machine never
    /// had ([`Scan::left_out`]) is not compared.
    pub fn difference(&self, newer: &Self) -> Difference {
        let mut difference = Difference::default();
        for link in &newer.links {
            match self.links.iter().find(|before| is_same(before, link)) {
                None => difference.added_links.push(link.clone()),
                Some(before) if before != link => difference.changed_links.push(ChangedLink {
                    before: before.clone(),
                    now: link.clone(),
                }),
                Some(_) => {}
            }
        }
        let stays = |link: &Link| newer.links.iter().any(|now| is_same(link, now));
        let vanished = self.links.iter().filter(|link| !stays(link));
        difference.vanished_links = vanished.cloned().collect();
        difference.added_routes = without(&newer.routes, &self.routes);
        difference.vanished_routes = without(&self.routes, &newer.routes);
        difference.added_neighbours = without(&newer.neighbours, &self.neighbours);
        difference.vanished_neighbours = without(&self.neighbours, &newer.neighbours);
        difference
    }

    /// Counts the links that were in an `earlier` scan and have lost their addresses as links still:
    /// whoever takes an address from a link may give it another one next.
    pub fn keep_links_of(&mut self, earlier: &Self) {
        let was_there = |link: &Link| earlier.links.iter().any(|before| is_same(before, link));
        let idle = std::mem::take(&mut self.without_address);
        let (kept, others): (Vec<_>, Vec<_>) = idle.into_iter().partition(was_there);
        self.without_address = others;
        self.links.extend(kept);
        self.links.sort_by_key(|link| link.index);
    }
}

impl Scan {
    /// Counts links of an `earlier` scan as there still, by their indexes, with their routes and
    /// neighbours: those whose cards a machine has, and that the namespace has not meanwhile.
    pub fn keep_taken(&mut self, earlier: &Self, taken: &BTreeSet<u32>) {
        let there: BTreeSet<_> = self.links.iter().map(|link| link.index).collect();
        let missing: BTreeSet<_> = taken.difference(&there).copied().collect();
        let links = earlier.links.iter();
        let links = links.filter(|link| missing.contains(&link.index));
        self.links.extend(links.cloned());
        self.links.sort_by_key(|link| link.index);
        let routes = earlier.routes.iter();
        let routes = routes.filter(|route| missing.contains(&route.link));
        self.routes.extend(routes.cloned());
        self.order_routes();
        let neighbours = earlier.neighbours.iter();
        let neighbours = neighbours.filter(|neighbour| missing.contains(&neighbour.link));
        self.neighbours.extend(neighbours.cloned());
    }
}

fn is_same(before: &Link, now: &Link) -> bool {
    before.index == now.index
        && before.kind == now.kind
        && (before.name == now.name || before.mac == now.mac)
}

fn without<T: Clone + PartialEq>(these: &[T], those: &[T]) -> Vec<T> {
    let left = these.iter().filter(|one| !those.contains(one));
    left.cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::RouteScope;

    #[test]
    fn a_link_whose_card_is_taken_is_there_with_its_routes() {
        let (card, other) = (
            link(3, "eth1", "10.1.0.2/24"),
            link(2, "eth0", "10.0.0.2/24"),
        );
        let route = |link: u32, to: &str, gateway: Option<&str>| Route {
            link,
            destination: to.parse().unwrap(),
            gateway: gateway.map(|gateway| gateway.parse().unwrap()),
            on_link: false,
            source: None,
            scope: RouteScope::Universe,
            mtu: None,
            metric: None,
        };
        let earlier = Scan {
            links: vec![other.clone(), card.clone()],
            routes: vec![
                route(3, "10.9.0.0/16", None),
                route(3, "0.0.0.0/0", Some("10.1.0.1")),
            ],
            ..Scan::default()
        };
        let mut newer = Scan {
            links: vec![other],
            routes: vec![route(2, "10.8.0.0/16", Some("10.0.0.1"))],
            ..Scan::default()
        };
        newer.keep_taken(&earlier, &BTreeSet::from([3]));
        assert_eq!(newer.links, earlier.links);
        let difference = earlier.difference(&newer);
        assert_eq!(difference.vanished_routes, []);
        assert!(difference.vanished_links.is_empty());
        let order: Vec<_> = newer.routes.iter().map(|route| route.destination).collect();
        let order: Vec<_> = order.iter().map(ToString::to_string).collect();
        assert_eq!(order, ["10.9.0.0/16", "10.8.0.0/16", "0.0.0.0/0"]);
    }

    fn link(index: u32, name: &str, address: &str) -> Link {
        serde_json::from_value(serde_json::json!({
            "index": index, "name": name, "kind": "veth",
            "mac": format!("02:00:00:00:00:{index:02x}"), "mtu": 1500, "up": true, "no_arp": false,
            "queues": 1, "addresses": [{"cidr": address}],
        }))
        .unwrap()
    }

    fn route(link: u32, destination: &str) -> Route {
        serde_json::from_value(serde_json::json!({
            "link": link, "destination": destination, "scope": "universe",
        }))
        .unwrap()
    }

    fn names(links: &[Link]) -> Vec<&str> {
        links.iter().map(|link| link.name.as_str()).collect()
    }

    #[test]
    fn each_link_is_added_vanished_changed_or_as_it_was() {
        let before = Scan {
            links: vec![
                link(1, "stays", "10.1.0.1/24"),
                link(2, "goes", "10.2.0.1/24"),
                link(3, "moves", "10.3.0.1/24"),
                link(4, "renamed", "10.4.0.1/24"),
            ],
            ..Scan::default()
        };
        let mut now = before.clone();
        now.links.remove(1);
        now.links[1] = link(3, "moves", "10.3.0.9/24");
        now.links[2] = link(4, "newname", "10.4.0.1/24");
        now.links.push(link(7, "comes", "10.7.0.1/24"));
        let difference = before.difference(&now);
        assert_eq!(names(&difference.added_links), ["comes"]);
        assert_eq!(names(&difference.vanished_links), ["goes"]);
        let changed: Vec<_> = difference.changed_links.iter().collect();
        assert_eq!(changed.len(), 2);
        assert_eq!(
            (&changed[0].before, &changed[0].now),
            (&before.links[2], &now.links[1])
        );
        assert_eq!(changed[1].now.name.as_str(), "newname");
        // And back again.
        let back = now.difference(&before);
        assert_eq!(names(&back.added_links), ["goes"]);
        assert_eq!(names(&back.vanished_links), ["comes"]);
    }

    #[test]
    fn another_link_with_the_index_of_one_that_vanished_is_another_link() {
        let of = |link| Scan {
            links: vec![link],
            ..Scan::default()
        };
        let before = of(link(2, "eth0", "10.1.0.1/24"));
        let mut other = link(2, "eth1", "10.1.0.1/24");
        other.mac = Some("02:00:00:00:00:99".parse().unwrap());
        let difference = before.difference(&of(other));
        assert_eq!(names(&difference.added_links), ["eth1"]);
        assert_eq!(names(&difference.vanished_links), ["eth0"]);
        assert!(difference.changed_links.is_empty());
    }

    #[test]
    fn a_link_that_has_lost_its_addresses_is_still_there() {
        let of = |links| Scan {
            links,
            ..Scan::default()
        };
        let before = of(vec![
            link(2, "eth0", "10.1.0.1/24"),
            link(3, "eth1", "10.2.0.1/24"),
        ]);
        let mut now = of(vec![link(3, "eth1", "10.2.0.1/24")]);
        for mut idle in [
            link(2, "eth0", "10.1.0.1/24"),
            link(4, "eth2", "10.3.0.1/24"),
        ] {
            idle.addresses.clear();
            now.without_address.push(idle);
        }
        now.keep_links_of(&before);
        let difference = before.difference(&now);
        assert!(difference.vanished_links.is_empty() && difference.added_links.is_empty());
        assert_eq!(difference.changed_links.len(), 1);
        assert_eq!(names(&now.links), ["eth0", "eth1"]);
        assert_eq!(names(&now.without_address), ["eth2"]);
    }

    #[test]
    fn routes_keep_the_order_in_which_they_can_be_added() {
        let before = Scan {
            routes: vec![route(1, "10.8.0.0/16"), route(1, "0.0.0.0/0")],
            ..Scan::default()
        };
        let now = Scan {
            routes: vec![
                route(2, "10.9.0.0/16"),
                route(1, "0.0.0.0/0"),
                route(2, "::/0"),
            ],
            ..Scan::default()
        };
        let difference = before.difference(&now);
        let added: Vec<_> = difference.added_routes.iter().collect();
        assert_eq!(added, [&now.routes[0], &now.routes[2]]);
        assert_eq!(difference.vanished_routes, [before.routes[0].clone()]);
        assert!(!difference.is_empty() && now.difference(&now).is_empty());
    }
}
