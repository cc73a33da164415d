//! Laws of `range` and `txn`.

use bytes::Bytes;
use futures::{FutureExt, future::join_all};

use super::{Factory, Law, absent, at, commit, content, exists, put};
use crate::store::{Condition, Error, MAX_KEY_BYTES, MAX_TXN_BYTES, MAX_TXN_OPS, Op, Outcome};

pub(super) const LAWS: &[(&str, Law)] = &[
    ("a transaction does all of its operations in one revision", |f| one_revision(f).boxed()),
    ("a refused transaction does nothing", |f| refused(f).boxed()),
    ("each condition holds when it should", |f| conditions(f).boxed()),
    ("a transaction that changes nothing keeps the revision", |f| unchanged(f).boxed()),
    ("a range is whole and in the order of keys", |f| ranges(f).boxed()),
    ("a prefix is a prefix and not a folder", |f| prefixes(f).boxed()),
    ("any bytes are a value", |f| any_bytes(f).boxed()),
    ("concurrent compare-and-set counts exactly", |f| counters(f).boxed()),
    ("a large value is stored whole", |f| large(f).boxed()),
    ("what is above a bound is refused and says the bound", |f| bounds(f).boxed()),
    ("a key is written once in a transaction", |f| written_once(f).boxed()),
];

async fn one_revision(factory: &dyn Factory) {
    let store = factory.store().await;
    let first = commit(&store, &[put("a", "1"), put("b", "2")]).await;
    let second = commit(&store, &[put("a", "3"), Op::delete("b"), put("c", "4")]).await;
    assert!(second > first);
    let snapshot = store.range("").await.unwrap();
    assert!(snapshot.revision >= second);
    let revisions: Vec<(&str, i64)> =
        snapshot.items.iter().map(|item| (item.key.as_str(), item.revision)).collect();
    assert_eq!(revisions, [("a", second), ("c", second)]);
    assert_eq!(snapshot.get("a").unwrap().value, "3");
    assert_eq!(snapshot.get("b"), None);
}

async fn refused(factory: &dyn Factory) {
    let store = factory.store().await;
    commit(&store, &[put("a", "1")]).await;
    let before = store.range("").await.unwrap();
    // The first condition holds, the second does not.
    let ops = [put("a", "2"), put("b", "2"), Op::delete("c")];
    assert_eq!(store.txn(&[exists("a"), absent("a")], &ops).await, Ok(Outcome::Refused));
    assert_eq!(store.range("").await.unwrap(), before);
}

async fn conditions(factory: &dyn Factory) {
    let store = factory.store().await;
    let old = commit(&store, &[put("k", "1")]).await;
    let new = commit(&store, &[put("k", "2")]).await;
    commit(&store, &[put("gone", "1")]).await;
    commit(&store, &[Op::delete("gone")]).await;
    let cases: [(Condition, bool); 8] = [
        (absent("k"), false),
        (absent("never"), true),
        (absent("gone"), true),
        (exists("k"), true),
        (exists("gone"), false),
        (at("k", new), true),
        (at("k", old), false),
        (at("never", new), false),
    ];
    for (condition, holds) in cases {
        let outcome = store.txn(std::slice::from_ref(&condition), &[put("other", "x")]).await.unwrap();
        assert_eq!(matches!(outcome, Outcome::Committed { .. }), holds, "{condition:?}");
    }
}

async fn unchanged(factory: &dyn Factory) {
    let store = factory.store().await;
    let revision = commit(&store, &[put("a", "1")]).await;
    assert_eq!(commit(&store, &[Op::delete("never")]).await, revision);
    assert_eq!(store.txn(&[exists("a")], &[]).await, Ok(Outcome::Committed { revision }));
    assert_eq!(store.range("").await.unwrap().revision, revision);
}

async fn ranges(factory: &dyn Factory) {
    let store = factory.store().await;
    // More than a page of any store.
    for hundred in 0..4 {
        let ops: Vec<Op> =
            (0..100).map(|i| put(&format!("k{:03}", (hundred * 100 + i) * 7 % 400), "v")).collect();
        commit(&store, &ops).await;
    }
    let keys: Vec<String> = content(&store, "k").await.into_iter().map(|(key, _)| key).collect();
    let expected: Vec<String> = (0..400).map(|i| format!("k{i:03}")).collect();
    assert_eq!(keys, expected);
}

async fn prefixes(factory: &dyn Factory) {
    let store = factory.store().await;
    commit(&store, &[put("a", "1"), put("a/b", "2"), put("a0", "3"), put("b", "4"), put("é", "5")]).await;
    for (prefix, expected) in [("a/", "2"), ("a", "123"), ("é", "5"), ("", "12345"), ("c", "")] {
        let values = content(&store, prefix).await.into_iter().map(|(_, value)| value);
        assert_eq!(values.collect::<Vec<Bytes>>().concat(), expected.as_bytes(), "prefix `{prefix}`");
    }
}

async fn any_bytes(factory: &dyn Factory) {
    let store = factory.store().await;
    let all: Vec<u8> = (0..=255).collect();
    commit(&store, &[Op::put("all", all.clone()), Op::put("none", Vec::new())]).await;
    assert_eq!(content(&store, "").await, [("all".into(), Bytes::from(all)), ("none".into(), Bytes::new())]);
}

async fn counters(factory: &dyn Factory) {
    const TASKS: usize = 8;
    const EACH: usize = 20;
    let store = factory.store().await;
    let count = || async {
        for _ in 0..EACH {
            loop {
                let snapshot = store.range("count").await.unwrap();
                let item = snapshot.get("count");
                let old: usize =
                    item.map_or(0, |item| std::str::from_utf8(&item.value).unwrap().parse().unwrap());
                let condition = Condition::unchanged("count", item);
                let outcome = store.txn(&[condition], &[put("count", &(old + 1).to_string())]).await.unwrap();
                if outcome != Outcome::Refused {
                    break;
                }
            }
        }
    };
    join_all((0..TASKS).map(|_| count())).await;
    assert_eq!(content(&store, "count").await, [("count".into(), Bytes::from((TASKS * EACH).to_string()))]);
}

async fn large(factory: &dyn Factory) {
    let store = factory.store().await;
    let value = vec![7; MAX_TXN_BYTES - 1];
    for key in ["k", "l", "m"] {
        commit(&store, &[Op::put(key, value.clone())]).await;
    }
    // Together more than a message of most protocols.
    let content = content(&store, "").await;
    assert!(content.len() == 3 && content.iter().all(|(_, stored)| *stored == value));
}

async fn bounds(factory: &dyn Factory) {
    let store = factory.store().await;
    let many: Vec<Op> = (0..=MAX_TXN_OPS).map(|i| put(&i.to_string(), "v")).collect();
    let halves = [Op::put("a", vec![0; MAX_TXN_BYTES / 2]), Op::put("b", vec![0; MAX_TXN_BYTES / 2])];
    let cases: [(&[Op], usize); 4] = [
        (&[Op::put("k", vec![0; MAX_TXN_BYTES])], MAX_TXN_BYTES),
        (&halves, MAX_TXN_BYTES),
        (&many, MAX_TXN_OPS),
        (&[put(&"k".repeat(MAX_KEY_BYTES + 1), "v")], MAX_KEY_BYTES),
    ];
    for (ops, limit) in cases {
        let error = store.txn(&[], ops).await.unwrap_err();
        assert!(matches!(error, Error::TooLarge { .. }), "{error}");
        assert!(error.to_string().contains(&limit.to_string()), "{error} names {limit}");
    }
    let conditions: Vec<Condition> = (0..=MAX_TXN_OPS).map(|i| exists(&i.to_string())).collect();
    assert!(matches!(store.txn(&conditions, &[]).await, Err(Error::TooLarge { .. })));
    assert!(matches!(store.txn(&[], &[put("", "v")]).await, Err(Error::Invalid(_))));
    assert!(content(&store, "").await.is_empty());
    // At the bound it goes.
    commit(&store, &many[..MAX_TXN_OPS]).await;
    assert!(matches!(store.txn(&conditions[..MAX_TXN_OPS], &[]).await, Ok(Outcome::Committed { .. })));
}

async fn written_once(factory: &dyn Factory) {
    let store = factory.store().await;
    let error = store.txn(&[], &[put("k", "1"), Op::delete("k")]).await.unwrap_err();
    assert!(matches!(error, Error::Invalid(_)) && error.to_string().contains("`k`"), "{error}");
}
