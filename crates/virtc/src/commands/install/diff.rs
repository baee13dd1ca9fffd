//! What changes between two texts, where it changes in one place.

/// Lines that are shown before and after.
const CONTEXT: usize = 3;

/// The lines of a unified diff; none where the texts are equal.
pub(super) fn unified(name: &str, before: &str, after: &str) -> Vec<String> {
    if before == after {
        return Vec::new();
    }
    let (old, new): (Vec<_>, Vec<_>) = (
        before.split_inclusive('\n').collect(),
        after.split_inclusive('\n').collect(),
    );
    let same = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let shorter = old.len().min(new.len());
    let same_end = old
        .iter()
        .rev()
        .zip(new.iter().rev())
        .take(shorter - same)
        .take_while(|(a, b)| a == b)
        .count();
    let first = same.saturating_sub(CONTEXT);
    let end = |all: &[&str]| (all.len() - same_end + CONTEXT).min(all.len());
    let range = |all: &[&str]| {
        let count = end(all) - first;
        let begin = if count == 0 { first } else { first + 1 };
        format!("{begin},{count}")
    };
    let mut lines = vec![
        format!("--- {name}"),
        format!("+++ {name}"),
        format!("@@ -{} +{} @@", range(&old), range(&new)),
    ];
    let mut tell = |sign: char, some: &[&str]| {
        for line in some {
            lines.push(format!("{sign}{}", line.trim_end_matches(['\n', '\r'])));
            if !line.ends_with('\n') {
                lines.push("\\ No newline at end of file".to_owned());
            }
        }
    };
    tell(' ', &old[first..same]);
    tell('-', &old[same..old.len() - same_end]);
    tell('+', &new[same..new.len() - same_end]);
    tell(' ', &old[old.len() - same_end..end(&old)]);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_added_stands_in_its_surroundings() {
        let before = "1\n2\n3\n4\n5\n";
        let after = "1\n2\n3\n4\nnew\n5\n";
        assert_eq!(
            unified("f", before, after),
            [
                "--- f",
                "+++ f",
                "@@ -2,4 +2,5 @@",
                " 2",
                " 3",
                " 4",
                "+new",
                " 5"
            ]
        );
        assert_eq!(
            unified("f", after, before)[6..],
            ["-new".to_owned(), " 5".to_owned()]
        );
    }

    #[test]
    fn what_is_made_from_nothing_and_last_lines_without_an_end_are_said() {
        assert_eq!(unified("f", "a", "a"), Vec::<String>::new());
        assert_eq!(unified("f", "", "a\n")[2..], ["@@ -0,0 +1,1 @@", "+a"]);
        assert_eq!(
            unified("f", "a", "a\nb\n")[3..],
            ["-a", "\\ No newline at end of file", "+a", "+b"]
        );
    }
}
