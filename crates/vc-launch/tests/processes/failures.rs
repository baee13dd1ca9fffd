use std::fs::File;

use vc_launch::{
    BindSource, DescriptorUse, Error, LaunchSpec, Launcher, MountTree, PassedFd, Program, Step,
};

use crate::probe;

pub(crate) fn a_missing_program_names_the_step() {
    let spec = LaunchSpec::new("a ghost", Program::Path("/no/such/program".into()));
    let error = probe::launcher()
        .launch(spec, Vec::new())
        .wait()
        .unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("a ghost") && text.contains("/no/such/program"),
        "{text}"
    );
    assert!(matches!(error, Error::Step { step: Step::Exec, source, .. }
        if source.kind() == std::io::ErrorKind::NotFound));
}

pub(crate) fn a_program_that_is_no_step_is_an_error() {
    let spec = LaunchSpec::new("x", Program::Path("/bin/true".into()));
    let launcher = Launcher::start("/no/such/step").unwrap();
    let error = launcher
        .launch(spec.clone(), Vec::new())
        .wait()
        .unwrap_err();
    assert!(matches!(error, Error::Spawn { .. }), "{error}");
    let launcher = Launcher::start("/bin/true").unwrap();
    let error = launcher.launch(spec, Vec::new()).wait().unwrap_err();
    assert!(matches!(error, Error::EndedEarly { .. }), "{error}");
}

pub(crate) fn a_step_that_hangs_up_is_an_error() {
    let spec = LaunchSpec::new("x", Program::Path("/bin/true".into()));
    let launcher = Launcher::start("/bin/false").unwrap();
    let error = launcher.launch(spec, Vec::new()).wait().unwrap_err();
    assert!(error.to_string().contains("exit code 1"), "{error}");
}

pub(crate) fn nothing_is_made_in_a_bind_mount() {
    let source = tempfile::tempdir().unwrap();
    let (mut spec, mut passed) = probe::spec(&[]);
    spec.root = Some(
        MountTree::new()
            .bind("a", BindSource(0), false)
            .dir("a/b/c", 0o755),
    );
    passed.push(PassedFd::new(
        DescriptorUse::MountSource(0),
        File::open(source.path()).unwrap(),
    ));
    let error = probe::launcher().launch(spec, passed).wait().unwrap_err();
    assert!(
        matches!(
            error,
            Error::Step {
                step: Step::MountTree,
                ..
            }
        ),
        "{error}"
    );
    assert!(probe::listing(source.path().to_str().unwrap()).is_empty());
}
