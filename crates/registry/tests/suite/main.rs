//! The registry as a whole, over the in-process store and over a real etcd.

mod ground;
mod interlopers;
mod laws;
mod limits;
mod locks;
mod outages;
mod permits;
mod races;
mod reaping;
mod sessions;
