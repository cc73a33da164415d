//! `GET /api/ps`: what is loaded, over all workers.
//!
//! Ollama has one row per set of weights; so do we, however many workers hold a replica of it. Its sizes are then
//! those of all replicas together, and it expires when the last one does.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use api::gojson;
use api::ollama::{Details, RunningModel};
use protocol::v1::{ReplicaStatus, replica_status::State};
use store::{Name, Store};

use crate::cluster::Seen;

/// The rows, the longest-lived first.
pub async fn list(store: &Store, replicas: Vec<Seen>) -> Vec<RunningModel> {
    let mut rows = merge(replicas);
    rows.sort_by(|a, b| b.expires_at_ns.cmp(&a.expires_at_ns).then_with(|| a.name.cmp(&b.name)));
    let now = SystemTime::now();
    let mut models = Vec::with_capacity(rows.len());
    for row in rows {
        let details = details(store, &row.name).await;
        models.push(RunningModel {
            name: row.name.clone(),
            model: row.name,
            size: row.size_bytes,
            digest: row.manifest_digest,
            details,
            expires_at: gojson::timestamp_local(time(row.expires_at_ns, now)),
            size_vram: row.size_vram_bytes,
            context_length: u64::from(row.context_length),
        });
    }
    models
}

/// One status per replica key. A replica that is still loading has no size and no end yet, so it is not shown.
fn merge(replicas: Vec<Seen>) -> Vec<ReplicaStatus> {
    let mut rows: BTreeMap<String, ReplicaStatus> = BTreeMap::new();
    for Seen { status, .. } in replicas {
        if status.state() == State::Loading {
            continue;
        }
        match rows.get_mut(&status.replica_key) {
            None => drop(rows.insert(status.replica_key.clone(), status)),
            Some(row) => {
                row.size_bytes = row.size_bytes.saturating_add(status.size_bytes);
                row.size_vram_bytes = row.size_vram_bytes.saturating_add(status.size_vram_bytes);
                row.expires_at_ns = row.expires_at_ns.max(status.expires_at_ns);
                row.context_length = row.context_length.max(status.context_length);
            }
        }
    }
    rows.into_values().collect()
}

/// A model may have been deleted while it is loaded; the row stays until it is unloaded.
async fn details(store: &Store, name: &str) -> Details {
    let Ok(name) = Name::parse(name) else { return Details::default() };
    let Ok(model) = store.get(&name).await else { return Details::default() };
    Details { parent_model: String::new(), ..model.details.clone() }
}

/// For ever is as many nanoseconds from now on as can be counted, 292 years, and Ollama's clients take it for that.
fn time(unix_ns: i64, now: SystemTime) -> SystemTime {
    let since = if unix_ns == i64::MAX { now } else { SystemTime::UNIX_EPOCH };
    since + Duration::from_nanos(unix_ns.max(0).unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(worker: &str, key: &str, state: State, expires_at_ns: i64) -> Seen {
        let status = ReplicaStatus {
            replica_key: key.into(),
            name: format!("{key}:latest"),
            state: state as i32,
            size_bytes: 10,
            size_vram_bytes: 4,
            context_length: 512,
            expires_at_ns,
            ..ReplicaStatus::default()
        };
        Seen { worker: worker.into(), status }
    }

    #[tokio::test]
    async fn replicas_of_one_model_are_one_row_and_the_longest_lived_comes_first() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let replicas = vec![
            seen("w1", "a", State::Ready, 5_000_000_000),
            seen("w2", "a", State::Unloading, 7_000_000_000),
            seen("w2", "b", State::Ready, i64::MAX),
            seen("w1", "c", State::Loading, i64::MAX),
        ];
        let rows = list(&store, replicas).await;
        let names: Vec<&str> = rows.iter().map(|row| row.name.as_str()).collect();
        assert_eq!(names, ["b:latest", "a:latest"]);
        assert_eq!((rows[1].size, rows[1].size_vram), (20, 8));
        assert!(rows[1].expires_at.starts_with("1970-01-01T00:00:07") || rows[1].expires_at.contains(":07"));
    }

    #[test]
    fn for_ever_begins_now() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        assert_eq!(time(5, now), SystemTime::UNIX_EPOCH + Duration::from_nanos(5));
        assert_eq!(time(-5, now), SystemTime::UNIX_EPOCH);
        let years = time(i64::MAX, now).duration_since(now).unwrap().as_secs() / (365 * 86_400);
        assert_eq!(years, 292);
    }
}
