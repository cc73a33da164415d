//! What the processes of a cluster know about each other, kept in a metadata store: who is there, what is loaded
//! where, what may be loaded, and where the next request should go.
//!
//! It runs no model and speaks no HTTP.

mod error;
mod etcd;
mod keys;
mod lease;
mod limits;
mod locks;
mod memory;
mod permits;
pub mod placement;
mod reaper;
mod records;
mod registry;
mod retry;
mod session;
pub mod store;
mod tasks;
#[cfg(feature = "testing")]
pub mod testing;
mod view;
mod watcher;

pub use crate::{
    error::{Error, Result},
    etcd::{Etcd, EtcdConfig},
    keys::ReplicaId,
    limits::{Limits, LimitsRecord, MODELS_PER_DEVICE, Pins},
    locks::Lock,
    memory::Memory,
    permits::Permit,
    records::{Device, PermitRecord, ReplicaRecord, ReplicaState, WorkerRecord},
    registry::{Config, Registry},
    session::{Session, SessionState},
    store::MetadataStore,
    view::{ClusterView, HeldPermit},
};
