//! Helpers for the tests across processes: scenarios, real processes, real clients.

#![allow(clippy::print_stderr, reason = "the output of a failing test is its message")]

pub mod cluster;
pub mod compatibility;
pub mod process;
pub mod python;
pub mod scenario;

/// A client for the requests of a test.
pub fn http() -> reqwest::Client {
    // An error only says that this process has a provider already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::new()
}
