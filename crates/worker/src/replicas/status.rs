//! What the worker tells about its replicas.

use protocol::v1::{ReplicaStatus, WorkerStatus, replica_status};
use tokio::time::Instant;

use super::{
    Replicas,
    table::{Replica, State},
};

impl Replicas {
    pub fn status(&self) -> WorkerStatus {
        let now = Instant::now();
        let memory = self.0.config.gauge.measure();
        let worker = self.0.session.worker();
        let table = self.table();
        WorkerStatus {
            worker_id: worker.id,
            boot_id: worker.boot_id,
            replicas: table.iter().map(|replica| self.status_of(replica, now)).collect(),
            memory_total_bytes: memory.total_bytes,
            memory_free_bytes: memory.available_bytes,
            draining: table.draining,
        }
    }

    pub(super) fn status_of(&self, replica: &Replica, now: Instant) -> ReplicaStatus {
        let state = match replica.state {
            State::Loading => replica_status::State::Loading,
            State::Ready(_) => replica_status::State::Ready,
            State::Unloading(_) => replica_status::State::Unloading,
        };
        let runner = replica.loaded().map(|loaded| &loaded.runner);
        let info = runner.map(|runner| runner.info());
        let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
        let unix_ns = |at: Instant| self.0.clock.unix_ns(at);
        ReplicaStatus {
            replica_key: replica.model.replica_key.clone(),
            name: replica.model.name.clone(),
            manifest_digest: replica.model.manifest_digest.clone(),
            state: state.into(),
            slots: runner.map_or(0, |runner| number(runner.slots().total())),
            slots_used: runner.map_or(0, |runner| number(runner.slots().used())),
            context_length: info.map_or(0, |info| number(info.context_length)),
            size_bytes: info.map_or(replica.reserved_bytes, |info| info.size_bytes),
            size_vram_bytes: 0,
            expires_at_ns: replica.expires_at(now).map_or(i64::MAX, unix_ns),
            last_used_ns: unix_ns(replica.last_used),
            embeds: info.is_some_and(|info| info.pooling.is_some()),
        }
    }
}
