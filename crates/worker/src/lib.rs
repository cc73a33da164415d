//! Runs models on one machine and serves them to gateways over gRPC: replicas, runners, prompts, replies.
//!
//! It never parses HTTP, resolves names or queues: a request that finds no slot is answered `busy` at once.

mod answer;
mod changes;
mod clock;
mod config;
mod converter;
mod format;
mod hash;
mod in_process;
mod keep_alive;
mod loader;
pub mod memory;
mod outbox;
mod prompt;
mod replicas;
mod reply;
mod runner;
pub mod scripted;
mod sequence;
mod service;
mod slots;
mod worker;

pub use config::Config;
pub use converter::Converter;
pub use keep_alive::KeepAlive;
pub use loader::{Built, CandleLoader, Loader, Opened, Report, ScriptedLoader, Shape};
pub use worker::{Error, Worker};
