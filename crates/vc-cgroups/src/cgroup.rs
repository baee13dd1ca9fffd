use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::create;
use crate::error::Result;
use crate::hierarchies::{Hierarchies, Layout};
use crate::path::CgroupPath;
use crate::place::Place;

/// One cgroup: its directory in every hierarchy of the host.
///
/// It holds nothing open, and is not removed when it is dropped: it is written into a state, and
/// read from there by whoever goes on. It knows which directories were made here.
///
/// ```no_run
/// use vc_cgroups::{Cgroup, CgroupPath, Hierarchies};
///
/// let hierarchies = Hierarchies::detect()?;
/// let path = CgroupPath::below_default_parent("web-1")?;
/// let cgroup = Cgroup::plan(&hierarchies, &path)?;
/// // Write it into the state now: what a killed process made is found then.
/// let cgroup = cgroup.make()?;
/// println!("{:?}", cgroup.stats()?.memory);
/// cgroup.kill_all()?;
/// cgroup.remove()?;
/// # Ok::<(), vc_cgroups::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cgroup {
    pub(crate) path: CgroupPath,
    /// In the order of the hierarchies.
    pub(crate) places: Vec<Place>,
    /// Whether controllers are switched on, which version 2 needs where it is alone.
    pub(crate) enable: bool,
}

impl Cgroup {
    /// Makes the cgroup in all hierarchies: [`Cgroup::plan`] and [`Cgroup::make`].
    ///
    /// # Errors
    ///
    /// Those of the two.
    pub fn create(hierarchies: &Hierarchies, path: &CgroupPath) -> Result<Self> {
        Self::plan(hierarchies, path)?.make()
    }

    /// Looks which directories are missing, and makes none yet.
    ///
    /// The result counts the missing ones as made, so that a state that holds it is enough to
    /// remove what a process made that was killed meanwhile.
    ///
    /// # Errors
    ///
    /// [`crate::Error::OwnCgroupHidden`] for a relative path where the own cgroup is not known,
    /// [`crate::Error::NotMounted`] and [`crate::Error::Io`] when a hierarchy cannot be read.
    pub fn plan(hierarchies: &Hierarchies, path: &CgroupPath) -> Result<Self> {
        let places = hierarchies.resolve(path)?;
        let plan = |(hierarchy, path)| create::plan(hierarchy, path);
        Ok(Self {
            path: path.clone(),
            places: places.into_iter().map(plan).collect::<Result<_>>()?,
            enable: hierarchies.layout() == Layout::V2,
        })
    }

    /// Makes the directories that are missing; existing ones are joined and stay others'.
    ///
    /// On version 1, an empty cpuset gets the processors and memory of its parent: no process
    /// could join it otherwise. Where version 2 is alone, its controllers are switched on in all
    /// cgroups above, as far as the kernel allows.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Io`] when a directory cannot be made. What was made is removed again.
    pub fn make(self) -> Result<Self> {
        create::make(self)
    }

    /// Takes over a cgroup that is there already, and that the caller knows to be his by its name
    /// alone: its processes may be killed and its directories removed from now on. Nothing when
    /// there is none in any hierarchy.
    ///
    /// This is for what was left behind by a sandbox whose state is lost.
    ///
    /// # Errors
    ///
    /// Those of [`Cgroup::plan`].
    pub fn adopt(hierarchies: &Hierarchies, path: &CgroupPath) -> Result<Option<Self>> {
        let mut cgroup = Self::plan(hierarchies, path)?;
        cgroup.places.retain(|place| !place.is_ours());
        for place in &mut cgroup.places {
            let depth = place.depth();
            place.made.insert(depth);
        }
        Ok((!cgroup.places.is_empty()).then_some(cgroup))
    }

    /// The path that it was made for.
    pub fn path(&self) -> &CgroupPath {
        &self.path
    }

    /// Its directory in each hierarchy.
    pub fn directories(&self) -> impl Iterator<Item = PathBuf> {
        self.places
            .iter()
            .map(|place| place.directory(place.depth()))
    }

    /// Whether its directory was made here in at least one hierarchy. A cgroup that is not ours
    /// was there before: it is joined, and never frozen, killed or removed.
    pub fn is_ours(&self) -> bool {
        self.places.iter().any(Place::is_ours)
    }

    /// Whether its directory is there in any hierarchy.
    ///
    /// # Errors
    ///
    /// [`crate::Error::NotMounted`] and [`crate::Error::Io`] when a hierarchy cannot be read.
    pub fn exists(&self) -> Result<bool> {
        for place in &self.places {
            if place.leaf()?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
