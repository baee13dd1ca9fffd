//! The page of differences names tests. Each of them is there.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test speaks by failing"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// How far above a test's function its attribute may stand: other attributes come between.
const LINES_BETWEEN: usize = 4;

fn tree() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The name after `fn`, where the line begins a function.
fn function(line: &str) -> Option<&str> {
    let (before, after) = line.split_once("fn ")?;
    let is_word = |word: &str| matches!(word, "pub(crate)" | "pub" | "async");
    before.split_whitespace().all(is_word).then_some(())?;
    after.split(['(', '<']).next()
}

/// The names of the tests in a file: functions with an attribute, and those of programs that bring
/// their own list of tests.
fn tests_of(text: &str, found: &mut BTreeSet<String>) {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let is_attribute =
        |line: &&str| line.starts_with("#[test]") || line.starts_with("#[tokio::test");
    for (number, line) in lines.iter().enumerate() {
        let above = &lines[number.saturating_sub(LINES_BETWEEN)..number];
        // Nothing but attributes between the two.
        let mut attributes = above.iter().rev().take_while(|line| line.starts_with("#["));
        if let Some(name) = function(line)
            && attributes.any(is_attribute)
        {
            found.insert(name.to_owned());
        }
    }
    if let Some((_, list)) = text.split_once("const TESTS:") {
        let list = list.split("];").next().unwrap_or_default();
        found.extend(list.split('"').skip(1).step_by(2).map(str::to_owned));
    }
}

fn read_below(directory: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read_below(&path, found);
        } else if path.extension().is_some_and(|suffix| suffix == "rs") {
            tests_of(&fs::read_to_string(&path).unwrap(), found);
        }
    }
}

#[test]
fn every_difference_is_shown_by_a_test_or_a_page_that_exists() {
    let mut tests = BTreeSet::new();
    read_below(&tree().join("crates"), &mut tests);
    let docs = tree().join("docs");
    let page = fs::read_to_string(docs.join("differences.md")).unwrap();
    let rows = page
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| Kata 1.x"));
    let mut count = 0;
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let [_, _, shown_by] = cells.as_slice() else {
            panic!("not three cells: {row}")
        };
        for shown in shown_by.split(", ") {
            let shown = shown.trim();
            if let Some(name) = shown.strip_prefix('`').and_then(|s| s.strip_suffix('`')) {
                assert!(tests.contains(name), "there is no test {name}: {row}");
            } else if let Some((_, link)) = shown.split_once("](") {
                let page = docs.join(link.trim_end_matches(')'));
                assert!(page.exists(), "there is no {}", page.display());
            } else {
                panic!("neither a test nor a page: {shown:?} in {row}");
            }
        }
        count += 1;
    }
    assert!(count > 20, "{count} rows were read");
}

#[test]
fn tests_are_told_from_other_functions() {
    let mut found = BTreeSet::new();
    let text = "
        fn no_test() {}
        #[test]
        #[allow(x, reason = \"y\")]
        fn one() {}
        #[tokio::test]
        async fn two() {}
        fn in_no_list() {}
        const TESTS: &[Test] = &[(\"three\", x), (\"four\", y)];
        const OTHERS: &[&str] = &[\"five\"];
    ";
    tests_of(text, &mut found);
    let found: Vec<&str> = found.iter().map(String::as_str).collect();
    assert_eq!(found, ["four", "one", "three", "two"]);
}
