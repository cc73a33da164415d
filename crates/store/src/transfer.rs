//! Models from and to registries that speak the OCI distribution protocol, with Ollama's tokens, files and texts.
//!
//! ```text
//! origin, challenge, parts    pure: where a name is, what a token costs, how a blob is cut
//! session                     requests to one repository: tokens, redirects, bounds
//! download, upload            one blob; what is downloaded may come from a bucket, too
//! pull, push                  a model
//! ```

mod challenge;
pub(crate) mod download;
pub(crate) mod downloads;
mod error;
mod key;
mod origin;
pub(crate) mod parts;
mod pull;
mod push;
mod registry;
mod session;
mod tell;
mod upload;

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use reqwest::redirect::Policy;

use crate::store::Inner;
use crate::{Result, Store};
use downloads::Downloads;
use session::Session;

pub use error::Error;
pub use origin::{Mirrors, Wish};
pub use pull::Pulled;
pub(crate) use tell::Bar;
pub use tell::Tell;

/// What an operator sets, and what tests make shorter.
#[derive(Clone, Debug)]
pub struct Config {
    pub mirrors: Mirrors,
    /// Ollama's key file, made when a registry first asks who we are.
    pub key: PathBuf,
    pub user_agent: String,
    pub tuning: Tuning,
}

/// Sizes and times of Ollama's, except where it has no bound.
#[derive(Clone, Debug)]
pub struct Tuning {
    pub min_part_bytes: u64,
    pub max_part_bytes: u64,
    /// Parts of one blob at the same time.
    pub streams: usize,
    /// How often a part may fail in a row.
    pub tries: u32,
    /// The first pause between two tries; each next one is twice as long.
    pub pause: Duration,
    /// A part that gets nothing for so long is tried again.
    pub stall: Duration,
    /// How long a small answer, such as a manifest, may take to begin.
    pub answer: Duration,
    /// How long a registry may take over an upload that it has all bytes of.
    pub commit: Duration,
    /// Between two lines of progress.
    pub tick: Duration,
}

/// The component: pulls and pushes models of one store. Cheap to clone; all clones share their downloads.
#[derive(Clone)]
pub struct Transfer {
    shared: Arc<Shared>,
}

struct Shared {
    store: Arc<Inner>,
    config: Arc<Config>,
    downloads: Downloads,
    http: OnceLock<reqwest::Client>,
}

// === impl Config ===

impl Config {
    /// Ollama's behaviour. `key` is `~/.ollama/id_ed25519`.
    pub fn new(key: PathBuf) -> Config {
        Config { mirrors: Mirrors::default(), key, user_agent: user_agent(), tuning: Tuning::default() }
    }
}

// === impl Tuning ===

impl Default for Tuning {
    fn default() -> Tuning {
        Tuning {
            min_part_bytes: 100_000_000,
            max_part_bytes: 1_000_000_000,
            streams: 16,
            tries: 6,
            pause: Duration::from_secs(1),
            stall: Duration::from_secs(30),
            answer: Duration::from_secs(60),
            // It may have to write gigabytes to another place first.
            commit: Duration::from_secs(5 * 60),
            tick: Duration::from_millis(60),
        }
    }
}

impl Tuning {
    /// Before the try after `tries` failures.
    fn pause(&self, tries: u32) -> Duration {
        self.pause * 2_u32.saturating_pow(tries.saturating_sub(1).min(6))
    }
}

// === impl Transfer ===

impl Transfer {
    pub fn new(store: &Store, config: Config) -> Transfer {
        let shared = Shared {
            store: store.inner(),
            config: Arc::new(config),
            downloads: Downloads::default(),
            http: OnceLock::new(),
        };
        Transfer { shared: Arc::new(shared) }
    }

    /// Brings everything that a model needs; nothing names it until [`Transfer::settle`]. Dropping the future stops the
    /// downloads that nobody else waits for, and leaves what can be resumed.
    pub async fn fetch(&self, wish: &Wish, tell: &Tell) -> Result<Pulled> {
        pull::fetch(&self.shared, wish, tell).await
    }

    /// Gives what was fetched its name. The caller holds the lock of the name.
    pub async fn settle(&self, pulled: Pulled, tell: &Tell) -> Result<()> {
        pull::settle(&self.shared, pulled, tell).await
    }

    /// Sends a stored model to the registry that its name says.
    pub async fn push(&self, wish: &Wish, tell: &Tell) -> Result<()> {
        push::push(&self.shared, wish, tell).await
    }
}

impl Shared {
    fn session(&self, origin: origin::Origin) -> Result<Arc<Session>, Error> {
        Ok(Arc::new(Session::new(self.http()?, origin, Arc::clone(&self.config))))
    }

    /// Made when it is first needed: a machine without root certificates must be able to serve what it has.
    fn http(&self) -> Result<reqwest::Client, Error> {
        if let Some(http) = self.http.get() {
            return Ok(http.clone());
        }
        install_crypto();
        let builder = reqwest::Client::builder()
            .user_agent(&self.config.user_agent)
            .connect_timeout(self.config.tuning.stall)
            // Followed by hand: what goes to another server goes without our credentials.
            .redirect(Policy::none());
        let http = builder.build().map_err(|error| Error::Client(error.to_string()))?;
        Ok(self.http.get_or_init(|| http).clone())
    }
}

/// For every client that speaks TLS in this crate.
pub(crate) fn install_crypto() {
    // An error only says that this process has a provider already.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// With the key in the home folder, as Ollama has it.
impl Default for Config {
    fn default() -> Config {
        let home = std::env::home_dir().unwrap_or_else(|| PathBuf::from("."));
        Config::new(home.join(".ollama/id_ed25519"))
    }
}

/// Registries tell old clients by this to renew themselves.
fn user_agent() -> String {
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let (version, os) = (api::ollama::OLLAMA_VERSION, std::env::consts::OS);
    format!("ollama/{version} ({arch} {os}) caravan/{}", env!("CARGO_PKG_VERSION"))
}
