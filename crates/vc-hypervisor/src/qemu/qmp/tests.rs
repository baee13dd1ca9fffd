//! A scripted peer at the other end of a real socket: it hangs, lies, stutters and floods.

use tokio::io::AsyncWriteExt;
use tokio::time::Instant;

use super::*;

const GREETING: &str = r#"{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": ""}, "capabilities": ["oob"]}}"#;
const DONE: &str = r#"{"return": {}, "id": 0}"#;
const LIMIT: Duration = Duration::from_millis(200);

/// Our end, and the peer's.
fn pair() -> (Qmp, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    (Qmp::of(ours), theirs)
}

/// A peer that writes all of `script` at once and then keeps silent.
async fn said(script: &[&str]) -> (Qmp, UnixStream) {
    let (qmp, mut peer) = pair();
    let text: String = script.iter().map(|line| format!("{line}\r\n")).collect();
    peer.write_all(text.as_bytes()).await.unwrap();
    (qmp, peer)
}

async fn status(script: &[&str]) -> Result<qmp::StatusInfo> {
    let (mut qmp, _peer) = said(script).await;
    qmp.execute(qmp::query_status {}, LIMIT).await
}

#[tokio::test]
async fn a_peer_that_behaves() {
    let (qmp, mut peer) = said(&[GREETING, DONE]).await;
    let mut qmp = qmp.handshake().await.unwrap();
    let answer =
        r#"{"return": {"running": true, "singlestep": false, "status": "running"}, "id": 1}"#;
    let event = r#"{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "RTC_CHANGE", "data": {"offset": 0, "qom-path": ""}}"#;
    let text = format!("{event}\n{answer}\n");
    peer.write_all(text.as_bytes()).await.unwrap();
    let status = qmp.execute(qmp::query_status {}, LIMIT).await.unwrap();
    assert!(status.running);

    let mut sent = vec![0; 4096];
    let read = peer.read(&mut sent).await.unwrap();
    insta::assert_snapshot!(String::from_utf8_lossy(&sent[..read]));
}

#[tokio::test]
async fn a_peer_that_hangs_passes_the_limit() {
    let error = status(&[]).await.unwrap_err();
    assert!(matches!(
        error,
        Error::NoAnswer { command: "query-status", limit } if limit == LIMIT
    ));
    // Half a message is none.
    let (mut qmp, mut peer) = pair();
    peer.write_all(br#"{"return": {"#).await.unwrap();
    let error = qmp.execute(qmp::quit {}, LIMIT).await.unwrap_err();
    assert!(matches!(error, Error::NoAnswer { .. }), "{error}");
}

#[tokio::test]
async fn a_peer_that_lies_is_named() {
    for (script, wanted) in [
        (r#"{"return": {"running": "yes"}, "id": 0}"#, "invalid type"),
        (r#"{"return": {}, "id": 7}"#, "another command"),
        (r#"{"return": {}}"#, "another command"),
        (r#"{"id": 0}"#, "neither good nor bad"),
        ("hello", "expected value"),
        ("[]", "invalid"),
        ("", "EOF"),
    ] {
        let error = status(&[script]).await.unwrap_err();
        assert!(
            matches!(error, Error::Protocol { .. }),
            "{script} {error:?}"
        );
        assert!(error.to_string().contains(wanted), "{script} {error}");
    }
    let deep = "[".repeat(50_000);
    assert!(matches!(
        status(&[&deep]).await,
        Err(Error::Protocol { .. })
    ));
}

#[tokio::test]
async fn a_refusal_is_escaped() {
    let script =
        "{\"error\": {\"class\": \"GenericError\", \"desc\": \"no\\u001b[2J\"}, \"id\": 0}";
    let error = status(&[script]).await.unwrap_err();
    assert!(matches!(error, Error::Refused { .. }), "{error}");
    assert!(!error.to_string().contains('\u{1b}'), "{error:?}");
}

#[tokio::test]
async fn a_peer_that_goes_away_is_an_error_of_the_connection() {
    let (mut qmp, peer) = said(&[r#"{"return""#]).await;
    drop(peer);
    let error = qmp.execute(qmp::quit {}, LIMIT).await.unwrap_err();
    assert!(
        matches!(error, Error::Connection { .. } | Error::Protocol { .. }),
        "{error}"
    );
    let (qmp, peer) = pair();
    drop(peer);
    assert!(qmp.handshake().await.is_err());
}

#[tokio::test]
async fn a_message_without_an_end_is_not_kept() {
    let (mut qmp, mut peer) = pair();
    let flood = tokio::spawn(async move {
        let mut sent = 0;
        while peer.write_all(&[b' '; 4096]).await.is_ok() {
            sent += 4096;
        }
        sent
    });
    let error = qmp.next_event().await.unwrap_err();
    assert!(error.to_string().contains("no end"), "{error}");
    assert!(qmp.buffer.capacity() < 4 * MESSAGE_BYTES_MAX);
    drop(qmp);
    assert!(flood.await.unwrap() < 1 << 20);
}

#[tokio::test]
async fn a_flood_of_events_does_not_hide_that_no_answer_comes() {
    let (mut qmp, mut peer) = pair();
    let flood =
        tokio::spawn(
            async move { while peer.write_all(b"{\"event\": \"RESUME\"}\n").await.is_ok() {} },
        );
    let started = Instant::now();
    let limit = Duration::from_secs(20);
    let error = qmp.execute(qmp::quit {}, limit).await.unwrap_err();
    assert!(matches!(error, Error::Protocol { .. }), "{error}");
    assert!(started.elapsed() < limit);
    drop(qmp);
    flood.await.unwrap();
}

#[tokio::test]
async fn events_of_newer_versions_are_only_others() {
    let (mut qmp, peer) = said(&[
        r#"{"event": "BRAND_NEW", "data": [1]}"#,
        r#"{"event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-shutdown"}}"#,
        r#"{"event": "SHUTDOWN", "data": {"guest": true, "reason": "brand-new"}}"#,
        r#"{"event": "GUEST_PANICKED", "data": {"action": "poweroff"}}"#,
        r#"{"event": "STOP"}"#,
        r#"{"event": "RESUME"}"#,
    ])
    .await;
    drop(peer);
    let mut events = Vec::new();
    while let Some(event) = qmp.next_event().await.unwrap() {
        events.push(event);
    }
    use qmp::ShutdownCause::{guest_shutdown, none};
    assert_eq!(
        events,
        [
            QmpEvent::Other,
            QmpEvent::Shutdown(guest_shutdown),
            QmpEvent::Shutdown(none),
            QmpEvent::GuestPanicked,
            QmpEvent::Stopped,
            QmpEvent::Resumed,
        ]
    );
}

#[tokio::test]
async fn an_event_in_pieces_survives_being_dropped_in_the_middle() {
    let (mut qmp, mut peer) = pair();
    for piece in ["{\"event\"", ": \"ST", "OP\"}"] {
        peer.write_all(piece.as_bytes()).await.unwrap();
        let limit = Duration::from_millis(10);
        assert!(timeout(limit, qmp.next_event()).await.is_err());
    }
    peer.write_all(b"\n").await.unwrap();
    assert_eq!(qmp.next_event().await.unwrap(), Some(QmpEvent::Stopped));
}

proptest::proptest! {
    #[test]
    fn no_bytes_of_a_peer_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..400)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (mut qmp, mut peer) = pair();
            peer.write_all(&bytes).await.unwrap();
            peer.write_all(b"\n").await.unwrap();
            drop(peer);
            while let Ok(Some(_)) = qmp.next_event().await {}
        });
    }
}
