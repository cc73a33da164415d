//! The models, in a folder in Ollama's own layout or in a bucket: names, manifests, blobs, Modelfiles.
//!
//! Async at its border; inside, what blocks runs on blocking threads. `home` is the seam between the two places. Only
//! `transfer`, which moves models from and to registries, and `bucket` speak over the network. Knows nothing about workers, never quantizes.

mod bucket;
mod builtin;
pub mod bundle;
mod cache;
mod capability;
mod config;
mod create;
mod digest;
mod directory;
mod durable;
mod error;
mod golang;
mod home;
mod location;
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
#[cfg(feature = "testing")]
pub mod testing;
pub mod transfer;
mod unfinished;
mod upload;
mod weights;

pub use bucket::Access;
pub use cache::BlobFile;
pub use config::Config;
pub use create::{Conversion, CreateSpec, Made};
pub use digest::Digest;
pub use error::{Error, Result};
pub use home::Header;
pub use location::Location;
pub use making::NewBlob;
pub use manifest::{Layer, LayerKind, Manifest};
pub use model::Model;
pub use modelfile::Modelfile;
pub use name::Name;
pub use pins::Pins;
pub use remove::Pruned;
pub use store::{Store, StoreConfig};
pub use upload::Upload;
