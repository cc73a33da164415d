//! What an operator sets for a worker.

use std::time::Duration;

use registry::Device;

use crate::{keep_alive::KeepAlive, memory::Gauge};

#[derive(Clone, Debug)]
pub struct Config {
    pub id: String,
    /// Where gateways reach it: `host:port`, or [`registry::WorkerRecord::IN_PROCESS`].
    pub address: String,
    /// Of the program; shown to people.
    pub version: String,
    pub devices: Vec<Device>,
    /// How long an idle replica stays when nobody says so (`OLLAMA_KEEP_ALIVE`).
    pub keep_alive: KeepAlive,
    /// Positions of a slot when nobody says so (`OLLAMA_CONTEXT_LENGTH`).
    pub context_length: usize,
    /// A load that makes no progress for so long has failed for those who wait for it (`OLLAMA_LOAD_TIMEOUT`).
    pub load_timeout: Duration,
    /// How long a caller that needs a larger context waits for the answers of the present replica to end.
    pub reload_wait: Duration,
    /// How long answers may go on after the worker was told to stop.
    pub drain_timeout: Duration,
    /// How the memory is measured.
    pub gauge: Gauge,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            id: String::new(),
            address: registry::WorkerRecord::IN_PROCESS.to_owned(),
            version: String::new(),
            devices: vec![Device { kind: "cpu".to_owned(), ..Device::default() }],
            keep_alive: KeepAlive::default(),
            context_length: 4096,
            load_timeout: Duration::from_secs(5 * 60),
            reload_wait: Duration::from_secs(5 * 60),
            drain_timeout: Duration::from_secs(30),
            gauge: Gauge::system(),
        }
    }
}
