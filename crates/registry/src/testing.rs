//! The test kit: the laws of a metadata store, a real etcd to run them on, and a wire to cut. For the tests of this
//! crate and of those that start whole clusters.

mod etcd_server;
#[allow(clippy::unwrap_used, reason = "a law that cannot be run has failed, in other crates' tests too")]
pub mod laws;
mod wire;

pub use etcd_server::{EtcdServer, StartError};
pub use wire::{Wire, WireState};
