//! The page of the OCI command line says which test shows which sentence of the specification.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test speaks by failing"
)]

mod named_tests;

use std::fs;

use named_tests::{all_tests, tree};

/// The documents, and how many sentences of them there are at least.
const DOCUMENTS: [(&str, usize); 3] = [
    ("### runtime.md", 25),
    ("### config.md", 25),
    ("### config-linux.md", 20),
];

/// The rows of the table below a heading, without those that head it.
fn rows<'a>(page: &'a str, heading: &str) -> Vec<&'a str> {
    let mut below = page.lines().skip_while(|line| *line != heading);
    below.next().unwrap_or_else(|| panic!("no {heading}"));
    let table = below
        .take_while(|line| !line.starts_with('#'))
        .filter(|line| line.starts_with("| "));
    table.skip(1).collect()
}

#[test]
fn every_sentence_that_applies_is_shown_by_a_test_and_the_others_say_why_not() {
    let tests = all_tests();
    let page = fs::read_to_string(tree().join("docs/oci.md")).unwrap();
    for (heading, at_least) in DOCUMENTS {
        let rows = rows(&page, heading);
        assert!(rows.len() >= at_least, "{heading} has {} rows", rows.len());
        for row in rows {
            let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
            let [_, applies, shown_by] = cells.as_slice() else {
                panic!("not three cells: {row}")
            };
            assert!(!applies.is_empty(), "whether it applies: {row}");
            let names: Vec<&str> = shown_by.split('`').skip(1).step_by(2).collect();
            assert!(
                !names.is_empty() || !applies.starts_with("yes"),
                "it applies, and no test shows it: {row}"
            );
            for name in names {
                assert!(tests.contains(name), "there is no test {name}: {row}");
            }
        }
    }
}

#[test]
fn a_table_ends_at_the_next_heading() {
    let page = "### a\n\n| x | y |\n|---|---|\n| 1 | 2 |\n\n### b\n| 3 | 4 |\n";
    assert_eq!(rows(page, "### a"), ["| 1 | 2 |"]);
}
