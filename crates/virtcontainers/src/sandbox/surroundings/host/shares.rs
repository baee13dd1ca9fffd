use std::path::Path;

use vc_hypervisor::ServedTypes;
use vc_launch::User;
use vc_storage::{CachePolicy, Rights, SharePlan, host_system};
use vc_types::{ContainerId, SandboxUsers};

use crate::container::placement::Placement;
use crate::error::Result;
use crate::sandbox::config::SandboxConfig;

/// The shares of a sandbox before their processes are started.
pub(super) struct SharePlans {
    /// The host's own system.
    pub(super) system: Option<SharePlan>,
    /// What the invoker names.
    pub(super) user: Option<SharePlan>,
}

impl SharePlans {
    /// Opens every source.
    pub(super) fn of(
        host: &vc_config::Config,
        config: &SandboxConfig,
        containers: &[(ContainerId, Placement)],
        types: ServedTypes,
    ) -> Result<Self> {
        let mut user: Option<SharePlan> = None;
        // One without a container gets those that come, of whatever kind they are.
        let comes_later = containers.is_empty();
        if !config.throw_away || comes_later {
            // More containers may come.
            let share = user.get_or_insert_with(|| invokers_share(host));
            share.grows = true;
            share.extended_attributes = true;
        }
        for (_, placement) in containers {
            if !placement.entries.is_empty() {
                add_entries(user.get_or_insert_with(|| invokers_share(host)), placement)?;
            }
        }
        let shown = containers.iter().any(|(_, one)| one.host_system);
        if shown && config.throw_away && types == ServedTypes::ByClass {
            // A template has its shares, so that runs are alike whether they name files or not.
            user.get_or_insert_with(|| invokers_share(host));
        }
        let system = match shown || config.host_system_later {
            true => {
                let mut plan = host_system::plan(Path::new("/"))?;
                plan.rights = Rights::NothingAs(SandboxUsers::of(&config.id).system_share());
                Some(plan)
            }
            false => None,
        };
        Ok(Self { system, user })
    }

    /// Whether changes may reach the host.
    pub(super) fn are_writable(&self) -> bool {
        self.user.as_ref().is_some_and(SharePlan::is_writable)
    }
}

/// The share of what the invoker names, which is root for now.
fn invokers_share(config: &vc_config::Config) -> SharePlan {
    let user = User {
        uid: 0,
        gid: 0,
        groups: Vec::new(),
    };
    let mut plan = SharePlan::new("the share of the invoker's files", Rights::Invoker(user));
    plan.cache = match config.share.cache {
        vc_config::ShareCache::Auto => CachePolicy::Checked,
        vc_config::ShareCache::Always => CachePolicy::Always,
    };
    plan
}

fn add_entries(share: &mut SharePlan, placement: &Placement) -> Result<()> {
    for entry in &placement.entries {
        let (source, access) = entry.open()?;
        share.add(entry.name.clone(), source, access);
        share.extended_attributes |= !entry.read_only;
    }
    Ok(())
}
