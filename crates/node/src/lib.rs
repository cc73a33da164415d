//! What every Caravan process shares, and nothing else: how it is configured, what it logs, how it ends, how it serves
//! HTTP, what it tells on its admin port, and what it is called. A closed list, so that it never becomes the crate for everything.

pub mod admin;
pub mod config;
pub mod host;
pub mod http;
pub mod ident;
pub mod metrics;
pub mod shutdown;
pub mod telemetry;

pub use config::{Setting, Sources};
pub use host::Host;
pub use metrics::Metrics;
pub use shutdown::Shutdown;
