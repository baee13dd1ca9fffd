//! Connections between the guest's loopback addresses and the network namespace that it stands for,
//! see [`agent_protocol::relay`].

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use agent_protocol::frame::{Frame, FrameReader, send};
use agent_protocol::relay::{Answer, DNS_BYTES_MAX, Message, Request, carry, read_line};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{Mutex, Semaphore};
use tokio::task::JoinSet;
use tokio::time::timeout;
use vc_types::{guest, one_line};

pub use agent_protocol::relay::Transport as QueryTransport;

use crate::error::{Error, Result};
use crate::transport::Transport;

/// Queries of one guest that are answered at one time. The guest sends no more.
const QUERIES_MAX: usize = 256;

/// A connection to a program of the guest, which has accepted it.
#[derive(Debug)]
pub struct Relayed(UnixStream);

impl Relayed {
    /// Connects to a loopback address of the guest; `limit` is for the guest's answer.
    ///
    /// # Errors
    ///
    /// Those of [`Transport::connect`], [`Error::RelayRefused`] when nobody accepts, and
    /// [`Error::TimedOut`].
    pub async fn dial(transport: &Transport, to: SocketAddr, limit: Duration) -> Result<Self> {
        request(transport, Request::Dial(to), limit).await.map(Self)
    }

    /// Joins it with a connection of the host until both directions are at their end.
    ///
    /// # Errors
    ///
    /// See [`agent_protocol::relay::carry`].
    pub async fn carry(self, connection: &mut TcpStream) -> io::Result<()> {
        let (reader, writer) = self.0.into_split();
        carry(reader, writer, connection).await
    }
}

/// The queries that programs of the guest send to a resolver.
#[derive(Debug)]
pub struct GuestQueries(UnixStream);

impl GuestQueries {
    /// Takes what is sent to port 53 of a loopback address of the guest, for as long as this lives.
    ///
    /// # Errors
    ///
    /// As [`Relayed::dial`]; the address may be taken by a program of the guest.
    pub async fn take(transport: &Transport, at: IpAddr, limit: Duration) -> Result<Self> {
        request(transport, Request::Resolve(at), limit)
            .await
            .map(Self)
    }

    /// Answers each query with what `ask` makes of it, until the guest ends. `None` is no answer:
    /// the program asks again, or gives up.
    ///
    /// # Errors
    ///
    /// Those of the connection, and `InvalidData` when the guest sends what is no query.
    pub async fn answer<A, F>(self, ask: A) -> io::Result<()>
    where
        A: Fn(QueryTransport, Vec<u8>) -> F,
        F: Future<Output = Option<Vec<u8>>> + Send + 'static,
    {
        let (reader, writer) = self.0.into_split();
        let writer = Arc::new(Mutex::new(writer));
        let places = Arc::new(Semaphore::new(QUERIES_MAX));
        let mut reader = FrameReader::new(reader);
        // Dropped with this, and so are those that are under way.
        let mut asked = JoinSet::new();
        while let Some(frame) = reader.next().await? {
            while asked.try_join_next().is_some() {}
            let Frame::Data(payload) = frame else {
                return Err(invalid("a frame that is no query"));
            };
            let query = Message::parse(payload).ok_or_else(|| invalid("no query"))?;
            // A guest that asks more than it may is not answered.
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                continue;
            };
            let (number, transport) = (query.number, query.transport);
            let answer = ask(transport, query.bytes.to_vec());
            let writer = Arc::clone(&writer);
            asked.spawn(async move {
                let answer = answer.await.filter(|bytes| bytes.len() <= DNS_BYTES_MAX);
                if let Some(bytes) = answer {
                    let message = Message {
                        number,
                        transport,
                        bytes: &bytes,
                    };
                    let payload = message.to_bytes();
                    // That the guest is gone is seen where it is read.
                    let _ = send(&mut *writer.lock().await, &Frame::Data(&payload)).await;
                }
                drop(place);
            });
        }
        Ok(())
    }
}

fn invalid(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

async fn request(transport: &Transport, request: Request, limit: Duration) -> Result<UnixStream> {
    let broken = |source| Error::Stream {
        stream: "relay",
        source,
    };
    let mut stream = transport.connect(guest::RELAY_PORT).await?;
    let line = request.line();
    stream.write_all(line.as_bytes()).await.map_err(broken)?;
    let answer = timeout(limit, read_line(&mut stream)).await;
    let answer = answer.map_err(|_| Error::TimedOut {
        call: "reach a program of the guest",
        limit: "agent_call_ms",
        after: limit,
    })?;
    match Answer::parse(&answer.map_err(broken)?) {
        Answer::Ok => Ok(stream),
        Answer::Error(reason) => Err(Error::RelayRefused {
            request: request.to_string(),
            reason: one_line(&reason),
        }),
    }
}
