//! The registry as a whole, over the in-process store and over a real etcd.
#![allow(clippy::unwrap_used, reason = "a test's helpers fail as the test does")]

mod access;
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
