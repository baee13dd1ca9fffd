//! QEMU's monitor, as far as a template and its clones need it.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

/// A connection that takes commands.
#[derive(Debug)]
pub(super) struct Qmp {
    stream: BufReader<UnixStream>,
    /// How the saving or loading of a state ended, until somebody asks.
    ended: Option<String>,
}

impl Qmp {
    /// Greets the VMM. `stream` has the limit of every wait.
    pub(super) fn greet(stream: UnixStream) -> Result<Self> {
        let mut qmp = Self {
            stream: BufReader::new(stream),
            ended: None,
        };
        qmp.message().context("QEMU's greeting")?;
        qmp.execute("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// Executes one command.
    ///
    /// # Errors
    ///
    /// What QEMU says against it, or that it does not answer in time.
    pub(super) fn execute(&mut self, command: &str, arguments: Value) -> Result<()> {
        let line = json!({"execute": command, "arguments": arguments});
        let attempt = || format!("QEMU's {command}");
        writeln!(self.stream.get_mut(), "{line}").with_context(attempt)?;
        loop {
            let message = self.message().with_context(attempt)?;
            if let Some(error) = message.get("error") {
                bail!("QEMU's {command}: {error}");
            }
            if message.get("return").is_some() {
                return Ok(());
            }
        }
    }

    /// Has QEMU leave a guest's memory where it is when the state of its devices is saved or loaded,
    /// and tell when that is over.
    pub(super) fn keep_memory(&mut self) -> Result<()> {
        let capability = |name: &str| json!({"capability": name, "state": true});
        let capabilities = ["x-ignore-shared", "events"].map(capability);
        self.execute(
            "migrate-set-capabilities",
            json!({"capabilities": capabilities}),
        )
    }

    /// Waits until the state is saved or loaded.
    pub(super) fn migrated(&mut self) -> Result<()> {
        loop {
            match self.ended.take().as_deref() {
                Some("completed") => return Ok(()),
                Some(status) => bail!("saving or loading QEMU's state {status}"),
                None => self.message().context("QEMU's state")?,
            };
        }
    }

    fn message(&mut self) -> Result<Value> {
        let mut line = String::new();
        let read = self.stream.read_line(&mut line)?;
        ensure!(read > 0, "QEMU closed its monitor");
        let message: Value = serde_json::from_str(&line)?;
        if message["event"] == "MIGRATION"
            && let Some(status @ ("completed" | "failed")) = message["data"]["status"].as_str()
        {
            self.ended = Some(status.to_owned());
        }
        Ok(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_stepped_over_and_a_refusal_is_an_error() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let said = "{\"QMP\": {}}\n{\"return\": {}}\n{\"event\": \"STOP\"}\n{\"return\": {}}\n\
             {\"event\": \"MIGRATION\", \"data\": {\"status\": \"active\"}}\n\
             {\"event\": \"MIGRATION\", \"data\": {\"status\": \"completed\"}}\n\
             {\"error\": {\"desc\": \"no\"}}\n";
        theirs.write_all(said.as_bytes()).unwrap();
        let mut qmp = Qmp::greet(ours).unwrap();
        qmp.execute("stop", json!({})).unwrap();
        qmp.migrated().unwrap();
        let error = qmp.execute("cont", json!({})).unwrap_err();
        assert!(error.to_string().contains("\"no\""), "{error}");
        drop(theirs);
        assert!(qmp.execute("cont", json!({})).is_err());
    }
}
