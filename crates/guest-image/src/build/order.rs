//! The order in which modules are loaded.

use std::collections::BTreeSet;

use crate::{Error, Result};

/// Everything that some modules need and the modules themselves, each once, each behind what it
/// needs. `before` answers what one module needs; it is asked once for each.
///
/// # Errors
/// [`Error::DependencyCycle`], and whatever `before` fails with.
///
/// ```
/// use guest_image::build::order::load_order;
///
/// let order = load_order(&["virtiofs".into()], |module| {
///     Ok(if module == "virtiofs" { vec!["fuse".into(), "virtio".into()] } else { vec![] })
/// })?;
/// assert_eq!(order, ["fuse", "virtio", "virtiofs"]);
/// # Ok::<(), guest_image::Error>(())
/// ```
pub fn load_order(
    wanted: &[String],
    before: impl FnMut(&str) -> Result<Vec<String>>,
) -> Result<Vec<String>> {
    let mut walk = Walk {
        before,
        open: Vec::new(),
        done: BTreeSet::new(),
        order: Vec::new(),
    };
    for module in wanted {
        walk.visit(module)?;
    }
    Ok(walk.order)
}

struct Walk<F> {
    before: F,
    /// The way from a wanted module to the one that is looked at.
    open: Vec<String>,
    done: BTreeSet<String>,
    order: Vec<String>,
}

impl<F: FnMut(&str) -> Result<Vec<String>>> Walk<F> {
    fn visit(&mut self, module: &str) -> Result<()> {
        if self.done.contains(module) {
            return Ok(());
        }
        if self.open.iter().any(|name| name == module) {
            let by = self.open.last().cloned().unwrap_or_default();
            return Err(Error::DependencyCycle {
                module: module.to_owned(),
                by,
            });
        }
        self.open.push(module.to_owned());
        for needed in (self.before)(module)? {
            self.visit(&needed)?;
        }
        self.open.pop();
        self.done.insert(module.to_owned());
        self.order.push(module.to_owned());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    type Graph = BTreeMap<usize, Vec<usize>>;

    fn order(wanted: &[usize], graph: &Graph) -> Result<Vec<usize>> {
        let wanted: Vec<String> = wanted.iter().map(usize::to_string).collect();
        let order = load_order(&wanted, |name| {
            let needed = graph
                .get(&name.parse().unwrap())
                .cloned()
                .unwrap_or_default();
            Ok(needed.iter().map(usize::to_string).collect())
        })?;
        Ok(order.iter().map(|name| name.parse().unwrap()).collect())
    }

    #[test]
    fn a_cycle_is_an_error() {
        let graph = Graph::from([(1, vec![2]), (2, vec![3]), (3, vec![1])]);
        let error = order(&[1], &graph).unwrap_err();
        assert_eq!(error.to_string(), "module 1 depends on itself by way of 3");
    }

    /// Which modules a set needs, computed in the simplest way.
    fn needed(wanted: &[usize], graph: &Graph) -> BTreeSet<usize> {
        let mut all: BTreeSet<usize> = wanted.iter().copied().collect();
        loop {
            let more: BTreeSet<usize> = all
                .iter()
                .flat_map(|m| graph.get(m).cloned().unwrap_or_default())
                .collect();
            if more.is_subset(&all) {
                return all;
            }
            all.extend(more);
        }
    }

    proptest! {
        // Without a cycle: a module needs only modules with smaller numbers.
        #[test]
        fn each_once_and_behind_what_it_needs(
            edges in prop::collection::vec((1..24usize, 0..24usize), 0..80),
            wanted in prop::collection::vec(0..24usize, 0..8),
        ) {
            let mut graph = Graph::new();
            for (from, to) in edges {
                graph.entry(from).or_default().push(to % from);
            }
            let order = order(&wanted, &graph).unwrap();
            let mut loaded = BTreeSet::new();
            for module in &order {
                for before in graph.get(module).into_iter().flatten() {
                    prop_assert!(loaded.contains(before), "{before} is not before {module}");
                }
                prop_assert!(loaded.insert(*module), "{module} is there twice");
            }
            prop_assert_eq!(loaded, needed(&wanted, &graph));
        }

        // With cycles: an order or an error, but an answer.
        #[test]
        fn any_graph_gives_an_answer(
            edges in prop::collection::vec((0..8usize, 0..8usize), 0..20),
        ) {
            let mut graph = Graph::new();
            for (from, to) in edges {
                graph.entry(from).or_default().push(to);
            }
            let _ = order(&[0, 1], &graph);
        }
    }
}
