//! The nearest known key to one that is not known.

/// The candidate that was most likely meant, or nothing where none is near.
///
/// The same last part in another section is as near as can be. Otherwise it is the least number
/// of inserted, removed, replaced and swapped characters, up to a third of the text.
pub(crate) fn nearest<'a>(
    text: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let last = |path: &str| path.rsplit('.').next().unwrap_or_default().to_owned();
    let farthest = (text.chars().count() / 3).max(2);
    candidates
        .into_iter()
        .map(|candidate| {
            let far = if last(candidate) == last(text) {
                0
            } else {
                distance(text, candidate)
            };
            (far, candidate)
        })
        .min_by_key(|(far, _)| *far)
        .filter(|(far, _)| *far <= farthest)
        .map(|(_, candidate)| candidate)
}

/// Characters of a text that are looked at: a longer one is no key with a slip of the pen.
const CHARS_MAX: usize = 128;

/// The number of edits between two texts, where swapping two neighbours is one edit.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().take(CHARS_MAX).collect();
    let b: Vec<char> = b.chars().take(CHARS_MAX).collect();
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = above[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replaced.min(above[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(before[j - 2] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_distance_counts_edits() {
        for (a, b, edits) in [
            ("", "", 0),
            ("", "abc", 3),
            ("memory", "mmeory", 1),
            ("vcpus", "cpus", 1),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(distance(a, b), edits, "{a} {b}");
        }
    }

    #[test]
    fn the_same_name_in_another_section_is_nearest() {
        let keys = ["vm.root_path", "hypervisor.qemu.root_ports"];
        assert_eq!(
            nearest("vm.root_ports", keys),
            Some("hypervisor.qemu.root_ports")
        );
        assert_eq!(nearest("vm.rootpath", keys), Some("vm.root_path"));
        assert_eq!(nearest("xyzzy", keys), None);
    }

    proptest! {
        #[test]
        fn it_is_a_distance(a in ".{0,12}", b in ".{0,12}") {
            prop_assert_eq!(distance(&a, &b), distance(&b, &a));
            prop_assert_eq!(distance(&a, &b) == 0, a == b);
        }
    }
}
