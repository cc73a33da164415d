//! Laws of `watch`.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::{FutureExt, future::join_all};

use super::{Factory, Law, batch, commit, content, failure, put, soon};
use crate::store::{Change, Error, Op, Watch};

pub(super) const LAWS: &[(&str, Law)] = &[
    ("a snapshot and the changes after it are the content, without a gap", |f| no_gap(f).boxed()),
    ("one transaction's changes come together", |f| together(f).boxed()),
    ("a watch may begin in the past", |f| past(f).boxed()),
    ("a watch sees its prefix only", |f| prefix(f).boxed()),
    ("a deleted key is seen as deleted", |f| deletes(f).boxed()),
    ("a watch that waits is woken", |f| woken(f).boxed()),
    ("a watch from a compacted revision says so", |f| compacted(f).boxed()),
    ("two watches see the same", |f| same(f).boxed()),
];

async fn no_gap(factory: &dyn Factory) {
    const WRITERS: usize = 4;
    const EACH: usize = 50;
    let store = factory.store().await;
    let write = |writer: usize| {
        let store = store.clone();
        async move {
            for i in 0..EACH {
                let (mine, shared) = (format!("w{writer}/{}", i % 7), format!("shared/{}", i % 3));
                let op = if i % 5 == 4 { Op::delete(mine) } else { put(&mine, &i.to_string()) };
                commit(&store, &[op, put(&shared, &format!("{writer}-{i}"))]).await;
                // The memory store never waits by itself, and everybody should have a turn.
                tokio::task::yield_now().await;
            }
            commit(&store, &[put(&format!("done/{writer}"), "")]).await;
        }
    };
    // The snapshot is taken while everybody writes.
    let follow = async {
        soon("a first write", async {
            while store.range("w1/").await.unwrap().items.is_empty() {
                tokio::task::yield_now().await;
            }
        })
        .await;
        let snapshot = store.range("").await.unwrap();
        let mut seen: BTreeMap<String, Bytes> =
            snapshot.items.into_iter().map(|item| (item.key, item.value)).collect();
        let mut watch = store.watch("", snapshot.revision + 1).await.unwrap();
        let mut last = snapshot.revision;
        while (0..WRITERS).any(|writer| !seen.contains_key(&format!("done/{writer}"))) {
            for Change { key, value, revision } in batch(&mut watch).await {
                assert!(revision >= last, "revision {revision} after {last}");
                last = revision;
                match value {
                    Some(value) => seen.insert(key, value),
                    None => seen.remove(&key),
                };
            }
        }
        seen
    };
    let (seen, _) = futures::join!(follow, join_all((0..WRITERS).map(write)));
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), content(&store, "").await);
}

async fn together(factory: &dyn Factory) {
    let store = factory.store().await;
    let first = commit(&store, &[put("z", "0")]).await;
    for i in 0..20 {
        let value = i.to_string();
        commit(&store, &[put("a", &value), put("b", &value), put("c", &value)]).await;
    }
    let mut watch = store.watch("", first + 1).await.unwrap();
    let mut seen = 0;
    while seen < 60 {
        let changes = batch(&mut watch).await;
        for chunk in changes.chunks(3) {
            assert!(chunk.len() == 3 && chunk.iter().all(|change| change.revision == chunk[0].revision));
        }
        seen += changes.len();
    }
}

async fn past(factory: &dyn Factory) {
    let store = factory.store().await;
    let first = commit(&store, &[put("k", "1")]).await;
    let second = commit(&store, &[put("k", "2")]).await;
    let third = commit(&store, &[put("k", "3")]).await;
    let mut watch = store.watch("", second).await.unwrap();
    let mut revisions = Vec::new();
    while revisions.len() < 2 {
        revisions.extend(batch(&mut watch).await.into_iter().map(|change| change.revision));
    }
    assert_eq!(revisions, [second, third]);
    assert!(first < second);
}

async fn prefix(factory: &dyn Factory) {
    let store = factory.store().await;
    let from = commit(&store, &[put("a/0", "")]).await + 1;
    let mut watch = store.watch("a/", from).await.unwrap();
    commit(&store, &[put("b/1", ""), put("a", ""), put("a0", "")]).await;
    commit(&store, &[put("b/2", ""), put("a/2", "x")]).await;
    let keys: Vec<String> = batch(&mut watch).await.into_iter().map(|change| change.key).collect();
    assert_eq!(keys, ["a/2"]);
}

async fn deletes(factory: &dyn Factory) {
    let store = factory.store().await;
    let from = commit(&store, &[put("k", "1")]).await + 1;
    let mut watch = store.watch("", from).await.unwrap();
    // Deleting what is not there is no change.
    commit(&store, &[Op::delete("never")]).await;
    let revision = commit(&store, &[Op::delete("k")]).await;
    assert_eq!(batch(&mut watch).await, [Change { key: "k".into(), value: None, revision }]);
}

async fn woken(factory: &dyn Factory) {
    let store = factory.store().await;
    let from = store.range("").await.unwrap().revision + 1;
    let mut watch = store.watch("k", from).await.unwrap();
    let waiting = async { batch(&mut watch).await };
    let writing = async {
        // Until the other future has begun to wait.
        tokio::task::yield_now().await;
        commit(&store, &[put("k", "1")]).await
    };
    let (changes, revision) = futures::join!(waiting, writing);
    assert_eq!(changes, [Change { key: "k".into(), value: Some("1".into()), revision }]);
}

async fn compacted(factory: &dyn Factory) {
    let store = factory.store().await;
    let first = commit(&store, &[put("k", "1")]).await;
    for i in 0..5 {
        commit(&store, &[put("k", &i.to_string())]).await;
    }
    let snapshot = store.range("").await.unwrap();
    factory.compact(snapshot.revision).await;
    let error = failure(store.watch("", first).await).await;
    assert!(matches!(error, Error::Compacted { from, .. } if from == first), "{error}");
    // What is there is still there, and a watch from the snapshot on works.
    assert_eq!(store.range("").await.unwrap().items, snapshot.items);
    let mut watch = store.watch("", snapshot.revision + 1).await.unwrap();
    let revision = commit(&store, &[put("k", "new")]).await;
    assert_eq!(batch(&mut watch).await[0].revision, revision);
}

async fn same(factory: &dyn Factory) {
    let store = factory.store().await;
    let from = store.range("").await.unwrap().revision + 1;
    let watches = [store.watch("", from).await.unwrap(), store.watch("", from).await.unwrap()];
    for i in 0..30 {
        commit(&store, &[put(&format!("k{}", i % 4), &i.to_string())]).await;
    }
    let read = |mut watch: Watch| async move {
        let mut changes = Vec::new();
        while changes.len() < 30 {
            changes.extend(batch(&mut watch).await);
        }
        changes
    };
    let all = soon("both watches", join_all(watches.map(read))).await;
    assert_eq!(all[0], all[1]);
}
