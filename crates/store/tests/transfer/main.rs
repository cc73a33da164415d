//! Pulls and pushes against a registry in this process that can lie, cut, hang and count. Against a real registry they
//! are in `tests/tests/transfer.rs`.

#![expect(
    clippy::unwrap_used,
    reason = "a failure in a fixture is the test's message, as in the test itself"
)]

mod access;
mod lies;
mod pull;
mod push;
mod rig;
mod server;
