//! Events for containerd, in the order in which they happen. containerd may be gone for a while; it
//! gets them when it is back.

use std::time::{Duration, SystemTime};

use containerd_shim_protos::api::ForwardRequest;
use containerd_shim_protos::events::task::{
    TaskCreate, TaskDelete, TaskExecAdded, TaskExecStarted, TaskExit, TaskOOM, TaskPaused,
    TaskResumed, TaskStart,
};
use containerd_shim_protos::protobuf::well_known_types::{any::Any, timestamp::Timestamp};
use containerd_shim_protos::protobuf::{Message, MessageField};
use containerd_shim_protos::shim::event::Envelope;
use containerd_shim_protos::shim_async::{Client, EventsClient};
use containerd_shim_protos::ttrpc::asynchronous::transport::Socket;
use containerd_shim_protos::ttrpc::{self, context};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};

/// Events that wait. A pod makes some tens in its life.
const QUEUE_MAX: usize = 2048;

/// How long containerd may take for one.
const FORWARD_LIMIT: Duration = Duration::from_secs(5);

/// How long one is offered while containerd does not answer. It asks for the state of every task
/// when it comes back.
const OFFER_LIMIT: Duration = Duration::from_secs(600);

/// Between two offers.
const OFFER_PAUSES: [Duration; 3] = [
    Duration::from_millis(50),
    Duration::from_millis(250),
    Duration::from_secs(1),
];

/// Something that containerd is told.
pub(crate) trait Event: Message {
    /// Under which topic.
    const TOPIC: &'static str;
    /// What the message is called. Its descriptor says so too, and takes memory.
    const TYPE: &'static str;
}

macro_rules! events {
    ($($message:ident $topic:literal)*) => {$(
        impl Event for $message {
            const TOPIC: &'static str = concat!("/tasks/", $topic);
            const TYPE: &'static str = concat!("containerd.events.", stringify!($message));
        }
    )*};
}

events! {
    TaskCreate "create"
    TaskStart "start"
    TaskExecAdded "exec-added"
    TaskExecStarted "exec-started"
    TaskExit "exit"
    TaskDelete "delete"
    TaskPaused "paused"
    TaskResumed "resumed"
    TaskOOM "oom"
}

/// The queue of events.
#[derive(Debug)]
pub(crate) struct Publisher {
    namespace: String,
    queue: mpsc::Sender<Envelope>,
    /// How many are delivered or given up.
    done: watch::Receiver<u64>,
    published: std::sync::atomic::AtomicU64,
}

impl Publisher {
    /// Delivers to `address`; without one, nowhere.
    pub(crate) fn start(address: Option<String>, namespace: &str) -> Self {
        let (queue, events) = mpsc::channel(QUEUE_MAX);
        let (tell, done) = watch::channel(0);
        tokio::spawn(deliver(address, events, tell));
        Self {
            namespace: namespace.to_owned(),
            queue,
            done,
            published: 0.into(),
        }
    }

    /// Puts an event at the queue's end.
    pub(crate) fn publish<E: Event>(&self, event: &E) {
        let value = match event.write_to_bytes() {
            Ok(value) => value,
            Err(error) => {
                tracing::error!(%error, topic = E::TOPIC, "an event cannot be written");
                return;
            }
        };
        let envelope = Envelope {
            timestamp: MessageField::some(timestamp(SystemTime::now())),
            namespace: self.namespace.clone(),
            topic: E::TOPIC.to_owned(),
            event: MessageField::some(Any {
                type_url: E::TYPE.to_owned(),
                value,
                ..Any::default()
            }),
            ..Envelope::default()
        };
        match self.queue.try_send(envelope) {
            Ok(()) => {
                _ = self
                    .published
                    .fetch_add(1, std::sync::atomic::Ordering::Relaxed)
            }
            Err(_) => tracing::error!(topic = E::TOPIC, "an event is lost: too many wait"),
        }
    }

    /// Whether there is room for what may come in any number: half of the queue is for the ends.
    pub(crate) fn has_room(&self) -> bool {
        self.queue.capacity() > QUEUE_MAX / 2
    }

    /// Waits until all are delivered, at most for `limit`.
    pub(crate) async fn flush(&self, limit: Duration) {
        let all = self.published.load(std::sync::atomic::Ordering::Relaxed);
        let mut done = self.done.clone();
        let delivered = done.wait_for(|done| *done >= all);
        if timeout(limit, delivered).await.is_err() {
            tracing::warn!("containerd does not take the last events");
        }
    }
}

/// A moment as messages have it.
pub(crate) fn timestamp(at: SystemTime) -> Timestamp {
    let since = at
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp {
        seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(since.subsec_nanos()).unwrap_or_default(),
        ..Timestamp::default()
    }
}

async fn deliver(
    address: Option<String>,
    mut events: mpsc::Receiver<Envelope>,
    tell: watch::Sender<u64>,
) {
    let mut client = None;
    while let Some(envelope) = events.recv().await {
        if let Some(address) = &address {
            let request = ForwardRequest {
                envelope: MessageField::some(envelope),
                ..ForwardRequest::default()
            };
            offer(address, &mut client, &request).await;
        }
        tell.send_modify(|done| *done += 1);
    }
}

/// Offers one until containerd takes or refuses it.
async fn offer(address: &str, client: &mut Option<EventsClient>, request: &ForwardRequest) {
    let until = Instant::now() + OFFER_LIMIT;
    let mut pauses = OFFER_PAUSES.into_iter();
    loop {
        let offered = match client.take() {
            Some(connected) => Ok(connected),
            None => connect(address).await,
        };
        let failure = match offered {
            Ok(connected) => {
                match connected
                    .forward(context::with_duration(FORWARD_LIMIT), request)
                    .await
                {
                    Ok(_) => {
                        *client = Some(connected);
                        return;
                    }
                    Err(ttrpc::Error::RpcStatus(status)) => {
                        tracing::warn!(message = status.message, "containerd refuses an event");
                        *client = Some(connected);
                        return;
                    }
                    Err(error) => error.to_string(),
                }
            }
            Err(error) => error.to_string(),
        };
        if Instant::now() > until {
            tracing::error!(failure, "an event is lost");
            return;
        }
        let longest = OFFER_PAUSES[OFFER_PAUSES.len() - 1];
        sleep(pauses.next().unwrap_or(longest)).await;
    }
}

async fn connect(address: &str) -> std::io::Result<EventsClient> {
    let path = address.strip_prefix("unix://").unwrap_or(address);
    let stream = UnixStream::connect(path).await?;
    Ok(EventsClient::new(Client::new(Socket::from(stream))))
}
