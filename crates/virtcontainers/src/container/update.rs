//! Limits of a container that are changed: what it was asked to be follows.

use oci_spec::runtime::{Linux, LinuxResources, Spec};
use serde_json::Value;

/// Changes a specification as its container was changed: what `resources` do not name stays as it is.
///
/// # Errors
///
/// What cannot be written as JSON.
pub(crate) fn update(spec: &mut Spec, resources: &LinuxResources) -> serde_json::Result<()> {
    let mut linux = spec.linux().clone().unwrap_or_else(|| {
        let mut linux = Linux::default();
        linux.set_resources(None);
        linux
    });
    let before = linux.resources().clone().unwrap_or_default();
    let mut merged = serde_json::to_value(before)?;
    merge(&mut merged, serde_json::to_value(resources)?);
    let mut merged: LinuxResources = serde_json::from_value(merged)?;
    if let Some(memory) = merged.memory_mut()
        && let (Some(limit), Some(swap)) = (memory.limit(), memory.swap())
        && (1..limit).contains(&swap)
    {
        // What is less than the limit alone makes no container: the guest has kept it without.
        memory.set_swap(Some(limit));
    }
    linux.set_resources(Some(merged));
    spec.set_linux(Some(linux));
    Ok(())
}

/// What is an object in both is merged; what is nothing changes nothing.
fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (_, Value::Null) => {}
        (into, from) => *into = from,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_not_named_stays() {
        let spec = json!({
            "ociVersion": "1.0.2",
            "linux": { "cgroupsPath": "/a", "resources": {
                "memory": { "limit": 1000, "swap": 2000 },
                "pids": { "limit": 7 },
            } },
        });
        let mut spec: Spec = serde_json::from_value(spec).unwrap();
        let change = json!({ "memory": { "limit": 3000 }, "cpu": { "quota": 5000 } });
        update(&mut spec, &serde_json::from_value(change).unwrap()).unwrap();
        let linux = serde_json::to_value(spec.linux()).unwrap();
        assert_eq!(linux["cgroupsPath"], "/a");
        let resources = &linux["resources"];
        assert_eq!(resources["memory"]["limit"], 3000);
        assert_eq!(resources["memory"]["swap"], 3000, "not less than the limit");
        assert_eq!(resources["pids"]["limit"], 7);
        assert_eq!(resources["cpu"]["quota"], 5000);
    }

    #[test]
    fn a_container_without_limits_gets_some() {
        let mut spec: Spec = serde_json::from_value(json!({ "ociVersion": "1.0.2" })).unwrap();
        let change = json!({ "memory": { "limit": 3000 } });
        update(&mut spec, &serde_json::from_value(change).unwrap()).unwrap();
        let linux = serde_json::to_value(spec.linux()).unwrap();
        assert_eq!(linux["resources"]["memory"]["limit"], 3000);
    }
}
