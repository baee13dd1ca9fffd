//! What a node says of pods and containers: it is told again, and found by it.

use std::collections::HashMap;

use k8s_cri::v1::{ContainerState, ContainerStatsFilter};

use super::{Client, Containerd, Network, WAIT, settings};

fn pairs(pairs: &[(&str, &str)]) -> HashMap<String, String> {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    pairs.iter().map(owned).collect()
}

#[test]
fn names_labels_and_annotations_are_kept_and_found() {
    let network = Network::new();
    let Some(containerd) = Containerd::for_cri(&network.0, settings) else {
        return;
    };
    let mut client = Client::connect(&containerd, &containerd.dir("logs"));
    let labels = pairs(&[("app", "shop"), ("io.kubernetes.pod.name", "kept")]);
    let annotations = pairs(&[("note", "a text, with signs: {}")]);
    let made = client.try_run_pod("kept", |config| {
        config.labels.clone_from(&labels);
        config.annotations.clone_from(&annotations);
        config.metadata.as_mut().unwrap().attempt = 3;
    });
    let pod = made.unwrap();
    let other = client.run_pod("other");
    let status = client.pod(&pod);
    let metadata = status.metadata.unwrap();
    assert_eq!((metadata.name.as_str(), metadata.attempt), ("kept", 3));
    assert_eq!(metadata.uid, "uid-kept");
    assert_eq!(
        (&status.labels, &status.annotations),
        (&labels, &annotations)
    );
    let listed = client.pods();
    let listed = listed.iter().find(|one| one.id == pod).unwrap();
    assert_eq!(
        (&listed.labels, &listed.annotations),
        (&labels, &annotations)
    );

    let wait = ["sh", "-c", WAIT];
    let begin = |client: &mut Client, name: &str, app: &str| {
        client.begin(&pod, name, &wait, |config| {
            config.labels = pairs(&[("app", app)]);
            config.annotations.clone_from(&annotations);
        })
    };
    let [one, two] = [("one", "shop"), ("two", "other")].map(|(name, app)| {
        let id = begin(&mut client, name, app);
        let status = client.container(&id);
        assert_eq!(status.metadata.unwrap().name, name);
        assert_eq!(status.labels, pairs(&[("app", app)]));
        assert_eq!(status.annotations, annotations);
        id
    });
    let beside = client.begin(&other, "beside", &wait, |_| {});
    let listed = client.containers(&pod);
    assert_eq!(listed.len(), 2);
    assert!(listed.iter().all(|one| one.annotations == annotations));

    // What each has used, by its id, by its label, and of all.
    let mut found = |filter| {
        let stats = client.stats_of(filter).into_iter();
        let mut ids: Vec<_> = stats
            .map(|one| {
                assert!(one.cpu.unwrap().timestamp > 0 && one.memory.unwrap().timestamp > 0);
                one.attributes.unwrap().id
            })
            .collect();
        ids.sort();
        ids
    };
    let by_id = |id: &String| ContainerStatsFilter {
        id: id.clone(),
        ..ContainerStatsFilter::default()
    };
    let by_label = |app| ContainerStatsFilter {
        label_selector: pairs(&[("app", app)]),
        ..ContainerStatsFilter::default()
    };
    let mut all = vec![one.clone(), two.clone(), beside.clone()];
    all.sort();
    assert_eq!(found(None), all);
    assert_eq!(found(Some(by_id(&two))), [two.as_str()]);
    assert_eq!(found(Some(by_label("shop"))), [one.as_str()]);
    assert!(found(Some(by_label("nobody's"))).is_empty());

    // Removing and ending can be asked for again; one that was never started goes as well.
    let created = client.create(&pod, "created", &wait);
    let state = client.container(&created).state();
    assert_eq!(state, ContainerState::ContainerCreated);
    for _ in 0..2 {
        client.remove(&created);
    }
    for _ in 0..2 {
        client.stop(&one, 0);
        assert_eq!(client.container(&one).exit_code, 137);
    }
    for _ in 0..2 {
        client.remove(&one);
    }
    assert_eq!(client.containers(&pod).len(), 1);

    // A process that took too long is gone when the answer comes.
    client.exec(&two, &["sleep", "4321"], 1).unwrap_err();
    let seen = client.say(&two, "ps -o args");
    assert!(!seen.contains("sleep 4321"), "{seen}");
    for pod in [&other, &pod] {
        client.stop_pod(pod);
        client.remove_pod(pod);
    }
    assert!(client.pods().is_empty());
}
