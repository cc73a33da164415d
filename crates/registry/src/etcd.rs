//! The metadata store on etcd.
//!
//! Every request has a time limit, and an error says whether trying again may help. A connection comes back by
//! itself: the client reconnects whenever a request finds it broken, and pings find out that it is. A request that
//! one member does not answer goes to the next.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use etcd_client::{
    Compare, CompareOp, EventType, GetOptions, KeyValue, PutOptions, Txn, TxnOp, WatchOptions, WatchResponse,
    WatchStream,
};
use futures::{StreamExt, stream};
use tokio::time::{Instant, sleep};
use tracing::info;

use crate::{
    retry::Backoff,
    store::{
        Change, Condition, Error, Item, LeaseId, MetadataStore, Op, Outcome, Result, Snapshot, Watch,
        check_ttl, check_txn,
    },
};

mod config;
mod errors;
mod members;

pub use config::EtcdConfig;
use errors::{convert, refused_watch};
use members::{Again, Clients, Members};

/// Keys of one page of a range. A page of the largest values that a store takes stays below what is read at once.
const PAGE: i64 = 128;

/// Cheap to clone; clones share the connections.
#[derive(Clone)]
pub struct Etcd {
    members: Arc<Members>,
    /// Of every key; ends with a slash.
    prefix: String,
}

// === impl Etcd ===

impl Etcd {
    /// Connects, and waits until etcd answers. What is wrong with the configuration or the password fails at once.
    pub async fn connect(config: &EtcdConfig) -> Result<Etcd> {
        let members = Members::new(&config.endpoints, config.options().await?, config.request_timeout);
        let etcd = Etcd { members: Arc::new(members), prefix: config.prefix()? };
        let ends = Instant::now() + config.connect_timeout;
        let mut backoff = Backoff::new(Duration::from_millis(20), Duration::from_secs(1));
        loop {
            match etcd.range("connect").await {
                Ok(_) => return Ok(etcd),
                Err(error) if error.is_retryable() && Instant::now() < ends => {
                    info!(%error, endpoints = ?config.endpoints, "waiting for etcd");
                    sleep(backoff.pause()).await;
                }
                Err(Error::Unavailable(why)) => {
                    return Err(Error::Unavailable(format!("{why} ({})", config.endpoints.join(", "))));
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn key(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    /// The key without our prefix. We only ask for keys below it.
    fn strip(&self, key: &[u8]) -> String {
        String::from_utf8_lossy(key.get(self.prefix.len()..).unwrap_or_default()).into_owned()
    }

    fn item(&self, pair: KeyValue) -> Item {
        let revision = pair.mod_revision();
        let (key, value) = pair.into_key_value();
        Item { key: self.strip(&key), value: value.into(), revision }
    }

    fn compare(&self, condition: &Condition) -> Compare {
        let key = self.key(condition.key());
        match condition {
            Condition::Absent { .. } => Compare::create_revision(key, CompareOp::Equal, 0),
            Condition::Exists { .. } => Compare::create_revision(key, CompareOp::Greater, 0),
            Condition::Revision { revision, .. } => Compare::mod_revision(key, CompareOp::Equal, *revision),
        }
    }

    fn operation(&self, op: &Op) -> TxnOp {
        let key = self.key(op.key());
        match op {
            Op::Delete { .. } => TxnOp::delete(key, None),
            Op::Put { value, lease, .. } => {
                let options = lease.map(|lease| PutOptions::new().with_lease(lease.0));
                TxnOp::put(key, value.as_ref(), options)
            }
        }
    }

    fn changes(&self, response: &WatchResponse) -> Vec<Change> {
        let pairs = response.events().iter().filter_map(|event| Some((event.event_type(), event.kv()?)));
        pairs
            .map(|(kind, pair)| Change {
                key: self.strip(pair.key()),
                value: (kind == EventType::Put).then(|| pair.value().to_vec().into()),
                revision: pair.mod_revision(),
            })
            .collect()
    }
}

#[async_trait]
impl MetadataStore for Etcd {
    async fn range(&self, prefix: &str) -> Result<Snapshot> {
        let (mut from, end) = (self.key(prefix).into_bytes(), end_of(self.key(prefix).as_bytes()));
        let mut snapshot = Snapshot { items: Vec::new(), revision: 0 };
        loop {
            let options = GetOptions::new().with_range(end.as_slice()).with_limit(PAGE);
            // Every page as of the first one's revision; 0 is the newest.
            let options = options.with_revision(snapshot.revision);
            let get = |mut clients: Clients| {
                let (from, options) = (from.clone(), options.clone());
                async move { clients.keys.get(from, Some(options)).await }
            };
            let mut page = self.members.ask(Again::Yes, get).await?;
            if snapshot.revision == 0 {
                snapshot.revision = page.header().map_or(0, |header| header.revision());
            }
            let pairs = page.take_kvs();
            // The next page begins at the smallest key after the last one.
            from = pairs.last().map(|pair| [pair.key(), &[0]].concat()).unwrap_or_default();
            snapshot.items.extend(pairs.into_iter().map(|pair| self.item(pair)));
            if !page.more() || from.is_empty() {
                return Ok(snapshot);
            }
        }
    }

    async fn txn(&self, conditions: &[Condition], ops: &[Op]) -> Result<Outcome> {
        check_txn(conditions, ops)?;
        let compares: Vec<Compare> = conditions.iter().map(|condition| self.compare(condition)).collect();
        let operations: Vec<TxnOp> = ops.iter().map(|op| self.operation(op)).collect();
        let txn = Txn::new().when(compares).and_then(operations);
        let lease = ops.iter().find_map(|op| match op {
            Op::Put { lease, .. } => *lease,
            Op::Delete { .. } => None,
        });
        let commit = |mut clients: Clients| {
            let txn = txn.clone();
            async move { clients.keys.txn(txn).await }
        };
        let response = self.members.ask(Again::IfNeverSent, commit).await;
        let response = response.map_err(|error| name_lease(error, lease))?;
        Ok(match response.succeeded() {
            true => Outcome::Committed { revision: response.header().map_or(0, |header| header.revision()) },
            false => Outcome::Refused,
        })
    }

    async fn watch(&self, prefix: &str, from: i64) -> Result<Watch> {
        // etcd takes 0 for "from now on".
        let options = WatchOptions::new().with_prefix().with_start_revision(from.max(1));
        let key = self.key(prefix);
        let begin = |mut clients: Clients| {
            let (key, options) = (key.clone(), options.clone());
            async move {
                let mut watch = clients.watch.watch(key, Some(options)).await?;
                let first = watch.message().await?;
                Ok((watch, first))
            }
        };
        let (watch, first) = self.members.ask(Again::Yes, begin).await?;
        if let Some(refused) = first.as_ref().and_then(|response| refused_watch(response, from)) {
            return Err(refused);
        }
        let cursor = Cursor { etcd: self.clone(), watch, from };
        let first = stream::iter(first.map(|response| Ok(self.changes(&response))));
        let rest = stream::try_unfold(cursor, Cursor::next);
        let has_changes =
            |changes: &Result<Vec<Change>>| !matches!(changes, Ok(changes) if changes.is_empty());
        let all = first.chain(rest).filter(move |changes| std::future::ready(has_changes(changes)));
        Ok(Watch::new(all.boxed()))
    }

    async fn grant(&self, ttl: Duration) -> Result<LeaseId> {
        check_ttl(ttl)?;
        // etcd counts in seconds.
        let seconds = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
        let seconds = i64::try_from(seconds).map_err(|_| Error::Invalid("`ttl` is too long".into()))?;
        // A lease that nobody knows of ends by itself.
        let grant = |mut clients: Clients| async move { clients.lease.grant(seconds, None).await };
        Ok(LeaseId(self.members.ask(Again::Yes, grant).await?.id()))
    }

    async fn keep_alive(&self, id: LeaseId) -> Result<()> {
        let renew = |mut clients: Clients| async move { clients.lease.keep_alive(id.0).await };
        let renewed = self.members.ask(Again::Yes, renew).await;
        renewed.map(|_| ()).map_err(|error| name_lease(error, Some(id)))
    }

    async fn revoke(&self, id: LeaseId) -> Result<()> {
        let revoke = |mut clients: Clients| async move { clients.lease.revoke(id.0).await };
        match self.members.ask(Again::Yes, revoke).await {
            Ok(_) | Err(Error::LeaseGone(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl fmt::Debug for Etcd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Etcd").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

/// A running watch. It keeps the whole [`WatchStream`], because dropping its sending half ends it.
struct Cursor {
    etcd: Etcd,
    watch: WatchStream,
    from: i64,
}

// === impl Cursor ===

impl Cursor {
    async fn next(mut self) -> Result<Option<(Vec<Change>, Cursor)>> {
        let Some(response) = self.watch.message().await.map_err(convert)? else { return Ok(None) };
        if let Some(refused) = refused_watch(&response, self.from) {
            return Err(refused);
        }
        let changes = self.etcd.changes(&response);
        self.from = changes.last().map_or(self.from, |change| change.revision + 1);
        Ok(Some((changes, self)))
    }
}

/// etcd does not say which lease is gone.
fn name_lease(error: Error, lease: Option<LeaseId>) -> Error {
    match (error, lease) {
        (Error::LeaseGone(_), Some(lease)) => Error::LeaseGone(lease),
        (error, _) => error,
    }
}

/// The first key after every key that begins with `prefix`.
fn end_of(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    // etcd's way to say: to the end of all keys.
    vec![0]
}
