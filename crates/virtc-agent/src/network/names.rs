//! New names for interfaces, also when two swap theirs.

use super::link::{self, Link};
use super::netlink::Netlink;
use crate::error::Result;

/// One link that gets another name.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rename {
    index: u32,
    name: String,
    /// Whether it is set up again: what was wanted by name is, later, by others.
    up_again: bool,
}

/// Gives each link of `wanted` its name. A link that has one of the names and is not among them
/// gets a name that becomes free.
///
/// Links that get another name are set down for it, and lose their routes.
pub(super) fn rename_all(netlink: &mut Netlink, wanted: &[(u32, &str)]) -> Result<()> {
    let links = link::list(netlink)?;
    let renames = plan(&links, wanted);
    let of = |rename: &Rename| links.iter().find(|link| link.index == rename.index);
    let moved: Vec<_> = renames
        .iter()
        .filter_map(|rename| Some((of(rename)?, rename)))
        .collect();
    for (done, (link, _)) in moved.iter().enumerate() {
        let set_aside = link
            .set_up(netlink, false)
            .and_then(|()| link.rename(netlink, &interim_name(link.index)));
        if let Err(error) = set_aside {
            for (link, _) in moved.iter().take(done) {
                // The first failure is the one to tell.
                let _ = link.rename(netlink, &link.name);
            }
            return Err(error);
        }
    }
    for (link, rename) in moved {
        link.rename(netlink, &rename.name)?;
        if rename.up_again {
            link.set_up(netlink, true)?;
        }
    }
    Ok(())
}

/// A name that nobody else has: of fifteen bytes at most.
fn interim_name(index: u32) -> String {
    format!("virtc{index}")
}

fn plan(links: &[Link], wanted: &[(u32, &str)]) -> Vec<Rename> {
    let is_wanted = |name: &str| wanted.iter().any(|(_, wanted)| *wanted == name);
    let name_of = |index: u32| links.iter().find(|link| link.index == index);
    let mut renames = Vec::new();
    let mut free = Vec::new();
    for &(index, name) in wanted {
        let Some(link) = name_of(index) else { continue };
        if link.name == name {
            continue;
        }
        if !is_wanted(&link.name) {
            free.push(link.name.clone());
        }
        renames.push(Rename {
            index,
            name: name.to_owned(),
            up_again: false,
        });
    }
    let strangers = links.iter().filter(|link| {
        is_wanted(&link.name) && !wanted.iter().any(|(index, _)| *index == link.index)
    });
    // Each name that a stranger has is one which a link of ours has not yet, so there are enough.
    let displaced: Vec<_> = strangers
        .zip(free)
        .map(|(link, name)| Rename {
            index: link.index,
            name,
            up_again: link.is_up(),
        })
        .collect();
    renames.extend(displaced);
    renames
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::link::LinkFlags;

    use super::*;

    fn link(index: u32, name: &str) -> Link {
        Link {
            index,
            name: name.into(),
            mac: None,
            mtu: 1500,
            flags: LinkFlags::Up,
        }
    }

    fn planned(wanted: &[(u32, &str)]) -> Vec<(u32, String)> {
        let links = [
            link(1, "lo"),
            link(2, "eth0"),
            link(3, "eth1"),
            link(4, "eth2"),
        ];
        let renames = plan(&links, wanted).into_iter();
        renames.map(|rename| (rename.index, rename.name)).collect()
    }

    fn names(pairs: &[(u32, &str)]) -> Vec<(u32, String)> {
        pairs.iter().map(|(i, name)| (*i, (*name).into())).collect()
    }

    #[test]
    fn who_has_its_name_is_left_alone() {
        assert!(planned(&[(2, "eth0"), (3, "eth1")]).is_empty());
    }

    #[test]
    fn two_swap_and_a_stranger_gets_what_becomes_free() {
        let swap = [(2, "eth1"), (3, "eth0")];
        assert_eq!(planned(&swap), names(&swap));
        assert_eq!(
            planned(&[(2, "eth1")]),
            names(&[(2, "eth1"), (3, "eth0")]),
            "the one that is not named makes room"
        );
        assert_eq!(
            planned(&[(2, "eth1"), (3, "net9")]),
            names(&[(2, "eth1"), (3, "net9")])
        );
        assert_eq!(
            planned(&[(2, "eth1"), (3, "eth2")]),
            names(&[(2, "eth1"), (3, "eth2"), (4, "eth0")])
        );
    }

    #[test]
    fn the_longest_interim_name_is_a_name() {
        assert!(super::super::interface::Name::parse(&interim_name(u32::MAX)).is_ok());
    }
}
