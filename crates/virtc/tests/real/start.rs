//! The tests of a start, for each way in which a machine comes to be. By themselves they are tests
//! with a boot, where they are written; here they run with machines from a template, and in the soak
//! with machines that waited.

use std::cell::RefCell;
use std::path::PathBuf;

use tempfile::TempDir;
use test_vm::Origin;

use super::{ends, exec, files, host, oci, signals, streams, terminal};

/// Set by the soak: starts with machines that waited are tested too.
const WAITING: &str = "VIRTC_TEST_WAITING";

thread_local! {
    /// How the machines of this test come to be.
    static ORIGIN: RefCell<Origin> = RefCell::default();
}

/// How the machines of this test come to be.
pub(super) fn origin() -> Origin {
    ORIGIN.with_borrow(Origin::clone)
}

/// Tests, and their names.
macro_rules! tests {
    ($($module:ident::$test:ident,)*) => {
        &[$((concat!(stringify!($module), "::", stringify!($test)), $module::$test),)*]
    };
}

/// What holds for a start whatever the machine was before.
const STARTS: &[(&str, fn())] = tests![
    ends::the_guests_kernel_is_another_one,
    ends::an_exit_code_is_the_commands_own,
    ends::a_signal_is_128_and_its_number,
    ends::a_killed_command_is_137_without_a_word_about_memory,
    ends::a_command_that_is_not_there_is_127_at_once,
    ends::a_file_that_is_no_program_is_126,
    ends::a_hidden_command_is_named_with_the_show_that_brings_it,
    ends::a_time_limit_is_124_and_a_stubborn_command_is_killed,
    ends::a_polite_command_ends_at_its_time_limit,
    exec::a_process_is_added_with_its_streams_and_its_exit_code,
    files::a_directory_is_a_root_whose_changes_vanish,
    files::the_current_directory_is_there_and_its_changes_vanish,
    files::volumes_are_directories_and_files_and_ro_is_the_hosts_word,
    files::the_environment_is_small_and_what_was_asked_for,
    files::home_is_empty_and_writable_and_the_files_of_the_guest_are_its_own,
    files::a_user_by_number_and_by_name,
    oci::a_container_goes_the_whole_way_and_leaves_nothing,
    oci::one_that_was_never_started_is_deleted_and_a_running_one_is_not,
    oci::a_signal_to_what_stands_for_it_is_the_processes,
    oci::kill_9_of_what_stands_for_it_stops_the_container,
    oci::a_process_is_added_by_its_description_and_stood_for,
    signals::a_signal_is_the_commands_to_handle,
    signals::a_command_that_handles_nothing_ends_by_the_signal,
    signals::a_second_interrupt_ends_the_machine,
    streams::stdout_and_stderr_are_separate_and_exact,
    streams::a_closed_stdin_is_the_end_of_file,
    streams::output_after_the_end_of_stdin_arrives,
    streams::a_reader_that_leaves_ends_the_command,
    streams::a_command_that_does_not_read_its_stdin_is_no_trouble,
    streams::what_a_child_still_writes_when_the_command_has_ended_is_not_waited_for_for_ever,
    streams::stdin_is_passed_on_while_it_comes,
    terminal::a_shell_has_the_terminals_size_and_follows_it,
    terminal::an_interrupt_is_the_programs_and_the_escape_ends_the_machine,
];

/// Has all machines of this test come from templates of its own, which are made now.
fn with_templates(origin: impl FnOnce(PathBuf) -> Origin) -> TempDir {
    let dir = TempDir::new_in("/dev/shm").unwrap();
    let library = dir.path().join("templates");
    let mut maker = host();
    maker.env("VIRTC_FACTORY_DIR", &library);
    for kind in [&[][..], &["--containers"]] {
        let init = ["factory", "init"].iter().chain(kind);
        maker.virtc(init).expect_code(0);
    }
    ORIGIN.set(origin(library));
    dir
}

fn all_starts() {
    for (name, start) in STARTS {
        // The last one that is named is the one that failed.
        eprintln!("{name}");
        start();
    }
}

#[test]
fn from_a_template_it_is_as_with_a_boot() {
    let _templates = with_templates(Origin::Template);
    all_starts();
}

#[test]
fn with_a_machine_that_waited_it_is_as_with_a_boot() {
    if std::env::var_os(WAITING).is_none() {
        println!("skipped: {WAITING} is not set");
        return;
    }
    let _templates = with_templates(Origin::Waiting);
    all_starts();
}
