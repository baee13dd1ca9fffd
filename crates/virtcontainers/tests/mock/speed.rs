//! Many sandboxes are no burden.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use vc_store::Listed;

use super::{Host, container, id, on_executor, sandbox, sandbox_id};

const SANDBOXES: usize = 1000;

/// How many are made at once.
const AT_ONCE: usize = 16;

/// The middle one of some times.
fn median(mut measure: impl FnMut()) -> Duration {
    let mut times: Vec<_> = (0..15)
        .map(|_| {
            let before = Instant::now();
            measure();
            before.elapsed()
        })
        .collect();
    times.sort();
    times[times.len() / 2]
}

#[test]
fn a_thousand_sandboxes_are_listed_within_50_ms_and_one_is_seen_within_5() {
    let host = Host::new();
    on_executor(async {
        let before = Instant::now();
        let created = futures_util::stream::iter(0..SANDBOXES).map(|number| {
            let mut one = container("main", &["server"]);
            one.attach = false;
            let config = sandbox(&format!("s{number}"), vec![one]);
            let runtime = &host.runtime;
            async move { runtime.run_sandbox(config).await.unwrap() }
        });
        let kept: Vec<_> = created.buffer_unordered(AT_ONCE).collect().await;
        let making = before.elapsed();

        let listing = median(|| {
            let listed = host.runtime.list_sandbox().unwrap();
            let read = listed
                .iter()
                .filter(|one| matches!(one, Listed::Sandbox(_)));
            assert_eq!(read.count(), SANDBOXES);
        });
        let (name, main) = (sandbox_id("s500"), id("main"));
        let status = median(|| {
            host.runtime.status_container(&name, &main).unwrap();
        });
        println!("{SANDBOXES} made in {making:?}, listed in {listing:?}, one seen in {status:?}");
        assert!(listing < Duration::from_millis(50), "{listing:?}");
        assert!(status < Duration::from_millis(5), "{status:?}");
        assert!(making < Duration::from_secs(10), "{making:?}");
        drop(kept);
    });
    host.assert_nothing_left();
}
