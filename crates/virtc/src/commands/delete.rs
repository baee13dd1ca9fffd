use std::process::ExitCode;

use vc_types::SandboxId;

use super::{Done, runtime};
use crate::cli::{DeleteArgs, GlobalArgs};
use crate::error::{FAILED, Failure};

pub(crate) fn delete(global: &GlobalArgs, args: &DeleteArgs) -> Done {
    let runtime = runtime(global)?;
    let mut code = ExitCode::SUCCESS;
    for name in &args.names {
        let id = SandboxId::new(name.clone()).map_err(Failure::usage)?;
        if let Err(error) = runtime.delete_sandbox(&id, args.force) {
            // The others are deleted all the same.
            code = Failure::from_error(FAILED, &error).report();
        }
    }
    Ok(code)
}
