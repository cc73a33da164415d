//! The test kit: the laws of a metadata store, and a real etcd to run them on. For the tests of this crate and of
//! those that start whole clusters.

mod etcd_server;
pub mod laws;

pub use etcd_server::{EtcdServer, StartError};
