//! Removing what holders that are gone have left, and ending machines that wait for nobody.

use super::super::gc::{GcReport, Removed, gc_of_root};
use super::below;
use crate::error::Result;
use crate::factory::{Library, Pool};
use crate::runtime::{Runtime, RuntimeOptions, Shared};

/// Adds what was found to the report; only names it when `dry_run`.
pub(in crate::sandbox) fn gc(runtime: &Shared, dry_run: bool, report: &mut GcReport) -> Result<()> {
    let pool = Pool::of(&runtime.config);
    if !pool.root().exists() {
        return Ok(());
    }
    let of_those = Runtime::open(RuntimeOptions {
        config: below(&runtime.config),
        program: runtime.program.clone(),
        driver: runtime.driver.clone(),
        ..RuntimeOptions::default()
    })?;
    let found = gc_of_root(of_those.shared(), dry_run)?;
    report.removed.extend(found.removed);
    report.left.extend(found.left);
    for (id, reason) in pool.unusable(&Library::open(&runtime.config.factory))? {
        if dry_run || pool.end(&id)? {
            report.removed.push(Removed {
                name: id.to_string(),
                reason: reason.to_owned(),
            });
        }
    }
    match dry_run {
        true => Ok(()),
        false => pool.tidy(),
    }
}
