//! A resolver of the namespace that the guest stands for, such as docker's at 127.0.0.11: what
//! programs ask at its address goes to the host.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use agent_protocol::frame::{Frame, FrameReader, send};
use agent_protocol::relay::{DNS_BYTES_MAX, Message, Transport};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;
use tokio_vsock::VsockStream;

use crate::error::{Attempt as _, Result};

/// The port of resolvers, RFC 1035.
const DNS: u16 = 53;

/// Queries that wait for an answer at one time.
const QUERIES_MAX: usize = 256;

/// Connections of programs at one time.
const CONNECTIONS_MAX: usize = 64;

/// How long an answer may take. Programs ask again before.
const ANSWER_LIMIT: Duration = Duration::from_secs(15);

/// How long a connection stays on which nothing is asked.
const IDLE_LIMIT: Duration = Duration::from_secs(30);

/// Where the queries come.
pub(super) struct Sockets {
    datagrams: UdpSocket,
    connections: TcpListener,
}

/// The queries that wait for an answer, by number.
type Waiting = Arc<Mutex<HashMap<u32, oneshot::Sender<Vec<u8>>>>>;

/// How queries get to the host.
#[derive(Clone)]
struct Queries {
    waiting: Waiting,
    places: Arc<Semaphore>,
    outgoing: mpsc::Sender<(Transport, Vec<u8>, oneshot::Sender<Vec<u8>>)>,
}

impl Sockets {
    pub(super) async fn bind(address: IpAddr) -> Result<Self> {
        let address = SocketAddr::new(address, DNS);
        let attempt = || format!("listen on {address}");
        Ok(Self {
            datagrams: UdpSocket::bind(address).await.attempt(attempt)?,
            connections: TcpListener::bind(address).await.attempt(attempt)?,
        })
    }

    /// Serves until the host closes the connection.
    pub(super) async fn serve(self, stream: VsockStream) -> Result<()> {
        let (reader, mut writer) = stream.into_split();
        let (outgoing, mut asked) = mpsc::channel(QUERIES_MAX);
        let queries = Queries {
            waiting: Waiting::default(),
            places: Arc::new(Semaphore::new(QUERIES_MAX)),
            outgoing,
        };
        let sending = async {
            let mut number = 0u32;
            while let Some((transport, bytes, answer)) = asked.recv().await {
                number = number.wrapping_add(1);
                queries.lock().insert(number, answer);
                // Those whose askers are gone.
                queries.lock().retain(|_, answer| !answer.is_closed());
                let message = Message {
                    number,
                    transport,
                    bytes: &bytes,
                };
                send(&mut writer, &Frame::Data(&message.to_bytes())).await?;
            }
            Ok(())
        };
        let receiving = async {
            let mut reader = FrameReader::new(reader);
            while let Some(frame) = reader.next().await? {
                if let Frame::Data(payload) = frame
                    && let Some(message) = Message::parse(payload)
                    && let Some(answer) = queries.lock().remove(&message.number)
                {
                    // Whoever asked may be gone.
                    let _ = answer.send(message.bytes.to_vec());
                }
            }
            Ok::<_, io::Error>(())
        };
        tokio::select! {
            done = sending => done,
            done = receiving => done,
            () = take_datagrams(Arc::new(self.datagrams), &queries) => Ok(()),
            () = take_connections(self.connections, &queries) => Ok(()),
        }
        .attempt(|| "relay queries of DNS".into())
    }
}

impl Queries {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u32, oneshot::Sender<Vec<u8>>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the host. `None` when there is no answer in time, or too much is asked at once.
    async fn ask(&self, transport: Transport, query: Vec<u8>) -> Option<Vec<u8>> {
        let _place = self.places.try_acquire().ok()?;
        let (answer, answered) = oneshot::channel();
        self.outgoing.send((transport, query, answer)).await.ok()?;
        timeout(ANSWER_LIMIT, answered).await.ok()?.ok()
    }
}

async fn take_datagrams(socket: Arc<UdpSocket>, queries: &Queries) {
    let mut buffer = vec![0; DNS_BYTES_MAX];
    loop {
        let (bytes, from) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            // That an answer could not be delivered is told here.
            Err(error) => {
                tracing::debug!(%error, "a query could not be received");
                continue;
            }
        };
        let (socket, queries, query) = (
            Arc::clone(&socket),
            queries.clone(),
            buffer[..bytes].to_vec(),
        );
        tokio::spawn(async move {
            if let Some(answer) = queries.ask(Transport::Udp, query).await {
                let _ = socket.send_to(&answer, from).await;
            }
        });
    }
}

async fn take_connections(listener: TcpListener, queries: &Queries) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    // The semaphore is never closed.
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!(%error, "a connection could not be accepted");
                continue;
            }
        };
        let queries = queries.clone();
        tokio::spawn(async move {
            let asked = answer_each(stream, &queries).await;
            drop(place);
            if let Err(error) = asked {
                tracing::debug!(%error, "a connection with queries ended");
            }
        });
    }
}

/// Messages on a connection come after their length, RFC 1035 4.2.2.
async fn answer_each(mut stream: TcpStream, queries: &Queries) -> io::Result<()> {
    loop {
        let query = match timeout(IDLE_LIMIT, read_message(&mut stream)).await {
            Ok(Ok(Some(query))) => query,
            Ok(Ok(None)) | Err(_) => return Ok(()),
            Ok(Err(error)) => return Err(error),
        };
        let Some(answer) = queries.ask(Transport::Tcp, query).await else {
            return Ok(());
        };
        let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
        let message = [&length.to_be_bytes()[..], &answer].concat();
        stream.write_all(&message).await?;
    }
}

async fn read_message(stream: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
    let length = match stream.read_u16().await {
        Ok(length) => usize::from(length),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    if length > DNS_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a long query"));
    }
    let mut query = vec![0; length];
    stream.read_exact(&mut query).await?;
    Ok(Some(query))
}
