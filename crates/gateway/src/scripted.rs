//! Models that are in no store: a worker with the scripted engine serves any name, for tests and benchmarks of the
//! gateway (`caravan worker --engine scripted`).

use std::time::SystemTime;

use api::ollama::Details;
use registry::{ClusterView, WorkerRecord};
use serde_json::Map;
use store::{Config, Digest, Layer, Manifest, Model, Name};

/// What such a worker announces as the kind of its device.
const DEVICE_KIND: &str = "scripted";

pub fn is_there(view: &ClusterView) -> bool {
    view.workers.values().any(|worker| is_scripted(worker))
}

pub fn is_scripted(worker: &WorkerRecord) -> bool {
    worker.devices.iter().any(|device| device.kind == DEVICE_KIND)
}

/// A model with a name and nothing else. One name is always the same model.
pub fn model(name: Name) -> Model {
    let weights = Digest::of(name.full().to_lowercase().as_bytes());
    Model {
        digest: weights.hex().to_owned(),
        size: 0,
        modified_at: SystemTime::UNIX_EPOCH,
        manifest: Manifest::new(Layer::config(weights.clone(), 0), Vec::new()),
        config: Config::default(),
        weights: Some(weights),
        adapters: Vec::new(),
        projector: None,
        template: None,
        chat_template: None,
        system: None,
        parameters: Map::new(),
        messages: Vec::new(),
        licenses: Vec::new(),
        capabilities: ["completion", "embedding", "rerank"].map(str::to_owned).to_vec(),
        details: Details::default(),
        name,
    }
}
