//! The models folder as its users see it: each test has a folder of its own and looks at the files in it.

#![expect(
    clippy::unwrap_used,
    reason = "a failure in a fixture is the test's message, as in the test itself"
)]

mod blobs;
mod bundle;
mod convert;
mod create;
mod fixture;
mod inherit;
mod manage;
mod modelfile;
mod names;
mod prune;
mod refuse;
mod show;
