//! Helpers for the tests across processes: scenarios, real processes, real clients.

#![allow(clippy::print_stderr, reason = "the output of a failing test is its message")]

use std::process::Command;

use anyhow::{Context, Result, ensure};

pub mod cluster;
pub mod compatibility;
pub mod docker_registry;
pub mod javascript;
pub mod process;
pub mod python;
pub mod scenario;
pub mod terminal;

/// A client for the requests of a test.
pub fn http() -> reqwest::Client {
    // An error only says that this process has a provider already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::new()
}

/// Runs a command to its end, which must be success; what it printed is told otherwise.
fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("run {command:?}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    ensure!(output.status.success(), "{command:?} failed:\n{}{}", text(&output.stdout), text(&output.stderr));
    Ok(())
}
