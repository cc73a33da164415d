//! The gateway: HTTP in, gRPC out. Ollama's, OpenAI's and Anthropic's routes in front of the workers of a cluster.
//!
//! Stateless but for its connections; any number of gateways run side by side. It never tokenizes, never reads the
//! weights of a model, and never decides where a model should be: `registry::placement` does.
//!
//! ```text
//! router -> guard -> keys -> routes -> resolve, compose   what is asked, and of which model
//!                              admission             who waits, and in which order
//!                              dispatch -> cluster   which worker, loading if need be
//!                              resume                the stream goes on when a worker dies
//!                              answer -> frames      what the client reads
//! ```

mod admission;
mod answer;
mod app;
mod body;
mod call;
mod cluster;
mod compose;
mod conversion;
mod dispatch;
mod errand;
mod frames;
mod gateway;
mod guard;
mod ids;
mod intake;
mod keys;
mod packed;
mod progress;
mod resolve;
mod respond;
mod resume;
mod router;
mod routes;
mod running;
mod scripted;

pub use gateway::{Config, Error, Gateway, Handle};
pub use keys::{Error as KeysError, Keys};
