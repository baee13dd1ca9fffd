use std::cell::Cell;

use vc_types::{ContainerId, Signal};
use virtcontainers::stream::Streams;
use virtcontainers::{Error, Process, ProcessExit, Sandbox};

/// A process that virtc can be joined with.
pub(crate) trait Job {
    /// Whether its machine is its own. Somebody else's may be ended at any moment.
    const HAS_MACHINE: bool;
    /// Its streams; once.
    fn take_streams(&self) -> Option<Streams>;
    /// Lets it begin, unless it has.
    async fn start(&self) -> Result<(), Error>;
    /// Waits for its end.
    async fn wait(&self) -> Result<ProcessExit, Error>;
    /// Sends it a signal.
    async fn signal(&self, signal: Signal) -> Result<(), Error>;
    /// Tells its terminal its size.
    async fn winsize(&self, rows: u16, columns: u16) -> Result<(), Error>;
    /// Makes it stand still while virtc is stopped.
    async fn suspend(&self) -> Result<(), Error>;
    /// Lets it go on.
    async fn resume(&self) -> Result<(), Error>;
    /// What an error of a stream came from.
    async fn cause_of(&self, error: Error) -> Error;
}

/// The first process of a container whose machine this process keeps.
pub(crate) struct Kept<'a> {
    pub(crate) sandbox: &'a Sandbox,
    pub(crate) container: &'a ContainerId,
    /// Whether it is the command of a throw-away machine: begun here, and what happens to virtc
    /// happens to the machine. Otherwise others start it, and it is its container's.
    pub(crate) throw_away: bool,
}

impl Job for Kept<'_> {
    const HAS_MACHINE: bool = true;

    fn take_streams(&self) -> Option<Streams> {
        self.sandbox.take_streams(self.container)
    }

    async fn start(&self) -> Result<(), Error> {
        match self.throw_away {
            true => self.sandbox.start_container(self.container).await.map(drop),
            false => Ok(()),
        }
    }

    async fn wait(&self) -> Result<ProcessExit, Error> {
        self.sandbox.wait_process(self.container).await
    }

    async fn signal(&self, signal: Signal) -> Result<(), Error> {
        self.sandbox.signal_process(self.container, signal).await
    }

    async fn winsize(&self, rows: u16, columns: u16) -> Result<(), Error> {
        let sandbox = self.sandbox;
        sandbox.winsize_process(self.container, rows, columns).await
    }

    async fn suspend(&self) -> Result<(), Error> {
        match self.throw_away {
            true => self.sandbox.pause().await,
            false => Ok(()),
        }
    }

    async fn resume(&self) -> Result<(), Error> {
        match self.throw_away {
            true => self.sandbox.resume().await,
            false => Ok(()),
        }
    }

    async fn cause_of(&self, error: Error) -> Error {
        self.sandbox.cause_of(error).await
    }
}

/// A process that was added to a container of somebody else's machine.
pub(crate) struct Added {
    process: Process,
    streams: Cell<Option<Streams>>,
}

impl Added {
    pub(crate) fn new(mut process: Process) -> Self {
        let streams = Cell::new(process.take_streams());
        Self { process, streams }
    }
}

impl Job for Added {
    const HAS_MACHINE: bool = false;

    fn take_streams(&self) -> Option<Streams> {
        self.streams.take()
    }

    async fn start(&self) -> Result<(), Error> {
        Ok(())
    }

    async fn wait(&self) -> Result<ProcessExit, Error> {
        self.process.wait().await
    }

    async fn signal(&self, signal: Signal) -> Result<(), Error> {
        self.process.signal(signal).await
    }

    async fn winsize(&self, rows: u16, columns: u16) -> Result<(), Error> {
        self.process.winsize(rows, columns).await
    }

    /// The machine is not ours to stop, and the process is its container's.
    async fn suspend(&self) -> Result<(), Error> {
        Ok(())
    }

    async fn resume(&self) -> Result<(), Error> {
        Ok(())
    }

    async fn cause_of(&self, error: Error) -> Error {
        error
    }
}
