//! What the values in the metadata store mean: JSON objects with a version, in which a process keeps the fields
//! that it does not know, because a newer neighbour wrote them.

use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

/// Of every record's shape. Raised only by a change that an older reader would misread; adding a field is none.
const VERSION: u32 = 1;

/// A worker that is there. Leased: gone when the worker is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WorkerRecord {
    pub id: String,
    /// New at every start of the process.
    pub boot_id: String,
    /// `host:port`, or [`WorkerRecord::IN_PROCESS`].
    pub address: String,
    #[serde(default)]
    pub devices: Vec<Device>,
    /// What models may use in all, over devices and host; 0 = not known.
    #[serde(default)]
    pub memory_bytes: u64,
    /// Positions that a slot gets here when nobody names a number; 0 = not known.
    #[serde(default)]
    pub context_length: u32,
    /// Of the program.
    #[serde(default)]
    pub version: String,
    /// Finishes what it runs, takes nothing new.
    #[serde(default)]
    pub draining: bool,
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Device {
    /// `cpu`, `cuda`, ..
    pub kind: String,
    #[serde(default)]
    pub name: String,
    #[serde(default)]
    pub memory_bytes: u64,
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// One model loaded on one worker. Leased with the worker's session.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ReplicaRecord {
    pub worker: String,
    pub replica_key: String,
    /// Under which it was first asked for.
    #[serde(default)]
    pub name: String,
    #[serde(default)]
    pub manifest_digest: String,
    #[serde(default)]
    pub state: ReplicaState,
    /// How many sequences run at once.
    #[serde(default)]
    pub slots: u32,
    /// Positions of one slot.
    #[serde(default)]
    pub context_length: u32,
    /// What the model could have at most; 0 = not known. Asking for more than this never reloads.
    #[serde(default)]
    pub train_context_length: u32,
    #[serde(default)]
    pub size_bytes: u64,
    #[serde(default)]
    pub size_vram_bytes: u64,
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReplicaState {
    #[default]
    Loading,
    Ready,
    Unloading,
    /// A word from a newer version. It holds its permit, and nobody here uses it.
    #[serde(other)]
    Unknown,
}

/// The right of one worker to have one model in memory. Not leased: see `permits`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PermitRecord {
    pub worker: String,
    pub replica_key: String,
    /// Names the session together with the worker: its record carries the same one as long as it is alive.
    pub boot_id: String,
    /// Where the worker listens: a refused connection proves that its process is gone.
    pub address: String,
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// The one value of `catalog`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct CatalogRecord {
    #[serde(default)]
    pub count: u64,
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

#[derive(Serialize, Deserialize)]
struct Versioned<T> {
    #[serde(default)]
    version: u32,
    record: T,
}

// === impl WorkerRecord ===

impl WorkerRecord {
    /// The address of a worker that lives in the gateway's own process.
    pub const IN_PROCESS: &str = "in-process";

    /// Whether `newer` proves that this worker's process is gone.
    pub(crate) fn is_replaced_by(&self, newer: &WorkerRecord) -> bool {
        PermitRecord::new(self, "").is_replaced_by(newer)
    }
}

// === impl PermitRecord ===

impl PermitRecord {
    pub(crate) fn new(worker: &WorkerRecord, replica_key: &str) -> PermitRecord {
        PermitRecord {
            worker: worker.id.clone(),
            replica_key: replica_key.to_owned(),
            boot_id: worker.boot_id.clone(),
            address: worker.address.clone(),
            extra: Map::new(),
        }
    }

    /// Whether `newer` proves that the holder's process is gone: it listens where the holder did. In one process
    /// an address proves nothing, but nobody runs one worker there twice.
    pub(crate) fn is_replaced_by(&self, newer: &WorkerRecord) -> bool {
        let is_same_place = self.address == newer.address
            && (self.address != WorkerRecord::IN_PROCESS || self.worker == newer.id);
        is_same_place && self.boot_id != newer.boot_id
    }
}

/// The stored form: `{"version":1,"record":{..}}`.
pub(crate) fn encode<T: Serialize>(record: &T) -> Bytes {
    let text = serde_json::to_vec(&Versioned { version: VERSION, record });
    text.expect("records are plain structs with string keys, which always have a JSON form").into()
}

/// The reverse of [`encode`]; the text says what is wrong with the value.
pub(crate) fn decode<T: DeserializeOwned>(value: &[u8]) -> Result<T, String> {
    let versioned: Versioned<T> = serde_json::from_slice(value).map_err(|error| error.to_string())?;
    if versioned.version > VERSION {
        return Err(format!("`version` must be at most {VERSION}, got {}", versioned.version));
    }
    Ok(versioned.record)
}
