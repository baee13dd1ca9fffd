//! What is measured of a network.

use std::time::Duration;

use anyhow::Result;

use super::client::{Client, Direction, Flow};
use crate::median::median;

/// One thing that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Metric {
    TcpIn,
    TcpOut,
    UdpIn,
    UdpOut,
    Latency,
    Connections,
}

/// All of them, in the order of the table.
pub(super) const METRICS: [Metric; 6] = [
    Metric::TcpIn,
    Metric::TcpOut,
    Metric::UdpIn,
    Metric::UdpOut,
    Metric::Latency,
    Metric::Connections,
];

impl Metric {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::TcpIn => "TCP into the guest, Mbit/s",
            Self::TcpOut => "TCP out of it, Mbit/s",
            Self::UdpIn => "UDP into it, Mbit/s",
            Self::UdpOut => "UDP out of it, Mbit/s",
            Self::Latency => "request and response, µs",
            Self::Connections => "connections a second",
        }
    }

    fn measure(self, client: &Client<'_>, time: Duration) -> Result<f64> {
        match self {
            Self::TcpIn => client.throughput(Flow::Tcp, Direction::In, time),
            Self::TcpOut => client.throughput(Flow::Tcp, Direction::Out, time),
            Self::UdpIn => client.throughput(Flow::Udp, Direction::In, time),
            Self::UdpOut => client.throughput(Flow::Udp, Direction::Out, time),
            Self::Latency => client.latency(time),
            Self::Connections => client.connections(time),
        }
    }
}

/// The figures of one kind of guest, a list for each metric.
#[derive(Debug, Default)]
pub(super) struct Figures([Vec<f64>; METRICS.len()]);

impl Figures {
    /// Measures it once.
    pub(super) fn measure(
        &mut self,
        metric: Metric,
        client: &Client<'_>,
        time: Duration,
    ) -> Result<()> {
        let figure = metric.measure(client, time)?;
        let all = METRICS.into_iter().zip(&mut self.0);
        for (_, figures) in all.filter(|(other, _)| *other == metric) {
            figures.push(figure);
        }
        Ok(())
    }

    pub(super) fn median(&self, metric: Metric) -> f64 {
        let all = METRICS.into_iter().zip(&self.0);
        let mut of_it = all.filter(|(other, _)| *other == metric);
        of_it.next().map_or(0.0, |(_, figures)| median(figures))
    }
}
