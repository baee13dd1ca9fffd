//! What a person sees while the machine starts: nothing when it is fast.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::output;

/// A start that is faster than this stays silent.
const SILENT: Duration = Duration::from_millis(250);

/// How often the spinner turns.
const TURN: Duration = Duration::from_millis(100);

/// A spinner on stderr. Dropping it takes it away.
#[derive(Debug)]
pub(crate) struct Progress(ProgressBar);

impl Progress {
    /// Nothing at first.
    pub(crate) fn new(quiet: bool) -> Self {
        let bar = match output::progress_is_wanted(quiet) {
            true => ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden()),
            false => ProgressBar::hidden(),
        };
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed}") {
            bar.set_style(style);
        }
        bar.set_message("starting the virtual machine");
        Self(bar)
    }

    /// Shows it once the start has taken so long that a person wonders; never returns.
    pub(crate) async fn show_when_slow(&self, wanted: bool) {
        tokio::time::sleep(SILENT).await;
        if wanted {
            self.0.set_draw_target(ProgressDrawTarget::stderr());
        }
        loop {
            self.0.tick();
            tokio::time::sleep(TURN).await;
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
