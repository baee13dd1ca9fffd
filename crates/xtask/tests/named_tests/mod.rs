//! The tests that pages of the documentation name.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// How far above a test's function its attribute may stand: other attributes come between.
const LINES_BETWEEN: usize = 4;

pub(crate) fn tree() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The name after `fn`, where the line begins a function.
fn function(line: &str) -> Option<&str> {
    let (before, after) = line.split_once("fn ")?;
    let is_word = |word: &str| matches!(word, "pub(crate)" | "pub(super)" | "pub" | "async");
    before.split_whitespace().all(is_word).then_some(())?;
    after.split(['(', '<']).next()
}

/// The names of the tests in a file: functions with an attribute, and those of programs that bring
/// their own list of tests.
pub(crate) fn tests_of(text: &str, found: &mut BTreeSet<String>) {
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

/// The names of all tests of this tree.
pub(crate) fn all_tests() -> BTreeSet<String> {
    let mut tests = BTreeSet::new();
    read_below(&tree().join("crates"), &mut tests);
    tests
}
