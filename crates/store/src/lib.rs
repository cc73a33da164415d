//! The models folder, in Ollama's own layout: names, manifests, blobs, Modelfiles.
//!
//! Async at its border, because an object store joins later; inside, plain file I/O on blocking threads. Only
//! `transfer`, which moves models from and to registries, speaks over the network. Knows nothing about workers, never quantizes.

pub mod bundle;
mod capability;
mod config;
mod create;
mod digest;
mod directory;
mod durable;
mod error;
mod golang;
mod home;
mod lock;
mod making;
mod manifest;
mod model;
pub mod modelfile;
mod name;
mod pins;
mod remove;
mod shelf;
mod show;
mod store;
pub mod transfer;
mod unfinished;
mod upload;
mod weights;

pub use config::Config;
pub use create::{Conversion, CreateSpec, Made};
pub use digest::Digest;
pub use error::{Error, Result};
pub use home::Header;
pub use making::NewBlob;
pub use manifest::{Layer, LayerKind, Manifest};
pub use model::Model;
pub use modelfile::Modelfile;
pub use name::Name;
pub use remove::Pruned;
pub use store::{Store, StoreConfig};
pub use upload::Upload;
