//! The life of one replica, in one task: permit, load, service, unload. The permit outlives the memory (C1).

use std::{future::pending, ops::ControlFlow, sync::Arc, time::Duration};

use api::{Code, Error};
use protocol::v1::{LoadRequest, Model};
use registry::{Permit, ReplicaRecord, ReplicaState};
use tokio::{
    task::spawn_blocking,
    time::{Instant, timeout},
};

use super::{Life, Loaded, Progress, Replicas, plan, table::State};
use crate::{loader::Built, prompt::Prompts, runner::Runner};

/// How long a replica that has gone still stands in the way of its next life, while the metadata store does not
/// answer. Usually it takes one round trip.
const GIVE_BACK: Duration = Duration::from_secs(5);

/// From the first wish to the freed memory.
pub async fn tend(replicas: Replicas, request: LoadRequest, life: Life) {
    let acquired = tokio::select! {
        // A permit that comes too late goes back by itself.
        () = life.stop.cancelled() => Err(given_up()),
        acquired = replicas.0.registry.acquire_permit(&replicas.0.session, &life.key) => acquired.map_err(Error::from),
    };
    match acquired {
        Ok(permit) => live(&replicas, request, &life, permit).await,
        Err(error) => fail(&replicas, &life, error),
    }
    replicas.table().remove(&life.key, life.id);
    replicas.0.changes.notify();
}

async fn live(replicas: &Replicas, request: LoadRequest, life: &Life, permit: Permit) {
    publish(replicas, life).await;
    let loaded = tokio::select! {
        loaded = load(replicas, request, life) => loaded,
        // Gives the load up; its end is still waited for, because until then its memory is taken.
        () = async {
            permit.forfeited().await;
            replicas.table().retire(&life.key);
            pending().await
        } => Err(given_up()),
    };
    match loaded {
        Ok(loaded) => serve(replicas, life, &permit, loaded).await,
        Err(error) => fail(replicas, life, error),
    }
    give_back(replicas, life, permit).await;
}

/// Tells those who wait. Who comes now waits for the end of this life and begins another.
fn fail(replicas: &Replicas, life: &Life, error: Error) {
    match error.code {
        // The gateways make room, or ask again.
        Code::NoPermit | Code::NotLoaded => tracing::debug!(key = life.key, %error, "load ended"),
        _ => tracing::warn!(key = life.key, %error, "load failed"),
    }
    replicas.table().retire(&life.key);
    report(replicas, life, |progress| progress.end = Some(Err(error)));
}

/// Loads on a blocking thread. When it is given up, the memory is free again before this returns.
async fn load(replicas: &Replicas, request: LoadRequest, life: &Life) -> Result<Arc<Loaded>, Error> {
    let (replicas, life) = (replicas.clone(), life.clone());
    let loading = spawn_blocking(move || {
        let (opened, shape) = plan::plan(&replicas, &request, &life)?;
        let mut told = None;
        let mut progress = |fraction: f32| {
            // Who waits for it takes the same again for a stall.
            if told.replace(fraction) != Some(fraction) {
                report(&replicas, &life, |progress| progress.fraction = fraction);
            }
            if life.stop.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let built = opened.load(shape, &mut progress);
        if life.stop.is_cancelled() {
            return Err(given_up());
        }
        start(built?, &replicas)
    });
    loading.await.unwrap_or_else(|_| Err(Error::internal("the load panicked")))
}

fn start(built: Built, replicas: &Replicas) -> Result<Arc<Loaded>, Error> {
    let Built { engine, file } = built;
    let prompts = Prompts::new(engine.info().clone(), engine.tokenizer());
    let runner = Runner::start(engine, replicas.0.changes.clone())
        .map_err(|error| Error::internal(format!("start the runner's thread: {error}")))?;
    let usual_context = replicas.0.config.context_length;
    Ok(Arc::new(Loaded { runner, prompts, usual_context, _file: file }))
}

/// Ready until it is told to stop, or the permit counts for nothing any more.
async fn serve(replicas: &Replicas, life: &Life, permit: &Permit, loaded: Arc<Loaded>) {
    let info = loaded.runner.info().clone();
    let is_ready = replicas.table().make_ready(&life.key, life.id, loaded.clone(), Instant::now());
    report(replicas, life, |progress| {
        let end = if is_ready { Ok(()) } else { Err(given_up()) };
        *progress = Progress { fraction: 1.0, end: Some(end) };
    });
    if is_ready {
        tracing::info!(
            key = life.key,
            slots = info.slots,
            context_length = info.context_length,
            "replica is ready"
        );
        let forfeited = permit.forfeit_token();
        tokio::select! {
            () = life.stop.cancelled() => {}
            () = forfeited.cancelled() => {
                tracing::warn!(key = life.key, "the permit is forfeit, the replica goes at once");
            }
            () = async { publish(replicas, life).await; pending().await } => {}
        }
    }
    replicas.table().retire(&life.key);
    replicas.0.changes.notify();
    // Others may look for another place while the memory is being freed.
    tokio::join!(publish(replicas, life), loaded.runner.stop());
    tracing::info!(key = life.key, "replica is unloaded");
}

/// The session goes on trying what does not succeed here.
async fn give_back(replicas: &Replicas, life: &Life, permit: Permit) {
    let back = async { tokio::join!(permit.release(), replicas.0.session.withdraw(&life.key)) };
    match timeout(GIVE_BACK, back).await {
        Ok((Ok(()), Ok(()))) => {}
        Ok((released, withdrawn)) => {
            tracing::debug!(key = life.key, ?released, ?withdrawn, "the permit is not given back yet");
        }
        Err(_) => {
            tracing::warn!(key = life.key, "the metadata store is silent, the permit is not given back yet")
        }
    }
}

/// Tells the cluster what the table says. The session writes it later when it cannot now.
async fn publish(replicas: &Replicas, life: &Life) {
    let record = replicas.table().get(&life.key, life.id).map(|replica| {
        let worker = replicas.0.session.worker().id;
        record(worker, &replica.model, &replica.state)
    });
    let Some(record) = record else { return };
    if let Err(error) = replicas.0.session.publish(&record).await {
        tracing::debug!(key = life.key, %error, "the replica is not published yet");
    }
}

fn record(worker: String, model: &Model, state: &State) -> ReplicaRecord {
    let (state, loaded) = match state {
        State::Loading => (ReplicaState::Loading, None),
        State::Ready(loaded) => (ReplicaState::Ready, Some(loaded)),
        State::Unloading(loaded) => (ReplicaState::Unloading, loaded.as_ref()),
    };
    let info = loaded.map(|loaded| loaded.runner.info());
    let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
    ReplicaRecord {
        worker,
        replica_key: model.replica_key.clone(),
        name: model.name.clone(),
        manifest_digest: model.manifest_digest.clone(),
        state,
        slots: info.map_or(0, |info| number(info.slots)),
        context_length: info.map_or(0, |info| number(info.context_length)),
        train_context_length: info.map_or(0, |info| number(info.train_context_length)),
        size_bytes: info.map_or(0, |info| info.size_bytes),
        ..ReplicaRecord::default()
    }
}

fn report(replicas: &Replicas, life: &Life, edit: impl FnOnce(&mut Progress)) {
    if let Some(replica) = replicas.table().get(&life.key, life.id) {
        replica.progress.send_modify(edit);
    }
}

/// Retryable: who still wants the model may ask for it again.
fn given_up() -> Error {
    Error::new(Code::NotLoaded, "the load was given up")
}
