//! The two transactions on a permit: granting it and deleting it.

use crate::{
    error::{Error, Result},
    keys::{self, ReplicaId},
    limits::{LimitsRecord, MODELS_PER_DEVICE},
    records::{PermitRecord, WorkerRecord, decode, encode},
    retry::Retry,
    store::{Condition, Item, MAX_TXN_OPS, MetadataStore, Op, Outcome, Snapshot},
};

/// How many workers a grant under the automatic limit may name as conditions; the rest is for the others. With
/// more workers than that, those with fewer devices are counted as they were a round trip ago.
const MAX_WITNESSES: usize = MAX_TXN_OPS - 4;

/// What a grant is decided on.
struct Books {
    /// Permits and guard, of one revision.
    permits: Snapshot,
    limits: Snapshot,
    workers: Snapshot,
}

/// Grants a permit to the worker, which must still be who it says.
pub(super) async fn grant(
    store: &dyn MetadataStore,
    worker: &WorkerRecord,
    replica_key: &str,
) -> Result<i64> {
    let id = ReplicaId::new(&worker.id, replica_key);
    let mut retry = Retry::contended(keys::PERMIT_GUARD);
    loop {
        let books = Books::read(store).await?;
        let conditions = books.conditions(worker, &id)?;
        let record = PermitRecord::new(worker, replica_key);
        let key = keys::permit(&id.worker, &id.replica_key);
        let ops = [Op::put(key.clone(), encode(&record)), Op::put(keys::PERMIT_GUARD, key)];
        if let Outcome::Committed { revision } = store.txn(&conditions, &ops).await? {
            return Ok(revision);
        }
        retry.wait().await?;
    }
}

/// Deletes a permit that was granted by `revision`, under further conditions. False when it is gone already, was
/// granted anew since, or a condition did not hold.
pub(crate) async fn delete(
    store: &dyn MetadataStore,
    id: &ReplicaId,
    revision: i64,
    conditions: &[Condition],
) -> Result<bool> {
    let key = keys::permit(&id.worker, &id.replica_key);
    let mut all = vec![Condition::Revision { key: key.clone(), revision }];
    all.extend_from_slice(conditions);
    Ok(matches!(store.txn(&all, &[Op::delete(key)]).await?, Outcome::Committed { .. }))
}

/// Deletes a permit that may have been granted, or may be granted yet by a transaction that is still on its way.
/// Writing the guard makes such a late one fail.
pub(super) async fn annul(store: &dyn MetadataStore, id: &ReplicaId, boot_id: &str) -> Result<()> {
    let key = keys::permit(&id.worker, &id.replica_key);
    let mut retry = Retry::contended(&key);
    loop {
        let snapshot = store.range(&key).await?;
        let item = snapshot.get(&key);
        let is_ours =
            |item: &&Item| decode::<PermitRecord>(&item.value).is_ok_and(|record| record.boot_id == boot_id);
        let mut ops = vec![Op::put(keys::PERMIT_GUARD, key.clone())];
        if item.filter(is_ours).is_some() {
            ops.push(Op::delete(key.clone()));
        }
        if let Outcome::Committed { .. } = store.txn(&[Condition::unchanged(&key, item)], &ops).await? {
            return Ok(());
        }
        retry.wait().await?;
    }
}

// === impl Books ===

impl Books {
    async fn read(store: &dyn MetadataStore) -> Result<Books> {
        let (permits, limits, workers) = futures::try_join!(
            store.range(keys::PERMITS_AND_GUARD),
            store.range(keys::LIMITS),
            store.range(keys::WORKERS),
        )?;
        Ok(Books { permits, limits, workers })
    }

    /// Under which conditions one more permit is within the limit, or why it is not.
    fn conditions(&self, worker: &WorkerRecord, id: &ReplicaId) -> Result<Vec<Condition>> {
        let own = keys::worker(&worker.id);
        let is_ours = |item: &&Item| {
            decode::<WorkerRecord>(&item.value).is_ok_and(|record| record.boot_id == worker.boot_id)
        };
        let Some(own) = self.workers.get(&own).filter(is_ours) else {
            return Err(Error::Cut { worker: worker.id.clone() });
        };
        let key = keys::permit(&id.worker, &id.replica_key);
        if self.permits.get(&key).is_some() {
            let (worker, replica_key) = (id.worker.clone(), id.replica_key.clone());
            return Err(Error::PermitHeld { worker, replica_key });
        }
        let mut conditions = vec![
            Condition::unchanged(keys::PERMIT_GUARD, self.permits.get(keys::PERMIT_GUARD)),
            Condition::Absent { key },
            Condition::unchanged(keys::LIMITS, self.limits.get(keys::LIMITS)),
            Condition::unchanged(&own.key, Some(own)),
        ];
        conditions.extend(self.witnesses()?.into_iter().filter(|item| item.key != own.key).map(unchanged));
        Ok(conditions)
    }

    /// The worker records that one more permit depends on: none under a fixed limit.
    fn witnesses(&self) -> Result<Vec<&Item>> {
        let held = self.held();
        let limits = self.limits()?.effective();
        let mut workers: Vec<(usize, &Item)> =
            self.workers.items.iter().map(|item| (devices(item), item)).collect();
        let limit = limits.permits(workers.iter().map(|(devices, _)| devices).sum());
        if held >= limit as usize {
            return Err(Error::NoPermit { limit, held });
        }
        if limits.max_loaded_models != 0 {
            return Ok(Vec::new());
        }
        // The minimum of the automatic limit stands without any witness.
        let mut proven = 1;
        workers.sort_by_key(|(devices, item)| (std::cmp::Reverse(*devices), &item.key));
        let mut witnesses = Vec::new();
        let mut devices_named = 0;
        for (devices, item) in workers.into_iter().take(MAX_WITNESSES) {
            if held < proven * MODELS_PER_DEVICE as usize {
                break;
            }
            devices_named += devices;
            proven = devices_named.max(1);
            witnesses.push(item);
        }
        Ok(witnesses)
    }

    fn held(&self) -> usize {
        self.permits.items.iter().filter(|item| item.key.starts_with(keys::PERMITS)).count()
    }

    fn limits(&self) -> Result<LimitsRecord> {
        let Some(item) = self.limits.get(keys::LIMITS) else { return Ok(LimitsRecord::default()) };
        decode(&item.value).map_err(|reason| Error::Unreadable { key: item.key.clone(), reason })
    }
}

fn unchanged(item: &Item) -> Condition {
    Condition::unchanged(&item.key, Some(item))
}

/// A worker that a newer version announced in a form that we cannot read counts for nothing here.
fn devices(item: &Item) -> usize {
    decode::<WorkerRecord>(&item.value).map_or(0, |worker| worker.devices.len())
}
