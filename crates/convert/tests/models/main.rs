//! A real model: quantized to every type that is offered, it still says what it said; from its checkpoint, it is the same.

#![allow(clippy::unwrap_used, reason = "tests may, and their helpers are tests too")]

mod making;
mod quantized;
mod rebuilt;
mod source;
