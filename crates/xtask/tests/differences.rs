//! The page of differences names tests. Each of them is there.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test speaks by failing"
)]

mod named_tests;

use std::collections::BTreeSet;
use std::fs;

use named_tests::{all_tests, tests_of, tree};

#[test]
fn every_difference_is_shown_by_a_test_or_a_page_that_exists() {
    let tests = all_tests();
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
