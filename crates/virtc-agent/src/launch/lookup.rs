//! Which file a command's first word names, and what it means when none can be executed.

use std::ffi::CString;

use rustix::io::Errno;

use super::report::{FailedAt, StartFailure};

/// What a program is looked for in when the container's environment does not say.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Exit code when there is no such program, as in shells.
const NOT_FOUND: i32 = 127;
/// Exit code when there is one and it cannot be executed.
const NOT_EXECUTABLE: i32 = 126;

/// Tries to execute `name`, by itself when it has a slash, else in each directory of the
/// environment's `PATH`. `execute` returns only when it failed.
pub(super) fn execute_first(
    name: &str,
    environment: &[String],
    mut execute: impl FnMut(&CString) -> Errno,
) -> StartFailure {
    let path = environment
        .iter()
        .rev()
        .find_map(|entry| entry.strip_prefix("PATH="));
    let mut denied = false;
    for candidate in candidates(name, path.unwrap_or(DEFAULT_PATH)) {
        let Ok(candidate) = CString::new(candidate) else {
            continue;
        };
        match execute(&candidate) {
            Errno::NOENT | Errno::NOTDIR => {}
            Errno::ACCESS => denied = true,
            error => return failure(name, NOT_EXECUTABLE, &reason(error)),
        }
    }
    if denied {
        failure(name, NOT_EXECUTABLE, &reason(Errno::ACCESS))
    } else {
        failure(name, NOT_FOUND, "not found")
    }
}

fn candidates(name: &str, path: &str) -> Vec<String> {
    if name.is_empty() {
        return Vec::new();
    }
    if name.contains('/') {
        return vec![name.to_owned()];
    }
    path.split(':')
        .map(|directory| match directory {
            "" => name.to_owned(),
            directory => format!("{}/{name}", directory.trim_end_matches('/')),
        })
        .collect()
}

fn reason(error: Errno) -> String {
    match error {
        Errno::NOEXEC => "not in a format that can be executed".to_owned(),
        error => std::io::Error::from(error).to_string(),
    }
}

fn failure(name: &str, code: i32, reason: &str) -> StartFailure {
    StartFailure {
        at: FailedAt::Program { code },
        text: format!("cannot execute {name:?}: {reason}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(name: &str, path: &str, results: &[(&str, Errno)]) -> (Vec<String>, StartFailure) {
        let mut tried = Vec::new();
        let environment = ["A=1".to_owned(), format!("PATH={path}")];
        let failure = execute_first(name, &environment, |candidate| {
            let candidate = candidate.to_str().unwrap().to_owned();
            let found = results.iter().find(|(path, _)| *path == candidate);
            tried.push(candidate);
            found.map_or(Errno::NOENT, |(_, error)| *error)
        });
        (tried, failure)
    }

    #[test]
    fn each_directory_is_tried_in_order() {
        let (tried, failure) = look("foo", "/a:/b/::/c", &[]);
        assert_eq!(tried, ["/a/foo", "/b/foo", "foo", "/c/foo"]);
        assert_eq!(failure.at, FailedAt::Program { code: 127 });
        assert_eq!(failure.text, "cannot execute \"foo\": not found");
    }

    #[test]
    fn a_name_with_a_slash_is_a_path() {
        let (tried, failure) = look("./foo", "/a", &[]);
        assert_eq!(tried, ["./foo"]);
        assert_eq!(failure.at, FailedAt::Program { code: 127 });
    }

    #[test]
    fn a_file_without_permission_does_not_end_the_search() {
        let (tried, failure) = look("foo", "/a:/b", &[("/a/foo", Errno::ACCESS)]);
        assert_eq!(tried, ["/a/foo", "/b/foo"]);
        assert_eq!(failure.at, FailedAt::Program { code: 126 });
        assert!(
            failure.text.contains("Permission denied"),
            "{}",
            failure.text
        );
    }

    #[test]
    fn a_file_of_another_format_ends_it() {
        let (tried, failure) = look("foo", "/a:/b", &[("/a/foo", Errno::NOEXEC)]);
        assert_eq!(tried, ["/a/foo"]);
        assert_eq!(failure.at, FailedAt::Program { code: 126 });
    }

    #[test]
    fn no_name_is_no_program() {
        let (tried, failure) = look("", "/a", &[]);
        assert!(tried.is_empty());
        assert_eq!(failure.at, FailedAt::Program { code: 127 });
    }

    #[test]
    fn without_a_path_the_usual_places_are_searched() {
        let mut tried = Vec::new();
        execute_first("x", &[], |candidate| {
            tried.push(candidate.to_str().unwrap().to_owned());
            Errno::NOENT
        });
        assert_eq!(tried.first().unwrap(), "/usr/local/sbin/x");
        assert_eq!(tried.len(), 6);
    }
}
