//! The parts of a role: a worker, a gateway, and the tasks around them.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use engine::Meter;
use gateway::{Gateway, Handle};
use node::{Metrics, Shutdown, admin::Condition};
use registry::{Device, Registry, WorkerRecord};
use store::{Store, transfer};
use tokio::net::TcpListener;
use tonic::transport::Channel;
use worker::{
    CandleLoader, Loader, ScriptedLoader, Worker,
    memory::{Gauge, Memory},
};

use super::Settings;
use crate::output::told;

/// Gateways remove what no model needs any more one after the other: two at once would look at each other's files.
const PRUNE_LOCK: &str = "prune";
/// Well below the hour for which blobs without a name are safe from others.
const KEEP_INTERVAL: Duration = Duration::from_secs(10 * 60);
/// Every hour. In a cluster a delete leaves young blobs to the pruning: another process may be about to name them.
const PRUNE_ROUNDS: u64 = 6;

/// What every part needs.
pub struct Parts<'a> {
    pub settings: &'a Settings,
    pub registry: &'a Registry,
    pub shutdown: &'a Shutdown,
    pub metrics: &'a Metrics,
}

impl Parts<'_> {
    /// Starts a worker, on TCP or for this process alone; answers the channel to it.
    pub async fn worker(&self, listener: Option<(TcpListener, SocketAddr)>) -> Result<Channel> {
        let settings = self.settings;
        let (listener, address) = match listener {
            Some((listener, bound)) => {
                (Some(listener), settings.advertise.clone().unwrap_or_else(|| bound.to_string()))
            }
            None => (None, WorkerRecord::IN_PROCESS.to_owned()),
        };
        let (device, meter) = self.device()?;
        let mut config = worker::Config {
            id: settings.id.clone(),
            address,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            devices: vec![self.describe(device, meter.as_ref())],
            ..worker::Config::default()
        };
        if let Some(keep_alive) = settings.keep_alive {
            config.keep_alive = worker::KeepAlive::from_ns(keep_alive.nanos());
        }
        if settings.context_length > 0 {
            config.context_length = settings.context_length as usize;
        }
        // No end is one that nobody lives to see.
        config.load_timeout = settings.load_timeout.unwrap_or(Duration::MAX);
        if let Some(meter) = meter {
            let overhead = settings.gpu_overhead;
            config.gauge = Gauge::new(move || {
                let engine::DeviceMemory { total_bytes, available_bytes } = meter.measure();
                Memory { total_bytes, available_bytes: available_bytes.saturating_sub(overhead) }
            });
        }
        let worker = Worker::start(config, self.loader(device).await?, self.registry.clone()).await?;
        let channel = worker.in_process_channel();
        let stop = self.shutdown.drain_token();
        let shutdown = self.shutdown.clone();
        self.shutdown.serve("worker", async move {
            if let Err(error) = worker.serve(listener, stop).await {
                tracing::error!(%error, "the worker has died");
                shutdown.begin();
            }
        });
        Ok(channel)
    }

    /// Where models are loaded to, and what tells its memory if that is not the machine's.
    fn device(&self) -> Result<(engine::Device, Option<Meter>)> {
        if self.settings.scripted {
            return Ok((engine::Device::Cpu, None));
        }
        let device = self.settings.device.unwrap_or_else(engine::Device::detect);
        let meter = device.meter();
        ensure!(
            meter.is_some() || device == engine::Device::Cpu,
            "`device` is {device}, there is no such GPU"
        );
        Ok((device, meter))
    }

    fn describe(&self, device: engine::Device, meter: Option<&Meter>) -> Device {
        let kind = match device {
            // Gateways let a scripted worker serve names that no store has.
            _ if self.settings.scripted => "scripted",
            engine::Device::Cuda(_) => "cuda",
            engine::Device::Cpu | engine::Device::CandleCpu => "cpu",
        };
        let name = meter.map(|_| device.to_string()).unwrap_or_default();
        let memory_bytes = meter.map_or(0, |meter| meter.measure().total_bytes);
        Device { kind: kind.to_owned(), name, memory_bytes, ..Device::default() }
    }

    async fn loader(&self, device: engine::Device) -> Result<Arc<dyn Loader>> {
        let settings = self.settings;
        if settings.scripted {
            let tokens_per_second = settings.tokens_per_second as f64;
            let config = worker::scripted::Config { tokens_per_second };
            return Ok(Arc::new(ScriptedLoader { config, load_time: settings.scripted_load }));
        }
        let store = self.open_store().await?;
        let Settings { threads, tier, guesses, kv_type, .. } = *settings;
        Ok(Arc::new(CandleLoader { store, threads, tier, guesses, kv_type, device }))
    }

    async fn open_store(&self) -> Result<Store> {
        self.settings.storage.open(self.settings.prune, self.is_cluster()).await
    }

    /// Whether other processes work on the same store.
    fn is_cluster(&self) -> bool {
        !self.settings.etcd.is_empty()
    }

    /// Starts a gateway; `channel` leads to the worker of this process.
    pub async fn gateway(
        &self,
        listener: TcpListener,
        channel: Option<Channel>,
        has_worker: Condition,
    ) -> Result<Handle> {
        let settings = self.settings;
        let store = self.open_store().await?;
        let limits =
            self.registry.set_limits_from_environment(settings.limits).await.context("write the limits")?;
        tracing::info!(?limits, "limits of the cluster");
        let config = gateway::Config {
            origins: settings.origins.clone(),
            host_name: node::ident::host_name(),
            keep_alive: settings.keep_alive,
            context_length: settings.context_length,
            load_timeout: settings.load_timeout,
            keys: settings.keys.clone(),
            transfer: transfer::Config { mirrors: settings.mirrors.clone(), ..transfer::Config::default() },
            channels: channel
                .map(|channel| (WorkerRecord::IN_PROCESS.to_owned(), channel))
                .into_iter()
                .collect(),
            ..gateway::Config::new(engine::is_supported)
        };
        let gateway = Gateway::new(config, self.registry.clone(), store.clone())?;
        let handle = gateway.handle();
        handle.measure(self.metrics);
        self.follow(&handle, has_worker);
        self.prune(store);
        let (stop, shutdown) = (self.shutdown.drain_token(), self.shutdown.clone());
        self.shutdown.serve("gateway", async move {
            if let Err(error) = gateway.serve(listener, stop).await {
                tracing::error!(%error, "the gateway has died");
                shutdown.begin();
            }
        });
        Ok(handle)
    }

    /// Keeps the readiness true: a gateway without a worker can list models but not run any.
    fn follow(&self, handle: &Handle, has_worker: Condition) {
        let (handle, stop) = (handle.clone(), self.shutdown.stop_token());
        self.shutdown.support("readiness", async move {
            let mut changes = handle.changes();
            loop {
                if handle.workers() > 0 {
                    has_worker.set_met();
                } else {
                    has_worker.set_missing("no worker can be reached");
                }
                if stop.run_until_cancelled(changes.changed()).await.is_none() {
                    return;
                }
            }
        });
    }

    fn prune(&self, store: Store) {
        let (registry, stop) = (self.registry.clone(), self.shutdown.drain_token());
        let is_cluster = self.is_cluster();
        self.shutdown.support("prune", async move {
            let mut tick = tokio::time::interval(KEEP_INTERVAL);
            for round in 0_u64.. {
                if stop.run_until_cancelled(tick.tick()).await.is_none() {
                    return;
                }
                if round % PRUNE_ROUNDS > 0 {
                    if let Some(Err(error)) = stop.run_until_cancelled(store.keep_young()).await {
                        tracing::warn!(%error, "what is in use here may be removed by others");
                    }
                    continue;
                }
                let pruned = stop.run_until_cancelled(async {
                    let lock = registry.lock(PRUNE_LOCK).await.context("take the lock")?;
                    let pruned = store.prune().await.context("remove unused blobs")?;
                    lock.release().await;
                    anyhow::Ok(pruned)
                });
                match pruned.await {
                    Some(Ok(pruned)) => tracing::debug!(?pruned, "pruned the store"),
                    Some(Err(error)) => {
                        tracing::warn!(error = told(&error), "cannot prune the store");
                    }
                    None => {}
                }
                // The first listing reads every manifest; nobody shall wait for that.
                if let Some(Err(error)) = stop.run_until_cancelled(store.list()).await {
                    tracing::warn!(%error, "cannot list the models");
                }
                if !is_cluster {
                    return;
                }
            }
        });
    }
}
