//! The worker through a real gRPC client, over the in-process channel and TCP, with the scripted engine and the
//! in-process metadata store; and the laws that every engine keeps.

#![allow(clippy::unwrap_used, reason = "tests may, and their helpers are tests too")]

mod answers;
mod bucket;
mod converts;
mod drains;
mod files;
mod ground;
mod laws;
mod lifetimes;
mod loads;
mod reranks;
mod tiny;
