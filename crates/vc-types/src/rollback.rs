use std::fmt;

use crate::limits::ROLLBACK_STEPS_MAX;

type Undo = Box<dyn FnOnce() -> Result<(), Box<dyn std::error::Error + Send + Sync>> + Send>;

/// A stack of undos: pushed before each step, run from the top when it is dropped.
///
/// A failure, a panic and a dropped future all take the same way, because all of them drop the
/// stack. Every undo is idempotent, since its step may not have happened. An undo that fails is
/// logged, and the rest still run.
///
/// ```
/// use std::sync::{Arc, Mutex};
/// use vc_types::Rollback;
///
/// let undone = Arc::new(Mutex::new(Vec::new()));
/// {
///     let mut rollback = Rollback::new("example");
///     for step in ["first", "second"] {
///         let undone = Arc::clone(&undone);
///         rollback.push(step, move || { undone.lock().unwrap().push(step); Ok(()) });
///     }
/// }
/// assert_eq!(*undone.lock().unwrap(), ["second", "first"]);
/// ```
pub struct Rollback {
    what: &'static str,
    steps: Vec<(&'static str, Undo)>,
}

impl Rollback {
    /// An empty stack for the operation `what`.
    pub fn new(what: &'static str) -> Self {
        Self {
            what,
            steps: Vec::new(),
        }
    }

    /// Registers the undo of the step that comes next.
    ///
    /// # Panics
    ///
    /// When more than [`ROLLBACK_STEPS_MAX`] are pushed: an operation has a fixed list of steps.
    pub fn push(
        &mut self,
        step: &'static str,
        undo: impl FnOnce() -> Result<(), Box<dyn std::error::Error + Send + Sync>> + Send + 'static,
    ) {
        assert!(
            self.steps.len() < ROLLBACK_STEPS_MAX,
            "{}: too many steps",
            self.what
        );
        self.steps.push((step, Box::new(undo)));
    }

    /// The operation is done: nothing is undone.
    pub fn commit(mut self) {
        self.steps.clear();
    }

    /// Undoes everything now, from the top, and says what could not be undone.
    pub fn undo(mut self) -> Vec<(&'static str, Box<dyn std::error::Error + Send + Sync>)> {
        self.run()
    }

    fn run(&mut self) -> Vec<(&'static str, Box<dyn std::error::Error + Send + Sync>)> {
        let mut failed = Vec::new();
        while let Some((step, undo)) = self.steps.pop() {
            tracing::debug!(operation = self.what, step, "undo");
            if let Err(error) = undo() {
                tracing::warn!(operation = self.what, step, %error, "could not be undone");
                failed.push((step, error));
            }
        }
        failed
    }
}

impl Drop for Rollback {
    fn drop(&mut self) {
        self.run();
    }
}

impl fmt::Debug for Rollback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let steps: Vec<_> = self.steps.iter().map(|(step, _)| step).collect();
        f.debug_struct("Rollback")
            .field("what", &self.what)
            .field("steps", &steps)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    fn stack(log: &Arc<Mutex<Vec<&'static str>>>) -> Rollback {
        let mut rollback = Rollback::new("test");
        for step in ["a", "b", "c"] {
            let log = Arc::clone(log);
            rollback.push(step, move || {
                log.lock().unwrap().push(step);
                if step == "b" {
                    Err("no".into())
                } else {
                    Ok(())
                }
            });
        }
        rollback
    }

    #[test]
    fn a_failed_undo_does_not_stop_the_others() {
        let log = Arc::default();
        let failed = stack(&log).undo();
        assert_eq!(*log.lock().unwrap(), ["c", "b", "a"]);
        assert_eq!(failed.len(), 1);
        assert_eq!(failed[0].0, "b");
    }

    #[test]
    fn commit_undoes_nothing() {
        let log = Arc::default();
        stack(&log).commit();
        assert!(log.lock().unwrap().is_empty());
    }

    #[test]
    fn a_panic_undoes() {
        let log: Arc<Mutex<Vec<_>>> = Arc::default();
        let copy = Arc::clone(&log);
        let thread = std::thread::spawn(move || {
            let _rollback = stack(&copy);
            std::panic::resume_unwind(Box::new("step failed"));
        });
        assert!(thread.join().is_err());
        assert_eq!(log.lock().unwrap().len(), 3);
    }
}
