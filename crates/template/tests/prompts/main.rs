//! Prompts, byte by byte. The expected bytes of the Go tables were checked against Go's own `text/template`, those
//! of the Jinja ones against Python's jinja2.

#![allow(clippy::unwrap_used, reason = "tests may, and their helpers are tests too")]

mod choose;
mod functions;
mod infer;
mod jinja;
mod known;
mod language;
mod laws;
mod modes;
mod refusals;
mod shapes;
mod support;
mod values;
