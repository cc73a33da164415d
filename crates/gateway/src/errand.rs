//! What placement must know about a request: which model, how it wants to be loaded, for how long.

use api::KeepAlive;
use api::options::LoadOptions;
use protocol::v1;
use registry::placement::Context;
use store::Model;

use crate::compose::{Circumstances, keep_alive_ns};

/// Ollama's floor; a smaller context holds no conversation.
const MIN_CONTEXT: i64 = 4;

#[derive(Clone, Debug)]
pub struct Errand {
    pub model: v1::Model,
    /// Bytes of all its blobs: the least that it takes in memory.
    pub size_bytes: u64,
    pub load: v1::LoadOptions,
    /// What a replica must have to serve it (C6).
    pub context: Context,
    /// What the request says about keep-alive; `None` leaves a loaded replica's as it is.
    pub keep_alive_ns: Option<i64>,
    /// What holds for a replica that this request loads.
    pub first_keep_alive_ns: Option<i64>,
}

impl Errand {
    pub fn new(
        model: &Model,
        load: &LoadOptions,
        keep_alive: Option<KeepAlive>,
        circumstances: Circumstances,
    ) -> Errand {
        // The request's or the Modelfile's, else the operator's, else the worker's own.
        let num_ctx = match load.num_ctx {
            ..=0 => circumstances.context_length,
            wanted => u32::try_from(wanted.max(MIN_CONTEXT)).unwrap_or(u32::MAX),
        };
        Errand {
            model: described(model),
            size_bytes: model.size,
            load: v1::LoadOptions {
                num_ctx,
                num_batch: u32::try_from(load.num_batch).unwrap_or(0),
                num_gpu: i32::try_from(load.num_gpu).unwrap_or(-1),
                num_thread: u32::try_from(load.num_thread).unwrap_or(0),
            },
            context: if num_ctx == 0 { Context::Usual } else { Context::AtLeast(num_ctx) },
            keep_alive_ns: keep_alive.map(keep_alive_ns),
            first_keep_alive_ns: keep_alive.or(circumstances.keep_alive).map(keep_alive_ns),
        }
    }

    pub fn replica_key(&self) -> &str {
        &self.model.replica_key
    }
}

fn described(model: &Model) -> v1::Model {
    v1::Model {
        replica_key: model.replica_key(),
        name: model.name.shortest(),
        manifest_digest: model.digest.clone(),
        weights: model.weights.as_ref().map(ToString::to_string).unwrap_or_default(),
        adapters: model.adapters.iter().map(ToString::to_string).collect(),
        projector: model.projector.as_ref().map(ToString::to_string).unwrap_or_default(),
    }
}
