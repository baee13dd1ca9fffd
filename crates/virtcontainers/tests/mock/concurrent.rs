//! Several at once.

use tokio::task::JoinSet;
use virtcontainers::mock::Call;

use super::{Host, container, on_executor, sandbox};

#[test]
fn containers_of_one_sandbox_are_made_one_after_the_other() {
    let host = Host::new();
    on_executor(async {
        let pod = host.runtime.create_sandbox(sandbox("pod", Vec::new()));
        let pod = pod.await.unwrap();
        let guest = host.script.guest(pod.id());
        guest.hang(Call::CreateContainer);
        let mut made = JoinSet::new();
        for number in 0..4 {
            let handle = pod.handle().clone();
            let config = container(&format!("c{number}"), &["server"]);
            made.spawn(async move { handle.create_container(config).await.map(|_| ()) });
        }
        guest.reached(Call::CreateContainer).await;
        // The others wait for its operation, and say so to nobody: the guest has one call.
        let creating = || {
            let record = host.runtime.status_sandbox(pod.id()).unwrap();
            record
                .containers
                .values()
                .filter(|one| one.creating)
                .count()
        };
        for _ in 0..4 {
            guest.reached(Call::CreateContainer).await;
            assert_eq!(guest.waiting(Call::CreateContainer), 1);
            assert_eq!(creating(), 1);
            guest.let_pass(Call::CreateContainer);
            made.join_next().await.unwrap().unwrap().unwrap();
        }
        assert_eq!(pod.status().unwrap().containers.len(), 4);
        pod.delete().await.unwrap();
    });
    host.assert_nothing_left();
}

#[test]
fn containers_of_different_sandboxes_are_made_at_once() {
    let host = Host::new();
    on_executor(async {
        let mut pods = Vec::new();
        let mut made = JoinSet::new();
        for name in ["a", "b", "c"] {
            let pod = host.runtime.create_sandbox(sandbox(name, Vec::new()));
            let pod = pod.await.unwrap();
            host.script.guest(pod.id()).hang(Call::CreateContainer);
            let handle = pod.handle().clone();
            let config = container("c1", &["server"]);
            made.spawn(async move { handle.create_container(config).await.map(|_| ()) });
            pods.push(pod);
        }
        // All are under way before one is done.
        for pod in &pods {
            host.script
                .guest(pod.id())
                .reached(Call::CreateContainer)
                .await;
        }
        for pod in &pods {
            host.script.guest(pod.id()).release(Call::CreateContainer);
        }
        while let Some(one) = made.join_next().await {
            one.unwrap().unwrap();
        }
        for pod in pods {
            pod.delete().await.unwrap();
        }
    });
    host.assert_nothing_left();
}
