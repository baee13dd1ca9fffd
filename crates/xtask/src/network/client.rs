//! The other end of what is measured, in a namespace of the stage.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::stage::Namespace;
use crate::median::median;

/// Where `bench/network/serve.c` sends back what it receives, and where it closes connections.
pub(super) const ECHO_PORT: u16 = 5007;
pub(super) const CLOSE_PORT: u16 = 5008;

/// Where iperf3 serves.
pub(super) const IPERF_PORT: u16 = 5201;

/// How often an iperf3 that is refused tries again, and after which pause.
const IPERF_TRIES: u32 = 20;
const IPERF_PAUSE: Duration = Duration::from_millis(100);

/// How long one answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// What flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    Tcp,
    Udp,
}

/// Which way, as the guest sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    In,
    Out,
}

/// Whoever is in `namespace` and reaches the guest at `address`.
#[derive(Debug)]
pub(super) struct Client<'a> {
    pub(super) namespace: &'a Namespace,
    pub(super) address: &'a str,
}

impl Client<'_> {
    /// What arrives, in Mbit/s, by iperf3.
    pub(super) fn throughput(
        &self,
        flow: Flow,
        direction: Direction,
        time: Duration,
    ) -> Result<f64> {
        let (seconds, port) = (time.as_secs().to_string(), IPERF_PORT.to_string());
        let mut command = self.namespace.command("iperf3");
        command.args(["-J", "-c", self.address, "-p", &port, "-t", &seconds]);
        if flow == Flow::Udp {
            // As fast as it can, in datagrams that fit into a frame.
            command.args(["-u", "-b", "0", "-l", "1400"]);
        }
        if direction == Direction::Out {
            command.arg("-R");
        }
        let mut tries = 0..IPERF_TRIES;
        loop {
            let output = command.output().context("iperf3 is needed")?;
            let document: Value = serde_json::from_slice(&output.stdout)?;
            match received(&document) {
                Some(rate) => return Ok(rate),
                // A server that has just served somebody refuses the next one.
                None if tries.next().is_some() => std::thread::sleep(IPERF_PAUSE),
                None => bail!("iperf3 {flow:?} {direction:?}: {}", document["error"]),
            }
        }
    }

    /// From a byte that is sent until it is back, in microseconds: the median.
    pub(super) fn latency(&self, time: Duration) -> Result<f64> {
        self.inside(|| {
            let mut stream = self.connect(ECHO_PORT)?;
            let mut took = Vec::new();
            let begun = Instant::now();
            while begun.elapsed() < time {
                let sent = Instant::now();
                stream.write_all(b"x")?;
                stream.read_exact(&mut [0])?;
                took.push(sent.elapsed().as_secs_f64() * 1e6);
            }
            Ok(median(&took))
        })
    }

    /// Connections that are made and closed one after the other, each second.
    pub(super) fn connections(&self, time: Duration) -> Result<f64> {
        self.inside(|| {
            let begun = Instant::now();
            let mut count = 0.0;
            while begun.elapsed() < time {
                let end = self.connect(CLOSE_PORT)?.read(&mut [0])?;
                ensure!(end == 0, "a connection that is to be closed has data");
                count += 1.0;
            }
            Ok(count / begun.elapsed().as_secs_f64())
        })
    }

    fn inside(&self, measure: impl FnOnce() -> Result<f64> + Send) -> Result<f64> {
        let measured = self.namespace.inside(measure);
        measured.with_context(|| format!("the guest at {}", self.address))
    }

    fn connect(&self, port: u16) -> Result<TcpStream> {
        let address = SocketAddr::new(self.address.parse()?, port);
        let stream = TcpStream::connect_timeout(&address, ANSWER_MAX)?;
        stream.set_read_timeout(Some(ANSWER_MAX))?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

/// What arrived, in Mbit/s.
fn received(document: &Value) -> Option<f64> {
    let rate = &document["end"]["sum_received"]["bits_per_second"];
    Some(rate.as_f64()? / 1e6)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_was_lost_has_not_arrived() {
        let sums = json!({"end": {
            "sum_sent": {"bits_per_second": 8e6},
            "sum_received": {"bits_per_second": 6e6},
        }});
        assert_eq!(received(&sums), Some(6.0));
        assert_eq!(received(&json!({})), None);
    }
}
