//! The worker through a real gRPC client, over the in-process channel and TCP, with the scripted engine and the
//! in-process metadata store; and the laws that every engine keeps.

mod answers;
mod drains;
mod ground;
mod laws;
mod lifetimes;
mod loads;
mod tiny;
