//! The gateway's routes in front of fake workers: a real registry in memory, a real store in a temporary folder, and
//! workers that answer by script over in-memory connections. Nothing here waits for time to pass.

#![allow(clippy::unwrap_used, reason = "a failure in a test is the message")]

mod fake;
mod rig;

mod anthropic;
mod bad_input;
mod cancel;
mod chat;
mod converts;
mod embed;
mod foreign;
mod generate;
mod load;
mod models;
mod native;
mod openai;
mod queue;
mod rerank;
mod responses;
mod resume;
mod stress;
mod transfer;
mod transport;
mod wire;
