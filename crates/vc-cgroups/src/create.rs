//! Making the directories of a cgroup, and undoing that.

use std::collections::BTreeSet;

use crate::cgroup::Cgroup;
use crate::controllers;
use crate::error::{Error, Result};
use crate::hierarchies::Hierarchy;
use crate::limits::CREATE_TRIES;
use crate::path::CgroupPath;
use crate::place::Place;

/// Looks which directories are missing: they are the ones to make.
pub(crate) fn plan(hierarchy: Hierarchy, path: CgroupPath) -> Result<Place> {
    let mut place = Place {
        hierarchy,
        path,
        made: BTreeSet::new(),
    };
    for depth in 1..=place.depth() {
        if place.is_default_parent(depth) || place.open(depth)?.is_none() {
            place.made.insert(depth);
        }
    }
    Ok(place)
}

/// Makes what is missing in all hierarchies, or nothing.
pub(crate) fn make(cgroup: Cgroup) -> Result<Cgroup> {
    let mut making = Making {
        cgroup,
        begun: 0,
        done: false,
    };
    let enable = making.cgroup.enable;
    for index in 0..making.cgroup.places.len() {
        making.begun = index + 1;
        make_place(&mut making.cgroup.places[index], enable)?;
    }
    making.done = true;
    Ok(making.cgroup.clone())
}

/// Undoes what was made, unless all was.
struct Making {
    cgroup: Cgroup,
    /// How many places may have something to undo.
    begun: usize,
    done: bool,
}

impl Drop for Making {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        for place in self.cgroup.places.iter().take(self.begun).rev() {
            // The error that led here is the one to report.
            if let Err(remaining) = place.remove_directories() {
                tracing::warn!(cgroup = %self.cgroup.path, "after a failed creation, {remaining}");
            }
        }
    }
}

/// Makes what is missing in one hierarchy. Afterwards `made` has what it really made, also when
/// it failed.
fn make_place(place: &mut Place, enable: bool) -> Result<()> {
    let mut mine: BTreeSet<usize> = (1..=place.depth())
        .filter(|depth| place.is_default_parent(*depth))
        .collect();
    let mut result = Ok(false);
    // Somebody who leaves a parent may remove it between our making it and using it.
    for _ in 0..CREATE_TRIES {
        result = try_make(place, enable, &mut mine);
        if !matches!(result, Ok(false)) {
            break;
        }
    }
    place.made = mine;
    match result {
        Ok(true) => Ok(()),
        Ok(false) => Err(Error::Gone {
            path: place.directory(place.depth()),
        }),
        Err(error) => Err(error),
    }
}

/// Goes down the path; false when a directory of it vanished meanwhile.
fn try_make(place: &Place, enable: bool, mine: &mut BTreeSet<usize>) -> Result<bool> {
    let mut dir = place.root()?;
    for (name, depth) in place.path.components().into_iter().zip(1..) {
        if enable && place.is_v2() {
            controllers::enable(&dir);
        }
        let Some(made) = dir.make(name)? else {
            return Ok(false);
        };
        let Some(next) = dir.open(name)? else {
            return Ok(false);
        };
        if made {
            mine.insert(depth);
            // Others may come into it, and leave it after this one.
            if depth < place.depth() {
                next.mark();
            }
        }
        if place.hierarchy.has("cpuset") && !controllers::fill_cpuset(&dir, &next)? {
            return Ok(false);
        }
        dir = next;
    }
    Ok(true)
}
