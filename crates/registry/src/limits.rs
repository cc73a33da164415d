//! The cluster-wide bounds: one record, written by the gateway that started last, or pinned by an operator.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tracing::{info, warn};

use crate::{
    error::{Error, Result},
    keys,
    records::{decode, encode},
    retry::Retry,
    store::{Condition, MetadataStore, Op, Outcome},
};

/// Ollama loads up to this many models per device; on a machine without a GPU this many in all.
pub const MODELS_PER_DEVICE: u32 = 3;

/// What the numbers mean is contract: C1, C2 and C3 of the design.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Models in memory over all workers; 0 = [`MODELS_PER_DEVICE`] for each device.
    #[serde(default)]
    pub max_loaded_models: u32,
    /// Sequences that one replica runs at once; 0 = the worker decides.
    #[serde(default)]
    pub num_parallel: u32,
    /// Requests that wait, over all gateways.
    #[serde(default = "default_max_queue")]
    pub max_queue: u32,
}

/// What `caravan limits set` fixes; `None` leaves it to the environment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pins {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_loaded_models: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub num_parallel: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_queue: Option<u32>,
}

/// The stored form.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LimitsRecord {
    /// Of the gateway that started last.
    #[serde(default)]
    pub environment: Limits,
    #[serde(default)]
    pub pins: Pins,
    /// Who wrote the record last: an id of a gateway or operator.
    #[serde(default)]
    pub written_by: String,
    /// Unix seconds; for people.
    #[serde(default)]
    pub written_at: u64,
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

// === impl Limits ===

impl Default for Limits {
    fn default() -> Limits {
        Limits { max_loaded_models: 0, num_parallel: 0, max_queue: default_max_queue() }
    }
}

/// Ollama's.
fn default_max_queue() -> u32 {
    512
}

impl Limits {
    /// How many permits may be held while live workers have `devices` devices in all.
    pub fn permits(&self, devices: usize) -> u32 {
        match self.max_loaded_models {
            0 => automatic_permits(devices),
            fixed => fixed,
        }
    }
}

fn automatic_permits(devices: usize) -> u32 {
    let devices = u32::try_from(devices).unwrap_or(u32::MAX).max(1);
    devices.saturating_mul(MODELS_PER_DEVICE)
}

// === impl Pins ===

impl Pins {
    pub fn is_empty(&self) -> bool {
        *self == Pins::default()
    }

    /// These, and where these are silent, `older`.
    fn over(self, older: Pins) -> Pins {
        Pins {
            max_loaded_models: self.max_loaded_models.or(older.max_loaded_models),
            num_parallel: self.num_parallel.or(older.num_parallel),
            max_queue: self.max_queue.or(older.max_queue),
        }
    }
}

// === impl LimitsRecord ===

impl LimitsRecord {
    /// What holds: the pin where there is one, else the environment.
    pub fn effective(&self) -> Limits {
        Limits {
            max_loaded_models: self.pins.max_loaded_models.unwrap_or(self.environment.max_loaded_models),
            num_parallel: self.pins.num_parallel.unwrap_or(self.environment.num_parallel),
            max_queue: self.pins.max_queue.unwrap_or(self.environment.max_queue),
        }
    }
}

pub(crate) async fn set_from_environment(
    store: &dyn MetadataStore,
    by: &str,
    environment: Limits,
) -> Result<Limits> {
    let (before, after) = change(store, by, |record| record.environment = environment).await?;
    let (old, new) = (before.map(|record| record.effective()), after.effective());
    if new != environment {
        warn!(?environment, ?new, "limits are pinned, the environment of this gateway does not count");
    }
    match old {
        Some(old) if old != new => {
            warn!(?old, ?new, by, "limits changed: the newest gateway's environment wins")
        }
        Some(_) => {}
        None => info!(?new, by, "limits set from the environment"),
    }
    Ok(new)
}

pub(crate) async fn pin(store: &dyn MetadataStore, by: &str, pins: Pins) -> Result<Limits> {
    let (_, after) = change(store, by, |record| record.pins = pins.over(record.pins)).await?;
    info!(pins = ?after.pins, by, "limits pinned");
    Ok(after.effective())
}

pub(crate) async fn unpin(store: &dyn MetadataStore, by: &str) -> Result<Limits> {
    let (_, after) = change(store, by, |record| record.pins = Pins::default()).await?;
    info!(limits = ?after.effective(), by, "limits unpinned");
    Ok(after.effective())
}

/// Reads, changes and writes by compare-and-set; answers what was there and what is there now.
async fn change(
    store: &dyn MetadataStore,
    by: &str,
    edit: impl Fn(&mut LimitsRecord),
) -> Result<(Option<LimitsRecord>, LimitsRecord)> {
    let mut retry = Retry::contended(keys::LIMITS);
    loop {
        let snapshot = store.range(keys::LIMITS).await?;
        let item = snapshot.get(keys::LIMITS);
        let before = item.map(|item| decode::<LimitsRecord>(&item.value)).transpose();
        let before = before.map_err(|reason| Error::Unreadable { key: keys::LIMITS.to_owned(), reason })?;
        let mut after = before.clone().unwrap_or_default();
        edit(&mut after);
        after.written_by = by.to_owned();
        after.written_at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let condition = Condition::unchanged(keys::LIMITS, item);
        let outcome = store.txn(&[condition], &[Op::put(keys::LIMITS, encode(&after))]).await?;
        if let Outcome::Committed { .. } = outcome {
            return Ok((before, after));
        }
        retry.wait().await?;
    }
}
